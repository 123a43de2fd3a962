"""SPIN's data set `.npz` (https://github.com/nkolot/SPIN, datasets/preprocess).

`imgname (N,)`, and `openpose (N, 25, 3)`, `part (N, 24, 3)` or both: x, y and confidence in pixels
of the whole picture, together the set `spin49`. The bodies in `pose` and `shape` are for `--init`.
"""

from __future__ import annotations

import numpy as np

from ..files import InputError
from ..people import People, Problem
from ..skeleton import keypoint_set
from .columns import Columns, as_numbers, as_texts, collect_columns, measure_pictures
from .common import Reader, Request, check_set, load_arrays, need_images

_PARTS = {"openpose": 25, "part": 24}  # in the order of spin49
# Ours, beside SPIN's: a file that has them needs no pictures (docs/formats.md).
_SIZE = ("width", "height")
_MAX_CONF = 1.2  # OpenPose's confidences come out slightly above 1


def _recognises(request: Request) -> bool:
    names = request.array_names
    return "imgname" in names and any(part in names for part in _PARTS)


def _read(request: Request) -> tuple[People, list[Problem]]:
    check_set(request, "spin49")
    arrays, keys = load_arrays(request.path, ["imgname", *_PARTS, *_SIZE, "focal"])
    if "imgname" not in arrays or not any(part in arrays for part in _PARTS):
        raise InputError(
            f"{request.path} must have imgname and openpose or part, it holds "
            f"{', '.join(keys) or 'nothing'}; give a data set file of SPIN"
        )
    names = as_texts(arrays["imgname"], request.path, "imgname")
    keypoints = _keypoints(arrays, len(names), request)
    size, faults = sizes_of(arrays, names, request, "SPIN's .npz", _SIZE)
    focal = arrays.get("focal", np.full(len(names), np.nan))
    columns = Columns(
        keypoint_set="spin49",
        image=names,
        keypoints=keypoints,
        size=size,
        faults=faults,
        focal=as_numbers(focal, (len(names),), request.path, "focal"),
    )
    return collect_columns(columns, request)


READER = Reader(holds="SPIN's .npz with imgname and part", recognises=_recognises, read=_read)


def _keypoints(arrays: dict[str, np.ndarray], num_rows: int, request: Request) -> np.ndarray:
    """(N, 49, 3) x, y and confidence; zeros for a part that the file lacks."""
    columns = []
    for part, count in _PARTS.items():
        array = arrays.get(part, np.zeros((num_rows, count, 3)))
        columns.append(as_numbers(array, (num_rows, count, 3), request.path, part))
    keypoints = np.concatenate(columns, axis=1)
    assert keypoints.shape[1] == len(keypoint_set("spin49"))
    conf = keypoints[..., 2]
    keypoints[..., 2] = np.where((conf > 1) & (conf <= _MAX_CONF), 1, conf)
    return keypoints


def sizes_of(
    arrays: dict[str, np.ndarray],
    names: list[str],
    request: Request,
    what: str,
    keys: tuple[str, str],
) -> tuple[np.ndarray, dict[int, str]]:
    """(N, 2) sizes of pictures: what the file says or else the pictures; and what is wrong."""
    if all(key in arrays for key in keys):
        sides = [as_numbers(arrays[key], (len(names),), request.path, key) for key in keys]
        return np.stack(sides, axis=1), {}
    return measure_pictures(need_images(request, what), names)
