"""What the lifter learns from: errors of its estimates, and densities of those errors."""

from __future__ import annotations

import math

import roma
import torch
from torch import Tensor

from fitting.body import Body, forward_kinematics

from .lifter import Lifted
from .task import Batch

_WRONG_LOG_DENSITY = 0.0  # of keypoints anywhere in a person's box, in sizes


def lifter_losses(lifted: Lifted, batch: Batch, body: Body) -> dict[str, Tensor]:
    """The losses by the names of `LifterLossConfig`, each a mean over people.

    Densities lack their constants. Their errors are taken as they are: no gradient reaches the
    estimates by them.

    Args:
        lifted: of B people, before their turned cameras.
        batch: from `lifter_task.make_batch`.
        body: whose joints count.
    """
    error = rotation_error(lifted.pose_rotmat, batch["pose_rotmat"]).detach()
    joints = joints_of(lifted, body)
    across, log_depth = _place_error(lifted, batch)
    betas_error = lifted.betas - batch["betas"]
    return {
        "rotation": (lifted.pose_rotmat - batch["pose_rotmat"]).square().sum(dim=(2, 3)).mean(),
        "joints": (joints - batch["joints"]).norm(dim=2).mean(),
        "betas": betas_error.square().mean(),
        "place": (across.abs().sum(dim=1) + log_depth.abs()).mean(),
        "pose_nll": rotation_nll(error, lifted.pose_precision_root).mean(),
        "betas_nll": normal_nll(betas_error.detach(), lifted.betas_std).mean(),
        "depth_nll": normal_nll(log_depth.detach(), lifted.log_depth_std).mean(),
        "keypoint_nll": _keypoint_nll(lifted, batch),
    }


def joints_of(lifted: Lifted, body: Body) -> Tensor:
    """(B, 24, 3) joints relative to the pelvis, metres."""
    _, joints = forward_kinematics(lifted.pose_rotmat, body.rest_joints(lifted.betas))
    return joints - joints[:, :1]


def rotation_error(rotations: Tensor, truth: Tensor) -> Tensor:
    """(..., 3) e with truth = rotations exp(e), radians; both (..., 3, 3)."""
    return roma.rotmat_to_rotvec(rotations.mT @ truth)


def normal_nll(error: Tensor, std: Tensor) -> Tensor:
    """-log of a normal density, elementwise, without its constant."""
    return 0.5 * (error / std).square() + std.log()


def rotation_nll(error: Tensor, precision_root: Tensor) -> Tensor:
    """(...) |L^T e|^2 / 2 - log det L of errors (..., 3), without the constant."""
    white = (precision_root.mT @ error[..., None])[..., 0]
    log_det = precision_root.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
    return 0.5 * white.square().sum(dim=-1) - log_det


def _place_error(lifted: Lifted, batch: Batch) -> tuple[Tensor, Tensor]:
    """Of the pelvis: (B, 2) across, in half sizes of the person; (B,) of its log distance."""
    truth, size = batch["pelvis"], batch["size"][:, None]
    across = lifted.pelvis[:, :2] / lifted.pelvis[:, 2:] - truth[:, :2] / truth[:, 2:]
    return across * 2 / size, lifted.pelvis[:, 2].log() - truth[:, 2].log()


def _keypoint_nll(lifted: Lifted, batch: Batch) -> Tensor:
    """Of keypoints that are normal about the truth, or anywhere in the person's box.

    -log((1 - w) N(e; 0, s^2 I) + w), the box having a side of 1.
    """
    squared = batch["keypoint_error"].square().sum(dim=2)
    std = lifted.keypoint_std
    right = -0.5 * squared / std.square() - 2 * std.log() - math.log(2 * math.pi)
    right = right + torch.nn.functional.logsigmoid(-lifted.keypoint_wrong)
    wrong = torch.nn.functional.logsigmoid(lifted.keypoint_wrong)
    seen = batch["seen"]
    return -(torch.logaddexp(right, wrong) * seen).sum() / seen.sum().clamp(min=1)
