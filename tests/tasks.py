"""Tasks for other processes, which start sooner for what this module does not import."""

from __future__ import annotations

import os
import resource
import time


def slowly(task):
    """Long enough for its worker to be killed meanwhile; says who did it."""
    time.sleep(0.5)
    return task, os.getpid()


def count_faults(num_bytes):
    """Pages that the system had to find for arrays of so many bytes, one after another."""
    faults = []
    for _ in range(4):
        bytearray(num_bytes)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
    return faults[-1] - faults[0]


def die_of_three(task):
    """The task, or the end of its worker."""
    if task == 3:
        os._exit(1)
    return task
