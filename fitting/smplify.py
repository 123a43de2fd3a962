"""SMPLify as published, for a batch of people: the baselines that every table quotes.

* `AdamConfig`: as SPIN runs it (Kolotouros et al., ICCV 2019; smplify.py and losses.py there).
  First orientation and translation on the torso, then pose, shape and orientation, each by 100
  Adam steps over the full mesh, at the scale of a 224-pixel crop.
* `LbfgsConfig`: the staged weights of SMPLify-X (Pavlakos et al., CVPR 2019; fit_smpl.yaml there),
  each stage by L-BFGS until it converges.

What differs, and why: cameras are real ones in full-image pixels (no focal length of 5000), so
residuals are scaled as if the person filled the crop; a torso keypoint that is not seen has no
weight (SPIN would pull it to the corner of the picture), and where fewer than three are seen the
first stage uses all keypoints; every start given is fitted (facing the camera and facing away, as
in SMPLify) and the fit of lowest cost is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from priors.angles import hinge_cost
from priors.gmm import MaxMixturePrior
from priors.shape import shape_cost

from .body import Body, pose_body
from .camera import project_points
from .keypoints import KeypointMap
from .problem import BodyParams, FitProblem, FitResult
from .results import fit_seen, make_result
from .robust import geman_mcclure
from .solver import LbfgsOptions, Solution, minimize_adam, minimize_lbfgs

_TORSO = ("left_hip", "right_hip", "left_shoulder", "right_shoulder")
_MIN_TORSO = 3  # keypoints; fewer fix neither the orientation nor the depth
_CAMERA_STAGE = ("global_orient", "transl")
_BODY_STAGE = ("body_pose", "betas", "global_orient")


@dataclass(frozen=True, kw_only=True)
class StageWeights:
    """Plain multipliers of the terms of one body stage."""

    pose_prior: float
    shape_prior: float
    hinge_prior: float


@dataclass(frozen=True, kw_only=True)
class AdamConfig:
    """SPIN's SMPLify. Weights multiply squared or robustified residuals."""

    num_steps: int = 100  # in each of the two stages
    step_size: float = 1e-2
    crop_size: float = 224.0  # pixels that a person's crop is scaled to
    crop_margin: float = 1.2  # side of the crop over the longer side of the keypoints' box
    robust_scale: float = 100.0  # pixels of the crop; Geman-McClure sigma
    depth_weight: float = 100.0**2  # per square metre, in the camera stage
    weights: StageWeights = StageWeights(
        pose_prior=4.78**2, shape_prior=5.0**2, hinge_prior=15.2**2
    )

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, got {self.num_steps}")


def _smplifyx_stages() -> tuple[StageWeights, ...]:
    # hinges: 3.17 times the pose weight (SMPLify-X, main.py), all squared as its losses are
    pairs = ((404.0, 100.0), (404.0, 50.0), (57.4, 10.0), (4.78, 5.0))
    return tuple(
        StageWeights(pose_prior=p**2, shape_prior=s**2, hinge_prior=(3.17 * p) ** 2)
        for p, s in pairs
    )


@dataclass(frozen=True, kw_only=True)
class LbfgsConfig:
    """SMPLify-X's stages with SMPL. Weights multiply squared or robustified residuals."""

    stages: tuple[StageWeights, ...] = _smplifyx_stages()
    crop_size: float = 1000.0  # its data weight, (1000 / H)^2, amounts to a picture 1000 px high
    crop_margin: float = 1.2
    robust_scale: float = 200.0  # pixels of the crop: its 100 px in a picture 500 px high
    depth_weight: float = 100.0**2
    options: LbfgsOptions = field(default_factory=LbfgsOptions)


SmplifyConfig = AdamConfig | LbfgsConfig


class SmplifySolver:
    """Fits the people of one keypoint set on one body."""

    def __init__(
        self,
        body: Body,
        prior: MaxMixturePrior,
        keypoint_map: KeypointMap,
        config: SmplifyConfig,
    ) -> None:
        self.body, self.prior, self.keypoint_map, self.config = body, prior, keypoint_map, config

    def __call__(self, problem: FitProblem, starts: Sequence[BodyParams]) -> FitResult:
        """Fit people by SMPLify from each of the starts, and keep each one's fit of lowest cost.

        Args:
            problem: B people; those with nothing seen get status `NO_KEYPOINTS` and NaN parameters.
            starts: at least one initial estimate of the B people (`initial.mean_starts`).
        """
        if problem.views:
            raise ValueError("SMPLify knows one camera only; use the solver lm for several views")
        return fit_seen(problem, self.keypoint_map.defined, starts, self._fit)

    def _fit(self, problem: FitProblem, starts: Sequence[BodyParams]) -> FitResult:
        energy = _Energy(self.body, self.keypoint_map, self.prior, problem, self.config)
        return _cheapest([_fit_from(energy, start) for start in starts])


class _Energy:
    """The terms of SMPLify for one batch of people, each (b,) for the people at `rows`."""

    def __init__(
        self,
        body: Body,
        keypoint_map: KeypointMap,
        prior: MaxMixturePrior,
        problem: FitProblem,
        config: SmplifyConfig,
    ) -> None:
        self.body, self.keypoint_map, self.prior = body, keypoint_map, prior
        self.problem, self.config = problem, config
        self.crop_scale = config.crop_size / (config.crop_margin * problem.person_size)
        keypoint_set = problem.keypoint_set
        unreliable = keypoint_set.indices(keypoint_set.unreliable)
        self.body_conf = problem.conf.clone()
        self.body_conf[:, unreliable] = 0
        # Someone of whom only hips are seen is still better fitted to them than to nothing.
        nothing_left = (self.body_conf == 0).all(dim=1, keepdim=True)
        self.body_conf = torch.where(nothing_left, problem.conf, self.body_conf)
        self.camera_weight = _camera_stage_weight(problem)

    def keypoints(self, params: BodyParams) -> Tensor:
        """(b, P, 3) keypoints of the full posed mesh, camera frame, metres."""
        return self.keypoint_map(pose_body(self.body, params))

    def residuals(self, params: BodyParams, rows: Tensor) -> Tensor:
        """(b, P, 2) projected minus seen keypoints, pixels of the crop."""
        pixels, _ = project_points(self.keypoints(params), self.problem.intrinsics[rows])
        return (pixels - self.problem.keypoints_2d[rows]) * self.crop_scale[rows, None, None]

    def camera_cost(self, depth: Tensor, params: BodyParams, rows: Tensor) -> Tensor:
        """Torso reprojection, and the pull towards the depth that limb lengths gave."""
        squared = self.residuals(params, rows).square().sum(dim=-1)
        reprojection = (self.camera_weight[rows] * squared).sum(dim=1)
        drift = (params.transl[:, 2] - depth[rows]).square()
        return reprojection + self.config.depth_weight * drift

    def body_cost(self, weights: StageWeights, params: BodyParams, rows: Tensor) -> Tensor:
        """Robust reprojection weighted by squared confidence, pose, hinge and shape priors."""
        robust = geman_mcclure(self.residuals(params, rows), self.config.robust_scale).sum(dim=-1)
        return (
            (self.body_conf[rows].square() * robust).sum(dim=1)
            + weights.pose_prior * self.prior(params.body_pose)
            + weights.hinge_prior * hinge_cost(params.body_pose).sum(dim=1)
            + weights.shape_prior * shape_cost(params.betas)
        )


def _camera_stage_weight(problem: FitProblem) -> Tensor:
    """(B, P) 1 for the torso keypoints that orient the body, where enough of them are seen.

    SPIN prefers one of two torsos (OpenPose's, then the annotators'); so does this, per person.
    """
    names = problem.keypoint_set.names
    weight = torch.zeros_like(problem.conf)
    undecided = torch.ones(len(problem), dtype=torch.bool, device=weight.device)
    for prefix in ("op_", ""):
        torso = [names.index(prefix + name) for name in _TORSO if prefix + name in names]
        seen = problem.conf[:, torso] > 0
        chosen = undecided & (seen.sum(dim=1) >= _MIN_TORSO)
        weight[:, torso] = torch.where(chosen[:, None], seen.to(weight), weight[:, torso])
        undecided = undecided & ~chosen
    return torch.where(undecided[:, None], (problem.conf > 0).to(weight), weight)


def _fit_from(energy: _Energy, start: BodyParams) -> FitResult:
    """Camera stage, then the body stages, from one start."""
    depth = start.transl[:, 2]
    cost = partial(energy.camera_cost, depth)
    params, camera = _stage(energy, start, _CAMERA_STAGE, cost)
    num_steps = camera.num_steps
    config = energy.config
    for weights in config.stages if isinstance(config, LbfgsConfig) else [config.weights]:
        cost = partial(energy.body_cost, weights)
        params, solution = _stage(energy, params, _BODY_STAGE, cost)
        num_steps = num_steps + solution.num_steps
    with torch.no_grad():
        keypoints = energy.keypoints(params)
    return make_result(energy.problem, keypoints, params, solution, num_steps)


def _stage(
    energy: _Energy,
    params: BodyParams,
    free: Sequence[str],
    cost: Callable[[BodyParams, Tensor], Tensor],
) -> tuple[BodyParams, Solution]:
    """Minimise `cost` over the parameters called `free`."""

    def packed_cost(x: Tensor, rows: Tensor) -> Tensor:
        return cost(params.select(rows).unpack(x, free), rows)

    config, x = energy.config, params.pack(free)
    if isinstance(config, LbfgsConfig):
        solution = minimize_lbfgs(packed_cost, x, config.options)
    else:
        solution = minimize_adam(
            packed_cost, x, num_steps=config.num_steps, step_size=config.step_size
        )
    return params.unpack(solution.x, free), solution


def _cheapest(results: Sequence[FitResult]) -> FitResult:
    """Per person, the result of lowest final cost."""
    costs = torch.stack([result.cost_final.nan_to_num(torch.inf) for result in results])
    B = costs.shape[1]
    best = costs.argmin(dim=0) * B + torch.arange(B, device=costs.device)
    return FitResult.concatenate(results).select(best)
