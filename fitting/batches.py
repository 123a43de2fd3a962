"""Batches that become smaller where a GPU's memory does not hold them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

_LOG = logging.getLogger(__name__)
_CPU_ALLOCATOR = "DefaultCPUAllocator"  # PyTorch's CPU errors have no class of their own


class SmallGpuError(OSError):
    """A GPU's memory does not hold the smallest batch; the message is one sentence with the fix."""


class Noun(NamedTuple):
    """What is worked on, in the words of messages."""

    one: str
    many: str


PEOPLE = Noun("person", "people")
TRACKS = Noun("track", "tracks")


def work_in_batches(
    work: Callable[[np.ndarray], object], count: int, size: int, noun: Noun = PEOPLE
) -> int:
    """Call `work` with (b,) rows, from the first of all to the last, `size` at a time.

    Where a GPU runs out of memory, the batch is halved for this row and those after it, and the log
    says so. On a CPU it is not: there a run's bits are promised, and they depend on the batch.

    Args:
        work: of a batch; after it ran out of memory it is called again with some of the same rows.
        count: of all rows; with none, `work` is called once with none.
        size: rows in a batch.
        noun: what the rows are.

    Returns:
        Rows in a batch at the end.

    Raises:
        MemoryError: of the CPU.
        SmallGpuError: the GPU's memory does not hold one row.
    """
    first = 0
    while first < max(count, 1):
        rows = np.arange(first, min(first + size, count))
        if _has_memory(work, rows, noun):
            first += size
        else:  # here, and not where the error is known: it holds on to what is on the GPU
            torch.cuda.empty_cache()
            size = len(rows) // 2
            said = "the GPU's memory does not hold %d %s; going on with %d"
            _LOG.warning(said, len(rows), noun.many, size)
    return size


def _has_memory(work: Callable[[np.ndarray], object], rows: np.ndarray, noun: Noun) -> bool:
    """Whether the GPU's memory sufficed for some rows."""
    try:
        work(rows)
    except torch.cuda.OutOfMemoryError as error:
        if len(rows) <= 1:
            raise SmallGpuError(
                f"the GPU's memory does not hold a single {noun.one}; end other programs that use "
                "it, or use the CPU"
            ) from error
        return False
    except RuntimeError as error:
        if _CPU_ALLOCATOR in str(error):
            raise MemoryError(f"there is not enough memory for {len(rows)} {noun.many}") from error
        raise
    return True
