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


def make_optimizer(config: OptimizerConfig, parameters: Iterable[nn.Parameter]) -> Optimizer:
    """The optimiser of `torch.optim` that the config describes."""
    common: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay}
    if config.name == "adam":
        return torch.optim.Adam(parameters, betas=config.betas, **common)
    if config.name == "adamw":
        return torch.optim.AdamW(parameters, betas=config.betas, **common)
    if config.name == "sgd":
        return torch.optim.SGD(parameters, momentum=config.momentum, **common)
    return torch.optim.RMSprop(parameters, momentum=config.momentum, **common)


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
    """The learning rate of the next update."""
    for group in optimizer.param_groups:
        group["lr"] = lr
