"""`fit-cli report`: the web page of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .comfort import EXIT_CODES, Outcome, concluded
from .options import ANY_PATH

if TYPE_CHECKING:
    from fitting.skeleton import KeypointSet
    from fitting.table import FitsTable

    from .page import Page
    from .page_body import PageBody

PAGE_NAME = "report.html"


@click.command(epilog=EXIT_CODES)
@click.argument("output", type=ANY_PATH)
@click.option(
    "--mesh/--no-mesh",
    default=True,
    show_default=True,
    help="Put the body into the page, to show people in 3D. Leave a licensed body out of a page "
    "that you pass on.",
)
@concluded
def report(output: Path, mesh: bool, quiet: bool) -> Outcome:
    """Make report.html of the run in the folder OUTPUT again."""
    write_report(output, mesh=mesh)
    page = str(output / PAGE_NAME)
    return Outcome(headline=page, record={"output": str(output), "files": {"report": page}})


def write_report(output: Path, *, mesh: bool = True) -> None:
    """Write the page of the run in `output` from what it left there.

    Args:
        output: folder of a run of `fit-cli fit`, `predict` or `train`.
        mesh: put the body that the run was fitted with, or that it learned, into the page.

    Raises:
        InputError: the folder holds no run.
        OutputError: the page cannot be written.
    """
    from .page import write_page
    from .page_training import write_training_page
    from .training_report import is_training, training_page

    path = output / PAGE_NAME
    if is_training(output):
        write_training_page(path, training_page(output, mesh=mesh))
    else:
        write_page(path, _fits_page(output, mesh=mesh))


def _fits_page(output: Path, *, mesh: bool) -> Page:
    """The page of a run that fitted people, from its table, run.json and pictures."""
    from fitting.people import Problem
    from fitting.skeleton import keypoint_set
    from fitting.table import read_fits

    from .page import Page, summarize
    from .page_people import collect_people

    table, record = read_fits(output), _read_record(output)
    people = points = body = None
    note = ""
    if len(table):
        people = collect_people(table, output)
        points = keypoint_set(str(table.column_array("keypoint_set")[0]))
        if mesh:
            body, note = _find_body(table, record, points)
    return Page(
        title=f"Fits of {output.resolve().name}",
        people=people,
        keypoint_set=points,
        summary=summarize(people),
        problems=[Problem(**problem) for problem in record["problems"]],
        body=body,
        note=note,
    )


def _read_record(output: Path) -> dict[str, Any]:
    """run.json, its problems checked."""
    from fitting.files import InputError
    from fitting.people import Problem

    try:
        record = json.loads((output / "run.json").read_text(encoding="utf-8"))
        for problem in record["problems"]:
            Problem(**problem)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{output}: run.json is missing or damaged; run fit-cli fit again"
        ) from error
    return record


def _find_body(
    table: FitsTable, record: dict[str, Any], points: KeypointSet
) -> tuple[PageBody | None, str]:
    """The body that a run was fitted with, and what there is to say of it.

    A body that is no longer there costs the page its meshes, not more.
    """
    from fitting.body import load_body
    from fitting.writers import check_body

    from .page_body import licence_note, pack_body

    path = record.get("command", {}).get("body")
    try:
        body = load_body(path)
        check_body(table, body)
    except ValueError as error:
        return None, f"People are not shown in 3D: {error}."
    return pack_body(body, points), "" if path is None else licence_note(Path(path))
