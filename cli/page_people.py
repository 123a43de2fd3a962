"""The people of a run as its web page holds them: columns to sort by, and a record for each."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .page_file import short

if TYPE_CHECKING:
    from fitting.table import FitsTable

MAX_PEOPLE = 20_000  # on a page, 900 bytes each; a run of more shows its worst
DIGITS = 4  # significant ones of the columns' numbers


@dataclass(frozen=True, kw_only=True)
class PagePeople:
    """M people of a run, worst first.

    Attributes:
        columns: lists of M values, None where there is none. `image`, `status` and `init` are
            indices into the texts of the same name; the others are numbers: `row` in the table,
            `person`, `width` and `height` of the picture and `size` of the person in pixels,
            `error` (mean reprojection error as a share of the size), `errorPx`, `sigma` (mean of
            the joints' standard deviations, mm), `prior` (nats), `costInitial`, `cost`, `steps`,
            `seen` keypoints, and `drawn`, whether there are pictures.
        texts: what `image`, `status` and `init` are indices into.
        records: (M, S) float32, the parts of `layout` side by side; NaN where there is no fit. S
            is a multiple of 3, so that a record is a whole number of base64's characters.
        layout: part of a record -> its first column and its length.
        num_people: of the run, of whom M are here.
        run_id: differs from run to run.
    """

    columns: Mapping[str, list[Any]]
    texts: Mapping[str, Sequence[str]]
    records: np.ndarray
    layout: Mapping[str, tuple[int, int]]
    num_people: int
    run_id: str

    def __len__(self) -> int:
        return len(self.records)


def collect_people(table: FitsTable, output: Path) -> PagePeople:
    """The people of a fits table, whose pictures stand below the folder `output`, worst first.

    Those without a fit come last; beyond `MAX_PEOPLE` the best are left out.
    """
    errors = _relative_errors(table)
    rows = np.argsort(-np.nan_to_num(errors, nan=-1), kind="stable")[:MAX_PEOPLE]
    shown = table.select(rows)
    texts, indices = {}, {}
    for name in ("image", "status", "init"):
        found, index = np.unique(shown.column_array(name), return_inverse=True)
        texts[name], indices[name] = [str(text) for text in found], index.reshape(-1)
    columns = {
        "row": rows,
        **indices,
        **_numbers(shown),
        "error": errors[rows],
        "drawn": _drawn(rows, output),
    }
    records, layout = _records(shown)
    return PagePeople(
        columns={name: _plain(column) for name, column in columns.items()},
        texts=texts,
        records=records,
        layout=layout,
        num_people=len(table),
        run_id=hashlib.sha256(records.tobytes()).hexdigest()[:16],
    )


def _keypoints(table: FitsTable) -> np.ndarray:
    """(N, P, 3) x, y and confidence."""
    keypoints = table.column_array("keypoints_2d")
    return keypoints.reshape(len(table), keypoints.shape[1] // 3, 3)


def _sizes(table: FitsTable) -> np.ndarray:
    """(N,) pixels."""
    from fitting.people import person_size

    keypoints = _keypoints(table)
    return person_size(keypoints[..., :2], keypoints[..., 2])


def _relative_errors(table: FitsTable) -> np.ndarray:
    """(N,) mean reprojection errors as shares of the people's sizes, NaN where there is no fit."""
    size, error = _sizes(table), table.column_array("reprojection_error_px")
    return np.divide(error, size, out=np.full_like(error, np.nan), where=size > 0)


def _numbers(table: FitsTable) -> dict[str, np.ndarray]:
    """(N,) each, NaN where there is no fit."""
    return {
        **{name: table.column_array(name) for name in ("person", "width", "height")},
        "size": _sizes(table),
        "errorPx": table.column_array("reprojection_error_px"),
        "sigma": table.column_array("joint_std_mm").mean(axis=1),
        "prior": _prior_costs(table),
        "costInitial": table.column_array("cost_initial"),
        "cost": table.column_array("cost_final"),
        "steps": table.column_array("num_steps"),
        "seen": (_keypoints(table)[..., 2] > 0).sum(axis=1),
    }


def _prior_costs(table: FitsTable) -> np.ndarray:
    """(N,) nats: how unusual pose and shape are under the bundled priors; 0 is the commonest."""
    import torch

    from priors.gmm import load_pose_prior
    from priors.shape import shape_cost

    pose, betas = (torch.from_numpy(table.column_array(n)) for n in ("body_pose", "betas"))
    with torch.no_grad():
        return (load_pose_prior()(pose) + 0.5 * shape_cost(betas)).numpy()


def _drawn(rows: np.ndarray, output: Path) -> np.ndarray:
    """(N,) 1 for rows of the run whose pictures are there, else 0."""
    from fitting.pictures import person_files

    there = [(output / person_files(row).overlay).is_file() for row in rows.tolist()]
    return np.array(there, dtype=np.int64)


def _records(table: FitsTable) -> tuple[np.ndarray, dict[str, tuple[int, int]]]:
    """(N, S) float32 and where its parts are."""
    parts = {
        "keypoints": table.column_array("keypoints_2d"),
        **{
            name: table.column_array(name)
            for name in ("global_orient", "body_pose", "betas", "transl")
        },
        "camera": np.stack([table.column_array(n) for n in ("fx", "fy", "cx", "cy")], axis=1),
        "joint_std_mm": table.column_array("joint_std_mm"),
    }
    layout, first = {}, 0
    for name, part in parts.items():
        layout[name] = (first, part.shape[1])
        first += part.shape[1]
    records = np.zeros((len(table), -(-first // 3) * 3), dtype="<f4")
    records[:, :first] = np.concatenate(list(parts.values()), axis=1)
    return records, layout


def _plain(column: np.ndarray) -> list[Any]:
    """As JSON can hold it: short numbers, None for NaN and infinity."""
    if column.dtype.kind != "f":
        return column.tolist()
    return [short(value, DIGITS) for value in column.tolist()]
