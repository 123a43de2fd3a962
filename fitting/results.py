"""From solutions to results, the same for every solver."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from .camera import project_points
from .problem import PARAMETERS, BodyParams, FitProblem, FitResult, Status
from .solver import Solution


def fit_seen(
    problem: FitProblem,
    defined: Tensor,
    starts: Sequence[BodyParams],
    fit: Callable[[FitProblem, Sequence[BodyParams]], FitResult],
) -> FitResult:
    """Fit those who have a seen keypoint; the others get `NO_KEYPOINTS` and NaN parameters.

    Args:
        problem: B people.
        defined: (P,) bool, the keypoints that the body has; the others count as unseen.
        starts: initial estimates of the B people.
        fit: of the people to fit.
    """
    problem = replace(problem, conf=problem.conf * defined)
    seen = (problem.conf > 0).any(dim=1)
    rows, others = torch.nonzero(seen)[:, 0], torch.nonzero(~seen)[:, 0]
    parts = [FitResult.nothing_seen(problem.select(others))]
    if len(rows) > 0:
        parts.append(fit(problem.select(rows), [start.select(rows) for start in starts]))
    back = torch.cat([others, rows]).argsort()
    return FitResult.concatenate(parts).select(back)


def make_result(
    problem: FitProblem,
    keypoints: Tensor,
    params: BodyParams,
    solution: Solution,
    num_steps: Tensor,
    joint_std: Tensor | None = None,
) -> FitResult:
    """The result of B people.

    Args:
        problem: what was to be fitted.
        keypoints: (B, P, 3) of the fitted bodies, camera frame, metres.
        params: theirs.
        solution: of the last stage.
        num_steps: (B,) of all stages.
        joint_std: (B, 24, 3) as in `FitResult`; none means unknown.
    """
    pixels, _ = project_points(keypoints, problem.intrinsics)
    error = (pixels - problem.keypoints_2d).norm(dim=-1)
    finite = solution.cost_final.isfinite() & params.pack(PARAMETERS).isfinite().all(dim=1)
    status = torch.where(solution.converged, int(Status.CONVERGED), int(Status.MAX_STEPS))
    if joint_std is None:
        joint_std = params.transl.new_full((len(params), 24, 3), torch.nan)
    return FitResult(
        params=params.where(finite),
        reprojection_error=error.where(problem.conf > 0, torch.nan),
        cost_initial=solution.cost_initial,
        cost_final=solution.cost_final,
        num_steps=num_steps,
        status=torch.where(finite, status, int(Status.DIVERGED)).to(torch.int32),
        intrinsics=problem.intrinsics,
        joint_std=joint_std.where(finite[:, None, None], torch.nan),
    )
