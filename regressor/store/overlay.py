"""Fits that changed since they were last put into a store's columns, in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .fits import COLUMNS, Rows, StoredFits

_LEAST = 1024  # people there is room for at first


class FitOverlay:
    """The newest fits of a few of many people, found by row without a search.

    The table that finds them has 4 bytes per person, of which the system provides only the pages
    that were written to.
    """

    def __init__(self, num_rows: int) -> None:
        """Of `num_rows` people, none of whom has changed."""
        self._slot_of = np.zeros(num_rows, np.int32)  # counted from 1; 0 for those not here
        self._make_empty()

    def _make_empty(self) -> None:
        self._count = 0
        self._rows = np.zeros(_LEAST, np.int64)
        self._is_saved = np.zeros(_LEAST, bool)
        self._columns = {name: np.zeros(c.shape(_LEAST), c.dtype) for name, c in COLUMNS.items()}

    def __len__(self) -> int:
        return self._count

    @property
    def rows(self) -> Rows:
        """Of those who are here, in the order in which they came."""
        return self._rows[: self._count]

    @property
    def fits(self) -> StoredFits:
        """Theirs."""
        return self._at(slice(self._count))

    @property
    def _unsaved(self) -> NDArray[np.int64]:
        return np.flatnonzero(~self._is_saved[: self._count])

    @property
    def has_unsaved(self) -> bool:
        """Whether anyone's fit came after the last save."""
        return len(self._unsaved) > 0

    def unsaved(self) -> tuple[Rows, StoredFits]:
        """Rows and fits that came after the last save."""
        slots = self._unsaved
        return self._rows[slots], self._at(slots)

    def put(self, rows: Rows, fits: StoredFits, *, is_saved: bool) -> None:
        """Fits of distinct rows (B,), in place of those that are here already."""
        fresh = rows[self._slot_of[rows] == 0]
        self._make_room(self._count + len(fresh))
        self._rows[self._count : self._count + len(fresh)] = fresh
        self._slot_of[fresh] = np.arange(len(fresh)) + self._count + 1
        self._count += len(fresh)
        slots = self._slot_of[rows] - 1
        self._is_saved[slots] = is_saved
        for name, column in self._columns.items():
            column[slots] = getattr(fits, name)

    def laid_over(self, rows: Rows, fits: StoredFits) -> StoredFits:
        """Fits of people at `rows` (B,) with the newer ones of those who are here."""
        slots = self._slot_of[rows]
        newer = np.flatnonzero(slots)
        if len(newer) == 0:
            return fits
        columns = {name: getattr(fits, name).copy() for name in COLUMNS}
        for name, column in columns.items():
            column[newer] = self._columns[name][slots[newer] - 1]
        return StoredFits(**columns)

    def mark_saved(self) -> None:
        """Everyone's fit here has been saved."""
        self._is_saved[: self._count] = True

    def clear(self) -> None:
        """Nobody is here any more; the room goes back to the system."""
        self._slot_of[self.rows] = 0
        self._make_empty()

    def _at(self, slots: slice | NDArray[np.int64]) -> StoredFits:
        return StoredFits(**{name: column[slots] for name, column in self._columns.items()})

    def _make_room(self, count: int) -> None:
        """Twice as much where `count` people need more, so that the copying stays cheap."""
        have = len(self._rows)
        if count <= have:
            return
        more = max(count, 2 * have) - have

        def longer(array: NDArray[Any]) -> NDArray[Any]:
            return np.concatenate([array, np.zeros((more, *array.shape[1:]), array.dtype)])

        self._rows, self._is_saved = longer(self._rows), longer(self._is_saved)
        self._columns = {name: longer(column) for name, column in self._columns.items()}
