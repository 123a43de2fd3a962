"""People with 2D keypoints, one row each, as columns of NumPy arrays; and rows that are no good."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

MAX_PIXELS = 1_000_000  # a picture or a coordinate beyond this is a fault of its file
MAX_NAME = 1024  # bytes of a picture's name; a longer one is a fault, and costs N times itself
_MAX_PART = 255  # bytes of a folder or file in it: file systems take no more
NO_TRACK = -1

# A name must stay inside the folder of pictures, fit on one line of a message, and encode as UTF-8.
_UNSAFE_NAME = re.compile(
    r"^[/\\]|^[A-Za-z]:|(?:^|[/\\])\.\.(?:[/\\]|$)|[\x00-\x1f\x7f\ud800-\udfff]"
)


@dataclass(frozen=True, kw_only=True)
class People:
    """N people in input order, one row each; P keypoints of one named set.

    Columns of other types are converted on construction. Values too large for a column become
    infinite or the largest integer, which `check_rows` then reports.

    Attributes:
        keypoint_set: name of the set, as in `fitting.skeleton`.
        image: (N,) str, path of the picture inside its folder; "" where there is no picture.
        person: (N,) int32, index of the person within its picture.
        annotation_id: (N,) int64.
        width: (N,) int32 pixels, of the whole picture.
        height: (N,) int32 pixels.
        keypoints_2d: (N, P, 2) float32, full-image pixels; (0, 0) is the first pixel's centre.
        conf: (N, P) float32 in [0, 1], 0 = unseen.
        focal: (N,) float32 pixels, NaN = unknown.
        track: (N,) int64 number of the person in a sequence, -1 = none; or None for no sequence.
    """

    keypoint_set: str
    image: np.ndarray
    person: np.ndarray
    annotation_id: np.ndarray
    width: np.ndarray
    height: np.ndarray
    keypoints_2d: np.ndarray
    conf: np.ndarray
    focal: np.ndarray
    track: np.ndarray | None = None

    def __post_init__(self) -> None:
        shape = np.shape(self.conf)
        if len(shape) != 2:
            raise ValueError(f"conf must be (N, P), got {shape}")
        expected = dict.fromkeys(_DTYPES, (shape[0],)) | {
            "keypoints_2d": (*shape, 2),
            "conf": shape,
        }
        for name, dtype in _DTYPES.items():
            value = getattr(self, name)
            if value is None and name == "track":
                continue
            if np.shape(value) != expected[name]:
                raise ValueError(f"{name} must be {expected[name]}, got {np.shape(value)}")
            object.__setattr__(self, name, _converted(np.asarray(value), dtype))

    def __len__(self) -> int:
        return len(self.conf)

    def select(self, index: np.ndarray | slice | Sequence[int]) -> People:
        """The rows named by a mask, slice or list of row numbers, in that order."""
        if not isinstance(index, slice):
            index = np.asarray(index)
            index = index if index.dtype == bool else index.astype(np.int64)
        columns = ((name, getattr(self, name)) for name in _DTYPES)
        return replace(self, **{name: c[index] for name, c in columns if c is not None})


_DTYPES: dict[str, type] = {
    "image": np.str_,
    "person": np.int32,
    "annotation_id": np.int64,
    "width": np.int32,
    "height": np.int32,
    "keypoints_2d": np.float32,
    "conf": np.float32,
    "focal": np.float32,
    "track": np.int64,
}


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One row or picture that was left out.

    Attributes:
        file: where it stands.
        row: its number in the file, counted from 0; None when the whole file is meant.
        reason: one sentence with what to do about it.
    """

    file: str
    row: int | None
    reason: str

    def __str__(self) -> str:
        place = self.file if self.row is None else f"{self.file}, row {self.row}"
        return f"{place}: {self.reason}"


def concatenate(parts: Iterable[People]) -> People:
    """People of one keypoint set one after another.

    A part without tracks among parts with tracks gets -1 (no track).

    Raises:
        ValueError: there are no parts, or they are of different keypoint sets.
    """
    parts = list(parts)
    names = sorted({part.keypoint_set for part in parts})
    if len(names) != 1:
        raise ValueError(
            f"people of one keypoint set can be put together, got {', '.join(names) or 'none'}; "
            "convert them to one set first"
        )
    columns = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in _DTYPES
        if name != "track"
    }
    if any(part.track is not None for part in parts):
        columns["track"] = np.concatenate(
            [np.full(len(p), NO_TRACK) if p.track is None else p.track for p in parts]
        )
    return People(keypoint_set=names[0], **columns)


def hash_people(people: People) -> str:
    """SHA-256 of all there is to know of some people, 64 hexadecimal digits."""
    digest = hashlib.sha256(people.keypoint_set.encode("utf-8"))
    for name, dtype in _DTYPES.items():
        column = getattr(people, name)
        digest.update(repr((name, None if column is None else column.shape)).encode("utf-8"))
        if dtype is np.str_:
            digest.update("\0".join(column.tolist()).encode("utf-8", "surrogatepass"))
        elif column is not None:
            digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()


def check_rows(
    people: People, file: str | np.ndarray, rows: np.ndarray | None = None
) -> tuple[People, list[Problem]]:
    """Leave out the rows that cannot be fitted, and say why.

    Coordinates of unseen keypoints become zero: files hold anything there, NaN included.

    Args:
        people: rows as read.
        file: name of the file for the reports, or (N,) names, one for each row.
        rows: (N,) row numbers in the file for the reports; 0 to N - 1 by default.

    Returns:
        The good rows, and one problem (the first fault found) for each of the others.
    """
    files = np.broadcast_to(np.asarray(file), len(people))
    rows = np.arange(len(people)) if rows is None else rows
    first_fault: dict[int, str] = {}
    for fault, reason in _faults(people):
        for i in np.flatnonzero(fault).tolist():
            first_fault.setdefault(i, reason)
    problems = [
        Problem(file=str(files[i]), row=int(rows[i]), reason=first_fault[i])
        for i in sorted(first_fault)
    ]
    good = people.select(~np.isin(np.arange(len(people)), list(first_fault)))
    coordinates = np.where(good.conf[..., None] > 0, good.keypoints_2d, 0)
    return replace(good, keypoints_2d=coordinates), problems


def _faults(people: People) -> list[tuple[np.ndarray, str]]:
    """(N,) masks of rows at fault, each with its reason."""
    conf, xy = people.conf, people.keypoints_2d
    seen = conf[..., None] > 0
    size = np.stack([people.width, people.height])
    focal = people.focal
    return [
        (
            ~((conf >= 0) & (conf <= 1)).all(axis=1),  # False for NaN, too
            "a confidence is NaN or outside [0, 1]; rescale the confidences or mark the keypoint "
            "unseen with 0",
        ),
        (
            (seen & ~np.isfinite(xy)).any(axis=(1, 2)),
            "a seen keypoint has a NaN or infinite coordinate; mark it unseen with confidence 0",
        ),
        (
            (seen & (np.abs(xy) > MAX_PIXELS)).any(axis=(1, 2)),
            f"a seen keypoint lies more than {MAX_PIXELS} pixels away; give full-image pixels or "
            "mark it unseen with confidence 0",
        ),
        (
            (size <= 0).any(axis=0) | (size > MAX_PIXELS).any(axis=0),
            f"width and height must be between 1 and {MAX_PIXELS} pixels; give the size of the "
            "whole picture",
        ),
        (
            ~(np.isnan(focal) | ((focal > 0) & np.isfinite(focal))),
            "the focal length is not positive and finite; give pixels, or NaN for unknown",
        ),
        _unsafe_names(people.image),
    ]


def _unsafe_names(image: np.ndarray) -> tuple[np.ndarray, str]:
    names = image.tolist()
    unsafe = {name for name in set(names) if not is_safe_name(name)}
    mask = np.fromiter((name in unsafe for name in names), dtype=bool, count=len(names))
    return mask, UNSAFE_NAME_REASON


UNSAFE_NAME_REASON = (
    "the picture's name is absolute, climbs out of its folder with '..', holds control characters "
    f"or is longer than {MAX_NAME} bytes, {_MAX_PART} for each folder; give a path inside the "
    "folder of pictures"
)


def is_safe_name(name: str) -> bool:
    """Whether a picture's name, which comes from a file, may be joined to a folder and opened."""
    if len(name) > MAX_NAME or _UNSAFE_NAME.search(name) is not None:
        return False
    if len(name) <= _MAX_PART // 4:  # of UTF-8's four bytes at most
        return True
    encoded = name.encode("utf-8")
    return len(encoded) <= MAX_NAME and max(map(len, re.split(rb"[/\\]", encoded))) <= _MAX_PART


def index_within_image(image: np.ndarray) -> np.ndarray:
    """(N,) int32 count of earlier rows with the same picture, for (N,) names of pictures."""
    _, inverse, counts = np.unique(image, return_inverse=True, return_counts=True)
    order = np.argsort(inverse, kind="stable")
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    person = np.empty(len(image), dtype=np.int32)
    person[order] = np.arange(len(image)) - starts
    return person


def _converted(column: np.ndarray, dtype: type) -> np.ndarray:
    """Cast without the wrap-around and the warnings of NumPy's own casts."""
    with np.errstate(over="ignore", invalid="ignore"):  # of NaNs that signal
        if not np.issubdtype(dtype, np.integer) or np.can_cast(column.dtype, dtype):
            return column.astype(dtype, copy=False)
    limits = np.iinfo(dtype)
    if column.dtype.kind == "f":
        column = np.nan_to_num(column.astype(np.float64), nan=0.0)
        largest = np.nextafter(np.float64(limits.max), 0)  # 2**63 itself would wrap
        return np.clip(column, limits.min, largest).astype(dtype)
    own = np.iinfo(column.dtype)  # NumPy 2.0 refuses bounds outside the type
    return np.clip(column, max(limits.min, own.min), min(limits.max, own.max)).astype(dtype)


def person_size(keypoints_2d: np.ndarray, conf: np.ndarray) -> np.ndarray:
    """(N,) pixels: longer side of the box around the seen of (N, P, 2) keypoints; 0 if none."""
    seen = (conf > 0)[..., None]
    low = np.where(seen, keypoints_2d, np.inf).min(axis=1)
    high = np.where(seen, keypoints_2d, -np.inf).max(axis=1)
    return np.maximum(high - low, 0).max(axis=1)
