"""Levenberg-Marquardt on textbook problems, and the posterior that it minimises."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation
from scipy.stats import norm

from fitting.body import load_body, pose_body
from fitting.camera import make_intrinsics, project_points
from fitting.initial import MeanStarts
from fitting.keypoint_body import KeypointBody
from fitting.keypoints import map_keypoints
from fitting.lm import Linearised, LmOptions, minimize_lm
from fitting.map_energy import MapEnergy, MapWeights, add_log_depth
from fitting.map_fit import LmConfig, Stage
from fitting.offline import make_solver
from fitting.problem import PARAMETERS, BodyParams, FitProblem, Proximal, Status
from fitting.skeleton import keypoint_set
from fitting.smplify import AdamConfig
from priors.gmm import load_pose_prior

PATIENT = LmOptions(max_steps=100, cost_tolerance=1e-14)


def rosenbrock(x, rows):
    """Residuals 10 (x2 - x1^2) and 1 - x1 (Nocedal and Wright, eq. 2.22)."""
    r = torch.stack([10 * (x[:, 1] - x[:, 0] ** 2), 1 - x[:, 0]], dim=1)
    zero, one = torch.zeros_like(x[:, 0]), torch.ones_like(x[:, 0])
    J = torch.stack([torch.stack([-20 * x[:, 0], 10 * one], 1), torch.stack([-one, zero], 1)], 1)
    return Linearised(0.5 * r.square().sum(1), (J.mT @ r[..., None])[..., 0], J.mT @ J)


def test_solves_rosenbrock_from_the_textbook_start():
    start = torch.tensor([[-1.2, 1.0], [0.0, 0.0], [3.0, -4.0]], dtype=torch.float64)
    before = start.clone()
    solution = minimize_lm(rosenbrock, start, PATIENT)
    assert (solution.x - 1).abs().max() < 1e-6
    assert solution.converged.all()
    assert torch.equal(start, before)


def curve(seed, batch=4):
    """Fits of a exp(b t) + c to noisy points, each row its own."""
    rng = np.random.default_rng(seed)
    t = np.linspace(0, 1, 12)
    truth = rng.uniform([1, -4, 0], [3, -2, 2], (batch, 3))
    y = truth[:, :1] * np.exp(truth[:, 1:2] * t) + truth[:, 2:] + rng.normal(0, 0.05, (batch, 12))
    T, Y = torch.from_numpy(t), torch.from_numpy(y)

    def linearise(x, rows):
        a, b, c = (v[:, None] for v in x.unbind(1))
        e = (b * T).exp()
        r = a * e + c - Y[rows]
        J = torch.stack([e, a * T * e, torch.ones_like(e)], dim=2)
        return Linearised(0.5 * r.square().sum(1), (J.mT @ r[..., None])[..., 0], J.mT @ J)

    def residuals(x, row):
        return x[0] * np.exp(x[1] * t) + x[2] - y[row]

    return linearise, residuals


def test_agrees_with_scipys_levenberg_marquardt():
    linearise, residuals = curve(2)
    start = torch.tensor([[2.0, -0.5, 1.0]], dtype=torch.float64).repeat(4, 1)
    solution = minimize_lm(linearise, start, PATIENT)
    for row in range(4):
        public = least_squares(residuals, start[row].numpy(), method="lm", args=(row,), xtol=1e-14)
        assert solution.cost_final[row].item() == pytest.approx(public.cost, rel=1e-8)


@pytest.mark.parametrize("fault", ["nan", "inf", "indefinite", "huge"])
def test_a_bad_problem_never_changes_its_neighbours(fault):
    linearise, _ = curve(4)
    start = torch.tensor([[2.0, -0.5, 1.0]], dtype=torch.float64).repeat(4, 1)

    def spoilt(x, rows):
        model, bad = linearise(x, rows), rows == 2
        change = {
            "nan": lambda m: Linearised(*(p * torch.nan for p in m)),
            "inf": lambda m: Linearised(m.cost, m.gradient * torch.inf, m.hessian),
            "indefinite": lambda m: Linearised(m.cost, m.gradient, -m.hessian),
            "huge": lambda m: Linearised(*(p * 1e200 for p in m)),
        }[fault](model)
        return change.where(bad, model)

    good, other = minimize_lm(linearise, start, PATIENT), minimize_lm(spoilt, start, PATIENT)
    kept = torch.tensor([0, 1, 3])
    assert torch.equal(good.x[kept], other.x[kept])
    assert other.x.isfinite().all()


def test_costs_never_rise_and_steps_are_counted():
    linearise, _ = curve(5)
    start = torch.tensor([[2.0, -0.5, 1.0]], dtype=torch.float64).repeat(4, 1)
    previous = linearise(start, torch.arange(4)).cost
    for max_steps in (1, 2, 4, 8):
        solution = minimize_lm(linearise, start, LmOptions(max_steps=max_steps))
        assert (solution.cost_final <= previous).all()
        assert (solution.num_steps <= max_steps).all()
        previous = solution.cost_final


# --- The posterior ----------------------------------------------------------------------------


DTYPE = torch.float64  # of the fixtures body and prior


def people(body, prior, batch=3, seed=0, name="coco17"):
    """Problems with poses drawn from the prior's first component, and their truth."""
    generator = torch.Generator().manual_seed(seed)
    s = keypoint_set(name)
    params = BodyParams(
        global_orient=torch.tensor([[torch.pi, 0.0, 0.0]]).repeat(batch, 1).double(),
        body_pose=prior.means[0]
        + torch.linalg.solve_triangular(
            prior.precision_factor[0].mT,
            torch.randn(batch, 69, 1, generator=generator).double(),
            upper=True,
        )[..., 0],
        betas=torch.randn(batch, 10, generator=generator).double(),
        transl=torch.tensor([[0.2, 0.1, 5.0]]).repeat(batch, 1).double(),
    )
    size = torch.tensor([[640.0, 480.0]]).repeat(batch, 1).double()
    K = make_intrinsics(size)
    pixels, _ = project_points(map_keypoints(body, s)(pose_body(body, params)), K)
    conf = torch.rand(batch, len(s), generator=generator).double()
    problem = FitProblem(
        keypoint_set=s, keypoints_2d=pixels, conf=conf, intrinsics=K, image_size=size
    )
    return problem, params


def fit(body, prior, problem, config=None):
    """From the usual starts."""
    starts = MeanStarts(body, prior, problem.keypoint_set)(problem)
    config = LmConfig() if config is None else config
    return make_solver(body, prior, problem.keypoint_set, config)(problem, starts)


def energy_of(body, prior, problem):
    keypoint_body = KeypointBody(body, map_keypoints(body, problem.keypoint_set))
    depth = torch.linspace(2.0, 5.0, len(problem)).double()
    return MapEnergy(keypoint_body, prior, problem, MapWeights(), depth)


def test_gradient_is_that_of_the_cost(body, prior):
    problem, params = people(body, prior)
    deviation = 1 + 20 * torch.rand(problem.conf.shape).double()
    energy = energy_of(body, prior, replace(problem, keypoint_std=deviation))
    rows = torch.arange(3)
    x = params.pack(PARAMETERS)
    x = x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).double()
    for blur in (1.0, 3.0):
        model = energy.linearise(x, rows, blur=blur)
        for column in [0, 1, 2, 3, 12, 40, 55, 58, 72, 80, 82, 83, 84]:
            step = torch.zeros_like(x)
            step[:, column] = 1e-6
            ahead, back = (energy.linearise(x + s, rows, blur=blur).cost for s in (step, -step))
            expected = (ahead - back) / 2e-6
            torch.testing.assert_close(model.gradient[:, column], expected, rtol=1e-5, atol=1e-4)


def test_log_depth_is_normal():
    depth = torch.tensor([0.5, 3.0, 4.0, 7.0, 7.0, 7.0, -1.0]).double()
    expected = torch.tensor([4.0, 4.0, 4.0, 4.0, -1.0, torch.nan, 4.0]).double()
    gradient, hessian = torch.zeros(2, 7).double()
    cost = add_log_depth(depth, expected, 0.5, gradient, hessian)
    known = slice(0, 4)
    log_density = norm(np.log(4.0), 0.5).logpdf(np.log(depth[known].numpy()))
    np.testing.assert_allclose(cost[known], norm(0, 0.5).logpdf(0) - log_density, atol=1e-12)
    step = 1e-6
    ahead, back = (
        add_log_depth(depth + s, expected, 0.5, gradient.clone(), hessian.clone())
        for s in (step, -step)
    )
    torch.testing.assert_close(gradient, (ahead - back) / (2 * step), rtol=1e-6, atol=1e-6)
    assert (cost[4:6] == 0).all() and cost[6] > cost[0]
    torch.testing.assert_close(hessian[known], (0.5 * depth[known]) ** -2.0)


def test_people_of_few_keypoints_stay_where_they_look_to_be(body, prior):
    """A face seen large must not draw the camera into the body."""
    problem, _ = people(body, prior, batch=8)
    for seen in (1, 2, 3):
        conf = torch.zeros_like(problem.conf)
        conf[:, :seen] = 1
        few = replace(problem, conf=conf)
        began = MeanStarts(body, prior, few.keypoint_set)(few)[0].transl[:, 2]
        ended = fit(body, prior, few).params.transl[:, 2]
        assert ((ended / began).log().abs() < 1).all()


def test_gradient_and_cost_of_an_estimate(body, prior):
    """The proximal term alone, against finite differences and against SciPy's angles."""
    problem, params = people(body, prior)
    g = torch.Generator().manual_seed(2)
    x = params.pack(PARAMETERS)
    estimate = params.unpack(x + 0.2 * torch.randn(x.shape, generator=g).double(), PARAMETERS)
    roots = torch.randn(3, 24, 3, 3, generator=g).double()
    proximal = Proximal(
        params=estimate,
        pose_precision=roots @ roots.mT,
        betas_std=torch.full((1, 10), 0.5).double(),
    )
    known = energy_of(body, prior, replace(problem, proximal=proximal))
    unknown, rows = energy_of(body, prior, problem), torch.tensor([2, 0, 1])

    def term(x):
        with_it, without = (energy.linearise(x, rows) for energy in (known, unknown))
        return Linearised(*(a - b for a, b in zip(with_it, without, strict=True)))

    x = x[rows]
    model = term(x)
    for column in [0, 1, 2, 3, 30, 57, 71, 72, 81, 84]:
        step = torch.zeros_like(x)
        step[:, column] = 1e-6
        expected = (term(x + step).cost - term(x - step).cost) / 2e-6
        torch.testing.assert_close(model.gradient[:, column], expected, rtol=1e-5, atol=1e-5)
    assert (torch.linalg.eigvalsh(model.hessian) > -1e-6).all()
    for row, cost in zip(rows.tolist(), model.cost.tolist(), strict=True):
        pair = [
            Rotation.from_rotvec(p.pack(("global_orient", "body_pose"))[row].view(24, 3).numpy())
            for p in (estimate, params)
        ]
        q = (pair[0].inv() * pair[1]).as_quat()[:, :3]
        apart = (estimate.betas - params.betas)[row].numpy() / 0.5
        chords = 2 * np.einsum("ji,jik,jk->j", q, proximal.pose_precision[row].numpy(), q)
        assert cost == pytest.approx(chords.sum() + 0.5 * (apart**2).sum(), rel=1e-6)


def test_cost_is_the_documented_one(body, prior):
    """Written out once more in NumPy."""
    problem, params = people(body, prior, 1)
    x = params.pack(PARAMETERS)
    x[:, -3:] += 0.1
    x[:, :3] += torch.tensor([0.1, -0.2, 0.3])
    got = energy_of(body, prior, problem).linearise(x, torch.tensor([0])).cost.item()
    moved = params.unpack(x, PARAMETERS)
    pixels, _ = project_points(
        map_keypoints(body, problem.keypoint_set)(pose_body(body, moved)), problem.intrinsics
    )
    seen = problem.keypoints_2d[0].numpy()
    s = (((pixels[0].numpy() - seen) / (0.02 * np.ptp(seen, axis=0).max())) ** 2).sum(1)
    pose = moved.body_pose[0].numpy()
    hinges = np.exp(2 * pose[[52, 55, 9, 12]] * [1, -1, -1, -1]).sum()
    up = Rotation.from_rotvec(moved.global_orient[0].numpy()).apply([0, 1, 0])
    expected = (
        0.5 * (problem.conf[0].numpy() * s / (1 + s / 16)).sum()
        + 0.2 * prior(moved.body_pose).item()
        + hinges
        + 2 * (1 + up[1])
        + 0.5 * (np.log(moved.transl[0, 2].item() / 2.0) / 0.5) ** 2
        + 0.5 * (moved.betas**2).sum().item()
    )
    assert got == pytest.approx(expected, rel=1e-9)


def test_hessian_is_positive_definite_with_the_priors(body, prior):
    problem, params = people(body, prior)
    model = energy_of(body, prior, problem).linearise(params.pack(PARAMETERS), torch.arange(3))
    torch.testing.assert_close(model.hessian, model.hessian.mT)
    assert (torch.linalg.eigvalsh(model.hessian) > 0).all()


def test_gradient_and_hessian_by_the_focal_length(body, prior):
    problem, params = people(body, prior)
    energy, rows = energy_of(body, prior, problem), torch.arange(3)
    x = torch.cat([params.pack(PARAMETERS), torch.full((3, 1), 0.1).double()], dim=1)
    model = energy.linearise(x, rows)
    assert model.hessian.shape == (3, 86, 86)
    step = torch.zeros_like(x)
    step[:, 85] = 1e-6
    ahead, back = (energy.linearise(x + s, rows) for s in (step, -step))
    torch.testing.assert_close(
        model.gradient[:, 85], (ahead.cost - back.cost) / 2e-6, rtol=1e-5, atol=1e-4
    )
    assert (torch.linalg.eigvalsh(model.hessian) > 0).all()


def test_a_focal_length_moves_towards_the_truth_close_up(body, prior):
    """Where perspective shows it, 1.3 m away; farther off, depth and shape explain as much."""
    problem, true = people(body, prior, 2)
    true = replace(true, transl=torch.tensor([[0.0, 0.1, 1.3]]).double().repeat(2, 1))
    points = map_keypoints(body, problem.keypoint_set)(pose_body(body, true))
    pixels, _ = project_points(points, problem.intrinsics)
    wrong = problem.intrinsics.clone()
    wrong.diagonal(dim1=1, dim2=2)[:, :2] *= 1.25
    problem = replace(
        problem, keypoints_2d=pixels, conf=torch.ones_like(problem.conf), intrinsics=wrong
    )
    weights = MapWeights(noise=2e-3, outlier=1e3)
    results = []
    for solve_focal in (False, True):
        config = LmConfig(stages=(Stage(steps=50),), solve_focal=solve_focal, weights=weights)
        solver = make_solver(body, prior, problem.keypoint_set, config)
        results.append(solver(problem, [true]))
    fixed, solved = results
    assert torch.equal(fixed.intrinsics, wrong)
    assert (solved.cost_final < fixed.cost_final).all()
    focal = solved.intrinsics[:, 0, 0]
    assert (focal / 800 - 1).abs().max() < 0.1
    assert (wrong[:, 0, 0] == 1000).all(), "inputs are never modified"


def test_joint_std_is_that_of_the_inverse_normal_matrix(body, prior):
    problem, params = people(body, prior, 2)
    result = fit(body, prior, problem)
    energy = energy_of(body, prior, problem)
    x = result.params.pack(PARAMETERS)
    hessian = energy.linearise(x, torch.arange(2)).hessian
    hessian.diagonal(dim1=1, dim2=2)[:, :3] += 3 / torch.pi**2
    covariance = torch.linalg.inv(hessian)

    def joints(row):
        at = pose_body(body, params.unpack(row[None], PARAMETERS)).joints[0]
        return at - at[0]

    for row in range(2):
        J = torch.func.jacfwd(joints)(x[row]).flatten(0, 1)
        expected = (J @ covariance[row] @ J.mT).diagonal().sqrt().unflatten(0, (24, 3))
        torch.testing.assert_close(result.joint_std[row], expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(result.joint_std_mm[:, 0], torch.zeros(2).double())


def test_fits_are_closer_to_the_truth_than_smplifys(body, prior):
    problem, true = people(body, prior, 4)
    problem = replace(problem, conf=torch.ones_like(problem.conf))
    ours, theirs = fit(body, prior, problem), fit(body, prior, problem, AdamConfig())
    joints = pose_body(body, true).joints

    def error(result):
        got = pose_body(body, result.params).joints
        return ((got - got[:, :1]) - (joints - joints[:, :1])).norm(dim=-1).mean()

    assert error(ours) < 0.85 * error(theirs)
    assert set(ours.status.tolist()) <= {Status.CONVERGED, Status.MAX_STEPS}


def test_people_without_keypoints_and_single_keypoints(body, prior):
    problem, _ = people(body, prior, 3)
    problem.conf[0] = 0
    problem.conf[1, 1:] = 0
    problem.conf[1, 0] = 1
    result = fit(body, prior, problem)
    assert result.status[0] == Status.NO_KEYPOINTS
    assert result.params.transl[1:].isfinite().all()
    empty = problem.select(torch.tensor([], dtype=torch.long))
    assert len(fit(body, prior, empty)) == 0


@pytest.mark.parametrize("batch", [3, 70])
def test_bad_neighbours_do_not_change_a_bit_of_a_fit(batch):
    body, prior = load_body(), load_pose_prior()
    problem, _ = people(body.double(), prior.double(), batch)
    body, prior = body.float(), prior.float()
    problem = replace(
        problem,
        **{
            name: getattr(problem, name).float()
            for name in ("keypoints_2d", "conf", "intrinsics", "image_size")
        },
    )
    wild = replace(problem, keypoints_2d=problem.keypoints_2d.clone(), conf=problem.conf.clone())
    wild.keypoints_2d[1] = 1e6 * torch.rand(17, 2, generator=torch.Generator().manual_seed(5))
    wild.keypoints_2d[2] = 1e30
    wild.conf[-2, 1:] = 0
    one, other = (fit(body, prior, p) for p in (problem, wild))
    same = [row for row in range(batch) if row not in (1, 2, batch - 2)]
    for field in ("body_pose", "global_orient", "betas", "transl"):
        assert torch.equal(getattr(one.params, field)[same], getattr(other.params, field)[same])
    alone = fit(body, prior, problem.select(torch.tensor([0])))
    torch.testing.assert_close(
        alone.params.body_pose[0], one.params.body_pose[0], atol=1e-3, rtol=0
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LmOptions(max_steps=0), "at least 1"),
        (lambda: MapWeights(noise=0), "noise must be positive"),
        (lambda: LmConfig(stages=()), "at least one stage"),
    ],
)
def test_wrong_settings_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
