"""The keypoints of a body without its mesh, exactly, and how they move.

A keypoint is linear in posed vertices and joints, and a skinned vertex is
sum_k w_k (G_k (T + S beta + P phi - J_k(beta)) + g_k), with G_k and g_k the world rotation and
position of joint k and phi = vec(R - I) of the local rotations. Summed over the vertices of a
keypoint p with weights A, only a few terms per (keypoint, joint) pair remain:

    K_p = sum_k G_k (a_pk + B_pk beta + C_pk phi) + alpha_pk g_k

    alpha_pk = sum_i A_pi w_ik               a_pk = sum_i A_pi w_ik (T_i - J_k template)
    B_pk = sum_i A_pi w_ik (S_i - J_k dirs)  C_pk = sum_i A_pi w_ik P_i

which are precomputed once. A keypoint that is a joint has alpha = 1 at that joint and nothing else.
Derivatives: docs/fitting.md.
"""

from __future__ import annotations

from typing import NamedTuple

import roma
import torch
from torch import Tensor

from .body import Body, chain
from .keypoints import KeypointMap
from .skeleton import SMPL_PARENTS

# Of the unknowns of a body, x (B, 85): `problem.PARAMETERS`, side by side.
SIZES = (3, 69, 10, 3)


class PosedKeypoints(NamedTuple):
    """Keypoints of B bodies, and what their derivatives share."""

    keypoints: Tensor  # (B, P, 3) metres
    untranslated: Tensor  # (B, P, 3) the same less the translation
    pairs: Tensor  # (B, Q, 3) terms of their sums, without translation
    local: Tensor  # (B, 24, 3, 3)
    tangent: Tensor  # (B, 24, 3, 3) right Jacobians of the joints' axis-angles
    rotations: Tensor  # (B, 24, 3, 3)
    joints: Tensor  # (B, 24, 3)
    axes: Tensor  # (B, 24, 3, 3) column a is the spin of the world below a joint by its a-th angle
    by_betas: Tensor  # (B, P, 3, 10)


class KeypointBody(torch.nn.Module):
    """Keypoints of one set on one body, from Q (keypoint, joint) pairs; `.to(...)` moves it.

    Attributes:
        keypoint_set: of P keypoints.
        rest_joints: (11, 72) joints at rest: their template and its change by each beta.
        offsets: (11, 3 Q) the constant a and the ten columns of B of each pair, metres.
        pose_offsets: (207, 3 Q) C of each pair.
        shares: (Q, 1) alpha of each pair.
        pair_keypoint, pair_joint: (Q,) the keypoint and the joint of each pair.
        sum_pairs: (P, Q) 1 where a pair is of a keypoint.
        below: (24, Q) 1 where a pair hangs on a joint.
        shares_below: (P, 24) alpha of a keypoint's pairs that hang on a joint.
        partial_keypoint, partial_joint: (F,) where some but not all of a keypoint's pairs hang on
            a joint.
        partial_pairs: (F, Q) 1 for those pairs.
        bones: (72, 10 P) change of keypoints by the betas, linear in the joints' rotations.
        root_shift: (P, 3, 10) the same, by the root's position.
        transl_share: (P, 1) of the translation: 1 to rounding, or 0 if undefined.
        defined: (P,) bool, False where the body has no such point.
    """

    rest_joints: Tensor
    offsets: Tensor
    pose_offsets: Tensor
    shares: Tensor
    pair_keypoint: Tensor
    pair_joint: Tensor
    sum_pairs: Tensor
    below: Tensor
    shares_below: Tensor
    partial_keypoint: Tensor
    partial_joint: Tensor
    partial_pairs: Tensor
    bones: Tensor
    root_shift: Tensor
    transl_share: Tensor
    defined: Tensor

    def __init__(self, body: Body, keypoint_map: KeypointMap) -> None:
        """Precompute the pairs of `keypoint_map`, in the body's dtype and on its device."""
        super().__init__()
        self.keypoint_set = keypoint_map.keypoint_set
        offsets, pose_offsets, shares, present = _pair_terms(body, keypoint_map)
        pair_keypoint, pair_joint = torch.nonzero(present, as_tuple=True)
        hangs = _hangs_on().to(shares)
        shares_below = shares @ hangs
        bones, root_shift = _bones(_rest_joints(body).double(), offsets, shares_below)
        sum_pairs = torch.nn.functional.one_hot(pair_keypoint, len(self.keypoint_set)).T
        chosen = pair_keypoint, pair_joint
        transl_share = keypoint_map.joint_weights.sum(1) + keypoint_map.vertex_weights.sum(1)
        for name, tensor in {
            "rest_joints": _rest_joints(body).flatten(0, 1).T,
            "offsets": offsets[chosen].flatten(0, 1).T,
            "pose_offsets": pose_offsets[chosen].flatten(0, 1).T,
            "shares": shares[chosen][:, None],
            "sum_pairs": sum_pairs,
            "below": hangs[pair_joint].T,
            "shares_below": shares_below,
            "bones": bones.flatten(0, 1).flatten(1),
            "root_shift": root_shift,
            "transl_share": transl_share[:, None],
        }.items():
            self.register_buffer(name, tensor.to(body.v_template).contiguous())
        pairs_below = (present.to(hangs) @ hangs).long()  # (P, 24) how many of a keypoint's pairs
        some = (pairs_below > 0) & (pairs_below < present.sum(dim=1, keepdim=True))
        partial_keypoint, partial_joint = torch.nonzero(some, as_tuple=True)
        partial_pairs = sum_pairs[partial_keypoint] * hangs[pair_joint].T[partial_joint]
        self.register_buffer("partial_pairs", partial_pairs.to(body.v_template))
        self.register_buffer("partial_keypoint", partial_keypoint)
        self.register_buffer("partial_joint", partial_joint)
        self.register_buffer("pair_keypoint", pair_keypoint)
        self.register_buffer("pair_joint", pair_joint)
        self.register_buffer("defined", keypoint_map.defined)

    def forward(
        self, global_orient: Tensor, body_pose: Tensor, betas: Tensor, transl: Tensor | None = None
    ) -> Tensor:
        """(B, P, 3) keypoints in metres; arguments as those of `Body.forward`."""
        if transl is None:
            transl = torch.zeros_like(global_orient)
        return self.pose(torch.cat([global_orient, body_pose, betas, transl], dim=1)).keypoints

    def pose(self, x: Tensor) -> PosedKeypoints:
        """Keypoints of x (B, 85 or more): `problem.PARAMETERS` side by side, and what follows."""
        rotvec, betas, transl = x[:, :72].unflatten(1, (24, 3)), x[:, 72:82], x[:, 82:85]
        local = roma.rotvec_to_rotmat(rotvec)
        rotations, joints, pairs = self._pose_pairs(local, betas)
        untranslated = self.sum_pairs @ pairs
        tangent = right_jacobian(rotvec)
        by_betas = rotations.transpose(1, 2).flatten(2) @ self.bones  # (B, 3, 10 P)
        return PosedKeypoints(
            keypoints=untranslated + self.transl_share * transl[:, None],
            untranslated=untranslated,
            pairs=pairs,
            local=local,
            tangent=tangent,
            rotations=rotations,
            joints=joints,
            axes=rotations @ tangent,
            by_betas=by_betas.unflatten(2, (-1, 10)).transpose(1, 2) + self.root_shift,
        )

    def pose_rotations(self, pose_rotmat: Tensor, betas: Tensor) -> tuple[Tensor, Tensor]:
        """Keypoints (B, P, 3) and joints (B, 24, 3) of bodies without translation, metres.

        Args:
            pose_rotmat: (B, 24, 3, 3) local rotations, the root's first.
            betas: (B, 10).
        """
        _, joints, pairs = self._pose_pairs(pose_rotmat, betas)
        # one product of all bodies' rows, many times as fast as one for each body
        return (pairs.mT.contiguous() @ self.sum_pairs.T).mT, joints

    def _pose_pairs(self, local: Tensor, betas: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """World rotations (B, 24, 3, 3), joints (B, 24, 3), terms of the keypoints (B, Q, 3)."""
        rest = torch.addmm(self.rest_joints[0], betas, self.rest_joints[1:]).unflatten(1, (24, 3))
        rotations, joints = (part.flatten(3) for part in chain(local, rest[..., None]))
        joints = joints[..., 0]
        feature = (local[:, 1:] - torch.eye(3).to(local)).flatten(1)
        anchored = torch.addmm(self.offsets[0], betas, self.offsets[1:])
        anchored = torch.addmm(anchored, feature, self.pose_offsets).unflatten(1, (-1, 3))
        pairs = turn(rotations[:, self.pair_joint], anchored)
        return rotations, joints, pairs + self.shares * joints[:, self.pair_joint]

    def pull_back(self, posed: PosedKeypoints, forces: Tensor) -> Tensor:
        """J^T f: the gradient by x of a cost whose gradient by the keypoints is `forces`.

        By virtual work: joint j's share is the moment about it of all forces on what hangs on it.

        Args:
            posed: from `pose`.
            forces: (B, P, 3).

        Returns:
            (B, 85).
        """
        on_pairs = forces[:, self.pair_keypoint]
        wrenches = torch.cat([torch.linalg.cross(posed.pairs, on_pairs), self.shares * on_pairs], 2)
        moment, push = (self.below @ wrenches).split(3, dim=2)  # (B, 24, 3) about the origin
        moment = moment - torch.linalg.cross(posed.joints, push)
        pose = turn(posed.axes.mT, moment)
        pose[:, 1:] += self._pull_back_correctives(posed, on_pairs)
        # not a product of a vector and a matrix: BLAS rounds that by its place in memory
        betas = (forces[..., None] * posed.by_betas).flatten(1, 2).sum(dim=1)
        transl = (self.transl_share * forces).sum(dim=1)
        return torch.cat([pose.flatten(1), betas, transl], dim=1)

    def _pull_back_correctives(self, posed: PosedKeypoints, on_pairs: Tensor) -> Tensor:
        """(B, 23, 3): the pose correctives change with each local rotation after the root's.

        d R_j = R_j [Jr(theta_j) d]x, and <A, [v]x> is v times the axis of A - A^T.
        """
        inwards = turn(posed.rotations[:, self.pair_joint].mT, on_pairs)
        by_rotation = (inwards.flatten(1) @ self.pose_offsets.T).unflatten(1, (23, 3, 3))
        axis = axis_of_skew(posed.local[:, 1:].mT @ by_rotation)
        return turn(posed.tangent[:, 1:].mT, axis)

    def measured_moves(self, posed: PosedKeypoints, directions: Tensor) -> Tensor:
        """How keypoints move along given directions if the pose correctives stay as they are.

        Rows of u J for a Gauss-Newton matrix, at a small part of the cost of `jacobian` and within
        1 % of it. Each is the product of a joint's twist (spin; velocity of the origin) and a
        direction's wrench (moment about the origin; force), but where only some of a keypoint's
        pairs hang on the joint: there the moment is that of those pairs about the joint.

        Args:
            posed: from `pose`.
            directions: (B, P, C, 3).

        Returns:
            (B, P C, 85).
        """
        C = directions.shape[2]
        points = posed.untranslated[:, :, None].expand(-1, -1, C, -1)
        wrenches = torch.cat([torch.linalg.cross(points, directions), directions], dim=3)
        spins = posed.axes.mT  # (B, 24, 3, 3), one a row
        centres = posed.joints[:, :, None].expand(-1, -1, 3, -1)
        twists = torch.cat([spins, torch.linalg.cross(centres, spins)], dim=3)
        shares = self.shares_below.repeat_interleave(3, 1).repeat_interleave(C, 0)  # (P C, 72)
        pose = wrenches.flatten(1, 2) @ twists.flatten(1, 2).mT * shares
        keypoint, joint = self.partial_keypoint, self.partial_joint
        arms = self.partial_pairs @ posed.pairs
        arms = arms - self.shares_below[keypoint, joint, None] * posed.joints[:, joint]
        moments = torch.linalg.cross(arms[:, :, None], directions[:, keypoint])
        partial = (moments @ posed.axes[:, joint]).transpose(0, 1)  # (F, B, C, 3)
        pose.unflatten(1, (-1, C)).unflatten(3, (24, 3))[:, keypoint, :, joint] = partial
        betas = (directions @ posed.by_betas).flatten(1, 2)
        transl = (directions * self.transl_share[:, None]).flatten(1, 2)
        return torch.cat([pose, betas, transl], dim=2)

    def jacobian(
        self, global_orient: Tensor, body_pose: Tensor, betas: Tensor, transl: Tensor
    ) -> Tensor:
        """(B, P, 3, 85) exact derivatives of the keypoints; arguments as of `Body.forward`.

        One column of forces for each coordinate of each keypoint, pulled back.
        """
        x = torch.cat([global_orient, body_pose, betas, transl], dim=1)
        B, P = len(x), len(self.keypoint_set)
        posed = self.pose(x.repeat_interleave(3 * P, dim=0))
        forces = torch.eye(3 * P).to(x).unflatten(1, (P, 3)).repeat(B, 1, 1)
        return self.pull_back(posed, forces).unflatten(0, (B, P, 3))


def turn(matrices: Tensor, vectors: Tensor) -> Tensor:
    """(..., 3) products of matrices (..., 3, 3) and vectors (..., 3)."""
    return (matrices @ vectors[..., None])[..., 0]


def axis_of_skew(matrices: Tensor) -> Tensor:
    """(..., 3) vectors a with [a]x = A - A^T, so that <A, [v]x> = a v, for A (..., 3, 3)."""
    skew = matrices - matrices.mT
    return torch.stack([skew[..., 2, 1], skew[..., 0, 2], skew[..., 1, 0]], dim=-1)


def _rest_joints(body: Body) -> Tensor:
    """(24, 3, 11) template of the joints, and its change by each beta."""
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


def _hangs_on() -> Tensor:
    """(24, 24) 1 where joint j of the column is joint k of the row, or above it."""
    hangs_on = torch.eye(24)
    for child, parent in enumerate(SMPL_PARENTS[1:], start=1):
        hangs_on[child] += hangs_on[parent]  # parents come first, so their row is complete
    return hangs_on


def _bones(rest_joints: Tensor, offsets: Tensor, shares_below: Tensor) -> tuple[Tensor, Tensor]:
    """Change of keypoints by the betas: (24, 3, P, 10) turned by each joint, and (P, 3, 10).

    g_j = J_0 + sum of G_parent(i) (J_i - J_parent(i)) over the joints i from j up to below the
    root, so each bone counts with the share of a keypoint that hangs on its end.
    """
    by_betas = rest_joints[..., 1:]
    turned = offsets[..., 1:].permute(1, 2, 0, 3).clone()  # (24, 3, P, 10)
    for child, parent in enumerate(SMPL_PARENTS[1:], start=1):
        bone = by_betas[child] - by_betas[parent]
        turned[parent] += shares_below[:, child, None] * bone[:, None]
    return turned, shares_below[:, 0, None, None] * by_betas[0]


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
