"""Oracles for networks: the layers of published programs, spelled out over their tensors by name.

Nothing here comes from the package: each function follows a paper's figure or the names in a
checkpoint, with `torch.nn.functional` alone.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

State = dict[str, Tensor]


def norm(x: Tensor, s: State, name: str, eps: float = 1e-5) -> Tensor:
    """Batch norm in eval mode, from its definition."""
    shape = (1, -1) + (1,) * (x.dim() - 2)
    mean, var, weight, bias = (
        s[f"{name}.{part}"].reshape(shape)
        for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (var + eps).sqrt() * weight + bias


def conv(x: Tensor, s: State, name: str, stride: int = 1) -> Tensor:
    """Padded by half the kernel."""
    weight = s[f"{name}.weight"]
    bias = s.get(f"{name}.bias")
    return functional.conv2d(x, weight, bias, stride=stride, padding=weight.shape[-1] // 2)


def block(x: Tensor, s: State, p: str, stride: int) -> Tensor:
    """A residual block, basic or bottleneck as its names say; the stride is in a 3 x 3."""
    y, left = x, stride
    last = 3 if f"{p}.conv3.weight" in s else 2
    for i in range(1, last + 1):
        is_3x3 = s[f"{p}.conv{i}.weight"].shape[-1] == 3
        y = norm(conv(y, s, f"{p}.conv{i}", left if is_3x3 else 1), s, f"{p}.bn{i}")
        left = 1 if is_3x3 else left
        y = y.relu() if i < last else y
    if f"{p}.downsample.0.weight" in s:
        x = norm(conv(x, s, f"{p}.downsample.0", stride), s, f"{p}.downsample.1")
    return (x + y).relu()


def blocks(x: Tensor, s: State, p: str, stride: int = 1) -> Tensor:
    i = 0
    while f"{p}.{i}.conv1.weight" in s:
        x = block(x, s, f"{p}.{i}", stride if i == 0 else 1)
        i += 1
    assert i > 0, p
    return x


def resnet(x: Tensor, s: State, p: str = "") -> Tensor:
    x = norm(conv(x, s, f"{p}conv1", 2), s, f"{p}bn1").relu()
    x = functional.max_pool2d(x, 3, 2, 1)
    for i in range(1, 5):
        x = blocks(x, s, f"{p}layer{i}", 1 if i == 1 else 2)
    return x


def stages(x: Tensor, s: State, p: str) -> Tensor:
    """Numbered (convolution, norm[, relu]) pairs of stride 2; the last has no ReLU."""
    i = 0
    while f"{p}.{i}.0.weight" in s:
        x = x if i == 0 else x.relu()
        x = norm(conv(x, s, f"{p}.{i}.0", 2), s, f"{p}.{i}.1")
        i += 1
    return x


def hrnet(x: Tensor, s: State, p: str = "") -> Tensor:
    """With PARE's convolutions after each doubling of the size."""
    x = norm(conv(x, s, f"{p}conv1", 2), s, f"{p}bn1").relu()
    x = norm(conv(x, s, f"{p}conv2", 2), s, f"{p}bn2").relu()
    x = blocks(x, s, f"{p}layer1")
    maps = [norm(conv(x, s, f"{p}transition1.0.0"), s, f"{p}transition1.0.1").relu()]
    maps.append(stages(x, s, f"{p}transition1.1").relu())
    for stage in (2, 3, 4):
        if stage > 2:
            name = f"{p}transition{stage - 1}.{stage - 1}"
            maps.append(stages(maps[-1], s, name).relu())
        unit = 0
        while f"{p}stage{stage}.{unit}.branches.0.0.conv1.weight" in s:
            maps = exchange(maps, s, f"{p}stage{stage}.{unit}")
            unit += 1
    for i in range(1, 4):
        for j in range(i):
            name = f"{p}upsample_stage_{i + 1}."
            big = functional.interpolate(
                maps[i], scale_factor=2, mode="bilinear", align_corners=True
            )
            y = norm(conv(big, s, f"{name}{4 * j + 1}"), s, f"{name}{4 * j + 2}")
            maps[i] = y.relu()
    return torch.cat(maps, 1)


def exchange(maps: list[Tensor], s: State, p: str) -> list[Tensor]:
    maps = [blocks(x, s, f"{p}.branches.{i}") for i, x in enumerate(maps)]
    fused = []
    for i in range(len(maps)):
        total: Tensor | float = 0.0
        for j, x in enumerate(maps):
            name = f"{p}.fuse_layers.{i}.{j}"
            if j > i:
                y = norm(conv(x, s, f"{name}.0"), s, f"{name}.1")
                y = y.repeat_interleave(2 ** (j - i), 2).repeat_interleave(2 ** (j - i), 3)
            else:
                y = x if i == j else stages(x, s, name)
            total = total + y
        fused.append(total.relu())
    return fused


def rot6d(x: Tensor) -> Tensor:
    """SPIN's: pairs (a_i, b_i) row by row; columns by Gram-Schmidt. (..., 6) -> (..., 3, 3)."""
    a, b = x[..., 0::2], x[..., 1::2]
    e1 = a / a.norm(dim=-1, keepdim=True)
    b = b - (e1 * b).sum(-1, keepdim=True) * e1
    e2 = b / b.norm(dim=-1, keepdim=True)
    return torch.stack([e1, e2, torch.linalg.cross(e1, e2)], -1)


def linear(x: Tensor, s: State, name: str) -> Tensor:
    return x @ s[f"{name}.weight"].T + s[f"{name}.bias"]


def spin(images: Tensor, s: State, encoder: str = "", box: Tensor | None = None):
    """SPIN and, with a box, CLIFF: rotations, shape, camera."""
    seen = [resnet(images, s, encoder).mean((2, 3))] + ([] if box is None else [box])
    pose, betas, cam = (
        s[n].repeat(len(images), 1) for n in ("init_pose", "init_shape", "init_cam")
    )
    for _ in range(3):
        hidden = linear(linear(torch.cat([*seen, pose, betas, cam], 1), s, "fc1"), s, "fc2")
        pose = pose + linear(hidden, s, "decpose")
        betas = betas + linear(hidden, s, "decshape")
        cam = cam + linear(hidden, s, "deccam")
    return rot6d(pose.reshape(-1, 24, 6)), betas, cam


def pare(images: Tensor, s: State):
    """Rotations, shape, camera, logits of the parts."""
    features = hrnet(images, s, "backbone.")
    branch = {}
    for name in ("keypoint", "smpl"):
        y = features
        for i in (0, 3):
            p = f"head.{name}_deconv_layers"
            y = norm(conv(y, s, f"{p}.{i}"), s, f"{p}.{i + 1}").relu()
        branch[name] = y
    parts = conv(branch["keypoint"], s, "head.keypoint_final_layer")
    weights = parts[:, 1:].exp()
    weights = weights / weights.sum((2, 3), keepdim=True)
    of_joints = torch.einsum("bjhw,bchw->bcj", weights, branch["smpl"])
    final = conv(branch["smpl"], s, "head.smpl_final_layer")
    of_shape = torch.einsum("bjhw,bchw->bcj", weights, final).flatten(1)
    W = s["head.pose_mlp.weight"]  # one linear layer a joint
    pose = torch.stack([of_joints[:, :, j] @ W[0, :, :, j, 0, 0].T for j in range(24)], 1)
    betas, cam = linear(of_shape, s, "head.shape_mlp"), linear(of_shape, s, "head.cam_mlp")
    return rot6d(pose), betas, cam, parts


def tame_state(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> State:
    """Random tensors that keep signals of all layers near unit size, as trained ones do."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
        elif name.endswith("running_var"):
            state[name] = 0.5 + torch.rand(shape, generator=generator)
        elif name.endswith(("bn2.weight", "bn3.weight")):  # the last of a residual block
            state[name] = 0.1 + 0.4 * torch.rand(shape, generator=generator)
        elif len(shape) < 2 and name.endswith("weight"):
            state[name] = 0.5 + torch.rand(shape, generator=generator)
        else:
            fan = math.prod(shape[1:]) if len(shape) > 1 else 25
            state[name] = torch.randn(shape, generator=generator) / max(fan, 1) ** 0.5
    return state


def layout(shared: Path, system: str) -> tuple[str, str, State]:
    """Container, prefix and made-up tensors of a published file's names and shapes."""
    path = shared / "reference" / "checkpoint_layouts" / f"{system}.json"
    if not path.exists():
        raise FileNotFoundError(path)
    content = json.loads(path.read_text("utf-8"))
    shapes = {name: tuple(shape) for name, shape, _ in content["tensors"]}
    return content["container"], content["prefix"], tame_state(shapes)
