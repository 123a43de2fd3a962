"""What the training loop needs to know of the thing that it trains."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from torch import Tensor, nn

from .distributed import Group

Batch = dict[str, Tensor]
"""Named tensors with the batch as first dimension."""


class Task(Protocol):
    """A network, its numbered batches, its losses and its evaluation.

    Attributes:
        name: of the architecture, as checkpoints state it; a key of `tasks.TASKS`.
        network: float32; the trainer moves it to the device, and may wrap it for several processes.
        judged_by: the metric of `evaluate` by which the best checkpoint is chosen; lower is better.
        body_sha256: of the body that the network's output belongs to; "" where there is none.
    """

    name: str
    network: nn.Module
    judged_by: str
    body_sha256: str

    def batch(self, number: int) -> Batch:
        """Batch `number` on the CPU, a pure function of the config's seed and the number.

        It must take its randomness from a generator of its own, and is called in any order, from
        other threads or in other processes. Exact resume follows from this purity.
        """

    def losses(self, network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Scalars on the device; "loss" is differentiated, the others are only logged.

        Args:
            network: to be called once, as given: it may be a wrapper around `self.network`, or
                an average of its weights.
            batch: on the network's device; not modified.
        """

    def evaluate(self, network: nn.Module) -> dict[str, float]:
        """Metrics on held-out data; `network` is in eval mode, gradients are off."""

    def pictures(self, network: nn.Module) -> dict[str, np.ndarray]:
        """Named (H, W, 3) uint8 RGB pictures for TensorBoard, drawn as `evaluate`; may be empty."""


@runtime_checkable
class KeepsFiles(Protocol):
    """A task with files of its own in the run's folder, which must agree with the checkpoint.

    All methods but `show_files` are collective: every process calls them.
    """

    def begin_files(self, run: Path, group: Group) -> None:
        """Make them for a new run, in its folder."""

    def resume_files(self, run: Path, step: int) -> None:
        """Have them as they were when the checkpoint of `step` was saved."""

    def save_files(self, step: int, group: Group) -> None:
        """Before the checkpoint of `step` is written."""

    def commit_files(self, group: Group) -> None:
        """Once that is on the disk."""

    def finish_files(self, run: Path, group: Group) -> None:
        """At the end of the run, after the last commit: what others shall read."""

    def describe_files(self) -> dict[str, float]:
        """Finite numbers for the log, at each evaluation; none if there is nothing to tell."""

    def show_files(self, step: int, network: nn.Module) -> None:
        """At each evaluation, in the first process alone: what readers of the run shall see.

        Args:
            step: updates done.
            network: as `Task.evaluate` gets it.
        """
