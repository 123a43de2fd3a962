"""`fit-cli export`: fits as mesh files, and as other programs' pseudo labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .progress import StageBars

if TYPE_CHECKING:
    from fitting.table import FitsTable

_MESHES = ("obj", "ply", "glb")
_LABELS = ("spin", "humandata", "eft")
_FPS = 30.0  # fitting.tracks.DEFAULT_FPS, whose module need not be loaded for --help


@click.command()
@click.argument("fits", type=click.Path(path_type=Path))
@click.option(
    "--to",
    "target",
    required=True,
    type=click.Choice([*_MESHES, *_LABELS, "amass"]),
    help="Format.",
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="File to write (spin, humandata, eft), or folder for one file per person or track.",
)
@click.option(
    "--body",
    "body_file",
    type=click.Path(path_type=Path),
    help="Body that the fits were made with; the bundled one if not given.",
)
@click.option(
    "--fps", default=_FPS, show_default=True, help="Pictures in a second; for amass alone."
)
@click.option(
    "--exclude",
    type=click.Path(path_type=Path, dir_okay=False),
    help="CSV of people to leave out, as report.html saves those marked as bad.",
)
@click.option("--quiet", is_flag=True, help="No progress bar.")
def export(
    fits: Path,
    target: str,
    output: Path,
    body_file: Path | None,
    fps: float,
    exclude: Path | None,
    quiet: bool,
) -> None:
    """Write the people in FITS, a fits table or the folder of a run, in another format."""
    from fitting.exclusions import leave_out
    from fitting.table import read_fits

    everyone = read_fits(fits)
    table = everyone if exclude is None else leave_out(everyone, exclude)
    if target in _LABELS:
        said = f"{_write_labels(table, target, output)} people"
    elif target == "amass":
        people, files = _write_motions(table, body_file, output, fps)
        said = f"{people} people in {files} motions"
    else:
        said = f"{_write_meshes(table, body_file, output, target, quiet=quiet)} meshes"
    unfitted, excluded = int((~table.has_parameters).sum()), len(everyone) - len(table)
    said += f" -> {output}" + f"; {unfitted} without a fit left out" * (unfitted > 0)
    click.echo(said + f"; {excluded} of {exclude} left out" * (excluded > 0))


def _write_labels(table: FitsTable, target: str, output: Path) -> int:
    from fitting import writers

    if output.is_dir():
        raise click.UsageError(f"{output} is a folder; name the file to write with -o")
    return {
        "spin": writers.write_spin,
        "humandata": writers.write_humandata,
        "eft": writers.write_eft,
    }[target](output, table)


def _write_motions(
    table: FitsTable, body_file: Path | None, output: Path, fps: float
) -> tuple[int, int]:
    from fitting.body import load_body
    from fitting.writers import write_amass

    _check_folder(output)
    return write_amass(output, table, load_body(body_file), fps=fps)


def _write_meshes(
    table: FitsTable, body_file: Path | None, output: Path, suffix: str, *, quiet: bool
) -> int:
    from fitting.body import load_body
    from fitting.writers import write_meshes

    _check_folder(output)
    total = int(table.has_parameters.sum())
    with StageBars(hidden=quiet) as bars:
        return write_meshes(
            table,
            load_body(body_file),
            output,
            suffix,
            progress=lambda done: bars.update("export", done, total),
        )


def _check_folder(output: Path) -> None:
    if output.is_file():
        raise click.UsageError(f"{output} is a file; name a folder with -o")
