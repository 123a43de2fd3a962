"""Several calibrated cameras that see the same people: their file, and whose row is whose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch

from .files import InputError
from .people import People
from .problem import FitProblem, View
from .readers.common import load_json

_SHAPES = {"intrinsics": (3, 3), "rotation": (3, 3), "translation": (3,)}


@dataclass(frozen=True, kw_only=True)
class RigCamera:
    """One camera of a rig.

    Attributes:
        name: for messages.
        keypoints: file or folder of what it saw; None for the first camera.
        intrinsics: (3, 3) pixels.
        rotation: (3, 3), translation: (3,) metres: a point X of the world is at
            rotation X + translation in the camera's frame.
    """

    name: str
    keypoints: Path | None
    intrinsics: np.ndarray
    rotation: np.ndarray
    translation: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Rig:
    """Calibrated cameras and what the others saw of the N people of the first.

    Attributes:
        cameras: of which the first is the one that the fits are in the frame of.
        seen: (N people) for each of the others, row by row; conf 0 for whom it did not see.
    """

    cameras: Sequence[RigCamera]
    seen: Sequence[People]

    def attach(self, problem: FitProblem, rows: np.ndarray) -> FitProblem:
        """The problem of the people at `rows` (B,), with the rig's cameras and all it saw."""
        first, B = self.cameras[0], len(problem)

        def everyone(array: np.ndarray) -> torch.Tensor:
            return torch.as_tensor(array).to(problem.conf).expand(B, *array.shape)

        views = []
        for camera, people in zip(self.cameras[1:], self.seen, strict=True):
            some = people.select(rows)
            rotation = camera.rotation @ first.rotation.T
            view = FitProblem(
                keypoint_set=problem.keypoint_set,
                keypoints_2d=torch.as_tensor(some.keypoints_2d).to(problem.conf),
                conf=torch.as_tensor(some.conf).to(problem.conf),
                intrinsics=everyone(camera.intrinsics),
                image_size=torch.as_tensor(np.stack([some.width, some.height], 1)).to(problem.conf),
            )
            views.append(
                View(
                    problem=view,
                    rotation=everyone(rotation),
                    translation=everyone(camera.translation - rotation @ first.translation),
                )
            )
        return replace(problem, intrinsics=everyone(first.intrinsics), views=tuple(views))


def read_cameras(path: Path) -> list[RigCamera]:
    """Read a rig's calibration (docs/conventions.md): JSON with a list `cameras`.

    Raises:
        InputError: it is no such file; one sentence with the camera and the fix.
    """
    document = load_json(path)
    entries = document.get("cameras") if isinstance(document, dict) else None
    if not isinstance(entries, list) or len(entries) < 2:
        raise InputError(
            f"{path}: expected an object with a list `cameras` of at least two; the first is that "
            "of INPUT"
        )
    return [_camera(path, row, entry) for row, entry in enumerate(entries)]


def _camera(path: Path, row: int, entry: Any) -> RigCamera:
    where = f"{path}, camera {row}"
    if not isinstance(entry, dict):
        raise InputError(f"{where}: expected an object, got {type(entry).__name__}")
    arrays = {}
    for name, shape in _SHAPES.items():
        try:
            arrays[name] = np.array(entry.get(name), dtype=float)
        except (TypeError, ValueError):
            arrays[name] = np.empty(0)
        if arrays[name].shape != shape or not np.isfinite(arrays[name]).all():
            raise InputError(f"{where}: {name} must be {shape} finite numbers")
    K, R = arrays["intrinsics"], arrays["rotation"]
    if not np.allclose(R @ R.T, np.eye(3), atol=1e-3) or np.linalg.det(R) < 0:
        raise InputError(f"{where}: rotation is none (R R^T is not the identity); give a rotation")
    skewed = not np.allclose([K[0, 1], K[1, 0], *K[2]], [0, 0, 0, 0, 1])
    if skewed or K[0, 0] <= 0 or K[1, 1] <= 0:
        raise InputError(
            f"{where}: intrinsics must be [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]; undistort the "
            "keypoints beforehand"
        )
    keypoints = entry.get("keypoints") if row > 0 else None  # the first one's are INPUT
    if row > 0 and not isinstance(keypoints, str):
        raise InputError(f"{where}: give the file of its keypoints as `keypoints`")
    return RigCamera(
        name=str(entry.get("name", row)),
        keypoints=None if keypoints is None else path.parent / keypoints,
        **arrays,
    )


def match_views(people: People, other: People, *, name: str) -> People:
    """What another camera saw of the N people, in their order; conf 0 for whom it did not see.

    People are the same who have the same index in pictures of the same name but for folder and
    ending, or the same row where no pictures are named.

    Args:
        people: of the first camera.
        other: of the other, in the same keypoint set.
        name: of the other camera, for messages.

    Raises:
        InputError: the sets differ, or people cannot be matched.
    """
    if other.keypoint_set != people.keypoint_set:
        raise InputError(
            f"camera {name}: its keypoints are {other.keypoint_set}, those of the first camera "
            f"{people.keypoint_set}; give all cameras the same set"
        )
    rows = _rows_of(people, other)
    if rows is None:
        raise InputError(
            f"camera {name}: none of its {len(other)} people is in a picture, and at an index, of "
            f"the {len(people)} people of the first camera; name the pictures of one moment alike"
        )
    found = other.select(rows)
    return replace(
        found,
        image=people.image,
        person=people.person,
        conf=np.where(rows[:, None] >= 0, found.conf, 0),
    )


def _rows_of(people: People, other: People) -> np.ndarray | None:
    """(N,) rows of `other`, -1 for none; None if nobody matches."""
    if not ((people.image != "").any() and (other.image != "").any()):
        same = len(people) == len(other) > 0
        return np.arange(len(people)) if same else None
    row_of = {key: row for row, key in enumerate(_keys(other))}
    rows = np.array([row_of.get(key, -1) for key in _keys(people)], dtype=np.int64)
    return rows if (rows >= 0).any() else None


def _keys(people: People) -> list[tuple[str, int]]:
    stems = [PurePosixPath(name.replace("\\", "/")).stem for name in people.image.tolist()]
    return list(zip(stems, people.person.tolist(), strict=True))
