"""SMPLify as published: its energy against the published formulas, its fits against the truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fitting.camera import make_intrinsics, project_points
from fitting.initial import MeanStarts
from fitting.keypoints import map_keypoints
from fitting.offline import make_solver
from fitting.problem import BodyParams, FitProblem, Status
from fitting.skeleton import keypoint_set
from fitting.smplify import AdamConfig, LbfgsConfig, _Energy
from fitting.solver import LbfgsOptions

QUICK = LbfgsConfig(options=LbfgsOptions(max_steps=15))


def standing(prior, batch=2, seed=0, away=()):
    """People near the mean pose, 4 to 6 m away; those in `away` show their back."""
    generator = torch.Generator().manual_seed(seed)
    orient = torch.tensor([[torch.pi, 0.0, 0.0]]).repeat(batch, 1)
    orient[list(away)] = torch.tensor([0.0, 0.0, torch.pi])
    noise = 0.15 * torch.randn(batch, 69, generator=generator)
    return BodyParams(
        global_orient=orient,
        body_pose=prior.mean + noise,
        betas=torch.randn(batch, 10, generator=generator),
        transl=torch.tensor([[0.2, 0.1, 5.0]]).repeat(batch, 1),
    )


def posed(body, params):
    return body(params.global_orient, params.body_pose, params.betas, params.transl)


def fit(body, prior, problem, config, starts=None):
    """From the usual starts, or those given."""
    if starts is None:
        starts = MeanStarts(body, prior, problem.keypoint_set)(problem)
    return make_solver(body, prior, problem.keypoint_set, config)(problem, starts)


def problem_of(body, params, name="coco17"):
    s = keypoint_set(name)
    size = torch.tensor([[640.0, 480.0]]).repeat(len(params), 1)
    intrinsics = make_intrinsics(size)
    points = map_keypoints(body, s)(posed(body, params))
    return FitProblem(
        keypoint_set=s,
        keypoints_2d=project_points(points, intrinsics)[0],
        conf=torch.ones(len(params), len(s)),
        intrinsics=intrinsics,
        image_size=size,
    )


def error_mm(body, got, true):
    a, b = posed(body, got).joints, posed(body, true).joints
    return ((a - a[:, :1]) - (b - b[:, :1])).norm(dim=-1).mean(1) * 1000


def test_energy_is_spins(body, prior):
    """The terms written out once more, in NumPy, from SPIN's losses.py."""
    params = standing(prior, 1)
    problem = problem_of(body, params)
    shifted = replace(params, transl=params.transl + torch.tensor([0.1, 0.05, 0.3]))
    conf = torch.linspace(0.3, 1, 17)[None]
    config = AdamConfig()
    energy = _Energy(
        body, map_keypoints(body, problem.keypoint_set), prior, replace(problem, conf=conf), config
    )
    got = energy.body_cost(config.weights, shifted, torch.tensor([0]))

    points = map_keypoints(body, problem.keypoint_set)(posed(body, shifted))
    pixels = project_points(points, problem.intrinsics)[0]
    seen = problem.keypoints_2d[0].numpy()
    side = 1.2 * np.ptp(seen, axis=0).max()
    x2 = ((pixels[0].numpy() - seen) * 224 / side) ** 2
    robust = (100**2 * x2 / (100**2 + x2)).sum(-1)
    weight = conf[0].numpy() ** 2
    weight[[11, 12]] = 0  # hips of detectors are left out
    pose = params.body_pose[0].numpy()
    angles = np.exp(pose[[55 - 3, 58 - 3, 12 - 3, 15 - 3]] * [1, -1, -1, -1]) ** 2
    expected = (
        (weight * robust).sum()
        + 4.78**2 * prior(params.body_pose).item()
        + 15.2**2 * angles.sum()
        + 5**2 * (params.betas**2).sum().item()
    )
    assert got.item() == pytest.approx(expected, rel=1e-4)
    torso = [5, 6, 11, 12]
    camera = energy.camera_cost(params.transl[:, 2], shifted, torch.tensor([0]))
    assert camera.item() == pytest.approx(x2[torso].sum() + 100**2 * 0.3**2, rel=1e-3)


def test_smplifyx_stages_are_the_published_ones():
    stages = LbfgsConfig().stages
    assert [round(s.pose_prior**0.5, 2) for s in stages] == [404, 404, 57.4, 4.78]
    assert [round(s.shape_prior**0.5, 2) for s in stages] == [100, 50, 10, 5]
    assert [round((s.hinge_prior / s.pose_prior) ** 0.5, 2) for s in stages] == [3.17] * 4


def test_adam_fits_front_and_back(body, prior):
    true = standing(prior, 3, away=[1])
    problem = problem_of(body, true)
    result = fit(body, prior, problem, AdamConfig())
    assert (result.mean_reprojection_error < 0.05 * problem.person_size).all()
    assert (error_mm(body, result.params, true) < 120).all()
    forward = (
        posed(body, result.params).joints[:, 10, 2] - posed(body, result.params).joints[:, 7, 2]
    )
    assert (forward < 0).tolist() == [True, False, True], "toes point to the camera, or away"
    assert (result.num_steps == 200).all()


def test_lbfgs_reaches_a_lower_cost_with_more_steps(body, prior):
    true = standing(prior, 2)
    problem = problem_of(body, true)
    starts = MeanStarts(body, prior, problem.keypoint_set)(problem)[:1]
    few = fit(body, prior, problem, QUICK, starts)
    more = fit(body, prior, problem, LbfgsConfig(options=LbfgsOptions(max_steps=40)), starts)
    assert (more.cost_final <= few.cost_final).all()
    assert (more.mean_reprojection_error < 0.02 * problem.person_size).all()


@pytest.mark.parametrize("config", [AdamConfig(num_steps=5), QUICK])
def test_people_without_keypoints_keep_their_row(config, body, prior):
    true = standing(prior, 3)
    problem = problem_of(body, true)
    problem.conf[1] = 0
    before = problem.keypoints_2d.clone(), problem.conf.clone()
    result = fit(body, prior, problem, config)
    assert result.status.tolist()[1] == Status.NO_KEYPOINTS
    assert result.params.transl[1].isnan().all()
    assert result.params.transl[[0, 2]].isfinite().all()
    assert torch.equal(before[0], problem.keypoints_2d)
    assert torch.equal(before[1], problem.conf), "inputs are never modified"


def test_one_keypoint_is_enough_to_stay_finite(body, prior):
    problem = problem_of(body, standing(prior, 2))
    problem.conf[0, 1:] = 0
    problem.conf[1, :11] = 0
    problem.conf[1, 13:] = 0  # only the two hips, which the second stage does not trust
    result = fit(body, prior, problem, AdamConfig(num_steps=20))
    assert result.params.transl.isfinite().all()
    assert result.mean_reprojection_error.isfinite().all()


def test_empty_batch(body, prior):
    problem = problem_of(body, standing(prior, 2)).select(torch.tensor([], dtype=torch.long))
    result = fit(body, prior, problem, AdamConfig(num_steps=2))
    assert len(result) == 0


def test_same_input_gives_the_same_bits(body, prior):
    problem = problem_of(body, standing(prior, 2))
    starts = MeanStarts(body, prior, problem.keypoint_set)(problem)
    first, again = (fit(body, prior, problem, AdamConfig(num_steps=10), starts) for _ in range(2))
    assert torch.equal(first.params.body_pose, again.params.body_pose)
    assert torch.equal(first.cost_final, again.cost_final)


def test_wrong_shapes_are_named(body, prior):
    problem = problem_of(body, standing(prior, 2))
    with pytest.raises(ValueError, match=r"keypoints_2d must be \(2, 17, 2\)"):
        replace(problem, keypoints_2d=problem.keypoints_2d[:, :9])
    with pytest.raises(ValueError, match="num_steps must be at least 1"):
        AdamConfig(num_steps=0)
