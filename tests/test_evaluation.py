"""Evaluation of tables of fits against closed forms on a synthetic body."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from bodies import synthetic_arrays, write_body
from fits import FOCAL
from fits import fit_columns as columns
from fits import fits_table as table

from fitting import evaluation
from fitting.body import Body, load_body, pose_body
from fitting.evaluation import JOINT_SETS, body_errors, compare_fits, evaluate_fits, mean_errors
from fitting.files import InputError
from fitting.keypoints import map_keypoints
from fitting.metrics import pa_mpjpe
from fitting.posing import params_of
from fitting.skeleton import KEYPOINT_SETS, joint_index
from fitting.table import FITS_SCHEMA, PARAMETERS, FitsTable, build_fits

LANDMARKS = {"head_top": 3, "neck": 40, "coco_left_knee": 17}  # vertices of the synthetic body
# SMPL's joint where a body has no landmark for one of LSP's.
LSP_LIMBS = [
    f"{side}_{limb}"
    for side in ("left", "right")
    for limb in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")
]


@pytest.fixture(scope="module")
def body(tmp_path_factory) -> Body:
    """A synthetic body with the landmarks of `LANDMARKS`, each at one vertex."""
    arrays = synthetic_arrays()
    arrays["landmark_names"] = np.array(list(LANDMARKS))
    arrays["landmark_regressor"] = np.eye(len(arrays["v_template"]))[list(LANDMARKS.values())]
    path = write_body(tmp_path_factory.mktemp("body") / "body.npz", arrays)
    return load_body(path, dtype=torch.float64)


@pytest.fixture(scope="module")
def bare_body(tmp_path_factory) -> Body:
    """The same without landmarks."""
    path = write_body(tmp_path_factory.mktemp("body") / "body.npz", synthetic_arrays())
    return load_body(path, dtype=torch.float64)


def test_perfect_predictions(body):
    result = evaluate_fits(table({}), table({}), body)
    assert result["people"] == {"truth": 4, "matched": 4, "missing": 0, "extra": 0}
    for name in JOINT_SETS:
        assert result[name] == pytest.approx(
            {"mpjpe_mm": 0, "pa_mpjpe_mm": 0, "pck_150": 1, "auc": 1, "pck_2d": 1}, abs=1e-9
        )
    assert (result["pve_mm"], result["joint_error_px"]) == (0, 0)
    assert result["reprojection_error_px"] == 3
    json.dumps(result, allow_nan=False)


def test_a_shift_moves_the_pixels_alone(body):
    flat = {name: np.zeros_like(columns(4)[name]) for name in ("global_orient", "body_pose")}
    shifted = {"transl": np.tile([0.5, 0.0, 10.0], (4, 1))}
    result = evaluate_fits(table(flat | shifted), table(flat), body)
    assert result["smpl24"]["mpjpe_mm"] == pytest.approx(0, abs=1e-3)  # float32 in the table
    assert result["pve_mm"] == pytest.approx(0, abs=1e-3)
    joints = body.rest_joints(torch.from_numpy(columns(4)["betas"])).numpy()
    expected = (FOCAL * 0.5 / (10 + joints[..., 2])).mean()
    assert result["joint_error_px"] == pytest.approx(expected, rel=1e-5)


def test_a_turned_body_has_an_error_that_alignment_removes(body):
    upright = {"global_orient": np.zeros((4, 3)), "betas": np.zeros((4, 10))}
    turned = upright | {"global_orient": np.tile([0.0, np.pi, 0.0], (4, 1))}
    flat = {"body_pose": np.zeros((4, 69))}
    result = evaluate_fits(table(turned | flat), table(upright | flat), body)
    # Half a turn about y moves a joint by twice its distance from the axis through the pelvis.
    offsets = (body.joint_template - body.joint_template[0]).numpy()
    moved = 2000 * np.hypot(offsets[:, 0], offsets[:, 2])
    assert result["smpl24"]["mpjpe_mm"] == pytest.approx(moved.mean(), rel=1e-5)
    assert result["smpl24"]["pck_150"] == pytest.approx((moved <= 150).mean())
    vertices = (body.v_template - body.joint_template[0]).numpy()
    vertex_moved = 2000 * np.hypot(vertices[:, 0], vertices[:, 2])
    assert result["pve_mm"] == pytest.approx(vertex_moved.mean(), rel=1e-5)
    limbs = [name for name in LSP_LIMBS if name != "left_knee"]  # which has a landmark here
    lsp = [
        *(moved[joint_index(name)] for name in limbs),
        *(vertex_moved[vertex] for vertex in LANDMARKS.values()),
    ]
    assert len(lsp) == 14
    assert result["lsp14"]["mpjpe_mm"] == pytest.approx(np.mean(lsp), rel=1e-5)
    for name in ("smpl24", "lsp14"):
        assert result[name]["pa_mpjpe_mm"] == pytest.approx(0, abs=1e-3)


def lsp_points(joints: np.ndarray) -> np.ndarray:
    """(13, 3) LSP's joints but the top of the head, for which nothing stands in."""
    shoulders = [joints[joint_index(f"{side}_shoulder")] for side in ("left", "right")]
    limbs = [joints[joint_index(name)] for name in LSP_LIMBS]
    return np.array([*limbs, np.mean(shoulders, axis=0)])


def test_joints_that_a_body_lacks_are_left_out(bare_body):
    upright = {name: np.zeros_like(columns(4)[name]) for name in ("betas", "body_pose")}
    upright["global_orient"] = np.zeros((4, 3))
    turned = upright | {"global_orient": np.tile([0.0, np.pi, 0.0], (4, 1))}
    result = evaluate_fits(table(turned), table(upright), bare_body)
    joints = (bare_body.joint_template - bare_body.joint_template[0]).numpy()
    expected = 2000 * np.linalg.norm(lsp_points(joints)[:, [0, 2]], axis=1).mean()
    assert result["lsp14"]["mpjpe_mm"] == pytest.approx(expected, rel=1e-5)


def test_a_knee_bent_by_half_a_turn(bare_body):
    bent = np.zeros_like(columns(2)["body_pose"])
    knee, ankle, foot = (joint_index(f"left_{name}") for name in ("knee", "ankle", "foot"))
    bent[1, 3 * (knee - 1)] = np.pi  # about x, of the second person alone
    flat = {name: np.zeros_like(columns(2)[name]) for name in ("betas", "body_pose")}
    like = bare_body.v_template
    truth = params_of(table(flat, 2), like)
    errors = body_errors(params_of(table(flat | {"body_pose": bent}, 2), like), truth, bare_body)
    rest = bare_body.joint_template.numpy()
    shin, whole = (2000 * np.hypot(*(rest[j] - rest[knee])[1:]) for j in (ankle, foot))
    assert set(errors) == {"pve_mm"} | {
        f"{joints}.{name}"
        for joints in JOINT_SETS
        for name in ("mpjpe_mm", "pa_mpjpe_mm", "pck_150", "auc")
    }
    np.testing.assert_allclose(errors["smpl24.mpjpe_mm"], [0, (shin + whole) / 24], atol=1e-3)
    np.testing.assert_allclose(errors["lsp14.mpjpe_mm"], [0, shin / 13], atol=1e-3)
    straight = lsp_points(rest)
    moved = straight.copy()
    moved[LSP_LIMBS.index("left_ankle")] = rest[knee] + (rest[ankle] - rest[knee]) * [1, -1, -1]
    expected = pa_mpjpe(moved, straight)  # tested on its own in test_metrics.py
    np.testing.assert_allclose(errors["lsp14.pa_mpjpe_mm"], [0, expected], atol=1e-3)


def test_parameters_of_a_table():
    like = torch.zeros(1, dtype=torch.float64)
    params = params_of(table({}), like)
    for name in ("global_orient", "body_pose", "betas", "transl"):
        column = getattr(params, name)
        assert column.dtype == torch.float64
        np.testing.assert_array_equal(column.numpy(), columns(4)[name].astype(np.float32))


def test_errors_of_nobody_and_of_unequal_numbers(body):
    like = body.v_template
    nobody, two = (params_of(table({}, N), like) for N in (0, 2))
    intrinsics = like.new_zeros(0, 3, 3)
    errors = body_errors(nobody, nobody, body, intrinsics=(intrinsics, intrinsics))
    assert {values.shape for values in errors.values()} == {(0,)}
    with pytest.raises(ValueError, match="predicted holds 2 people and truth 0"):
        body_errors(two, nobody, body)


def test_people_are_matched_by_picture_and_number(body):
    order = [2, 0, 3, 1]
    shuffled = {name: column[order] for name, column in columns(4).items()}
    result = evaluate_fits(build_fits(shuffled, {}), table({}), body)
    assert result["smpl24"]["mpjpe_mm"] == 0


def test_missing_and_extra_people(body):
    nobody = {name: columns(4)[name].copy() for name in ("global_orient", "body_pose", "betas")}
    nobody["transl"] = columns(4)["transl"].copy()
    for array in nobody.values():
        array[1] = np.nan
    image = np.array(["0.jpg", "1.jpg", "2.jpg", "other.jpg"])
    result = evaluate_fits(table(nobody | {"image": image}), table({}), body)
    assert result["people"] == {"truth": 4, "matched": 2, "missing": 2, "extra": 1}
    result = evaluate_fits(table({}), table(nobody), body)
    assert result["people"] == {"truth": 3, "matched": 3, "missing": 0, "extra": 0}


def test_each_body_is_seen_by_its_own_camera(body):
    moved = {"cx": np.full(4, 319.5 + 7), "cy": np.full(4, 239.5 - 24)}
    result = evaluate_fits(table(moved), table({}), body)
    assert result["joint_error_px"] == pytest.approx(25)
    assert result["smpl24"]["mpjpe_mm"] == 0


@pytest.mark.parametrize("name", JOINT_SETS)
def test_joints_in_the_picture_within_a_tenth_of_the_person(body, name):
    """One camera is moved by a little less and a little more than a tenth of the box."""
    posed = pose_body(body, params_of(table({}, 1), body.v_template))
    joints = map_keypoints(body, JOINT_SETS[name])
    points = joints(posed)[0, joints.defined].numpy()
    pixels = FOCAL * points[:, :2] / points[:, 2:]
    size = np.ptp(pixels, axis=0).max()
    for share, expected in ((0.09, 1), (0.11, 0)):
        moved = {"cx": np.full(1, 319.5 + share * size)}
        result = evaluate_fits(table(moved, 1), table({}, 1), body)
        assert result[name]["pck_2d"] == expected


def test_human36m_is_judged_by_14_of_its_17_joints(body):
    """Those of `H36M_TO_J14` in SPIN's constants.py: all but 0 pelvis, 7 spine and 9 nose."""
    chosen = [6, 5, 4, 1, 2, 3, 16, 15, 14, 11, 12, 13, 8, 10]
    moved = {"body_pose": columns(2)["body_pose"] * 0.5}
    found = compare_fits(table(moved, 2), table({}, 2), body).bodies
    names = found.joint_names["h36m17"]
    errors = dict(zip(names, found.joint_errors_mm["h36m17"].T, strict=True))
    whole = KEYPOINT_SETS["h36m17"].names
    wanted = [whole[i] for i in chosen if whole[i] in names]
    assert len(wanted) > 10
    assert set(wanted) == set(found.joint_names["h36m14"])
    expected = np.mean([errors[joint] for joint in wanted], axis=0)
    np.testing.assert_allclose(found.errors["h36m14.mpjpe_mm"], expected)


def test_a_body_elsewhere_is_not_seen_by_the_others_camera(body):
    flat = {name: np.zeros_like(columns(2)[name]) for name in ("global_orient", "body_pose")}
    shifted = {"transl": np.tile([0.5, 0.0, 10.0], (2, 1)), "fx": np.full(2, 700.0)}
    result = evaluate_fits(table(flat | shifted, 2), table(flat, 2), body)
    X, _, Z = body.rest_joints(torch.from_numpy(columns(2)["betas"])).numpy().transpose(2, 0, 1)
    expected = np.abs(700 * (X + 0.5) - FOCAL * X) / (10 + Z)
    assert result["joint_error_px"] == pytest.approx(expected.mean(), rel=1e-5)


def test_unknown_cameras_leave_the_pixels_out(body):
    unknown = {name: np.full(4, np.nan) for name in ("fx", "reprojection_error_px")}
    result = evaluate_fits(table(unknown), table({}), body)
    assert result["joint_error_px"] is result["smpl24"]["pck_2d"] is None
    assert result["reprojection_error_px"] is None
    assert result["smpl24"]["mpjpe_mm"] == 0


def test_chunks_do_not_change_the_result(body, monkeypatch):
    moved = {"body_pose": columns(4)["body_pose"] * 0.5, "fx": np.array([900.0, 800, 700, 600])}
    whole = evaluate_fits(table(moved), table({}), body)
    monkeypatch.setattr(evaluation, "_CHUNK", 3)
    parts = evaluate_fits(table(moved), table({}), body)
    for name in ("smpl24", "lsp14"):
        assert parts[name] == pytest.approx(whole[name])
    for name in ("pve_mm", "joint_error_px"):
        assert parts[name] == pytest.approx(whole[name])


def test_people_of_a_comparison(body):
    nobody = {name: columns(4)[name].copy() for name in PARAMETERS}
    for array in nobody.values():
        array[1] = np.nan
    stated = {"joint_std_mm": np.arange(96.0).reshape(4, 24)}
    order = [3, 2, 1, 0]
    shuffled = {name: column[order] for name, column in (columns(4) | nobody | stated).items()}
    found = compare_fits(build_fits(shuffled, {}), table({}), body)
    assert found.matched == [("0.jpg", 0), ("2.jpg", 0), ("3.jpg", 0)]
    assert found.missing == [("1.jpg", 0)]
    np.testing.assert_array_equal(found.joint_std_mm, stated["joint_std_mm"][[0, 2, 3]])
    assert mean_errors(found)["smpl24"]["mpjpe_mm"] == 0


def test_errors_of_joints(body, bare_body):
    moved = {"body_pose": columns(2)["body_pose"] * 0.5}
    found = compare_fits(table(moved, 2), table({}, 2), body).bodies
    for name, joints in (("smpl24", 24), ("lsp14", 14)):
        assert found.joint_errors_mm[name].shape == (2, joints)
        np.testing.assert_allclose(
            found.joint_errors_mm[name].mean(axis=1), found.errors[f"{name}.mpjpe_mm"]
        )
    assert found.joint_names["smpl24"][joint_index("left_hand")] == "left_hand"
    np.testing.assert_array_equal(found.joint_errors_mm["smpl24"][:, joint_index("pelvis")], 0)
    lsp = compare_fits(table(moved, 2), table({}, 2), bare_body).bodies.joint_names["lsp14"]
    assert len(lsp) == 13
    assert "head_top" not in lsp


def test_keypoints_are_held_against_the_truth(body):
    """Exact keypoints of the truth, and predictions that are elsewhere."""
    names = np.full(4, "smpl24")
    posed = pose_body(body, params_of(table({}), body.v_template)).joints.numpy()
    xy = FOCAL * posed[..., :2] / posed[..., 2:] + [319.5, 239.5]
    keypoints = np.concatenate([xy, np.ones((4, 24, 1))], axis=2).reshape(4, -1)
    given = {"keypoint_set": names, "keypoints_2d": keypoints, "betas": np.ones((4, 10))}
    found = compare_fits(table(given | {"fx": np.full(4, 500.0)}), table({}), body).keypoints
    np.testing.assert_allclose(found.noise, 0, atol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_half_a_fit_is_no_fit(body, value):
    """`build_fits` writes none, but other programs may."""
    pose = columns(4)["body_pose"].astype(np.float32)
    pose[2, 5] = value
    lists = pa.array(pose.tolist(), type=FITS_SCHEMA.field("body_pose").type)
    good = table({})
    at = FITS_SCHEMA.get_field_index("body_pose")
    bad = FitsTable(columns=good.columns.set_column(at, FITS_SCHEMA.field("body_pose"), lists))
    with pytest.raises(InputError, match="body_pose in row 2 of the predictions holds NaN or inf"):
        evaluate_fits(bad, good, body)
    with pytest.raises(InputError, match="body_pose in row 2 of the truth"):
        evaluate_fits(good, bad, body)


def test_tables_that_do_not_fit_together(body):
    with pytest.raises(InputError, match="none of the 4 people of the truth has a fit"):
        evaluate_fits(table({"image": np.full(4, "x"), "person": np.arange(4)}), table({}), body)
    twice = table({"image": np.array(["0.jpg", "1.jpg", "0.jpg", "3.jpg"])})
    with pytest.raises(InputError, match=r"'0\.jpg' stands in rows 0 and 2 of the predictions"):
        evaluate_fits(twice, table({}), body)
