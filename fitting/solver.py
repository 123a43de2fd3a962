"""First-order and quasi-Newton minimisers of many small problems at once.

They know nothing of bodies. A problem is a row of x (B, D); `cost(x, rows)` returns one number per
row, where `rows` says which of the B problems the given rows of x are, so that finished ones can be
left out. A row never sees another row's values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

Cost = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Solution:
    """Where each of B problems ended.

    Attributes:
        x: (B, D).
        cost_initial, cost_final: (B,) at the start and at x.
        num_steps: (B,) int32.
        converged: (B,) bool: the cost had stopped falling.
    """

    x: Tensor
    cost_initial: Tensor
    cost_final: Tensor
    num_steps: Tensor
    converged: Tensor

    def select(self, rows: Tensor) -> Solution:
        """Those of the problems at `rows`."""
        return Solution(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


def minimize_adam(
    cost: Cost, x: Tensor, *, num_steps: int, step_size: float, settled: float = 1e-3
) -> Solution:
    """Take a fixed number of Adam steps (Kingma and Ba, ICLR 2015) on every problem.

    Args:
        cost: (B, D), (B,) -> (B,).
        x: (B, D) start; not modified.
        num_steps: the same for all.
        step_size: in the units of x.
        settled: a problem counts as converged if the last tenth of the steps lowered its cost by
            less than this share.
    """
    rows = torch.arange(len(x), device=x.device)
    x = x.detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([x], lr=step_size)
    history = []
    for _ in range(num_steps):
        costs = cost(x, rows)
        (x.grad,) = torch.autograd.grad(costs.sum(), x)
        optimizer.step()
        history.append(costs.detach())
    x = x.detach()
    with torch.no_grad():
        final = cost(x, rows)
    late = history[-max(1, num_steps // 10)]
    return Solution(
        x=x,
        cost_initial=history[0],
        cost_final=final,
        num_steps=torch.full_like(rows, num_steps, dtype=torch.int32),
        converged=(late - final).abs() <= settled * late.abs(),
    )


@dataclass(frozen=True, kw_only=True)
class LbfgsOptions:
    """Settings of `minimize_lbfgs`; the tolerances are those SMPLify-X gives its solver."""

    max_steps: int = 900  # SMPLify-X: up to 30 rounds of 30 iterations
    history: int = 20
    gradient_tolerance: float = 1e-5
    cost_tolerance: float = 1e-9  # relative
    max_line_search: int = 25
    sufficient_decrease: float = 1e-4  # c1 of the Wolfe conditions
    curvature: float = 0.9  # c2
    compact_every: int = 10  # steps between looks at which problems have finished


def minimize_lbfgs(cost: Cost, x: Tensor, options: LbfgsOptions | None = None) -> Solution:
    """Minimise every problem by its own L-BFGS (Nocedal and Wright, algorithm 7.5).

    Directions come from the two-loop recursion, steps from a line search that brackets a point of
    the weak Wolfe conditions by doubling and bisection (Lewis and Overton, Math. Program. 2013,
    algorithm 2.6), so each stored pair has positive curvature. Finished problems are left out.

    Args:
        cost: (b, D), (b,) -> (b,), differentiable.
        x: (B, D) start; not modified.
        options: none means the defaults.
    """
    options = options or LbfgsOptions()
    state = _start(cost, x.detach().clone())
    first_cost = state.cost.clone()
    done = _Finished(x, state)
    for step in range(1, options.max_steps + 1):
        if len(state.rows) == 0:
            break
        _advance(cost, state, options)
        if step % options.compact_every == 0 or step == options.max_steps:
            done.store(state)
            state.keep(~state.finished)
    return Solution(
        x=done.x,
        cost_initial=first_cost,
        cost_final=done.cost,
        num_steps=done.num_steps,
        converged=done.converged,
    )


@dataclass(kw_only=True)
class _LbfgsState:
    """The unfinished problems: b rows, with up to m pairs of steps and gradient changes."""

    rows: Tensor  # (b,) which problem each row is
    x: Tensor  # (b, D)
    cost: Tensor  # (b,)
    gradient: Tensor  # (b, D)
    finished: Tensor  # (b,) bool
    num_steps: Tensor  # (b,) int32
    pairs: list[tuple[Tensor, Tensor, Tensor]]  # s (b, D), y (b, D), 1 / s.y (b,), oldest first

    def keep(self, mask: Tensor) -> None:
        for name in ("rows", "x", "cost", "gradient", "finished", "num_steps"):
            setattr(self, name, getattr(self, name)[mask])
        self.pairs = [(s[mask], y[mask], r[mask]) for s, y, r in self.pairs]


class _Finished:
    """Where results are gathered in the order of the problems."""

    def __init__(self, x: Tensor, state: _LbfgsState) -> None:
        self.x = x.detach().clone()
        self.cost = state.cost.clone()
        self.num_steps = state.num_steps.clone()
        self.converged = state.finished.clone()

    def store(self, state: _LbfgsState) -> None:
        self.x[state.rows] = state.x
        self.cost[state.rows] = state.cost
        self.num_steps[state.rows] = state.num_steps
        self.converged[state.rows] = state.finished & state.cost.isfinite()


def _value_and_gradient(cost: Cost, x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    x = x.detach().requires_grad_()
    costs = cost(x, rows)
    (gradient,) = torch.autograd.grad(costs.sum(), x)
    return costs.detach(), gradient


def _start(cost: Cost, x: Tensor) -> _LbfgsState:
    rows = torch.arange(len(x), device=x.device)
    costs, gradient = _value_and_gradient(cost, x, rows)
    return _LbfgsState(
        rows=rows,
        x=x,
        cost=costs,
        gradient=gradient,
        finished=~costs.isfinite(),
        num_steps=torch.zeros_like(rows, dtype=torch.int32),
        pairs=[],
    )


def _direction(state: _LbfgsState) -> Tensor:
    """(b, D) minus the inverse Hessian estimate times the gradient, by the two-loop recursion."""
    q = state.gradient.clone()
    coefficients = []
    for s, y, inverse in reversed(state.pairs):
        a = inverse * (s * q).sum(1)
        q = q - a[:, None] * y
        coefficients.append(a)
    q = q * _initial_scale(state)[:, None]
    for (s, y, inverse), a in zip(state.pairs, reversed(coefficients), strict=True):
        b = inverse * (y * q).sum(1)
        q = q + (a - b)[:, None] * s
    slope = (q * state.gradient).sum(1)
    return -torch.where((slope > 0)[:, None], q, state.gradient)


def _initial_scale(state: _LbfgsState) -> Tensor:
    """(b,) first guess of the inverse Hessian: Nocedal and Wright's eq. 7.20.

    Without a pair the first step is at most one unit long (in the sum of absolute values), as in
    torch.optim.LBFGS.
    """
    if not state.pairs:
        return 1 / state.gradient.abs().sum(1).clamp(min=1)
    s, y, inverse = state.pairs[-1]
    scale = (s * y).sum(1) / (y * y).sum(1).clamp(min=1e-30)
    return torch.where(inverse > 0, scale, 1 / state.gradient.abs().sum(1).clamp(min=1))


def _line_search(
    cost: Cost, state: _LbfgsState, direction: Tensor, options: LbfgsOptions
) -> tuple[Tensor, Tensor, Tensor]:
    """Per-row step that meets the weak Wolfe conditions: x, cost and gradient there."""
    slope = (state.gradient * direction).sum(1)
    low = torch.zeros_like(slope)
    high = torch.full_like(slope, torch.inf)
    t = torch.ones_like(slope)
    x, value, gradient = state.x, state.cost, state.gradient
    open_ = ~state.finished
    for _ in range(options.max_line_search):
        trial = state.x + t[:, None] * direction
        trial_cost, trial_gradient = _value_and_gradient(cost, trial, state.rows)
        enough = trial_cost <= state.cost + options.sufficient_decrease * t * slope
        flat = (trial_gradient * direction).sum(1) >= options.curvature * slope
        # The best point so far is kept even where the conditions are never met together.
        better = open_ & enough
        x = torch.where(better[:, None], trial, x)
        value = torch.where(better, trial_cost, value)
        gradient = torch.where(better[:, None], trial_gradient, gradient)
        open_ = open_ & ~(enough & flat)
        high = torch.where(enough, high, t)
        low = torch.where(enough, t, low)
        t = torch.where(high.isfinite(), (low + high) / 2, 2 * low)
        if not open_.any():
            break
    return x, value, gradient


def _advance(cost: Cost, state: _LbfgsState, options: LbfgsOptions) -> None:
    """One step of every unfinished problem."""
    x, value, gradient = _line_search(cost, state, _direction(state), options)
    s, y = x - state.x, gradient - state.gradient
    curvature = (s * y).sum(1)
    usable = curvature > 1e-10
    inverse = torch.where(usable, 1 / curvature.clamp(min=1e-10), 0.0)
    state.pairs = [*state.pairs[-(options.history - 1) :], (s, y, inverse)]
    fell = state.cost - value
    flat = gradient.abs().amax(1) <= options.gradient_tolerance
    state.num_steps = state.num_steps + (~state.finished).to(torch.int32)
    state.finished = state.finished | flat | (fell <= options.cost_tolerance * state.cost.abs())
    state.x, state.cost, state.gradient = x, value, gradient
