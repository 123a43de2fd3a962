"""Optimisers and learning rates as a config names them."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from .config import OptimizerConfig, ScheduleConfig


def make_optimizer(
    config: OptimizerConfig, parameters: Iterable[tuple[str, nn.Parameter]]
) -> Optimizer:
    """The optimiser of `torch.optim` that the config describes.

    Args:
        config: where several of its `factors` are of one parameter, that of the longest name holds.
        parameters: with their names.

    Raises:
        ValueError: no parameter has a name that begins as a factor's.
    """
    groups = _grouped(config, parameters)
    common: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay}
    if config.name == "adam":
        return torch.optim.Adam(groups, betas=config.betas, **common)
    if config.name == "adamw":
        return torch.optim.AdamW(groups, betas=config.betas, **common)
    if config.name == "sgd":
        return torch.optim.SGD(groups, momentum=config.momentum, **common)
    return torch.optim.RMSprop(groups, momentum=config.momentum, **common)


def _grouped(
    config: OptimizerConfig, parameters: Iterable[tuple[str, nn.Parameter]]
) -> list[dict[str, Any]]:
    """Groups of parameters with a factor on the learning rate each, for `set_learning_rate`."""
    groups: dict[str, list[nn.Parameter]] = {prefix: [] for prefix in ("", *config.factors)}
    for name, parameter in parameters:
        groups[max((p for p in groups if name.startswith(p)), key=len)].append(parameter)
    for prefix in config.factors:
        if not groups[prefix]:
            raise ValueError(
                f"training.optimizer.factors: nothing that is trained has a name that begins with "
                f"{prefix}; try encoder or head"
            )
    factors = {"": 1.0} | config.factors
    return [{"params": held, "factor": factors[p]} for p, held in groups.items() if held]


def schedule_factor(config: ScheduleConfig, step: int, steps: int) -> float:
    """Factor on the learning rate at update `step` of 0 .. steps - 1.

    A function of the step alone, so that there is nothing to save. `cosine` falls along half a
    cosine (Loshchilov and Hutter 2017, eq. 5 without restarts) that begins when the warm-up ends.
    """
    if step < config.warmup_steps:
        return (step + 1) / (config.warmup_steps + 1)
    if config.name == "cosine":
        done = (step - config.warmup_steps) / (steps - config.warmup_steps)
        falling = (1 + math.cos(math.pi * done)) / 2
        return config.final_factor + (1 - config.final_factor) * falling
    if config.name == "step":
        return config.gamma ** bisect_right(config.milestones, step)
    return 1.0


def set_learning_rate(optimizer: Optimizer, lr: float) -> None:
    """The learning rate of the next update, of parameters without a factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["factor"]
