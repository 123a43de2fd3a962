"""Express points inside the body as non-negative, sparse averages of skin vertices."""

from __future__ import annotations

import numpy as np
from body_rig import FLIP_JOINTS, FloatArray, IntArray
from numpy.typing import NDArray
from scipy.optimize import nnls

from fitting.skeleton import SMPL_JOINTS, mirrored_name

# A point averages skin from all around it: the nearest vertices in each of 26 directions, so that
# it lies inside their convex hull and follows the limb's thickness on every side.
VERTICES_PER_DIRECTION = 24
TORSO_REACH_M = 0.30
LIMB_REACH_M = 0.16
# Row that asks the weights to sum to one, in metres: far above the residuals, so it is met.
SUM_ROW = 30.0
RIDGE = 1e-3  # per root of the number of shapes, metres: prefers many small weights to few large
SMALLEST_WEIGHT = 1e-4
_STEPS = np.array([(x, y, z) for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1)], float)
DIRECTIONS = _STEPS[np.abs(_STEPS).sum(axis=1) > 0]


def fit_joint_regressor(
    shapes: FloatArray, joints: FloatArray, mirror: IntArray, skin: NDArray[np.bool_]
) -> FloatArray:
    """(24, V) joint regressor with exactly symmetric, non-negative rows that sum to one.

    Args:
        shapes: (N, V, 3) metres, symmetric bodies in the T-pose.
        joints: (N, 24, 3) metres, where the rig has its joints.
        mirror: (V,) mirror vertices.
        skin: (V,) False for vertices that must not be used.
    """
    regressor = np.zeros((len(SMPL_JOINTS), shapes.shape[1]))
    for j, name in enumerate(SMPL_JOINTS):
        if mirrored_name(name) == name:
            row = fit_point(shapes, joints[:, j], skin, reach=TORSO_REACH_M)
            regressor[j] = (row + row[mirror]) / 2
        elif name.startswith("left"):
            regressor[j] = fit_point(shapes, joints[:, j], skin, reach=LIMB_REACH_M)
            regressor[FLIP_JOINTS[j]] = regressor[j][mirror]
    return regressor


def fit_point(
    shapes: FloatArray, points: FloatArray, allowed: NDArray[np.bool_], *, reach: float
) -> FloatArray:
    """(V,) non-negative weights, summing to one, whose averages of the bodies meet the points.

    Solves ``min |A w - b|^2 + ridge |w|^2, w >= 0`` on vertices within ``reach`` metres.

    Args:
        shapes: (N, V, 3) metres.
        points: (N, 3) metres, the same point of each body.
        allowed: (V,) False for vertices that must not be used.
        reach: metres around the mean point.
    """
    candidates = _surrounding(shapes.mean(axis=0), points.mean(axis=0), allowed, reach)
    num = len(candidates)
    design = shapes[:, candidates].transpose(0, 2, 1).reshape(-1, num)
    ridge = RIDGE * np.sqrt(len(shapes)) * np.eye(num)
    left = np.vstack([design, np.full((1, num), SUM_ROW), ridge])
    right = np.concatenate([points.ravel(), [SUM_ROW], np.zeros(num)])
    weights, _ = nnls(left, right, maxiter=20 * num)
    weights[weights < SMALLEST_WEIGHT] = 0
    row = np.zeros(shapes.shape[1])
    row[candidates] = weights / weights.sum()
    return row


def _surrounding(
    body: FloatArray, centre: FloatArray, allowed: NDArray[np.bool_], reach: float
) -> IntArray:
    """Indices of the nearest vertices to a point in each of 26 directions."""
    offsets = body - centre
    distance = np.where(allowed, np.linalg.norm(offsets, axis=1), np.inf)
    order = np.argsort(distance, kind="stable")
    order = order[distance[order] < reach]
    unit = DIRECTIONS / np.linalg.norm(DIRECTIONS, axis=1, keepdims=True)
    sector = (offsets[order] @ unit.T).argmax(axis=1)
    chosen = [order[sector == s][:VERTICES_PER_DIRECTION] for s in range(len(unit))]
    return np.unique(np.concatenate(chosen))


def regression_errors_mm(
    regressor: FloatArray, shapes: FloatArray, points: FloatArray
) -> FloatArray:
    """(N, P) distances between regressed and true points (N, P, 3), in millimetres."""
    regressed = np.einsum("pv,nvc->npc", regressor, shapes, optimize=True)
    return np.linalg.norm(regressed - points, axis=-1) * 1e3
