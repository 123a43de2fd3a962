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

    A file whose names have no prefix, or that is a bare state dict, is read as well.

    Attributes:
        title: the system, in messages.
        container: key of the state dict.
        prefix: of all its names that count.
        telltale: names, without the prefix; no other system has most of them.
        ignored: prefixes, after that one, of tensors that are not the network's, such as those of
            the body that the authors keep beside it.
        loader: "module:function" from the state dict, without the prefix, to the network.
    """

    title: str
    container: str
    prefix: str = ""
    telltale: tuple[str, ...]
    ignored: tuple[str, ...] = ()
    loader: str

    def state(self, content: Any) -> dict[str, Tensor]:
        """The tensors that count in the content of a file, without the prefix."""
        if not isinstance(content, Mapping):
            return {}
        held = content.get(self.container, content)
        if not isinstance(held, Mapping):
            return {}
        names = (str(name).removeprefix(self.prefix) for name in held)
        return {
            name: tensor
            for name, tensor in zip(names, held.values(), strict=True)
            if isinstance(tensor, Tensor) and not name.startswith(self.ignored)
        }


_FEEDBACK = ("decpose.weight", "decshape.weight", "deccam.weight")
LAYOUTS = (
    Layout(
        title="Pose2Mesh",
        container="model_state_dict",
        telltale=("pose_lifter.w1.weight",),
        loader="regressor.pose2mesh.official:from_official_state",
    ),
    Layout(
        title="SPIN",
        container="model",
        telltale=("layer4.2.conv3.weight", *_FEEDBACK),
        loader="regressor.image_official:from_spin_state",
    ),
    Layout(
        title="CLIFF",
        container="model",
        prefix="module.",
        telltale=("encoder.conv1.weight", *_FEEDBACK),
        loader="regressor.image_official:from_cliff_state",
    ),
    Layout(
        title="PARE",
        container="state_dict",
        prefix="model.",
        telltale=("head.smpl_final_layer.weight", "head.pose_mlp.weight"),
        ignored=("smpl.",),
        loader="regressor.image_official:from_pare_state",
    ),
)


def recognise(content: Any) -> Layout | None:
    """The published layout that the content of a file is most like, if at least half like it.

    Not all of its names need be there: a file that lacks some is to be told so.
    """
    share = {layout: _share(layout, content) for layout in LAYOUTS}
    best = max(LAYOUTS, key=lambda layout: share[layout])
    return best if share[best] >= 0.5 else None


def _share(layout: Layout, content: Any) -> float:
    state = layout.state(content)
    return sum(name in state for name in layout.telltale) / len(layout.telltale)


def load_official(layout: Layout, content: Any, path: Path | str) -> nn.Module:
    """The network of a published file.

    Raises:
        InputError: the tensors are not those that the system's network has.
    """
    module, _, function = layout.loader.partition(":")
    try:
        return getattr(importlib.import_module(module), function)(layout.state(content))
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
