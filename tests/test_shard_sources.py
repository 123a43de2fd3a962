"""People read some rows at a time are those read at once, in memory that does not grow."""

from __future__ import annotations

import tracemalloc
from contextlib import ExitStack, closing

import numpy as np
import pytest
from sharded import people_arrays
from test_table import METADATA, fits_columns

from fitting.clock import StageClock
from fitting.files import InputError
from fitting.people import hash_people
from fitting.readers import read_people
from fitting.shard_files import PeopleOfArrays, PeopleOfTable
from fitting.shard_sources import PeopleAtOnce, open_people
from fitting.sources import SourceConfig
from fitting.table import build_fits, write_fits

COUNT = 100


@pytest.fixture
def opened():
    """Opens a source, and closes it after the test."""
    with ExitStack() as stack:

        def open_one(path):
            clock = StageClock({"load": 0.0, "detect": 0.0})
            source = open_people(SourceConfig(input=path), None, clock, lambda *_: None)
            return stack.enter_context(closing(source))

        yield open_one


def collected(source, size):
    """All rows, read in order so many at a time: one hash for each read, and all problems."""
    parts = [
        source.read(n, min(n + size, source.num_rows)) for n in range(0, source.num_rows, size)
    ]
    return parts, [problem for part in parts for problem in part.problems]


def with_faults(arrays):
    arrays["conf"][[3, 50]] = np.nan
    arrays["width"][99] = 0
    return arrays


WRITERS = {"stored": np.savez, "compressed": np.savez_compressed}


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("left_out", [(), ("image", "focal")], ids=["all", "few"])
def test_arrays_by_rows_are_those_at_once(write, left_out, tmp_path, opened):
    arrays = with_faults(people_arrays(COUNT))
    arrays["track"] = np.arange(COUNT) % 7
    WRITERS[write](tmp_path / "p.npz", **{n: a for n, a in arrays.items() if n not in left_out})
    people, problems = read_people(tmp_path / "p.npz")
    source = opened(tmp_path / "p.npz")
    assert isinstance(source, PeopleOfArrays)
    parts, found = collected(source, 7)
    assert found == problems
    assert [p.row for p in problems] == [3, 50, 99]
    at = 0
    for part in parts:
        expected = people.select(slice(at, at + len(part.people)))
        for name in vars(expected):
            np.testing.assert_array_equal(getattr(part.people, name), getattr(expected, name))
        at += len(part.people)
    assert at == len(people) == COUNT - 3
    last, first = source.read(90, 95), source.read(10, 12)  # in any order
    assert last.people.annotation_id.tolist() == [90, 91, 92, 93, 94]
    assert first.people.annotation_id.tolist() == [10, 11]


@pytest.mark.parametrize("in_parts", [False, True])
def test_tables_by_rows_are_those_at_once(in_parts, tmp_path, opened):
    columns = fits_columns(COUNT) | {"keypoint_set": np.full(COUNT, "coco17")}
    columns["keypoints_2d"] = np.abs(columns["keypoints_2d"]) % 1
    columns["width"][[4, 60]] = 0
    table = build_fits(columns, METADATA)
    rows = np.array_split(np.arange(COUNT), 3 if in_parts else 1)
    for number, some in enumerate(rows):
        write_fits(tmp_path / f"part-{number}.parquet", table.select(some))
    people, problems = read_people(tmp_path)
    source = opened(tmp_path)
    assert isinstance(source, PeopleOfTable)
    parts, found = collected(source, 7)
    assert found == problems
    assert [p.row for p in problems] == [4, 60]
    ids = np.concatenate([part.people.annotation_id for part in parts])
    np.testing.assert_array_equal(ids, people.annotation_id)
    points = np.concatenate([part.people.keypoints_2d for part in parts])
    np.testing.assert_array_equal(points, people.keypoints_2d)
    np.testing.assert_array_equal(
        source.read(90, 93).people.image,
        people.image[people.annotation_id.tolist().index(int(columns["annotation_id"][90])) :][:3],
    )
    assert len(source.read(0, 2).people) == 2


def test_tables_of_two_keypoint_sets_are_refused(tmp_path, opened):
    for number, (name, P) in enumerate((("coco17", 17), ("body25", 25))):
        columns = fits_columns(6, P=P) | {"keypoint_set": np.full(6, name)}
        columns["keypoints_2d"] = np.abs(columns["keypoints_2d"]) % 1
        write_fits(tmp_path / f"part-{number}.parquet", build_fits(columns, METADATA))
    source = opened(tmp_path)
    source.read(0, 6)
    with pytest.raises(InputError, match="several sets"):
        source.read(6, 12)


def test_arrays_by_columns_are_read_at_once(tmp_path, opened):
    arrays = people_arrays(COUNT)
    np.savez(tmp_path / "c.npz", **arrays)
    np.savez(tmp_path / "f.npz", **arrays | {"conf": np.asfortranarray(arrays["conf"])})
    by_columns = opened(tmp_path / "f.npz")
    assert isinstance(by_columns, PeopleAtOnce)
    one, two = opened(tmp_path / "c.npz").read(0, COUNT), by_columns.read(0, COUNT)
    assert hash_people(one.people) == hash_people(two.people)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"conf": None}, "no array conf"),
        ({"focal": None, "focals": np.ones(9)}, "rename focals"),
        ({"conf": np.ones((9, 16), np.float32)}, r"keypoints_2d must be \(9, 16, 2\)"),
        ({"keypoint_set": np.array("body25")}, "has 17 keypoints"),
        ({"image": np.array([None] * 9)}, r"np|cannot be read"),
    ],
)
def test_unusable_arrays_are_refused_as_ever(change, words, tmp_path, opened):
    arrays = {n: a for n, a in (people_arrays(9) | change).items() if a is not None}
    np.savez(tmp_path / "p.npz", **arrays)
    with pytest.raises(InputError, match=words) as expected:
        read_people(tmp_path / "p.npz")
    with pytest.raises(InputError) as caught:
        opened(tmp_path / "p.npz")
    assert str(caught.value) == str(expected.value)


def test_a_damaged_archive_is_named(tmp_path, opened):
    path = tmp_path / "p.npz"
    np.savez(path, **people_arrays(COUNT))
    content = bytearray(path.read_bytes())
    content[2000:2100] = bytes(100)
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read as") as caught:
        collected(opened(path), 10)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("kind", ["npz", "parquet"])
def test_memory_does_not_grow_with_the_input(kind, tmp_path, opened):
    """All rows together are several times what is allowed."""
    count, path = 40_000, tmp_path / f"p.{kind}"
    if kind == "npz":
        arrays = people_arrays(10)
        np.savez(path, **{n: a if not a.ndim else np.resize(a, (count, *a.shape[1:]))
                          for n, a in arrays.items() if n != "image"})  # fmt: skip
    else:
        columns = fits_columns(100) | {"keypoint_set": np.full(100, "coco17")}
        columns["keypoints_2d"] = np.abs(columns["keypoints_2d"]) % 1
        table = build_fits(columns, METADATA)
        write_fits(path, table.select(np.arange(count) % 100))
    tracemalloc.start()
    source = opened(path)
    for first in range(0, count, 1000):
        source.read(first, first + 1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert source.num_rows == count
    assert peak < (4e6 if kind == "npz" else 1e7)


def test_a_hash_tells_people_apart(tmp_path):
    np.savez(tmp_path / "p.npz", **people_arrays(9))
    people, _ = read_people(tmp_path / "p.npz")
    hashes = {hash_people(people), hash_people(people.select(slice(8)))}
    for name in vars(people):
        column = getattr(people, name)
        if isinstance(column, np.ndarray):
            changed = column.copy()
            changed[3] = "x" if changed.dtype.kind == "U" else 0.5 if name == "conf" else 9
            hashes.add(hash_people(type(people)(**{**vars(people), name: changed})))
    assert len(hashes) == 2 + sum(isinstance(c, np.ndarray) for c in vars(people).values())
