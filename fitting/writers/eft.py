"""EFT's JSON of pseudo labels (Joo et al., 3DV 2021; its docs/README_dataformat.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from ..camera import transl_to_weak
from ..files import InputError, write_json
from ..readers.openpose import COCO18
from ..skeleton import keypoint_set
from ..table import FitsTable
from .common import (
    BOX_UNIT,
    boxes_around,
    center_and_scale,
    fitted_people,
    keypoints_in,
    pose_of,
    quality_of,
)

_VERSION = 1.1  # of the format


def write_eft(path: Path, table: FitsTable) -> int:
    """Write the fitted people as EFT does (docs/formats.md).

    Args:
        path: `.json` to write or replace.
        table: fits; rows without one are left out.

    Returns:
        The number of people written.

    Raises:
        InputError: the keypoints or the camera of a row cannot be used.
        OutputError: the file cannot be written.
    """
    fitted = fitted_people(table)
    N = len(fitted)
    s = keypoint_set("spin49")
    keypoints = keypoints_in(fitted, s)
    center, scale = center_and_scale(boxes_around(fitted, keypoints))
    # EFT looks for OpenPose's points among the annotated ones, with LSP's neck for its neck.
    validity = keypoints[:, s.indices(COCO18), 2] > 0
    columns = {
        "parm_pose": _rotation_matrices(fitted),
        "parm_shape": fitted.column_array("betas"),
        "parm_cam": _weak_cameras(fitted, center, scale),
        "bbox_scale": scale,
        "bbox_center": center,
        "gt_keypoint_2d": keypoints,
        "joint_validity_openpose18": validity.astype(int),
        "annotId": fitted.column_array("annotation_id"),
        "imageName": fitted.column_array("image"),
    }
    lists = {name: column.tolist() for name, column in columns.items()} | {
        name: _with_null(column) for name, column in quality_of(fitted).items()
    }
    people = [{name: lists[name][row] for name in lists} | {"smpltype": "smpl"} for row in range(N)]
    write_json(path, {"ver": _VERSION, "data": people})
    return N


def _with_null(column: np.ndarray) -> list[Any]:
    """The rows of a column; null, not NaN, where nothing is known: strict readers reject NaN."""
    if column.dtype.kind != "f":
        return column.tolist()
    unknown = np.isnan(column) if column.ndim == 1 else np.isnan(column).any(axis=1)
    rows = zip(column.tolist(), unknown.tolist(), strict=True)
    return [None if absent else row for row, absent in rows]


def _rotation_matrices(table: FitsTable) -> np.ndarray:
    """(N, 24, 3, 3)"""
    if len(table) == 0:  # SciPy has no empty rotations
        return np.zeros((0, 24, 3, 3))
    rotations = Rotation.from_rotvec(pose_of(table).reshape(-1, 3).astype(np.float64))
    return np.asarray(rotations.as_matrix()).reshape(-1, 24, 3, 3)


def _weak_cameras(table: FitsTable, center: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """(N, 3) scale and shift of the crop that stand for transl and the camera."""
    crop = np.concatenate([center, BOX_UNIT * scale[:, None]], axis=1).astype(np.float64)
    tensors = (table.column_array("transl"), crop, table.intrinsics)
    cameras = transl_to_weak(*(torch.from_numpy(array).double() for array in tensors)).numpy()
    bad = np.flatnonzero(~np.isfinite(cameras).all(axis=1))
    if len(bad):
        raise InputError(
            f"fitted person {bad[0]} has no camera (fx, fy, cx, cy) or an empty box; EFT needs both"
        )
    return np.asarray(cameras)
