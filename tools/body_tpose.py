"""Bring MakeHuman's bodies from their rest pose into SMPL's T-pose, with the full rig.

Bones are turned until limbs point along fixed directions, so bodies of every shape end in the
same pose and what is left between them is shape. Skinning runs on all 163 bones, which bend and
twist the flesh more gently than 24 could.
"""

from __future__ import annotations

import numpy as np
from body_rig import SIDES, FloatArray, Phenotypes, Rig, rest_shapes
from scipy.spatial.transform import Rotation

from fitting.skeleton import joint_index

# Directions in the T-pose (x left, y up, z forward), x for the left side. Standing legs lean
# outwards a little from the hip and back a little below the knee, as in SMPL's template.
THIGH = np.array([0.075, -1.0, 0.0])
SHIN = np.array([0.0, -1.0, -0.06])
# The girdle rises with the arm, by some 25 degrees in all for a T-pose. SMPL leaves most of that to
# the collar joints, which fits and retargeted motion hardly turn: with the full lift, lowered arms
# would hang from shrugged shoulders, so about half of it is built in.
CLAVICLE_LIFT_DEG = 3.0
SHOULDER_LIFT_DEG = 12.0
THIGH_ROOT_SHARE = 0.7  # the upper half of the thigh follows the hip this far: softer groin
WRIST_TWIST_SHARE = 0.5  # of the turn between elbow and hand, taken by the lower forearm


def tposed_shapes(rig: Rig, phenotypes: Phenotypes) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Bodies in SMPL's T-pose, pelvis joint at the origin.

    Args:
        rig: from :func:`body_rig.load_rig`.
        phenotypes: N values for each phenotype.

    Returns:
        vertices: (N, V, 3) metres.
        heads: (N, B, 3) metres, bone heads.
        joints: (N, 24, 3) metres.
    """
    vertices, heads = rest_shapes(rig, phenotypes)
    transforms = bone_transforms(rig, heads, tpose_rotations(rig, heads))
    posed = np.stack([skin(rig, v, t) for v, t in zip(vertices, transforms, strict=True)])
    posed_heads = _apply(transforms, heads)
    joints = rig.joints(posed_heads)
    origin = joints[:, :1]
    return posed - origin, posed_heads - origin, joints - origin


def tpose_rotations(rig: Rig, heads: FloatArray) -> FloatArray:
    """(N, B, 3, 3) rotations of the bones, in the world, from rest pose to T-pose."""
    joints = rig.joints(heads)
    rotations = np.tile(np.eye(3), (len(heads), len(rig.bones), 1, 1))
    chosen: dict[str, FloatArray] = {}
    for side in SIDES:
        chosen |= _leg_rotations(joints, side) | _arm_rotations(rig, heads, joints, side)
    for b, (bone, parent) in enumerate(zip(rig.bones, rig.parents, strict=True)):
        if bone in chosen:
            rotations[:, b] = chosen[bone]
        elif parent >= 0:
            rotations[:, b] = rotations[:, parent]
    return rotations


def bone_transforms(rig: Rig, heads: FloatArray, rotations: FloatArray) -> FloatArray:
    """(N, B, 4, 4) transforms of bones turned by world rotations and hung on their parents."""
    transforms = np.zeros((*rotations.shape[:2], 4, 4))
    transforms[..., 3, 3] = 1
    for b, parent in enumerate(rig.parents):
        head = heads[:, b : b + 1]
        place = _apply(transforms[:, parent : parent + 1], head) if parent >= 0 else head
        transforms[:, b, :3, :3] = rotations[:, b]
        transforms[:, b, :3, 3] = (place - _rotate(rotations[:, b : b + 1], head))[:, 0]
    return transforms


def skin(rig: Rig, vertices: FloatArray, transforms: FloatArray) -> FloatArray:
    """Linear blend skinning of one body (V, 3) with its bones' transforms (B, 4, 4)."""
    blended = (rig.weights @ transforms.reshape(-1, 16)).reshape(-1, 4, 4)
    return _rotate(blended[:, :3, :3], vertices) + blended[:, :3, 3]


def _leg_rotations(joints: FloatArray, side: str) -> dict[str, FloatArray]:
    hip, knee, ankle = (joints[:, joint_index(f"{side}_{n}")] for n in ("hip", "knee", "ankle"))
    outwards = np.array([1.0 if side == "left" else -1.0, 1, 1])
    thigh = _rotation_between(knee - hip, THIGH * outwards)
    shin = _rotation_between(ankle - knee, SHIN * outwards)
    upright = np.tile(np.eye(3), (len(joints), 1, 1))
    bones = {
        "upperleg01": _fraction(thigh, THIGH_ROOT_SHARE),
        "upperleg02": thigh,
        "lowerleg01": shin,
        "foot": upright,
    }
    return {f"{bone}.{SIDES[side]}": rotation for bone, rotation in bones.items()}


def _arm_rotations(
    rig: Rig, heads: FloatArray, joints: FloatArray, side: str
) -> dict[str, FloatArray]:
    """Arms straight out, elbows flexing forwards, palms down."""
    letter, sign = SIDES[side], 1.0 if side == "left" else -1.0
    shoulder, elbow, wrist = (
        joints[:, joint_index(f"{side}_{n}")] for n in ("shoulder", "elbow", "wrist")
    )
    upper, fore = elbow - shoulder, wrist - elbow
    hinge = np.cross(upper, fore)  # the axis of flexion: rest-pose elbows are slightly bent
    index, middle, pinky = (heads[:, rig.bone(f"finger{k}-1.{letter}")] for k in (2, 3, 5))
    out = np.array([sign, 0, 0])
    arm_goal = _frame(out, np.array([0, -sign, 0]))
    fore_turn = arm_goal @ _frame(fore, hinge).transpose(0, 2, 1)
    upper_turn = arm_goal @ _frame(upper, hinge).transpose(0, 2, 1)
    hand_goal = _frame(out, np.array([0, 0, 1.0]))
    hand_turn = hand_goal @ _frame(middle - wrist, index - pinky).transpose(0, 2, 1)
    wrist_turn = hand_turn @ fore_turn.transpose(0, 2, 1)
    lifts = Rotation.from_euler(
        "z", [[sign * CLAVICLE_LIFT_DEG], [sign * SHOULDER_LIFT_DEG]], degrees=True
    ).as_matrix()
    bones = {
        "clavicle": np.tile(lifts[0], (len(heads), 1, 1)),
        "shoulder01": np.tile(lifts[1], (len(heads), 1, 1)),
        "upperarm01": upper_turn,
        "lowerarm01": fore_turn,
        "lowerarm02": _fraction(wrist_turn, WRIST_TWIST_SHARE) @ fore_turn,
        "wrist": hand_turn,
    }
    return {f"{bone}.{letter}": rotation for bone, rotation in bones.items()}


def _rotate(matrices: FloatArray, vectors: FloatArray) -> FloatArray:
    return np.einsum("...ij,...j->...i", matrices, vectors)


def _apply(transforms: FloatArray, points: FloatArray) -> FloatArray:
    return _rotate(transforms[..., :3, :3], points) + transforms[..., :3, 3]


def _unit(vectors: FloatArray) -> FloatArray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _frame(along: FloatArray, towards: FloatArray) -> FloatArray:
    """(..., 3, 3) right-handed frame: first column along, second as near ``towards`` as can be."""
    first = _unit(along)
    second = _unit(towards - (towards * first).sum(axis=-1, keepdims=True) * first)
    return np.stack([first, second, np.cross(first, second)], axis=-1)


def _rotation_between(start: FloatArray, goal: FloatArray) -> FloatArray:
    """(N, 3, 3) smallest rotations that turn directions (N, 3) to one direction (3,)."""
    a, b = _unit(start), np.broadcast_to(_unit(goal), start.shape)
    axis = _unit(np.cross(a, b))
    angle = np.arccos(np.clip((a * b).sum(axis=-1, keepdims=True), -1, 1))
    return Rotation.from_rotvec(axis * angle).as_matrix()


def _fraction(rotations: FloatArray, share: float) -> FloatArray:
    return Rotation.from_rotvec(Rotation.from_matrix(rotations).as_rotvec() * share).as_matrix()
