"""Batches made ahead of time, so that the device does not wait for them."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from .config import TrainingConfig
from .task import Batch

MakeBatch = Callable[[int], Batch]

Item = TypeVar("Item")
Result = TypeVar("Result")

_AHEAD = 2  # batches that each worker is ahead


def prefetch(
    make: MakeBatch, numbers: Sequence[int], config: TrainingConfig, *, pin_memory: bool
) -> Generator[Batch, None, None]:
    """The batches called `numbers`, in order.

    Threads share memory with the loop; a process must send its tensors, which cost more than it
    gained for batches of 1024 x 49 keypoints (docs/training.md has the numbers).

    Args:
        make: a pure function of the number.
        numbers: which, and in which order.
        config: `prefetch` and `workers`.
        pin_memory: leave the tensors where a GPU fetches them without waiting.

    Yields:
        Batches on the CPU. Close the iterator to end the workers.
    """
    if config.workers == 0:
        return (_pinned(make(number), pin_memory) for number in numbers)
    if config.prefetch == "thread":
        return map_in_threads(lambda n: _pinned(make(n), pin_memory), numbers, config.workers)
    return _from_processes(make, numbers, config.workers, pin_memory=pin_memory)


def _pinned(batch: Batch, pin_memory: bool) -> Batch:
    return {k: v.pin_memory() for k, v in batch.items()} if pin_memory else batch


def map_in_threads(
    work: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Generator[Result, None, None]:
    """`work` of each item, in order, a few ahead of whom takes them. Close it to end the workers.

    Args:
        work: called in other threads.
        items: taken as they are needed, so that there may be any number.
        workers: threads.
    """
    # One core each: more would take them from the loop. The setting is the thread's own.
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > _AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _from_processes(
    make: MakeBatch, numbers: Sequence[int], workers: int, *, pin_memory: bool
) -> Generator[Batch, None, None]:
    loader: DataLoader[Batch | Exception] = DataLoader(
        _Numbered(make),
        batch_size=None,  # a number is a whole batch
        sampler=numbers,
        num_workers=workers,
        prefetch_factor=_AHEAD,
        worker_init_fn=_begin_worker,
        pin_memory=pin_memory,
    )
    for batch in loader:
        if isinstance(batch, Exception):
            raise batch
        yield batch


class _Numbered(Dataset["Batch | Exception"]):
    """Batches by number, for `DataLoader`."""

    def __init__(self, make: MakeBatch) -> None:
        self._make = make

    def __getitem__(self, number: int) -> Batch | Exception:
        try:
            return self._make(number)
        except (ValueError, OSError) as error:
            # Raised here, DataLoader would bury its one sentence in a traceback.
            return error


def _begin_worker(worker: int) -> None:
    """Set up a worker process; `DataLoader` itself gives it one torch thread."""
    # Ctrl-C goes to every process of the terminal: the loop still wants to finish its step.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
