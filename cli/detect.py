"""`fit-cli detect`: people and their keypoints in pictures."""

from __future__ import annotations

from pathlib import Path

import click

from .comfort import EXIT_CODES, Outcome, concluded, counted, say_some
from .options import ANY_PATH, dry_run_option, output_option
from .plan import check_output, count_pictures
from .progress import StageBars
from .sources import detector_option


@click.command(epilog=EXIT_CODES)
@click.argument("input", type=ANY_PATH)
@output_option("COCO JSON to write.", file=True)
@detector_option("What finds people.")
@dry_run_option()
@concluded
def detect(input: Path, output: Path, detector: str, dry_run: bool, quiet: bool) -> Outcome:
    """Find the people in INPUT, a picture or a folder of pictures, and write their keypoints."""
    from fitting.detector import load_detector
    from fitting.sources import check_exists, people_in_pictures
    from fitting.writers import write_coco

    check_exists(input)
    total = count_pictures(input)
    if dry_run:
        return _plan(input, output, detector, total)
    with StageBars(hidden=quiet) as bars:
        found = people_in_pictures(
            input, load_detector(detector), progress=lambda done: bars.update("detect", done, total)
        )
    write_coco(output, found.people)
    empty = [f"{name}: no person found" for name in found.empty]
    say_some(empty, " without people, which --json names")
    without, who = len(found.empty), counted(len(found.people), "person", "people")
    return Outcome(
        headline=f"{who} in {counted(total, 'picture')} -> {output}",
        facts={"empty": f"{counted(without, 'picture')} without people"} if without else {},
        record={
            "output": str(output),
            "counts": {"people": len(found.people), "pictures": total},
            "keypoint_set": found.people.keypoint_set,
            "pictures_without_people": found.empty,
        },
        problems=found.problems,
    )


def _plan(input: Path, output: Path, detector: str, total: int) -> Outcome:
    """What the command would do."""
    check_output(output.parent, overwrite=True)
    replaces = ", in place of the file there" if output.exists() else ""
    return Outcome(
        headline=f"would search {counted(total, 'picture')} by {detector} -> {output}",
        facts={"reads": str(input), "writes": f"{output}{replaces}"},
        record={
            "dry_run": True,
            "input": str(input),
            "output": str(output),
            "pictures": total,
            "writes": [str(output)],
        },
    )
