"""Pinhole cameras in full-image pixels, and the weak-perspective cameras of crop regressors.

Frame: x right, y down, z forward, metres. The centre of the first pixel is (0, 0), so the centre of
a picture w pixels wide is (w - 1) / 2.
"""

from __future__ import annotations

import torch
from torch import Tensor

MIN_DEPTH = 1e-2  # metres; nearer points are projected as if here, which keeps gradients finite


def default_focal(image_size: Tensor) -> Tensor:
    """Focal length of an unknown camera: the picture's diagonal, a field of view of 53 degrees.

    Args:
        image_size: (..., 2) width and height in pixels.

    Returns:
        (...,) pixels.
    """
    return torch.linalg.vector_norm(image_size, dim=-1)


def make_intrinsics(image_size: Tensor, focal: Tensor | None = None) -> Tensor:
    """Intrinsics with the principal point at the centre of the picture.

    Args:
        image_size: (B, 2) width and height in pixels.
        focal: (B,) pixels; NaN or none means `default_focal`.

    Returns:
        (B, 3, 3) [[f, 0, cx], [0, f, cy], [0, 0, 1]].
    """
    unknown = default_focal(image_size)
    focal = unknown if focal is None else torch.where(focal.isnan(), unknown, focal)
    intrinsics = torch.zeros(len(image_size), 3, 3).to(image_size)
    intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = focal
    intrinsics[:, :2, 2] = (image_size - 1) / 2
    intrinsics[:, 2, 2] = 1
    return intrinsics


def project_points(points: Tensor, intrinsics: Tensor) -> tuple[Tensor, Tensor]:
    """Project camera-frame points through a pinhole camera.

    Args:
        points: (..., N, 3) metres; x right, y down, z forward.
        intrinsics: (..., 3, 3) pixels, without skew.

    Returns:
        pixels: (..., N, 2), origin at the centre of the top-left pixel.
        in_front: (..., N) bool, False where the depth was below `MIN_DEPTH` and was clamped.
    """
    depth = points[..., 2:]
    rays = points[..., :2] / depth.clamp(min=MIN_DEPTH)
    focal = intrinsics.diagonal(dim1=-2, dim2=-1)[..., None, :2]
    centre = intrinsics[..., None, :2, 2]
    return rays * focal + centre, depth[..., 0] > MIN_DEPTH


def weak_to_transl(weak_cam: Tensor, crop: Tensor, intrinsics: Tensor) -> Tensor:
    """Translation of the body whose full-image projection matches a crop's weak camera.

    With s the size of one metre in half crops, the body's depth is 2 f / (s * side) and its offset
    that of the crop's centre plus (tx, ty) (Li et al., "CLIFF", ECCV 2022, eq. 4; fx and fy may
    differ here, so the depth follows fx).

    Args:
        weak_cam: (B, 3) scale s and shift tx, ty in the crop: x_crop = s (X + tx) in [-1, 1].
        crop: (B, 3) centre x, y and side of the square crop, full-image pixels.
        intrinsics: (B, 3, 3) of the full image, pixels.

    Returns:
        (B, 3) transl, metres.
    """
    focal = intrinsics.diagonal(dim1=-2, dim2=-1)[:, :2]
    depth = 2 * focal[:, 0] / (weak_cam[:, 0] * crop[:, 2])
    centre = (crop[:, :2] - intrinsics[:, :2, 2]) * depth[:, None] / focal
    return torch.cat([weak_cam[:, 1:] + centre, depth[:, None]], dim=1)


def transl_to_weak(transl: Tensor, crop: Tensor, intrinsics: Tensor) -> Tensor:
    """The weak camera of a crop for a body at `transl`; undoes `weak_to_transl`. Returns (B, 3)."""
    focal = intrinsics.diagonal(dim1=-2, dim2=-1)[:, :2]
    depth = transl[:, 2]
    scale = 2 * focal[:, 0] / (depth * crop[:, 2])
    centre = (crop[:, :2] - intrinsics[:, :2, 2]) * depth[:, None] / focal
    return torch.cat([scale[:, None], transl[:, :2] - centre], dim=1)


# A limb seen at an angle looks short, never long: the more a length counts with its ratio to the
# true one, the less foreshortening biases the scale, and the more noise does. On mocap poses of the
# validation subjects a power of 6 leaves a median depth error of 0 to 7 % and a spread of 7 to 9 %
# with and without noise (1: 8 to 15 % and 9 %; 12: -9 to 4 % and 7 to 13 %).
_LENGTH_POWER = 6.0
_LEAST_SCALE = 1e-3  # of a person without a limb seen: keypoints may all lie in one place
_LOWEST_LIMB = 0.1  # metres: shorter limbs (eye to nose) say more about noise than about depth


def estimate_translation(
    keypoints_2d: Tensor,
    conf: Tensor,
    intrinsics: Tensor,
    keypoints_3d: Tensor,
    edges: Tensor,
    *,
    fallback_height: Tensor,
) -> Tensor:
    """Where a body must stand for its limbs to look as long as they do, in closed form.

    Pixels per metre s is the weighted power mean of (seen length / true length) over the limbs
    seen, each weighted by its true length and its ends' confidences; the depth is f / s, and the
    shift puts the confidence-weighted mean of the keypoints where it is seen.

    Args:
        keypoints_2d: (B, P, 2) pixels.
        conf: (B, P) in [0, 1], 0 for unseen.
        intrinsics: (B, 3, 3) pixels.
        keypoints_3d: (B, P, 3) of the oriented body without translation, metres.
        edges: (E, 2) pairs of keypoints that are joined rigidly.
        fallback_height: (B,) pixels that a body of 1.7 m is taken to cover where no limb is seen.

    Returns:
        (B, 3) transl, metres.
    """
    focal = intrinsics.diagonal(dim1=-2, dim2=-1)[:, :2]
    start, end = edges.T
    length_px = torch.hypot(*(keypoints_2d[:, start] - keypoints_2d[:, end]).unbind(dim=-1))
    length_m = (keypoints_3d[:, start] - keypoints_3d[:, end]).norm(dim=-1)
    weight = conf[:, start] * conf[:, end] * length_m * (length_m > _LOWEST_LIMB)
    total = weight.sum(dim=1)
    ratio = length_px / length_m.clamp(min=_LOWEST_LIMB)
    largest = torch.where(weight > 0, ratio, 0.0).amax(dim=1, keepdim=True).clamp(min=1e-6)
    mean = (weight * (ratio / largest) ** _LENGTH_POWER).sum(dim=1) / total.clamp(min=1e-9)
    mean = largest[:, 0] * mean ** (1 / _LENGTH_POWER)  # over the largest, or powers overflow
    fallback = fallback_height / 1.7
    scale = torch.where(total > 0, mean, fallback).maximum(_LEAST_SCALE * fallback)
    depth = focal.mean(dim=1) / scale.clamp(min=1e-6)

    share = conf / conf.sum(dim=1, keepdim=True).clamp(min=1e-9)
    seen = (share[..., None] * keypoints_2d).sum(dim=1)
    centre = (share[..., None] * keypoints_3d[..., :2]).sum(dim=1)
    shift = (seen - intrinsics[:, :2, 2]) * depth[:, None] / focal - centre
    return torch.cat([shift, depth[:, None]], dim=1)
