"""Fits in augmented frames: against the augmentation's own maths, projections and round trips."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import roma
import torch
from stored import random_fits

from fitting.body import forward_kinematics
from fitting.camera import project_points
from fitting.skeleton import SMPL_JOINTS, flip_permutation, keypoint_set
from priors.mocap import load_mocap
from regressor.augmentation import (
    AugmentationConfig,
    choose_crops,
    draw_augmentations,
    move_cameras,
    move_points,
    picture_matrices,
    swap_sides,
    turn_poses,
)
from regressor.store.fits import Origin
from regressor.store.frames import turn_fits

B = 8


class SymmetricBody:
    """A body whose shapes are their own mirror images, as turning assumes; joints are enough."""

    def __init__(self, body):
        self.body, self.sides = body, flip_permutation(SMPL_JOINTS)

    def rest_joints(self, betas):
        joints = self.body.rest_joints(betas)
        return (joints + joints[:, self.sides] * torch.tensor([-1.0, 1.0, 1.0])) / 2

    def joints(self, params):
        """(B, 24, 3) metres, camera frame."""
        rotvec = params.pack(("global_orient", "body_pose")).unflatten(1, (24, 3))
        rest = self.rest_joints(params.betas)
        _, joints = forward_kinematics(roma.rotvec_to_rotmat(rotvec), rest)
        return joints + params.transl[:, None]


@pytest.fixture
def symmetric(body):
    return SymmetricBody(body)


@pytest.fixture
def drawn(rng):
    """Every combination of turned or not and mirrored or not; all scaled and shifted."""
    drawn = draw_augmentations(AugmentationConfig(unrotated=0, shift=0.1), B, rng)
    angle = np.where(np.arange(B) % 4 < 2, drawn.angle, 0)
    return replace(drawn, angle=angle, flip=np.arange(B) % 2 == 1)


@pytest.fixture
def fits(rng):
    poses = load_mocap().rotvec[:: len(load_mocap()) // B][:B].reshape(B, 72)
    betas, transl = rng.normal(size=(B, 10)), rng.uniform([-1, -1, 3], [1, 1, 6], (B, 3))
    return random_fits(rng, B, params=np.concatenate([poses, betas, transl], axis=1))


def test_projections_are_those_of_the_moved_picture(rng, fits, drawn, symmetric):
    """The fit's keypoints moved with the picture are the turned fit's in the turned camera."""
    K = np.tile(np.array([[500.0, 0, 140], [0, 500, 120], [0, 0, 1]]), (B, 1, 1))
    crop = choose_crops(rng.uniform(50, 150, (B, 3)), drawn)
    matrices = picture_matrices(crop, np.full(B, 320), drawn)
    pixels, _ = project_points(symmetric.joints(fits.body_params), torch.from_numpy(K).float())
    moved = move_points(pixels.numpy().astype(float), matrices)
    expected = swap_sides(moved, keypoint_set("smpl24").flip, drawn.flip)
    turned = turn_fits(fits, drawn.turns, symmetric)
    camera = torch.from_numpy(move_cameras(K, matrices)).float()
    found, _ = project_points(symmetric.joints(turned.body_params), camera)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-3)
    assert abs(expected - pixels.numpy()).max() > 10


def test_poses_are_turned_as_the_augmentation_does(fits, drawn, body):
    def rotations(fits):
        rotvec = fits.body_params.pack(("global_orient", "body_pose")).unflatten(1, (24, 3))
        return roma.rotvec_to_rotmat(rotvec)

    expected = turn_poses(rotations(fits), drawn.turns)
    turned = turn_fits(fits, drawn.turns, body)
    torch.testing.assert_close(rotations(turned), expected, atol=1e-6, rtol=0)


def test_there_and_back(fits, drawn, body):
    turns = drawn.turns
    back = turn_fits(turn_fits(fits, turns, body), turns.inverse, body)
    forth = turn_fits(turn_fits(fits, turns.inverse, body), turns, body)
    for found in (back, forth):
        np.testing.assert_allclose(found.params, fits.params, atol=5e-6)
        # All but the root's rotation and the translation comes back to the last bit
        np.testing.assert_array_equal(found.params[:, 3:82], fits.params[:, 3:82])
        np.testing.assert_array_equal(found.joint_std_mm, fits.joint_std_mm)
    np.testing.assert_array_equal(
        back.params[2::4], fits.params[2::4]
    )  # neither turned nor mirrored
    np.testing.assert_array_equal(back.params[3::4, :3], fits.params[3::4, :3])  # mirrored alone


def test_turning_changes_the_sides_of_deviations_and_no_input(fits, drawn, body):
    before = fits.params.copy()
    turned = turn_fits(fits, drawn.turns, body)
    np.testing.assert_array_equal(fits.params, before)
    left, right = (SMPL_JOINTS.index(f"{side}_knee") for side in ("left", "right"))
    np.testing.assert_array_equal(turned.joint_std_mm[1::2, left], fits.joint_std_mm[1::2, right])
    np.testing.assert_array_equal(turned.joint_std_mm[::2], fits.joint_std_mm[::2])
    for name in ("cost", "error_px", "focal", "epoch", "origin"):
        np.testing.assert_array_equal(getattr(turned, name), getattr(fits, name))


def test_nobody_stays_nobody(fits, drawn, body):
    nobody = replace(
        fits, params=np.zeros((B, 85)), origin=np.full(B, Origin.NONE), cost=np.zeros(B)
    )
    assert not turn_fits(nobody, drawn.turns, body).params.any()
