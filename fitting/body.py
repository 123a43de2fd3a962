"""Pose and skin an SMPL-format body.

Equations of Loper et al., "SMPL: A Skinned Multi-Person Linear Model" (SIGGRAPH Asia 2015):
vertices of the shaped and corrected rest body (their eq. 6 to 9), skinned (eq. 2), by linear blend
skinning or by the dual quaternions of Kavan et al. (ACM TOG 2008).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import roma
import torch
from torch import Tensor

from .body_files import BUNDLED_BODY, BodyArrays, load_body_arrays
from .skeleton import SMPL_PARENTS, lsp_part_of_joint

if TYPE_CHECKING:
    from .problem import BodyParams

Skinning = Literal["linear", "dual_quaternion"]


class BodyOutput(NamedTuple):
    """A posed body.

    Attributes:
        vertices: (B, V, 3) metres.
        joints: (B, 24, 3) metres, SMPL's kinematic joints.
    """

    vertices: Tensor
    joints: Tensor


class Body(torch.nn.Module):
    """An SMPL-format body on one device, in one dtype; `.to(...)` moves it.

    Attributes:
        v_template, shapedirs, posedirs, J_regressor, weights: as in `BodyArrays`.
        faces: (F, 3) int64.
        landmarks: named points of the skin, (V,) float64 arrays of weights over vertices.
        path, sha256: of the file it came from.
    """

    v_template: Tensor
    shapedirs: Tensor
    posedirs: Tensor
    J_regressor: Tensor
    weights: Tensor
    faces: Tensor

    def __init__(self, arrays: BodyArrays) -> None:
        super().__init__()
        for name in ("v_template", "shapedirs", "posedirs", "J_regressor", "weights"):
            self.register_buffer(name, torch.as_tensor(getattr(arrays, name), dtype=torch.float64))
        self.register_buffer("faces", torch.as_tensor(arrays.faces))
        # Rest joints are linear in betas: J(beta) = J T + (J S) beta, without touching vertices.
        self.register_buffer("joint_template", self.J_regressor @ self.v_template)
        self.register_buffer(
            "joint_shapedirs", torch.einsum("jv,vck->jck", self.J_regressor, self.shapedirs)
        )
        self.landmarks: Mapping[str, np.ndarray] = arrays.landmarks
        self.path = arrays.path
        self.sha256 = arrays.sha256

    joint_template: Tensor
    joint_shapedirs: Tensor

    @property
    def num_vertices(self) -> int:
        """V."""
        return len(self.v_template)

    @property
    def part_labels(self) -> Tensor:
        """(V,) index in SMPL's tree of the joint that moves each vertex most."""
        return self.weights.argmax(dim=1)

    @property
    def lsp_part_labels(self) -> Tensor:
        """(V,) index into `skeleton.LSP_PARTS` of each vertex."""
        return torch.as_tensor(lsp_part_of_joint(), device=self.weights.device)[self.part_labels]

    def rest_joints(self, betas: Tensor) -> Tensor:
        """(B, 24, 3) joints of the unposed body of shape `betas` (B, 10), metres."""
        return self.joint_template + torch.einsum("bk,jck->bjc", betas, self.joint_shapedirs)

    def forward(
        self,
        global_orient: Tensor,
        body_pose: Tensor,
        betas: Tensor,
        transl: Tensor | None = None,
        *,
        skinning: Skinning = "linear",
    ) -> BodyOutput:
        """Pose the body by axis-angle vectors.

        Args:
            global_orient: (B, 3) rotation of the root, radians.
            body_pose: (B, 69) rotations of joints 1 to 23 relative to their parents, radians.
            betas: (B, 10) shape coefficients, unit variance.
            transl: (B, 3) metres, added to everything; none means zero.
            skinning: "linear" as SMPL does, or "dual_quaternion", which keeps the volume of
                twisted limbs.

        Returns:
            Vertices and joints in the frame of global_orient and transl.
        """
        pose = torch.cat([global_orient, body_pose], dim=1).unflatten(1, (24, 3))
        return self.pose(roma.rotvec_to_rotmat(pose), betas, transl, skinning=skinning)

    def pose(
        self,
        pose_rotmat: Tensor,
        betas: Tensor,
        transl: Tensor | None = None,
        *,
        skinning: Skinning = "linear",
    ) -> BodyOutput:
        """Pose the body by rotation matrices; pose_rotmat is (B, 24, 3, 3), else as `forward`."""
        rest_joints = self.rest_joints(betas)
        rotations, joints = forward_kinematics(pose_rotmat, rest_joints)
        feature = (pose_rotmat[:, 1:] - torch.eye(3).to(pose_rotmat)).flatten(1)
        shaped = self.v_template.flatten() + betas @ self.shapedirs.flatten(0, 1).T
        corrected = (shaped + feature @ self.posedirs.flatten(0, 1).T).unflatten(
            1, (self.num_vertices, 3)
        )
        offsets = joints - (rotations @ rest_joints[..., None])[..., 0]
        skin = _skin_linear if skinning == "linear" else _skin_dual_quaternion
        vertices = skin(corrected, rotations, offsets, self.weights)
        if transl is not None:
            vertices, joints = vertices + transl[:, None], joints + transl[:, None]
        return BodyOutput(vertices, joints)


def pose_body(body: Body, params: BodyParams) -> BodyOutput:
    """B bodies in the frame of their parameters, the camera's; metres."""
    return body(params.global_orient, params.body_pose, params.betas, params.transl)


def load_body(path: Path | str | None = None, *, dtype: torch.dtype = torch.float32) -> Body:
    """Load an SMPL-format body file, or the bundled free body.

    Args:
        path: SMPL, SMPL-H or SMPL-X `.npz` or `.pkl`; none means the bundled body.
        dtype: of the arrays; precomputation is in float64.

    Raises:
        BodyFileError: the file cannot be used; nothing in it was run.
    """
    return Body(load_body_arrays(BUNDLED_BODY if path is None else Path(path))).to(dtype)


def _tree_levels() -> list[list[int]]:
    """Joints by depth in the tree: whole levels are posed at once, nine steps in place of 24."""
    depth = [0] * len(SMPL_PARENTS)
    for joint, parent in enumerate(SMPL_PARENTS[1:], start=1):
        depth[joint] = depth[parent] + 1
    return [[j for j, d in enumerate(depth) if d == level] for level in range(max(depth) + 1)]


_LEVELS = _tree_levels()
_BY_LEVEL = [joint for level in _LEVELS for joint in level]
_FROM_LEVELS = np.argsort(_BY_LEVEL).tolist()
_PARENT_IN_LEVEL = [
    [above.index(SMPL_PARENTS[j]) for j in level] for above, level in pairwise(_LEVELS)
]


def forward_kinematics(pose_rotmat: Tensor, rest_joints: Tensor) -> tuple[Tensor, Tensor]:
    """Chain local rotations along SMPL's tree.

    Args:
        pose_rotmat: (B, 24, 3, 3) rotation of each joint relative to its parent.
        rest_joints: (B, 24, 3) metres.

    Returns:
        rotations: (B, 24, 3, 3) of each joint relative to the body's frame.
        joints: (B, 24, 3) posed, metres; the root stays where it rests.
    """
    rotations, joints = chain(pose_rotmat, rest_joints[..., None])
    return rotations, joints[..., 0]


def chain(pose_rotmat: Tensor, rest_joints: Tensor) -> tuple[Tensor, Tensor]:
    """`forward_kinematics` of C sets of rest joints at once, (B or 1, 24, 3, C)."""
    parents = list(SMPL_PARENTS[1:])
    bones = rest_joints[:, 1:] - rest_joints[:, parents]
    rotations = [pose_rotmat[:, :1]]
    joints = [rest_joints[:, :1].expand(len(pose_rotmat), -1, -1, -1)]
    for level, parent in zip(_LEVELS[1:], _PARENT_IN_LEVEL, strict=True):
        above = rotations[-1][:, parent]
        bone = bones[:, [joint - 1 for joint in level]]
        joints.append(joints[-1][:, parent] + above @ bone)
        rotations.append(above @ pose_rotmat[:, level])
    return torch.cat(rotations, dim=1)[:, _FROM_LEVELS], torch.cat(joints, dim=1)[:, _FROM_LEVELS]


def _skin_linear(vertices: Tensor, rotations: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    """Blend the joints' transforms x -> R x + t by the weights (SMPL eq. 2). Returns (B, V, 3)."""
    transforms = torch.cat([rotations, offsets[..., None]], dim=-1).flatten(2)
    blended = (weights @ transforms).unflatten(2, (3, 4))
    return (blended[..., :3] @ vertices[..., None])[..., 0] + blended[..., 3]


def _skin_dual_quaternion(
    vertices: Tensor, rotations: Tensor, offsets: Tensor, weights: Tensor
) -> Tensor:
    """Blend unit dual quaternions (Kavan et al. 2008, algorithm 1). Returns (B, V, 3)."""
    real = roma.rotmat_to_unitquat(rotations)  # (B, 24, 4), xyzw
    dual = 0.5 * roma.quat_product(
        torch.cat([offsets, torch.zeros_like(offsets[..., :1])], -1), real
    )
    # q and -q are the same rotation: blend on the side of the joint that moves the vertex most.
    same_side = torch.where(real @ real.mT < 0, -1.0, 1.0).to(real)
    signed = weights * same_side[:, weights.argmax(dim=1)]  # (B, V, 24)
    blended = signed @ torch.cat([real, dual], dim=-1)
    blended = blended / blended[..., :4].norm(dim=-1, keepdim=True)
    turn, shift = blended[..., :4], blended[..., 4:]
    translation = 2 * roma.quat_product(shift, roma.quat_conjugation(turn))[..., :3]
    return roma.quat_action(turn, vertices) + translation
