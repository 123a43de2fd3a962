"""What the writers of fits share: keypoints in another set, boxes, and how good labels are."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..files import InputError, write_atomically
from ..skeleton import KeypointSet, convert_keypoints, keypoint_set
from ..table import FitsTable

BOX_MARGIN = 1.2  # of SPIN's crops, and of EFT's
BOX_UNIT = 200.0  # pixels: both give a box's side in this unit


def fitted_people(table: FitsTable) -> FitsTable:
    """The rows with a fit."""
    return table.select(table.has_parameters)


def pose_of(table: FitsTable) -> np.ndarray:
    """(N, 72) float32 axis-angle, of the root and then of joints 1 to 23."""
    return np.concatenate(
        [table.column_array("global_orient"), table.column_array("body_pose")], axis=1
    )


def keypoints_in(table: FitsTable, target: KeypointSet) -> np.ndarray:
    """(N, Q, 3) float32 x, y and confidence in another set; confidence 0 where it has none.

    Raises:
        InputError: a row's keypoint set is unknown, or its keypoints are not of that set.
    """
    names = table.column_array("keypoint_set")
    keypoints = np.zeros((len(table), len(target), 3), dtype=np.float32)
    for name in np.unique(names).tolist():
        rows = np.flatnonzero(names == name)
        try:
            source = keypoint_set(name)
            own = table.select(rows).column_array("keypoints_2d").reshape(-1, len(source), 3)
        except ValueError as error:
            raise InputError(f"row {rows[0]} of the fits: {error}") from error
        if source is not target:
            xy, conf = convert_keypoints(own[..., :2], own[..., 2], source, target)
            own = np.concatenate([xy, conf[..., None]], axis=2)
        keypoints[rows] = own
    return keypoints


def boxes_around(table: FitsTable, keypoints: np.ndarray) -> np.ndarray:
    """(N, 4) float32 x, y, width, height in pixels of boxes around the people.

    Args:
        table: N people.
        keypoints: (N, P, 3) x, y, confidence. Who has none seen gets the whole picture.
    """
    seen = keypoints[..., 2:] > 0
    low = np.where(seen, keypoints[..., :2], np.inf).min(axis=1)
    high = np.where(seen, keypoints[..., :2], -np.inf).max(axis=1)
    size = np.stack([table.column_array("width"), table.column_array("height")], axis=1)
    nobody = ~seen.any(axis=(1, 2))
    low[nobody], high[nobody] = 0, size[nobody] - 1
    return np.concatenate([low, high - low], axis=1).astype(np.float32)


def center_and_scale(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """SPIN's way to name a square crop: its centre, and its side over 200 pixels.

    Args:
        boxes: (N, 4) x, y, width, height in pixels, without a margin.

    Returns:
        (N, 2) centres and (N,) scales, a margin of 1.2 included.
    """
    center = boxes[:, :2] + boxes[:, 2:] / 2
    return center, BOX_MARGIN * boxes[:, 2:].max(axis=1) / BOX_UNIT


# Of the fits table, under whose names they stand in other formats, too: how sure a label is, how
# well it fits, and the flags that say how it ended and where it comes from.
QUALITY_COLUMNS = ("joint_std_mm", "reprojection_error_px", "cost_final", "status", "init")


def quality_of(table: FitsTable) -> dict[str, np.ndarray]:
    """How good the labels of N people are, by `QUALITY_COLUMNS`.

    Returns:
        `joint_std_mm` (N, 24) mm, `reprojection_error_px` (N,) and `cost_final` (N,), float32 and
        NaN where unknown; `status` and `init` (N,) str.
    """
    return {name: table.column_array(name) for name in QUALITY_COLUMNS}


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write an `.npz` without pickled objects, atomically."""
    write_atomically(path, lambda stream: np.savez(stream, allow_pickle=False, **arrays))
