"""Drawn people: what is drawn is what the truth says, by OpenCV's projection and closed forms."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import cv2
import numpy as np
import pytest
import torch

from fitting.body import load_body, pose_body
from fitting.problem import BodyParams
from fitting.rasterizer import Light, vertex_normals
from fitting.skeleton import SMPL_PARENTS, joint_index
from priors.mocap import load_mocap
from regressor.synthetic.drawing import NOBODY, Surface, draw_surfaces
from regressor.synthetic.people import CameraConfig
from regressor.synthetic.rendering import HIDDEN, UNSEEN, VISIBLE, PictureConfig, PictureStream
from regressor.synthetic.surroundings import cut_photo, draw_surroundings
from regressor.synthetic.wardrobe import HAIR, SHOES, TOP, RestBody, draw_outfit

K = np.array([[300.0, 0, 40.3], [0, 330.0, 33.2], [0, 0, 1]])
SIZE = (90, 70)
AMBIENT = Light(ambient=1.0)
# Bare bodies without anything in front: the outline is the mesh's own.
BARE = PictureConfig(looseness=0, occluded=0, truncated=0, size=(160, 160))


@pytest.fixture(scope="module")
def make_stream(body):
    poses = load_mocap()
    return lambda config, seed=0: PictureStream(body, poses, config, seed=seed)


@pytest.fixture(scope="module")
def bare(make_stream):
    return make_stream(BARE).pictures(0, 12)


def posed(body, person):
    """Vertices and joints of a person by its parameters, metres, camera frame."""
    names = ("global_orient", "body_pose", "betas", "transl")
    params = BodyParams(**{n: torch.from_numpy(getattr(person, n))[None] for n in names})
    with torch.no_grad():
        output = pose_body(body, params)
    return output.vertices[0].numpy().astype(float), output.joints[0].numpy().astype(float)


def project(points, intrinsics):
    pixels, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), intrinsics, None)
    return pixels[:, 0]


def test_outline_is_that_of_the_projected_triangles(body, bare):
    """OpenCV's polygons cover the pixels they touch, so they are a pixel larger at most."""
    faces = body.faces.numpy()
    ring = np.ones((3, 3), np.uint8)
    beyond = []
    for picture in bare:
        vertices, _ = posed(body, picture.people[0])
        corners = np.rint(project(vertices, picture.intrinsics)[faces]).astype(np.int32)
        filled = np.zeros(picture.parts.shape, np.uint8)
        for triangle in corners:
            cv2.fillConvexPoly(filled, triangle, 1)
        drawn = picture.parts > 0
        assert (cv2.erode(filled, ring).astype(bool) & ~drawn).sum() <= 0.01 * drawn.sum()
        beyond.append((drawn & ~cv2.dilate(filled, ring).astype(bool)).sum() / drawn.sum())
    assert max(beyond) < 0.25  # skirts hang between the legs
    assert np.median(beyond) == 0


def test_parts_lie_where_the_joints_say(body, bare):
    """The middle of an arm's or a leg's bone is seen on that part, or behind another one."""
    bones = [
        joint_index(f"{side}_{name}")
        for side in ("left", "right")
        for name in ("elbow", "wrist", "knee", "ankle")
    ]
    right = total = 0
    for picture in bare:
        _, joints = posed(body, picture.people[0])
        for end in bones:
            start = SMPL_PARENTS[end]
            middle = (joints[end] + joints[start]) / 2
            column, row = np.rint(project(middle[None], picture.intrinsics)[0]).astype(int)
            right += picture.parts[row, column] == 1 + start
            total += 1
    assert right > 0.75 * total  # the others lie behind the trunk or another limb


def test_keypoints_are_projected_joints(body, make_stream):
    stream = make_stream(replace(BARE, keypoint_set="smpl24"))
    for picture in stream.pictures(1, 4):
        person = picture.people[0]
        _, joints = posed(body, person)
        expected = project(joints, picture.intrinsics)
        np.testing.assert_allclose(person.keypoints_2d, expected, atol=0.02)
        inside = ((np.rint(expected) >= 0) & (np.rint(expected) < 160)).all(axis=1)
        np.testing.assert_array_equal(person.visibility != UNSEEN, inside)


def test_a_batch_is_a_function_of_seed_and_number(make_stream):
    config = PictureConfig(size=(48, 48), people=2)
    first = make_stream(config, 5).pictures(3)
    again = make_stream(config, 5).pictures(3, 2)
    for one, two in zip(first, again, strict=False):
        assert np.array_equal(one.image, two.image)
        assert np.array_equal(one.parts, two.parts)
        assert np.array_equal(one.people[0].transl, two.people[0].transl)
    for other in (make_stream(config, 6).pictures(3, 1), make_stream(config, 5).pictures(4, 1)):
        assert not np.array_equal(first[0].image, other[0].image)


def test_whoever_stands_behind_another_is_hidden_there(make_stream):
    config = PictureConfig(size=(120, 90), crop=False, people=3, occluded=0)
    hidden = 0
    for picture in make_stream(config).pictures(0):
        for i, person in enumerate(picture.people):
            rows = np.flatnonzero(person.visibility != UNSEEN)
            column, row = np.rint(person.keypoints_2d[rows]).astype(int).T
            owner = picture.owner[row, column]
            for other in set(owner.tolist()) - {i, NOBODY}:
                apart = person.transl[2] - picture.people[other].transl[2]
                flags = person.visibility[rows[owner == other]]
                if apart > 1.0:  # nobody reaches that far
                    assert (flags == HIDDEN).all()
                    hidden += len(flags)
                elif apart < -1.0:
                    raise AssertionError("somebody behind is drawn in front")
        assert ((picture.owner != NOBODY) == (picture.parts > 0)).all()
    assert hidden > 5


def test_things_in_front_hide_keypoints_and_leave_enough(make_stream):
    config = PictureConfig(size=(64, 64), occluded=1, truncated=0)
    people = [p.people[0] for p in make_stream(config).pictures(0)]
    flags = np.array([p.visibility for p in people])
    clear = make_stream(PictureConfig(size=(64, 64), occluded=0, truncated=0)).pictures(0)
    unhidden = np.array([p.people[0].visibility for p in clear])
    assert (flags == HIDDEN).sum() > (unhidden == HIDDEN).sum() + 20
    assert ((flags == VISIBLE).sum(axis=1) >= 2).all()


def test_truncation_cuts_people_off(make_stream):
    cut = make_stream(PictureConfig(size=(48, 48), truncated=1)).pictures(0)
    unseen = np.mean([(p.people[0].visibility == UNSEEN).mean() for p in cut if p.people])
    assert 0.1 < unseen < 0.7


def square(depth, half, owner, paint=np.ones_like, tilt=0.0):
    """A square that faces the camera, its texture its own position."""
    vertices = np.array([[-half, -half, 0], [half, -half, 0], [half, half, 0], [-half, half, 0.0]])
    vertices[:, 2] = depth + tilt * vertices[:, 0]
    faces = np.array([[0, 2, 1], [0, 3, 2]])
    return Surface(
        vertices=vertices,
        faces=faces,
        texture=vertices.astype(np.float32),
        normals=vertex_normals(vertices, faces),
        labels=np.full(2, 10 + owner, np.uint8),
        owner=owner,
        paint=paint,
    )


@pytest.mark.parametrize("order", [1, -1])
def test_nearer_surfaces_hide_farther_ones(order):
    near, far = square(2.0, 0.1013, 0), square(3.0, 0.2967, 1)  # edges between the pixels
    layer = draw_surfaces([near, far][::order], K, SIZE, AMBIENT)
    v, u = np.mgrid[0 : SIZE[1], 0 : SIZE[0]]

    def covered(half, depth):
        across, down = np.abs(u - 40.3) / 300, np.abs(v - 33.2) / 330
        return np.maximum(across, down) < half / depth

    expected = np.where(covered(0.1013, 2), 0, np.where(covered(0.2967, 3), 1, NOBODY))
    np.testing.assert_array_equal(layer.owner, expected)
    np.testing.assert_array_equal(layer.labels, np.where(expected >= 0, 10 + expected, 0))
    np.testing.assert_allclose(layer.depth[expected == 0], 2.0, rtol=1e-6)
    assert np.isinf(layer.depth[expected == NOBODY]).all()


def test_texture_is_interpolated_in_perspective():
    """Of a slanted plane, against the intersection of rays with it."""
    seen = []
    plane = square(2.0, 0.2, 0, lambda points: seen.append(points) or points, tilt=1.5)
    layer = draw_surfaces([plane], K, SIZE, AMBIENT)
    x, y, z = seen[0].T.astype(float)
    np.testing.assert_allclose(z, 2.0 + 1.5 * x, atol=1e-5)
    row, column = np.nonzero(layer.depth < 10)
    ray = (column - 40.3) / 300
    np.testing.assert_allclose(layer.depth[row, column], 2.0 / (1 - 1.5 * ray), rtol=1e-4)
    u, v = 300 * x / z + 40.3, 330 * y / z + 33.2
    np.testing.assert_allclose(u, np.rint(u), atol=1e-3)  # seen at the centres of pixels
    np.testing.assert_allclose(v, np.rint(v), atol=1e-3)


def test_light_falls_on_what_faces_it():
    lit = draw_surfaces([square(2.0, 0.2, 0)], K, SIZE, Light(direction=(0, 0, -1), ambient=0.1))
    dark = draw_surfaces([square(2.0, 0.2, 0)], K, SIZE, Light(direction=(0, 0, 1), ambient=0.1))
    black = np.zeros((SIZE[1], SIZE[0], 3), np.float32)
    np.testing.assert_allclose(lit.over(black)[33, 40], 1.0, atol=1e-5)
    np.testing.assert_allclose(dark.over(black)[33, 40], 0.1, atol=1e-5)


def test_a_layer_covers_what_is_behind_it_and_nothing_else():
    background = np.random.default_rng(0).random((SIZE[1], SIZE[0], 3), dtype=np.float32)
    before = background.copy()
    layer = draw_surfaces([square(2.0, 0.1, 0)], K, SIZE, AMBIENT)
    picture = layer.over(background)
    covered = layer.owner == 0
    ring = np.ones((3, 3), np.uint8)
    inside = cv2.erode(covered.astype(np.uint8), ring).astype(bool)
    outside = ~cv2.dilate(covered.astype(np.uint8), ring).astype(bool)
    assert inside.sum() > 500 and outside.sum() > 500
    np.testing.assert_allclose(picture[inside], 1, atol=1e-6)  # the square is white
    np.testing.assert_array_equal(picture[outside], before[outside])
    np.testing.assert_array_equal(background, before)


def test_what_reaches_behind_the_camera_hides_nothing():
    wall, crossing = square(2.0, 0.1, 0), square(0.0, 0.1, 1, tilt=1.0)
    alone = draw_surfaces([wall], K, SIZE, AMBIENT)
    together = draw_surfaces([crossing, wall], K, SIZE, AMBIENT)
    np.testing.assert_array_equal(together.owner, alone.owner)
    black = np.zeros((SIZE[1], SIZE[0], 3), np.float32)
    np.testing.assert_array_equal(together.over(black), alone.over(black))


def test_what_is_beside_the_picture_leaves_no_trace():
    wall = square(2.0, 0.1, 0)
    layer = draw_surfaces([replace(wall, vertices=wall.vertices + 500.0)], K, SIZE, AMBIENT)
    assert (layer.owner == NOBODY).all()
    assert not layer.over(np.zeros((SIZE[1], SIZE[0], 3), np.float32)).any()


def test_bodies_have_no_holes(make_stream):
    """Otherwise one would look through the eyes at what is behind."""
    faces = make_stream(BARE).faces
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    directed = {tuple(edge) for edge in edges.tolist()}
    assert all((b, a) in directed for a, b in directed)


def test_clothes_are_where_they_belong(body):
    rest = RestBody.of(body)
    outfits = [draw_outfit(rest, np.random.default_rng(seed)) for seed in range(20)]
    chest = np.add(rest.joint("spine3"), [0, 0, 0.1])[None]
    hand, toe = rest.marks["left_index_tip"][None], rest.marks["left_big_toe"][None]
    crown, nose = rest.marks["head_top"][None], rest.marks["nose"][None]
    layers = {
        name: {int(outfit.layers(point, rest)[0]) for outfit in outfits}
        for name, point in (("chest", chest), ("hand", hand), ("toe", toe), ("crown", crown),
                            ("nose", nose))
    }  # fmt: skip
    assert TOP in layers["chest"] and HAIR not in layers["chest"]
    assert layers["hand"] == layers["nose"] == {0}
    assert layers["toe"] == {0, SHOES}
    assert layers["crown"] == {0, HAIR}
    skins = np.array([outfit.skin.mean() for outfit in outfits])
    assert np.ptp(skins) > 0.3


def test_colors_are_colors(body):
    rest = RestBody.of(body)
    for seed in range(30):
        outfit = draw_outfit(rest, np.random.default_rng(seed))
        colors = outfit.paint(rest.points, rest)
        assert colors.shape == rest.points.shape and colors.dtype == np.float32
        assert np.isfinite(colors).all() and colors.min() >= 0 and colors.max() <= 1


def test_surroundings_fill_any_size(rng):
    for size in ((16, 16), (224, 224), (97, 31), (31, 97)):
        for row in (-50.0, 10.0, 1e4):
            picture = draw_surroundings(size, row, rng)
            assert picture.shape == (size[1], size[0], 3)
            assert np.isfinite(picture).all() and 0 <= picture.min() <= picture.max() <= 1


def test_parts_of_photographs_keep_their_proportions(tmp_path, rng):
    """A disc stays round."""
    photo = np.zeros((300, 500, 3), np.uint8)
    for x in range(0, 500, 50):
        for y in range(0, 300, 50):
            cv2.circle(photo, (x + 25, y + 25), 20, (255, 255, 255), -1)
    cv2.imwrite(str(tmp_path / "discs.png"), photo)
    part = cut_photo([tmp_path / "discs.png"], (160, 90), rng)
    assert part.shape == (90, 160, 3)
    count, _, stats, _ = cv2.connectedComponentsWithStats((part[..., 0] > 0.5).astype(np.uint8))
    x, y, w, h = stats[1:, :4].T
    whole = (x > 0) & (y > 0) & (x + w < 160) & (y + h < 90)
    assert count > 1 and whole.any()
    np.testing.assert_allclose(w[whole], h[whole], atol=2)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": (224, 100)}, "crops are square"),
        ({"size": (8, 8)}, "at least 16"),
        ({"people": 0}, "people must be at least 1"),
        ({"occluded": 1.2}, "occluded must be a share"),
        ({"split": "dev"}, "split must be"),
        ({"cameras": CameraConfig()}, "true cameras"),
    ],
)
def test_what_makes_no_picture_is_refused(make_stream, change, words):
    with pytest.raises(ValueError, match=words):
        make_stream(PictureConfig(**change))


def test_nothing_to_draw_is_an_error():
    with pytest.raises(ValueError, match="at least one"):
        draw_surfaces([], K, SIZE, AMBIENT)


def test_a_body_without_landmarks_is_dressed_too():
    body = load_body()
    body.landmarks = {}
    rest = RestBody.of(body)
    paint = partial(draw_outfit(rest, np.random.default_rng(0)).paint, rest=rest)
    assert paint(rest.points).shape == (body.num_vertices, 3)
