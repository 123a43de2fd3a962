"""What image regressors learn from: errors of their estimates where the truth is known.

With the estimate R, beta and weak camera of a person, their truth R*, beta*, and |.| absolute (l1)
or squared (l2), always a mean over coordinates:

    keypoints_2d   conf_p |2 / side (pi(K_p + transl) - x_p)|, pi the full picture's camera and side
                   the crop's, in pixels: errors are in half sides of the crop
    joints         |(J_j - J_0) - (J*_j - J*_0)|
    rotations      (R_j - R*_j)^2 over the 24 joints, or apart: global_orient, body_pose, hands
    betas          (beta - beta*)^2
    location       (c - c*)^2 of the weak cameras (s, tx, ty) that put the body at its transl
    vertices       |(v_i - J_0) - (v*_i - J*_0)|
    normals, edges of the mesh: `pose2mesh.losses`
    parts          cross entropy of the body part at each pixel
    camera         exp(-10 s)^2, which keeps people before the camera; a line below s = -1/2

Sources and published weights: docs/regressors.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from fitting.body import Body
from fitting.camera import project_points, transl_to_weak, weak_to_transl
from fitting.keypoint_body import KeypointBody
from fitting.robust import geman_mcclure

from .heads import ImageEstimate
from .pose2mesh.losses import (
    coordinate_loss,
    edge_loss,
    face_edges,
    normal_loss,
    squared_coordinate_loss,
)
from .task import Batch

LOSSES = (
    "keypoints_2d", "joints", "rotations", "global_orient", "body_pose", "hands", "betas",
    "location", "vertices", "normals", "edges", "parts", "camera",
)  # fmt: skip
"""Names of the losses: of `ImageLossConfig`'s weights, and of what `image_losses` gives."""

_JOINTS_OF = {  # of SMPL's tree
    "rotations": slice(0, 24),
    "global_orient": slice(0, 1),
    "body_pose": slice(1, 22),
    "hands": slice(22, 24),
}
# Of weak cameras in projections. At 0 a body would be infinitely far; at a hundredth it covers some
# pixels of the crop, and the loss `camera` has long been what counts.
_LEAST_SCALE = 1e-2
_STEEPEST_SCALE = -0.5  # of the loss `camera`
_TINY = 1e-6  # sum of weights below which there is nobody


@dataclass(frozen=True, kw_only=True)
class ImageLossConfig:
    """Weights of the losses, and their norms; the defaults are SPIN's (docs/regressors.md).

    A loss of weight 0 is not computed: it costs nothing.

    Attributes:
        keypoints_2d: reprojection in half sides of the crop, weighted by confidence.
        joints: 3D, relative to the pelvis, metres.
        rotations: matrices of all 24 joints.
        global_orient, body_pose, hands: the same of groups apart: the root, joints 1 to 21 and the
            two hands.
        betas: shape.
        location: where the body stands, as the crop's weak camera. The batch must hold "transl".
        vertices: relative to the pelvis, metres.
        normals, edges: of the mesh's faces.
        parts: part segmentation, for heads that have one.
        camera: of scales near or below 0.
        keypoint_norm: "l1" as HMR, "l2" as SPIN, or "robust" (Geman and McClure's, l2 for errors
            far below `keypoint_scale` half sides, flat far above).
        joint_norm, vertex_norm: "l1" mean absolute or "l2" mean squared coordinate.
    """

    keypoints_2d: float = 5.0
    joints: float = 5.0
    rotations: float = 1.0
    global_orient: float = 0.0
    body_pose: float = 0.0
    hands: float = 0.0
    betas: float = 0.001
    location: float = 0.0
    vertices: float = 0.0
    normals: float = 0.0
    edges: float = 0.0
    parts: float = 0.0
    camera: float = 1.0
    keypoint_norm: Literal["l1", "l2", "robust"] = "l2"
    keypoint_scale: float = 0.2
    joint_norm: Literal["l1", "l2"] = "l2"
    vertex_norm: Literal["l1", "l2"] = "l1"

    def __post_init__(self) -> None:
        for name in LOSSES:
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be a weight of 0 or more, got {getattr(self, name)}")
        if not self.wanted:
            raise ValueError("every loss has weight 0; give at least one a weight")
        if self.keypoint_scale <= 0:
            raise ValueError(f"keypoint_scale must be above 0, got {self.keypoint_scale}")

    @property
    def wanted(self) -> frozenset[str]:
        """Names of the losses to compute."""
        return frozenset(name for name in LOSSES if getattr(self, name) > 0)


def image_losses(
    estimate: ImageEstimate,
    batch: Batch,
    body: Body,
    keypoint_body: KeypointBody,
    config: ImageLossConfig,
) -> dict[str, Tensor]:
    """The wanted losses by name, without their weights, in the precision of the body.

    Each is a mean over the people (of keypoints_2d: over the keypoints seen) whose truth is known,
    weighted where that is only so sure; others have no influence on value and gradient, whatever
    numbers stand in their place. Where nobody's truth is known a loss is 0, and so is its gradient.

    Args:
        estimate: of B people; `pose_rotmat`'s root in the camera frame.
        batch: "crop" (B, 3) and "intrinsics" (B, 3, 3), full-picture pixels; "keypoints_2d"
            (B, P, 2) px with "conf" (B, P), 0 where unknown; "joints" (B, 24, 3) metres with
            "has_joints" (B,); "pose_rotmat" (B, 24, 3, 3), "betas" (B, 10) and, for `location`,
            "transl" (B, 3) metres with "has_params" (B,); "parts" (B, h, w) int64 with
            "has_parts" (B,). Only what the wanted losses need is looked at. "has_joints" and
            "has_params" may be any weights from 0, unknown, to 1.
        body: on the estimate's device.
        keypoint_body: of the batch's keypoint set, on the same device.
        config: which losses, and their norms.

    Raises:
        ValueError: a wanted loss needs what the head or the batch does not have.
    """
    wanted = config.wanted
    with torch.autocast(body.v_template.device.type, enabled=False):
        estimate = _in_precision(estimate, body.v_template)
        losses: dict[str, Tensor] = {}
        if wanted & {"keypoints_2d", "joints", "camera"}:
            losses |= _skeleton_losses(estimate, batch, keypoint_body, config)
        losses |= _parameter_losses(estimate, batch, wanted)
        if wanted & {"vertices", "normals", "edges"}:
            losses |= _mesh_losses(estimate, batch, body, config)
        if "parts" in wanted:
            losses["parts"] = _part_loss(estimate.part_segmentation, batch)
    return losses


def image_loss_sum(losses: dict[str, Tensor], config: ImageLossConfig) -> Tensor:
    """Scalar, the weighted sum of what `image_losses` gave: what is differentiated."""
    return torch.stack([getattr(config, name) * loss for name, loss in losses.items()]).sum()


def masked_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Scalar mean of values (B,) by weights (B,), which may be bool; 0 of nobody.

    Values whose weight is 0 may be NaN.
    """
    total = torch.where(weight > 0, values * weight, 0.0).sum()
    return total / weight.sum().clamp(min=_TINY)


def _skeleton_losses(
    estimate: ImageEstimate, batch: Batch, keypoint_body: KeypointBody, config: ImageLossConfig
) -> dict[str, Tensor]:
    """Those of keypoints, joints and cameras, which need no mesh."""
    wanted = config.wanted
    losses = {}
    seen = (batch["conf"] > 0) & keypoint_body.defined
    in_view = seen.any(dim=1)
    if wanted & {"keypoints_2d", "joints"}:
        known = in_view | (batch["has_joints"] > 0) if "joints" in wanted else in_view
        keypoints, joints = keypoint_body.pose_rotations(*_pose_of(estimate, known))
    if "keypoints_2d" in wanted:
        errors = _reprojection(keypoints, seen, estimate.weak_cam, batch)
        each = _keypoint_norm(config)(errors).mean(dim=2) * torch.where(seen, batch["conf"], 0.0)
        losses["keypoints_2d"] = each.sum() / seen.sum().clamp(min=1)
    if "joints" in wanted:
        valid = batch["has_joints"] > 0
        truth = where_people(valid, batch["joints"], 0.0)
        errors = _point_loss(config.joint_norm)(joints - joints[:, :1], truth)
        losses["joints"] = masked_mean(errors, batch["has_joints"])
    if "camera" in wanted:
        scale = where_people(in_view, estimate.weak_cam[:, 0], 1.0)
        losses["camera"] = masked_mean(_behind_camera(scale), in_view)
    return losses


def _behind_camera(scale: Tensor) -> Tensor:
    """exp(-10 s)^2, and below `_STEEPEST_SCALE` its tangent there: at -4.4 it would overflow."""
    near = scale.clamp(min=_STEEPEST_SCALE)
    return (-20 * near).exp() * (1 - 20 * (scale - near))


def _reprojection(keypoints: Tensor, seen: Tensor, weak_cam: Tensor, batch: Batch) -> Tensor:
    """(B, P, 2) errors of keypoints (B, P, 3) in half sides of the crop, 0 where not `seen`."""
    in_view = seen.any(dim=1)
    anywhere = torch.tensor([0.0, 0.0, 1.0]).to(keypoints)
    crop = where_people(in_view, batch["crop"], anywhere)
    intrinsics = where_people(in_view, batch["intrinsics"], torch.eye(3).to(keypoints))
    weak_cam = where_people(in_view, weak_cam, anywhere.flip(0))
    scale = weak_cam[:, :1].clamp(min=_LEAST_SCALE)
    transl = weak_to_transl(torch.cat([scale, weak_cam[:, 1:]], dim=1), crop, intrinsics)
    pixels, _ = project_points(keypoints + transl[:, None], intrinsics)
    errors = torch.where(seen[..., None], pixels - batch["keypoints_2d"], 0.0)
    return errors * 2 / crop[:, 2, None, None]


def _parameter_losses(
    estimate: ImageEstimate, batch: Batch, wanted: frozenset[str]
) -> dict[str, Tensor]:
    """Those of rotations, shape and location."""
    losses = {}
    for name in wanted.intersection(_JOINTS_OF):
        joints = _JOINTS_OF[name]
        pair = estimate.pose_rotmat[:, joints], batch["pose_rotmat"][:, joints]
        losses[name] = _squared_error(*pair, batch["has_params"])
    if "betas" in wanted:
        losses["betas"] = _squared_error(estimate.betas, batch["betas"], batch["has_params"])
    if "location" in wanted:
        if "transl" not in batch:
            raise ValueError(
                "the loss location needs the true transl (B, 3) of people, and these data have "
                "none; set location to 0"
            )
        truth = transl_to_weak(batch["transl"], batch["crop"], batch["intrinsics"])
        losses["location"] = _squared_error(estimate.weak_cam, truth, batch["has_params"])
    return losses


def _mesh_losses(
    estimate: ImageEstimate, batch: Batch, body: Body, config: ImageLossConfig
) -> dict[str, Tensor]:
    """Those that pose whole meshes, the estimated and the true one, relative to the pelvis."""
    wanted, weight = config.wanted, batch["has_params"]
    valid = weight > 0
    vertices = _vertices(body, *_pose_of(estimate, valid))
    with torch.no_grad():
        true_estimate = estimate._replace(pose_rotmat=batch["pose_rotmat"], betas=batch["betas"])
        truth = _vertices(body, *_pose_of(true_estimate, valid))
    losses = {}
    if "vertices" in wanted:
        losses["vertices"] = masked_mean(_point_loss(config.vertex_norm)(vertices, truth), weight)
    if wanted & {"normals", "edges"}:
        edges, true_edges = face_edges(vertices, body.faces), face_edges(truth, body.faces)
        if "normals" in wanted:
            losses["normals"] = masked_mean(normal_loss(edges, true_edges), weight)
        if "edges" in wanted:
            losses["edges"] = masked_mean(edge_loss(edges, true_edges), weight)
    return losses


def _part_loss(logits: Tensor | None, batch: Batch) -> Tensor:
    """Cross entropy of logits (B, 25, h, w) and labels of the parts (B, h, w), nats."""
    if logits is None:
        raise ValueError(
            "the loss parts needs a head that finds body parts; use part_attention, or set parts "
            "to 0"
        )
    labels = batch["parts"]
    if labels.shape[1:] != logits.shape[2:]:
        raise ValueError(
            f"parts must be labels of the head's {tuple(logits.shape[2:])} pixels, got "
            f"{tuple(labels.shape[1:])}; sample them at that size"
        )
    valid = batch["has_parts"] > 0
    logits, labels = where_people(valid, logits, 0.0), where_people(valid, labels, 0)
    entropy = functional.cross_entropy(logits, labels, reduction="none")
    return masked_mean(entropy.mean(dim=(1, 2)), valid)


def _in_precision(estimate: ImageEstimate, like: Tensor) -> ImageEstimate:
    """Bodies want single precision, also where the network's last layer answers in half of it."""
    parts = (None if part is None else part.to(like.dtype) for part in estimate)
    return ImageEstimate(*parts)  # type: ignore[arg-type]


def _pose_of(estimate: ImageEstimate, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Rotations and betas of the people at `valid` (B,), and of a body at rest for the others.

    What is not known may be NaN, whose products with a gradient of 0 would be NaN.
    """
    at_rest = torch.eye(3).to(estimate.pose_rotmat)
    return where_people(valid, estimate.pose_rotmat, at_rest), where_people(
        valid, estimate.betas, 0.0
    )


def _vertices(body: Body, pose_rotmat: Tensor, betas: Tensor) -> Tensor:
    """(B, V, 3) relative to the pelvis, metres."""
    posed = body.pose(pose_rotmat, betas)
    return posed.vertices - posed.joints[:, :1]


def _squared_error(predicted: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Mean squared difference of (B, ...) over the people, by their weights (B,)."""
    errors = where_people(weight > 0, predicted - truth, 0.0)
    return masked_mean(errors.square().flatten(1).mean(dim=1), weight)


def where_people(valid: Tensor, values: Tensor, others: Tensor | float) -> Tensor:
    """Values (B, ...) of the people at `valid` (B,), and `others` for the rest."""
    return torch.where(valid.view(-1, *[1] * (values.dim() - 1)), values, others)


def _point_loss(norm: str) -> Callable[[Tensor, Tensor], Tensor]:
    return coordinate_loss if norm == "l1" else squared_coordinate_loss


def _keypoint_norm(config: ImageLossConfig) -> Callable[[Tensor], Tensor]:
    if config.keypoint_norm == "robust":
        return partial(geman_mcclure, scale=config.keypoint_scale)
    return torch.abs if config.keypoint_norm == "l1" else torch.square
