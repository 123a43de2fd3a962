"""What `fit-cli fit` is asked to do."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import NoneType
from typing import Any

from .estimates import ESTIMATE_POSE_STD
from .files import InputError
from .offline import choose_starts, configure_solver
from .sources import SourceConfig
from .tracks import DEFAULT_FPS, check_fps


@dataclass(frozen=True, kw_only=True)
class RunConfig(SourceConfig):
    """What `fit-cli fit` is asked to do, besides where people come from.

    Attributes:
        output: folder for the results.
        body: SMPL-format file; none means the bundled body.
        init: "mean"; "lift", what the estimator says; or the path of estimates to refine
            (`estimates.read_estimates`), or of the network that the predictor is made of, the
            estimator's being for whom they leave out.
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
        jobs: pictures drawn at a time, or shards fitted; -1 means as many as there are cores.
        overlays: draw each person over its picture.
        limit: fit the first so many people only.
        seed: of all random choices.
        overwrite: replace an earlier run in `output`.
    """

    output: Path
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


def settled(config: RunConfig) -> RunConfig:
    """The same with its numbers chosen; InputError for an option that has no use."""
    config = _settled_video(config)
    refined = refines(config)
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


def refines(config: RunConfig) -> bool:
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


def solver_settings(config: RunConfig) -> dict[str, Any]:
    """All numbers of the solver that a configuration names."""
    return asdict(configure_solver(config.solver, solve_focal=config.solve_focal))


def plain(config: SourceConfig) -> dict[str, Any]:
    """A configuration as JSON can hold it."""
    kept = (str, int, float, NoneType)  # others are paths
    return {k: v if isinstance(v, kept) else str(v) for k, v in asdict(config).items()}
