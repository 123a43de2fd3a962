"""The landmark network of BlazePose as an encoder: it has seen people on photographs.

Bazarevsky et al., "BlazePose: On-device Real-time Body Pose Tracking" (2020). Inverted bottlenecks
(Sandler et al., CVPR 2018) down to 1/32 of the size, then residual blocks of depthwise convolutions
down to 1/128. The bundled detector has its weights (`fitting/assets/blazepose`, Apache-2.0), with
the norms folded into the convolutions, and so there are none here: networks with it train well
without, from these weights. From features of 2 x 2 pixels, of crops of 256, one linear layer reads
all landmarks; so that pooling does not lose where they came from, those four pixels become channels
of one.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from fitting.blazepose import ASSETS
from fitting.files import InputError
from fitting.opencv import import_cv2

from .base import Encoder, Renormalise, initialise
from .efficientnet_lite import SameConv

_WEIGHTS = ASSETS / "pose_landmark_full.onnx"
_STEM, _LAST = 24, 288
_CELL = 2  # pixels of the last map, in each direction, that become channels
_STRIDE = 256  # of those


class _Block(NamedTuple):
    """An inverted bottleneck; x is added where it can be."""

    width: int
    kernel: int
    stride: int
    outputs: int


_BLOCKS = (
    _Block(64, 3, 2, 24),
    _Block(144, 3, 1, 24),
    _Block(144, 5, 2, 32),
    _Block(192, 5, 1, 32),
    _Block(192, 3, 2, 64),
    _Block(384, 3, 1, 64),
    _Block(384, 3, 1, 64),
    _Block(384, 5, 1, 88),
    _Block(528, 5, 1, 88),
    _Block(528, 5, 1, 88),
    _Block(528, 5, 2, 144),
    _Block(864, 5, 1, 144),
    _Block(864, 5, 1, 144),
    _Block(864, 5, 1, 144),
)
_NUM_EARLY = 11  # blocks, down to 1/32 of the size
_TAIL = (4, 5)  # residual blocks at 1/64 and at 1/128 of the size


class InvertedBottleneck(nn.Module):
    """Widen, convolve each channel by itself, narrow; without norms."""

    def __init__(self, inputs: int, block: _Block) -> None:
        super().__init__()
        width = block.width
        self.expand = nn.Conv2d(inputs, width, 1)
        self.depthwise = _depthwise(width, block.kernel, block.stride)
        self.project = nn.Conv2d(width, block.outputs, 1)
        self.adds = block.stride == 1 and inputs == block.outputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        y = self.project(_relu6(self.depthwise(_relu6(self.expand(x)))))
        return x + y if self.adds else y


class ResidualBlock(nn.Module):
    """relu6(x + project(relu6(depthwise(x)))); at a stride of 2, the largest of 4 pixels of x."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.depthwise = SameConv(channels, channels, 3, stride=stride, groups=channels)
        self.project = nn.Conv2d(channels, channels, 1)
        self.shrink = nn.MaxPool2d(stride) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H / stride, W / stride)."""
        return _relu6(self.shrink(x) + self.project(_relu6(self.depthwise(x))))


class BlazePose(Encoder):
    """Down to 1/256 of the size; 1152 channels. Crops must be multiples of 256 pixels wide."""

    channels = _LAST * _CELL**2
    late_layers = (*(f"blocks.{i}" for i in range(_NUM_EARLY, len(_BLOCKS))), "neck", "tail")

    def __init__(self) -> None:
        super().__init__()
        self.normalise = Renormalise(mean=[0.0] * 3, std=[1.0] * 3)
        self.stem = nn.Conv2d(3, _STEM, 3, stride=2, padding=1)
        self.stem_depthwise = _depthwise(_STEM)
        self.stem_project = nn.Conv2d(_STEM, 16, 1)
        self.blocks, inputs = nn.Sequential(), 16
        for block in _BLOCKS:
            self.blocks.append(InvertedBottleneck(inputs, block))
            inputs = block.outputs
        width = 6 * inputs
        self.neck = nn.Sequential(
            nn.Conv2d(inputs, width, 1),
            nn.ReLU6(),
            _depthwise(width),
            nn.ReLU6(),
            _depthwise(width),
            nn.ReLU6(),
            nn.Conv2d(width, _LAST, 1),
            nn.ReLU6(),
        )
        strides = [2 if i == 0 else 1 for blocks in _TAIL for i in range(1 + blocks)]
        self.tail = nn.Sequential(*[ResidualBlock(_LAST, stride) for stride in strides])
        initialise(self)

    def early(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 144, H / 32, W / 32); ValueError where H / 256 is no whole number."""
        if images.shape[2] % _STRIDE or images.shape[3] % _STRIDE:
            raise ValueError(
                f"blazepose takes crops of {_STRIDE} pixels, or multiples, got "
                f"{tuple(images.shape[2:])}; set data.crop_size to {_STRIDE}"
            )
        x = _relu6(self.stem(self.normalise(images)))
        x = self.stem_project(_relu6(self.stem_depthwise(x)))
        return self.blocks[:_NUM_EARLY](x)

    def late(self, x: Tensor) -> Tensor:
        """(B, 144, H / 32, W / 32) -> (B, 1152, H / 256, W / 256)."""
        x = self.tail(self.neck(self.blocks[_NUM_EARLY:](x)))
        return nn.functional.pixel_unshuffle(x, _CELL)


def _depthwise(channels: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels)


def _relu6(x: Tensor) -> Tensor:
    return nn.functional.relu6(x)


def blazepose_weights() -> dict[str, Tensor]:
    """The bundled weights, by the names of `BlazePose`.

    Convolutions of file and network come in one order, and those that read landmarks from the
    features are the file's last.

    Raises:
        InputError: the file is missing or damaged.
    """
    cv2 = import_cv2()
    # OpenCV 5's new engine does not show the weights
    engine = [cv2.dnn.ENGINE_CLASSIC] if hasattr(cv2.dnn, "ENGINE_CLASSIC") else []
    try:
        net = cv2.dnn.readNetFromONNX(str(_WEIGHTS), *engine)
    except cv2.error as error:
        raise InputError(f"{_WEIGHTS}: cannot be read; install bodyloop again") from error
    layers = (net.getLayer(name) for name in net.getLayerNames())
    blobs = [layer.blobs for layer in layers if layer.type == "Convolution"]
    found = [torch.from_numpy(blob.copy()) for pair in blobs for blob in pair]
    return {
        name: tensor.reshape(like.shape)
        for (name, like), tensor in zip(BlazePose().state_dict().items(), found, strict=False)
    }
