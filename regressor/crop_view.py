"""People as a camera would see them that looks straight at them, whatever the picture.

A person in a corner of a picture is seen from the side. Turning the camera towards the middle of
their keypoints, without a roll, and measuring in shares of their size, leaves a network nothing to
learn about where in the picture or how large they are, but for how strong the perspective is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fitting.problem import FitProblem

_LEAST_SIZE = 0.02  # of the keypoints' extent, in shares of the picture, as for one keypoint alone
_WIDEST = 1e3  # tangent of the angle from the axis; no camera sees farther aside
_LEAST_COSINE = 0.05  # keypoints beside or behind the turned camera are taken to be here
_FARTHEST = 4.0  # sizes of the person; wrong keypoints may be anywhere


@dataclass(frozen=True, kw_only=True)
class CropView:
    """The cameras that look at B people.

    Attributes:
        rotation: (B, 3, 3) turns points of the picture's camera frame into the turned camera's.
        ray: (B, 2) direction of the turned camera in the picture's frame, x / z and y / z.
        size: (B,) longer side of the box around the keypoints seen, tangent of the angle.
        keypoints: (B, P, 2) in half sizes from the axis; 0 where unseen.
    """

    rotation: Tensor
    ray: Tensor
    size: Tensor
    keypoints: Tensor


def look_at_people(problem: FitProblem) -> CropView:
    """Turn each person's camera towards the middle of the box around the keypoints seen."""
    seen = (problem.conf > 0)[..., None]
    focal = problem.intrinsics.diagonal(dim1=-2, dim2=-1)[:, None, :2]
    rays = (problem.keypoints_2d - problem.intrinsics[:, None, :2, 2]) / focal
    rays = torch.where(seen, rays, 0.0).clamp(-_WIDEST, _WIDEST)
    low = rays.where(seen, torch.inf).amin(dim=1)
    high = rays.where(seen, -torch.inf).amax(dim=1)
    anyone = seen.any(dim=1)
    ray = torch.where(anyone, (low + high) / 2, 0.0)
    rotation = _rotation_to_axis(ray)
    turned = torch.nn.functional.pad(rays, (0, 1), value=1.0) @ rotation.mT
    flat = turned[..., :2] / turned[..., 2:].clamp(min=_LEAST_COSINE)
    low = flat.where(seen, torch.inf).amin(dim=1)
    high = flat.where(seen, -torch.inf).amax(dim=1)
    least = _LEAST_SIZE * problem.image_size.amax(dim=1) / focal[:, 0].amin(dim=1)
    size = torch.where(anyone, high - low, 0.0).amax(dim=1).maximum(least)
    keypoints = (2 * flat / size[:, None, None]).clamp(-_FARTHEST, _FARTHEST)
    return CropView(
        rotation=rotation, ray=ray, size=size, keypoints=torch.where(seen, keypoints, 0.0)
    )


def _rotation_to_axis(ray: Tensor) -> Tensor:
    """(B, 3, 3) smallest rotations that take (x, y, 1) of ray (B, 2) to the z axis.

    R = I + [v]x + [v]x^2 / (1 + c) with v the cross product of the two directions and c their
    cosine, which is positive for everything before the camera.
    """
    x, y, z = torch.nn.functional.normalize(
        torch.nn.functional.pad(ray, (0, 1), value=1.0), dim=1
    ).unbind(dim=1)
    shared = 1 / (1 + z)
    rows = (
        1 - x * x * shared, -x * y * shared, -x,
        -x * y * shared, 1 - y * y * shared, -y,
        x, y, z,
    )  # fmt: skip
    return torch.stack(rows, dim=1).unflatten(1, (3, 3))
