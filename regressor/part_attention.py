"""PARE's head: each joint's rotation from where its body part is seen.

Kocabas et al., "PARE: Part Attention Regressor for 3D Human Body Estimation" (ICCV 2021), Sec. 3.
A 2D branch finds the parts, a 3D branch describes them; the 2D branch's maps P, softmaxed over the
picture, say for each joint where to take the 3D branch's features F: F' = softmax(P)^T F (eq. 3).
So an occluder disturbs only what it hides. Names and shapes are those of the published checkpoints.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .heads import NUM_BETAS, NUM_JOINTS, Head, ImageEstimate, MeanParams, rest_pose, rotmats

_WIDTH = 128  # of both branches
_SHAPE_WIDTH = 64  # features of a joint for shape and camera


class JointLinear(nn.Module):
    """One linear layer a joint, without bias; the weight's odd shape is the published one."""

    def __init__(self, inputs: int, outputs: int, joints: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, outputs, inputs, joints, 1, 1))
        # Glorot's, a hundredth of it, for each joint's (outputs, inputs) by itself
        bound = 0.01 * (6 / (inputs + outputs)) ** 0.5
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, features: Tensor) -> Tensor:
        """(B, inputs, J) -> (B, J, outputs)."""
        return torch.einsum("bij,oij->bjo", features, self.weight[0, ..., 0, 0])


class PartAttentionHead(Head):
    """PARE's two branches and per-joint layers, as in its checkpoints with part segmentation."""

    init_pose: Tensor
    init_shape: Tensor
    init_cam: Tensor
    temperature: Tensor

    def __init__(self, channels: int, *, mean: MeanParams | None = None) -> None:
        """For feature maps of `channels`.

        What the layers say is added to the mean. The published network was trained without one.
        """
        super().__init__()
        self.adds_mean = mean is not None
        mean = rest_pose() if mean is None else mean
        self.keypoint_deconv_layers = _branch(channels)
        self.smpl_deconv_layers = _branch(channels)
        self.keypoint_final_layer = nn.Conv2d(_WIDTH, NUM_JOINTS + 1, 1)
        self.smpl_final_layer = nn.Conv2d(_WIDTH, _SHAPE_WIDTH, 1)
        self.shape_mlp = nn.Linear(NUM_JOINTS * _SHAPE_WIDTH, NUM_BETAS)
        self.cam_mlp = nn.Linear(NUM_JOINTS * _SHAPE_WIDTH, 3)
        self.pose_mlp = JointLinear(_WIDTH, 6, NUM_JOINTS)
        # Published checkpoints hold these, and the published network passes them by.
        self.register_buffer("init_pose", mean.pose("6d")[None])
        self.register_buffer("init_shape", mean.betas[None])
        self.register_buffer("init_cam", mean.weak_cam[None])
        self.register_buffer("temperature", torch.tensor(1.0))

    def forward(self, features: Tensor, box: Tensor | None = None) -> ImageEstimate:
        """Features (B, C, h, w) -> B people; the box is not looked at."""
        segmentation = self.keypoint_final_layer(self.keypoint_deconv_layers(features))
        parts = segmentation[:, 1:]  # the first is the background
        attention = parts.flatten(2).softmax(dim=2)
        described = self.smpl_deconv_layers(features)
        of_joints = _attend(described, attention)
        of_shape = _attend(self.smpl_final_layer(described), attention).flatten(1)
        # under autocast the layers answer in half precision, too coarse for rotations
        like = self.init_pose
        pose = self.pose_mlp(of_joints).flatten(1).to(like)
        betas, weak_cam = self.shape_mlp(of_shape).to(like), self.cam_mlp(of_shape).to(like)
        if self.adds_mean:
            pose, betas = pose + self.init_pose, betas + self.init_shape
            weak_cam = weak_cam + self.init_cam
        return ImageEstimate(
            pose_rotmat=rotmats(pose, "6d"),
            betas=betas,
            weak_cam=weak_cam,
            part_segmentation=segmentation,
            part_attention=attention.view_as(parts),
        )


def _branch(channels: int) -> nn.Sequential:
    """Two 3 x 3 convolutions, called deconvolutions as published for other encoders."""
    layers: list[nn.Module] = []
    for inputs in (channels, _WIDTH):
        layers += [
            nn.Conv2d(inputs, _WIDTH, 3, padding=1, bias=False),
            nn.BatchNorm2d(_WIDTH),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


def _attend(features: Tensor, attention: Tensor) -> Tensor:
    """Features (B, C, h, w) averaged by attention (B, J, h w) -> (B, C, J)."""
    return features.flatten(2) @ attention.mT
