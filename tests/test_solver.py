"""Minimisers against torch's own and closed forms; rows that must not see each other."""

from __future__ import annotations

import pytest
import torch

from fitting.robust import geman_mcclure
from fitting.solver import LbfgsOptions, minimize_adam, minimize_lbfgs


def quadratics(seed=0, batch=5, size=8):
    generator = torch.Generator().manual_seed(seed)
    factor = torch.randn(batch, size, size, generator=generator, dtype=torch.float64)
    hessian = factor @ factor.mT + 0.1 * torch.eye(size)
    target = torch.randn(batch, size, generator=generator, dtype=torch.float64)

    def cost(x, rows):
        d = x - target[rows]
        return 0.5 * torch.einsum("bi,bij,bj->b", d, hessian[rows], d)

    return cost, target


def rosenbrock(x, rows):
    """Chained Rosenbrock function; minimum 0 at ones (Nocedal and Wright, exercise 7.1)."""
    return (100 * (x[:, 1:] - x[:, :-1] ** 2) ** 2 + (1 - x[:, :-1]) ** 2).sum(1)


def test_lbfgs_solves_quadratics_exactly():
    cost, target = quadratics()
    solution = minimize_lbfgs(cost, torch.zeros_like(target))
    torch.testing.assert_close(solution.x, target, rtol=0, atol=1e-4)
    assert solution.converged.all()
    assert (solution.num_steps <= 60).all()
    assert torch.equal(solution.cost_initial, cost(torch.zeros_like(target), torch.arange(5)))


def test_lbfgs_solves_rosenbrock_from_the_textbook_start():
    start = torch.tensor([[-1.2, 1.0], [0.0, 0.0], [-1.9, 2.0]], dtype=torch.float64)
    solution = minimize_lbfgs(rosenbrock, start, LbfgsOptions(gradient_tolerance=1e-8))
    assert (solution.x - 1).abs().max() < 1e-6
    assert (solution.num_steps < 80).all()


def test_lbfgs_is_as_good_as_torchs_with_strong_wolfe():
    """Robust and ill-conditioned, as fits are: no higher a cost than the public solver's."""
    generator = torch.Generator().manual_seed(3)
    A = torch.randn(6, 30, 12, generator=generator, dtype=torch.float64)
    A = A * torch.logspace(-2, 1, 12)
    b = torch.randn(6, 30, generator=generator, dtype=torch.float64)
    b[:, ::7] += 20

    def cost(x, rows):
        return geman_mcclure((A[rows] @ x[..., None])[..., 0] - b[rows], 3.0).sum(1) + 1e-3 * (
            x * x
        ).sum(1)

    ours = minimize_lbfgs(cost, torch.zeros(6, 12, dtype=torch.float64))
    for row in range(6):
        x = torch.zeros(1, 12, dtype=torch.float64, requires_grad=True)
        public = torch.optim.LBFGS(
            [x],
            max_iter=900,
            history_size=20,
            line_search_fn="strong_wolfe",
            tolerance_change=1e-12,
        )

        def closure(x=x, public=public, row=row):
            public.zero_grad()
            value = cost(x, torch.tensor([row])).sum()
            value.backward()
            return value

        public.step(closure)
        assert ours.cost_final[row] <= closure() * 1.001


def test_lbfgs_never_goes_uphill_and_counts_its_steps():
    cost, target = quadratics()
    previous = cost(torch.zeros_like(target), torch.arange(5))
    for max_steps in (1, 2, 5, 9):
        solution = minimize_lbfgs(cost, torch.zeros_like(target), LbfgsOptions(max_steps=max_steps))
        assert (solution.cost_final <= previous).all()
        assert (solution.num_steps <= max_steps).all()
        previous = solution.cost_final


def test_adam_is_torchs_adam():
    cost, target = quadratics()
    x = torch.zeros(1, 8, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([x], lr=0.05)
    for _ in range(40):
        optimizer.zero_grad()
        cost(x, torch.tensor([3])).sum().backward()
        optimizer.step()
    solution = minimize_adam(cost, torch.zeros_like(target), num_steps=40, step_size=0.05)
    torch.testing.assert_close(solution.x[3:4], x.detach())
    assert solution.cost_final[3] == cost(x.detach(), torch.tensor([3]))
    assert not solution.converged.all()


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_a_bad_problem_never_changes_its_neighbours(solver):
    cost, target = quadratics()

    def solve(spoil):
        def spoilt(x, rows):
            return cost(x, rows) * torch.where(rows == 2, spoil, 1.0)

        if solver == "adam":
            return minimize_adam(spoilt, torch.zeros_like(target), num_steps=30, step_size=0.1)
        return minimize_lbfgs(spoilt, torch.zeros_like(target))

    good, bad = solve(1.0), solve(torch.nan)
    others = torch.tensor([0, 1, 3, 4])
    assert torch.equal(good.x[others], bad.x[others])
    assert not bad.converged[2]


@pytest.mark.parametrize(
    "solver", [minimize_lbfgs, lambda c, x: minimize_adam(c, x, num_steps=2, step_size=0.1)]
)
def test_start_is_not_modified_and_empty_batches_pass(solver):
    start = torch.zeros(2, 3)
    solver(lambda x, rows: (x - 1).square().sum(1), start)
    assert not start.any()
    assert len(solver(lambda x, rows: x.square().sum(1), torch.zeros(0, 3)).x) == 0


def test_robust_loss_agrees_with_its_limits():
    r = torch.linspace(-1, 1, 21, dtype=torch.float64)
    torch.testing.assert_close(geman_mcclure(r * 1e-3, 1.0), (r * 1e-3) ** 2, rtol=1e-5, atol=0)
    assert geman_mcclure(torch.tensor(1e6), 100.0) == pytest.approx(100.0**2, rel=1e-4)
    x = torch.linspace(-300, 300, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: geman_mcclure(v, 100.0), x)
