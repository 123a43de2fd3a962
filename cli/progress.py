"""Progress bars of the commands."""

from __future__ import annotations

import shutil
import time
from types import TracebackType
from typing import Any

_UNITS = {"detect": "pictures", "synth": "pictures", "train": "steps", "export": "meshes"}
_UNIT = "people"  # of all other stages
_WIDEST = 100  # columns
_RESUMED = ("synth", "train")  # these first tell what an earlier sitting did, which took no time
_FORMAT = (
    "{desc:8}{percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt}{unit}, {rate_fmt}, {remaining} left"
)


class StageBars:
    """One tqdm bar per stage of a run, on stderr; none when stderr is no terminal or `hidden`.

    A bar has the rate of late and the time left at that rate.
    """

    def __init__(self, *, hidden: bool = False) -> None:
        self._hidden = hidden
        self._bars: dict[str, Any] = {}
        self._since = time.time()  # when the work began that the next update is about

    def __enter__(self) -> StageBars:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for bar in self._bars.values():
            bar.close()

    def update(self, stage: str, done: int, total: int) -> None:
        """Move the bar of `stage`, whose items number `total` in all, on by `done`."""
        if stage not in self._bars:
            before = done if stage in _RESUMED else 0
            done -= before
            self._bars[stage] = self._open(stage, before, total)
        self._bars[stage].update(done)
        self._since = time.time()

    def _open(self, stage: str, before: int, total: int) -> Any:
        from tqdm import tqdm

        bar = tqdm(
            desc=stage,
            total=total,
            initial=before,
            unit=f" {_UNITS.get(stage, _UNIT)}",
            bar_format=_FORMAT,
            ncols=min(shutil.get_terminal_size().columns, _WIDEST),
            disable=True if self._hidden else None,  # None: only where stderr is a terminal
        )
        if not bar.disable:  # the first items took their time before there was a bar
            bar.start_t = bar.last_print_t = self._since
        return bar
