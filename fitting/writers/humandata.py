"""MMHuman3D's HumanData `.npz`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..readers.humandata import NUM_POINTS, convertible_sets, places
from ..skeleton import KEYPOINT_SETS, KeypointSet
from ..table import FitsTable
from .common import boxes_around, fitted_people, keypoints_in, quality_of, write_npz


def write_humandata(path: Path, table: FitsTable) -> int:
    """Write the fitted people as HumanData, without the pickled dictionary `smpl`.

    MMHuman3D keeps SMPL's parameters in a dictionary, which only pickle can write; here they are
    plain arrays `smpl_global_orient` and so on (docs/formats.md has the lines that put them in).

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
    N = len(fitted)
    s = _target_set(fitted)
    keypoints = keypoints_in(fitted, s)
    index = [found[0] for found in places(s)]
    points = np.zeros((N, NUM_POINTS, 3), dtype=np.float32)
    points[:, index] = keypoints
    mask = np.zeros(NUM_POINTS, dtype=np.uint8)
    mask[index] = 1
    boxes = boxes_around(fitted, keypoints)
    arrays = {
        "__key_strict__": np.array(False),
        "__temporal_len__": np.array(N),
        "__keypoints_compressed__": np.array(False),
        "config": np.array("fit-cli"),
        "image_path": fitted.column_array("image"),
        "bbox_xywh": np.concatenate([boxes, np.ones((N, 1), dtype=np.float32)], axis=1),
        "keypoints2d": points,
        "keypoints2d_mask": mask,
        "has_smpl": np.ones(N, dtype=np.uint8),
        "smpl_global_orient": fitted.column_array("global_orient"),
        "smpl_body_pose": fitted.column_array("body_pose").reshape(N, 23, 3),
        "smpl_betas": fitted.column_array("betas"),
        "smpl_transl": fitted.column_array("transl"),
        "focal_length": fitted.column_array("fx"),
        "image_width": fitted.column_array("width"),
        "image_height": fitted.column_array("height"),
        **quality_of(fitted),
    }
    write_npz(path, arrays)
    return N


def _target_set(table: FitsTable) -> KeypointSet:
    """The table's set, or else the one with a place in HumanData that takes most of its points."""
    names = np.unique(table.column_array("keypoint_set")).tolist()
    if len(names) == 1 and names[0] in convertible_sets():
        return KEYPOINT_SETS[names[0]]
    points = {p for name in names if name in KEYPOINT_SETS for p in KEYPOINT_SETS[name].points}
    candidates = [KEYPOINT_SETS[name] for name in convertible_sets()]
    return max(candidates, key=lambda s: (len(points & set(s.points)), -len(s)))
