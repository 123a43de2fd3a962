"""Image regressors: heads against formulas, published systems against their own programs' steps."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import nn

from fitting.camera import make_intrinsics
from fitting.files import InputError
from regressor.checkpoints import load_checkpoint
from regressor.encoders import Encoder, make_encoder
from regressor.heads import (
    CLIFF,
    HMR,
    SPIN,
    FeedbackConfig,
    FeedbackHead,
    MeanParams,
    SequentialHead,
    rest_pose,
    rotmats,
)
from regressor.image_networks import PUBLISHED, ImageRegressor, locate_crops, make_hmr
from regressor.image_official import official_state
from regressor.part_attention import PartAttentionHead
from tests import published

FILES = {"SPIN": ("model", ""), "CLIFF": ("model", "module."), "PARE": ("state_dict", "model.")}


class Pixels(Encoder):
    """The picture itself as features."""

    channels = 3

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, images):
        return self.norm(images)


def random_mean(seed=0):
    poses = Rotation.random(24, random_state=seed).as_matrix()
    generator = torch.Generator().manual_seed(seed)
    return MeanParams(
        pose_rotmat=torch.from_numpy(poses).float(),
        betas=torch.randn(10, generator=generator),
        weak_cam=torch.randn(3, generator=generator),
    )


# --- Rotations --------------------------------------------------------------------------------


def test_6d_rotations_are_spins_row_by_row(rng):
    truth = Rotation.random(48, random_state=1).as_matrix().reshape(2, 24, 3, 3)
    a, b = truth[..., 0], truth[..., 1]
    # lengths, and what b has of a, make no difference
    numbers = np.stack([2.5 * a, 0.3 * b + 0.7 * a], axis=-1).reshape(2, 144)
    got = rotmats(torch.from_numpy(numbers), "6d")
    np.testing.assert_allclose(got, truth, atol=1e-12)


def test_any_6_numbers_make_a_rotation(rng):
    R = rotmats(torch.from_numpy(rng.normal(size=(5, 144))), "6d")
    eye = torch.eye(3, dtype=R.dtype).expand_as(R)
    torch.testing.assert_close(R @ R.mT, eye, rtol=0, atol=1e-12)
    torch.testing.assert_close(R.det(), torch.ones_like(R[..., 0, 0]), rtol=0, atol=1e-12)
    assert rotmats(torch.zeros(1, 144), "6d").isfinite().all()


def test_axis_angles(rng):
    numbers = rng.normal(size=(3, 72))
    expected = Rotation.from_rotvec(numbers.reshape(-1, 3)).as_matrix().reshape(3, 24, 3, 3)
    np.testing.assert_allclose(rotmats(torch.from_numpy(numbers), "axis_angle"), expected)


def test_the_body_at_rest_stands_before_the_camera():
    mean = rest_pose()
    up = mean.pose_rotmat[0] @ torch.tensor([0.0, 1.0, 0.0])
    torch.testing.assert_close(up, torch.tensor([0.0, -1.0, 0.0]))  # the camera's y is down
    assert mean.pose_rotmat[0].det() == 1


# --- Heads ------------------------------------------------------------------------------------


def heads(mean):
    return {
        "sequential": SequentialHead(3, mean=mean),
        "one layer": SequentialHead(3, widths=(), rotations="axis_angle", mean=mean),
        "spin": FeedbackHead(3, SPIN, mean=mean),
        "hmr": FeedbackHead(3, HMR, mean=mean),
        "pare": PartAttentionHead(3, mean=mean),
    }


@pytest.mark.parametrize("name", heads(None))
def test_heads_start_from_the_mean(name):
    mean = random_mean()
    head = heads(mean)[name].eval()
    for parameter in head.parameters():
        nn.init.zeros_(parameter)
    estimate = head(torch.randn(2, 3, 4, 4))
    for got, want in zip(estimate, (mean.pose_rotmat, mean.betas, mean.weak_cam), strict=False):
        torch.testing.assert_close(got, want.expand_as(got), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", heads(None))
def test_untrained_heads_are_near_the_mean_and_learn(name):
    mean = random_mean()
    head = heads(mean)[name]
    features = torch.randn(4, 3, 4, 4)
    estimate = head.eval()(features)
    assert (estimate.betas - mean.betas).abs().max() < 0.3
    sum(x.square().sum() for x in estimate[:2]).backward()
    assert all(p.grad is not None for n, p in head.named_parameters() if "cam" not in n)


def test_sequential_head_by_hand(rng):
    head = SequentialHead(5, widths=(7, 6), mean=random_mean()).eval().double()
    features = rng.normal(size=(3, 5, 2, 3))
    s = {n: t.detach().numpy() for n, t in head.state_dict().items()}
    hidden = features.mean((2, 3))
    for i in (0, 3):
        hidden = np.maximum(hidden @ s[f"layers.{i}.weight"].T + s[f"layers.{i}.bias"], 0)
    out = s["mean"] + hidden @ s["layers.6.weight"].T + s["layers.6.bias"]
    estimate = head(torch.from_numpy(features))
    np.testing.assert_allclose(estimate.betas.detach(), out[:, 144:154])
    np.testing.assert_allclose(estimate.weak_cam.detach(), out[:, 154:])
    expected = published.rot6d(torch.from_numpy(out[:, :144]).reshape(3, 24, 6))
    torch.testing.assert_close(estimate.pose_rotmat.detach(), expected)


def test_hmr_feeds_its_85_parameters_back_three_times(rng):
    head = FeedbackHead(5, HMR, mean=random_mean()).eval().double()
    s = {n: t.detach().numpy() for n, t in head.state_dict().items()}
    last = np.concatenate([s[f"dec{part}.weight"] for part in ("pose", "shape", "cam")])
    bias = np.concatenate([s[f"dec{part}.bias"] for part in ("pose", "shape", "cam")])
    theta = np.concatenate([s["init_pose"], s["init_shape"], s["init_cam"]], axis=1)
    assert theta.shape == (1, 85)
    features = 30 * rng.normal(size=(2, 5, 3, 3))
    theta = theta.repeat(2, axis=0)
    for _ in range(3):
        x = np.concatenate([features.mean((2, 3)), theta], axis=1)
        for layer in ("fc1", "fc2"):
            x = np.maximum(x @ s[f"{layer}.weight"].T + s[f"{layer}.bias"], 0)
        theta = theta + x @ last.T + bias
    estimate = head(torch.from_numpy(features))
    rotations = Rotation.from_rotvec(theta[:, :72].reshape(-1, 3)).as_matrix()
    np.testing.assert_allclose(estimate.pose_rotmat.detach(), rotations.reshape(2, 24, 3, 3))
    np.testing.assert_allclose(estimate.betas.detach(), theta[:, 72:82])
    np.testing.assert_allclose(estimate.weak_cam.detach(), theta[:, 82:])


def test_dropout_acts_in_training_alone():
    head = FeedbackHead(3, SPIN)
    features = torch.randn(2, 3, 2, 2)
    assert not torch.equal(head(features).betas, head(features).betas)
    head.eval()
    assert torch.equal(head(features).betas, head(features).betas)


@pytest.mark.parametrize(
    "settings", [{"iterations": 0}, {"width": 0}, {"dropout": 1.0}, {"rotations": "euler"}]
)
def test_settings_out_of_range(settings):
    with pytest.raises(ValueError, match="got"):
        FeedbackConfig(**settings)
    with pytest.raises(TypeError):
        FeedbackConfig(iteration=3)


def pare_head():
    head = PartAttentionHead(3)
    shapes = {name: tuple(t.shape) for name, t in head.state_dict().items()}
    head.load_state_dict(published.tame_state(shapes))
    return head.eval()


def test_attention_is_a_density_over_the_map_without_the_background():
    estimate = pare_head()(torch.randn(2, 3, 6, 5))
    assert estimate.part_segmentation.shape == (2, 25, 6, 5)
    attention = estimate.part_attention
    torch.testing.assert_close(attention.sum((2, 3)), torch.ones(2, 24))
    expected = estimate.part_segmentation[:, 1:].flatten(2).softmax(2)
    torch.testing.assert_close(attention.flatten(2), expected)


def test_what_no_joint_looks_at_changes_nothing():
    """An occluder at one side, for a head whose parts are all at the other."""
    head = pare_head()
    with torch.no_grad():
        head.keypoint_final_layer.weight.zero_()
    features = torch.randn(1, 3, 12, 12)
    occluded = features.clone()
    occluded[..., 9:] += 5.0
    left = torch.full((1, 25, 12, 12), -100.0)
    left[..., :4] = 0.0
    hook = head.keypoint_final_layer.register_forward_hook(lambda *_: left)
    with torch.no_grad():
        torch.testing.assert_close(head(features).pose_rotmat, head(occluded).pose_rotmat)
        hook.remove()
        assert not torch.allclose(head(features).pose_rotmat, head(occluded).pose_rotmat)


def test_each_joint_has_a_layer_of_its_own():
    head = pare_head()
    features = torch.randn(1, 3, 6, 6)
    with torch.no_grad():
        before = head(features).pose_rotmat
        head.pose_mlp.weight[:, :, :, 7] *= -1
        changed = (head(features).pose_rotmat - before).abs().amax((0, 2, 3)) > 1e-6
    assert changed.nonzero().flatten().tolist() == [7]


# --- Networks ---------------------------------------------------------------------------------


def test_a_frozen_encoder_stays_as_it_is():
    network = ImageRegressor(Pixels(), SequentialHead(3), frozen=True).train()
    before = {n: t.clone() for n, t in network.encoder.state_dict().items()}
    network(torch.randn(4, 3, 8, 8)).betas.sum().backward()
    assert all(torch.equal(before[n], t) for n, t in network.encoder.state_dict().items())
    assert all(p.grad is None for p in network.encoder.parameters())
    assert network.head.training
    trained = ImageRegressor(Pixels(), SequentialHead(3)).train()
    trained(torch.randn(4, 3, 8, 8)).betas.sum().backward()
    assert trained.encoder.norm.weight.grad is not None
    assert trained.encoder.norm.num_batches_tracked == 1


@pytest.mark.parametrize(("name", "size"), [("resnet18", 64), ("blazepose", 256)])
def test_of_an_encoder_the_last_layers_may_learn(name, size):
    encoder, images = make_encoder(name), torch.rand(2, 3, size, size)
    head = SequentialHead(encoder.channels, dropout=0)
    with torch.no_grad():
        whole = ImageRegressor(encoder, head).eval()(images)
    network = ImageRegressor(encoder, head, frozen="early").train()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    features = network.encode(images)
    assert not features.requires_grad
    network(None, features=features).pose_rotmat.sum().backward()

    late = {name for name in before if name.startswith(encoder.late_layers)}
    learned = {n for n, p in encoder.named_parameters() if p.grad is not None}
    statistics = {n for n, t in encoder.state_dict().items() if not torch.equal(before[n], t)}
    assert learned | statistics == late < before.keys()

    encoder.load_state_dict(before)
    network.eval()
    with torch.no_grad():
        for found in (network(images), network(None, features=features)):
            torch.testing.assert_close(found[:3], whole[:3], rtol=1e-4, atol=1e-5)


def test_an_encoder_of_one_part_is_frozen_whole():
    with pytest.raises(ValueError, match="Pixels has no early part to freeze"):
        ImageRegressor(Pixels(), SequentialHead(3), frozen="early")


@pytest.mark.parametrize(
    ("head", "arguments", "message"),
    [
        (SPIN, [torch.zeros(2, 4, 8, 8)], r"images must be \(B, 3, H, W\) .*got \(2, 4, 8, 8\)"),
        (SPIN, [torch.zeros(3, 8, 8)], r"got \(3, 8, 8\)"),
        (SPIN, [torch.zeros(2, 3, 8, 8), torch.zeros(2, 3)], "does not take box"),
        (CLIFF, [torch.zeros(2, 3, 8, 8)], "needs box, the three numbers .* got none"),
        (CLIFF, [torch.zeros(2, 3, 8, 8), torch.zeros(3)], r"box must be \(2, 3\), got \(3,\)"),
    ],
)
def test_wrong_arguments(head, arguments, message):
    network = ImageRegressor(Pixels(), FeedbackHead(3, head))
    with pytest.raises(ValueError, match=message):
        network(*arguments)


def test_half_precision_does_not_reach_the_rotations():
    for head in heads(random_mean()).values():
        network = ImageRegressor(Pixels(), head).eval()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            estimate = network(torch.randn(2, 3, 8, 8))
        R = estimate.pose_rotmat
        assert [x.dtype for x in estimate[:3]] == [torch.float32] * 3
        torch.testing.assert_close(R @ R.mT, torch.eye(3).expand_as(R), rtol=0, atol=1e-4)


def test_hmr_runs():
    estimate = make_hmr().eval()(torch.randn(2, 3, 64, 64))
    assert estimate.pose_rotmat.shape == (2, 24, 3, 3)


def test_nobody_in_a_batch():
    network = ImageRegressor(make_encoder("resnet18"), FeedbackHead(512)).eval()
    assert network(torch.zeros(0, 3, 64, 64)).pose_rotmat.shape == (0, 24, 3, 3)


def test_where_a_crop_is_as_cliffs_program_says():
    """Its two lines, for a picture of 640 x 480 and a person at (400, 100), 200 px high."""
    focal = 800.0
    K = make_intrinsics(torch.tensor([[640.0, 480.0]]), torch.tensor([focal]))
    # its principal point is (320, 240); ours is half a pixel before, as its pixels begin at 0.5
    crop = torch.tensor([[400.0 - 0.5, 100.0 - 0.5, 200.0]])
    expected = [2.8 * 80 / focal, 2.8 * -140 / focal, (200 - 0.24 * focal) / (0.06 * focal)]
    torch.testing.assert_close(locate_crops(crop, K), torch.tensor([expected]))


# --- Published checkpoints --------------------------------------------------------------------


@cache
def made_up(system):
    """Tensors of the names and shapes that our network says are published."""
    with torch.device("meta"):
        shapes = {n: tuple(t.shape) for n, t in official_state(PUBLISHED[system](), system).items()}
    return published.tame_state(shapes)


def write(path, system, state, **beside):
    container, prefix = FILES[system]
    torch.save({container: {prefix + n: t for n, t in state.items()}, **beside}, path)
    return path


def check_against_program(system, network, state, size=64):
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(2, 3, size, size, generator=generator)
    box = torch.randn(2, 3, generator=generator) if system == "CLIFF" else None
    with torch.no_grad():
        if system == "PARE":
            *expected, parts = published.pare(images, state)
            estimate = network(images)
            torch.testing.assert_close(estimate.part_segmentation, parts, rtol=1e-4, atol=1e-4)
        else:
            encoder = "encoder." if system == "CLIFF" else ""
            expected = published.spin(images, state, encoder, box)
            estimate = network(images) if box is None else network(images, box)
        for got, want in zip(estimate, expected, strict=False):
            assert (want[0] - want[1]).abs().max() > 1e-3  # pictures make a difference
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("system", FILES)
def test_published_files_answer_as_the_published_programs(tmp_path, system):
    state = made_up(system)
    network = load_checkpoint(write(tmp_path / "a.pt", system, state, epoch=3))
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    check_against_program(system, network, state)
    again = official_state(network, system)
    assert again.keys() == state.keys()
    assert all(torch.equal(again[n], t) for n, t in state.items())


@pytest.mark.shared
@pytest.mark.parametrize("system", FILES)
def test_files_of_the_published_names_and_shapes(tmp_path, shared, system):
    container, prefix, state = published.layout(shared, system.lower())
    assert (container, prefix) == FILES[system]
    network = load_checkpoint(write(tmp_path / "a.pt", system, state))
    assert official_state(network, system).keys() == state.keys()
    check_against_program(system, network, state, size=224 if system == "SPIN" else 96)


def test_names_without_prefix_and_bare_state_dicts(tmp_path):
    state = made_up("CLIFF")
    for content in ({"model": state}, {f"module.{n}": t for n, t in state.items()}, state):
        torch.save(content, tmp_path / "a.pt")
        network = load_checkpoint(tmp_path / "a.pt")
        assert network.head.needs_box


@pytest.mark.parametrize(
    ("system", "change", "message"),
    [
        ("SPIN", {"decpose.weight": None}, r"1 \(decpose\.weight\) missing, none left over"),
        ("SPIN", {"fc3.weight": torch.ones(1)}, r"none missing, 1 \(fc3\.weight\) left over"),
        ("SPIN", {"fc1.bias": torch.ones(9)}, r"fc1\.bias must be \(1024,\), got \(9,\)"),
        ("CLIFF", {"encoder.bn1.bias": None}, r"1 \(encoder\.bn1\.bias\) missing"),
        ("PARE", {"head.pose_mlp.weight": None}, r"1 \(head\.pose_mlp\.weight\) missing"),
        ("PARE", {"smple.faces": torch.ones(1)}, r"1 \(smple\.faces\) left over"),
        (
            "CLIFF",
            {"encoder.stage4.0.branches.0.0.conv1.weight": torch.ones(48, 48, 3, 3)},
            "its encoder is an HRNet-W48, and only CLIFF with a ResNet-50 is supported",
        ),
        (
            "PARE",
            {"backbone.stage4.0.branches.0.0.conv1.weight": torch.ones(48, 48, 3, 3)},
            "its encoder is an HRNet-W48, and only PARE with an HRNet-W32 is supported",
        ),
    ],
)
def test_files_that_do_not_fit_say_so(tmp_path, system, change, message):
    state = {n: t for n, t in {**made_up(system), **change}.items() if t is not None}
    path = write(tmp_path / "a.pt", system, state)
    with pytest.raises(InputError, match=message) as caught:
        load_checkpoint(path)
    assert str(caught.value).startswith(
        f"{path}: looks like a checkpoint of {system}, but does not"
    )


def test_the_body_in_pares_files_is_ignored(tmp_path):
    state = made_up("PARE")
    body = {"smpl.smpl.v_template": torch.ones(6890, 3), "smpl.smpl.faces_tensor": torch.ones(2)}
    network = load_checkpoint(write(tmp_path / "a.pt", "PARE", {**state, **body}))
    assert official_state(network, "PARE").keys() == state.keys()
