"""From the arrays of a file to `People`: for formats that hold columns rather than records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..files import InputError
from ..images import ImageError, read_size
from ..npz import holds_texts
from ..people import (
    UNSAFE_NAME_REASON,
    People,
    Problem,
    check_rows,
    index_within_image,
    is_safe_name,
)
from .common import Request


@dataclass(frozen=True, kw_only=True)
class Columns:
    """N people as arrays, as the readers of array formats find them.

    Attributes:
        keypoint_set: name of the set, of P keypoints.
        image: N names of pictures, or "" for none.
        keypoints: (N, P, 3) x, y in pixels and confidence.
        size: (N, 2) width and height in pixels.
        faults: reasons to leave rows out, by row.
        annotation_id: (N,); the row numbers where None.
        focal: (N,) pixels; unknown where None.
        track: (N,) or None.
    """

    keypoint_set: str
    image: Sequence[str]
    keypoints: np.ndarray
    size: np.ndarray
    faults: Mapping[int, str] = field(default_factory=dict)
    annotation_id: np.ndarray | None = None
    focal: np.ndarray | None = None
    track: np.ndarray | None = None


def collect_columns(columns: Columns, request: Request) -> tuple[People, list[Problem]]:
    """The good rows as people, and a problem for each other row, in order."""
    N, file = len(columns.keypoints), str(request.path)
    rows = np.array([row for row in range(N) if row not in columns.faults], dtype=np.int64)
    image = np.array(list(columns.image), dtype=np.str_)[rows]
    ids, focal, track = columns.annotation_id, columns.focal, columns.track
    with np.errstate(over="ignore"):  # a number too large becomes infinite, and is reported
        people = People(
            keypoint_set=columns.keypoint_set,
            image=image,
            person=index_within_image(image),
            annotation_id=rows if ids is None else ids[rows],
            width=columns.size[rows, 0],
            height=columns.size[rows, 1],
            keypoints_2d=columns.keypoints[rows, :, :2],
            conf=columns.keypoints[rows, :, 2],
            focal=np.full(len(rows), np.nan) if focal is None else focal[rows],
            track=None if track is None else track[rows],
        )
    problems = [Problem(file=file, row=row, reason=why) for row, why in columns.faults.items()]
    good, bad = check_rows(people, file, rows)
    return good, sorted([*problems, *bad], key=lambda problem: problem.row or 0)


def measure_pictures(images: Path, names: Sequence[str]) -> tuple[np.ndarray, dict[int, str]]:
    """Sizes of the pictures of N people, read once each.

    Args:
        images: folder of the pictures.
        names: N names from a stranger's file.

    Returns:
        (N, 2) width and height, zero where unknown; and why they are unknown, by row.
    """
    found: dict[str, tuple[int, int] | str] = {}
    size = np.zeros((len(names), 2), dtype=np.int64)
    faults = {}
    for row, name in enumerate(names):
        if name not in found:
            found[name] = _size_or_reason(images, name)
        measured = found[name]
        if isinstance(measured, str):
            faults[row] = measured
        else:
            size[row] = measured
    return size, faults


def _size_or_reason(images: Path, name: str) -> tuple[int, int] | str:
    if not name:
        return "the row names no picture; give its name"
    if not is_safe_name(name):
        return UNSAFE_NAME_REASON
    try:
        return read_size(images / name)
    except ImageError as error:
        return str(error)


def as_texts(array: np.ndarray, path: Path, name: str) -> list[str]:
    """The texts of an (N,) array from a file; InputError where it holds something else."""
    if array.ndim == 1 and array.dtype.kind == "S":
        return [text.decode("utf-8", "replace") for text in array.tolist()]
    if array.ndim == 1 and holds_texts(array):
        return [str(text) for text in array.tolist()]
    raise InputError(
        f"{path}: {name} must be (N,) texts, got {array.shape} {array.dtype}; save it so"
    )


def to_floats(array: np.ndarray, dtype: type[np.floating]) -> np.ndarray:
    """Numbers from a file, cast: too large ones become infinity, and NaNs may be of any kind."""
    with np.errstate(over="ignore", invalid="ignore"):
        return array.astype(dtype)


def as_numbers(
    array: np.ndarray, shape: tuple[int | None, ...], path: Path, name: str
) -> np.ndarray:
    """The array as float64, of a shape where None is any length; InputError for anything else."""
    fits = array.ndim == len(shape) and all(
        wanted in (None, found) for wanted, found in zip(shape, array.shape, strict=True)
    )
    if not fits or array.dtype.kind not in "iuf":
        wanted = ", ".join("N" if length is None else str(length) for length in shape)
        raise InputError(
            f"{path}: {name} must be ({wanted}) numbers, got {array.shape} {array.dtype}; save it "
            "in that shape"
        )
    return to_floats(array, np.float64)
