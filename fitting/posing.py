"""From a fits table to posed bodies."""

from __future__ import annotations

import torch
from torch import Tensor

from .body import Body, BodyOutput
from .problem import BodyParams
from .table import PARAMETERS, FitsTable


def params_of(table: FitsTable, like: Tensor) -> BodyParams:
    """Parameters of the N people of a table, in the dtype and on the device of `like`.

    People without a fit have NaN.
    """
    columns = {name: torch.from_numpy(table.column_array(name)).to(like) for name in PARAMETERS}
    return BodyParams(**columns)


def pose_body(body: Body, params: BodyParams) -> BodyOutput:
    """B bodies in the frame of their parameters, the camera's, metres."""
    return body(params.global_orient, params.body_pose, params.betas, params.transl)
