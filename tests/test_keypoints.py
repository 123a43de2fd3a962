"""Keypoints on the body against their anatomy and against SMPL's published vertices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bodies import synthetic_arrays, write_body

from fitting.body import load_body
from fitting.keypoints import map_keypoints
from fitting.skeleton import KEYPOINT_SETS, keypoint_set


@pytest.fixture(scope="module")
def body():
    return load_body(dtype=torch.float64)


def rest(body):
    zeros = torch.zeros(1, 69, dtype=torch.float64)
    return body(zeros[:, :3], zeros, zeros[:, :10])


@pytest.mark.parametrize("name", KEYPOINT_SETS)
def test_every_keypoint_is_defined_on_the_bundled_body(name, body):
    keypoint_map = map_keypoints(body, keypoint_set(name))
    assert keypoint_map.defined.all()
    total = keypoint_map.joint_weights.sum(1) + keypoint_map.vertex_weights.sum(1)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", KEYPOINT_SETS)
def test_rest_pose_is_mirror_symmetric(name, body):
    s = keypoint_set(name)
    points = map_keypoints(body, s)(rest(body))[0]
    mirrored = points[s.flip] * torch.tensor([-1.0, 1, 1])
    assert (points - mirrored).abs().max() < 1e-6


@pytest.mark.parametrize("name", KEYPOINT_SETS)
def test_rest_pose_has_the_order_of_a_standing_person(name, body):
    s = keypoint_set(name)
    prefix = "op_" if name == "spin49" else ""
    y = dict(zip(s.names, map_keypoints(body, s)(rest(body))[0, :, 1].tolist(), strict=True))
    x = dict(zip(s.names, map_keypoints(body, s)(rest(body))[0, :, 0].tolist(), strict=True))
    heights = [y[prefix + n] for n in ("left_shoulder", "left_hip", "left_knee", "left_ankle")]
    assert heights == sorted(heights, reverse=True)
    reach = [x[prefix + n] for n in ("left_hip", "left_shoulder", "left_elbow", "left_wrist")]
    assert reach == sorted(reach)


def test_annotated_joints_stay_near_smpls(body):
    """COCO's limb points lie on the limb, within the distances docs/body.md states."""
    coco = map_keypoints(body, keypoint_set("coco17"))(rest(body))[0]
    joints = dict(zip(keypoint_set("smpl24").names, rest(body).joints[0], strict=True))
    for name, point in zip(keypoint_set("coco17").names, coco, strict=True):
        if name in joints:
            assert (point - joints[name]).norm() < 0.05, name


def test_smpl_topology_uses_smpls_own_vertices(tmp_path, rng):
    arrays = synthetic_arrays()
    V = 6890
    arrays.update(
        v_template=rng.normal(0, 0.3, (V, 3)),
        shapedirs=np.zeros((V, 3, 10)),
        posedirs=np.zeros((V, 3, 207)),
        J_regressor=np.full((24, V), 1 / V),
        weights=np.eye(24)[rng.integers(0, 24, V)],
    )
    body = load_body(write_body(tmp_path / "smpl.npz", arrays), dtype=torch.float64)
    s = keypoint_set("body25")
    points = map_keypoints(body, s)(rest(body))[0]
    vertices = rest(body).vertices[0]
    for name, vertex in (("nose", 332), ("left_ear", 583), ("right_heel", 6787)):
        torch.testing.assert_close(points[s.index(name)], vertices[vertex])
    blazepose = map_keypoints(body, keypoint_set("blazepose33"))
    names = np.array(blazepose.keypoint_set.names)
    assert set(names[~blazepose.defined.numpy()]) == {
        f"{side}_{name}"
        for side in ("left", "right")
        for name in ("eye_inner", "eye_outer", "mouth", "pinky", "index", "thumb")
    }


def test_an_unknown_topology_still_has_its_joints(tmp_path):
    body = load_body(write_body(tmp_path / "body.npz", synthetic_arrays()))
    keypoint_map = map_keypoints(body, keypoint_set("coco17"))
    assert keypoint_map.defined.tolist() == [False] * 5 + [True] * 12
