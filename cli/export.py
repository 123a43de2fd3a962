"""`fit-cli export`: fits as mesh files, and as other programs' pseudo labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .comfort import EXIT_CODES, Outcome, concluded, counted
from .options import ANY_PATH, FILE, Choice, body_option
from .progress import StageBars

if TYPE_CHECKING:
    from fitting.table import FitsTable

_MESHES = ("obj", "ply", "glb")
_LABELS = ("spin", "humandata", "eft")
_FPS = 30.0  # fitting.tracks.DEFAULT_FPS, whose module need not be loaded for --help


@click.command(epilog=EXIT_CODES)
@click.argument("fits", type=ANY_PATH)
@click.option(
    "--to",
    "target",
    required=True,
    type=Choice([*_MESHES, *_LABELS, "amass"]),
    help="Format.",
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=ANY_PATH,
    help="File to write (spin, humandata, eft), or folder for one file per person or track.",
)
@body_option("Body that the fits were made with; the bundled one if not given.", name="body_file")
@click.option(
    "--fps", default=_FPS, show_default=True, help="Pictures in a second; for amass alone."
)
@click.option(
    "--exclude",
    type=FILE,
    help="CSV of people to leave out, as report.html saves those marked as bad.",
)
@concluded
def export(
    fits: Path,
    target: str,
    output: Path,
    body_file: Path | None,
    fps: float,
    exclude: Path | None,
    quiet: bool,
) -> Outcome:
    """Write the people in FITS, a fits table or the folder of a run, in another format.

    Pseudo labels carry how sure they are and where they come from: joint_std_mm, status, init and
    others, named as in the fits table (docs/formats.md).
    """
    from fitting.exclusions import leave_out
    from fitting.table import read_fits

    everyone = read_fits(fits)
    table = everyone if exclude is None else leave_out(everyone, exclude)
    if target in _LABELS:
        files, people = 1, _write_labels(table, target, output)
        said = counted(people, "person", "people")
    elif target == "amass":
        people, files = _write_motions(table, body_file, output, fps)
        said = f"{counted(people, 'person', 'people')} in {counted(files, 'motion')}"
    else:
        files = people = _write_meshes(table, body_file, output, target, quiet=quiet)
        said = counted(files, "mesh", "meshes")
    unfitted, excluded = int((~table.has_parameters).sum()), len(everyone) - len(table)
    said += f" -> {output}" + f"; {unfitted} without a fit left out" * (unfitted > 0)
    return Outcome(
        headline=said + f"; {excluded} of {exclude} left out" * (excluded > 0),
        record={
            "output": str(output),
            "format": target,
            "counts": {
                "people": people,
                "files": files,
                "without_fit": unfitted,
                "excluded": excluded,
            },
        },
    )


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
