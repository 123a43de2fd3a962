"""`fit-cli train`: networks from configs."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from .interrupt import Interrupt
from .progress import StageBars


@click.command()
@click.argument("config", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the run.",
)
@click.option(
    "--start",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="CHECKPOINT",
    help="Begin at the weights of an earlier run's best.pt, or of a published checkpoint.",
)
@click.option("--resume", is_flag=True, help="Go on where the run in the folder was last saved.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier run in the folder.")
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Replace a setting of CONFIG, such as training.steps=100; may be given repeatedly.",
)
@click.option("--quiet", is_flag=True, help="No progress bar and no lines on evaluations.")
def train(
    config: Path,
    output: Path,
    start: Path | None,
    resume: bool,
    overwrite: bool,
    device: str,
    overrides: tuple[str, ...],
    quiet: bool,
) -> None:
    """Train the network that CONFIG (.yaml) describes.

    Leaves best.pt, last.pt, metrics.jsonl, config.yaml, run.json and tensorboard/ in the output
    folder. Ctrl-C finishes the step and saves it; --resume goes on from there. Exit code 1 means
    that the loss became NaN or infinite.
    """
    from regressor import training
    from regressor.config import load_config
    from regressor.tasks import make_task

    if resume and overwrite:
        raise click.UsageError("--resume goes on with a run, --overwrite replaces it; give one")
    settings = load_config(config, overrides)
    with Interrupt() as interrupt, StageBars(hidden=quiet or not _is_first()) as bars:
        try:
            record = training.train(
                make_task(settings),
                settings,
                output,
                device=device,
                start=start,
                resume=resume,
                overwrite=overwrite,
                stop=interrupt.came,
                progress=bars.update,
                say=(lambda text: None) if quiet else _say,
            )
        except training.DivergedError as error:
            click.echo(f"fit-cli: {error}", err=True)
            raise SystemExit(1) from error
    if _is_first():
        again = ["fit-cli", "train", str(config), "-o", str(output), "--device", device]
        _close(record, output, [*again, *(f"--set={o}" for o in overrides), "--resume"])
    if record["ended"] == "interrupted":
        raise SystemExit(128 + interrupt.number)


def _is_first() -> bool:
    """Whether this process speaks for those that `torchrun` started."""
    return os.environ.get("RANK", "0") == "0"


def _say(text: str) -> None:
    """A line above the progress bar."""
    from tqdm import tqdm

    tqdm.write(text, file=sys.stderr)


def _close(record: dict[str, Any], output: Path, again: Sequence[str]) -> None:
    """A closing line on what was reached, or on how to go on."""
    rate, best = record["steps_per_second"], record["best"]
    speed = f" at {rate:.3g} per second" if rate else ""
    found = f"; best {best['value']:.4g} at step {best['step']}" if best else ""
    click.echo(f"{record['steps']} steps{speed}, {record['ended']}{found} -> {output}")
    if record["ended"] == "interrupted":
        click.echo(f"go on with: {shlex.join(again)}")
