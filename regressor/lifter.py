"""The lifter: from 2D keypoints of any set to SMPL parameters, and how sure each of them is.

A residual multilayer perceptron (Martinez et al., "A simple yet effective baseline for 3d human
pose estimation", ICCV 2017) on the keypoints as a camera sees them that looks straight at the
person (`crop_view`). Rotations are 6D (Zhou et al., CVPR 2019). Each joint's error e, with
R = R^ exp(e), is normal with a precision L L^T of its own; so are the shape, the distance and each
keypoint.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import roma
import torch
from torch import Tensor, nn

from fitting.body import Body
from fitting.problem import BodyParams, FitProblem
from fitting.skeleton import BODY_POINTS, KeypointSet

from .crop_view import CropView, look_at_people

_VIEW_FEATURES = 3  # logarithm of the size, direction
_HEADS = {
    "pose": 24 * 6, "betas": 10, "place": 3, "pose_precision": 24 * 6, "betas_log_std": 10,
    "depth_log_std": 1, "keypoint_log_std": len(BODY_POINTS), "keypoint_wrong": len(BODY_POINTS),
}  # fmt: skip
_LOG_STD = (-7.0, 2.0)  # beyond these a deviation means nothing
_LOG_SIZE = (-4.0, 1.0)
_LARGEST_RAY = 2.0
_FARTHEST = 4.0  # of the logarithm of a distance, from that of a standing person
_TYPICAL_HEIGHT = 1.7  # metres; a person of unknown distance is as far as if they stood


@dataclass(frozen=True, kw_only=True)
class LifterNetworkConfig:
    """Size of the network."""

    width: int = 1024
    blocks: int = 3
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.width < 1 or self.blocks < 0 or not 0 <= self.dropout < 1:
            raise ValueError(f"width >= 1, blocks >= 0 and 0 <= dropout < 1 are needed, got {self}")


@dataclass(frozen=True, kw_only=True)
class Lifted:
    """What the lifter says of B people, in the frame of a camera.

    Attributes:
        pose_rotmat: (B, 24, 3, 3) local rotations, the root's in the camera frame.
        betas: (B, 10).
        pelvis: (B, 3) metres: where the root joint is.
        pose_precision_root: (B, 24, 3, 3) lower triangular L: L^T e is standard normal for the
            error e of a joint in radians, truth = R^ exp(e).
        betas_std: (B, 10).
        log_depth_std: (B,) of the logarithm of the distance.
        keypoint_std: (B, P) of keypoints that are not wrong, as a share of the person's size.
        keypoint_wrong: (B, P) logit of the chance that a keypoint is wrong.
    """

    pose_rotmat: Tensor
    betas: Tensor
    pelvis: Tensor
    pose_precision_root: Tensor
    betas_std: Tensor
    log_depth_std: Tensor
    keypoint_std: Tensor
    keypoint_wrong: Tensor

    def moved(self, rotation: Tensor, translation: Tensor | None = None) -> Lifted:
        """The same bodies in another frame, where X is at rotation X + translation.

        Args:
            rotation: (B, 3, 3).
            translation: (B, 3) metres; none means zero.
        """
        root = rotation[:, None] @ self.pose_rotmat[:, :1]
        pelvis = (rotation @ self.pelvis[..., None])[..., 0]
        return replace(
            self,
            pose_rotmat=torch.cat([root, self.pose_rotmat[:, 1:]], dim=1),
            pelvis=pelvis if translation is None else pelvis + translation,
        )

    def params(self, body: Body) -> BodyParams:
        """SMPL parameters for `body`."""
        transl = self.pelvis - body.rest_joints(self.betas)[:, 0]
        return BodyParams.from_rotations(self.pose_rotmat, self.betas, transl)


class _Block(nn.Module):
    """x + W2 dropout(gelu(W1 norm(x)))."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inwards = nn.Linear(width, width)
        self.outwards = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.inwards(self.norm(x).to(self.inwards.weight.dtype))
        hidden = nn.functional.gelu(hidden, approximate="tanh")
        return x + self.outwards(self.dropout(hidden)).to(x.dtype)


class Lifter(nn.Module):
    """The network; `forward` takes the keypoints of `skeleton.BODY_POINTS`, `lift` any set's."""

    def __init__(self, config: LifterNetworkConfig, mean_rotmat: Tensor) -> None:
        """Begin at a mean pose: mean_rotmat (24, 3, 3), the root's in the camera frame."""
        super().__init__()
        inputs = 3 * len(BODY_POINTS) + _VIEW_FEATURES
        self.enter = nn.Linear(inputs, config.width)
        self.blocks = nn.Sequential(
            *(_Block(config.width, config.dropout) for _ in range(config.blocks))
        )
        self.norm = nn.LayerNorm(config.width)
        self.leave = nn.Linear(config.width, sum(_HEADS.values()))
        nn.init.normal_(self.leave.weight, std=1e-3)
        nn.init.zeros_(self.leave.bias)
        self.register_buffer("mean_pose", mean_rotmat[..., :2].flatten(1).clone())

    def halve_where_fast(self) -> Lifter:
        """Keep the blocks' weights in bfloat16 if they are on a CPU with instructions for it.

        It makes the network 2.5 times as fast, and moves rotations by 0.05 degrees on average.
        """
        weight = self.enter.weight
        has_instructions = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
        if weight.device.type == "cpu" and weight.dtype == torch.float32 and has_instructions():
            for module in self.blocks.modules():
                if isinstance(module, nn.Linear):
                    module.bfloat16()
        return self

    def forward(self, view: Tensor) -> dict[str, Tensor]:
        """Raw outputs by name, float32.

        Args:
            view: (B, 3 P + 3) from `view_features`.
        """
        hidden = self.norm(self.blocks(self.enter(view)))
        split = self.leave(hidden).float().split(list(_HEADS.values()), dim=1)
        return dict(zip(_HEADS, split, strict=True))

    def lift(self, problem: FitProblem) -> Lifted:
        """Estimate B people from their keypoints, in their pictures' camera frames.

        Those without any keypoint get some pose.

        Raises:
            ValueError: the lifter knows no point of the keypoint set.
        """
        problem = as_body_points(problem)
        view = look_at_people(problem)
        raw = self(view_features(view, problem.conf))
        return self.decode(raw, view.size).moved(view.rotation.mT)

    def decode(self, raw: dict[str, Tensor], size: Tensor) -> Lifted:
        """Bodies before the turned cameras, from raw outputs and the sizes (B,) of the views."""
        pose = raw["pose"].unflatten(1, (24, 6)) + self.mean_pose
        shift, log_depth = raw["place"].split((2, 1), dim=1)
        depth = _TYPICAL_HEIGHT / size[:, None] * log_depth.clamp(-_FARTHEST, _FARTHEST).exp()
        return Lifted(
            pose_rotmat=roma.special_gramschmidt(pose.unflatten(2, (3, 2))),
            betas=raw["betas"],
            pelvis=torch.cat([shift * size[:, None] / 2 * depth, depth], dim=1),
            pose_precision_root=_triangular(raw["pose_precision"].unflatten(1, (24, 6))),
            betas_std=_std(raw["betas_log_std"]),
            log_depth_std=_std(raw["depth_log_std"] - 2)[:, 0],
            keypoint_std=_std(raw["keypoint_log_std"] - 4),
            keypoint_wrong=raw["keypoint_wrong"] - 3,
        )


def _std(log_std: Tensor) -> Tensor:
    return log_std.clamp(*_LOG_STD).exp()


def _triangular(raw: Tensor) -> Tensor:
    """(B, 24, 3, 3) lower triangular with positive diagonals, from (B, 24, 6)."""
    diagonal = (1.0 + raw[..., :3]).clamp(-_LOG_STD[1], -_LOG_STD[0]).exp()
    root = torch.diag_embed(diagonal)
    rows, columns = torch.tril_indices(3, 3, offset=-1)
    scale = diagonal[..., columns]
    off = torch.zeros_like(root)
    off[..., rows, columns] = raw[..., 3:] * scale
    return root + off


def view_features(view: CropView, conf: Tensor) -> Tensor:
    """(B, 3 P + 3) what the network takes, of keypoints in the order of `BODY_POINTS`."""
    # beyond what was learned from, perspective changes no more, or makes no sense
    log_size = view.size.log()[:, None].clamp(*_LOG_SIZE)
    about = torch.cat([log_size, view.ray.clamp(-_LARGEST_RAY, _LARGEST_RAY)], dim=1)
    return torch.cat([view.keypoints.flatten(1), conf, about], dim=1)


def point_slots(keypoints: KeypointSet) -> tuple[list[int], list[bool]]:
    """Which of `BODY_POINTS` each keypoint of a set is, and whether it is any (else 0).

    Raises:
        ValueError: none is.
    """
    known = [point in BODY_POINTS.points for point in keypoints.points]
    if not any(known):
        raise ValueError(
            f"the lifter knows no point of the keypoint set {keypoints.name}; start from the mean "
            "pose (--init mean)"
        )
    points = zip(keypoints.points, known, strict=True)
    return [BODY_POINTS.index(point) if is_known else 0 for point, is_known in points], known


def as_body_points(problem: FitProblem) -> FitProblem:
    """The same people with the keypoints of `BODY_POINTS`; those that the set lacks are unseen.

    Of a point that the set has twice, as SPIN's has the nose, the surer keypoint is taken.

    Raises:
        ValueError: the set has no point of the body that the lifter knows.
    """
    if problem.keypoint_set == BODY_POINTS:
        return problem
    slots, known = point_slots(problem.keypoint_set)
    xy = problem.keypoints_2d.new_zeros(len(problem), len(BODY_POINTS), 2)
    conf = problem.conf.new_zeros(len(problem), len(BODY_POINTS))
    for columns in _distinct(slots, known):
        into = [slots[column] for column in columns]
        surer = problem.conf[:, columns] > conf[:, into]
        xy[:, into] = torch.where(surer[..., None], problem.keypoints_2d[:, columns], xy[:, into])
        conf[:, into] = torch.where(surer, problem.conf[:, columns], conf[:, into])
    return FitProblem(
        keypoint_set=BODY_POINTS,
        keypoints_2d=xy,
        conf=conf,
        intrinsics=problem.intrinsics,
        image_size=problem.image_size,
    )


def _distinct(slots: list[int], known: list[bool]) -> list[list[int]]:
    """The known columns in groups whose slots differ: one group, where no point comes twice."""
    groups: list[list[int]] = []
    for column in [column for column, is_known in enumerate(known) if is_known]:
        free = [g for g in groups if slots[column] not in (slots[other] for other in g)]
        if not free:
            free = [[]]
            groups += free
        free[0].append(column)
    return groups
