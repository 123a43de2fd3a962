"""Fits tables as a source of keypoints, to fit the same people again in another way."""

from __future__ import annotations

import numpy as np

from ..files import InputError
from ..people import NO_TRACK, People, Problem, check_rows
from ..skeleton import keypoint_set
from ..table import FILE_NAME, PARTS_FOLDER, FitsTable, read_fits
from .common import Reader, Request, check_set, first_line, shown

_MAGIC = b"PAR1"


def _recognises(request: Request) -> bool:
    path = request.path
    if path.is_dir():
        return (
            (path / FILE_NAME).is_file()
            or any(path.glob("part-*.parquet"))
            or any((path / PARTS_FOLDER).glob("part-*.parquet"))
        )
    return request.start.startswith(_MAGIC)


def _read(request: Request) -> tuple[People, list[Problem]]:
    try:
        return check_rows(people_of_table(read_fits(request.path), request), str(request.path))
    except InputError:
        raise
    except Exception as error:  # a damaged file can raise nearly anything
        raise InputError(
            f"{request.path} cannot be read as Parquet ({first_line(error)}); run fit-cli fit again"
        ) from error


READER = Reader(holds="a fits table (.parquet or its folder)", recognises=_recognises, read=_read)


def people_of_table(table: FitsTable, request: Request) -> People:
    """The people of some rows of the table that a request names, not checked yet."""
    name = _set_name(table, request)
    triplets = _triplets(table, len(keypoint_set(name)), request)
    track = table.column_array("track")
    return People(
        keypoint_set=name,
        image=table.column_array("image"),
        person=table.column_array("person"),
        annotation_id=table.column_array("annotation_id"),
        width=table.column_array("width"),
        height=table.column_array("height"),
        keypoints_2d=triplets[..., :2],
        conf=triplets[..., 2],
        focal=table.column_array("fx"),
        track=track if (track != NO_TRACK).any() else None,
    )


def _set_name(table: FitsTable, request: Request) -> str:
    names = sorted(set(table.column_array("keypoint_set").tolist()))
    if len(names) > 1:
        raise InputError(
            f"{request.path} has keypoints of several sets ({', '.join(map(shown, names))}); give "
            "a table of one set"
        )
    name = names[0] if names else request.keypoint_set or "coco17"
    check_set(request, name)
    try:
        return keypoint_set(name).name
    except ValueError as error:
        raise InputError(f"{request.path}: {error}") from error


def _triplets(table: FitsTable, num_points: int, request: Request) -> np.ndarray:
    """(N, P, 3) x, y and confidence."""
    if len(table) == 0:
        return np.zeros((0, num_points, 3), dtype=np.float32)
    try:
        numbers = table.column_array("keypoints_2d")
    except ValueError as error:
        raise InputError(f"{request.path}: {error}") from error
    if numbers.shape[1] != 3 * num_points:
        raise InputError(
            f"{request.path}: keypoints_2d has {numbers.shape[1]} numbers for each person, "
            f"expected 3 x {num_points}; give a fits table of fit-cli fit"
        )
    return numbers.reshape(-1, num_points, 3)
