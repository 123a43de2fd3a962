"""Errors of fits by groups of people: by keypoints seen, by their noise, by the user's own columns.

The dictionaries are those that `fit-cli evaluate --json` writes; docs/evaluation.md describes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from .calibration import (
    CURVE_BINS,
    ReliabilityCurve,
    normal_share_within,
    reliability_curve,
    root_mean_square,
    share_within,
)
from .evaluation import Comparison, mean_of_known
from .files import InputError
from .groups import PersonGroups
from .keypoint_quality import KeypointQuality

OUTLIER_MM = 150.0  # MPJPE of people who count as outliers
UNKNOWN = "unknown"
SEEN_BINS = 5
# Upper edges of the bins of noise, in shares of the person's size. Exact keypoints still went
# through float32: 0.01 % is 0.02 px for a person 200 px tall.
NOISE_EDGES = (0.0001, 0.005, 0.01, 0.02, 0.04)
NOISE_LABELS = ("exact", "up to 0.5 %", "0.5 to 1 %", "1 to 2 %", "2 to 4 %", "over 4 %")


@dataclass(frozen=True, kw_only=True)
class Grouping:
    """Which of several groups each of N people is in.

    Attributes:
        labels: names of the groups, in the order in which they are shown; the last may be
            `UNKNOWN`.
        index: (N,) int, each person's group.
        missing: for each group, its people without a fit; None where they cannot be told.
    """

    labels: tuple[str, ...]
    index: np.ndarray
    missing: tuple[int, ...] | None = None


def group_by_seen(keypoints: KeypointQuality) -> Grouping:
    """By the share of the keypoint set that was seen: nothing, then fifths.

    Labels are numbers of keypoints if all N people have sets of one size, else shares.
    """
    P, seen = keypoints.set_size, keypoints.seen
    index = -(-SEEN_BINS * seen // np.maximum(P, 1))  # rounded up, exactly
    sizes = np.unique(P[P > 0])
    step = 100 // SEEN_BINS
    labels = [f"{step * (i - 1)} to {step * i} %" for i in range(1, SEEN_BINS + 1)]
    if len(sizes) == 1:
        edges = [int(sizes[0]) * i // SEEN_BINS for i in range(SEEN_BINS + 1)]
        labels = [f"{low + 1} to {high}" for low, high in pairwise(edges)]
    return _with_unknown(("none", *labels), index, P > 0)


def group_by_noise(keypoints: KeypointQuality) -> Grouping:
    """By the median distance of keypoints from the true ones, in shares of the person's size."""
    known = ~np.isnan(keypoints.noise)
    index = np.searchsorted(NOISE_EDGES, np.where(known, keypoints.noise, 0.0))
    return _with_unknown(NOISE_LABELS, index, known)


def group_by_columns(groups: PersonGroups, comparison: Comparison) -> dict[str, Grouping]:
    """By each column of the user's file: its groups in the order in which they first occur.

    People of the file who are not in the truth do not count; those of the truth who are not in the
    file, or have an empty cell there, are of the group `UNKNOWN`.

    Raises:
        InputError: the file holds nobody of the truth.
    """
    everyone = [*comparison.matched, *comparison.missing]
    if not any(person in groups.groups for person in everyone):
        raise InputError(
            f"{groups.path} holds none of the {len(everyone)} people of the truth; give their "
            "image and person as the truth's table does"
        )
    groupings = {}
    for column, name in enumerate(groups.columns):
        named = dict.fromkeys(g[column] for g in groups.groups.values())
        labels = tuple(label for label in named if label not in ("", UNKNOWN))
        number = {label: i for i, label in enumerate(labels)}
        nothing = ("",) * len(groups.columns)
        index = np.array(
            [number.get(groups.groups.get(p, nothing)[column], len(labels)) for p in everyone]
        )
        labels += (UNKNOWN,) if (index == len(labels)).any() else ()
        with_fit, without = np.split(index, [len(comparison.matched)])
        missing = np.bincount(without, minlength=len(labels))
        groupings[name] = Grouping(labels=labels, index=with_fit, missing=tuple(missing.tolist()))
    return groupings


def _with_unknown(labels: tuple[str, ...], index: np.ndarray, known: np.ndarray) -> Grouping:
    """With a last group for those of whom `index` says nothing, if there are any."""
    unknown = () if known.all() else (UNKNOWN,)
    return Grouping(labels=labels + unknown, index=np.where(known, index, len(labels)))


def break_down(
    comparison: Comparison, columns: Mapping[str, Grouping] | None = None
) -> dict[str, Any]:
    """Errors of everyone, by joint, and of each group.

    Args:
        comparison: N people.
        columns: groupings of theirs by name.

    Returns:
        A dictionary ready for JSON: `overall`, `mpjpe_by_joint_mm`, `by_keypoints_seen`,
        `by_noise`, `by_group` and `calibration_reference` (docs/evaluation.md). A number that
        nobody has is None.
    """
    bodies = comparison.bodies
    return {
        "overall": _summarize(comparison, np.arange(len(comparison.matched))),
        "mpjpe_by_joint_mm": {
            name: dict(zip(bodies.joint_names[name], errors.mean(axis=0).tolist(), strict=True))
            for name, errors in bodies.joint_errors_mm.items()
        },
        "by_keypoints_seen": _rows(comparison, group_by_seen(comparison.keypoints)),
        "by_noise": _rows(comparison, group_by_noise(comparison.keypoints)),
        "by_group": {name: _rows(comparison, g) for name, g in (columns or {}).items()},
        "calibration_reference": {
            "along_one_axis": _normal_shares(num_axes=1),
            "alike_along_three_axes": _normal_shares(num_axes=3),
        },
    }


def _rows(comparison: Comparison, grouping: Grouping) -> list[dict[str, Any]]:
    rows = []
    for i, label in enumerate(grouping.labels):
        missing = {} if grouping.missing is None else {"missing": grouping.missing[i]}
        summary = _summarize(comparison, np.flatnonzero(grouping.index == i))
        rows.append({"group": label, **missing, **summary})
    return rows


def _summarize(comparison: Comparison, rows: np.ndarray) -> dict[str, Any]:
    """Errors of the people at `rows`, of whom there may be none."""
    errors = {name: values[rows] for name, values in comparison.bodies.errors.items()}
    keypoints = comparison.keypoints
    return {
        "people": len(rows),
        **{
            joints: _of_joints({name: errors[f"{joints}.{name}"] for name in _JOINT_ERRORS})
            for joints in comparison.bodies.joint_names
        },
        "pve_mm": mean_of_known(errors["pve_mm"]),
        "pve_median_mm": _median(errors["pve_mm"]),
        "keypoints": {
            "seen": int(keypoints.seen[rows].sum()),
            "compared": int(keypoints.compared[rows].sum()),
            "wrong": int(keypoints.wrong[rows].sum()),
        },
        "calibration": _calibration(comparison, rows),
    }


_JOINT_ERRORS = ("mpjpe_mm", "pa_mpjpe_mm", "pck_150", "auc", "pck_2d")


def _of_joints(errors: Mapping[str, np.ndarray]) -> dict[str, float | None]:
    """Of one joint set."""
    return {
        **{name: mean_of_known(values) for name, values in errors.items()},
        "mpjpe_median_mm": _median(errors["mpjpe_mm"]),
        "pa_mpjpe_median_mm": _median(errors["pa_mpjpe_mm"]),
        "above_150": mean_of_known(errors["mpjpe_mm"] > OUTLIER_MM),
    }


def _median(values: np.ndarray) -> float | None:
    return float(np.median(values)) if len(values) else None


def stated_and_actual(comparison: Comparison, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances of joints from the truth, as stated and as they are.

    Args:
        comparison: of people.
        rows: (M,) those who are asked about.

    Returns:
        (K, 23) mm twice, of the K of them whose predictions say how sure they are; SMPL's joints
        but the pelvis, to which distances are relative.
    """
    stated = comparison.joint_std_mm[rows, 1:]
    known = (np.isfinite(stated) & (stated > 0)).all(axis=1)
    return stated[known], comparison.bodies.joint_errors_mm["smpl24"][rows[known], 1:]


def curve_of(stated: np.ndarray, actual: np.ndarray) -> ReliabilityCurve:
    """Reliability of (K, 23) distances of K people, in ten bins, or K: one person's say little."""
    return reliability_curve(stated.ravel(), actual.ravel(), min(CURVE_BINS, len(stated)))


def _calibration(comparison: Comparison, rows: np.ndarray) -> dict[str, Any] | None:
    stated, actual = stated_and_actual(comparison, rows)
    if not len(stated):
        return None
    curve = curve_of(stated, actual)
    return {
        "people": len(stated),
        "within_1": share_within(actual / stated, 1),
        "within_2": share_within(actual / stated, 2),
        "predicted_mm": root_mean_square(stated),
        "actual_mm": root_mean_square(actual),
        "curve": {
            "joints": curve.sizes,
            "predicted_mm": curve.predicted,
            "actual_mm": curve.actual,
        },
    }


def _normal_shares(*, num_axes: int) -> dict[str, float]:
    return {f"within_{limit}": normal_share_within(limit, num_axes) for limit in (1, 2)}
