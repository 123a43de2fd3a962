"""Errors of estimated bodies: NumPy in, NumPy out, a batch at a time.

Points are metres, errors millimetres (`_mm`) or pixels (`_px`); everything is computed in float64.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

_MM_PER_METRE = 1000.0
PCK_THRESHOLD_MM = 150.0  # MPI-INF-3DHP, Mehta et al., 3DV 2017
PCK_2D_SHARE = 0.1  # of the person's box
_AUC_THRESHOLDS = 31  # 0, 5, ..., 150 mm, as in the same benchmark


def point_errors_mm(predicted: ArrayLike, truth: ArrayLike) -> FloatArray:
    """Distances between points, without any alignment.

    Args:
        predicted: (..., P, 3) metres.
        truth: (..., P, 3) metres.

    Returns:
        (..., P) mm.
    """
    predicted, truth = _points(predicted, "predicted"), _points(truth, "truth")
    _check_same(predicted, truth)
    return np.linalg.norm(predicted - truth, axis=-1) * _MM_PER_METRE


def mpjpe(predicted: ArrayLike, truth: ArrayLike, *, root: int = 0) -> FloatArray:
    """Mean per-joint position error with the roots laid upon each other.

    Args:
        predicted: (B, J, 3) joints, metres.
        truth: (B, J, 3) joints, metres.
        root: index of the joint that is laid upon its counterpart; it counts in the mean.

    Returns:
        (B,) mm.
    """
    predicted, truth = _points(predicted, "predicted"), _points(truth, "truth")
    return pve(predicted, truth, predicted[..., root, :], truth[..., root, :])


def pve(
    predicted: ArrayLike, truth: ArrayLike, predicted_root: ArrayLike, truth_root: ArrayLike
) -> FloatArray:
    """Mean per-vertex error with the roots laid upon each other.

    Serves any points whose root is not among them, such as joints of a set without a pelvis.

    Args:
        predicted: (B, V, 3) vertices, metres.
        truth: (B, V, 3) vertices of the same mesh, metres.
        predicted_root: (B, 3) metres.
        truth_root: (B, 3) metres.

    Returns:
        (B,) mm.
    """
    centred = relative_to_root(predicted, predicted_root)
    return point_errors_mm(centred, relative_to_root(truth, truth_root)).mean(axis=-1)


def relative_to_root(points: ArrayLike, root: ArrayLike) -> FloatArray:
    """Points (B, P, 3) as seen from a root (B, 3), metres."""
    return _points(points, "points") - np.asarray(root, dtype=np.float64)[..., None, :]


def pa_mpjpe(
    predicted: ArrayLike, truth: ArrayLike, *, weights: ArrayLike | None = None
) -> FloatArray:
    """Mean per-joint position error after the best similarity transform ("Procrustes-aligned").

    Args:
        predicted: (B, J, 3) joints, metres.
        truth: (B, J, 3) joints, metres.
        weights: see `align_similarity`; the mean itself is unweighted.

    Returns:
        (B,) mm.
    """
    aligned = align_similarity(predicted, truth, weights=weights)
    return point_errors_mm(aligned, truth).mean(axis=-1)


def acceleration_error(predicted: ArrayLike, truth: ArrayLike, *, fps: float) -> FloatArray:
    """How far accelerations are from the true ones: what the eye sees as jitter.

    Second differences of points, as in Kanazawa et al., "Learning 3D human dynamics from video",
    CVPR 2019, but per second.

    Args:
        predicted: (T, P, 3) metres, at times evenly apart.
        truth: (T, P, 3) metres.
        fps: of the times in a second.

    Returns:
        (T - 2,) metres per second squared, means over the points.
    """
    predicted, truth = _points(predicted, "predicted"), _points(truth, "truth")
    _check_same(predicted, truth)
    second_differences = np.diff(predicted - truth, n=2, axis=0) * fps**2
    return np.linalg.norm(second_differences, axis=-1).mean(axis=-1)


def align_similarity(
    source: ArrayLike, target: ArrayLike, *, weights: ArrayLike | None = None
) -> FloatArray:
    """Move, turn and scale each source onto its target, by weighted least squares.

    Minimises Σ_p w_p |s R x_p + t - y_p|² over rotations R (never reflections), s and t: Umeyama,
    "Least-squares estimation of transformation parameters between two point patterns", PAMI 1991,
    equations 34 to 43. A source of one point only is moved, but neither turned nor scaled.

    Args:
        source: (..., P, 3).
        target: (..., P, 3).
        weights: (..., P), at least 0 and not all 0; equal by default.

    Returns:
        (..., P, 3) the aligned source.
    """
    source, target = _points(source, "source"), _points(target, "target")
    _check_same(source, target)
    share = _normalised_weights(weights, source.shape[:-1])[..., None]
    source_mean = (share * source).sum(axis=-2, keepdims=True)
    target_mean = (share * target).sum(axis=-2, keepdims=True)
    x, y = source - source_mean, target - target_mean
    U, singular, Vt = np.linalg.svd(np.swapaxes(share * y, -1, -2) @ x)
    # Where the best orthogonal matrix is a reflection, the weakest axis is turned the other way.
    sign = np.ones_like(singular)
    sign[..., 2] = np.where(np.linalg.det(U @ Vt) < 0, -1.0, 1.0)
    R = (U * sign[..., None, :]) @ Vt
    variance = (share * x**2).sum(axis=(-1, -2))
    matched = (singular * sign).sum(axis=-1)
    scale = np.divide(matched, variance, out=np.ones_like(matched), where=variance > 0)
    return scale[..., None, None] * x @ np.swapaxes(R, -1, -2) + target_mean


def pck(errors_mm: ArrayLike, *, threshold_mm: float = PCK_THRESHOLD_MM) -> FloatArray:
    """Share of correct keypoints: those whose error is at most the threshold.

    Args:
        errors_mm: (B, J), after whatever alignment the protocol asks for.
        threshold_mm: 150 mm by default, about half a head.

    Returns:
        (B,) in [0, 1].
    """
    return (np.asarray(errors_mm) <= threshold_mm).mean(axis=-1)


def pck_2d(errors_px: ArrayLike, size_px: ArrayLike, *, share: float = PCK_2D_SHARE) -> FloatArray:
    """Share of keypoints in the picture that are no farther off than a share of the person's size.

    Yang and Ramanan, "Articulated human detection with flexible mixtures of parts", PAMI 2013: the
    size is the longer side of the person's box, and the share 0.1 for whole people.

    Args:
        errors_px: (B, P) distances in the picture.
        size_px: (B,) longer side of the box around the true keypoints.
        share: of the size.

    Returns:
        (B,) in [0, 1], NaN where a distance or the size is unknown.
    """
    errors, size = np.asarray(errors_px, dtype=np.float64), np.asarray(size_px, dtype=np.float64)
    correct = (errors <= share * size[:, None]).mean(axis=-1)
    return np.where(np.isnan(errors).any(axis=-1) | np.isnan(size), np.nan, correct)


def auc(errors_mm: ArrayLike, *, max_threshold_mm: float = PCK_THRESHOLD_MM) -> FloatArray:
    """Area under the curve of `pck` over its threshold: the mean at 31 thresholds from 0 on.

    The thresholds are 0, 5, ..., 150 mm as in the MPI-INF-3DHP benchmark; "at most" makes perfect
    predictions score 1.

    Args:
        errors_mm: (B, J), after whatever alignment the protocol asks for.
        max_threshold_mm: the last threshold.

    Returns:
        (B,) in [0, 1].
    """
    thresholds = np.linspace(0, max_threshold_mm, _AUC_THRESHOLDS)
    return np.mean([pck(errors_mm, threshold_mm=t) for t in thresholds], axis=0)


def reprojection_error(projected: ArrayLike, keypoints_2d: ArrayLike) -> FloatArray:
    """Distances in the picture, unweighted: (..., P, 2) pixels twice -> (..., P) pixels."""
    here = np.asarray(projected, dtype=np.float64)
    there = np.asarray(keypoints_2d, dtype=np.float64)
    _check_same(here, there)
    return np.linalg.norm(here - there, axis=-1)


def mean_over_seen(errors: ArrayLike, conf: ArrayLike) -> FloatArray:
    """Mean error of each person's seen keypoints.

    Args:
        errors: (..., P).
        conf: (..., P); 0 means unseen.

    Returns:
        (...,), NaN where nothing is seen.
    """
    errors, seen = np.asarray(errors, dtype=np.float64), np.asarray(conf) > 0
    count = seen.sum(axis=-1)
    total = np.where(seen, errors, 0.0).sum(axis=-1)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def _points(points: ArrayLike, name: str) -> FloatArray:
    array = np.asarray(points, dtype=np.float64)
    if array.ndim < 2 or array.shape[-1] != 3 or array.shape[-2] == 0:
        raise ValueError(f"{name} must be (..., P, 3) metres with P at least 1, got {array.shape}")
    return array


def _check_same(one: FloatArray, other: FloatArray) -> None:
    if one.shape != other.shape:
        raise ValueError(
            f"points must match one to one, got {one.shape} and {other.shape}; select the same "
            "people and joints of both"
        )


def _normalised_weights(weights: ArrayLike | None, shape: tuple[int, ...]) -> FloatArray:
    if weights is None:
        return np.full(shape, 1.0 / shape[-1])
    array = np.broadcast_to(np.asarray(weights, dtype=np.float64), shape)
    total = array.sum(axis=-1, keepdims=True)
    if (array < 0).any() or not (total > 0).all():
        raise ValueError("weights must be at least 0 and not all 0; leave out people nobody sees")
    return array / total
