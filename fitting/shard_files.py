"""Files of people that are read some rows at a time, so that memory does not grow with them."""

from __future__ import annotations

import hashlib
import math
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from .estimates import Estimates
from .files import InputError, sha256_of
from .npz import MAX_BYTES, read_header
from .people import People, Problem, check_rows, index_within_image
from .readers.common import Request, first_line, load_arrays
from .readers.fits import people_of_table
from .readers.plain import (
    ARRAYS,
    check_arrays,
    check_names,
    image_names,
    people_of_arrays,
    set_of_arrays,
)
from .table import FITS_SCHEMA, FitsTable, count_rows, iterate_fits, table_files

_ROWS_AT_ONCE = 1 << 13


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Some rows of the people of a run.

    Attributes:
        people: the good ones.
        problems: a problem for each of the others.
        estimates: of the good ones; none where none are given.
    """

    people: People
    problems: list[Problem] = field(default_factory=list)
    estimates: Estimates | None = None


class _File:
    """What files have in common that are read while shards are fitted."""

    images: Path | None = None

    def __init__(self, files: list[Path]) -> None:
        self._files, self._states = files, [state_of(file) for file in files]
        hashes = [sha256_of(file) for file in files]
        self.sha256 = hashes[0] if len(hashes) == 1 else _hash_texts(hashes)
        self.problems: list[Problem] = []
        self.empty: list[str] = []
        self._opened = ExitStack()

    def close(self) -> None:
        """See `PeopleSource`."""
        self._opened.close()

    def check_pictures(self, first: int, last: int) -> None:
        """There are none."""

    def _check_unchanged(self) -> None:
        for file, state in zip(self._files, self._states, strict=True):
            if state_of(file) != state:
                raise changed_error(file)


def state_of(file: Path) -> tuple[int, ...] | None:
    """What tells that a file was replaced or written to, without reading it; none if it is gone."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def changed_error(file: Path) -> InputError:
    """Of a file that is not what it was when the run, or this sitting of it, began."""
    return InputError(
        f"{file} was changed while it was read; put back what it was and go on with --resume, or "
        "begin again with --overwrite"
    )


def _hash_texts(texts: list[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode("utf-8")).hexdigest()


class PeopleOfTable(_File):
    """The people of a fits table, from the first row to the last."""

    def __init__(self, request: Request) -> None:
        super().__init__(table_files(request.path))
        self._request = request
        self.num_rows = sum(count_rows(file) for file in self._files)
        self._keypoint_set: str | None = None
        self._restart()

    def read(self, first: int, last: int) -> Rows:
        """See `PeopleSource`."""
        if first < self._at:
            self._restart()
        while self._at < first:  # rows of shards that are done
            self._take(min(_ROWS_AT_ONCE, first - self._at))
        table = self._take(last - first)
        self._check_unchanged()
        people = people_of_table(table, self._request)
        if len(people) and people.keypoint_set != (self._keypoint_set or people.keypoint_set):
            raise InputError(
                f"{self._request.path} has keypoints of several sets ({self._keypoint_set}, "
                f"{people.keypoint_set}); give a table of one set"
            )
        self._keypoint_set = people.keypoint_set if len(people) else self._keypoint_set
        good, problems = check_rows(people, str(self._request.path), np.arange(first, last))
        return Rows(people=good, problems=problems)

    def _restart(self) -> None:
        self._at, self._left = 0, FITS_SCHEMA.empty_table()
        self._tables = (
            table for file in self._files for table in iterate_fits(file, rows=_ROWS_AT_ONCE)
        )

    def _take(self, count: int) -> FitsTable:
        """The next rows."""
        parts, missing = [self._left], count - len(self._left)
        while missing > 0:
            table = next(self._tables, None)
            if table is None:  # there were more when they were counted
                raise changed_error(self._request.path)
            parts.append(table.columns)
            missing -= len(table)
        rows = pa.concat_tables(parts)
        self._at, self._left = self._at + count, rows.slice(count)
        return FitsTable(columns=rows.slice(0, count))


class NotByRowsError(Exception):
    """An array is stored so that its rows cannot be read one after another."""


class _StoredArray:
    """An array in an `.npz`, compressed or not, of which some rows are read at a time."""

    def __init__(self, archive: zipfile.ZipFile, name: str) -> None:
        member = archive.getinfo(f"{name}.npy")
        self._stream = archive.open(member)
        try:
            self.shape, by_columns, self.dtype = read_header(self._stream, member)
            if by_columns and len(self.shape) > 1:
                raise NotByRowsError
        except BaseException:
            self._stream.close()
            raise
        self._start = self._stream.tell()
        self._row_bytes = self.dtype.itemsize * math.prod(self.shape[1:])

    def close(self) -> None:
        self._stream.close()

    def read(self, first: int, last: int) -> np.ndarray:
        num_bytes = (last - first) * self._row_bytes
        if num_bytes > MAX_BYTES:
            raise ValueError(f"{last - first} rows unpack to more than {MAX_BYTES >> 30} GiB")
        self._stream.seek(self._start + first * self._row_bytes)
        content = self._stream.read(num_bytes)
        return np.frombuffer(content, self.dtype).reshape(last - first, *self.shape[1:])


class PeopleOfArrays(_File):
    """The people of a plain `.npz`."""

    def __init__(self, request: Request) -> None:
        """Look at the headers of the arrays, and read the names of the pictures.

        Raises:
            InputError: see `readers.read_people`.
        """
        super().__init__([request.path])
        self._request, path = request, request.path
        small, keys = load_arrays(path, ["keypoint_set"])
        names = [name for name in ARRAYS if name in keys and name != "keypoint_set"]
        check_names([*names, *small], keys, path)
        with ExitStack() as opened:
            with _reading(path):
                archive = opened.enter_context(zipfile.ZipFile(path))
                self._arrays = {
                    name: opened.enter_context(closing(_StoredArray(archive, name)))
                    for name in names
                }
            check_arrays({**self._arrays, **small}, request)
            self._keypoint_set = set_of_arrays({**self._arrays, **small}, request)
            self.num_rows = self._arrays["conf"].shape[0]
            self._person = self._index_within_image()
            self._opened = opened.pop_all()

    def read(self, first: int, last: int) -> Rows:
        """See `PeopleSource`."""
        with _reading(self._request.path):
            arrays = {name: array.read(first, last) for name, array in self._arrays.items()}
        self._check_unchanged()
        people = people_of_arrays(
            arrays,
            keypoint_set=self._keypoint_set,
            image=image_names(arrays.get("image"), last - first, self._request.path),
            person=self._person[first:last],
            rows=np.arange(first, last),
        )
        good, problems = check_rows(people, str(self._request.path), people.annotation_id)
        return Rows(people=good, problems=problems)

    def _index_within_image(self) -> np.ndarray:
        """(N,) int32; of the names, which may be long, 16 bytes each are kept meanwhile."""
        if "image" not in self._arrays:
            return np.arange(self.num_rows, dtype=np.int32)
        digests = np.empty(self.num_rows, dtype="S16")
        for first in range(0, self.num_rows, _ROWS_AT_ONCE):
            last = min(first + _ROWS_AT_ONCE, self.num_rows)
            with _reading(self._request.path):
                column = self._arrays["image"].read(first, last)
            names = image_names(column, last - first, self._request.path).tolist()
            digests[first:last] = [_digest(name) for name in names]
        return index_within_image(digests)


def _digest(name: str) -> bytes:
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest()


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Errors of a damaged file in one sentence."""
    try:
        yield
    except NotByRowsError:
        raise
    except Exception as error:  # a damaged archive can raise nearly anything
        raise InputError(
            f"{path} cannot be read as .npz ({first_line(error)}); save it again by numpy.savez "
            "with arrays of numbers and strings only"
        ) from error
