"""What fitting in the loop costs: a step of training with it against the same step without.

    python benchmarks/loop.py [--encoder resnet50] [--device cuda] [--turns 5]

Three trainings take turns on the same batch, a step each: without fits, with `lm` and with `adam`,
SPIN's SMPLify of twice 100 steps. All learn from the same number of people by the same losses. What
fits add is the difference of the medians. The networks begin with random weights, at the rest pose,
from where fits have the furthest to go: nobody converges before the last step.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from itertools import repeat
from pathlib import Path
from typing import Any

import click
import torch
from record import RESULTS, describe_run

from fitting.allocator import keep_freed_memory
from fitting.files import write_json
from regressor.config import config_from_dict
from regressor.distributed import Group
from regressor.image_task import ImageTask
from regressor.learner import Learner
from regressor.rendered_set import SetConfig, write_rendered_set
from regressor.rendering import PictureConfig
from regressor.tasks import make_task

LOOPS: dict[str, dict[str, Any] | None] = {
    "without": None,
    "lm": {},
    "adam": {"solver": "adam", "steps": 100, "rule": "spin", "half_std_mm": None, "lifter": False},
}


def make_learner(
    loop: dict[str, Any] | None, folder: Path, run: Path, options: dict[str, Any]
) -> tuple[Learner, ImageTask]:
    """A network about to learn, with its store of fits."""
    source = {"kind": "table", "path": str(folder)}
    params = "truth" if loop is None else "none"
    config = config_from_dict(
        {
            "task": "image",
            "training": {"batch_size": options["batch_size"], "precision": options["precision"]},
            "network": {"encoder": options["encoder"], "head": "spin"},
            "data": {
                "sources": [{**source, "params": params}],
                "crop_size": options["crop_size"],
            },
            "evaluation": {"source": source, "people": 1},
            "loop": loop,
        }
    )
    task = make_task(config)
    assert isinstance(task, ImageTask)
    run.mkdir()
    task.begin_files(run, Group())
    return Learner(task, config, Group(), torch.device(options["device"])), task


def seconds_of_step(learner: Learner, batch: Any) -> float:
    """Of one update, and what it leaves to do on the device."""
    began = time.perf_counter()
    learner.update(batch)
    learner.weights_are_finite()  # waits for the device
    return time.perf_counter() - began


def measure(turns: int, **options: Any) -> dict[str, Any]:
    """Seconds of a step of each, and what fits add."""
    found: dict[str, list[float]] = {name: [] for name in LOOPS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "people"
        drawn = SetConfig(count=options["batch_size"], pictures=PictureConfig(occluded=0))
        write_rendered_set(folder, drawn)
        learners = {}
        for loop, settings in LOOPS.items():
            learner, task = make_learner(settings, folder, Path(name) / loop, options)
            learners[loop] = learner, repeat(task.batch(0))
        for turn in range(turns + 1):
            for loop, (learner, batches) in learners.items():
                seconds = seconds_of_step(learner, batches)
                if turn > 0:  # the first warms up
                    found[loop].append(seconds)
    median = {loop: statistics.median(seconds) for loop, seconds in found.items()}
    without = median.pop("without")
    return {
        "seconds_without": round(without, 4),
        "seconds_added": {loop: round(value - without, 4) for loop, value in median.items()},
        "share_added": {loop: round(value / without - 1, 4) for loop, value in median.items()},
        "all_seconds": {n: [round(s, 4) for s in seconds] for n, seconds in found.items()},
    }


@click.command()
@click.option("--encoder", default="resnet50", show_default=True)
@click.option("--batch-size", default=64, show_default=True, type=click.IntRange(min=2))
@click.option("--crop-size", default=224, show_default=True, help="Pixels.")
@click.option("--precision", default="bfloat16", show_default=True)
@click.option("--turns", default=5, show_default=True, type=click.IntRange(min=1))
@click.option("--device", default="cpu", show_default=True)
@click.option("--output", default=RESULTS / "loop.json", type=click.Path(path_type=Path))
def main(turns: int, output: Path, **options: Any) -> None:
    """Time the three trainings."""
    keep_freed_memory()  # as `fit-cli train` does
    shown = [f"--{name.replace('_', '-')} {value}" for name, value in options.items()]
    command = " ".join(["python benchmarks/loop.py", f"--turns {turns}", *shown])
    measured = measure(turns, **options)
    click.echo(
        f"without {measured['seconds_without']} s, fits add "
        + ", ".join(f"{share:.1%} ({name})" for name, share in measured["share_added"].items())
    )
    write_json(output, {**describe_run(command), **options, "turns": turns, **measured})


if __name__ == "__main__":
    main()
