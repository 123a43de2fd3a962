"""ResNet-50 V2: He et al., "Identity Mappings in Deep Residual Networks" (ECCV 2016).

Batch norm and ReLU come before each convolution, so that x_{l+1} = x_l + F(x_l) without anything
after the sum (eq. 7, Fig. 4e). As in the paper's appendix, the first block of a layer projects the
activated signal, and the signal is normed and activated once more at the end. Names are those of
the first version, the last norm is `bn_last`; ImageNet files of these names are not known to us.
"""

from __future__ import annotations

from torch import Tensor, nn

from .base import Encoder, initialise
from .resnet import conv3x3

_BLOCKS = (3, 4, 6, 3)
_EXPANSION = 4


class PreActivationBottleneck(nn.Module):
    """x + conv(act(conv(act(conv(act(x)))))), act = relu of batch norm."""

    def __init__(self, inputs: int, width: int, stride: int = 1) -> None:
        super().__init__()
        outputs = _EXPANSION * width
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width, stride)
        self.bn3 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.downsample = (
            None
            if stride == 1 and inputs == outputs
            else nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, 4 width, H / stride, W / stride)."""
        active = self.bn1(x).relu_()
        y = self.conv1(active)
        y = self.conv2(self.bn2(y).relu_())
        y = self.conv3(self.bn3(y).relu_())
        return y + (x if self.downsample is None else self.downsample(active))


class ResNet50V2(Encoder):
    """Down to 1/32 of the size; 2048 channels."""

    channels = 2048

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _layer(64, 64, _BLOCKS[0], 1)
        self.layer2 = _layer(256, 128, _BLOCKS[1], 2)
        self.layer3 = _layer(512, 256, _BLOCKS[2], 2)
        self.layer4 = _layer(1024, 512, _BLOCKS[3], 2)
        self.bn_last = nn.BatchNorm2d(self.channels)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 2048, H / 32, W / 32)."""
        x = self.maxpool(self.conv1(images))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.bn_last(x).relu_()


def _layer(inputs: int, width: int, count: int, stride: int) -> nn.Sequential:
    outputs = _EXPANSION * width
    return nn.Sequential(
        PreActivationBottleneck(inputs, width, stride),
        *(PreActivationBottleneck(outputs, width) for _ in range(count - 1)),
    )
