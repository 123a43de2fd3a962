"""Whether errors are as large as they were said to be: arithmetic on stated and actual distances.

NumPy in and out, in the dtype of the input.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

CURVE_BINS = 10


class ReliabilityCurve(NamedTuple):
    """Stated against actual distances, in bins from the smallest stated ones to the largest."""

    sizes: list[int]  # errors in each bin
    predicted: list[float]  # their root mean squares
    actual: list[float]


def root_mean_square(values: np.ndarray) -> float:
    """Of all `values`, at least one, in their unit."""
    return float(np.sqrt(np.square(values).mean()))


def share_within(deviations: np.ndarray, limit: float) -> float:
    """Share of errors below `limit` times what was stated.

    Args:
        deviations: errors, each divided by what was stated for it; any shape, at least one.
        limit: such as 1 or 2.
    """
    return float((np.abs(deviations) < limit).mean())


def reliability_curve(
    predicted: np.ndarray, actual: np.ndarray, num_bins: int = CURVE_BINS
) -> ReliabilityCurve:
    """Errors sorted by what was stated for them, in bins of as many.

    Args:
        predicted: (N,) stated distances.
        actual: (N,) distances from the truth, in the same unit.
        num_bins: of the curve; fewer errors make fewer bins.
    """
    bins = [rows for rows in np.array_split(np.argsort(predicted), num_bins) if len(rows)]
    return ReliabilityCurve(
        sizes=[len(rows) for rows in bins],
        predicted=[root_mean_square(predicted[rows]) for rows in bins],
        actual=[root_mean_square(actual[rows]) for rows in bins],
    )


def normal_share_within(limit: float, num_axes: int) -> float:
    """Share of normal errors in space that are within `limit` times their expected distance.

    The expected distance is the root mean square one, sqrt(k) sigma for equal deviations along k
    axes and none along the others: P(chi2_k < k limit^2).

    Args:
        limit: such as 1 or 2.
        num_axes: k, 1 (errors along a line, such as depth alone) or 3 (as large in all directions).

    Returns:
        In [0, 1]. At 1 and 2 times: 0.683 and 0.954 for one axis, 0.608 and 0.993 for three; other
        normal distributions lie between.

    Raises:
        ValueError: `num_axes` is neither.
    """
    if num_axes not in (1, 3):
        raise ValueError(f"num_axes must be 1 or 3, got {num_axes}")
    radius = limit * math.sqrt(num_axes)  # in deviations along an axis
    line = math.erf(radius / math.sqrt(2))
    if num_axes == 1:
        return line
    return line - math.sqrt(2 / math.pi) * radius * math.exp(-(radius**2) / 2)
