"""The best fit known of each person of every data set, as the loop's training needs it.

A store is a folder (docs/loop.md). It stays on the disk but for the people whose fits changed
since the last checkpoint, and is always of the state that a checkpoint names:

    store.save(step, group)      # before the checkpoint of that step is written
    save_checkpoint(last, ...)
    store.commit(group)          # after it is on the disk

Whatever is killed when, `open_store` with the step of the checkpoint that is there gives exactly
what the store held at that step.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fitting.files import InputError, OutputError, prepare_output

from ..distributed import Group
from .columns import FitColumns
from .fits import Origin, Rows, StoredFits, best_of_rows
from .identity import MANIFEST, StoreIdentity, check_identity, write_identity
from .journal import BEFORE, Journal, Segment
from .overlay import FitOverlay

ALONE = Group()
_KEPT_IN_MEMORY = 100_000  # people, while a store is being filled: some 40 MB
_SAME_FOCAL = 1e-4  # relative; single precision keeps 1e-7, and no two cameras are that alike


def create_store(
    folder: Path,
    identity: StoreIdentity,
    contents: Iterable[tuple[str, Rows, StoredFits]] = (),
    *,
    overwrite: bool = False,
) -> FitStore:
    """Make a store that was never saved, and fill it.

    It exists once all of it is on the disk: one that was cut short is no store.

    Args:
        folder: of the store alone.
        identity: what it is for.
        contents: data set, rows and fits to begin with, such as `tables.fits_of_table` gives;
            the better of two fits of a person stays.
        overwrite: replace what `folder` holds.

    Raises:
        OutputError: the folder cannot be written, or holds files and `overwrite` is false.
    """
    prepare_output(folder, overwrite=overwrite)
    (folder / MANIFEST).unlink(missing_ok=True)  # from here on there is no store
    columns = FitColumns.create(folder, identity.num_rows)
    store = FitStore(identity, columns, Journal.create(folder), BEFORE)
    for dataset, rows, fits in contents:
        for start in range(0, len(rows), _KEPT_IN_MEMORY):
            some = slice(start, start + _KEPT_IN_MEMORY)
            store.update(dataset, rows[some], fits.select(some))
            store.write_columns()
    write_identity(folder, identity)
    return open_store(folder, identity)


def open_store(folder: Path, identity: StoreIdentity, *, step: int = BEFORE) -> FitStore:
    """Open a store in the state it had at a checkpoint's step. Nothing on the disk is changed.

    Args:
        folder: of the store.
        identity: what it must be for.
        step: of the checkpoint; `BEFORE` for a store that was just made.

    Raises:
        InputError: it is no store, is for something else, or is not of that step's run; the
            message names the first difference and the fix.
    """
    check_identity(folder, identity)
    lost = FitColumns.missing(folder, identity.num_rows)
    if lost is not None:
        raise InputError(f"{lost}: is missing or of the wrong length; copy the store again")
    journal = Journal(folder)
    store = FitStore(identity, FitColumns(folder, identity.num_rows), journal, step)
    for segment in journal.since_folded(step, identity.rule):
        store.overlay.put(segment.rows, segment.fits, is_saved=True)
    return store


class FitStore:
    """The best fit known of each person; see `create_store` and `open_store`.

    Every process of a run has one. Between saves each knows of its own updates only; at a save all
    learn of the best fits of all.

    Attributes:
        identity: what it is for.
        step: of the last save.
        overlay: the fits that are not in the columns yet.
    """

    def __init__(
        self, identity: StoreIdentity, columns: FitColumns, journal: Journal, step: int
    ) -> None:
        """Of columns that hold the state at `step`; see `open_store`."""
        self.identity, self.step = identity, step
        self.overlay = FitOverlay(identity.num_rows)
        self._columns, self._journal = columns, journal
        ends = np.cumsum([dataset.num_rows for dataset in identity.datasets]).tolist()
        starts = [0, *ends[:-1]]
        self._spans = {
            dataset.name: (start, dataset.num_rows)
            for dataset, start in zip(identity.datasets, starts, strict=True)
        }
        self._offered = self._accepted = 0  # since the last save, by this process

    def read(self, dataset: str, rows: ArrayLike) -> StoredFits:
        """Fits of the people at `rows` (B,) of a data set; zeros where there is none.

        Raises:
            ValueError: there is no such data set or row.
        """
        return self._read(self._locate(dataset, rows))

    def _read(self, rows: Rows) -> StoredFits:
        return self.overlay.laid_over(rows, self._columns.read(rows))

    def update(self, dataset: str, rows: ArrayLike, fits: StoredFits) -> NDArray[np.bool_]:
        """Offer fits; one is kept where it is better than what is known.

        A fit with NaN or infinity in it is never kept, nor is one that is only as good. Of several
        fits of one person the best is kept, and of equally good ones the earlier epoch's.

        Args:
            dataset: name.
            rows: (B,) of the data set.
            fits: B, in the cameras of the pictures as they are (`frames`).

        Returns:
            (B,) which are kept.

        Raises:
            ValueError: there is no such data set or row; or a fit is of another focal length than
                the one known of that person, so that the two cannot be compared.
        """
        places = self._locate(dataset, rows)
        if len(fits) != len(places):
            raise ValueError(f"{dataset}: got {len(fits)} fits for {len(places)} rows")
        sound = np.flatnonzero(fits.is_sound)
        candidates, at = fits.select(sound), places[sound]
        best = best_of_rows(at, candidates, self.identity.rule)
        known = self._read(at[best])
        self._check_focal(dataset, at, candidates, best, known)
        found = candidates.judged_by(self.identity.rule)[best]
        better = ~known.is_known | (found < known.judged_by(self.identity.rule))
        chosen = best[better]
        self.overlay.put(at[chosen], candidates.select(chosen), is_saved=False)
        self._offered += len(best)
        self._accepted += len(chosen)
        is_kept = np.zeros(len(places), bool)
        is_kept[sound[chosen]] = True
        return is_kept

    def _locate(self, dataset: str, rows: ArrayLike) -> Rows:
        """Rows of a data set among those of all."""
        if dataset not in self._spans:
            raise ValueError(f"no data set {dataset!r} in the store; it has {list(self._spans)}")
        start, count = self._spans[dataset]
        places = np.asarray(rows, np.int64)
        if places.ndim != 1:
            raise ValueError(f"rows must be (B,), got {places.shape}")
        if len(places) and not (places.min() >= 0 and places.max() < count):
            raise ValueError(
                f"{dataset}: rows must be in 0 to {count - 1}, got {places.min()} to {places.max()}"
            )
        return start + places

    def _check_focal(
        self,
        dataset: str,
        rows: Rows,
        fits: StoredFits,
        best: NDArray[np.int64],
        known: StoredFits,
    ) -> None:
        """ValueError if two fits of a person, new or known, are of different focal lengths."""
        of_rows = np.where(known.is_known, known.focal, fits.focal[best])
        expected = of_rows[np.searchsorted(rows[best], rows)]
        wrong = np.flatnonzero(abs(fits.focal - expected) > _SAME_FOCAL * expected)
        if len(wrong):
            i, start = wrong[0], self._spans[dataset][0]
            raise ValueError(
                f"{dataset}, row {rows[i] - start}: a fit for a focal length of {fits.focal[i]:g} "
                f"pixels cannot be compared with one for {expected[i]:g}; fit with the data set's "
                "own cameras, and do not solve for focal lengths"
            )

    def save(self, step: int, group: Group = ALONE) -> None:
        """Write what changed since the last save; collective. Then write the checkpoint.

        Afterwards every process knows of the best fits of all. If it fails the store stays as it
        is, on the disk and in memory, and may be saved again, as of the same step or a later one.

        Args:
            step: of the checkpoint to come, above the last save's.
            group: the processes that share the store.

        Raises:
            OutputError: a process cannot write its part: the disk is full and the like.
        """
        if step <= self.step:
            raise ValueError(f"the store was saved at step {self.step}, and cannot be at {step}")
        rows, fits = self.overlay.unsaved()
        segment = Segment(
            step=step, previous=self.step, rank=group.rank, size=group.size, rows=rows, fits=fits
        )
        error = None
        try:
            self._journal.write(segment)
        except OutputError as reason:
            error = reason
        _raise_anywhere(error, group)
        if group.size > 1:
            merged = self._journal.read(step, self.identity.rule)
            self.overlay.put(merged.rows, merged.fits, is_saved=True)
        self.overlay.mark_saved()
        self.step, self._offered, self._accepted = step, 0, 0

    def commit(self, group: Group = ALONE) -> None:
        """Put saved fits into the columns, once the checkpoint is on the disk; collective.

        A kill in the midst of it does no harm: the journal still has the fits, and they are put
        there again. So does a full disk; the next commit has more to do.

        Raises:
            OutputError: the first process cannot write the columns.
        """
        if self.overlay.has_unsaved:
            raise ValueError("fits came after the last save; commit before the next update")
        error = None
        if group.is_first:
            try:
                self._journal.begin_fold(self.step)
                self._columns.write(self.overlay.rows, self.overlay.fits)
                self._journal.end_fold()
            except OutputError as reason:
                error = reason
        _raise_anywhere(error, group)
        self._journal.reload()
        self.overlay.clear()

    def write_columns(self) -> None:
        """Put all fits into the columns of a store that is being made, and has no checkpoint."""
        self._columns.write(self.overlay.rows, self.overlay.fits)
        self.overlay.clear()

    def statistics(self) -> dict[str, float]:
        """For the log, of this process's knowledge.

        Returns:
            `filled`, the share of people with a fit; `cost`, their mean cost, NaN if there are
            none; `improved`, the share of people offered a fit since the last save who kept it;
            and `static`, `regressor` and `loop`, the origins' shares of the fits.
        """
        counts, cost = self._columns.totals()
        newer, older = self.overlay.fits, self._columns.read(self.overlay.rows)
        counts = counts + np.bincount(newer.origin, minlength=256)
        counts -= np.bincount(older.origin, minlength=256)
        cost += float(newer.cost.sum(dtype=np.float64) - older.cost.sum(dtype=np.float64))
        filled = int(counts.sum() - counts[Origin.NONE])
        shares = {o.label: float(counts[o] / max(filled, 1)) for o in Origin if o != Origin.NONE}
        return {
            "filled": filled / self.identity.num_rows,
            "cost": cost / filled if filled else float("nan"),
            "improved": self._accepted / max(self._offered, 1),
            **shares,
        }


def _raise_anywhere(error: OutputError | None, group: Group) -> None:
    """Wait for all processes; OutputError in each if there was one in any."""
    failed = group.any(error is not None)
    if error is not None:
        raise error
    if failed:
        raise OutputError("another process cannot write its part of the fit store; see its message")
