"""Hostile files: refused in one sentence, before they cost anything, as docs/security.md says."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.io
import scipy.sparse
import torch
from bodies import synthetic_arrays, write_body
from fits import fits_table
from PIL import EpsImagePlugin, Image
from timing import seconds_of

from fitting import npz, pictures, shard_files, table
from fitting.body import load_body
from fitting.body_files import load_body_arrays
from fitting.estimates import read_estimates
from fitting.files import short_name
from fitting.groups import read_groups
from fitting.images import read_image
from fitting.npz import read_npz
from fitting.overlay import PersonPictures, draw_overlay
from fitting.pictures import draw_people
from fitting.readers import matlab, read_people
from fitting.readers.common import Request
from fitting.shard_files import PeopleOfArrays
from fitting.table import read_fits, write_fits
from fitting.unpickler import load_pickle
from fitting.writers import write_amass, write_meshes
from priors.gmm import load_pose_prior
from regressor.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from regressor.config import load_config

NUM_MANY = 10_000


def refusal(read: Callable[[], object], path: Path) -> str:
    """What a refusal says: one sentence that names the file."""
    with pytest.raises(ValueError) as caught:
        read()
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert len(message) < 1000
    return message


def save_npz(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def people_arrays(N: int = 2, **changes: Any) -> dict[str, Any]:
    return {
        "keypoints_2d": np.ones((N, 17, 2)),
        "conf": np.ones((N, 17)),
        "keypoint_set": "coco17",
        "width": np.full(N, 64),
        "height": np.full(N, 48),
    } | changes


def coco_file(path: Path, names: list[str], **changes: Any) -> Path:
    """One person in each picture."""
    images = [
        {"id": i, "file_name": name, "width": 64, "height": 48} | changes
        for i, name in enumerate(names)
    ]
    people = [{"id": i, "image_id": i, "keypoints": [5, 6, 2] * 17} for i in range(len(names))]
    path.write_text(json.dumps({"images": images, "annotations": people}), encoding="utf-8")
    return path


# --- Code in files ---


class Bomb:
    """Makes a file when unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("ran"),)


def objects_npz(path: Path, name: str, **arrays: Any) -> Path:
    return save_npz(path, **{**arrays, name: np.array([Bomb()], dtype=object)})


def pickled(path: Path, content: Any) -> Path:
    path.write_bytes(pickle.dumps(content))
    return path


CODE = {
    "people npz": (lambda p: objects_npz(p, "conf", **people_arrays()), read_people),
    "spin npz": (lambda p: objects_npz(p, "imgname", part=np.ones((1, 24, 3))), read_people),
    "humandata npz": (
        lambda p: objects_npz(
            p, "image_path", keypoints2d=np.ones((1, 190, 3)), keypoints2d_mask=np.ones(190)
        ),
        read_people,
    ),
    "3dpw pkl": (lambda p: pickled(p, {"sequence": Bomb()}), read_people),
    "body npz": (lambda p: objects_npz(p, "f", **synthetic_arrays()), load_body_arrays),
    "body pkl": (lambda p: pickled(p, {**synthetic_arrays(), "f": Bomb()}), load_body_arrays),
    "estimates npz": (lambda p: objects_npz(p, "pose"), lambda p: read_estimates(p, load_body())),
    "prior npz": (lambda p: objects_npz(p, "weights"), load_pose_prior),
    "checkpoint pt": (lambda p: torch.save({"model": Bomb()}, p) or p, load_checkpoint),
    "config yaml": (
        lambda p: p.write_text("task: !!python/object/apply:os.mkdir [ran]") and p,
        load_config,
    ),
}


@pytest.mark.parametrize("what", CODE)
def test_code_in_a_file_is_not_run(what, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write, read = CODE[what]
    path = write(tmp_path / f"a.{what.split()[1]}")
    refusal(lambda: read(path), path)
    assert not Path("ran").exists()


class Said:
    """Pickled as a call of a function with arguments and a state, all of which may be lies."""

    def __init__(self, *said: Any) -> None:
        self.said = said

    def __reduce__(self) -> tuple[Any, ...]:
        return self.said


def array_of(dtype: Any, shape: Any = (1,), content: bytes = b"A" * 8) -> Said:
    rebuild = np.zeros(0).__reduce__()[0]
    return Said(rebuild, (np.ndarray, (0,), b"b"), (1, shape, dtype, False, content))


LIES = {
    "fields beyond the item": array_of(
        Said(np.dtype, ("V8", False, True),
             (3, "|", None, ("a",), {"a": (np.dtype("f8"), 1 << 40)}, 8, 1, 0))
    ),
    "bytes that claim to be pointers": array_of(
        Said(np.dtype, ("V8", False, True), (3, "|", None, None, None, 8, 1, 63))
    ),
    "a shape larger than its content": array_of(np.dtype("f8"), (10**12,)),
    "a negative shape": array_of(np.dtype("f8"), (-1,)),
    "texts of no length": array_of(Said(np.dtype, ("S0", False, True)), (10**12,), b""),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_numpy_never_sees_what_a_pickle_says_of_memory(lie, tmp_path):
    """With NumPy's own way to restore arrays, the first of these crashes the interpreter."""
    path = pickled(tmp_path / "a.pkl", {"x": LIES[lie]})
    assert "incomplete" in refusal(lambda: load_pickle(path, ["x"]), path)


def test_a_pickle_cannot_change_what_it_names(tmp_path):
    """BUILD sets attributes of whatever is on the stack, a function's defaults among them."""
    path = tmp_path / "a.pkl"
    path.write_bytes(b"c_codecs\nencode\n(N(dVencoding\nVutf_7\nstb.")
    refusal(lambda: load_pickle(path, []), path)


def test_a_pickle_of_few_bytes_costs_little(tmp_path):
    path = tmp_path / "a.pkl"
    path.write_bytes(b"\x80\x02}r\xff\xff\xff\x7f.")  # number 2^31 of a memo that is a list
    assert "memo" in refusal(lambda: load_pickle(path, []), path)
    doubling: list[Any] = [1.0]
    for _ in range(60):
        doubling = [doubling, doubling]
    arrays = synthetic_arrays()
    path = pickled(path, {**arrays, "weights": doubling})
    assert "must be an array of numbers, got list" in refusal(lambda: load_body_arrays(path), path)
    wide = scipy.sparse.csc_matrix((1 << 20, 1 << 20))
    path = pickled(path, {**arrays, "J_regressor": wide})
    assert "too large" in refusal(lambda: load_body_arrays(path), path)


# --- Decompression and pixel bombs ---


def peak_of(run: Callable[[], object]) -> int:
    """Most bytes of Python and NumPy at a time."""
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def stating(path: Path, num_bytes: int) -> Path:
    """An archive whose one member, an array of bytes, is stated to be so many bytes."""
    array = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": (num_bytes - 128,)}
    np.lib.format.write_array_header_1_0(array, header)
    assert array.tell() == 128
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("conf.npy", array.getvalue() + b"0" * 1000)
    content = path.read_bytes()
    at = content.index(b"PK\x01\x02") + 24
    path.write_bytes(content[:at] + struct.pack("<I", num_bytes) + content[at + 4 :])
    return path


def test_archives_that_unpack_to_too_much_are_refused_unread(tmp_path, monkeypatch):
    path = stating(tmp_path / "lie.npz", 2**32 - 16)
    assert peak_of(lambda: refusal(lambda: read_people(path), path)) < 1e6
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, **people_arrays(N=20_000))
    assert path.stat().st_size < 100_000
    monkeypatch.setattr(npz, "MAX_BYTES", 1 << 20)
    peak = peak_of(lambda: refusal(lambda: read_people(path, keypoint_format="npz"), path))
    assert peak < 1e6


def test_an_array_that_states_more_than_its_bytes_is_not_allocated(tmp_path):
    for shape, descr in (((10**7, 17), "<f8"), ((10**12,), "|S0")):
        array = io.BytesIO()
        header = {"descr": descr, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(array, header)
        path = tmp_path / "a.npz"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("conf.npy", array.getvalue() + b"\0" * 100)
        assert peak_of(lambda: refusal(lambda: read_people(path), path)) < 1e6  # noqa: B023


def test_runs_in_shards_believe_no_sizes_either(tmp_path):
    """They read the same files some rows at a time."""
    path = tmp_path / "a.npz"
    for N in (10**7, 10**12):
        with zipfile.ZipFile(path, "w") as archive:
            for name, values in people_arrays().items():
                array, shape = io.BytesIO(), np.shape(values)
                if shape:
                    header = {"descr": "<f8", "fortran_order": False, "shape": (N, *shape[1:])}
                    np.lib.format.write_array_header_1_0(array, header)
                else:
                    np.save(array, values)
                archive.writestr(f"{name}.npy", array.getvalue() + b"\0" * 80 * len(shape))
        request = Request(path=path)
        peak = peak_of(lambda: refusal(lambda: PeopleOfArrays(request), path))  # noqa: B023
        assert peak < 2e6  # to hash the file takes one


def test_rows_of_shards_have_a_limit(tmp_path, monkeypatch):
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, **people_arrays(N=20_000))
    with closing(PeopleOfArrays(Request(path=path))) as source:
        monkeypatch.setattr(shard_files, "MAX_BYTES", 1 << 20)
        assert len(source.read(0, 10).people) == 10
        assert "unpack to more" in refusal(lambda: source.read(0, 20_000), path)


def test_matlab_variables_have_a_limit(tmp_path, monkeypatch):
    path = tmp_path / "joints.mat"
    scipy.io.savemat(path, {"joints": np.zeros((14, 3, 10_000))}, do_compression=True)
    monkeypatch.setattr(matlab, "_MAX_BYTES", 1 << 16)
    Image.new("RGB", (8, 8)).save(tmp_path / "im0001.jpg")
    peak = peak_of(lambda: refusal(lambda: read_people(path, images=tmp_path), path))
    assert peak < 1e6


def test_only_the_variable_that_is_read_is_unpacked(tmp_path, monkeypatch):
    path = tmp_path / "a.mat"
    values = np.arange(6.0).reshape(2, 3)
    scipy.io.savemat(path, {"bomb": np.zeros(10**6), "joints": values}, do_compression=True)
    monkeypatch.setattr(matlab, "_MAX_BYTES", 1 << 16)
    np.testing.assert_array_equal(matlab.load_variable(path, "joints"), values)


def test_tables_have_a_limit(tmp_path, monkeypatch):
    write_fits(tmp_path / "fits.parquet", fits_table({}))
    monkeypatch.setattr(table, "MAX_BYTES", 100)
    path = tmp_path / "fits.parquet"
    assert "unpacks to more" in refusal(lambda: read_fits(path), path)


def test_checkpoints_are_not_compressed(tmp_path):
    torch.save({"model": {"a": torch.zeros(10**6)}}, tmp_path / "plain.pt")
    path = tmp_path / "bomb.pt"
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as plain,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for name in plain.namelist():
            bomb.writestr(name, plain.read(name))
    assert "is compressed" in refusal(lambda: load_checkpoint(path), path)


def test_the_network_that_a_checkpoint_asks_for_is_not_allocated(tmp_path):
    path = tmp_path / "best.pt"
    config = {"task": "lifter", "network": {"width": 10**7}}
    save_checkpoint(
        path,
        Checkpoint(
            architecture="lifter", config=config, metrics={}, body_sha256="", model={}
        ),
    )  # fmt: skip
    assert "does not fit the network" in refusal(lambda: load_checkpoint(path), path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_pictures_of_too_many_pixels_are_not_decoded(kind, tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (1200, 1000)).save(path, kind)
    assert "more than the limit" in refusal(lambda: read_image(path, max_megapixels=1), path)


def test_a_jpeg_that_states_a_huge_size(tmp_path):
    path = tmp_path / "a.jpg"
    Image.new("RGB", (64, 64)).save(path)
    content = bytearray(path.read_bytes())
    at = content.index(b"\xff\xc0") + 5
    content[at : at + 4] = struct.pack(">HH", 65_000, 65_000)
    path.write_bytes(content)
    assert "pixels" in refusal(lambda: read_image(path), path)


def test_only_photographs_are_opened(tmp_path, monkeypatch):
    """Pillow would hand an EPS, whatever its name, over to Ghostscript."""
    path = tmp_path / "a.jpg"
    Image.new("RGB", (8, 8)).save(path, "EPS")
    called = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: called.append(1))
    assert "unknown format" in refusal(lambda: read_image(path), path)
    assert not called


@pytest.mark.parametrize(
    "text",
    [
        "[" * 5_000,
        "task: lifter\nseed: 2001-99-99",
        "task: lifter\nseed: !!int ''",
        "task: !!timestamp x",
        f"task: lifter\ntraining: 0x{'f' * 9000}",
        'task: "a\\nb"',
        'task: lifter\n"a\\nb": 3',
        "a: &a [x, x]\n"
        + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in pairwise("abcdefghijklmnopqrstuvwxyz"))
        + "task: *z",
    ],
)
def test_settings_that_are_traps(text, tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("task: lifter")
    load_config(path)  # and what it imports, once
    path.write_text(text)
    # Written out, the last of them has 2^25 items; 5,000 brackets may take 5 s where another test
    # has let Python recurse so deep.
    assert seconds_of(lambda: refusal(lambda: load_config(path), path)) < 60


# --- Names of pictures ---

LEADING_OUT = [
    "../secret.png", "a/../../secret.png", "..\\secret.png", "/etc/passwd", "\\\\host\\x.png",
    "C:\\x.png", "c:x.png", "a\0.png", "a\n.png",
]  # fmt: skip


def spin_file(path: Path, name: str) -> Path:
    return save_npz(path, imgname=np.array([name]), part=np.ones((1, 24, 3)))


def humandata_file(path: Path, name: str) -> Path:
    points, mask = np.ones((1, 190, 3)), np.ones(190)
    return save_npz(path, image_path=np.array([name]), keypoints2d=points, keypoints2d_mask=mask)


NAMING = {
    "coco.json": lambda path, name: coco_file(path, [name], width=0),
    "plain.npz": lambda path, name: save_npz(path, **people_arrays(1, image=np.array([name]))),
    "spin.npz": spin_file,
    "humandata.npz": humandata_file,
}


@pytest.mark.parametrize("file", NAMING)
@pytest.mark.parametrize("name", LEADING_OUT)
def test_no_file_names_a_picture_outside_its_folder(file, name, tmp_path):
    images = tmp_path / "pictures"
    images.mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "secret.png")
    path = NAMING[file](tmp_path / file, name)
    people, problems = read_people(path, images=images)
    assert len(people) == 0
    assert ["inside the folder of pictures" in p.reason for p in problems] == [True]
    assert "9" not in problems[0].reason.replace(str(tmp_path), "")  # nothing of the picture


@pytest.mark.parametrize("name", LEADING_OUT)
def test_no_table_names_a_picture_outside_its_folder(name, tmp_path):
    path = tmp_path / "fits.parquet"
    write_fits(path, fits_table({"image": np.array(["a.jpg", name, "", "b/c.jpg"])}))
    for read in (read_fits, read_people):
        assert "inside the folder of pictures" in refusal(lambda: read(path), path)  # noqa: B023


def test_whatever_pictures_are_called_files_are_written_where_they_belong(tmp_path):
    """Should such a table be made in Python, unread."""
    names = ["../../out.jpg", "/out.jpg", "日" * 300 + ".jpg", "a/" * 200 + "b.jpg", "..", ""]
    N, images = len(names), tmp_path / "pictures"
    made = fits_table({"image": np.array(names), "width": np.full(N, 64), "height": np.full(N, 48),
                       "betas": np.zeros((N, 10))}, N)  # fmt: skip
    images.mkdir()
    body = load_body(write_body(tmp_path / "body.npz", synthetic_arrays()))
    run = tmp_path / "a" / "b" / "run"
    run.mkdir(parents=True)
    before = {p for p in tmp_path.rglob("*") if run not in p.parents}
    draw_people(made, body, images, run, jobs=1)
    assert write_meshes(made, body, run / "meshes", "ply") == N
    write_amass(run / "amass", made, body)
    assert {p for p in tmp_path.rglob("*") if run not in p.parents} == before
    assert len(list((run / "overlays").iterdir())) == N
    assert len(list((run / "meshes").iterdir())) == len(list((run / "amass").iterdir())) == N


def test_a_long_name_is_cut_and_stays_its_own():
    assert short_name("a/b\\c.jpg") == "a_b_c.jpg"
    long = [f"{'é' * 100}{i}{'é' * 100}.jpg" for i in range(20)]
    cut = {short_name(name) for name in long}
    assert len(cut) == len(long)
    assert all(len(name.encode()) <= 100 and name.endswith("é.jpg") for name in cut)


# --- Numbers ---


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 1e7, -1e39, 1e308])
@pytest.mark.parametrize("array", ["keypoints_2d", "conf", "width", "height", "focal"])
def test_numbers_that_cannot_be_meant_leave_their_row_out(array, number, tmp_path):
    arrays = people_arrays(3, focal=np.full(3, 500.0))
    arrays[array] = arrays[array].astype(float)
    arrays[array][1] = number
    path = save_npz(tmp_path / "a.npz", **arrays)
    people, problems = read_people(path)
    if array == "focal" and (np.isnan(number) or number == 1e7):  # unknown; a long lens
        assert len(people) == 3
        return
    assert people.annotation_id.tolist() == [0, 2]
    assert [p.row for p in problems] == [1]


def test_a_picture_that_only_a_file_claims_to_be_huge_is_not_drawn(tmp_path):
    sizes = {"width": np.full(1, 10**6), "height": np.full(1, 10**6)}
    body = load_body(write_body(tmp_path / "body.npz", synthetic_arrays()))
    draw_people(fits_table(sizes, 1), body, tmp_path, tmp_path, jobs=1)
    assert list((tmp_path / "overlays").iterdir()) == []


# --- Crowds ---


def crowd(path: Path, N: int) -> Path:
    people = [
        {"id": i, "image_id": 0, "keypoints": [5 + i % 50, 6, 2] * 17} for i in range(N)
    ]  # fmt: skip
    images = [{"id": 0, "file_name": "a.jpg", "width": 64, "height": 48}]
    path.write_text(json.dumps({"images": images, "annotations": people}), encoding="utf-8")
    return path


def test_thousands_in_one_picture_take_time_in_proportion(tmp_path):
    seconds = {}
    for N in (NUM_MANY // 8, NUM_MANY):
        path = crowd(tmp_path / f"{N}.json", N)
        people, problems = read_people(path)
        assert (len(people), problems) == (N, [])
        assert people.person.tolist() == list(range(N))
        seconds[N] = min(seconds_of(lambda: read_people(path)) for _ in range(5))  # noqa: B023
    assert seconds[NUM_MANY] < 40 * seconds[NUM_MANY // 8]  # 8 if linear, 64 if quadratic


def test_crowds_are_drawn_in_blocks(tmp_path, monkeypatch):
    """The farthest first, so that memory does not grow with them."""
    blocks = []

    def draw(image: np.ndarray, vertices: np.ndarray, *args: Any, **options: Any) -> np.ndarray:
        blocks.append(vertices)
        return draw_overlay(image, vertices, *args, **options)

    monkeypatch.setattr(pictures, "_BLOCK", 4)
    monkeypatch.setattr(pictures, "draw_overlay", draw)
    monkeypatch.setattr(pictures, "draw_person", lambda image, *_, **__: _SQUARES)
    N = 18
    crowded = {"image": np.full(N, "a.jpg"), "person": np.arange(N), "width": np.full(N, 64),
               "height": np.full(N, 48), "betas": np.zeros((N, 10)),
               "transl": np.linspace([0, 0, 5], [0, 0, 50], N)}  # fmt: skip
    body = load_body(write_body(tmp_path / "body.npz", synthetic_arrays()))
    draw_people(fits_table(crowded, N), body, tmp_path, tmp_path, jobs=1)
    assert [len(vertices) for vertices in blocks] == [4, 4, 4, 4, 2]
    depths = [vertices[..., 2].mean() for vertices in blocks]
    assert depths == sorted(depths, reverse=True)
    assert len(list((tmp_path / "people").iterdir())) == 3 * N


_DOT = np.zeros((1, 1, 3), np.uint8)
_SQUARES = PersonPictures(photo=_DOT, overlay=_DOT, side=_DOT)


# --- Bodies ---


def cyclic(num_joints: int) -> dict[str, np.ndarray]:
    """The left hip hangs on the knee that hangs on it."""
    arrays = synthetic_arrays(num_joints=num_joints)
    arrays["kintree_table"][0, 1] = 4
    return arrays


def changed(name: str, value: float) -> dict[str, np.ndarray]:
    arrays = synthetic_arrays()
    arrays[name] = arrays[name].astype(np.float64)
    arrays[name].flat[5] = value
    return arrays


BODIES = {
    "a cycle": (cyclic(24), "joint 1 the parent 4"),
    "a cycle in SMPL-H": (cyclic(52), "joint 1 the parent 4"),
    "a cycle in SMPL-X": (cyclic(55), "joint 1 the parent 4"),
    "a number for an array": (synthetic_arrays() | {"v_template": np.float64(1)}, "v_template"),
    "too few rows": (
        synthetic_arrays(num_joints=52) | {"J_regressor": np.ones((10, 80))},
        "J_regressor must be (52, 80)",
    ),
    "no face": (synthetic_arrays() | {"f": np.zeros((0, 3), int)}, "f must hold a face"),
    "complex numbers": (
        synthetic_arrays() | {"weights": np.ones((80, 24), complex)},
        "weights must be an array of numbers",
    ),
    "too many vertices": (
        synthetic_arrays() | {"v_template": np.zeros((1_000_001, 3), np.float16)},
        "between 4 and 1000000",
    ),
    "shares that cancel each other": (
        synthetic_arrays()
        | {"weights": synthetic_arrays()["weights"] + np.array([1e6, -1e6] + [0] * 22)},
        "weights must hold shares",
    ),
    "landmarks of no characters": (
        synthetic_arrays()
        | {"landmark_regressor": np.zeros((1, 80)),
           "landmark_names": np.full(1, 0x110000, "<u4").view("<U1")},
        "landmark_names must be an array of texts",
    ),
    "a tree of no integers": (
        synthetic_arrays() | {"kintree_table": np.full((2, 24), 1e30, np.float32)},
        "gives joint 1 the parent 1",
    ),
    **{f"{value} in {name}": (changed(name, value), name)
       for name in ("v_template", "shapedirs", "posedirs", "weights", "J_regressor")
       for value in (np.nan, np.inf, 1e300)},
}  # fmt: skip


@pytest.mark.parametrize("what", BODIES)
def test_bodies_that_are_none(what, tmp_path):
    arrays, words = BODIES[what]
    path = write_body(tmp_path / "body.npz", arrays)
    assert words in refusal(lambda: load_body_arrays(path), path)


def test_an_archive_of_no_arrays(tmp_path):
    """NumPy gives the bytes of a member that is none."""
    path = save_npz(tmp_path / "a.npz", **people_arrays(conf=np.ones(1)))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("conf.npy", b"garbage")
    refusal(lambda: read_people(path), path)
    with pytest.raises(ValueError, match="magic"):
        read_npz(path, ["conf"])


# Found by benchmarks/fuzz_parsers.py


@pytest.mark.parametrize("code", [0x110000, 0x63000000])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("array", ["keypoint_set", "image"])
def test_texts_of_characters_that_do_not_exist(array, order, code, tmp_path):
    texts = np.full(2, code, f"{order}u4").view(f"{order}U1")
    changes = {array: texts[:1].reshape(()) if array == "keypoint_set" else texts}
    path = save_npz(tmp_path / "a.npz", **people_arrays(**changes))
    assert f"{array} must be" in refusal(lambda: read_people(path), path)


def test_damaged_archives_are_not_repeated(tmp_path):
    """Zip's reader quotes what it found in the place of a name, whatever its length."""
    path = save_npz(tmp_path / "a.npz", **people_arrays())
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\x03\x04") + 26  # the length of the first member's name
    content[at : at + 2] = struct.pack("<H", 2000)
    path.write_bytes(content)
    assert len(refusal(lambda: read_people(path), path)) < 600


def test_names_are_repeated_in_part(tmp_path):
    npz = save_npz(tmp_path / "a.npz", **people_arrays(keypoint_set="x" * 5000))
    assert len(refusal(lambda: read_people(npz), npz)) < 600
    groups = tmp_path / "a.csv"
    groups.write_text("image,person,group\n" + f"{'x' * 5000},0,a\n" * 2)
    assert len(refusal(lambda: read_groups(groups), groups)) < 600


def test_headers_that_are_long(tmp_path):
    """NumPy says so in three lines."""
    header = "{'descr': '<f8', 'fortran_order': False, 'shape': (1,)}".ljust(12_000)
    member = b"\x93NUMPY\x02\x00" + struct.pack("<I", len(header)) + header.encode()
    path = tmp_path / "body.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("v_template.npy", member)
    assert "\n" not in refusal(lambda: load_body_arrays(path), path)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f8"])
def test_numbers_that_signal(dtype, tmp_path):
    """A NaN whose first bit of the fraction is 0: the processor complains when it is converted."""
    arrays = people_arrays()
    keypoints = arrays["keypoints_2d"].astype(dtype)
    exponent = {2: 0x7C00, 4: 0x7F800000, 8: 0x7FF0000000000000}[keypoints.itemsize]
    bits = keypoints.view(keypoints.dtype.str.replace("f", "u"))
    bits[0, 0, 0] = exponent + 1
    path = save_npz(tmp_path / "a.npz", **{**arrays, "keypoints_2d": keypoints})
    people, problems = read_people(path)
    assert (len(people), [problem.row for problem in problems]) == (1, [0])


def test_estimates_that_signal(tmp_path):
    pose = np.zeros((2, 72))
    pose.view("u8")[1, 0] = 0x7FF0000000000001
    path = save_npz(tmp_path / "a.npz", pose=pose, betas=np.zeros((2, 10)))
    assert "row 1: the estimate holds" in refusal(lambda: read_estimates(path, load_body()), path)


def test_estimates_of_names_of_characters_that_do_not_exist(tmp_path):
    names = np.full(2, 0x110000, "<u4").view("<U1")
    path = save_npz(tmp_path / "a.npz", pose=np.zeros((2, 72)), betas=np.zeros((2, 10)),
                    imgname=names)  # fmt: skip
    assert "imgname" in refusal(lambda: read_estimates(path, load_body()), path)


@pytest.mark.parametrize(
    "content", [b"(dPx\n.", b"F" + b"1" * 3000 + b"x\n.", b"\x80\x04\x8c\x02a\n\x8c\x01b\x93."]
)
def test_what_a_pickle_holds_is_not_all_repeated(content, tmp_path):
    path = tmp_path / "a.pkl"
    path.write_bytes(content)
    refusal(lambda: load_pickle(path, []), path)


def test_archives_of_several_disks(tmp_path):
    """Python's check whether a file is an archive at all raises an error of its own there."""
    path = tmp_path / "a.pt"
    torch.save({"model": {}}, path)
    end = struct.pack("<4sIQI", b"PK\x06\x07", 0, 0, 2) + b"PK\x05\x06" + bytes(18)
    path.write_bytes(path.read_bytes() + end)
    assert "damaged" in refusal(lambda: load_checkpoint(path), path)


def test_archives_of_another_version(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"model": {}}, path)
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 6] = 255
    path.write_bytes(content)
    assert "damaged" in refusal(lambda: load_checkpoint(path), path)


@pytest.mark.parametrize("member", [b"garbage", b"\x93NUMPY\x01\x00\x10\x00{'descr': (((((\n"])
def test_priors_of_no_arrays(member, tmp_path):
    path = save_npz(tmp_path / "a.npz", means=np.zeros((2, 69)), covariances=np.eye(69)[None])
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("weights.npy", member)
    refusal(lambda: load_pose_prior(path), path)


def test_priors_of_a_table_of_weights(tmp_path):
    arrays = {"means": np.zeros((69, 69)), "covariances": np.zeros((69, 69, 69))}
    path = save_npz(tmp_path / "a.npz", weights=np.full((69, 69), 1 / 3), **arrays)
    refusal(lambda: load_pose_prior(path), path)


def test_a_table_of_texts_that_are_none(tmp_path):
    path = tmp_path / "fits.parquet"
    columns = fits_table({}).columns
    names = pa.array([b"0.jpg", b"1.jpg", b"2.jpg", b"\xff.jpg"]).view(pa.string())
    pq.write_table(columns.set_column(0, columns.schema.field(0), names), path)
    assert "UTF" in refusal(lambda: read_fits(path), path)


def assert_one_person(path: Path) -> None:
    assert len(read_people(path)[0]) == 1


def test_many_ids_of_one_hash(tmp_path):
    modulus = (1 << 61) - 1  # of Python's hash of integers
    path, seconds = tmp_path / "a.json", []
    for step in (1, modulus):
        images = [{"id": i * step, "file_name": "a.jpg", "width": 9, "height": 9}
                  for i in range(1, 50_000)]  # fmt: skip
        person = {"id": 1, "image_id": step, "keypoints": [5, 6, 2] * 17}
        path.write_text(json.dumps({"images": images, "annotations": [person]}))
        seconds.append(min(seconds_of(lambda: assert_one_person(path)) for _ in range(3)))
    assert seconds[1] < 3 * seconds[0] + 1  # far more where all of them are looked up


def test_fuzzing_begins_with_files_that_are_read(benchmark, tmp_path):
    parsers = benchmark("parsers")
    parsers.make_pictures(tmp_path / "pictures")
    for parser in parsers.parsers().values():
        path = tmp_path / parser.name
        for content in parser.good():
            path.write_bytes(content)
            parser.read(path, tmp_path / "pictures")
            damaged = set()
            for seed in range(6):
                with contextlib.suppress(UnicodeError, ValueError):  # not all can be written
                    damaged.add(parser.damage(content, Random(seed)))
            assert damaged - {content}
