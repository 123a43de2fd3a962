"""Progress bars of the commands."""

from __future__ import annotations

from types import TracebackType
from typing import Any


class StageBars:
    """One tqdm bar per stage of a run, on stderr; none when stderr is no terminal or `hidden`."""

    def __init__(self, *, hidden: bool = False) -> None:
        self._hidden = hidden
        self._bars: dict[str, Any] = {}

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
        from tqdm import tqdm

        if stage not in self._bars:
            disable = True if self._hidden else None  # None: only where stderr is a terminal
            self._bars[stage] = tqdm(desc=stage, total=total, disable=disable)
        self._bars[stage].update(done)
