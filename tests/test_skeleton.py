"""Names, flips and conversions of keypoint sets."""

from __future__ import annotations

import numpy as np
import pytest

from fitting.skeleton import (
    KEYPOINT_SETS,
    LSP_PARTS,
    SMPL_JOINTS,
    SMPL_PARENTS,
    convert_keypoints,
    keypoint_set,
    lsp_part_of_joint,
    mirrored_name,
)

COUNTS = {
    "coco17": 17, "coco_wholebody": 23, "body25": 25, "blazepose33": 33, "lsp14": 14, "mpii16": 16,
    "h36m17": 17, "smpl24": 24, "spin49": 49, "body25b": 25,
}  # fmt: skip

# Anchors from the formats' own documentation: (set, index, name).
ANCHORS = [
    ("coco17", 0, "nose"), ("coco17", 16, "right_ankle"), ("body25", 8, "mid_hip"),
    ("body25", 4, "right_wrist"), ("body25", 19, "left_big_toe"), ("blazepose33", 23, "left_hip"),
    ("blazepose33", 32, "right_foot_index"), ("lsp14", 0, "right_ankle"), ("lsp14", 13, "head_top"),
    ("mpii16", 10, "right_wrist"), ("mpii16", 6, "pelvis"), ("h36m17", 1, "right_hip"),
    ("h36m17", 16, "right_wrist"), ("smpl24", 15, "head"), ("spin49", 25, "right_ankle"),
    ("body25b", 8, "right_elbow"), ("body25b", 18, "head_top"), ("body25b", 24, "right_heel"),
    ("spin49", 39, "pelvis"), ("spin49", 43, "head"), ("spin49", 44, "nose"),
]  # fmt: skip


def test_sets_have_their_published_size():
    assert {name: len(s) for name, s in KEYPOINT_SETS.items()} == COUNTS
    for s in KEYPOINT_SETS.values():
        assert len(set(s.names)) == len(s.names) == len(s.points)


@pytest.mark.parametrize(("name", "index", "keypoint"), ANCHORS)
def test_order_is_the_published_one(name, index, keypoint):
    assert keypoint_set(name).names[index] == keypoint


@pytest.mark.parametrize("name", COUNTS)
def test_flip_swaps_sides_and_undoes_itself(name):
    s = keypoint_set(name)
    np.testing.assert_array_equal(s.flip[s.flip], np.arange(len(s)))
    for i, j in enumerate(s.flip):
        assert s.names[j] == mirrored_name(s.names[i])
        assert s.points[j] == mirrored_name(s.points[i])


@pytest.mark.parametrize("name", COUNTS)
def test_edges_are_symmetric_and_reach_every_limb(name):
    s = keypoint_set(name)
    edges = {frozenset(e) for e in s.edges.tolist()}
    assert {frozenset(s.flip[list(e)].tolist()) for e in edges} == edges
    for limb in ("elbow", "knee"):
        i = s.index(f"op_left_{limb}" if name == "spin49" else f"left_{limb}")
        assert sum(i in e for e in edges) == 2


def test_tree_is_smpls():
    assert SMPL_PARENTS[SMPL_JOINTS.index("left_wrist")] == SMPL_JOINTS.index("left_elbow")
    assert all(parent < joint for joint, parent in enumerate(SMPL_PARENTS))
    parts = lsp_part_of_joint()
    assert LSP_PARTS[parts[SMPL_JOINTS.index("right_foot")]] == "right_leg"


@pytest.mark.parametrize("name", COUNTS)
def test_conversion_to_itself_changes_nothing(name, rng):
    s = keypoint_set(name)
    xy, conf = rng.normal(size=(4, len(s), 2)), rng.random((4, len(s)))
    got, got_conf = convert_keypoints(xy, conf, s, s)
    # spin49 names a few body points twice; the first one stands for both
    first = [s.points.index(p) for p in s.points]
    np.testing.assert_array_equal(got, xy[:, first])
    np.testing.assert_array_equal(got_conf, conf[:, first])


def test_conversion_takes_midpoints_and_marks_what_is_missing(rng):
    coco, body25 = keypoint_set("coco17"), keypoint_set("body25")
    xy, conf = rng.normal(size=(17, 2)), rng.uniform(0.1, 1, 17)
    got, got_conf = convert_keypoints(xy, conf, coco, body25)
    hips = coco.indices(("left_hip", "right_hip"))
    np.testing.assert_allclose(got[body25.index("mid_hip")], xy[hips].mean(0))
    assert got_conf[body25.index("mid_hip")] == conf[hips].min()
    np.testing.assert_array_equal(got[body25.index("left_knee")], xy[coco.index("left_knee")])
    assert got_conf[body25.index("left_heel")] == 0
    back, back_conf = convert_keypoints(got, got_conf, body25, coco)
    np.testing.assert_array_equal(back, xy)
    np.testing.assert_array_equal(back_conf, conf)


def test_an_unknown_set_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean body25"):
        keypoint_set("body_25")
