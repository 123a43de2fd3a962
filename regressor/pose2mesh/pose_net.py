"""PoseNet, the half of Pose2Mesh that lifts keypoints to 3D (Choi et al., ECCV 2020).

Parameters have the names and shapes of the published checkpoints.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LinearStage(nn.Module):
    """Two linear layers around which a signal (B, W) is led; batch norm, ReLU and dropout first."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.w1, self.w2 = nn.Linear(width, width), nn.Linear(width, width)
        self.batch_norm1, self.batch_norm2 = nn.BatchNorm1d(width), nn.BatchNorm1d(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, W) -> (B, W)."""
        y = self.w1(self.dropout(self.batch_norm1(x).relu()))
        return x + self.w2(self.dropout(self.batch_norm2(y).relu()))


class PoseNet(nn.Module):
    """Lift keypoints: after Martinez et al., "A simple yet effective baseline" (ICCV 2017)."""

    def __init__(self, num_joints: int, *, width: int, stages: int, dropout: float) -> None:
        super().__init__()
        self.w1 = nn.Linear(2 * num_joints, width)
        # Published checkpoints hold this layer, and the published network passes it by. Without
        # gradients, optimisers and data-parallel training leave it alone.
        self.batch_norm1 = nn.BatchNorm1d(width).requires_grad_(False)
        self.linear_stages = nn.ModuleList(LinearStage(width, dropout) for _ in range(stages))
        self.w2 = nn.Linear(width, 3 * num_joints)

    def forward(self, pose_2d: Tensor) -> Tensor:
        """Normalised keypoints (B, J * 2) -> joints (B, J * 3) in millimetres."""
        y = self.w1(pose_2d)
        for stage in self.linear_stages:
            y = stage(y)
        # bfloat16 would round a metre to 4 mm
        with torch.autocast(y.device.type, enabled=False):
            return self.w2(y.float())
