"""Where the time of a run goes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class StageClock:
    """Seconds by stage.

    Attributes:
        seconds: of each stage so far.
    """

    def __init__(self, seconds: Mapping[str, float]) -> None:
        """Go on from what is given, zeros for a new run."""
        self.seconds = dict(seconds)

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Count the seconds within to the stage."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - began
