"""Pseudo labels say in every format how sure they are and where they come from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from fits import fit_columns

from fitting.table import build_fits, write_fits

NAMES = ("joint_std_mm", "reprojection_error_px", "cost_final", "status", "init")


@pytest.fixture
def labels(tmp_path, rng) -> Path:
    """Four people as a loop leaves them: the second without a fit, the third of unknown doubt."""
    columns = fit_columns(4)
    for name in ("global_orient", "body_pose", "betas", "transl"):
        columns[name] = np.array(columns[name], dtype=float)
        columns[name][1] = np.nan
    std = rng.uniform(10, 200, (4, 24)).astype(np.float32)
    std[1:3] = np.nan
    columns |= {
        "joint_std_mm": std,
        "reprojection_error_px": np.array([3.5, np.nan, 7.25, 1.5]),
        "cost_final": np.array([11.0, np.nan, np.nan, 5.0]),
        "status": np.array(["best_known", "no_fit", "best_known", "best_known"]),
        "init": np.array(["loop@12", "none", "static@0", "regressor@3"]),
    }
    write_fits(tmp_path / "00.parquet", build_fits(columns, {}))
    return tmp_path / "00.parquet"


def as_written(path: Path) -> dict[str, list[Any]]:
    """The fitted rows of the table, straight from the file: null where nothing is known."""
    table = pq.read_table(path, columns=list(NAMES)).take([0, 2, 3])
    return {name: table[name].to_pylist() for name in NAMES}


def export(fit_cli, labels: Path, target: str, output: Path) -> None:
    code, _, err = fit_cli("export", labels, "--to", target, "-o", output)
    assert code == 0, err


def rows_of(column: np.ndarray) -> list[Any]:
    """An array's rows with None for NaN."""
    unknown = np.isnan(column.astype(float)) if column.dtype.kind == "f" else column == "\0"
    absent = unknown if column.ndim == 1 else unknown.all(axis=1)
    return [None if a else row for a, row in zip(absent, column.tolist(), strict=True)]


@pytest.mark.parametrize("target", ["spin", "humandata"])
def test_arrays_carry_deviations_and_flags(fit_cli, labels, tmp_path, target):
    export(fit_cli, labels, target, tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz", allow_pickle=False) as file:
        found = {name: rows_of(file[name]) for name in NAMES}
    assert found == as_written(labels)


def test_json_carries_them_without_nan(fit_cli, labels, tmp_path):
    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    export(fit_cli, labels, "eft", tmp_path / "eft.json")
    people = json.loads((tmp_path / "eft.json").read_text(), parse_constant=refuse)["data"]
    assert {name: [person[name] for person in people] for name in NAMES} == as_written(labels)


def test_motions_carry_them_frame_by_frame(fit_cli, labels, tmp_path):
    table = pq.read_table(labels)
    track = table.column_names.index("track")
    together = table.set_column(track, table.schema.field("track"), [[7, 7, -1, 7]])
    pq.write_table(together, tmp_path / "tracked.parquet")
    export(fit_cli, tmp_path / "tracked.parquet", "amass", tmp_path / "motions")
    expected = as_written(labels)  # the pictures 0.jpg, 2.jpg and 3.jpg
    for file, rows in (("track_000007", [0, 2]), ("000002_2_0", [1])):
        with np.load(tmp_path / "motions" / f"{file}.npz", allow_pickle=False) as motion:
            for name in NAMES:
                assert rows_of(motion[name]) == [expected[name][row] for row in rows]
