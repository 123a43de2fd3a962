"""Prior over body shape."""

from __future__ import annotations

from torch import Tensor


def shape_cost(betas: Tensor) -> Tensor:
    """(B,) sum of squares of betas (B, 10), twice the negative log of a unit Gaussian at them.

    Shape components are scaled to unit deviation (Bogo et al., ECCV 2016, section 3.2).
    """
    return betas.square().sum(dim=1)
