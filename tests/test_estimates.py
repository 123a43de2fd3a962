"""Estimates from elsewhere: read, matched with people, and refined."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

import fitting
from fitting.body import pose_body
from fitting.camera import make_intrinsics, project_points
from fitting.estimates import (
    Estimates,
    estimates_of_params,
    estimates_of_table,
    match_estimates,
    read_estimates,
)
from fitting.files import InputError
from fitting.initial import draw_around
from fitting.keypoints import map_keypoints
from fitting.map_fit import LmConfig, Stage
from fitting.offline import fit_people
from fitting.people import People
from fitting.problem import BodyParams, Status
from fitting.run import make_table
from fitting.skeleton import keypoint_set
from fitting.smplify import AdamConfig
from fitting.table import read_fits, write_fits

SIZE = (640, 480)
NAMES = ("global_orient", "body_pose", "betas", "transl")


def turned(rotvec, std, seed):
    """Rotations (N, 72) with noise, by SciPy."""
    noise = np.random.default_rng(seed).normal(0, std, rotvec.shape).reshape(-1, 3)
    rotations = Rotation.from_rotvec(rotvec.numpy().reshape(-1, 3)) * Rotation.from_rotvec(noise)
    return torch.from_numpy(rotations.as_rotvec().reshape(rotvec.shape)).float()


@pytest.fixture(scope="module")
def truth(body, prior):
    """Bodies of six people, two in each of three pictures."""
    N = 6
    pose = turned(prior.mean.float().repeat(N, 1), 0.3, 1)
    orient = torch.tensor([[torch.pi, 0.0, 0.0]]).repeat(N, 1)
    orient[3] = torch.tensor([0.0, 0.0, torch.pi])  # seen from behind
    generator = torch.Generator().manual_seed(2)
    return BodyParams(
        global_orient=turned(orient, 0.3, 3),
        body_pose=pose,
        betas=torch.randn(N, 10, generator=generator),
        transl=torch.tensor([0.1, 0.1, 4.0]) + torch.randn(N, 3, generator=generator) * 0.3,
    )


@pytest.fixture(scope="module")
def people(body, truth):
    K = make_intrinsics(torch.tensor([SIZE]).float().repeat(len(truth), 1))
    keypoints = map_keypoints(body, keypoint_set("coco17"))
    with torch.no_grad():
        xy, _ = project_points(keypoints(pose_body(body, truth)), K)
    N = len(truth)
    return People(
        keypoint_set="coco17",
        image=np.array([f"sub/{row // 2}.jpg" for row in range(N)]),
        person=np.arange(N) % 2,
        annotation_id=np.arange(N) + 50,
        width=np.full(N, SIZE[0]),
        height=np.full(N, SIZE[1]),
        keypoints_2d=xy.numpy(),
        conf=np.ones((N, 17)),
        focal=np.full(N, np.nan),
    )


@pytest.fixture(scope="module")
def guess(truth):
    """What a regressor might say: 0.15 rad off at each joint about each axis, nothing of where."""
    return replace(
        truth,
        global_orient=turned(truth.global_orient, 0.15, 4),
        body_pose=turned(truth.body_pose, 0.15, 5),
        betas=torch.zeros_like(truth.betas),
        transl=torch.full_like(truth.transl, torch.nan),
    )


def spin_arrays(params, people=None, **changes):
    pose = torch.cat([params.global_orient, params.body_pose], dim=1).double().numpy()
    arrays = {"pose": pose, "betas": params.betas.numpy().copy(), "camera": np.ones((len(pose), 3))}
    if people is not None:
        arrays["imgname"] = np.array([f"images/{n.split('/')[1]}" for n in people.image])
    return arrays | changes


def write_npz(path, arrays):
    np.savez(path, **arrays)
    return path


def refine(people, body, prior, estimates, **options):
    return fit_people(people, body, prior, LmConfig(), estimates=estimates, **options)


def mpjpe(body, params, truth):
    """(N,) metres, relative to the pelvis."""
    nowhere = torch.zeros_like(truth.transl)
    got, expected = (pose_body(body, replace(p, transl=nowhere)).joints for p in (params, truth))
    return ((got - got[:, :1]) - (expected - expected[:, :1])).norm(dim=-1).mean(dim=1)


# --- Reading ---


def test_a_fits_table_gives_its_parameters_back(tmp_path, body, prior, people):
    unseen = replace(people, conf=people.conf * (np.arange(6) != 4)[:, None])
    fit = fit_people(unseen, body, prior, LmConfig())
    table = make_table(unseen, fit, init=fit.init, metadata={"body_sha256": body.sha256})
    write_fits(tmp_path / "fits.parquet", table)
    estimates = read_estimates(tmp_path, body)
    assert estimates.known.tolist() == [row != 4 for row in range(6)]
    for name in NAMES:
        read, fitted = getattr(estimates.params, name), getattr(fit.result.params, name)
        torch.testing.assert_close(read, fitted, atol=0, rtol=0, equal_nan=True)
    assert estimates.has_betas
    other = estimates_of_table(replace(table, metadata={"body_sha256": "another"}), body)
    assert not other.has_betas
    assert (other.params.betas[other.known] == 0).all()


def test_an_npz_of_spin_is_read(tmp_path, body, guess, people):
    arrays = spin_arrays(guess, people)
    arrays["pose"][3], arrays["betas"][3] = np.nan, np.nan
    path = write_npz(tmp_path / "spin.npz", arrays)
    estimates = read_estimates(path, SimpleNamespace(num_vertices=6890))
    assert estimates.known.tolist() == [row != 3 for row in range(6)]
    assert torch.equal(estimates.params.body_pose[0], guess.body_pose[0])
    assert torch.equal(estimates.params.global_orient[5], guess.global_orient[5])
    assert estimates.params.transl.isnan().all()
    assert estimates.person.tolist() == [0, 1] * 3
    assert estimates.has_betas
    arrays = spin_arrays(guess, transl=np.ones((6, 3)), imgname=np.array([b"\xc3\xa9.jpg"] * 6))
    estimates = read_estimates(write_npz(path, arrays), body)
    assert (estimates.params.transl == 1).all()
    assert estimates.image[0] == "é.jpg"
    assert not estimates.has_betas  # SMPL's mean nothing to the bundled body
    arrays = spin_arrays(guess, people)
    arrays["shape"] = arrays.pop("betas")  # as its data sets call them
    estimates = read_estimates(write_npz(path, arrays), SimpleNamespace(num_vertices=6890))
    assert torch.equal(estimates.params.betas, guess.betas)


FAULTS = {
    "no array betas, it holds pose, size": lambda a: {"pose": a["pose"], "size": a["betas"]},
    r"pose must be \(6, 72\) numbers": lambda a: {**a, "pose": a["pose"].reshape(6, 24, 3)},
    r"betas must be \(6, 10\)": lambda a: {**a, "betas": a["betas"][:4]},
    r"pose must be \(0, 72\)": lambda a: {**a, "pose": np.array(1.0)},
    r"imgname must be \(6,\) strings": lambda a: {**a, "imgname": np.arange(6)},
    "cannot be read as .npz": lambda a: {**a, "pose": np.array([None] * 6)},
    "row 2.*NaN in part": lambda a: {**a, "pose": with_value(a["pose"], np.nan)},
    "row 2.*infinity": lambda a: {**a, "betas": with_value(a["betas"], np.inf)},
    "row 2.*too large": lambda a: {**a, "pose": with_value(a["pose"], 170.0)},
    "row 2: ": lambda a: {**a, "transl": with_value(np.zeros((6, 3)), 1e300)},
}


def with_value(array, value):
    array = array.copy()
    array[2, 1] = value
    return array


@pytest.mark.parametrize("message", FAULTS)
def test_faults_of_an_npz_are_named(message, tmp_path, body, guess):
    path = write_npz(tmp_path / "bad.npz", FAULTS[message](spin_arrays(guess)))
    with pytest.raises(InputError, match=message) as caught:
        read_estimates(path, body)
    assert "bad.npz" in str(caught.value)


def test_other_files_are_refused(tmp_path, body):
    with pytest.raises(InputError, match="does not exist"):
        read_estimates(tmp_path / "absent", body)
    (tmp_path / "x.npz").write_text("no archive")
    with pytest.raises(InputError, match=r"x\.npz cannot be read"):
        read_estimates(tmp_path / "x.npz", body)
    (tmp_path / "x.pt").write_text("no table")
    with pytest.raises(InputError, match=r"x\.pt cannot be read as Parquet"):
        read_estimates(tmp_path / "x.pt", body)


# --- Matching ---


def numbered(image, person, annotation_id=None):
    """Estimates whose first beta is their row."""
    N = len(image)
    betas = torch.zeros(N, 10)
    betas[:, 0] = torch.arange(N)
    zeros = torch.zeros(N, 69)
    return Estimates(
        params=BodyParams(
            global_orient=zeros[:, :3], body_pose=zeros, betas=betas, transl=zeros[:, :3]
        ),
        image=np.array(image, dtype=np.str_),
        person=np.array(person),
        focal=torch.full((N,), torch.nan),
        annotation_id=None if annotation_id is None else np.array(annotation_id),
        file="e.npz",
    )


def matched_rows(estimates, people):
    matched = match_estimates(estimates, people)
    assert len(matched) == len(people)
    rows = matched.params.betas[:, 0]
    assert matched.known.tolist() == rows.isfinite().tolist()
    return [int(row) for row in rows.nan_to_num(-1)]


def test_shuffled_rows_find_their_people(rng, people):
    order = rng.permutation(6)[:5]
    shuffled = people.select(order)
    expected = [list(order).index(row) if row in order else -1 for row in range(6)]
    by_id = numbered(shuffled.image, np.zeros(5, int), shuffled.annotation_id)
    assert matched_rows(by_id, people) == expected
    by_person = numbered(shuffled.image, shuffled.person)
    assert matched_rows(by_person, people) == expected
    elsewhere = numbered([f"C:\\x\\{name}" for name in shuffled.image], shuffled.person)
    assert matched_rows(elsewhere, people) == expected


def test_ids_that_only_count_rows_do_not_name_people(people):
    """A picture was added at the front, and detected people are counted anew."""
    detected = replace(people, annotation_id=np.arange(6))
    before = numbered(people.image[2:], people.person[2:], np.arange(4))
    assert matched_rows(before, detected) == [-1, -1, 0, 1, 2, 3]


def test_rows_without_names_are_matched_by_number(people):
    nameless = numbered([""] * 6, range(6))
    assert matched_rows(nameless, people) == list(range(6))
    assert matched_rows(nameless, replace(people, image=np.full(6, ""))) == list(range(6))
    with pytest.raises(InputError, match=r"e\.npz has 4 estimates for 6 people"):
        match_estimates(numbered([""] * 4, range(4)), people)


@pytest.mark.parametrize(
    ("image", "person", "message"),
    [
        (["a.jpg", "b.jpg"], [0, 0], r"none of its 2 rows .* 6 people .*sub/0\.jpg"),
        (["sub/0.jpg", "sub/0.jpg"], [1, 1], "row 1: the same person as in row 0"),
        (["x/0.jpg", "y/0.jpg"], [0, 0], "one name in several folders"),
    ],
)
def test_rows_of_other_people_are_refused(image, person, message, people):
    with pytest.raises(InputError, match=message):
        match_estimates(numbered(image, person), people)


# --- Starts ---


def test_samples_lie_around_the_estimate(guess):
    many = BodyParams(**{name: getattr(guess, name)[[0, 5]].repeat(200, 1) for name in NAMES})
    many.global_orient[7] = torch.nan
    first, *samples = draw_around(many, 3, pose_std=0.1, betas_std=0.5, seed=1)
    assert first is many
    for sample in samples:
        rows = ~sample.betas.isnan().any(dim=1)
        assert rows.sum() == 399
        a, b = (
            Rotation.from_rotvec(p.body_pose[rows].reshape(-1, 3).numpy()) for p in (many, sample)
        )
        apart = (a.inv() * b).as_rotvec()
        np.testing.assert_allclose(apart.std(axis=0), 0.1, rtol=0.03)
        np.testing.assert_allclose(apart.mean(axis=0), 0, atol=0.004)
        change = (sample.betas - many.betas)[rows]
        assert change.std().item() == pytest.approx(0.5, rel=0.05)
    again = draw_around(many, 2, pose_std=0.1, betas_std=0.5, seed=1)[1]
    torch.testing.assert_close(
        again.body_pose, samples[0].body_pose, rtol=0, atol=0, equal_nan=True
    )
    other = draw_around(many, 2, pose_std=0.1, betas_std=0.5, seed=2)[1]
    assert not torch.equal(other.body_pose[0], samples[0].body_pose[0])


# --- Refining ---


def test_a_guess_comes_closer_to_the_truth(body, prior, people, truth, guess):
    estimates = estimates_of_params(guess)
    fit = refine(people, body, prior, estimates)
    before, after = (mpjpe(body, p, truth) for p in (guess, fit.result.params))
    unguided = mpjpe(body, fit_people(people, body, prior, LmConfig()).result.params, truth)

    assert after.mean() < 0.7 * before.mean()
    assert after.mean() < unguided.mean()
    assert fit.result.mean_reprojection_error.max() < 5
    assert fit.init.tolist() == ["given"] * 6


def test_coarse_stages_are_left_out(body, prior, people, guess):
    estimates = estimates_of_params(guess)
    coarse = LmConfig(stages=(Stage(steps=1, blur=100, rigid=True),))
    one, other = (
        fit_people(people, body, prior, config, estimates=estimates).result
        for config in (LmConfig(), coarse)
    )
    assert torch.equal(one.params.body_pose, other.params.body_pose)


def test_the_deviation_says_how_near_fits_stay(body, prior, people, guess):
    def apart(pose_std):
        params = refine(people, body, prior, estimates_of_params(guess), pose_std=pose_std)
        a, b = (
            Rotation.from_rotvec(p.body_pose.reshape(-1, 3).numpy())
            for p in (guess, params.result.params)
        )
        return (a.inv() * b).magnitude().max()

    assert apart(1e-3) < 0.01
    assert apart(1.0) > 0.1
    with pytest.raises(ValueError, match="must be positive, got 0"):
        apart(0)


def test_those_without_an_estimate_start_from_the_mean(body, prior, people, guess):
    """And nobody's fit depends on who else has one."""
    given = torch.tensor([False, True, True, False, True, False])
    all_given = refine(people, body, prior, estimates_of_params(guess)).result
    mean = fit_people(people, body, prior, LmConfig()).result
    for batch_size in (64, 2):
        some = estimates_of_params(guess.where(given))
        fit = refine(people, body, prior, some, batch_size=batch_size)
        assert fit.init.tolist() == ["given" if g else "mean" for g in given]
        for row in range(6):
            expected = all_given if given[row] else mean
            torch.testing.assert_close(
                fit.result.params.body_pose[row], expected.params.body_pose[row], atol=2e-3, rtol=0
            )


def test_more_starts_never_cost_more_and_do_not_depend_on_the_batch(body, prior, people, guess):
    estimates = estimates_of_params(guess)
    one = refine(people, body, prior, estimates).result
    four, split = (
        refine(people, body, prior, estimates, starts=4, batch_size=size).result for size in (6, 4)
    )
    assert (four.cost_final <= one.cost_final * (1 + 1e-4)).all()
    torch.testing.assert_close(four.cost_final, split.cost_final, rtol=1e-3, atol=0)


def test_another_focal_length_moves_people(body, prior, people):
    """`adam` holds the depth that it is given, so what was true for one camera must not stay."""
    fit = fit_people(people, body, prior, LmConfig())
    table = make_table(people, fit, init="mean", metadata={"body_sha256": body.sha256})
    estimates, config = estimates_of_table(table, body), AdamConfig(num_steps=30)
    far = fit_people(people, body, prior, config, estimates=estimates, focal=2400.0)
    ratio = far.result.params.transl[:, 2] / fit.result.params.transl[:, 2]
    assert ratio.min() > 2.5  # 2400 px are three times the diagonal
    same = fit_people(people, body, prior, config, estimates=estimates)
    ratio = same.result.params.transl[:, 2] / fit.result.params.transl[:, 2]
    torch.testing.assert_close(ratio, torch.ones(6), atol=0.02, rtol=0)


def test_shapes_of_another_body_do_not_count(body, prior, people, guess):
    wild = replace(estimates_of_params(guess), has_betas=False)
    assert wild.proximal(0.3).betas_std.isinf().all()
    betas = refine(people, body, prior, wild, starts=2).result.params.betas
    pulled = refine(people, body, prior, estimates_of_params(guess)).result.params.betas
    assert betas.norm() > 1.2 * pulled.norm()  # the guess' betas are zero


def test_people_without_keypoints_stay_without_a_fit(body, prior, people, guess):
    unseen = replace(people, conf=people.conf * (np.arange(6) != 1)[:, None])
    result = refine(unseen, body, prior, estimates_of_params(guess)).result
    assert (result.status == Status.NO_KEYPOINTS).tolist() == [row == 1 for row in range(6)]
    nobody = refine(people.select([]), body, prior, estimates_of_params(guess).select(slice(0)))
    assert len(nobody.result) == 0


def test_fit_takes_estimates_from_python(body, people, truth, guess):
    result = fitting.fit(
        people.keypoints_2d, image_size=SIZE, init=guess, body=body, device="cpu", proximal_std=0.2
    )
    before, after = (mpjpe(body, p, truth) for p in (guess, result.params))
    assert after.mean() < 0.7 * before.mean()
    with pytest.raises(ValueError, match="init has 3 estimates for 6 people"):
        fitting.fit(people.keypoints_2d, image_size=SIZE, init=guess.select(torch.arange(3)))
    with pytest.raises(ValueError, match="starts must be 1 to 18"):
        fitting.fit(people.keypoints_2d, image_size=SIZE, init=guess, starts=0)
    with pytest.raises(ValueError, match=r"body_pose of init must be \(6, 69\)"):
        fitting.fit(
            people.keypoints_2d, image_size=SIZE, init=replace(guess, body_pose=guess.betas)
        )


def test_fit_takes_a_fits_table_from_python(tmp_path, body, prior, people):
    fit = fit_people(people, body, prior, LmConfig())
    table = make_table(people, fit, init="mean", metadata={"body_sha256": body.sha256})
    write_fits(tmp_path / "fits.parquet", table)
    result = fitting.fit(
        people.keypoints_2d, image_size=SIZE, init=read_fits(tmp_path), starts=2, device="cpu"
    )
    assert result.mean_reprojection_error.max() < 5
