"""The checkpoints that the authors of SPIN, CLIFF and PARE published."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fitting.files import InputError

from .image_networks import PUBLISHED, ImageRegressor
from .state_dicts import mismatch

# What stands in the published names before the names of our encoder and of our head
_PREFIXES = {
    "SPIN": ("", ""),
    "CLIFF": ("encoder.", ""),
    "PARE": ("backbone.", "head."),
}


def from_spin_state(state: Mapping[str, Tensor]) -> ImageRegressor:
    """SPIN's network of a state dict with the published names.

    Raises:
        InputError: a tensor is missing, unknown or of another shape.
    """
    return _from_state("SPIN", state)


def from_cliff_state(state: Mapping[str, Tensor]) -> ImageRegressor:
    """CLIFF's, with a ResNet-50; `from_spin_state` says more."""
    return _from_state("CLIFF", state)


def from_pare_state(state: Mapping[str, Tensor]) -> ImageRegressor:
    """PARE's, with an HRNet-W32; `from_spin_state` says more."""
    return _from_state("PARE", state)


def official_state(network: ImageRegressor, system: str) -> dict[str, Tensor]:
    """A network's tensors by the names that the authors' program of a system gives them.

    Args:
        network: of the system's architecture.
        system: "SPIN", "CLIFF" or "PARE".
    """
    return {_published(system, name): tensor for name, tensor in network.state_dict().items()}


def _from_state(system: str, state: Mapping[str, Tensor]) -> ImageRegressor:
    with torch.device("meta"):  # no time for first weights that are replaced at once
        network = PUBLISHED[system]()
    if wrong := mismatch(official_state(network, system), state):
        raise InputError(
            f"looks like a checkpoint of {system}, but does not fit its network: {wrong}"
            f"{_other_encoder(system, state)}"
        )
    network = network.to_empty(device="cpu")
    network.load_state_dict({n: state[_published(system, n)] for n in network.state_dict()})
    return network.eval()


def _published(system: str, name: str) -> str:
    """The published name of a tensor of ours."""
    part, _, rest = name.partition(".")
    encoder, head = _PREFIXES[system]
    return (encoder if part == "encoder" else head) + rest


def _other_encoder(system: str, state: Mapping[str, Tensor]) -> str:
    """What to say where a file is of another encoder than ours."""
    encoder = _PREFIXES[system][0]
    branch = state.get(f"{encoder}stage4.0.branches.0.0.conv1.weight")
    found = "no HRNet" if branch is None else f"an HRNet-W{len(branch)}"
    wanted = "an HRNet-W32" if system == "PARE" else "no HRNet"
    if found == wanted:
        return ""
    supported = "an HRNet-W32" if system == "PARE" else "a ResNet-50"
    return f"; its encoder is {found}, and only {system} with {supported} is supported"
