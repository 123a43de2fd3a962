"""Fit any number of people, a batch at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from priors.gmm import MaxMixturePrior

from .batches import work_in_batches
from .body import Body
from .camera import make_intrinsics
from .estimates import ESTIMATE_BETAS_STD, ESTIMATE_POSE_STD, Estimates, Estimator
from .initial import MeanStarts, draw_around, place_unknown
from .keypoint_body import KeypointBody
from .keypoints import map_keypoints
from .map_fit import Candidates, LmConfig, MapSolver
from .people import People
from .problem import PARAMETERS, BodyParams, FitProblem, FitResult, Proximal
from .rig import Rig
from .skeleton import KeypointSet, keypoint_set
from .smplify import AdamConfig, LbfgsConfig, SmplifyConfig, SmplifySolver
from .tracks import Track
from .video import VideoConfig, VideoSolver, map_solver, search_seen

SolverConfig = LmConfig | SmplifyConfig

SOLVERS: dict[str, Callable[[], SolverConfig]] = {
    "lm": LmConfig,
    "adam": AdamConfig,
    "lbfgs": LbfgsConfig,
}

_MEAN_STARTS = 2  # facing the camera and facing away
_VIDEO_STARTS = 4
_SAME_FOCAL = 0.01  # relative difference of focal lengths that moves no one


def configure_solver(name: str, *, solve_focal: bool = False) -> SolverConfig:
    """The usual settings of the solver called `name`.

    Raises:
        ValueError: there is no such solver, or it cannot solve for the focal length.
    """
    if name not in SOLVERS:
        raise ValueError(f"unknown solver {name!r}; use one of {', '.join(SOLVERS)}")
    config = SOLVERS[name]()
    if not solve_focal:
        return config
    if not isinstance(config, LmConfig):
        raise ValueError(f"solver {name} keeps the focal length as it is; use lm to solve for it")
    return replace(config, solve_focal=True)


Solver = Callable[[FitProblem, Sequence[BodyParams]], FitResult]


def make_solver(
    body: Body, prior: MaxMixturePrior, keypoints: KeypointSet, config: SolverConfig
) -> Solver:
    """The solver that `config` is of, for people of one keypoint set on one body.

    It takes B people and their initial estimates. Body and prior are on the problems' device, in
    their dtype.
    """
    keypoint_map = map_keypoints(body, keypoints)
    if isinstance(config, LmConfig):
        return MapSolver(body, prior, KeypointBody(body, keypoint_map), config)
    return SmplifySolver(body, prior, keypoint_map, config)


def choose_starts(starts: int | None, *, estimates: bool, video: bool = False) -> int:
    """`starts`, or the usual number: an estimate alone, or the mean pose facing both ways.

    For videos the first mode of the prior, too: what follows what best tells more fits apart.
    """
    if starts is not None:
        return starts
    if estimates:
        return 1
    return _VIDEO_STARTS if video else _MEAN_STARTS


def choose_device(name: str) -> torch.device:
    """The device called `name`; "auto" is the GPU where there is one.

    Raises:
        ValueError: a GPU is asked for and there is none, or none of its number.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device {name} was asked for, but PyTorch finds no GPU; use cpu")
    device, count = torch.device(name), torch.cuda.device_count()
    if device.type == "cuda" and device.index is not None and device.index >= count:
        raise ValueError(
            f"device {name} was asked for, but the last GPU that PyTorch finds is cuda:{count - 1}"
        )
    return device


@dataclass(frozen=True, kw_only=True)
class PeopleFit:
    """Fits of N people, on the CPU.

    Attributes:
        result: of the solver, N rows.
        seconds: spent on initial estimates ("init") and in the solver ("fit").
        init: (N,) str, where each fit began: "mean", "given" or the estimator's name.
        batch_size: people solved side by side at the end; fewer than asked for where a GPU's memory
            did not hold them.
    """

    result: FitResult
    seconds: dict[str, float]
    init: np.ndarray
    batch_size: int


def make_problem(
    people: People, *, focal: float | None = None, device: torch.device, dtype: torch.dtype
) -> FitProblem:
    """Keypoints and cameras of `people` as tensors.

    Args:
        people: N rows.
        focal: pixels, for everyone; none means each row's own, or else the picture's diagonal.
        device: where the tensors go.
        dtype: theirs.
    """
    size = np.stack([people.width, people.height], axis=1)
    focal_px = people.focal if focal is None else np.full(len(people), focal)
    image_size = torch.as_tensor(size).to(device, dtype)
    return FitProblem(
        keypoint_set=keypoint_set(people.keypoint_set),
        keypoints_2d=torch.as_tensor(people.keypoints_2d).to(device, dtype),
        conf=torch.as_tensor(people.conf).to(device, dtype),
        intrinsics=make_intrinsics(image_size, torch.as_tensor(focal_px).to(device, dtype)),
        image_size=image_size,
    )


@dataclass(frozen=True, kw_only=True)
class _Task:
    """People of one batch who are fitted in one way."""

    positions: Tensor  # (b,) in the batch
    problem: FitProblem
    starts: Sequence[BodyParams]
    solver: Solver


class _Tasks:
    """Those with an estimate are fitted near it, others near the estimator's or from the mean."""

    def __init__(
        self,
        people: People,
        body: Body,
        prior: MaxMixturePrior,
        config: SolverConfig,
        starts: int,
        estimates: Estimates | None,
        estimator: Estimator | None,
        pose_std: float,
        seed: int,
    ) -> None:
        keypoints = keypoint_set(people.keypoint_set)
        self.estimator, self.starts, self.seed = estimator, starts, seed
        self.solver = make_solver(body, prior, keypoints, config)
        self.near = self.solver
        if isinstance(config, LmConfig) and (estimates is not None or estimator is not None):
            config = replace(config, stages=LmConfig.from_estimate().stages)
            self.near = make_solver(body, prior, keypoints, config)
        self.given: _GivenStarts | None = None
        self.known = torch.zeros(len(people), dtype=torch.bool)
        if estimates is not None:
            self.given = _GivenStarts(body, keypoints, estimates, starts, pose_std, seed)
            self.known = estimates.known
            starts = max(starts, _MEAN_STARTS)
        self.mean = MeanStarts(body, prior, keypoints, starts) if estimator is None else None

    @property
    def init(self) -> np.ndarray:
        """(N,) str, where each fit begins."""
        others = "mean" if self.estimator is None else self.estimator.name
        return np.where(self.known.numpy(), "given", others)

    def __call__(self, problem: FitProblem, rows: Tensor) -> list[_Task]:
        """Take the people of a batch, and their rows (B,) among all."""
        tasks = []
        known = self.known[rows]
        if self.given is not None and known.any():
            positions = known.nonzero()[:, 0]
            near, starts = self.given(problem.select(positions), rows[known])
            tasks.append(_Task(positions=positions, problem=near, starts=starts, solver=self.near))
        if not known.all() or not tasks:
            positions = (~known).nonzero()[:, 0]
            tasks.append(self._without_estimate(positions, problem.select(positions)))
        return tasks

    def _without_estimate(self, positions: Tensor, problem: FitProblem) -> _Task:
        if self.mean is not None:
            starts, solver = self.mean(problem), self.solver
        else:
            assert self.estimator is not None  # or there are mean starts
            problem, starts = self.estimator(problem, self.starts, self.seed)
            solver = self.near
        return _Task(positions=positions, problem=problem, starts=starts, solver=solver)


class _GivenStarts:
    """The estimates of N people, and samples around them."""

    def __init__(
        self,
        body: Body,
        keypoints: KeypointSet,
        estimates: Estimates,
        count: int,
        pose_std: float,
        seed: int,
    ) -> None:
        self.keypoint_body = KeypointBody(body, map_keypoints(body, keypoints))
        self.like = body.v_template
        self.focal = estimates.focal
        self.proximal = estimates.proximal(pose_std)
        betas_std = ESTIMATE_BETAS_STD if estimates.has_betas else 0.0
        # Of everyone at once: a person's samples must not depend on the batch.
        self.starts = draw_around(
            estimates.params, count, pose_std=pose_std, betas_std=betas_std, seed=seed
        )

    def __call__(self, problem: FitProblem, rows: Tensor) -> tuple[FitProblem, list[BodyParams]]:
        """The problem of b people with what their estimates say, and their starts.

        Args:
            problem: b people.
            rows: (b,) theirs among the N.
        """
        near = self.proximal.select(rows)
        proximal = Proximal(
            params=_converted(near.params, self.like),
            pose_precision=near.pose_precision.to(self.like),
            betas_std=near.betas_std.to(self.like),
        )
        # Seen by another camera, a body stands elsewhere.
        focal = self.focal[rows].to(self.like)
        elsewhere = (problem.intrinsics[:, 0, 0] / focal - 1).abs() > _SAME_FOCAL
        starts = []
        for start in self.starts:
            given = _converted(start.select(rows), self.like)
            given = replace(given, transl=given.transl.masked_fill(elsewhere[:, None], torch.nan))
            starts.append(place_unknown(problem, given, self.keypoint_body))
        return replace(problem, proximal=proximal), starts


def _converted(params: BodyParams, like: Tensor) -> BodyParams:
    return BodyParams(**{name: getattr(params, name).to(like) for name in PARAMETERS})


def _solve(tasks: Sequence[_Task]) -> FitResult:
    """Results on the CPU, of all people of a batch in their order."""
    results = [task.solver(task.problem, task.starts).to("cpu") for task in tasks]
    order = torch.cat([task.positions for task in tasks]).argsort()
    return FitResult.concatenate(results).select(order)


class _JointFit:
    """Collects the fits of pictures alone, batch by batch, and then fits tracks."""

    def __init__(self, tracks: Sequence[Track], config: VideoConfig) -> None:
        self.tracks, self.config = tracks, config
        self.rows: list[Tensor] = []
        self.problems: list[FitProblem] = []
        self.known: list[Tensor] = []
        self.found: list[Candidates] = []

    def search(self, tasks: Sequence[_Task], rows: Tensor) -> None:
        """Fit people of a batch, whose rows among all are (B,), each picture alone."""
        searched = [  # of all tasks, before any counts: the batch may have to be made smaller
            search_seen(task.solver, task.problem, task.starts, self.config) for task in tasks
        ]
        for task, (seen, found) in zip(tasks, searched, strict=True):
            self.rows.append(rows[task.positions])
            self.problems.append(task.problem)
            self.known.append(self.rows[-1][seen.cpu()])
            if found is not None:
                self.found.append(found)

    def solve(self, solver: MapSolver) -> FitResult:
        """The tracks of all people, on the CPU, in the order of their rows."""
        back = torch.cat(self.rows).argsort()
        problem = FitProblem.concatenate(self.problems, solver.config.weights.noise)
        problem = problem.select(back)
        if not self.found:
            return FitResult.nothing_seen(problem).to("cpu")
        known = torch.cat(self.known).to(problem.conf.device)
        video = VideoSolver(solver, self.config)
        return video(problem, Candidates.concatenate(self.found), known, self.tracks).to("cpu")


class _FitByBatches:
    """The fits of people so far, and the seconds they took."""

    def __init__(
        self,
        people: People,
        make_tasks: _Tasks,
        joint: _JointFit | None,
        focal: float | None,
        rig: Rig | None,
        like: Tensor,
    ) -> None:
        self.people, self.make_tasks, self.joint = people, make_tasks, joint
        self.focal, self.rig, self.like = focal, rig, like
        self.results: list[FitResult] = []
        self.seconds = {"init": 0.0, "fit": 0.0}

    def add(self, rows: np.ndarray) -> None:
        """Fit the people at some rows (b,); with tracks, each picture alone."""
        problem = make_problem(
            self.people.select(rows),
            focal=self.focal,
            device=self.like.device,
            dtype=self.like.dtype,
        )
        if self.rig is not None:
            problem = self.rig.attach(problem, rows)
        began = time.perf_counter()
        tasks = self.make_tasks(problem, torch.from_numpy(rows))
        started = time.perf_counter()
        if self.joint is None:
            self.results.append(_solve(tasks))
        else:
            self.joint.search(tasks, torch.from_numpy(rows))
        self.seconds["init"] += started - began
        self.seconds["fit"] += time.perf_counter() - started

    def result(self) -> FitResult:
        """Of all people, on the CPU, in the order of their rows."""
        if self.joint is not None:
            began = time.perf_counter()
            self.results = [self.joint.solve(map_solver(self.make_tasks.solver))]
            self.seconds["fit"] += time.perf_counter() - began
        return FitResult.concatenate(self.results)


def fit_people(
    people: People,
    body: Body,
    prior: MaxMixturePrior,
    config: SolverConfig,
    *,
    focal: float | None = None,
    batch_size: int = 256,
    starts: int | None = None,
    estimates: Estimates | None = None,
    estimator: Estimator | None = None,
    pose_std: float = ESTIMATE_POSE_STD,
    seed: int = 0,
    rig: Rig | None = None,
    tracks: Sequence[Track] | None = None,
    progress: Callable[[int], object] = lambda done: None,
) -> PeopleFit:
    """Fit SMPL to 2D keypoints, on the body's device and in its dtype.

    Args:
        people: N rows.
        body: what to fit.
        prior: of poses, on the body's device.
        config: of the solver. With an estimate, `lm` leaves its coarse stages out.
        focal: pixels, for everyone; none means each row's own, or else the picture's diagonal.
        batch_size: people solved side by side; memory grows with it, results change by rounding. It
            is halved where a GPU's memory runs out.
        starts: initial poses tried for each person, at least two from the mean pose for those
            without an estimate among others; none means `choose_starts`.
        estimates: of the N people, to begin at and, with `lm`, to stay near.
        estimator: of those who have none, on the body's device; none means the mean pose.
        pose_std: radians, expected deviation of the estimates' joints about each axis.
        seed: of the starts around the estimates.
        rig: calibrated cameras, and what the others saw of the N people.
        tracks: who is who, each row in one, to fit the pictures of a track together; needs `lm`.
        progress: called with the number of people just finished.
    """
    estimated = estimates is not None or estimator is not None
    starts = choose_starts(starts, estimates=estimated, video=tracks is not None)
    make_tasks = _Tasks(people, body, prior, config, starts, estimates, estimator, pose_std, seed)
    joint = None if tracks is None else _JointFit(tracks, VideoConfig())
    if joint is not None:
        map_solver(make_tasks.solver)  # another solver is refused before any work
    fit = _FitByBatches(people, make_tasks, joint, focal, rig, body.v_template)

    def fit_rows(rows: np.ndarray) -> None:
        fit.add(rows)
        progress(len(rows))

    batch_size = work_in_batches(fit_rows, len(people), batch_size)
    return PeopleFit(
        result=fit.result(), seconds=fit.seconds, init=make_tasks.init, batch_size=batch_size
    )
