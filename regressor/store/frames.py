"""Fits in the frame of a picture as it is, and in that of the same picture augmented.

A store holds fits for pictures as they are. The network sees pictures that were turned and perhaps
mirrored afterwards (`augmentation`), and fits are made for those. Scale, shift and colours change
neither the camera nor the person. With Roll the camera's turn by an angle a and M = diag(-1, 1, 1),

    turned:             R' = Roll(a) R      x' = Roll(a) x
    turned, mirrored:   R' = M Roll(a) R M  x' = M Roll(a) x    left and right exchanged

of the root's rotation R and of points x in the camera frame; joints below the root are mirrored
alike and never turned. Since M Roll(a) is its own inverse, so is a turn with mirroring, while one
without is undone by the opposite angle.

Mirroring makes (x, -y, -z) of a rotation vector (x, y, z). It therefore is exact to the last bit,
as is everything about pictures that were not turned.

Costs are a matter of the picture too: a MAP energy prefers people who are upright in it, and its
pose prior is not the same for mirrored poses. So the loop takes the network's estimate back to the
picture as it is (`turn_params` with `Turns.inverse`), fits there, and turns the best fit known into
a target (`turn_fits`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import roma
import torch
from torch import Tensor

from fitting.body import Body
from fitting.problem import PARAMETERS, BodyParams
from fitting.skeleton import SMPL_JOINTS, flip_permutation

from ..augmentation import Turns, roll_matrices, swap_sides, turn_points
from .fits import StoredFits

_FLIP_JOINTS = flip_permutation(SMPL_JOINTS)
_MIRRORED = (1.0, -1.0, -1.0)  # what mirroring makes of a rotation vector


def turn_fits(fits: StoredFits, turns: Turns, body: Body) -> StoredFits:
    """Fits for B pictures as they are, as fits for the augmented pictures.

    Costs stay those of the pictures as they are. With `turns.inverse` it is the other way round.

    Args:
        fits: of B people; those without a fit stay zero.
        turns: of their pictures, on the CPU.
        body: that the parameters belong to; a single-precision one on the CPU. A mirrored body is
            taken to be the body of the same shape, from which the bundled one is some millimetres
            away.
    """
    params = turn_params(fits.body_params, turns, body)
    packed = params.pack(PARAMETERS).numpy()
    return replace(
        fits,
        params=np.where(fits.is_known[:, None], packed, fits.params),
        joint_std_mm=swap_sides(fits.joint_std_mm, _FLIP_JOINTS, turns.flip.numpy()),
    )


def turn_params(params: BodyParams, turns: Turns, body: Body) -> BodyParams:
    """Parameters of B people, likewise, all on one device; NaN stays NaN."""
    root = _turn_root(params.global_orient, turns)
    rotvec = torch.cat([root, params.body_pose], dim=1).unflatten(1, (24, 3))
    mirrored = rotvec[:, _FLIP_JOINTS] * torch.tensor(_MIRRORED).to(rotvec)
    rotvec = torch.where(turns.flip[:, None, None], mirrored, rotvec).flatten(1)
    # The body is turned about its pelvis, which rests beside the origin that transl is of. In this
    # order of the sums nothing is lost where nothing is turned.
    pelvis = body.rest_joints(params.betas)[:, :1]
    moved = turn_points(pelvis, turns) - pelvis
    transl = turn_points(params.transl[:, None], turns) + moved
    return replace(
        params, global_orient=rotvec[:, :3], body_pose=rotvec[:, 3:], transl=transl[:, 0]
    )


def _turn_root(global_orient: Tensor, turns: Turns) -> Tensor:
    """(B, 3) the root's axis-angle after the turn; the same to the last bit where there is none."""
    turned = roma.rotmat_to_rotvec(
        roll_matrices(turns).double() @ roma.rotvec_to_rotmat(global_orient.double())
    )
    return torch.where((turns.angle != 0)[:, None], turned.to(global_orient), global_orient)
