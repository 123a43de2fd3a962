"""Evaluation of tables of fits against closed forms on a synthetic body."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from bodies import synthetic_arrays, write_body

from fitting import evaluation
from fitting.body import Body, load_body
from fitting.evaluation import MAIN_JOINTS, evaluate_fits
from fitting.files import InputError
from fitting.skeleton import joint_index
from fitting.table import FitsTable, build_fits

FOCAL = 1000.0


@pytest.fixture(scope="module")
def body(tmp_path_factory) -> Body:
    path = write_body(tmp_path_factory.mktemp("body") / "body.npz", synthetic_arrays())
    return load_body(path, dtype=torch.float64)


def columns(N: int) -> dict[str, Any]:
    """N different people, each alone in a picture, 10 m away."""
    rng = np.random.default_rng(1)
    numbers = ("reprojection_error_px", "cost_initial", "cost_final")
    return {
        "image": np.array([f"{n}.jpg" for n in range(N)]),
        "person": np.zeros(N, dtype=int),
        "annotation_id": np.arange(N),
        "width": np.full(N, 640),
        "height": np.full(N, 480),
        "keypoint_set": np.full(N, "coco17"),
        "keypoints_2d": np.zeros((N, 51)),
        "global_orient": rng.normal(0, 0.5, (N, 3)),
        "body_pose": rng.normal(0, 0.3, (N, 69)),
        "betas": rng.normal(0, 0.5, (N, 10)),
        "transl": np.tile([0.0, 0.0, 10.0], (N, 1)),
        "fx": np.full(N, FOCAL),
        "fy": np.full(N, FOCAL),
        "cx": np.full(N, 319.5),
        "cy": np.full(N, 239.5),
        **{name: np.full(N, 3.0) for name in numbers},
        "num_steps": np.full(N, 5),
        "status": np.full(N, "converged"),
        "init": np.full(N, "mean"),
    }


def table(changes: dict[str, Any], N: int = 4) -> FitsTable:
    return build_fits(columns(N) | changes, {})


def test_perfect_predictions(body):
    result = evaluate_fits(table({}), table({}), body)
    assert result["people"] == {"truth": 4, "matched": 4, "missing": 0, "extra": 0}
    for name in ("smpl24", "lsp14"):
        assert result[name] == pytest.approx(
            {"mpjpe_mm": 0, "pa_mpjpe_mm": 0, "pck_150": 1, "auc": 1}, abs=1e-9
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
    main = [joint_index(name) for name in MAIN_JOINTS]
    assert result["lsp14"]["mpjpe_mm"] == pytest.approx(moved[main].mean(), rel=1e-5)
    vertices = (body.v_template - body.joint_template[0]).numpy()
    expected = 2000 * np.hypot(vertices[:, 0], vertices[:, 2]).mean()
    assert result["pve_mm"] == pytest.approx(expected, rel=1e-5)
    assert result["smpl24"]["pa_mpjpe_mm"] == pytest.approx(0, abs=1e-3)


def test_main_joints_are_those_of_lsp():
    assert len(MAIN_JOINTS) == 14
    assert {"head", "neck", "left_ankle", "right_wrist"} <= set(MAIN_JOINTS)


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


def test_unknown_cameras_leave_the_pixels_out(body):
    unknown = {name: np.full(4, np.nan) for name in ("fx", "reprojection_error_px")}
    result = evaluate_fits(table(unknown), table({}), body)
    assert result["joint_error_px"] is None
    assert result["reprojection_error_px"] is None
    assert result["smpl24"]["mpjpe_mm"] == 0


def test_chunks_do_not_change_the_result(body, monkeypatch):
    moved = {"body_pose": columns(4)["body_pose"] * 0.5}
    whole = evaluate_fits(table(moved), table({}), body)
    monkeypatch.setattr(evaluation, "_CHUNK", 3)
    assert evaluate_fits(table(moved), table({}), body)["smpl24"] == pytest.approx(whole["smpl24"])


def test_tables_that_do_not_fit_together(body):
    with pytest.raises(InputError, match="none of the 4 people of the truth has a fit"):
        evaluate_fits(table({"image": np.full(4, "x"), "person": np.arange(4)}), table({}), body)
    twice = table({"image": np.array(["0.jpg", "1.jpg", "0.jpg", "3.jpg"])})
    with pytest.raises(InputError, match=r"'0\.jpg' stands in rows 0 and 2 of the predictions"):
        evaluate_fits(twice, table({}), body)
