"""HMR's factorised adversarial prior: what poses and shapes of people look like, learned.

Kanazawa et al., "End-to-end Recovery of Human Shape and Pose" (CVPR 2018), Sec. 3.3. One small
discriminator for each of K = 23 joints, one for all joints together and one for the shape, D_1 to
D_25, each saying 1 of real people and 0 of estimated ones, by least squares:

    L_encoder       = sum_i E[(D_i(estimate) - 1)^2]
    L_discriminator = sum_i E[(D_i(real) - 1)^2] + E[D_i(estimate)^2]

Both are minimised by one optimiser in one backward pass: the first takes the discriminators'
weights as constants, the second the estimates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import roma
import torch
from torch import Tensor, nn
from torch.func import functional_call

from priors.mocap import MocapPoses, mirror_rotvec

from .heads import NUM_BETAS, NUM_JOINTS, ImageEstimate
from .image_losses import masked_mean

_BODY_JOINTS = NUM_JOINTS - 1  # which way a person faces says nothing of the pose
NUM_DISCRIMINATORS = _BODY_JOINTS + 2

_EMBEDDING = 32
_HIDDEN = 1024  # of the discriminator of all joints
_SHAPE_HIDDEN = (10, 5)


@dataclass(frozen=True, kw_only=True)
class AdversarialConfig:
    """Use of the prior.

    Attributes:
        encoder: weight of what the estimates learn; 0 means that there is no prior.
        discriminator: weight of what the discriminators learn. As no weight is trained by both,
            and Adam takes no notice of a loss's scale, it matters little.
    """

    encoder: float = 0.0
    discriminator: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.encoder < float("inf"):
            raise ValueError(f"encoder must be a weight of 0 or more, got {self.encoder}")
        if not 0 < self.discriminator < float("inf"):
            raise ValueError(f"discriminator must be a weight above 0, got {self.discriminator}")


class PoseDiscriminator(nn.Module):
    """25 discriminators: of 23 joints, of all of them, and of the shape.

    The joints share an embedding of their rotation matrices, 9 -> 32 -> 32, as two convolutions of
    size 1 over the joints do in HMR's program.
    """

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Sequential(
            nn.Linear(9, _EMBEDDING), nn.ReLU(), nn.Linear(_EMBEDDING, _EMBEDDING), nn.ReLU()
        )
        # one linear layer a joint, side by side
        self.joint_weight = nn.Parameter(torch.empty(_BODY_JOINTS, _EMBEDDING))
        self.joint_bias = nn.Parameter(torch.zeros(_BODY_JOINTS))
        bound = (6 / (_EMBEDDING + 1)) ** 0.5  # Glorot's, of 32 inputs and an output
        nn.init.uniform_(self.joint_weight, -bound, bound)
        self.all_joints = _perceptron(_BODY_JOINTS * _EMBEDDING, (_HIDDEN, _HIDDEN))
        self.shape = _perceptron(NUM_BETAS, _SHAPE_HIDDEN)

    def forward(self, pose_rotmat: Tensor, betas: Tensor) -> Tensor:
        """Judge B people.

        Args:
            pose_rotmat: (B, 23, 3, 3) local rotations of joints 1 to 23, or (B, 24, 3, 3) with the
                root's, which is not looked at.
            betas: (B, 10).

        Returns:
            (B, 25), near 1 for real people: of the 23 joints, of all joints, of the shape.

        Raises:
            ValueError: a shape is wrong.
        """
        if pose_rotmat.shape[1:] not in ((NUM_JOINTS, 3, 3), (_BODY_JOINTS, 3, 3)):
            raise ValueError(
                "pose_rotmat must be (B, 23, 3, 3) or, with the root, (B, 24, 3, 3), got "
                f"{tuple(pose_rotmat.shape)}"
            )
        embedded = self.embed(pose_rotmat[:, -_BODY_JOINTS:].flatten(2))
        of_joints = (embedded * self.joint_weight).sum(dim=2) + self.joint_bias
        of_all = self.all_joints(embedded.flatten(1))
        return torch.cat([of_joints, of_all, self.shape(betas)], dim=1)


def adversarial_losses(
    discriminator: PoseDiscriminator,
    estimate: ImageEstimate,
    real_pose: Tensor,
    real_betas: Tensor,
    valid: Tensor | None = None,
) -> dict[str, Tensor]:
    """Both sides' losses, without weights, to be added and differentiated together.

    Args:
        discriminator: its weights get gradients from the second loss alone.
        estimate: of B people, which get gradients from the first loss alone.
        real_pose: (N, 23 or 24, 3, 3) of real people, from `RealPeople`.
        real_betas: (N, 10).
        valid: (B,) bool, whose estimates count: of pictures that could not be read they are not
            worth judging. None means everyone's.

    Returns:
        "adversarial_encoder" and "adversarial_discriminator", scalars: means over people of the
        sums over the 25 discriminators.
    """
    dtype = discriminator.joint_weight.dtype  # networks under autocast may answer in half of it
    pose, betas = estimate.pose_rotmat.to(dtype), estimate.betas.to(dtype)
    if valid is None:
        valid = torch.ones(len(betas), dtype=torch.bool, device=betas.device)
    pose = torch.where(valid[:, None, None, None], pose, torch.eye(3).to(pose))
    betas = torch.where(valid[:, None], betas, 0.0)
    fixed = {name: weight.detach() for name, weight in discriminator.named_parameters()}
    with torch.autocast(pose.device.type, enabled=False):
        judged = functional_call(discriminator, fixed, (pose, betas))
        judged_fake = discriminator(pose.detach(), betas.detach())
        judged_real = discriminator(real_pose, real_betas)
    real = (judged_real - 1).square().sum(dim=1).mean()
    return {
        "adversarial_encoder": masked_mean((judged - 1).square().sum(dim=1), valid),
        "adversarial_discriminator": real + masked_mean(judged_fake.square().sum(dim=1), valid),
    }


class RealPeople:
    """Poses and shapes of real people, in numbered batches."""

    def __init__(self, poses: MocapPoses, *, seed: int, split: str = "train") -> None:
        """Poses of the subjects in `split`, and their mirror images.

        Raises:
            ValueError: no pose is of that split.
        """
        chosen = poses.of_split(split)
        if len(chosen) == 0:
            raise ValueError(f"there are no poses of the split {split!r}")
        self._seed = seed
        self._rotvec = chosen.rotvec.astype(np.float32)
        until = np.cumsum(chosen.weights)
        self._until = until / until[-1]

    def draw(self, number: int, size: int) -> tuple[Tensor, Tensor]:
        """The batch of `size` people with this number, a pure function of it and the seed.

        Returns:
            pose_rotmat (size, 23, 3, 3) of joints 1 to 23, betas (size, 10) from a unit normal.
        """
        rng = np.random.default_rng((self._seed, number))
        rows = np.searchsorted(self._until, rng.random(size)).clip(max=len(self._until) - 1)
        rotvec = self._rotvec[rows]
        mirrored = rng.random(size) < 0.5
        rotvec[mirrored] = mirror_rotvec(rotvec[mirrored])
        pose_rotmat = roma.rotvec_to_rotmat(torch.from_numpy(rotvec[:, 1:]))
        return pose_rotmat, torch.from_numpy(rng.standard_normal((size, NUM_BETAS), np.float32))


def _perceptron(inputs: int, widths: tuple[int, ...]) -> nn.Sequential:
    """Hidden layers with ReLU, then one output."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Linear(inputs, width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, 1))
