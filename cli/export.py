"""`fit-cli export`: fits as mesh files."""

from __future__ import annotations

from pathlib import Path

import click

from .progress import StageBars


@click.command()
@click.argument("fits", type=click.Path(path_type=Path))
@click.option(
    "--to", "suffix", required=True, type=click.Choice(["obj", "ply", "glb"]), help="Format."
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the files, one per person.",
)
@click.option(
    "--body",
    "body_file",
    type=click.Path(path_type=Path),
    help="Body that the fits were made with; the bundled one if not given.",
)
@click.option("--quiet", is_flag=True, help="No progress bar.")
def export(fits: Path, suffix: str, output: Path, body_file: Path | None, quiet: bool) -> None:
    """Write the people in FITS, a fits table or the folder of a run, as meshes."""
    from fitting.body import load_body
    from fitting.table import read_fits
    from fitting.writers import write_meshes

    table = read_fits(fits)
    with StageBars(hidden=quiet) as bars:
        count = write_meshes(
            table,
            load_body(body_file),
            output,
            suffix,
            progress=lambda done: bars.update("export", done, int(table.has_parameters.sum())),
        )
    click.echo(f"{count} meshes -> {output}")
