"""`fit-cli predict`: people in pictures, by an image regressor alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .closing import conclude_run
from .comfort import EXIT_CODES, Outcome, concluded
from .options import (
    FILE,
    batch_size_option,
    body_option,
    device_option,
    dry_run_option,
    focal_option,
    jobs_option,
    limit_option,
    overlays_option,
    overwrite_option,
    report_option,
)
from .plan import check_output, conclude_plan, describe_body, describe_camera, plan_people
from .progress import StageBars
from .sources import source_options

if TYPE_CHECKING:
    from regressor.prediction_run import PredictConfig


@click.command(epilog=EXIT_CODES)
@source_options
@click.option(
    "--checkpoint",
    required=True,
    type=FILE,
    help="Image regressor: best.pt of fit-cli train, or SPIN's, CLIFF's or PARE's published file.",
)
@body_option()
@focal_option()
@device_option()
@batch_size_option(32, "People that the network sees at a time.")
@jobs_option("Pictures read and drawn at a time")
@overlays_option("Draw each person over its picture")
@report_option()
@limit_option("Predict")
@overwrite_option()
@dry_run_option()
@concluded
def predict(quiet: bool, dry_run: bool, report: bool, output: Path, **options: Any) -> Outcome:
    """Predict the people of INPUT, a picture or a folder of pictures, without fitting them.

    Leaves fits.parquet, run.json, overlays/ and report.html in the output folder. Rows and pictures
    that are left out are listed in run.json.
    """
    from fitting.allocator import keep_freed_memory
    from regressor.prediction_run import PredictConfig, run_prediction

    config = PredictConfig(output=output, **options)
    if dry_run:
        return _plan(config, report=report)
    keep_freed_memory()
    with StageBars(hidden=quiet) as bars:
        summary = run_prediction(config, bars.update)
    if report:
        from .report import write_report

        write_report(output)
    return conclude_run(output, summary.record, summary.problems, verb="predicted", report=report)


def _plan(config: PredictConfig, *, report: bool) -> Outcome:
    """What the run would do."""
    from fitting.body import load_body
    from fitting.offline import choose_device
    from regressor.predict import load_predictor

    device = choose_device(config.device).type
    body = load_body(config.body)
    load_predictor(config.checkpoint, body)  # which says what is wrong with it, if anything is
    check_output(config.output, overwrite=config.overwrite)
    planned = plan_people(config, config.limit)
    names = ["fits.parquet", "run.json"]
    return conclude_plan(
        config,
        planned,
        "predict",
        camera=describe_camera(planned.people, config.focal, None),
        output=config.output,
        names=[*names, *["overlays/"] * config.overlays, *["report.html"] * report],
        settings={
            "checkpoint": str(config.checkpoint),
            "body": describe_body(body),
            "device": device,
        },
    )
