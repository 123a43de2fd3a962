"""The negative log posterior of bodies given 2D keypoints, with its Gauss-Newton model.

    E = sum_p conf_p / 2 rho(|r_p|^2)  +  t min_m c_m(theta)  +  h sum exp(2 alpha)  +  |beta|^2 / 2
        + u (1 - cos psi)  +  what is known from an estimate, of the distance and the focal length

r_p is the reprojection residual in units of the expected keypoint noise, rho the Geman-McClure loss
s / (1 + s / k^2), c_m the components of the pose prior, alpha the hinge angles of elbows and knees,
psi the angle between the body's up and the picture's. What is known beforehand of the distance is
how large the person looks.
Derivation, and how the weights were chosen: docs/fitting.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import roma
import torch
from torch import Tensor

from priors.angles import HINGES
from priors.gmm import MaxMixturePrior

from .keypoint_body import KeypointBody, PosedKeypoints, axis_of_skew, right_jacobian, turn
from .lm import Linearised
from .problem import FitProblem, Proximal
from .reprojection import Cameras

POSE, BETAS, TRANSL = slice(0, 72), slice(72, 82), slice(82, 85)  # columns of x
_BODY_POSE = slice(3, 72)
_DEPTH = 84
_LEAST_DEPTH = 0.01  # as a share of what is expected


@dataclass(frozen=True, kw_only=True)
class MapWeights:
    """How far each term is trusted.

    Attributes:
        noise: expected deviation of a keypoint, as a share of the person's size in the picture.
        outlier: k, residual in deviations at which a keypoint begins to count as wrong.
        prior_temperature: t, weight of the pose prior's negative log density: below 1, because the
            mixture is surer of unseen subjects than it should be.
        hinge: h, weight of the hinge penalty.
        upright: u, weight of the pull towards a body that stands upright in the picture.
        log_depth_std: expected deviation of the distance's logarithm from where a fit begins.
        log_focal_std: expected deviation of the focal length's logarithm, where it is solved for.
    """

    noise: float = 0.02
    outlier: float = 4.0
    prior_temperature: float = 0.2
    hinge: float = 1.0
    upright: float = 2.0
    log_depth_std: float = 0.5
    log_focal_std: float = 0.3

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")


class PriorShares(NamedTuple):
    """How much of the priors counts for each of B people, who may be one person in many pictures.

    Attributes:
        changing: (B,) for the pose, how upright it is and the distance.
        lasting: (B,) for the shape and the focal length.
    """

    changing: Tensor
    lasting: Tensor


class _ProximalTerm:
    """sum_j 2 q_j^T P_j q_j with q_j the vector part of the quaternion of R^_j^T R_j: e^T P e / 2
    for a small angle e between the rotations, a matrix Fisher density. And the squared deviations
    of the betas. Of rotations, not of axis-angles: those of one rotation may be far apart."""

    def __init__(self, proximal: Proximal) -> None:
        B, params = len(proximal.params), proximal.params
        rotvec = params.pack(("global_orient", "body_pose")).unflatten(1, (24, 3))
        self.inverse = roma.rotvec_to_rotmat(rotvec).mT
        self.precision = proximal.pose_precision.expand(B, -1, -1, -1)
        # 2 q^T P q = tr(M (I - A)) with M = tr(P) / 2 I - P, A = R^^T R
        half_trace = 0.5 * self.precision.diagonal(dim1=2, dim2=3).sum(dim=2)
        self.mirrored = half_trace[..., None, None] * torch.eye(3).to(rotvec) - self.precision
        self.betas, self.betas_weight = params.betas, proximal.betas_std.expand(B, -1) ** -2

    def add(
        self, posed: PosedKeypoints, x: Tensor, rows: Tensor, gradient: Tensor, hessian: Tensor
    ) -> Tensor:
        mirrored = self.mirrored[rows]
        apart = mirrored @ self.inverse[rows] @ posed.local
        chord = (mirrored - apart).diagonal(dim1=2, dim2=3).sum(dim=2)
        gradient[:, POSE] += turn(posed.tangent.mT, axis_of_skew(apart)).flatten(1)
        blocks = posed.tangent.mT @ self.precision[rows] @ posed.tangent
        of_joints = hessian[:, POSE, POSE].unflatten(1, (24, 3)).unflatten(3, (24, 3))
        of_joints.diagonal(dim1=1, dim2=3).add_(blocks.permute(0, 2, 3, 1))
        difference, weight = x[:, BETAS] - self.betas[rows], self.betas_weight[rows]
        gradient[:, BETAS] += difference * weight
        hessian.diagonal(dim1=1, dim2=2)[:, BETAS] += weight
        return chord.sum(dim=1) + 0.5 * (difference.square() * weight).sum(dim=1)


def add_upright(
    rotation: Tensor, tangent: Tensor, weight: float, gradient: Tensor, hessian: Tensor
) -> Tensor:
    """Add u (1 - cos of the angle between the root's up and the picture's up). Returns costs (b,).

    A von Mises-Fisher density of the body's y axis about the camera's -y. It also steadies people
    of whom too little is seen to tell.

    Args:
        rotation: (b, 3, 3) of the root.
        tangent: (b, 3, 3) its right Jacobian.
        weight: u.
        gradient, hessian: (b, D), (b, D, D) to be added to, by an axis-angle in the first columns.
    """
    downwards = rotation[:, 1]  # what the camera's y is in the root's frame
    up = torch.tensor([0.0, 1.0, 0.0]).to(rotation).expand_as(downwards)
    gradient[:, :3] += weight * turn(tangent.mT, torch.linalg.cross(up, downwards))
    sideways = tangent[:, [0, 2]]
    hessian[:, :3, :3] += weight * (sideways.mT @ sideways)
    return weight * (1 + downwards[:, 1])


def add_log_depth(
    depth: Tensor, expected: Tensor, std: float, gradient: Tensor, hessian: Tensor
) -> Tensor:
    """Add (log z - log z_0)^2 / (2 s^2). Returns costs (b,).

    Of people of whom a face or less is seen, nothing else tells the distance: without it they may
    end up around the camera. Where nothing is expected, or z is below a hundredth of it, the cost
    is constant.

    Args:
        depth: (b,) z, metres.
        expected: (b,) z_0, metres; not positive for nothing.
        std: s.
        gradient, hessian: (b,), (b,) by z, to be added to.
    """
    ratio = (depth / expected).clamp(min=_LEAST_DEPTH)
    residual = torch.where(expected > 0, ratio.log(), 0.0) / std
    slope = torch.where((expected > 0) & (ratio > _LEAST_DEPTH), 1 / (depth * std), 0.0)
    gradient += residual * slope
    hessian += slope.square()
    return 0.5 * residual.square()


def _add_share(share: Tensor, model: Linearised, add: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Add a share (b,) of what `add` adds to gradients and Hessians; sum of the costs (b,)."""
    gradient, hessian = torch.zeros_like(model.gradient), torch.zeros_like(model.hessian)
    cost = share * add(gradient, hessian)
    model.gradient.addcmul_(share[:, None], gradient)
    model.hessian.addcmul_(share[:, None, None], hessian)
    return model.cost + cost


class RigidEnergy:
    """Reprojection and uprightness of bodies that turn and move as they are: y (b, 6).

    A tenth of the work of `MapEnergy`, for the first steps of a fit.
    """

    def __init__(self, energy: MapEnergy, x: Tensor, person: Tensor) -> None:
        """Take bodies x (N, 85) of the people of `energy` at `person` (N,)."""
        posed = energy.keypoint_body.pose(x)
        self.energy, self.person = energy, person
        self.root = posed.joints[:, 0]
        self.points = (posed.untranslated - self.root[:, None]) @ posed.local[:, 0]
        self.shares = energy.keypoint_body.transl_share

    def linearise(self, y: Tensor, rows: Tensor, *, blur: float = 1.0) -> Linearised:
        """Like `MapEnergy.linearise`, by global_orient and transl side by side."""
        orient, transl = y.split(3, dim=1)
        rotation, tangent = roma.rotvec_to_rotmat(orient), right_jacobian(orient)
        axes = rotation @ tangent
        arms = self.points[rows] @ rotation.mT
        keypoints = arms + self.root[rows, None] + self.shares * transl[:, None]
        measured = self.energy.cameras(keypoints, self.person[rows], blur)
        forces, directions = measured.forces, measured.directions
        spins = torch.linalg.cross(arms[:, :, None].expand_as(directions), directions)
        spins = spins @ axes[:, None]
        moves = torch.cat([spins, directions * self.shares[:, None]], dim=3).flatten(1, 2)
        moment = torch.linalg.cross(arms, forces).sum(dim=1)
        gradient = torch.cat([turn(axes.mT, moment), (self.shares * forces).sum(dim=1)], dim=1)
        hessian = moves.mT @ moves
        weights = self.energy.weights
        cost = measured.cost + add_upright(rotation, tangent, weights.upright, gradient, hessian)
        cost = cost + add_log_depth(
            y[:, 5],
            self.energy.depth[self.person[rows]],
            weights.log_depth_std,
            gradient[:, 5],
            hessian[:, 5, 5],
        )
        return Linearised(cost, gradient, hessian)


class MapEnergy:
    """The energy of B people; `linearise(x, rows)` is what `lm.minimize_lm` takes."""

    def __init__(
        self,
        keypoint_body: KeypointBody,
        prior: MaxMixturePrior,
        problem: FitProblem,
        weights: MapWeights,
        depth: Tensor,
        shares: PriorShares | None = None,
    ) -> None:
        """Take B people and how far away they are expected: depth (B,) metres.

        `shares` are of the priors; none means that they count in full.
        """
        self.proximal = None if problem.proximal is None else _ProximalTerm(problem.proximal)
        self.keypoint_body, self.prior, self.weights = keypoint_body, prior, weights
        self.depth, self.shares = depth, shares
        self.cameras = Cameras(problem, noise=weights.noise, outlier=weights.outlier)
        self.precision = weights.prior_temperature * (
            prior.precision_factor @ prior.precision_factor.mT
        )
        device = prior.means.device
        self.hinge_columns = torch.tensor([3 + column for column, _ in HINGES.values()]).to(device)
        self.hinge_signs = torch.tensor([sign for _, sign in HINGES.values()]).to(prior.means)

    def linearise(self, x: Tensor, rows: Tensor, *, blur: float = 1.0) -> Linearised:
        """Cost, gradient and Gauss-Newton Hessian of the people at `rows`.

        Args:
            x: (b, 85), or (b, 86) to solve for the logarithm of the focal length's change too.
            rows: (b,) people.
            blur: widens the expected noise: far from the solution few keypoints are within it.
        """
        posed = self.keypoint_body.pose(x)
        cost, gradient, moves = self._reproject(posed, x, rows, blur)
        hessian = moves.mT @ moves
        kinds = (self._add_changing_priors, self._add_lasting_priors)
        for kind, share in zip(kinds, self.shares or (None, None), strict=True):
            if share is None:
                cost = cost + kind(posed, x, rows, gradient, hessian)
            else:
                model = Linearised(cost, gradient, hessian)
                cost = _add_share(share[rows], model, partial(kind, posed, x, rows))
        if self.proximal is not None:
            cost = cost + self.proximal.add(posed, x, rows, gradient, hessian)
        return Linearised(cost, gradient, hessian)

    def _add_changing_priors(
        self, posed: PosedKeypoints, x: Tensor, rows: Tensor, gradient: Tensor, hessian: Tensor
    ) -> Tensor:
        """Of what changes as a person moves. Returns costs (b,), as all that add a term."""
        cost = add_upright(
            posed.local[:, 0], posed.tangent[:, 0], self.weights.upright, gradient, hessian
        )
        cost = cost + add_log_depth(
            x[:, _DEPTH],
            self.depth[rows],
            self.weights.log_depth_std,
            gradient[:, _DEPTH],
            hessian[:, _DEPTH, _DEPTH],
        )
        cost = cost + self._add_pose_prior(x, gradient, hessian)
        return cost + self._add_hinges(x, gradient, hessian)

    def _add_lasting_priors(
        self, posed: PosedKeypoints, x: Tensor, rows: Tensor, gradient: Tensor, hessian: Tensor
    ) -> Tensor:
        """Of what stays as it is."""
        cost = self._add_shape_prior(x, gradient, hessian)
        return cost + self._add_focal_prior(x, gradient, hessian)

    def _reproject(
        self, posed: PosedKeypoints, x: Tensor, rows: Tensor, blur: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Cost (b,) and gradient (b, D) of the reprojection, and its rows (b, P C, D)."""
        zoom = x[:, 85].exp() if x.shape[1] > 85 else None
        measured = self.cameras(posed.keypoints, rows, blur, zoom)
        gradient = self.keypoint_body.pull_back(posed, measured.forces)
        moves = self.keypoint_body.measured_moves(posed, measured.directions)
        if zoom is None:
            return measured.cost, gradient, moves
        by_zoom = measured.by_log_focal.flatten(1)
        pull = (by_zoom * measured.residuals.flatten(1)).sum(dim=1, keepdim=True)
        gradient = torch.cat([gradient, pull], dim=1)
        return measured.cost, gradient, torch.cat([moves, by_zoom[..., None]], dim=2)

    def _add_pose_prior(self, x: Tensor, gradient: Tensor, hessian: Tensor) -> Tensor:
        """The cheapest component, picked anew at each call; its precision is added as it is."""
        costs = self.prior.component_costs(x[:, _BODY_POSE])
        component = costs.argmin(dim=1)
        precision = self.precision[component]
        difference = x[:, _BODY_POSE] - self.prior.means[component]
        gradient[:, _BODY_POSE] += (precision @ difference[..., None])[..., 0]
        hessian[:, _BODY_POSE, _BODY_POSE] += precision
        return self.weights.prior_temperature * costs.amin(dim=1)

    def _add_hinges(self, x: Tensor, gradient: Tensor, hessian: Tensor) -> Tensor:
        """Residuals exp(alpha): their Gauss-Newton Hessian is half the true one, so use that."""
        cost = self.weights.hinge * torch.exp(2 * x[:, self.hinge_columns] * self.hinge_signs)
        gradient[:, self.hinge_columns] += 2 * cost * self.hinge_signs
        hessian[:, self.hinge_columns, self.hinge_columns] += 4 * cost
        return cost.sum(dim=1)

    def _add_shape_prior(self, x: Tensor, gradient: Tensor, hessian: Tensor) -> Tensor:
        betas = x[:, BETAS]
        gradient[:, BETAS] += betas
        hessian.diagonal(dim1=1, dim2=2)[:, BETAS] += 1
        return 0.5 * betas.square().sum(dim=1)

    def _add_focal_prior(self, x: Tensor, gradient: Tensor, hessian: Tensor) -> Tensor:
        """Of the logarithm of the focal length's change, where it is among the unknowns."""
        change, precision = x[:, 85:], self.weights.log_focal_std**-2
        gradient[:, 85:] += precision * change
        hessian.diagonal(dim1=1, dim2=2)[:, 85:] += precision
        return 0.5 * precision * change.square().sum(dim=1)
