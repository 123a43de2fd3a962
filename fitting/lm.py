"""Levenberg-Marquardt on many small problems at once.

It knows nothing of bodies. A problem is a row of x (B, D); `linearise(x, rows)` gives each row's
cost, gradient and a positive semidefinite approximation of its Hessian (Gauss-Newton for residuals,
precisions for quadratic terms). Every row has its own damping, and a step that does not lower its
cost is undone for that row alone. Within a block of steps all shapes are fixed and nothing is read
back from the device; between blocks finished rows are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .solver import Solution


class Linearised(NamedTuple):
    """A quadratic model of each problem at x.

    Attributes:
        cost: (b,).
        gradient: (b, D).
        hessian: (b, D, D), symmetric and positive semidefinite.
    """

    cost: Tensor
    gradient: Tensor
    hessian: Tensor

    def where(self, accepted: Tensor, other: Linearised) -> Linearised:
        """Rows of this model where `accepted` (b,), of the other elsewhere."""
        return Linearised(
            torch.where(accepted, self.cost, other.cost),
            torch.where(accepted[:, None], self.gradient, other.gradient),
            torch.where(accepted[:, None, None], self.hessian, other.hessian),
        )


Linearise = Callable[[Tensor, Tensor], Linearised]


@dataclass(frozen=True, kw_only=True)
class LmOptions:
    """Settings of `minimize_lm`."""

    max_steps: int = 20
    damping: float = 1e-2  # at the start, as a share of the Hessian's diagonal
    damping_down: float = 0.2  # after a step that lowered the cost
    damping_up: float = 5.0  # after one that did not
    cost_tolerance: float = 1e-4  # relative; a row is finished when a step gains less
    block: int = 5  # steps between looks at which rows have finished

    def __post_init__(self) -> None:
        if self.max_steps < 1 or self.block < 1:
            raise ValueError(
                f"max_steps and block must be at least 1, got {self.max_steps} and {self.block}"
            )


_DAMPING_RANGE = (1e-7, 1e7)
_RIDGE = 1e-6  # keeps unknowns that no term touches where they are


class _State(NamedTuple):
    row: Tensor  # (b,) which problem each row is
    x: Tensor  # (b, D)
    model: Linearised  # at x
    damping: Tensor  # (b,)
    finished: Tensor  # (b,) bool
    num_steps: Tensor  # (b,) int32

    def select(self, kept: Tensor) -> _State:
        parts = {name: part[kept] for name, part in self._asdict().items() if name != "model"}
        return _State(model=Linearised(*(part[kept] for part in self.model)), **parts)


def minimize_lm(
    linearise: Linearise, x: Tensor, options: LmOptions, *, free: Tensor | None = None
) -> Solution:
    """Minimise every problem by Levenberg-Marquardt (Nocedal and Wright, section 10.3).

    Args:
        linearise: (b, D), (b,) -> quadratic models.
        x: (B, D) start; not modified.
        options: settings.
        free: (D,) bool, the unknowns that may change; none means all.
    """
    free = x.new_ones(x.shape[1], dtype=torch.bool) if free is None else free
    state = _start(linearise, x, options)
    found = _Found(state)
    for done in range(0, options.max_steps, options.block):
        for _ in range(min(options.block, options.max_steps - done)):
            state = _step(linearise, state, options, free)
        found.store(state)
        state = state.select(~state.finished)
        if len(state.row) == 0:
            break
    return found.solution()


class _Found:
    """Where results are gathered in the order of the problems."""

    def __init__(self, state: _State) -> None:
        self.cost_initial = state.model.cost
        self.x = state.x.clone()
        self.cost = state.model.cost.clone()
        self.num_steps = state.num_steps.clone()
        self.finished = state.finished.clone()

    def store(self, state: _State) -> None:
        self.x[state.row] = state.x
        self.cost[state.row] = state.model.cost
        self.num_steps[state.row] = state.num_steps
        self.finished[state.row] = state.finished

    def solution(self) -> Solution:
        return Solution(
            x=self.x,
            cost_initial=self.cost_initial,
            cost_final=self.cost,
            num_steps=self.num_steps,
            converged=self.finished & self.cost.isfinite(),
        )


def _start(linearise: Linearise, x: Tensor, options: LmOptions) -> _State:
    row = torch.arange(len(x), device=x.device)
    model = linearise(x, row)
    return _State(
        row=row,
        x=x.detach().clone(),
        model=model,
        damping=torch.full_like(model.cost, options.damping),
        finished=~model.cost.isfinite(),
        num_steps=torch.zeros_like(row, dtype=torch.int32),
    )


def _step(linearise: Linearise, state: _State, options: LmOptions, free: Tensor) -> _State:
    """Try one damped Newton step of every row; keep it where it lowers the cost."""
    step, solved = _solve(state.model, state.damping, free)
    trial_x = state.x + step
    trial = linearise(trial_x, state.row)
    # NaN compares false, so a trial that is not finite is never accepted
    accepted = (trial.cost < state.model.cost) & solved & ~state.finished
    fell = state.model.cost - trial.cost
    settled = accepted & (fell <= options.cost_tolerance * state.model.cost.abs())
    factor = torch.where(accepted, options.damping_down, options.damping_up)
    stuck = ~accepted & (state.damping >= _DAMPING_RANGE[1])
    return state._replace(
        x=torch.where(accepted[:, None], trial_x, state.x),
        model=trial.where(accepted, state.model),
        damping=(state.damping * factor).clamp(*_DAMPING_RANGE),
        finished=state.finished | settled | stuck,
        num_steps=state.num_steps + (~state.finished).to(torch.int32),
    )


def _solve(model: Linearised, damping: Tensor, free: Tensor) -> tuple[Tensor, Tensor]:
    """(b, D) damped Newton steps, zero for unknowns that are not free; and where it worked."""
    both_free = free[:, None] & free
    damped = torch.where(both_free, model.hessian, 0.0)
    diagonal = model.hessian.diagonal(dim1=1, dim2=2)
    extra = torch.where(free, damping[:, None] * diagonal + _RIDGE, 1.0)
    damped = damped + torch.diag_embed(extra)
    factor, info = torch.linalg.cholesky_ex(damped)
    gradient = torch.where(free, model.gradient, 0.0)
    step = -torch.cholesky_solve(gradient[..., None], factor)[..., 0]
    solved = (info == 0) & step.isfinite().all(dim=1)
    return torch.where(solved[:, None], step, 0.0), solved
