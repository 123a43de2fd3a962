"""The commands as a user meets them: outputs, exit codes and one-sentence errors."""

from __future__ import annotations

import errno
import json
import os
import pickle
import re
import subprocess
import sys

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from bodies import synthetic_arrays, write_body
from PIL import Image

from fitting.body import load_body
from fitting.camera import make_intrinsics, project_points
from fitting.detector import Detection
from fitting.estimates import ESTIMATE_POSE_STD
from fitting.keypoints import map_keypoints
from fitting.map_fit import LmConfig, Stage
from fitting.offline import SOLVERS
from fitting.skeleton import keypoint_set
from fitting.smplify import AdamConfig, LbfgsConfig
from fitting.solver import LbfgsOptions
from fitting.table import FITS_SCHEMA, read_fits

WIDTH, HEIGHT = 160, 200


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """The commands' wiring is tested here, so few steps do; the solvers have their own tests."""
    monkeypatch.setitem(
        SOLVERS, "lm", lambda: LmConfig(stages=(Stage(steps=2, blur=8), Stage(steps=2)))
    )
    monkeypatch.setitem(SOLVERS, "adam", lambda: AdamConfig(num_steps=4))
    monkeypatch.setitem(SOLVERS, "lbfgs", lambda: LbfgsConfig(options=LbfgsOptions(max_steps=2)))


@pytest.fixture(scope="module")
def keypoints():
    """(2, 17, 3) of two people in the mean pose, one nearer than the other."""
    body, s = load_body(), keypoint_set("coco17")
    orient = torch.tensor([[torch.pi, 0.0, 0.0]]).expand(2, 3)
    transl = torch.tensor([[-0.4, 0.0, 3.2], [0.5, 0.1, 4.0]])
    with torch.no_grad():
        posed = body(orient, torch.zeros(2, 69), torch.zeros(2, 10), transl)
        K = make_intrinsics(torch.tensor([[WIDTH, HEIGHT]]).float().expand(2, 2))
        xy, _ = project_points(map_keypoints(body, s)(posed), K)
    return np.concatenate([xy.numpy(), np.full((2, 17, 1), 0.9)], axis=2)


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, name in enumerate(("a.jpg", "b.png")):
        image = np.full((HEIGHT, WIDTH, 3), 90 + 60 * i, np.uint8)
        cv2.imwrite(str(folder / name), image)
    return folder


def coco(points, names=("a.jpg", "b.png"), **changes):
    """A COCO document with one annotation per picture; `changes` edit the second annotation."""
    annotations = [
        {"id": 10 + i, "image_id": i, "category_id": 1, "keypoints": points[i % 2].ravel().tolist(),
         "num_keypoints": 17, "iscrowd": 0}
        for i in range(len(names))
    ]  # fmt: skip
    annotations[-1].update(changes)
    return {
        "images": [
            {"id": i, "file_name": name, "width": WIDTH, "height": HEIGHT}
            for i, name in enumerate(names)
        ],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person"}],
    }


def write(path, document):
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def run_record(folder):
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))


def test_fit_writes_table_record_pictures_and_page(fit_cli, keypoints, pictures, tmp_path):
    file, out = write(tmp_path / "k.json", coco(keypoints)), tmp_path / "out"
    code, said, _ = fit_cli(pictures, "--keypoints", file, "-o", out)
    assert code == 0
    assert "2 of 2 people fitted" in said
    table = pq.read_table(out / "fits.parquet")
    assert table.schema.equals(FITS_SCHEMA, check_metadata=False)
    assert table["image"].to_pylist() == ["a.jpg", "b.png"]
    assert table["annotation_id"].to_pylist() == [10, 11]
    assert set(table["status"].to_pylist()) <= {"converged", "max_steps"}
    assert np.stack(table["joint_std_mm"].to_pylist()).shape == (2, 24)
    record = run_record(out)
    assert set(record["seconds"]) == {"load", "detect", "init", "fit", "write"}
    assert record["counts"]["people"] == record["counts"]["fitted"] == 2
    assert read_fits(out).metadata["body_sha256"] == load_body().sha256
    settings = json.loads(read_fits(out).metadata["config"])["solver_settings"]
    assert [stage["steps"] for stage in settings["stages"]] == [2, 2]
    for name in ("overlays/a.jpg", "overlays/b.png.jpg", "people/000001_overlay.jpg"):
        assert cv2.imread(str(out / name)) is not None
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "a.jpg" in page
    assert "people/000000_side.jpg" in page


def test_a_body_is_where_its_keypoints_are(fit_cli, keypoints, pictures, tmp_path, monkeypatch):
    """The written parameters, posed and projected again, give the error that the table states."""
    monkeypatch.setitem(SOLVERS, "lm", LmConfig)
    file, out = write(tmp_path / "k.json", coco(keypoints)), tmp_path / "out"
    fit_cli(pictures, "--keypoints", file, "-o", out, "--no-overlays", "--no-report")
    table = read_fits(out)
    arrays = [
        torch.from_numpy(table.column_array(n))
        for n in ("global_orient", "body_pose", "betas", "transl")
    ]
    camera = [table.column_array(n) for n in ("fx", "fy", "cx", "cy")]
    body = load_body()
    points = map_keypoints(body, keypoint_set("coco17"))(body(*arrays)).numpy()
    for i in range(2):
        fx, fy, cx, cy = (float(c[i]) for c in camera)
        K = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
        xy, _ = cv2.projectPoints(points[i].astype(float), np.zeros(3), np.zeros(3), K, None)
        error = np.linalg.norm(xy[:, 0] - keypoints[i, :, :2], axis=1).mean()
        assert error == pytest.approx(table.column_array("reprojection_error_px")[i], rel=1e-3)
        assert error < 4


def test_same_seed_gives_the_same_bits(fit_cli, keypoints, pictures, tmp_path):
    file = write(tmp_path / "k.json", coco(keypoints))
    for name in ("one", "two"):
        fit_cli(file, "-o", tmp_path / name, "--seed", 7)
    one, two = (pq.read_table(tmp_path / n / "fits.parquet") for n in ("one", "two"))
    assert one.equals(two)


def test_first_word_that_is_no_command_is_the_input(fit_cli, keypoints, tmp_path):
    file = write(tmp_path / "k.json", coco(keypoints))
    code, said, _ = fit_cli(file, "-o", tmp_path / "out", "--solver", "lbfgs", "--limit", 1)
    assert code == 0
    assert "1 of 1 people fitted" in said
    assert not (tmp_path / "out" / "overlays").exists()  # no pictures were given


def test_one_picture_with_keypoints_of_many(fit_cli, keypoints, pictures, tmp_path):
    file = write(tmp_path / "k.json", coco(keypoints))
    code, said, _ = fit_cli(pictures / "b.png", "--keypoints", file, "-o", tmp_path / "out")
    assert code == 0
    assert "1 of 1 people fitted" in said
    assert read_fits(tmp_path / "out").column_array("annotation_id").tolist() == [11]
    (pictures / "c.png").write_bytes((pictures / "b.png").read_bytes())
    refuse(
        fit_cli, pictures / "c.png", "--keypoints", file, "-o", tmp_path / "o2", match="nobody in c"
    )


@pytest.mark.parametrize("solver", ["lm", "adam", "lbfgs"])
def test_fits_are_refined_from_a_fits_table(solver, fit_cli, keypoints, tmp_path, monkeypatch):
    """Of the first person only; the other one starts from the lifter."""
    monkeypatch.setitem(SOLVERS, "lm", LmConfig)
    file = write(tmp_path / "k.json", coco(keypoints))
    first, second = tmp_path / "first", tmp_path / "second"
    fit_cli(file, "-o", first, "--init", "mean", "--limit", 1, "--no-report")
    code, _, _ = fit_cli(file, "--init", first, "--solver", solver, "-o", second)
    assert code == 0
    before, after = read_fits(first), read_fits(second)
    assert after.column_array("init").tolist() == ["given", "lift"]
    assert before.column_array("init").tolist() == ["mean"]
    if solver == "lm":  # the others are given a few steps only
        assert after.column_array("reprojection_error_px").max() < 4
        costs = [table.column_array("cost_final")[0] for table in (before, after)]
        assert costs[1] <= 1.0001 * costs[0]  # no farther from itself, nor from the keypoints
    record = run_record(second)
    assert record["counts"]["without_estimate"] == 1
    assert record["command"]["starts"] == 1
    assert record["command"]["proximal_std"] == (ESTIMATE_POSE_STD if solver == "lm" else None)
    assert record["command"]["init"] == str(first)


@pytest.mark.parametrize("solver", ["lm", "adam"])
def test_poses_of_a_regressor_are_refined(solver, fit_cli, keypoints, tmp_path):
    """Given in another order, with names of pictures as SPIN writes them."""
    pose = np.zeros((2, 72))
    pose[:, 0] = np.pi
    spin = {"pose": pose, "betas": np.zeros((2, 10)), "imgname": ["images/b.png", "images/a.jpg"]}
    np.savez(tmp_path / "spin.npz", **spin)
    file, out = write(tmp_path / "k.json", coco(keypoints)), tmp_path / "out"
    options = ["--init", tmp_path / "spin.npz", "--solver", solver]
    options += ["--proximal-std", 0.01, "--starts", 3] if solver == "lm" else []
    code, _, err = fit_cli(file, *options, "-o", out)
    assert code == 0, err
    table = read_fits(out)
    assert table.column_array("init").tolist() == ["given"] * 2
    assert run_record(out)["counts"]["without_estimate"] == 0
    if solver == "lm":  # the poses given are the true ones, and the fits stay near them
        assert np.abs(table.column_array("body_pose")).max() < 0.05
        assert table.column_array("reprojection_error_px").max() < 1
        depths = table.column_array("transl")[:, 2]
        np.testing.assert_allclose(depths, [3.2, 4.0], rtol=0.02)
        assert run_record(out)["command"]["starts"] == 3
    code, _, _ = fit_cli(file, *options, "-o", tmp_path / "one", "--limit", 1)
    assert code == 0
    one = read_fits(tmp_path / "one")
    assert one.column_array("init").tolist() == ["given"]


def test_help_states_the_deviation_used(fit_cli):
    _, said, _ = fit_cli("fit", "--help")
    assert f"[default: {ESTIMATE_POSE_STD}]" in " ".join(said.split())


def test_unusable_estimates_are_refused(fit_cli, keypoints, tmp_path):
    file, out = write(tmp_path / "k.json", coco(keypoints)), tmp_path / "out"
    refuse(fit_cli, file, "-o", out, "--init", tmp_path / "no.npz", match="no.npz does not exist")
    refuse(fit_cli, file, "-o", out, "--proximal-std", 0.2, match="give them with --init")
    np.savez(tmp_path / "few.npz", pose=np.zeros((1, 72)), betas=np.zeros((1, 10)))
    assert not out.exists()
    refuse(fit_cli, file, "-o", out, "--init", tmp_path / "few.npz", match="1 estimates for 2")
    refuse_starts = fit_cli(file, "-o", out, "--starts", 19)
    assert refuse_starts[0] == 2
    assert "19" in refuse_starts[2]


def test_more_starts_are_tried(fit_cli, keypoints, tmp_path, monkeypatch):
    monkeypatch.setitem(SOLVERS, "lm", LmConfig)
    file = write(tmp_path / "k.json", coco(keypoints))
    for starts in (1, 2, 18):
        options = ["--init", "mean", "--starts", starts, "--no-report"]
        fit_cli(file, "-o", tmp_path / str(starts), *options)
    fit_cli(file, "-o", tmp_path / "usual", "--init", "mean", "--no-report")
    assert run_record(tmp_path / "18")["command"]["starts"] == 18
    assert run_record(tmp_path / "usual")["command"]["starts"] == 2
    tables = {n: read_fits(tmp_path / n) for n in ("1", "2", "18", "usual")}
    pose = {n: table.column_array("body_pose") for n, table in tables.items()}
    assert np.array_equal(pose["usual"], pose["2"])
    costs = {n: table.column_array("cost_final") for n, table in tables.items()}
    assert (costs["18"] <= costs["1"] * 1.001).all()
    assert json.loads(tables["18"].metadata["config"])["starts"] == 18


def test_people_without_keypoints_keep_their_row(fit_cli, keypoints, pictures, tmp_path):
    file = write(tmp_path / "k.json", coco(keypoints, keypoints=[0] * 51, num_keypoints=0))
    code, said, _ = fit_cli(pictures, "--keypoints", file, "-o", tmp_path / "out")
    assert code == 0
    assert "1 of 2 people fitted" in said
    table = pq.read_table(tmp_path / "out" / "fits.parquet")
    assert table["status"].to_pylist()[1] == "no_keypoints"
    assert [p is None for p in table["betas"].to_pylist()] == [False, True]


def with_value(keypoints, index, value):
    changed = keypoints[1].ravel().tolist()
    changed[index] = value
    return {"keypoints": changed}


BAD_ROWS = {
    "NaN": lambda k: with_value(k, 0, float("nan")),
    "infinite": lambda k: with_value(k, 1, float("inf")),
    r"outside \[0, 1\]": lambda k: with_value(k, 2, -0.5),
    r"NaN or outside": lambda k: with_value(k, 2, 1.5),
    "3 x 17": lambda k: {"keypoints": [1.0] * 30},
    r"\b10\b": lambda k: {"id": 10},
    "image_id 77": lambda k: {"image_id": 77},
}


@pytest.mark.parametrize("reason", BAD_ROWS)
def test_a_bad_row_is_named_and_the_others_are_fitted(reason, fit_cli, keypoints, tmp_path):
    document = coco(keypoints, names=("a.jpg", "b.png", "c.jpg"), **BAD_ROWS[reason](keypoints))
    file = write(tmp_path / "k.json", document)
    code, _, err = fit_cli(file, "-o", tmp_path / "out")
    assert code == 1
    assert len(read_fits(tmp_path / "out")) == 2
    (problem,) = run_record(tmp_path / "out")["problems"]
    assert problem["row"] == 2
    assert "k.json" in problem["file"]
    assert re.search(reason, problem["reason"])
    assert problem["reason"] in err


def test_a_file_of_bad_rows_only_leaves_an_empty_table(fit_cli, keypoints, tmp_path):
    bad = coco(keypoints, names=("a.jpg",), **with_value(keypoints, 2, 1.5))
    for name, document in (("bad", bad), ("none", {**bad, "annotations": []})):
        file, out = write(tmp_path / f"{name}.json", document), tmp_path / name
        code, said, _ = fit_cli(file, "-o", out)
        assert code == (1 if name == "bad" else 0)
        assert "0 of 0 people fitted" in said
        assert len(read_fits(out)) == 0
        assert (out / "report.html").is_file()


def test_an_absent_picture_is_named_and_its_people_are_fitted(
    fit_cli, keypoints, pictures, tmp_path
):
    file = write(tmp_path / "k.json", coco(keypoints, names=("a.jpg", "gone.jpg")))
    code, _, err = fit_cli(pictures, "--keypoints", file, "-o", tmp_path / "out")
    assert code == 1
    assert "gone.jpg" in err
    assert run_record(tmp_path / "out")["counts"]["fitted"] == 2
    assert (tmp_path / "out" / "people" / "000001_overlay.jpg").is_file()


class OnePerson:
    """A detector that finds somebody in all pictures but small ones."""

    keypoint_set = "coco17"

    def __call__(self, image):
        if image.shape[0] < 100:
            return []
        xy = np.random.default_rng(0).uniform(20, 150, (17, 2))
        return [Detection(keypoints_2d=xy, conf=np.full(17, 0.9), score=0.9)]


def test_pictures_that_cannot_be_read_are_named(fit_cli, pictures, tmp_path, monkeypatch):
    """Zero bytes, no picture, 1 x 1 and far too large, beside one with a detected person."""
    (pictures / "empty.jpg").touch()
    (pictures / "text.jpg").write_text("no picture")
    Image.new("1", (20_000, 20_000)).save(pictures / "huge.png")
    Image.new("RGB", (1, 1)).save(pictures / "tiny.png")

    monkeypatch.setattr("fitting.sources.load_detector", lambda name: OnePerson())
    code, _, err = fit_cli(pictures, "-o", tmp_path / "out")
    assert code == 1
    record = run_record(tmp_path / "out")
    assert {p["file"] for p in record["problems"]} == {"empty.jpg", "text.jpg", "huge.png"}
    assert "too many pixels" in err
    assert record["pictures_without_people"] == ["tiny.png"]
    assert record["counts"]["fitted"] == 2
    assert err.count("fit-cli:") == 3


def test_pictures_without_people_are_named_or_counted(fit_cli, pictures, tmp_path, monkeypatch):
    (pictures / "b.png").unlink()
    for i in range(22):
        Image.new("RGB", (40, 30)).save(pictures / f"empty{i:02}.png")
    monkeypatch.setattr("fitting.detector.load_detector", lambda name: OnePerson())
    code, said, err = fit_cli("detect", pictures, "-o", tmp_path / "k.json", "--quiet")
    assert code == 0
    assert said == f"1 person in 23 pictures -> {tmp_path / 'k.json'}\n"
    *named, last = err.splitlines()
    assert named == [f"fit-cli: empty{i:02}.png: no person found" for i in range(20)]
    assert last == "fit-cli: and 2 more without people, which --json names"


def refuse(fit_cli, *args, match):
    """The command ends with exit code 2 and one sentence."""
    code, _, err = fit_cli(*args)
    assert code == 2
    assert match in err
    assert err.strip().count("\n") == 0, err
    return err


def test_unusable_inputs_are_refused_in_one_sentence(fit_cli, keypoints, pictures, tmp_path):
    out = tmp_path / "out"
    empty = tmp_path / "empty"
    empty.mkdir()
    refuse(fit_cli, tmp_path / "absent", "-o", out, match="absent: no such file or folder")
    assert not out.exists()
    refuse(fit_cli, empty, "-o", out, "--overwrite", match="empty")
    refuse(
        fit_cli,
        pictures,
        "--keypoints",
        tmp_path / "no.json",
        "-o",
        out,
        "--overwrite",
        match="no.json",
    )
    (tmp_path / "bad.json").write_text("{")
    refuse(fit_cli, tmp_path / "bad.json", "-o", out, "--overwrite", match="bad.json")
    file = write(tmp_path / "k.json", coco(keypoints, names=("x.jpg", "y.jpg")))
    refuse(fit_cli, pictures, "--keypoints", file, "-o", out, "--overwrite", match="none of the 2")
    assert not (out / "fits.parquet").exists()


def test_unusable_bodies_are_refused(fit_cli, keypoints, tmp_path):
    file = write(tmp_path / "k.json", coco(keypoints))
    arrays = synthetic_arrays()
    arrays.pop("weights")
    body = write_body(tmp_path / "body.npz", arrays)
    refuse(fit_cli, file, "-o", tmp_path / "out", "--body", body, match="weights missing")
    shaped = write_body(tmp_path / "b2.npz", {**synthetic_arrays(), "posedirs": np.zeros((3, 3))})
    refuse(fit_cli, file, "-o", tmp_path / "o2", "--body", shaped, match="posedirs must be")


class Bomb:
    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


def test_a_hostile_body_runs_nothing(fit_cli, keypoints, tmp_path):
    file, body = write(tmp_path / "k.json", coco(keypoints)), tmp_path / "body.pkl"
    body.write_bytes(pickle.dumps({**synthetic_arrays(), "extra": Bomb(tmp_path / "ran")}))
    refuse(fit_cli, file, "-o", tmp_path / "out", "--body", body, match="refused")
    assert not (tmp_path / "out").exists()
    refuse(fit_cli, "body", "info", body, match="refused")
    assert not (tmp_path / "ran").exists()


def test_an_existing_output_is_kept_unless_told_otherwise(fit_cli, keypoints, tmp_path):
    file, out = write(tmp_path / "k.json", coco(keypoints)), tmp_path / "out"
    fit_cli(file, "-o", out)
    before = (out / "fits.parquet").read_bytes()
    refuse(fit_cli, file, "-o", out, "--seed", 1, match="--overwrite")
    assert (out / "fits.parquet").read_bytes() == before
    code, _, _ = fit_cli(file, "-o", out, "--overwrite", "--limit", 1)
    assert code == 0
    assert len(read_fits(out)) == 1


def test_an_output_that_cannot_be_written_is_named(fit_cli, keypoints, tmp_path):
    file = write(tmp_path / "k.json", coco(keypoints))
    (tmp_path / "taken").write_text("")
    refuse(fit_cli, file, "-o", tmp_path / "taken" / "out", match="taken")


def test_a_full_disk_leaves_nothing_half_written(fit_cli, keypoints, tmp_path, monkeypatch):
    def full(table, stream, *args, **kwargs):
        stream.write(b"PAR1 half a table")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    file, out = write(tmp_path / "k.json", coco(keypoints)), tmp_path / "out"
    refuse(fit_cli, file, "-o", out, match="disk is full")
    assert list(out.iterdir()) == []


def test_hostile_names_reach_the_page_as_text(fit_cli, keypoints, tmp_path):
    name = "<script>alert(1)</script>.jpg"
    folder = tmp_path / "pictures"
    folder.mkdir()
    for path in ("a.jpg", name.replace("/", "_")):
        cv2.imwrite(str(folder / path), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    file = write(tmp_path / "k.json", coco(keypoints, names=("a.jpg", name.replace("/", "_"))))
    fit_cli(folder, "--keypoints", file, "-o", tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page


def test_a_name_that_climbs_out_of_its_folder_is_refused(fit_cli, keypoints, pictures, tmp_path):
    file = write(tmp_path / "k.json", coco(keypoints, names=("a.jpg", "../../etc/passwd")))
    code, _, _ = fit_cli(pictures, "--keypoints", file, "-o", tmp_path / "out")
    assert code == 1
    assert len(read_fits(tmp_path / "out")) == 1


@pytest.mark.parametrize("suffix", ["obj", "ply", "glb"])
def test_export_and_evaluate(suffix, fit_cli, keypoints, tmp_path):
    import trimesh

    file, out = write(tmp_path / "k.json", coco(keypoints)), tmp_path / "out"
    fit_cli(file, "-o", out)
    code, said, _ = fit_cli("export", out, "--to", suffix, "-o", tmp_path / "meshes")
    assert code == 0
    assert "2 meshes" in said
    mesh = trimesh.load(tmp_path / "meshes" / f"000001_b_0.{suffix}", force="mesh", process=False)
    body, table = load_body(), read_fits(out)
    params = [
        torch.from_numpy(table.column_array(n))
        for n in ("global_orient", "body_pose", "betas", "transl")
    ]
    expected = body(*params).vertices[1].numpy() * [1, -1, -1]  # y up, as viewers expect
    np.testing.assert_allclose(mesh.vertices, expected, atol=1e-5)
    code, said, _ = fit_cli("evaluate", out, out, "--json", tmp_path / "e.json")
    assert code == 0
    assert json.loads((tmp_path / "e.json").read_text())["smpl24"]["mpjpe_mm"] == 0


def test_one_is_not_many(fit_cli, keypoints, tmp_path):
    file, out = write(tmp_path / "k.json", coco(keypoints, names=("a.jpg",))), tmp_path / "out"
    fit_cli(file, "-o", out)
    for target, said in (("ply", "1 mesh"), ("amass", "1 person in 1 motion"), ("eft", "1 person")):
        place = tmp_path / target
        assert fit_cli("export", out, "--to", target, "-o", place)[1] == f"{said} -> {place}\n"


def test_fits_of_another_body_are_not_exported(fit_cli, keypoints, tmp_path):
    file, out = write(tmp_path / "k.json", coco(keypoints)), tmp_path / "out"
    other = write_body(tmp_path / "other.npz", synthetic_arrays())
    fit_cli(file, "-o", out, "--body", other)
    refuse(fit_cli, "export", out, "--to", "obj", "-o", tmp_path / "m", match="another body")
    code, _, _ = fit_cli("export", out, "--to", "obj", "-o", tmp_path / "m", "--body", other)
    assert code == 0


def test_body_info(fit_cli):
    code, said, _ = fit_cli("body", "info", "--json")
    assert code == 0
    facts = json.loads(said)
    assert facts["sha256"] == load_body().sha256
    assert facts["licence"] == "CC0-1.0"
    assert facts["vertices"] == load_body().num_vertices


def test_prior_fit_and_info(fit_cli, tmp_path, rng):
    poses = rng.normal(0, 0.2, (300, 72))
    np.savez(tmp_path / "poses.npz", poses=poses)
    prior = tmp_path / "prior.npz"
    code, said, _ = fit_cli("prior", "fit", tmp_path / "poses.npz", "-o", prior, "--components", 2)
    assert code == 0
    assert "2 components from 300 poses" in said
    code, said, _ = fit_cli("prior", "info", prior, "--mocap", tmp_path / "poses.npz")
    assert code == 0
    assert "components 2" in said
    refuse(fit_cli, "prior", "info", tmp_path / "absent.npz", match="absent.npz")


def test_a_mistyped_option_fails(fit_cli, tmp_path):
    code, _, err = fit_cli("fit", tmp_path, "-o", tmp_path / "o", "--solvr", "adam")
    assert code == 2
    assert "--solver" in err


def test_a_missing_gpu_is_named(fit_cli, keypoints, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    file = write(tmp_path / "k.json", coco(keypoints))
    refuse(fit_cli, file, "-o", tmp_path / "out", "--device", "cuda", match="no GPU")


def test_the_installed_command_runs(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", "from cli.main import main; main(['--version'])"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "fit-cli" in done.stdout


@pytest.mark.shared
@pytest.mark.parametrize(("solver", "limit"), [("adam", 0.08), ("lm", 0.03)])
def test_photographs_with_keypoints(solver, limit, fit_cli, shared, tmp_path, monkeypatch):
    """Real people: the fits lie on them, within a share of the longer side of their box."""
    monkeypatch.setitem(SOLVERS, "adam", AdamConfig)
    monkeypatch.setitem(SOLVERS, "lm", LmConfig)
    folder = shared / "data" / "coco_permissive"
    annotations = folder / "person_keypoints.json"
    code, said, _ = fit_cli(
        folder / "images", "--keypoints", annotations, "-o", tmp_path / "out", "--solver", solver
    )
    assert code == 0
    assert "43 of 88 people fitted" in said
    table = read_fits(tmp_path / "out")
    assert (table.column_array("status") == "no_keypoints").sum() == 45
    labels = {a["id"]: a for a in json.loads(annotations.read_text())["annotations"]}
    shares = [
        error / max(labels[i]["bbox"][2:])
        for i, error in zip(
            table.column_array("annotation_id"),
            table.column_array("reprojection_error_px"),
            strict=True,
        )
        if labels[i]["num_keypoints"] >= 10
    ]
    assert len(shares) == 23
    assert np.mean(shares) < limit


@pytest.mark.shared
def test_photographs_without_keypoints(fit_cli, shared, tmp_path):
    code, _, _ = fit_cli(shared / "data" / "coco_permissive" / "images", "-o", tmp_path / "out")
    assert code == 0
    assert run_record(tmp_path / "out")["counts"]["fitted"] >= 10


def test_fits_begin_at_the_lifter_unless_told_otherwise(fit_cli, keypoints, tmp_path):
    """From the lifter, from the mean pose, and from a lifter of one's own."""
    from regressor.lift import LIFTER_FILE

    file = write(tmp_path / "k.json", coco(keypoints))
    found = {}
    for name, init in {"lift": None, "mean": "mean", "own": LIFTER_FILE}.items():
        out = tmp_path / name
        options = [] if init is None else ["--init", init]
        code, _, _ = fit_cli(file, "-o", out, "--no-report", *options)
        assert code == 0
        found[name] = read_fits(out)
    inits = {name: set(table.column_array("init").tolist()) for name, table in found.items()}
    assert inits == {"lift": {"lift"}, "mean": {"mean"}, "own": {"lift"}}
    pose = {name: table.column_array("body_pose") for name, table in found.items()}
    np.testing.assert_array_equal(pose["lift"], pose["own"])
    assert np.abs(pose["lift"] - pose["mean"]).max() > 0.01


def test_a_checkpoint_that_is_no_lifter_is_refused(fit_cli, keypoints, tmp_path):
    import torch

    file = write(tmp_path / "k.json", coco(keypoints))
    (tmp_path / "cut.pt").write_bytes(b"PK\x03\x04 cut short")
    torch.save({"weights": torch.zeros(3)}, tmp_path / "other.pt")
    for name in ("absent.pt", "cut.pt", "other.pt"):
        refuse(fit_cli, file, "-o", tmp_path / "out", "--init", tmp_path / name, match=name)
