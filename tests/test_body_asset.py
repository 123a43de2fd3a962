"""The bundled body: format, exact symmetry, mesh, landmarks, and the numbers told about it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import trimesh
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from fitting.skeleton import (
    KEYPOINT_SETS,
    MIDPOINTS,
    SMPL_JOINTS,
    SMPL_PARENTS,
    flip_permutation,
    joint_index,
    mirrored_name,
)

ROOT = Path(__file__).resolve().parents[1]
ASSET = ROOT / "fitting" / "assets" / "body.npz"
REPORT = ROOT / "docs" / "body.json"
REFLECTION = np.array([-1, 1, 1])
MAX_BYTES = 4_000_000
FLIP_JOINTS = flip_permutation(SMPL_JOINTS)


@pytest.fixture(scope="module")
def asset():
    with np.load(ASSET, allow_pickle=False) as file:
        return dict(file)


@pytest.fixture(scope="module")
def report():
    return json.loads(REPORT.read_text())


@pytest.fixture(scope="module")
def mesh(asset):
    return trimesh.Trimesh(asset["v_template"], asset["f"].astype(int), process=False)


@pytest.fixture(scope="module")
def landmarks(asset):
    points = asset["landmark_regressor"] @ asset["v_template"]
    return dict(zip(asset["landmark_names"].tolist(), points, strict=True))


def test_has_smpl_arrays_in_single_precision(asset):
    V, F = len(asset["v_template"]), len(asset["f"])
    L = len(asset["landmark_names"])
    shapes = {
        "v_template": (V, 3),
        "shapedirs": (V, 3, 10),
        "posedirs": (V, 3, 207),
        "J_regressor": (24, V),
        "weights": (V, 24),
        "kintree_table": (2, 24),
        "f": (F, 3),
        "mirror": (V,),
        "landmark_names": (L,),
        "landmark_regressor": (L, V),
    }
    assert {key: array.shape for key, array in asset.items()} == shapes
    kinds = {"kintree_table": "int64", "f": "uint32", "mirror": "int32"}
    for key, array in asset.items():
        if key != "landmark_names":
            assert array.dtype == kinds.get(key, "float32"), key
            assert np.isfinite(array).all(), key


def test_tree_is_smpls_with_the_root_as_its_files_mark_it(asset):
    parents, joints = asset["kintree_table"]
    assert parents[0] == 2**32 - 1
    np.testing.assert_array_equal(parents[1:], SMPL_PARENTS[1:])
    np.testing.assert_array_equal(joints, np.arange(24))


def test_is_small_and_not_to_be_taken_for_smpl(asset):
    assert ASSET.stat().st_size <= MAX_BYTES
    # Readers know SMPL and SMPL-X by these vertex counts and would apply their vertex ids.
    assert len(asset["v_template"]) not in (6890, 10475)


@pytest.mark.parametrize("key", ["weights", "J_regressor", "landmark_regressor"])
def test_rows_are_averages(asset, key):
    assert (asset[key] >= 0).all()
    # 1e-6 is what rounding weights to single precision leaves.
    np.testing.assert_allclose(asset[key].sum(axis=1, dtype=float), 1, atol=1e-6)


def test_mirror_is_an_involution_with_a_mid_line(asset):
    mirror, x = asset["mirror"], asset["v_template"][:, 0]
    np.testing.assert_array_equal(mirror[mirror], np.arange(len(mirror)))
    np.testing.assert_array_equal(mirror == np.arange(len(mirror)), x == 0)


def test_shape_and_weights_are_mirror_symmetric_to_the_last_bit(asset):
    mirror = asset["mirror"]
    template, directions = asset["v_template"], asset["shapedirs"]
    np.testing.assert_array_equal(template[mirror], template * REFLECTION)
    np.testing.assert_array_equal(directions[mirror], directions * REFLECTION[:, None])
    np.testing.assert_array_equal(asset["weights"][mirror], asset["weights"][:, FLIP_JOINTS])
    regressor = asset["J_regressor"]
    np.testing.assert_array_equal(regressor[:, mirror], regressor[FLIP_JOINTS])


def test_faces_are_their_own_mirror_image(asset):
    faces = asset["f"].astype(int)

    def turned(triangles):  # the same cyclic order, smallest index first
        first = triangles.argmin(axis=1)
        return {tuple(np.roll(t, -k)) for t, k in zip(triangles.tolist(), first, strict=True)}

    assert turned(asset["mirror"][faces][:, ::-1]) == turned(faces)


def test_correctives_of_a_mirrored_pose_are_mirrored(asset, rng):
    pose = Rotation.from_rotvec(rng.normal(scale=0.6, size=(24, 3)))
    # A reflected rotation keeps the axis' x and turns y and z around; scipy is the oracle.
    mirrored = Rotation.from_rotvec(pose.as_rotvec()[FLIP_JOINTS] * [1, -1, -1])

    def offsets(rotations):
        features = rotations.as_matrix()[1:] - np.eye(3)
        return asset["posedirs"].astype(float) @ features.ravel()

    expected = offsets(pose)[asset["mirror"]] * REFLECTION
    np.testing.assert_allclose(offsets(mirrored), expected, atol=1e-12)
    assert np.abs(expected).max() > 0.01  # they do something


def test_correctives_act_near_their_joint_only(asset):
    joints = asset["J_regressor"] @ asset["v_template"]
    for j in range(1, 24):
        columns = asset["posedirs"][:, :, 9 * (j - 1) : 9 * j]
        touched = np.abs(columns).sum(axis=(1, 2)) > 0
        away = np.linalg.norm(asset["v_template"][touched] - joints[j], axis=1)
        assert away.max(initial=0) < 0.35, SMPL_JOINTS[j]


def test_mesh_is_a_closed_skin_but_for_eyes_and_mouth(mesh):
    assert mesh.is_winding_consistent
    assert mesh.volume > 0  # normals point outwards
    # split() would by default fill small holes first.
    parts = sorted(
        mesh.split(only_watertight=False, repair=False), key=lambda part: len(part.vertices)
    )
    *eyeballs, skin = parts
    assert [eyeball.is_watertight for eyeball in eyeballs] == [True, True]
    assert skin.euler_number == -1  # a sphere (2) with three holes: MakeHuman's own topology
    edges, counts = np.unique(np.sort(skin.edges, axis=1), axis=0, return_counts=True)
    assert counts.max() == 2
    rim = np.unique(edges[counts == 1])
    assert (skin.vertices[rim, 2] > 0.1).all()  # all holes are in the face
    assert len(trimesh.graph.connected_components(edges[counts == 1])) == 3


def test_decimation_keeps_a_symmetric_surface_closed(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    from body_decimation import decimate_symmetric

    # A sphere made from an octahedron: no face crosses x = 0.
    sphere = trimesh.convex.convex_hull(np.vstack([np.eye(3), -np.eye(3)]))
    for _ in range(4):
        sphere = sphere.subdivide()
    points = sphere.vertices / np.linalg.norm(sphere.vertices, axis=1, keepdims=True)
    mirror = cKDTree(points).query(points * REFLECTION)[1]
    protected = np.array([7, 99])
    kept, faces = decimate_symmetric(
        points,
        sphere.faces,
        mirror,
        num_vertices=300,
        detail=np.ones(len(points)),
        protected=protected,
    )
    small = trimesh.Trimesh(points[kept], faces, process=False)
    assert 299 <= len(kept) <= 300
    assert small.is_watertight and small.is_winding_consistent and small.euler_number == 2
    assert small.volume == pytest.approx(4 / 3 * np.pi, rel=0.05)
    assert np.isin(protected, kept).all()
    np.testing.assert_array_equal(np.sort(mirror[kept]), kept)


def test_mesh_has_no_degenerate_faces(mesh):
    edges = np.linalg.norm(mesh.triangles - np.roll(mesh.triangles, 1, axis=1), axis=2)
    quality = 4 * np.sqrt(3) * mesh.area_faces / (edges**2).sum(axis=1)
    assert quality.min() > 0.02
    assert np.median(quality) > 0.7


def test_joints_and_vertices_are_those_of_a_person_in_a_t_pose(asset):
    vertices = asset["v_template"]
    joints = asset["J_regressor"] @ vertices
    assert np.ptp(vertices[:, 1]) == pytest.approx(1.70, abs=0.05)
    np.testing.assert_allclose(joints[0], 0, atol=0.01)
    for limb in ("shoulder", "elbow", "wrist", "hand"):
        assert joints[joint_index(f"left_{limb}"), 1] == pytest.approx(
            joints[joint_index("left_shoulder"), 1], abs=0.01
        )
    legs = [joints[joint_index(f"left_{n}"), 1] for n in ("hip", "knee", "ankle", "foot")]
    assert (np.diff(legs) < 0).all()
    assert joints[joint_index("left_foot"), 2] > joints[joint_index("left_ankle"), 2] + 0.05


def test_every_joint_lies_inside_the_skin(asset, mesh):
    # The generalised winding number (van Oosterom & Strackee's solid angles) is 1 inside, 0 out.
    joints = asset["J_regressor"] @ asset["v_template"]
    a, b, c = np.moveaxis(mesh.triangles[None] - joints[:, None, None], 2, 0)
    la, lb, lc = (np.linalg.norm(side, axis=-1) for side in (a, b, c))
    scalar = la * lb * lc + (a * b).sum(-1) * lc + (b * c).sum(-1) * la + (c * a).sum(-1) * lb
    angles = 2 * np.arctan2((a * np.cross(b, c)).sum(-1), scalar)
    np.testing.assert_allclose(angles.sum(axis=1) / (4 * np.pi), 1, atol=0.1)


def test_landmarks_come_in_exact_mirror_pairs(asset):
    names = asset["landmark_names"].tolist()
    assert len(set(names)) == len(names)
    flip = [names.index(mirrored_name(name)) for name in names]
    rows = asset["landmark_regressor"]
    np.testing.assert_array_equal(rows[:, asset["mirror"]], rows[flip])


def test_every_keypoint_set_is_defined(asset):
    known = {*asset["landmark_names"].tolist(), *SMPL_JOINTS, "neck_joint", *MIDPOINTS}
    for keypoint_set in KEYPOINT_SETS.values():
        assert set(keypoint_set.points) <= known, keypoint_set.name


def test_left_landmarks_are_on_the_left(landmarks):
    for name, (x, _, _) in landmarks.items():
        if "left" in name:
            assert x > 0.01, name
        elif "right" not in name:
            assert x == pytest.approx(0, abs=1e-6), name


@pytest.mark.parametrize(
    "order",
    [
        (
            "head_top",
            "h36m_head",
            "left_eye",
            "nose",
            "jaw",
            "left_mouth",
            "chin",
            "neck",
            "thorax",
        ),
        ("thorax", "h36m_spine", "coco_left_hip", "coco_left_knee", "coco_left_ankle", "left_heel"),
    ],
)
def test_landmarks_from_top_to_bottom(landmarks, order):
    assert (np.diff([landmarks[name][1] for name in order]) < 0).all()


@pytest.mark.parametrize(
    "order",
    [
        ("left_eye_inner", "left_eye", "left_eye_outer", "left_ear"),
        ("coco_left_shoulder", "coco_left_elbow", "coco_left_wrist", "left_index_knuckle"),
        ("left_index_knuckle", "left_index_tip", "left_middle_tip"),
        ("left_thumb_knuckle", "left_thumb_tip", "left_pinky_tip"),
        ("left_big_toe", "left_heel", "left_small_toe"),
    ],
)
def test_landmarks_from_the_middle_outwards(landmarks, order):
    assert (np.diff([landmarks[name][0] for name in order]) > 0).all()


@pytest.mark.parametrize(
    "order",
    [
        ("left_ear", "jaw", "left_eye", "nose"),
        ("left_pinky_tip", "left_ring_tip", "left_middle_tip", "left_index_tip", "left_thumb_tip"),
        ("left_heel", "coco_left_ankle", "left_small_toe", "left_big_toe"),
    ],
)
def test_landmarks_from_back_to_front(landmarks, order):
    assert (np.diff([landmarks[name][2] for name in order]) > 0).all()


def test_report_describes_this_file(asset, report):
    assert report["vertices"] == len(asset["v_template"])
    assert report["faces"] == len(asset["f"])
    assert report["landmarks"] == len(asset["landmark_names"])
    assert report["file_bytes"] == ASSET.stat().st_size
    assert report["correctives"]["nonzero_share"] == pytest.approx(
        (asset["posedirs"] != 0).mean(), abs=1e-3
    )


def test_reported_statures_are_those_of_random_betas(asset, report, rng):
    betas = rng.normal(size=(500, 10))
    heights = asset["v_template"][:, 1] + betas @ asset["shapedirs"][:, 1].T.astype(float)
    told = report["shapes"]["random_betas"]["stature_m"]
    stature = np.ptp(heights, axis=1)
    # 0.012 m is three standard errors of the mean of 500 people.
    assert stature.mean() == pytest.approx(told["mean"], abs=0.012)
    assert stature.std() == pytest.approx(told["deviation"], abs=0.012)


def test_first_beta_is_taller_and_the_others_larger(asset, mesh):
    for k in range(10):
        offset = 2 * asset["shapedirs"][..., k]
        pair = [
            trimesh.Trimesh(asset["v_template"] + s * offset, mesh.faces, process=False)
            for s in (-1, 1)
        ]
        small, large = (m.extents[1] if k == 0 else m.volume for m in pair)
        assert large > small, k


def test_document_tells_the_reported_numbers(report):
    text = (ROOT / "docs" / "body.md").read_text(encoding="utf-8")
    shapes, joints, correctives = (report[key] for key in ("shapes", "joints", "correctives"))
    numbers = [
        f"{report['vertices']:,} vertices",
        f"{report['faces']:,} triangles",
        f"{report['file_bytes'] / 1e6:.1f} MB",
        f"{100 * shapes['explained_total']:.1f} %",
        f"{shapes['held_out_vertex_error_mm']['mean']:.1f} mm",
        f"{joints['held_out_error_mm']['mean']:.1f} mm",
        f"{correctives['error_before_mm']['mean']:.2f} mm",
        f"{correctives['error_after_mm']['mean']:.2f} mm",
    ]
    assert [number for number in numbers if number not in text] == []
