"""A small task for the tests of training, in this process or in one of its own.

`python toy_task.py ...` is `fit-cli train ...` with the task "toy" known. BODYLOOP_TOY_SLOW is the
seconds that each batch takes, so that a test can interrupt the run in its middle.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import nn

from regressor.config import TrainingConfig
from regressor.tasks import TASKS, TaskEntry

ENTRY = TaskEntry(module="toy_task", config="ToyConfig")


@dataclass(frozen=True, kw_only=True)
class ToyNetworkConfig:
    width: int = 16
    dropout: float = 0.2


@dataclass(frozen=True, kw_only=True)
class ToyConfig:
    task: Literal["toy"] = "toy"
    seed: int = 0
    training: TrainingConfig = field(default_factory=lambda: TrainingConfig(steps=20, batch_size=8))
    network: ToyNetworkConfig = field(default_factory=ToyNetworkConfig)
    bad_batches: tuple[int, ...] = ()  # whose loss is NaN


def make_network(config, body=None):
    width = config.network.width
    return nn.Sequential(
        nn.Linear(3, width, bias=False),  # the batch norm would take it away again
        nn.BatchNorm1d(width),
        nn.ReLU(),
        nn.Dropout(config.network.dropout),
        nn.Linear(width, 2),
    )


class ToyTask:
    """Regression of a smooth function of three numbers."""

    name = "toy"
    judged_by = "error"
    body_sha256 = ""

    def __init__(self, config):
        self.config = config
        self.network = make_network(config)
        self.slow = float(os.environ.get("BODYLOOP_TOY_SLOW", "0"))

    def batch(self, number):
        time.sleep(self.slow)
        rng = np.random.default_rng((self.config.seed, number))
        x = rng.normal(size=(self.config.training.batch_size, 3))
        y = np.stack([np.sin(x[:, 0]) + x[:, 1], x[:, 1] * x[:, 2]], axis=1)
        if number in self.config.bad_batches:
            y[0, 0] = np.nan
        return {name: torch.from_numpy(a).float() for name, a in (("x", x), ("y", y))}

    def losses(self, network, batch):
        square = (network(batch["x"]) - batch["y"]).square()
        return {"loss": square.mean(), "first": square[:, 0].mean()}

    def evaluate(self, network):
        assert not network.training
        batch = self.batch(10**6)
        device = next(network.parameters()).device
        error = network(batch["x"].to(device)).cpu() - batch["y"]
        return {"error": float(error.abs().mean())}

    def pictures(self, network):
        return {"weights": np.full((4, 6, 3), 128, np.uint8)}


def make_task(config):
    return ToyTask(config)


if __name__ == "__main__":
    from cli.main import main

    TASKS["toy"] = ENTRY
    main(["train", *sys.argv[1:]])
