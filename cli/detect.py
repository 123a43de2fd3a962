"""`fit-cli detect`: people and their keypoints in pictures."""

from __future__ import annotations

from pathlib import Path

import click

from .progress import StageBars


@click.command()
@click.argument("input", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="COCO JSON to write.",
)
@click.option(
    "--detector",
    default="blazepose",
    show_default=True,
    type=click.Choice(["blazepose", "rtmlib"]),
)
@click.option("--quiet", is_flag=True, help="No progress bar.")
def detect(input: Path, output: Path, detector: str, quiet: bool) -> None:
    """Find the people in INPUT, a picture or a folder of pictures, and write their keypoints."""
    from fitting.detector import load_detector
    from fitting.images import list_images
    from fitting.sources import people_in_pictures
    from fitting.writers import write_coco

    total = 1 if input.is_file() else len(list_images(input))
    with StageBars(hidden=quiet) as bars:
        found = people_in_pictures(
            input, load_detector(detector), progress=lambda done: bars.update("detect", done, total)
        )
    write_coco(output, found.people)
    click.echo(f"{len(found.people)} people in {total} pictures -> {output}")
    for name in found.empty:
        click.echo(f"fit-cli: {name}: no person found", err=True)
    for problem in found.problems:
        click.echo(f"fit-cli: {problem}", err=True)
    if found.problems:
        raise SystemExit(1)
