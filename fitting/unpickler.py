"""Read pickled arrays without running anything that the file asks for.

The SMPL web site ships its models as Python 2 pickles of chumpy and SciPy objects. Unpickling may
call any function of any module, so a file from a stranger could do anything. Here a name in the
file is looked up in a short table: NumPy's own array constructors, and *inert* records that stand
for chumpy and SciPy classes and only keep their state. Any other name is an error before it is
called, and chumpy need not be installed.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse


class UnsafePickleError(ValueError):
    """The pickle names something other than plain arrays."""


class _Record:
    """Stands for an object of a class we do not load: keeps its state, runs nothing."""

    def __init__(self, *args: object) -> None:
        self.state: dict[str, Any] = {}

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.state = state

    def array(self) -> np.ndarray:
        """The value, rebuilt from the state."""
        raise NotImplementedError


class _ChumpyArray(_Record):
    """`chumpy.Ch`: the value is in `x`."""

    def array(self) -> np.ndarray:
        return np.asarray(plain_array(self.state["x"]))


class _ChumpySelect(_Record):
    """`chumpy.reordering.Select`: entries `idxs` of the flattened `a`, in a new shape."""

    def array(self) -> np.ndarray:
        flat = plain_array(self.state["a"]).ravel()
        return flat[np.asarray(self.state["idxs"])].reshape(self.state["preferred_shape"])


class _SparseMatrix(_Record):
    """`scipy.sparse` csc or csr matrix, rebuilt through SciPy's checking constructor."""

    kind: Callable[..., Any]

    def array(self) -> np.ndarray:
        parts = (self.state["data"], self.state["indices"], self.state["indptr"])
        shape = self.state.get("_shape", self.state.get("shape"))
        matrix = type(self).kind(parts, shape=shape)
        matrix.check_format(full_check=True)
        return np.asarray(matrix.todense())


class _CscMatrix(_SparseMatrix):
    kind = scipy.sparse.csc_matrix


class _CsrMatrix(_SparseMatrix):
    kind = scipy.sparse.csr_matrix


def _reconstruct_record(cls: type, base: type, state: object) -> _Record:
    """`copyreg._reconstructor` of a Python 2 object, for our records alone."""
    if not (isinstance(cls, type) and issubclass(cls, _Record) and base is object):
        raise UnsafePickleError("the pickle rebuilds an object that is not a chumpy or SciPy array")
    return cls()


def _encode_latin1(text: str, encoding: str = "latin1") -> bytes:
    """`_codecs.encode` as pickle protocol 2 uses it for bytes, and no other codec."""
    if encoding not in ("latin1", "latin-1"):
        raise UnsafePickleError(f"the pickle asks for the text codec {encoding!r}")
    return text.encode("latin1")


def _numpy_names() -> dict[tuple[str, str], Any]:
    core = getattr(np, "_core", None) or np.core
    names = {}
    for module in ("numpy.core", "numpy._core"):
        names[f"{module}.multiarray", "_reconstruct"] = core.multiarray._reconstruct
        names[f"{module}.multiarray", "scalar"] = core.multiarray.scalar
    return {**names, ("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype}


_ALLOWED: dict[tuple[str, str], Any] = {
    **_numpy_names(),
    ("copy_reg", "_reconstructor"): _reconstruct_record,
    ("copyreg", "_reconstructor"): _reconstruct_record,
    ("_codecs", "encode"): _encode_latin1,
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


def plain_array(value: Any) -> Any:
    """The NumPy array that a record stands for; any other value as it is."""
    return value.array() if isinstance(value, _Record) else value


def load_pickle(path: Path) -> dict[str, Any]:
    """Read a pickled dictionary of arrays, numbers and text.

    Args:
        path: a `.pkl` written by Python 2 or 3.

    Returns:
        The dictionary, with chumpy and SciPy objects turned into NumPy arrays.

    Raises:
        UnsafePickleError: the file names a class or function other than plain arrays.
        ValueError: the file is no pickle of a dictionary.
    """
    with path.open("rb") as file:
        try:
            content = _RestrictedUnpickler(file, encoding="latin1").load()
        except UnsafePickleError as error:
            raise UnsafePickleError(f"{path}: refused: {error}") from None
        except Exception as error:  # a damaged pickle can raise nearly anything
            raise ValueError(f"{path}: not a readable pickle ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a pickled dictionary, got {type(content).__name__}")
    try:
        return {str(key): plain_array(value) for key, value in content.items()}
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: an array in the pickle is incomplete ({error!r})") from error
