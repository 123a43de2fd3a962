"""From a fits table to the parameters of bodies."""

from __future__ import annotations

import torch
from torch import Tensor

from .problem import BodyParams
from .table import PARAMETERS, FitsTable


def params_of(table: FitsTable, like: Tensor) -> BodyParams:
    """Parameters of the N people of a table, in the dtype and on the device of `like`.

    People without a fit have NaN.
    """
    columns = {name: torch.from_numpy(table.column_array(name)).to(like) for name in PARAMETERS}
    return BodyParams(**columns)
