"""The detector's parts against brute force and closed forms, the whole on photographs."""

from __future__ import annotations

import importlib
import json
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from fitting.blazepose import (
    CIRCLE_POINT,
    HIP_CENTRE,
    NUM_LANDMARKS,
    BlazePoseConfig,
    BlazePoseDetector,
    ImagePyramid,
    Landmarks,
    Proposals,
    apply_affine,
    box_overlap,
    circle_shift,
    combine_views,
    decode_proposals,
    invert_affine,
    landmark_agreement,
    landmark_similarity,
    make_anchors,
    make_region,
    merge_proposals,
    share_inside,
    tile_affines,
)
from fitting.detector import Detection, inside_picture, largest_first, load_detector
from fitting.opencv import import_cv2
from fitting.skeleton import keypoint_set

NAMES = keypoint_set("blazepose33").names


@pytest.fixture(scope="module")
def detector() -> BlazePoseDetector:
    return BlazePoseDetector()


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    """(512, 512, 3), one woman from the hips up, the hips just below the picture."""
    return pytest.importorskip("skimage.data").astronaut()


def random_proposals(rng: np.random.Generator, count: int) -> Proposals:
    corner = rng.uniform(0, 60, (count, 2))
    return Proposals(
        boxes=np.concatenate([corner, corner + rng.uniform(5, 40, (count, 2))], axis=1),
        points=rng.uniform(0, 100, (count, 4, 2)),
        scores=rng.uniform(0.1, 1.0, count),
    )


def random_landmarks(rng: np.random.Generator) -> Landmarks:
    return Landmarks(
        positions=rng.uniform(0, 256, (NUM_LANDMARKS, 2)),
        conf=rng.uniform(0.2, 1, NUM_LANDMARKS),
        presence=0.9,
    )


# --- the first network's outputs


def test_anchors_are_those_of_mediapipes_calculator() -> None:
    strides, layer, expected = [8, 16, 32, 32, 32], 0, []
    while layer < len(strides):  # SsdAnchorsCalculator: layers of equal stride share their cells
        last = layer
        while last < len(strides) and strides[last] == strides[layer]:
            last += 1
        cells = 224 // strides[layer]
        for y in range(cells):
            for x in range(cells):
                centre = ((x + 0.5) / cells, (y + 0.5) / cells)
                expected += [centre] * (2 * (last - layer))
        layer = last
    assert len(expected) == 2254
    np.testing.assert_allclose(make_anchors(), expected)


def test_decoding_undoes_an_encoding_written_down_by_hand() -> None:
    anchors = np.array([[0.5, 0.25], [0.1, 0.1]])
    points = np.array([[120.0, 90.0], [120.0, 10.0], [118.0, 60.0], [119.0, 20.0]])
    raw = np.zeros((2, 12))
    raw[0, :4] = [100 - 112, 60 - 56, 20, 30]  # box centred at (100, 60), anchor at (112, 56)
    raw[0, 4:] = (points - [112, 56]).ravel()
    found = decode_proposals(raw, np.array([np.log(4.0), -3.0]), anchors, min_score=0.5)
    np.testing.assert_allclose(found.boxes, [[90, 45, 110, 75]])
    np.testing.assert_allclose(found.points[0], points)
    np.testing.assert_allclose(found.scores, [0.8])


def test_extreme_logits_give_no_warning() -> None:
    found = decode_proposals(
        np.zeros((2, 12), np.float32), np.float32([-1e4, 1e4]), np.zeros((2, 2)), min_score=0.5
    )
    assert found.scores.tolist() == [1.0]


def test_overlap_counts_pixels(rng) -> None:
    boxes = np.sort(rng.integers(0, 20, (30, 2, 2)), axis=1)
    boxes[:, 1] += 1
    masks = np.zeros((30, 24, 24), bool)
    for mask, ((x0, y0), (x1, y1)) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = True
    expected = [(m & masks[0]).sum() / (m | masks[0]).sum() for m in masks]
    flat = boxes.reshape(30, 4).astype(float)
    np.testing.assert_allclose(box_overlap(flat[0], flat), expected)


def test_merging_keeps_the_boxes_that_opencv_keeps(rng) -> None:
    proposals = random_proposals(rng, 80)
    corner, size = proposals.boxes[:, :2], proposals.boxes[:, 2:] - proposals.boxes[:, :2]
    kept = import_cv2().dnn.NMSBoxes(
        np.concatenate([corner, size], axis=1).tolist(), proposals.scores.tolist(), 0.0, 0.3
    )
    merged = merge_proposals(proposals, max_overlap=0.3)
    assert 1 < len(merged) < 80
    np.testing.assert_allclose(merged.scores, proposals.scores[kept], rtol=1e-6)


def test_merging_averages_by_score() -> None:
    boxes = np.array([[0.0, 0, 10, 10], [50, 50, 60, 60], [1, 0, 11, 10]])
    points = np.arange(24.0).reshape(3, 4, 2)
    merged = merge_proposals(
        Proposals(boxes=boxes, points=points, scores=np.array([0.9, 0.5, 0.3])), max_overlap=0.3
    )
    np.testing.assert_allclose(merged.boxes, [[0.25, 0, 10.25, 10], boxes[1]])
    np.testing.assert_allclose(merged.points[0], 0.75 * points[0] + 0.25 * points[2])
    np.testing.assert_allclose(merged.scores, [0.9, 0.5])


def test_merging_nothing_gives_nothing(rng) -> None:
    assert len(merge_proposals(random_proposals(rng, 0), max_overlap=0.3)) == 0


# --- crops


@pytest.mark.parametrize("degrees", [0, 40, -90, 180])
def test_region_stands_the_person_upright_in_the_crop(degrees: float) -> None:
    turn = np.deg2rad(degrees)
    hip, up = np.array([300.0, 200.0]), np.array([np.sin(turn), -np.cos(turn)])
    region = make_region(hip, hip + 100 * up)
    assert region is not None
    to_crop = region.to_crop(256)
    np.testing.assert_allclose(apply_affine(to_crop, hip), [128, 128], atol=1e-9)
    # The circle of 1.25 times the body's radius touches the crop's edges: 128 / 1.25 = 102.4.
    np.testing.assert_allclose(apply_affine(to_crop, hip + 100 * up), [128, 25.6], atol=1e-9)
    right = np.array([-up[1], up[0]])
    np.testing.assert_allclose(apply_affine(to_crop, hip + 100 * right), [230.4, 128], atol=1e-9)


def test_affine_maps_go_there_and_back(rng) -> None:
    region = make_region(np.array([30.0, 40.0]), np.array([55.0, 11.0]))
    assert region is not None
    to_crop, points = region.to_crop(256), rng.uniform(-500, 500, (20, 2))
    back = apply_affine(invert_affine(to_crop), apply_affine(to_crop, points))
    np.testing.assert_allclose(back, points, atol=1e-9)


def test_a_person_without_extent_has_no_region() -> None:
    assert make_region(np.ones(2), np.ones(2)) is None


def test_whole_picture_is_letterboxed() -> None:
    (to_tile,) = tile_affines(640, 320, BlazePoseConfig(tile_divisions=(1.0,)))
    corners = apply_affine(to_tile, np.array([[0.0, 0.0], [640.0, 320.0]]))
    np.testing.assert_allclose(corners, [[0, 56], [224, 168]])


@pytest.mark.parametrize(("width", "height"), [(640, 427), (333, 1000), (256, 256), (1, 1)])
def test_tiles_of_each_scale_cover_the_picture_and_overlap(width: int, height: int) -> None:
    for division in (1.0, 2.0, 3.5):
        config = BlazePoseConfig(tile_divisions=(division,), tile_overlap=0.5)
        tiles = [
            apply_affine(invert_affine(a), np.array([[0.0, 0.0], [224.0, 224.0]]))
            for a in tile_affines(width, height, config)
        ]
        side = max(width, height) / division
        for axis, length in enumerate((width, height)):
            spans = np.unique(np.round([t[:, axis] for t in tiles], 6), axis=0)
            assert spans[0, 0] <= 0 and spans[-1, 1] >= length - 1e-5
            np.testing.assert_allclose(spans[:, 1] - spans[:, 0], side, atol=1e-5)
            assert (np.diff(spans[:, 0]) <= side / 2 + 1e-5).all()


@pytest.mark.parametrize("degrees", [0, 35])
@pytest.mark.parametrize("side", [100, 256, 800])
def test_crops_sample_where_the_affine_map_says(side: int, degrees: float) -> None:
    # A picture that holds its own positions survives linear interpolation and averaging, so each
    # crop pixel must read where it lies in the picture. Odd sizes: levels are not exact halves.
    x, y = np.meshgrid(np.arange(1201) + 0.5, np.arange(1155) + 0.5)
    positions = np.stack([x, y, 0 * x], axis=-1).astype(np.float32)
    up = np.array([np.sin(np.deg2rad(degrees)), -np.cos(np.deg2rad(degrees))])
    centre = np.array([600.0, 577.0])
    region = make_region(centre, centre + up * side / 2.5)
    assert region is not None and region.side == pytest.approx(side)
    to_crop = region.to_crop(256)
    crop = ImagePyramid(positions).warp(to_crop, 256)
    pixels = np.stack(np.meshgrid(np.arange(256) + 0.5, np.arange(256) + 0.5), axis=-1)
    expected = apply_affine(invert_affine(to_crop), pixels)
    # OpenCV interpolates at positions rounded to 1/32 pixel, here of a level reduced up to twice.
    np.testing.assert_allclose(crop[..., :2], expected, atol=0.1)


def test_reducing_a_picture_averages(rng) -> None:
    noise = rng.integers(0, 256, (1024, 1024, 3), dtype=np.uint8)
    crop = ImagePyramid(noise).warp(np.array([[0.125, 0, 0], [0, 0.125, 0]]), 128)
    assert crop.std() < 74 / 8 + 1  # of 64 pixels each, standard deviation 74 by itself


# --- the second network's outputs


def test_mirroring_twice_changes_nothing_and_once_exchanges_sides(rng) -> None:
    person = random_landmarks(rng)
    mirror = person.mirrored(256)
    np.testing.assert_allclose(mirror.mirrored(256).positions, person.positions)
    left, right = NAMES.index("left_wrist"), NAMES.index("right_wrist")
    np.testing.assert_allclose(mirror.positions[left], [256, 0] + person.positions[right] * [-1, 1])
    assert mirror.conf[left] == person.conf[right]
    np.testing.assert_allclose(mirror.positions[HIP_CENTRE, 1], person.positions[HIP_CENTRE, 1])


def test_agreement_falls_with_distance_as_a_gaussian(rng) -> None:
    one = random_landmarks(rng)
    moved = one.positions.copy()
    moved[3] += [0.1 * one.radius, 0]  # one standard deviation
    other = Landmarks(positions=moved, conf=one.conf, presence=0.7)
    agreement = landmark_agreement(one, other)
    assert agreement[3] == pytest.approx(np.exp(-0.5))
    np.testing.assert_allclose(np.delete(agreement, 3), 1)
    weights = one.conf[:33] / one.conf[:33].sum()
    expected = 1 - weights[3] * (1 - np.exp(-0.5))
    assert landmark_similarity(one, other) == pytest.approx(expected, abs=1e-6)
    both = combine_views(one, other)
    assert both.conf[3] == pytest.approx(one.conf[3] * np.exp(-0.5))
    assert both.presence == pytest.approx(0.8 * expected, abs=1e-6)
    np.testing.assert_allclose(both.positions[3], one.positions[3] + [0.05 * one.radius, 0])


def test_circle_shift_is_the_larger_of_two_distances_in_radii(rng) -> None:
    person = random_landmarks(rng)
    person.positions[[HIP_CENTRE, CIRCLE_POINT]] = [[50, 90], [50, 40]]
    assert circle_shift(np.array([[50, 90], [50, 40]]), person) == 0
    assert circle_shift(np.array([[53, 94], [50, 50]]), person) == pytest.approx(10 / 50)


def test_share_inside_is_of_the_smaller_box(rng) -> None:
    def person(low: float, high: float) -> Landmarks:
        corners = np.tile([[low, low], [high, high]], (20, 1))[:NUM_LANDMARKS]
        return Landmarks(positions=corners, conf=np.ones(NUM_LANDMARKS), presence=1.0)

    assert share_inside(person(0, 4), person(0, 10)) == pytest.approx(1)
    assert share_inside(person(0, 10), person(0, 4)) == pytest.approx(0.16)
    assert share_inside(person(8, 12), person(0, 10)) == pytest.approx(0.25)
    assert share_inside(person(20, 30), person(0, 10)) == 0


def test_radius_is_from_the_hip_centre_to_the_circle(rng) -> None:
    person = random_landmarks(rng)
    person.positions[[HIP_CENTRE, CIRCLE_POINT]] = [[10, 20], [13, 16]]
    assert person.radius == pytest.approx(5)


# --- what every detector shares


def test_inside_picture_ends_half_a_pixel_beyond_the_last_centre() -> None:
    points = np.array([[-0.5, 0], [-0.6, 0], [9.4, 4.4], [9.5, 0], [0, 4.5]])
    inside = inside_picture(points, np.zeros((5, 10, 3), np.uint8))
    assert inside.tolist() == [True, False, True, False, False]


def test_people_are_ordered_by_size(rng) -> None:
    shape = rng.uniform(0, 1, (33, 2))
    people = [
        Detection(keypoints_2d=shape * size, conf=np.ones(33), score=score)
        for size, score in ((50, 0.9), (200, 0.8), (200, 0.9))
    ]
    expected = [people[2], people[1], people[0]]
    assert largest_first(people) == expected
    assert largest_first(people[::-1]) == expected


def test_unknown_detector_is_an_error_that_lists_the_known() -> None:
    with pytest.raises(ValueError, match="unknown detector 'openpose'; use one of blazepose"):
        load_detector("openpose")


@pytest.mark.parametrize(
    "option", [{"tile_divisions": (0.5,)}, {"tile_overlap": 1.0}, {"num_refinements": 0}]
)
def test_config_refuses_nonsense(option) -> None:
    with pytest.raises(ValueError, match=next(iter(option))):
        BlazePoseConfig(**option)


def test_image_of_another_type_is_refused(detector) -> None:
    with pytest.raises(ValueError, match=r"\(H, W, 3\) uint8 RGB, got \(8, 8, 3\) float64"):
        detector(np.zeros((8, 8, 3)))


# --- photographs


def test_astronaut_has_a_head_shoulders_and_no_legs(detector, astronaut) -> None:
    before = astronaut.copy()
    (person,) = detector(astronaut)
    np.testing.assert_array_equal(astronaut, before)
    found = dict(zip(NAMES, person.keypoints_2d, strict=True))
    conf = dict(zip(NAMES, person.conf, strict=True))
    # Read off the photograph by eye: pupils and the tip of the nose.
    for name, seen_at in (
        ("right_eye", (203, 103)),
        ("left_eye", (244, 102)),
        ("nose", (223, 122)),
    ):
        assert np.linalg.norm(found[name] - seen_at) < 10
        assert conf[name] > 0.9
    assert conf["left_shoulder"] > 0.7 and conf["right_shoulder"] > 0.7
    legs = [name for name in NAMES if any(p in name for p in ("knee", "ankle", "heel", "foot"))]
    assert max(conf[name] for name in legs) == 0
    assert (person.conf <= 1).all()
    assert 0 < person.score <= 1


@pytest.mark.parametrize("turns", [1, 2])
def test_turned_people_are_found_where_they_are(detector, astronaut, turns: int) -> None:
    (person,) = detector(np.rot90(astronaut, turns).copy())
    nose = person.keypoints_2d[NAMES.index("nose")]
    x, y = 223, 122
    expected = {1: (y, 511 - x), 2: (511 - x, 511 - y)}[turns]
    assert np.linalg.norm(nose - expected) < 12


def test_mirror_image_gives_the_mirror_image(detector, astronaut) -> None:
    (person,) = detector(astronaut)
    (mirrored,) = detector(astronaut[:, ::-1].copy())
    flip = keypoint_set("blazepose33").flip
    back = (np.array([511, 0]) + mirrored.keypoints_2d * [-1, 1])[flip]
    # The rough crops on the way are seen once and differ a little; the eyes are 41 px apart.
    assert np.abs(back - person.keypoints_2d)[:11].mean() < 4


def test_a_pixel_is_reported_under_its_own_index(detector, monkeypatch) -> None:
    # In place of the networks, one that marks the brightest spot: no noise hides half a pixel.
    image = np.zeros((300, 400, 3), np.uint8)
    image[120, 250] = 255

    def propose(crop: np.ndarray) -> list[np.ndarray]:
        raw, logits = np.zeros((2254, 12)), np.full((2254, 1), -9.0)
        raw[:, 6:8], logits[1000] = [1, -60], 9.0  # somebody 120 px tall in a tile of 224
        return [raw, logits]

    def find_spot(crop: np.ndarray) -> list[np.ndarray]:
        weights = crop.sum(axis=2) / max(crop.sum(), 1e-9)
        x, y = np.meshgrid(np.arange(256) + 0.5, np.arange(256) + 0.5)
        spot = np.array([(weights * x).sum(), (weights * y).sum()])
        raw = np.full((39, 5), 9.0)
        raw[:, :2] = spot
        raw[CIRCLE_POINT, :2] = spot - [0, 90]
        return [raw.ravel(), np.array([crop.max() > 0]), np.zeros(117)]

    monkeypatch.setattr(detector, "_detection", propose)
    monkeypatch.setattr(detector, "_landmark", find_spot)
    people = detector(image)
    assert people
    np.testing.assert_allclose(people[0].keypoints_2d[0], [250, 120], atol=0.1)


def test_two_people_are_found_once_each_the_larger_first(detector, astronaut) -> None:
    small = import_cv2().resize(astronaut, (256, 256), interpolation=import_cv2().INTER_AREA)
    both = np.full((512, 900, 3), 200, np.uint8)
    both[256:, 20:276] = small
    both[:, 388:] = astronaut
    people = detector(both)
    noses = np.array([person.keypoints_2d[0] for person in people])
    np.testing.assert_allclose(noses, [[388 + 223, 122], [20 + 111, 256 + 61]], atol=12)


@pytest.mark.parametrize(
    "image",
    [np.zeros((480, 640, 3), np.uint8), np.full((1, 1, 3), 255, np.uint8)],
    ids=["blank", "one pixel"],
)
def test_nobody_is_an_empty_list(detector, image) -> None:
    assert detector(image) == []


def test_noise_holds_nobody(detector, rng) -> None:
    assert detector(rng.integers(0, 256, (300, 200, 3), dtype=np.uint8)) == []


def test_threads_may_share_a_detector(detector, astronaut) -> None:
    images = [astronaut, astronaut[:, ::-1].copy()] * 2
    alone = [detector(image)[0].keypoints_2d for image in images[:2]] * 2
    with ThreadPoolExecutor(4) as pool:
        together = [people[0].keypoints_2d for people in pool.map(detector, images)]
    np.testing.assert_array_equal(together, alone)


@pytest.mark.shared
def test_photographs_are_as_good_as_documented(detector, shared: Path, monkeypatch) -> None:
    # Measured: 13 of 23 found, 3 wrong, error 8.5 % of the square root of the area.
    folder = shared / "data" / "coco_permissive"
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[1] / "benchmarks")
    benchmark = importlib.import_module("detector")
    labels = folder / "person_keypoints.json"
    result = benchmark.measure(detector, labels, folder / "images")
    assert result["images"] == len(json.loads(labels.read_text())["images"]) == 16
    assert result["people"] == 23
    assert result["found"] >= 12
    assert result["wrong"] <= 4
    assert result["mean_error_by_sqrt_area"] < 0.10


# --- rtmlib and OpenCV, present or not


def fake_rtmlib(people: list[tuple[np.ndarray, np.ndarray]]) -> types.ModuleType:
    """A module that behaves like rtmlib on a fixed answer, and remembers what it was given."""

    class Body:
        seen: list[np.ndarray] = []  # noqa: RUF012

        def __init__(self, **options) -> None:
            assert options["to_openpose"] is False

        def __call__(self, image):
            self.seen.append(image)
            return np.array([k for k, _ in people]), np.array([s for _, s in people])

    module = types.ModuleType("rtmlib")
    module.Body = Body  # type: ignore[attr-defined]
    return module


def test_rtmlib_people_are_converted(monkeypatch, rng) -> None:
    inside = rng.uniform(10, 90, (17, 2))
    inside[4] = [-3, 5]
    sure, guess = np.full(17, 0.8), np.full(17, 0.1)
    sure[2] = 1.3  # the height of a peak, which may exceed 1
    module = fake_rtmlib([(inside, sure), (inside * 0.5, guess), (inside[::-1] * 1.1, sure)])
    monkeypatch.setitem(sys.modules, "rtmlib", module)
    detector = load_detector("rtmlib")
    assert detector.keypoint_set == "coco17"
    image = np.zeros((100, 100, 3), np.uint8)
    image[..., 0] = 255
    large, small = detector(image)
    np.testing.assert_allclose(large.keypoints_2d, inside[::-1] * 1.1)
    np.testing.assert_allclose(small.keypoints_2d, inside)
    assert small.conf[2] == 1 and small.conf[4] == 0 and small.conf[0] == 0.8
    assert module.Body.seen[0][0, 0].tolist() == [0, 0, 255]  # rtmlib expects BGR


def test_missing_rtmlib_is_explained(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "rtmlib", None)
    with pytest.raises(ImportError, match=r"pip install 'bodyloop\[rtmlib\]'"):
        load_detector("rtmlib")


def test_missing_or_old_opencv_is_explained(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ImportError, match="pip install 'opencv-python-headless"):
        import_cv2()
    old = types.ModuleType("cv2")
    old.__version__ = "4.9.0"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cv2", old)
    with pytest.raises(ImportError, match=r"4\.9\.0 lacks triangleRasterize; upgrade"):
        import_cv2()
