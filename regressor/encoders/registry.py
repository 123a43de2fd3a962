"""Encoders by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import partial

from .base import Encoder
from .blazepose import BlazePose
from .efficientnet_lite import EfficientNetLite0
from .hrnet import HRNet
from .resnet import make_resnet
from .resnet_v2 import ResNet50V2
from .timm_encoder import TimmEncoder

ENCODERS: dict[str, Callable[[], Encoder]] = {
    **{f"resnet{depth}": partial(make_resnet, depth) for depth in (18, 34, 50, 101, 152)},
    "resnet50v2": ResNet50V2,
    "hrnet_w32": HRNet,
    "efficientnet_lite0": EfficientNetLite0,
    "blazepose": BlazePose,
}
_TIMM = "timm:"


def make_encoder(name: str) -> Encoder:
    """An encoder with weights to train from.

    Args:
        name: one of `ENCODERS`, or "timm:NAME" for any that the package timm has.

    Raises:
        ValueError: there is no such encoder; the message names the nearest one.
        ImportError: timm is asked for and not installed.
    """
    if name.startswith(_TIMM):
        return TimmEncoder(name.removeprefix(_TIMM))
    if name not in ENCODERS:
        near = difflib.get_close_matches(name, ENCODERS, n=1)
        advice = f"did you mean {near[0]}?" if near else f"there are {', '.join(ENCODERS)}"
        raise ValueError(f"encoder {name} is not known; {advice}, or timm:NAME")
    return ENCODERS[name]()
