"""One run of `fit-cli fit`: people in, fits table, pictures and `run.json` out."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from priors.gmm import MaxMixturePrior, load_pose_prior

from . import __version__
from .body import Body, load_body
from .clock import StageClock
from .detector import load_detector
from .estimates import (
    ESTIMATE_POSE_STD,
    Estimates,
    Estimator,
    MakeEstimator,
    match_estimates,
    read_estimates,
)
from .files import InputError, prepare_output, write_json
from .images import list_images
from .offline import PeopleFit, choose_device, choose_starts, configure_solver, fit_people
from .people import NO_TRACK, People, Problem
from .pictures import draw_people, remove_pictures
from .problem import Status
from .rig import Rig, match_views, read_cameras
from .sources import Found, is_keypoint_source, people_in_file, people_in_pictures
from .table import FILE_NAME, FitsTable, build_fits, write_fits
from .tracks import DEFAULT_FPS, check_fps, link_people, make_tracks

Progress = Callable[[str, int, int], object]
"""Told (stage, number of items just done, number of items in all)."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What `fit-cli fit` is asked to do.

    Attributes:
        input: a picture, a folder of pictures, or a keypoint file or folder.
        output: folder for the results.
        keypoints: keypoint file of the pictures in `input`; none means to detect people.
        keypoint_format: of the keypoint file; "auto" recognises it.
        keypoint_set: overrides what the keypoint file says.
        images: folder of the pictures that a keypoint file given as `input` names.
        detector: for pictures without keypoints.
        body: SMPL-format file; none means the bundled body.
        init: "mean"; "lift", what the estimator says; or the path of estimates to refine
            (`estimates.read_estimates`), the estimator's being for whom they leave out.
        proximal_std: radians, how far the estimates' joints are expected to be off about each axis;
            none means `estimates.ESTIMATE_POSE_STD`.
        starts: initial poses tried for each person; none means 2, 4 of a video, 1 with estimates.
        solver: a name in `offline.SOLVERS`.
        cameras: calibration of several cameras, the first of which is that of `input`
            (`rig.read_cameras`).
        focal: pixels, for everyone; none means each row's own, or else the picture's diagonal.
        solve_focal: take the focal lengths for guesses and solve for them too.
        video: the pictures follow each other; fit all pictures of a person together.
        fps: pictures in a second, as their names count them.
        device: "auto", "cpu" or "cuda".
        batch_size: people solved side by side.
        jobs: pictures drawn at a time; -1 means as many as there are cores.
        overlays: draw each person over its picture.
        limit: fit the first so many people only.
        seed: of all random choices.
        overwrite: replace an earlier run in `output`.
    """

    input: Path
    output: Path
    keypoints: Path | None = None
    keypoint_format: str = "auto"
    keypoint_set: str | None = None
    images: Path | None = None
    detector: str = "blazepose"
    body: Path | None = None
    init: str = "mean"
    proximal_std: float | None = None
    starts: int | None = None
    solver: str = "lm"
    cameras: Path | None = None
    focal: float | None = None
    solve_focal: bool = False
    video: bool = False
    fps: float | None = None
    device: str = "auto"
    batch_size: int = 256
    jobs: int = -1
    overlays: bool = True
    limit: int | None = None
    seed: int = 0
    overwrite: bool = False


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
) -> RunSummary:
    """Fit the people of `config.input` and write everything to `config.output`.

    Args:
        config: what to do.
        progress: told what is done.
        make_estimator: of the people without estimates; none means that they start from the mean
            pose.

    Raises:
        ValueError, OSError: nothing could be done; the message is one sentence with the fix.
    """
    if not config.input.exists():
        raise InputError(f"{config.input}: no such file or folder; check the path of the input")
    if config.init == "lift" and make_estimator is None:
        raise InputError("fits can begin at a lifter's estimates only where one is given")
    config = _settled(config)
    torch.manual_seed(config.seed)
    clock = StageClock(dict.fromkeys(_STAGES, 0.0))
    device = choose_device(config.device)
    with clock.time("load"):
        body = load_body(config.body)
        prior = load_pose_prior().to(device)
        estimates = read_estimates(Path(config.init), body) if _refines(config) else None
        body.to(device)
        estimator = None if make_estimator is None else make_estimator(body)
    output = prepare_output(config.output, overwrite=config.overwrite)
    found = _find_people(config, clock, progress)
    found, estimates = _matched(found, estimates, config.limit)
    found = _linked(config, found)
    count = len(found.people)
    with clock.time("load"):
        rig = _read_rig(config, found.people)
    fit = _fit(config, found.people, estimates, estimator, rig, body, prior, progress)
    clock.seconds.update(fit.seconds)
    with clock.time("write"):
        table = make_table(found.people, fit, init=fit.init, metadata=_metadata(config, body))
        write_fits(output / FILE_NAME, table)
        remove_pictures(output)
        if config.overlays and found.images is not None:
            draw_people(
                table,
                body.to("cpu"),
                found.images,
                output,
                jobs=config.jobs,
                progress=lambda done: progress("draw", done, count),
            )
    record = _record(config, found, fit, clock)
    write_json(output / "run.json", record)
    return RunSummary(table=table, problems=found.problems, record=record)


def _settled(config: RunConfig) -> RunConfig:
    """The same with its numbers chosen; InputError for an option that has no use."""
    config = _settled_video(config)
    refined = _refines(config)
    guided, std = refined and config.solver == "lm", config.proximal_std
    if std is not None and not guided:
        raise InputError(
            "--proximal-std says how good the estimates are that --solver lm is to stay near; give "
            "them with --init, or leave it out"
        )
    if guided and std is None:
        std = ESTIMATE_POSE_STD
    estimated = config.init != "mean"
    starts = choose_starts(config.starts, estimates=estimated, video=config.video)
    return replace(config, starts=starts, proximal_std=std)


def _refines(config: RunConfig) -> bool:
    """Whether there are estimates in a file."""
    return config.init not in ("mean", "lift")


def _settled_video(config: RunConfig) -> RunConfig:
    if not config.video:
        if config.fps is not None:
            raise InputError("--fps is for pictures that follow each other; add --video")
        return config
    if config.solver != "lm":
        raise InputError(
            f"--solver {config.solver} fits each picture alone; use lm with --video, or leave "
            "--video out"
        )
    fps = DEFAULT_FPS if config.fps is None else config.fps
    check_fps(fps)
    return replace(config, fps=fps)


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


def _find_people(config: RunConfig, clock: StageClock, progress: Progress) -> Found:
    """Read or detect the people to fit."""
    source = config.keypoints
    images: Path | None = config.input.parent if config.input.is_file() else config.input
    if source is None and is_keypoint_source(config.input):
        source, images = config.input, config.images
    if source is None:
        with clock.time("load"):
            detector = load_detector(config.detector)
            total = 1 if config.input.is_file() else len(list_images(config.input))
        with clock.time("detect"):
            found = people_in_pictures(
                config.input, detector, progress=lambda done: progress("detect", done, total)
            )
    else:
        with clock.time("load"):
            found = people_in_file(
                source,
                images=images,
                keypoint_format=config.keypoint_format,
                keypoint_set=config.keypoint_set,
                picture=config.input.name if config.keypoints and config.input.is_file() else None,
            )
    return found


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


def _fit(
    config: RunConfig,
    people: People,
    estimates: Estimates | None,
    estimator: Estimator | None,
    rig: Rig | None,
    body: Body,
    prior: MaxMixturePrior,
    progress: Progress,
) -> PeopleFit:
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
        progress=lambda done: progress("fit", done, len(people)),
    )


def make_table(
    people: People, fit: PeopleFit, *, init: str | np.ndarray, metadata: Mapping[str, str]
) -> FitsTable:
    """The fits table (docs/conventions.md) of N people and their fits."""
    result = fit.result
    intrinsics = result.intrinsics.numpy()
    N = len(people)
    triplets = np.concatenate([people.keypoints_2d, people.conf[..., None]], axis=2)
    columns = {
        "image": people.image,
        "person": people.person,
        "annotation_id": people.annotation_id,
        "width": people.width,
        "height": people.height,
        "keypoint_set": np.full(N, people.keypoint_set),
        "keypoints_2d": triplets.reshape(N, triplets.shape[1] * 3),
        "global_orient": result.params.global_orient.numpy(),
        "body_pose": result.params.body_pose.numpy(),
        "betas": result.params.betas.numpy(),
        "transl": result.params.transl.numpy(),
        "fx": intrinsics[:, 0, 0],
        "fy": intrinsics[:, 1, 1],
        "cx": intrinsics[:, 0, 2],
        "cy": intrinsics[:, 1, 2],
        "reprojection_error_px": result.mean_reprojection_error.numpy(),
        "cost_initial": result.cost_initial.numpy(),
        "cost_final": result.cost_final.numpy(),
        "num_steps": result.num_steps.numpy(),
        "joint_std_mm": result.joint_std_mm.numpy(),
        "status": np.array([Status(s).label for s in range(len(Status))])[result.status.numpy()],
        "init": np.broadcast_to(init, N),
        "track": np.full(N, NO_TRACK) if people.track is None else people.track,
    }
    return build_fits(columns, metadata)


def _metadata(config: RunConfig, body: Body) -> dict[str, str]:
    settings = {
        **_plain(config),
        "solver_settings": asdict(configure_solver(config.solver, solve_focal=config.solve_focal)),
    }
    return {
        "body_sha256": body.sha256,
        "config": json.dumps(settings),
        "version": __version__,
    }


def _plain(config: RunConfig) -> dict[str, Any]:
    """The configuration as JSON can hold it."""
    return {k: str(v) if isinstance(v, Path) else v for k, v in asdict(config).items()}


def _record(config: RunConfig, found: Found, fit: PeopleFit, clock: StageClock) -> dict[str, Any]:
    """Content of run.json."""
    statuses = Counter(Status(int(s)).label for s in fit.result.status)
    fitted = len(found.people) - statuses[Status.NO_KEYPOINTS.label]
    fitting_seconds = clock.seconds["init"] + clock.seconds["fit"]
    return {
        "command": _plain(config),
        "versions": {
            "bodyloop": __version__,
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "numpy": np.__version__,
        },
        "counts": {
            "people": len(found.people),
            "fitted": fitted,
            "status": dict(statuses),
            "without_estimate": int((fit.init != "given").sum()) if _refines(config) else None,
            "pictures_without_people": len(found.empty),
            "problems": len(found.problems),
        },
        "seconds": {stage: round(seconds, 3) for stage, seconds in clock.seconds.items()},
        "fits_per_second": round(fitted / fitting_seconds, 3) if fitting_seconds > 0 else None,
        "pictures_without_people": found.empty,
        "problems": [asdict(problem) for problem in found.problems],
    }
