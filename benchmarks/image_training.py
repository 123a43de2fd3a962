"""Whether reading pictures holds up training: steps on pictures from the disk against one batch.

    python benchmarks/image_training.py [--steps 8]

Pictures of 640 x 480 with three people at most are drawn into a temporary folder first, then read,
cropped and augmented as in any run. Fresh and cached batches take turns, some steps each, so that
both see the same machine; the share is of the medians. A batch made alone is timed, too.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import repeat
from pathlib import Path
from typing import Any

import click
import torch
from record import RESULTS, describe_run

from fitting.allocator import keep_freed_memory
from fitting.files import write_json
from regressor.config import config_from_dict
from regressor.distributed import join_group
from regressor.learner import Learner
from regressor.prefetch import prefetch
from regressor.synthetic.rendered_set import SetConfig, write_rendered_set
from regressor.synthetic.rendering import PictureConfig
from regressor.task import Batch
from regressor.tasks import make_task

ENCODERS = ("resnet50", "efficientnet_lite0")


def make_config(
    encoder: str, folder: Path, batch_size: int, crop_size: int, workers: int, kind: str
) -> Any:
    source = {"kind": "table", "path": str(folder)}
    return config_from_dict(
        {
            "task": "image",
            "training": {"batch_size": batch_size, "workers": workers, "prefetch": kind},
            "network": {"encoder": encoder, "head": "spin"},
            "data": {"sources": [source], "crop_size": crop_size},
            "evaluation": {"source": source, "people": 1},
        }
    )


def seconds_per_step(learner: Learner, batches: Iterator[Batch], steps: int) -> float:
    """Mean over some steps, after one to warm up."""
    learner.update(batches)
    began = time.perf_counter()
    for _ in range(steps):
        learner.update(batches)
    return (time.perf_counter() - began) / steps


def measure(config: Any, steps: int, turns: int, device: torch.device) -> dict[str, Any]:
    task = make_task(config)
    size = config.training.batch_size
    began = time.perf_counter()
    cached = task.batch(0)
    crops_per_second = size / (time.perf_counter() - began)
    found: dict[str, list[float]] = {"fresh": [], "cached": []}
    numbers = range(turns * (steps + 1) + 100)
    with join_group() as group:
        learner = Learner(task, config, group, device)
        on_cuda = device.type == "cuda"
        with closing(prefetch(task.batch, numbers, config.training, pin_memory=on_cuda)) as fresh:
            for _ in range(turns):
                found["fresh"].append(seconds_per_step(learner, fresh, steps))
                found["cached"].append(seconds_per_step(learner, repeat(cached), steps))
    median = {name: statistics.median(values) for name, values in found.items()}
    return {
        "seconds_per_step": {name: round(value, 4) for name, value in median.items()},
        "crops_per_second_while_training": round(size / median["fresh"], 1),
        "crops_per_second_made_in_one_thread": round(crops_per_second, 1),
        "share_of_cached_throughput": round(median["cached"] / median["fresh"], 3),
    }


@click.command()
@click.option("--steps", default=4, show_default=True, help="Of each turn.")
@click.option("--turns", default=5, show_default=True)
@click.option("--pictures", default=256, show_default=True)
@click.option("--batch-size", default=64, show_default=True)
@click.option("--crop-size", default=224, show_default=True, help="Pixels.")
@click.option("--workers", default=1, show_default=True)
@click.option("--prefetch", "kind", default="thread", show_default=True)
@click.option("--encoder", "encoders", multiple=True, default=ENCODERS, show_default=True)
@click.option("--device", default="cpu", show_default=True)
@click.option(
    "-o", "--output", default=RESULTS / "image_training.json", type=click.Path(path_type=Path)
)
def main(
    steps: int,
    turns: int,
    pictures: int,
    batch_size: int,
    crop_size: int,
    workers: int,
    kind: str,
    encoders: tuple[str, ...],
    device: str,
    output: Path,
) -> None:
    keep_freed_memory()  # as `fit-cli train` does
    command = (
        f"python benchmarks/image_training.py --steps {steps} --turns {turns} --pictures {pictures}"
        f" --batch-size {batch_size} --crop-size {crop_size} --workers {workers}"
        f" --prefetch {kind} --device {device}"
    )
    measured = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "people"
        drawn = PictureConfig(size=(640, 480), crop=False, people=3)
        write_rendered_set(folder, SetConfig(count=pictures, pictures=drawn))
        for encoder in encoders:
            config = make_config(encoder, folder, batch_size, crop_size, workers, kind)
            measured[encoder] = measure(config, steps, turns, torch.device(device))
            click.echo(f"{encoder}: {measured[encoder]}")
    write_json(
        output,
        {
            **describe_run(command),
            "device": device,
            "batch_size": batch_size,
            "crop_size": crop_size,
            "torch_threads": torch.get_num_threads(),
            "encoders": measured,
        },
    )


if __name__ == "__main__":
    main()
