"""Metrics against SciPy, closed forms and the invariances that define them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares
from scipy.spatial import procrustes
from scipy.spatial.transform import Rotation

from fitting.metrics import (
    acceleration_error,
    align_similarity,
    auc,
    mean_over_seen,
    mpjpe,
    pa_mpjpe,
    pck,
    pck_2d,
    point_errors_mm,
    pve,
    relative_to_root,
    reprojection_error,
)

seeds = st.integers(0, 2**32 - 1)


def similar(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each body of a batch scaled, turned and moved at random."""
    R = Rotation.random(len(points), random_state=rng).as_matrix()
    scale = rng.uniform(0.2, 5, (len(points), 1, 1))
    return scale * points @ np.swapaxes(R, 1, 2) + rng.normal(0, 3, (len(points), 1, 3))


def scipy_alignment(source: np.ndarray, target: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Rotation by SciPy; then the scale is the regression of y on the turned x."""
    source_mean = np.average(source, axis=0, weights=weights)
    target_mean = np.average(target, axis=0, weights=weights)
    x, y = source - source_mean, target - target_mean
    turned = Rotation.align_vectors(y, x, weights=weights)[0].apply(x)
    scale = (weights[:, None] * turned * y).sum() / (weights[:, None] * turned**2).sum()
    return scale * turned + target_mean


def test_alignment_matches_scipy_with_and_without_weights(rng):
    source, target = rng.normal(size=(2, 6, 14, 3))
    for weights in (np.ones((6, 14)), rng.uniform(0.1, 2, (6, 14))):
        expected = [scipy_alignment(*row) for row in zip(source, target, weights, strict=True)]
        aligned = align_similarity(source, target, weights=weights)
        np.testing.assert_allclose(aligned, expected, rtol=0, atol=1e-10)
    np.testing.assert_allclose(
        align_similarity(source, target),
        align_similarity(source, target, weights=np.ones((6, 14))),
        rtol=0,
        atol=1e-12,
    )


def test_alignment_matches_scipys_procrustes_where_no_reflection_helps(rng):
    target = rng.normal(size=(14, 3))
    source = similar(target[None], rng)[0] + rng.normal(0, 0.1, (14, 3))
    residual = align_similarity(source, target) - target
    total = ((target - target.mean(axis=0)) ** 2).sum()
    assert (residual**2).sum() / total == pytest.approx(procrustes(target, source)[2], rel=1e-9)


def test_alignment_of_a_mirrored_body_is_a_minimum_over_rotations(rng):
    target = rng.normal(size=(14, 3))
    source = target * [-1, 1, 1] + rng.normal(0, 0.05, (14, 3))

    def residual(x: np.ndarray) -> np.ndarray:
        turned = Rotation.from_rotvec(x[:3]).apply(source)
        return (np.exp(x[3]) * turned + x[4:] - target).ravel()

    starts = [Rotation.random(random_state=rng).as_rotvec() for _ in range(12)]
    best = min(least_squares(residual, [*start, 0, 0, 0, 0]).cost for start in starts)
    ours = ((align_similarity(source, target) - target) ** 2).sum() / 2
    assert ours == pytest.approx(best, rel=1e-6)  # the optimiser's own tolerance


@given(seeds)
@settings(max_examples=50)
def test_similarity_transforms_cost_nothing_and_reflections_do(seed):
    rng = np.random.default_rng(seed)
    truth = rng.normal(0, 0.4, (3, 24, 3))
    assert pa_mpjpe(similar(truth, rng), truth).max() < 1e-9
    assert pa_mpjpe(similar(truth * [1, 1, -1], rng), truth).min() > 1


@given(seeds)
@settings(max_examples=50)
def test_invariances(seed):
    rng = np.random.default_rng(seed)
    predicted, truth = rng.normal(0, 0.4, (2, 3, 24, 3))
    shift = rng.normal(0, 5, (3, 1, 3))
    np.testing.assert_allclose(mpjpe(predicted + shift, truth), mpjpe(predicted, truth), atol=1e-9)
    R = Rotation.random(random_state=rng).as_matrix()
    np.testing.assert_allclose(mpjpe(predicted @ R, truth @ R), mpjpe(predicted, truth), atol=1e-9)
    moved = similar(predicted, rng)
    np.testing.assert_allclose(pa_mpjpe(moved, truth), pa_mpjpe(predicted, truth), atol=1e-8)


def test_mpjpe_closed_form():
    truth = np.zeros((2, 4, 3))
    predicted = truth + np.array([1.0, 2.0, 3.0])  # a common shift is no error
    predicted[0, 2] += [0.03, 0, 0.04]  # 50 mm at one of 4 joints
    predicted[1, 0] += [0, 0.01, 0]  # the root 10 mm off shifts the other 3
    np.testing.assert_allclose(mpjpe(predicted, truth), [12.5, 7.5], rtol=1e-12)
    np.testing.assert_allclose(mpjpe(predicted, truth, root=1), [12.5, 2.5], rtol=1e-12)


def test_acceleration_error_closed_form(rng):
    """Something that falls, against something that moves evenly, at 20 pictures a second."""
    times = np.arange(7) / 20
    even = rng.normal(size=(1, 3, 3)) + times[:, None, None] * rng.normal(size=(1, 3, 3))
    falling = even - 0.5 * 9.81 * np.square(times)[:, None, None] * [0, 1, 0]
    np.testing.assert_allclose(acceleration_error(falling, even, fps=20), [9.81] * 5)
    assert acceleration_error(even[:2], even[:2], fps=20).shape == (0,)


def test_pve_closed_form(rng):
    truth = rng.normal(size=(2, 50, 3))
    root = truth[:, :5].mean(axis=1)
    offset = np.array([[0.0, 0.003, 0.004], [0.006, 0.008, 0]])
    predicted = truth + 7 + offset[:, None]
    np.testing.assert_allclose(pve(predicted, truth, root + 7, root), [5, 10], rtol=1e-9)
    np.testing.assert_allclose(relative_to_root(truth, root)[:, :5].mean(axis=1), 0, atol=1e-15)


def test_pck_and_auc_closed_form():
    errors = np.array([[0.0, 0.0], [150.0, 150.1], [20.0, 500.0]])
    np.testing.assert_array_equal(pck(errors), [1, 0.5, 0.5])
    np.testing.assert_array_equal(pck(errors, threshold_mm=10), [1, 0, 0])
    # 20 mm is within 27 of the 31 thresholds 0, 5, ..., 150.
    np.testing.assert_allclose(auc(errors), [1, 0.5 / 31, 0.5 * 27 / 31], rtol=1e-12)


def test_auc_approaches_the_integral(rng):
    errors = rng.uniform(0, 150, (1, 100_000))  # PCK(t) = t / 150, whose mean is 1/2
    assert auc(errors)[0] == pytest.approx(0.5, abs=0.005)  # three deviations of the sample


def test_errors_in_the_picture():
    projected = np.array([[[3.0, 4], [1, 1], [0, 0]]] * 2)
    keypoints = np.array([[[0.0, 0], [1, 1], [9, 9]]] * 2)
    errors = reprojection_error(projected, keypoints)
    np.testing.assert_allclose(errors, [[5, 0, np.sqrt(162)]] * 2)
    np.testing.assert_array_equal(mean_over_seen(errors, [[1, 0.5, 0], [0, 0, 0]]), [2.5, np.nan])


def test_unseen_errors_may_be_nan():
    np.testing.assert_array_equal(mean_over_seen([[np.nan, 4.0]], [[0, 1]]), [4])


def test_degenerate_bodies(rng):
    target = rng.normal(size=(2, 5, 3))
    point = np.ones((2, 5, 3))
    np.testing.assert_allclose(
        align_similarity(point, target), target.mean(axis=1, keepdims=True) + np.zeros((2, 5, 3))
    )
    line = np.linspace(0, 1, 5)[:, None] * [1.0, 2.0, 3.0]
    turned = 2 * line[:, [2, 0, 1]] + 1
    np.testing.assert_allclose(align_similarity(line, turned), turned, atol=1e-12)


def test_empty_batches():
    empty = np.zeros((0, 24, 3))
    for metric in (mpjpe, pa_mpjpe):
        assert metric(empty, empty).shape == (0,)
    assert auc(np.zeros((0, 24))).shape == (0,)


def test_float32_and_lists_are_computed_in_float64(rng):
    truth = rng.normal(size=(1, 4, 3)).astype(np.float32)
    assert pa_mpjpe(truth, truth).dtype == np.float64
    assert mpjpe(truth.tolist(), truth.tolist()).tolist() == [0]


def test_inputs_are_left_alone(rng):
    predicted, truth = rng.normal(size=(2, 3, 24, 3))
    before = predicted.copy(), truth.copy()
    mpjpe(predicted, truth)
    pa_mpjpe(predicted, truth, weights=np.ones(24))
    np.testing.assert_array_equal(predicted, before[0])
    np.testing.assert_array_equal(truth, before[1])


def test_errors_name_the_shape():
    with pytest.raises(ValueError, match=r"predicted must be \(..., P, 3\) metres"):
        point_errors_mm(np.zeros((4, 2)), np.zeros((4, 3)))
    with pytest.raises(ValueError, match=r"got \(2, 4, 3\) and \(1, 4, 3\)"):
        mpjpe(np.zeros((2, 4, 3)), np.zeros((1, 4, 3)))
    with pytest.raises(ValueError, match="not all 0"):
        align_similarity(np.zeros((4, 3)), np.zeros((4, 3)), weights=np.zeros(4))


def test_pck_2d_by_hand():
    errors = np.array([[0.0, 9.9, 10, 10.1], [0, 1, 2, np.nan], [0, 1, 2, 3]])
    shares = pck_2d(errors, np.array([100.0, 100, np.nan]))
    np.testing.assert_array_equal(shares, [0.75, np.nan, np.nan])
    np.testing.assert_array_equal(pck_2d(errors[:1], [100.0], share=0.099), [0.5])
