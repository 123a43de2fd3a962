"""Read pickled arrays without running anything that the file asks for.

The SMPL web site ships its models as Python 2 pickles of chumpy and SciPy objects. Unpickling may
call any function of any module, so a file from a stranger could do anything. Here a name in the
file is looked up in a short table of *inert* records, which stand for NumPy's, SciPy's and chumpy's
classes and only keep what the file says of them. Any other name is an error before it is called,
and chumpy need not be installed.

Arrays are made from the records afterwards, once their types, shapes and lengths agree: NumPy's own
way to restore an array believes what the file says of its memory, and crashes where that is a lie.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from .npz import MAX_BYTES

_NUMBERS_OR_TEXTS = re.compile(r"[biufSU][1-9]\d{0,5}")  # such as f8: kind and bytes of an item
_MAX_TEXT = 200  # characters of a message
_MEMO_OPCODES = ("PUT", "BINPUT", "LONG_BINPUT")


class UnsafePickleError(ValueError):
    """The pickle names something other than plain arrays."""


class _Record:
    """Stands for an object of a class we do not load: keeps its state, runs nothing."""

    state: Any = None

    def __init__(self, *args: Any) -> None:
        self.args = args

    def __setstate__(self, state: object) -> None:
        self.state = state

    def array(self) -> Any:
        """The value, rebuilt from what was kept."""
        raise ValueError(f"{type(self).__name__.strip('_')} is no array")


class _NumpyType(_Record):
    """`numpy.dtype`."""

    def dtype(self) -> np.dtype:
        """Of numbers or texts: the fields and flags of other types can point anywhere."""
        code = self.args[0]
        if not isinstance(code, str) or not _NUMBERS_OR_TEXTS.fullmatch(code):
            raise ValueError(f"the type {code!r:.20} is not read")
        return np.dtype(code).newbyteorder(self.state[1] if self.state else "=")


class _NumpyArray(_Record):
    """`numpy.ndarray`; its state is (version, shape, type, whether by columns, content)."""

    @property
    def objects(self) -> list[Any] | None:
        """The items of an array of objects; None of any other."""
        content = self.state[4]
        return content if isinstance(content, list) else None

    def array(self) -> np.ndarray:
        _, shape, kind, by_columns, content = self.state
        return _array_of(content, kind.dtype(), shape, "F" if by_columns else "C")


class _NumpyBuffer(_Record):
    """`numpy.core.numeric._frombuffer` of (content, type, shape, order): pickle protocol 5."""

    def array(self) -> np.ndarray:
        content, kind, shape, order = self.args
        return _array_of(content, kind.dtype(), shape, order)


class _NumpyScalar(_Record):
    """`numpy.core.multiarray.scalar` of (type, content)."""

    def array(self) -> Any:
        kind, content = self.args
        return _array_of(content, kind.dtype(), (), "C")[()]


def _array_of(content: Any, dtype: np.dtype, shape: Any, order: Any) -> np.ndarray:
    """An array of its own memory; ValueError unless the content is as long as the shape says."""
    if isinstance(content, _EncodeLatin1):
        content = content.args[0]
    if isinstance(content, str):  # Python 2 has no bytes
        content = content.encode("latin1")
    if len(content) != math.prod(shape) * dtype.itemsize:
        raise ValueError("an array has fewer or more numbers than its shape says")
    return np.frombuffer(content, dtype).reshape(shape, order=order).copy()


class _ChumpyArray(_Record):
    """`chumpy.Ch`: the value is in `x`."""

    def array(self) -> np.ndarray:
        return _expect_array(self.state["x"])


class _ChumpySelect(_Record):
    """`chumpy.reordering.Select`: entries `idxs` of the flattened `a`, in a new shape."""

    def array(self) -> np.ndarray:
        flat = _expect_array(self.state["a"]).ravel()
        shape = [int(_plain_array(n)) for n in self.state["preferred_shape"]]
        return flat[_expect_array(self.state["idxs"])].reshape(shape)


class _SparseMatrix(_Record):
    """`scipy.sparse` csc or csr matrix, rebuilt through SciPy's checking constructor."""

    kind: Callable[..., Any]

    def array(self) -> np.ndarray:
        parts = tuple(_expect_array(self.state[name]) for name in ("data", "indices", "indptr"))
        shape = self.state.get("_shape", self.state.get("shape"))
        rows, columns = (int(_plain_array(n)) for n in shape)
        if rows * columns * parts[0].itemsize > MAX_BYTES:
            raise ValueError(f"a sparse matrix of {rows} x {columns} is too large")
        matrix = type(self).kind(parts, shape=(rows, columns))
        matrix.check_format(full_check=True)
        return np.asarray(matrix.todense())


class _CscMatrix(_SparseMatrix):
    kind = scipy.sparse.csc_matrix


class _CsrMatrix(_SparseMatrix):
    kind = scipy.sparse.csr_matrix


# What a pickle calls as a function is a class here, too: a pickle may set attributes of whatever
# it names, those of a function among them, but of a record only its state.


class _Reconstruct(_Record):
    """`numpy.core.multiarray._reconstruct`: an empty array, whose state follows."""

    def __new__(cls, kind: type, *_: object) -> Any:
        if kind is not _NumpyArray:
            raise UnsafePickleError("the pickle rebuilds an object that is not an array")
        return _NumpyArray()


class _ReconstructRecord(_Record):
    """`copyreg._reconstructor` of a Python 2 object, for our records alone."""

    def __new__(cls, kind: type, base: type, *_: object) -> Any:
        if not (isinstance(kind, type) and issubclass(kind, _Record) and base is object):
            raise UnsafePickleError(
                "the pickle rebuilds an object that is not a chumpy or SciPy array"
            )
        return kind()


class _EncodeLatin1(_Record):
    """`_codecs.encode` as pickle protocol 2 uses it for bytes, and no other codec."""

    def __init__(self, text: str, encoding: str = "latin1") -> None:
        if encoding not in ("latin1", "latin-1"):
            raise UnsafePickleError(f"the pickle asks for the text codec {encoding!r}")
        super().__init__(text)


def _numpy_names() -> dict[tuple[str, str], type]:
    names: dict[tuple[str, str], type] = {}
    for module in ("numpy.core", "numpy._core"):
        names[f"{module}.multiarray", "_reconstruct"] = _Reconstruct
        names[f"{module}.multiarray", "scalar"] = _NumpyScalar
        names[f"{module}.numeric", "_frombuffer"] = _NumpyBuffer
    return {**names, ("numpy", "ndarray"): _NumpyArray, ("numpy", "dtype"): _NumpyType}


_ALLOWED: dict[tuple[str, str], type] = {
    **_numpy_names(),
    ("copy_reg", "_reconstructor"): _ReconstructRecord,
    ("copyreg", "_reconstructor"): _ReconstructRecord,
    ("_codecs", "encode"): _EncodeLatin1,
    ("__builtin__", "set"): set,  # chumpy keeps its bookkeeping in sets
    ("builtins", "set"): set,
    ("__builtin__", "object"): object,
    ("builtins", "object"): object,
    ("chumpy.ch", "Ch"): _ChumpyArray,
    ("chumpy", "Ch"): _ChumpyArray,
    ("chumpy.reordering", "Select"): _ChumpySelect,
    **{("scipy.sparse." + m, "csc_matrix"): _CscMatrix for m in ("csc", "_csc")},
    **{("scipy.sparse." + m, "csr_matrix"): _CsrMatrix for m in ("csr", "_csr")},
}


class _RestrictedUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise UnsafePickleError(
                f"the pickle asks for {module}.{name}, which is not an array; it was not run"
            ) from None


def load_pickle(path: Path, names: Collection[str]) -> tuple[dict[str, Any], list[str]]:
    """Read those of the values called `names` that a pickled dictionary of arrays holds.

    Args:
        path: a `.pkl` written by Python 2 or 3.
        names: of arrays, numbers, texts or lists of these.

    Returns:
        The values by name, with NumPy's, chumpy's and SciPy's objects as NumPy arrays; and the
        names of all that it holds.

    Raises:
        UnsafePickleError: the file names a class or function other than plain arrays.
        ValueError: the file is no pickle of a dictionary, or is damaged.
        OSError: the file cannot be read.
    """
    pickled = path.read_bytes()
    try:
        _check_memo(pickled)
        content = _RestrictedUnpickler(io.BytesIO(pickled), encoding="latin1").load()
    except UnsafePickleError as error:
        raise UnsafePickleError(f"{path}: refused: {_one_line(error)}") from None
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise ValueError(f"{path}: not a readable pickle ({_one_line(error)})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a pickled dictionary, got {type(content).__name__}")
    try:
        found = {name: _plain_value(content[name]) for name in names if name in content}
    except Exception as error:  # the states of arrays can be anything, too
        raise ValueError(
            f"{path}: an array in the pickle is incomplete ({_one_line(repr(error))})"
        ) from error
    return found, [key for key in content if isinstance(key, str)]


def _one_line(error: object) -> str:
    """What an error says, in one line: names and numbers in it come from the file."""
    return "".join(c if c.isprintable() else "?" for c in str(error)[:_MAX_TEXT])


def _check_memo(pickled: bytes) -> None:
    """ValueError where a number in the memo, a list as long as the largest, is out of order."""
    for count, (opcode, number, _) in enumerate(pickletools.genops(pickled)):
        if opcode.name in _MEMO_OPCODES and int(number or 0) > count + 1:
            raise ValueError(f"the memo jumps to {number}")


def _plain_value(value: Any) -> Any:
    """With arrays for records, also those in a list or an array of objects, which becomes one."""
    items = value.objects if isinstance(value, _NumpyArray) else value
    if not isinstance(items, list):
        return _plain_array(value)
    arrays, total = [], 0
    for item in items:
        arrays.append(_plain_array(item))
        total += 8 * getattr(arrays[-1], "size", 1)  # float64, as its readers take it
        if total > MAX_BYTES:  # one array may stand in a list very often
            raise ValueError(f"a list of arrays unpacks to more than {MAX_BYTES >> 30} GiB")
    return arrays


def _plain_array(value: Any) -> Any:
    """The array, or number, that a record stands for; any other value as it is."""
    return value.array() if isinstance(value, _Record) else value


def _expect_array(value: Any) -> np.ndarray:
    """An array within another; lists are none, of which a few bytes can make endless ones."""
    array = _plain_array(value)
    if not isinstance(array, np.ndarray):
        raise ValueError(f"expected an array, got {type(array).__name__}")
    return array
