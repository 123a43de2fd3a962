"""Read people with 2D keypoints from COCO JSON, OpenPose JSON and plain `.npz` files.

Files come from strangers: a bad row is left out and named, a file that cannot be used at all is an
`InputError`, and nothing in a file is ever unpickled or used as a path outside the picture folder.
"""

from __future__ import annotations

import difflib
import json
import math
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .files import InputError
from .people import (
    MAX_NAME,
    UNSAFE_NAME_REASON,
    People,
    Problem,
    check_rows,
    index_within_image,
    is_safe_name,
)
from .skeleton import KEYPOINT_SETS, keypoint_set

FORMATS = ("auto", "coco", "openpose", "npz")

_OPENPOSE_SUFFIX = "_keypoints.json"
_ZIP_MAGIC = b"PK\x03\x04"
_ARRAY_MAGIC = b"\x93NUMPY"
_NUM_FEET = 6  # COCO-WholeBody's toes and heels, which follow the 17 body keypoints
_NUM_WHOLEBODY = 133
_COCO_SETS = {17: "coco17", 23: "coco_wholebody", _NUM_WHOLEBODY: "coco_wholebody"}
# Peaks of OpenPose's interpolated heat maps come out slightly above 1; more than this is a fault.
_OPENPOSE_MAX_CONF = 1.2
# OpenPose's COCO model has a neck between nose and shoulders, which COCO itself lacks.
_OPENPOSE_COCO18 = (
    "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow",
    "left_wrist", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle",
    "right_eye", "left_eye", "right_ear", "left_ear",
)  # fmt: skip


class _RowError(Exception):
    """One row cannot be used; the message is the reason of its `Problem`."""


@dataclass(frozen=True, kw_only=True)
class _Request:
    """What the caller asked for."""

    path: Path
    keypoint_set: str | None
    images: Path | None


class _Picture(NamedTuple):
    name: str
    width: int
    height: int


class _Entry(NamedTuple):
    """One person as found in a JSON file: x, y and confidence of each keypoint in one list."""

    file: str
    row: int
    picture: _Picture
    annotation_id: int
    keypoints: list[Any]


def read_people(
    path: Path | str,
    *,
    keypoint_format: str = "auto",
    keypoint_set: str | None = None,
    images: Path | str | None = None,
) -> tuple[People, list[Problem]]:
    """Read people with 2D keypoints.

    Formats: `coco` (person keypoints, COCO-WholeBody, or a bare list of results), `openpose` (a
    folder of `*_keypoints.json` or one such file) and `npz` (docs/conventions.md); `auto` looks at
    the content. People keep the order of the file, those without any seen keypoint included.

    Args:
        path: file or folder.
        keypoint_format: one of `FORMATS`.
        keypoint_set: name of the set, where the file does not tell.
        images: folder of the pictures, for the sizes that a file lacks.

    Returns:
        The people, and a problem for each row left out.

    Raises:
        InputError: the file cannot be used; one sentence with the fix.
    """
    request = _Request(
        path=Path(path),
        keypoint_set=_checked_set(keypoint_set),
        images=None if images is None else Path(images),
    )
    if keypoint_format not in FORMATS:
        raise InputError(
            f"unknown keypoint format {keypoint_format!r}; use one of {', '.join(FORMATS)}"
        )
    if not request.path.exists():
        raise InputError(f"{path} does not exist; check the path of the keypoints")
    if request.images is not None and not request.images.is_dir():
        raise InputError(f"{images} is not a folder; give the folder that holds the pictures")
    if keypoint_format == "auto":
        keypoint_format = recognise_format(request.path)
    return _READERS[keypoint_format](request)


def recognise_format(path: Path | str) -> str:
    """The format of a keypoint file or folder, told by its content.

    Raises:
        InputError: it is of no known format; the message says what it holds.
    """
    path = Path(path)
    if path.is_dir():
        _openpose_files(path)
        return "openpose"
    start = _read_start(path)
    if start.startswith(_ZIP_MAGIC):
        return "npz"
    if start.startswith(_ARRAY_MAGIC):
        raise InputError(f"{path} is a single array; save it with names by numpy.savez")
    if not start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"{", b"[")):
        raise InputError(
            f"{path} is neither JSON nor .npz (it begins with {start[:8]!r}); give a file of "
            "keypoints"
        )
    document = _load_json(path)
    if isinstance(document, list) or "annotations" in document:
        return "coco"
    if "people" in document:
        return "openpose"
    raise InputError(
        f"{path} is not a known keypoint format, its top level holds {_keys(document)}; expected "
        "COCO's images and annotations or OpenPose's people"
    )


# --- COCO ------------------------------------------------------------------------------------


def _read_coco(request: _Request) -> tuple[People, list[Problem]]:
    """COCO person keypoints (https://cocodataset.org/#format-data) or results."""
    document = _load_json(request.path)
    results = isinstance(document, list)
    annotations = document if results else document.get("annotations")
    if not isinstance(annotations, list):
        raise InputError(
            f"{request.path} has no list of annotations, its top level holds {_keys(document)}; "
            "give COCO person keypoints, or name another --keypoint-format"
        )
    pictures = _ResultPictures(request) if results else _CocoPictures(document, request)
    header: Mapping[str, Any] = {} if results else document
    entries, problems = _coco_entries(annotations, header, pictures, request)
    name = request.keypoint_set or _coco_set(entries, header, request)
    num_points = len(keypoint_set(name))
    if name in _COCO_SETS.values():  # WholeBody's face and hands follow the body and feet
        entries = [
            e._replace(keypoints=e.keypoints[: 3 * num_points])
            if len(e.keypoints) == 3 * _NUM_WHOLEBODY
            else e
            for e in entries
        ]
    entries, triplets, bad = _triplets(entries, num_points, name)
    conf = _coco_confidences(triplets[..., 2])
    return _people(name, entries, triplets[..., :2], conf, problems + bad)


def _coco_entries(
    annotations: list[Any],
    header: Mapping[str, Any],
    pictures: _CocoPictures | _ResultPictures,
    request: _Request,
) -> tuple[list[_Entry], list[Problem]]:
    """The annotations of people, those that cannot be used as problems."""
    persons = _person_categories(header)
    records = [a if isinstance(a, dict) else {} for a in annotations]
    has_ids = any("id" in record for record in records)
    has_feet = any("foot_kpts" in record for record in records)
    entries: list[_Entry] = []
    problems: list[Problem] = []
    known_ids: set[int] = set()
    for row, record in enumerate(records):
        if persons and record.get("category_id", persons[0]) not in persons:
            continue
        try:
            annotation_id = _annotation_id(record, known_ids) if has_ids else row
            keypoints = _coco_keypoints(record, has_feet=has_feet)
            picture = pictures.find(record.get("image_id"))
        except _RowError as error:
            problems.append(Problem(file=str(request.path), row=row, reason=str(error)))
            continue
        known_ids.add(annotation_id)
        entries.append(_Entry(str(request.path), row, picture, annotation_id, keypoints))
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
    if type(annotation_id) is not int or abs(annotation_id) > np.iinfo(np.int64).max:
        raise _RowError("the annotation has no integer id; give one to every annotation or to none")
    if annotation_id in known:
        raise _RowError(f"annotation id {annotation_id} occurs before; give every one its own")
    return annotation_id


def _coco_keypoints(record: Mapping[str, Any], *, has_feet: bool) -> list[Any]:
    """The list of numbers, with COCO-WholeBody's feet appended."""
    keypoints = record.get("keypoints")
    if not isinstance(keypoints, list):
        raise _RowError("the annotation has no list of keypoints; add x, y, v for each keypoint")
    if not has_feet:
        return keypoints
    feet = record.get("foot_kpts", [0] * (3 * _NUM_FEET))
    if not isinstance(feet, list):
        raise _RowError(
            "foot_kpts is no list; give x, y, v for each of the 6 keypoints of the feet"
        )
    return keypoints + feet


def _coco_set(entries: Sequence[_Entry], header: Mapping[str, Any], request: _Request) -> str:
    """Name of the keypoint set: by the names in the file, or else by their number."""
    if not entries:
        return "coco17"
    count = _usual_count(entries)
    for category in _categories(header):
        names = category.get("keypoints")
        if isinstance(names, list) and len(names) == count:
            for candidate in KEYPOINT_SETS.values():
                if list(candidate.names) == names:
                    return candidate.name
    if count not in _COCO_SETS:
        raise InputError(
            f"{request.path} has {count:g} keypoints for each person, expected "
            f"{', '.join(map(str, _COCO_SETS))}; name their set with --keypoint-set"
        )
    return _COCO_SETS[int(count)]


def _coco_confidences(third: np.ndarray) -> np.ndarray:
    """Confidences from the third values of a whole file, visibility flags 0, 1, 2 or confidences.

    They are flags where no value has a fraction. Other values pass, for `check_rows` to report.
    """
    finite = third[np.isfinite(third)]
    if (finite != np.round(finite)).any():
        return third
    return np.where(third == 2, 1.0, third)


class _CocoPictures:
    """Names and sizes of the pictures in COCO's list of images."""

    def __init__(self, document: Mapping[str, Any], request: _Request) -> None:
        records = document.get("images")
        if not isinstance(records, list):
            raise InputError(
                f"{request.path} has no list of images; add one with id, file_name, width, height"
            )
        self._images = request.images
        self._records: dict[Any, Mapping[str, Any]] = {}
        for record in records:
            if isinstance(record, dict) and isinstance(record.get("id"), (int, str)):
                self._records.setdefault(record["id"], record)
        self._found: dict[Any, _Picture] = {}

    def find(self, image_id: Any) -> _Picture:
        """The picture with this id."""
        if not isinstance(image_id, (int, str)) or image_id not in self._records:
            raise _RowError(
                f"image_id {_shown(image_id)} is not in the list of images; add it there"
            )
        if image_id not in self._found:
            self._found[image_id] = self._look_up(self._records[image_id])
        return self._found[image_id]

    def _look_up(self, record: Mapping[str, Any]) -> _Picture:
        name = record.get("file_name")
        if not isinstance(name, str) or not name:
            raise _RowError(f"image {_shown(record['id'])} has no file_name; add it to the images")
        if not is_safe_name(name):
            raise _RowError(UNSAFE_NAME_REASON)
        width, height = _pixels(record.get("width")), _pixels(record.get("height"))
        if width and height:
            return _Picture(name, width, height)
        if self._images is None:
            raise _RowError(
                f"{name} has no width and height; add them or pass the pictures with --images"
            )
        return _measured(self._images, name)


class _ResultPictures:
    """Pictures of COCO results, which name them only by id: found by name in the folder."""

    def __init__(self, request: _Request) -> None:
        if request.images is None:
            raise InputError(
                f"{request.path} is a bare list of results, which lacks the names and sizes of "
                "pictures; pass the pictures with --images, or put the list under annotations "
                "beside a list of images"
            )
        self._images = request.images
        self._names: dict[Any, str] = {}
        for path in _list_images(request.images):
            self._names[path.name] = path.name
            self._names.setdefault(path.stem, path.name)
            if path.stem.isdecimal() and len(path.stem) < 20:  # 000000397133.jpg is image 397133
                self._names.setdefault(int(path.stem), path.name)
        self._found: dict[Any, _Picture] = {}

    def find(self, image_id: Any) -> _Picture:
        """The picture with this id."""
        if not isinstance(image_id, (int, str)) or image_id not in self._names:
            raise _RowError(
                f"no picture in {self._images} is called {_shown(image_id)}; add it there"
            )
        if image_id not in self._found:
            self._found[image_id] = _measured(self._images, self._names[image_id])
        return self._found[image_id]


# --- OpenPose --------------------------------------------------------------------------------


def _read_openpose(request: _Request) -> tuple[People, list[Problem]]:
    """OpenPose's `--write_json` output, BODY_25 or COCO, in full-image pixels."""
    if request.images is None:
        raise InputError(
            f"{request.path} is OpenPose output, which lacks the sizes of pictures; pass the "
            "pictures with --images"
        )
    is_folder = request.path.is_dir()
    files = _openpose_files(request.path) if is_folder else [request.path]
    pictures = {path.stem: path for path in _list_images(request.images)}
    entries: list[_Entry] = []
    problems: list[Problem] = []
    for file in files:
        try:
            found, bad = _openpose_entries(file, pictures, request.images, len(entries))
        except InputError as error:
            if not is_folder:
                raise
            reason = str(error).removeprefix(f"{file} ")
            found, bad = [], [Problem(file=str(file), row=None, reason=reason)]
        entries += found
        problems += bad
    name, count = _openpose_set(entries, request)
    entries, triplets, bad = _triplets(entries, count, name)
    if count == len(_OPENPOSE_COCO18):
        triplets = triplets[:, [_OPENPOSE_COCO18.index(n) for n in keypoint_set(name).names]]
    conf = triplets[..., 2]
    conf = np.where((conf > 1) & (conf <= _OPENPOSE_MAX_CONF), 1.0, conf)
    _check_not_normalised(triplets, request)
    return _people(name, entries, triplets[..., :2], conf, problems + bad)


def _openpose_files(folder: Path) -> list[Path]:
    names = sorted(path.name for path in folder.iterdir())
    files = [folder / name for name in names if name.endswith(_OPENPOSE_SUFFIX)]
    if not files:
        shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        raise InputError(
            f"{folder} holds no *{_OPENPOSE_SUFFIX} (it holds {shown or 'nothing'}); give "
            "OpenPose's folder, or the keypoint file itself"
        )
    return files


def _openpose_entries(
    file: Path, pictures: Mapping[str, Path], images: Path, first_id: int
) -> tuple[list[_Entry], list[Problem]]:
    """The people of one picture; raises InputError where the whole file is no good."""
    document = _load_json(file)
    people = document.get("people") if isinstance(document, dict) else None
    if not isinstance(people, list):
        raise InputError(
            f"{file} has no list of people, its top level holds {_keys(document)}; write it with "
            "OpenPose's --write_json"
        )
    if not people:
        return [], []
    stem = file.name.removesuffix(_OPENPOSE_SUFFIX).removesuffix(".json")
    if stem not in pictures:
        raise InputError(f"{file} has no picture {stem}.* in {images}; add the picture")
    try:
        picture = _measured(images, pictures[stem].name)
    except _RowError as error:
        raise InputError(f"{file} has no usable picture: {error}") from error
    entries: list[_Entry] = []
    problems: list[Problem] = []
    for row, record in enumerate(people):
        keypoints = record.get("pose_keypoints_2d") if isinstance(record, dict) else None
        if isinstance(keypoints, list):
            entries.append(_Entry(str(file), row, picture, first_id + len(entries), keypoints))
        else:
            reason = "the person has no list pose_keypoints_2d; write the file with OpenPose 1.x"
            problems.append(Problem(file=str(file), row=row, reason=reason))
    return entries, problems


def _openpose_set(entries: Sequence[_Entry], request: _Request) -> tuple[str, int]:
    """Name of the keypoint set, and how many keypoints OpenPose writes for it."""
    sets = {25: "body25", len(_OPENPOSE_COCO18): "coco17"}
    counts = {name: count for count, name in sets.items()}
    if request.keypoint_set is not None:
        name = request.keypoint_set
        return name, counts.get(name, len(keypoint_set(name)))
    count = _usual_count(entries) if entries else 25
    if count not in sets:
        raise InputError(
            f"{request.path} has {count:g} keypoints for each person; expected 25 (OpenPose's "
            "--model_pose BODY_25) or 18 (COCO)"
        )
    return sets[int(count)], int(count)


def _check_not_normalised(triplets: np.ndarray, request: _Request) -> None:
    seen = triplets[..., 2] > 0
    if seen.any() and (np.abs(triplets[seen][:, :2]) <= 1).all():
        raise InputError(
            f"{request.path} has coordinates between -1 and 1 only; run OpenPose with "
            "--keypoint_scale 0, which writes pixels"
        )


# --- plain .npz ------------------------------------------------------------------------------

_NPZ_REQUIRED = ("keypoints_2d", "conf", "keypoint_set", "width", "height")
_NPZ_OPTIONAL = ("image", "focal", "track")
# What NumPy and zipfile raise for truncated, encrypted, pickled or lying archives.
_NPZ_ERRORS = (
    OSError, ValueError, EOFError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def _read_npz(request: _Request) -> tuple[People, list[Problem]]:
    """Arrays by name; other names are let pass, unless they look like a misspelt one of ours."""
    arrays = _load_npz(request.path)
    N, P = _npz_shape(arrays, request)
    name = request.keypoint_set or _npz_set(arrays, request)
    if len(keypoint_set(name)) != P:
        raise InputError(
            f"{request.path} has {P} keypoints for each person, but {name} has "
            f"{len(keypoint_set(name))}; correct keypoint_set or pass --keypoint-set"
        )
    image = arrays.get("image", np.full(N, ""))
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


def _load_npz(path: Path) -> dict[str, np.ndarray]:
    names = _NPZ_REQUIRED + _NPZ_OPTIONAL
    _read_start(path)
    try:
        with zipfile.ZipFile(path):  # numpy.load would read other kinds of files, too
            pass
        with np.load(path, allow_pickle=False) as loaded:  # a stranger's file must not run code
            keys = list(loaded)
            arrays = {name: loaded[name] for name in names if name in keys}
    except _NPZ_ERRORS as error:
        raise InputError(
            f"{path} cannot be read as .npz ({_first_line(error)}); save it again by numpy.savez "
            "with arrays of numbers and strings only"
        ) from error
    for name in names:
        unknown = [key for key in keys if key not in names]
        nearest = difflib.get_close_matches(name, unknown, n=1, cutoff=0.8)
        if name not in arrays and (nearest or name in _NPZ_REQUIRED):
            hint = f"rename {nearest[0]}" if nearest else f"it holds {', '.join(keys) or 'nothing'}"
            raise InputError(f"{path} has no array {name}; {hint}")
    return arrays


def _npz_shape(arrays: Mapping[str, np.ndarray], request: _Request) -> tuple[int, int]:
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


def _npz_set(arrays: Mapping[str, np.ndarray], request: _Request) -> str:
    try:
        return keypoint_set(str(arrays["keypoint_set"])).name
    except ValueError as error:
        raise InputError(f"{request.path}: {error}") from error


# --- shared by the formats -------------------------------------------------------------------


def _checked_set(name: str | None) -> str | None:
    """The name asked for, if it is one of a known set."""
    if name is None:
        return None
    if name.lower().replace("_", "") == "body25b":
        raise InputError("OpenPose's BODY_25B is not supported; run it with --model_pose BODY_25")
    try:
        return keypoint_set(name).name
    except ValueError as error:
        raise InputError(str(error)) from error


def _usual_count(entries: Sequence[_Entry]) -> float:
    """The most frequent number of keypoints; a fraction where the lists are not x, y, conf."""
    return Counter(len(entry.keypoints) for entry in entries).most_common(1)[0][0] / 3


def _triplets(
    entries: Sequence[_Entry], num_points: int, set_name: str
) -> tuple[list[_Entry], np.ndarray, list[Problem]]:
    """The (N, P, 3) float64 numbers of the N entries that hold P keypoints, and those entries."""
    problems = []
    complete = []
    for entry in entries:
        if len(entry.keypoints) == 3 * num_points:
            complete.append(entry)
            continue
        reason = (
            f"{len(entry.keypoints)} numbers of keypoints, expected 3 x {num_points} for "
            f"{set_name}; correct them or name another --keypoint-set"
        )
        problems.append(Problem(file=entry.file, row=entry.row, reason=reason))
    values = _numbers([entry.keypoints for entry in complete], 3 * num_points)
    if isinstance(values, np.ndarray):
        return complete, values.reshape(-1, num_points, 3), problems
    good = []
    for entry, row in zip(complete, values, strict=True):
        if row is None:
            reason = "the keypoints hold something else than numbers; give x, y, conf for each"
            problems.append(Problem(file=entry.file, row=entry.row, reason=reason))
        else:
            good.append(entry)
    numbers = np.array([row for row in values if row is not None], dtype=np.float64)
    return good, numbers.reshape(-1, num_points, 3), problems


def _numbers(lists: Sequence[list[Any]], length: int) -> np.ndarray | list[list[float] | None]:
    """An (N, length) array of numbers, or row by row with None for rows of something else.

    NumPy alone would take "12" for 12 and null for NaN.
    """
    if not lists:
        return np.zeros((0, length))
    try:
        values = np.array(lists)
    except (ValueError, OverflowError):  # lists or dictionaries where numbers should be
        values = np.array(None)
    if values.dtype.kind in "iuf" and values.shape == (len(lists), length):
        return values.astype(np.float64)
    return [
        [_float(v) for v in row] if all(type(v) in (int, float) for v in row) else None
        for row in lists
    ]


def _float(value: float) -> float:
    """JSON's integers have no limit, floats have."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _people(
    name: str,
    entries: Sequence[_Entry],
    keypoints_2d: np.ndarray,
    conf: np.ndarray,
    problems: Iterable[Problem],
) -> tuple[People, list[Problem]]:
    """Columns from entries; the problems with the rows' own, in the order of the files."""
    image = np.array([e.picture.name for e in entries], dtype=np.str_)
    people = People(
        keypoint_set=name,
        image=image,
        person=index_within_image(image),
        annotation_id=np.array([e.annotation_id for e in entries], dtype=np.int64),
        width=np.array([e.picture.width for e in entries], dtype=np.int32),
        height=np.array([e.picture.height for e in entries], dtype=np.int32),
        keypoints_2d=keypoints_2d,
        conf=conf,
        focal=np.full(len(entries), np.nan),
    )
    rows = np.array([e.row for e in entries], dtype=np.int64)
    good, bad = check_rows(people, np.array([e.file for e in entries], dtype=np.str_), rows)
    found = [*problems, *bad]
    return good, sorted(found, key=lambda p: (p.file, -1 if p.row is None else p.row))


def _measured(images: Path, name: str) -> _Picture:
    """A picture with the size in its header."""
    from .images import ImageError, read_size

    try:
        return _Picture(name, *read_size(images / name))
    except ImageError as error:
        raise _RowError(str(error)) from error


def _list_images(folder: Path) -> list[Path]:
    from .images import list_images

    return list_images(folder)


def _pixels(value: Any) -> int:
    """A width or height from JSON; 0 where it is missing or no size."""
    if type(value) not in (int, float) or not 0 < value < np.iinfo(np.int32).max:
        return 0
    return int(value)


def _read_start(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            start = stream.read(64)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check the file") from error
    if not start:
        raise InputError(f"{path} is empty; write the keypoints again")
    return start


def _load_json(path: Path) -> Any:
    """The top-level dictionary or list of a JSON file; NaN and Infinity are read as floats."""
    _read_start(path)
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is not valid JSON ({_first_line(error)}); write the keypoints again"
        ) from error
    if not isinstance(document, (dict, list)):
        raise InputError(
            f"{path} holds a single {type(document).__name__}; expected a dictionary or a list"
        )
    return document


def _keys(document: Any) -> str:
    if not isinstance(document, dict):
        return "a list"
    names = ", ".join(_shown(key) for key in list(document)[:5])
    return (names or "nothing") + (", ..." if len(document) > 5 else "")


def _shown(value: Any) -> str:
    """A value from a file, made fit for one line of a message."""
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0][:MAX_NAME].rstrip(".")


_READERS: dict[str, Callable[[_Request], tuple[People, list[Problem]]]] = {
    "coco": _read_coco,
    "openpose": _read_openpose,
    "npz": _read_npz,
}
