"""Whether making people holds up training: steps with fresh batches against the same with one.

    OMP_WAIT_POLICY=passive python benchmarks/training.py [--steps 40]

Threads wait as `fit-cli train` lets them. The lifter is trained as `configs/lifter.yaml` says.
Fresh and cached batches take turns, some steps each, so that both see the same machine; the ratio
is of the medians.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import repeat
from pathlib import Path

import click
import torch
from record import RESULTS, describe_run

from fitting.files import write_json
from regressor.config import load_config
from regressor.distributed import join_group
from regressor.learner import Learner
from regressor.prefetch import prefetch
from regressor.task import Batch
from regressor.tasks import make_task

CONFIG = Path(__file__).parents[1] / "configs" / "lifter.yaml"


def seconds_per_step(learner: Learner, batches: Iterator[Batch], steps: int) -> float:
    """Mean over some steps, after one to warm up."""
    learner.update(batches)
    began = time.perf_counter()
    for _ in range(steps):
        learner.update(batches)
    return (time.perf_counter() - began) / steps


def _policy() -> str:
    policy = os.environ.get("OMP_WAIT_POLICY")
    return f"OMP_WAIT_POLICY={policy} " if policy else ""


@click.command()
@click.option("--steps", default=20, show_default=True, help="Of each turn.")
@click.option("--turns", default=5, show_default=True)
@click.option("-o", "--output", default=RESULTS / "training.json", type=click.Path(path_type=Path))
def main(steps: int, turns: int, output: Path) -> None:
    config = load_config(CONFIG)
    task = make_task(config)
    numbers = range(turns * (steps + 1) + 100)
    found: dict[str, list[float]] = {"fresh": [], "cached": []}
    with join_group() as group:
        learner = Learner(task, config, group, torch.device("cpu"))
        fresh = prefetch(task.batch, numbers, config.training, pin_memory=False)
        with closing(fresh):
            for _ in range(turns):
                found["fresh"].append(seconds_per_step(learner, fresh, steps))
                cached = repeat(task.batch(0))
                found["cached"].append(seconds_per_step(learner, cached, steps))
    median = {name: statistics.median(values) for name, values in found.items()}
    ratio = median["cached"] / median["fresh"]
    record = {
        **describe_run(f"{_policy()}python benchmarks/training.py --steps {steps} --turns {turns}"),
        "batch_size": config.training.batch_size,
        "seconds_per_step": {name: round(value, 4) for name, value in median.items()},
        "people_per_second": round(config.training.batch_size / median["fresh"]),
        "share_of_cached_throughput": round(ratio, 3),
    }
    write_json(output, record)
    click.echo(f"{ratio:.0%} of the throughput on a cached batch: {record['seconds_per_step']}")


if __name__ == "__main__":
    main()
