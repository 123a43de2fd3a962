"""Several processes, started by `torchrun`, that train one network on different batches."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class Group:
    """The processes of a run; alone, every method gives back what it got.

    All methods but `wrap` are collective: each process must call them in the same order.

    Attributes:
        rank: of this process; the one of rank 0 evaluates and writes.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that evaluates and writes."""
        return self.rank == 0

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network with gradients averaged over the processes."""
        if self.size == 1:
            return network
        device = next(network.parameters()).device
        return DistributedDataParallel(
            network, device_ids=[device.index] if device.type == "cuda" else None
        )

    def any(self, flag: bool) -> bool:
        """Whether it holds anywhere. The flags stay on the CPU: no device is waited for."""
        if self.size == 1:
            return flag
        flags = torch.tensor(int(flag))
        dist.all_reduce(flags, dist.ReduceOp.MAX)
        return bool(flags)

    def sum(self, value: Tensor) -> Tensor:
        """Sum over the processes."""
        if self.size > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value

    def minimum(self, value: Tensor) -> Tensor:
        """Elementwise minimum over the processes."""
        if self.size > 1:
            value = value.clone()
            dist.all_reduce(value, dist.ReduceOp.MIN)
        return value

    def from_first(self, value: Value | None) -> Value:
        """What the first process passed, an object that can be pickled; the others pass None."""
        values = [value]
        if self.size > 1:
            dist.broadcast_object_list(values, device=torch.device("cpu"))
        assert values[0] is not None
        return values[0]


def without_sync(network: nn.Module) -> AbstractContextManager[None]:
    """Where gradients are only summed up, to be averaged over the processes by a later batch."""
    return network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext()


@contextmanager
def join_group() -> Iterator[Group]:
    """The group that `torchrun` put this process into; without `torchrun` it is alone.

    What `Group.wrap` gave must be out of reach when the context ends.
    """
    if not dist.is_torchelastic_launched():
        yield Group()
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    yield Group(rank=dist.get_rank(), size=dist.get_world_size())
    # `DistributedDataParallel` sits in reference cycles. One that outlives the group owns its last
    # threads, and may wait for them forever when it is freed. After an error this is left to the
    # end of the process, since the traceback keeps it alive.
    gc.collect()
    dist.destroy_process_group()


def device_of_process(device: torch.device) -> torch.device:
    """The GPU of this process's own, where `torchrun` started several on this machine."""
    if device.type != "cuda" or device.index is not None:
        return device
    own = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(own)
    return own
