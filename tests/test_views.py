"""Several calibrated cameras that saw the same people."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from test_lm import fit, people

from fitting.body import pose_body
from fitting.camera import project_points
from fitting.files import InputError, write_json
from fitting.keypoint_body import KeypointBody
from fitting.keypoints import map_keypoints
from fitting.map_energy import MapEnergy, MapWeights
from fitting.posing import params_of
from fitting.problem import PARAMETERS, View
from fitting.rig import match_views
from fitting.smplify import AdamConfig
from fitting.sources import people_in_file
from fitting.table import read_fits

DTYPE = torch.float64  # of the fixtures body and prior


def around(body, problem, true, degrees):
    """A second camera, `degrees` around people 5 m away, that sees the same keypoints."""
    R = Rotation.from_euler("y", degrees, degrees=True).as_matrix()
    centre = np.array([0.2, 0.1, 5.0])
    B = len(true)
    rotation = torch.from_numpy(R).expand(B, 3, 3)
    translation = torch.from_numpy(centre - R @ centre).expand(B, 3)
    points = map_keypoints(body, problem.keypoint_set)(pose_body(body, true))
    view = View(problem=problem, rotation=rotation, translation=translation)
    pixels, _ = project_points(view.see(points), problem.intrinsics)
    return replace(view, problem=replace(problem, keypoints_2d=pixels, views=()))


def scene(body, prior, batch=4, degrees=80.0):
    problem, true = people(body, prior, batch)
    problem = replace(problem, conf=torch.ones_like(problem.conf))
    return replace(problem, views=(around(body, problem, true, degrees),)), true


def error_mm(body, result, true):
    joints = [pose_body(body, params).joints for params in (result.params, true)]
    apart = (joints[0] - joints[0][:, :1]) - (joints[1] - joints[1][:, :1])
    return 1000 * apart.norm(dim=-1).mean(dim=1)


def test_a_view_sees_what_opencv_projects(body, prior):
    problem, true = scene(body, prior, 1)
    view = problem.views[0]
    points = map_keypoints(body, problem.keypoint_set)(pose_body(body, true))
    rvec, _ = cv2.Rodrigues(view.rotation[0].numpy())
    expected, _ = cv2.projectPoints(
        points[0].numpy(), rvec, view.translation[0].numpy(), problem.intrinsics[0].numpy(), None
    )
    np.testing.assert_allclose(view.problem.keypoints_2d[0], expected[:, 0], atol=1e-9)


def test_gradient_is_that_of_the_cost_over_all_cameras(body, prior):
    problem, true = scene(body, prior, 2)
    keypoint_body = KeypointBody(body, map_keypoints(body, problem.keypoint_set))
    depth = torch.tensor([3.0, 4.0]).double()
    energy = MapEnergy(keypoint_body, prior, problem, MapWeights(), depth)
    alone = MapEnergy(keypoint_body, prior, replace(problem, views=()), MapWeights(), depth)
    rows = torch.arange(2)
    x = true.pack(PARAMETERS)
    x = x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).double()
    model = energy.linearise(x, rows)
    assert (model.cost > alone.linearise(x, rows).cost).all()
    for column in [0, 1, 2, 3, 12, 40, 58, 72, 80, 82, 83, 84]:
        step = torch.zeros_like(x)
        step[:, column] = 1e-6
        ahead, back = (energy.linearise(x + s, rows).cost for s in (step, -step))
        expected = (ahead - back) / 2e-6
        torch.testing.assert_close(model.gradient[:, column], expected, rtol=1e-5, atol=1e-4)


def test_a_second_view_shows_the_depth(body, prior):
    problem, true = scene(body, prior)
    one = error_mm(body, fit(body, prior, replace(problem, views=())), true)
    two = error_mm(body, fit(body, prior, problem), true)
    assert two.mean() < 0.6 * one.mean()


def test_people_whom_only_the_second_camera_sees(body, prior):
    problem, true = scene(body, prior)
    both = fit(body, prior, problem)
    problem = replace(problem, conf=problem.conf.clone())
    problem.conf[:2] = 0
    before = problem.views[0].problem.conf.clone()
    result = fit(body, prior, problem)
    assert (result.reprojection_error.nanmean(dim=1) < 8).all()
    torch.testing.assert_close(result.params.transl[2:], both.params.transl[2:])
    joints = [pose_body(body, params).joints[:2, 0] for params in (result.params, true)]
    assert ((joints[0] - joints[1]).norm(dim=1) < 0.8).all(), "where the other camera has them"
    assert torch.equal(before, problem.views[0].problem.conf), "inputs are never modified"


def test_nobody_is_seen(body, prior):
    problem, _ = scene(body, prior, 2)
    problem.conf[0] = 0  # the view has the same tensor
    result = fit(body, prior, problem)
    assert result.params.transl[0].isnan().all()
    assert result.params.transl[1].isfinite().all()


def test_published_baselines_say_that_they_take_one_camera(body, prior):
    problem, _ = scene(body, prior, 1)
    with pytest.raises(ValueError, match="use the solver lm"):
        fit(body, prior, problem, AdamConfig(num_steps=1))


# --- Files -----------------------------------------------------------------------------------


def coco(pixels, names, size=(640, 480)):
    """A COCO keypoint file of one person in each picture."""
    images = [
        {"id": i, "file_name": name, "width": size[0], "height": size[1]}
        for i, name in enumerate(names)
    ]
    annotations = [
        {
            "id": i,
            "image_id": i,
            "category_id": 1,
            "num_keypoints": 17,
            "keypoints": np.concatenate([xy, np.full((17, 1), 2)], axis=1).ravel().tolist(),
        }
        for i, xy in enumerate(pixels.numpy())
    ]
    categories = [{"id": 1, "name": "person"}]
    return {"images": images, "annotations": annotations, "categories": categories}


@pytest.fixture(scope="module")
def files(body, prior, tmp_path_factory):
    """Two cameras' keypoints, the second's in another order, and their calibration."""
    folder = tmp_path_factory.mktemp("rig")
    problem, true = scene(body, prior, 3)
    view = problem.views[0]
    order = [2, 0, 1]
    write_json(
        folder / "front.json", coco(problem.keypoints_2d, [f"f/{i:03}.jpg" for i in range(3)])
    )
    write_json(
        folder / "side.json",
        coco(view.problem.keypoints_2d[order], [f"s/{i:03}.png" for i in order]),
    )
    turned = Rotation.from_euler("x", 30, degrees=True).as_matrix()  # the world is neither camera
    cameras = []
    for R, t in (
        (np.eye(3), np.zeros(3)),
        (view.rotation[0].numpy(), view.translation[0].numpy()),
    ):
        cameras.append(
            {
                "intrinsics": problem.intrinsics[0].tolist(),
                "rotation": (R @ turned).tolist(),
                "translation": t.tolist(),
            }
        )
    cameras[1] |= {"name": "side", "keypoints": "side.json"}
    write_json(folder / "cameras.json", {"cameras": cameras})
    return folder, true


def test_cameras_from_the_command_line(files, body, fit_cli, tmp_path):
    folder, true = files
    errors = []
    for options in ([], ["--cameras", folder / "cameras.json"]):
        out = tmp_path / str(len(options))
        code, _, err = fit_cli("fit", folder / "front.json", "-o", out, "--no-report", *options)
        assert code == 0, err
        table = read_fits(out)
        params = params_of(table, torch.zeros((), dtype=torch.float64))
        joints = [pose_body(body, p).joints for p in (params, true)]
        errors.append((joints[0] - joints[1]).norm(dim=-1).mean())
    assert errors[1] < 0.5 * errors[0], "depth and size are known"
    np.testing.assert_allclose(table.column_array("fx"), 800)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rotation": (2 * np.eye(3)).tolist()}, "camera 1: rotation is none"),
        ({"rotation": None}, "camera 1: rotation must be"),
        ({"intrinsics": np.eye(3)[::-1].tolist()}, "camera 1: intrinsics must be"),
        ({"keypoints": None}, "camera 1: give the file"),
        ({"keypoints": "absent.json"}, "absent.json"),
    ],
)
def test_wrong_calibrations_are_named(change, message, files, fit_cli, tmp_path):
    folder, _ = files
    document = json.loads((folder / "cameras.json").read_text())
    document["cameras"][1] |= {"keypoints": str(folder / "side.json")} | change
    write_json(tmp_path / "cameras.json", document)
    options = ["--cameras", tmp_path / "cameras.json", "-o", tmp_path / "out"]
    code, _, err = fit_cli("fit", folder / "front.json", *options)
    assert code == 2
    assert message in err


def test_people_of_other_pictures_are_not_matched(files):
    folder, _ = files
    people = people_in_file(
        folder / "front.json", images=None, keypoint_format="auto", keypoint_set=None
    ).people
    other = replace(people, image=np.array(["x.jpg", "y.jpg", "z.jpg"]))
    with pytest.raises(InputError, match="name the pictures of one moment alike"):
        match_views(people, other, name="side")
    some = match_views(people, people.select([1]), name="side")
    assert (some.conf > 0).any(axis=1).tolist() == [False, True, False]
