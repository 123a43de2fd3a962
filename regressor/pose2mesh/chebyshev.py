"""Convolution on a graph by Chebyshev polynomials of its Laplacian.

Defferrard et al., "Convolutional Neural Networks on Graphs with Fast Localized Spectral Filtering"
(NeurIPS 2016), equations 4 and 5: a filter is y = sum_k T_k(L) x W_k with T_0 = 1, T_1 = L,
T_k = 2 L T_{k-1} - T_{k-2}, and L scaled to eigenvalues in [-1, 1].

Signals are (N, B, F), nodes first, so that L times all of a batch is one sparse product without
moving memory.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from numpy.polynomial.chebyshev import cheb2poly
from torch import Tensor, nn
from torch.nn import functional

from .mesh_graph import SparseArray


class SparseProduct(nn.Module):
    """Multiplication by a fixed sparse matrix; `.to(...)` moves it.

    The matrix is no part of the state dict: it follows from the mesh.
    """

    def __init__(self, matrix: SparseArray) -> None:
        """Take over an (M, N) matrix of scipy.sparse."""
        super().__init__()
        self.shape: tuple[int, int] = matrix.shape
        for prefix, csr in (("", matrix.tocsr()), ("transposed_", matrix.T.tocsr())):
            for name, array in (("starts", csr.indptr), ("columns", csr.indices)):
                self.register_buffer(prefix + name, torch.as_tensor(array).long(), persistent=False)
            values = torch.as_tensor(csr.data, dtype=torch.float32)
            self.register_buffer(prefix + "values", values, persistent=False)

    starts: Tensor
    columns: Tensor
    values: Tensor
    transposed_starts: Tensor
    transposed_columns: Tensor
    transposed_values: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """(N, ...) -> (M, ...)."""
        product: Tensor = _Product.apply(
            x.flatten(1),
            (self.starts, self.columns, self.values),
            (self.transposed_starts, self.transposed_columns, self.transposed_values),
        )
        return product.unflatten(1, x.shape[1:])


_Csr: TypeAlias = tuple[Tensor, Tensor, Tensor]


class _Product(torch.autograd.Function):
    """M x, whose gradient is M^T g.

    Sums of weighted rows are what `embedding_bag` computes, also in bfloat16, for which sparse
    tensors have no fast CPU kernel; in float32 it is several times as fast as their COO product.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: _Csr, transposed: _Csr) -> Tensor:
        ctx.matrix, ctx.transposed = matrix, transposed
        starts, columns, values = matrix
        return functional.embedding_bag(
            columns,
            x.contiguous(),
            starts,
            mode="sum",
            per_sample_weights=values.to(x.dtype),
            include_last_offset=True,
        )

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _Product.apply(gradients[0], ctx.transposed, ctx.matrix), None, None


def chebyshev_conv(
    x: Tensor, laplacian: nn.Module, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    """Filter a signal on a graph.

    It is summed as a polynomial of L by Horner's rule, for K = 3 as x A_0 + L (x A_1 + L (x A_2)).
    On a CPU, where memory is what costs, that takes 0.4 to 0.9 of the time of one product with all
    T_k(L) x side by side.

    Args:
        x: (N, B, F_in).
        laplacian: the `SparseProduct` of a scaled Laplacian, of N nodes.
        weight: (F_out, F_in K); column f K + k is T_k of feature f, as in Defferrard's program.
        bias: (F_out,).

    Returns:
        (N, B, F_out).
    """
    features = x.shape[-1]
    if weight.shape[1] % features:
        raise ValueError(
            f"weight must have a multiple of the signal's {features} features as columns, "
            f"got {tuple(weight.shape)}"
        )
    first, *others = _weights_of_powers(weight.unflatten(1, (features, -1)))
    if not others:
        return functional.linear(x, first, bias)
    y = functional.linear(x, others.pop())
    while others:
        y = functional.linear(x, others.pop()) + laplacian(y)
    return functional.linear(x, first, bias) + laplacian(y)


def _weights_of_powers(weight: Tensor) -> list[Tensor]:
    """K matrices A_j with sum_j L^j A_j = sum_k T_k(L) W_k; W is (F_out, F_in, K)."""
    T = [cheb2poly([0] * k + [1]) for k in range(weight.shape[2])]  # lowest powers first
    return [
        torch.stack([weight[..., k] * float(T[k][j]) for k in range(j, len(T), 2)]).sum(dim=0)
        for j in range(len(T))  # T_k holds L^k, L^(k - 2) and so on
    ]
