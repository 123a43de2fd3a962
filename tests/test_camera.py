"""Projection against OpenCV, conversions as round trips, placement against closed forms."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fitting.camera import (
    MIN_DEPTH,
    default_focal,
    estimate_translation,
    make_intrinsics,
    project_points,
    transl_to_weak,
    weak_to_transl,
)


@pytest.fixture
def intrinsics() -> np.ndarray:
    return np.array([[900.0, 0, 310.0], [0, 750.0, 260.0], [0, 0, 1]])


def test_projection_matches_opencv(rng, intrinsics):
    points = rng.uniform([-1, -1, 2], [1, 1, 6], (24, 3))
    expected = cv2.projectPoints(points, np.zeros(3), np.zeros(3), intrinsics, None)[0][:, 0]
    pixels, in_front = project_points(torch.from_numpy(points), torch.from_numpy(intrinsics))
    np.testing.assert_allclose(pixels.numpy(), expected, rtol=1e-12)
    assert in_front.all()


def test_projection_gradient_matches_finite_differences(rng, intrinsics):
    points = torch.from_numpy(rng.uniform(1, 4, (2, 5, 3))).requires_grad_()
    camera = torch.from_numpy(intrinsics).requires_grad_()
    assert torch.autograd.gradcheck(lambda p, k: project_points(p, k)[0], (points, camera))


def test_points_behind_the_camera_stay_finite(intrinsics):
    points = torch.tensor([[0.1, 0.2, 0.0], [0.1, 0.2, -3.0], [0.1, 0.2, 1.0]]).double()
    points.requires_grad_()
    pixels, in_front = project_points(points, torch.from_numpy(intrinsics))
    pixels.sum().backward()
    assert in_front.tolist() == [False, False, True]
    assert pixels.isfinite().all()
    assert points.grad.isfinite().all()
    assert pixels[0, 0].item() == pytest.approx(0.1 / MIN_DEPTH * 900 + 310)


def test_unknown_focal_length_is_the_diagonal():
    size = torch.tensor([[640.0, 480.0], [300.0, 400.0]])
    assert default_focal(size).tolist() == [800.0, 500.0]
    intrinsics = make_intrinsics(size, torch.tensor([torch.nan, 1234.0]))
    assert intrinsics[:, 0, 0].tolist() == [800.0, 1234.0]
    assert intrinsics[:, 1, 1].tolist() == [800.0, 1234.0]
    # a picture two pixels wide has pixel centres 0 and 1, and its middle between them
    assert make_intrinsics(torch.tensor([[2.0, 4.0]]))[0, :2, 2].tolist() == [0.5, 1.5]


@given(
    weak=st.tuples(st.floats(0.2, 3), st.floats(-1, 1), st.floats(-1, 1)),
    crop=st.tuples(st.floats(-100, 900), st.floats(-100, 900), st.floats(20, 800)),
)
def test_weak_perspective_round_trip(weak, crop):
    K = torch.tensor([[[900.0, 0, 310], [0, 750, 260], [0, 0, 1]]]).double()
    weak, crop = (torch.tensor([v], dtype=torch.float64) for v in (weak, crop))
    back = transl_to_weak(weak_to_transl(weak, crop, K), crop, K)
    torch.testing.assert_close(back, weak, rtol=1e-9, atol=1e-9)


def test_weak_perspective_agrees_with_full_projection_of_a_flat_body(rng):
    """A body without depth is drawn alike by the crop's weak camera and the full camera."""
    K = torch.tensor([[[900.0, 0, 310], [0, 900.0, 260], [0, 0, 1]]]).double()
    flat = torch.from_numpy(rng.normal(0, 0.5, (1, 10, 3))) * torch.tensor([1.0, 1, 0])
    weak = torch.tensor([[0.9, 0.1, -0.2]]).double()
    crop = torch.tensor([[400.0, 120.0, 256.0]]).double()
    pixels, _ = project_points(flat + weak_to_transl(weak, crop, K)[:, None], K)
    in_crop = weak[:, None, :1] * (flat[..., :2] + weak[:, None, 1:])
    torch.testing.assert_close(pixels, crop[:, None, :2] + in_crop * crop[:, None, 2:] / 2)


def flat_person(rng, batch=2):
    """A body in the plane of the picture: every limb shows its full length."""
    points = torch.from_numpy(rng.normal(0, 0.5, (batch, 6, 3))) * torch.tensor([1.0, 1, 0])
    transl = torch.from_numpy(rng.uniform([-1, -1, 3], [1, 1, 8], (batch, 3)))
    K = make_intrinsics(torch.tensor([[640.0, 480.0]]).double().expand(batch, 2))
    pixels, _ = project_points(points + transl[:, None], K)
    return points, transl, K, pixels


EDGES = torch.tensor([[0, 1], [1, 2], [2, 3], [3, 4], [4, 5]])


def test_translation_of_a_flat_body_is_exact(rng):
    points, transl, K, pixels = flat_person(rng)
    height = torch.full((2,), 480.0).double()
    conf = torch.from_numpy(rng.uniform(0.2, 1, (2, 6)))
    got = estimate_translation(pixels, conf, K, points, EDGES, fallback_height=height)
    torch.testing.assert_close(got, transl)


def test_translation_leaves_unseen_keypoints_out(rng):
    points, transl, K, pixels = flat_person(rng)
    conf = torch.ones(2, 6).double()
    conf[:, 3] = 0
    pixels[:, 3] = 1e5
    height = torch.full((2,), 480.0).double()
    got = estimate_translation(pixels, conf, K, points, EDGES, fallback_height=height)
    torch.testing.assert_close(got, transl)


def test_translation_from_one_keypoint_puts_it_where_it_is_seen(rng):
    points, _, K, pixels = flat_person(rng)
    conf = torch.zeros(2, 6).double()
    conf[:, 2] = 0.5
    height = torch.full((2,), 340.0).double()
    got = estimate_translation(pixels, conf, K, points, EDGES, fallback_height=height)
    assert got[:, 2].tolist() == pytest.approx([800 * 1.7 / 340] * 2)
    again, _ = project_points(points + got[:, None], K)
    torch.testing.assert_close(again[:, 2], pixels[:, 2])


@pytest.mark.parametrize("scale", [1e-30, 1e25])
def test_translation_of_absurd_keypoints_is_finite(scale, rng):
    points, _, K, pixels = (part.float() for part in flat_person(rng))
    height = torch.full((2,), 480.0)
    got = estimate_translation(
        scale * pixels, torch.ones(2, 6), K, points, EDGES, fallback_height=height
    )
    assert got.isfinite().all()
