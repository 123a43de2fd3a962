"""The rasteriser against NumPy ray casting, a sphere's closed form and OpenCV's projection."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import trimesh

from fitting.rasterizer import (
    NO_LABEL,
    Light,
    render_face_ids,
    render_labels,
    render_mesh,
    vertex_normals,
)

INTRINSICS = np.array([[310.0, 0, 71.3], [0, 255.0, 40.6], [0, 0, 1]])  # all four differ
SIZE = (150, 110)  # width, height


def cast_rays(vertices, faces, intrinsics, image_size):
    """Depth (H, W) and triangle (H, W) seen through each pixel's centre, one triangle at a time.

    Solves  a A + b B + c C = t ray  with t > 0 and a, b, c of one sign: no projection is used.
    """
    width, height = image_size
    u, v = np.meshgrid(np.arange(width), np.arange(height))
    rays = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(intrinsics).T
    depth, seen = np.full((height, width), np.inf), np.full((height, width), -1)
    for index, corners in enumerate(vertices[faces]):
        weights = rays @ np.linalg.inv(corners)  # rows of corners are A, B, C
        with np.errstate(divide="ignore"):
            distance = 1 / weights.sum(-1)  # the ray has z = 1, so this is the depth
        hit = (weights > 0).all(-1) & (distance < depth)
        depth[hit], seen[hit] = distance[hit], index
    return depth, seen


def random_triangles(rng, count=90, depth=3.0):
    centres = rng.uniform([-0.25, -0.2, 1], [0.3, 0.3, 1.6], (count, 3)) * depth
    corners = centres[:, None] + rng.normal(0, 0.08 * depth, (count, 3, 3))
    return corners.reshape(-1, 3), np.arange(3 * count).reshape(-1, 3)


def sphere(centre, radius, subdivisions=5):
    mesh = trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius)
    return np.asarray(mesh.vertices) + centre, np.asarray(mesh.faces)


def overlap(a, b):
    return (a & b).sum() / (a | b).sum()


@pytest.mark.parametrize("depth", [0.2, 3.0, 300.0])
def test_random_triangles_match_ray_casting(rng, depth):
    vertices, faces = random_triangles(rng, depth=depth)
    expected, seen = cast_rays(vertices, faces, INTRINSICS, SIZE)
    picture = render_mesh(vertices, faces, INTRINSICS, SIZE, supersample=1)
    assert 0.4 < np.isfinite(expected).mean() < 0.95
    assert overlap(picture.mask, np.isfinite(expected)) > 0.99
    ids = render_face_ids(vertices, faces, INTRINSICS, SIZE)
    same = (ids == seen) & (ids >= 0)  # pixels where an edge passes may fall to either triangle
    assert same.sum() > 0.99 * (seen >= 0).sum()
    np.testing.assert_allclose(picture.depth[same], expected[same], rtol=2e-5)


def test_depth_of_a_person_is_right_to_a_tenth_of_a_millimetre():
    vertices, faces = sphere([0.1, -0.05, 4.0], 0.8, subdivisions=3)
    expected, _ = cast_rays(vertices, faces, INTRINSICS, SIZE)
    picture = render_mesh(vertices, faces, INTRINSICS, SIZE, supersample=1)
    both = picture.mask & np.isfinite(expected)
    np.testing.assert_allclose(picture.depth[both], expected[both], atol=1e-4)


@pytest.mark.parametrize("centre", [(0.2, -0.1, 2.0), (-0.35, 0.3, 2.0), (0.0, 0.0, 0.5)])
def test_silhouette_of_a_sphere_is_its_conic(centre):
    radius = 0.2 * centre[2]
    # A ray d meets the sphere iff (d . c)^2 >= |d|^2 (|c|^2 - r^2).
    width, height = SIZE
    u, v = np.meshgrid(np.arange(width), np.arange(height))
    rays = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(INTRINSICS).T
    squared = np.dot(centre, centre) - radius**2
    inside = (rays @ centre) ** 2 >= (rays**2).sum(-1) * squared
    vertices, faces = sphere(np.array(centre), radius)
    for supersample in (1, 2, 3):
        picture = render_mesh(vertices, faces, INTRINSICS, SIZE, supersample=supersample)
        # The mesh is inscribed (0.2 % smaller), so some pixels of the outline may differ.
        assert overlap(picture.mask, inside) > 0.985
        rows, columns = np.nonzero(picture.mask)
        expected_rows, expected_columns = np.nonzero(inside)
        assert abs(rows.mean() - expected_rows.mean()) < 0.1
        assert abs(columns.mean() - expected_columns.mean()) < 0.1


def test_projected_vertices_lie_in_the_silhouette():
    vertices, faces = sphere([-0.1, 0.1, 1.5], 0.2)
    pixels = cv2.projectPoints(vertices, np.zeros(3), np.zeros(3), INTRINSICS, None)[0][:, 0]
    columns, rows = np.rint(pixels).astype(int).T
    picture = render_mesh(vertices, faces, INTRINSICS, SIZE, supersample=1)
    assert cv2.dilate(picture.mask.astype(np.uint8), np.ones((3, 3)))[rows, columns].all()
    height, width = np.ptp(pixels[:, ::-1], axis=0)
    assert abs(np.ptp(np.nonzero(picture.mask)[0]) - height) <= 1
    assert abs(np.ptp(np.nonzero(picture.mask)[1]) - width) <= 1


def test_first_pixel_is_centred_at_zero():
    corners = np.array([[-0.4, -0.4], [2.4, -0.4], [2.4, 1.4], [-0.4, 1.4]])  # pixels
    vertices = np.c_[corners, np.ones(4)] @ np.linalg.inv(INTRINSICS).T * 2
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    picture = render_mesh(vertices, faces, INTRINSICS, (6, 5), supersample=1)
    expected = np.zeros((5, 6), bool)
    expected[:2, :3] = True
    np.testing.assert_array_equal(picture.mask, expected)


def test_supersampled_coverage_is_the_covered_area():
    # A square from pixel 0.75 to 3.25 reaches a quarter into the pixels 0.5..1.5 and 2.5..3.5.
    corners = np.array([[0.75, 0.75], [3.25, 0.75], [3.25, 3.25], [0.75, 3.25]])
    vertices = np.c_[corners, np.ones(4)] @ np.linalg.inv(INTRINSICS).T
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    picture = render_mesh(
        vertices, faces, INTRINSICS, (5, 5), supersample=8, background=[255, 255, 255]
    )
    edge = np.array([0, 0.75, 1, 0.75, 0])
    np.testing.assert_allclose(picture.coverage, edge[:, None] * edge, atol=1e-6)
    assert (picture.color[0] == 255).all()
    inside, outline = picture.color[2, 2].astype(int), picture.color[2, 1].astype(int)
    np.testing.assert_allclose(outline, 0.75 * inside + 0.25 * 255, atol=1)


def test_supersampled_depth_is_the_nearest_in_the_pixel(rng):
    vertices, faces = random_triangles(rng)
    centre = render_mesh(vertices, faces, INTRINSICS, SIZE, supersample=1).depth
    nearest = render_mesh(vertices, faces, INTRINSICS, SIZE, supersample=3).depth  # 3: has centre
    drawn = np.isfinite(nearest) & np.isfinite(centre)
    assert (nearest[drawn] <= centre[drawn] + 1e-5).all()
    assert (nearest[drawn] < centre[drawn] - 1e-3).any()


def test_nearer_person_hides_the_farther_one():
    near, faces = sphere([0.02, 0.0, 1.0], 0.05, subdivisions=3)
    far, _ = sphere([0.0, 0.0, 2.0], 0.3, subdivisions=3)
    red, blue = [1.0, 0, 0], [0, 0, 1.0]
    for order, colors in (([near, far], [[red], [blue]]), ([far, near], [[blue], [red]])):
        picture = render_mesh(order, faces, INTRINSICS, SIZE, colors=colors, supersample=1)
        is_red = picture.mask & (picture.color[..., 0] > picture.color[..., 2])
        alone = render_mesh(near, faces, INTRINSICS, SIZE, supersample=1)
        np.testing.assert_array_equal(is_red, alone.mask)
        assert (picture.depth[is_red] < 1.5).all()
        assert (picture.mask & ~is_red).sum() > is_red.sum()


def test_triangles_behind_the_camera_leave_no_trace(rng):
    vertices, faces = random_triangles(rng)
    crossing = vertices.copy()
    crossing[faces[:30, 0], 2] *= -1  # one corner behind the camera
    kept = render_mesh(vertices, faces[30:], INTRINSICS, SIZE)
    picture = render_mesh(crossing, faces, INTRINSICS, SIZE)
    np.testing.assert_array_equal(picture.color, kept.color)
    behind = render_mesh(vertices * [1, 1, -1], faces, INTRINSICS, SIZE)
    assert not behind.mask.any() and np.isinf(behind.depth).all() and not behind.color.any()


def test_mesh_outside_the_picture_leaves_the_background():
    vertices, faces = sphere([5.0, 0, 2.0], 0.3, subdivisions=2)
    background = np.full((SIZE[1], SIZE[0], 3), 77, np.uint8)
    picture = render_mesh(vertices, faces, INTRINSICS, SIZE, background=background)
    np.testing.assert_array_equal(picture.color, background)
    picture.color[:] = 0
    assert (background == 77).all()  # the caller's picture is not ours to edit


def test_a_person_filling_a_single_pixel_and_none_at_all():
    vertices, faces = sphere([0, 0, 2.0], 0.5, subdivisions=2)
    eye = np.array([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1]])
    assert render_mesh(vertices, faces, eye * [[9], [9], [1]], (1, 1)).mask.all()
    empty = render_mesh(np.zeros((0, len(vertices), 3)), faces, eye, (4, 3))
    assert empty.color.shape == (3, 4, 3) and not empty.mask.any()


def test_light_brightens_the_side_it_comes_from():
    vertices, faces = sphere([0, 0, 2.0], 0.2)
    centred = np.array([[300.0, 0, 49.5], [0, 300, 49.5], [0, 0, 1]])
    light = Light(direction=(-1.0, 0, 0), ambient=0.1)
    gray = render_mesh(vertices, faces, centred, (100, 100), light=light).color.sum(-1)
    mask = gray > 0
    assert gray[:, :50][mask[:, :50]].mean() > 2 * gray[:, 50:][mask[:, 50:]].mean()


def test_vertex_normals_of_a_sphere_point_outward():
    vertices, faces = sphere([0, 0, 0], 2.0)
    np.testing.assert_allclose(vertex_normals(vertices, faces), vertices / 2, atol=4e-3)


def test_labels_are_those_of_the_triangle_seen(rng):
    vertices, faces = random_triangles(rng)
    labels = np.repeat(rng.integers(0, 1000, len(faces)), 3)
    _, seen = cast_rays(vertices, faces, INTRINSICS, SIZE)
    picture = render_labels(vertices, faces, labels, INTRINSICS, SIZE)
    expected = np.where(seen >= 0, labels[3 * seen], NO_LABEL)
    assert (picture == expected).mean() > 0.99
    assert set(np.unique(picture)) <= {NO_LABEL, *labels.tolist()}  # never a blend


def test_a_triangle_takes_the_label_of_most_corners():
    corners = np.array([[10.0, 10], [140, 10], [60, 100]])
    vertices = np.c_[corners, np.ones(3)] @ np.linalg.inv(INTRINSICS).T
    for labels in ([7, 3, 7], [7, 7, 900], [0, 7, 7]):
        picture = render_labels(vertices, np.array([[0, 1, 2]]), labels, INTRINSICS, SIZE)
        assert set(np.unique(picture)) == {NO_LABEL, 7}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vertices": np.zeros((4, 2))}, r"vertices must be \(V, 3\)"),
        ({"vertices": np.full((4, 3), np.nan)}, "vertices must be finite"),
        ({"faces": np.array([[0, 1, 4]])}, "faces must index 4 vertices, got 0 to 4"),
        ({"faces": np.array([[0.0, 1, 2]])}, "faces must be"),
        ({"intrinsics": np.eye(4)}, "intrinsics must be"),
        ({"colors": np.zeros((2, 3))}, "colors must broadcast"),
        ({"background": np.zeros((3, 3, 3), np.uint8)}, "background must be a colour"),
        ({"background": np.zeros(3)}, "background must be a colour"),
        ({"supersample": 0}, "supersample must be at least 1"),
    ],
)
def test_wrong_arguments_are_named(change, message):
    good = {
        "vertices": np.ones((4, 3)),
        "faces": np.array([[0, 1, 2]]),
        "intrinsics": INTRINSICS,
        "image_size": SIZE,
    }
    with pytest.raises(ValueError, match=message):
        render_mesh(**{**good, **change})


def test_wrong_labels_and_lights_are_named():
    with pytest.raises(ValueError, match=r"labels must be \(4,\) integers"):
        render_labels(np.ones((4, 3)), np.array([[0, 1, 2]]), np.ones(4), INTRINSICS, SIZE)
    with pytest.raises(ValueError, match="direction must not be zero"):
        Light(direction=(0, 0, 0))
    with pytest.raises(ValueError, match="ambient"):
        Light(ambient=1.5)
