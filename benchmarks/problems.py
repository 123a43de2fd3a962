"""Fitting problems with known truth: held-out poses, random bodies and cameras, noisy keypoints."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from fitting.body import Body, pose_body
from fitting.camera import project_points
from fitting.keypoints import map_keypoints
from fitting.problem import BodyParams, FitProblem
from fitting.skeleton import keypoint_set
from priors.mocap import MocapPoses, load_mocap

HELD_OUT_POSES = Path(__file__).with_name("heldout_poses.npz")

# Families of the held-out subjects: the kind of motion a subject was recorded for.
FAMILIES = {
    "everyday": ("007", "013", "016"),
    "dance": ("005",),
    "acrobatics": ("085", "140"),
}
IMAGE_SIZE = (1280.0, 960.0)


@dataclass(frozen=True, kw_only=True)
class Noise:
    """What is done to true keypoints.

    Attributes:
        sigma: pixels of Gaussian noise for a person 200 px tall; grows with the person.
        missing: share of keypoints unseen.
        wrong: share of keypoints moved anywhere in the person's box, at full confidence.
    """

    sigma: float = 0.0
    missing: float = 0.0
    wrong: float = 0.0


LEVELS = {
    "true": Noise(),
    "2px": Noise(sigma=2.0, missing=0.1, wrong=0.03),
    "4px": Noise(sigma=4.0, missing=0.1, wrong=0.03),
}


@dataclass(frozen=True, kw_only=True)
class EstimateError:
    """Standard deviations of a regressor-like estimate from the truth.

    Attributes:
        pose: radians about each axis, of each of the 23 joints of the body.
        root: radians about each axis, of the whole body.
        betas: of each of the ten.
        across: metres, of the translation along the picture's x and y.
        depth: of the logarithm of the distance; moves the person along the ray from the camera.
    """

    pose: float = 0.08
    root: float = 0.1
    betas: float = 0.7
    across: float = 0.03
    depth: float = 0.08


ESTIMATE_ERROR = EstimateError()


@dataclass(frozen=True, kw_only=True)
class Truth:
    """N people as they are.

    Attributes:
        params: in the camera frame.
        family: (N,) str.
        problem: their true keypoints.
    """

    params: BodyParams
    family: np.ndarray
    problem: FitProblem


def held_out_poses() -> MocapPoses:
    """Poses of the test subjects that ship with the benchmarks."""
    return load_mocap(HELD_OUT_POSES)


def choose_poses(
    mocap: MocapPoses, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """As many poses of each family: rotvec (N, 24, 3) and family (N,)."""
    rows, families = [], []
    for i, (family, subjects) in enumerate(FAMILIES.items()):
        of_family = np.flatnonzero(np.isin(mocap.subject, subjects))
        share = (count + i) // len(FAMILIES)
        rows.append(rng.choice(of_family, share, replace=share > len(of_family)))
        families += [family] * share
    return mocap.rotvec[np.concatenate(rows)], np.array(families)


def make_truth(body: Body, count: int, seed: int, keypoints: str = "coco17") -> Truth:
    """Random people before random cameras that look at them from all sides, a little from above."""
    rng = np.random.default_rng(seed)
    rotvec, family = choose_poses(held_out_poses(), count, rng)
    turned = _random_view(rotvec[:, 0], rng)
    size = np.array(IMAGE_SIZE)
    focal = np.linalg.norm(size) * rng.uniform(0.7, 1.6, count)
    intrinsics = np.zeros((count, 3, 3))
    intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = focal
    intrinsics[:, :2, 2], intrinsics[:, 2, 2] = (size - 1) / 2, 1
    height_px = rng.uniform(0.2, 0.6, count) * size[1]  # of a body 1.7 m tall at the root's depth
    depth = focal * 1.7 / height_px
    offset = rng.uniform(-0.15, 0.15, (count, 2)) * size * depth[:, None] / focal[:, None]
    arrays = {
        "global_orient": turned,
        "body_pose": rotvec[:, 1:].reshape(count, 69),
        "betas": np.clip(rng.normal(size=(count, 10)), -2.5, 2.5),
        "transl": np.concatenate([offset, depth[:, None]], axis=1),
    }
    like = body.v_template
    params = BodyParams(**{k: torch.as_tensor(v).to(like) for k, v in arrays.items()})
    K = torch.as_tensor(intrinsics).to(like)
    s = keypoint_set(keypoints)
    with torch.no_grad():
        points = map_keypoints(body, s)(pose_body(body, params))
    problem = FitProblem(
        keypoint_set=s,
        keypoints_2d=project_points(points, K)[0],
        conf=like.new_ones(count, len(s)),
        intrinsics=K,
        image_size=torch.as_tensor(size).to(like).expand(count, 2),
    )
    return Truth(params=params, family=family, problem=problem)


def _random_view(orient: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mocap orientations (y up) as seen by a camera: any heading, slightly tilted and rolled."""
    N = len(orient)
    heading = Rotation.from_euler("y", rng.uniform(-np.pi, np.pi, (N, 1)))
    tilt = Rotation.from_euler("x", np.pi + rng.normal(0.1, 0.15, (N, 1)))
    roll = Rotation.from_euler("z", rng.normal(0, 0.05, (N, 1)))
    return (roll * tilt * heading * Rotation.from_rotvec(orient)).as_rotvec()


def add_noise(problem: FitProblem, noise: Noise, seed: int) -> FitProblem:
    """The problem as a detector might have seen it; the input is not modified."""
    rng = np.random.default_rng(seed)
    shape = tuple(problem.conf.shape)
    size = problem.person_size.cpu().numpy()[:, None, None]
    xy = problem.keypoints_2d.cpu().numpy()
    noisy = xy + rng.normal(size=xy.shape) * noise.sigma * size / 200
    middle = (xy.max(1, keepdims=True) + xy.min(1, keepdims=True)) / 2
    anywhere = middle + rng.uniform(-0.5, 0.5, xy.shape) * size
    noisy = np.where((rng.random(shape) < noise.wrong)[..., None], anywhere, noisy)
    conf = (rng.random(shape) >= noise.missing).astype(float)
    like = problem.keypoints_2d
    return replace(
        problem, keypoints_2d=torch.as_tensor(noisy).to(like), conf=torch.as_tensor(conf).to(like)
    )


def perturb(truth: BodyParams, seed: int) -> BodyParams:
    """An estimate of N people as a good regressor might give it: `ESTIMATE_ERROR` off the truth.

    Each joint is turned in its own frame, R exp(d) with d normal. The translation is moved across
    and then scaled. The input is not modified.
    """
    rng, error, N = np.random.default_rng(seed), ESTIMATE_ERROR, len(truth)
    rotvec = torch.cat([truth.global_orient, truth.body_pose], dim=1).cpu().numpy()
    deviation = np.where(np.arange(24) == 0, error.root, error.pose)[:, None]
    turns = rng.normal(size=(N, 24, 3)) * deviation
    before, turned = (Rotation.from_rotvec(part.reshape(-1, 3)) for part in (rotvec, turns))
    rotvec = (before * turned).as_rotvec().reshape(N, 72)
    shift = rng.normal(size=(N, 3)) * (error.across, error.across, 0)
    transl = (truth.transl.cpu().numpy() + shift) * np.exp(rng.normal(size=(N, 1)) * error.depth)
    arrays = {
        "global_orient": rotvec[:, :3],
        "body_pose": rotvec[:, 3:],
        "betas": truth.betas.cpu().numpy() + rng.normal(size=(N, 10)) * error.betas,
        "transl": transl,
    }
    return BodyParams(**{k: torch.as_tensor(v).to(truth.transl) for k, v in arrays.items()})
