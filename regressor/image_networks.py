"""Image regressors: an encoder, a head, and those of the published systems.

Networks take crops of people, 224 x 224 as published, RGB normalised by ImageNet's mean and
deviation (`encoders.base`), and give rotations, shape and a weak-perspective camera of the crop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from .encoders import Encoder, make_encoder
from .heads import BOX_NUMBERS, CLIFF, HMR, SPIN, FeedbackHead, Head, ImageEstimate
from .part_attention import PartAttentionHead

Frozen = Literal[False, True, "early"]


class ImageRegressor(nn.Module):
    """From crops to bodies.

    Attributes:
        encoder: crops -> feature map.
        head: feature map -> bodies.
        frozen: whether the encoder, or its early part alone, stays as it is: no gradients, and its
            batch norms keep their statistics while the rest is trained.
    """

    def __init__(self, encoder: Encoder, head: Head, *, frozen: Frozen = False) -> None:
        """ValueError where the early part is to be frozen of an encoder that has none."""
        super().__init__()
        if frozen == "early" and not encoder.late_layers:
            raise ValueError(
                f"{type(encoder).__name__} has no early part to freeze, as ResNets and blazepose "
                "have; set network.frozen to true or false"
            )
        # The channels of a pixel side by side: most networks are faster so (benchmarks/step.py)
        self.encoder = encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.head = head
        self.frozen = frozen
        if frozen:
            encoder.requires_grad_(False).eval()
        for layer in self._late_layers():
            layer.requires_grad_(True).train()

    def _late_layers(self) -> list[nn.Module]:
        """Of an encoder whose early part is frozen."""
        names = self.encoder.late_layers if self.frozen == "early" else ()
        return [self.encoder.get_submodule(name) for name in names]

    def train(self, mode: bool = True) -> ImageRegressor:
        """Set the mode of what is not frozen."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        for layer in self._late_layers():
            layer.train(mode)
        return self

    def encode(self, images: Tensor) -> Tensor:
        """What the encoder, or its early part if that is frozen alone, makes of pictures.

        Args:
            images: (B, 3, H, W) ImageNet-normalised crops.

        Returns:
            (B, C, h, w), the `features` of `forward`.
        """
        images = images.contiguous(memory_format=torch.channels_last)
        return self.encoder.early(images) if self.frozen == "early" else self.encoder(images)

    def forward(
        self,
        images: Tensor | None,
        box: Tensor | None = None,
        *,
        features: Tensor | None = None,
    ) -> ImageEstimate:
        """Estimate B people.

        Args:
            images: (B, 3, H, W) ImageNet-normalised crops.
            box: (B, 3) from `locate_crops`, for a head that asks for it: CLIFF's.
            features: (B, C, h, w) what `encode` has made of the crops before; these are then not
                needed.

        Raises:
            ValueError: a shape is wrong, or the box is missing or not used.
        """
        if features is None:
            if images is None or images.dim() != 4 or images.shape[1] != 3:
                got = None if images is None else tuple(images.shape)
                raise ValueError(f"images must be (B, 3, H, W) normalised crops, got {got}")
            features = self.encode(images)
        if self.frozen == "early":
            features = self.encoder.late(features.contiguous(memory_format=torch.channels_last))
        self._check_box(len(features), box)
        return self.head(features, box)

    def _check_box(self, batch: int, box: Tensor | None) -> None:
        if (box is not None) != self.head.needs_box:
            wanted = "needs box" if self.head.needs_box else "does not take box"
            raise ValueError(
                f"this network {wanted}, the three numbers of the crop's place (B, 3); "
                f"got {'none' if box is None else tuple(box.shape)}"
            )
        if box is not None and box.shape != (batch, BOX_NUMBERS):
            raise ValueError(f"box must be ({batch}, {BOX_NUMBERS}), got {tuple(box.shape)}")


def locate_crops(crop: Tensor, intrinsics: Tensor) -> Tensor:
    """The three numbers by which CLIFF knows where a crop is in its picture.

    (cx, cy, b) / f of eq. 5, from the principal point and scaled to about [-1, 1] as its program
    does, by constants that it takes from Human3.6M.

    Args:
        crop: (B, 3) centre x, y and side of the crop, full-image pixels.
        intrinsics: (B, 3, 3) of the full image, pixels.

    Returns:
        (B, 3), the `box` of `ImageRegressor`.
    """
    focal = intrinsics.diagonal(dim1=-2, dim2=-1)[:, :2]
    centre = (crop[:, :2] - intrinsics[:, :2, 2]) / focal
    side = crop[:, 2:] / focal[:, :1]
    return torch.cat([2.8 * centre, (side - 0.24) / 0.06], dim=1)


def make_hmr() -> ImageRegressor:
    """HMR: a pre-activation ResNet-50 and feedback on 85 parameters. Its files are TensorFlow's."""
    encoder = make_encoder("resnet50v2")
    return ImageRegressor(encoder, FeedbackHead(encoder.channels, HMR))


def make_spin() -> ImageRegressor:
    """SPIN: ResNet-50 and feedback on 6D rotations."""
    encoder = make_encoder("resnet50")
    return ImageRegressor(encoder, FeedbackHead(encoder.channels, SPIN))


def make_cliff() -> ImageRegressor:
    """CLIFF with a ResNet-50: SPIN's network, told where the crop is."""
    encoder = make_encoder("resnet50")
    return ImageRegressor(encoder, FeedbackHead(encoder.channels, CLIFF))


def make_pare() -> ImageRegressor:
    """PARE with an HRNet-W32."""
    encoder = make_encoder("hrnet_w32")
    return ImageRegressor(encoder, PartAttentionHead(encoder.channels))


PUBLISHED: dict[str, Callable[[], ImageRegressor]] = {
    "SPIN": make_spin,
    "CLIFF": make_cliff,
    "PARE": make_pare,
}
