"""The adversarial prior: its networks, whose gradients go where, and that it knows real poses."""

from __future__ import annotations

import numpy as np
import pytest
import roma
import torch
from scipy.spatial.transform import Rotation
from scipy.stats import rankdata

from priors.mocap import load_mocap, mirror_rotvec
from regressor.adversarial import (
    AdversarialConfig,
    PoseDiscriminator,
    RealPeople,
    adversarial_losses,
)
from regressor.heads import ImageEstimate


@pytest.fixture(scope="module")
def mocap():
    return load_mocap()


@pytest.fixture
def discriminator():
    torch.manual_seed(0)
    return PoseDiscriminator()


def random_people(size, seed=0):
    """Rotations of no person's (B, 24, 3, 3), and shapes."""
    pose = Rotation.random(24 * size, random_state=seed).as_matrix().reshape(size, 24, 3, 3)
    betas = np.random.default_rng(seed).normal(0, 3, (size, 10))
    return torch.from_numpy(pose).float(), torch.from_numpy(betas).float()


def estimate_of(pose, betas):
    return ImageEstimate(pose, betas, torch.zeros(len(betas), 3))


# --- The networks ----------------------------------------------------------------------------


def test_numbers_of_weights_are_hmrs(discriminator):
    """9 -> 32 -> 32 once for all joints, 32 -> 1 for each of 23, 736 -> 1024 -> 1024 -> 1 for
    all, 10 -> 10 -> 5 -> 1 for the shape; each with biases."""
    embedding = 9 * 32 + 32 + 32 * 32 + 32
    joints = 23 * (32 + 1)
    together = 736 * 1024 + 1024 + 1024 * 1024 + 1024 + 1024 + 1
    shape = 10 * 10 + 10 + 10 * 5 + 5 + 5 + 1
    found = sum(p.numel() for p in discriminator.parameters())
    assert found == embedding + joints + together + shape


def test_each_discriminator_looks_at_its_own(discriminator):
    """Joint j's at joint j, the 24th at all joints, the last at the shape; none at the root."""
    pose, betas = random_people(1)
    inputs = pose.requires_grad_(), betas.requires_grad_()
    for i in range(25):
        by_pose, by_betas = torch.autograd.grad(
            discriminator(*inputs)[0, i], inputs, materialize_grads=True
        )
        looked_at = torch.nonzero(by_pose[0].abs().sum(dim=(1, 2)))[:, 0].tolist()
        assert looked_at == ([i + 1] if i < 23 else list(range(1, 24)) if i == 23 else [])
        assert bool(by_betas.any()) == (i == 24)


def test_joints_share_their_embedding(discriminator):
    """With the same last layer, one rotation gets one judgement, whichever joint's it is."""
    with torch.no_grad():
        discriminator.joint_weight.copy_(discriminator.joint_weight[:1].expand(23, -1))
    rotation, betas = torch.from_numpy(Rotation.random(random_state=1).as_matrix()).float(), None
    betas = torch.zeros(1, 10)
    judged = discriminator(rotation.expand(1, 23, 3, 3), betas)[0, :23]
    torch.testing.assert_close(judged, judged[:1].expand(23))
    assert (judged[0] != discriminator(rotation.mT.expand(1, 23, 3, 3), betas)[0, 0]).all()


def test_one_joint_by_hand(discriminator):
    pose, betas = random_people(2)
    W1, b1, W2, b2 = (p.detach().numpy() for p in discriminator.embed.parameters())
    hidden = np.maximum(W1 @ pose[1, 5].numpy().ravel() + b1, 0)
    hidden = np.maximum(W2 @ hidden + b2, 0)
    expected = discriminator.joint_weight[4].detach().numpy() @ hidden
    assert discriminator(pose, betas)[1, 4].item() == pytest.approx(expected, rel=1e-4)


def test_the_root_may_be_left_out(discriminator):
    pose, betas = random_people(3)
    assert discriminator(pose, betas).shape == (3, 25)
    assert torch.equal(discriminator(pose, betas), discriminator(pose[:, 1:], betas))
    with pytest.raises(ValueError, match=r"\(B, 23, 3, 3\).*got \(3, 22, 3, 3\)"):
        discriminator(pose[:, 2:], betas)


# --- Losses ----------------------------------------------------------------------------------


class Saying(PoseDiscriminator):
    """The first beta, of everything."""

    def forward(self, pose_rotmat, betas):
        return betas[:, :1].expand(-1, 25) + 0 * self.joint_bias.sum()


def test_least_squares(mocap):
    """Of people judged a, b and real ones judged r: 25 means of (a - 1)^2, (r - 1)^2 + a^2."""
    fake = torch.tensor([0.3, -0.5, 7.0])
    pose = torch.eye(3).expand(3, 24, 3, 3)
    betas = torch.zeros(3, 10).index_fill(1, torch.tensor([0]), 1.0) * fake[:, None]
    real = torch.full((4, 10), 0.8)
    losses = adversarial_losses(
        Saying(),
        estimate_of(pose, betas),
        torch.eye(3).expand(4, 23, 3, 3),
        real,
        valid=torch.tensor([True, True, False]),
    )
    encoder = 25 * (0.7**2 + 1.5**2) / 2
    discriminator = 25 * (0.2**2 + (0.3**2 + 0.5**2) / 2)
    assert losses["adversarial_encoder"].item() == pytest.approx(encoder)
    assert losses["adversarial_discriminator"].item() == pytest.approx(discriminator)


@pytest.mark.parametrize("side", ["adversarial_encoder", "adversarial_discriminator"])
def test_each_side_learns_from_its_own_loss(discriminator, mocap, side):
    pose, betas = random_people(4)
    estimate = estimate_of(pose.requires_grad_(), betas.requires_grad_())
    losses = adversarial_losses(discriminator, estimate, *RealPeople(mocap, seed=0).draw(0, 4))
    losses[side].backward()
    weights = [p.grad for p in discriminator.parameters()]
    if side == "adversarial_encoder":
        assert all(g is None for g in weights)
        assert pose.grad[:, 1:].any()
        assert betas.grad.any()
    else:
        assert all(g is not None and g.any() for g in weights)
        assert pose.grad is None
        assert betas.grad is None


def test_the_encoders_gradient_is_the_finite_difference(discriminator, mocap):
    """In double precision: along random directions, through the weights as constants."""
    discriminator = discriminator.double()
    pose, betas = (x.double() for x in random_people(3))
    real = [x.double() for x in RealPeople(mocap, seed=0).draw(0, 3)]

    def loss(p, b):
        judged = discriminator(p, b)
        return (judged - 1).square().sum(dim=1).mean()

    pose.requires_grad_()
    betas.requires_grad_()
    found = adversarial_losses(discriminator, ImageEstimate(pose, betas, betas[:, :3]), *real)
    slopes = torch.autograd.grad(found["adversarial_encoder"], (pose, betas))
    g = torch.Generator().manual_seed(0)
    ways = [torch.randn(x.shape, generator=g, dtype=torch.float64) for x in (pose, betas)]
    with torch.no_grad():
        ends = [
            loss(*(x + h * w for x, w in zip((pose, betas), ways, strict=True)))
            for h in (1e-6, -1e-6)
        ]
    slope = sum((s * w).sum() for s, w in zip(slopes, ways, strict=True))
    assert slope.item() == pytest.approx((ends[0] - ends[1]).item() / 2e-6, rel=1e-5)


def test_people_who_do_not_count_may_be_anything(discriminator, mocap):
    real = RealPeople(mocap, seed=0).draw(0, 4)
    valid = torch.tensor([True, False, True])
    results = []
    for rubbish in (0.0, torch.nan):
        pose, betas = random_people(3)
        pose[1], betas[1] = rubbish, rubbish
        pose.requires_grad_()
        discriminator.zero_grad()
        losses = adversarial_losses(discriminator, estimate_of(pose, betas), *real, valid)
        sum(losses.values()).backward()
        results.append([*losses.values(), pose.grad, discriminator.joint_weight.grad.clone()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    pose, betas = random_people(3)
    losses = adversarial_losses(
        discriminator, estimate_of(pose, betas), *real, torch.zeros(3, dtype=torch.bool)
    )
    assert losses["adversarial_encoder"] == 0


# --- Real people -----------------------------------------------------------------------------


def test_draws_are_numbered_and_of_training_subjects(mocap):
    people = RealPeople(mocap, seed=3)
    pose, betas = people.draw(5, 64)
    again, _ = RealPeople(mocap, seed=3).draw(5, 64)
    assert torch.equal(pose, again)
    assert not torch.equal(pose, people.draw(6, 64)[0])
    assert not torch.equal(pose, RealPeople(mocap, seed=4).draw(5, 64)[0])
    assert pose.shape == (64, 23, 3, 3)
    assert betas.shape == (64, 10)
    train = mocap.of_split("train").rotvec.astype(np.float32)
    both = np.concatenate([train, mirror_rotvec(train)])[:, 1:]
    for row in roma.rotmat_to_rotvec(pose[:8]).numpy():
        assert np.abs(both - row).max(axis=(1, 2)).min() < 1e-3


def test_recordings_count_with_the_root_of_their_length(mocap):
    people = RealPeople(mocap, seed=0)
    train = mocap.of_split("train")
    _, of, length = np.unique(train.sequence, return_inverse=True, return_counts=True)
    until = np.concatenate([[0.0], people._until])
    weight = np.bincount(of, np.diff(until))
    np.testing.assert_allclose(weight, length**0.5 / (length**0.5).sum(), rtol=1e-6)


def test_a_split_without_poses_is_refused(mocap):
    with pytest.raises(ValueError, match="no poses of the split 'nobody'"):
        RealPeople(mocap, seed=0, split="nobody")


# --- Learning --------------------------------------------------------------------------------


def ranked_right(real, fake):
    """Chance that a real person is judged higher than another: the area under the ROC curve."""
    ranks = rankdata(np.concatenate([real, fake]))[: len(real)]
    return (ranks.sum() - len(real) * (len(real) + 1) / 2) / (len(real) * len(fake))


@pytest.fixture(scope="module")
def trained(mocap):
    """Discriminators that saw people in mocap's poses, and the same with every joint turned."""
    torch.manual_seed(0)
    network = PoseDiscriminator()
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    people, others = RealPeople(mocap, seed=0), RealPeople(mocap, seed=1)
    for number in range(40):
        fake = turned(*others.draw(number, 32), seed=number)
        losses = adversarial_losses(network, estimate_of(*fake), *people.draw(number, 32))
        optimizer.zero_grad()
        losses["adversarial_discriminator"].backward()
        optimizer.step()
    return network


def turned(pose, betas, seed, angle=0.6):
    """Real people whose joints are turned by some radians about each axis, and too large shapes."""
    g = torch.Generator().manual_seed(seed)
    turns = roma.rotvec_to_rotmat(angle * torch.randn(*pose.shape[:2], 3, generator=g))
    return pose @ turns, 4 * betas


def test_trained_discriminators_know_people_they_never_saw(trained, mocap):
    """Of validation subjects; joints apart, all together, and shapes."""
    unseen = RealPeople(mocap, seed=5, split="validation")
    with torch.no_grad():
        real = trained(*unseen.draw(0, 256)).numpy()
        fake = trained(*turned(*unseen.draw(1, 256), seed=9)).numpy()
    assert ranked_right(real[:, 23], fake[:, 23]) > 0.98
    assert ranked_right(real[:, :23].mean(axis=1), fake[:, :23].mean(axis=1)) > 0.98
    # 181 weights at the pace of a million: by now far from done, and far from chance
    assert ranked_right(real[:, 24], fake[:, 24]) > 0.65


def test_estimates_are_drawn_towards_real_poses(trained, mocap, prior):
    """Poses that only the encoder's loss moves become likelier by a prior that it never saw."""
    pose, betas = turned(*RealPeople(mocap, seed=5, split="validation").draw(2, 8), seed=3)
    rotvec = roma.rotmat_to_rotvec(pose).requires_grad_()
    real = RealPeople(mocap, seed=0).draw(0, 1)
    optimizer = torch.optim.Adam([rotvec], lr=0.04)
    costs = []
    for _ in range(40):
        estimate = estimate_of(roma.rotvec_to_rotmat(rotvec), betas)
        loss = adversarial_losses(trained, estimate, *real)["adversarial_encoder"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        costs.append(prior(rotvec.detach().flatten(1)).mean().item())
    assert costs[-1] < 0.4 * costs[0]


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="encoder must be a weight of 0 or more, got -1"):
        AdversarialConfig(encoder=-1)
    with pytest.raises(ValueError, match="discriminator must be a weight above 0, got 0"):
        AdversarialConfig(discriminator=0)
