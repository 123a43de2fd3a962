"""Stated against actual distances, against SciPy's distributions and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2

from fitting.calibration import (
    normal_share_within,
    reliability_curve,
    root_mean_square,
    share_within,
)


@pytest.mark.parametrize("limit", [0.5, 1, 2, 3])
@pytest.mark.parametrize("num_axes", [1, 3])
def test_normal_shares_are_those_of_chi_squared(limit, num_axes):
    expected = chi2.cdf(num_axes * limit**2, df=num_axes)
    assert normal_share_within(limit, num_axes) == pytest.approx(expected, rel=1e-12)


def test_other_normal_errors_lie_between(rng):
    """Of ellipsoids of all proportions, sampled."""
    limits = [sorted(normal_share_within(k, axes) for axes in (1, 3)) for k in (1, 2)]
    for std in rng.uniform(0.05, 1, (20, 3)):
        distance = np.linalg.norm(rng.normal(size=(20_000, 3)) * std, axis=1)
        for k, (low, high) in zip((1, 2), limits, strict=True):
            share = share_within(distance / np.linalg.norm(std), k)
            assert low - 0.012 < share < high + 0.012, "3.5 standard errors of 20,000 draws"


def test_only_one_and_three_axes_have_a_closed_form():
    with pytest.raises(ValueError, match="1 or 3, got 2"):
        normal_share_within(1, 2)


def test_a_curve_by_hand():
    predicted, actual = np.array([5.0, 1, 4, 2, 3]), np.array([50.0, 3, 8, 4, 6])
    curve = reliability_curve(predicted, actual, 2)  # of 1, 2, 3 and of 4, 5
    assert curve.sizes == [3, 2]
    assert curve.predicted == pytest.approx([np.sqrt(14 / 3), np.sqrt(41 / 2)])
    assert curve.actual == pytest.approx([np.sqrt(61 / 3), np.sqrt((64 + 2500) / 2)])


def test_fewer_errors_make_fewer_bins():
    curve = reliability_curve(np.array([2.0, 1.0]), np.array([20.0, 10.0]), 10)
    assert curve == ([1, 1], [1, 2], [10, 20])
    assert reliability_curve(np.zeros(0), np.zeros(0)) == ([], [], [])


def test_shares_and_root_mean_squares_by_hand():
    assert share_within(np.array([[0.5, -0.5], [1.5, -2.5]]), 1) == 0.5
    assert share_within(np.array([[0.5, -0.5], [1.5, -2.5]]), 2) == 0.75
    assert root_mean_square(np.array([[3.0, 4.0], [0.0, 0.0]])) == 2.5
