"""What the readers share: what they are asked, a person in a JSON file, and the way to `People`."""

from __future__ import annotations

import json
import math
import zipfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..files import InputError
from ..images import ImageError, read_size
from ..npz import read_npz
from ..people import MAX_NAME, People, Problem, check_rows, index_within_image

_NUMBER_TYPES = {int, float}  # of JSON; bool, a kind of int in Python, is none of its numbers
_ZIP_MAGIC = b"PK\x03\x04"


class RowError(Exception):
    """One row cannot be used; the message is the reason of its `Problem`."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the caller asked for, with a look at the file that is kept for its reader.

    Attributes:
        path: file or folder, which exists.
        keypoint_set: name of a known set, or None for what the file says.
        images: folder of the pictures, which exists; or None.
    """

    path: Path
    keypoint_set: str | None = None
    images: Path | None = None

    @cached_property
    def start(self) -> bytes:
        """The first bytes of the file, none of a folder; InputError if it cannot be read."""
        return b"" if self.path.is_dir() else _read_start(self.path)

    @property
    def is_json(self) -> bool:
        """Whether the path is a file that begins like a JSON dictionary or list."""
        return self.start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"{", b"["))

    @cached_property
    def document(self) -> Any:
        """The top-level dictionary or list of a JSON file; InputError if it is none."""
        return load_json(self.path)

    @property
    def top_level(self) -> Mapping[str, Any]:
        """The top-level dictionary; empty where the path is no JSON file or holds a list."""
        return self.document if self.is_json and isinstance(self.document, dict) else {}

    @property
    def is_zip(self) -> bool:
        """Whether the path is a file that begins like an `.npz`."""
        return self.start.startswith(_ZIP_MAGIC)

    @cached_property
    def array_names(self) -> tuple[str, ...]:
        """Names of the arrays in an `.npz`; none where the path is no such file."""
        if not self.is_zip:
            return ()
        try:
            with zipfile.ZipFile(self.path) as archive:
                return tuple(name.removesuffix(".npy") for name in archive.namelist())
        except Exception:  # a damaged archive; the reader of `.npz` says what is wrong with it
            return ()


@dataclass(frozen=True, kw_only=True)
class Reader:
    """One format of keypoint files.

    Attributes:
        holds: what it looks like, for messages.
        recognises: whether the file or folder of a request is of this format.
        read: the people, and a problem for each row left out.
    """

    holds: str
    recognises: Callable[[Request], bool]
    read: Callable[[Request], tuple[People, list[Problem]]]


class Picture(NamedTuple):
    """Name within the folder of pictures, and size in pixels."""

    name: str
    width: int
    height: int


class Entry(NamedTuple):
    """One person as found in a JSON file: x, y and confidence of each keypoint in one list."""

    file: str
    row: int
    picture: Picture
    annotation_id: int
    keypoints: list[Any]


def read_files(
    request: Request,
    files: Iterable[Path],
    read_one: Callable[[Path, int], tuple[list[Entry], list[Problem]]],
) -> tuple[list[Entry], list[Problem]]:
    """The people of a folder's files, or of the one file that was asked for.

    Args:
        request: of a folder, where a file that is no good is a problem, or of a file, where it is
            an error.
        files: to read.
        read_one: a file's people, given the number of those before; InputError if it is no good.
    """
    entries: list[Entry] = []
    problems: list[Problem] = []
    for file in files:
        try:
            found, bad = read_one(file, len(entries))
        except InputError as error:
            if not request.path.is_dir():
                raise
            reason = str(error).removeprefix(f"{file} ")
            found, bad = [], [Problem(file=str(file), row=None, reason=reason)]
        entries += found
        problems += bad
    return entries, problems


def usual_count(entries: Sequence[Entry]) -> float:
    """The most frequent number of keypoints; a fraction where the lists are not x, y, conf."""
    return Counter(len(entry.keypoints) for entry in entries).most_common(1)[0][0] / 3


def stack_triplets(
    entries: Sequence[Entry], num_points: int, set_name: str
) -> tuple[list[Entry], np.ndarray, list[Problem]]:
    """The (N, P, 3) float64 numbers of the N entries that hold P keypoints, and those entries.

    Args:
        entries: as found.
        num_points: P.
        set_name: of the keypoint set, for messages.

    Returns:
        The entries that can be used, their numbers, and a problem for each of the others.
    """
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

    NumPy alone would take "12" for 12, true for 1 and null for NaN.
    """
    if not lists:
        return np.zeros((0, length))
    good = [set(map(type, row)) <= _NUMBER_TYPES for row in lists]
    if all(good):
        values = np.array(lists)
        if values.dtype.kind in "iuf":  # integers without limit make objects
            return values.astype(np.float64).reshape(len(lists), length)
    return [
        [_float(v) for v in row] if is_good else None
        for row, is_good in zip(lists, good, strict=True)
    ]


def _float(value: float) -> float:
    """JSON's integers have no limit, floats have."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


def collect_people(
    name: str,
    entries: Sequence[Entry],
    keypoints_2d: np.ndarray,
    conf: np.ndarray,
    problems: Iterable[Problem],
) -> tuple[People, list[Problem]]:
    """Columns from entries, checked row by row.

    Args:
        name: of the keypoint set.
        entries: N of them.
        keypoints_2d: (N, P, 2) pixels.
        conf: (N, P).
        problems: met on the way here.

    Returns:
        The good rows, and all problems in the order of the files.
    """
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


def check_set(request: Request, name: str) -> None:
    """InputError where the caller names another set than the only one of a format."""
    if request.keypoint_set not in (None, name):
        raise InputError(
            f"{request.path} holds {name} keypoints, not {request.keypoint_set}; leave "
            "--keypoint-set out"
        )


def need_images(request: Request, what: str) -> Path:
    """The folder of pictures; InputError where none is given. `what` is the format."""
    if request.images is None:
        raise InputError(
            f"{request.path} is {what}, which lacks the sizes of pictures; pass the pictures with "
            "--images"
        )
    return request.images


def measure_picture(images: Path, name: str) -> Picture:
    """A picture with the size in its header; RowError if it cannot be read."""
    try:
        return Picture(name, *read_size(images / name))
    except ImageError as error:
        raise RowError(str(error)) from error


def _read_start(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            start = stream.read(64)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check the file") from error
    if not start:
        raise InputError(f"{path} is empty; write the keypoints again")
    return start


def load_json(path: Path) -> Any:
    """The top-level dictionary or list of a JSON file; NaN and Infinity are read as floats."""
    _read_start(path)
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is not valid JSON ({first_line(error)}); write the keypoints again"
        ) from error
    if not isinstance(document, (dict, list)):
        raise InputError(
            f"{path} holds a single {type(document).__name__}; expected a dictionary or a list"
        )
    return document


def load_arrays(path: Path, names: Collection[str]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Those of the arrays called `names` that an `.npz` holds, and the names of all it holds.

    Raises:
        InputError: the file is no `.npz`, damaged, or one of these arrays would have to be
            unpickled: a stranger's file must not run code. See `npz.read_npz`.
    """
    _read_start(path)
    try:
        return read_npz(path, names)
    except (ValueError, OSError) as error:
        raise InputError(
            f"{path} cannot be read as .npz ({first_line(error)}); save it again by numpy.savez "
            "with arrays of numbers and strings only"
        ) from error


def list_names(folder: Path) -> str:
    """What a folder holds, for a message."""
    names = sorted(path.name for path in folder.iterdir())
    return (", ".join(names[:3]) or "nothing") + (", ..." if len(names) > 3 else "")


def list_keys(document: Any) -> str:
    """What the top level of a JSON file holds, for a message."""
    if not isinstance(document, dict):
        return "a list"
    names = ", ".join(shown(key) for key in list(document)[:5])
    return (names or "nothing") + (", ..." if len(document) > 5 else "")


def shown(value: Any) -> str:
    """A value from a file, made fit for one line of a message."""
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."


def first_line(error: BaseException) -> str:
    """Of an error's text, cut to what fits in a message."""
    return str(error).partition("\n")[0][:MAX_NAME].rstrip(".")
