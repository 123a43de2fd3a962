"""`fit-cli report`: the web page of a run."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .page import PageRow, summarize, write_page

if TYPE_CHECKING:
    from fitting.table import FitsTable

PAGE_NAME = "report.html"


@click.command()
@click.argument("output", type=click.Path(path_type=Path))
def report(output: Path) -> None:
    """Make report.html of the run in the folder OUTPUT again."""
    write_report(output)
    click.echo(output / PAGE_NAME)


def write_report(output: Path) -> None:
    """Write the page of the run in `output` from its table, run.json and pictures.

    Raises:
        InputError: the folder holds no run.
        OutputError: the page cannot be written.
    """
    from fitting.files import InputError
    from fitting.people import Problem
    from fitting.table import read_fits

    table = read_fits(output)
    try:
        record = json.loads((output / "run.json").read_text(encoding="utf-8"))
        problems = [Problem(**problem) for problem in record["problems"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{output}: run.json is missing or damaged; run fit-cli fit again"
        ) from error
    rows = list(_page_rows(table, output)) if len(table) else []
    write_page(output / PAGE_NAME, rows, summary=summarize(rows), problems=problems)


def _page_rows(table: FitsTable, output: Path) -> Iterator[PageRow]:
    from fitting.people import person_size
    from fitting.pictures import person_files

    names = ("image", "person", "status", "reprojection_error_px", "cost_final")
    columns = (table.column_array(name) for name in names)
    keypoints = table.column_array("keypoints_2d").reshape(len(table), -1, 3)
    sizes = person_size(keypoints[..., :2], keypoints[..., 2])
    seen = (keypoints[..., 2] > 0).sum(axis=1)
    for row, (image, person, status, error, cost, size, count) in enumerate(
        zip(*columns, sizes, seen, strict=True)
    ):
        files = person_files(row)
        drawn: dict[str, Any] = vars(files) if (output / files.overlay).is_file() else {}
        yield PageRow(
            title=f"{image or 'no picture'}, person {person}",
            reprojection_error_px=_finite(error),
            relative_error=_finite(error / size) if size > 0 else None,
            cost_final=_finite(cost),
            status=str(status),
            num_keypoints=int(count),
            **drawn,
        )


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
