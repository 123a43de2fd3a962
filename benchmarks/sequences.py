"""Sequences with known truth: held-out motions, random bodies and cameras that stand still."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from problems import FAMILIES, IMAGE_SIZE, Noise, Truth, add_noise
from scipy.spatial.transform import Rotation

from fitting.body import Body
from fitting.camera import project_points
from fitting.keypoint_body import KeypointBody
from fitting.keypoints import map_keypoints
from fitting.problem import PARAMETERS, BodyParams, FitProblem
from fitting.skeleton import keypoint_set
from priors.mocap import MocapPoses, load_mocap

HELD_OUT_SEQUENCES = Path(__file__).with_name("heldout_sequences.npz")
FPS = 10.0  # of the recordings

_NEAREST = 2.5  # metres in front of the camera, the whole way
_LIMBS = tuple(
    [f"{side}_{joint}" for joint in joints]
    for side in ("left", "right")
    for joints in (("elbow", "wrist"), ("knee", "ankle"))
)


@dataclass(frozen=True, kw_only=True)
class Hidden:
    """What is hidden for a while, in each track.

    Attributes:
        every: frames from one hidden limb (elbow and wrist, or knee and ankle) to the next.
        limb: frames that it stays hidden.
        person: frames, once in a track, in which nothing is seen.
    """

    every: int = 20
    limb: int = 10
    person: int = 4


def held_out_sequences() -> MocapPoses:
    """Motions of the test subjects that ship with the benchmarks."""
    return load_mocap(HELD_OUT_SEQUENCES)


def make_sequences(
    body: Body,
    mocap: MocapPoses,
    seed: int,
    *,
    families: dict[str, tuple[str, ...]] = FAMILIES,
    keypoints: str = "coco17",
) -> tuple[Truth, np.ndarray]:
    """Motions before random cameras; N frames of all sequences, one after another.

    The recordings have no translation: a body moves so that its lowest foot or hand stays where it
    is on the ground, which is wrong in the air only. One body and one camera for each sequence.

    Args:
        body: of everyone.
        mocap: N poses.
        seed: of bodies and cameras.
        families: subjects of each kind of motion.
        keypoints: name of a set.

    Returns:
        The truth, and (N,) int, which sequence each frame is of.
    """
    rng = np.random.default_rng(seed)
    _, track = np.unique(mocap.sequence, return_inverse=True)
    count, like = track.max() + 1, body.v_template
    size = np.array(IMAGE_SIZE)
    betas = np.clip(rng.normal(size=(count, 10)), -2.5, 2.5)[track]
    orient, path = _walk(body, mocap.rotvec, betas, track)
    turned = _cameras(rng, count)[track]
    path = turned.apply(path)
    focal = np.linalg.norm(size) * rng.uniform(0.7, 1.6, count)
    depth = focal * 1.7 / (rng.uniform(0.2, 0.6, count) * size[1])
    nearest = np.array([path[track == t, 2].min() for t in range(count)])
    depth = np.maximum(depth, _NEAREST - nearest)
    offset = rng.uniform(-0.15, 0.15, (count, 2)) * size * (depth / focal)[:, None]
    start = np.concatenate([offset, depth[:, None]], axis=1)
    arrays = {
        "global_orient": (turned * orient).as_rotvec(),
        "body_pose": mocap.rotvec[:, 1:].reshape(-1, 69),
        "betas": betas,
        "transl": path + start[track],
    }
    params = BodyParams(**{k: torch.as_tensor(v).to(like) for k, v in arrays.items()})
    intrinsics = np.zeros((count, 3, 3))
    intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = focal
    intrinsics[:, :2, 2], intrinsics[:, 2, 2] = (size - 1) / 2, 1
    problem = _seen(body, params, torch.as_tensor(intrinsics[track]).to(like), keypoints)
    names = {subject: family for family, subjects in families.items() for subject in subjects}
    family = np.array([names[subject] for subject in mocap.subject.tolist()])
    return Truth(params=params, family=family, problem=problem), track


def _seen(body: Body, params: BodyParams, K: torch.Tensor, keypoints: str) -> FitProblem:
    """True keypoints of N people."""
    s = keypoint_set(keypoints)
    keypoint_body = KeypointBody(body, map_keypoints(body, s))
    points = keypoint_body.pose(params.pack(PARAMETERS)).keypoints
    like = body.v_template
    return FitProblem(
        keypoint_set=s,
        keypoints_2d=project_points(points, K)[0],
        conf=like.new_ones(len(params), len(s)),
        intrinsics=K,
        image_size=torch.tensor(IMAGE_SIZE).to(like).expand(len(params), 2),
    )


def _cameras(rng: np.random.Generator, count: int) -> Rotation:
    """From worlds with y up to cameras: any heading, slightly tilted and rolled."""
    heading = Rotation.from_euler("y", rng.uniform(-np.pi, np.pi, (count, 1)))
    tilt = Rotation.from_euler("x", np.pi + rng.normal(0.1, 0.15, (count, 1)))
    roll = Rotation.from_euler("z", rng.normal(0, 0.05, (count, 1)))
    return roll * tilt * heading


def _walk(
    body: Body, rotvec: np.ndarray, betas: np.ndarray, track: np.ndarray
) -> tuple[Rotation, np.ndarray]:
    """Orientations (N,), and (N, 3) where bodies are, y up and about the middle of their way."""
    smpl24 = keypoint_set("smpl24")
    joints_of = KeypointBody(body, map_keypoints(body, smpl24))
    x = np.concatenate([rotvec.reshape(-1, 72), betas, np.zeros((len(betas), 3))], axis=1)
    joints = joints_of.pose(torch.as_tensor(x).to(body.v_template)).keypoints.cpu().numpy()
    ends = [smpl24.names.index(f"{s}_{e}") for s in ("left", "right") for e in ("foot", "hand")]
    joints = joints[:, ends].astype(float)
    path = np.zeros((len(track), 3))
    for frame in np.flatnonzero(track[1:] == track[:-1]) + 1:
        both = joints[frame - 1 : frame + 1]
        planted = both[..., 1].sum(axis=0).argmin()
        path[frame] = path[frame - 1] + both[0, planted] - both[1, planted]
    path[:, 1] = -joints[..., 1].min(axis=1)
    for t in range(track.max() + 1):
        path[track == t] -= path[track == t].mean(axis=0)
    return Rotation.from_rotvec(rotvec[:, 0]), path


def hide(problem: FitProblem, track: np.ndarray, hidden: Hidden, seed: int) -> FitProblem:
    """The problem of N frames with limbs, and once in a track the person, unseen for a while."""
    rng = np.random.default_rng(seed)
    conf = problem.conf.clone()
    names = problem.keypoint_set.names
    for t in range(track.max() + 1):
        frames = np.flatnonzero(track == t)
        for first in range(0, len(frames), hidden.every):
            limb = _LIMBS[rng.integers(len(_LIMBS))]
            begin = first + rng.integers(hidden.every - hidden.limb)
            rows = torch.as_tensor(frames[begin : begin + hidden.limb])
            for name in limb:
                conf[rows, names.index(name)] = 0
        begin = rng.integers(1, len(frames) - hidden.person)
        conf[frames[begin : begin + hidden.person]] = 0
    return replace(problem, conf=conf)


def as_seen(
    problem: FitProblem, track: np.ndarray, noise: Noise, hidden: Hidden | None, seed: int
) -> FitProblem:
    """Noisy keypoints, and what is hidden; the input is not modified."""
    noisy = add_noise(problem, noise, seed)
    return noisy if hidden is None else hide(noisy, track, hidden, seed + 1)
