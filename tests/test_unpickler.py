"""Pickled bodies: what is read without chumpy, and what is refused before it runs."""

from __future__ import annotations

import os
import pickle
import sys
import types

import numpy as np
import pytest
import scipy.sparse
import torch
from bodies import synthetic_arrays

from fitting.body import load_body
from fitting.body_files import BodyFileError, load_body_arrays
from fitting.unpickler import UnsafePickleError, load_pickle


@pytest.fixture
def chumpy(monkeypatch):
    """Just enough of chumpy to write a file as the SMPL web site's; gone before it is read."""
    package, ch, reordering = (
        types.ModuleType(n) for n in ("chumpy", "chumpy.ch", "chumpy.reordering")
    )

    class Ch:
        pass

    class Select:
        pass

    Ch.__module__, Select.__module__ = "chumpy.ch", "chumpy.reordering"
    Ch.__qualname__, Select.__qualname__ = "Ch", "Select"
    ch.Ch, reordering.Select = Ch, Select
    with monkeypatch.context() as patch:
        for module in (package, ch, reordering):
            patch.setitem(sys.modules, module.__name__, module)
        yield ch.Ch, reordering.Select


def as_chumpy(cls, **state):
    made = cls()
    made.__dict__.update(state)
    return made


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
def test_reads_the_official_layout_without_chumpy(protocol, chumpy, tmp_path):
    Ch, Select = chumpy
    arrays = synthetic_arrays()
    directions = arrays["shapedirs"]
    wide = np.concatenate([directions, directions * 7], axis=2)  # 20 columns, of which 10 are used
    first_ten = np.arange(wide.size).reshape(wide.shape)[:, :, :10].ravel()
    official = {
        **arrays,
        "v_template": as_chumpy(Ch, x=arrays["v_template"], _dirty_vars=set(), _status="new"),
        "shapedirs": as_chumpy(
            Select, a=as_chumpy(Ch, x=wide), idxs=first_ten, preferred_shape=directions.shape
        ),
        "J_regressor": scipy.sparse.csc_matrix(arrays["J_regressor"]),
        "bs_style": "lbs",
    }
    path = tmp_path / "basicModel_neutral.pkl"
    path.write_bytes(pickle.dumps(official, protocol=protocol))
    for name in [name for name in sys.modules if name.startswith("chumpy")]:
        del sys.modules[name]
    read = load_body_arrays(path)
    for key in ("v_template", "shapedirs", "J_regressor", "weights"):
        np.testing.assert_allclose(getattr(read, key), arrays[key], atol=1e-15)
    assert "chumpy" not in sys.modules
    assert load_body(path, dtype=torch.float64).num_vertices == len(arrays["v_template"])


class Hostile:
    """Runs a command when unpickled."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("where", ["value", "beside", "in an object array"])
def test_a_hostile_pickle_runs_nothing(where, protocol, tmp_path):
    trace = tmp_path / "ran"
    bomb = Hostile(os.system, f"touch {trace}")
    content = {
        "value": {**synthetic_arrays(), "weights": bomb},
        "beside": [bomb, synthetic_arrays()],
        "in an object array": {**synthetic_arrays(), "f": np.array([bomb], dtype=object)},
    }[where]
    path = tmp_path / "hostile.pkl"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    with pytest.raises(BodyFileError, match=r"hostile\.pkl: refused.*posix\.system|nt\.system"):
        load_body_arrays(path)
    assert not trace.exists()


def by_name(module, name):
    """Protocol 0: the global module.name called with no arguments."""
    return f"c{module}\n{name}\n(tR.".encode()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("numpy", "load"),
        ("numpy.core.multiarray", "fromfile"),
        ("numpy.testing._private.utils", "runstring"),
        ("scipy.sparse", "load_npz"),
        ("torch", "load"),
        ("os.path", "exists"),
        ("fitting.unpickler", "pickle.loads"),
    ],
)
def test_only_names_in_the_table_are_looked_up(module, name, tmp_path):
    path = tmp_path / "named.pkl"
    path.write_bytes(by_name(module, name))
    with pytest.raises(UnsafePickleError, match=rf"{module}\.{name}"):
        load_pickle(path, ["x"])


def test_other_codecs_and_classes_are_refused(tmp_path):
    path = tmp_path / "codec.pkl"
    path.write_bytes(b"c_codecs\nencode\n(Vabc\nVutf_7\ntR.")
    with pytest.raises(UnsafePickleError, match="codec"):
        load_pickle(path, ["x"])
    path.write_bytes(b"ccopy_reg\n_reconstructor\n(c__builtin__\nset\nc__builtin__\nobject\nNtR.")
    with pytest.raises(UnsafePickleError, match="rebuilds an object"):
        load_pickle(path, ["x"])


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x80\x04N.", b"\x80\x02}q\x00U\x03abc"])
def test_what_is_no_dictionary_is_refused(content, tmp_path):
    path = tmp_path / "odd.pkl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"odd\.pkl"):
        load_pickle(path, ["x"])


def test_an_incomplete_array_is_refused(chumpy, tmp_path):
    Ch, Select = chumpy
    path = tmp_path / "odd.pkl"
    itself = as_chumpy(Ch)
    itself.x = itself
    for broken in (
        itself,
        as_chumpy(Select, a=3, idxs=np.zeros(1, int), preferred_shape=(1,)),
        as_chumpy(Ch, y=1),
        as_chumpy(Select, a=as_chumpy(Ch, x=np.zeros(3)), idxs=np.array([9]), preferred_shape=(1,)),
    ):
        path.write_bytes(pickle.dumps({"x": broken}))
        with pytest.raises(ValueError, match="incomplete"):
            load_pickle(path, ["x"])
