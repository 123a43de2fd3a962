"""`fit-cli fit`: people in pictures or keypoint files become SMPL fits."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .closing import conclude_run
from .comfort import EXIT_CODES, Outcome, concluded, counted
from .options import (
    FILE,
    Choice,
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
    seed_option,
)
from .plan import check_output, conclude_plan, describe_body, describe_camera, plan_people
from .progress import StageBars
from .shards import fit_shards, shard_options, take_shards
from .sources import source_options

if TYPE_CHECKING:
    from fitting.body import Body
    from fitting.estimates import MakeEstimator, MakePredictor
    from fitting.run import RunSummary
    from fitting.run_config import RunConfig
    from fitting.shard_run import ShardConfig, ShardsSummary

_CHECKPOINTS = (".pt", ".pth", ".ckpt")


@click.command(epilog=EXIT_CODES)
@source_options
@body_option()
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
    type=Choice(["lm", "adam", "lbfgs"]),
    help="Levenberg-Marquardt, or SMPLify as in SPIN or in the stages of SMPLify-X.",
)
@click.option(
    "--cameras",
    type=FILE,
    help="Calibration of several cameras that saw the same people, JSON; INPUT is the first one's.",
)
@focal_option()
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
@device_option()
@batch_size_option(256, "People solved side by side.")
@jobs_option("Pictures drawn, or shards fitted, at a time")
@overlays_option("Draw each fit over its picture", "overlays; in shards none")
@report_option("report; in shards none")
@shard_options
@limit_option("Fit")
@seed_option()
@overwrite_option()
@dry_run_option()
@concluded
def fit(
    quiet: bool, dry_run: bool, report: bool | None, overlays: bool | None, **options: Any
) -> Outcome:
    """Fit SMPL to the people of INPUT: a picture, a folder of pictures, or a keypoint file.

    Leaves fits.parquet, run.json, overlays/ and report.html in the output folder; in shards,
    fits/part-*.parquet, manifest.json and run.json, and Ctrl-C finishes the shards begun. Rows and
    pictures that are left out are listed in run.json.
    """  # fmt: skip
    from fitting.allocator import keep_freed_memory
    from fitting.run_config import RunConfig
    from fitting.storage import is_remote

    init = options["init"]
    options["init"], make_estimator, make_predictor = _choose_start(init)
    makers: dict[str, Any] = {"make_estimator": make_estimator, "make_predictor": make_predictor}
    own_lifter = Path(init) if options["init"] == "lift" != init else None
    shards = take_shards(options, own_lifter)
    config = RunConfig(overlays=shards is None if overlays is None else overlays, **options)
    report = shards is None if report is None else report
    if dry_run or (report and shards is not None):
        _check_local(config)
    if dry_run:
        return _plan(config, shards, make_predictor, report=report)
    keep_freed_memory()
    summary: RunSummary | ShardsSummary
    if shards is None:
        summary = _fit_at_once(config, quiet=quiet, **makers)
    else:
        summary = fit_shards(config, shards, quiet=quiet, **makers)
        if summary.record is None:
            return _unfinished(config, summary)
    assert summary.record is not None  # all is done
    if is_remote(config.output):
        return _conclude_remote(config, summary)
    if report:
        from .report import write_report

        write_report(config.output)
    return conclude_run(
        config.output, summary.record, summary.problems, verb="fitted", report=report
    )


def _fit_at_once(config: RunConfig, *, quiet: bool, **makers: Any) -> RunSummary:
    from fitting.run import run

    with StageBars(hidden=quiet) as bars:
        return run(config, bars.update, **makers)


def _check_local(config: RunConfig) -> None:
    from fitting.storage import is_remote

    for location in (config.input, config.output):
        if is_remote(location):
            raise click.UsageError(f"{location}: --report and --dry-run are for this machine only")


def _conclude_remote(config: RunConfig, summary: RunSummary | ShardsSummary) -> Outcome:
    """Of a run whose parts are in an object store, from where they are not read again."""
    assert summary.record is not None
    counts = summary.record["counts"]
    return Outcome(
        headline=f"{counts['fitted']} of {counts['people']} people fitted -> {config.output}",
        record={"output": str(config.output), "counts": counts},
        problems=summary.problems,
        named_in=str(config.output / "run.json"),
    )


def _unfinished(config: RunConfig, summary: ShardsSummary) -> Outcome:
    """Of a run whose other shards are for other processes; `fit_shards` said how to go on."""
    return Outcome(
        headline="",
        record={
            "output": str(config.output),
            "shards": {"done": summary.done, "total": summary.total},
        },
        problems=summary.problems,
        named_in=f"{config.output}/fits/_part-*.json",
    )


def _plan(
    config: RunConfig,
    shards: ShardConfig | None,
    make_predictor: MakePredictor | None,
    *,
    report: bool,
) -> Outcome:
    """What the run would do."""
    from fitting.body import load_body
    from fitting.offline import choose_device
    from fitting.run_config import settled

    config = settled(config)
    assert config.starts is not None  # it is chosen now
    body = load_body(config.body)
    _check_start(config, body, make_predictor)
    check_output(config.output, overwrite=config.overwrite or (shards is not None and shards.joins))
    planned = plan_people(config, config.limit)
    settings = {
        "begins at": config.init,
        "solver": f"{config.solver}, {counted(config.starts, 'start')}",
        "body": describe_body(body),
        "device": choose_device(config.device).type,
    }
    names = ["fits.parquet" if shards is None else "fits/part-*.parquet", "run.json"]
    names += ["overlays/"] * (config.overlays and _has_pictures(config))
    names += ["report.html"] * report
    if shards is not None and shards.size and planned.people is not None:
        settings["shards"] = f"{-(-len(planned.people) // shards.size)} of {shards.size} rows"
    return conclude_plan(
        config,
        planned,
        "fit",
        camera=describe_camera(planned.people, config.focal, config.cameras),
        output=config.output,
        names=names,
        settings=settings,
    )


def _check_start(config: RunConfig, body: Body, make_predictor: MakePredictor | None) -> None:
    """InputError if the estimates at which fits are to begin cannot be had."""
    from fitting.estimates import read_estimates
    from fitting.run_config import refines

    if make_predictor is not None:
        make_predictor(body)
    elif refines(config):
        read_estimates(Path(config.init), body)


def _has_pictures(config: RunConfig) -> bool:
    from fitting.sources import is_keypoint_source

    is_keypoints = config.keypoints is None and is_keypoint_source(config.input)
    return not is_keypoints or config.images is not None


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
