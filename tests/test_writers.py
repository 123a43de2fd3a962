"""Fits in other programs' formats: read back by our readers, and by the libraries that own them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import roma
import torch
from fits import fit_columns
from hypothesis import given, settings
from hypothesis import strategies as st

from fitting.camera import project_points
from fitting.files import InputError
from fitting.people import People
from fitting.readers import read_people
from fitting.skeleton import KEYPOINT_SETS, convert_keypoints, keypoint_set
from fitting.table import FitsTable, build_fits, write_fits
from fitting.writers import write_amass, write_coco, write_eft, write_humandata, write_spin
from priors.mocap import load_mocap


def table_of(set_name: str, N: int = 4, seed: int = 0, **changes: Any) -> FitsTable:
    """Fits of N people with random keypoints of a set, some unseen; the second has no fit."""
    rng = np.random.default_rng(seed)
    P = len(keypoint_set(set_name))
    keypoints = rng.uniform(-50, 700, (N, P, 3)).astype(np.float32)
    conf = rng.uniform(0.01, 1, (N, P)) * (rng.random((N, P)) > 0.2)
    keypoints[..., 2] = conf
    keypoints[..., :2] *= conf[..., None] > 0  # as `check_rows` leaves them
    columns = fit_columns(N) | {
        "keypoint_set": np.full(N, set_name),
        "keypoints_2d": keypoints.reshape(N, 3 * P),
        "image": np.array([f"sub/{n // 2}.jpg" for n in range(N)], dtype=np.str_),
        "person": np.arange(N) % 2,
        "annotation_id": 100 + np.arange(N),
        "fx": rng.uniform(500, 2000, N),
    }
    for name in ("global_orient", "body_pose", "betas", "transl"):
        columns[name] = np.array(columns[name], dtype=float)
        columns[name][1:2] = np.nan
    columns["fy"] = columns["fx"]
    return build_fits(columns | changes, {})


def keypoints_of(table: FitsTable) -> np.ndarray:
    if len(table) == 0:
        return np.zeros((0, 49, 3))
    P = len(keypoint_set(str(table.column_array("keypoint_set")[0])))
    return table.column_array("keypoints_2d").reshape(len(table), P, 3)


def check_same_people(people: People, table: FitsTable) -> None:
    """What was read is the fitted rows of the table, exactly."""
    fitted = table.select(table.has_parameters)
    np.testing.assert_array_equal(people.image, fitted.column_array("image"))
    np.testing.assert_array_equal(people.width, fitted.column_array("width"))
    np.testing.assert_array_equal(people.height, fitted.column_array("height"))
    np.testing.assert_array_equal(people.focal, fitted.column_array("fx"))


# --- SPIN ---


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), N=st.integers(0, 5))
def test_spin_round_trip(tmp_path_factory, seed, N):
    table = table_of("spin49", N, seed)
    path = tmp_path_factory.mktemp("spin") / "a.npz"
    fitted = table.select(table.has_parameters)
    assert write_spin(path, table) == len(fitted)
    people, problems = read_people(path)
    assert problems == []
    check_same_people(people, table)
    np.testing.assert_array_equal(people.keypoints_2d, keypoints_of(fitted)[..., :2])
    np.testing.assert_array_equal(people.conf, keypoints_of(fitted)[..., 2])


def test_spin_as_its_data_loader_reads_it(tmp_path):
    """`BaseDataset` of SPIN: these names, shapes and units, and nothing pickled."""
    table = table_of("coco17")
    write_spin(tmp_path / "a.npz", table)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        data = dict(file)
    fitted = table.select(table.has_parameters)
    assert data["imgname"].tolist() == ["sub/0.jpg", "sub/1.jpg", "sub/1.jpg"]
    np.testing.assert_array_equal(data["pose"][:, :3], fitted.column_array("global_orient"))
    np.testing.assert_array_equal(data["pose"][:, 3:], fitted.column_array("body_pose"))
    np.testing.assert_array_equal(data["shape"], fitted.column_array("betas"))
    assert data["has_smpl"].tolist() == [1, 1, 1]
    keypoints = keypoints_of(fitted)
    wrist = keypoint_set("coco17").index("right_wrist")
    np.testing.assert_array_equal(data["part"][:, 6], keypoints[:, wrist])  # constants.py's order
    np.testing.assert_array_equal(data["openpose"][:, 4], keypoints[:, wrist])
    for row, own in enumerate(keypoints):  # the crop holds everyone seen, at 200 pixels a unit
        seen = own[own[:, 2] > 0, :2]
        half = 100 * data["scale"][row]
        assert (np.abs(seen - data["center"][row]) <= half).all()
        side = 200 * data["scale"][row] / 1.2
        np.testing.assert_allclose(side, np.ptp(seen, axis=0).max(), rtol=1e-5)


# --- HumanData ---

CONVERTIBLE = ("coco17", "coco_wholebody", "lsp14", "mpii16", "body25", "smpl24", "spin49")


@pytest.mark.parametrize("name", CONVERTIBLE)
@settings(max_examples=8)
@given(seed=st.integers(0, 2**32 - 1))
def test_humandata_round_trip(name, tmp_path_factory, seed):
    table = table_of(name, 4, seed)
    path = tmp_path_factory.mktemp("humandata") / "a.npz"
    assert write_humandata(path, table) == 3
    people, problems = read_people(path)
    assert (people.keypoint_set, problems) == (name, [])
    check_same_people(people, table)
    fitted = keypoints_of(table.select(table.has_parameters))
    np.testing.assert_array_equal(people.keypoints_2d, fitted[..., :2])
    np.testing.assert_array_equal(people.conf, fitted[..., 2])


@pytest.mark.parametrize(
    ("name", "becomes"),
    [("blazepose33", "coco_wholebody"), ("h36m17", "smpl24"), ("body25b", "spin49")],
)
def test_humandata_of_sets_it_has_no_place_for(tmp_path, name, becomes):
    table = table_of(name)
    write_humandata(tmp_path / "a.npz", table)
    people, _ = read_people(tmp_path / "a.npz")
    assert people.keypoint_set == becomes
    fitted = keypoints_of(table.select(table.has_parameters))
    s, target = keypoint_set(name), keypoint_set(becomes)
    xy, conf = convert_keypoints(fitted[..., :2], fitted[..., 2], s, target)
    np.testing.assert_array_equal(people.conf, conf)
    seen = conf > 0
    np.testing.assert_array_equal(people.keypoints_2d[seen], xy[seen])


def test_humandata_as_mmhuman3d_reads_it(tmp_path):
    """Its keys, shapes and types; the lines of docs/formats.md make its dictionary."""
    table = table_of("coco17")
    write_humandata(tmp_path / "a.npz", table)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        data = {key: value.item() if value.ndim == 0 else value for key, value in file.items()}
    assert (data["__temporal_len__"], data["__keypoints_compressed__"]) == (3, False)
    assert data["bbox_xywh"].shape == (3, 5)
    assert data["keypoints2d"].shape == (3, 190, 3)
    assert data["keypoints2d_mask"].sum() == 17
    names = ("global_orient", "body_pose", "betas", "transl")
    data["smpl"] = {name: data.pop(f"smpl_{name}") for name in names}
    fitted = table.select(table.has_parameters)
    assert {n: v.shape[1:] for n, v in data["smpl"].items()} == {
        "global_orient": (3,), "body_pose": (23, 3), "betas": (10,), "transl": (3,),
    }  # fmt: skip
    pose = data["smpl"]["body_pose"].reshape(3, 69)
    np.testing.assert_array_equal(pose, fitted.column_array("body_pose"))
    assert [key for key in data if key.startswith("smpl_")] == []


# --- EFT ---


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), N=st.integers(0, 4))
def test_eft_holds_the_fits(tmp_path_factory, seed, N):
    table = table_of("coco17", N, seed)
    path = tmp_path_factory.mktemp("eft") / "a.json"
    fitted = table.select(table.has_parameters)
    assert write_eft(path, table) == len(fitted)
    document = json.loads(path.read_text())
    assert len(document["data"]) == len(fitted)
    for row, person in enumerate(document["data"]):
        vectors = np.array([cv2.Rodrigues(np.array(R))[0][:, 0] for R in person["parm_pose"]])
        np.testing.assert_allclose(vectors[0], fitted.column_array("global_orient")[row], atol=1e-6)
        np.testing.assert_allclose(
            vectors[1:].ravel(), fitted.column_array("body_pose")[row], atol=1e-6
        )
        assert person["parm_shape"] == fitted.column_array("betas")[row].tolist()
        assert person["imageName"] == fitted.column_array("image")[row]
        assert person["annotId"] == fitted.column_array("annotation_id")[row]
        assert np.shape(person["gt_keypoint_2d"]) == (49, 3)
        assert len(person["joint_validity_openpose18"]) == 18
        nose = keypoints_of(fitted)[row, 0, 2] > 0
        assert person["joint_validity_openpose18"][0] == nose


def test_eft_weak_camera_shows_the_body_where_it_is_seen(tmp_path):
    """EFT's own drawing: x_crop = s (X + t), 112 pixels to one, in a crop of 200 scale pixels."""
    table = table_of("coco17", transl=np.tile([0.4, -0.3, 500.0], (4, 1)),
                     **{n: v for n, v in fit_columns(4).items() if n in
                        ("global_orient", "body_pose", "betas")})  # fmt: skip
    write_eft(tmp_path / "a.json", table)
    points = torch.tensor([[0.1, 0.2, 0.0], [-0.5, 0.9, 0.0]])
    for row, person in enumerate(json.loads((tmp_path / "a.json").read_text())["data"]):
        scale, *shift = person["parm_cam"]
        in_crop = scale * (points[:, :2].numpy() + shift)  # [-1, 1]
        drawn = np.array(person["bbox_center"]) + in_crop * 100 * person["bbox_scale"]
        transl = torch.from_numpy(table.column_array("transl")[row])
        expected, _ = project_points(points + transl, torch.from_numpy(table.intrinsics[row]))
        np.testing.assert_allclose(drawn, expected, atol=0.05)  # depth is 0 m of 500: hardly any


def test_eft_needs_a_camera(tmp_path):
    with pytest.raises(InputError, match="fitted person 1 has no camera"):
        write_eft(tmp_path / "a.json", table_of("coco17", fx=np.array([9, 9, np.nan, 9])))


# --- AMASS ---


def read_motion(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def test_amass_shows_the_same_body_with_z_up(tmp_path, body):
    """The body of the file's parameters is the fitted one, its axes exchanged."""
    table = table_of("coco17", track=np.array([7, 7, -1, 7]))
    people, files = write_amass(tmp_path / "out", table, body, fps=25)
    assert (people, files) == (3, 2)
    paths = sorted((tmp_path / "out").iterdir())
    assert [p.name for p in paths] == ["000002_1_0.npz", "track_000007.npz"]
    single = read_motion(paths[0])
    assert (single["poses"].shape, single["trans"].shape) == ((1, 156), (1, 3))
    assert (single["betas"].shape, float(single["mocap_framerate"])) == ((16,), 25)
    assert str(single["gender"]) == "neutral"

    def posed(orient: np.ndarray, pose: np.ndarray, betas: np.ndarray, transl: np.ndarray) -> Any:
        pose = np.concatenate([pose[:63], np.zeros(6)])  # SMPL-H has no such hands
        arrays = [torch.as_tensor(np.asarray(a, np.float32))[None] for a in
                  (orient, pose, betas, transl)]  # fmt: skip
        return body(*arrays).vertices[0].numpy()

    columns = [table.column_array(n)[2] for n in ("global_orient", "body_pose", "betas", "transl")]
    x, y, z = posed(*columns).T
    found = posed(single["poses"][0, :3], single["poses"][0, 3:], single["betas"][:10],
                  single["trans"][0])  # fmt: skip
    np.testing.assert_allclose(found, np.stack([x, z, -y], axis=1), atol=2e-6)


def test_amass_motion_is_in_the_order_of_the_pictures(tmp_path, body):
    betas = np.tile(fit_columns(1)["betas"], (3, 1))
    columns = fit_columns(3) | {"image": np.array(["f10.jpg", "f2.jpg", "f3.jpg"]), "betas": betas}
    table = build_fits(columns | {"track": np.zeros(3, int)}, {})
    write_amass(tmp_path, table, body)
    motion = read_motion(tmp_path / "track_000000.npz")
    assert motion["frame"].tolist() == [2, 3, 10]
    poses = table.column_array("body_pose")[[1, 2, 0], :63]
    np.testing.assert_allclose(motion["poses"][:, 3:66], poses, atol=1e-12)
    np.testing.assert_allclose(motion["betas"][:10], betas[0], rtol=1e-6)
    read = load_mocap(tmp_path / "track_000000.npz")  # our own reader of AMASS
    np.testing.assert_allclose(read.rotvec[:, 1:22].reshape(3, 63), poses, atol=1e-12)
    turned = roma.rotvec_to_rotmat(torch.from_numpy(motion["poses"][:, :3])).numpy()
    before = roma.rotvec_to_rotmat(torch.from_numpy(columns["global_orient"][[1, 2, 0]])).numpy()
    np.testing.assert_allclose(turned, [[[1, 0, 0], [0, 0, 1], [0, -1, 0]]] @ before, atol=1e-6)


# --- COCO ---


def test_coco_is_read_by_its_own_library(tmp_path, rng):
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    table = table_of("coco17")
    keypoints = keypoints_of(table)
    people = People(
        keypoint_set="coco17",
        image=table.column_array("image"),
        person=table.column_array("person"),
        annotation_id=table.column_array("annotation_id"),
        width=table.column_array("width"),
        height=table.column_array("height"),
        keypoints_2d=keypoints[..., :2],
        conf=keypoints[..., 2],
        focal=np.full(4, np.nan),
    )
    write_coco(tmp_path / "a.json", people)
    read = coco.COCO(str(tmp_path / "a.json"))
    assert read.loadCats(read.getCatIds(catNms=["person"]))[0]["keypoints"][0] == "nose"
    for row, annotation_id in enumerate(people.annotation_id.tolist()):
        (annotation,) = read.loadAnns([annotation_id])
        (image,) = read.loadImgs([annotation["image_id"]])
        assert image["file_name"] == people.image[row]
        found = np.reshape(annotation["keypoints"], (17, 3))
        np.testing.assert_allclose(found, keypoints[row], atol=6e-4)  # three decimals
        assert annotation["num_keypoints"] == (keypoints[row, :, 2] > 0).sum()
    again, problems = read_people(tmp_path / "a.json")
    assert problems == []
    np.testing.assert_allclose(again.keypoints_2d, people.keypoints_2d, atol=6e-4)


# --- the command ---


@pytest.fixture
def fits_file(tmp_path) -> Path:
    write_fits(tmp_path / "fits.parquet", table_of("coco17"))
    return tmp_path / "fits.parquet"


@pytest.mark.parametrize("target", ["spin", "humandata"])
def test_export_writes_one_file(fit_cli, fits_file, tmp_path, target):
    code, said, _ = fit_cli("export", fits_file, "--to", target, "-o", tmp_path / "out.npz")
    assert code == 0
    assert "3 people" in said
    assert "1 without a fit left out" in said
    assert len(read_people(tmp_path / "out.npz")[0]) == 3
    code, _, err = fit_cli("export", fits_file, "--to", target, "-o", tmp_path)
    assert code == 2
    assert "is a folder; name the file" in err


def test_export_eft_and_amass(fit_cli, fits_file, tmp_path):
    code, said, _ = fit_cli("export", fits_file, "--to", "eft", "-o", tmp_path / "eft.json")
    assert (code, "3 people" in said) == (0, True)
    code, said, _ = fit_cli("export", fits_file, "--to", "amass", "-o", tmp_path / "a", "--fps", 50)
    assert (code, "3 people in 3 motions" in said) == (0, True)
    assert float(read_motion(tmp_path / "a" / "000002_1_0.npz")["mocap_framerate"]) == 50
    code, _, err = fit_cli("export", fits_file, "--to", "amass", "-o", fits_file)
    assert (code, "is a file; name a folder" in err) == (2, True)
    code, _, err = fit_cli("export", fits_file, "--to", "amass", "-o", tmp_path / "a", "--fps", 0)
    assert code == 2
    assert "fps must be a positive number" in err


def test_the_command_and_the_writer_agree_on_the_rate():
    from cli.export import _FPS
    from fitting.tracks import DEFAULT_FPS

    assert _FPS == DEFAULT_FPS


def test_every_set_can_be_written(tmp_path):
    for name in KEYPOINT_SETS:
        table = table_of(name)
        assert write_spin(tmp_path / "a.npz", table) == 3
        assert write_humandata(tmp_path / "b.npz", table) == 3
        assert write_eft(tmp_path / "c.json", table) == 3
