"""What fitting in the loop costs: a step of training with it against the same step without.

    python benchmarks/loop.py [--encoder resnet50] [--device cuda] [--turns 7]

Three trainings take turns on the same batch, a step each: without fits, with `lm` and with `adam`,
SPIN's SMPLify of twice 100 steps. All learn from the same number of people by the same losses. What
fits add is timed where they are made, for it is less than what two steps of the same training
differ by; their share is of the rest of the step. The networks begin with random weights, at the
rest pose, from where fits have the furthest to go: nobody converges before the last step.
"""

from __future__ import annotations

import operator
import statistics
import tempfile
import time
from collections.abc import Callable
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
from regressor.synthetic.rendered_set import SetConfig, write_rendered_set
from regressor.synthetic.rendering import PictureConfig
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


def synchronize(device: torch.device) -> None:
    """Wait for what a device has still to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Clock:
    """Seconds of each call of a function, and of what it leaves to do on the device."""

    def __init__(self, function: Callable[..., Any], device: torch.device) -> None:
        self.seconds: list[float] = []
        self._function, self._device = function, device

    def __call__(self, *args: Any) -> Any:
        """Call it."""
        synchronize(self._device)
        began = time.perf_counter()
        result = self._function(*args)
        synchronize(self._device)
        self.seconds.append(time.perf_counter() - began)
        return result


def measure(turns: int, **options: Any) -> dict[str, Any]:
    """Seconds of a step of each, and what fits add."""
    steps, fits, device = {}, {}, torch.device(options["device"])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "people"
        drawn = SetConfig(count=options["batch_size"], pictures=PictureConfig(occluded=0))
        write_rendered_set(folder, drawn)
        batches = {}
        for loop, settings in LOOPS.items():
            learner, task = make_learner(settings, folder, Path(name) / loop, options)
            steps[loop], batches[loop] = Clock(learner.update, device), repeat(task.batch(0))
            if task.loop is not None:
                fits[loop] = Clock(task.loop.targets, device)
                vars(task.loop)["targets"] = fits[loop]
        for _ in range(turns + 1):
            for loop, step in steps.items():
                step(batches[loop])
    for clock in (*steps.values(), *fits.values()):
        del clock.seconds[0]  # it warms up
    added = {loop: statistics.median(clock.seconds) for loop, clock in fits.items()}
    rest = {
        loop: statistics.median(map(operator.sub, steps[loop].seconds, clock.seconds))
        for loop, clock in fits.items()
    }
    return {
        "seconds_without": round(statistics.median(steps["without"].seconds), 4),
        "seconds_added": {loop: round(added[loop], 4) for loop in fits},
        "share_added": {loop: round(added[loop] / rest[loop], 4) for loop in fits},
        "all_seconds": {
            "steps": {loop: [round(s, 4) for s in clock.seconds] for loop, clock in steps.items()},
            "fits": {loop: [round(s, 4) for s in clock.seconds] for loop, clock in fits.items()},
        },
    }


@click.command()
@click.option("--encoder", default="resnet50", show_default=True)
@click.option("--batch-size", default=64, show_default=True, type=click.IntRange(min=2))
@click.option("--crop-size", default=224, show_default=True, help="Pixels.")
@click.option("--precision", default="bfloat16", show_default=True)
@click.option("--turns", default=7, show_default=True, type=click.IntRange(min=1))
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
