"""Which tasks there are. Their modules need torch, so they are imported when one is asked for."""

from __future__ import annotations

import difflib
import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from fitting.body import Body

    from .config import TaskConfig
    from .task import Task


@dataclass(frozen=True, kw_only=True)
class TaskEntry:
    """Where a task is defined.

    Attributes:
        module: has `make_task(config) -> Task`, with the data to train on, and
            `make_network(config, body: Body | None) -> nn.Module`, for reading a checkpoint where
            the data need not be. The network's state dict must be that of `Task.network`.
        config: name of the config dataclass in that module.
    """

    module: str
    config: str


TASKS = {
    "lifter": TaskEntry(module="regressor.lifter_task", config="LifterConfig"),
    "image": TaskEntry(module="regressor.image_task", config="ImageConfig"),
    "pose2mesh": TaskEntry(module="regressor.pose2mesh.task", config="Pose2MeshConfig"),
}


def config_class(name: str) -> type:
    """The config dataclass of the task called `name`.

    Raises:
        ValueError: there is no such task; the message names the nearest one.
    """
    return getattr(_module(name), _entry(name).config)


def make_task(config: TaskConfig) -> Task:
    """The task of a config; the first weights of its network follow from the seed alone."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return _module(config.task).make_task(config)


def make_network(config: TaskConfig, body: Body | None) -> nn.Module:
    """The network of a config without its data, with weights that a checkpoint shall replace."""
    return _module(config.task).make_network(config, body)


def _module(name: str) -> Any:
    return importlib.import_module(_entry(name).module)


def _entry(name: str) -> TaskEntry:
    if name not in TASKS:
        near = difflib.get_close_matches(name, TASKS, n=1)
        advice = f"did you mean {near[0]}?" if near else f"there are {', '.join(TASKS)}"
        raise ValueError(f"task {name} is not known; {advice}")
    return TASKS[name]
