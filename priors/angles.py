"""SMPLify's penalty on elbows and knees that bend the wrong way."""

from __future__ import annotations

import torch
from torch import Tensor

# Where in body_pose the hinge of each joint stands (3 (joint - 1) + axis), and the sign of the
# rotation that would break it: elbows turn about y, knees about x.
HINGES = {
    "left_elbow": (3 * 17 + 1, 1.0),
    "right_elbow": (3 * 18 + 1, -1.0),
    "left_knee": (3 * 3 + 0, -1.0),
    "right_knee": (3 * 4 + 0, -1.0),
}


def hinge_cost(body_pose: Tensor) -> Tensor:
    """Penalty that grows steeply once a hinge bends backwards.

    exp(alpha)^2 for each hinge angle alpha, signed so that the natural bend is negative: equation 4
    of Bogo et al. (ECCV 2016) with the square that SMPLify's and SPIN's programs add.

    Args:
        body_pose: (B, 69) axis-angle, radians.

    Returns:
        (B, 4) costs of left and right elbow, left and right knee.
    """
    columns = [column for column, _ in HINGES.values()]
    signs = torch.tensor([sign for _, sign in HINGES.values()]).to(body_pose)
    return torch.exp(2 * body_pose[:, columns] * signs)
