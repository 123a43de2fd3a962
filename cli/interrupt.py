"""Ctrl-C and polite kills: what was begun is finished first."""

from __future__ import annotations

import os
import signal
from types import FrameType, TracebackType
from typing import Any


class Interrupt:
    """Remembers Ctrl-C and polite kills while it is entered; a second Ctrl-C ends at once."""

    def __init__(self, notice: str = "") -> None:
        """Be ready to listen.

        Args:
            notice: said on stderr when a signal comes.
        """
        self.number = 0  # of the signal that came
        self._notice = notice
        self._before: dict[int, Any] = {}

    def came(self) -> bool:
        """Whether a signal came."""
        return self.number != 0

    @property
    def exit_code(self) -> int:
        """That of a program so stopped; as by Ctrl-C where another process alone was told."""
        return 128 + (self.number or signal.SIGINT)

    def __enter__(self) -> Interrupt:
        """Listen."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Listen no more."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # torchrun passes Ctrl-C on to processes that the terminal has told already
        if self.came() and number == signal.SIGINT and "TORCHELASTIC_RUN_ID" not in os.environ:
            raise KeyboardInterrupt
        if self._notice and not self.came():
            os.write(2, f"{self._notice}\n".encode())  # `print` may be at work already
        self.number = self.number or number
