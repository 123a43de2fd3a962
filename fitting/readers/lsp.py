"""`joints.mat` of Leeds Sports Pose and of its extended training set.

LSP (Johnson and Everingham, BMVC 2010) holds `joints` (3, 14, N), all points annotated: the third
row says which are occluded, and SPIN counts them all. LSPET (CVPR 2011) holds (14, 3, N); there the
third column is 0 for points that nobody could place.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ..files import InputError
from ..images import list_images
from ..people import People, Problem
from .columns import Columns, collect_columns, measure_pictures, to_floats
from .common import Reader, Request, check_set, need_images
from .matlab import is_matlab, list_variables, load_variable

_VARIABLE = "joints"
_NUM_POINTS = 14
_PICTURE = re.compile(r"im(\d{1,9})", re.ASCII)  # im0001.jpg in LSP, im00001.jpg or .png in LSPET
_FOLDER = "images"  # of the pictures, within that of the data set


def _recognises(request: Request) -> bool:
    return is_matlab(request) and _VARIABLE in list_variables(request.path)


def _read(request: Request) -> tuple[People, list[Problem]]:
    check_set(request, "lsp14")
    images = need_images(request, "LSP's joints.mat")
    keypoints = _keypoints(request.path)
    names, faults = _names(images, len(keypoints))
    size, unmeasured = measure_pictures(images, names)
    columns = Columns(
        keypoint_set="lsp14",
        image=names,
        keypoints=keypoints,
        size=size,
        faults=unmeasured | faults,
    )
    return collect_columns(columns, request)


READER = Reader(holds="LSP's joints.mat", recognises=_recognises, read=_read)


def _keypoints(path: Path) -> np.ndarray:
    """(N, 14, 3) x, y and confidence."""
    variables = list_variables(path)
    if _VARIABLE not in variables:
        raise InputError(
            f"{path} has no variable {_VARIABLE}, it holds {', '.join(variables) or 'nothing'}; "
            "give joints.mat of LSP or LSPET"
        )
    shape = variables[_VARIABLE]
    is_lsp = shape[:2] == (3, _NUM_POINTS)
    if len(shape) == 2:  # MATLAB drops the last axis of one picture
        shape = (*shape, 1)
    if len(shape) != 3 or shape[:2] not in ((3, _NUM_POINTS), (_NUM_POINTS, 3)):
        raise InputError(
            f"{path}: {_VARIABLE} must be (3, 14, N) as in LSP or (14, 3, N) as in LSPET, got "
            f"{shape}; give joints.mat of one of them"
        )
    joints = load_variable(path, _VARIABLE)
    if not isinstance(joints, np.ndarray):
        raise InputError(f"{path}: {_VARIABLE} must hold numbers; give joints.mat of LSP or LSPET")
    axes = (2, 1, 0) if is_lsp else (2, 0, 1)
    keypoints = to_floats(joints.reshape(shape), np.float64).transpose(axes)
    if is_lsp:
        keypoints[..., 2] = np.isfinite(keypoints[..., :2]).all(axis=-1)
    return keypoints


def _numbered(folder: Path) -> dict[int, str]:
    """Names of LSP's pictures in a folder by their number."""
    names = [path.name for path in list_images(folder)]
    return {int(match[1]): name for name in names if (match := _PICTURE.match(name))}


def _names(images: Path, num_rows: int) -> tuple[list[str], dict[int, str]]:
    """The picture of each row, and why a row has none.

    Row i is of picture i + 1, or of the i-th one where there are as many pictures as rows: the
    high-resolution LSPET leaves pictures and rows out alike.
    """
    numbered = _numbered(images)
    if not numbered and (images / _FOLDER).is_dir():
        numbered = {i: f"{_FOLDER}/{name}" for i, name in _numbered(images / _FOLDER).items()}
    if not numbered:
        raise InputError(f"{images} has no pictures im0001.* and so on; give the data set's folder")
    if len(numbered) == num_rows:
        return [numbered[number] for number in sorted(numbered)], {}
    names = [numbered.get(row + 1, "") for row in range(num_rows)]
    missing = {row: f"there is no picture im{row + 1:04d}.* in {images}; add it"
               for row, name in enumerate(names) if not name}  # fmt: skip
    return names, missing
