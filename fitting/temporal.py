"""How a person is expected to move from one picture to the next.

Poses are an Ornstein-Uhlenbeck process, what stays of a pose after a time dt being
q = exp(-dt / correlation time). Of such a process with deviation s, whose values at T times have
the density of the priors each,

    -log p = sum_t share_t x_t^2 / (2 s^2)  +  sum_t w_t (x_(t+1) - x_t)^2 / 2
    w_t = q_t / (s^2 (1 - q_t^2))              share_t = 1 / (1 + q_(t-1)) + 1 / (1 + q_t) - 1

with q = 0 beyond the ends: the precision of a Markov chain. So the priors count less where pictures
follow fast, in full for a picture alone, and pairs long apart do not count. (The priors' q has a
time of its own, much shorter: the one that gave the least error in 3D.) Where a person turns and
goes is a random walk; shape and focal length hardly change, and count once. Derivatives:
docs/fitting.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import roma
import torch
from torch import Tensor
from torch.nn.functional import pad

from .keypoint_body import axis_of_skew, right_jacobian, turn
from .map_energy import BETAS, POSE, TRANSL, PriorShares
from .skeleton import keypoint_set

# Radians about each axis, of joints of both sides; measured as docs/fitting.md says.
_JOINT_STD = {
    "hip": 0.21, "spine1": 0.10, "knee": 0.20, "spine2": 0.055, "ankle": 0.17, "spine3": 0.055,
    "foot": 0.07, "neck": 0.07, "collar": 0.05, "head": 0.07, "shoulder": 0.28, "elbow": 0.22,
    "wrist": 0.20, "hand": 0.05,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class MotionWeights:
    """How far a person is trusted to move.

    Attributes:
        correlation_time: seconds, in which poses forget all but 1 / e of what they were.
        prior_time: seconds; pictures closer than this share one prior.
        pose_scale: multiplies the deviations of joints that were measured, whose motion is not
            normal: it comes in bursts.
        turn: radians about each axis by which the whole body turns in a second.
        walk: metres along each axis by which it moves in a second.
        lasting: by which betas, and the log of the focal length as a share of its deviation, differ
            from one picture to the next: next to nothing.
    """

    correlation_time: float = 0.3
    prior_time: float = 0.04
    pose_scale: float = 1.5
    turn: float = 0.4
    walk: float = 0.5
    lasting: float = 0.01

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")


class Links(NamedTuple):
    """Weights w of n chains of T pictures: between each picture and the next, 0 for none.

    Attributes:
        joints: (n, T - 1, 24).
        walk: (n, T - 1).
        lasting: (n, T - 1) of betas.
        log_focal: (n, T - 1).
    """

    joints: Tensor
    walk: Tensor
    lasting: Tensor
    log_focal: Tensor


def joint_std() -> Tensor:
    """(24,) radians, deviations of the joints from their mean; infinite for the root."""
    names = (name.split("_", 1)[-1] for name in keypoint_set("smpl24").names[1:])
    return torch.tensor([torch.inf, *(_JOINT_STD[name] for name in names)])


def make_links(
    motion: MotionWeights, seconds: Tensor, linked: Tensor, log_focal_std: float
) -> tuple[Links, PriorShares]:
    """Weights of the pairs of n chains of T pictures, and the priors' shares (n, T).

    Pictures from the first on that is not linked to the next are fillings.

    Args:
        motion: settings.
        seconds: (n, T - 1) from each picture to the next, positive where linked.
        linked: (n, T - 1) bool.
        log_focal_std: expected deviation of the focal length's logarithm.
    """
    dt = seconds.where(linked, 1.0)
    keeps = torch.exp(-dt / motion.correlation_time) * linked
    variance = (motion.pose_scale * joint_std().to(dt)) ** 2
    joints = (keeps / (1 - keeps.square()))[..., None] / variance
    joints[..., 0] = linked / (motion.turn**2 * dt)
    lasts = (1 - motion.lasting**2 / 2) * linked  # the q at which neighbours differ by so much
    lasting = lasts / (1 - lasts.square())
    links = Links(
        joints=joints,
        walk=linked / (motion.walk**2 * dt),
        lasting=lasting,
        log_focal=lasting / log_focal_std**2,
    )
    shared = torch.exp(-dt / motion.prior_time) * linked
    pictures = 1 + linked.sum(dim=1, keepdim=True)
    return links, PriorShares(
        changing=_shares(shared), lasting=(1 / pictures).to(dt).expand(-1, dt.shape[1] + 1)
    )


def _shares(keeps: Tensor) -> Tensor:
    """(n, T) shares of the priors, for what stays (n, T - 1) of a value from each to the next."""
    half = 1 / (1 + keeps)
    return pad(half, (1, 0), value=1) + pad(half, (0, 1), value=1) - 1


def pair_costs(rotvec: Tensor, next_rotvec: Tensor, weights: Tensor) -> Tensor:
    """(...,) sum_j w_j (3 - tr(R_j^T S_j)) / 2 of rotations R and S.

    Args:
        rotvec, next_rotvec: (..., 24, 3) axis-angle, radians.
        weights: (..., 24).
    """
    one, other = roma.rotvec_to_rotmat(rotvec), roma.rotvec_to_rotmat(next_rotvec)
    return 0.5 * ((3 - (one * other).sum(dim=(-1, -2))) * weights).sum(dim=-1)


def add_links(x: Tensor, links: Links, gradient: Tensor, packed: Tensor) -> Tensor:
    """Add what is expected between neighbours to a quadratic model.

    Args:
        x: (n, T, D), D = 85 or with the log of the focal length 86.
        links: of the n chains.
        gradient: (n, T, D) to be added to.
        packed: (n, T, 2, D, D) to be added to; see `tridiagonal`.

    Returns:
        (n, T - 1) costs of the pairs.
    """
    cost = _add_rotations(x, links.joints, gradient, packed)
    blocks = [(BETAS, links.lasting), (TRANSL, links.walk)]
    if x.shape[2] > TRANSL.stop:
        blocks.append((slice(TRANSL.stop, None), links.log_focal))
    for columns, weights in blocks:
        weight = weights[..., None]
        change = x[:, 1:, columns] - x[:, :-1, columns]
        gradient[:, 1:, columns] += weight * change
        gradient[:, :-1, columns] -= weight * change
        own, coupling = packed.diagonal(dim1=3, dim2=4)[..., columns].unbind(2)
        own[:, 1:] += weight
        own[:, :-1] += weight
        coupling[:, :-1] -= weight
        cost = cost + 0.5 * weights * change.square().sum(dim=2)
    return cost


def _add_rotations(x: Tensor, weights: Tensor, gradient: Tensor, packed: Tensor) -> Tensor:
    """w (3 - tr M) / 2 of M = R_t^T R_(t+1), which is w a^2 / 2 for a small angle a between them.

    With R exp([J d]x) on either side, the second derivative is -w J_t^T (tr(M) I - M^T) J_(t+1) / 2
    across and, where M = I, w J^T J on each side. Together these are positive semidefinite.
    """
    rotvec = x[..., POSE].unflatten(2, (24, 3))
    rotation, tangent = roma.rotvec_to_rotmat(rotvec), right_jacobian(rotvec)
    apart = rotation[:, :-1].mT @ rotation[:, 1:]
    trace = apart.diagonal(dim1=-2, dim2=-1).sum(dim=-1)
    spin = axis_of_skew(apart) * (0.5 * weights[..., None])
    of_joints = gradient[..., POSE].unflatten(2, (24, 3))
    of_joints[:, 1:] += turn(tangent[:, 1:].mT, spin)
    of_joints[:, :-1] -= turn(tangent[:, :-1].mT, spin)
    blocks = packed[..., POSE, POSE].unflatten(3, (24, 3)).unflatten(5, (24, 3))
    own, coupling = blocks.diagonal(dim1=3, dim2=5).permute(0, 1, 2, 5, 3, 4).unbind(2)
    both_sides = pad(weights, (0, 0, 0, 1)) + pad(weights, (0, 0, 1, 0))
    own += both_sides[..., None, None] * (tangent.mT @ tangent)
    across = trace[..., None, None] * torch.eye(3).to(x) - apart.mT
    across = tangent[:, :-1].mT @ across @ tangent[:, 1:]
    coupling[:, :-1] -= 0.5 * weights[..., None, None] * across
    return 0.5 * ((3 - trace) * weights).sum(dim=-1)
