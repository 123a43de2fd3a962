"""Files with what a network says of the same few people at each evaluation of a run.

In the run's folder:

| file in `snapshots/` | a row for each of the K people |
|---|---|
| `people.parquet` | who they are, their crop as JPEG, its camera and keypoints, and what is true |
| `step-0000000500.parquet` | the estimate after so many steps, and the best fit known then |

Parameters are 85 numbers, global_orient, body_pose, betas and transl side by side, in the camera
frame of the person's picture; pixels are those of the crop.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fitting.files import write_atomically

FOLDER = "snapshots"
HELD_OUT, LEARNED_FROM = "held out", "learned from"
NUM_PARAMETERS, NUM_JOINTS = 85, 24
_PEOPLE = "people.parquet"
_STEP = re.compile(r"step-(\d+)\.parquet")
_FLOATS = pa.list_(pa.float32())
_PEOPLE_SCHEMA = pa.schema(
    {
        **{"group": pa.string(), "dataset": pa.string(), "row": pa.int64(), "image": pa.string()},
        **{"size": pa.int32(), "camera": _FLOATS, "keypoints": _FLOATS, "truth": _FLOATS},
        "picture": pa.binary(),
    }
)
_SNAPSHOT_SCHEMA = pa.schema(
    {
        **{"estimate": _FLOATS, "fit": _FLOATS, "joint_std_mm": _FLOATS},
        **{"cost": pa.float32(), "error_px": pa.float32()},
        **{"origin": pa.string(), "epoch": pa.int32()},
    }
)


def write_people(run: Path, columns: Mapping[str, Any], *, body_sha256: str) -> None:
    """Write who is shown.

    Args:
        run: folder.
        columns: name -> K values, of the attributes of `Album`; None where something is unknown.
        body_sha256: of the body that parameters belong to.

    Raises:
        OutputError: it cannot be written.
    """
    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    schema = _PEOPLE_SCHEMA.with_metadata({"body_sha256": body_sha256})
    _write(folder / _PEOPLE, columns, schema)


def write_snapshot(run: Path, step: int, columns: Mapping[str, Any]) -> None:
    """Write what was known of them after a step.

    Args:
        run: folder.
        step: updates done.
        columns: name -> K values, of the attributes of `Snapshot`; None where something is unknown.

    Raises:
        OutputError: it cannot be written.
    """
    _write(run / FOLDER / f"step-{step:010d}.parquet", columns, _SNAPSHOT_SCHEMA)


def snapshot_files(run: Path) -> dict[int, Path]:
    """Step -> file, in order."""
    found = [(_STEP.fullmatch(path.name), path) for path in (run / FOLDER).glob("step-*.parquet")]
    return dict(sorted((int(match[1]), path) for match, path in found if match))


def _write(path: Path, columns: Mapping[str, Any], schema: pa.Schema) -> None:
    arrays = [pa.array(columns[field.name], field.type) for field in schema]
    table = pa.Table.from_arrays(arrays, schema=schema)
    write_atomically(path, lambda stream: pq.write_table(table, stream))


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What was known of K people after some steps.

    Attributes:
        step: updates done.
        estimate: (K, 85) global_orient, body_pose, betas and transl side by side.
        fit: (K, 85) the best fit known; NaN where there is none, as in the next three.
        joint_std_mm: (K, 24) of the fit.
        cost: (K,) of the fit.
        error_px: (K,) of the fit.
        origin: K words, see `store.fits.Origin`.
        epoch: K, in which the fit was made.
    """

    step: int
    estimate: NDArray[np.float32]
    fit: NDArray[np.float32]
    joint_std_mm: NDArray[np.float32]
    cost: NDArray[np.float32]
    error_px: NDArray[np.float32]
    origin: list[str]
    epoch: list[int]


@dataclass(frozen=True, kw_only=True)
class Album:
    """The snapshots of a run, and the K people whom they show.

    Attributes:
        body_sha256: of the body that parameters belong to.
        group, dataset, row, image: K each, as in `snapshots.ShownPeople`.
        size: pixels across the pictures.
        camera: (K, 4) fx, fy, cx and cy of the pictures' pixels.
        keypoints: K times (n, 2), those seen, in the pictures' pixels.
        truth: (K, 85), NaN where unknown.
        picture: K JPEGs.
        snapshots: in the order of their steps.
    """

    body_sha256: str
    group: list[str]
    dataset: list[str]
    row: list[int]
    image: list[str]
    size: int
    camera: NDArray[np.float32]
    keypoints: list[NDArray[np.float32]]
    truth: NDArray[np.float32]
    picture: list[bytes]
    snapshots: list[Snapshot]

    def __len__(self) -> int:
        return len(self.row)


def read_album(run: Path, *, limit: int | None = None) -> Album | None:
    """The snapshots of a run that can be read; None if there are none.

    Args:
        run: its folder.
        limit: of snapshots; of more, so many that are evenly spread, the last among them.
    """
    table = _read(run / FOLDER / _PEOPLE, _PEOPLE_SCHEMA)
    if table is None or len(table) == 0:
        return None
    files = list(snapshot_files(run).items())
    if limit is not None and len(files) > limit:
        files = [files[i] for i in np.linspace(0, len(files) - 1, limit).round().astype(int)]
    taken = [_snapshot(step, _read(path, _SNAPSHOT_SCHEMA), len(table)) for step, path in files]
    try:
        return _album(table, [snapshot for snapshot in taken if snapshot is not None])
    except (TypeError, ValueError):  # null or a list of another length
        return None


def _album(table: pa.Table, snapshots: list[Snapshot]) -> Album:
    columns = {name: table.column(name).to_pylist() for name in _PEOPLE_SCHEMA.names}
    return Album(
        body_sha256=(table.schema.metadata or {}).get(b"body_sha256", b"").decode(),
        **{name: columns[name] for name in ("group", "dataset", "row", "image", "picture")},
        size=columns["size"][0],
        camera=np.array(columns["camera"], np.float32).reshape(len(table), 4),
        keypoints=[np.array(row, np.float32).reshape(-1, 2) for row in columns["keypoints"]],
        truth=_rows(columns["truth"], NUM_PARAMETERS),
        snapshots=snapshots,
    )


def _snapshot(step: int, table: pa.Table | None, count: int) -> Snapshot | None:
    """None if the file is damaged, or of other people."""
    if table is None or len(table) != count:
        return None
    columns = {name: table.column(name).to_pylist() for name in _SNAPSHOT_SCHEMA.names}
    try:
        return Snapshot(
            step=step,
            estimate=_rows(columns["estimate"], NUM_PARAMETERS),
            fit=_rows(columns["fit"], NUM_PARAMETERS),
            joint_std_mm=_rows(columns["joint_std_mm"], NUM_JOINTS),
            cost=np.array(columns["cost"], np.float32),
            error_px=np.array(columns["error_px"], np.float32),
            origin=columns["origin"],
            epoch=columns["epoch"],
        )
    except ValueError:  # a list of another length
        return None


def _rows(lists: list[list[float] | None], length: int) -> NDArray[np.float32]:
    """(K, length), NaN for None."""
    unknown = [np.nan] * length
    rows = np.array([unknown if row is None else row for row in lists], np.float32)
    return rows.reshape(len(lists), length)


def _read(path: Path, schema: pa.Schema) -> pa.Table | None:
    """A table of these columns; None if it is not there, damaged or another."""
    try:
        with pq.ParquetFile(path) as file:
            table = file.read()
        return table.select(schema.names).cast(schema.with_metadata(table.schema.metadata))
    except (OSError, ValueError, KeyError, pa.ArrowException):
        return None
