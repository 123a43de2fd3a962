"""MPII Human Pose's annotations, `mpii_human_pose_v1_u12_1.mat` (Andriluka et al., CVPR 2014).

One structure `RELEASE`: `annolist(i).image.name`, people `annolist(i).annorect(k)`, their points
`annopoints.point(j)` with `id` 0 to 15, `x` and `y`, and `img_train(i)`. The keypoints of the test
pictures are withheld, so these are passed over.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..files import InputError
from ..people import People, Problem
from .columns import Columns, collect_columns, measure_pictures
from .common import Reader, Request, check_set, need_images
from .matlab import (
    field_of,
    first_of,
    is_matlab,
    items,
    list_variables,
    load_variable,
    number_of,
    text_of,
)

_VARIABLE = "RELEASE"
_NUM_POINTS = 16
_FIRST_PIXEL = 1  # MATLAB counts pixels from 1


def _recognises(request: Request) -> bool:
    return is_matlab(request) and _VARIABLE in list_variables(request.path)


def _read(request: Request) -> tuple[People, list[Problem]]:
    images = need_images(request, "MPII's annotation file")
    check_set(request, "mpii16")
    names: list[str] = []
    rows: list[np.ndarray] = []
    faults: dict[int, str] = {}
    for name, person in _people(request):
        try:
            keypoints, fault = _keypoints(person)
        except InputError as error:
            keypoints, fault = np.zeros((_NUM_POINTS, 3)), str(error)
        if fault:
            faults[len(rows)] = fault
        names.append(name)
        rows.append(keypoints)
    size, unmeasured = measure_pictures(images, names)
    columns = Columns(
        keypoint_set="mpii16",
        image=names,
        keypoints=np.array(rows).reshape(-1, _NUM_POINTS, 3),
        size=size,
        faults=unmeasured | faults,
    )
    return collect_columns(columns, request)


READER = Reader(holds="MPII's RELEASE (.mat)", recognises=_recognises, read=_read)


def _people(request: Request) -> list[tuple[str, Any]]:
    """Name of the picture and record of each person in the training pictures."""
    variables = list_variables(request.path)
    if _VARIABLE not in variables:
        raise InputError(
            f"{request.path} has no variable {_VARIABLE}, it holds "
            f"{', '.join(variables) or 'nothing'}; give mpii_human_pose_v1_u12_1.mat"
        )
    release = first_of(load_variable(request.path, _VARIABLE))
    annolist = items(field_of(release, "annolist"))
    train = items(field_of(release, "img_train"))
    if not annolist or len(train) != len(annolist):
        raise InputError(
            f"{request.path}: {_VARIABLE} must hold annolist and as many img_train, got "
            f"{len(annolist)} and {len(train)}; download the file again"
        )
    found = []
    for record, in_training in zip(annolist, train, strict=True):
        if in_training == 1:
            name = text_of(field_of(first_of(field_of(record, "image")), "name"))
            found += [(name, person) for person in items(field_of(record, "annorect"))]
    return found


def _keypoints(person: Any) -> tuple[np.ndarray, str | None]:
    """(16, 3) x, y and confidence of a person, and what is wrong with them.

    A point that is there was annotated, occluded (`is_visible` 0) or not. A person may have none.
    """
    keypoints = np.zeros((_NUM_POINTS, 3))
    for point in items(field_of(first_of(field_of(person, "annopoints")), "point")):
        index = number_of(field_of(point, "id"))
        if index not in range(_NUM_POINTS):
            return keypoints, f"a keypoint has the id {index:g}, expected 0 to 15; correct it"
        x, y = number_of(field_of(point, "x")), number_of(field_of(point, "y"))
        keypoints[int(index)] = (x - _FIRST_PIXEL, y - _FIRST_PIXEL, 1)
    return keypoints, None
