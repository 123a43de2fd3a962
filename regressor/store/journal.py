"""The journal of a fit store: what changed between one checkpoint and the next.

At a checkpoint's step each process writes a segment with the fits that changed since the step
before. A segment names that earlier step, so that from any checkpoint a chain of segments leads
back to the state that the columns hold. What is not on the chain does not count: segments of a
save that was cut short, or that no checkpoint followed.
"""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fitting.files import InputError, write_atomically, write_json

from .fits import COLUMNS, Rows, Rule, StoredFits, best_of_rows

BEFORE = -1  # step of a store that was never saved
_FOLDER = "journal"
_STATE = "state.json"


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Fits that one process changed between two saves.

    Attributes:
        step: of the save.
        previous: step of the save before.
        rank: of the process.
        size: number of processes, each of which wrote a segment.
        rows: (B,) distinct rows.
        fits: B of them.
    """

    step: int
    previous: int
    rank: int
    size: int
    rows: Rows
    fits: StoredFits


class Journal:
    """Segments in a store's folder, and up to which step they are in the columns already.

    Attributes:
        folded: step whose state the columns hold.
        folding: step whose segments are being put into the columns; `folded` when none are.
    """

    def __init__(self, folder: Path) -> None:
        """Read where an earlier sitting left off; nothing is changed.

        Raises:
            InputError: the file that tells is missing or damaged.
        """
        self._store, self._folder = folder, folder / _FOLDER
        path = folder / _STATE
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
            self.folded, self.folding = int(state["folded"]), int(state["folding"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}: is missing or damaged; begin a new run, or copy the store again"
            ) from error

    @staticmethod
    def create(folder: Path) -> Journal:
        """The journal of a new store: nothing was ever saved. Segments of an older one go."""
        (folder / _FOLDER).mkdir(exist_ok=True)
        _empty(folder)
        _write_state(folder, folded=BEFORE, folding=BEFORE)
        return Journal(folder)

    def write(self, segment: Segment) -> None:
        """Write a segment so that it is there whole or not at all.

        Raises:
            OutputError: the disk is full and the like; no segment is changed.
        """
        header = [segment.step, segment.previous, segment.rank, segment.size]
        columns = {name: getattr(segment.fits, name) for name in COLUMNS}
        # In memory first: a half-written zip file would hide why its stream cannot be written.
        buffer = io.BytesIO()
        np.savez(buffer, header=np.array(header, np.int64), rows=segment.rows, **columns)
        path = self._path(segment.step, segment.rank)
        write_atomically(path, lambda stream: stream.write(buffer.getbuffer()))

    def read(self, step: int, rule: Rule) -> Segment:
        """What all processes together changed at a save: the best fit of each row.

        The same whichever process asks. On a tie the earlier epoch's, then the lower rank's.

        Raises:
            InputError: a segment is missing or damaged.
        """
        first = self._read_one(step, 0)
        parts = [first, *(self._read_one(step, rank) for rank in range(1, first.size))]
        for part in parts:
            if (part.previous, part.size) != (first.previous, first.size):
                raise InputError(
                    f"{self._path(step, part.rank)}: is of another save than that of rank 0; copy "
                    "the store again, with the last.pt beside it"
                )
        rows = np.concatenate([part.rows for part in parts])
        fits = StoredFits.concatenate([part.fits for part in parts])
        best = best_of_rows(rows, fits, rule)
        return Segment(
            step=step,
            previous=first.previous,
            rank=0,
            size=1,
            rows=rows[best],
            fits=fits.select(best),
        )

    def since_folded(self, step: int, rule: Rule) -> Iterator[Segment]:
        """What the columns lack of the state at `step`, to be applied in this order.

        Raises:
            InputError: the columns are past that step, or a segment is missing or damaged.
        """
        newest = max(self.folded, self.folding)
        if step < newest:
            raise InputError(
                f"{self._store}: holds fits up to step {newest}, the checkpoint is of step {step}; "
                "resume with the last.pt that was saved with them, or begin a new run"
            )
        chain = []
        while step != self.folded:
            chain.append(self.read(step, rule))
            step = chain[-1].previous
            if not self.folded <= step < chain[-1].step:
                raise InputError(
                    f"{self._store}: its segments lead back to step {step} instead of "
                    f"{self.folded}; copy the store again, with the last.pt beside it"
                )
        yield from reversed(chain)

    def begin_fold(self, step: int) -> None:
        """From now on the columns may hold fits of up to `step`."""
        _write_state(self._store, folded=self.folded, folding=step)
        self.folding = step

    def end_fold(self) -> None:
        """The columns hold all of `folding`'s state, so no segment is needed any more."""
        _write_state(self._store, folded=self.folding, folding=self.folding)
        self.folded = self.folding
        _empty(self._store)

    def reload(self) -> None:
        """Learn of what another process folded."""
        state = Journal(self._store)
        self.folded, self.folding = state.folded, state.folding

    def _path(self, step: int, rank: int) -> Path:
        return self._folder / f"step-{step:010d}-rank-{rank:04d}.npz"

    def _read_one(self, step: int, rank: int) -> Segment:
        path = self._path(step, rank)
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
                found_step, previous, found_rank, size = arrays["header"].tolist()
                segment = Segment(
                    step=found_step,
                    previous=previous,
                    rank=found_rank,
                    size=size,
                    rows=arrays["rows"],
                    fits=StoredFits(**{name: arrays[name] for name in COLUMNS}),
                )
        except FileNotFoundError as error:
            raise InputError(
                f"{path}: is missing, so the store is not the one that was saved with the "
                f"checkpoint of step {step}; copy both again, or begin a new run"
            ) from error
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise InputError(f"{path}: is damaged; copy the store again") from error
        if (segment.step, segment.rank) != (step, rank):
            raise InputError(f"{path}: is of step {segment.step}; copy the store again")
        return segment


def _write_state(folder: Path, *, folded: int, folding: int) -> None:
    write_json(folder / _STATE, {"folded": folded, "folding": folding})


def _empty(folder: Path) -> None:
    """Remove segments, and what killed writers left; what cannot be removed does no harm."""
    journal = folder / _FOLDER
    for path in [*journal.glob("step-*.npz"), *journal.glob(".*.tmp"), *folder.glob(".*.tmp")]:
        with contextlib.suppress(OSError):
            path.unlink()
