"""`fit-cli fit`: people in pictures or keypoint files become SMPL fits."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .progress import StageBars
from .shards import fit_shards, shard_options, take_shards
from .sources import source_options

if TYPE_CHECKING:
    from fitting.estimates import MakeEstimator, MakePredictor
    from fitting.run import RunSummary
    from fitting.shard_run import ShardsSummary

_CHECKPOINTS = (".pt", ".pth", ".ckpt")


@click.command()
@source_options
@click.option(
    "--body",
    type=click.Path(path_type=Path),
    help="SMPL-format body, .npz or .pkl; the bundled one if not given.",
)
@click.option(
    "--init",
    default="lift",
    show_default=True,
    metavar="lift|mean|PATH",
    help="Where fits begin: what the lifter makes of the keypoints, the bundled one or that of a "
    "checkpoint; the mean pose; or estimates to refine: what an image regressor's checkpoint (.pt, "
    ".pth, .ckpt) makes of the pictures, a fits table, or an .npz with pose and betas.",
)
@click.option(
    "--proximal-std",
    metavar="RAD",
    type=click.FloatRange(min=0, min_open=True),
    help="How far the estimates' joints are expected to be off about each axis.  [default: 0.2]",
)
@click.option(
    "--starts",
    type=click.IntRange(1, 18),
    help="Initial poses tried for each person; 18 is slower and surer.  [default: 2; of a "
    "video 4; with estimates 1]",
)
@click.option(
    "--solver",
    default="lm",
    show_default=True,
    type=click.Choice(["lm", "adam", "lbfgs"]),
    help="Levenberg-Marquardt, or SMPLify as in SPIN or in the stages of SMPLify-X.",
)
@click.option(
    "--cameras",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Calibration of several cameras that saw the same people, JSON; INPUT is the first one's.",
)
@click.option(
    "--focal",
    metavar="PX",
    type=click.FloatRange(min=0, min_open=True),
    help="Focal length of all pictures; their diagonal if not given.",
)
@click.option(
    "--solve-focal",
    is_flag=True,
    help="Take the focal lengths for guesses and solve for them too.",
)
@click.option(
    "--video",
    is_flag=True,
    help="The pictures follow each other: fit all pictures of a person together.",
)
@click.option(
    "--fps",
    type=float,
    help="Pictures in a second of a video, as their names count them.  [default: 30]",
)
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda")
@click.option(
    "--batch-size",
    default=256,
    show_default=True,
    type=click.IntRange(min=1),
    help="People solved side by side.",
)
@click.option(
    "--jobs",
    default=-1,
    show_default=True,
    help="Pictures drawn, or shards fitted, at a time; -1: cores.",
)
@click.option(
    "--overlays/--no-overlays",
    default=None,
    help="Draw each fit over its picture.  [default: overlays; in shards none]",
)
@click.option(
    "--report/--no-report",
    default=None,
    help="Write report.html.  [default: report; in shards none]",
)
@shard_options
@click.option("--limit", type=click.IntRange(min=1), help="Fit the first so many people only.")
@click.option("--seed", default=0, show_default=True, help="Of all random choices.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier run in the output folder.")
@click.option("--quiet", is_flag=True, help="No progress bars.")
def fit(quiet: bool, report: bool | None, overlays: bool | None, **options: Any) -> None:
    """Fit SMPL to the people of INPUT: a picture, a folder of pictures, or a keypoint file.

    Leaves fits.parquet, run.json, overlays/ and report.html in the output folder; in shards,
    fits/part-*.parquet, manifest.json and run.json, and Ctrl-C finishes the shards begun. Exit code
    1 means that some rows or pictures were left out; they are listed in run.json.
    """  # fmt: skip
    from fitting.run import RunConfig, run

    init = options["init"]
    options["init"], make_estimator, make_predictor = _choose_start(init)
    makers: dict[str, Any] = {"make_estimator": make_estimator, "make_predictor": make_predictor}
    own_lifter = Path(init) if options["init"] == "lift" != init else None
    shards = take_shards(options, own_lifter)
    whole = shards is None
    config = RunConfig(overlays=whole if overlays is None else overlays, **options)
    summary: RunSummary | ShardsSummary
    if shards is not None:
        summary = fit_shards(config, shards, quiet=quiet, **makers)
    else:
        with StageBars(hidden=quiet) as bars:
            summary = run(config, bars.update, **makers)
    if summary.record is not None:
        if whole if report is None else report:
            from .report import write_report

            write_report(config.output)
        _say(summary.record, config.output)
    for problem in summary.problems:
        click.echo(f"fit-cli: {problem}", err=True)
    if summary.problems:
        raise SystemExit(1)


def _choose_start(init: str) -> tuple[str, MakeEstimator | None, MakePredictor | None]:
    """What `--init` means to a run, and what estimates people from keypoints and from pictures."""
    if init == "mean":
        return init, None, None
    from regressor import load_lifter

    if Path(init).suffix.lower() not in _CHECKPOINTS:
        return init, load_lifter, None
    from regressor.checkpoints import architecture_of
    from regressor.predict import ARCHITECTURES, load_predictor

    if architecture_of(init) in ARCHITECTURES:
        return init, load_lifter, partial(load_predictor, Path(init))
    return "lift", partial(load_lifter, path=Path(init)), None


def _say(record: dict[str, Any], output: Path) -> None:
    """A closing line on what was done and where it is."""
    counts, rate = record["counts"], record["fits_per_second"]
    speed = f" at {rate:.2g} people per second" if rate else ""
    unseen = counts["people"] - counts["fitted"]
    without = f", {unseen} without keypoints" if unseen else ""
    click.echo(
        f"{counts['fitted']} of {counts['people']} people fitted{speed}{without} -> {output}"
    )
