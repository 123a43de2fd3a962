"""HRNet-W32: Sun et al., "Deep High-Resolution Representation Learning" (CVPR 2019).

Branches of full, half, quarter and eighth resolution run side by side and exchange what they see.
At the end PARE (Kocabas et al., ICCV 2021) enlarges all of them to the first one's size, and lays
them upon each other. Names and shapes are those of PARE's published checkpoints, which keep those
of HRNet's pose files.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from .base import Encoder, initialise
from .resnet import BasicBlock, Bottleneck, conv3x3, make_layer

_WIDTHS = (32, 64, 128, 256)  # of the branches
_BLOCKS = 4  # of each branch between two exchanges
_EXCHANGES = (1, 4, 3)  # in stages 2, 3 and 4
_STEM = 256
_PUBLISHED_JOINTS = 24


class ExchangeUnit(nn.Module):
    """Blocks on each branch; then each branch gets the sum of all, brought to its size: Fig. 3."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(make_layer(BasicBlock, w, w, _BLOCKS) for w in widths)
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(_resize(widths, source, target) for source in range(len(widths)))
            for target in range(len(widths))
        )

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps of the branches -> the same sizes."""
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        fused = []
        for layers in self.fuse_layers:
            resized = [f(x) for f, x in zip(cast(nn.ModuleList, layers), maps, strict=True)]
            fused.append(sum(resized[1:], start=resized[0]).relu_())
        return fused


def _resize(widths: tuple[int, ...], source: int, target: int) -> nn.Module:
    """From one branch to another: 1 x 1 and nearest neighbour up, 3 x 3 of stride 2 down."""
    if source == target:
        return nn.Identity()
    inputs, outputs = widths[source], widths[target]
    if source > target:
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.Upsample(scale_factor=float(2 ** (source - target)), mode="nearest"),
        )
    halvings = target - source
    steps = [_halve(inputs, inputs) for _ in range(halvings - 1)]
    last = nn.Sequential(conv3x3(inputs, outputs, stride=2), nn.BatchNorm2d(outputs))
    return nn.Sequential(*steps, last)


def _halve(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        conv3x3(inputs, outputs, stride=2), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


def _new_branch(stage: int) -> nn.ModuleList:
    """What begins a stage: the branches so far, and one more made of the last."""
    kept = [nn.Identity() for _ in range(stage - 1)]
    return nn.ModuleList([*kept, nn.Sequential(_halve(_WIDTHS[stage - 2], _WIDTHS[stage - 1]))])


def _enlarge(width: int, doublings: int) -> nn.Sequential:
    """PARE's way to the largest size: bilinear, each time followed by a convolution."""
    steps: list[nn.Module] = []
    for _ in range(doublings):
        steps += [
            nn.Upsample(scale_factor=2.0, mode="bilinear", align_corners=True),
            conv3x3(width, width),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*steps)


class HRNet(Encoder):
    """Down to 1/4 of the size; 480 channels, 32 + 64 + 128 + 256 of the branches."""

    channels = sum(_WIDTHS)
    # files for poses end in the first branch alone
    added = ("upsample_stage_", "final_layer.", *(f"stage4.2.fuse_layers.{i}." for i in (1, 2, 3)))
    classifier = ("incre_modules.", "downsamp_modules.", "final_layer.", "classifier.")

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv3x3(3, 64, stride=2), nn.BatchNorm2d(64)
        self.conv2, self.bn2 = conv3x3(64, 64, stride=2), nn.BatchNorm2d(64)
        self.layer1 = make_layer(Bottleneck, 64, 64, count=4)
        self.transition1 = nn.ModuleList(
            [
                nn.Sequential(
                    conv3x3(_STEM, _WIDTHS[0]), nn.BatchNorm2d(_WIDTHS[0]), nn.ReLU(inplace=True)
                ),
                nn.Sequential(_halve(_STEM, _WIDTHS[1])),
            ]
        )
        self.transition2, self.transition3 = _new_branch(3), _new_branch(4)
        self.stage2, self.stage3, self.stage4 = (
            nn.Sequential(*(ExchangeUnit(_WIDTHS[:branches]) for _ in range(count)))
            for branches, count in zip((2, 3, 4), _EXCHANGES, strict=True)
        )
        # Published checkpoints hold this layer, and PARE passes it by. Without gradients,
        # optimisers and data-parallel training leave it alone.
        self.final_layer = nn.Conv2d(_WIDTHS[0], _PUBLISHED_JOINTS, 1).requires_grad_(False)
        self.upsample_stage_2 = _enlarge(_WIDTHS[1], 1)
        self.upsample_stage_3 = _enlarge(_WIDTHS[2], 2)
        self.upsample_stage_4 = _enlarge(_WIDTHS[3], 3)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W), multiples of 32 -> (B, 480, H / 4, W / 4)."""
        x = self.bn1(self.conv1(images)).relu_()
        x = self.layer1(self.bn2(self.conv2(x)).relu_())
        maps = self.stage2([layer(x) for layer in self.transition1])
        maps = self.stage3(_widen(self.transition2, maps))
        maps = self.stage4(_widen(self.transition3, maps))
        enlarge = (self.upsample_stage_2, self.upsample_stage_3, self.upsample_stage_4)
        return torch.cat([maps[0], *(f(x) for f, x in zip(enlarge, maps[1:], strict=True))], dim=1)


def _widen(transition: nn.ModuleList, maps: list[Tensor]) -> list[Tensor]:
    """The branches so far and one more, made of the last."""
    return [layer(x) for layer, x in zip(transition, [*maps, maps[-1]], strict=True)]
