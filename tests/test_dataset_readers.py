"""Readers of data sets and detectors: files as their publishers make them, and hostile ones."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from fits import fit_columns
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fitting.files import InputError
from fitting.people import is_safe_name
from fitting.readers import matlab, read_people, recognise_format
from fitting.skeleton import keypoint_set
from fitting.sources import is_keypoint_source
from fitting.table import build_fits, write_fits

SIZE = (64, 48)


def write(path: Path, document: Any) -> Path:
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def make_pictures(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZE).save(folder / name)
    return folder


def instance(points: int = 17, shift: float = 0.0) -> dict[str, Any]:
    """A person as MMPose's `split_instances` gives it; keypoint p is at (10 + p, 20 + p)."""
    return {
        "keypoints": [[10 + shift + p, 20.0 + p] for p in range(points)],
        "keypoint_scores": [0.5] * points,
        "bbox": [[1.0, 2.0, 3.0, 4.0]],
        "bbox_score": 0.9,
    }


def meta_info(names: tuple[str, ...]) -> dict[str, Any]:
    """What json_tricks writes of MMPose's `dataset_meta`."""
    return {
        "dataset_name": "coco",
        "keypoint_id2name": {str(i): name for i, name in enumerate(names)},
        "sigmas": {"__ndarray__": [0.1] * len(names), "dtype": "float32", "shape": [len(names)]},
    }


# --- MMPose ---


@pytest.mark.parametrize("with_meta", [False, True])
def test_mmpose_people_of_one_picture(tmp_path, with_meta):
    images = make_pictures(tmp_path / "p", "a.jpg")
    document: Any = [instance(), instance(shift=3)]
    if with_meta:
        document = {
            "meta_info": meta_info(keypoint_set("coco17").names),
            "instance_info": document,
        }
    for name in ("a.json", "results_a.json"):
        path = write(tmp_path / name, document)
        assert recognise_format(path) == "mmpose"
        people, problems = read_people(path, images=images)
        assert (people.keypoint_set, problems) == ("coco17", [])
        assert people.image.tolist() == ["a.jpg", "a.jpg"]
        assert people.person.tolist() == [0, 1]
        np.testing.assert_array_equal(people.keypoints_2d[1, :, 0], 13 + np.arange(17))
        np.testing.assert_array_equal(people.conf, 0.5)
        assert (people.width[0], people.height[0]) == SIZE


def test_mmpose_frames_of_a_video(tmp_path):
    images = make_pictures(tmp_path / "p", *(f"f{i}.jpg" for i in (1, 2, 10)))
    frames = [
        {"frame_id": 1, "instances": [instance()]},
        {"frame_id": 2, "instances": []},
        {"frame_id": 3, "instances": [instance(shift=1), instance(shift=2)]},
    ]
    for document in (frames, {"meta_info": {}, "instance_info": frames}):
        path = write(tmp_path / "video.json", document)
        assert recognise_format(path) == "mmpose"
        people, _ = read_people(path, images=images)
        assert people.image.tolist() == ["f1.jpg", "f10.jpg", "f10.jpg"]
        assert people.keypoints_2d[:, 0, 0].tolist() == [10, 11, 12]
    (images / "f2.jpg").unlink()
    with pytest.raises(InputError, match=r"3 frames, but .* 2 pictures"):
        read_people(path, images=images)


def test_mmpose_folder_of_predictions(tmp_path):
    images = make_pictures(tmp_path / "p", "a.jpg", "b.jpg", "c.jpg")
    folder = tmp_path / "predictions"
    folder.mkdir()
    write(folder / "a.json", [])
    write(folder / "b.json", [instance()])
    write(folder / "lost.json", [instance()])
    (folder / "c.json").write_text("{")
    assert recognise_format(folder) == "mmpose"
    people, problems = read_people(folder, images=images)
    assert people.image.tolist() == ["b.jpg"]
    assert [Path(p.file).name for p in problems] == ["c.json", "lost.json"]


def test_a_folder_of_keypoints_is_told_from_one_of_pictures(tmp_path):
    folder = tmp_path / "predictions"
    folder.mkdir()
    assert not is_keypoint_source(folder)
    write(folder / "a.json", [instance()])
    assert is_keypoint_source(folder)
    make_pictures(folder, "a.png")
    assert not is_keypoint_source(folder)
    assert is_keypoint_source(tmp_path / "joints.mat")


@pytest.mark.parametrize(("points", "name"), [(26, "coco_wholebody"), (133, "coco_wholebody"),
                                              (16, "mpii16"), (14, "lsp14")])  # fmt: skip
def test_mmpose_sets_by_count(tmp_path, points, name):
    images = make_pictures(tmp_path / "p", "a.jpg")
    people, _ = read_people(write(tmp_path / "a.json", [instance(points)]), images=images)
    assert people.keypoint_set == name
    x = dict(zip(keypoint_set(name).names, people.keypoints_2d[0, :, 0], strict=True))
    if points == 26:  # Halpe's order of the feet
        assert x["left_big_toe"] == 10 + 20
        assert x["right_big_toe"] == 10 + 21
        assert x["right_heel"] == 10 + 25
    else:
        np.testing.assert_array_equal(list(x.values()), 10 + np.arange(len(x)))


def test_mmpose_set_by_names(tmp_path):
    images = make_pictures(tmp_path / "p", "a.jpg")
    names = tuple("root" if n == "pelvis" else n for n in keypoint_set("h36m17").names)
    document = {"meta_info": meta_info(names), "instance_info": [instance()]}
    people, _ = read_people(write(tmp_path / "a.json", document), images=images)
    assert people.keypoint_set == "h36m17"
    document["meta_info"] = meta_info(tuple(f"paw_{i}" for i in range(17)))
    path = write(tmp_path / "a.json", document)
    with pytest.raises(InputError, match=r"17 keypoints .*paw_0.*--keypoint-set"):
        read_people(path, images=images)
    assert read_people(path, images=images, keypoint_set="coco17")[0].keypoint_set == "coco17"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"keypoints": None}, "no lists keypoints"),
        ({"keypoint_scores": [0.5] * 16}, "17 keypoints but 16 keypoint_scores"),
        ({"keypoints": [[1, 2, 3]] * 17}, "2D model"),
        ({"keypoints": [["1", 2]] * 17}, "something else than numbers"),
        ({"keypoints": [[True, 2]] * 17}, "something else than numbers"),
        ({"keypoints": [[float("nan"), 2]] * 17}, "NaN or infinite"),
        ({"keypoint_scores": [1e9] * 17}, "outside [0, 1]"),
    ],
)
def test_mmpose_rows_at_fault(tmp_path, change, words):
    images = make_pictures(tmp_path / "p", "a.jpg")
    path = write(tmp_path / "a.json", [instance(), instance() | change])
    people, problems = read_people(path, images=images)
    assert (len(people), [p.row for p in problems]) == (1, [1])
    assert words in problems[0].reason


def test_mmpose_scores_of_simcc_are_clipped(tmp_path):
    images = make_pictures(tmp_path / "p", "a.jpg")
    scores = [-0.01, 1.3, 6.0] + [0.25] * 14
    path = write(tmp_path / "a.json", [instance() | {"keypoint_scores": scores}])
    people, _ = read_people(path, images=images)
    assert people.conf[0, :4].tolist() == [0, 1, 1, 0.25]


# --- OpenPose BODY_25B ---


def test_openpose_body25b(tmp_path):
    images = make_pictures(tmp_path / "p", "a.jpg")
    person = {"pose_keypoints_2d": [v for p in range(25) for v in (10 + p, 20 + p, 0.5)]}
    path = write(tmp_path / "a_keypoints.json", {"people": [person]})
    people, _ = read_people(path, images=images, keypoint_set="body25b")
    s = keypoint_set("body25b")
    assert people.keypoint_set == "body25b"
    # poseParameters.cpp of openpose_train: 10 RWrist, 17 UpperNeck, 22 RBigToe.
    for name, index in (("right_wrist", 10), ("neck", 17), ("right_big_toe", 22)):
        assert people.keypoints_2d[0, s.index(name), 0] == 10 + index


# --- LSP, LSPET ---


def joints_mat(path: Path, joints: np.ndarray) -> Path:
    scipy.io.savemat(path, {"joints": joints})
    return path


def test_lsp_and_lspet(tmp_path, rng):
    keypoints = rng.uniform(1, 60, (3, 14, 2))
    flags = (rng.random((3, 14)) > 0.5).astype(float)
    both = np.concatenate([keypoints, flags[..., None]], axis=2)
    names = [f"im{i:04d}.jpg" for i in (1, 2, 3)]
    for folder in ("p", "set/images"):
        make_pictures(tmp_path / folder, *names)
    lsp = joints_mat(tmp_path / "lsp.mat", both.transpose(2, 1, 0))
    assert recognise_format(lsp) == "lsp"
    people, problems = read_people(lsp, images=tmp_path / "p")
    assert (people.keypoint_set, problems) == ("lsp14", [])
    assert people.image.tolist() == names
    np.testing.assert_allclose(people.keypoints_2d, keypoints, rtol=1e-6)
    assert (people.conf == 1).all()  # the flag says occluded, and all are annotated
    lspet = joints_mat(tmp_path / "lspet.mat", both.transpose(1, 2, 0))
    people, _ = read_people(lspet, images=tmp_path / "set")
    assert people.image.tolist() == [f"images/{name}" for name in names]
    np.testing.assert_array_equal(people.conf, flags)
    np.testing.assert_allclose(
        people.keypoints_2d, np.where(flags[..., None] > 0, keypoints, 0), rtol=1e-6
    )


def test_lsp_pictures_are_found_by_number_or_by_count(tmp_path):
    path = joints_mat(tmp_path / "joints.mat", np.ones((14, 3, 3)))
    images = make_pictures(tmp_path / "p", "im00001.png", "im00003.png")
    people, problems = read_people(path, images=images)
    assert people.image.tolist() == ["im00001.png", "im00003.png"]
    assert [p.row for p in problems] == [1]
    make_pictures(images, "im00009.png")  # as many as rows: the high-resolution LSPET
    people, problems = read_people(path, images=images)
    assert people.image.tolist() == ["im00001.png", "im00003.png", "im00009.png"]
    with pytest.raises(InputError, match="--images"):
        read_people(path)
    with pytest.raises(InputError, match="no pictures im0001"):
        read_people(path, images=make_pictures(tmp_path / "q", "x.png"))


@pytest.mark.shared
def test_lspet_annotations(shared, tmp_path):
    """Real joints of LSPET, put back into the layout of its joints.mat."""
    with np.load(shared / "data" / "lspet_crops" / "keypoints.npz") as file:
        keypoints, names = file["keypoints_2d"][:50], file["imgname"][:50]
    images = tmp_path / "images"
    make_pictures(images, *names.tolist())
    path = joints_mat(tmp_path / "joints.mat", keypoints.transpose(1, 2, 0))
    people, problems = read_people(path, images=images)
    assert problems == []
    assert people.image.tolist() == names.tolist()
    np.testing.assert_array_equal(people.conf, keypoints[..., 2])
    seen = people.conf > 0
    np.testing.assert_allclose(people.keypoints_2d[seen], keypoints[..., :2][seen], rtol=1e-6)


@pytest.mark.parametrize("shape", [(14, 2, 5), (3, 5, 14), (42, 5), (1,)])
def test_lsp_joints_of_other_shapes(tmp_path, shape):
    images = make_pictures(tmp_path / "p", "im0001.jpg")
    path = joints_mat(tmp_path / "joints.mat", np.ones(shape))
    with pytest.raises(InputError, match=r"must be \(3, 14, N\)"):
        read_people(path, images=images)


# --- MPII ---


def struct(**fields: Any) -> np.ndarray:
    """A MATLAB structure array of one row; each field is a list with a value for each element."""
    N = len(next(iter(fields.values())))
    array = np.zeros((1, N), dtype=[(name, object) for name in fields])
    for name, values in fields.items():
        for i, value in enumerate(values):
            array[0, i][name] = value
    return array


NOTHING = np.zeros((0, 0))


def mpii_points(points: dict[int, tuple[float, float]]) -> np.ndarray:
    visible = [NOTHING if i == 9 else np.array([[i % 2]], np.uint8) for i in points]
    point = struct(
        x=[np.array([[x]]) for x, _ in points.values()],
        y=[np.array([[y]]) for _, y in points.values()],
        id=[np.array([[i]]) for i in points],
        is_visible=visible,
    )
    return struct(point=[point])


def mpii_file(path: Path, pictures: list[tuple[str, Any]], train: list[int]) -> Path:
    images = [struct(name=[name]) for name, _ in pictures]
    annolist = struct(image=images, annorect=[people for _, people in pictures])
    release = struct(annolist=[annolist], img_train=[np.array([train])], version=["12"])
    scipy.io.savemat(path, {"RELEASE": release})
    return path


@pytest.fixture
def mpii(tmp_path) -> Path:
    first = mpii_points({0: (11.5, 21), 9: (12, 22), 15: (13, 23)})
    second = mpii_points({6: (31, 41)})
    people = struct(x1=[np.array([[1]])] * 3, annopoints=[first, NOTHING, second])
    test_people = struct(x1=[np.array([[1]])])
    return mpii_file(
        tmp_path / "mpii.mat",
        [("a.jpg", people), ("test.jpg", test_people), ("b.jpg", NOTHING),
         ("c.jpg", struct(annopoints=[second]))],
        [1, 0, 1, 1],
    )  # fmt: skip


def test_mpii(tmp_path, mpii):
    images = make_pictures(tmp_path / "p", "a.jpg", "c.jpg")
    assert recognise_format(mpii) == "mpii"
    people, problems = read_people(mpii, images=images)
    assert (people.keypoint_set, problems) == ("mpii16", [])
    assert people.image.tolist() == ["a.jpg", "a.jpg", "a.jpg", "c.jpg"]
    assert people.person.tolist() == [0, 1, 2, 0]
    assert np.flatnonzero(people.conf[0]).tolist() == [0, 9, 15]
    np.testing.assert_array_equal(people.keypoints_2d[0, 0], [10.5, 20])  # MATLAB counts from 1
    assert not people.conf[1].any()
    np.testing.assert_array_equal(people.keypoints_2d[2, 6], [30, 40])


def test_mpii_faults(tmp_path):
    people = struct(annopoints=[mpii_points({16: (1, 1)}), mpii_points({1: (1, 1)})])
    lost = struct(annopoints=[mpii_points({1: (1, 1)})])
    path = mpii_file(
        tmp_path / "mpii.mat", [("a.jpg", people), ("../a.jpg", lost), ("lost.jpg", lost)], [1] * 3
    )
    images = make_pictures(tmp_path / "p", "a.jpg")
    good, problems = read_people(path, images=images)
    assert len(good) == 1
    assert [p.row for p in problems] == [0, 2, 3]
    assert "id 16" in problems[0].reason
    assert "inside the folder" in problems[1].reason
    assert "lost.jpg" in problems[2].reason
    with pytest.raises(InputError, match="--images"):
        read_people(path)


def test_matlab_files_of_no_use(tmp_path, mpii):
    images = make_pictures(tmp_path / "p", "im0001.jpg")

    def fails(path: Path, words: str, **options: Any) -> None:
        with pytest.raises(InputError, match=words) as caught:
            read_people(path, images=images, **options)
        assert "\n" not in str(caught.value)

    scipy.io.savemat(tmp_path / "x.mat", {"other": np.ones(3)})
    fails(tmp_path / "x.mat", "MATLAB file of 'other'; expected joints")
    fails(tmp_path / "x.mat", "no variable joints, it holds other", keypoint_format="lsp")
    fails(mpii, "no variable joints, it holds RELEASE", keypoint_format="lsp")
    fails(mpii, "holds mpii16 keypoints, not coco17", keypoint_set="coco17")
    (tmp_path / "hdf.mat").write_bytes(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512))
    fails(tmp_path / "hdf.mat", "-v7")
    scipy.io.savemat(tmp_path / "r.mat", {"RELEASE": np.ones((2, 2))})
    fails(tmp_path / "r.mat", "must hold annolist")
    scipy.io.savemat(tmp_path / "j.mat", {"joints": np.array([["a" * 14] * 3])})
    fails(tmp_path / "j.mat", "joints")
    content = mpii.read_bytes()
    (tmp_path / "cut.mat").write_bytes(content[: len(content) // 2])
    fails(tmp_path / "cut.mat", "cannot be read as a MATLAB file|must hold annolist")


@settings(max_examples=40)
@given(data=st.data())
def test_matlab_arrays_are_those_that_scipy_writes(data, tmp_path_factory):
    """SciPy is the oracle: numbers of every type, narrow or wide, and structures within others."""
    dtype = data.draw(st.sampled_from(["u1", "i1", "i2", "u2", "i4", "u4", "i8", "f4", "f8"]))
    shape = tuple(data.draw(st.lists(st.integers(0, 4), min_size=2, max_size=4)))
    values = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    inner = struct(x=[values, np.empty((0, 0))], text=["été", ""])
    path = tmp_path_factory.mktemp("mat") / "a.mat"
    compressed = data.draw(st.booleans())
    scipy.io.savemat(
        path, {"a": values, "s": struct(inner=[inner]), "z": "b"}, do_compression=compressed
    )
    assert matlab.list_variables(path) == {"a": shape, "s": (1, 1), "z": (1, 1)}
    read = matlab.load_variable(path, "a")
    np.testing.assert_array_equal(read, values)
    outer = matlab.first_of(matlab.load_variable(path, "s"))
    records = matlab.items(matlab.field_of(outer, "inner"))
    np.testing.assert_array_equal(matlab.field_of(records[0], "x"), values)
    assert matlab.text_of(matlab.field_of(records[0], "text")) == "été"
    assert np.size(matlab.field_of(records[1], "x")) == 0
    assert np.size(matlab.field_of(records[1], "none")) == 0


# --- SPIN ---


def spin_arrays(N: int = 3, **changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(3)
    arrays = {
        "imgname": np.array([f"images/{i % 2}.jpg" for i in range(N)]),
        "center": np.ones((N, 2)),
        "scale": np.ones(N),
        "part": np.concatenate([rng.uniform(0, 60, (N, 24, 2)), np.ones((N, 24, 1))], axis=2),
        "openpose": np.concatenate([rng.uniform(0, 60, (N, 25, 2)), np.full((N, 25, 1), 0.5)], 2),
        "pose": np.zeros((N, 72)),
        "shape": np.zeros((N, 10)),
    } | changes
    return {name: array for name, array in arrays.items() if array is not None}


def write_npz(path: Path, arrays: dict[str, Any]) -> Path:
    np.savez(path, **arrays)
    return path


def test_spin(tmp_path):
    images = make_pictures(tmp_path / "p", "images/0.jpg", "images/1.jpg")
    arrays = spin_arrays()
    path = write_npz(tmp_path / "a.npz", arrays)
    assert recognise_format(path) == "spin"
    people, problems = read_people(path, images=images)
    assert (people.keypoint_set, problems) == ("spin49", [])
    assert people.person.tolist() == [0, 0, 1]
    expected = np.concatenate([arrays["openpose"], arrays["part"]], axis=1).astype(np.float32)
    np.testing.assert_array_equal(people.keypoints_2d, expected[..., :2])
    np.testing.assert_array_equal(people.conf, expected[..., 2])
    s = keypoint_set("spin49")
    wrist = people.keypoints_2d[0, s.index("right_wrist")]  # part joint 6 of constants.py
    np.testing.assert_array_equal(wrist, arrays["part"][0, 6, :2].astype(np.float32))
    with pytest.raises(InputError, match="--images"):
        read_people(path)
    path = write_npz(tmp_path / "a.npz", spin_arrays(openpose=None))
    people, _ = read_people(path, images=images)
    assert not people.conf[:, :25].any()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"part": np.ones((3, 23, 3))}, r"part must be \(3, 24, 3\) numbers"),
        ({"part": np.ones((2, 24, 3))}, r"part must be \(3, 24, 3\) numbers"),
        ({"part": np.full((3, 24, 3), "1")}, r"part must be \(3, 24, 3\) numbers"),
        ({"part": np.ones((3, 24, 3), bool)}, r"part must be \(3, 24, 3\) numbers"),
        ({"imgname": np.arange(3)}, r"imgname must be \(N,\) texts"),
        ({"imgname": np.array([0x110000] * 3, "<u4").view("<U1")}, r"imgname must be"),
        ({"part": None, "openpose": None, "parts": np.ones(1)}, "must have imgname and openpose"),
    ],
)
def test_spin_faults_of_the_file(tmp_path, changes, words):
    images = make_pictures(tmp_path / "p", "images/0.jpg", "images/1.jpg")
    path = write_npz(tmp_path / "a.npz", spin_arrays(**changes))
    with pytest.raises(InputError, match=words):
        read_people(path, images=images, keypoint_format="spin")


def test_spin_rows_at_fault(tmp_path):
    images = make_pictures(tmp_path / "p", "images/0.jpg")
    part = spin_arrays(5)["part"]
    part[0, 3, 0] = np.nan
    part[1, 3, 2] = 2
    names = np.array(["images/0.jpg", "images/0.jpg", "../x.jpg", "lost.jpg", b"images/0.jpg"], "S")
    path = write_npz(tmp_path / "a.npz", spin_arrays(5, part=part, imgname=names))
    people, problems = read_people(path, images=images)
    assert people.image.tolist() == ["images/0.jpg"]
    assert [p.row for p in problems] == [0, 1, 2, 3]


# --- HumanData ---

# Places of HUMAN_DATA in mmhuman3d/core/conventions/keypoints_mapping/human_data.py.
HUMAN_DATA = {"left_shoulder": 16, "right_ankle": 8, "nose": 55, "left_eye": 57, "headtop": 147,
              "left_hip_extra": 145, "nose_openpose": 153, "right_heel_openpose": 177,
              "thorax_extra": 149, "left_hand": 188}  # fmt: skip


def human_arrays(mask: list[int], N: int = 2, **changes: Any) -> dict[str, Any]:
    points = np.zeros((N, 190, 3))
    points[:, mask, 0] = mask
    points[:, mask, 1] = 7
    points[:, mask, 2] = 1
    arrays = {
        "image_path": np.array([f"{i}.jpg" for i in range(N)]),
        "bbox_xywh": np.ones((N, 5)),
        "keypoints2d": points,
        "keypoints2d_mask": np.isin(np.arange(190), mask).astype(np.uint8),
        "__keypoints_compressed__": np.array(False),
        "smpl": np.array({"betas": np.zeros((N, 10))}, dtype=object),
        "meta": np.array({"gender": ["m"] * N}, dtype=object),
    } | changes
    return {name: array for name, array in arrays.items() if array is not None}


COCO_MASK = [55, 57, 56, 59, 58, 16, 17, 18, 19, 20, 21, 145, 144, 4, 5, 7, 8]


@pytest.mark.parametrize("compressed", [False, True])
def test_humandata(tmp_path, compressed):
    images = make_pictures(tmp_path / "p", "0.jpg", "1.jpg")
    arrays = human_arrays(COCO_MASK)
    if compressed:
        arrays["keypoints2d"] = arrays["keypoints2d"][:, sorted(COCO_MASK)]
        arrays["__keypoints_compressed__"] = np.array(True)
    path = write_npz(tmp_path / "a.npz", arrays)
    assert recognise_format(path) == "humandata"
    people, problems = read_people(path, images=images)
    assert (people.keypoint_set, problems) == ("coco17", [])
    np.testing.assert_array_equal(people.keypoints_2d[0, :, 0], COCO_MASK)
    assert (people.conf == 1).all()


@pytest.mark.parametrize(
    ("name", "mask", "anchors"),
    [
        ("smpl24", [*range(22), 188, 189], {"left_shoulder": 16, "left_hand": 188, "neck": 12}),
        ("body25", list(range(153, 178)), {"nose": 153, "right_heel": 177}),
        ("lsp14", [8, 5, 144, 145, 4, 7, 21, 19, 17, 16, 18, 20, 146, 147],
         {"left_hip": 145, "head_top": 147, "neck": 146}),
        ("lsp14", [8, 5, 2, 1, 4, 7, 21, 19, 17, 16, 18, 20, 12, 147],  # earlier versions
         {"left_hip": 1, "neck": 12}),
        ("mpii16", [8, 5, 144, 145, 4, 7, 148, 149, 146, 147, 21, 19, 17, 16, 18, 20],
         {"thorax": 149, "pelvis": 148}),
        ("spin49", [*range(153, 178), 8, 5, 144, 145, 4, 7, 21, 19, 17, 16, 18, 20, 146, 147, 148,
                    149, 150, 151, 152, 55, 57, 56, 59, 58],
         {"op_nose": 153, "nose": 55, "head": 152, "left_ear": 59}),
    ],
)  # fmt: skip
def test_humandata_sets_by_their_mask(tmp_path, name, mask, anchors):
    images = make_pictures(tmp_path / "p", "0.jpg", "1.jpg")
    people, _ = read_people(write_npz(tmp_path / "a.npz", human_arrays(mask)), images=images)
    assert people.keypoint_set == name
    s = keypoint_set(name)
    for keypoint, place in anchors.items():
        assert people.keypoints_2d[1, s.index(keypoint), 0] == place
    assert (people.conf == 1).all()


def test_humandata_other_names_of_the_keypoints(tmp_path):
    images = make_pictures(tmp_path / "p", "0.jpg", "1.jpg")
    arrays = human_arrays(COCO_MASK)
    for suffix in ("", "_mask"):
        arrays[f"keypoints2d_original{suffix}"] = arrays.pop(f"keypoints2d{suffix}")
    people, _ = read_people(write_npz(tmp_path / "a.npz", arrays), images=images)
    assert len(people) == 2
    arrays["keypoints2d_smpl"] = arrays["keypoints2d_original"]
    with pytest.raises(InputError, match="keypoints2d_original, keypoints2d_smpl; save it with"):
        read_people(write_npz(tmp_path / "a.npz", arrays), images=images)


class _Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("bomb"),))


def test_humandata_refuses_what_is_pickled_and_says_how_to_go_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = np.array([_Bomb(), "b.jpg"], dtype=object)
    path = write_npz(tmp_path / "a.npz", human_arrays(COCO_MASK, image_path=names))
    with pytest.raises(InputError, match=r"image_path is pickled.*MMHuman3D.*numpy\.savez"):
        read_people(path, images=tmp_path)
    assert not (tmp_path / "bomb").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"keypoints2d_mask": None}, "without keypoints2d_mask"),
        ({"keypoints2d_mask": np.ones(144)}, r"keypoints2d_mask must be \(190\) numbers"),
        ({"keypoints2d_mask": np.zeros(190)}, "none of the keypoints of"),
        ({"keypoints2d": np.zeros((2, 144, 3))}, r"keypoints2d must be \(2, 190, 3\)"),
        ({"__keypoints_compressed__": np.array(True)}, r"keypoints2d must be \(2, 17, 3\)"),
        ({"image_path": np.array(["a"])}, r"keypoints2d must be \(1, 190, 3\)"),
    ],
)
def test_humandata_faults_of_the_file(tmp_path, changes, words):
    path = write_npz(tmp_path / "a.npz", human_arrays(COCO_MASK, **changes))
    with pytest.raises(InputError, match=words):
        read_people(path, images=tmp_path)


# --- 3DPW ---


def pw3d_content(F: int = 3, **changes: Any) -> dict[str, Any]:
    """As the sequence files hold it, for two people."""
    rng = np.random.default_rng(5)
    poses = [rng.uniform(1, 60, (F, 3, 18)) for _ in range(2)]
    for p in poses:
        p[:, 2] = 0.5
    return {
        "sequence": "walk_00",
        "poses2d": poses,
        "cam_intrinsics": np.array([[1961.0, 0, 32], [0, 1969.0, 24], [0, 0, 1]]),
        "campose_valid": [np.array([1, 0, 1])[:F], np.array([1, 1, 1])[:F]],
        "img_frame_ids": np.arange(F),
        "betas": [np.zeros(10)] * 2,
        "genders": ["m", "f"],
    } | changes


def write_pickle(path: Path, content: Any, protocol: int = 2) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_3dpw(tmp_path, protocol):
    content = pw3d_content()
    path = write_pickle(tmp_path / "walk_00.pkl", content, protocol)
    assert recognise_format(path) == "3dpw"
    people, problems = read_people(path)
    assert (people.keypoint_set, problems) == ("coco17", [])
    frames, persons = [0, 0, 1, 2, 2], [0, 1, 1, 0, 1]
    assert people.image.tolist() == [f"walk_00/image_{i:05d}.jpg" for i in frames]
    assert people.track is not None
    assert people.track.tolist() == persons
    assert (people.width[0], people.height[0]) == SIZE
    np.testing.assert_allclose(people.focal, np.sqrt(1961 * 1969), rtol=1e-6)
    names = keypoint_set("coco17").names
    # OpenPose's COCO order: 0 nose, 4 right wrist, 15 left eye.
    for name, index in (("nose", 0), ("right_wrist", 4), ("left_eye", 15)):
        expected = [
            content["poses2d"][p][f, :2, index] for f, p in zip(frames, persons, strict=True)
        ]
        found = people.keypoints_2d[:, names.index(name)]
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_3dpw_true_focal_length_reaches_the_fit(tmp_path):
    from fitting.offline import make_problem

    people, _ = read_people(write_pickle(tmp_path / "a.pkl", pw3d_content()))
    import torch

    problem = make_problem(people, device=torch.device("cpu"), dtype=torch.float32)
    np.testing.assert_allclose(problem.intrinsics[:, 0, 0], np.sqrt(1961 * 1969), rtol=1e-6)


def test_3dpw_pictures(tmp_path):
    path = write_pickle(tmp_path / "a.pkl", pw3d_content())
    images = make_pictures(tmp_path / "set", "imageFiles/walk_00/image_00000.jpg")
    people, _ = read_people(path, images=images)
    assert people.image[0] == "imageFiles/walk_00/image_00000.jpg"
    cropped = np.array([[1961.0, 0, 20], [0, 1969.0, 24], [0, 0, 1]])
    path = write_pickle(tmp_path / "a.pkl", pw3d_content(cam_intrinsics=cropped))
    with pytest.raises(InputError, match="not the centre"):
        read_people(path, images=images)


class _Call:
    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self):
        return self.call


def test_3dpw_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = pw3d_content(texture_maps=_Call(Path.touch, (Path("bomb"),)))
    with pytest.raises(InputError, match="refused"):
        read_people(write_pickle(tmp_path / "a.pkl", content))
    assert not (tmp_path / "bomb").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"poses2d": []}, "poses2d must be a list"),
        ({"poses2d": [np.ones((3, 18, 3))] * 2}, r"must be \(3, 3, 18\) numbers"),
        ({"poses2d": [np.ones((3, 3, 18)), np.ones((2, 3, 18))]}, r"poses2d of person 1 must be"),
        ({"poses2d": "x"}, "poses2d must be a list"),
        ({"cam_intrinsics": np.eye(2)}, r"cam_intrinsics must be \(3, 3\)"),
        ({"cam_intrinsics": np.full((3, 3), np.nan)}, "cam_intrinsics must be"),
        ({"campose_valid": [np.ones(3)]}, "one array for each person"),
        ({"campose_valid": [np.ones(4)] * 2}, r"campose_valid of person 0 must be \(3\)"),
        ({"sequence": "../x"}, "name of a folder"),
        ({"sequence": ["x"]}, "name of a folder"),
    ],
)
def test_3dpw_faults_of_the_file(tmp_path, changes, words):
    path = write_pickle(tmp_path / "a.pkl", pw3d_content(**changes))
    with pytest.raises(InputError, match=words):
        read_people(path, images=tmp_path)


def test_other_pickles(tmp_path):
    with pytest.raises(InputError, match="has no sequence, it holds 'a'"):
        read_people(write_pickle(tmp_path / "a.pkl", {"a": 1}))
    with pytest.raises(InputError, match="expected a pickled dictionary"):
        read_people(write_pickle(tmp_path / "a.pkl", [1]))


# --- fits tables ---


@pytest.mark.parametrize("place", ["fits.parquet", "fits/part-00000.parquet", "other.parquet"])
def test_fits_as_keypoints(tmp_path, rng, place):
    triplets = rng.uniform(0, 1, (4, 17, 3)).astype(np.float32)
    columns = fit_columns(4) | {
        "keypoints_2d": triplets.reshape(4, 51),
        "annotation_id": [9, 7, 5, 3],
    }
    path = tmp_path / place
    path.parent.mkdir(exist_ok=True)
    write_fits(path, build_fits(columns, {}))
    source = path if place.startswith("other") else tmp_path
    assert recognise_format(source) == "fits"
    people, problems = read_people(source)
    assert (people.keypoint_set, problems, people.track) == ("coco17", [], None)
    np.testing.assert_array_equal(people.keypoints_2d, triplets[..., :2])
    np.testing.assert_array_equal(people.conf, triplets[..., 2])
    np.testing.assert_array_equal(people.focal, columns["fx"])
    assert people.annotation_id.tolist() == [9, 7, 5, 3]


def test_fits_of_no_use_as_keypoints(tmp_path):
    def fails(words: str, **changes: Any) -> None:
        write_fits(tmp_path / "fits.parquet", build_fits(fit_columns(2) | changes, {}))
        with pytest.raises(InputError, match=words):
            read_people(tmp_path)

    fails("several sets", keypoint_set=np.array(["coco17", "lsp14"]))
    fails("expected 3 x 14", keypoint_set=np.array(["lsp14"] * 2))
    fails("unknown keypoint set", keypoint_set=np.array(["coco"] * 2))


# --- hostile files of every format ---


def sample_files(folder: Path) -> dict[str, Path]:
    """A good file of each format, whose pictures are in `folder`/p."""
    make_pictures(folder / "p", "a.jpg", "im0001.jpg", "0.jpg", "1.jpg", "images/0.jpg",
                  "images/1.jpg", "walk_00/image_00000.jpg")  # fmt: skip
    mpii_people = struct(annopoints=[mpii_points({0: (1, 2)})])
    write_fits(folder / "fits.parquet", build_fits(fit_columns(2), {}))
    return {
        "mmpose": write(folder / "a.json", [instance()]),
        "lsp": joints_mat(folder / "joints.mat", np.ones((14, 3, 2))),
        "mpii": mpii_file(folder / "mpii.mat", [("a.jpg", mpii_people)], [1]),
        "spin": write_npz(folder / "spin.npz", spin_arrays()),
        "humandata": write_npz(folder / "human.npz", human_arrays(COCO_MASK)),
        "3dpw": write_pickle(folder / "walk.pkl", pw3d_content()),
        "fits": folder / "fits.parquet",
    }


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> dict[str, Path]:
    return sample_files(tmp_path_factory.mktemp("samples"))


FORMATS = ["mmpose", "lsp", "mpii", "spin", "humandata", "3dpw", "fits"]


@pytest.mark.parametrize("name", FORMATS)
def test_good_samples_are_recognised_and_read(samples, name):
    path = samples[name]
    assert recognise_format(path) == name
    assert len(read_people(path, images=path.parent / "p")[0]) >= 1


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=60)
@given(data=st.data())
def test_damaged_bytes_are_a_problem_or_one_sentence(name, data, samples, tmp_path_factory):
    content = bytearray(samples[name].read_bytes())
    if data.draw(st.booleans(), label="truncated"):
        del content[data.draw(st.integers(0, len(content))) :]
    for _ in range(data.draw(st.integers(0, 4))):
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / samples[name].name
    path.write_bytes(content)
    for keypoint_format in ("auto", name):
        check_refusal_or_people(path, samples[name].parent / "p", keypoint_format)


def check_refusal_or_people(path: Path, images: Path, keypoint_format: str) -> None:
    try:
        people, problems = read_people(path, images=images, keypoint_format=keypoint_format)
    except InputError as error:
        assert str(path.parent) in str(error)
        assert "\n" not in str(error)
        return
    assert np.isfinite(people.keypoints_2d).all()
    assert ((people.conf >= 0) & (people.conf <= 1)).all()
    assert all(is_safe_name(name) for name in people.image.tolist())
    assert all(problem.reason for problem in problems)


_NUMBERS = st.sampled_from([np.nan, np.inf, -np.inf, 1e308, -1e308, 1e39, 2**63, -1, 0, 1.5])
_NAMES = st.sampled_from(
    ["../a.jpg", "/etc/passwd", "a\0b", "", "a.jpg", "\ud800", "x" * 3000, "<b>"]
)


def hostile_array(draw: Any, array: np.ndarray) -> Any:
    """The array with something wrong: a shape, a type, a value."""
    kind = draw(st.sampled_from(["shape", "bool", "text", "value", "empty", "scalar", "complex"]))
    if kind == "shape":
        axis = draw(st.integers(0, max(array.ndim - 1, 0)))
        return np.repeat(array, 2, axis=axis) if array.ndim else np.stack([array] * 3)
    if kind == "value" and array.dtype.kind in "fiu" and array.size:
        changed = array.astype(np.float64)
        changed.flat[draw(st.integers(0, array.size - 1))] = draw(_NUMBERS)
        return changed
    if kind == "value" and array.dtype.kind == "U" and array.size:
        names = array.astype(object)
        names.flat[0] = draw(_NAMES)
        return names.astype(str)
    changes = {
        "bool": np.ones(array.shape, bool),
        "text": np.full(array.shape, "1"),
        "empty": array[:0] if array.ndim else np.zeros(0),
        "complex": np.ones(array.shape, complex),
    }
    return changes.get(kind, np.array(draw(_NUMBERS)))


@pytest.mark.parametrize("name", ["spin", "humandata", "lsp", "3dpw"])
@settings(max_examples=60)
@given(data=st.data())
def test_wrong_arrays_are_a_problem_or_one_sentence(name, data, samples, tmp_path_factory):
    path = tmp_path_factory.mktemp("arrays") / samples[name].name
    if name == "lsp":
        joints_mat(path, hostile_array(data.draw, np.ones((14, 3, 2))))
    elif name == "3dpw":
        content = pw3d_content()
        key = data.draw(st.sampled_from(["poses2d", "cam_intrinsics", "campose_valid", "sequence"]))
        whole = data.draw(st.booleans())
        value = np.asarray(content[key])
        content[key] = hostile_array(data.draw, value) if whole else list(content[key])[1:]
        write_pickle(path, content)
    else:
        arrays = spin_arrays() if name == "spin" else human_arrays(COCO_MASK, smpl=None, meta=None)
        key = data.draw(st.sampled_from(sorted(arrays)))
        arrays[key] = hostile_array(data.draw, np.asarray(arrays[key]))
        write_npz(path, arrays)
    check_refusal_or_people(path, samples[name].parent / "p", name)


_JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3)
    ),
    max_leaves=5,
)


@settings(max_examples=100)
@given(data=st.data())
def test_any_damage_to_an_mmpose_file(data, samples, tmp_path_factory):
    document: Any = {
        "meta_info": meta_info(keypoint_set("coco17").names),
        "instance_info": [{"frame_id": 1, "instances": [instance(), instance()]}],
    }
    frame = document["instance_info"][0]
    places: list[tuple[Any, Any]] = [(document, key) for key in document]
    places += [(document["meta_info"], "keypoint_id2name"), (frame, "instances")]
    places += [(frame["instances"], 1), (frame["instances"][1]["keypoints"], 3)]
    places += [(frame["instances"][1], key) for key in ("keypoints", "keypoint_scores")]
    holder, key = data.draw(st.sampled_from(places))
    holder[key] = data.draw(_JSON_VALUES)
    folder = tmp_path_factory.mktemp("mmpose")
    images = make_pictures(folder / "p", "a.jpg")
    check_refusal_or_people(write(folder / "a.json", document), images, "mmpose")


def test_arrays_that_lie_about_their_size(tmp_path):
    """A header that claims more than the machine has is refused, not allocated."""
    array = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": (10**6, 24, 3)}
    np.lib.format.write_array_header_1_0(array, header)
    path = write_npz(tmp_path / "a.npz", spin_arrays(part=None))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("part.npy", array.getvalue() + b"\0" * 100)
    with pytest.raises(InputError, match=r"cannot be read as \.npz"):
        read_people(path, images=tmp_path)
