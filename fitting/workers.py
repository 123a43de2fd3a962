"""Where the shards of a run are fitted: in this process, or in others by joblib, Dask or Ray.

Of Dask and Ray their own tasks are used. Joblib's backend of Dask waits for ever where a worker
dies with a result that nobody has fetched, and that of Ray returns nothing until all is done.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

from joblib import Parallel, cpu_count, delayed, parallel_config

from .allocator import keep_freed_memory
from .files import InputError

Task = TypeVar("Task")
Result = TypeVar("Result")

BACKENDS = ("loky", "dask", "ray")
_PACKAGES = {"dask": "distributed", "ray": "ray"}  # that backends of several machines need
_SEVERAL_DIED = (
    "several workers died of one shard, perhaps for want of memory; give them more, and go on with "
    "--resume"
)


class WorkerError(OSError):
    """A worker ended before its task; the message is one sentence with the fix."""


def map_unordered(
    work: Callable[[Task], Result],
    tasks: Iterable[Task],
    *,
    jobs: int = -1,
    backend: str = "loky",
    scheduler: str | None = None,
    on_gpu: bool = False,
) -> Iterator[Result]:
    """`work(task)` of each task, in whatever order they end.

    A task is taken when there is a worker for it and not before, so that memory does not grow with
    their number, and so that no more are begun once the tasks end early.

    Args:
        work: a function that other processes can import.
        tasks: that can be sent to them.
        jobs: tasks worked on at a time; -1 means as many as there are cores.
        backend: "loky", processes on this machine; or "dask" or "ray", which give a task to another
            worker when one dies.
        scheduler: address of Dask's, or of Ray's head.
        on_gpu: whether a task takes a GPU of its own, where the backend is "ray"; -1 then means as
            many jobs as there are GPUs.

    Raises:
        WorkerError: a worker died.
    """
    if backend == "dask":
        yield from _map_on_dask(work, tasks, jobs=jobs, address=scheduler)
    elif backend == "ray":
        yield from _map_on_ray(work, tasks, jobs=jobs, address=scheduler, on_gpu=on_gpu)
    else:
        yield from _map_on_cores(work, tasks, jobs=jobs)


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
        raise InputError("--scheduler is for other machines; add --backend dask or ray")
    if name != "loky":
        if scheduler is None:
            raise InputError(
                f"--backend {name} needs the address of its scheduler; add --scheduler"
            )
        if importlib.util.find_spec(_PACKAGES[name]) is None:
            raise InputError(
                f"--backend {name} needs {_PACKAGES[name]}; install it by pip install "
                f"'bodyloop[{name}]'"
            )


def _map_on_cores(
    work: Callable[[Task], Result], tasks: Iterable[Task], *, jobs: int
) -> Iterator[Result]:
    """See `map_unordered`."""
    # Large arrays are sent as they are: in shared memory, a kill would leave them behind.
    loky = parallel_config(
        "loky",
        inner_max_num_threads=1,
        max_nbytes=None,
        initializer=_begin_worker,
        initargs=(os.getpid(),),
    )
    with loky:
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


def _begin_worker(parent: int) -> None:
    """Keep freed memory; let the process that began this one decide what Ctrl-C means."""
    keep_freed_memory()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """Where the parent is killed, its workers would go on, and keep their memory for minutes."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _map_on_dask(
    work: Callable[[Task], Result], tasks: Iterable[Task], *, jobs: int, address: str | None
) -> Iterator[Result]:
    """See `map_unordered`."""
    from dask.distributed import Client, wait
    from distributed.scheduler import KilledWorker

    with Client(address) as client, warnings.catch_warnings():
        # A task brings its people along: what is sent before is lost with the worker that has it.
        warnings.filterwarnings("ignore", "Sending large graph")

        def count() -> int:
            return jobs if jobs > 0 else sum(client.nthreads().values())

        def collect(begun: list[Any]) -> tuple[list[Result], list[Any]]:
            done, others = wait(begun, return_when="FIRST_COMPLETED")
            try:
                return client.gather(list(done)), list(others)
            except KilledWorker as error:
                raise WorkerError(_SEVERAL_DIED) from error

        yield from _map_in_flight(
            lambda task: client.submit(work, task, pure=False), tasks, count, collect
        )


def _map_on_ray(
    work: Callable[[Task], Result],
    tasks: Iterable[Task],
    *,
    jobs: int,
    address: str | None,
    on_gpu: bool,
) -> Iterator[Result]:
    """See `map_unordered`. Ray begins a task again elsewhere three times."""
    import ray
    from ray.exceptions import NodeDiedError, OutOfMemoryError, RayTaskError, WorkerCrashedError

    def count() -> int:
        return jobs if jobs > 0 else int(ray.cluster_resources().get("GPU" if on_gpu else "CPU", 1))

    def collect(begun: list[Any]) -> tuple[list[Result], list[Any]]:
        done, others = ray.wait(begun)
        try:
            return ray.get(done), others
        except (NodeDiedError, OutOfMemoryError, WorkerCrashedError) as error:
            raise WorkerError(_SEVERAL_DIED) from error
        except RayTaskError as error:  # its message is the worker's whole traceback
            raise error.cause from error

    with _connected_to_ray(address):
        call: Any = ray.remote(_call).options(num_gpus=int(on_gpu))
        yield from _map_in_flight(lambda task: call.remote(work, task), tasks, count, collect)


def _call(work: Callable[[Task], Result], task: Task) -> Result:
    return work(task)


def _map_in_flight(
    begin: Callable[[Task], Any],
    tasks: Iterable[Task],
    count: Callable[[], int],
    collect: Callable[[list[Any]], tuple[list[Result], list[Any]]],
) -> Iterator[Result]:
    """Results of tasks that a cluster works on, so many at a time as it has workers then.

    Args:
        begin: sends a task away.
        tasks: taken as there is room.
        count: of tasks to work on at a time; clusters grow and shrink.
        collect: waits for some of the tasks begun; their results, and the tasks that are left.
    """
    left = iter(tasks)
    begun: list[Any] = []
    while True:
        room = max(count(), 1) - len(begun)
        begun += [begin(task) for task in islice(left, max(room, 0))]
        if not begun:
            return
        results, begun = collect(begun)
        yield from results


@contextmanager
def _connected_to_ray(address: str | None) -> Iterator[None]:
    import ray

    before = signal.getsignal(signal.SIGTERM)
    ray.init(address=address, logging_level=logging.WARNING)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)  # Ray's own handler ends the program at once
    try:
        yield
    finally:
        ray.shutdown()
