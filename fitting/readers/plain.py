"""Plain `.npz` files, arrays by name (docs/conventions.md)."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..files import InputError
from ..people import People, Problem, check_rows, index_within_image
from ..skeleton import keypoint_set
from .columns import as_texts
from .common import Reader, Request, load_arrays

_REQUIRED = ("keypoints_2d", "conf", "keypoint_set", "width", "height")
_OPTIONAL = ("image", "focal", "track")


def _recognises(request: Request) -> bool:
    return request.is_zip


def _read(request: Request) -> tuple[People, list[Problem]]:
    arrays = _known_arrays(request.path)
    N, P = _shape(arrays, request)
    name = request.keypoint_set or _set_name(arrays, request)
    if len(keypoint_set(name)) != P:
        raise InputError(
            f"{request.path} has {P} keypoints for each person, but {name} has "
            f"{len(keypoint_set(name))}; correct keypoint_set or pass --keypoint-set"
        )
    image = np.array(
        as_texts(arrays["image"], request.path, "image") if "image" in arrays else [""] * N,
        dtype=np.str_,
    )
    people = People(
        keypoint_set=name,
        image=image,
        person=index_within_image(image),
        annotation_id=np.arange(N),
        width=arrays["width"],
        height=arrays["height"],
        keypoints_2d=arrays["keypoints_2d"],
        conf=arrays["conf"],
        focal=arrays.get("focal", np.full(N, np.nan)),
        track=arrays.get("track"),
    )
    return check_rows(people, str(request.path))


READER = Reader(holds="an .npz with keypoints_2d and conf", recognises=_recognises, read=_read)


def _known_arrays(path: Path) -> dict[str, np.ndarray]:
    """Arrays by name; other names are let pass, unless they look like a misspelt one of ours."""
    names = _REQUIRED + _OPTIONAL
    arrays, keys = load_arrays(path, names)
    for name in names:
        unknown = [key for key in keys if key not in names]
        nearest = difflib.get_close_matches(name, unknown, n=1, cutoff=0.8)
        if name not in arrays and (nearest or name in _REQUIRED):
            hint = f"rename {nearest[0]}" if nearest else f"it holds {', '.join(keys) or 'nothing'}"
            raise InputError(f"{path} has no array {name}; {hint}")
    return arrays


def _shape(arrays: Mapping[str, np.ndarray], request: Request) -> tuple[int, int]:
    """N and P, with all arrays checked against them."""
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
    return shape[0], shape[1]


def _set_name(arrays: Mapping[str, np.ndarray], request: Request) -> str:
    try:
        return keypoint_set(str(arrays["keypoint_set"])).name
    except ValueError as error:
        raise InputError(f"{request.path}: {error}") from error
