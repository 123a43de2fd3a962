"""What a computation asks of a machine, and the most that the machine can give."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

_ATEN = torch.ops.aten


class Cost(NamedTuple):
    """Of one call of a function."""

    flops: int  # of matrix products, factorisations and their solves; not of elementwise work
    bytes: int  # read and written by all operations, as if no cache kept anything between them


class Peak(NamedTuple):
    """Of a machine."""

    gflops: float  # 1e9 operations per second, float32 matrix product
    gbytes: float  # 1e9 bytes per second read and written by a copy


def _cholesky_flops(shape: tuple[int, ...], *_: Any, **__: Any) -> int:
    """D^3 / 3 for each matrix of `shape` (..., D, D); Golub and Van Loan, section 4.2."""
    return math.prod(shape[:-2]) * shape[-1] ** 3 // 3


def _cholesky_solve_flops(right: tuple[int, ...], *_: Any, **__: Any) -> int:
    """2 D^2 for each column of the right-hand sides (..., D, K): two triangular systems."""
    return 2 * math.prod(right[:-2]) * right[-2] ** 2 * right[-1]


_FACTORISATIONS = {
    _ATEN.linalg_cholesky_ex: _cholesky_flops,
    _ATEN.cholesky_solve: _cholesky_solve_flops,
}


class _ByteCounter(TorchDispatchMode):
    """Adds up the sizes of what every operation reads and writes; views cost nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = tree_leaves((args, kwargs, out))
            self.total += sum(_num_bytes(x) for x in tensors if isinstance(x, Tensor))
        return out


def _num_bytes(x: Tensor) -> int:
    """Without the repetitions of expanded dimensions."""
    sizes = [n for n, stride in zip(x.shape, x.stride(), strict=True) if stride != 0 or n == 0]
    return math.prod(sizes) * x.itemsize


def count_cost(work: Callable[[], object]) -> Cost:
    """Count one call of `work`, on one thread: counters see only the thread that set them up."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with FlopCounterMode(display=False, custom_mapping=_FACTORISATIONS) as flops:
            work()
        with _ByteCounter() as counted:
            work()
    finally:
        torch.set_num_threads(threads)
    return Cost(flops.get_total_flops(), counted.total)


def measure_peak(device: torch.device, size: int) -> Peak:
    """Best of ten products of matrices (size, size) and of ten copies of sixteen of them."""
    a, b = torch.rand(2, size, size, device=device)
    source = torch.rand(16, size, size, device=device)
    target = torch.empty_like(source)
    product = min(time_once(lambda: a @ b, device) for _ in range(10))
    copy = min(time_once(lambda: target.copy_(source), device) for _ in range(10))
    return Peak(2 * size**3 / product / 1e9, 2 * source.nbytes / copy / 1e9)


def time_once(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call, until the device has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def time_median(
    work: Callable[[], object],
    device: torch.device,
    *,
    runs: int,
    least: int = 1,
    budget: float = 30.0,
) -> tuple[float, int]:
    """Median seconds of a call, and over how many.

    Args:
        work: what to call.
        device: to wait for.
        runs: wanted, after one to warm up; one of over 5 s is its own warm-up, and so is a single
            one.
        least: runs to make in any case.
        budget: seconds after which no further run begins.
    """
    seconds = [time_once(work, device)]
    if seconds[0] <= 5 and runs > 1:
        seconds = [time_once(work, device)]
    while len(seconds) < runs and (len(seconds) < least or sum(seconds) < budget):
        seconds.append(time_once(work, device))
    return statistics.median(seconds), len(seconds)
