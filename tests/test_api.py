"""`fitting.fit`, the Python twin of the command line, as programmers meet it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

import fitting
from fitting.body import load_body, pose_body
from fitting.camera import make_intrinsics, project_points
from fitting.keypoints import map_keypoints
from fitting.skeleton import keypoint_set

ROOT = Path(__file__).resolve().parents[1]
SIZE = (400, 300)


@pytest.fixture(scope="module")
def keypoints_2d(body):
    """(2, 14, 2) of two people in the mean pose."""
    s = keypoint_set("lsp14")
    with torch.no_grad():
        posed = body(
            torch.tensor([[torch.pi, 0, 0]]).expand(2, 3),
            torch.zeros(2, 69),
            torch.zeros(2, 10),
            torch.tensor([[0.0, 0.2, 4.0], [0.5, 0.1, 5.0]]),
        )
        K = make_intrinsics(torch.tensor([SIZE]).float().expand(2, 2))
        return project_points(map_keypoints(body, s)(posed), K)[0].numpy()


def fit(keypoints_2d, conf=None, **arguments):
    usual = {"image_size": SIZE, "keypoint_set": "lsp14", "device": "cpu"}
    return fitting.fit(keypoints_2d, conf, **(usual | arguments))


@pytest.fixture(scope="module")
def fits(keypoints_2d):
    """Of the two, and of somebody of whom nothing is seen between them."""
    conf = np.ones((3, 14))
    conf[1] = 0
    return fit(keypoints_2d[[0, 0, 1]], conf, image=["a.jpg", "a.jpg", "b.jpg"])


def test_fit_returns_parameters_that_project_onto_the_keypoints(fits):
    assert isinstance(fits, fitting.FitResult)
    assert fits.params.body_pose.shape == (3, 69)
    assert fits.mean_reprojection_error[[0, 2]].max().item() < 4
    assert fits.params.transl[[0, 2], 2].tolist() == pytest.approx([4, 5], abs=0.6)
    assert fits.has_fit.tolist() == [True, False, True]
    assert fits.status[1] == fitting.Status.NO_KEYPOINTS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keypoint_set": "coco17"}, r"keypoints_2d must be \(N, 17, 2\)"),
        ({"keypoint_set": "lps14"}, "did you mean lsp14"),
        ({"solver": "newton"}, "use one of lm, adam, lbfgs"),
        ({"conf": np.full((2, 14), 2.0)}, "row 0.*confidence"),
        ({"conf": np.ones((2, 13))}, r"conf must be \(2, 14\)"),
        ({"image_size": (0, 300)}, "width and height"),
        ({"image_size": (300, 400, 3)}, r"image_size must be \(width, height\)"),
        ({"focal": -1.0}, "row 0.*focal length is not positive"),
        ({"focal": [500.0] * 3}, r"focal must be one number, or \(2,\)"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"starts": 19}, "starts must be 1 to 18"),
        ({"image": ["a.jpg"]}, r"image must be \(2,\) names"),
    ],
)
def test_wrong_arguments_are_named(change, message, keypoints_2d):
    with pytest.raises(ValueError, match=message):
        fit(keypoints_2d, **change)


@pytest.mark.parametrize(
    ("wrong", "advice"),
    [
        (lambda xy: xy[0], r"one person as keypoints_2d\[None\]"),
        (lambda xy: np.concatenate([xy, xy[..., :1]], axis=2), "separately as conf"),
        (lambda xy: xy[:, :13], "choose the set"),
        (lambda xy: [[1.0], [1.0, 2.0]], "rows of unequal lengths"),
        (lambda xy: np.full(xy.shape, "x"), "must be numbers"),
    ],
)
def test_keypoints_of_another_shape_are_answered_with_advice(wrong, advice, keypoints_2d):
    with pytest.raises(ValueError, match=advice):
        fit(wrong(keypoints_2d))


def test_an_init_that_is_none_is_refused(keypoints_2d):
    with pytest.raises(TypeError, match=r"fitting.load_fits\(path\)"):
        fit(keypoints_2d, init="OUT")


def test_arrays_tensors_and_lists_are_alike(keypoints_2d):
    """Also a tensor with a gradient; and none of them is changed."""
    tensor = torch.from_numpy(keypoints_2d.copy()).requires_grad_()
    conf = np.ones((2, 14))
    conf[0, 3] = 0.5
    one = fit(keypoints_2d, conf, focal=650)  # not the diagonal
    for xy, c in ((tensor, torch.from_numpy(conf)), (keypoints_2d.tolist(), conf.tolist())):
        other = fit(xy, c, focal=[650, 650], image_size=[SIZE, SIZE])
        torch.testing.assert_close(other.params.body_pose, one.params.body_pose, rtol=0, atol=0)
    assert np.array_equal(tensor.detach().numpy(), keypoints_2d)
    assert (one.intrinsics[:, 0, 0] == 650).all()


def test_people_of_pictures_of_several_sizes(keypoints_2d):
    """Each is seen by the camera of their own picture."""
    both = fit(keypoints_2d, image_size=[SIZE, (800, 600)])
    assert both.intrinsics[:, 0, 2].tolist() == [199.5, 399.5]
    alone = fit(keypoints_2d[1:], image_size=(800, 600))
    torch.testing.assert_close(alone.params.transl[0], both.params.transl[1], rtol=1e-3, atol=1e-3)


def test_the_body_given_stays_where_it_is(keypoints_2d, monkeypatch):
    """A body on another device is copied, not moved: `meta` stands for a GPU."""
    import fitting.api

    class MovedError(Exception):
        pass

    def stop(people, placed, *rest, **options):
        assert placed.v_template.device.type == "meta"
        raise MovedError

    own = load_body()
    monkeypatch.setattr(fitting.api, "choose_device", lambda name: torch.device("meta"))
    monkeypatch.setattr(fitting.api, "fit_people", stop)
    with pytest.raises(MovedError):
        fit(keypoints_2d, body=own)
    assert own.v_template.device.type == "cpu"


def test_fits_begin_at_earlier_fits(fits, keypoints_2d, tmp_path):
    """As a result, and as a table: both go on from there, with one start."""
    fits.save(tmp_path / "fits.parquet")
    xy, conf = keypoints_2d[[0, 0, 1]], fits.people.conf
    for init in (fits, fitting.load_fits(tmp_path / "fits.parquet")):
        again = fit(xy, conf, init=init, image=["a.jpg", "a.jpg", "b.jpg"])
        assert again.init.tolist() == ["given", "mean", "given"]
        assert again.mean_reprojection_error[[0, 2]].max() < 4


def test_vertices_and_joints_are_those_of_the_posed_body(fits, body):
    posed = pose_body(body, fits.params)
    torch.testing.assert_close(fits.vertices(), posed.vertices, equal_nan=True)
    torch.testing.assert_close(fits.joints(), posed.joints, equal_nan=True)
    assert fits.vertices().isnan()[1].all()


def test_selected_people_keep_all_that_is_theirs(fits):
    for rows in (torch.tensor([2, 0]), torch.tensor([True, False, True])):
        some = fits.select(rows)
        order = [2, 0] if rows.dtype == torch.int64 else [0, 2]
        assert some.people.image.tolist() == [["a.jpg", "a.jpg", "b.jpg"][i] for i in order]
        torch.testing.assert_close(some.vertices(), fits.vertices()[order])
    assert fits.to("cpu").people is fits.people


def test_numpy_has_everything_under_the_names_of_the_tensors(fits):
    arrays = fits.numpy()
    assert arrays["status"][1] == "no_keypoints"
    assert arrays["body_pose"].shape == (3, 69)
    assert np.array_equal(arrays["joint_std_mm"], fits.joint_std_mm.numpy(), equal_nan=True)
    assert all(isinstance(array, np.ndarray) and len(array) == 3 for array in arrays.values())


def test_saved_fits_are_read_back(fits, body, tmp_path):
    path = fits.save(tmp_path / "fits.parquet")
    table = fitting.load_fits(path)
    assert table.metadata["body_sha256"] == body.sha256
    assert table.column_array("image").tolist() == ["a.jpg", "a.jpg", "b.jpg"]
    assert table.column_array("person").tolist() == [0, 1, 0]
    for name in ("global_orient", "body_pose", "betas", "transl"):
        expected = getattr(fits.params, name).numpy()
        np.testing.assert_array_equal(table.column_array(name), expected)


def test_one_mesh_is_written(fits, tmp_path):
    path = fits.save_mesh(tmp_path / "person.glb", row=2)
    mesh = trimesh.load(path, force="mesh", process=False)
    np.testing.assert_allclose(mesh.vertices, fits.vertices()[2].numpy() * [1, -1, -1], atol=1e-5)
    with pytest.raises(ValueError, match=r"row 1 has no fit \(no_keypoints\)"):
        fits.save_mesh(tmp_path / "nobody.glb", row=1)
    assert not (tmp_path / "nobody.glb").exists()


def test_other_names_are_not_there():
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        _ = fitting.fitt
    assert set(fitting.__all__) <= set(dir(fitting))
    for name in fitting.__all__:
        assert getattr(fitting, name) is not None


def test_importing_loads_nothing_heavy():
    """Torch alone takes seconds; it comes with the first name that needs it."""
    code = "import fitting, sys; print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    assert done.stdout.split() == [b"False", b"False"]


USER = """
import numpy as np

import fitting
from fitting import FitResult, Fits


def reconstruct(keypoints_2d: np.ndarray, conf: np.ndarray) -> Fits:
    fits = fitting.fit(keypoints_2d, conf, image_size=(640, 480), keypoint_set="coco17")
    result: FitResult = fits.select(fits.has_fit)
    print(result.params.body_pose.shape, fits.numpy()["status"], fits.vertices().shape)
    fits.save("fits.parquet")
    fits.save_mesh("person.glb", row=0)
    return fitting.fit(keypoints_2d, image_size=(640, 480), init=fitting.load_fits("fits.parquet"))
"""


MYPY = """
[mypy]
[mypy-torch.*,roma.*,scipy.*]
follow_imports = skip
ignore_missing_imports = true
"""


def test_a_users_program_is_typed(tmp_path, monkeypatch):
    """Under `mypy --strict`, with torch left out: reading its types alone takes a minute."""
    api = pytest.importorskip("mypy.api", reason="mypy is not installed")
    (tmp_path / "user.py").write_text(USER)
    (tmp_path / "wrong.py").write_text(USER.replace("row=0", "row='first'"))
    (tmp_path / "mypy.ini").write_text(MYPY)
    monkeypatch.setenv("MYPYPATH", str(ROOT))
    options = ["--strict", "--follow-imports=silent", f"--config-file={tmp_path / 'mypy.ini'}"]
    options += [f"--cache-dir={tmp_path / 'cache'}"]
    said, _, code = api.run([*options, str(tmp_path / "user.py")])
    assert code == 0, said
    said, _, code = api.run([*options, str(tmp_path / "wrong.py")])
    assert code == 1
    assert 'expected "int"' in said
