"""Crops, by OpenCV's rotation matrices, slices, block means, and pictures with a formula."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch

from fitting.camera import project_points, weak_to_transl
from regressor.crops import (
    crop_matrix,
    crop_of_boxes,
    crop_of_keypoints,
    crop_of_pictures,
    cut_crop,
    cut_labels,
    normalise_crops,
    restore_crops,
    transform_points,
)
from regressor.image_people import reduced_crop

CROP = np.array([61.3, 47.9, 50.0])


def ramp(width, height):
    """A picture whose channels are x, y and their sum: exact under linear interpolation."""
    y, x = np.mgrid[:height, :width].astype(float)
    return np.rint(np.stack([x, y, (x + y) / 2], axis=-1)).astype(np.uint8)


def noise(rng, width, height):
    return rng.integers(0, 256, (height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize("degrees", [0, 25, -140])
@pytest.mark.parametrize("flip", [False, True])
def test_matrix_is_that_of_opencv(degrees, flip):
    """OpenCV counts angles the other way; flipping is x -> size - 1 - x."""
    size = 96
    expected = cv2.getRotationMatrix2D(CROP[:2].tolist(), -degrees, size / CROP[2])
    expected[:, 2] += (size - 1) / 2 - CROP[:2]
    if flip:
        expected[0] = -expected[0]
        expected[0, 2] += size - 1
    matrix = crop_matrix(CROP, size, angle=math.radians(degrees), flip=flip)
    np.testing.assert_allclose(matrix, expected, atol=1e-4)  # OpenCV takes floats for centres


def test_borders_of_the_crop_are_borders_of_its_pixels():
    matrix = crop_matrix(CROP, 96)
    corners = CROP[:2] + CROP[2] / 2 * np.array([[-1, -1], [1, 1]])
    np.testing.assert_allclose(transform_points(corners, matrix), [[-0.5, -0.5], [95.5, 95.5]])


def test_weak_cameras_see_the_same_crop():
    """A weak camera has [-1, 1] over the crop: its shift says where the body's origin is drawn."""
    K = torch.tensor([[[300.0, 0, 70], [0, 300, 40], [0, 0, 1]]])
    weak = torch.tensor([[0.8, 0.3, -0.2]])
    crop = torch.from_numpy(CROP)[None].float()
    transl = weak_to_transl(weak, crop, K)
    pixel, _ = project_points(transl[:, None], K)
    found = transform_points(pixel[0].numpy(), crop_matrix(CROP, 96))
    expected = (0.8 * np.array([[0.3, -0.2]]) + 1) / 2 * 96 - 0.5
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_whole_pixels_are_copied(rng):
    image = noise(rng, 90, 70)
    before = image.copy()
    crop = [39.5, 29.5, 40]
    expected = image[10:50, 20:60]
    np.testing.assert_array_equal(cut_crop(image, crop, 40), expected)
    np.testing.assert_array_equal(cut_crop(image, crop, 40, flip=True), expected[:, ::-1])
    turned = cut_crop(image, crop, 40, angle=math.pi / 2)
    np.testing.assert_array_equal(turned, np.rot90(expected, -1))  # x goes to y: clockwise
    np.testing.assert_array_equal(image, before)


def test_outside_is_black(rng):
    image = np.full((30, 30, 3), 200, np.uint8)
    crop = cut_crop(image, [0, 14.5, 40], 40)
    assert (crop[:, :19] == 0).all()
    assert (crop[6:34, 21:] == 200).all()
    assert (cut_crop(image, [500, 500, 40], 20) == 0).all()
    assert (cut_crop(image, [500, 500, 400], 20) == 0).all()


@pytest.mark.parametrize("factor", [2, 3, 5])
def test_shrinking_averages(rng, factor):
    image = noise(rng, 60, 60)
    blocks = image.reshape(60 // factor, factor, 60 // factor, factor, 3).mean(axis=(1, 3))
    crop = cut_crop(image, [29.5, 29.5, 60], 60 // factor)
    assert np.abs(crop - blocks).max() <= 1


@pytest.mark.parametrize("side", [40, 77.7, 200])
@pytest.mark.parametrize("angle", [0, 0.4, 2.5])
@pytest.mark.parametrize("flip", [False, True])
def test_pixels_are_where_the_matrix_says(side, angle, flip):
    """Enlarged, shrunk and turned alike; two levels are the ramp's rounding, twice."""
    image, crop, size = ramp(250, 250), [120.2, 128.9, side], 48
    cut = cut_crop(image, crop, size, angle=angle, flip=flip).astype(float)
    matrix = np.vstack([crop_matrix(crop, size, angle=angle, flip=flip), [0, 0, 1]])
    v, u = np.mgrid[:size, :size]
    places = transform_points(np.stack([u, v], axis=-1), np.linalg.inv(matrix)[:2])
    inside = ((places > 4) & (places < 244)).all(axis=-1)
    assert inside.mean() > 0.7
    assert np.abs(cut[..., :2] - places)[inside].max() < 2


def test_fine_patterns_become_grey_when_shrunk_and_turned():
    y, x = np.mgrid[:300, :300]
    board = np.repeat((255 * ((x + y) % 2))[..., None], 3, axis=2).astype(np.uint8)
    crop = cut_crop(board, [150, 150, 200], 60, angle=0.3)
    assert np.abs(crop.astype(float) - 127.5).max() < 25
    matrix = crop_matrix([150, 150, 200], 60, angle=0.3)
    assert np.ptp(cv2.warpAffine(board, matrix, (60, 60)).astype(float)) > 200  # as it would be


def test_a_reduced_picture_has_the_same_crop():
    image = ramp(240, 240)
    small = image.reshape(60, 4, 60, 4, 3).mean(axis=(1, 3)).round().astype(np.uint8)
    crop = np.array([110.0, 130.0, 160.0])
    whole, reduced = cut_crop(image, crop, 40), cut_crop(small, reduced_crop(crop, 4), 40)
    difference = whole.astype(float) - reduced
    assert np.abs(difference).max() <= 2
    assert np.abs(difference.mean(axis=(0, 1))).max() < 0.5  # not shifted


def test_labels_are_not_mixed(rng):
    labels = np.where(np.mgrid[:80, :80][1] < 40, 3, 20).astype(np.uint8)
    cut = cut_labels(labels, [39.5, 39.5, 60], 33, angle=0.2)
    assert set(np.unique(cut)) == {3, 20}
    assert cut[16, 2] == 3
    assert cut[16, 30] == 20


def test_crop_of_keypoints():
    points = np.array([[[10.0, 20], [50, 100], [999, 999]]] * 4)
    conf = np.array([[1, 0.5, 0], [1, 0, 0], [0, 0, 0], [1, 1, 1]])
    crops = crop_of_keypoints(points, conf, scale=1.5)
    np.testing.assert_allclose(crops[0], [30, 60, 120])
    assert np.isnan(crops[1:3]).all()
    np.testing.assert_allclose(crops[3, 2], 1.5 * 989)


def test_crop_of_boxes_has_centres_of_pixels():
    """A box around a mask's pixels, as COCO counts them, is centred on the mask."""
    mask = np.zeros((40, 40), bool)
    mask[10:20, 5:9] = True
    rows, columns = np.nonzero(mask)
    box = [5, 10, 4, 10]
    crops = crop_of_boxes([box, [3, 3, 0, 0]], scale=1.0)
    np.testing.assert_allclose(crops[0], [columns.mean(), rows.mean(), 10])
    assert np.isnan(crops[1]).all()


def test_crop_of_pictures_is_all_of_a_square_one():
    crops = crop_of_pictures([[32, 32], [64, 32], [0, 0]])
    np.testing.assert_allclose(crop_matrix(crops[0], 32), [[1, 0, 0], [0, 1, 0]], atol=1e-12)
    np.testing.assert_allclose(crops[1], [31.5, 15.5, 64])
    assert np.isnan(crops[2]).all()


def test_normalise_and_restore(rng):
    crops = rng.integers(0, 256, (2, 9, 9, 3)).astype(np.uint8)
    images = normalise_crops(crops)
    assert images.shape == (2, 3, 9, 9)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    expected = ((crops / 255 - mean) / std).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(images.numpy(), expected, atol=1e-6)
    np.testing.assert_array_equal(restore_crops(images), crops)


def test_mistakes_are_named(rng):
    with pytest.raises(ValueError, match=r"crop must be centre x, y and a side above 0"):
        crop_matrix([1, 2, 0], 10)
    with pytest.raises(ValueError, match=r"crop must be"):
        crop_matrix([np.nan, 2, 3], 10)
    with pytest.raises(ValueError, match=r"uint8 RGB"):
        cut_crop(noise(rng, 9, 9).astype(float), CROP)
    with pytest.raises(ValueError, match=r"\(N, P, 2\)"):
        crop_of_keypoints(np.zeros((3, 2)), np.zeros(3))
    with pytest.raises(ValueError, match=r"\(N, 4\)"):
        crop_of_boxes(np.zeros((3, 3)))
    with pytest.raises(ValueError, match=r"\(B, S, S, 3\)"):
        normalise_crops(np.zeros((2, 3, 9, 9), np.uint8))
