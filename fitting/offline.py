"""Fit any number of people, a batch at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from priors.gmm import MaxMixturePrior

from .body import Body
from .camera import make_intrinsics
from .initial import MeanStarts
from .keypoint_body import KeypointBody
from .keypoints import map_keypoints
from .map_fit import LmConfig, MapSolver
from .people import People
from .problem import BodyParams, FitProblem, FitResult
from .skeleton import KeypointSet, keypoint_set
from .smplify import AdamConfig, LbfgsConfig, SmplifyConfig, SmplifySolver

SolverConfig = LmConfig | SmplifyConfig

SOLVERS: dict[str, Callable[[], SolverConfig]] = {
    "lm": LmConfig,
    "adam": AdamConfig,
    "lbfgs": LbfgsConfig,
}


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
        return MapSolver(prior, KeypointBody(body, keypoint_map), config)
    return SmplifySolver(body, prior, keypoint_map, config)


def choose_device(name: str) -> torch.device:
    """The device called `name`; "auto" is the GPU where there is one.

    Raises:
        ValueError: a GPU is asked for and there is none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device {name} was asked for, but PyTorch finds no GPU; use cpu")
    return torch.device(name)


@dataclass(frozen=True, kw_only=True)
class PeopleFit:
    """Fits of N people, on the CPU.

    Attributes:
        result: of the solver, N rows.
        intrinsics: (N, 3, 3) pixels, of the cameras assumed.
        seconds: spent on initial estimates ("init") and in the solver ("fit").
    """

    result: FitResult
    intrinsics: Tensor
    seconds: dict[str, float]


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


def fit_people(
    people: People,
    body: Body,
    prior: MaxMixturePrior,
    config: SolverConfig,
    *,
    focal: float | None = None,
    batch_size: int = 64,
    progress: Callable[[int], object] = lambda done: None,
) -> PeopleFit:
    """Fit SMPL to 2D keypoints, on the body's device and in its dtype.

    Args:
        people: N rows.
        body: what to fit.
        prior: of poses, on the body's device.
        config: of the solver.
        focal: pixels, for everyone; none means each row's own, or else the picture's diagonal.
        batch_size: people solved side by side; memory grows with it, results change by rounding.
        progress: called with the number of people just finished.
    """
    device, dtype = body.v_template.device, body.v_template.dtype
    seconds = {"init": 0.0, "fit": 0.0}
    results, intrinsics = [], []
    keypoints = keypoint_set(people.keypoint_set)
    solver, make_starts = (
        make_solver(body, prior, keypoints, config),
        MeanStarts(body, prior, keypoints),
    )
    for first in range(0, max(len(people), 1), batch_size):
        rows = np.arange(first, min(first + batch_size, len(people)))
        problem = make_problem(people.select(rows), focal=focal, device=device, dtype=dtype)
        began = time.perf_counter()
        starts = make_starts(problem)
        started = time.perf_counter()
        results.append(solver(problem, starts).to("cpu"))
        seconds["init"] += started - began
        seconds["fit"] += time.perf_counter() - started
        intrinsics.append(problem.intrinsics.cpu())
        progress(len(rows))
    return PeopleFit(
        result=FitResult.concatenate(results), intrinsics=torch.cat(intrinsics), seconds=seconds
    )
