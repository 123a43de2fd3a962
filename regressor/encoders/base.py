"""What all encoders have in common, and how files of pretrained weights enter them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from fitting.files import InputError

from ..state_dicts import mismatch

# Of ImageNet's pictures, RGB in [0, 1]: what the crops that networks take are normalised by.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Encoder(nn.Module):
    """From ImageNet-normalised crops (B, 3, H, W) to a feature map (B, C, h, w).

    Attributes:
        channels: C.
        classifier: prefixes of the names that only the file of a classifier or of another task
            has: they are left out when pretrained weights are loaded.
        added: prefixes of the names that such a file may lack: those keep their first values.
        late_layers: names of the modules that `late` consists of, where an encoder is made of two
            parts, of which the last may learn while the first stays as it is.
    """

    channels: int
    classifier: ClassVar[tuple[str, ...]] = ("fc.",)
    added: ClassVar[tuple[str, ...]] = ()
    late_layers: ClassVar[tuple[str, ...]] = ()

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C, h, w)."""
        return self.late(self.early(images))

    def early(self, images: Tensor) -> Tensor:
        """The first part: (B, 3, H, W) -> what `late` takes, (B, C', h', w')."""
        raise NotImplementedError

    def late(self, x: Tensor) -> Tensor:
        """The last part: (B, C', h', w') -> (B, C, h, w)."""
        raise NotImplementedError


class Renormalise(nn.Module):
    """From ImageNet's normalisation of the colours to another one."""

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Iterable[float], std: Iterable[float]) -> None:
        """Of the new one: (rgb - mean) / std, rgb in [0, 1]."""
        super().__init__()
        mean, std = torch.tensor(list(mean)), torch.tensor(list(std))
        scale = torch.tensor(IMAGENET_STD) / std
        shift = (torch.tensor(IMAGENET_MEAN) - mean) / std
        # not in the state dict: published files have no such tensors
        self.register_buffer("scale", scale[:, None, None], persistent=False)
        self.register_buffer("shift", shift[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> the same."""
        return images * self.scale + self.shift


def initialise(network: nn.Module) -> None:
    """Weights to train from: He et al. (ICCV 2015), eq. 10 over the outputs; norms pass through."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def load_pretrained(encoder: Encoder, state: Mapping[str, Tensor], source: str) -> None:
    """Put the weights of a classifier of pictures into an encoder, by name.

    Args:
        encoder: changed in place, and only if everything fits.
        state: names and tensors, as torchvision's files hold them.
        source: of the tensors, for messages.

    Raises:
        InputError: a tensor is missing, unknown or of another shape.
    """
    expected = encoder.state_dict()
    found = {name: t for name, t in state.items() if not name.startswith(encoder.classifier)}
    # torchvision's older files do not count batches, and nothing depends on the count
    may_lack = {n for n in expected if n.startswith(encoder.added) or n.endswith("batches_tracked")}
    needed = {n: t for n, t in expected.items() if n in found or n not in may_lack}
    if wrong := mismatch(needed, found):
        raise InputError(
            f"{source}: does not fit {type(encoder).__name__}: {wrong}; are they weights of "
            "another network?"
        )
    encoder.load_state_dict({**expected, **found})
