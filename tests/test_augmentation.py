"""Augmentation: its geometry by closed forms and a posed body, its draws by their distributions."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import roma
import torch

from fitting.camera import project_points
from fitting.skeleton import keypoint_set
from priors.mocap import load_mocap, mirror_rotvec
from regressor.augmentation import (
    UNCHANGED,
    AugmentationConfig,
    change_pixels,
    choose_crops,
    draw_augmentations,
    hide_labels,
    mirror_labels,
    move_cameras,
    move_crops,
    move_points,
    picture_matrices,
    swap_sides,
    turn_joints,
    turn_points,
    turn_poses,
)
from regressor.crops import crop_matrix

MANY = 20_000


@pytest.fixture
def drawn(rng):
    """Turned by up to a radian, every second one mirrored, all shifted and scaled."""
    config = AugmentationConfig(unrotated=0, shift=0.1, occluded=1.0)
    augmentations = draw_augmentations(config, 6, rng)
    return replace(augmentations, flip=np.arange(6) % 2 == 1)


def test_draws_are_spins(rng):
    drawn = draw_augmentations(AugmentationConfig(), MANY, rng)
    degrees = np.degrees(drawn.angle)
    assert abs((degrees == 0).mean() - 0.6) < 0.02
    assert abs(degrees).max() == pytest.approx(60)
    turned = degrees[(degrees != 0) & (abs(degrees) < 59.9)]
    assert abs(np.mean(abs(turned) < 30) - 0.6827 / 0.9545) < 0.02  # a normal, less its tails
    assert (drawn.scale.min(), drawn.scale.max()) == (0.75, 1.25)
    assert abs((drawn.scale == 1.25).mean() - 0.1587) < 0.02  # clipped at a deviation
    assert abs(drawn.flip.mean() - 0.5) < 0.02
    assert drawn.color.min() > 0.6
    assert drawn.color.max() < 1.4
    assert abs(np.corrcoef(drawn.color.T)[0, 1]) < 0.05
    assert not drawn.shift.any()
    assert not drawn.occluded.any()


def test_scale_may_be_uniform_and_crops_cut_down(rng):
    config = AugmentationConfig(scale=(0.8, 1.2), scale_std=None, shift=0.1)
    drawn = draw_augmentations(config, MANY, rng)
    assert drawn.scale.std() == pytest.approx(0.4 / math.sqrt(12), rel=0.02)
    assert 0.099 < abs(drawn.shift).max() <= 0.1
    cut = draw_augmentations(replace(config, truncated=1.0), MANY, rng)
    assert cut.scale.max() < 0.8 * 1.2
    assert abs(cut.shift).max() <= 0.4


def test_unchanged_changes_nothing(rng):
    drawn = draw_augmentations(UNCHANGED, 3, rng)
    crop = rng.uniform(10, 90, (3, 3))
    np.testing.assert_array_equal(choose_crops(crop, drawn), crop)
    identity = np.broadcast_to(np.eye(3)[:2], (3, 2, 3))
    np.testing.assert_allclose(picture_matrices(crop, np.full(3, 99), drawn), identity, atol=1e-12)
    picture = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
    np.testing.assert_array_equal(change_pixels(picture, drawn, 0), picture)


def test_pictures_and_crops_move_alike(rng, drawn):
    """Cutting the moved crop out of the moved picture is cutting with angle and flip."""
    width, size = rng.integers(200, 400, 6), 64
    crop = choose_crops(rng.uniform(50, 150, (6, 3)), drawn)
    matrices = picture_matrices(crop, width, drawn)
    moved = move_crops(crop, matrices)
    for i in range(6):
        whole = np.vstack([matrices[i], [0, 0, 1]])
        expected = crop_matrix(moved[i], size) @ whole
        angle, flip = float(drawn.angle[i]), bool(drawn.flip[i])
        found = crop_matrix(crop[i], size, angle=angle, flip=flip)
        np.testing.assert_allclose(found, expected, atol=1e-9)


def test_mirroring_is_that_of_the_picture(rng):
    drawn = draw_augmentations(replace(UNCHANGED, flipped=1.0), 1, rng)
    matrices = picture_matrices(np.array([[40.0, 30, 20]]), np.array([101]), drawn)
    np.testing.assert_allclose(
        move_points(np.array([[[0.0, 7], [100, 7]]]), matrices), [[[100, 7], [0, 7]]]
    )


def test_bodies_cameras_and_points_move_alike(body, rng, drawn):
    """The augmented parameters' vertices are the vertices moved; and their pixels the pixels."""
    poses = load_mocap().rotvec[:: len(load_mocap()) // 6][:6]
    rotations = roma.rotvec_to_rotmat(torch.from_numpy(poses).float())
    betas = torch.from_numpy(rng.normal(size=(6, 10))).float()
    transl = torch.from_numpy(rng.uniform([-1, -1, 3], [1, 1, 6], (6, 3))).float()
    K = np.tile(np.array([[500.0, 0, 140], [0, 500, 120], [0, 0, 1]]), (6, 1, 1))
    crop = choose_crops(rng.uniform(50, 150, (6, 3)), drawn)
    matrices = picture_matrices(crop, np.full(6, 320), drawn)
    posed = body.pose(rotations, betas, transl)
    turned_pose = turn_poses(rotations, drawn.turns)
    pelvis = body.rest_joints(betas)[:, :1]
    turned_transl = turn_points(pelvis + transl[:, None], drawn.turns) - pelvis
    turned = body.pose(turned_pose, betas, turned_transl[:, 0])
    # bodies and shapes are symmetric to some millimetres, so joints are compared
    expected = turn_joints(posed.joints, drawn.turns)
    assert (turned.joints - expected).norm(dim=-1).max() < 5e-3
    moved_K = torch.from_numpy(move_cameras(K, matrices)).float()
    pixels, _ = project_points(posed.joints, torch.from_numpy(K).float())
    seen, _ = project_points(expected, moved_K)
    sides = keypoint_set("smpl24").flip
    moved = swap_sides(move_points(pixels.numpy().astype(float), matrices), sides, drawn.flip)
    np.testing.assert_allclose(seen.numpy(), moved, atol=2e-3)


def test_poses_are_mirrored_as_motion_capture_is(rng):
    rotvec = rng.normal(0, 0.6, (1, 24, 3))
    drawn = draw_augmentations(replace(UNCHANGED, flipped=1.0), 1, rng)
    turned = turn_poses(roma.rotvec_to_rotmat(torch.from_numpy(rotvec).float()), drawn.turns)
    expected = roma.rotvec_to_rotmat(torch.from_numpy(mirror_rotvec(rotvec)).float())
    torch.testing.assert_close(turned, expected, atol=1e-5, rtol=0)


def test_labels_of_sides_are_exchanged():
    labels = np.array([[0, 1, 2, 3, 17, 18]], np.uint8)  # pelvis, hips, shoulders
    np.testing.assert_array_equal(mirror_labels(labels), [[0, 1, 3, 2, 18, 17]])


def test_colors_and_blocks(rng, drawn):
    picture = rng.integers(0, 256, (64, 64, 3)).astype(np.uint8)
    changed, labels = change_pixels(picture, drawn, 2), np.full((32, 32), 5, np.uint8)
    is_block = (changed == drawn.paint[2]).all(axis=-1)
    expected = np.clip(picture * drawn.color[2], 0, 255)
    assert abs(changed - expected)[~is_block].max() <= 0.5 + 1e-9
    hidden = hide_labels(labels, drawn, 2) == 0
    overlap = hidden & is_block[::2, ::2]
    assert overlap.sum() > 0.8 * hidden.sum() > 0
    assert (labels == 5).all()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"scale": (1.2, 0.8)}, "two rising factors"),
        ({"flipped": 1.5}, r"flipped must be a share in \[0, 1\], got 1.5"),
        ({"color": 1.0}, "color must be in"),
        ({"rotation_deg": -1}, "0 or more"),
        ({"scale_std": -1}, "scale_std"),
    ],
)
def test_settings_are_checked(setting, message):
    with pytest.raises(ValueError, match=message):
        AugmentationConfig(**setting)
