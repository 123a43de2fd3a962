"""ResNet: He et al., "Deep Residual Learning for Image Recognition" (CVPR 2016).

Post-activation blocks, the stride in a bottleneck's 3 x 3 convolution. Parameters have the names
and shapes of torchvision's, but for its last layer `fc`.
"""

from __future__ import annotations

from torch import Tensor, nn

from .base import Encoder, initialise

_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
_BLOCKS[152] = (3, 8, 36, 3)
_DEEPEST_OF_BASIC_BLOCKS = 34


def conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """A 3 x 3 convolution that keeps the size, up to its stride."""
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)


class BasicBlock(nn.Module):
    """relu(x + bn(conv(relu(bn(conv(x)))))): Fig. 5, left."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = conv3x3(inputs, width, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, width, H / stride, W / stride)."""
        y = self.bn1(self.conv1(x)).relu_()
        y = self.bn2(self.conv2(y))
        return (y + (x if self.downsample is None else self.downsample(x))).relu_()


class Bottleneck(nn.Module):
    """A 3 x 3 convolution between two of 1 x 1 that narrow and widen: Fig. 5, right."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int = 1) -> None:
        super().__init__()
        outputs = self.expansion * width
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = _shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, 4 width, H / stride, W / stride)."""
        y = self.bn1(self.conv1(x)).relu_()
        y = self.bn2(self.conv2(y)).relu_()
        y = self.bn3(self.conv3(y))
        return (y + (x if self.downsample is None else self.downsample(x))).relu_()


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    """A projection where the block changes the size or the number of channels; else none."""
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
    )


def make_layer(
    block: type[BasicBlock] | type[Bottleneck], inputs: int, width: int, count: int, stride: int = 1
) -> nn.Sequential:
    """`count` blocks, the first of which has the stride."""
    outputs = block.expansion * width
    return nn.Sequential(
        block(inputs, width, stride), *(block(outputs, width) for _ in range(count - 1))
    )


class ResNet(Encoder):
    """Down to 1/32 of the size; 512 channels of basic blocks, 2048 of bottlenecks."""

    late_layers = ("layer4",)

    def __init__(
        self, block: type[BasicBlock] | type[Bottleneck], counts: tuple[int, int, int, int]
    ) -> None:
        super().__init__()
        e = block.expansion
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = make_layer(block, 64, 64, counts[0])
        self.layer2 = make_layer(block, 64 * e, 128, counts[1], stride=2)
        self.layer3 = make_layer(block, 128 * e, 256, counts[2], stride=2)
        self.layer4 = make_layer(block, 256 * e, 512, counts[3], stride=2)
        self.channels = 512 * e
        initialise(self)

    def early(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 256 or 1024, H / 16, W / 16)."""
        x = self.maxpool(self.bn1(self.conv1(images)).relu_())
        return self.layer3(self.layer2(self.layer1(x)))

    def late(self, x: Tensor) -> Tensor:
        """(B, 256 or 1024, H / 16, W / 16) -> (B, 512 or 2048, H / 32, W / 32)."""
        return self.layer4(x)


def make_resnet(depth: int) -> ResNet:
    """ResNet of 18, 34, 50, 101 or 152 layers (Table 1)."""
    block = BasicBlock if depth <= _DEEPEST_OF_BASIC_BLOCKS else Bottleneck
    return ResNet(block, _BLOCKS[depth])
