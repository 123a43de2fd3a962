"""The body against `smplx`, closed forms and hostile files."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from bodies import synthetic_arrays, write_body
from scipy.spatial.transform import Rotation

from fitting.body import Body, forward_kinematics, load_body
from fitting.body_files import BodyFileError, load_body_arrays
from fitting.skeleton import LSP_PARTS, SMPL_JOINTS, SMPL_PARENTS


@pytest.fixture(scope="module")
def bundled() -> Body:
    return load_body(dtype=torch.float64)


def random_params(rng, batch=3, angle=0.6):
    return tuple(
        torch.from_numpy(rng.normal(0, scale, (batch, size)))
        for scale, size in ((angle, 3), (angle, 69), (1.0, 10), (1.0, 3))
    )


def smplx_model(arrays, batch):
    """The public implementation on the same arrays."""
    smplx = pytest.importorskip("smplx")
    struct = type("Struct", (), {})()
    for key, value in arrays.items():
        setattr(struct, key, np.asarray(value))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return smplx.SMPL(
            "SMPL", data_struct=struct, batch_size=batch, num_betas=10, dtype=torch.float64,
            vertex_ids=dict.fromkeys(
                ("nose", "reye", "leye", "rear", "lear", "LBigToe", "LSmallToe", "LHeel",
                 "RBigToe", "RSmallToe", "RHeel", *(f"{s}{f}" for s in "lr" for f in (
                     "thumb", "index", "middle", "ring", "pinky"))), 0),
        )  # fmt: skip


@pytest.mark.parametrize("source", ["bundled", "synthetic"])
def test_agrees_with_smplx(source, rng, tmp_path, bundled):
    if source == "bundled":
        body = bundled
        with np.load(body.path) as file:
            arrays = {key: np.asarray(file[key], np.float64) for key in file.files
                      if not key.startswith(("landmark", "mirror"))}  # fmt: skip
        arrays["f"] = arrays["f"].astype(np.int64)
        arrays["kintree_table"] = arrays["kintree_table"].astype(np.int64)
    else:
        arrays = synthetic_arrays()
        body = load_body(write_body(tmp_path / "body.npz", arrays), dtype=torch.float64)
    orient, pose, betas, transl = random_params(rng)
    expected = smplx_model(arrays, 3)(
        betas=betas, body_pose=pose, global_orient=orient, transl=transl
    )
    got = body(orient, pose, betas, transl)
    # smplx takes its angles' norm after adding 1e-8, hence not to the last digit
    assert (got.vertices - expected.vertices).abs().max() < 1e-7
    assert (got.joints - expected.joints[:, :24]).abs().max() < 1e-7
    single = body.to(torch.float32)(*(t.float() for t in (orient, pose, betas, transl)))
    assert (single.vertices.double() - expected.vertices).abs().max() < 1e-5
    body.to(torch.float64)


def test_kinematics_agree_with_scipy_rotations(rng):
    pose = rng.normal(0, 1, (24, 3))
    rest = rng.normal(0, 1, (24, 3))
    world, joints = [Rotation.from_rotvec(pose[0])], [rest[0]]
    for joint in range(1, 24):
        parent = SMPL_PARENTS[joint]
        joints.append(joints[parent] + world[parent].apply(rest[joint] - rest[parent]))
        world.append(world[parent] * Rotation.from_rotvec(pose[joint]))
    local = torch.from_numpy(Rotation.from_rotvec(pose).as_matrix())[None]
    rotations, positions = forward_kinematics(local, torch.from_numpy(rest)[None])
    np.testing.assert_allclose(positions[0], joints, atol=1e-12)
    np.testing.assert_allclose(rotations[0], [r.as_matrix() for r in world], atol=1e-12)


@pytest.mark.parametrize("skinning", ["linear", "dual_quaternion"])
def test_a_rigid_motion_moves_every_vertex_rigidly(skinning, rng, bundled):
    orient, _, betas, transl = random_params(rng, 2)
    rest = bundled(orient * 0, torch.zeros(2, 69), betas)
    moved = bundled(orient, torch.zeros(2, 69), betas, transl, skinning=skinning)
    for i in range(2):
        root = rest.joints[i, 0].numpy()
        turned = Rotation.from_rotvec(orient[i].numpy()).apply(rest.vertices[i].numpy() - root)
        expected = turned + root + transl[i].numpy()
        # the weights are stored in float32, so their rows sum to 1 within 1e-7
        np.testing.assert_allclose(moved.vertices[i], expected, atol=1e-7)


def test_dual_quaternions_agree_with_linear_skinning_where_one_joint_moves_a_vertex(rng, bundled):
    orient, pose, betas, transl = random_params(rng)
    linear = bundled(orient, pose, betas, transl).vertices
    dual = bundled(orient, pose, betas, transl, skinning="dual_quaternion").vertices
    rigid = bundled.weights.max(dim=1).values > 1 - 1e-7
    assert rigid.sum() > 100
    assert (linear - dual)[:, rigid].abs().max() < 1e-6
    assert (linear - dual).abs().max() > 1e-3  # and they are not the same thing elsewhere


def test_dual_quaternions_keep_the_volume_of_a_twisted_wrist(bundled):
    trimesh = pytest.importorskip("trimesh")
    pose = torch.zeros(1, 69, dtype=torch.float64)
    pose[0, 3 * 19] = 3.0  # left wrist about its own axis
    zeros = torch.zeros(1, 3, dtype=torch.float64)

    def forearm_area(skinning):
        vertices = bundled(zeros, pose, zeros.new_zeros(1, 10), skinning=skinning).vertices[0]
        mesh = trimesh.Trimesh(vertices.numpy(), bundled.faces.numpy(), process=False)
        moved = (bundled.weights[:, 20] > 0.05) & (bundled.weights[:, 18] > 0.05)
        return mesh.area_faces[moved.numpy()[mesh.faces].all(1)].sum()

    assert forearm_area("dual_quaternion") > 1.05 * forearm_area("linear")


def test_gradients_agree_with_finite_differences(rng, tmp_path):
    body = load_body(write_body(tmp_path / "body.npz", synthetic_arrays()), dtype=torch.float64)
    params = [p.requires_grad_() for p in random_params(rng, 1)]
    for skinning in ("linear", "dual_quaternion"):

        def few(*p, skinning=skinning):
            return body(*p, skinning=skinning).vertices[:, ::20]

        assert torch.autograd.gradcheck(few, params)


def test_batch_rows_do_not_see_each_other(rng, bundled):
    params = random_params(rng, 4)
    together = bundled(*params).vertices
    alone = bundled(*(p[2:3] for p in params)).vertices
    assert (together[2:3] - alone).abs().max() < 1e-12


def test_part_labels_name_every_joint_and_part(bundled):
    labels = bundled.part_labels
    assert set(labels.tolist()) == set(range(24))
    template = bundled.v_template
    head = labels == SMPL_JOINTS.index("head")
    assert template[head, 1].min() > template[labels == SMPL_JOINTS.index("left_knee"), 1].max()
    parts = bundled.lsp_part_labels
    left = parts == LSP_PARTS.index("left_arm")
    right = parts == LSP_PARTS.index("right_arm")
    assert template[left, 0].min() > 0 > template[right, 0].max()
    assert left.sum() == right.sum()


@pytest.mark.parametrize("num_joints", [52, 55])
def test_larger_models_are_read_with_flat_hands(num_joints, rng, tmp_path):
    lbs = pytest.importorskip("smplx.lbs")
    arrays = synthetic_arrays(num_joints=num_joints)
    body = load_body(write_body(tmp_path / "body.npz", arrays), dtype=torch.float64)
    orient, pose, betas, _ = random_params(rng, 2)
    pose[:, 63:] = 0  # SMPL's two hand joints rest, as do the fingers, jaw and eyes
    full = torch.cat([orient, pose[:, :63], torch.zeros(2, 3 * (num_joints - 22))], dim=1).double()
    tensors = {k: torch.from_numpy(np.asarray(v, np.float64)) for k, v in arrays.items()}
    parents = torch.from_numpy(arrays["kintree_table"][0].copy())
    parents[0] = -1
    vertices, joints = lbs.lbs(
        betas, full, tensors["v_template"][None], tensors["shapedirs"],
        tensors["posedirs"].flatten(0, 1).T, tensors["J_regressor"], parents, tensors["weights"],
    )  # fmt: skip
    got = body(orient, pose, betas)
    assert (got.vertices - vertices).abs().max() < 1e-6
    assert (got.joints[:, :22] - joints[:, :22]).abs().max() < 1e-6


BREAKAGES = {
    "weights missing": lambda a: a.pop("weights"),
    "posedirs must be": lambda a: a.update(posedirs=a["posedirs"][:, :, :100]),
    "J_regressor must be": lambda a: a.update(J_regressor=a["J_regressor"][:, :-1]),
    "must index": lambda a: a.update(f=a["f"] + 10_000),
    "holds NaN": lambda a: a.update(v_template=a["v_template"] * np.nan),
    "in metres": lambda a: a.update(v_template=a["v_template"] * 1000),
    "sum to 1": lambda a: a.update(weights=a["weights"] * 2),
    "gives joint 5 the parent 9": lambda a: a["kintree_table"].__setitem__((0, 5), 9),
    "has 31 joints": lambda a: a.update(kintree_table=np.zeros((2, 31), int)),
    "array of numbers": lambda a: a.update(weights=np.array(["heavy"])),
}


@pytest.mark.parametrize("message", BREAKAGES)
def test_a_damaged_body_is_refused_by_name(message, tmp_path):
    arrays = synthetic_arrays()
    BREAKAGES[message](arrays)
    path = write_body(tmp_path / "broken.npz", arrays)
    with pytest.raises(BodyFileError, match=message) as caught:
        load_body_arrays(path)
    assert "broken.npz" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 truncated"])
def test_a_file_that_is_no_archive_is_refused(content, tmp_path):
    path = tmp_path / "body.npz"
    path.write_bytes(content)
    with pytest.raises(BodyFileError, match=r"body\.npz"):
        load_body_arrays(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BodyFileError, match="no such body file"):
        load_body_arrays(tmp_path / "absent.npz")
