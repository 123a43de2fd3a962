"""Make a checkpoint of a training run small enough to ship: half floats, without what resumes it.

python tools/ship_checkpoint.py RUN/best.pt -o regressor/assets/lifter.pt
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from regressor.checkpoints import read_checkpoint, save_checkpoint


@click.command()
@click.argument("checkpoint", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path))
def main(checkpoint: Path, output: Path) -> None:
    trained = read_checkpoint(checkpoint)
    model = {k: v.half() if v.is_floating_point() else v for k, v in trained.model.items()}
    save_checkpoint(output, replace(trained, model=model, training=None))
    click.echo(f"{output}: {output.stat().st_size / 1e6:.1f} MB, {trained.metrics}")


if __name__ == "__main__":
    main()
