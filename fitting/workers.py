"""Where the shards of a run are fitted: in this process, or in others by joblib's backends."""

from __future__ import annotations

import importlib.util
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

from joblib import Parallel, cpu_count, delayed, parallel_config

from .files import InputError

Task = TypeVar("Task")
Result = TypeVar("Result")

BACKENDS = ("loky", "dask")


class WorkerError(OSError):
    """A worker ended before its task; the message is one sentence with the fix."""


def map_unordered(
    work: Callable[[Task], Result],
    tasks: Iterable[Task],
    *,
    jobs: int = -1,
    backend: str = "loky",
    scheduler: str | None = None,
) -> Iterator[Result]:
    """`work(task)` of each task, in whatever order they end.

    A task is taken when there is a worker for it and not before, so that memory does not grow with
    their number, and so that no more are begun once the tasks end early.

    Args:
        work: a function that other processes can import.
        tasks: that can be sent to them.
        jobs: tasks worked on at a time; -1 means as many as there are cores.
        backend: "loky", processes on this machine; or "dask", whose scheduler sends a task to
            another worker when one dies.
        scheduler: address of Dask's.

    Raises:
        WorkerError: a worker died.
    """
    with _backend(backend, scheduler):
        parallel = Parallel(
            n_jobs=jobs, batch_size=1, pre_dispatch="n_jobs", return_as="generator_unordered"
        )
        try:
            yield from parallel(delayed(work)(task) for task in tasks)
        except BrokenProcessPool as error:
            raise WorkerError(
                "a worker died, perhaps for want of memory; give fewer --jobs and go on with "
                "--resume"
            ) from error


def count_workers(jobs: int) -> int:
    """Processes on this machine that so many jobs mean."""
    return jobs if jobs > 0 else max(cpu_count() + 1 + jobs, 1)


def check_backend(name: str, scheduler: str | None) -> None:
    """See that there is what a backend needs.

    Raises:
        InputError: it is unknown or not installed, or there is no scheduler, or no use for one.
    """
    if name not in BACKENDS:
        raise InputError(f"unknown backend {name!r}; use one of {', '.join(BACKENDS)}")
    if name == "loky" and scheduler is not None:
        raise InputError("--scheduler is for other machines; add --backend dask")
    if name == "dask":
        if scheduler is None:
            raise InputError("--backend dask needs the address of its scheduler; add --scheduler")
        if importlib.util.find_spec("distributed") is None:
            raise InputError(
                "--backend dask needs Dask; install it by pip install 'bodyloop[dask]'"
            )


def _backend(name: str, scheduler: str | None) -> AbstractContextManager[Any]:
    if name == "dask":
        return _dask(scheduler)
    # Large arrays are sent as they are: in shared memory, a kill would leave them behind.
    return parallel_config(
        "loky",
        inner_max_num_threads=1,
        max_nbytes=None,
        initializer=_begin_worker,
        initargs=(os.getpid(),),
    )


def _begin_worker(parent: int) -> None:
    """Ctrl-C reaches every process of a terminal; the one that began this one decides."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """Where the parent is killed, its workers would go on, and keep their memory for minutes."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


@contextmanager
def _dask(scheduler: str | None) -> Iterator[None]:
    from dask.distributed import Client
    from distributed.scheduler import KilledWorker

    with Client(scheduler) as client, parallel_config("dask", client=client):
        try:
            yield
        except KilledWorker as error:
            raise WorkerError(
                "several workers died of one shard, perhaps for want of memory; give them more, "
                "and go on with --resume"
            ) from error
