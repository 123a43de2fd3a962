"""3DPW's sequence files, `.pkl` (von Marcard et al., ECCV 2018), read without running anything.

`poses2d` holds for each person (F, 3, 18): x, y and confidence of OpenPose's COCO keypoints in each
of F frames; `cam_intrinsics` is the true camera. Frames whose pose is not aligned with the picture
(`campose_valid` 0) are left out, as in 3DPW's protocol. A person is a track.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from ..files import InputError
from ..people import MAX_PIXELS, People, Problem, is_safe_name
from ..skeleton import keypoint_set
from ..unpickler import load_pickle
from .columns import Columns, as_numbers, collect_columns, measure_pictures
from .common import Reader, Request, check_set, first_line, list_keys, shown
from .openpose import COCO18

_REQUIRED = ("sequence", "poses2d", "cam_intrinsics")
_PICKLE = re.compile(rb"\x80[\x02-\x05]|\(dp")  # binary protocols; a text one of a dictionary
_FOLDERS = ("imageFiles/", "")  # of the pictures: within the data set's folder, or that itself
# Every sequence's principal point is the picture's centre, where a fit has it; another one, as of a
# cropped picture, would be lost. As a part of the picture's side.
_MAX_OFF_CENTRE = 0.02


def _recognises(request: Request) -> bool:
    return _PICKLE.match(request.start) is not None


def _read(request: Request) -> tuple[People, list[Problem]]:
    check_set(request, "coco17")
    content = _content(request.path)
    focal, principal = _camera(content["cam_intrinsics"], request.path)
    poses = _per_person(content["poses2d"], request.path)
    valid = _valid(content.get("campose_valid"), poses, request.path)
    prefix = _picture_prefix(content["sequence"], request)
    person, frame = np.nonzero(valid)
    order = np.lexsort((person, frame))  # as pictures follow each other
    person, frame = person[order], frame[order]
    names = [f"{prefix}{i:05d}.jpg" for i in frame.tolist()]
    size = _size(principal, names[0], request) if names else np.zeros(2)
    triplets = np.stack(poses)[person, frame].transpose(0, 2, 1)
    columns = Columns(
        keypoint_set="coco17",
        image=names,
        keypoints=triplets[:, [COCO18.index(n) for n in keypoint_set("coco17").names]],
        size=np.tile(size, (len(frame), 1)),
        focal=np.full(len(frame), focal),
        track=person,
    )
    return collect_columns(columns, request)


READER = Reader(holds="3DPW's .pkl with poses2d", recognises=_recognises, read=_read)


def _content(path: Path) -> dict[str, Any]:
    try:
        content, keys = load_pickle(path, (*_REQUIRED, "campose_valid"))
    except (ValueError, OSError) as error:
        raise InputError(first_line(error)) from error
    missing = [key for key in _REQUIRED if key not in content]
    if missing:
        raise InputError(
            f"{path} has no {missing[0]}, it holds {list_keys(dict.fromkeys(keys))}; give a "
            "sequence file of 3DPW"
        )
    return content


def _camera(intrinsics: Any, path: Path) -> tuple[float, np.ndarray]:
    """Focal length, and (2,) principal point, in pixels."""
    K = as_numbers(_array(intrinsics), (3, 3), path, "cam_intrinsics")
    lengths = K[[0, 1, 0, 1], [0, 1, 2, 2]]
    if not ((lengths > 0) & (lengths <= MAX_PIXELS)).all():  # False for NaN, too
        raise InputError(
            f"{path}: cam_intrinsics must be [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] in pixels; give "
            "the file as published"
        )
    return float(np.sqrt(K[0, 0] * K[1, 1])), K[:2, 2]


def _size(principal: np.ndarray, name: str, request: Request) -> np.ndarray:
    """(2,) width and height: of the picture where it is there, or twice the principal point."""
    size = np.round(2 * principal)
    if request.images is not None and (request.images / name).is_file():
        measured, faults = measure_pictures(request.images, [name])
        if faults:
            raise InputError(f"{request.path}: {faults[0]}")
        if (np.abs(measured[0] - size) > _MAX_OFF_CENTRE * measured[0]).any():
            raise InputError(
                f"{request.path}: the principal point {principal.tolist()} is not the centre of "
                f"{name}, {measured[0].tolist()} pixels; give the pictures as published"
            )
        size = measured[0]
    return size


def _per_person(poses2d: Any, path: Path) -> list[np.ndarray]:
    """(F, 3, 18) for each person."""
    arrays = _arrays(poses2d)
    if not arrays:
        raise InputError(f"{path}: poses2d must be a list of arrays; give the file as published")
    num_frames = arrays[0].shape[0] if arrays[0].ndim else 0
    return [
        as_numbers(array, (num_frames, 3, len(COCO18)), path, f"poses2d of person {i}")
        for i, array in enumerate(arrays)
    ]


def _valid(flags: Any, poses: list[np.ndarray], path: Path) -> np.ndarray:
    """(persons, F) bool, whether a person's pose in a frame is aligned with the picture."""
    num_frames = len(poses[0])
    if flags is None:
        return np.ones((len(poses), num_frames), dtype=bool)
    arrays = _arrays(flags)
    if len(arrays) != len(poses):
        raise InputError(f"{path}: campose_valid must have one array for each person of poses2d")
    rows = []
    for i, array in enumerate(arrays):
        numbers = array.astype(np.int64) if array.dtype.kind == "b" else array
        rows.append(as_numbers(numbers, (num_frames,), path, f"campose_valid of person {i}") > 0)
    return np.stack(rows)


def _picture_prefix(sequence: Any, request: Request) -> str:
    """What stands before the number in the names of a sequence's pictures."""
    if not isinstance(sequence, str) or not is_safe_name(sequence) or not sequence:
        got = shown(sequence) if isinstance(sequence, str) else type(sequence).__name__
        raise InputError(f"{request.path}: sequence must be a name of a folder, got {got}")
    for folder in _FOLDERS:
        if request.images is not None and (request.images / folder / sequence).is_dir():
            return f"{folder}{sequence}/image_"
    return f"{sequence}/image_"


def _arrays(value: Any) -> list[np.ndarray]:
    """The items of a list, or of an array, as arrays; none of anything else."""
    if isinstance(value, np.ndarray):
        value = list(value) if value.ndim else []
    return [_array(item) for item in value] if isinstance(value, list) else []


def _array(value: Any) -> np.ndarray:
    """An array as it is; anything else as one that holds no numbers."""
    return value if isinstance(value, np.ndarray) else np.array(None)
