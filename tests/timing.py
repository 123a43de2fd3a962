"""Time, on machines whose processors others may be using."""

from __future__ import annotations

import time
from collections.abc import Callable

LONG = 600  # seconds after which what a test waits for is not going to happen


def seconds_of(run: Callable[[], object]) -> float:
    """Of a processor in this thread: others may use them meanwhile."""
    began = time.thread_time()
    run()
    return time.thread_time() - began
