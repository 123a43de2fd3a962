"""Chains of unknowns of which each is tied to the next: block-tridiagonal systems.

A symmetric matrix is packed as (n, T, 2, D, D): of n chains of T links, the diagonal block A_t of
each link, and B_t, which couples link t (rows) to link t + 1 (columns). The last B is not read.

Cost and memory are linear in T. Links are worked through one after another, all chains side by
side, which suits a CPU; a GPU would want cyclic reduction, whose depth is log T.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from .lm import ALIGNMENT, RIDGE


def solve_tridiagonal(gradient: Tensor, packed: Tensor, damping: Tensor) -> tuple[Tensor, Tensor]:
    """Steps of (H + damping D + ridge I) step = -gradient, by block Cholesky.

    D is the curvature that H has for moves common to all links, diag(A_t + B_t + B_(t-1)^T). Where
    links are tied fast, as those of one person's shape, damping by the diagonal of H itself would
    hold all of them where they are.

    Args:
        gradient: (n, T, D).
        packed: (n, T, 2, D, D); see the module.
        damping: (n,).

    Returns:
        (n, T, D) steps, zero for chains whose factorisation failed; and (n,) bool, where it worked.
    """
    D = gradient.shape[2]
    margin = -D % ALIGNMENT
    damped = pad(packed, (0, margin, 0, margin))
    diagonal = damped[:, :, 0].diagonal(dim1=2, dim2=3)
    diagonal += damping[:, None, None] * _common(damped) + RIDGE
    factors = _factorise(damped)
    step = factors.solve(pad(-gradient, (0, margin)))[:, :, :D]
    solved = factors.found & step.isfinite().flatten(1).all(dim=1)
    return torch.where(solved[:, None, None], step, 0.0), solved


def covariance_blocks(packed: Tensor) -> Tensor:
    """(n, T, D, D) diagonal blocks of the inverse, by backward recursion.

    With H = L L^T, which has L_t on the diagonal and C_t^T = (L_t^-1 B_t)^T below it,
    S_t = L_t^-T (I + C_t S_(t+1) C_t^T) L_t^-1 from S_T = (L_T L_T^T)^-1 on: Takahashi's equations
    (Rue and Held, "Gaussian Markov random fields", section 2.4.1), of blocks. A millionth of the
    diagonal is added, as by `lm.root_inverse_times`; chains whose factorisation fails even so are
    NaN.

    Args:
        packed: (n, T, 2, D, D); see the module.
    """
    D = packed.shape[-1]
    margin = -D % ALIGNMENT
    damped = pad(packed, (0, margin, 0, margin))
    diagonal = damped[:, :, 0].diagonal(dim1=2, dim2=3)
    diagonal *= 1 + 1e-6
    diagonal += RIDGE
    factors = _factorise(damped)
    blocks = factors.inverse_blocks()[..., :D, :D]
    return blocks.where(factors.found[:, None, None, None], torch.nan)


def _common(packed: Tensor) -> Tensor:
    """(n, T, D) diagonal of the curvature for moves common to all links; not negative."""
    diagonal, coupling = packed.diagonal(dim1=3, dim2=4).unbind(2)
    towards_next = pad(coupling[:, :-1], (0, 0, 0, 1))
    towards_last = pad(coupling[:, :-1], (0, 0, 1, 0))
    return (diagonal + towards_next + towards_last).clamp(min=0)


class _Factors:
    """H = L L^T with L_t on the diagonal and C_t^T below it: C_t = L_t^-1 B_t."""

    def __init__(self, lower: list[Tensor], coupling: list[Tensor], found: Tensor) -> None:
        self.lower, self.coupling, self.found = lower, coupling, found

    def solve(self, right: Tensor) -> Tensor:
        """(n, T, D) solutions for right-hand sides of the same shape."""
        parts: list[Tensor] = []
        for t, lower in enumerate(self.lower):
            rest = right[:, t]
            if t > 0:
                rest = rest - (self.coupling[t - 1] * parts[-1][:, :, None]).sum(dim=1)
            parts.append(_solve_vector(lower, rest, upper=False))
        for t in reversed(range(len(parts))):
            rest = parts[t]
            if t + 1 < len(parts):
                # not a product of a matrix and a vector: BLAS rounds that by the number of chains
                rest = rest - (self.coupling[t] * parts[t + 1][:, None]).sum(dim=2)
            parts[t] = _solve_vector(self.lower[t].mT, rest, upper=True)
        return torch.stack(parts, dim=1)

    def inverse_blocks(self) -> Tensor:
        """(n, T, D, D) diagonal blocks of the inverse."""
        eye = torch.eye(self.lower[0].shape[-1]).to(self.lower[0])
        blocks: list[Tensor] = []
        for t in reversed(range(len(self.lower))):
            inner = eye
            if blocks:
                inner = inner + self.coupling[t] @ blocks[-1] @ self.coupling[t].mT
            half = torch.linalg.solve_triangular(self.lower[t].mT, inner, upper=True)
            blocks.append(torch.linalg.solve_triangular(self.lower[t].mT, half.mT, upper=True))
        return torch.stack(blocks[::-1], dim=1)


def _solve_vector(triangle: Tensor, right: Tensor, *, upper: bool) -> Tensor:
    return torch.linalg.solve_triangular(triangle, right[..., None], upper=upper)[..., 0]


def _factorise(packed: Tensor) -> _Factors:
    lower, coupling = [], []
    found = torch.ones(len(packed), dtype=torch.bool, device=packed.device)
    block = packed[:, 0, 0]
    for t in range(packed.shape[1]):
        factor, info = torch.linalg.cholesky_ex(block)
        found &= info == 0
        lower.append(factor)
        if t + 1 < packed.shape[1]:
            coupled = torch.linalg.solve_triangular(factor, packed[:, t, 1], upper=False)
            coupling.append(coupled)
            block = packed[:, t + 1, 0] - coupled.mT @ coupled
    return _Factors(lower, coupling, found)
