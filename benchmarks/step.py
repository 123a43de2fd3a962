"""What a step of training an encoder costs a CPU, by how pixels lie and whether memory is kept.

    python benchmarks/step.py [--batch-size 32] [--turns 3]

Processor seconds of forward and backward passes on random crops, medians of some turns: other work
on the machine, which would disturb the clock on the wall, hardly counts. Whether freed memory is
kept (`fitting.allocator`) is settled when a process begins, so each setting has one of its own.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

import click
import torch
from record import RESULTS, describe_run

from fitting.allocator import keep_freed_memory
from fitting.files import write_json
from regressor.encoders import make_encoder

ENCODERS = ("resnet18", "resnet50", "efficientnet_lite0", "blazepose")
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
FORMATS = {"channel by channel": torch.contiguous_format, "pixel by pixel": torch.channels_last}
_SIDE = {"blazepose": 256}  # pixels of the crops; of the others 224


def measure(name: str, batch_size: int, turns: int) -> dict[str, dict[str, float]]:
    """Seconds of a step by precision and by how pixels lie."""
    side = _SIDE.get(name, 224)
    images = torch.rand(batch_size, 3, side, side)
    found: dict[str, dict[str, float]] = {precision: {} for precision in PRECISIONS}
    for (precision, dtype), (lie, memory_format) in product(PRECISIONS.items(), FORMATS.items()):
        encoder = make_encoder(name).train().to(memory_format=memory_format)
        seen, spent = images.contiguous(memory_format=memory_format), []
        for _ in range(turns + 1):
            began = time.process_time()
            with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
                features = encoder(seen)
            features.float().square().mean().backward()
            spent.append(time.process_time() - began)
        found[precision][lie] = round(statistics.median(spent[1:]), 3)  # the first one warms up
    return found


@click.command()
@click.option("--batch-size", default=32, show_default=True, type=click.IntRange(min=1))
@click.option("--turns", default=3, show_default=True, type=click.IntRange(min=1))
@click.option("--inside", nargs=2, hidden=True, help="A network, and whether memory is kept.")
@click.option("--output", default=RESULTS / "step.json", type=click.Path(path_type=Path))
def main(batch_size: int, turns: int, inside: tuple[str, str] | None, output: Path) -> None:
    """Measure every setting."""
    torch.set_num_threads(1)
    if inside is not None:
        if inside[1] == "kept" and not keep_freed_memory():
            raise click.ClickException("this C library has no such setting; it takes GNU's")
        click.echo(json.dumps(measure(inside[0], batch_size, turns)))
        return
    command = f"python benchmarks/step.py --batch-size {batch_size} --turns {turns}"
    content: dict[str, Any] = {**describe_run(command), "threads": 1, "seconds": {}}
    for name, memory in product(ENCODERS, ("given back", "kept")):
        options = ["--batch-size", str(batch_size), "--turns", str(turns)]
        run = subprocess.run(
            [sys.executable, __file__, *options, "--inside", name, memory],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        content["seconds"].setdefault(name, {})[memory] = json.loads(run.stdout)
        click.echo(f"{name}, memory {memory}: {run.stdout.strip()}")
    write_json(output, content)


if __name__ == "__main__":
    main()
