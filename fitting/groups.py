"""Which group each person is in, by a file of the user's: `fit-cli evaluate --groups`."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from .files import InputError

Person = tuple[str, int]  # picture, and number within it
_KEYS = ("image", "person")
_MAX_TEXT = 200  # characters of the file in a message


@dataclass(frozen=True, kw_only=True)
class PersonGroups:
    """People by picture and number, with the groups that they are in.

    Attributes:
        path: the file that says so.
        columns: what people are grouped by, such as "action" and "subject".
        groups: for each person, a group of each column; "" where the file leaves it open.
    """

    path: Path
    columns: tuple[str, ...]
    groups: Mapping[Person, tuple[str, ...]]


def read_groups(path: Path | str) -> PersonGroups:
    """Read a CSV file with the columns `image`, `person` and at least one more, in any order.

    Args:
        path: UTF-8, comma-separated, with a header line. Spaces around cells do not count.

    Raises:
        InputError: the file cannot be read or is no such table; the message names file and line.
    """
    path = Path(path)
    rows = _read_rows(path)
    line, header = next(rows, (1, []))
    _check_header(path, line, header)
    columns = tuple(name for name in header if name not in _KEYS)
    groups: dict[Person, tuple[str, ...]] = {}
    lines: dict[Person, int] = {}
    for line, cells in rows:
        if len(cells) != len(header):
            raise InputError(
                f"{path}, line {line}: {len(cells)} cells under {len(header)} columns; give one "
                "for each, in quotes if it holds a comma"
            )
        row = dict(zip(header, cells, strict=True))
        person = (row["image"], _number(path, line, row["person"]))
        if lines.setdefault(person, line) != line:
            raise InputError(
                f"{path}, line {line}: person {person[1]} of the picture "
                f"{person[0][:_MAX_TEXT]!r} stands in line {lines[person]} already; keep one of "
                "them"
            )
        groups[person] = tuple(row[name] for name in columns)
    return PersonGroups(path=path, columns=columns, groups=groups)


def _read_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Rows that hold something, with the number of the line where each ends."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:  # spreadsheets write a mark
            reader = csv.reader(stream, strict=True)
            try:
                for row in reader:
                    cells = [cell.strip() for cell in row]
                    if not all(cell.isprintable() for cell in cells):
                        raise InputError(
                            f"{path}, line {reader.line_num}: a cell holds characters that cannot "
                            "be printed; give plain names"
                        )
                    if any(cells):
                        yield reader.line_num, cells
            except csv.Error as error:
                raise InputError(
                    f"{path}, line {reader.line_num}: no CSV ({error}); check the quotes"
                ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text; save it as CSV in UTF-8") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check the path") from error


def _check_header(path: Path, line: int, header: list[str]) -> None:
    missing = [name for name in _KEYS if name not in header]
    if missing or len(header) == len(_KEYS):
        raise InputError(
            f"{path}, line {line}: the columns must be image, person and something to group by, "
            f"got {', '.join(header)[:_MAX_TEXT] or 'none'}"
        )
    if "" in header or len(set(header)) < len(header):
        raise InputError(
            f"{path}, line {line}: each column needs a name of its own, got "
            f"{', '.join(header)[:_MAX_TEXT]}"
        )


def _number(path: Path, line: int, text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise InputError(
            f"{path}, line {line}: person must be the whole number of the fits table, got "
            f"{text[:_MAX_TEXT]!r}"
        ) from error
