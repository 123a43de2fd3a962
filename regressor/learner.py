"""A network with its optimiser: one update after another, and everything that needs saving."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fitting.files import InputError

from .averaging import WeightAverage, estimate_batch_norm
from .config import TaskConfig
from .distributed import Group, without_sync
from .loss_window import LossWindow
from .optimizers import make_optimizer, schedule_factor, set_learning_rate
from .task import Batch, Task

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_DROPOUT = 1  # sets the seeds of dropout apart from a task's own use of (seed, number)


class Learner:
    """Updates the weights of a task's network.

    Attributes:
        step: updates done.
        network: of the task, on the device.
        window: losses since it was last cleared.
    """

    def __init__(self, task: Task, config: TaskConfig, group: Group, device: torch.device) -> None:
        """Move the network to the device and wrap it for the group.

        Raises:
            InputError: the device cannot compute with the precision asked for.
        """
        self.step = 0
        self.network = task.network.to(device)
        self.window = LossWindow(device)
        self._task = task
        self._seed = config.seed
        self._config = config.training
        self._group = group
        self._device = device
        self._wrapped = group.wrap(self.network)
        self._optimizer = make_optimizer(self._config.optimizer, self._trained())
        self._average = (
            None
            if self._config.average.kind == "none"
            else WeightAverage(self._config.average, self.network)
        )
        self._scaler = _make_scaler(self._config.precision, device)
        self.network.train()

    @property
    def lr(self) -> float:
        """Learning rate of the last update, of parameters without a factor."""
        group = self._optimizer.param_groups[0]
        return group["lr"] / group["factor"]

    @property
    def batches_per_step(self) -> int:
        """Batches of one update, in all processes."""
        return self._config.accumulate * self._group.size

    def numbers(self) -> range:
        """Of this process's batches from here to the last step; see `_number`."""
        first, last = self._number(self.step, 0), self._number(self._config.steps, 0)
        return range(first, last, self._group.size)

    def _number(self, step: int, k: int) -> int:
        """Which batch is this process's k-th of an update.

        Two processes see what one sees that accumulates two batches.
        """
        return (step * self._config.accumulate + k) * self._group.size + self._group.rank

    def _trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((n, p) for n, p in self.network.named_parameters() if p.requires_grad)

    def update(self, batches: Iterator[Batch]) -> None:
        """One update of the weights, from the next batches; reads nothing back from the device."""
        config, accumulate = self._config, self._config.accumulate
        factor = schedule_factor(config.schedule, self.step, config.steps)
        set_learning_rate(self._optimizer, config.optimizer.lr * factor)
        for k in range(accumulate - 1):
            with without_sync(self._wrapped):
                self._backward(next(batches), self._number(self.step, k))
        self._backward(next(batches), self._number(self.step, accumulate - 1))
        if config.clip_norm is not None:
            self._scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_([p for _, p in self._trained()], config.clip_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad()
        self.step += 1
        if self._average is not None:
            self._average.update(self.network, self.step)

    def _backward(self, batch: Batch, number: int) -> None:
        """Add to the gradients. Dropout depends on the number alone, whatever ran before."""
        seed = np.random.SeedSequence((self._seed, number, _DROPOUT)).generate_state(1, np.uint64)
        torch.manual_seed(int(seed[0]))
        dtype = DTYPES[self._config.precision]
        with torch.autocast(self._device.type, dtype, enabled=dtype != torch.float32):
            losses = self._task.losses(self._wrapped, self._on_device(batch))
        self._scaler.scale(losses["loss"] / self._config.accumulate).backward()
        self.window.add(losses, number)

    def _on_device(self, batch: Batch) -> dict[str, Tensor]:
        return {k: v.to(self._device, non_blocking=True) for k, v in batch.items()}

    def judged(self) -> nn.Module:
        """The network to evaluate and keep, in eval mode: the average, where there is one.

        Call `network.train()` afterwards.
        """
        average = None if self._average is None else self._average.network
        if average is None:
            return self.network.eval()
        batches = (self._task.batch(n) for n in range(self._config.average.batch_norm_batches))
        estimate_batch_norm(
            average, lambda batch: self._task.losses(average, self._on_device(batch)), batches
        )
        return average

    def weights_are_finite(self) -> bool:
        """Whether no weight is NaN or infinite; waits for the device."""
        return all_finite(self.network.state_dict().values())

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs besides the weights; collective (`Group`).

        There is no random state in it: all randomness follows from the numbers of the batches.
        """
        return {
            "step": self.step,
            "batches_per_step": self.batches_per_step,
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "average": None if self._average is None else self._average.state_dict(),
            "window": self.window.state_dict(self._group),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.step = state["step"]
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        self.window.load_state_dict(state["window"], self._group)


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether no element is NaN or infinite."""
    flags = [tensor.isfinite().all() for tensor in tensors]
    return not flags or bool(torch.stack(flags).all())


def _make_scaler(precision: str, device: torch.device) -> torch.amp.GradScaler:
    """Scales losses so that gradients do not vanish in float16; elsewhere it does nothing."""
    if precision == "float16" and device.type != "cuda":
        raise InputError(
            "training.precision float16 needs a GPU; use bfloat16, which needs no loss scaling "
            f"and runs on {device.type}, or float32"
        )
    return torch.amp.GradScaler(device.type, enabled=precision == "float16")
