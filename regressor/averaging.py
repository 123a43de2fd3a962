"""Averages of a network's weights over training, and batch norms that fit them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, get_swa_multi_avg_fn

from .config import AverageConfig

Item = TypeVar("Item")


class WeightAverage:
    """A running average of the weights of a network, as `AverageConfig` describes it."""

    def __init__(self, config: AverageConfig, network: nn.Module) -> None:
        self._config = config
        average = (
            get_ema_multi_avg_fn(config.decay) if config.kind == "ema" else get_swa_multi_avg_fn()
        )
        self._model = AveragedModel(network, multi_avg_fn=average)

    @property
    def network(self) -> nn.Module | None:
        """The network with averaged weights; None before the first weights have entered."""
        return self._model.module if self._model.n_averaged > 0 else None

    def update(self, network: nn.Module, step: int) -> None:
        """Let the weights after `step` updates enter, if it is their turn."""
        since = step - max(1, self._config.start_step)
        if since >= 0 and since % self._config.every == 0:
            self._model.update_parameters(network)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Everything that `load_state_dict` needs to go on."""
        return self._model.state_dict()

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Go on from what `state_dict` gave."""
        self._model.load_state_dict(state)


def estimate_batch_norm(
    network: nn.Module, forward: Callable[[Item], object], batches: Iterable[Item]
) -> None:
    """Set the running statistics of a network's batch norms to their mean over batches.

    As `torch.optim.swa_utils.update_bn`, but with dropout off: what is measured is the network that
    is evaluated, and no random number is drawn. Batch norms that `network.train()` leaves in eval
    mode, such as those of a frozen encoder, keep what they have. Leaves the network in eval mode.

    Args:
        network: its running means and variances are replaced.
        forward: runs the network on one batch.
        batches: taken from only if there is a batch norm to estimate.
    """
    network.train()
    norms = [
        m
        for m in network.modules()
        if isinstance(m, _BatchNorm) and m.training and m.running_mean is not None
    ]
    network.eval()
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's way to ask for a plain mean
        norm.train()
    with torch.no_grad():
        for batch in batches:
            forward(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()
