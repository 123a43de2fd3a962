"""Heads: from the features of a picture to the parameters of a body.

All start from mean parameters and learn what to add to them. `part_attention` has PARE's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import roma
import torch
from torch import Tensor, nn

from priors.gmm import load_pose_prior

NUM_JOINTS = 24
NUM_BETAS = 10
BOX_NUMBERS = 3
_TINY = 1e-12  # shorter vectors count as zero, as in the published programs

Rotations = Literal["6d", "axis_angle"]
NUMBERS_PER_ROTATION = {"6d": 6, "axis_angle": 3}


class ImageEstimate(NamedTuple):
    """What a network says of B people in their crops.

    Attributes:
        pose_rotmat: (B, 24, 3, 3) local rotations, the root's in the camera frame.
        betas: (B, 10).
        weak_cam: (B, 3) weak-perspective (s, tx, ty) in the crop.
        part_segmentation: (B, 25, h, w) logits of background and the joints' body parts; PARE's.
        part_attention: (B, 24, h, w) where the head looked for each joint; sums to 1 over a map.
    """

    pose_rotmat: Tensor
    betas: Tensor
    weak_cam: Tensor
    part_segmentation: Tensor | None = None
    part_attention: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class MeanParams:
    """Where heads start from: most often the mean of the people to train with.

    Attributes:
        pose_rotmat: (24, 3, 3).
        betas: (10,).
        weak_cam: (3,).
    """

    pose_rotmat: Tensor
    betas: Tensor
    weak_cam: Tensor

    def pose(self, rotations: Rotations) -> Tensor:
        """(24 * 6,) or (24 * 3,) numbers that `rotmats` turns into the pose."""
        if rotations == "6d":
            return self.pose_rotmat[..., :2].flatten()
        return roma.rotmat_to_rotvec(self.pose_rotmat).flatten()


def rest_pose() -> MeanParams:
    """The body at rest and of mean shape, upright before the camera and filling 0.9 of the crop.

    SMPL's y axis points up and the camera's down, so the root is turned by half a turn about x.
    """
    pose = torch.eye(3).repeat(NUM_JOINTS, 1, 1)
    pose[0] = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    return MeanParams(
        pose_rotmat=pose, betas=torch.zeros(NUM_BETAS), weak_cam=torch.tensor([0.9, 0.0, 0.0])
    )


def mean_of_prior() -> MeanParams:
    """The body at rest, in the mean pose of the bundled prior."""
    at_rest = rest_pose()
    body_pose = roma.rotvec_to_rotmat(load_pose_prior().mean.unflatten(0, (-1, 3)))
    pose = torch.cat([at_rest.pose_rotmat[:1], body_pose.to(at_rest.pose_rotmat)])
    return replace(at_rest, pose_rotmat=pose)


def rotmats(pose: Tensor, rotations: Rotations) -> Tensor:
    """Rotation matrices of a head's numbers.

    Args:
        pose: (B, J * 6) or (B, J * 3).
        rotations: "6d", Zhou et al. (CVPR 2019): the first two columns of a matrix, row by row as
            SPIN has them (a_x, b_x, a_y, b_y, a_z, b_z), made orthonormal by Gram-Schmidt; or
            "axis_angle", radians.

    Returns:
        (B, J, 3, 3).
    """
    numbers = pose.unflatten(1, (-1, NUMBERS_PER_ROTATION[rotations]))
    if rotations == "6d":
        return roma.special_gramschmidt(numbers.unflatten(2, (3, 2)), epsilon=_TINY)
    return roma.rotvec_to_rotmat(numbers)


def pool(features: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, C), the mean over the map."""
    return features.mean(dim=(2, 3))


class Head(nn.Module):
    """From a feature map to a body.

    Attributes:
        needs_box: whether `forward` must be given the numbers of the crop's box.
    """

    needs_box = False

    def forward(self, features: Tensor, box: Tensor | None = None) -> ImageEstimate:
        """Features (B, C, h, w) and, for some heads, box (B, 3) -> B people."""
        raise NotImplementedError


class SequentialHead(Head):
    """mean + W_n relu(... relu(W_1 f)): a plain perceptron on the pooled features.

    As the networks that regress in one shot, with which Kanazawa et al. (CVPR 2018) compare the
    feedback; 2048 -> 1024 -> 1024 -> out on a ResNet-50, dropout after each hidden layer.
    """

    mean: Tensor

    def __init__(
        self,
        channels: int,
        *,
        widths: Sequence[int] = (1024, 1024),
        dropout: float = 0.5,
        rotations: Rotations = "6d",
        mean: MeanParams | None = None,
    ) -> None:
        """For feature maps of `channels`; without widths it is one linear layer."""
        super().__init__()
        mean = rest_pose() if mean is None else mean
        start = torch.cat([mean.pose(rotations), mean.betas, mean.weak_cam])
        self.rotations = rotations
        layers: list[nn.Module] = []
        for width in widths:
            layers += [nn.Linear(channels, width), nn.ReLU(inplace=True), nn.Dropout(dropout)]
            channels = width
        last = nn.Linear(channels, len(start))
        _start_small(last)
        self.layers = nn.Sequential(*layers, last)
        self.register_buffer("mean", start)

    def forward(self, features: Tensor, box: Tensor | None = None) -> ImageEstimate:
        """Features (B, C, h, w) -> B people; the box is not looked at."""
        both = self.mean + self.layers(pool(features))
        pose, betas, weak_cam = both.split([both.shape[1] - 13, NUM_BETAS, 3], dim=1)
        return ImageEstimate(rotmats(pose, self.rotations), betas, weak_cam)


@dataclass(frozen=True, kw_only=True)
class FeedbackConfig:
    """Settings of the head with error feedback; the defaults are SPIN's.

    Attributes:
        rotations: "axis_angle" makes HMR's 85 parameters, "6d" SPIN's 157.
        relu: after the hidden layers, as in HMR's program; SPIN's has none.
        box: whether the head is given the crop's box, as CLIFF's is.
        iterations: how often it corrects itself.
        width: of the hidden layers.
        dropout: after the hidden layers.
    """

    rotations: Rotations = "6d"
    relu: bool = False
    box: bool = False
    iterations: int = 3
    width: int = 1024
    dropout: float = 0.5

    def __post_init__(self) -> None:
        if self.rotations not in NUMBERS_PER_ROTATION:
            raise ValueError(
                f"rotations must be one of {', '.join(NUMBERS_PER_ROTATION)}, got {self.rotations}"
            )
        if self.iterations < 1 or self.width < 1 or not 0 <= self.dropout < 1:
            raise ValueError(
                f"iterations >= 1, width >= 1 and 0 <= dropout < 1 are needed, got {self}"
            )


HMR = FeedbackConfig(rotations="axis_angle", relu=True)
SPIN = FeedbackConfig()
CLIFF = FeedbackConfig(box=True)


class FeedbackHead(Head):
    """Iterative error feedback: p_{t+1} = p_t + W g(f, p_t) (Carreira et al., CVPR 2016).

    g is two linear layers. Of three published systems, apart by their `FeedbackConfig`:

    * HMR: Kanazawa et al., "End-to-end Recovery of Human Shape and Pose" (CVPR 2018), Sec. 3.2.
    * SPIN: Kolotouros et al., "Learning to Reconstruct 3D Human Pose and Shape via Model-fitting
      in the Loop" (ICCV 2019), Sec. 3.1.
    * CLIFF: Li et al., "Carrying Location Information in Full Frames" (ECCV 2022), Sec. 3.2: f is
      followed by three numbers that say where the crop is in the full picture, eq. 5.

    Names and shapes are those of SPIN's and CLIFF's published checkpoints.
    """

    init_pose: Tensor
    init_shape: Tensor
    init_cam: Tensor

    def __init__(
        self, channels: int, config: FeedbackConfig = SPIN, *, mean: MeanParams | None = None
    ) -> None:
        super().__init__()
        mean = rest_pose() if mean is None else mean
        pose = mean.pose(config.rotations)
        self.needs_box = config.box
        self.rotations = config.rotations
        self.iterations = config.iterations
        inputs = channels + BOX_NUMBERS * config.box + len(pose) + NUM_BETAS + 3
        self.fc1 = nn.Linear(inputs, config.width)
        self.fc2 = nn.Linear(config.width, config.width)
        self.activation = nn.ReLU() if config.relu else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)
        self.decpose = nn.Linear(config.width, len(pose))
        self.decshape = nn.Linear(config.width, NUM_BETAS)
        self.deccam = nn.Linear(config.width, 3)
        for last in (self.decpose, self.decshape, self.deccam):
            _start_small(last)
        self.register_buffer("init_pose", pose[None])
        self.register_buffer("init_shape", mean.betas[None])
        self.register_buffer("init_cam", mean.weak_cam[None])

    def forward(self, features: Tensor, box: Tensor | None = None) -> ImageEstimate:
        """Features (B, C, h, w), and box (B, 3) if `needs_box` -> B people."""
        seen = pool(features)
        if box is not None and self.needs_box:
            seen = torch.cat([seen, box.to(seen)], dim=1)
        starts = (self.init_pose, self.init_shape, self.init_cam)
        pose, betas, weak_cam = (start.expand(len(seen), -1) for start in starts)
        for _ in range(self.iterations):
            hidden = self.fc1(torch.cat([seen, pose, betas, weak_cam], dim=1))
            hidden = self.dropout(self.activation(hidden))
            hidden = self.dropout(self.activation(self.fc2(hidden)))
            pose = pose + self.decpose(hidden)
            betas = betas + self.decshape(hidden)
            weak_cam = weak_cam + self.deccam(hidden)
        return ImageEstimate(rotmats(pose, self.rotations), betas, weak_cam)


def _start_small(last: nn.Linear) -> None:
    """Begin near the mean: a hundredth of Glorot's weights, as published."""
    nn.init.xavier_uniform_(last.weight, gain=0.01)
    nn.init.zeros_(last.bias)
