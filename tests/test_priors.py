"""Priors against SciPy, finite differences and files that are no priors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import chi2, multivariate_normal

from priors.angles import HINGES, hinge_cost
from priors.gmm import POSE_DIM, MaxMixturePrior, load_pose_prior, save_pose_prior
from priors.gmm_fitting import fit_mixture
from priors.mocap import MocapPoses, load_mocap, load_splits, mirror_rotvec, split_of
from priors.shape import shape_cost


@pytest.fixture(scope="module")
def mixture():
    rng = np.random.default_rng(1)
    factors = rng.normal(0, 0.1, (3, POSE_DIM, POSE_DIM))
    covariances = factors @ factors.swapaxes(1, 2) + 0.05 * np.eye(POSE_DIM)
    return np.array([0.5, 0.3, 0.2]), rng.normal(0, 0.4, (3, POSE_DIM)), covariances


def test_cost_agrees_with_scipy(mixture, rng):
    weights, means, covariances = mixture
    poses = means[rng.integers(0, 3, 40)] + rng.normal(0, 0.3, (40, POSE_DIM))
    densities = np.stack(
        [
            np.log(w) + multivariate_normal(m, c).logpdf(poses)
            for w, m, c in zip(*mixture, strict=True)
        ]
    )
    prior = MaxMixturePrior(weights, means, covariances)
    peak = max(
        np.log(w) + multivariate_normal(m, c).logpdf(m)
        for w, m, c in zip(weights, means, covariances, strict=True)
    )
    got = prior.component_costs(torch.from_numpy(poses))
    np.testing.assert_allclose(got.numpy(), peak - densities.T, rtol=1e-9)
    np.testing.assert_allclose(prior(torch.from_numpy(poses)), peak - densities.max(0), rtol=1e-9)
    assert prior(torch.from_numpy(means)).min() == 0
    assert len(set(densities.argmax(0))) == 3  # every component was the best one somewhere


def test_gradient_agrees_with_finite_differences(mixture, rng):
    poses = torch.from_numpy(rng.normal(0, 0.4, (3, POSE_DIM))).requires_grad_()
    assert torch.autograd.gradcheck(MaxMixturePrior(*mixture), poses)


def test_mean_is_that_of_the_mixture(mixture, rng):
    prior = MaxMixturePrior(*mixture)
    np.testing.assert_allclose(prior.mean, mixture[0] @ mixture[1])


def test_round_trip_in_a_file(mixture, tmp_path):
    save_pose_prior(tmp_path / "prior.npz", *mixture)
    prior = load_pose_prior(tmp_path / "prior.npz", dtype=torch.float64)
    x = torch.zeros(1, POSE_DIM, dtype=torch.float64)
    torch.testing.assert_close(prior(x), MaxMixturePrior(*mixture)(x), rtol=1e-4, atol=0)


def test_bundled_prior_prefers_people_to_noise(rng):
    prior = load_pose_prior()
    assert len(prior.means) == 8
    natural = prior.mean[None]
    bent = natural.clone()
    bent[0, 3 * 3] = -1.5  # a knee bent forwards
    assert prior(natural) < prior(bent)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w, m, c: (w * 2, m, c), "sum to 1"),
        (lambda w, m, c: (w, m[:, :9], c), "needs means"),
        (lambda w, m, c: (w, m * np.nan, c), "NaN"),
        (lambda w, m, c: (w, m, -c), "positive definite"),
    ],
)
def test_what_is_no_mixture_is_refused(change, message, mixture):
    with pytest.raises(ValueError, match=message):
        MaxMixturePrior(*change(*mixture))


def test_a_file_that_is_no_prior_is_named(tmp_path):
    with pytest.raises(ValueError, match="absent"):
        load_pose_prior(tmp_path / "absent.npz")
    (tmp_path / "odd.npz").write_bytes(b"zip?")
    with pytest.raises(ValueError, match=r"odd\.npz: not a pose prior"):
        load_pose_prior(tmp_path / "odd.npz")


def test_hinges_punish_the_wrong_way_only():
    pose = torch.zeros(1, POSE_DIM)
    for i, (column, sign) in enumerate(HINGES.values()):
        broken, natural = pose.clone(), pose.clone()
        broken[0, column], natural[0, column] = sign, -sign
        assert hinge_cost(broken)[0, i] == pytest.approx(np.exp(2))
        assert hinge_cost(natural)[0, i] == pytest.approx(np.exp(-2))
        assert hinge_cost(broken)[0].sum() == pytest.approx(np.exp(2) + 3)


def test_hinges_bend_naturally_on_the_body():
    """The signs on the body itself: a natural bend brings hand and heel where people have them."""
    from fitting.body import load_body
    from fitting.skeleton import joint_index

    body, pose = load_body(), torch.zeros(1, POSE_DIM)
    for column, sign in HINGES.values():
        pose[0, column] = -1.2 * sign
    joints = body(torch.zeros(1, 3), pose, torch.zeros(1, 10)).joints[0]
    for side in ("left", "right"):
        elbow, wrist = (joints[joint_index(f"{side}_{n}")] for n in ("elbow", "wrist"))
        knee, ankle = (joints[joint_index(f"{side}_{n}")] for n in ("knee", "ankle"))
        assert wrist[2] > elbow[2] + 0.1, "forearms bend to the front"
        assert ankle[2] < knee[2] - 0.1, "shins bend to the back"


def test_shape_cost_is_a_chi_square(rng):
    betas = torch.from_numpy(rng.normal(size=(5000, 10)))
    values = np.sort(shape_cost(betas).numpy())
    expected = chi2(10).ppf((np.arange(5000) + 0.5) / 5000)
    assert np.abs(values - expected)[100:-100].max() < 0.6


def test_splits_keep_subjects_apart():
    splits = load_splits()
    assert not set(splits["validation"]) & set(splits["test"])
    assert split_of("cmuexp") == "train"  # may share people with others, so for training only
    assert split_of("013") == "test"


def test_mirroring_a_pose_mirrors_the_body(rng):
    from fitting.body import load_body
    from fitting.skeleton import KEYPOINT_SETS

    body = load_body(dtype=torch.float64)
    rotvec = rng.normal(0, 0.4, (2, 24, 3))
    mirrored = mirror_rotvec(rotvec)
    a, b = (
        body(
            torch.from_numpy(r[:, 0]),
            torch.from_numpy(r[:, 1:].reshape(2, 69)),
            torch.zeros(2, 10).double(),
        )
        for r in (rotvec, mirrored)
    )
    flip = KEYPOINT_SETS["smpl24"].flip
    expected = a.joints[:, flip] * torch.tensor([-1.0, 1, 1])
    assert (b.joints - expected).abs().max() < 1e-6


def make_mocap(rng, subjects=("001", "002"), each=120):
    rotvec = rng.normal(0, 0.3, (len(subjects) * each, 24, 3))
    subject = np.repeat(subjects, each)
    return MocapPoses(
        rotvec=rotvec, subject=subject, action=subject, sequence=np.zeros(len(rotvec), int)
    )


def test_fitting_is_seeded_and_symmetric(rng):
    mocap = make_mocap(rng)
    first, again = (fit_mixture(mocap, num_components=1, seed=3) for _ in range(2))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    mean = first[1].reshape(1, 23, 3)
    full = np.concatenate([np.zeros((1, 1, 3)), mean], axis=1)
    np.testing.assert_allclose(mirror_rotvec(full), full, atol=1e-12)
    rows = np.concatenate([mocap.rotvec, mirror_rotvec(mocap.rotvec)])[:, 1:].reshape(-1, 69)
    expected = np.cov(rows.T, bias=True) + 0.05**2 * np.eye(69)
    np.testing.assert_allclose(first[2][0], expected, atol=1e-9)


def test_a_subject_with_many_poses_does_not_rule(rng):
    mocap = make_mocap(rng, ("001",) * 5 + ("002",), 60)
    mocap.rotvec[mocap.subject == "002"] += 1
    _, mean, _ = fit_mixture(mocap, num_components=1, max_per_subject=60)
    symmetric = [3 * (j - 1) for j in (3, 6, 9, 12, 15)]  # x of the spine survives mirroring
    np.testing.assert_allclose(mean[0, symmetric], 0.5, atol=0.1)


def test_reading_mocap(tmp_path, rng):
    rotvec = rng.normal(size=(5, 24, 3)).astype(np.float32)
    np.savez(
        tmp_path / "sequences.npz", smpl_rotvec=rotvec, seq_start=[3, 0], seq_length=[2, 3],
        seq_subject=["016", "001"], seq_action=["run", ""],
    )  # fmt: skip
    mocap = load_mocap(tmp_path / "sequences.npz")
    np.testing.assert_array_equal(mocap.rotvec, rotvec[[3, 4, 0, 1, 2]])
    assert mocap.subject.tolist() == ["016"] * 2 + ["001"] * 3
    np.testing.assert_array_equal(mocap.of_split("test").rotvec, rotvec[3:])
    np.savez(tmp_path / "amass.npz", poses=rng.normal(size=(7, 156)))
    assert not load_mocap(tmp_path / "amass.npz").rotvec[:, 22:].any()
    np.savez(tmp_path / "odd.npz", other=np.zeros(3))
    with pytest.raises(ValueError, match=r"odd\.npz: expected smpl_rotvec"):
        load_mocap(tmp_path / "odd.npz")
