"""Read the arrays of `.npz` archives that strangers made: nothing unpickled, no size believed."""

from __future__ import annotations

import math
import sys
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import IO

import numpy as np

MAX_BYTES = 4 << 30  # of the arrays read from one file; more is a decompression bomb
_MAX_RATIO = 1100  # of DEFLATE, nearly; what states more is allocated, but never filled

_MAX_REASON = 300  # characters of what a library says of a damaged file
_NPY = ".npy"
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}  # (3, 0) is that of records with names in other alphabets, which nothing here reads


class PickledArrayError(ValueError):
    """An array holds Python objects, which would have to be unpickled."""


def read_npz(path: Path, names: Collection[str]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Those of the arrays called `names` that an archive holds, and the names of all it holds.

    Unlike `numpy.load`, this compares the sizes stated in the file with each other, and with
    `MAX_BYTES`, before anything is allocated.

    Raises:
        PickledArrayError: one of these arrays would have to be unpickled.
        ValueError: the file is no such archive, damaged, or unpacks to more than `MAX_BYTES`.
        OSError: it cannot be opened.
    """
    with path.open("rb") as stream:
        try:
            with zipfile.ZipFile(stream) as archive:
                members = {info.filename.removesuffix(_NPY): info for info in archive.infolist()}
                if not all(name.isprintable() for name in members):  # for one line of a message
                    raise ValueError("a name that cannot be printed")
                wanted = {name: members[name] for name in names if name in members}
                _check_unpacked(wanted.values())
                return {n: _read_array(archive, info) for n, info in wanted.items()}, list(members)
        except PickledArrayError:
            raise
        except Exception as error:  # a damaged archive can raise nearly anything, at any length
            reason = str(error).partition("\n")[0][:_MAX_REASON]
            raise ValueError(reason or type(error).__name__) from error


def holds_texts(array: np.ndarray) -> bool:
    """Whether an array is of texts, of characters that exist: of others, Python's strings break."""
    if array.dtype.kind != "U":
        return False
    codes = np.ascontiguousarray(array).view(np.dtype("u4").newbyteorder(array.dtype.byteorder))
    return bool(codes.max(initial=0) <= sys.maxunicode)


def _check_unpacked(members: Collection[zipfile.ZipInfo]) -> None:
    total = sum(info.file_size for info in members)
    if total > MAX_BYTES:
        raise ValueError(
            f"its arrays unpack to {total / 2**30:.0f} GiB, more than the {MAX_BYTES >> 30} GiB "
            "that are read"
        )
    _check_stated(total, sum(info.compress_size for info in members))


def _check_stated(num_bytes: int, compressed: int) -> None:
    if num_bytes > _MAX_RATIO * compressed:
        raise ValueError("it states more bytes than it can hold")


def read_header(
    stream: IO[bytes], member: zipfile.ZipInfo
) -> tuple[tuple[int, ...], bool, np.dtype]:
    """What stands before an array's numbers in an archive, compared with the sizes of its member.

    Args:
        stream: at the member's begin; afterwards at the first number.
        member: of the archive.

    Returns:
        The shape, whether the numbers lie by columns, and their type.

    Raises:
        PickledArrayError: the array would have to be unpickled.
        ValueError: it is none, or has more or fewer bytes than the shape says.
    """
    _check_stated(member.file_size, member.compress_size)
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"an array of version {version} of the format")
    shape, by_columns, dtype = _HEADERS[version](stream)
    num_bytes = member.file_size - stream.tell()
    if dtype.hasobject:
        raise PickledArrayError("an array of objects, which are pickled and are not read")
    # Texts of no length take no bytes, however many there are.
    if dtype.itemsize == 0 or math.prod(shape) * dtype.itemsize != num_bytes:
        raise ValueError(f"an array of {shape} {dtype} in {num_bytes} bytes")
    return shape, by_columns, dtype


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as stream:
        read_header(stream, member)
    with archive.open(member) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)
