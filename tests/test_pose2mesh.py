"""Pose2Mesh: its layers, published checkpoints, losses, and training."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial.transform import Rotation
from torch.nn import functional

from fitting.body import Body
from fitting.body_files import load_body_arrays
from fitting.camera import make_intrinsics, project_points
from fitting.files import InputError
from fitting.keypoints import map_keypoints
from fitting.meshes import write_mesh
from fitting.problem import FitProblem
from fitting.skeleton import keypoint_set
from priors.mocap import load_mocap
from regressor.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from regressor.config import config_to_dict, load_config
from regressor.curves import CurveRecorder, draw_curves
from regressor.optimizers import make_optimizer
from regressor.pose2mesh.losses import (
    coordinate_loss,
    edge_loss,
    face_edges,
    joint_regressor,
    joints_of_meshes,
    normal_loss,
)
from regressor.pose2mesh.mesh_graph import build_mesh_graph
from regressor.pose2mesh.mesh_net import PUBLISHED_CHANNELS, MeshNet
from regressor.pose2mesh.network import (
    COCO19,
    MeshEstimate,
    Pose2Mesh,
    make_mesh_net,
    normalise_pose,
    predict,
    see_people,
    skeleton_graph,
)
from regressor.pose2mesh.official import from_official_state
from regressor.pose2mesh.pose_net import PoseNet
from regressor.pose2mesh.task import Pose2MeshTask
from tests.bodies import synthetic_arrays, write_body
from tests.test_mesh_graph import padded

SMALL = ((8, 6, 6), (6, 6), (5, 5), (4, 4), (4, 3))
CONFIGS = Path(__file__).resolve().parents[1] / "configs"


@pytest.fixture(scope="module")
def small_body(tmp_path_factory):
    """A body of 162 vertices whose mesh is a sphere's, so that it has neighbourhoods."""
    sphere = trimesh.creation.icosphere(subdivisions=2)
    arrays = synthetic_arrays()
    rng = np.random.default_rng(5)
    V = len(sphere.vertices)
    copies = rng.integers(0, len(arrays["v_template"]), V)
    for name in ("shapedirs", "posedirs", "weights"):
        arrays[name] = arrays[name][copies]
    regressor = rng.random((24, V)) ** 8
    arrays |= {
        "v_template": sphere.vertices * [0.3, 0.9, 0.2],
        "J_regressor": regressor / regressor.sum(1, keepdims=True),
        "f": np.asarray(sphere.faces, np.uint32),
    }
    path = write_body(tmp_path_factory.mktemp("body") / "sphere.npz", arrays)
    return Body(load_body_arrays(path)).float()


def small_network(body, seed=0):
    torch.manual_seed(seed)
    lifter = PoseNet(19, width=16, stages=1, dropout=0.0)
    return Pose2Mesh(COCO19, lifter, make_mesh_net(body, COCO19, SMALL)).eval()


def some_people(batch=3, seed=0):
    """Keypoints of random points before a camera, some unseen."""
    generator = torch.Generator().manual_seed(seed)
    image_size = torch.tensor([[640.0, 480.0]]).repeat(batch, 1)
    intrinsics = make_intrinsics(image_size, torch.full((batch,), 700.0))
    points = torch.randn(batch, 17, 3, generator=generator) * 0.5 + torch.tensor([0.4, 0.1, 5.0])
    conf = (torch.rand(batch, 17, generator=generator) > 0.2).float()
    return points, FitProblem(
        keypoint_set=keypoint_set("coco17"),
        keypoints_2d=project_points(points, intrinsics)[0],
        conf=conf,
        intrinsics=intrinsics,
        image_size=image_size,
    )


# --- What goes in -----------------------------------------------------------------------------


def test_normalised_keypoints_have_mean_zero_and_deviation_one(rng):
    xy = rng.normal(300, 50, (4, 19, 2))
    seen = rng.random((4, 19)) < 0.7
    poses = normalise_pose(
        torch.from_numpy(np.where(seen[..., None], xy, np.nan)), torch.tensor(seen)
    )
    for pose, points, which in zip(poses.numpy(), xy, seen, strict=True):
        expected = (points[which] - points[which].mean(axis=0)) / points[which].std(axis=0)
        np.testing.assert_allclose(pose[which], expected)
        assert not pose[~which].any()


def test_place_and_size_in_the_picture_do_not_matter(rng):
    xy, seen = (
        torch.from_numpy(rng.normal(300, 50, (2, 19, 2))),
        torch.ones(2, 19, dtype=torch.bool),
    )
    torch.testing.assert_close(normalise_pose(3 * xy - 70, seen), normalise_pose(xy, seen))


@pytest.mark.parametrize("count", [0, 1, 19])
def test_keypoints_without_extent_are_zero(count):
    seen = torch.arange(19)[None] < count
    assert not normalise_pose(torch.full((1, 19, 2), 200.0), seen).any()


def test_pelvis_and_neck_are_the_middles_of_hips_and_shoulders():
    _, problem = some_people()
    problem = replace(problem, conf=torch.ones_like(problem.conf))
    pose, _ = see_people(problem, COCO19)
    for name, ends in (("pelvis", "hip"), ("neck", "shoulder")):
        sides = [pose[:, COCO19.index(f"{side}_{ends}")] for side in ("left", "right")]
        torch.testing.assert_close(pose[:, COCO19.index(name)], (sides[0] + sides[1]) / 2)


def test_people_are_seen_from_straight_ahead():
    """Turning the people about the camera changes the picture, but not what the network sees."""
    points, problem = some_people(1)
    problem = replace(problem, conf=torch.ones_like(problem.conf))
    turn = torch.tensor(Rotation.from_rotvec([0.2, -0.3, 0.0]).as_matrix()).float()
    pixels = project_points(points @ turn.T, problem.intrinsics)[0]
    assert (pixels - problem.keypoints_2d).abs().min() > 100
    pose, _ = see_people(problem, COCO19)
    turned, _ = see_people(replace(problem, keypoints_2d=pixels), COCO19)
    # not to rounding: the middle of a box in the picture is not quite the same point after it
    assert (turned - pose).abs().max() < 0.2


# --- Networks ---------------------------------------------------------------------------------


def batch_norm(x, state, prefix):
    """In eval mode, features last."""
    scale = state[prefix + "weight"] / np.sqrt(state[prefix + "running_var"] + 1e-5)
    return (x - state[prefix + "running_mean"]) * scale + state[prefix + "bias"]


def linear(x, state, prefix):
    return x @ state[prefix + "weight"].T + state[prefix + "bias"]


def reference_pose_net(x, state):
    """As Martinez et al. with the norm first: y + W2 relu(norm2(W1 relu(norm1(y))))."""
    y = linear(x, state, "w1.")
    for stage in range(10):
        if f"linear_stages.{stage}.w1.weight" not in state:
            break
        prefix = f"linear_stages.{stage}."
        inner = np.maximum(batch_norm(y, state, prefix + "batch_norm1."), 0)
        inner = batch_norm(linear(inner, state, prefix + "w1."), state, prefix + "batch_norm2.")
        y = y + linear(np.maximum(inner, 0), state, prefix + "w2.")
    return linear(y, state, "w2.")


def reference_mesh_net(x, state, channels, skeleton, tree):
    """The published program's steps on one padded mesh: x (B, J, 5), dense matrices."""
    layer = 0

    def block(x, matrix, widths):
        nonlocal layer
        L = matrix.toarray()
        for _ in widths:
            basis = np.stack([x, L @ x, 2 * L @ (L @ x) - x], axis=3)  # (B, N, F, K)
            x = linear(basis.reshape(*x.shape[:2], -1), state, f"cl.{layer}.")
            if f"bn.{layer}.weight" in state:
                x = np.maximum(batch_norm(x, state, f"bn.{layer}."), 0)
            layer += 1
        return x

    x = block(x, skeleton, channels[0])
    x = linear(x.reshape(len(x), -1), state, "fc.").reshape(len(x), -1, x.shape[2])
    for level, widths in enumerate(channels[1:-1]):
        wide = functional.interpolate(torch.from_numpy(x), size=widths[-1], mode="linear").numpy()
        x = wide + block(x, tree.laplacians[-1 - level], widths)
        if level < len(tree.parents):
            x = np.repeat(x, 2, axis=1)
    return block(x, tree.laplacians[0], channels[-1])


def shaken(network, seed=0):
    """Give batch norms statistics and weights as after training; returns the state in NumPy."""
    generator = torch.Generator().manual_seed(seed)
    state = {
        name: tensor + 0.3 * torch.rand(tensor.shape, generator=generator)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in network.state_dict().items()
    }
    network.load_state_dict(state)
    return {name: tensor.double().numpy() for name, tensor in state.items()}


def test_pose_net_is_the_published_one(rng):
    net = PoseNet(19, width=12, stages=2, dropout=0.5).eval()
    state = shaken(net)
    x = rng.normal(size=(4, 38))
    expected = reference_pose_net(x, state)
    np.testing.assert_allclose(net(torch.from_numpy(x).float()).detach(), expected, rtol=1e-4)


def test_mesh_net_is_the_published_one_without_its_padding(small_body, rng):
    """Chebyshev orders, resizing, upsampling and residuals as the authors' program has them."""
    net = make_mesh_net(small_body, COCO19, SMALL).eval()
    state = shaken(net)
    graph, skeleton = mesh_graph(small_body), skeleton_graph(COCO19)
    tree = padded(graph)
    # the linear layer's rows of nodes that only the padded tree has may be anything
    x = rng.normal(size=(2, 19, 5))
    everywhere = reference_mesh_net(x, state, SMALL, skeleton, tree)
    vertices = net(torch.from_numpy(x).float()).detach()
    np.testing.assert_allclose(vertices, everywhere[:, tree.vertices], rtol=2e-3, atol=1e-4)


def mesh_graph(body, channels=SMALL):
    return build_mesh_graph(body.faces, body.num_vertices, levels=len(channels) - 3)


def test_a_padded_graph_gives_the_same_vertices(small_body):
    """Whoever has the authors' graphs can run the authors' weights."""
    ours = small_network(small_body)
    tree = padded(mesh_graph(small_body))
    theirs = from_official_state(ours.state_dict(), skeleton=skeleton_graph(COCO19), graph=tree)
    x = torch.randn(2, 19, 2, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(theirs(x).vertices, ours(x).vertices, rtol=1e-4, atol=1e-5)


def test_lifted_joints_go_on_in_metres_and_teach_by_their_own_loss(small_body):
    network = small_network(small_body).train()
    taken = []
    network.pose2mesh.register_forward_pre_hook(lambda module, inputs: taken.append(inputs[0]))
    x = torch.randn(4, 19, 2)
    estimate = network(x)
    torch.testing.assert_close(taken[0][..., :2], x)
    torch.testing.assert_close(1000 * taken[0][..., 2:], estimate.joints_mm.detach())
    estimate.vertices.square().sum().backward()
    assert all(p.grad is None for p in network.pose_lifter.parameters())
    assert all(p.grad.abs().sum() > 0 for n, p in network.pose2mesh.named_parameters() if "cl" in n)
    network(x).joints_mm.sum().backward()
    passed_by = {n for n, p in network.pose_lifter.named_parameters() if p.grad is None}
    assert passed_by == {"batch_norm1.weight", "batch_norm1.bias"}  # as in the published one
    assert not any(p.requires_grad for p in network.pose_lifter.batch_norm1.parameters())


def test_bfloat16_rounds_no_vertex_coarsely(small_body):
    """Eight bits of a coordinate near a metre would be steps of 4 to 8 mm."""
    network = small_network(small_body)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        estimate = network(torch.randn(2, 19, 2))
    for values in estimate:
        assert values.dtype == torch.float32
        assert (values != values.bfloat16().float()).float().mean() > 0.9


def test_one_body_gives_one_network(small_body):
    one, other = small_network(small_body), small_network(small_body)
    x = torch.randn(1, 19, 2)
    assert torch.equal(one(x).vertices, other(x).vertices)


@pytest.mark.parametrize(("joints", "nodes"), [(18, 4), (19, 5)])
def test_graphs_of_another_size_are_refused(small_body, joints, nodes):
    graph = mesh_graph(small_body)
    with pytest.raises(ValueError, match="must"):
        MeshNet(
            joints,
            channels=SMALL,
            coarse_nodes=nodes,
            skeleton=skeleton_graph(COCO19),
            graph=graph,
        )


# --- Published checkpoints --------------------------------------------------------------------


def published_shapes(num_joints, width, stages, channels, nodes):
    """Names and shapes as in the authors' files, from their description alone."""
    yield "pose_lifter.w1", (width, 2 * num_joints)
    norms = ["pose_lifter.batch_norm1"]
    for i in range(stages):
        stage = f"pose_lifter.linear_stages.{i}."
        yield from ((stage + name, (width, width)) for name in ("w1", "w2"))
        norms += [stage + "batch_norm1", stage + "batch_norm2"]
    yield "pose_lifter.w2", (3 * num_joints, width)
    yield from ((norm, (width,)) for norm in norms)
    flat = [5, *(w for block in channels for w in block)]
    node_width = channels[0][-1]
    yield "pose2mesh.fc", (nodes * node_width, num_joints * node_width)
    for i, (inputs, outputs) in enumerate(pairwise(flat)):
        yield f"pose2mesh.cl.{i}", (outputs, 3 * inputs)
        if i < len(flat) - 2:
            yield f"pose2mesh.bn.{i}", (outputs,)


def random_state(shapes, seed=0):
    """Tensors of linear layers (two dimensions) and batch norms (one)."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes:
        names = ("weight", "bias", "running_mean", "running_var")[: 4 if len(shape) == 1 else 2]
        for part in names:
            size = shape if part != "bias" else shape[:1]
            state[f"{name}.{part}"] = torch.rand(size, generator=generator)
        if len(shape) == 1:
            state[f"{name}.num_batches_tracked"] = torch.tensor(7)
    return state


CHANNELS_3 = ((8, 6, 6), (7, 6), (6, 5), (4, 3))


def made_up_state():
    return random_state(published_shapes(17, 16, 2, CHANNELS_3, 12))


def test_a_made_up_published_file_loads_by_key(tmp_path):
    state = made_up_state()
    path = tmp_path / "final.pth.tar"
    torch.save({"epoch": 15, "model_state_dict": state}, path)
    network = load_checkpoint(path)
    assert not network.training
    assert network.keypoint_set.name == "h36m17"
    loaded = network.state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())
    x = torch.randn(3, 34)
    expected = reference_pose_net(
        x.double().numpy(),
        {k.removeprefix("pose_lifter."): v.double().numpy() for k, v in state.items()},
    )
    np.testing.assert_allclose(network.pose_lifter(x), expected, rtol=1e-4)


def test_a_published_mesh_net_says_what_it_lacks():
    network = from_official_state(made_up_state())
    with pytest.raises(RuntimeError, match="skeleton and graph that it was trained with"):
        network(torch.zeros(1, 17, 2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("pose_lifter.w1.weight"), "pose_lifter.w1.weight is missing"),
        (lambda s: s.pop("pose2mesh.bn.2.bias"), "1 tensors are .* such as pose2mesh.bn.2.bias"),
        (lambda s: s.update({"smpl.faces": torch.zeros(3)}), "such as smpl.faces"),
        (lambda s: s.update({"pose2mesh.fc.bias": torch.zeros(3)}), "such as pose2mesh.fc.bias"),
        (lambda s: s.pop("pose2mesh.cl.3.weight"), "Pose2Mesh checkpoint"),
        (lambda s: s.pop("pose2mesh.fc.weight"), "Pose2Mesh checkpoint"),
        (lambda s: s.update({"pose_lifter.w1.weight": torch.zeros(3)}), "w1.weight is missing"),
    ],
)
def test_tensors_that_do_not_fit_are_named(change, message):
    state = made_up_state()
    change(state)
    with pytest.raises(InputError, match=message):
        from_official_state(state)


@pytest.mark.shared
def test_the_published_layout_loads(shared):
    layout = shared / "reference" / "checkpoint_layouts" / "pose2mesh.json"
    state = {
        name: torch.rand(shape) if kind == "float32" else torch.tensor(1)
        for name, shape, kind in json.loads(layout.read_text())["tensors"]
    }
    network = from_official_state(state)
    loaded = network.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())
    assert network.pose_lifter(torch.randn(2, 38)).shape == (2, 57)
    assert network.keypoint_set is COCO19


@pytest.mark.shared
def test_the_default_sizes_are_the_published_ones(shared, body):
    """All but the linear layer onto the coarsest mesh, which has as many nodes as the body's."""
    layout = shared / "reference" / "checkpoint_layouts" / "pose2mesh.json"
    expected = {name: tuple(shape) for name, shape, _ in json.loads(layout.read_text())["tensors"]}
    with torch.device("meta"):
        lifter = PoseNet(19, width=4096, stages=2, dropout=0.5)
        mesh_net = MeshNet(19, channels=PUBLISHED_CHANNELS, coarse_nodes=96)
    network = Pose2Mesh(COCO19, lifter, mesh_net)
    assert {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()} == expected
    ours = make_mesh_net(body, COCO19, PUBLISHED_CHANNELS).state_dict()
    differing = {n for n, t in ours.items() if tuple(t.shape) != expected[f"pose2mesh.{n}"]}
    assert differing == {"fc.weight", "fc.bias"}


# --- Losses -----------------------------------------------------------------------------------


def tetrahedron():
    """Corner of a cube: three right angles, edges of 1 and sqrt 2."""
    vertices = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]], dtype=torch.float64)
    return vertices, torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])


def test_losses_of_the_truth_are_zero(small_body):
    edges = face_edges(small_body.v_template[None], small_body.faces)
    assert normal_loss(edges, edges) < 1e-6
    assert edge_loss(edges, edges) == 0


def test_edge_loss_of_a_scaled_body_is_the_mean_change_of_length():
    vertices, faces = tetrahedron()
    change = edge_loss(face_edges(1.1 * vertices, faces), face_edges(vertices, faces))
    # twelve sides of faces: each of the six edges twice
    assert change == pytest.approx(0.1 * (3 + 3 * 2**0.5) / 6)


def test_normal_loss_of_a_turned_triangle_is_a_sine():
    """Turned by an angle about one of its edges, the two others leave the plane; about its normal
    it stays in it."""
    vertices, faces = tetrahedron()
    face = faces[1:2]  # in the plane y = 0, normal along y; edges along x, diagonal, z
    edges = face_edges(vertices, face)
    turned = {
        axis: face_edges(
            vertices @ torch.from_numpy(Rotation.from_euler(axis, 0.3).as_matrix()).T, face
        )
        for axis in "xy"
    }
    assert normal_loss(turned["y"], edges) < 1e-7
    sine = np.sin(0.3)  # z leaves by the full sine, the diagonal by its share along z, x not at all
    assert normal_loss(turned["x"], edges) == pytest.approx(sine * (0 + 0.5**0.5 + 1) / 3)


def test_normals_are_trimeshs(small_body, rng):
    """With directions known, the loss is the mean of |edge . face normal|."""
    truth = small_body.v_template.numpy().astype(np.float64)
    guess = truth + rng.normal(0, 0.02, truth.shape)
    mesh = trimesh.Trimesh(truth, small_body.faces.numpy(), process=False)
    corners = guess[mesh.faces]
    edges = np.roll(corners, -1, axis=1) - corners
    edges /= np.linalg.norm(edges, axis=2, keepdims=True)
    expected = np.abs(np.einsum("fec,fc->fe", edges, mesh.face_normals)).mean()
    found = normal_loss(
        face_edges(torch.from_numpy(guess)[None], small_body.faces),
        face_edges(torch.from_numpy(truth)[None], small_body.faces),
    )
    assert found == pytest.approx(expected)


def test_gradients_of_losses_match_finite_differences(rng):
    vertices, faces = tetrahedron()
    truth = face_edges(vertices, faces)
    guess = (vertices + torch.from_numpy(rng.normal(0, 0.1, vertices.shape))).requires_grad_()
    for loss in (normal_loss, edge_loss):
        assert torch.autograd.gradcheck(lambda v, f=loss: f(face_edges(v, faces), truth), guess)


@pytest.mark.parametrize("loss", [normal_loss, edge_loss])
def test_faces_without_area_have_gradients(loss):
    faces = torch.tensor([[0, 1, 2]])
    flat = torch.zeros(1, 3, 3, requires_grad=True)
    value = loss(face_edges(flat, faces), face_edges(torch.zeros(1, 3, 3), faces))
    value.backward()
    assert value < 1e-6
    assert flat.grad.isfinite().all()


def test_coordinate_loss_is_the_mean_absolute_difference_of_each_person():
    points = torch.tensor([0.25, 0.5]).view(2, 1, 1).expand(2, 5, 3)
    assert coordinate_loss(points, torch.zeros(2, 5, 3)).tolist() == [0.25, 0.5]


@pytest.mark.parametrize("name", ["coco17", "smpl24", "lsp14"])
def test_joints_of_a_mesh_at_rest_are_the_bodys(body, name):
    betas = torch.randn(2, 10, generator=torch.Generator().manual_seed(0))
    posed = body(torch.zeros(2, 3), torch.zeros(2, 69), betas)
    keypoints = map_keypoints(body, keypoint_set(name))
    found = joint_regressor(body, keypoints.keypoint_set) @ posed.vertices
    torch.testing.assert_close(found, keypoints(posed), atol=1e-5, rtol=0)


def test_joints_of_meshes_are_weighted_sums(rng):
    regressor, vertices = rng.random((4, 9)), rng.normal(size=(3, 9, 3))
    expected = np.einsum("pv,bvc->bpc", regressor, vertices)
    found = joints_of_meshes(torch.from_numpy(regressor), torch.from_numpy(vertices))
    np.testing.assert_allclose(found, expected)


# --- Training and use -------------------------------------------------------------------------


def small_config(name="pose2mesh", *overrides):
    sizes = (
        "network.pose_width=32",
        "network.mesh_channels=[[8,8,8],[16,16],[8,8],[8,3]]",
        "training.batch_size=16",
        "training.precision=float32",
    )
    return load_config(CONFIGS / f"{name}.yaml", (*sizes, *overrides))


@pytest.fixture(scope="module")
def few_poses():
    """Three of each subject's poses."""
    poses = load_mocap()
    _, first = np.unique(poses.subject, return_index=True)
    return poses.select((first[:, None] + np.arange(0, 30, 10)).ravel())


@pytest.fixture(scope="module")
def make_task(small_body, few_poses):
    return lambda config: Pose2MeshTask(config, small_body, few_poses)


@pytest.fixture(scope="module")
def task(make_task):
    return make_task(small_config())


def save(task, path):
    saved = Checkpoint(
        architecture=task.name,
        config=config_to_dict(task.config),
        metrics={},
        body_sha256=task.body_sha256,
        model=task.network.state_dict(),
    )
    save_checkpoint(path, saved)
    return path


@pytest.mark.parametrize("name", ["pose2mesh_posenet", "pose2mesh"])
def test_some_steps_of_the_published_configs_lower_the_loss(name, make_task):
    task = make_task(small_config(name, "network.dropout=0"))
    batch, network = task.batch(0), task.network.train()
    optimizer = make_optimizer(task.config.training.optimizer, network.named_parameters())
    values = []
    for _ in range(60):
        losses = task.losses(network, batch)
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        values.append(float(losses["loss"].detach()))
    assert values[-1] < 0.85 * values[0]
    assert (network.pose2mesh is None) == (name == "pose2mesh_posenet")


def test_a_batch_follows_from_its_number_alone(task):
    first, again, other = task.batch(5), task.batch(5), task.batch(6)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["pose_2d"], other["pose_2d"])


@pytest.mark.parametrize("axis", [0, 1])
def test_truth_lies_where_the_network_sees_it(axis, body, few_poses):
    """Exact keypoints, but for perspective, are the truth's x and y shifted and scaled."""
    exact = {"exact": 1, "missing": 0, "wrong": 0, "cut": 0, "swapped": 0}
    settings = [f"data.detection.{name}={share}" for name, share in exact.items()]
    task = Pose2MeshTask(small_config("pose2mesh_posenet", *settings), body, few_poses)
    batch = task.make_batch(task.stream.people(0, 64))
    pairs = zip(batch["pose_2d"][..., axis], batch["keypoints"][..., axis], strict=True)
    alike = [float(torch.corrcoef(torch.stack(pair))[0, 1]) for pair in pairs]
    assert np.median(alike) > 0.99


def test_true_mesh_and_lifted_truth_are_the_same_people(body, few_poses):
    """Points of the skin are weighted sums of vertices, also in motion."""
    task = Pose2MeshTask(small_config("pose2mesh_posenet"), body, few_poses)
    batch = task.make_batch(task.stream.people(0, 4))
    on_mesh = task.mesh_joints @ task._true_mesh(batch)
    for name in ("nose", "left_wrist", "right_ankle"):
        i = COCO19.index(name)
        torch.testing.assert_close(on_mesh[:, i], batch["keypoints"][:, i], atol=1e-5, rtol=0)


def test_edges_count_from_their_batch_on(task):
    batch = task.batch(0)
    late = {**batch, "number": batch["number"] + task.config.loss.edge_from}
    network = task.network.eval()
    before, after = (task.losses(network, b) for b in (batch, late))
    expected = task.config.loss.edge * before["edge"]
    torch.testing.assert_close(after["loss"] - before["loss"], expected, rtol=1e-4, atol=0)


def test_evaluation_of_the_truth_finds_no_error(task):
    """A stand-in network that knows the answer, whatever it is asked."""

    class Oracle(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.anything = torch.nn.Parameter(torch.zeros(1))
            self.batches = iter(truths)

        def forward(self, pose_2d):
            return next(self.batches)

    whole = task.make_batch(task.validation.people(0, 512))
    rows = [{k: v[i : i + 16] for k, v in whole.items()} for i in range(0, 512, 16)]
    truths = [MeshEstimate(task._true_mesh(r), 1000 * r["keypoints"]) for r in rows]
    metrics = task.evaluate(Oracle())
    assert metrics.keys() == {"lifted_mpjpe_mm", "mpjpe_mm", "pa_mpjpe_mm", "pve_mm"}
    assert max(metrics.values()) < 1e-2


def test_predictions_survive_saving(task, small_body, tmp_path):
    path = save(task, tmp_path / "best.pt")
    _, problem = some_people()
    before = predict(task.network.eval(), problem)
    assert torch.equal(before, predict(load_checkpoint(path, body=small_body), problem))


def test_the_second_stage_takes_the_first_ones_lifter(make_task, tmp_path):
    first = make_task(small_config("pose2mesh_posenet", "seed=7"))
    path = save(first, tmp_path / "best.pt")
    second = make_task(small_config("pose2mesh", f"posenet={path}"))
    weights = second.network.pose_lifter.state_dict()
    expected = first.network.pose_lifter.state_dict()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    with pytest.raises(InputError, match="of another size"):
        make_task(small_config("pose2mesh", f"posenet={path}", "network.pose_width=33"))


@pytest.mark.parametrize("name", ["pose2mesh", "pose2mesh_small"])
def test_the_stages_of_a_config_fit_together(name):
    second = load_config(CONFIGS / f"{name}.yaml")
    first = load_config(CONFIGS / f"{name}_posenet.yaml")
    assert (first.stage, second.stage) == ("posenet", "whole")
    assert first.data == second.data
    channels = first.network.mesh_channels  # of no meaning there
    assert replace(second.network, mesh_channels=channels) == first.network


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("network.mesh_channels=[[8,8,8],[8,8],[8,4]]", "must end in 3"),
        ("network.mesh_channels=[[8,3]]", "three or more blocks"),
        ("network.keypoint_set=coco18", "did you mean coco17"),
        ("network.dropout=1", "dropout < 1"),
        ("loss.edges=1", "did you mean loss.edge"),
        ("stage=posnet", "stage"),
    ],
)
def test_settings_that_mean_nothing_are_refused(override, message):
    with pytest.raises(InputError, match=message):
        small_config("pose2mesh", override)


def test_a_lifter_has_no_earlier_lifter():
    with pytest.raises(InputError, match="posenet has no effect"):
        small_config("pose2mesh_posenet", "posenet=a.pt")


def test_meshes_turn_back_into_the_pictures_frame(small_body):
    network = small_network(small_body)
    _, problem = some_people()
    vertices = predict(network, problem)
    assert vertices.shape == (3, small_body.num_vertices, 3)
    pose, rotation = see_people(problem, COCO19)
    torch.testing.assert_close(vertices @ rotation.mT, network(pose).vertices.detach())


def test_a_predicted_mesh_is_written_as_obj(small_body, tmp_path):
    _, problem = some_people(1)
    vertices = predict(small_network(small_body), problem)[0]
    path = write_mesh(tmp_path / "person.obj", vertices, small_body.faces, frame="camera")
    mesh = trimesh.load(path, process=False)
    np.testing.assert_allclose(mesh.vertices, vertices, atol=1e-7)
    np.testing.assert_array_equal(mesh.faces, small_body.faces)


def test_networks_that_cannot_predict_say_why(small_body):
    _, problem = some_people()
    network = small_network(small_body)
    network.keypoint_set = None
    with pytest.raises(ValueError, match="keypoint set is unknown"):
        predict(network, problem)
    with pytest.raises(ValueError, match="only lifts"):
        predict(Pose2Mesh(COCO19, network.pose_lifter, None), problem)


def test_curves_appear_with_the_second_evaluation(task, make_task):
    fresh = make_task(replace(task.config, stage="posenet"))
    network = fresh.network
    for number in range(2):
        fresh.losses(network.train(), fresh.batch(number))
        with torch.no_grad():
            fresh.evaluate(network.eval())
        assert len(fresh.pictures(network)) == number
    picture = fresh.pictures(network)["curves"]
    assert picture.dtype == np.uint8
    assert picture.shape == (400, 1000, 3)


def test_points_are_means_of_the_losses_since_the_last_one():
    recorder = CurveRecorder()
    recorder.mark({"mpjpe_mm": 9.0})  # before any training there is nothing to draw
    for number, loss in ((0, 1.0), (1, 3.0), (2, 7.0)):
        recorder.add({"loss": torch.tensor(loss)}, torch.tensor(number))
        if number > 0:
            recorder.mark({"mpjpe_mm": 5.0})
    assert recorder.points == [
        {"batch": 1.0, "loss": 2.0, "mpjpe_mm": 5.0},
        {"batch": 2.0, "loss": 7.0, "mpjpe_mm": 5.0},
    ]


def test_a_rising_curve_rises():
    """The line's pixels, by their colour, in the panel of errors."""
    points = [{"batch": i, "a_mm": 10.0 * i} for i in range(5)]
    picture = draw_curves(points, across="batch").astype(int)
    blue = np.abs(picture - [31, 119, 180]).sum(axis=2) < 30  # matplotlib's first colour
    rows, columns = np.nonzero(blue[60:])  # below the legend
    assert columns.min() > 500
    assert np.corrcoef(columns, rows)[0, 1] < -0.95
