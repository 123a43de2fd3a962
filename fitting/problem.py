"""What goes into a fit and what comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from enum import IntEnum
from typing import Any, TypeVar

import numpy as np
import roma
import torch
from torch import Tensor

from .skeleton import KeypointSet

# The unknowns of a fit, in the order in which solvers lay them side by side.
PARAMETERS = ("global_orient", "body_pose", "betas", "transl")


class Status(IntEnum):
    """How a person's fit ended; the names stand in the fits table."""

    CONVERGED = 0  # the cost had stopped falling
    MAX_STEPS = 1  # the budget of steps was spent while the cost was still falling
    NO_KEYPOINTS = 2  # nothing seen, so nothing fitted
    DIVERGED = 3  # cost or parameters became NaN or infinite

    @property
    def label(self) -> str:
        """The word used in files: `converged`, `max_steps`, ..."""
        return self.name.lower()


def status_words(status: Tensor) -> np.ndarray:
    """(N,) str, as files name (N,) values of `Status`."""
    return np.array([each.label for each in Status])[status.cpu().numpy()]


def count_fits(status: Mapping[str, int]) -> int:
    """How many people have a fit, of so many of each status, named as in files."""
    others = {Status.NO_KEYPOINTS.label, Status.DIVERGED.label}
    return sum(count for word, count in status.items() if word not in others)


@dataclass(frozen=True, kw_only=True)
class BodyParams:
    """SMPL parameters of B people; the posed body plus transl is in the camera frame.

    Attributes:
        global_orient: (B, 3) axis-angle, radians.
        body_pose: (B, 69) axis-angle, radians.
        betas: (B, 10).
        transl: (B, 3) metres.
    """

    global_orient: Tensor
    body_pose: Tensor
    betas: Tensor
    transl: Tensor

    def __len__(self) -> int:
        return len(self.transl)

    @staticmethod
    def from_rotations(pose_rotmat: Tensor, betas: Tensor, transl: Tensor) -> BodyParams:
        """From local rotations (B, 24, 3, 3), the root's first, instead of axis-angles."""
        rotvec = roma.rotmat_to_rotvec(pose_rotmat).flatten(1)
        return BodyParams(
            global_orient=rotvec[:, :3], body_pose=rotvec[:, 3:], betas=betas, transl=transl
        )

    def select(self, rows: Tensor) -> BodyParams:
        """The people at `rows` (indices or a mask)."""
        return BodyParams(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def where(self, rows: Tensor) -> BodyParams:
        """The same at `rows` (a mask), NaN for everyone else."""
        return BodyParams(
            **{f.name: getattr(self, f.name).where(rows[:, None], torch.nan) for f in fields(self)}
        )

    def to(self, device: torch.device | str) -> BodyParams:
        """The same on `device`."""
        return BodyParams(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def pack(self, names: Sequence[str]) -> Tensor:
        """(B, D) the parameters called `names`, side by side."""
        return torch.cat([getattr(self, name) for name in names], dim=1)

    def unpack(self, packed: Tensor, names: Sequence[str]) -> BodyParams:
        """These parameters with those called `names` taken from `packed` (B, D)."""
        sizes = [getattr(self, name).shape[1] for name in names]
        return replace(self, **dict(zip(names, packed.split(sizes, dim=1), strict=True)))

    @staticmethod
    def concatenate(parts: Sequence[BodyParams]) -> BodyParams:
        """People of all parts, in order."""
        return BodyParams(
            **{
                f.name: torch.cat([getattr(part, f.name) for part in parts])
                for f in fields(BodyParams)
            }
        )


@dataclass(frozen=True, kw_only=True)
class Proximal:
    """An estimate of B people from elsewhere (a regressor, an earlier fit), and how good it is.

    Attributes:
        params: the estimate; its translation is not used.
        pose_precision: (B or 1, 24, 3, 3) per square radian, of each joint's error e, which turns
            the estimate R^ into the truth R^ exp(e).
        betas_std: (B or 1, 10).
    """

    params: BodyParams
    pose_precision: Tensor
    betas_std: Tensor

    def select(self, rows: Tensor) -> Proximal:
        """Of the people at `rows`."""
        B = len(self.params)
        return Proximal(
            params=self.params.select(rows),
            pose_precision=self.pose_precision.expand(B, -1, -1, -1)[rows],
            betas_std=self.betas_std.expand(B, -1)[rows],
        )


@dataclass(frozen=True, kw_only=True)
class View:
    """What another calibrated camera saw of B people at the same moment.

    Attributes:
        problem: its keypoints and intrinsics.
        rotation: (B, 3, 3), translation: (B, 3) metres: a point X in the frame of the first camera
            is at rotation X + translation in its own.
    """

    problem: FitProblem
    rotation: Tensor
    translation: Tensor

    def select(self, rows: Tensor) -> View:
        """Of the people at `rows`."""
        return View(
            problem=self.problem.select(rows),
            rotation=self.rotation[rows],
            translation=self.translation[rows],
        )

    def see(self, points: Tensor) -> Tensor:
        """Points (B, N, 3) of the first camera's frame in this one's."""
        return points @ self.rotation.mT + self.translation[:, None]


@dataclass(frozen=True, kw_only=True)
class FitProblem:
    """2D keypoints of B people and the cameras that saw them, on one device in one dtype.

    Attributes:
        keypoint_set: the set of P keypoints.
        keypoints_2d: (B, P, 2) full-image pixels.
        conf: (B, P) in [0, 1]; 0 means unseen.
        intrinsics: (B, 3, 3) pixels.
        image_size: (B, 2) width and height, pixels.
        keypoint_std: (B, P) pixels, expected deviation of each keypoint of confidence 1; none
            leaves it to the solver. The published baselines do not use it.
        proximal: what else is known of the people; the published baselines do not use it.
        views: of other cameras; the published baselines do not use them.
    """

    keypoint_set: KeypointSet
    keypoints_2d: Tensor
    conf: Tensor
    intrinsics: Tensor
    image_size: Tensor
    keypoint_std: Tensor | None = None
    proximal: Proximal | None = None
    views: tuple[View, ...] = ()

    def __post_init__(self) -> None:
        B = len(self.conf)
        expected = {
            "keypoints_2d": (B, len(self.keypoint_set), 2),
            "conf": (B, len(self.keypoint_set)),
            "intrinsics": (B, 3, 3),
            "image_size": (B, 2),
        }
        for name, shape in expected.items():
            got = tuple(getattr(self, name).shape)
            if got != shape:
                raise ValueError(f"{name} must be {shape} for {self.keypoint_set.name}, got {got}")

    def __len__(self) -> int:
        return len(self.conf)

    def select(self, rows: Tensor) -> FitProblem:
        """The people at `rows` (indices or a mask)."""
        return replace(
            self,
            keypoints_2d=self.keypoints_2d[rows],
            conf=self.conf[rows],
            intrinsics=self.intrinsics[rows],
            image_size=self.image_size[rows],
            keypoint_std=None if self.keypoint_std is None else self.keypoint_std[rows],
            proximal=None if self.proximal is None else self.proximal.select(rows),
            views=tuple(view.select(rows) for view in self.views),
        )

    def with_defined(self, defined: Tensor) -> FitProblem:
        """The same with the keypoints unseen that are not `defined` (P,)."""
        views = (replace(v, problem=v.problem.with_defined(defined)) for v in self.views)
        return replace(self, conf=self.conf * defined, views=tuple(views))

    @staticmethod
    def concatenate(parts: Sequence[FitProblem], noise: float) -> FitProblem:
        """People of all parts, of one keypoint set and as many views, in order.

        Args:
            parts: at least one.
            noise: of keypoints, as a share of the person's size, in parts that do not tell, if
                others do.
        """

        def cat(name: str) -> Tensor:
            return torch.cat([getattr(part, name) for part in parts])

        keypoint_std = None
        if any(part.keypoint_std is not None for part in parts):
            keypoint_std = torch.cat([_keypoint_std(part, noise) for part in parts])
        views = [
            View(
                problem=FitProblem.concatenate([view.problem for view in same], noise),
                rotation=torch.cat([view.rotation for view in same]),
                translation=torch.cat([view.translation for view in same]),
            )
            for same in zip(*(part.views for part in parts), strict=True)
        ]
        return FitProblem(
            keypoint_set=parts[0].keypoint_set,
            keypoints_2d=cat("keypoints_2d"),
            conf=cat("conf"),
            intrinsics=cat("intrinsics"),
            image_size=cat("image_size"),
            keypoint_std=keypoint_std,
            proximal=_all_proximal(parts),
            views=tuple(views),
        )

    @property
    def seen(self) -> Tensor:
        """(B,) bool: some camera sees some keypoint."""
        confs = [self.conf, *(view.problem.conf for view in self.views)]
        return torch.stack([(conf > 0).any(dim=1) for conf in confs]).any(dim=0)

    def best_view(self) -> View:
        """For each person, the camera of the largest sum of confidences; the first one on a tie."""
        like = self.conf
        eye = torch.eye(3).to(like).expand(len(self), 3, 3)
        first = View(
            problem=replace(self, views=()), rotation=eye, translation=like.new_zeros(len(self), 3)
        )
        views = [first, *self.views]
        best = torch.stack([view.problem.conf.sum(dim=1) for view in views]).argmax(dim=0)
        people = torch.arange(len(self), device=like.device)

        def of_best(values: list[Tensor]) -> Tensor:
            return torch.stack(values)[best, people]

        problems = [view.problem for view in views]
        return View(
            problem=replace(
                first.problem,
                keypoints_2d=of_best([p.keypoints_2d for p in problems]),
                conf=of_best([p.conf for p in problems]),
                intrinsics=of_best([p.intrinsics for p in problems]),
                image_size=of_best([p.image_size for p in problems]),
                keypoint_std=None,
            ),
            rotation=of_best([view.rotation for view in views]),
            translation=of_best([view.translation for view in views]),
        )

    @property
    def person_size(self) -> Tensor:
        """(B,) pixels: longer side of the box around the keypoints seen.

        At least 2 % of the picture's longer side, so that one keypoint alone has a size too.
        """
        seen = (self.conf > 0)[..., None]
        low = self.keypoints_2d.where(seen, torch.inf).amin(dim=1)
        high = self.keypoints_2d.where(seen, -torch.inf).amax(dim=1)
        least = 0.02 * self.image_size.amax(dim=1)
        return (high - low).amax(dim=1).maximum(least)


def _keypoint_std(problem: FitProblem, noise: float) -> Tensor:
    """(B, P) pixels, as the solver would take it where the problem does not tell."""
    if problem.keypoint_std is not None:
        return problem.keypoint_std
    return (noise * problem.person_size)[:, None].expand_as(problem.conf)


def _all_proximal(parts: Sequence[FitProblem]) -> Proximal | None:
    """Of the people of all parts; estimates that are not there count for nothing."""
    if all(part.proximal is None for part in parts):
        return None
    found = [_proximal_or_nothing(part) for part in parts]
    everyone = [p.select(torch.arange(len(p.params), device=p.betas_std.device)) for p in found]
    return Proximal(
        params=BodyParams.concatenate([p.params for p in everyone]),
        pose_precision=torch.cat([p.pose_precision for p in everyone]),
        betas_std=torch.cat([p.betas_std for p in everyone]),
    )


def _proximal_or_nothing(problem: FitProblem) -> Proximal:
    if problem.proximal is not None:
        return problem.proximal
    B, like = len(problem), problem.conf
    return Proximal(
        params=BodyParams(
            global_orient=like.new_zeros(B, 3),
            body_pose=like.new_zeros(B, 69),
            betas=like.new_zeros(B, 10),
            transl=like.new_zeros(B, 3),
        ),
        pose_precision=like.new_zeros(1, 24, 3, 3),
        betas_std=like.new_full((1, 10), torch.inf),
    )


_Result = TypeVar("_Result", bound="FitResult")


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """What a solver found for B people.

    Attributes:
        params: SMPL parameters in the camera frame.
        reprojection_error: (B, P) pixels, unweighted; NaN for keypoints unseen or undefined.
        cost_initial, cost_final: (B,) of the last stage, at its start and end.
        num_steps: (B,) int32, over all stages.
        status: (B,) values of `Status`.
        intrinsics: (B, 3, 3) pixels, of the cameras: as given, or as solved for.
        joint_std: (B, 24, 3) metres, expected deviation of each SMPL joint relative to the pelvis
            along the camera's axes; NaN from solvers that do not say.
    """

    params: BodyParams
    reprojection_error: Tensor
    cost_initial: Tensor
    cost_final: Tensor
    num_steps: Tensor
    status: Tensor
    intrinsics: Tensor
    joint_std: Tensor

    def __len__(self) -> int:
        return len(self.status)

    @property
    def joint_std_mm(self) -> Tensor:
        """(B, 24) mm: expected distance of each joint from where it is, relative to the pelvis."""
        return 1000 * self.joint_std.norm(dim=2)

    @property
    def mean_reprojection_error(self) -> Tensor:
        """(B,) pixels: mean over the keypoints seen."""
        return self.reprojection_error.nanmean(dim=1)

    def _map(self: _Result, change: Callable[[Any], Any]) -> _Result:
        changed = {f.name: change(getattr(self, f.name)) for f in fields(FitResult)}
        return replace(self, **changed)  # also of what a subclass adds

    def select(self: _Result, rows: Tensor) -> _Result:
        """The people at `rows` (indices or a mask)."""
        return self._map(lambda x: x.select(rows) if isinstance(x, BodyParams) else x[rows])

    def to(self: _Result, device: torch.device | str) -> _Result:
        """The same on `device`."""
        return self._map(lambda x: x.to(device))

    @staticmethod
    def nothing_seen(problem: FitProblem) -> FitResult:
        """Results of people without a seen keypoint: NaN parameters."""
        num_people, num_keypoints = problem.conf.shape
        like = problem.conf

        def nan(*shape: int) -> Tensor:
            return like.new_full((num_people, *shape), torch.nan)

        def integer(value: int) -> Tensor:
            return torch.full((num_people,), value, dtype=torch.int32, device=like.device)

        return FitResult(
            params=BodyParams(
                global_orient=nan(3), body_pose=nan(69), betas=nan(10), transl=nan(3)
            ),
            reprojection_error=nan(num_keypoints),
            cost_initial=nan(),
            cost_final=nan(),
            num_steps=integer(0),
            status=integer(Status.NO_KEYPOINTS),
            intrinsics=problem.intrinsics,
            joint_std=nan(24, 3),
        )

    @staticmethod
    def concatenate(parts: Sequence[FitResult]) -> FitResult:
        """People of all parts, in order."""
        tensors = {
            f.name: torch.cat([getattr(part, f.name) for part in parts])
            for f in fields(FitResult)
            if f.name != "params"
        }
        return FitResult(params=BodyParams.concatenate([p.params for p in parts]), **tensors)
