"""Augmentation of people in pictures, with truth that stays true.

A picture is turned by an angle about the middle c of a person's crop, p' = R (p - c) + c, and
perhaps mirrored, x' = W - 1 - x. Both are exact for a pinhole camera with square pixels: turning
the picture is a roll of the camera, whose principal point is R (p0 - c) + c afterwards, and before
which people are rolled alike; mirroring is looking at mirrored people, left being right. So
keypoints, crops, intrinsics, poses, joints and part labels of an augmented picture belong together
as those of any photograph do. Scale and shift only choose another crop of the picture.

The defaults are those of SPIN (Kolotouros et al., "Learning to Reconstruct 3D Human Pose and Shape
via Model-fitting in the Loop", ICCV 2019; `augm_params` and the defaults of its program).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fitting.opencv import import_cv2
from fitting.skeleton import SMPL_JOINTS, flip_permutation

Floats = NDArray[np.floating]

_FLIP_JOINTS = flip_permutation(SMPL_JOINTS)
_FLIP_LABELS = np.concatenate([[0], 1 + _FLIP_JOINTS]).astype(np.uint8)  # 0 is the background


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """How much pictures are changed; the defaults are SPIN's.

    Attributes:
        scale: least and largest factor of the crop's side.
        scale_std: deviation of that factor, normal about 1 and clipped; none draws it uniformly.
        shift: largest offset of the crop's centre in each direction, as a share of its side.
        rotation_deg: deviation of the angle, which is normal and clipped at twice as much.
        unrotated: share of pictures that are not turned.
        flipped: share of pictures that are mirrored.
        color: largest change of each colour channel, which is multiplied by 1 +- this.
        truncated: share of crops that are cut down to a part of the person: 0.4 to 0.8 of the side.
        occluded: share of crops with a block or a disc of one colour in front, as in Sárándi et
            al., "How Robust is 3D Human Pose Estimation to Occlusion?" (IROS workshop 2018), who
            found that shapes help nearly as much as cut-out objects.
    """

    scale: tuple[float, float] = (0.75, 1.25)
    scale_std: float | None = 0.25
    shift: float = 0.0
    rotation_deg: float = 30.0
    unrotated: float = 0.6
    flipped: float = 0.5
    color: float = 0.4
    truncated: float = 0.0
    occluded: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale must be two rising factors above 0, got {self.scale}")
        if self.scale_std is not None and self.scale_std < 0:
            raise ValueError(f"scale_std must be 0 or more, got {self.scale_std}")
        if self.shift < 0 or self.rotation_deg < 0:
            raise ValueError(
                f"shift and rotation_deg must be 0 or more, got {self.shift}, {self.rotation_deg}"
            )
        for name in ("unrotated", "flipped", "truncated", "occluded"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be a share in [0, 1], got {getattr(self, name)}")
        if not 0 <= self.color < 1:
            raise ValueError(f"color must be in [0, 1), got {self.color}")

    @property
    def mirrors_only(self) -> bool:
        """Whether pictures are at most mirrored."""
        return replace(self, flipped=0.0, unrotated=0.0) == replace(UNCHANGED, unrotated=0.0)


UNCHANGED = AugmentationConfig(
    scale=(1.0, 1.0), scale_std=None, rotation_deg=0.0, flipped=0.0, color=0.0
)


class Turns(NamedTuple):
    """How B pictures are turned, and which are mirrored after that: all that poses depend on.

    Attributes:
        angle: (B,) float64 radians, from x towards y.
        flip: (B,) bool.
    """

    angle: Tensor
    flip: Tensor

    @property
    def inverse(self) -> Turns:
        """What makes the people as they are of the augmented people.

        A turn with mirroring is its own inverse: M Roll(a) M Roll(a) = I.
        """
        return Turns(torch.where(self.flip, self.angle, -self.angle), self.flip)

    def to(self, device: torch.device) -> Turns:
        """The same on a device."""
        return Turns(self.angle.to(device), self.flip.to(device))


@dataclass(frozen=True, kw_only=True)
class Augmentations:
    """What is done to each of B pictures.

    Attributes:
        scale: (B,) factor of the crop's side.
        shift: (B, 2) offset of the crop's centre, as a share of its side.
        angle: (B,) radians, from x towards y.
        flip: (B,) bool, after turning.
        color: (B, 3) factors of red, green and blue.
        occluded: (B,) bool.
        blocks: (B, 4) centre x, y and half width and height of what is in front, shares of the
            crop.
        is_disc: (B,) bool, whether that is an ellipse rather than a box.
        paint: (B, 3) its RGB, 0 to 255.
    """

    scale: Floats
    shift: Floats
    angle: Floats
    flip: NDArray[np.bool_]
    color: Floats
    occluded: NDArray[np.bool_]
    blocks: Floats
    is_disc: NDArray[np.bool_]
    paint: NDArray[np.integer]

    @property
    def turns(self) -> Turns:
        """Angle and flip, as tensors."""
        return Turns(torch.from_numpy(self.angle), torch.from_numpy(self.flip))

    def select(self, which: NDArray[np.integer]) -> Augmentations:
        """Those of some pictures (B,)."""
        found = {field.name: getattr(self, field.name)[which] for field in fields(self)}
        return Augmentations(**found)


def concatenate_augmentations(parts: Iterable[Augmentations]) -> Augmentations:
    """One after another; of at least one."""
    parts = list(parts)
    names = [field.name for field in fields(Augmentations)]
    return Augmentations(**{n: np.concatenate([getattr(p, n) for p in parts]) for n in names})


def draw_augmentations(
    config: AugmentationConfig, size: int, rng: np.random.Generator
) -> Augmentations:
    """What to do to `size` pictures."""
    low, high = config.scale
    if config.scale_std is None:
        scale = rng.uniform(low, high, size)
    else:
        scale = np.clip(rng.normal(1, config.scale_std, size), low, high)
    shift = rng.uniform(-1, 1, (size, 2)) * config.shift
    std = math.radians(config.rotation_deg)
    angle = np.clip(rng.normal(0, 1, size) * std, -2 * std, 2 * std)
    angle[rng.random(size) < config.unrotated] = 0
    flip = rng.random(size) < config.flipped
    color = rng.uniform(1 - config.color, 1 + config.color, (size, 3))
    cut = rng.random(size) < config.truncated
    scale = np.where(cut, scale * rng.uniform(0.4, 0.8, size), scale)
    shift = np.where(cut[:, None], shift + rng.uniform(-0.3, 0.3, (size, 2)), shift)
    return Augmentations(
        scale=scale,
        shift=shift,
        angle=angle,
        flip=flip,
        color=color,
        occluded=rng.random(size) < config.occluded,
        blocks=np.concatenate(
            [rng.uniform(0.1, 0.9, (size, 2)), rng.uniform(0.05, 0.25, (size, 2))], axis=1
        ),
        is_disc=rng.random(size) < 0.5,
        paint=rng.integers(0, 256, (size, 3)),
    )


# --- Where things are -------------------------------------------------------------------------


def choose_crops(crop: Floats, augmentations: Augmentations) -> Floats:
    """The (B, 3) crops to cut, in the pictures as they are, for the (B, 3) crops of people."""
    side = crop[:, 2:]
    return np.concatenate(
        [crop[:, :2] + side * augmentations.shift, side * augmentations.scale[:, None]], axis=1
    )


def picture_matrices(crop: Floats, width: Floats, augmentations: Augmentations) -> Floats:
    """The maps from pictures to augmented pictures.

    Args:
        crop: (B, 3) from `choose_crops`.
        width: (B,) pixels.
        augmentations: of B pictures.

    Returns:
        (B, 2, 3), to be multiplied by (x, y, 1).
    """
    cos, sin = np.cos(augmentations.angle), np.sin(augmentations.angle)
    turn = np.stack([np.stack([cos, -sin], axis=-1), np.stack([sin, cos], axis=-1)], axis=-2)
    shift = crop[:, :2] - np.einsum("bij,bj->bi", turn, crop[:, :2])
    maps = np.concatenate([turn, shift[..., None]], axis=-1)
    mirrored = maps * np.array([-1.0, 1.0])[:, None]
    mirrored[:, 0, 2] += width - 1
    return np.where(augmentations.flip[:, None, None], mirrored, maps)


def move_points(points: Floats, matrices: Floats) -> Floats:
    """Points (B, P, 2) of pictures to where they are after the maps (B, 2, 3)."""
    return np.einsum("bij,bpj->bpi", matrices[:, :, :2], points) + matrices[:, None, :, 2]


def move_crops(crop: Floats, matrices: Floats) -> Floats:
    """Crops (B, 3) as the augmented pictures have them: sides stay as they are."""
    return np.concatenate([move_points(crop[:, None, :2], matrices)[:, 0], crop[:, 2:]], axis=1)


def move_cameras(intrinsics: Floats, matrices: Floats) -> Floats:
    """Intrinsics (B, 3, 3) of the augmented pictures: focal lengths stay as they are."""
    moved = intrinsics.copy()
    moved[:, :2, 2] = move_points(intrinsics[:, None, :2, 2], matrices)[:, 0]
    return moved


# --- Who is there -----------------------------------------------------------------------------


def roll_matrices(turns: Turns) -> Tensor:
    """(B, 3, 3) what turning the pictures does to points in the cameras' frames, float32."""
    angle = turns.angle
    rolls = torch.eye(3).to(angle).repeat(len(angle), 1, 1)
    rolls[:, 0, 0] = rolls[:, 1, 1] = angle.cos()
    rolls[:, 1, 0] = angle.sin()
    rolls[:, 0, 1] = -angle.sin()
    return rolls.float()


def turn_poses(pose_rotmat: Tensor, turns: Turns) -> Tensor:
    """Poses as the augmented pictures show them.

    With M = diag(-1, 1, 1), mirroring makes M R M of a rotation R, of the joint on the other side.

    Args:
        pose_rotmat: (B, 24, 3, 3), the root's in the camera frame.
        turns: of B pictures, on the same device.

    Returns:
        (B, 24, 3, 3).
    """
    turned = pose_rotmat.clone()
    turned[:, 0] = roll_matrices(turns) @ turned[:, 0]
    M = torch.diag(torch.tensor([-1.0, 1.0, 1.0])).to(pose_rotmat)
    return _where_flipped(turns, M @ turned[:, _FLIP_JOINTS] @ M, turned)


def turn_points(points: Tensor, turns: Turns) -> Tensor:
    """Points (B, N, 3), camera frame, as the augmented pictures show them."""
    turned = points @ roll_matrices(turns).mT
    return _where_flipped(turns, turned * torch.tensor([-1.0, 1.0, 1.0]).to(points), turned)


def turn_joints(joints: Tensor, turns: Turns) -> Tensor:
    """SMPL's joints (B, 24, 3), camera frame, likewise: the left ones become the right ones."""
    turned = turn_points(joints, turns)
    return _where_flipped(turns, turned[:, _FLIP_JOINTS], turned)


def swap_sides(values: Floats, sides: NDArray[np.integer], flip: NDArray[np.bool_]) -> Floats:
    """Values (B, P, ...) of keypoints, left and right exchanged where pictures are mirrored.

    Args:
        values: of keypoints.
        sides: (P,) index of each keypoint's mirror image, `KeypointSet.flip`.
        flip: (B,) which pictures.
    """
    return np.where(flip.reshape(-1, *[1] * (values.ndim - 1)), values[:, sides], values)


def _where_flipped(turns: Turns, flipped: Tensor, others: Tensor) -> Tensor:
    return torch.where(turns.flip.reshape(-1, *[1] * (others.dim() - 1)), flipped, others)


# --- What is seen -----------------------------------------------------------------------------


def mirror_labels(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Part labels (1 + joint, 0 background) of what was cut with `flip`: left becomes right."""
    return _FLIP_LABELS[labels]


def change_pixels(
    crop: NDArray[np.uint8], augmentations: Augmentations, i: int
) -> NDArray[np.uint8]:
    """A crop (S, S, 3) in other colours, and behind a block where picture `i` is to have one."""
    steps = np.arange(256)[:, None] * augmentations.color[i]
    table = np.clip(np.rint(steps), 0, 255).astype(np.uint8)
    cv2 = import_cv2()
    changed = cv2.LUT(crop, table[None])
    if augmentations.occluded[i]:
        paint = [int(value) for value in augmentations.paint[i]]
        _draw_block(changed, augmentations, i, paint)
    return changed


def hide_labels(
    labels: NDArray[np.uint8], augmentations: Augmentations, i: int
) -> NDArray[np.uint8]:
    """Part labels (h, w) of a crop, 0 where picture `i` has a block."""
    hidden = labels.copy()
    if augmentations.occluded[i]:
        _draw_block(hidden, augmentations, i, 0)
    return hidden


def _draw_block(
    picture: NDArray[np.uint8], augmentations: Augmentations, i: int, paint: list[int] | int
) -> None:
    """Draw the block of picture `i` on `picture`, in place."""
    size = np.array(picture.shape[1::-1])
    centre, half = augmentations.blocks[i, :2] * size - 0.5, augmentations.blocks[i, 2:] * size
    cv2 = import_cv2()
    if augmentations.is_disc[i]:
        middle, axes = np.rint(centre).astype(int), np.maximum(1, np.rint(half)).astype(int)
        cv2.ellipse(picture, middle.tolist(), axes.tolist(), 0, 0, 360, paint, cv2.FILLED)
        return
    low, high = np.rint(centre - half).astype(int), np.rint(centre + half).astype(int)
    cv2.rectangle(picture, low.tolist(), high.tolist(), paint, cv2.FILLED)
