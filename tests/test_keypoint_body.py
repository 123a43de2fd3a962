"""The exact keypoint body against the full mesh and against automatic differentiation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bodies import synthetic_arrays, write_body
from scipy.spatial.transform import Rotation

from fitting.body import load_body
from fitting.keypoint_body import SIZES, KeypointBody, right_jacobian
from fitting.keypoints import map_keypoints
from fitting.skeleton import KEYPOINT_SETS, keypoint_set

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}  # metres


@pytest.fixture(scope="module")
def bodies(tmp_path_factory):
    path = write_body(tmp_path_factory.mktemp("bodies") / "body.npz", synthetic_arrays())
    return {
        "bundled": load_body(dtype=torch.float64),
        "random": load_body(path, dtype=torch.float64),
    }


def random_params(rng, batch, angle=0.8):
    sizes = ((angle, 3), (angle, 69), (1.0, 10), (2.0, 3))
    return tuple(torch.from_numpy(rng.normal(0, scale, (batch, size))) for scale, size in sizes)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", KEYPOINT_SETS)
@pytest.mark.parametrize("which", ["bundled", "random"])
def test_equals_the_full_mesh(which, name, dtype, bodies, rng):
    body = bodies[which]
    keypoint_map = map_keypoints(body, keypoint_set(name))
    params = random_params(rng, 4)
    expected = keypoint_map(body(*params))
    fast = KeypointBody(body, keypoint_map).to(dtype)
    got = fast(*(p.to(dtype) for p in params)).double()
    defined = keypoint_map.defined
    assert (got - expected)[:, defined].abs().max() < TOLERANCE[dtype]
    assert (got[:, ~defined] == 0).all()


@pytest.mark.parametrize("name", ["coco17", "blazepose33", "spin49", "smpl24"])
@pytest.mark.parametrize("which", ["bundled", "random"])
@pytest.mark.parametrize("angle", [0.02, 0.8, 2.0])
def test_jacobian_equals_automatic_differentiation(which, name, angle, bodies, rng):
    fast = KeypointBody(bodies[which], map_keypoints(bodies[which], keypoint_set(name)))
    params = random_params(rng, 1, angle)
    got = fast.jacobian(*params)[0]
    by_auto = torch.func.jacfwd(lambda *p: fast(*p)[0], argnums=(0, 1, 2, 3))(*params)
    expected = torch.cat([part[:, :, 0] for part in by_auto], dim=-1)
    assert (got - expected).abs().max() < 1e-8


@pytest.mark.parametrize("correctives", [False, True])
@pytest.mark.parametrize("name", ["smpl24", "coco17", "spin49"])
def test_measured_moves_are_the_jacobian_with_the_correctives_held(name, correctives, bodies, rng):
    fast = KeypointBody(bodies["bundled"], map_keypoints(bodies["bundled"], keypoint_set(name)))
    if not correctives:
        fast.pose_offsets.zero_()
    x = torch.cat(random_params(rng, 3), dim=1)
    directions = torch.from_numpy(rng.normal(size=(3, len(fast.keypoint_set), 2, 3)))
    directions = directions * fast.defined[:, None, None]
    got = fast.measured_moves(fast.pose(x), directions)
    expected = (directions @ fast.jacobian(*x.split(SIZES, dim=1))).flatten(1, 2)
    apart = (got - expected).square().mean().sqrt() / expected.square().mean().sqrt()
    assert apart < (0.01 if correctives else 1e-7)


@pytest.mark.parametrize("angle", [0.0, 1e-6, 1e-3])
def test_jacobian_near_rest_equals_finite_differences(angle, bodies, rng):
    """Where automatic differentiation of roma's series is good to 1e-7 only, or fails."""
    body = bodies["bundled"]
    fast = KeypointBody(body, map_keypoints(body, keypoint_set("coco17")))
    pose = torch.from_numpy(rng.normal(0, 1, (1, 72)) * angle)
    betas = torch.zeros(1, 10, dtype=torch.float64)
    got = fast.jacobian(pose[:, :3], pose[:, 3:], betas, betas[:, :3])[0]
    for column in (0, 4, 20, 50, 57, 71):
        step = torch.zeros(1, 72, dtype=torch.float64)
        step[0, column] = 1e-5
        ahead, back = (fast(p[:, :3], p[:, 3:], betas)[0] for p in (pose + step, pose - step))
        assert (got[..., column] - (ahead - back) / 2e-5).abs().max() < 1e-8


def test_right_jacobian_is_that_of_scipys_rotations(rng):
    for angle in (0.0, 1e-5, 0.09, 0.11, 0.5, 3.0):
        v = rng.normal(size=3)
        v *= angle / np.linalg.norm(v)
        J = right_jacobian(torch.from_numpy(v)[None])[0].numpy()
        for d in 1e-5 * np.eye(3):
            ahead, back = (
                (Rotation.from_rotvec(v).inv() * Rotation.from_rotvec(v + s)).as_rotvec()
                for s in (d, -d)
            )
            np.testing.assert_allclose(J @ d, (ahead - back) / 2, atol=1e-14)


def test_only_a_few_pairs_are_kept(bodies):
    body = bodies["bundled"]
    fast = KeypointBody(body, map_keypoints(body, keypoint_set("spin49")))
    assert len(fast.shares) < 150
    assert (fast.sum_pairs.sum(dim=0) == 1).all()
