"""Losses of image regressors: against slow loops, OpenCV and finite differences."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import roma
import torch

from fitting.body import Body, load_body
from fitting.body_files import load_body_arrays
from fitting.camera import transl_to_weak
from fitting.keypoint_body import KeypointBody
from fitting.keypoints import map_keypoints
from fitting.skeleton import keypoint_set
from regressor.heads import ImageEstimate
from regressor.image_losses import LOSSES, ImageLossConfig, image_loss_sum, image_losses
from tests.bodies import synthetic_arrays, write_body

NOTHING = dict.fromkeys(LOSSES, 0.0)
ALL = ImageLossConfig(**dict.fromkeys(LOSSES, 1.0))
MASKED_BY = {  # which flag says whose truth is known
    "joints": "has_joints",
    "parts": "has_parts",
    **dict.fromkeys(("keypoints_2d", "camera"), "conf"),
    **dict.fromkeys(
        ("rotations", "global_orient", "body_pose", "hands", "betas", "location"), "has_params"
    ),
    **dict.fromkeys(("vertices", "normals", "edges"), "has_params"),
}
B = 6


@pytest.fixture(scope="module")
def small_body(tmp_path_factory):
    """80 random vertices, in double precision."""
    path = write_body(tmp_path_factory.mktemp("body") / "small.npz", synthetic_arrays())
    return Body(load_body_arrays(path)).double()


@pytest.fixture(scope="module")
def keypoint_body(small_body):
    return KeypointBody(small_body, map_keypoints(small_body, keypoint_set("smpl24")))


def random_rotations(generator, *shape):
    vectors = torch.randn(*shape, 3, generator=generator, dtype=torch.float64)
    return roma.rotvec_to_rotmat(vectors)


def some_people(seed=0, size=B, parts=(5, 4)):
    """Estimates with gradients, and truth of some of them, before cameras with fx unlike fy."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    estimate = ImageEstimate(
        pose_rotmat=random_rotations(g, size, 24).requires_grad_(),
        betas=normal(size, 10).requires_grad_(),
        weak_cam=(normal(size, 3) * 0.1 + torch.tensor([0.9, 0.1, -0.2])).requires_grad_(),
        part_segmentation=normal(size, 25, *parts).requires_grad_(),
    )
    intrinsics = torch.tensor([[900.0, 0, 310], [0, 800, 250], [0, 0, 1]]).double()
    crop = normal(size, 3) * 20 + torch.tensor([330.0, 240, 200])
    conf = torch.rand(size, 24, generator=g, dtype=torch.float64)
    flags = (torch.rand(4, size, generator=g) < 0.6).double()
    flags[:, 0], flags[:, 1] = (
        1,
        0,
    )  # there is always somebody, and somebody of whom nothing is known
    batch = {
        "crop": crop,
        "intrinsics": intrinsics.expand(size, 3, 3).clone(),
        "keypoints_2d": crop[:, None, :2] + normal(size, 24, 2) * 60,
        "conf": conf * (conf > 0.4) * flags[0][:, None],
        "joints": normal(size, 24, 3) * 0.4,
        "has_joints": flags[1],
        "pose_rotmat": random_rotations(g, size, 24),
        "betas": normal(size, 10),
        "transl": normal(size, 3) * 0.2 + torch.tensor([0.0, 0, 9]),
        "has_params": flags[2],
        "parts": torch.randint(25, (size, *parts), generator=g),
        "has_parts": flags[3],
    }
    return estimate, batch


def only(name, weight=1.0, **settings):
    return ImageLossConfig(**{**NOTHING, name: weight, **settings})


def gradients(estimate):
    return [part.grad for part in estimate if part is not None and part.grad is not None]


def people_of(flag, batch):
    known = batch["conf"].amax(dim=1) if flag == "conf" else batch[flag]
    return torch.nonzero(known > 0)[:, 0].tolist()


NORMS = {
    "l1": abs,
    "l2": lambda e: e**2,
    "robust": lambda e: e**2 * 0.3**2 / (e**2 + 0.3**2),
}


# --- Values ----------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", NORMS)
def test_reprojection_is_opencvs(small_body, keypoint_body, norm):
    """Joints of `Body.forward`, seen by OpenCV's camera from where CLIFF's eq. 4 puts the body."""
    estimate, batch = some_people()
    config = only("keypoints_2d", keypoint_norm=norm, keypoint_scale=0.3)
    loss = image_losses(estimate, batch, small_body, keypoint_body, config)["keypoints_2d"]
    total, count = 0.0, 0
    rotvec = roma.rotmat_to_rotvec(estimate.pose_rotmat.detach())
    posed = small_body(rotvec[:, 0], rotvec[:, 1:].flatten(1), estimate.betas.detach())
    for i in range(B):
        K, (cx, cy, side) = batch["intrinsics"][i].numpy(), batch["crop"][i].numpy()
        s, tx, ty = estimate.weak_cam[i].detach().numpy()
        depth = 2 * K[0, 0] / (s * side)
        x, y = tx + (cx - K[0, 2]) * depth / K[0, 0], ty + (cy - K[1, 2]) * depth / K[1, 1]
        points = posed.joints[i].numpy() + np.array([x, y, depth])
        pixels = cv2.projectPoints(points, np.zeros(3), np.zeros(3), K, None)[0][:, 0]
        for p in range(24):
            conf = batch["conf"][i, p].item()
            if conf > 0:
                errors = (pixels[p] - batch["keypoints_2d"][i, p].numpy()) / (side / 2)
                total += conf * sum(NORMS[norm](e) for e in errors) / 2
                count += 1
    assert 0 < count < 24 * B
    assert loss.item() == pytest.approx(total / count)


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_joints_are_relative_to_the_pelvis(small_body, keypoint_body, norm):
    estimate, batch = some_people(1)
    config = only("joints", joint_norm=norm)
    loss = image_losses(estimate, batch, small_body, keypoint_body, config)["joints"]
    joints = small_body.pose(estimate.pose_rotmat, estimate.betas).joints.detach()
    expected = [
        np.mean([NORMS[norm](e) for e in (joints[i] - joints[i, 0] - batch["joints"][i]).flatten()])
        for i in people_of("has_joints", batch)
    ]
    assert loss.item() == pytest.approx(np.mean(expected))


@pytest.mark.parametrize(
    ("name", "joints"),
    [
        ("rotations", range(24)),
        ("global_orient", [0]),
        ("body_pose", range(1, 22)),
        ("hands", [22, 23]),
    ],
)
def test_rotations_by_group(small_body, keypoint_body, name, joints):
    """|R - R*|^2 = 4 (1 - cos a) = 8 sin(a / 2)^2 over the nine entries, a the angle between."""
    estimate, batch = some_people(2)
    loss = image_losses(estimate, batch, small_body, keypoint_body, only(name))[name]
    angle = roma.rotmat_geodesic_distance(estimate.pose_rotmat, batch["pose_rotmat"]).detach()
    people = people_of("has_params", batch)
    expected = (8 * (angle / 2).sin().square() / 9)[people][:, list(joints)].mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_shape(small_body, keypoint_body):
    estimate, batch = some_people(3)
    loss = image_losses(estimate, batch, small_body, keypoint_body, only("betas"))["betas"]
    people = people_of("has_params", batch)
    squared = [
        (estimate.betas[i, k] - batch["betas"][i, k]).item() ** 2 for i in people for k in range(10)
    ]
    assert loss.item() == pytest.approx(np.mean(squared))


def test_location_is_right_at_the_true_translation(small_body, keypoint_body):
    estimate, batch = some_people(4)
    weak = transl_to_weak(batch["transl"], batch["crop"], batch["intrinsics"])
    off = estimate._replace(weak_cam=weak + torch.tensor([0.3, 0, -0.6], dtype=torch.float64))
    for people, expected in ((estimate._replace(weak_cam=weak), 0.0), (off, (0.09 + 0.36) / 3)):
        loss = image_losses(people, batch, small_body, keypoint_body, only("location"))
        assert loss["location"].item() == pytest.approx(expected, abs=1e-12)


def test_location_without_true_translations_is_refused(small_body, keypoint_body):
    estimate, batch = some_people()
    del batch["transl"]
    with pytest.raises(ValueError, match=r"transl \(B, 3\).*set location to 0"):
        image_losses(estimate, batch, small_body, keypoint_body, only("location"))


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_vertices_are_body_forwards(keypoint_body, norm):
    """The bundled body posed by axis-angles, person by person, in double precision."""
    body = load_body(dtype=torch.float64)
    estimate, batch = some_people(5, size=3)
    config = only("vertices", vertex_norm=norm)
    loss = image_losses(estimate, batch, body, keypoint_body, config)["vertices"]
    expected = []
    for i in people_of("has_params", batch):
        meshes = []
        for pose, betas in (
            (estimate.pose_rotmat[i], estimate.betas[i]),
            (batch["pose_rotmat"][i], batch["betas"][i]),
        ):
            rotvec = roma.rotmat_to_rotvec(pose.detach())[None]
            posed = body(rotvec[:, 0], rotvec[:, 1:].flatten(1), betas.detach()[None])
            meshes.append((posed.vertices[0] - posed.joints[0, 0]).numpy())
        expected.append(NORMS[norm](meshes[0] - meshes[1]).mean())
    assert loss.item() == pytest.approx(np.mean(expected), rel=1e-6)


def test_normals_and_edges_by_faces(small_body, keypoint_body):
    estimate, batch = some_people(6)
    config = replace(only("normals"), edges=1.0)
    losses = image_losses(estimate, batch, small_body, keypoint_body, config)
    assert set(losses) == {"normals", "edges"}
    meshes = [
        small_body.pose(*(x.detach() for x in pair)).vertices.numpy()
        for pair in (
            (estimate.pose_rotmat, estimate.betas),
            (batch["pose_rotmat"], batch["betas"]),
        )
    ]
    sines, lengths = [], []
    for i in people_of("has_params", batch):
        for face in small_body.faces.numpy():
            a, b = (mesh[i][face] for mesh in meshes)
            normal = np.cross(b[1] - b[0], b[2] - b[0])
            size = np.linalg.norm(normal)
            for k in range(3):
                edge, true_edge = a[(k + 1) % 3] - a[k], b[(k + 1) % 3] - b[k]
                length, true_length = np.linalg.norm(edge), np.linalg.norm(true_edge)
                lengths.append(abs(length - true_length))
                sines.append(abs(edge @ normal) / (length * size) if length * size > 0 else 0.0)
    assert losses["normals"].item() == pytest.approx(np.mean(sines))
    # an edge from a vertex to itself counts as long as 1e-8 of a metre
    assert losses["edges"].item() == pytest.approx(np.mean(lengths), rel=1e-6)


def test_parts_pixel_by_pixel(small_body, keypoint_body):
    estimate, batch = some_people(7)
    loss = image_losses(estimate, batch, small_body, keypoint_body, only("parts"))["parts"]
    logits = estimate.part_segmentation.detach().numpy()
    nats = [
        np.log(np.exp(logits[i, :, y, x]).sum()) - logits[i, batch["parts"][i, y, x], y, x]
        for i in people_of("has_parts", batch)
        for y in range(5)
        for x in range(4)
    ]
    assert loss.item() == pytest.approx(np.mean(nats))


def test_parts_need_a_head_and_its_size(small_body, keypoint_body):
    estimate, batch = some_people()
    without = estimate._replace(part_segmentation=None)
    with pytest.raises(ValueError, match="part_attention, or set parts to 0"):
        image_losses(without, batch, small_body, keypoint_body, only("parts"))
    batch["parts"] = batch["parts"][:, :3]
    with pytest.raises(ValueError, match=r"head's \(5, 4\) pixels, got \(3, 4\)"):
        image_losses(estimate, batch, small_body, keypoint_body, only("parts"))


def test_the_camera_is_pushed_forward(small_body, keypoint_body):
    estimate, batch = some_people(8)
    batch["conf"] = torch.ones_like(batch["conf"])
    loss = image_losses(estimate, batch, small_body, keypoint_body, only("camera"))["camera"]
    assert loss.item() == pytest.approx(
        np.exp(-20 * estimate.weak_cam.detach().numpy()[:, 0]).mean()
    )
    loss.backward()
    assert (estimate.weak_cam.grad[:, 0] < 0).all()


@pytest.mark.parametrize("scale", [0.0, -0.3, -6.0, -1e4])
def test_people_behind_the_camera_leave_everything_finite(small_body, keypoint_body, scale):
    estimate, batch = some_people(9)
    batch["conf"] = torch.ones_like(batch["conf"])
    with torch.no_grad():
        estimate.weak_cam[2, 0] = scale
    config = replace(only("keypoints_2d"), camera=1.0)
    losses = image_losses(estimate, batch, small_body, keypoint_body, config)
    image_loss_sum(losses, config).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert all(gradient.isfinite().all() for gradient in gradients(estimate))
    assert estimate.weak_cam.grad[2, 0] < -1


def test_far_behind_the_camera_the_loss_is_a_line(small_body, keypoint_body):
    """Published down to a scale of -0.5, and its tangent there below: 20 e^10 for each unit."""
    found = {}
    for scale in (-0.499, -0.5, -0.501, -3.5):
        estimate, batch = some_people(9)
        batch["conf"] = torch.ones_like(batch["conf"])
        with torch.no_grad():
            estimate.weak_cam[:, 0] = scale
        losses = image_losses(estimate, batch, small_body, keypoint_body, only("camera"))
        found[scale] = losses["camera"].item()
    assert found[-0.499] == pytest.approx(np.exp(9.98), rel=1e-4)
    assert found[-0.5] == pytest.approx(np.exp(10), rel=1e-4)
    assert found[-0.501] == pytest.approx(np.exp(10) * 1.02, rel=1e-4)
    assert found[-3.5] == pytest.approx(np.exp(10) * 61, rel=1e-4)


def test_points_that_the_body_lacks_do_not_count(small_body):
    """The small body has no landmarks: of COCO's points it defines limbs alone."""
    coco = KeypointBody(small_body, map_keypoints(small_body, keypoint_set("coco17")))
    assert 0 < coco.defined.sum() < 17
    estimate, batch = some_people(10)
    batch["conf"], batch["keypoints_2d"] = batch["conf"][:, :17], batch["keypoints_2d"][:, :17]
    first = image_losses(estimate, batch, small_body, coco, only("keypoints_2d"))
    batch["conf"] = batch["conf"] * coco.defined
    second = image_losses(estimate, batch, small_body, coco, only("keypoints_2d"))
    assert first["keypoints_2d"] == second["keypoints_2d"] > 0


# --- Masks and gradients ---------------------------------------------------------------------


@pytest.mark.parametrize(("rubbish", "seed"), [(torch.nan, 0), (torch.inf, 1), (1e30, 2)])
def test_what_is_not_known_has_no_influence(small_body, keypoint_body, rubbish, seed):
    """Truth and cameras of masked people may be anything: value and gradient are the same bits."""
    results = []
    for fill in (0.0, rubbish):
        estimate, batch = some_people(seed)
        for flag, names in (
            ("has_joints", ("joints",)),
            ("has_params", ("pose_rotmat", "betas", "transl")),
        ):
            for name in names:
                batch[name][batch[flag] == 0] = fill
        batch["keypoints_2d"][batch["conf"] == 0] = fill
        nobody = (batch["conf"].amax(dim=1) == 0) & (batch["has_params"] == 0)
        assert nobody[1]
        batch["crop"][nobody], batch["intrinsics"][nobody] = fill, fill
        losses = image_losses(estimate, batch, small_body, keypoint_body, ALL)
        image_loss_sum(losses, ALL).backward()
        results.append((losses, gradients(estimate)))
    (losses, grads), (others, other_grads) = results
    assert all(torch.equal(losses[name], others[name]) for name in LOSSES)
    assert all(torch.equal(a, b) for a, b in zip(grads, other_grads, strict=True))
    assert all(a.isfinite().all() for a in grads)


@pytest.mark.parametrize("name", LOSSES)
def test_estimates_of_masked_people_get_no_gradient(small_body, keypoint_body, name):
    """Even where the network says NaN, or that a person is infinitely far."""
    estimate, batch = some_people(11)
    masked = [i for i in range(B) if i not in people_of(MASKED_BY[name], batch)]
    assert masked
    clean = image_losses(estimate, batch, small_body, keypoint_body, only(name))[name]
    with torch.no_grad():
        for part in estimate:
            if part is not None:
                part[masked] = torch.nan
    loss = image_losses(estimate, batch, small_body, keypoint_body, only(name))[name]
    loss.backward()
    assert torch.equal(loss, clean)
    assert loss > 0
    for gradient in gradients(estimate):
        assert not gradient[masked].any()
        assert gradient.isfinite().all()
    assert any(gradient.any() for gradient in gradients(estimate))


@pytest.mark.parametrize("size", [0, 4])
def test_nobody_known_is_zero_with_zero_gradient(small_body, keypoint_body, size):
    estimate, batch = some_people(size=max(size, 2))
    estimate = ImageEstimate(*(x if x is None else x[:size] for x in estimate))
    batch = {name: value[:size] for name, value in batch.items()}
    for name in ("conf", "has_joints", "has_params", "has_parts"):
        batch[name] = torch.zeros_like(batch[name])
    leaves = [x.detach().requires_grad_() for x in estimate if x is not None]
    losses = image_losses(ImageEstimate(*leaves), batch, small_body, keypoint_body, ALL)
    assert all(loss == 0 for loss in losses.values())
    image_loss_sum(losses, ALL).backward()
    assert not any(leaf.grad.any() for leaf in leaves)


@pytest.mark.parametrize(
    "config",
    [
        *(only(name) for name in LOSSES if name not in ("vertices", "normals", "edges")),
        only("keypoints_2d", keypoint_norm="l1"),
        only("keypoints_2d", keypoint_norm="robust"),
        only("joints", joint_norm="l1"),
        only("vertices"),
        only("vertices", vertex_norm="l2"),
        replace(only("normals"), edges=0.5),
    ],
    ids=lambda config: "+".join(sorted(config.wanted)),
)
def test_gradients_match_finite_differences(small_body, keypoint_body, config):
    """Along random directions of everything that the network says."""
    estimate, batch = some_people(12, size=3)
    leaves = [x.detach() for x in estimate if x is not None]

    def value(*parts):
        losses = image_losses(ImageEstimate(*parts), batch, small_body, keypoint_body, config)
        return image_loss_sum(losses, config)

    inputs = [leaf.clone().requires_grad_() for leaf in leaves]
    slopes = torch.autograd.grad(value(*inputs), inputs, allow_unused=True)
    g = torch.Generator().manual_seed(0)
    for _ in range(3):
        ways = [torch.randn(x.shape, generator=g, dtype=x.dtype) for x in leaves]
        step = 1e-6
        ends = [
            value(*(x + sign * step * way for x, way in zip(leaves, ways, strict=True)))
            for sign in (1, -1)
        ]
        slope = sum((s * w).sum() for s, w in zip(slopes, ways, strict=True) if s is not None)
        # l1's kinks within a step are what the absolute tolerance is for
        assert slope.item() == pytest.approx((ends[0] - ends[1]).item() / 2e-6, rel=1e-4, abs=1e-7)


# --- Sums, settings, precision ---------------------------------------------------------------


def test_the_sum_is_weighted_and_unwanted_losses_are_not_there(small_body, keypoint_body):
    estimate, batch = some_people(13)
    config = ImageLossConfig(**{**NOTHING, "joints": 3.0, "betas": 0.5, "parts": 2.0})
    losses = image_losses(estimate, batch, small_body, keypoint_body, config)
    assert set(losses) == {"joints", "betas", "parts"}
    expected = 3 * losses["joints"] + 0.5 * losses["betas"] + 2 * losses["parts"]
    assert image_loss_sum(losses, config).item() == pytest.approx(expected.item())


def test_no_mesh_is_posed_unless_asked_for(small_body, keypoint_body, monkeypatch):
    calls = []
    pose = small_body.pose
    monkeypatch.setattr(small_body, "pose", lambda *args: calls.append(1) or pose(*args))
    estimate, batch = some_people()
    without = replace(ALL, vertices=0.0, normals=0.0, edges=0.0)
    image_losses(estimate, batch, small_body, keypoint_body, without)
    assert not calls
    image_losses(estimate, batch, small_body, keypoint_body, ALL)
    assert len(calls) == 2  # the estimate's and the truth's


def test_half_precision_of_a_network_does_not_round_bodies(body):
    """As under autocast: what the head says is rounded, the bodies made of it are not."""
    keypoints = KeypointBody(body, map_keypoints(body, keypoint_set("smpl24")))
    estimate, batch = some_people(14)
    batch = {k: v.float() if v.is_floating_point() else v for k, v in batch.items()}
    rounded = ImageEstimate(*(x if x is None else x.detach().bfloat16() for x in estimate))
    wide = ImageEstimate(*(x if x is None else x.float() for x in rounded))
    expected = image_losses(wide, batch, body, keypoints, ALL)
    with torch.autocast("cpu", torch.bfloat16):
        losses = image_losses(rounded, batch, body, keypoints, ALL)
    for name in LOSSES:
        assert losses[name].dtype == torch.float32
        torch.testing.assert_close(losses[name], expected[name])


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="vertices must be a weight of 0 or more, got -1"):
        ImageLossConfig(vertices=-1)
    with pytest.raises(ValueError, match="every loss has weight 0"):
        ImageLossConfig(**NOTHING)
    with pytest.raises(ValueError, match="keypoint_scale must be above 0, got 0"):
        ImageLossConfig(keypoint_scale=0)
    with pytest.raises(TypeError):
        ImageLossConfig(vertex=1.0)
