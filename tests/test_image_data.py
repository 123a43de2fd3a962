"""Numbered batches of people with pictures: what they say is what their pixels show."""

from __future__ import annotations

import json
import math
from collections import Counter

import cv2
import numpy as np
import pytest
import torch
from bodies import synthetic_arrays, write_body
from PIL import Image

from fitting.body import load_body
from fitting.camera import project_points
from fitting.files import InputError
from fitting.images import ImageError, write_image
from fitting.keypoint_body import KeypointBody
from fitting.keypoints import map_keypoints
from fitting.rasterizer import render_labels, render_mesh
from fitting.skeleton import BODY_POINTS, keypoint_set
from fitting.table import build_truth, write_fits
from priors.mocap import load_mocap
from regressor.augmentation import AugmentationConfig
from regressor.crops import crop_matrix, restore_crops
from regressor.image_data import ImageData, ImageDataConfig
from regressor.image_people import PeopleFilter, open_picture
from regressor.image_sources import DataSourceConfig

WIDTH, HEIGHT = 750, 600  # so that sampling masks twice costs little
STRONG = AugmentationConfig(unrotated=0, shift=0.05)


def write_people(folder, body, count, *, suffix=".png", sha256=None):
    """A table, pictures and masks of bare bodies, each alone, as `fit-cli synth` lays them out."""
    rng = np.random.default_rng(5)
    rows = np.linspace(0, len(load_mocap()) - 1, count).astype(int)
    pose = load_mocap().rotvec[rows].reshape(count, 72).astype(np.float32)
    pose[:, :3] = (math.pi, 0, 0)
    columns = {
        "global_orient": pose[:, :3],
        "body_pose": pose[:, 3:],
        "betas": rng.normal(size=(count, 10)).astype(np.float32),
        "transl": rng.uniform([-0.3, 0, 4], [0.3, 0.2, 5], (count, 3)).astype(np.float32),
    }
    K = np.tile(np.array([[1050.0, 0, 350], [0, 1050, 275], [0, 0, 1]]), (count, 1, 1))
    with torch.no_grad():
        posed = body(*(torch.from_numpy(column) for column in columns.values()))
        keypoints = map_keypoints(body, keypoint_set("coco17"))(posed)
    pixels, _ = project_points(keypoints, torch.from_numpy(K).float())
    inside = ((pixels >= 0) & (pixels < torch.tensor([WIDTH, HEIGHT]))).all(dim=-1)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    names = [f"{i:03d}{suffix}" for i in range(count)]
    faces, labels = body.faces.numpy(), body.part_labels.numpy()
    for name, vertices in zip(names, posed.vertices.numpy(), strict=True):
        drawn = render_mesh(vertices, faces, K[0], (WIDTH, HEIGHT), background=(40, 90, 40))
        write_image(folder / "images" / name, drawn.color)
        parts = render_labels(vertices, faces, labels, K[0], (WIDTH, HEIGHT)) + 1
        Image.fromarray(parts.astype(np.uint8)).save((folder / "masks" / name).with_suffix(".png"))
    table = {
        "image": np.array(names),
        "person": np.zeros(count, int),
        "annotation_id": np.arange(count),
        "width": np.full(count, WIDTH),
        "height": np.full(count, HEIGHT),
        "keypoint_set": np.full(count, "coco17"),
        "keypoints_2d": torch.cat([pixels, inside[..., None]], dim=2).flatten(1).numpy(),
        **columns,
    }
    sha256 = body.sha256 if sha256 is None else sha256
    write_fits(folder / "truth.parquet", build_truth(table, K, {"body_sha256": sha256}))
    return folder


@pytest.fixture(scope="module")
def people(tmp_path_factory, body):
    return write_people(tmp_path_factory.mktemp("people"), body, 12)


@pytest.fixture
def open_data(body):
    def make(*sources, seed=0, augmentation=STRONG, part_size=None, **settings):
        config = ImageDataConfig(sources=sources, **{"crop_size": 96, **settings})
        return ImageData(config, body, seed=seed, augmentation=augmentation, part_size=part_size)

    return make


def table(folder, **settings):
    return DataSourceConfig(kind="table", path=str(folder), **settings)


def seen_through_crop(batch, i, size):
    """Intrinsics of the i-th crop's pixels."""
    matrix = crop_matrix(batch["crop"][i].numpy(), size)
    return np.vstack([matrix, [0, 0, 1]]) @ batch["intrinsics"][i].numpy()


def test_parameters_and_cameras_draw_the_augmented_pictures(body, people, open_data):
    """Bodies drawn with a batch's parameters cover what its pictures and part labels show."""
    size = 128
    data = open_data(table(people), part_size=size, crop_size=size)
    batch = data.batch(3, 12)
    posed = body.pose(batch["pose_rotmat"], batch["betas"], batch["transl"])
    images, labels = restore_crops(batch["images"]).astype(float), body.part_labels.numpy()
    covered, same = [], []
    for i, vertices in enumerate(posed.vertices.detach().numpy()):
        K = seen_through_crop(batch, i, size)
        parts = render_labels(vertices, body.faces.numpy(), labels, K, (size, size)) + 1
        truth = batch["parts"][i].numpy()
        covered.append(((parts > 0) & (truth > 0)).sum() / ((parts > 0) | (truth > 0)).sum())
        both = (parts > 0) & (truth > 0)
        same.append((parts == truth)[both].mean())
        # people are bluish grey, all else is green or black, whatever the colours' factors
        ratio = images[i, ..., 2] / np.maximum(images[i, ..., 1], 1)
        outside = cv2.erode((truth == 0).astype(np.uint8), np.ones((5, 5))) > 0
        inside = cv2.erode((truth > 0).astype(np.uint8), np.ones((5, 5))) > 0
        assert np.median(ratio[inside]) > 1.5 * np.percentile(ratio[outside], 95)
    assert min(covered) > 0.97
    assert min(same) > 0.95


def test_keypoints_are_those_of_the_parameters(body, people, open_data):
    batch = open_data(table(people)).batch(5, 12)
    keypoint_body = KeypointBody(body, map_keypoints(body, BODY_POINTS))
    points, _ = keypoint_body.pose_rotations(batch["pose_rotmat"], batch["betas"])
    pixels, _ = project_points(points + batch["transl"][:, None], batch["intrinsics"])
    error = (pixels - batch["keypoints_2d"]).norm(dim=-1)[batch["conf"] > 0]
    assert len(error) > 150
    assert error.max() < 0.5  # of mirrored people, by as much as bodies are asymmetric
    posed = body.pose(batch["pose_rotmat"], batch["betas"])
    expected = posed.joints - posed.joints[:, :1]
    assert (batch["joints"] - expected).norm(dim=-1).max() < 5e-3


def test_whole_pictures_are_resized_and_no_more(people, open_data):
    """Pillow makes the same of the picture: a square about it, with nothing above and below."""
    batch = open_data(table(people, crop="picture"), crop_size=125).first(1)
    square = Image.new("RGB", (WIDTH, WIDTH))
    square.paste(Image.open(people / "images" / "000.png"), (0, (WIDTH - HEIGHT) // 2))
    expected = np.asarray(square.reduce(WIDTH // 125)).astype(int)
    (seen,) = restore_crops(batch["images"])
    assert abs(seen - expected).mean() < 1
    np.testing.assert_allclose(batch["crop"], [[(WIDTH - 1) / 2, (HEIGHT - 1) / 2, WIDTH]])


def test_a_batch_depends_on_seed_and_number_alone(people, open_data):
    data, again = open_data(table(people)), open_data(table(people))
    again.batch(1, 4)
    first, second = data.batch(7, 4), again.batch(7, 4)
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    for other in (data.batch(8, 4), open_data(table(people), seed=1).batch(7, 4)):
        assert not torch.equal(first["images"], other["images"])


def test_each_epoch_has_everybody_once_in_another_order(people, open_data):
    data = open_data(table(people), augmentation=AugmentationConfig(flipped=0))
    betas = torch.cat([data.batch(number, 8)["betas"][:, 0] for number in range(3)])
    for epoch in betas.split(12):
        assert len(set(epoch.tolist())) == 12
    assert not torch.equal(*betas.split(12))


def test_sources_are_mixed_by_their_shares(people, open_data, tmp_path):
    coco = write_coco(tmp_path / "k.json", people)
    keypoints = DataSourceConfig(
        kind="keypoints", path=str(coco), images=str(people / "images"), share=3
    )
    data = open_data(table(people), keypoints)
    has_params = torch.stack([data.batch(n, 8)["has_params"] for n in range(4)])
    assert has_params.sum(dim=1).tolist() == [2, 2, 2, 2]
    batch = data.batch(0, 8)
    unknown = batch["has_params"] == 0
    assert not batch["has_joints"][unknown].any()
    assert not batch["joints"][unknown].any()
    assert (batch["conf"][unknown] > 0).sum(dim=1).min() >= 6


def write_coco(path, people):
    """The keypoints of three of the people, and a fourth one of whom too little is seen."""
    from fitting.table import read_fits

    fits = read_fits(people / "truth.parquet")
    keypoints = fits.column_array("keypoints_2d").reshape(-1, 17, 3)[:4]
    keypoints[..., 2] = 2 * (keypoints[..., 2] > 0)
    keypoints[3, 4:] = 0
    images = [
        {"id": i, "file_name": f"{i:03d}.png", "width": WIDTH, "height": HEIGHT} for i in range(4)
    ]
    annotations = [
        {"id": i, "image_id": i, "category_id": 1, "keypoints": k.ravel().astype(float).tolist()}
        for i, k in enumerate(keypoints)
    ]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": []}))
    return path


def test_people_seen_too_little_are_left_out(people, open_data, tmp_path):
    source = DataSourceConfig(
        kind="keypoints",
        path=str(write_coco(tmp_path / "k.json", people)),
        images=str(people / "images"),
    )
    assert len(open_data(source).first(10)["images"]) == 3
    with pytest.raises(InputError, match=r"none has 6 keypoints seen and is 1000 pixels large"):
        open_data(source, filter=PeopleFilter(least_size=1000))


def test_points_that_a_body_lacks_do_not_count(people, tmp_path):
    """A body without landmarks has no nose; its wrists are SMPL's joints."""
    body = load_body(write_body(tmp_path / "body.npz", synthetic_arrays()))
    source = DataSourceConfig(
        kind="keypoints",
        path=str(write_coco(tmp_path / "k.json", people)),
        images=str(people / "images"),
    )
    conf = ImageData(ImageDataConfig(sources=(source,)), body, seed=0).first(3)["conf"]
    assert not conf[:, BODY_POINTS.index("nose")].any()
    assert conf[:, BODY_POINTS.index("coco_left_wrist")].any()


def test_drawn_people_need_no_files(open_data):
    drawn = DataSourceConfig(kind="drawn", split="validation", occluded=0)
    data = open_data(drawn, part_size=24)
    batch, again = data.batch(2, 3), data.batch(2, 3)
    assert torch.equal(batch["images"], again["images"])
    assert batch["has_params"].tolist() == [1, 1, 1]
    assert (batch["parts"] > 0).flatten(1).any(dim=1).all()
    assert not torch.equal(batch["images"], data.batch(3, 3)["images"])
    assert data.sources[0].mean is not None


def test_a_picture_that_disappears_is_named_once_and_masked(body, open_data, tmp_path, caplog):
    people = write_people(tmp_path / "people", body, 4, suffix=".jpg")
    data = open_data(table(people), part_size=12)
    (people / "images" / "002.jpg").write_bytes(b"")
    for number in range(3):
        batch = data.batch(number, 4)
        flags = torch.stack([batch[f"has_{n}"] for n in ("params", "joints", "parts")])
        seen = (batch["conf"] > 0).any(dim=1).float()
        assert torch.equal(flags, seen.expand(3, -1))
        assert seen.sum() == 3
        assert all(value.isfinite().all() for value in batch.values())
    assert Counter("002.jpg" in text for text in caplog.messages) == {True: 1}
    assert "is empty" in caplog.text
    for name in ("000", "001", "003"):
        (people / "images" / f"{name}.jpg").unlink()
    with pytest.raises(InputError, match=r"batch 9: none of its 4 pictures can be read"):
        data.batch(9, 4)


@pytest.mark.parametrize("factor", [1, 3, 5])
def test_jpegs_are_decoded_at_the_size_that_is_needed(rng, tmp_path, factor):
    """A smooth picture, odd in size, at 1 / n of it: like the mean of blocks of n x n pixels."""
    coarse = rng.integers(40, 215, (6, 8, 3)).astype(np.uint8)
    image = cv2.resize(coarse, (401, 301), interpolation=cv2.INTER_CUBIC)
    Image.fromarray(image).save(tmp_path / "a.jpg", quality=98)
    opened = open_picture(tmp_path / "a.jpg", (401, 301), factor)
    n = {1: 1, 3: 2, 5: 4}[factor]
    assert opened.reduction == n
    assert opened.image.shape == (-(-301 // n), -(-401 // n), 3)
    blocks = image[: 301 // n * n, : 401 // n * n].reshape(301 // n, n, 401 // n, n, 3)
    means = blocks.mean(axis=(1, 3))
    difference = opened.image[: 301 // n, : 401 // n] - means
    assert np.abs(difference).mean() < 2


def test_pictures_are_upright_and_of_the_size_that_was_said(tmp_path, rng):
    image = np.zeros((40, 60, 3), np.uint8)
    image[:, :30] = (250, 10, 10)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its left side
    Image.fromarray(image).save(tmp_path / "a.jpg", exif=exif, quality=95)
    opened = open_picture(tmp_path / "a.jpg", (40, 60), 1)
    assert opened.image[5, 20, 0] > 200
    assert opened.image[55, 20, 0] < 50
    with pytest.raises(ImageError, match=r"a.jpg is not of 60 x 40 pixels"):
        open_picture(tmp_path / "a.jpg", (60, 40), 1)
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "b.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(ImageError, match=r"b.jpg cannot be read"):
        open_picture(tmp_path / "b.jpg", (40, 60), 1)


def test_mistakes_are_named(body, people, open_data, tmp_path):
    with pytest.raises(InputError, match=r"does not exist"):
        open_data(table(tmp_path / "none"))
    other = write_people(tmp_path / "other", body, 2, sha256="f" * 64)
    with pytest.raises(InputError, match=r"is of the body ffffffffffff.* data.body"):
        open_data(table(other))
    with pytest.raises(InputError, match=r"none of the 12 pictures .* is here"):
        open_data(table(people, images=str(tmp_path)))
    with pytest.raises(ValueError, match=r"needs a path"):
        DataSourceConfig(kind="table")
    with pytest.raises(ValueError, match=r"takes no path"):
        DataSourceConfig(kind="drawn", path="x")
    with pytest.raises(ValueError, match=r"needs images"):
        DataSourceConfig(kind="keypoints", path="x")
    with pytest.raises(ValueError, match=r"split has no effect with the kind table, only with dr"):
        table(people, split="test")
    with pytest.raises(ValueError, match=r"share must be above 0"):
        DataSourceConfig(kind="drawn", share=0)
    with pytest.raises(ValueError, match=r"at least one source"):
        ImageDataConfig(sources=())
