"""Plain `.npz` files, arrays by name (docs/conventions.md)."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..files import InputError
from ..people import People, Problem, check_rows, index_within_image
from ..skeleton import keypoint_set
from .columns import as_texts
from .common import Reader, Request, load_arrays

_REQUIRED = ("keypoints_2d", "conf", "keypoint_set", "width", "height")
_OPTIONAL = ("image", "focal", "track")
ARRAYS = _REQUIRED + _OPTIONAL


def _recognises(request: Request) -> bool:
    return request.is_zip


def _read(request: Request) -> tuple[People, list[Problem]]:
    arrays, keys = load_arrays(request.path, ARRAYS)
    check_names(arrays, keys, request.path)
    check_arrays(arrays, request)
    image = image_names(arrays.get("image"), len(arrays["conf"]), request.path)
    people = people_of_arrays(
        arrays,
        keypoint_set=set_of_arrays(arrays, request),
        image=image,
        person=index_within_image(image),
        rows=np.arange(len(image)),
    )
    return check_rows(people, str(request.path))


READER = Reader(holds="an .npz with keypoints_2d and conf", recognises=_recognises, read=_read)


def image_names(column: np.ndarray | None, num_rows: int, path: Path) -> np.ndarray:
    """(N,) str, "" where there is no array of names."""
    names = [""] * num_rows if column is None else as_texts(column, path, "image")
    return np.array(names, dtype=np.str_)


def people_of_arrays(
    arrays: Mapping[str, np.ndarray],
    *,
    keypoint_set: str,
    image: np.ndarray,
    person: np.ndarray,
    rows: np.ndarray,
) -> People:
    """The people of N rows, not checked yet.

    Args:
        arrays: of the N rows, by name.
        keypoint_set: name of the set.
        image: (N,) names of pictures.
        person: (N,) index within the picture, of all rows of the file.
        rows: (N,) row numbers in the file.
    """
    return People(
        keypoint_set=keypoint_set,
        image=image,
        person=person,
        annotation_id=rows,
        width=arrays["width"],
        height=arrays["height"],
        keypoints_2d=arrays["keypoints_2d"],
        conf=arrays["conf"],
        focal=arrays.get("focal", np.full(len(rows), np.nan)),
        track=arrays.get("track"),
    )


def check_names(found: Collection[str], keys: Collection[str], path: Path) -> None:
    """See that no array is missing.

    Other names are let pass, unless they look like a misspelt one of ours.

    Args:
        found: those of `ARRAYS` that the file holds.
        keys: all names in the file.
        path: of the file.

    Raises:
        InputError: one is missing.
    """
    for name in ARRAYS:
        unknown = [key for key in keys if key not in ARRAYS]
        nearest = difflib.get_close_matches(name, unknown, n=1, cutoff=0.8)
        if name not in found and (nearest or name in _REQUIRED):
            hint = f"rename {nearest[0]}" if nearest else f"it holds {', '.join(keys) or 'nothing'}"
            raise InputError(f"{path} has no array {name}; {hint}")


def check_arrays(arrays: Mapping[str, Any], request: Request) -> None:
    """See that all arrays have the shapes and kinds of N people with P keypoints.

    Args:
        arrays: by name; whatever has a `shape` and a `dtype`.
        request: of the file.

    Raises:
        InputError: one has not.
    """
    shape = arrays["conf"].shape
    if len(shape) != 2:
        raise InputError(f"{request.path}: conf must be (N, P), got {shape}; one row a person")
    for name, array in arrays.items():
        expected = {"conf": shape, "keypoints_2d": (*shape, 2), "keypoint_set": ()}.get(
            name, shape[:1]
        )
        kinds = "U" if name in ("image", "keypoint_set") else "iuf"
        if array.shape != expected or array.dtype.kind not in kinds:
            words = "strings" if kinds == "U" else "numbers"
            raise InputError(
                f"{request.path}: {name} must be {expected} {words}, got {array.shape} "
                f"{array.dtype}; save it in that shape"
            )


def set_of_arrays(arrays: Mapping[str, Any], request: Request) -> str:
    """The keypoint set that the caller or the file names; InputError if P is not its number."""
    name, P = request.keypoint_set or _set_name(arrays, request), arrays["conf"].shape[1]
    if len(keypoint_set(name)) != P:
        raise InputError(
            f"{request.path} has {P} keypoints for each person, but {name} has "
            f"{len(keypoint_set(name))}; correct keypoint_set or pass --keypoint-set"
        )
    return name


def _set_name(arrays: Mapping[str, Any], request: Request) -> str:
    texts = as_texts(np.reshape(arrays["keypoint_set"], 1), request.path, "keypoint_set")
    try:
        return keypoint_set(texts[0]).name
    except ValueError as error:
        raise InputError(f"{request.path}: {error}") from error
