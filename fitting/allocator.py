"""Memory that the process has freed, kept for the next tensor.

PyTorch takes the tensors of a CPU from the C library. GNU's gives large ones back to the system as
soon as they are freed, and the system clears every page anew when the next one is asked for: of a
training step of ResNet-50, or of fits by Adam, that may be a third of the time. PyTorch's tuning
guide advises another library for that reason; a setting of this one does as well.
"""

from __future__ import annotations

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # malloc.h: M_TRIM_THRESHOLD, M_MMAP_MAX
_LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let this process keep what it frees; it stays as large as it ever was.

    For programs that make and drop tensors of the same sizes again and again, as training does; the
    process's owner calls it, before the work begins.

    Returns:
        Whether the C library is GNU's and took the settings; others are left as they are.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, _LARGEST))
