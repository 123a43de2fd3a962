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
picture as it is (`turn_params` with `inverse_turns`), fits there, and turns the best fit known into
a target (`turn_fits`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import roma
import torch
from numpy.typing import NDArray
from torch import Tensor

from fitting.body import Body
from fitting.problem import PARAMETERS, BodyParams
from fitting.skeleton import SMPL_JOINTS, flip_permutation

from .augmentation import (
    UNCHANGED,
    Augmentations,
    Floats,
    draw_augmentations,
    roll_matrices,
    swap_sides,
    turn_points,
)
from .stored_fits import StoredFits

_FLIP_JOINTS = flip_permutation(SMPL_JOINTS)
_MIRRORED = torch.tensor([1.0, -1.0, -1.0])  # what mirroring makes of a rotation vector


def turns(angle: Floats, flip: NDArray[np.bool_]) -> Augmentations:
    """The augmentations of B pictures as far as they matter here.

    Args:
        angle: (B,) radians, from x towards y.
        flip: (B,) bool, whether the picture was mirrored after that.
    """
    unchanged = draw_augmentations(UNCHANGED, len(angle), np.random.default_rng(0))
    return replace(
        unchanged, angle=np.asarray(angle, np.float64), flip=np.asarray(flip).astype(bool)
    )


def turn_fits(fits: StoredFits, augmentations: Augmentations, body: Body) -> StoredFits:
    """Fits for B pictures as they are, as fits for the augmented pictures.

    Costs stay those of the pictures as they are.

    Args:
        fits: of B people; those without a fit stay zero.
        augmentations: of their pictures.
        body: that the parameters belong to; a single-precision one on the CPU. A mirrored body is
            taken to be the body of the same shape, from which the bundled one is some millimetres
            away.
    """
    params = turn_params(fits.body_params, augmentations, body)
    packed = params.pack(PARAMETERS).numpy()
    return replace(
        fits,
        params=np.where(fits.is_known[:, None], packed, fits.params),
        joint_std_mm=swap_sides(fits.joint_std_mm, _FLIP_JOINTS, augmentations),
    )


def undo_turns(fits: StoredFits, augmentations: Augmentations, body: Body) -> StoredFits:
    """Fits for B augmented pictures, as fits for the pictures as they are; see `turn_fits`.

    Their costs must have been those of the pictures as they are.
    """
    return turn_fits(fits, inverse_turns(augmentations), body)


def inverse_turns(augmentations: Augmentations) -> Augmentations:
    """What makes of the augmented people the people as they are."""
    angle = np.where(augmentations.flip, augmentations.angle, -augmentations.angle)
    return replace(augmentations, angle=angle)


def turn_params(params: BodyParams, augmentations: Augmentations, body: Body) -> BodyParams:
    """Parameters of B people on the CPU, likewise; NaN stays NaN."""
    root = _turn_root(params.global_orient, augmentations)
    rotvec = torch.cat([root, params.body_pose], dim=1).unflatten(1, (24, 3))
    flip = torch.from_numpy(augmentations.flip)[:, None, None]
    rotvec = rotvec.where(~flip, rotvec[:, _FLIP_JOINTS] * _MIRRORED).flatten(1)
    # The body is turned about its pelvis, which rests beside the origin that transl is of. In this
    # order of the sums nothing is lost where nothing is turned.
    pelvis = body.rest_joints(params.betas)[:, :1]
    moved = turn_points(pelvis, augmentations) - pelvis
    transl = turn_points(params.transl[:, None], augmentations) + moved
    return replace(
        params, global_orient=rotvec[:, :3], body_pose=rotvec[:, 3:], transl=transl[:, 0]
    )


def _turn_root(global_orient: Tensor, augmentations: Augmentations) -> Tensor:
    """(B, 3) the root's axis-angle after the turn; the same to the last bit where there is none."""
    roll = roll_matrices(augmentations).double()
    turned = roma.rotmat_to_rotvec(roll @ roma.rotvec_to_rotmat(global_orient.double()))
    is_turned = torch.from_numpy(augmentations.angle != 0)[:, None]
    return torch.where(is_turned, turned.to(global_orient), global_orient)
