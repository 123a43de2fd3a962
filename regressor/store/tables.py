"""Between fit stores and fits tables: `fit-cli fit` fills a store, and a store gives labels."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from fitting.body import Body
from fitting.estimates import estimates_of_table, match_rows
from fitting.files import InputError
from fitting.people import People
from fitting.run import people_columns
from fitting.table import PARAMETERS, FitsTable, build_fits

from .fit_store import FitStore
from .fits import Origin, Rows, StoredFits

BEST_KNOWN, NO_FIT = "best_known", "no_fit"  # statuses in exported tables
_SAME_CAMERA = 1e-4  # relative
_CHUNK = 1 << 16  # people exported at once
_INIT = re.compile(r"(static|regressor|loop)@(\d+)")


@dataclass(frozen=True, kw_only=True)
class TableFits:
    """What a fits table has for the people of a data set.

    Attributes:
        rows: (B,) of the data set, in order.
        fits: of those B people.
        other_camera: people whose fit is left out, because it is for another camera.
    """

    rows: Rows
    fits: StoredFits
    other_camera: int


def fits_of_table(
    table: FitsTable,
    people: People,
    intrinsics: NDArray[np.floating],
    body: Body,
    *,
    costs: NDArray[np.floating] | None = None,
    file: str = "the table of static fits",
) -> TableFits:
    """Fits of a data set's people out of a table, matched as `fitting.estimates.match_rows` does.

    Args:
        table: of `fit-cli fit`, or one that `export_fits` made, which comes back as it was.
        people: N of the data set, in its order.
        intrinsics: (N, 3, 3) pixels, of the data set's cameras.
        body: that the store is for.
        costs: of the table's rows under the store's energy; none means the table's own
            `cost_final`, which must be of that energy.
        file: where the table comes from, for messages.

    Raises:
        InputError: the table is of another body, or cannot be matched with the people.
    """
    fitted_with = table.metadata.get("body_sha256", body.sha256)
    if fitted_with != body.sha256:
        raise InputError(
            f"{file}: is of the body {fitted_with[:12]}, not of {body.sha256[:12]}; fit again with "
            "the body that is trained for"
        )
    row_of = match_rows(estimates_of_table(table, body, file=file), people)
    rows = np.flatnonzero(row_of >= 0)
    fits = _fits_of_rows(table, costs).select(row_of[rows])
    rows, fits = rows[fits.is_known], fits.select(fits.is_known)
    found = table.intrinsics[row_of[rows]]
    apart = abs(found - intrinsics[rows]).max(axis=(1, 2), initial=0)
    same = apart <= _SAME_CAMERA * intrinsics[rows, 0, 0]
    return TableFits(
        rows=rows[same], fits=fits.select(same), other_camera=int(np.count_nonzero(~same))
    )


def _fits_of_rows(table: FitsTable, costs: NDArray[np.floating] | None) -> StoredFits:
    """All rows of a table; those without parameters or cost as people without a fit."""
    params = np.concatenate([table.column_array(name) for name in PARAMETERS], axis=1)
    cost = table.column_array("cost_final") if costs is None else costs
    made = [_INIT.fullmatch(init) for init in table.column_array("init").tolist()]
    origin = [Origin[m[1].upper()] if m else Origin.STATIC for m in made]
    fits = StoredFits(
        params=params,
        joint_std_mm=table.column_array("joint_std_mm"),
        cost=cost,
        error_px=table.column_array("reprojection_error_px"),
        focal=table.column_array("fx"),
        epoch=np.array([int(m[2]) if m else 0 for m in made], np.int32),
        origin=np.array(origin, np.uint8),
    )
    return replace(fits, origin=fits.origin * fits.is_sound)


def export_fits(
    store: FitStore,
    dataset: str,
    people: People,
    intrinsics: NDArray[np.floating],
    metadata: Mapping[str, str],
) -> FitsTable:
    """The best fits known of a data set's people, as a fits table.

    `status` is `best_known` or `no_fit`, and `init` says where a fit comes from and in which epoch
    it was made: `static@0`, `loop@12`. What a store does not keep, the cost at the start and the
    number of steps, is null and 0.

    Args:
        store: the table holds what this process knows of.
        dataset: name.
        people: N of the data set, in its order.
        intrinsics: (N, 3, 3) pixels, of their cameras.
        metadata: of the table, see `FitsTable`; the body's sha256 is added.
    """
    rows = np.arange(len(people))
    parts = [store.read(dataset, rows[i : i + _CHUNK]) for i in range(0, len(rows), _CHUNK)]
    fits = StoredFits.concatenate(parts)
    known = fits.is_known
    params = fits.body_params.where(torch.from_numpy(known))
    init = [f"{Origin(o).label}@{e}" for o, e in zip(fits.origin, fits.epoch.tolist(), strict=True)]
    columns = {
        **people_columns(people, params, torch.from_numpy(intrinsics)),
        "joint_std_mm": np.where(known[:, None], fits.joint_std_mm.astype(np.float32), np.nan),
        "reprojection_error_px": np.where(known, fits.error_px, np.nan),
        "cost_initial": np.full(len(people), np.nan),
        "cost_final": np.where(known, fits.cost, np.nan),
        "num_steps": np.zeros(len(people), np.int32),
        "status": np.where(known, BEST_KNOWN, NO_FIT),
        "init": np.where(known, init, Origin.NONE.label),
    }
    return build_fits(columns, {**metadata, "body_sha256": store.identity.body_sha256})
