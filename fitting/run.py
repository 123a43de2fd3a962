"""One run of `fit-cli fit`: people in, fits table, pictures and `run.json` out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from priors.gmm import MaxMixturePrior, load_pose_prior

from . import __version__
from .body import Body, load_body
from .clock import StageClock
from .estimates import (
    ESTIMATE_POSE_STD,
    Estimates,
    Estimator,
    MakeEstimator,
    MakePredictor,
    PicturePredictor,
    match_estimates,
    read_estimates,
)
from .files import InputError, prepare_output, write_json
from .manifest import RECORD
from .offline import PeopleFit, choose_device, configure_solver, fit_people
from .people import NO_TRACK, People, Problem
from .pictures import draw_people, remove_pictures
from .problem import PARAMETERS, BodyParams, count_fits, status_words
from .rig import Rig, match_views, read_cameras
from .run_config import RunConfig, plain, refines, settled, solver_settings
from .sources import Found, Progress, check_exists, find_people, people_in_file
from .storage import is_remote
from .table import FitsTable, build_fits, replace_fits
from .tracks import link_people, make_tracks
from .versions import find_versions


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """What a run did.

    Attributes:
        table: the fits, as written.
        problems: rows and pictures that something was wrong with.
        record: content of `run.json`.
    """

    table: FitsTable
    problems: list[Problem]
    record: dict[str, Any]


_STAGES = ("load", "detect", "init", "fit", "write")


def run(
    config: RunConfig,
    progress: Progress = lambda stage, done, total: None,
    *,
    make_estimator: MakeEstimator | None = None,
    make_predictor: MakePredictor | None = None,
) -> RunSummary:
    """Fit the people of `config.input` and write everything to `config.output`.

    Args:
        config: what to do.
        progress: told what is done.
        make_estimator: of the people without estimates; none means that they start from the mean
            pose.
        make_predictor: of estimates from the pictures, in place of a file's.

    Raises:
        ValueError, OSError: nothing could be done; the message is one sentence with the fix.
    """
    check_exists(config.input)
    if is_remote(config.input) or is_remote(config.output):
        raise InputError("only runs in shards read and write URLs; add --shard-size")
    if config.init == "lift" and make_estimator is None:
        raise InputError("fits can begin at a lifter's estimates only where one is given")
    config = settled(config)
    torch.manual_seed(config.seed)
    clock = StageClock(dict.fromkeys(_STAGES, 0.0))
    device = choose_device(config.device)
    with clock.time("load"):
        body = load_body(config.body)
        prior = load_pose_prior().to(device)
        from_file = refines(config) and make_predictor is None
        estimates = read_estimates(Path(config.init), body) if from_file else None
        body.to(device)
        estimator = None if make_estimator is None else make_estimator(body)
        predictor = None if make_predictor is None else make_predictor(body)
    output = prepare_output(config.output, overwrite=config.overwrite)
    found = find_people(config, clock, progress)
    found, estimates = _matched(found, estimates, config.limit)
    if predictor is not None:
        with clock.time("init"):
            found, estimates = _predicted(config, found, predictor, progress)
    found = _linked(config, found)
    with clock.time("load"):
        rig = _read_rig(config, found.people)
    fit = fit_run(
        config,
        found.people,
        body,
        prior,
        estimates=estimates,
        estimator=estimator,
        rig=rig,
        progress=lambda done: progress("fit", done, len(found.people)),
    )
    for stage, seconds in fit.seconds.items():
        clock.seconds[stage] += seconds
    with clock.time("write"):
        table = make_table(found.people, fit, init=fit.init, metadata=_metadata(config, body))
        replace_fits(output, table)
        images = found.images if config.overlays else None
        draw_overlays(table, body.to("cpu"), images, output, config.jobs, progress)
    record = _record(config, found, fit, clock)
    write_json(output / RECORD, record)
    return RunSummary(table=table, problems=found.problems, record=record)


def draw_overlays(
    table: FitsTable, body: Body, images: Path | None, output: Path, jobs: int, progress: Progress
) -> None:
    """Draw the people of a table in place of an earlier run's, as the stage "draw".

    Args:
        table: rows of one run.
        body: of the rows, on the CPU.
        images: folder of the pictures; none means to draw nobody.
        output: folder of the run.
        jobs: pictures drawn at a time; -1 means as many as there are cores.
        progress: told what is done.
    """
    remove_pictures(output)
    if images is not None:
        draw_people(
            table,
            body,
            images,
            output,
            jobs=jobs,
            progress=lambda done: progress("draw", done, len(table)),
        )


def _linked(config: RunConfig, found: Found) -> Found:
    """The people of a video with their tracks: those of the file, or from picture to picture."""
    if config.fps is None or found.people.track is not None:
        return found
    return replace(found, people=replace(found.people, track=link_people(found.people, config.fps)))


def _matched(
    found: Found, estimates: Estimates | None, limit: int | None
) -> tuple[Found, Estimates | None]:
    """The first so many people, and the estimates of these."""
    first = slice(limit)
    limited = replace(found, people=found.people.select(first))
    if estimates is None:
        return limited, None
    return limited, match_estimates(estimates, found.people).select(first)


def _predicted(
    config: RunConfig, found: Found, predictor: PicturePredictor, progress: Progress
) -> tuple[Found, Estimates]:
    """What the pictures say of the people, and the problems of those that cannot be read."""
    if found.images is None:
        raise InputError(
            f"{config.init} sees pictures; give the folder of those that {config.input} names with "
            "--images"
        )
    count = len(found.people)
    estimates, problems = predictor(
        found.people,
        found.images,
        focal=config.focal,
        progress=lambda done: progress("predict", done, count),
    )
    return found.with_problems(problems), estimates


def _read_rig(config: RunConfig, people: People) -> Rig | None:
    """The cameras of `config.cameras`, and what they saw of the people."""
    if config.cameras is None:
        return None
    if config.focal is not None or config.solve_focal:
        raise InputError("--cameras gives the focal lengths; leave --focal and --solve-focal out")
    if config.solver != "lm":
        raise InputError(f"--solver {config.solver} knows one camera only; use lm with --cameras")
    cameras = read_cameras(config.cameras)
    seen = []
    for camera in cameras[1:]:
        assert camera.keypoints is not None  # `read_cameras` saw to it
        found = people_in_file(
            camera.keypoints,
            images=None,
            keypoint_format=config.keypoint_format,
            keypoint_set=config.keypoint_set,
        )
        seen.append(match_views(people, found.people, name=camera.name))
    return Rig(cameras=cameras, seen=seen)


def fit_run(
    config: RunConfig,
    people: People,
    body: Body,
    prior: MaxMixturePrior,
    *,
    estimates: Estimates | None,
    estimator: Estimator | None,
    rig: Rig | None = None,
    progress: Callable[[int], object] = lambda done: None,
) -> PeopleFit:
    """Fit people as a settled configuration says; the rest is what `offline.fit_people` takes."""
    return fit_people(
        people,
        body,
        prior,
        configure_solver(config.solver, solve_focal=config.solve_focal),
        focal=config.focal,
        batch_size=config.batch_size,
        starts=config.starts,
        estimates=estimates,
        estimator=estimator,
        pose_std=config.proximal_std or ESTIMATE_POSE_STD,
        seed=config.seed,
        rig=rig,
        tracks=None if config.fps is None else make_tracks(people, config.fps),
        progress=progress,
    )


def make_table(
    people: People, fit: PeopleFit, *, init: str | np.ndarray, metadata: Mapping[str, str]
) -> FitsTable:
    """The fits table (docs/conventions.md) of N people and their fits."""
    result = fit.result
    columns = {
        **people_columns(people, result.params, result.intrinsics),
        "reprojection_error_px": result.mean_reprojection_error.numpy(),
        "cost_initial": result.cost_initial.numpy(),
        "cost_final": result.cost_final.numpy(),
        "num_steps": result.num_steps.numpy(),
        "joint_std_mm": result.joint_std_mm.numpy(),
        "status": status_words(result.status),
        "init": np.broadcast_to(init, len(people)),
    }
    return build_fits(columns, metadata)


def people_columns(people: People, params: BodyParams, intrinsics: Tensor) -> dict[str, np.ndarray]:
    """Columns of the fits table of N people, with their parameters and cameras, on the CPU."""
    N = len(people)
    triplets = np.concatenate([people.keypoints_2d, people.conf[..., None]], axis=2)
    K = intrinsics.numpy()
    return {
        "image": people.image,
        "person": people.person,
        "annotation_id": people.annotation_id,
        "width": people.width,
        "height": people.height,
        "keypoint_set": np.full(N, people.keypoint_set),
        "keypoints_2d": triplets.reshape(N, triplets.shape[1] * 3),
        **{name: getattr(params, name).numpy() for name in PARAMETERS},
        "fx": K[:, 0, 0],
        "fy": K[:, 1, 1],
        "cx": K[:, 0, 2],
        "cy": K[:, 1, 2],
        "track": np.full(N, NO_TRACK) if people.track is None else people.track,
    }


def _metadata(config: RunConfig, body: Body) -> dict[str, str]:
    settings = {**plain(config), "solver_settings": solver_settings(config)}
    return {
        "body_sha256": body.sha256,
        "config": json.dumps(settings),
        "version": __version__,
    }


def _record(config: RunConfig, found: Found, fit: PeopleFit, clock: StageClock) -> dict[str, Any]:
    """Content of run.json."""
    statuses = Counter(status_words(fit.result.status).tolist())
    fitted = count_fits(statuses)
    fitting_seconds = clock.seconds["init"] + clock.seconds["fit"]
    return {
        "command": plain(config),
        "versions": find_versions(),
        "counts": {
            "people": len(found.people),
            "fitted": fitted,
            "status": dict(statuses),
            "without_estimate": int((fit.init != "given").sum()) if refines(config) else None,
            "pictures_without_people": len(found.empty),
            "problems": len(found.problems),
        },
        "batch_size": fit.batch_size,
        "seconds": {stage: round(seconds, 3) for stage, seconds in clock.seconds.items()},
        "fits_per_second": round(fitted / fitting_seconds, 3) if fitting_seconds > 0 else None,
        "pictures_without_people": found.empty,
        "problems": [asdict(problem) for problem in found.problems],
    }
