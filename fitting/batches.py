"""Batches of people that become smaller where a GPU's memory does not hold them."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import torch

_LOG = logging.getLogger(__name__)
_CPU_ALLOCATOR = "DefaultCPUAllocator"  # PyTorch's CPU errors have no class of their own


def work_in_batches(work: Callable[[np.ndarray], object], count: int, size: int) -> int:
    """Call `work` with (b,) rows, from the first of all to the last, `size` at a time.

    Where a GPU runs out of memory, the batch is halved for this row and those after it, and the log
    says so. On a CPU it is not: there a run's bits are promised, and they depend on the batch.

    Args:
        work: of a batch; after it ran out of memory it is called again with some of the same rows.
        count: of all rows; with none, `work` is called once with none.
        size: rows in a batch.

    Returns:
        Rows in a batch at the end.

    Raises:
        MemoryError: of the CPU, or of a GPU that does not hold one person.
    """
    first = 0
    while first < max(count, 1):
        rows = np.arange(first, min(first + size, count))
        if _has_memory(work, rows):
            first += size
        else:  # here, and not where the error is known: it holds on to what is on the GPU
            torch.cuda.empty_cache()
            size = len(rows) // 2
            _LOG.warning(
                "the GPU's memory does not hold %d people; going on with %d", len(rows), size
            )
    return size


def _has_memory(work: Callable[[np.ndarray], object], rows: np.ndarray) -> bool:
    """Whether the GPU's memory sufficed for some rows."""
    try:
        work(rows)
    except torch.cuda.OutOfMemoryError as error:
        if len(rows) <= 1:
            raise MemoryError("the GPU's memory does not hold a single person") from error
        return False
    except RuntimeError as error:
        if _CPU_ALLOCATOR in str(error):
            raise MemoryError(f"there is not enough memory for {len(rows)} people") from error
        raise
    return True
