"""SPIN's data set `.npz`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..skeleton import keypoint_set
from ..table import FitsTable
from .common import (
    boxes_around,
    center_and_scale,
    fitted_people,
    keypoints_in,
    pose_of,
    quality_of,
    write_npz,
)


def write_spin(path: Path, table: FitsTable) -> int:
    """Write the fitted people as SPIN's training data (docs/formats.md).

    Args:
        path: `.npz` to write or replace.
        table: fits; rows without one are left out.

    Returns:
        The number of people written.

    Raises:
        InputError: the keypoints of a row cannot be used.
        OutputError: the file cannot be written.
    """
    fitted = fitted_people(table)
    keypoints = keypoints_in(fitted, keypoint_set("spin49"))
    center, scale = center_and_scale(boxes_around(fitted, keypoints))
    arrays = {
        "imgname": fitted.column_array("image"),
        "center": center,
        "scale": scale,
        "openpose": keypoints[:, :25],
        "part": keypoints[:, 25:],
        "pose": pose_of(fitted),
        "shape": fitted.column_array("betas"),
        "has_smpl": np.ones(len(fitted), dtype=np.uint8),
        # Not SPIN's, which lets other names pass; with them no camera is lost, and no doubt.
        "transl": fitted.column_array("transl"),
        "focal": fitted.column_array("fx"),
        "width": fitted.column_array("width"),
        "height": fitted.column_array("height"),
        **quality_of(fitted),
    }
    write_npz(path, arrays)
    return len(fitted)
