"""People to leave out of a fits table, named by a CSV such as the report of a run saves."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from .files import InputError
from .table import FitsTable

KEY_COLUMNS = ("image", "person")


def leave_out(table: FitsTable, path: Path) -> FitsTable:
    """The rows of a table that a CSV does not name, in their order.

    Args:
        table: fits of N people.
        path: CSV in UTF-8 with a header; its columns `image` and `person` name people as the
            table's do, others are ignored.

    Raises:
        InputError: the file is no such CSV, or names somebody whom the table does not hold.
    """
    excluded = _read_people(path)
    images, people = table.column_array("image"), table.column_array("person")
    everyone = list(zip(images.tolist(), people.tolist(), strict=True))
    held = set(everyone)
    for line, (image, person) in excluded.items():
        if (image, person) not in held:
            raise InputError(
                f"{path}, line {line}: the fits hold no person {person} of "
                f"{repr(image)[:80] if image else 'no picture'}; give marks of the same run"
            )
    left_out = set(excluded.values())
    return table.select(np.array([key not in left_out for key in everyone], dtype=bool))


def _read_people(path: Path) -> dict[int, tuple[str, int]]:
    """Image and person of each row, by the number of the line it ends on."""
    people = {}
    try:
        # A spreadsheet that saved the file may have put a byte order mark at its beginning.
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            missing = [name for name in KEY_COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise InputError(
                    f"{path}: no column {missing[0]}; give a CSV with a header and the columns "
                    "image and person, as the report of a run saves its marks"
                )
            for row in reader:
                people[reader.line_num] = _person_of(row, path, reader.line_num)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a CSV in UTF-8 ({error})") from error
    return people


def _person_of(row: dict[str, str], path: Path, line: int) -> tuple[str, int]:
    image, person = (row[name] for name in KEY_COLUMNS)
    try:
        return image or "", int(person)
    except (TypeError, ValueError):
        raise InputError(
            f"{path}, line {line}: person must be a whole number, got {person!r:.80}"
        ) from None
