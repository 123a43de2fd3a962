"""All pictures of a person together: the terms, their normal equations, and fits of sequences."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation, Slerp
from test_views import around

import fitting
from fitting.body import load_body, pose_body
from fitting.camera import make_intrinsics, project_points
from fitting.chains import ChainEnergy, Part, stacked, windows
from fitting.files import write_json
from fitting.initial import MeanStarts
from fitting.keypoints import map_keypoints
from fitting.map_fit import Candidates, LmConfig
from fitting.metrics import acceleration_error, mpjpe
from fitting.offline import make_solver
from fitting.problem import PARAMETERS, BodyParams, FitProblem, Proximal, Status
from fitting.skeleton import keypoint_set
from fitting.table import read_fits
from fitting.temporal import Links, MotionWeights, add_links, joint_std, make_links
from fitting.tracks import Track
from fitting.tridiagonal import covariance_blocks, solve_tridiagonal
from fitting.video import VideoConfig, VideoSolver, choose, first_guess, map_solver, search_seen
from priors.gmm import load_pose_prior

DTYPE = torch.float64  # of the fixtures body and prior
FPS = 30.0
MOTION = MotionWeights()


# --- Normal equations -------------------------------------------------------------------------


def chain_matrices(rng, n, T, D):
    """Positive definite block-tridiagonal matrices, packed and whole (n, T D, T D)."""
    packed, whole = np.zeros((n, T, 2, D, D)), np.zeros((n, T, D, T, D))
    for t in range(T):
        rows = rng.normal(size=(n, D + 2, 2, D))
        last = t == T - 1
        for a in range(1 if last else 2):
            for b in range(1 if last else 2):
                block = np.einsum("nri,nrj->nij", rows[:, :, a], rows[:, :, b])
                whole[:, t + a, :, t + b] += block
    for t in range(T):
        packed[:, t, 0] = whole[:, t, :, t]
        if t + 1 < T:
            packed[:, t, 1] = whole[:, t, :, t + 1]
    return torch.from_numpy(packed), whole.reshape(n, T * D, T * D)


@pytest.mark.parametrize("T", [1, 2, 7])
def test_steps_are_those_of_the_whole_matrix(rng, T):
    packed, whole = chain_matrices(rng, 3, T, 5)
    gradient = rng.normal(size=(3, T, 5))
    damping = np.array([0.0, 0.01, 10.0])
    before = packed.clone()
    step, solved = solve_tridiagonal(torch.from_numpy(gradient), packed, torch.from_numpy(damping))
    assert solved.all()
    together = whole.reshape(3, T, 5, T, 5).sum(axis=3)  # what moves common to all links cost
    diagonal = np.maximum(np.einsum("ntii->nti", together), 0).reshape(3, -1)
    damped = whole + np.einsum("n,ni,ij->nij", damping, diagonal, np.eye(5 * T))
    damped += 1e-6 * np.eye(5 * T)
    expected = np.linalg.solve(damped, -gradient.reshape(3, -1, 1))
    np.testing.assert_allclose(step.reshape(3, -1), expected[..., 0], atol=1e-9)
    assert torch.equal(packed, before), "inputs are never modified"


@pytest.mark.parametrize("T", [1, 2, 7])
def test_covariances_are_those_of_the_whole_inverse(rng, T):
    packed, whole = chain_matrices(rng, 3, T, 5)
    inverse = np.linalg.inv(whole).reshape(3, T, 5, T, 5)
    blocks = covariance_blocks(packed).numpy()
    for t in range(T):
        np.testing.assert_allclose(blocks[:, t], inverse[:, t, :, t], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("fault", [torch.nan, torch.inf, -1.0])
def test_a_chain_that_cannot_be_solved_leaves_others_alone(rng, fault):
    packed, _ = chain_matrices(rng, 3, 4, 5)
    gradient, damping = torch.from_numpy(rng.normal(size=(3, 4, 5))), torch.full((3,), 0.01)
    spoilt = packed.clone()
    spoilt[1] *= fault
    good, other = (solve_tridiagonal(gradient, p, damping.double()) for p in (packed, spoilt))
    assert other[1].tolist() == [True, False, True]
    assert torch.equal(good[0][[0, 2]], other[0][[0, 2]])
    assert (other[0][1] == 0).all()
    assert covariance_blocks(spoilt)[1].isnan().all()


# --- What is expected between neighbours ------------------------------------------------------


def some_links(n=2, T=4):
    seconds = torch.tensor([[0.1, 0.2, 0.1], [0.1, 0.1, 0.1]]).double()
    linked = torch.ones(n, T - 1, dtype=torch.bool)
    linked[1, 2] = False
    return make_links(MOTION, seconds, linked, log_focal_std=0.3)


def some_x(T=4, D=86, seed=0):
    x = 0.5 * torch.randn(2, 1, D, generator=torch.Generator().manual_seed(seed)).double()
    return x + 0.2 * torch.randn(2, T, D, generator=torch.Generator().manual_seed(1)).double()


def pairs_model(x, links):
    n, T, D = x.shape
    gradient, packed = x.new_zeros(n, T, D), x.new_zeros(n, T, 2, D, D)
    return add_links(x, links, gradient, packed).sum(dim=1), gradient, packed


def test_gradient_of_pairs_is_that_of_their_cost():
    (links, _), x = some_links(), some_x()
    _, gradient, _ = pairs_model(x, links)
    for picture in range(4):
        for column in [0, 1, 2, 3, 40, 71, 72, 81, 82, 84, 85]:
            step = torch.zeros_like(x)
            step[:, picture, column] = 1e-6
            ahead, back = (pairs_model(x + s, links)[0] for s in (step, -step))
            expected = (ahead - back) / 2e-6
            got = gradient[:, picture, column]
            torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("moves", [False, True])
def test_hessian_of_pairs_is_that_of_their_cost(moves):
    """Between pictures always; on the diagonal where nobody moves."""
    links, _ = some_links()
    x = some_x() if moves else some_x()[:, :1].expand(-1, 4, -1).contiguous()
    _, _, packed = pairs_model(x, links)

    def gradient(flat, chain):
        one = Links(*(weights[chain : chain + 1] for weights in links))
        return pairs_model(flat.view(1, 4, 86), one)[1].flatten()

    for chain in range(2):
        columns = [0, 1, 2, 3, 40, 71, 72, 81, 82, 84, 85]
        flat = x[chain].flatten()
        wanted = torch.tensor([86 * t + c for t in range(4) for c in columns])
        rows = [
            (gradient(flat + s, chain) - gradient(flat - s, chain))[wanted] / 2e-5
            for s in 1e-5 * torch.eye(len(flat)).double()[wanted]
        ]
        whole = torch.stack(rows).view(4, len(columns), 4, len(columns))
        for t in range(4):
            own, coupling = (block[columns][:, columns] for block in packed[chain, t])
            if not moves:
                torch.testing.assert_close(own, whole[t, :, t], rtol=1e-5, atol=1e-3)
            if t < 3:
                torch.testing.assert_close(coupling, whole[t, :, t + 1], rtol=1e-5, atol=1e-3)


def test_hessian_of_pairs_is_positive_semidefinite_far_apart():
    links, _ = some_links()
    _, _, packed = pairs_model(5 * some_x(), links)
    for chain in packed:
        whole = torch.block_diag(*chain[:, 0])
        for t in range(3):
            here, after = slice(86 * t, 86 * t + 86), slice(86 * t + 86, 86 * t + 172)
            whole[here, after] = chain[t, 1]
            whole[after, here] = chain[t, 1].mT
        lowest = torch.linalg.eigvalsh(whole).amin()
        assert lowest > -1e-9 * whole.diagonal().amax()


def test_pairs_of_a_small_turn_cost_what_a_normal_density_says():
    links, _ = some_links()
    x = torch.zeros(2, 4, 85).double()
    x[:, 1:, 3 * 16] = 0.01  # a shoulder, between the first and the second picture
    cost, _, _ = pairs_model(x, links)
    q = np.exp(-0.1 / MOTION.correlation_time)
    std = MOTION.pose_scale * joint_std()[16].item()
    np.testing.assert_allclose(cost, 0.5 * 0.01**2 * q / (std**2 * (1 - q**2)), rtol=1e-4)


def test_priors_and_pairs_make_the_density_of_the_process():
    """Against the covariance s^2 exp(-|t - t'| / T) of an Ornstein-Uhlenbeck process."""
    motion = MotionWeights(prior_time=MOTION.correlation_time, pose_scale=1.0)
    seconds = torch.tensor([[0.1, 0.4, 0.05]]).double()
    links, shares = make_links(motion, seconds, torch.ones(1, 3, dtype=torch.bool), 1.0)
    std = joint_std()[4].double()
    w = links.joints[0, :, 4]
    precision = torch.diag(shares.changing[0] / std**2)
    precision += torch.diag(torch.cat([w, w[:1] * 0]) + torch.cat([w[:1] * 0, w]))
    precision -= torch.diag(w, 1) + torch.diag(w, -1)
    times = np.array([0, 0.1, 0.5, 0.55])
    apart = np.abs(times[:, None] - times)
    expected = std.item() ** 2 * np.exp(-apart / motion.correlation_time)
    np.testing.assert_allclose(np.linalg.inv(precision), expected, rtol=1e-6, atol=1e-9)


def test_a_picture_alone_has_the_whole_prior():
    _, shares = make_links(MOTION, torch.ones(1, 0), torch.ones(1, 0, dtype=torch.bool), 1.0)
    assert shares.changing.tolist() == shares.lasting.tolist() == [[1.0]]
    _, shares = make_links(MOTION, torch.full((1, 99), 0.1), torch.ones(1, 99) > 0, 1.0)
    assert shares.lasting.sum() == pytest.approx(1, abs=0.01), "one shape, one prior"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MotionWeights(walk=0), "walk must be positive"),
        (lambda: VideoConfig(candidates=0), "at least one candidate"),
        (lambda: VideoConfig(overlap=300), "overlap must be between 0 and window"),
    ],
)
def test_wrong_settings_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# --- Fits of sequences ------------------------------------------------------------------------

SIZE = (640, 480)
FRAMES = 24
LEFT_ARM = ("left_elbow", "left_wrist")


def moving(body, prior, seed=0, frames=FRAMES):
    """Somebody with a raised arm, who goes from pose to pose and to the right; noisily seen."""
    rng = np.random.default_rng(seed)
    keys = frames // 8 + 2
    times, wanted = np.linspace(0, frames, keys), np.arange(frames)
    spread = torch.randn(keys, 69, 1, generator=torch.Generator().manual_seed(seed)).double()
    factor = prior.precision_factor[0].mT.double()
    drawn = torch.linalg.solve_triangular(factor, 0.7 * spread, upper=True)
    poses = (prior.means[0].double() + drawn[..., 0]).view(keys, 23, 3).numpy()
    pose = [Slerp(times, Rotation.from_rotvec(p))(wanted).as_rotvec() for p in poses.swapaxes(0, 1)]
    pose[15][:, 2] += 0.8  # the left shoulder: hidden, an arm would be taken to hang
    heading = Rotation.from_euler("y", 0.03 * wanted[:, None])
    like = body.v_template
    arrays = {
        "global_orient": (Rotation.from_rotvec([np.pi, 0, 0]) * heading).as_rotvec(),
        "body_pose": np.stack(pose, axis=1).reshape(frames, 69),
        "betas": np.tile(rng.normal(size=10), (frames, 1)),
        "transl": [-0.8, 0.1, 5] + 0.07 * wanted[:, None] * [1, 0, 0.3],
    }
    true = BodyParams(**{name: torch.as_tensor(a).to(like) for name, a in arrays.items()})
    s = keypoint_set("coco17")
    image_size = torch.tensor([SIZE]).to(like).expand(frames, 2)
    K = make_intrinsics(image_size)
    with torch.no_grad():
        pixels, _ = project_points(map_keypoints(body, s)(pose_body(body, true)), K)
    noise = torch.as_tensor(rng.normal(0, 3, pixels.shape)).to(like)
    problem = FitProblem(
        keypoint_set=s,
        keypoints_2d=pixels + noise,
        conf=like.new_ones(frames, 17),
        intrinsics=K,
        image_size=image_size,
    )
    return problem, true


def one_track(frames=FRAMES, first=0):
    return Track(first + np.arange(frames), np.arange(frames) / FPS)


def fit_alone(body, prior, problem, config=None):
    solver = make_solver(body, prior, problem.keypoint_set, config or LmConfig())
    return solver(problem, MeanStarts(body, prior, problem.keypoint_set)(problem))


def fit_together(body, prior, problem, tracks, config=None, lm=None):
    config = config or VideoConfig()
    solver = make_solver(body, prior, problem.keypoint_set, lm or LmConfig())
    starts = MeanStarts(body, prior, problem.keypoint_set)(problem)
    known, candidates = search_seen(solver, problem, starts, config)
    return VideoSolver(map_solver(solver), config)(problem, candidates, known, tracks)


def joints_of(body, params):
    with torch.no_grad():
        return pose_body(body, params).joints.numpy()


@pytest.fixture(scope="module")
def hidden_arm(body, prior):
    """An arm is hidden for ten pictures and nobody is seen for three; both fits, and the truth."""
    problem, true = moving(body, prior)
    conf = problem.conf.clone()
    for name in LEFT_ARM:
        conf[6:16, problem.keypoint_set.names.index(name)] = 0
    conf[19:22] = 0
    problem = replace(problem, conf=conf)
    before = conf.clone()
    together = fit_together(body, prior, problem, [one_track()])
    assert torch.equal(problem.conf, before), "inputs are never modified"
    return problem, true, fit_alone(body, prior, problem), together


def test_a_hidden_arm_is_where_its_motion_takes_it(body, hidden_arm):
    _, true, alone, together = hidden_arm
    wrist, hidden = keypoint_set("smpl24").names.index("left_wrist"), slice(6, 16)
    truth = joints_of(body, true)

    def error(result):
        joints = joints_of(body, result.params)
        apart = joints - joints[:, :1] - (truth - truth[:, :1])
        return np.linalg.norm(apart[hidden, wrist], axis=1).mean()

    assert error(together) < 0.8 * error(alone)


def test_a_sequence_is_nearer_and_smoother_than_its_pictures_alone(body, hidden_arm):
    _, true, alone, together = hidden_arm
    truth, rows = joints_of(body, true), slice(0, 19)

    def errors(result):
        joints = joints_of(body, result.params)
        jitter = acceleration_error(joints[rows], truth[rows], fps=FPS).mean()
        return mpjpe(joints[rows], truth[rows]).mean(), jitter

    (error, jitter), (error_alone, jitter_alone) = errors(together), errors(alone)
    assert error < 0.9 * error_alone
    assert jitter < 0.3 * jitter_alone


def test_pictures_in_which_nothing_is_seen_are_fitted_from_their_neighbours(body, hidden_arm):
    _, true, alone, together = hidden_arm
    assert alone.params.transl[19:22].isnan().all()
    assert (together.status <= Status.MAX_STEPS).all()
    assert together.mean_reprojection_error[19:22].isnan().all()
    apart = mpjpe(joints_of(body, together.params), joints_of(body, true))
    assert apart[19:22].max() < 200
    std = together.joint_std_mm.mean(dim=1)
    assert std[20] > 1.1 * std[:19].max(), "it knows that it did not see them"


def test_a_track_has_one_shape(hidden_arm):
    *_, together = hidden_arm
    betas = together.params.betas
    assert (betas - betas[0]).abs().max() < 0.02
    assert betas.abs().max() > 0.1


def test_costs_of_pictures_add_up_and_fall(hidden_arm):
    *_, together = hidden_arm
    assert together.cost_final.isfinite().all()
    assert together.cost_final.sum() <= together.cost_initial.sum()
    assert len(together.num_steps[:19].unique()) > 0
    assert (together.num_steps > 0).all()


def test_gradient_of_a_chain_is_that_of_its_cost(body, prior):
    problem, true = moving(body, prior, frames=4)
    solver = map_solver(make_solver(body, prior, problem.keypoint_set, LmConfig()))
    parts = [Part(one_track(3)), Part(Track(np.array([3]), np.zeros(1)))]
    (chains,) = stacked(parts, torch.device("cpu"))
    energy = ChainEnergy(solver, problem, torch.full((4,), 5.0).double(), chains, MOTION)
    x = true.pack(PARAMETERS)
    x = x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).double()
    x, rows = x[chains.rows], torch.tensor([1, 0])
    x = x[rows]
    model = energy.linearise(x, rows, blur=2.0)
    for picture in range(x.shape[1]):
        for column in [0, 2, 3, 40, 55, 72, 81, 83, 84]:
            step = torch.zeros_like(x)
            step[:, picture, column] = 1e-6
            step[energy.frozen[rows]] = 0
            ahead, back = (energy.linearise(x + s, rows, blur=2.0).cost for s in (step, -step))
            expected = (ahead - back) / 2e-6
            got = model.gradient[:, picture, column]
            torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-4)
    costs = energy.picture_costs(x[[1, 0]])
    whole = energy.linearise(x[[1, 0]], torch.arange(2)).cost
    torch.testing.assert_close(costs.masked_fill(chains.frozen, 0).sum(dim=1), whole)


def test_estimates_of_one_shape_count_once(body, prior):
    problem, true = moving(body, prior, frames=5)
    precision = torch.zeros(1, 24, 3, 3).double()
    estimate = Proximal(
        params=true, pose_precision=precision, betas_std=torch.full((1, 10), 0.5).double()
    )
    solver = map_solver(make_solver(body, prior, problem.keypoint_set, LmConfig()))
    (chains,) = stacked([Part(one_track(5))], torch.device("cpu"))
    x = true.pack(PARAMETERS)[chains.rows]
    diagonals = []
    for seen in (problem, replace(problem, proximal=estimate)):
        energy = ChainEnergy(solver, seen, torch.full((5,), 5.0).double(), chains, MOTION)
        hessian = energy.linearise(x, torch.arange(1)).hessian[:, :5, 0]
        diagonals.append(hessian.diagonal(dim1=2, dim2=3)[..., 72:82])
    each = diagonals[1] - diagonals[0]
    torch.testing.assert_close(each, torch.full_like(each, 0.5**-2 / 5))


def test_a_picture_alone_is_fitted_as_ever(body, prior):
    problem, _ = moving(body, prior, frames=4)
    tracks = [Track(np.array([row]), np.zeros(1)) for row in range(4)]
    alone, together = (
        fit_alone(body, prior, problem),
        fit_together(body, prior, problem, tracks),
    )
    # either may stop when a step gains less than a ten-thousandth of the cost
    torch.testing.assert_close(together.cost_final, alone.cost_final, rtol=2e-3, atol=0)
    for name in PARAMETERS:
        one, other = (getattr(result.params, name) for result in (alone, together))
        assert (one - other).abs().max() < 0.1, name
    torch.testing.assert_close(together.joint_std, alone.joint_std, rtol=0.1, atol=0.01)


@pytest.mark.parametrize("frames", [1, 5, 12])
def test_a_hostile_track_does_not_change_a_bit_of_others(frames):
    body, prior = load_body(), load_pose_prior()
    mine, _ = moving(body, prior, frames=12)
    other, _ = moving(body, prior, frames=frames, seed=1)
    wild = replace(other, keypoints_2d=1e30 * torch.ones_like(other.keypoints_2d))
    tracks = [one_track(12), one_track(frames, first=12)]
    results = [
        fit_together(body, prior, FitProblem.concatenate([mine, second], 0.02), tracks)
        for second in (other, wild)
    ]
    one, same = (result.params.pack(PARAMETERS)[:12] for result in results)
    assert torch.equal(one, same)
    for result in results:
        finite = result.params.pack(PARAMETERS).isfinite().all(dim=1)
        assert (finite | (result.status == Status.DIVERGED)).all()


def test_a_track_in_which_nothing_is_seen_is_not_fitted(body, prior):
    problem, _ = moving(body, prior, frames=6)
    problem = replace(problem, conf=problem.conf.clone())
    problem.conf[3:] = 0
    result = fit_together(body, prior, problem, [one_track(3), one_track(3, first=3)])
    assert (result.status[3:] == Status.NO_KEYPOINTS).all()
    assert result.params.transl[3:].isnan().all()
    assert result.params.transl[:3].isfinite().all()


def test_a_picture_that_cannot_be_fitted_alone_is_bridged(body, prior):
    problem, true = moving(body, prior, frames=6)
    solver = map_solver(make_solver(body, prior, problem.keypoint_set, LmConfig()))
    starts = MeanStarts(body, prior, problem.keypoint_set)(problem)
    known, candidates = search_seen(solver, problem, starts, VideoConfig())
    candidates.x[:, [2, 5]] = torch.nan
    candidates.depth[[2, 5]] = 1e9
    tracks = [one_track(5), Track(np.array([5]), np.zeros(1))]
    result = VideoSolver(solver, VideoConfig())(problem, candidates, known, tracks)
    assert (result.status[:5] <= Status.MAX_STEPS).all()
    apart = mpjpe(joints_of(body, result.params)[:5], joints_of(body, true)[:5])
    assert apart[2] < 1.5 * apart.mean()
    assert result.status[5] == Status.DIVERGED
    assert result.params.transl[5].isnan().all()


def test_windows_meet(body, prior):
    """A long track in windows is the track at once, to a small part of the noise."""
    problem, _ = moving(body, prior)
    whole = fit_together(body, prior, problem, [one_track()])
    config = VideoConfig(window=14, overlap=6)
    parts = fit_together(body, prior, problem, [one_track()], config)
    joints = [joints_of(body, result.params) for result in (whole, parts)]
    assert mpjpe(*joints).max() < 30
    steps = np.linalg.norm(np.diff(joints[1], axis=0), axis=2).mean(axis=1)
    assert steps.max() < 0.2, "no jump where they meet"


def test_windows_cover_tracks_of_any_length():
    for length in (1, 7, 8, 9, 13, 14, 15, 20, 40):
        rounds = list(windows([one_track(length)], size=8, overlap=3))
        first = [parts[0].track.rows[0] for parts in rounds]
        last = [parts[0].track.rows[-1] for parts in rounds]
        assert last[-1] == length - 1
        assert [parts[0].tied for parts in rounds] == [i > 0 for i in range(len(rounds))]
        for before, after in zip(last, first[1:], strict=False):
            assert after == before - 3, "the picture before the overlap"


def test_the_cheapest_way_through_candidates():
    """Alone the second picture's first candidate is cheaper; after its neighbours it is not."""
    near, far = torch.zeros(85).double(), torch.zeros(85).double()
    far[3 * 16 : 3 * 17] = 2.0
    x = torch.stack([torch.stack([near, far, near]), torch.stack([far, near, far])])
    cost = torch.tensor([[1.0, 1.0, 1.0], [9.0, 2.0, 9.0]]).double()
    candidates = Candidates(x, cost, torch.ones(3), torch.ones(3))
    (chains,) = stacked([Part(one_track(3))], torch.device("cpu"))
    choice = choose(candidates, chains.rows, chains, VideoConfig())
    assert choice[0, :3].tolist() == [0, 1, 0]
    loose = VideoConfig(alone_std=100.0)
    assert choose(candidates, chains.rows, chains, loose)[0, :3].tolist() == [0, 0, 0]


def test_pictures_between_begin_on_the_way():
    turn = torch.zeros(2, 85).double()
    turn[0, :3] = torch.tensor([torch.pi - 0.1, 0, 0])
    turn[1, :3] = torch.tensor([-torch.pi + 0.1, 0, 0])  # 0.2 further, across the jump
    turn[1, 82] = 3.0
    turn[1, 72] = 2.0
    candidates = Candidates(turn[None], torch.zeros(1, 2), torch.ones(2), torch.ones(2))
    track = Track(np.arange(5), np.array([0, 0.1, 0.2, 0.4, 0.9]))
    x = first_guess(candidates, torch.tensor([0, 3]), [track], 5, VideoConfig())
    np.testing.assert_allclose(x[:, 82], [0, 0.75, 1.5, 3, 3])
    np.testing.assert_allclose(x[:, 72], np.ones(5), err_msg="one shape")
    angles = Rotation.from_rotvec(x[:, :3].numpy()).as_euler("xyz")[:, 0] % (2 * np.pi)
    np.testing.assert_allclose(angles, np.pi + np.array([-0.1, -0.05, 0, 0.1, 0.1]))


def test_focal_lengths_of_a_track_agree(body, prior):
    problem, _ = moving(body, prior, frames=6)
    lm = LmConfig(solve_focal=True)
    result = fit_together(body, prior, problem, [one_track(6)], lm=lm)
    focal = result.intrinsics[:, 0, 0]
    assert not torch.equal(focal, problem.intrinsics[:, 0, 0])
    assert focal.max() / focal.min() < 1.02


def test_a_second_camera_shows_the_depth_of_a_sequence(body, prior):
    problem, true = moving(body, prior, frames=8)
    both = replace(problem, views=(around(body, problem, true, 80.0),))
    errors = []
    for seen in (problem, both):
        result = fit_together(body, prior, seen, [one_track(8)])
        errors.append(mpjpe(joints_of(body, result.params), joints_of(body, true)).mean())
    assert errors[1] < 0.7 * errors[0]


# --- From Python and from the command line ----------------------------------------------------


def test_fit_takes_tracks(body, prior):
    problem, _ = moving(body, prior, frames=10)
    conf = problem.conf.clone()
    conf[4] = 0
    order = np.random.default_rng(3).permutation(20)
    both = np.tile(problem.keypoints_2d.numpy(), (2, 1, 1)) + np.array([0, 0])
    track = np.repeat([4, 9], 10)
    result = fitting.fit(
        both, np.tile(conf, (2, 1)), image_size=SIZE, track=track, fps=FPS, device="cpu"
    )
    assert result.params.transl.isfinite().all()
    torch.testing.assert_close(result.params.transl[:10], result.params.transl[10:])
    interleaved = np.argsort(order % 10 + 0.01 * (order // 10), kind="stable")
    mixed = order[interleaved]  # rows of each track still in order of time
    again = fitting.fit(
        both[mixed], np.tile(conf, (2, 1))[mixed], image_size=SIZE, track=track[mixed], fps=FPS,
        device="cpu",
    )  # fmt: skip
    torch.testing.assert_close(again.params.transl, result.params.transl[mixed], atol=2e-3, rtol=0)


def test_estimates_of_some_pictures_are_refined_together(body, prior):
    problem, true = moving(body, prior, frames=8)
    known = torch.arange(8) != 3
    result = fitting.fit(
        problem.keypoints_2d, image_size=SIZE, track=np.zeros(8), fps=FPS, device="cpu",
        init=true.where(known),
    )  # fmt: skip
    joints = joints_of(body.float(), result.params)
    body.double()
    assert mpjpe(joints, joints_of(body, true)).max() < 60


def test_problems_with_and_without_estimates_are_put_together(body, prior):
    problem, true = moving(body, prior, frames=3)
    precision = (4 * torch.eye(3).double()).expand(1, 24, 3, 3)
    proximal = Proximal(params=true, pose_precision=precision, betas_std=torch.ones(1, 10).double())
    informed = replace(problem, proximal=proximal, keypoint_std=torch.ones(3, 17).double())
    both = FitProblem.concatenate([problem, informed], 0.02)
    assert (both.proximal.pose_precision[:3] == 0).all()
    assert (both.proximal.betas_std[:3] == torch.inf).all()
    assert torch.equal(both.proximal.pose_precision[3:], precision.expand(3, -1, -1, -1))
    torch.testing.assert_close(both.keypoint_std[:3, 5], 0.02 * problem.person_size)
    assert (both.keypoint_std[3:] == 1).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fps": 0}, "fps must be a positive number"),
        ({"solver": "adam"}, "use the solver lm for videos"),
        ({"track": np.zeros(3)}, "track must be"),
    ],
)
def test_wrong_arguments_are_named(change, message):
    arguments = {"image_size": SIZE, "track": np.zeros(2), "device": "cpu", **change}
    with pytest.raises(ValueError, match=message):
        fitting.fit(np.ones((2, 17, 2)), **arguments)


@pytest.fixture(scope="module")
def files(body, prior, tmp_path_factory):
    """A clip of two people in COCO format, the same as `.npz` with tracks, and empty pictures."""
    folder = tmp_path_factory.mktemp("clip")
    problem, _ = moving(body, prior, frames=9)
    one = problem.keypoints_2d.numpy()
    xy = np.stack([one, one[:, :, ::1] - [200, 0]], axis=1)
    xy[4:] = xy[4:, ::-1]  # the order within pictures says nothing
    images = [
        {"id": i, "file_name": f"c_{i:02}.png", "width": SIZE[0], "height": SIZE[1]}
        for i in range(9)
    ]
    annotations = [
        {
            "id": 2 * i + p,
            "image_id": i,
            "category_id": 1,
            "num_keypoints": 17,
            "keypoints": np.c_[xy[i, p], np.full(17, 2)].ravel().tolist(),
        }
        for i in range(9)
        for p in range(2)
    ]
    categories = [{"id": 1, "name": "person"}]
    document = {"images": images, "annotations": annotations, "categories": categories}
    write_json(folder / "clip.json", document)
    arrays = {"keypoints_2d": one, "conf": problem.conf.clone().numpy(), "keypoint_set": "coco17"}
    arrays["conf"][3] = 0
    size = {name: np.full(9, value) for name, value in zip(("width", "height"), SIZE, strict=True)}
    np.savez(folder / "clip.npz", **arrays, **size, track=np.full(9, 12))
    np.savez(folder / "nameless.npz", **arrays, **size)
    return folder


def test_people_of_a_clip_are_linked_and_fitted_together(files, fit_cli, tmp_path):
    options = ["--video", "--fps", FPS, "--init", "mean", "-o", tmp_path / "out"]
    code, said, err = fit_cli("fit", files / "clip.json", *options)
    assert code == 0, err
    assert "18 of 18 people fitted" in said
    table = read_fits(tmp_path / "out")
    track = table.column_array("track").reshape(9, 2)
    assert set(track.ravel()) == {0, 1}
    assert (track[:4] == track[0]).all()
    assert (track[4:] == track[0, ::-1]).all()
    betas = table.column_array("betas")[track.ravel() == 0]
    assert np.ptp(betas, axis=0).max() < 0.02
    record = json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))
    assert (record["command"]["video"], record["command"]["fps"]) == (True, FPS)
    assert record["command"]["starts"] == 4


def test_pictures_without_keypoints_have_a_fit_in_a_track(files, fit_cli, tmp_path):
    code, said, err = fit_cli("fit", files / "clip.npz", "--video", "-o", tmp_path / "out")
    assert code == 0, err
    assert "9 of 9 people fitted" in said
    table = read_fits(tmp_path / "out")
    assert table.has_parameters.all()
    assert np.isnan(table.column_array("reprojection_error_px")).tolist() == [
        row == 3 for row in range(9)
    ]
    assert (table.column_array("track") == 12).all()
    code, said, _ = fit_cli("fit", files / "clip.npz", "-o", tmp_path / "alone", "--no-report")
    assert "8 of 9 people fitted" in said


@pytest.mark.parametrize(
    ("file", "options", "message"),
    [
        ("clip.json", ["--video", "--fps", "0"], "fps must be a positive number"),
        ("clip.json", ["--fps", "25"], "add --video"),
        ("clip.json", ["--video", "--solver", "adam"], "--solver adam fits each picture alone"),
        ("nameless.npz", ["--video"], "row 0 names no picture"),
    ],
)
def test_wrong_options_are_named(file, options, message, files, fit_cli, tmp_path):
    code, _, err = fit_cli("fit", files / file, *options, "-o", tmp_path / "out")
    assert code == 2
    assert message in err
