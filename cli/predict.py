"""`fit-cli predict`: people in pictures, by an image regressor alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .progress import StageBars
from .sources import source_options


@click.command()
@source_options
@click.option(
    "--checkpoint",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Image regressor: best.pt of fit-cli train, or SPIN's, CLIFF's or PARE's published file.",
)
@click.option(
    "--body",
    type=click.Path(path_type=Path),
    help="SMPL-format body, .npz or .pkl; the bundled one if not given.",
)
@click.option(
    "--focal",
    metavar="PX",
    type=click.FloatRange(min=0, min_open=True),
    help="Focal length of all pictures; their diagonal if not given.",
)
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda")
@click.option(
    "--batch-size",
    default=32,
    show_default=True,
    type=click.IntRange(min=1),
    help="People that the network sees at a time.",
)
@click.option(
    "--jobs", default=-1, show_default=True, help="Pictures read and drawn at a time; -1: cores."
)
@click.option(
    "--overlays/--no-overlays",
    default=True,
    show_default=True,
    help="Draw each person over its picture.",
)
@click.option("--report/--no-report", default=True, show_default=True, help="Write report.html.")
@click.option("--limit", type=click.IntRange(min=1), help="Predict the first so many people only.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier run in the output folder.")
@click.option("--quiet", is_flag=True, help="No progress bars.")
def predict(quiet: bool, report: bool, **options: Any) -> None:
    """Predict the people of INPUT, a picture or a folder of pictures, without fitting them.

    Leaves fits.parquet, run.json, overlays/ and report.html in the output folder. Exit code 1 means
    that some rows or pictures were left out; they are listed in run.json.
    """
    from regressor.prediction_run import PredictConfig, run_prediction

    with StageBars(hidden=quiet) as bars:
        summary = run_prediction(PredictConfig(**options), bars.update)
    output = options["output"]
    if report:
        from .report import write_report

        write_report(output)
    counts, rate = summary.record["counts"], summary.record["people_per_second"]
    speed = f" at {rate:.3g} people per second" if rate else ""
    click.echo(f"{counts['predicted']} of {counts['people']} people predicted{speed} -> {output}")
    for problem in summary.problems:
        click.echo(f"fit-cli: {problem}", err=True)
    if summary.problems:
        raise SystemExit(1)
