"""Names, order, symmetry and edges of joints and keypoints: the only place with indices.

A keypoint set lists *names*; each name stands for one *body point* (`KeypointSet.points`), and
`fitting.keypoints` says where a body point lies on a given body. Two sets that share a body point
can be converted into each other without a table of index pairs.

Body points are of three kinds:

* the 24 joints of SMPL's tree, under SMPL's names (`left_hip`, `spine1`, ...);
* points of the skin (`nose`, `left_heel`, `head_top`, ...);
* `coco_*`, the limb centres as the annotators of 2D data sets mark them, which differ from SMPL's
  joints by 8 to 30 mm (docs/body.md).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

SMPL_JOINTS = (
    "pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle",
    "right_ankle", "spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar",
    "head", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist",
    "right_wrist", "left_hand", "right_hand",
)  # fmt: skip

SMPL_PARENTS = (
    -1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21,
)  # fmt: skip

# SMPL's joint called "neck" is a vertebra inside the body; the annotators' neck is another point.
# In body points the vertebra is `neck_joint`, so that `neck` can keep the meaning of LSP and MPII.
JOINT_POINTS = tuple("neck_joint" if name == "neck" else name for name in SMPL_JOINTS)

# The six visible parts of LSP's part masks (Ladicky et al., CVPR 2013, as used by SPIN).
LSP_PARTS = ("head", "torso", "left_arm", "right_arm", "left_leg", "right_leg")
_LSP_PART_OF_JOINT = {
    "head": ("neck", "head"),
    "torso": ("pelvis", "spine1", "spine2", "spine3", "left_collar", "right_collar"),
    "left_arm": ("left_shoulder", "left_elbow", "left_wrist", "left_hand"),
    "right_arm": ("right_shoulder", "right_elbow", "right_wrist", "right_hand"),
    "left_leg": ("left_hip", "left_knee", "left_ankle", "left_foot"),
    "right_leg": ("right_hip", "right_knee", "right_ankle", "right_foot"),
}


def joint_index(name: str) -> int:
    """Index in SMPL's tree of the joint called `name`."""
    return SMPL_JOINTS.index(name)


def lsp_part_of_joint() -> np.ndarray:
    """(24,) index into `LSP_PARTS` of the part each SMPL joint moves."""
    return np.array(
        [
            next(i for i, part in enumerate(LSP_PARTS) if joint in _LSP_PART_OF_JOINT[part])
            for joint in SMPL_JOINTS
        ]
    )


def mirrored_name(name: str) -> str:
    """The name with left and right exchanged, wherever the word stands in it."""
    words = name.split("_")
    swap = {"left": "right", "right": "left"}
    return "_".join(swap.get(word, word) for word in words)


def flip_permutation(names: Iterable[str]) -> np.ndarray:
    """(P,) index of each name's mirror image: `mirrored = keypoints[flip]` after x -> -x."""
    names = list(names)
    return np.array([names.index(mirrored_name(name)) for name in names])


@dataclass(frozen=True, kw_only=True)
class KeypointSet:
    """A named, ordered set of P keypoints.

    Attributes:
        name: as given to `--keypoint-set`.
        names: P unique keypoint names, in the order of the data format.
        points: P body points, one for each keypoint (see the module's text).
        limbs: pairs of names to draw as lines.
        unreliable: names of keypoints that detectors place away from the joint: SPIN leaves these
            hips and necks out of its second stage (`ign_joints` in its smplify.py).
    """

    name: str
    names: tuple[str, ...]
    points: tuple[str, ...]
    limbs: tuple[tuple[str, str], ...]
    unreliable: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def flip(self) -> np.ndarray:
        """(P,) permutation that exchanges left and right."""
        return flip_permutation(self.names)

    @cached_property
    def edges(self) -> np.ndarray:
        """(E, 2) pairs of keypoint indices to draw as lines."""
        pairs = [(self.names.index(a), self.names.index(b)) for a, b in self.limbs]
        return np.array(pairs).reshape(-1, 2)

    def index(self, name: str) -> int:
        """Position of the keypoint called `name`."""
        return self.names.index(name)

    def indices(self, names: Iterable[str]) -> list[int]:
        """Positions of those of `names` that the set has."""
        return [self.names.index(name) for name in names if name in self.names]


_ARMS_AND_LEGS = tuple(
    (f"{side}_{a}", f"{side}_{b}")
    for side in ("left", "right")
    for a, b in (("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle"))
)
_LIMBS = (
    ("left_shoulder", "right_shoulder"),
    ("left_hip", "right_hip"),
    ("left_shoulder", "left_hip"),
    ("right_shoulder", "right_hip"),
    *_ARMS_AND_LEGS,
)
_FACE = (
    ("nose", "left_eye"), ("nose", "right_eye"), ("left_eye", "left_ear"),
    ("right_eye", "right_ear"),
)  # fmt: skip
_FEET = tuple(
    (f"{side}_ankle", f"{side}_{toe}")
    for side in ("left", "right")
    for toe in ("big_toe", "small_toe", "heel")
)
_HIPS = ("left_hip", "right_hip")
_COCO_LIMBS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")


def _coco_point(name: str) -> str:
    """Limb joints of annotated pictures lie at the `coco_*` points; other names are body points."""
    side, _, limb = name.partition("_")
    return f"coco_{name}" if side in ("left", "right") and limb in _COCO_LIMBS else name


def _annotated(
    name: str,
    names: tuple[str, ...],
    limbs: tuple[tuple[str, str], ...],
    *,
    points: dict[str, str] | None = None,
    unreliable: tuple[str, ...] = (),
) -> KeypointSet:
    """A set whose limb points are the annotators' ones, but for the exceptions in `points`."""
    exceptions = points or {}
    return KeypointSet(
        name=name,
        names=names,
        points=tuple(exceptions.get(n, _coco_point(n)) for n in names),
        limbs=limbs,
        unreliable=unreliable,
    )


_COCO17 = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder",
    "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee",
    "right_knee", "left_ankle", "right_ankle",
)  # fmt: skip
_TOES = (
    "left_big_toe", "left_small_toe", "left_heel", "right_big_toe", "right_small_toe", "right_heel",
)  # fmt: skip
_BODY25 = (
    "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow",
    "left_wrist", "mid_hip", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee",
    "left_ankle", "right_eye", "left_eye", "right_ear", "left_ear", *_TOES,
)  # fmt: skip
# OpenPose's experimental model: COCO's 17, MPII's upper neck and head top, then the feet.
_BODY25B = (*_COCO17, "neck", "head_top", *_TOES)
_BODY25_LIMBS = (
    *_ARMS_AND_LEGS, ("neck", "left_shoulder"), ("neck", "right_shoulder"), ("neck", "mid_hip"),
    ("neck", "nose"), ("mid_hip", "left_hip"), ("mid_hip", "right_hip"), *_FACE, *_FEET,
)  # fmt: skip
_BLAZEPOSE33 = (
    "nose", "left_eye_inner", "left_eye", "left_eye_outer", "right_eye_inner", "right_eye",
    "right_eye_outer", "left_ear", "right_ear", "left_mouth", "right_mouth", "left_shoulder",
    "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_pinky",
    "right_pinky", "left_index", "right_index", "left_thumb", "right_thumb", "left_hip",
    "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle", "left_heel", "right_heel",
    "left_foot_index", "right_foot_index",
)  # fmt: skip
_BLAZEPOSE_POINTS = {
    f"{side}_{name}": f"{side}_{point}"
    for side in ("left", "right")
    for name, point in (
        ("pinky", "pinky_knuckle"), ("index", "index_knuckle"), ("thumb", "thumb_knuckle"),
        ("foot_index", "big_toe"),
    )
}  # fmt: skip
_LSP14 = (
    "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "right_wrist",
    "right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist", "neck",
    "head_top",
)  # fmt: skip
_MPII16 = (*_LSP14[:6], "pelvis", "thorax", "neck", "head_top", *_LSP14[6:12])
_H36M17 = (
    "pelvis", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle",
    "spine", "neck", "nose", "head", "left_shoulder", "left_elbow", "left_wrist", "right_shoulder",
    "right_elbow", "right_wrist",
)  # fmt: skip
_SPIN24 = (
    *_LSP14, "pelvis", "thorax", "spine", "jaw", "head", "nose", "left_eye", "right_eye",
    "left_ear", "right_ear",
)  # fmt: skip

# Hips of LSP and MPII are marked at the joint's centre, not on the iliac crest as in COCO.
_JOINT_HIPS = {"left_hip": "left_hip", "right_hip": "right_hip"}
_MOCAP_POINTS = {"spine": "h36m_spine", "head": "h36m_head", "jaw": "jaw", "nose": "nose"}


def _spin49() -> KeypointSet:
    """SPIN's 49 joints: OpenPose's BODY_25, then the 24 of its annotated data sets."""
    body25 = KEYPOINT_SETS["body25"]
    annotated = _annotated("", _SPIN24, (), points={**_JOINT_HIPS, **_MOCAP_POINTS})
    return KeypointSet(
        name="spin49",
        names=(*(f"op_{name}" for name in body25.names), *annotated.names),
        points=(*body25.points, *annotated.points),
        limbs=(*((f"op_{a}", f"op_{b}") for a, b in body25.limbs), *_LIMBS, ("neck", "head_top")),
        unreliable=("op_neck", "op_left_hip", "op_right_hip", *_HIPS),
    )


KEYPOINT_SETS: dict[str, KeypointSet] = {
    s.name: s
    for s in (
        _annotated("coco17", _COCO17, (*_LIMBS, *_FACE), unreliable=_HIPS),
        _annotated(
            "coco_wholebody", (*_COCO17, *_TOES), (*_LIMBS, *_FACE, *_FEET), unreliable=_HIPS
        ),
        _annotated(
            "body25",
            _BODY25,
            _BODY25_LIMBS,
            points={"neck": "mid_shoulder"},
            unreliable=("neck", *_HIPS),
        ),
        _annotated(
            "blazepose33",
            _BLAZEPOSE33,
            (
                *_LIMBS, *_FACE, ("left_mouth", "right_mouth"),
                *((f"{side}_{a}", f"{side}_{b}") for side in ("left", "right") for a, b in (
                    ("wrist", "pinky"), ("wrist", "index"), ("wrist", "thumb"), ("ankle", "heel"),
                    ("heel", "foot_index"), ("ankle", "foot_index"),
                )),
            ),
            points=_BLAZEPOSE_POINTS,
            unreliable=_HIPS,
        ),
        _annotated(
            "lsp14",
            _LSP14,
            (*_LIMBS, ("neck", "head_top")),
            points=_JOINT_HIPS,
            unreliable=_HIPS,
        ),
        _annotated(
            "mpii16",
            _MPII16,
            (*_LIMBS, ("pelvis", "thorax"), ("thorax", "neck"), ("neck", "head_top")),
            points=_JOINT_HIPS,
            unreliable=_HIPS,
        ),
        KeypointSet(  # motion-capture joint centres, so SMPL's own joints serve
            name="h36m17",
            names=_H36M17,
            points=tuple({**_MOCAP_POINTS, "neck": "thorax"}.get(n, n) for n in _H36M17),
            limbs=(
                ("pelvis", "left_hip"), ("pelvis", "right_hip"), ("pelvis", "spine"),
                ("spine", "neck"), ("neck", "nose"), ("nose", "head"), ("neck", "left_shoulder"),
                ("neck", "right_shoulder"), *_ARMS_AND_LEGS,
            ),
        ),
        KeypointSet(
            name="smpl24",
            names=SMPL_JOINTS,
            points=JOINT_POINTS,
            limbs=tuple(
                (SMPL_JOINTS[p], SMPL_JOINTS[j]) for j, p in enumerate(SMPL_PARENTS) if p >= 0
            ),
        ),
    )
}  # fmt: skip
KEYPOINT_SETS["spin49"] = _spin49()
KEYPOINT_SETS["body25b"] = _annotated(
    "body25b", _BODY25B, (*_LIMBS, *_FACE, *_FEET, ("neck", "head_top")), unreliable=_HIPS
)

# Every body point that some set has, once: what all sets have in common.
_ALL_POINTS = tuple(dict.fromkeys(point for s in KEYPOINT_SETS.values() for point in s.points))
BODY_POINTS = KeypointSet(name="body points", names=_ALL_POINTS, points=_ALL_POINTS, limbs=())


_MOST_REPEATED = 100  # characters of an unknown name in a message


def keypoint_set(name: str) -> KeypointSet:
    """The keypoint set called `name`.

    Raises:
        ValueError: no set has this name; the message offers the nearest.
    """
    if name in KEYPOINT_SETS:
        return KEYPOINT_SETS[name]
    nearest = difflib.get_close_matches(name, KEYPOINT_SETS, n=1, cutoff=0.3)
    hint = f"did you mean {nearest[0]}?" if nearest else f"use one of {', '.join(KEYPOINT_SETS)}"
    raise ValueError(f"unknown keypoint set {name[:_MOST_REPEATED]!r}; {hint}")


# A point that is the middle of two others; `convert_keypoints` and the bodies use it alike.
MIDPOINTS = {
    "mid_hip": ("coco_left_hip", "coco_right_hip"),
    "mid_shoulder": ("coco_left_shoulder", "coco_right_shoulder"),
}


def convert_keypoints(
    keypoints_2d: np.ndarray, conf: np.ndarray, source: KeypointSet, target: KeypointSet
) -> tuple[np.ndarray, np.ndarray]:
    """Express keypoints of one set in another.

    A target keypoint takes the value of the source keypoint at the same body point, or of the
    middle of two (hips, shoulders) with the lower of their confidences, or confidence 0.

    Args:
        keypoints_2d: (..., P, 2) pixels.
        conf: (..., P) in [0, 1].
        source: the set that keypoints_2d is in.
        target: the set to convert to, of Q keypoints.

    Returns:
        keypoints_2d (..., Q, 2) and conf (..., Q), new arrays.
    """
    pairs = np.zeros((len(target), 2), dtype=int)
    found = np.zeros(len(target), dtype=bool)
    for i, point in enumerate(target.points):
        ends = (point, point) if point in source.points else MIDPOINTS.get(point, ())
        if ends and all(end in source.points for end in ends):
            pairs[i] = [source.points.index(end) for end in ends]
            found[i] = True
    converted = keypoints_2d[..., pairs, :].mean(axis=-2)
    converted_conf = conf[..., pairs].min(axis=-1) * found
    converted[..., ~found, :] = 0
    return converted, converted_conf
