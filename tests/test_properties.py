"""What holds of anything: people survive their file in every format, numerics their symmetries."""

from __future__ import annotations

import functools
import json
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import scipy.io
import torch
from fits import fit_columns
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from test_dataset_readers import mpii_file, mpii_points, struct

import fitting
from fitting.body import chain, load_body, pose_body
from fitting.camera import project_points
from fitting.lm import solve_dense
from fitting.people import index_within_image
from fitting.readers import humandata, read_people
from fitting.readers.openpose import COCO18
from fitting.robust import geman_mcclure
from fitting.skeleton import keypoint_set
from fitting.table import build_fits, write_fits

SIZE = (64, 48)
PICTURES = ("im0001.jpg", "im0002.jpg", "im0003.jpg")
FEW = settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Truth(NamedTuple):
    """N people as written: (N,) pictures, (N, P, 2) pixels, (N, P) confidences."""

    image: list[str]
    xy: np.ndarray
    conf: np.ndarray


class Format(NamedTuple):
    """How a file comes about, and what it cannot say.

    Attributes:
        name: of the reader.
        set_name: of the keypoints.
        write: makes a file, or a folder, of people.
        certain: whether a keypoint is there or not, and no more.
    """

    name: str
    set_name: str
    write: Callable[[Path, Truth], Path]
    certain: bool = False


def dump(path: Path, document: Any) -> Path:
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def triplets(truth: Truth) -> np.ndarray:
    """(N, P, 3)"""
    return np.concatenate([truth.xy, truth.conf[..., None]], axis=2)


def write_coco(path: Path, truth: Truth) -> Path:
    images = [
        {"id": i, "file_name": name, "width": SIZE[0], "height": SIZE[1]}
        for i, name in enumerate(PICTURES)
    ]
    people = [
        {"id": 7 * i, "image_id": PICTURES.index(name), "keypoints": rows.ravel().tolist()}
        for i, (name, rows) in enumerate(zip(truth.image, triplets(truth), strict=True))
    ]
    return dump(path / "a.json", {"images": images, "annotations": people})


def write_openpose(path: Path, truth: Truth, order: list[int] | None = None) -> Path:
    folder = path / "openpose"
    folder.mkdir()
    rows = triplets(truth)
    if order is not None:  # a place of the file for each of ours
        ours, rows = rows, np.zeros((len(rows), len(COCO18), 3))
        rows[:, order] = ours
    for name in PICTURES:
        people = [r for r, image in zip(rows, truth.image, strict=True) if image == name]
        document = {"people": [{"pose_keypoints_2d": r.ravel().tolist()} for r in people]}
        dump(folder / f"{Path(name).stem}_keypoints.json", document)
    return folder


def write_mmpose(path: Path, truth: Truth) -> Path:
    folder = path / "mmpose"
    folder.mkdir()
    for name in PICTURES:
        found = [
            {"keypoints": xy.tolist(), "keypoint_scores": conf.tolist()}
            for image, xy, conf in zip(truth.image, truth.xy, truth.conf, strict=True)
            if image == name
        ]
        dump(folder / f"{Path(name).stem}.json", found)
    return folder


def save(path: Path, **arrays: Any) -> Path:
    np.savez_compressed(path / "a.npz", **arrays)
    return path / "a.npz"


def write_plain(path: Path, truth: Truth) -> Path:
    N = len(truth.image)
    return save(
        path, keypoints_2d=truth.xy, conf=truth.conf, keypoint_set="blazepose33",
        image=np.array(truth.image, dtype=np.str_), width=np.full(N, SIZE[0]),
        height=np.full(N, SIZE[1]),
    )  # fmt: skip


def write_spin(path: Path, truth: Truth) -> Path:
    rows = triplets(truth)
    names = np.array(truth.image, dtype=np.str_)
    return save(path, imgname=names, openpose=rows[:, :25], part=rows[:, 25:])


def write_humandata(path: Path, truth: Truth) -> Path:
    places = [place[0] for place in humandata.places(keypoint_set("body25"))]
    points, mask = np.zeros((len(truth.image), humandata.NUM_POINTS, 3)), np.zeros(190, np.uint8)
    points[:, places], mask[places] = triplets(truth), 1
    names = np.array(truth.image, dtype=np.str_)
    return save(path, image_path=names, keypoints2d=points, keypoints2d_mask=mask)


def write_lspet(path: Path, truth: Truth) -> Path:
    scipy.io.savemat(path / "joints.mat", {"joints": triplets(truth).transpose(1, 2, 0)})
    return path / "joints.mat"


def write_mpii(path: Path, truth: Truth) -> Path:
    people = [
        mpii_points({j: tuple(xy[j] + 1) for j in np.flatnonzero(conf).tolist()})
        if conf.any()
        else np.zeros((0, 0))
        for xy, conf in zip(truth.xy, truth.conf, strict=True)
    ]
    pictures = [(name, struct(annopoints=[p])) for name, p in zip(truth.image, people, strict=True)]
    return mpii_file(path / "mpii.mat", [*pictures, ("x.jpg", people[0])], [1] * len(people) + [0])


def write_threedpw(path: Path, truth: Truth) -> Path:
    """One person, in as many frames as there are people."""
    poses = np.zeros((len(truth.image), 3, len(COCO18)))
    order = [COCO18.index(name) for name in keypoint_set("coco17").names]
    poses[:, :, order] = triplets(truth).transpose(0, 2, 1)
    K = np.array([[1961.0, 0, SIZE[0] / 2], [0, 1969.0, SIZE[1] / 2], [0, 0, 1]])
    content = {"sequence": "walk", "poses2d": [poses], "cam_intrinsics": K}
    (path / "walk.pkl").write_bytes(pickle.dumps(content, protocol=2))
    return path / "walk.pkl"


def write_table(path: Path, truth: Truth) -> Path:
    N = len(truth.image)
    rows = {
        "image": np.array(truth.image),
        "person": index_within_image(np.array(truth.image)),
        "keypoints_2d": triplets(truth).reshape(N, -1),
    }
    write_fits(path / "fits.parquet", build_fits(fit_columns(N) | rows, {}))
    return path / "fits.parquet"


_OPENPOSE_ORDER = [COCO18.index(name) for name in keypoint_set("coco17").names]
FORMATS = [
    Format("coco", "coco17", write_coco),
    Format("coco", "coco_wholebody", write_coco),
    Format("openpose", "body25", write_openpose),
    Format("openpose", "coco17", functools.partial(write_openpose, order=_OPENPOSE_ORDER)),
    Format("mmpose", "coco17", write_mmpose),
    Format("npz", "blazepose33", write_plain),
    Format("spin", "spin49", write_spin),
    Format("humandata", "body25", write_humandata),
    Format("lsp", "lsp14", write_lspet, certain=True),
    Format("mpii", "mpii16", write_mpii, certain=True),
    Format("3dpw", "coco17", write_threedpw),
    Format("fits", "coco17", write_table),
]
BY_FOLDER = ("openpose", "mmpose")  # people in the order of the pictures
OWN_NAMES = ("lsp", "3dpw")  # pictures follow from the row


@st.composite
def truths(draw: Any, kind: Format) -> Truth:
    P = len(keypoint_set(kind.set_name))
    N = draw(st.integers(1, len(PICTURES))) if kind.name != "lsp" else len(PICTURES)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    scale = draw(st.sampled_from([1.0, 50.0, 1e5]))
    xy = rng.normal(2, scale, (N, P, 2)).astype(np.float32).astype(np.float64)
    conf = rng.uniform(0.01, 0.99, (N, P)).astype(np.float32).astype(np.float64)
    conf[rng.random((N, P)) < draw(st.sampled_from([0.0, 0.3, 1.0]))] = 0
    images = draw(st.lists(st.sampled_from(PICTURES), min_size=N, max_size=N))
    if kind.name in BY_FOLDER:
        images = sorted(images)
    if kind.name in OWN_NAMES:
        images = list(PICTURES)
    return Truth(images[:N], xy, (conf > 0).astype(float) if kind.certain else conf)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for name in PICTURES:
        Image.new("RGB", SIZE).save(folder / name)
    return folder


@pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: f"{kind.name} {kind.set_name}")
@FEW
@given(data=st.data())
def test_people_survive_their_file(kind, data, images, tmp_path_factory):
    truth = data.draw(truths(kind))
    path = kind.write(tmp_path_factory.mktemp("people"), truth)
    people, problems = read_people(path, images=images, keypoint_format=kind.name)
    assert (people.keypoint_set, problems) == (kind.set_name, [])
    np.testing.assert_array_equal(people.conf, truth.conf.astype(np.float32))
    expected = np.where(truth.conf[..., None] > 0, truth.xy, 0)
    # MPII's coordinates begin at 1: adding and taking it away rounds in float64.
    np.testing.assert_allclose(
        people.keypoints_2d, expected.astype(np.float32), rtol=1e-6, atol=1e-7
    )
    if kind.name not in OWN_NAMES:
        assert people.image.tolist() == truth.image
    assert people.person.tolist() == [people.image[:i].tolist().count(n)
                                      for i, n in enumerate(people.image)]  # fmt: skip


# --- Numerics ---

SEEDS = st.integers(0, 2**32)


@FEW
@given(seed=SEEDS, scale=st.floats(0.01, 100))
def test_what_is_larger_and_farther_looks_the_same(seed, scale):
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(2, 5, 3, generator=generator, dtype=torch.float64) + torch.tensor(
        [0, 0, 2.0]
    )
    K = torch.tensor([[900.0, 0, 31], [0, 800.0, 20], [0, 0, 1]], dtype=torch.float64).expand(
        2, 3, 3
    )
    pixels, in_front = project_points(points, K)
    again, _ = project_points(scale * points, K)
    assert in_front.all()
    torch.testing.assert_close(again, pixels, rtol=1e-10, atol=1e-8)
    # A picture scaled about its first pixel's centre is that of a camera scaled alike.
    zoom = torch.diag(torch.tensor([scale, scale, 1.0], dtype=torch.float64))
    torch.testing.assert_close(project_points(points, zoom @ K)[0], scale * pixels)


@FEW
@given(seed=SEEDS)
def test_turning_the_root_turns_the_whole_tree(seed):
    import roma

    generator = torch.Generator().manual_seed(seed)
    turns = torch.randn(2, 25, 3, generator=generator, dtype=torch.float64)
    pose, turn = roma.rotvec_to_rotmat(turns).split([24, 1], dim=1)
    rest = torch.rand(2, 24, 3, 1, generator=generator, dtype=torch.float64)
    rotations, joints = chain(pose, rest)
    turned = pose.clone()
    turned[:, :1] = turn @ pose[:, :1]
    more, moved = chain(turned, rest)
    root = joints[:, :1]
    torch.testing.assert_close(more, turn @ rotations)
    torch.testing.assert_close(moved - root, turn @ (joints - root))


@FEW
@given(seed=SEEDS, damping=st.floats(0, 100), size=st.integers(1, 20))
def test_steps_solve_their_equations(seed, damping, size):
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(3, size, size, generator=generator, dtype=torch.float64)
    hessian = root @ root.mT + torch.eye(size)
    gradient = torch.randn(3, size, generator=generator, dtype=torch.float64)
    step, solved = solve_dense(gradient, hessian, torch.full((3,), damping, dtype=torch.float64))
    damped = hessian + damping * torch.diag_embed(hessian.diagonal(dim1=1, dim2=2))
    assert solved.all()
    # The ridge, which keeps padded rows regular, is what is missing.
    torch.testing.assert_close((damped @ step[..., None])[..., 0], -gradient, rtol=1e-5, atol=1e-5)
    assert ((step * gradient).sum(1) < 0).all()  # downhill


@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_a_picture_of_another_size_gives_the_same_body(scale, benchmark):
    problems = benchmark("problems")
    body = load_body()
    truth = problems.make_truth(body, 4, seed=0).problem
    problem = problems.add_noise(truth, problems.LEVELS["2px"], seed=0)

    def joints(scale: float) -> torch.Tensor:
        result = fitting.fit(
            (problem.keypoints_2d + 0.5) * scale - 0.5,  # edges of the picture fall on edges
            conf=problem.conf,
            image_size=tuple((problem.image_size[0] * scale).tolist()),
            keypoint_set=problem.keypoint_set.name,
            body=body,
            device="cpu",
        )
        return pose_body(body, result.params).joints

    # Metres; pixels are float32, which rounds those of scales that are no powers of two.
    torch.testing.assert_close(joints(scale), joints(1.0), rtol=0, atol=0.002)


@FEW
@given(seed=SEEDS)
def test_a_matrix_that_is_none_gives_no_step(seed):
    generator = torch.Generator().manual_seed(seed)
    gradient = torch.randn(3, 4, generator=generator)
    hessian = torch.eye(4).repeat(3, 1, 1)
    hessian[1] = -hessian[1]
    hessian[2, 0, 0] = torch.nan
    step, solved = solve_dense(gradient, hessian, torch.zeros(3))
    assert solved.tolist() == [True, False, False]
    assert step.isfinite().all() and not step[1:].any()


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.floats(1e-3, 1e3))
def test_the_robust_loss_is_even_bounded_and_rises(a, b, scale):
    low, high = sorted((abs(a), abs(b)))
    loss = [geman_mcclure(torch.tensor(x, dtype=torch.float64), scale).item()
            for x in (low, high, -high)]  # fmt: skip
    assert loss[1] == loss[2]
    assert loss[0] <= loss[1] * (1 + 1e-12)
    assert loss[1] <= min(scale**2, high**2) * (1 + 1e-12)
    assert math.isfinite(loss[1])
