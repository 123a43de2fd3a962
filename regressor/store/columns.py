"""The columns of a fit store on the disk: read through memory maps, written row by row."""

from __future__ import annotations

import io
import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fitting.files import OutputError

from .fits import COLUMNS, Column, Rows, StoredFits

_SCANNED = 1 << 20  # people looked at at once when all are


class FitColumns:
    """A file per column of `fits.COLUMNS`, a row per person.

    Reading is one fancy indexing of a memory map per column. Writing does not go through the maps:
    where the disk is full, a store into a map of a sparse file kills the process (SIGBUS), while a
    plain write says so.
    """

    def __init__(self, folder: Path, num_rows: int) -> None:
        """Map the files of `create`."""
        self._folder, self._num_rows = folder, num_rows
        self._maps = {
            name: _map(folder, name, column, num_rows) for name, column in COLUMNS.items()
        }

    @staticmethod
    def create(folder: Path, num_rows: int) -> FitColumns:
        """Columns of people without fits: sparse files of zeros, which take no space.

        Raises:
            OutputError: they cannot be written.
        """
        try:
            for name, column in COLUMNS.items():
                with _path(folder, name).open("wb") as stream:
                    stream.truncate(num_rows * column.row_bytes)
                    os.fsync(stream.fileno())
        except OSError as error:
            raise _cannot_write(folder, error) from error
        return FitColumns(folder, num_rows)

    @staticmethod
    def missing(folder: Path, num_rows: int) -> Path | None:
        """A file that is not there or not of the right length; None if all are."""
        for name, column in COLUMNS.items():
            path = _path(folder, name)
            if not path.is_file() or path.stat().st_size != num_rows * column.row_bytes:
                return path
        return None

    def read(self, rows: Rows) -> StoredFits:
        """Fits of the people at `rows` (B,); copies."""
        return StoredFits(**{name: column[rows] for name, column in self._maps.items()})

    def write(self, rows: Rows, fits: StoredFits) -> None:
        """Put fits at distinct `rows` (B,), and force them to the disk.

        Writing the same again changes nothing, so it may be repeated after a crash.

        Raises:
            OutputError: the disk is full and the like; some rows may have been written.
        """
        if len(rows) == 0:
            return
        order = np.argsort(rows)
        try:
            for name, column in COLUMNS.items():
                with _path(self._folder, name).open("r+b", buffering=0) as stream:
                    _write_rows(stream, rows[order], getattr(fits, name)[order], column)
                    os.fsync(stream.fileno())
        except OSError as error:
            raise _cannot_write(self._folder, error) from error

    def totals(self) -> tuple[NDArray[np.int64], float]:
        """People by `Origin` (256,), and the sum of the costs of those who have a fit."""
        counts, cost = np.zeros(256, np.int64), 0.0
        for start in range(0, self._num_rows, _SCANNED):
            some = slice(start, start + _SCANNED)
            counts += np.bincount(self._maps["origin"][some], minlength=256)
            cost += float(self._maps["cost"][some].sum(dtype=np.float64))  # zero without a fit
        return counts, cost


def _map(folder: Path, name: str, column: Column, num_rows: int) -> NDArray[Any]:
    """A memory map. Where rows are long, what lies beside the row asked for is not read as well.

    Otherwise reading 64 random people of 10 million brings in 128 KiB or more for each.
    """
    mapped = np.memmap(_path(folder, name), column.dtype, "r", shape=column.shape(num_rows))
    if column.width is not None and hasattr(mmap, "MADV_RANDOM"):
        mapped._mmap.madvise(mmap.MADV_RANDOM)  # type: ignore[attr-defined]
    return np.asarray(mapped)


def _path(folder: Path, name: str) -> Path:
    return folder / f"{name}.bin"


def _write_rows(stream: io.FileIO, rows: Rows, values: NDArray[np.generic], column: Column) -> None:
    """Write values at rising rows, neighbours together."""
    size = column.row_bytes
    content = memoryview(values.tobytes())
    starts = np.flatnonzero(np.diff(rows, prepend=-2) != 1)
    stops = np.append(starts[1:], len(rows))
    for row, start, stop in zip(
        rows[starts].tolist(), starts.tolist(), stops.tolist(), strict=True
    ):
        stream.seek(row * size)
        left = content[start * size : stop * size]
        while left:  # an unbuffered file may write in part, as before it says that the disk is full
            left = left[stream.write(left) :]


def _cannot_write(folder: Path, error: OSError) -> OutputError:
    return OutputError(
        f"cannot write the fit store {folder}: {error.strerror or error}; free some space or "
        "choose another folder"
    )
