"""Losses since the last look, summed on the device: reading them each step would stall a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .distributed import Group

_NONE = torch.iinfo(torch.int64).max  # in place of a batch number


class LossWindow:
    """Sums of named losses over batches, and the first batch whose loss was not finite."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.clear()

    def clear(self) -> None:
        """Begin a new window."""
        self._sums: dict[str, Tensor] = {}
        self._count = 0
        self._first_bad = torch.tensor(_NONE, device=self._device)

    def add(self, losses: Mapping[str, Tensor], number: int) -> None:
        """Add the losses of batch `number`; nothing is read back from the device."""
        for name, loss in losses.items():
            value = loss.detach().to(torch.float32)
            self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()
        self._count += 1
        bad = ~losses["loss"].detach().isfinite()
        self._first_bad = torch.where(bad, self._first_bad.clamp(max=number), self._first_bad)

    def first_bad(self, group: Group) -> int | None:
        """Smallest number of a batch with a NaN or infinite loss, in any process."""
        number = int(group.minimum(self._first_bad))
        return None if number == _NONE else number

    def means(self, group: Group) -> dict[str, float]:
        """Mean of each loss over the window's batches in all processes."""
        totals, count = self._totals(group)
        return {name: total / count for name, total in totals.items()}

    def _totals(self, group: Group) -> tuple[dict[str, float], int]:
        """Sum of each loss over the batches of all processes, and their number."""
        if not self._sums:
            return {}, 0
        count = torch.tensor(float(self._count), device=self._device)
        *totals, number = group.sum(torch.stack([*self._sums.values(), count])).tolist()
        return dict(zip(self._sums, totals, strict=True)), round(number)

    def state_dict(self, group: Group) -> dict[str, Any]:
        """What `load_state_dict` needs to go on in the middle of a window, in every process."""
        totals, count = self._totals(group)
        return {"totals": totals, "count": count}

    def load_state_dict(self, state: Mapping[str, Any], group: Group) -> None:
        """Go on from what `state_dict` gave, of whatever number of processes."""
        self.clear()
        share = 1 if group.is_first else 0  # one process keeps what belongs to all of them
        self._sums = {
            k: torch.tensor(share * v, device=self._device) for k, v in state["totals"].items()
        }
        self._count = share * state["count"]
