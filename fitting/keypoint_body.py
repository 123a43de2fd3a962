"""The keypoints of a body without its mesh, exactly, and their analytic Jacobian.

A keypoint is linear in posed vertices and joints, and a skinned vertex is
sum_k w_k (G_k (T + S beta + P phi - J_k(beta)) + g_k), with G_k and g_k the world rotation and
position of joint k and phi = vec(R - I) of the local rotations. Summed over the vertices of a
keypoint p with weights A, only a few terms per (keypoint, joint) pair remain:

    K_p = sum_k G_k (a_pk + B_pk beta + C_pk phi) + alpha_pk g_k

    alpha_pk = sum_i A_pi w_ik               a_pk = sum_i A_pi w_ik (T_i - J_k template)
    B_pk = sum_i A_pi w_ik (S_i - J_k dirs)  C_pk = sum_i A_pi w_ik P_i

which are precomputed once. A keypoint that is a joint has alpha = 1 at that joint and nothing else.
Derivation of the Jacobian: docs/fitting.md.
"""

from __future__ import annotations

from typing import NamedTuple

import roma
import torch
from torch import Tensor

from .body import Body, chain
from .keypoints import KeypointMap
from .skeleton import SMPL_PARENTS


class KeypointJacobian(NamedTuple):
    """Keypoints and how they move.

    Attributes:
        keypoints: (B, P, 3) metres.
        pose: (B, P, 3, 72) by the axis-angle of all 24 joints, global_orient first.
        betas: (B, P, 3, 10).
        transl: (P,) share of the translation that each keypoint takes: 1, or 0 if undefined.
    """

    keypoints: Tensor
    pose: Tensor
    betas: Tensor
    transl: Tensor


class _Posed(NamedTuple):
    """What the keypoints and their Jacobian share."""

    keypoints: Tensor  # (B, P, 3)
    pairs: Tensor  # (B, Q, 3) terms of the sum, without translation
    by_betas: Tensor  # (B, Q, 3, 10)
    rotvec: Tensor  # (B, 24, 3)
    local: Tensor  # (B, 24, 3, 3)
    rotations: Tensor  # (B, 24, 3, 3)
    joints: Tensor  # (B, 24, 3)


class KeypointBody(torch.nn.Module):
    """Keypoints of one set on one body, from Q (keypoint, joint) pairs; `.to(...)` moves it.

    Attributes:
        keypoint_set: of P keypoints.
        offsets: (Q, 3, 11) the constant a and the ten columns of B of each pair, metres.
        pose_offsets: (Q, 3, 207) C of each pair.
        shares: (Q,) alpha of each pair.
        rest_joints: (24, 3, 11) joints at rest: their template and its change by each beta.
        pair_joint: (Q,) the joint of each pair.
        sum_pairs: (P, Q) 1 where a pair is of a keypoint.
        lever_keypoint, lever_joint: (L,) keypoints and the joints that move them.
        sum_levers: (L, Q) 1 where a pair of the keypoint hangs on the joint.
        transl_share: (P,) of the translation: 1 to rounding, or 0 if undefined.
        defined: (P,) bool, False where the body has no such point.
    """

    offsets: Tensor
    pose_offsets: Tensor
    shares: Tensor
    rest_joints: Tensor
    pair_joint: Tensor
    sum_pairs: Tensor
    lever_keypoint: Tensor
    lever_joint: Tensor
    sum_levers: Tensor
    transl_share: Tensor
    defined: Tensor

    def __init__(self, body: Body, keypoint_map: KeypointMap) -> None:
        """Precompute the pairs of `keypoint_map`, in the body's dtype and on its device."""
        super().__init__()
        self.keypoint_set = keypoint_map.keypoint_set
        offsets, pose_offsets, shares, present = _pair_terms(body, keypoint_map)
        keypoint, joint = torch.nonzero(present, as_tuple=True)
        sum_pairs = torch.nn.functional.one_hot(keypoint, len(keypoint_map.keypoint_set)).T
        lever_keypoint, lever_joint, sum_levers = _levers(sum_pairs, joint)
        like = body.v_template
        for name, tensor in {
            "offsets": offsets[keypoint, joint].to(like),
            "pose_offsets": pose_offsets[keypoint, joint].to(like),
            "shares": shares[keypoint, joint].to(like),
            "rest_joints": _rest_joints(body),
            "pair_joint": joint,
            "sum_pairs": sum_pairs.to(like),
            "lever_keypoint": lever_keypoint,
            "lever_joint": lever_joint,
            "sum_levers": sum_levers.to(like),
            "transl_share": keypoint_map.joint_weights.sum(1) + keypoint_map.vertex_weights.sum(1),
            "defined": keypoint_map.defined,
        }.items():
            self.register_buffer(name, tensor)

    def forward(
        self, global_orient: Tensor, body_pose: Tensor, betas: Tensor, transl: Tensor | None = None
    ) -> Tensor:
        """(B, P, 3) keypoints in metres; arguments as those of `Body.forward`."""
        return self._pose(global_orient, body_pose, betas, transl).keypoints

    def jacobian(
        self, global_orient: Tensor, body_pose: Tensor, betas: Tensor, transl: Tensor | None = None
    ) -> KeypointJacobian:
        """Keypoints and their analytic derivatives; arguments as those of `Body.forward`."""
        posed = self._pose(global_orient, body_pose, betas, transl)
        tangent = right_jacobian(posed.rotvec)  # (B, 24, 3, 3)
        pose = self._by_turning(posed, tangent) + self._by_correctives(posed, tangent)
        return KeypointJacobian(
            keypoints=posed.keypoints,
            pose=pose.flatten(3),
            betas=(self.sum_pairs @ posed.by_betas.flatten(2)).unflatten(2, (3, 10)),
            transl=self.transl_share,
        )

    def _pose(
        self, global_orient: Tensor, body_pose: Tensor, betas: Tensor, transl: Tensor | None
    ) -> _Posed:
        rotvec = torch.cat([global_orient, body_pose], dim=1).unflatten(1, (24, 3))
        local = roma.rotvec_to_rotmat(rotvec)
        rotations, positions = chain(local, self.rest_joints[None])
        feature = (local[:, 1:] - torch.eye(3).to(local)).flatten(1)
        corrective = (feature @ self.pose_offsets.flatten(0, 1).T).unflatten(1, (-1, 3, 1))
        # one constant column, then one for each beta
        turned = rotations[:, self.pair_joint]
        columns = turned @ self.offsets + self.shares[:, None, None] * positions[:, self.pair_joint]
        pairs = _at(columns, betas) + (turned @ corrective)[..., 0]
        keypoints = self.sum_pairs @ pairs
        if transl is not None:
            keypoints = keypoints + self.transl_share[:, None] * transl[:, None]
        joints = _at(positions, betas)
        return _Posed(keypoints, pairs, columns[..., 1:], rotvec, local, rotations, joints)

    def _by_turning(self, posed: _Posed, tangent: Tensor) -> Tensor:
        """(B, P, 3, 24, 3): turning joint j sweeps all that hangs on it about its position.

        A change d of theta_j turns the world below j by w = G_j Jr(theta_j) d. The pairs below, of
        sum s and total share alpha, move by w x (s - alpha g_j).
        """
        below = self.sum_levers @ posed.pairs  # (B, L, 3)
        shares = (self.sum_levers @ self.shares)[:, None]
        arm = below - shares * posed.joints[:, self.lever_joint]
        axes = (posed.rotations @ tangent)[:, self.lever_joint]  # (B, L, 3, 3), one axis a column
        swept = torch.linalg.cross(axes.mT, arm[:, :, None], dim=-1).mT
        jacobian = arm.new_zeros(len(arm), len(self.sum_pairs), 24, 3, 3)
        jacobian[:, self.lever_keypoint, self.lever_joint] = swept
        return jacobian.transpose(2, 3)

    def _by_correctives(self, posed: _Posed, tangent: Tensor) -> Tensor:
        """(B, P, 3, 24, 3): the pose correctives change with each local rotation.

        d vec(R_j) = vec(R_j [Jr(theta_j) d]x), for the joints after the root.
        """
        spin = posed.local[:, 1:, None] @ _cross_matrices(tangent[:, 1:].mT)  # (B, 23, 3, 3, 3)
        by_angle = spin.flatten(3).mT  # (B, 23, 9, 3)
        by_feature = self.pose_offsets.unflatten(2, (23, 9)).permute(2, 0, 1, 3).flatten(1, 2)
        moved = (by_feature @ by_angle).unflatten(2, (-1, 3))  # (B, 23, Q, 3, 3)
        turned = posed.rotations[:, None, self.pair_joint] @ moved
        # (B, Q, 3 * 23 * 3), so that each person's sum is a product of their own
        columns = turned.permute(0, 2, 3, 1, 4).flatten(2)
        summed = (self.sum_pairs @ columns).unflatten(2, (3, 23, 3))
        return torch.cat([torch.zeros_like(summed[:, :, :, :1]), summed], dim=3)


def _at(columns: Tensor, betas: Tensor) -> Tensor:
    """(B, N, 3): the constant column of (B, N, 3, 11) plus the others times betas (B, 10)."""
    return columns[..., 0] + (columns[..., 1:] @ betas[:, None, :, None])[..., 0]


def _rest_joints(body: Body) -> Tensor:
    return torch.cat([body.joint_template[..., None], body.joint_shapedirs], dim=-1)


def _pair_terms(body: Body, keypoint_map: KeypointMap) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The sums of the module's text for all (P, 24) pairs, in float64; and which are not empty."""
    ids = keypoint_map.vertex_ids
    joint_weights = keypoint_map.joint_weights.double()
    over = keypoint_map.vertex_weights.double()[:, :, None] * body.weights[ids].double()
    over_sum = over.sum(dim=1)  # (P, 24)
    columns = torch.cat([body.v_template[ids, :, None], body.shapedirs[ids]], dim=-1).double()
    offsets = torch.einsum("puk,ucs->pkcs", over, columns)
    offsets = offsets - over_sum[..., None, None] * _rest_joints(body).double()
    pose_offsets = torch.einsum("puk,ucf->pkcf", over, body.posedirs[ids].double())
    present = over.abs().sum(dim=1) + joint_weights.abs() > 0
    return offsets, pose_offsets, over_sum + joint_weights, present


def _levers(sum_pairs: Tensor, pair_joint: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All (keypoint, joint) such that turning the joint moves a pair of the keypoint."""
    hangs_on = torch.eye(24, dtype=torch.long, device=pair_joint.device)
    for child, parent in enumerate(SMPL_PARENTS[1:], start=1):
        hangs_on[child] += hangs_on[parent]  # parents come first, so their row is complete
    sums = sum_pairs[:, None] * hangs_on[pair_joint].T  # (P, 24, Q)
    keypoint, joint = torch.nonzero(sums.sum(dim=-1), as_tuple=True)
    return keypoint, joint, sums[keypoint, joint]


def _cross_matrices(vectors: Tensor) -> Tensor:
    """(..., 3, 3) matrices [v]x with [v]x w = v x w."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    entries = (zero, -z, y, z, zero, -x, -y, x, zero)
    return torch.stack(entries, dim=-1).unflatten(-1, (3, 3))


def right_jacobian(rotvec: Tensor) -> Tensor:
    """Jr with exp([v + d]x) = exp([v]x) exp([Jr(v) d]x) for small d.

    Jr = I - (1 - cos a) / a^2 [v]x + (a - sin a) / a^3 [v]x^2 with a = |v| (Sola et al., "A micro
    Lie theory", eq. 143), by its Taylor series near zero.

    Args:
        rotvec: (..., 3) axis-angle, radians.

    Returns:
        (..., 3, 3).
    """
    square = rotvec.square().sum(dim=-1)[..., None, None]
    small = square < 1e-2
    a2 = torch.where(small, 1.0, square)
    a = a2.sqrt()
    series = 0.5 - square / 24 + square**2 / 720 - square**3 / 40320
    first = torch.where(small, series, (1 - a.cos()) / a2)
    series = 1 / 6 - square / 120 + square**2 / 5040 - square**3 / 362880
    second = torch.where(small, series, (a - a.sin()) / (a2 * a))
    cross = _cross_matrices(rotvec)
    return torch.eye(3).to(rotvec) - first * cross + second * (cross @ cross)
