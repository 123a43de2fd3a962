"""What detectors and annotators make of true keypoints."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from fitting.problem import FitProblem
from fitting.skeleton import KeypointSet, mirrored_name


@dataclass(frozen=True, kw_only=True)
class DetectionConfig:
    """How keypoints are disturbed; each person draws rates of their own within these bounds.

    Attributes:
        exact: share of people whose keypoints are where they are.
        sigma: least and largest deviation in pixels of a person 200 px tall; its logarithm is
            uniform, and it grows with the person.
        spread: deviation of the logarithm of each keypoint's own deviation, for half of the people.
        missing: largest share of keypoints unseen, at random.
        wrong: largest share of keypoints anywhere in the person's box; a quarter of people have
            none.
        cut: share of people of whom everything beyond a line is unseen: by the picture's edge, or
            behind something.
        swapped: share of people whose left and right arms, legs or everything are exchanged.
    """

    exact: float = 0.15
    sigma: tuple[float, float] = (0.5, 6.0)
    spread: float = 0.5
    missing: float = 0.3
    wrong: float = 0.08
    cut: float = 0.25
    swapped: float = 0.04

    def __post_init__(self) -> None:
        if not 0 < self.sigma[0] <= self.sigma[1]:
            raise ValueError(f"sigma must be two positive numbers, ascending, got {self.sigma}")
        for name in ("exact", "missing", "wrong", "cut", "swapped"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be a share in [0, 1], got {getattr(self, name)}")


class _Draw:
    """Random numbers of B people."""

    def __init__(self, like: Tensor, generator: Generator) -> None:
        self.shape, self.dtype, self.generator = like.shape, like.dtype, generator

    def uniform(self, *extra: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """(B, *extra)."""
        drawn = torch.rand(len(self), *extra, generator=self.generator, dtype=self.dtype)
        return low + (high - low) * drawn

    def normal(self, *extra: int) -> Tensor:
        """(B, *extra)."""
        return torch.randn(len(self), *extra, generator=self.generator, dtype=self.dtype)

    def chance(self, share: float) -> Tensor:
        """(B, 1) bool, true for `share` of the people."""
        return self.uniform(1) < share

    def __len__(self) -> int:
        return self.shape[0]


def detect(problem: FitProblem, config: DetectionConfig, generator: Generator) -> FitProblem:
    """The problem as a detector might have seen it; the input is not modified.

    Args:
        problem: true keypoints of B people, on the CPU; those of confidence 0 stay unseen, and one
            of the others is always seen.
        config: of the disturbances.
        generator: of the randomness.
    """
    draw = _Draw(problem.conf, generator)
    size = problem.person_size[:, None]
    swapped = _swap_sides(problem, config, draw)
    xy, conf = _displace(swapped, problem.conf, size, config, draw)
    middle = _middle(problem)
    share = (draw.uniform(1, low=-config.wrong / 3, high=config.wrong)).clamp(min=0)
    wrong = draw.uniform(xy.shape[1]) < share
    anywhere = middle + draw.uniform(*xy.shape[1:], low=-0.5, high=0.5) * size[..., None]
    xy = torch.where(wrong[..., None], anywhere, xy)
    # detectors notice some of their errors; annotators' marks all have confidence 1
    doubt = torch.where((conf < 1) & wrong, draw.uniform(xy.shape[1], low=0.3), 1.0)
    hidden = _hide(problem, middle, size, config, draw)
    return replace(
        problem,
        keypoints_2d=xy,
        conf=_keep_one(conf * doubt * ~hidden * (problem.conf > 0), problem),
    )


def _middle(problem: FitProblem) -> Tensor:
    """(B, 1, 2) of the box around the keypoints seen."""
    seen = (problem.conf > 0)[..., None]
    low = problem.keypoints_2d.where(seen, torch.inf).amin(dim=1, keepdim=True)
    high = problem.keypoints_2d.where(seen, -torch.inf).amax(dim=1, keepdim=True)
    return (low + high) / 2


def _displace(
    xy: Tensor, conf: Tensor, size: Tensor, config: DetectionConfig, draw: _Draw
) -> tuple[Tensor, Tensor]:
    """Gaussian noise; half of the people have noise and confidence of each keypoint's own."""
    low, high = (math.log(value) for value in config.sigma)
    exact = draw.chance(config.exact)
    sigma = draw.uniform(1, low=low, high=high).exp() * ~exact
    own = draw.chance(0.5) & ~exact
    times = torch.where(own, (config.spread * draw.normal(xy.shape[1])).exp(), 1.0)
    noisy = xy + draw.normal(*xy.shape[1:]) * (sigma * times * size / 200)[..., None]
    sure = (draw.uniform(1, low=0.6, high=1.2) / times + 0.1 * draw.normal(xy.shape[1])).clamp(
        0.1, 1
    )
    return noisy, conf * torch.where(own, sure, 1.0)


def _swap_sides(problem: FitProblem, config: DetectionConfig, draw: _Draw) -> Tensor:
    """(B, P, 2) with arms, legs or everything of some people exchanged."""
    xy = problem.keypoints_2d
    groups = _sides(problem.keypoint_set)
    which = draw.uniform(1)
    some = draw.chance(config.swapped)
    for i, exchange in enumerate(groups):
        chosen = some & (which >= i / len(groups)) & (which < (i + 1) / len(groups))
        xy = torch.where(chosen[..., None], xy[:, exchange], xy)
    return xy


def _sides(keypoints: KeypointSet) -> list[Tensor]:
    """Permutations (P,) that exchange left and right arms, legs and everything."""
    parts = (
        ("shoulder", "elbow", "wrist", "hand", "knuckle"),
        ("hip", "knee", "ankle", "foot", "toe", "heel"),
        ("",),
    )
    exchanges = []
    for words in parts:
        moved = [any(word in name for word in words) for name in keypoints.names]
        exchanges.append(
            torch.tensor(
                [
                    keypoints.index(mirrored_name(name)) if moves else i
                    for i, (name, moves) in enumerate(zip(keypoints.names, moved, strict=True))
                ]
            )
        )
    return exchanges


def _hide(
    problem: FitProblem, middle: Tensor, size: Tensor, config: DetectionConfig, draw: _Draw
) -> Tensor:
    """(B, P) bool: unseen, at random or beyond a line across the person."""
    count = problem.conf.shape[1]
    lost = draw.uniform(count) < draw.uniform(1, high=config.missing)
    angle = 2 * math.pi * draw.uniform(1)
    # most often what hides a person hides their legs
    angle = torch.where(draw.chance(0.5), math.pi / 2, angle)
    normal = torch.cat([angle.cos(), angle.sin()], dim=1)[:, None]
    along = ((problem.keypoints_2d - middle) * normal).sum(dim=2) / size
    beyond = along > draw.uniform(1, low=-0.3, high=0.4)
    return lost | (beyond & draw.chance(config.cut))


def _keep_one(conf: Tensor, problem: FitProblem) -> Tensor:
    """The confidences, the first keypoint that could be seen kept where all were lost."""
    nothing = ~(conf > 0).any(dim=1)
    first = (problem.conf > 0).to(problem.conf).max(dim=1).indices
    kept = conf.clone()
    kept[nothing, first[nothing]] = problem.conf[nothing, first[nothing]]
    return kept
