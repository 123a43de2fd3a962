"""The fits table: what is read equals what was written, and other files are named with the fix."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fitting.files import InputError, OutputError
from fitting.people import is_safe_name
from fitting.table import (
    FITS_SCHEMA,
    LIST_LENGTHS,
    PARAMETERS,
    build_fits,
    count_rows,
    encode_fits,
    iterate_fits,
    read_fits,
    write_fits,
)

METADATA = {"body_sha256": "ab" * 32, "config": '{"num_steps": 3}', "version": "0.1.0"}
INTEGERS = ("person", "annotation_id", "width", "height", "num_steps")
FLOATS = ("fx", "fy", "cx", "cy", "reprojection_error_px", "cost_initial", "cost_final")
STRINGS = ("image", "keypoint_set", "status", "init")


def fits_columns(N: int, *, absent: list[int] | None = None, P: int = 17) -> dict[str, Any]:
    """Columns of distinct numbers; the rows of `absent` have no parameters."""
    rng = np.random.default_rng(N)
    columns: dict[str, Any] = {name: rng.integers(1, 1000, N) for name in INTEGERS}
    columns |= {name: rng.uniform(1, 9, N).astype(np.float32) for name in FLOATS}
    columns |= {name: np.array([f"{name} é {n}" for n in range(N)], np.str_) for name in STRINGS}
    for name, length in (LIST_LENGTHS | {"keypoints_2d": 3 * P}).items():
        columns[name] = rng.normal(size=(N, length)).astype(np.float32)
        if name != "keypoints_2d":
            columns[name][absent or []] = np.nan
    return columns


def assert_same(table, columns: dict[str, Any]) -> None:
    for name, expected in columns.items():
        found = table.column_array(name)
        np.testing.assert_array_equal(found, expected)
        if found.dtype.kind != "U":
            types = {"person": np.int32, "annotation_id": np.int64, "betas": np.float32}
            assert found.dtype == types.get(name, found.dtype)


def test_round_trip_with_people_without_a_fit(tmp_path):
    columns = fits_columns(5, absent=[0, 3])
    columns["reprojection_error_px"][3] = np.nan
    write_fits(tmp_path / "fits.parquet", build_fits(columns, METADATA))
    table = read_fits(tmp_path / "fits.parquet")
    assert_same(table, columns)
    assert table.metadata == METADATA
    assert table.has_parameters.tolist() == [False, True, True, False, True]
    assert table.columns.schema == FITS_SCHEMA


def test_another_reader_sees_lists_and_nulls(tmp_path):
    columns = fits_columns(3, absent=[1])
    columns["cost_final"][1] = np.nan
    write_fits(tmp_path / "a.parquet", build_fits(columns, METADATA))
    rows = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert rows[1]["betas"] is None
    assert rows[1]["cost_final"] is None
    assert rows[1]["keypoints_2d"] == columns["keypoints_2d"][1].tolist()
    assert rows[2]["betas"] == columns["betas"][2].tolist()
    assert rows[2]["image"] == "image é 2"
    assert rows[0]["annotation_id"] == columns["annotation_id"][0]


@pytest.mark.parametrize("N", [0, 1])
def test_tables_of_no_and_of_one_row(tmp_path, N):
    columns = fits_columns(N)
    write_fits(tmp_path / "a.parquet", build_fits(columns, METADATA))
    table = read_fits(tmp_path / "a.parquet")
    assert len(table) == N
    assert table.column_array("betas").shape == (N, 10)
    assert table.column_array("keypoints_2d").shape == (N, 51 * N)  # unknown P without rows


def test_posterior_deviations_may_be_left_out():
    columns = fits_columns(2)
    del columns["joint_std_mm"]
    table = build_fits(columns, METADATA)
    assert table.columns.column("joint_std_mm").null_count == 2


@settings(max_examples=40)
@given(data=st.data())
def test_any_values_survive_the_round_trip(data, tmp_path_factory):
    N = data.draw(st.integers(1, 4))
    columns = fits_columns(N)
    numbers = st.floats(width=32, allow_nan=False)
    columns["transl"] = data.draw(hnp.arrays(np.float32, (N, 3), elements=numbers))
    columns["cx"] = data.draw(hnp.arrays(np.float32, N, elements=st.floats(width=32)))
    columns["annotation_id"] = data.draw(hnp.arrays(np.int64, N))
    letters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
    text = st.text(letters, max_size=9).filter(is_safe_name)
    columns["image"] = np.array(data.draw(st.lists(text, min_size=N, max_size=N)), np.str_)
    absent = data.draw(hnp.arrays(np.bool_, N))
    for name in PARAMETERS:
        columns[name][absent] = np.nan
    path = tmp_path_factory.mktemp("fits") / "a.parquet"
    write_fits(path, build_fits(columns, METADATA))
    table = read_fits(path)
    assert_same(table, columns)
    np.testing.assert_array_equal(table.has_parameters, ~absent)


def test_parts_are_read_in_the_order_of_their_numbers(tmp_path):
    folder = tmp_path / "out" / "fits"
    folder.mkdir(parents=True)
    for number in (0, 2, 10):
        columns = fits_columns(2) | {"annotation_id": np.array([number, number + 1])}
        write_fits(folder / f"part-{number}.parquet", build_fits(columns, METADATA))
    (folder / "part-3.parquet.tmp").touch()
    for path in (folder, folder.parent):
        table = read_fits(path)
        assert table.column_array("annotation_id").tolist() == [0, 1, 2, 3, 10, 11]
        assert table.column_array("betas").shape == (6, 10)
    other = build_fits(fits_columns(1), METADATA | {"body_sha256": "cd"})
    write_fits(folder / "part-11.parquet", other)
    with pytest.raises(InputError, match=r"part-11\.parquet was fitted with another body"):
        read_fits(folder)


@pytest.mark.parametrize("rows", [1, 3, 7, 50])
def test_rows_some_at_a_time_are_those_at_once(tmp_path, rows):
    columns = fits_columns(7, absent=[2])
    path = tmp_path / "a.parquet"
    table = build_fits(columns, METADATA)
    path.write_bytes(encode_fits(table))
    assert_same(read_fits(path), columns)
    parts = list(iterate_fits(path, rows=rows))
    assert [len(part) for part in parts] == [min(rows, 7 - n) for n in range(0, 7, rows)]
    assert all(part.metadata == METADATA for part in parts)
    assert pa.concat_tables([part.columns for part in parts]).equals(table.columns)
    assert count_rows(path) == 7


def test_damaged_files_are_named_row_by_row_too(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_bytes(encode_fits(build_fits(fits_columns(900), METADATA))[:-9])
    for read in (count_rows, lambda path: list(iterate_fits(path, rows=10))):
        with pytest.raises(InputError, match="cannot be read as Parquet") as caught:
            read(path)
        assert str(path) in str(caught.value)
    pq.write_table(_damaged("betas", None), path)
    with pytest.raises(InputError, match="no column betas"):
        list(iterate_fits(path, rows=10))


def test_a_folder_that_holds_the_file(tmp_path):
    write_fits(tmp_path / "fits.parquet", build_fits(fits_columns(2), METADATA))
    assert len(read_fits(tmp_path)) == 2


def test_select_rows(tmp_path):
    columns = fits_columns(4, absent=[1])
    table = build_fits(columns, METADATA)
    for index in (np.array([False, True, True, False]), np.array([1, 2])):
        chosen = table.select(index)
        assert_same(chosen, {name: column[1:3] for name, column in columns.items()})
        assert chosen.metadata == METADATA
    assert len(table.select(np.array([], dtype=int))) == 0


def test_intrinsics(rng):
    columns = fits_columns(3)
    columns["cx"][1] = np.nan
    K = build_fits(columns, METADATA).intrinsics
    assert (K.shape, K.dtype) == ((3, 3, 3), np.float32)
    x, y, z = rng.uniform(1, 2, 3)
    pixels = (K @ [x, y, z] / z)[:, :2]
    for row in (0, 2):
        expected = [
            columns["fx"][row] * x / z + columns["cx"][row],
            columns["fy"][row] * y / z + columns["cy"][row],
        ]
        np.testing.assert_allclose(pixels[row], expected, rtol=1e-6)
    assert np.isnan(pixels[1, 0])
    assert build_fits(fits_columns(0), METADATA).intrinsics.shape == (0, 3, 3)


def test_keypoints_of_two_sets_need_a_selection(tmp_path):
    for number, P in enumerate((17, 23)):
        table = build_fits(fits_columns(2, P=P), METADATA)
        write_fits(tmp_path / f"part-{number}.parquet", table)
    table = read_fits(tmp_path)
    with pytest.raises(ValueError, match="row 2 has 69 numbers, expected 51"):
        table.column_array("keypoints_2d")
    assert table.select(np.arange(2, 4)).column_array("keypoints_2d").shape == (2, 69)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"betas": None}, "missing: betas, unknown: none"),
        ({"beta": np.zeros((3, 10))}, "missing: none, unknown: beta"),
        ({"betas": np.zeros((3, 11))}, r"betas must be \(3, 10\), got \(3, 11\)"),
        ({"betas": np.zeros((2, 10))}, r"betas must be \(3, 10\), got \(2, 10\)"),
        ({"fx": np.zeros((3, 1))}, r"fx must be \(3,\), got \(3, 1\)"),
        ({"betas": np.full((3, 10), np.nan)}, "row 0 has some of global_orient"),
        ({"transl": np.array([[0, 0, 0], [0, 0, 0], [0, np.nan, 5]])}, "transl of row 2 holds NaN"),
        ({"keypoints_2d": np.full((3, 51), np.nan)}, "keypoints_2d of row 0 holds NaN"),
    ],
)
def test_columns_that_make_no_table(change, words):
    columns = fits_columns(3) | change
    with pytest.raises(ValueError, match=words):
        build_fits({name: c for name, c in columns.items() if c is not None}, METADATA)


def _damaged(name: str, column: pa.Array | None) -> pa.Table:
    table = build_fits(fits_columns(2), METADATA).columns
    position = table.schema.get_field_index(name)
    table = table.remove_column(position)
    return table if column is None else table.append_column(name, column)


@pytest.mark.parametrize(
    ("name", "column", "words"),
    [
        ("betas", None, "no column betas"),
        ("person", pa.array([1.5, 2.5]), "column person of type double, expected int32"),
        ("betas", pa.array([1, 2], pa.float32()), "column betas of type float, expected list"),
        ("betas", pa.array([[1.0] * 10] * 2), "column betas of type list"),
        ("status", pa.array(["converged", None]), "null in the column status"),
        ("betas", pa.array([None, [1.0] * 9], pa.list_(pa.float32())), "betas of row 1 has 9"),
    ],
)
def test_parquet_files_that_are_no_fits(tmp_path, name, column, words):
    path = tmp_path / "a.parquet"
    pq.write_table(_damaged(name, column), path)
    with pytest.raises(InputError, match=words) as caught:
        read_fits(path)
    assert str(path) in str(caught.value)


def test_lists_of_other_writers_are_accepted(tmp_path):
    item = pa.list_(pa.field("element", pa.float32(), nullable=False))
    path = tmp_path / "a.parquet"
    pq.write_table(_damaged("betas", pa.array([[1.0] * 10, None], item)), path)
    table = read_fits(path)
    np.testing.assert_array_equal(table.column_array("betas")[0], np.ones(10))
    assert table.columns.schema == FITS_SCHEMA
    assert table.metadata == {}


def test_files_that_are_no_parquet(tmp_path):
    def fails(path: Path, words: str) -> None:
        with pytest.raises(InputError, match=words) as caught:
            read_fits(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)

    fails(tmp_path / "none", "does not exist")
    fails(tmp_path, r"neither fits\.parquet nor fits/part")
    path = tmp_path / "fits.parquet"
    path.touch()
    fails(path, "cannot be read as Parquet")
    path.write_bytes(b"PAR1 and then nothing")
    fails(path, "cannot be read as Parquet")
    columns = build_fits(fits_columns(2), METADATA).columns
    for metadata in (b"{", b"[1]", b"\xff"):
        pq.write_table(columns.replace_schema_metadata({b"bodyloop": metadata}), path)
        fails(path, "damaged metadata")


def test_a_disk_that_fills_keeps_the_old_table(tmp_path, monkeypatch):
    path = tmp_path / "fits.parquet"
    write_fits(path, build_fits(fits_columns(1), METADATA))

    def full(table: pa.Table, stream: Any) -> None:
        stream.write(b"PAR1")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(OutputError, match="disk is full"):
        write_fits(path, build_fits(fits_columns(2), METADATA))
    assert len(read_fits(path)) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["fits.parquet"]
