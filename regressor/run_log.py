"""What a run leaves in its folder besides checkpoints: metrics.jsonl, TensorBoard, run.json.

When each line was written stands in a file of its own, times.jsonl: metrics.jsonl is the same for
a run that was cut short and went on as for one that was left alone.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fitting.files import OutputError, write_atomically

METRICS_NAME = "metrics.jsonl"
TIMES_NAME = "times.jsonl"
RECORD_NAME = "run.json"
TENSORBOARD_NAME = "tensorboard"


class RunLog:
    """Lines of metrics.jsonl, one a step, and the same for TensorBoard if it is installed."""

    def __init__(self, folder: Path, step: int) -> None:
        """Go on after `step`; what an unfinished sitting wrote about later steps is dropped."""
        self._metrics, self._times = folder / METRICS_NAME, folder / TIMES_NAME
        for path in (self._metrics, self._times):
            _keep_until(path, step)
        self._tensorboard = _make_writer(folder / TENSORBOARD_NAME, step)

    @property
    def shows_pictures(self) -> bool:
        """Whether pictures go anywhere."""
        return self._tensorboard is not None

    def write(self, line: Mapping[str, Any], *, seconds: float) -> None:
        """Add a line.

        Args:
            line: `step`, and numbers or one level of named numbers.
            seconds: of training so far.

        Raises:
            OutputError: the disk is full, and the like.
        """
        _append(self._metrics, line)
        _append(self._times, {"step": line["step"], "seconds": round(seconds, 3)})
        if self._tensorboard is not None:
            for name, value in _scalars(line):
                self._tensorboard.add_scalar(name, value, line["step"])

    def draw(self, pictures: Mapping[str, np.ndarray], step: int) -> None:
        """Show (H, W, 3) uint8 RGB pictures in TensorBoard."""
        if self._tensorboard is not None:
            for name, picture in pictures.items():
                self._tensorboard.add_image(name, picture, step, dataformats="HWC")

    def close(self) -> None:
        """Force TensorBoard's events to the disk."""
        if self._tensorboard is not None:
            self._tensorboard.close()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Lines of a run's metrics.jsonl, in the order of their steps."""
    return list(_lines(folder / METRICS_NAME))


def _keep_until(path: Path, step: int) -> None:
    """Drop what an unfinished sitting wrote about later steps."""
    text = "".join(_dumped(line) for line in _lines(path) if line["step"] <= step)
    write_atomically(path, lambda stream: stream.write(text.encode("utf-8")))


def _append(path: Path, line: Mapping[str, Any]) -> None:
    try:
        with path.open("a", encoding="utf-8") as stream:
            stream.write(_dumped(line))
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}; make room") from error


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Whole lines of a metrics file; a kill may have cut the last one short."""
    if not path.exists():
        return
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(text)
        except ValueError:
            return


def _dumped(line: Mapping[str, Any]) -> str:
    return json.dumps(line, allow_nan=False) + "\n"


def _scalars(line: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in line.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}/{inner}", number) for inner, number in value.items())
        elif name != "step":
            yield name, value


def _make_writer(folder: Path, step: int) -> Any:
    """TensorBoard's writer, hiding what an earlier sitting wrote after `step`; None without it."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step + 1)


def command_line() -> str:
    """How this process was started."""
    return shlex.join(sys.argv)
