"""MATLAB 5 files: numbers, texts and structures (MathWorks, "MAT-File Format", R2020a).

SciPy's reader, of compiled code, crashes the interpreter or runs for minutes on damaged files
(SciPy 1.17), and files come from strangers. Here every length is checked against what is there, and
the fields of structures are parsed when asked for: of MPII's file a small part is needed.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..files import InputError
from .common import Request

_MAGIC = b"MATLAB 5.0 MAT-file"
_MAGIC_HDF5 = b"MATLAB 7.3 MAT-file"
_HEADER = 128  # bytes before the first element
_BYTE_ORDERS = {b"IM": "<", b"MI": ">"}
_MAX_BYTES = 1 << 30  # of one variable: more is a decompression bomb
_PREFIX = 1 << 12  # bytes that surely hold a variable's shape and name

# Types of elements.
_INT8, _INT32, _UINT32, _MATRIX, _COMPRESSED = 1, 5, 6, 14, 15
_NUMBERS = {
    1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8",
}  # fmt: skip
_ENCODINGS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
# Classes of arrays.
_STRUCT, _CHAR, _NUMERIC = 2, 4, range(6, 16)
_COMPLEX = 0x800  # a flag


class _DamagedError(Exception):
    """The bytes are not what the format says; the message is a few words."""


@dataclass(frozen=True)
class _Array:
    """One array as it lies in the file, not parsed yet."""

    data: memoryview
    order: str  # "<" or ">"
    path: Path  # of the file, for messages


Record = dict[str, _Array]
Value = np.ndarray | str | list[Record]


def is_matlab(request: Request) -> bool:
    """Whether the path is a file that begins like a `.mat`; InputError for version 7.3."""
    if request.start.startswith(_MAGIC_HDF5):
        raise InputError(
            f"{request.path} is a MATLAB 7.3 file; save it again in MATLAB with the option -v7"
        )
    return request.start.startswith(_MAGIC)


def list_variables(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the variables, which are not loaded."""
    try:
        found = {}
        for stored in _variables(path):
            _, shape, name, _ = stored.start
            found[name] = shape
        return found
    except _DamagedError as error:
        raise _unreadable(path, error) from error


def load_variable(path: Path, name: str) -> Value:
    """One variable: an array of numbers, a text, or the records of a structure array."""
    try:
        for stored in _variables(path):
            if stored.start[2] == name:
                _, data, _ = _element(stored.element(_MAX_BYTES), 0, stored.order)
                return _parsed(_Array(data, stored.order, path))
    except _DamagedError as error:
        raise _unreadable(path, error) from error
    raise InputError(f"{path} has no variable {name}")


def items(value: Value) -> list[Any]:
    """The records of a structure array, or the numbers of an array."""
    if isinstance(value, np.ndarray):
        return list(value.ravel(order="F").tolist())
    return value if isinstance(value, list) else []


def first_of(value: Value) -> Record | None:
    """The first record of a structure array; None where there is none."""
    return value[0] if isinstance(value, list) and value else None


def field_of(record: Any, name: str) -> Value:
    """A field of a record; an empty array where it has none, as MATLAB says "nothing".

    Raises:
        InputError: the file is damaged there.
    """
    if not isinstance(record, dict) or name not in record:
        return np.empty((0, 0))
    try:
        return _parsed(record[name])
    except _DamagedError as error:
        raise _unreadable(record[name].path, error) from error


def number_of(value: Value) -> float:
    """A MATLAB scalar; NaN for anything else."""
    if not isinstance(value, np.ndarray) or value.size != 1:
        return math.nan
    return float(value.ravel()[0])


def text_of(value: Value) -> str:
    """A MATLAB text; "" for anything else."""
    return value if isinstance(value, str) else ""


@dataclass(frozen=True)
class _Stored:
    """One variable as it lies in the file, perhaps compressed."""

    kind: int
    data: memoryview  # with its tag, unless it is compressed
    order: str

    def element(self, max_bytes: int) -> memoryview:
        """Its tag and content, at most so many bytes of them where it is compressed."""
        return _decompressed(self.data, max_bytes) if self.kind == _COMPRESSED else self.data

    @property
    def start(self) -> tuple[int, tuple[int, ...], str, int]:
        """See `_start`: what can be told without unpacking the whole."""
        return _start(self.element(_PREFIX)[8 : 8 + _PREFIX], self.order)


def _variables(path: Path) -> Iterator[_Stored]:
    content = memoryview(path.read_bytes())
    order = _BYTE_ORDERS.get(bytes(content[126:_HEADER]), "")
    if not order:
        raise _DamagedError("the header is incomplete")
    at = _HEADER
    while at < len(content):
        kind, data, end = _element(content, at, order)
        if kind in (_COMPRESSED, _MATRIX):
            yield _Stored(kind, data if kind == _COMPRESSED else content[at:end], order)
        at = end


def _decompressed(data: memoryview, max_bytes: int) -> memoryview:
    try:
        decompressor = zlib.decompressobj()
        content = decompressor.decompress(data, max_bytes)
    except zlib.error as error:
        raise _DamagedError("the compressed data is damaged") from error
    if max_bytes == _MAX_BYTES and decompressor.unconsumed_tail:
        raise _DamagedError(f"a variable is larger than {_MAX_BYTES} bytes")
    if len(content) < 8:
        raise _DamagedError("the compressed data is incomplete")
    return memoryview(content)


def _element(data: memoryview, at: int, order: str) -> tuple[int, memoryview, int]:
    """Type and bytes of the element at an offset, and the offset of the next."""
    if len(data) - at < 8:
        raise _DamagedError("it ends early")
    kind, size = struct.unpack_from(f"{order}II", data, at)
    if kind >> 16:  # four bytes or fewer are packed into the tag
        kind, size = kind & 0xFFFF, kind >> 16
        if size > 4:
            raise _DamagedError("an element has a wrong size")
        return kind, data[at + 4 : at + 4 + size], at + 8
    end = at + 8 + size
    if end > len(data):
        raise _DamagedError("it ends early")
    return kind, data[at + 8 : end], end if kind == _COMPRESSED else end + -size % 8


def _expect(data: memoryview, at: int, order: str, expected: int) -> tuple[memoryview, int]:
    """Bytes of the element at an offset, which must be of a type; and the next offset."""
    kind, content, end = _element(data, at, order)
    if kind != expected:
        raise _DamagedError(f"an element has the type {kind}, expected {expected}")
    return content, end


def _start(data: memoryview, order: str) -> tuple[int, tuple[int, ...], str, int]:
    """Class, shape and name of an array, and where its content begins."""
    flags, at = _expect(data, 0, order, _UINT32)
    sizes, at = _expect(data, at, order, _INT32)
    name, at = _expect(data, at, order, _INT8)
    if len(flags) != 8 or len(sizes) % 4 or not 8 <= len(sizes) <= 32:
        raise _DamagedError("an array has a wrong header")
    flag = struct.unpack_from(f"{order}I", flags)[0]
    shape = struct.unpack(f"{order}{len(sizes) // 4}i", sizes)
    if min(shape) < 0 or flag & _COMPLEX:
        raise _DamagedError("an array has a negative size or complex numbers")
    text = bytes(name).decode("latin-1")
    if not text.isprintable():
        raise _DamagedError("a variable has a name that cannot be printed")
    return flag & 0xFF, shape, text, at


def _parsed(array: _Array) -> Value:
    if len(array.data) == 0:
        return np.empty((0, 0))
    kind, shape, _, at = _start(array.data, array.order)
    if kind in _NUMERIC:
        return _numbers(array, at, shape)
    if kind == _CHAR:
        return _text(array, at)
    if kind == _STRUCT:
        return _records(array, at, math.prod(shape))
    raise _DamagedError(f"arrays of class {kind} are not supported")


def _numbers(array: _Array, at: int, shape: tuple[int, ...]) -> np.ndarray:
    kind, content, _ = _element(array.data, at, array.order)
    if kind not in _NUMBERS:
        raise _DamagedError(f"numbers of type {kind}")
    dtype = np.dtype(array.order + _NUMBERS[kind])
    if len(content) != math.prod(shape) * dtype.itemsize:
        raise _DamagedError("an array has fewer or more numbers than its shape says")
    return np.frombuffer(content, dtype).astype(dtype.newbyteorder("=")).reshape(shape, order="F")


def _text(array: _Array, at: int) -> str:
    kind, content, _ = _element(array.data, at, array.order)
    encoding = _ENCODINGS.get(kind, "")
    if encoding in ("utf-16", "utf-32"):
        encoding += "-le" if array.order == "<" else "-be"
    if not encoding:
        raise _DamagedError(f"a text of type {kind}")
    return bytes(content).decode(encoding, "replace")


def _records(array: _Array, at: int, count: int) -> list[Record]:
    size, at = _expect(array.data, at, array.order, _INT32)
    names, at = _expect(array.data, at, array.order, _INT8)
    length = struct.unpack(f"{array.order}i", size)[0] if len(size) == 4 else 0
    if length < 1 or len(names) % length:
        raise _DamagedError("a structure has wrong names of fields")
    starts = range(0, len(names), length)
    fields = [bytes(names[i : i + length]).split(b"\0")[0].decode("latin-1") for i in starts]
    if count * max(len(fields), 1) * 8 > len(array.data) - at:  # eight bytes is the least
        raise _DamagedError("a structure has fewer elements than its shape says")
    records = []
    for _ in range(count):
        record = {}
        for field in fields:
            content, at = _expect(array.data, at, array.order, _MATRIX)
            record[field] = _Array(content, array.order, array.path)
        records.append(record)
    return records


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} cannot be read as a MATLAB file ({error}); download it again")
