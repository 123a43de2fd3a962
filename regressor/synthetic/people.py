"""An endless stream of people whose truth is known: motion capture, random bodies, random cameras.

A batch is a pure function of the stream's seed and the batch's number, so that training can go on
exactly where it stopped, on any number of processes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import roma
import torch
from torch import Generator, Tensor

from fitting.body import Body
from fitting.camera import make_intrinsics, project_points
from fitting.keypoint_body import KeypointBody
from fitting.keypoints import map_keypoints
from fitting.problem import BodyParams, FitProblem
from fitting.skeleton import BODY_POINTS, KEYPOINT_SETS, KeypointSet, joint_index, keypoint_set
from priors.mocap import MocapPoses, mirror_rotvec

from .detection import DetectionConfig, detect

_LEGS = [
    joint_index(f"{side}_{j}")
    for side in ("left", "right")
    for j in ("hip", "knee", "ankle", "foot")
]


@dataclass(frozen=True, kw_only=True)
class PoseConfig:
    """Poses beyond those that were recorded.

    Attributes:
        composed: share of people with the legs of another pose.
        jittered: share of people whose joints are turned at random.
        jitter: largest deviation of those turns about each axis, radians.
        betas_limit: of the shape components, which are normal.
    """

    composed: float = 0.2
    jittered: float = 0.5
    jitter: float = 0.2
    betas_limit: float = 2.5


@dataclass(frozen=True, kw_only=True)
class CameraConfig:
    """Where cameras stand, and what is known of them.

    Attributes:
        focal: least and largest focal length, as shares of the picture's diagonal.
        height: least and largest share of the picture's height that a standing person covers.
        offset: largest offset of a person from the middle, as a share of the picture.
        tilt, roll: radians, deviations of the camera's tilt (about 0.1 downwards) and roll.
        anyhow: share of people seen from any direction, as if they lay or fell.
        unknown_focal: share of people whose focal length is a guess.
        focal_error: deviation of the logarithm of those guesses.
    """

    focal: tuple[float, float] = (0.6, 2.0)
    height: tuple[float, float] = (0.15, 0.9)
    offset: float = 0.35
    tilt: float = 0.25
    roll: float = 0.1
    anyhow: float = 0.05
    unknown_focal: float = 0.25
    focal_error: float = 0.3


@dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """What people a stream is of.

    Attributes:
        split: of the motion-capture subjects: "train", "validation" or "test".
        keypoint_sets: names of keypoint sets and how often each is drawn. With more than one, the
            keypoints are all of `skeleton.BODY_POINTS`, those of the set seen.
        poses, cameras, detection: see there.
    """

    split: str = "train"
    keypoint_sets: dict[str, float] = field(
        default_factory=lambda: {name: 5.0 if name == "coco17" else 1.0 for name in KEYPOINT_SETS}
    )
    poses: PoseConfig = field(default_factory=PoseConfig)
    cameras: CameraConfig = field(default_factory=CameraConfig)
    detection: DetectionConfig = field(default_factory=DetectionConfig)

    def __post_init__(self) -> None:
        if self.split not in ("train", "validation", "test"):
            raise ValueError(f"split must be train, validation or test, got {self.split!r}")
        for name in self.keypoint_sets:
            keypoint_set(name)
        if not self.keypoint_sets or not all(w > 0 for w in self.keypoint_sets.values()):
            raise ValueError(f"keypoint_sets needs positive weights, got {self.keypoint_sets}")


def validation_config(config: StreamConfig) -> StreamConfig:
    """People by whom a network is judged: COCO's keypoints as detected, of poses as recorded."""
    return replace(
        config,
        split="validation",
        keypoint_sets={"coco17": 1.0},
        poses=replace(config.poses, composed=0.0, jittered=0.0),
        detection=DetectionConfig(sigma=(2.0, 4.0), missing=0.2, wrong=0.06, cut=0.0, swapped=0.0),
    )


@dataclass(frozen=True, kw_only=True)
class SyntheticPeople:
    """B people as they are and as they were seen.

    Attributes:
        pose_rotmat: (B, 24, 3, 3) local rotations, the root's in the camera frame.
        betas: (B, 10), transl: (B, 3) metres, as the focal length that is known would have it.
        joints: (B, 24, 3) metres, camera frame.
        keypoints_3d: (B, P, 3) metres, camera frame.
        keypoints_2d: (B, P, 2) true pixels, of the true focal length.
        problem: the keypoints as they were detected, and the camera as it is known.
    """

    pose_rotmat: Tensor
    betas: Tensor
    transl: Tensor
    joints: Tensor
    keypoints_3d: Tensor
    keypoints_2d: Tensor
    problem: FitProblem

    def __len__(self) -> int:
        return len(self.betas)

    @property
    def params(self) -> BodyParams:
        """Their SMPL parameters, camera frame."""
        return BodyParams.from_rotations(self.pose_rotmat, self.betas, self.transl)


class PeopleStream:
    """Batches of people, by number.

    Attributes:
        keypoint_set: of the problems.
        keypoint_body: its keypoints.
    """

    def __init__(self, body: Body, poses: MocapPoses, config: StreamConfig, *, seed: int) -> None:
        """Prepare a stream of people of `body` in the poses of `config.split`, on the CPU.

        Raises:
            ValueError: no pose is of that split, or the body defines no point of a keypoint set.
        """
        self.config, self.seed = config, seed
        names = list(config.keypoint_sets)
        self.keypoint_set = keypoint_set(names[0]) if len(names) == 1 else BODY_POINTS
        keypoint_map = map_keypoints(body, self.keypoint_set)
        self.keypoint_body = KeypointBody(body, keypoint_map)
        self.defined = keypoint_map.defined
        self.shown = _points_of(names, self.keypoint_set).to(body.v_template) * self.defined
        if not (self.shown > 0).any(dim=1).all():
            raise ValueError(f"the body defines no point of one of {', '.join(names)}")
        self.set_weights = torch.tensor(list(config.keypoint_sets.values()))
        self.pose_rotmat, self.pose_weights = _prepare_poses(poses.of_split(config.split), body)
        if len(self.pose_rotmat) == 0:
            raise ValueError(f"there are no poses of the split {config.split!r}")

    def people(self, number: int, size: int) -> SyntheticPeople:
        """The batch of `size` people with this number."""
        state = np.random.SeedSequence((self.seed, number)).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(state[0] >> 1))
        return self._make(size, generator)

    @torch.no_grad()
    def _make(self, size: int, generator: Generator) -> SyntheticPeople:
        rotations = self._draw_poses(size, generator)
        rotations[:, 0] = _draw_views(size, self.config.cameras, generator) @ rotations[:, 0]
        limit = self.config.poses.betas_limit
        betas = torch.randn(size, 10, generator=generator).clamp(-limit, limit)
        keypoints, joints = self.keypoint_body.pose_rotations(rotations, betas)
        image_size, focal, transl = _draw_cameras(size, self.config.cameras, generator)
        pixels, _ = project_points(keypoints + transl[:, None], make_intrinsics(image_size, focal))
        # through a camera of another focal length the same person stands nearer or farther
        error = _guess_focal(size, self.config.cameras, generator)
        transl = transl * torch.stack([torch.ones(size), torch.ones(size), error], dim=1)
        which = torch.multinomial(self.set_weights, size, replacement=True, generator=generator)
        problem = FitProblem(
            keypoint_set=self.keypoint_set,
            keypoints_2d=pixels,
            conf=self.shown[which],
            intrinsics=make_intrinsics(image_size, focal * error),
            image_size=image_size,
        )
        return SyntheticPeople(
            pose_rotmat=rotations,
            betas=betas,
            transl=transl,
            joints=joints + transl[:, None],
            keypoints_3d=keypoints + transl[:, None],
            keypoints_2d=pixels,
            problem=detect(problem, self.config.detection, generator),
        )

    def _draw_poses(self, size: int, generator: Generator) -> Tensor:
        """(B, 24, 3, 3) recorded poses, some composed of two, some jittered."""
        config = self.config.poses
        rows = torch.multinomial(self.pose_weights, 2 * size, replacement=True, generator=generator)
        rotations = self.pose_rotmat[rows[:size]]
        composed = torch.rand(size, generator=generator) < config.composed
        others = self.pose_rotmat[rows[size:][composed]]
        rotations[composed.nonzero(), _LEGS] = others[:, _LEGS]
        jittered = torch.rand(size, generator=generator) < config.jittered
        deviation = config.jitter * torch.rand(size, 1, 1, generator=generator)
        turns = deviation * torch.randn(size, 24, 3, generator=generator)
        rotations[jittered] = rotations[jittered] @ roma.rotvec_to_rotmat(turns[jittered])
        return rotations


def _points_of(names: list[str], keypoints: KeypointSet) -> Tensor:
    """(S, P) 1 where a keypoint is among those of each of the S sets called `names`."""
    return torch.tensor(
        [[float(p in keypoint_set(name).points) for p in keypoints.points] for name in names]
    )


def _prepare_poses(poses: MocapPoses, body: Body) -> tuple[Tensor, Tensor]:
    """Rotations (2 N, 24, 3, 3) of the poses and their mirror images, and their weights (2 N,).

    The weights are those of `MocapPoses.weights`.
    """
    both = np.concatenate([poses.rotvec, mirror_rotvec(poses.rotvec)])
    rotations = roma.rotvec_to_rotmat(torch.as_tensor(both).to(body.v_template))
    return rotations, torch.from_numpy(np.tile(poses.weights, 2)).float()


def _uniform(low: float, high: float, shape: tuple[int, ...], generator: Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator)


def _draw_views(size: int, config: CameraConfig, generator: Generator) -> Tensor:
    """(B, 3, 3) from motion capture's frame (y up) to the camera's: any heading, some tilt."""
    heading = _uniform(-math.pi, math.pi, (size,), generator)
    tilt = math.pi + 0.1 + config.tilt * torch.randn(size, generator=generator)
    roll = config.roll * torch.randn(size, generator=generator)
    view = _turn_about(2, roll) @ _turn_about(0, tilt) @ _turn_about(1, heading)
    anyhow = torch.rand(size, generator=generator) < config.anyhow
    quaternions = torch.nn.functional.normalize(torch.randn(size, 4, generator=generator), dim=1)
    return torch.where(anyhow[:, None, None], roma.unitquat_to_rotmat(quaternions), view)


def _turn_about(axis: int, angle: Tensor) -> Tensor:
    """(B, 3, 3) by angles (B,)."""
    return roma.rotvec_to_rotmat(
        torch.nn.functional.one_hot(torch.tensor(axis), 3) * angle[:, None]
    )


_PICTURES = ((1280.0, 960.0), (1920.0, 1080.0), (640.0, 480.0), (480.0, 640.0), (1000.0, 1000.0))


def _draw_cameras(
    size: int, config: CameraConfig, generator: Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Picture sizes (B, 2), focal lengths (B,) and transl (B, 3)."""
    rows = torch.randint(len(_PICTURES), (size,), generator=generator)
    image_size = torch.tensor(_PICTURES)[rows]
    low, high = (math.log(value) for value in config.focal)
    focal = image_size.norm(dim=1) * _uniform(low, high, (size,), generator).exp()
    height_px = _uniform(*config.height, (size,), generator) * image_size[:, 1]
    depth = focal * 1.7 / height_px  # of a body 1.7 m tall
    offset = _uniform(-config.offset, config.offset, (size, 2), generator) * image_size
    transl = torch.cat([offset * (depth / focal)[:, None], depth[:, None]], dim=1)
    return image_size, focal, transl


def _guess_focal(size: int, config: CameraConfig, generator: Generator) -> Tensor:
    """(B,) by how much the focal lengths as known differ from the true ones."""
    error = config.focal_error * torch.randn(size, generator=generator)
    guessed = torch.rand(size, generator=generator) < config.unknown_focal
    return torch.where(guessed, error, 0.0).exp()
