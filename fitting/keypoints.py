"""Where the keypoints of a set lie on a body."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .body import Body, BodyOutput
from .skeleton import JOINT_POINTS, MIDPOINTS, KeypointSet

# What a body without its own landmark uses in its place: weights over other body points.
_STAND_INS: dict[str, dict[str, float]] = {
    **{point: dict.fromkeys(ends, 0.5) for point, ends in MIDPOINTS.items()},
    **{
        f"coco_{side}_{limb}": {f"{side}_{limb}": 1.0}
        for side in ("left", "right")
        for limb in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
    },
    "neck": {"left_shoulder": 0.5, "right_shoulder": 0.5},
    "thorax": {"left_shoulder": 0.5, "right_shoulder": 0.5},
    "h36m_spine": {"spine1": 0.5, "spine2": 0.5},
    "h36m_head": {"head_top": 0.5, "head": 0.5},
    "jaw": {"nose": 0.5, "neck_joint": 0.5},
}


@dataclass(frozen=True, kw_only=True)
class KeypointMap:
    """Keypoints as fixed linear combinations of posed joints and vertices.

    Attributes:
        keypoint_set: the set, of P keypoints.
        joint_weights: (P, 24).
        vertex_ids: (U,) the few vertices that matter.
        vertex_weights: (P, U).
        defined: (P,) bool, False where the body has no such point (its keypoint is the origin).
    """

    keypoint_set: KeypointSet
    joint_weights: Tensor
    vertex_ids: Tensor
    vertex_weights: Tensor
    defined: Tensor

    def __call__(self, body_output: BodyOutput) -> Tensor:
        """(B, P, 3) keypoints of a posed body, metres, in its frame."""
        vertices = body_output.vertices[:, self.vertex_ids]
        return self.joint_weights @ body_output.joints + self.vertex_weights @ vertices


def map_keypoints(body: Body, keypoint_set: KeypointSet) -> KeypointMap:
    """Say where each keypoint of `keypoint_set` lies on `body`, in its dtype and on its device."""
    rows = [_resolve(point, body) for point in keypoint_set.points]
    defined = [row is not None for row in rows]
    nothing = np.zeros(len(JOINT_POINTS) + body.num_vertices)
    matrix = np.stack([nothing if row is None else row for row in rows])
    over_joints, over_vertices = matrix[:, : len(JOINT_POINTS)], matrix[:, len(JOINT_POINTS) :]
    vertex_ids = np.flatnonzero(np.abs(over_vertices).sum(axis=0))
    like = body.v_template
    return KeypointMap(
        keypoint_set=keypoint_set,
        joint_weights=torch.as_tensor(over_joints).to(like),
        vertex_ids=torch.as_tensor(vertex_ids, device=like.device),
        vertex_weights=torch.as_tensor(over_vertices[:, vertex_ids]).to(like),
        defined=torch.as_tensor(defined, device=like.device),
    )


def _resolve(point: str, body: Body) -> np.ndarray | None:
    """(24 + V,) weights over joints and vertices of a body point; None if the body lacks it."""
    row = np.zeros(len(JOINT_POINTS) + body.num_vertices)
    if point in JOINT_POINTS:
        row[JOINT_POINTS.index(point)] = 1
        return row
    if point in body.landmarks:
        row[len(JOINT_POINTS) :] = body.landmarks[point]
        return row
    if point not in _STAND_INS:
        return None
    for other, weight in _STAND_INS[point].items():
        part = _resolve(other, body)
        if part is None:
            return None
        row += weight * part
    return row
