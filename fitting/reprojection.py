"""How far projected keypoints are from those seen, in units of their expected noise."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .camera import MIN_DEPTH
from .problem import FitProblem


class Measured(NamedTuple):
    """What cameras say about keypoints: C = 2 residuals for each camera."""

    cost: Tensor  # (b,)
    residuals: Tensor  # (b, P, C) weighted, so that the gradient is that of half their squares
    directions: Tensor  # (b, P, C, 3) how they change with the keypoints
    by_log_focal: Tensor  # (b, P, C) how they change with the logarithm of the focal length

    @property
    def forces(self) -> Tensor:
        """(b, P, 3) gradient of the cost by the keypoints."""
        return (self.residuals[:, :, None] @ self.directions)[:, :, 0]


class Reprojection:
    """The robust reprojection cost of B people seen by one camera each."""

    def __init__(self, problem: FitProblem, *, noise: float, outlier: float) -> None:
        """Take the settings of `map_energy.MapWeights`."""
        conf = problem.conf
        focal = problem.intrinsics.diagonal(dim1=-2, dim2=-1)[:, None, :2]
        centre = problem.intrinsics[:, None, :2, 2]
        noise_px = (noise * problem.person_size)[:, None, None]
        if problem.keypoint_std is not None:
            noise_px = problem.keypoint_std[..., None]
        self.outlier = outlier
        self.scale = focal / noise_px  # (B, P or 1, 2)
        # NaN of unseen keypoints would survive their weight of zero
        target = torch.where(conf[..., None] > 0, problem.keypoints_2d - centre, 0.0)
        self.measured = torch.cat([target / noise_px, conf[..., None]], dim=2)  # (B, P, 3)

    def __call__(
        self, keypoints: Tensor, rows: Tensor, blur: float, zoom: Tensor | None = None
    ) -> Measured:
        """Of keypoints (b, P, 3) in the camera frame, for the people at `rows`.

        `zoom` (b,) multiplies the focal lengths.

        Geman-McClure by iteratively reweighted least squares: each weight is conf rho'(|r|^2).
        """
        target, conf = self.measured[rows].split((2, 1), dim=2)
        depth = keypoints[..., 2:].clamp(min=MIN_DEPTH)
        rays = keypoints[..., :2] / depth
        scale = self.scale[rows] / blur
        if zoom is not None:
            scale = scale * zoom[:, None, None]
        residuals = rays * scale - target / blur
        squared = residuals.square().sum(dim=2, keepdim=True)
        shrink = 1 / (1 + squared / self.outlier**2)
        root = conf.sqrt() * shrink
        across = root * scale / depth  # (b, P, 2) weighted deviations per metre
        inwards = -rays * (keypoints[..., 2:] > MIN_DEPTH)
        directions = torch.cat([torch.diag_embed(across), (across * inwards)[..., None]], dim=3)
        cost = 0.5 * (conf * squared * shrink).sum(dim=(1, 2))
        return Measured(cost, root * residuals, directions, root * rays * scale)


class Cameras:
    """The reprojection costs of B people in all cameras that saw them, in the first one's frame."""

    def __init__(self, problem: FitProblem, *, noise: float, outlier: float) -> None:
        self.first = Reprojection(problem, noise=noise, outlier=outlier)
        self.views = [
            (Reprojection(v.problem, noise=noise, outlier=outlier), v.rotation, v.translation)
            for v in problem.views
        ]

    def __call__(
        self, keypoints: Tensor, rows: Tensor, blur: float, zoom: Tensor | None = None
    ) -> Measured:
        """Like `Reprojection.__call__`; `zoom` is of the first camera, the others are known."""
        measured = [self.first(keypoints, rows, blur, zoom)]
        for reproject, rotation, translation in self.views:
            R = rotation[rows]
            seen = reproject(keypoints @ R.mT + translation[rows, None], rows, blur)
            measured.append(
                seen._replace(
                    directions=seen.directions @ R[:, None],
                    by_log_focal=torch.zeros_like(seen.by_log_focal),
                )
            )
        if len(measured) == 1:
            return measured[0]
        costs, *others = zip(*measured, strict=True)
        return Measured(torch.stack(costs).sum(dim=0), *(torch.cat(o, dim=2) for o in others))
