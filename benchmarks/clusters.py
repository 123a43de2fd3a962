"""`fit-cli fit` in shards on clusters of processes that are killed: is its table the same?

    OMP_WAIT_POLICY=passive python benchmarks/clusters.py [--kills 5] [--backend ray]

Each backend gets a cluster of its own on this machine, and fits the same people. After every few
shards one of the cluster's workers gets SIGKILL. Every part is compared with that of a run on one
core, byte by byte.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click
import psutil
from kill import content_of, write_people
from record import RESULTS, describe_run

from fitting.estimates import MakeEstimator
from fitting.files import write_json
from fitting.run_config import RunConfig
from fitting.shard_run import ShardConfig, run_shards
from regressor import load_lifter

# Workers find what this process found, and Ray keeps to itself.
ENVIRONMENT = {
    "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
    "OMP_NUM_THREADS": "1",
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
}


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A cluster of processes of this machine.

    Attributes:
        address: of its scheduler.
        workers: the processes that fit, as they are now.
    """

    address: str
    workers: Callable[[], list[psutil.Process]]


@contextmanager
def dask_cluster(size: int) -> Iterator[Cluster]:
    """Of Dask, so many workers of one thread each."""
    from distributed import LocalCluster

    options = {"n_workers": size, "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(**options, worker_dashboard_address=None) as cluster:

        def workers() -> list[psutil.Process]:
            pids = [nanny.pid for nanny in cluster.workers.values() if nanny.pid]
            return [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]

        yield Cluster(address=cluster.scheduler_address, workers=workers)


@contextmanager
def ray_cluster(size: int) -> Iterator[Cluster]:
    """Of Ray, with so many cores."""
    from ray.cluster_utils import Cluster as RayCluster

    head = {"num_cpus": size, "include_dashboard": False}
    cluster = RayCluster(initialize_head=True, head_node_args=head)

    def workers() -> list[psutil.Process]:
        children = psutil.Process().children(recursive=True)
        return [child for child in children if is_at_work(child)]

    try:
        yield Cluster(address=cluster.address, workers=workers)
    finally:
        cluster.shutdown()


def is_at_work(process: psutil.Process) -> bool:
    """Whether a process of Ray has a task, of which it takes the name."""
    try:
        return process.cmdline()[:1] == ["ray::_call"]
    except psutil.Error:  # it has ended
        return False


CLUSTERS: dict[str, Callable[[int], AbstractContextManager[Cluster]]] = {
    "dask": dask_cluster,
    "ray": ray_cluster,
}


@dataclass(kw_only=True)
class Killer:
    """Kills a worker after every few shards, as a run's `progress`."""

    workers: Callable[[], list[psutil.Process]]
    kills: int
    every: int
    shards: int = field(default=0, init=False)
    killed: list[int] = field(default_factory=list, init=False)

    def __call__(self, stage: str, done: int, total: int) -> None:
        """A shard is done."""
        self.shards += 1
        if self.shards % self.every or len(self.killed) == self.kills:
            return
        for process in self.workers()[:1]:
            process.kill()
            self.killed.append(process.pid)


def run_killed(
    config: RunConfig,
    size: int,
    backend: str,
    *,
    workers: int,
    kills: int,
    make_estimator: MakeEstimator | None = None,
) -> Killer:
    """Fit on a new cluster whose workers are killed one after another.

    Args:
        config: of the run.
        size: of a shard.
        backend: of `CLUSTERS`.
        workers: in the cluster.
        kills: at most so many.
        make_estimator: see `shard_run.run_shards`.
    """
    with CLUSTERS[backend](workers) as cluster:
        killer = Killer(workers=cluster.workers, kills=kills, every=2)
        shards = ShardConfig(size=size, backend=backend, scheduler=cluster.address)
        run_shards(replace(config, jobs=workers), shards, killer, make_estimator=make_estimator)
    return killer


def compare(
    config: RunConfig, size: int, backends: Iterable[str], *, workers: int, kills: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """What came of each backend, by name; see `run_killed`. The run on one core is `config`."""
    run_shards(config, ShardConfig(size=size), make_estimator=load_lifter)
    expected = content_of(config.output)
    for backend in backends:
        began = time.perf_counter()
        killed = replace(config, output=config.output.with_name(backend))
        killer = run_killed(
            killed, size, backend, workers=workers, kills=kills, make_estimator=load_lifter
        )
        found = content_of(killed.output)
        yield (
            backend,
            {
                "kills": len(killer.killed),
                "parts": len(found) - 1,
                "wrong": sorted(name for name in expected if found.get(name) != expected[name]),
                "seconds": round(time.perf_counter() - began, 1),
            },
        )


@click.command()
@click.option("--backend", "backends", multiple=True, type=click.Choice([*CLUSTERS]))
@click.option("--kills", default=5, show_default=True)
@click.option("--workers", default=3, show_default=True)
@click.option("--people", default=320, show_default=True)
@click.option("--shard-size", default=16, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), default=RESULTS / "clusters.json")
def main(
    backends: tuple[str, ...],
    kills: int,
    workers: int,
    people: int,
    shard_size: int,
    seed: int,
    output: Path,
) -> None:
    """Fit, kill, compare."""
    results: dict[str, Any] = {}
    record = {
        **describe_run(
            f"python benchmarks/clusters.py --kills {kills} --workers {workers} --people {people} "
            f"--shard-size {shard_size} --seed {seed}"
            + "".join(f" --backend {name}" for name in backends),
            ("torch", "joblib", "distributed", "ray"),
        ),
        "seed": seed,
        "people": people,
        "shards": -(-people // shard_size),
        "workers": workers,
        "results": results,
    }
    os.environ |= ENVIRONMENT
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_people(folder / "people.npz", people, seed)
        config = RunConfig(
            input=folder / "people.npz", output=folder / "alone", init="lift", device="cpu",
            jobs=1, overlays=False,
        )  # fmt: skip
        for backend, result in compare(
            config, shard_size, backends or CLUSTERS, workers=workers, kills=kills
        ):
            results[backend] = result
            write_json(output, record)
            click.echo(f"{backend}: {result}")
    if any(result["wrong"] for result in results.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
