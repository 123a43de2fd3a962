"""Checkpoints of published systems: how their files are told apart, and who reads them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fitting.files import InputError


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a system's official code writes checkpoints: {container: {prefix + name: tensor}}.

    Attributes:
        title: the system, in messages.
        container: key of the state dict.
        prefix: of all its names that count.
        telltale: names, without the prefix, that together no other system has.
        loader: "module:function" from the state dict, without the prefix, to the network; none
            where the system cannot be run yet.
    """

    title: str
    container: str
    prefix: str = ""
    telltale: tuple[str, ...]
    loader: str | None = None


LAYOUTS = (
    Layout(
        title="Pose2Mesh",
        container="model_state_dict",
        telltale=("pose_lifter.w1.weight",),
        loader="regressor.pose2mesh_official:from_official_state",
    ),
    Layout(title="SPIN", container="model", telltale=("layer4.2.conv3.weight", "decpose.weight")),
    Layout(
        title="CLIFF",
        container="model",
        prefix="module.",
        telltale=("encoder.conv1.weight", "decpose.weight"),
    ),
    Layout(
        title="PARE",
        container="state_dict",
        prefix="model.",
        telltale=("head.smpl_final_layer.weight",),
    ),
)


def recognise(content: Any) -> Layout | None:
    """The published layout that the content of a file has, if any."""
    for layout in LAYOUTS:
        state = content.get(layout.container) if isinstance(content, Mapping) else None
        if isinstance(state, Mapping) and all(
            layout.prefix + name in state for name in layout.telltale
        ):
            return layout
    return None


def load_official(layout: Layout, content: Mapping[str, Any], path: Path | str) -> nn.Module:
    """The network of a published file.

    Raises:
        InputError: there is no reader for this system, or the tensors are not those it expects.
    """
    if layout.loader is None:
        raise InputError(f"{path}: is a checkpoint of {layout.title}, which is not supported yet")
    module, _, function = layout.loader.partition(":")
    state = {
        name.removeprefix(layout.prefix): tensor
        for name, tensor in content[layout.container].items()
        if name.startswith(layout.prefix) and isinstance(tensor, Tensor)
    }
    try:
        return getattr(importlib.import_module(module), function)(state)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
