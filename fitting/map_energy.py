"""The negative log posterior of bodies given 2D keypoints, with its Gauss-Newton model.

    E = sum_p conf_p / 2 rho(|r_p|^2)  +  t min_m c_m(theta)  +  h sum exp(2 alpha)  +  |beta|^2 / 2

r_p is the reprojection residual in units of the expected keypoint noise, rho the Geman-McClure loss
s / (1 + s / k^2), c_m the components of the pose prior, alpha the hinge angles of elbows and knees.
Derivation, and how the weights were chosen: docs/fitting.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from priors.angles import HINGES
from priors.gmm import MaxMixturePrior

from .camera import MIN_DEPTH
from .keypoint_body import KeypointBody
from .lm import Linearised
from .problem import FitProblem

# Of the unknowns x (B, 85): `problem.PARAMETERS`, side by side.
SIZES = (3, 69, 10, 3)
_POSE, _BETAS = slice(3, 72), slice(72, 82)


@dataclass(frozen=True, kw_only=True)
class MapWeights:
    """How far each term is trusted.

    Attributes:
        noise: expected deviation of a keypoint, as a share of the person's size in the picture.
        outlier: k, residual in deviations at which a keypoint begins to count as wrong.
        prior_temperature: t, weight of the pose prior's negative log density: below 1, because the
            mixture is surer of unseen subjects than it should be.
        hinge: h, weight of the hinge penalty.
    """

    noise: float = 0.02
    outlier: float = 4.0
    prior_temperature: float = 0.2
    hinge: float = 1.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")


class MapEnergy:
    """The energy of B people; `linearise(x, rows)` is what `lm.minimize_lm` takes."""

    def __init__(
        self,
        keypoint_body: KeypointBody,
        prior: MaxMixturePrior,
        problem: FitProblem,
        weights: MapWeights,
    ) -> None:
        self.keypoint_body, self.prior, self.problem = keypoint_body, prior, problem
        self.weights = weights
        self.conf = problem.conf * keypoint_body.defined
        self.noise_px = weights.noise * problem.person_size
        self.focal = problem.intrinsics.diagonal(dim1=-2, dim2=-1)[:, None, :2]
        self.centre = problem.intrinsics[:, None, :2, 2]
        self.precision = prior.precision_factor @ prior.precision_factor.mT
        device = prior.means.device
        self.hinge_columns = torch.tensor([3 + column for column, _ in HINGES.values()]).to(device)
        self.hinge_signs = torch.tensor([sign for _, sign in HINGES.values()]).to(prior.means)

    def linearise(self, x: Tensor, rows: Tensor, *, blur: float = 1.0) -> Linearised:
        """Cost, gradient and Gauss-Newton Hessian of the people at `rows`, x (b, 85).

        `blur` widens the expected noise: far from the solution few keypoints are within it.
        """
        cost, gradient, hessian = self._reprojection(x, rows, blur)
        for term in (self._add_pose_prior, self._add_hinges, self._add_shape_prior):
            cost = cost + term(x, gradient, hessian)
        return Linearised(cost, gradient, hessian)

    def _residuals(self, x: Tensor, rows: Tensor, blur: float) -> tuple[Tensor, Tensor]:
        """Residuals (b, P, 2) in deviations, and their derivatives (b, P, 2, 85)."""
        found = self.keypoint_body.jacobian(*x.split(SIZES, dim=1))
        depth = found.keypoints[..., 2:].clamp(min=MIN_DEPTH)
        rays = found.keypoints[..., :2] / depth
        scale = self.focal[rows] / (blur * self.noise_px[rows, None, None])
        offset = (self.centre[rows] - self.problem.keypoints_2d[rows]) / (
            blur * self.noise_px[rows, None, None]
        )
        by_transl = found.transl[:, None, None] * torch.eye(3).to(x)
        moves = torch.cat(
            [found.pose, found.betas, by_transl.expand(*found.pose.shape[:2], 3, 3)], dim=-1
        )
        across = moves[:, :, :2] - rays[..., None] * moves[:, :, 2:]
        return rays * scale + offset, across * (scale / depth)[..., None]

    def _reprojection(self, x: Tensor, rows: Tensor, blur: float) -> Linearised:
        """Geman-McClure by iteratively reweighted least squares: each weight is rho'(|r|^2)."""
        residuals, moves = self._residuals(x, rows, blur)
        squared = residuals.square().sum(dim=-1)
        shrink = 1 / (1 + squared / self.weights.outlier**2)
        conf = self.conf[rows]
        weight = (conf.sqrt() * shrink)[..., None]
        weighted = (moves * weight[..., None]).flatten(1, 2)  # (b, 2 P, 85)
        gradient = (weighted.mT @ (residuals * weight).flatten(1)[..., None])[..., 0]
        cost = 0.5 * (conf * squared * shrink).sum(dim=1)
        return Linearised(cost, gradient, weighted.mT @ weighted)

    def _add_pose_prior(self, x: Tensor, gradient: Tensor, hessian: Tensor) -> Tensor:
        """The cheapest component, picked anew at each call; its precision is added as it is."""
        costs, t = self.prior.component_costs(x[:, _POSE]), self.weights.prior_temperature
        component = costs.argmin(dim=1)
        precision = t * self.precision[component]
        difference = x[:, _POSE] - self.prior.means[component]
        gradient[:, _POSE] += (precision @ difference[..., None])[..., 0]
        hessian[:, _POSE, _POSE] += precision
        return t * costs.amin(dim=1)

    def _add_hinges(self, x: Tensor, gradient: Tensor, hessian: Tensor) -> Tensor:
        """Residuals exp(alpha): their Gauss-Newton Hessian is half the true one, so use that."""
        cost = self.weights.hinge * torch.exp(2 * x[:, self.hinge_columns] * self.hinge_signs)
        gradient[:, self.hinge_columns] += 2 * cost * self.hinge_signs
        hessian[:, self.hinge_columns, self.hinge_columns] += 4 * cost
        return cost.sum(dim=1)

    def _add_shape_prior(self, x: Tensor, gradient: Tensor, hessian: Tensor) -> Tensor:
        betas = x[:, _BETAS]
        gradient[:, _BETAS] += betas
        hessian.diagonal(dim1=1, dim2=2)[:, _BETAS] += 1
        return 0.5 * betas.square().sum(dim=1)
