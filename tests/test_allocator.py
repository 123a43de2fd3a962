"""Freed memory is kept: faults of pages are counted by the system itself."""

import platform
import subprocess
import sys

import pytest
import tasks

from fitting.workers import map_unordered

PROGRAM = """
import resource, sys
import numpy as np
from fitting.allocator import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
for i in range(21):
    if i == 1:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(48 << 17)  # 48 MiB, more than what glibc learns to keep by itself
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def count_faults(how):
    """Pages that the system had to find anew for 20 arrays, one after another."""
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True
    )
    return int(run.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_kept():
    """Without it every array comes in new pages; huge pages would be 512 times fewer."""
    assert count_faults("keep") < 24 < count_faults("leave")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_workers_keep_it_too():
    assert max(map_unordered(tasks.count_faults, [48 << 20] * 2, jobs=2)) < 24


def test_other_libraries_are_left_alone(monkeypatch):
    from fitting import allocator

    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(allocator.ctypes, "CDLL", None)
    assert not allocator.keep_freed_memory()
