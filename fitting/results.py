"""From solutions to results, the same for every solver."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
    problem = problem.with_defined(defined)
    rows, others = torch.nonzero(problem.seen)[:, 0], torch.nonzero(~problem.seen)[:, 0]
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
    finite = solution.cost_final.isfinite() & params.pack(PARAMETERS).isfinite().all(dim=1)
    status = torch.where(solution.converged, int(Status.CONVERGED), int(Status.MAX_STEPS))
    if joint_std is None:
        joint_std = params.transl.new_full((len(params), 24, 3), torch.nan)
    error = _reprojection_error(problem, keypoints)
    return FitResult(
        params=params.where(finite),
        reprojection_error=error.where(finite[:, None], torch.nan),
        cost_initial=solution.cost_initial,
        cost_final=solution.cost_final,
        num_steps=num_steps,
        status=torch.where(finite, status, int(Status.DIVERGED)).to(torch.int32),
        intrinsics=problem.intrinsics,
        joint_std=joint_std.where(finite[:, None, None], torch.nan),
    )


def _reprojection_error(problem: FitProblem, keypoints: Tensor) -> Tensor:
    """(B, P) pixels, NaN where unseen; the mean over the cameras that see a keypoint."""
    cameras = [(problem, keypoints)]
    cameras += [(view.problem, view.see(keypoints)) for view in problem.views]
    errors = []
    for camera, points in cameras:
        pixels, _ = project_points(points, camera.intrinsics)
        distance = (pixels - camera.keypoints_2d).norm(dim=-1)
        errors.append(distance.where(camera.conf > 0, torch.nan))
    return torch.stack(errors).nanmean(dim=0)
