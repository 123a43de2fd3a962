"""Overlays, crops and side views on a sphere and a rod, whose projections are known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import trimesh

from fitting.overlay import (
    CANVAS_COLOR,
    DETECTED_COLOR,
    PROJECTED_COLOR,
    SIDE_BACKGROUND,
    crop_around,
    draw_overlay,
    draw_person,
    draw_side_view,
)

INTRINSICS = np.array([[410.0, 0, 171.3], [0, 355.0, 90.6], [0, 0, 1]])


@pytest.fixture
def photo(rng):
    return cv2.GaussianBlur(rng.integers(0, 255, (230, 300, 3), np.uint8), (0, 0), 4)


def box(extents, centre):
    mesh = trimesh.creation.box(extents=extents)
    return np.asarray(mesh.vertices) + centre, np.asarray(mesh.faces)


def project(points, intrinsics):
    return cv2.projectPoints(points, np.zeros(3), np.zeros(3), intrinsics, None)[0][:, 0]


def centroid(mask):
    rows, columns = np.nonzero(mask)
    return np.array([columns.mean(), rows.mean()])


def test_overlay_blends_only_where_the_body_is(photo):
    vertices, faces = box([0.4, 0.8, 0.2], [0.1, 0.2, 3.0])
    before = photo.copy()
    red = draw_overlay(photo, vertices, faces, INTRINSICS, opacity=1.0, colors=[1.0, 0, 0])
    half = draw_overlay(photo, vertices, faces, INTRINSICS, opacity=0.5, colors=[1.0, 0, 0])
    body = (red[..., 0] > 0) & (red[..., 1:] == 0).all(-1)
    corners = project(vertices, INTRINSICS)
    outside = np.ones(body.shape, bool)
    (left, top), (right, bottom) = np.floor(corners.min(0)), np.ceil(corners.max(0))
    outside[int(top) : int(bottom) + 1, int(left) : int(right) + 1] = False
    np.testing.assert_array_equal(red[outside], photo[outside])
    assert body.sum() > 3000
    expected = (red[body].astype(float) + photo[body]) / 2
    np.testing.assert_allclose(half[body], expected, atol=1)
    np.testing.assert_array_equal(photo, before)


def test_keypoints_and_residuals_are_drawn_where_they_are(photo):
    vertices, faces = box([0.1, 0.1, 0.1], [0.0, 0.0, -1.0])  # behind the camera: not drawn
    keypoints = np.array([[50.0, 60.0], [120.0, 61.0], [200.0, 150.0]])
    projected = keypoints + np.array([[0, 20.0], [0, 0], [0, 0]])
    picture = draw_overlay(
        photo,
        vertices,
        faces,
        INTRINSICS,
        keypoints_2d=keypoints,
        conf=np.array([0.9, 0.5, 0.0]),
        projected=projected,
        edges=[(0, 1), (1, 2)],
    )
    assert tuple(picture[60, 50]) == tuple(picture[61, 120]) == DETECTED_COLOR
    np.testing.assert_array_equal(picture[150, 200], photo[150, 200])  # unseen, and its edge too
    np.testing.assert_array_equal(picture[105, 160], photo[105, 160])
    # Half-way along the residual; the line is smoothed, so some of the photograph shines through.
    np.testing.assert_allclose(picture[70, 50], PROJECTED_COLOR, atol=20)
    disc = (picture == np.uint8(DETECTED_COLOR)).all(-1)
    disc[:, 56:] = False  # without the edge
    assert np.abs(centroid(disc) - keypoints[0]).max() < 0.6


def test_wild_keypoints_do_not_overflow(photo):
    vertices, faces = box([0.4, 0.8, 0.2], [0.1, 0.2, 3.0])
    wild = np.array([[1e30, -1e30], [np.nan, 5.0]])
    for projected in (None, -wild):
        draw_overlay(
            photo,
            vertices,
            faces,
            INTRINSICS,
            keypoints_2d=wild,
            projected=projected,
            edges=[(0, 1)],
        )


@pytest.mark.parametrize("size", [40, 160, 700])
def test_crop_camera_projects_onto_the_cropped_photograph(photo, size):
    points = np.array([[190.0, 40.0], [250.0, 200.0]])
    crop = crop_around(photo, points, INTRINSICS, size=size)
    assert crop.image.shape == (size, size, 3)
    bodies = np.array([[0.3, 0.1, 2.0], [0.1, 0.4, 3.0]])
    np.testing.assert_allclose(
        crop.convert_points(project(bodies, INTRINSICS)),
        project(bodies, crop.intrinsics),
        atol=1e-4,
    )


@pytest.mark.parametrize("points", [[[190, 40], [250, 200]], [[10, 5], [40, 60]], [[270, 180]] * 2])
def test_crop_shows_the_photograph_at_the_converted_points(photo, points):
    crop = crop_around(photo, points, INTRINSICS, size=700)
    column, row = np.rint(np.mean(points, axis=0)).astype(int)
    there = np.rint(crop.convert_points([column, row])).astype(int)
    # The photograph is smooth, so rounding to a pixel changes little.
    difference = crop.image[there[1], there[0]].astype(int) - photo[row, column]
    assert np.abs(difference).max() < 5


def test_crop_is_square_padded_and_grey_beyond_the_photograph(photo):
    crop = crop_around(photo, [[10.0, 5.0], [30.0, 215.0]], INTRINSICS, size=400, padding=0.25)
    corners = crop.convert_points([[10.0, 5.0], [30.0, 215.0]])
    np.testing.assert_allclose(corners.mean(0), 199.5, atol=2)
    assert 60 < corners[0, 1] < 72  # a sixth of 400: 0.25 / 1.5
    assert tuple(crop.image[200, 2]) == CANVAS_COLOR
    assert tuple(crop.image[200, 200]) != CANVAS_COLOR


@pytest.mark.parametrize("points", [np.zeros((0, 2)), [[np.nan, np.nan]]])
def test_without_points_the_whole_photograph_is_shown(photo, points):
    crop = crop_around(photo, points, INTRINSICS)
    corners = crop.convert_points([[-0.5, -0.5], [299.5, 229.5]])
    assert (corners >= -0.5).all() and (corners <= 383.5).all()


def test_far_points_do_not_enlarge_the_crop_beyond_the_photograph(photo):
    crop = crop_around(photo, [[-1e12, 5.0], [1e12, 9.0]], INTRINSICS, padding=0.25)
    assert crop.scale > 384 / (1.6 * 300)


def test_single_pixel_photographs_are_drawn():
    vertices, faces = box([0.4, 0.8, 0.2], [0.1, 0.2, 3.0])
    pixel = np.full((1, 1, 3), 9, np.uint8)
    pictures = draw_person(
        pixel, vertices, faces, np.eye(3), keypoints_2d=[[0.0, 0.0]], conf=[1.0], size=32
    )
    assert pictures.photo.shape == pictures.overlay.shape == pictures.side.shape == (32, 32, 3)
    assert draw_overlay(pixel, vertices, faces, np.eye(3)).shape == (1, 1, 3)


def test_person_is_drawn_in_the_middle_of_its_crop(photo):
    vertices, faces = box([0.15, 0.5, 0.2], [0.2, 0.1, 3.0])
    pixels = project(vertices, INTRINSICS)
    pictures = draw_person(
        photo,
        vertices,
        faces,
        INTRINSICS,
        keypoints_2d=pixels,
        conf=np.ones(len(pixels)),
        projected=pixels,
        size=200,
    )
    changed = (pictures.photo != pictures.overlay).any(-1)
    np.testing.assert_allclose(centroid(changed), 99.5, atol=4)
    rows = np.flatnonzero(changed.any(1))
    assert 120 < np.ptp(rows) < 150  # two thirds of 200, and the keypoints' discs


def test_side_view_turns_depth_into_width():
    vertices, faces = box([0.1, 1.6, 0.8], [3.0, -2.0, 40.0])
    picture = draw_side_view(vertices, faces, size=300)
    body = (picture != np.uint8(SIDE_BACKGROUND)).any(-1)
    rows, columns = np.nonzero(body)
    assert abs(np.ptp(rows) / np.ptp(columns) - 1.6 / 0.8) < 0.1
    np.testing.assert_allclose(centroid(body), 149.5, atol=2)
    assert not body[[0, -1]].any() and not body[:, [0, -1]].any()
    assert np.ptp(rows) > 200


def test_side_view_has_the_camera_on_its_left_and_keeps_up_upright():
    near_top, faces = box([0.3, 0.3, 0.3], [0, -0.7, 2.0])
    far_bottom, _ = box([0.3, 0.3, 0.3], [0, 0.7, 3.0])
    vertices = np.concatenate([near_top, far_bottom])
    colors = np.repeat([[1.0, 0, 0], [0, 0, 1.0]], len(near_top), axis=0)
    picture = draw_side_view(
        vertices,
        np.concatenate([faces, faces + len(near_top)]),
        colors=colors,
        background=(0, 0, 0),
    )
    red, blue = centroid(picture[..., 0] > 20), centroid(picture[..., 2] > 20)
    assert (red < blue - 50).all()  # nearer is to the left, -y is up


def test_side_view_shows_the_surface_on_the_photographers_right():
    mesh = trimesh.creation.icosphere(subdivisions=3, radius=0.5)
    colors = np.where(mesh.vertices[:, :1] > 0, [1.0, 0, 0], [0, 0, 1.0])  # red faces +x
    picture = draw_side_view(mesh.vertices + np.array([0, 0, 4.0]), mesh.faces, colors=colors)
    centre = picture[150:230, 150:230].reshape(-1, 3)
    assert (centre[:, 0] > 50).all() and (centre[:, 2] == 0).all()


def test_side_view_of_a_single_point_is_background():
    picture = draw_side_view(np.ones((3, 3)), np.array([[0, 1, 2]]), size=8)
    assert (picture == np.uint8(SIDE_BACKGROUND)).all()


def test_wrong_arguments_are_named(photo):
    vertices, faces = box([0.4, 0.8, 0.2], [0.1, 0.2, 3.0])
    with pytest.raises(ValueError, match="opacity must be within"):
        draw_overlay(photo, vertices, faces, INTRINSICS, opacity=75)
    with pytest.raises(ValueError, match=r"image must be \(H, W, 3\)"):
        draw_overlay(photo / 255, vertices, faces, INTRINSICS)
    with pytest.raises(ValueError, match=r"image must be \(H, W, 3\)"):
        crop_around(photo[..., 0], [[1.0, 2.0]], INTRINSICS)
