"""Tasks for other processes, which start sooner for what this module does not import."""

from __future__ import annotations

import os
import time


def slowly(task):
    """Long enough for its worker to be killed meanwhile; says who did it."""
    time.sleep(0.5)
    return task, os.getpid()


def die_of_three(task):
    """The task, or the end of its worker."""
    if task == 3:
        os._exit(1)
    return task
