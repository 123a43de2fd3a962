"""Robust losses on residuals."""

from __future__ import annotations

from torch import Tensor


def geman_mcclure(residual: Tensor, scale: float) -> Tensor:
    """Geman-McClure loss scale^2 r^2 / (scale^2 + r^2), elementwise.

    Near r^2 for small residuals, bounded by scale^2 for large ones (Geman and McClure 1987, in the
    form of SMPLify). `scale` is in the unit of the residual.
    """
    squared = residual.square()
    return squared * scale**2 / (squared + scale**2)
