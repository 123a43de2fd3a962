"""The lifter: what it is shown, what it says, and what it learns from."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import roma
import torch
from scipy import stats
from scipy.spatial.transform import Rotation

from fitting.body import pose_body
from fitting.problem import FitProblem
from fitting.skeleton import BODY_POINTS, KEYPOINT_SETS, KeypointSet, keypoint_set
from priors.mocap import load_mocap
from regressor.config import TrainingConfig
from regressor.crop_view import look_at_people
from regressor.lift import LiftEstimator
from regressor.lifter import Lifter, LifterNetworkConfig, as_body_points, view_features
from regressor.lifter_losses import (
    lifter_losses,
    normal_nll,
    rotation_error,
    rotation_nll,
)
from regressor.lifter_task import LifterConfig, LifterTask, make_batch
from regressor.synthetic.people import PeopleStream, StreamConfig

SMALL = LifterNetworkConfig(width=32, blocks=1)


@pytest.fixture(scope="module")
def stream(body):
    return PeopleStream(body, load_mocap(), StreamConfig(), seed=4)


@pytest.fixture(scope="module")
def task(body):
    training = TrainingConfig(steps=10, batch_size=64)
    return LifterTask(LifterConfig(training=training, network=SMALL), body)


@pytest.fixture
def lifter():
    """A small one that says something else of everyone."""
    torch.manual_seed(0)
    network = Lifter(SMALL, roma.random_rotmat(24)).eval()
    torch.nn.init.normal_(network.leave.weight, std=0.05)
    return network


def coco_problem(xy, intrinsics, conf=None):
    xy = torch.as_tensor(xy, dtype=torch.float32)
    return FitProblem(
        keypoint_set=keypoint_set("coco17"),
        keypoints_2d=xy,
        conf=torch.ones(xy.shape[:2]) if conf is None else conf,
        intrinsics=torch.as_tensor(intrinsics, dtype=torch.float32).expand(len(xy), 3, 3),
        image_size=torch.tensor([640.0, 480.0]).expand(len(xy), 2),
    )


INTRINSICS = np.array([[700.0, 0, 310], [0, 650, 250], [0, 0, 1]])


def test_the_turned_camera_is_opencvs(rng):
    """Points in space, seen by OpenCV's camera turned as `look_at_people` says."""
    points = rng.uniform([-0.5, -1, 3], [1.5, 1, 4], (17, 3))
    zero = np.zeros(3)
    pixels = cv2.projectPoints(points, zero, zero, INTRINSICS, None)[0][:, 0]
    view = look_at_people(coco_problem(pixels[None], INTRINSICS))
    rvec, _ = cv2.Rodrigues(view.rotation[0].double().numpy())
    turned = cv2.projectPoints(points, rvec, zero, np.eye(3), None)[0][:, 0]
    size = np.ptp(turned, axis=0).max()
    assert view.size[0].item() == pytest.approx(size, rel=1e-4)
    np.testing.assert_allclose(view.keypoints[0], 2 * turned / size, atol=1e-4)
    middle = np.append(view.ray[0].numpy(), 1)
    np.testing.assert_allclose(
        view.rotation[0].numpy() @ middle / np.linalg.norm(middle), [0, 0, 1], atol=1e-6
    )


def test_what_is_not_seen_does_not_matter(lifter, stream):
    problem = stream.people(0, 8).problem
    hidden = replace(
        problem,
        keypoints_2d=torch.where(problem.conf[..., None] > 0, problem.keypoints_2d, torch.nan),
    )
    a, b = lifter.lift(problem), lifter.lift(hidden)
    for name, value in vars(a).items():
        torch.testing.assert_close(value, getattr(b, name), msg=name)


def test_nobody_at_all_and_one_keypoint(lifter):
    xy = np.full((2, 17, 2), 100.0)
    conf = torch.zeros(2, 17)
    conf[1, 3] = 1
    lifted = lifter.lift(coco_problem(xy, INTRINSICS, conf))
    for value in vars(lifted).values():
        assert value.isfinite().all()
    assert (lifted.pelvis[:, 2] > 0).all()


def test_bodies_stand_where_the_turned_cameras_see_them(lifter, stream, body):
    """`lift` is `decode` before the turned camera, turned back."""
    problem = stream.people(1, 8).problem
    view = look_at_people(problem)
    before = lifter.decode(lifter(view_features(view, problem.conf)), view.size)
    lifted = lifter.lift(problem)
    pelvis = (view.rotation @ lifted.pelvis[..., None])[..., 0]
    torch.testing.assert_close(pelvis, before.pelvis, atol=1e-4, rtol=1e-4)
    joints = pose_body(body, lifted.params(body)).joints
    torch.testing.assert_close(joints[:, 0], lifted.pelvis, atol=1e-4, rtol=1e-4)
    gram = lifted.pose_rotmat.mT @ lifted.pose_rotmat
    torch.testing.assert_close(gram, torch.eye(3).expand_as(gram), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", KEYPOINT_SETS)
def test_every_set_is_understood(lifter, name, rng):
    s = keypoint_set(name)
    problem = FitProblem(
        keypoint_set=s,
        keypoints_2d=torch.from_numpy(rng.uniform(0, 400, (3, len(s), 2))).float(),
        conf=torch.from_numpy(rng.uniform(0.1, 1, (3, len(s)))).float(),
        intrinsics=torch.from_numpy(INTRINSICS).float().expand(3, 3, 3),
        image_size=torch.tensor([640.0, 480.0]).expand(3, 2),
    )
    mapped = as_body_points(problem)
    assert lifter.lift(problem).betas.shape == (3, 10)
    for i, point in enumerate(BODY_POINTS.points):
        candidates = [j for j, p in enumerate(s.points) if p == point]
        if not candidates:
            assert (mapped.conf[:, i] == 0).all()
            continue
        for person in range(3):
            best = max(candidates, key=lambda j: problem.conf[person, j].item())
            assert mapped.conf[person, i] == problem.conf[person, best]
            assert torch.equal(mapped.keypoints_2d[person, i], problem.keypoints_2d[person, best])


def test_a_set_without_a_known_point_is_refused_by_name(lifter):
    strange = KeypointSet(name="hooves2", names=("a", "b"), points=("hoof_a", "hoof_b"), limbs=())
    problem = replace(
        coco_problem(np.zeros((1, 17, 2)), INTRINSICS),
        keypoint_set=KEYPOINT_SETS["coco17"],
    )
    problem = FitProblem(
        keypoint_set=strange,
        keypoints_2d=problem.keypoints_2d[:, :2],
        conf=problem.conf[:, :2],
        intrinsics=problem.intrinsics,
        image_size=problem.image_size,
    )
    with pytest.raises(ValueError, match=r"hooves2.*--init mean"):
        lifter.lift(problem)


def test_densities_are_scipys(rng):
    error = rng.normal(size=(5, 3))
    root = np.tril(rng.normal(size=(5, 3, 3)))
    root[:, range(3), range(3)] = rng.uniform(0.5, 3, (5, 3))
    got = rotation_nll(torch.from_numpy(error), torch.from_numpy(root))
    for i in range(5):
        covariance = np.linalg.inv(root[i] @ root[i].T)
        expected = -stats.multivariate_normal(np.zeros(3), covariance).logpdf(error[i])
        assert got[i].item() == pytest.approx(expected - 1.5 * np.log(2 * np.pi), rel=1e-9)
    std = rng.uniform(0.5, 2, (5, 3))
    got = normal_nll(torch.from_numpy(error), torch.from_numpy(std))
    expected = -stats.norm(0, std).logpdf(error) - 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(got, expected, rtol=1e-9)


def test_density_of_keypoints_that_may_be_wrong_is_scipys(lifter, body, stream):
    batch = make_batch(stream.people(2, 16))
    lifted = lifter.decode(lifter(batch["features"]), batch["size"])
    got = lifter_losses(lifted, batch, body)["keypoint_nll"].item()
    std = lifted.keypoint_std.detach().double().numpy()[..., None]
    right = stats.norm(0, std).pdf(batch["keypoint_error"].double().numpy()).prod(axis=2)
    wrong = 1 / (1 + np.exp(-lifted.keypoint_wrong.detach().double().numpy()))
    density = (1 - wrong) * right + wrong
    expected = -np.log(density)[batch["seen"].numpy() > 0].mean()
    assert got == pytest.approx(expected, rel=1e-4)


def test_error_of_a_rotation_is_scipys(rng):
    a, b = (Rotation.random(6, random_state=seed) for seed in (1, 2))
    got = rotation_error(torch.from_numpy(a.as_matrix()), torch.from_numpy(b.as_matrix()))
    np.testing.assert_allclose(got, (a.inv() * b).as_rotvec(), atol=1e-9)


def test_an_estimate_that_is_true_costs_nothing(lifter, body, stream):
    batch = make_batch(stream.people(3, 16))
    lifted = lifter.decode(lifter(batch["features"]), batch["size"])
    true = replace(
        lifted,
        pose_rotmat=batch["pose_rotmat"],
        betas=batch["betas"],
        pelvis=batch["pelvis"],
    )
    losses = lifter_losses(true, batch, body)
    for name in ("rotation", "joints", "betas", "place"):
        assert losses[name].item() == pytest.approx(0, abs=1e-4), name
    for name, loss in lifter_losses(lifted, batch, body).items():
        if not name.endswith("nll"):
            assert loss.item() > 0.01, name


def test_densities_do_not_pull_at_the_estimates(lifter, body, stream):
    batch = make_batch(stream.people(3, 16))
    raw = lifter(batch["features"])
    for value in raw.values():
        value.retain_grad()
    losses = lifter_losses(lifter.decode(raw, batch["size"]), batch, body)
    torch.stack([loss for name, loss in losses.items() if name.endswith("nll")]).sum().backward()
    for name, value in raw.items():
        pulled = value.grad is not None and bool((value.grad != 0).any())
        assert pulled == (name not in ("pose", "betas", "place")), name


def test_learns(task):
    network = task.network
    batch = task.batch(0)
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    first = task.losses(network, batch)["loss"].item()
    for _ in range(30):
        optimiser.zero_grad()
        loss = task.losses(network, batch)["loss"]
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.5 * first


def test_evaluation_counts_in_millimetres_and_shares(task):
    with torch.no_grad():
        metrics = task.evaluate(task.network.eval())
    assert 50 < metrics["pa_mpjpe_mm"] < metrics["mpjpe_mm"] < 1000
    assert 0 <= metrics["within_1_std"] <= metrics["within_2_std"] <= 1


def test_fits_of_another_body_get_no_shape(lifter, body, stream):
    problem = stream.people(5, 4).problem
    for same in (True, False):
        estimate = LiftEstimator(lifter, body, same_body=same)
        known, (params,) = estimate(problem)
        assert bool((params.betas != 0).any()) == same
        assert bool(known.proximal.betas_std.isfinite().all()) == same
        assert (known.keypoint_std[problem.conf > 0] > 0).all()
    assert problem.proximal is None


def test_the_shipped_lifter_is_as_good_as_its_card_says(body):
    """On people that neither training nor its evaluations saw."""
    from regressor.lift import LIFTER_FILE, load_lifter
    from regressor.lifter_losses import joints_of

    people = PeopleStream(
        body, load_mocap(), StreamConfig(split="test", keypoint_sets={"coco17": 1.0}), seed=9
    ).people(0, 256)
    batch = make_batch(people)
    assert LIFTER_FILE.stat().st_size < 20e6
    lifter = load_lifter(body).lifter
    whole = load_lifter(body).lifter.float()  # without rounding the weights to bfloat16 again
    with torch.no_grad():
        found = [n.decode(n(batch["features"]), batch["size"]) for n in (lifter, whole)]
    errors = [(joints_of(f, body) - batch["joints"]).norm(dim=2).mean().item() for f in found]
    assert errors[0] < 0.13  # of cut, swapped and noisy people too
    assert errors[0] == pytest.approx(errors[1], rel=0.01)


def test_nothing_is_trusted_of_someone_unseen(lifter, body, stream):
    problem = stream.people(5, 4).problem
    unseen = replace(problem, conf=problem.conf * torch.tensor([[1.0], [0.0], [1.0], [1.0]]))
    known, (params,) = LiftEstimator(lifter, body, same_body=True)(unseen)
    trusted = (known.proximal.pose_precision != 0).flatten(1).any(dim=1)
    assert trusted.tolist() == [True, False, True, True]
    assert known.proximal.betas_std.isinf().all(dim=1).tolist() == [False, True, False, False]
    assert params.pack(("global_orient", "body_pose", "betas", "transl")).isfinite().all()
