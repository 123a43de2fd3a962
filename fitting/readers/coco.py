"""COCO person keypoints (https://cocodataset.org/#format-data), COCO-WholeBody, and results."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from ..files import InputError
from ..images import list_images
from ..people import UNSAFE_NAME_REASON, People, Problem, is_safe_name
from ..skeleton import KEYPOINT_SETS, keypoint_set
from .common import (
    Entry,
    Picture,
    Reader,
    Request,
    RowError,
    collect_people,
    list_keys,
    measure_picture,
    shown,
    stack_triplets,
    usual_count,
)

_NUM_FEET = 6  # COCO-WholeBody's toes and heels, which follow the 17 body keypoints
_NUM_WHOLEBODY = 133
_SETS = {17: "coco17", 23: "coco_wholebody", _NUM_WHOLEBODY: "coco_wholebody"}


def _recognises(request: Request) -> bool:
    if request.is_json and isinstance(request.document, list):
        return True
    return "annotations" in request.top_level


def _read(request: Request) -> tuple[People, list[Problem]]:
    document = request.document
    results = isinstance(document, list)
    annotations = document if results else document.get("annotations")
    if not isinstance(annotations, list):
        raise InputError(
            f"{request.path} has no list of annotations, its top level holds "
            f"{list_keys(document)}; give COCO person keypoints, or name another --keypoint-format"
        )
    pictures = _ResultPictures(request) if results else _ListedPictures(document, request)
    header: Mapping[str, Any] = {} if results else document
    entries, problems = _entries(annotations, header, pictures, request)
    name = request.keypoint_set or _set_name(entries, header, request)
    num_points = len(keypoint_set(name))
    if name in _SETS.values():  # WholeBody's face and hands follow the body and feet
        entries = [
            e._replace(keypoints=e.keypoints[: 3 * num_points])
            if len(e.keypoints) == 3 * _NUM_WHOLEBODY
            else e
            for e in entries
        ]
    entries, triplets, bad = stack_triplets(entries, num_points, name)
    conf = _confidences(triplets[..., 2])
    return collect_people(name, entries, triplets[..., :2], conf, problems + bad)


READER = Reader(holds="COCO's images and annotations", recognises=_recognises, read=_read)


def _entries(
    annotations: list[Any],
    header: Mapping[str, Any],
    pictures: _ListedPictures | _ResultPictures,
    request: Request,
) -> tuple[list[Entry], list[Problem]]:
    """The annotations of people, those that cannot be used as problems."""
    persons = _person_categories(header)
    records = [a if isinstance(a, dict) else {} for a in annotations]
    has_ids = any("id" in record for record in records)
    has_feet = any("foot_kpts" in record for record in records)
    entries: list[Entry] = []
    problems: list[Problem] = []
    known_ids: set[int] = set()
    for row, record in enumerate(records):
        if persons and record.get("category_id", persons[0]) not in persons:
            continue
        try:
            annotation_id = _annotation_id(record, known_ids) if has_ids else row
            keypoints = _keypoints(record, has_feet=has_feet)
            picture = pictures.find(record.get("image_id"))
        except RowError as error:
            problems.append(Problem(file=str(request.path), row=row, reason=str(error)))
            continue
        known_ids.add(annotation_id)
        entries.append(Entry(str(request.path), row, picture, annotation_id, keypoints))
    return entries, problems


def _person_categories(header: Mapping[str, Any]) -> list[Any]:
    """Ids of the categories called person; empty where all annotations are of people."""
    return [c.get("id") for c in _categories(header) if c.get("name") == "person"]


def _categories(header: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    categories = header.get("categories")
    if not isinstance(categories, list):
        return []
    return [category for category in categories if isinstance(category, dict)]


def _annotation_id(record: Mapping[str, Any], known: Collection[int]) -> int:
    annotation_id = record.get("id")
    if type(annotation_id) is not int or not _is_id(annotation_id):
        raise RowError("the annotation has no integer id; give one to every annotation or to none")
    if annotation_id in known:
        raise RowError(f"annotation id {annotation_id} occurs before; give every one its own")
    return annotation_id


def _keypoints(record: Mapping[str, Any], *, has_feet: bool) -> list[Any]:
    """The list of numbers, with COCO-WholeBody's feet appended."""
    keypoints = record.get("keypoints")
    if not isinstance(keypoints, list):
        raise RowError("the annotation has no list of keypoints; add x, y, v for each keypoint")
    if not has_feet:
        return keypoints
    feet = record.get("foot_kpts", [0] * (3 * _NUM_FEET))
    if not isinstance(feet, list):
        raise RowError("foot_kpts is no list; give x, y, v for each of the 6 keypoints of the feet")
    return keypoints + feet


def _set_name(entries: Sequence[Entry], header: Mapping[str, Any], request: Request) -> str:
    """Name of the keypoint set: by the names in the file, or else by their number."""
    if not entries:
        return "coco17"
    count = usual_count(entries)
    for category in _categories(header):
        names = category.get("keypoints")
        if isinstance(names, list) and len(names) == count:
            for candidate in KEYPOINT_SETS.values():
                if list(candidate.names) == names:
                    return candidate.name
    if count not in _SETS:
        raise InputError(
            f"{request.path} has {count:g} keypoints for each person, expected "
            f"{', '.join(map(str, _SETS))}; name their set with --keypoint-set"
        )
    return _SETS[int(count)]


def _confidences(third: np.ndarray) -> np.ndarray:
    """Confidences from the third values of a whole file, visibility flags 0, 1, 2 or confidences.

    They are flags where no value has a fraction. Other values pass, for `check_rows` to report.
    """
    finite = third[np.isfinite(third)]
    if (finite != np.round(finite)).any():
        return third
    return np.where(third == 2, 1.0, third)


class _ListedPictures:
    """Names and sizes of the pictures in COCO's list of images."""

    def __init__(self, document: Mapping[str, Any], request: Request) -> None:
        records = document.get("images")
        if not isinstance(records, list):
            raise InputError(
                f"{request.path} has no list of images; add one with id, file_name, width, height"
            )
        self._images = request.images
        self._records: dict[Any, Mapping[str, Any]] = {}
        for record in records:
            if isinstance(record, dict) and _is_id(record.get("id")):
                self._records.setdefault(record["id"], record)
        self._found: dict[Any, Picture] = {}

    def find(self, image_id: Any) -> Picture:
        """The picture with this id."""
        if not _is_id(image_id) or image_id not in self._records:
            raise RowError(f"image_id {shown(image_id)} is not in the list of images; add it there")
        if image_id not in self._found:
            self._found[image_id] = self._look_up(self._records[image_id])
        return self._found[image_id]

    def _look_up(self, record: Mapping[str, Any]) -> Picture:
        name = record.get("file_name")
        if not isinstance(name, str) or not name:
            raise RowError(f"image {shown(record['id'])} has no file_name; add it to the images")
        if not is_safe_name(name):
            raise RowError(UNSAFE_NAME_REASON)
        width, height = _pixels(record.get("width")), _pixels(record.get("height"))
        if width and height:
            return Picture(name, width, height)
        if self._images is None:
            raise RowError(
                f"{name} has no width and height; add them or pass the pictures with --images"
            )
        return measure_picture(self._images, name)


class _ResultPictures:
    """Pictures of COCO results, which name them only by id: found by name in the folder."""

    def __init__(self, request: Request) -> None:
        if request.images is None:
            raise InputError(
                f"{request.path} is a bare list of results, which lacks the names and sizes of "
                "pictures; pass the pictures with --images, or put the list under annotations "
                "beside a list of images"
            )
        self._images = request.images
        self._names: dict[Any, str] = {}
        for path in list_images(request.images):
            self._names[path.name] = path.name
            self._names.setdefault(path.stem, path.name)
            if path.stem.isdecimal() and len(path.stem) < 20:  # 000000397133.jpg is image 397133
                self._names.setdefault(int(path.stem), path.name)
        self._found: dict[Any, Picture] = {}

    def find(self, image_id: Any) -> Picture:
        """The picture with this id."""
        if not _is_id(image_id) or image_id not in self._names:
            raise RowError(
                f"no picture in {self._images} is called {shown(image_id)}; add it there"
            )
        if image_id not in self._found:
            self._found[image_id] = measure_picture(self._images, self._names[image_id])
        return self._found[image_id]


def _is_id(value: Any) -> bool:
    """Whether a picture or a person may be called so.

    Of numbers without limit, millions share one hash, and looking one up takes as long.
    """
    if isinstance(value, int):
        return abs(value) <= np.iinfo(np.int64).max
    return isinstance(value, str)


def _pixels(value: Any) -> int:
    """A width or height from JSON; 0 where it is missing or no size."""
    if type(value) not in (int, float) or not 0 < value < np.iinfo(np.int32).max:
        return 0
    return int(value)
