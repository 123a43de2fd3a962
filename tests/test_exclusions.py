"""People left out of an export by the marks of a report."""

from __future__ import annotations

import numpy as np
import pytest

from fitting.exclusions import leave_out
from fitting.files import InputError
from fitting.table import write_fits
from tests.fits import fits_table

NAMES = np.array(["a.jpg", 'b, "2".jpg', "=1+1.jpg", ""])


@pytest.fixture
def table():
    return fits_table({"image": NAMES, "person": np.array([0, 3, 1, 0])})


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


def test_named_people_are_left_out(table, tmp_path):
    text = 'row,image,person\r\n1,"b, ""2"".jpg",3\r\n3,,0\r\n'
    left = leave_out(table, write(tmp_path / "marks.csv", text))
    assert left.column_array("image").tolist() == ["a.jpg", "=1+1.jpg"]
    np.testing.assert_array_equal(left.column_array("betas"), table.column_array("betas")[[0, 2]])


def test_a_spreadsheets_byte_order_mark_is_no_fault(table, tmp_path):
    path = write(tmp_path / "marks.csv", "image,person\n=1+1.jpg,1\n", "utf-8-sig")
    assert len(leave_out(table, path)) == 3


def test_no_marks_leave_everyone(table, tmp_path):
    assert len(leave_out(table, write(tmp_path / "marks.csv", "image,person\n"))) == 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("image,person\na.jpg,0\na.jpg,1\n", "line 3: the fits hold no person 1 of 'a.jpg'"),
        ("image,person\na.jpg,one\n", "line 2: person must be a whole number, got 'one'"),
        ("image,person\na.jpg\n", "line 2: person must be a whole number, got None"),
        ("image,row\na.jpg,0\n", "no column person"),
        ("", "no column image"),
        ('image,person\n"a.jpg,0\n', "not a CSV"),
    ],
)
def test_what_is_no_list_of_marks_is_refused(table, tmp_path, text, said):
    with pytest.raises(InputError, match=r"marks\.csv") as caught:
        leave_out(table, write(tmp_path / "marks.csv", text))
    assert said in str(caught.value)


def test_files_that_cannot_be_read_are_named(table, tmp_path):
    with pytest.raises(InputError, match=r"gone\.csv: cannot be read"):
        leave_out(table, tmp_path / "gone.csv")
    with pytest.raises(InputError, match="not a CSV in UTF-8"):
        leave_out(table, write(tmp_path / "marks.csv", "image,person\né.jpg,0\n", "latin-1"))


def test_export_leaves_marked_people_out(fit_cli, table, tmp_path):
    write_fits(tmp_path / "fits.parquet", table)
    marks = write(tmp_path / "marks.csv", "image,person\na.jpg,0\n")
    options = ("--to", "obj", "-o", tmp_path / "meshes", "--exclude", marks, "--quiet")
    code, said, _ = fit_cli("export", tmp_path, *options)
    assert code == 0
    assert said.startswith("3 meshes") and f"1 of {marks} left out" in said
    assert not any("_a_" in path.name for path in (tmp_path / "meshes").iterdir())
    assert len(list((tmp_path / "meshes").iterdir())) == 3
