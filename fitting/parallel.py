"""One core for each chunk of people, instead of all cores for each small operation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Chunk = TypeVar("Chunk")
Result = TypeVar("Result")


def map_on_cores(work: Callable[[Chunk], Result], chunks: Sequence[Chunk]) -> list[Result]:
    """`[work(chunk) for chunk in chunks]`, on as many threads as PyTorch would use.

    Within them PyTorch uses one thread each, even for a single chunk. Its operations on small
    batches are too short to be shared out, and every one would wait for the slowest core: fifty
    times longer where another program has that core.
    """
    threads = min(torch.get_num_threads(), len(chunks))
    if torch.get_num_threads() == 1:
        return [work(chunk) for chunk in chunks]
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return list(pool.map(work, chunks))
