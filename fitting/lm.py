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
    """A quadratic model of each problem at x (b, ...).

    Attributes:
        cost: (b,).
        gradient: (b, ...), of the shape of x.
        hessian: (b, ...), symmetric and positive semidefinite, as the solver of its normal
            equations takes it: (b, D, D) for `solve_dense`.
    """

    cost: Tensor
    gradient: Tensor
    hessian: Tensor

    def where(self, accepted: Tensor, other: Linearised) -> Linearised:
        """Rows of this model where `accepted` (b,), of the other elsewhere."""
        pairs = zip(self, other, strict=True)
        return Linearised(*(torch.where(_like(accepted, mine), mine, its) for mine, its in pairs))


def _like(row: Tensor, x: Tensor) -> Tensor:
    """`row` (b,) with as many dimensions as x."""
    return row.view(-1, *[1] * (x.dim() - 1))


TILE = 8  # rows; see `_whole_tiles`
ALIGNMENT = 8  # factorisations round alike wherever a matrix of so many columns lies in memory
RIDGE = 1e-6  # keeps unknowns that no term touches where they are

Linearise = Callable[[Tensor, Tensor], Linearised]

# gradient, hessian, damping (b,) -> steps of the gradient's shape, where it worked (b,) bool
Solve = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True)
class LmOptions:
    """Settings of `minimize_lm`."""

    max_steps: int = 20
    damping: float = 1e-2  # at the start, as a share of the Hessian's diagonal
    damping_down: float = 0.2  # after a step that lowered the cost
    damping_up: float = 5.0  # after one that did not
    cost_tolerance: float = 1e-4  # relative; a row is finished when a step gains less
    block: int = 2  # steps between looks at which rows have finished
    tile: int = TILE  # rows solved side by side are filled up to multiples of this

    def __post_init__(self) -> None:
        if min(self.max_steps, self.block, self.tile) < 1:
            raise ValueError(
                "max_steps, block and tile must be at least 1, got "
                f"{self.max_steps}, {self.block} and {self.tile}"
            )


_DAMPING_RANGE = (1e-7, 1e7)


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
    linearise: Linearise,
    x: Tensor,
    options: LmOptions,
    *,
    solve: Solve | None = None,
) -> Solution:
    """Minimise every problem by Levenberg-Marquardt (Nocedal and Wright, section 10.3).

    Args:
        linearise: (b, ...), (b,) -> quadratic models.
        x: (B, ...) start; not modified.
        options: settings.
        solve: of the normal equations; none means `solve_dense`.
    """
    solve = solve_dense if solve is None else solve
    state = _start(linearise, x, options)
    found = _Found(state, len(x))
    for done in range(0, options.max_steps, options.block):
        for _ in range(min(options.block, options.max_steps - done)):
            state = _step(linearise, solve, state, options)
        found.store(state)
        unfinished = _whole_tiles(~state.finished, options.tile)
        if len(unfinished) == 0:
            break
        if len(unfinished) < len(state.row):
            state = state.select(unfinished)
    return found.solution()


def _whole_tiles(unfinished: Tensor, tile: int) -> Tensor:
    """Indices of the unfinished rows, and of as many finished ones as fill whole tiles.

    Matrix products on CPUs round a row alike in all batches of whole tiles, so that no one's bits
    depend on when their neighbours finish.
    """
    count = int(unfinished.sum())
    tiles = -(-count // tile) * tile
    return torch.argsort(~unfinished, stable=True)[:tiles]


class _Found:
    """Where results are gathered in the order of the B problems."""

    def __init__(self, state: _State, B: int) -> None:
        self.cost_initial = state.model.cost[:B]
        self.x = state.x[:B].clone()
        self.cost = state.model.cost[:B].clone()
        self.num_steps = state.num_steps[:B].clone()
        self.finished = state.finished[:B].clone()

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
    padded = -(-len(x) // options.tile) * options.tile
    row = torch.arange(padded, device=x.device).clamp(max=len(x) - 1)
    x = x.detach()[row]
    model = linearise(x, row)
    return _State(
        row=row,
        x=x,
        model=model,
        damping=torch.full_like(model.cost, options.damping),
        finished=~model.cost.isfinite(),
        num_steps=torch.zeros_like(row, dtype=torch.int32),
    )


def _step(linearise: Linearise, solve: Solve, state: _State, options: LmOptions) -> _State:
    """Try one damped Newton step of every row; keep it where it lowers the cost."""
    step, solved = solve(state.model.gradient, state.model.hessian, state.damping)
    trial_x = state.x + step
    trial = linearise(trial_x, state.row)
    # NaN compares false, so a trial that is not finite is never accepted
    accepted = (trial.cost < state.model.cost) & solved & ~state.finished
    fell = state.model.cost - trial.cost
    settled = accepted & (fell <= options.cost_tolerance * state.model.cost.abs())
    factor = torch.where(accepted, options.damping_down, options.damping_up)
    stuck = ~accepted & (state.damping >= _DAMPING_RANGE[1])
    return state._replace(
        x=torch.where(_like(accepted, trial_x), trial_x, state.x),
        model=trial.where(accepted, state.model),
        damping=(state.damping * factor).clamp(*_DAMPING_RANGE),
        finished=state.finished | settled | stuck,
        num_steps=state.num_steps + (~state.finished).to(torch.int32),
    )


def solve_dense(gradient: Tensor, hessian: Tensor, damping: Tensor) -> tuple[Tensor, Tensor]:
    """Steps of (H + damping diag H + ridge I) step = -gradient, by Cholesky.

    Args:
        gradient: (b, D).
        hessian: (b, D, D).
        damping: (b,).

    Returns:
        (b, D) steps, zero for rows whose factorisation failed; and (b,) bool, where it worked.
    """
    D = gradient.shape[1]
    margin = -D % ALIGNMENT
    damped = torch.nn.functional.pad(hessian, (0, margin, 0, margin))
    diagonal = damped.diagonal(dim1=1, dim2=2)
    diagonal += damping[:, None] * diagonal + RIDGE
    factor, info = torch.linalg.cholesky_ex(damped, upper=True)
    right = torch.nn.functional.pad(-gradient, (0, margin))[..., None]
    step = torch.cholesky_solve(right, factor, upper=True)[:, :D, 0]
    solved = (info == 0) & step.isfinite().all(dim=1)
    return torch.where(solved[:, None], step, 0.0), solved


def root_inverse_times(hessian: Tensor, columns: Tensor) -> Tensor:
    """(b, D, N) L^-1 C with L L^T = H, so that the squares of a column c sum to c H^-1 c.

    A millionth of the diagonal is added, for directions that rounding leaves no curvature; rows
    whose factorisation fails even so are NaN.

    Args:
        hessian: (b, D, D).
        columns: (b, D, N).
    """
    damped = hessian.clone()
    diagonal = damped.diagonal(dim1=1, dim2=2)
    diagonal *= 1 + 1e-6
    diagonal += RIDGE
    factor, info = torch.linalg.cholesky_ex(damped)
    found = torch.linalg.solve_triangular(factor, columns, upper=False)
    return found.where((info == 0)[:, None, None], torch.nan)
