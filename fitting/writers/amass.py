"""AMASS-like `.npz`: one motion of one person each (https://amass.is.tue.mpg.de)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from ..body import Body
from ..files import short_name
from ..people import NO_TRACK
from ..table import FitsTable
from ..tracks import DEFAULT_FPS, check_fps, number_frames
from .common import fitted_people, pose_of, quality_of, write_npz
from .meshes import check_body

# AMASS's world has z up: the camera's x right, y down, z forward become x right, y forward, z up.
CAMERA_TO_Z_UP = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
_NUM_ANGLES = 156  # of SMPL-H's 52 joints
_NUM_SHARED = 66  # the root and 21 joints that SMPL and SMPL-H share
_NUM_BETAS = 16


def write_amass(
    folder: Path, table: FitsTable, body: Body, *, fps: float = DEFAULT_FPS
) -> tuple[int, int]:
    """Write each track as a motion, and each person without a track as a motion of one frame.

    Args:
        folder: created where absent; the files are TRACK or ROW_IMAGE_PERSON.npz.
        table: fits; rows without one are left out.
        body: the one they were made with, which says where the pelvis rests.
        fps: pictures in a second.

    Returns:
        The number of people written, and of files.

    Raises:
        InputError: the fits are of another body, or fps is no rate.
        OutputError: a file cannot be written.
    """
    check_fps(fps)
    check_body(table, body)
    folder.mkdir(parents=True, exist_ok=True)
    fitted = fitted_people(table)
    poses, pelvis = _turned(fitted, body)
    betas = fitted.column_array("betas").astype(np.float64)
    quality = quality_of(fitted)
    _, frame = number_frames(fitted.column_array("image"))
    motions = _rows_of_motions(fitted, np.flatnonzero(table.has_parameters))
    for name, members in motions.items():
        rows = members[np.argsort(frame[members], kind="stable")]
        shape = betas[rows].mean(axis=0)  # a motion has one; a fit of a track has the same for all
        arrays = {
            "poses": poses[rows],
            "trans": pelvis[rows] - _rest_pelvis(shape[None], body),
            "betas": np.pad(shape, (0, _NUM_BETAS - len(shape))),
            "frame": frame[rows],
            "gender": np.array("neutral"),
            "mocap_framerate": np.array(float(fps)),
            **{name: column[rows] for name, column in quality.items()},
        }
        write_npz(folder / f"{name}.npz", arrays)
    return len(fitted), len(motions)


def _rows_of_motions(fitted: FitsTable, numbers: np.ndarray) -> dict[str, np.ndarray]:
    """Rows of each motion by the name of its file; `numbers` are those in the whole table."""
    track = fitted.column_array("track")
    image, person = fitted.column_array("image"), fitted.column_array("person")
    rows: dict[str, list[int]] = {}
    for row in range(len(fitted)):
        name = f"track_{track[row]:06d}"
        if track[row] == NO_TRACK:
            stem = short_name(Path(image[row]).stem) or "no-picture"
            name = f"{numbers[row]:06d}_{stem}_{person[row]}"
        rows.setdefault(name, []).append(row)
    return {name: np.array(members) for name, members in rows.items()}


def _turned(fitted: FitsTable, body: Body) -> tuple[np.ndarray, np.ndarray]:
    """Poses (N, 156) and positions of the pelvis (N, 3), z up.

    A body is R (X - J) + J + transl with its pelvis J at rest; turned by Q, its rotation is Q R,
    and its pelvis is at Q (J + transl).
    """
    poses = np.zeros((len(fitted), _NUM_ANGLES))
    poses[:, :_NUM_SHARED] = pose_of(fitted)[:, :_NUM_SHARED]
    if len(fitted):  # SciPy has no empty rotations
        turned = Rotation.from_matrix(CAMERA_TO_Z_UP) * Rotation.from_rotvec(poses[:, :3])
        poses[:, :3] = turned.as_rotvec()
    pelvis = _rest_pelvis(fitted.column_array("betas"), body) + fitted.column_array("transl")
    return poses, pelvis @ CAMERA_TO_Z_UP.T


def _rest_pelvis(betas: np.ndarray, body: Body) -> np.ndarray:
    """(N, 3) metres, where the pelvis of bodies of (N, 10) betas rests."""
    with torch.no_grad():
        joints = body.rest_joints(torch.from_numpy(betas).to(body.v_template))
    return np.asarray(joints[:, 0].cpu().numpy(), dtype=np.float64)
