"""Predictions from pictures, by networks of which the answer is known."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import roma
import torch
from torch import nn

from fitting.body import load_body
from fitting.camera import transl_to_weak
from fitting.estimates import estimates_of_table
from fitting.files import InputError
from fitting.keypoints import map_keypoints
from fitting.people import People, Problem
from fitting.problem import PARAMETERS
from fitting.skeleton import keypoint_set
from fitting.sources import Found
from regressor import load_predictor, predict, prediction_run
from regressor.checkpoints import architecture_of
from regressor.crops import crop_of_boxes, crop_of_keypoints, cut_crop, normalise_crops
from regressor.encoders.base import IMAGENET_MEAN, IMAGENET_STD
from regressor.heads import ImageEstimate
from regressor.image_networks import PUBLISHED, ImageRegressor
from regressor.image_official import official_state
from regressor.lift import LIFTER_FILE
from regressor.predict import CropShape, Predictor

WIDTH, HEIGHT = 120, 160
COLOURS = (40, 90, 140, 190, 240)  # of the pictures: what a network knows them by


class Eye(nn.Module):
    """The crops as they are."""

    channels = 3

    def forward(self, images):
        return images


class Knows(nn.Module):
    """Answers by the red in the middle of a crop: one body for each colour of `COLOURS`."""

    needs_box = False

    def __init__(self, pose_rotmat, betas, weak_cam):
        super().__init__()
        self.answers = pose_rotmat, betas, weak_cam
        self.batches = []

    def forward(self, features, box=None):
        self.batches.append(features)
        middle = features[:, 0, features.shape[2] // 2, features.shape[3] // 2]
        red = 255 * (middle * IMAGENET_STD[0] + IMAGENET_MEAN[0])
        which = (red[:, None] - torch.tensor(COLOURS)).abs().argmin(dim=1)
        return ImageEstimate(*(answer[which] for answer in self.answers))


@pytest.fixture(scope="module")
def body():
    return load_body()


@pytest.fixture
def folder(tmp_path):
    images = tmp_path / "pictures"
    images.mkdir()
    for i, colour in enumerate(COLOURS):
        cv2.imwrite(str(images / f"{i}.png"), np.full((HEIGHT, WIDTH, 3), colour, np.uint8))
    return images


@pytest.fixture
def people():
    """Seven people of five pictures, those of a picture not beside each other; two have no crop."""
    rng = np.random.default_rng(5)
    pictures = np.array([3, 0, 1, 3, 2, 4, 0])
    conf = np.ones((7, 17))
    conf[4] = 0
    conf[6, 1:] = 0
    return People(
        keypoint_set="coco17",
        image=np.array([f"{i}.png" for i in pictures]),
        person=np.array([0, 0, 0, 1, 0, 0, 1]),
        annotation_id=10 + np.arange(7),
        width=np.full(7, WIDTH),
        height=np.full(7, HEIGHT),
        keypoints_2d=rng.uniform(30, 90, (7, 17, 2)),
        conf=conf,
        focal=np.array([200.0, 210, np.nan, 230, 240, 250, 260]),
    )


def answers(weak_cam=None):
    generator = torch.Generator().manual_seed(3)
    C = len(COLOURS)
    pose = roma.rotvec_to_rotmat(0.3 * torch.randn(C, 24, 3, generator=generator))
    weak = torch.tensor([[0.9, 0.1, -0.2]]).repeat(C, 1) if weak_cam is None else weak_cam
    return pose, torch.randn(C, 10, generator=generator), weak


def predictor(body, weak_cam=None, same_body=True, **options):
    network = ImageRegressor(Eye(), Knows(*answers(weak_cam)))
    return Predictor(
        network, body, same_body=same_body, shape=CropShape(side=32, width=32), **options
    )


@pytest.mark.parametrize(("batch_size", "jobs"), [(1, 1), (2, 4), (100, 2)])
def test_everyone_gets_the_answer_of_their_picture(body, people, folder, batch_size, jobs):
    done = []
    found, problems = predictor(body, batch_size=batch_size, jobs=jobs).predict_people(
        people, folder, progress=done.append
    )
    assert problems == []
    assert sum(done) == len(people)
    pose, betas, _ = answers()
    pictures = [3, 0, 1, 3, 4]
    with_crop = [0, 1, 2, 3, 5]
    torch.testing.assert_close(found.params.betas[with_crop], betas[pictures])
    rotvec = torch.cat([found.params.global_orient, found.params.body_pose], dim=1)[with_crop]
    torch.testing.assert_close(roma.rotvec_to_rotmat(rotvec.unflatten(1, (24, 3))), pose[pictures])
    for name in PARAMETERS:
        assert getattr(found.params, name)[[4, 6]].isnan().all()


def test_bodies_stand_where_the_weak_cameras_put_them(body, people, folder):
    """The truth's weak camera, undone: the same pixels by OpenCV's projection."""
    crop = torch.from_numpy(crop_of_keypoints(people.keypoints_2d, people.conf)).float()
    focal = torch.tensor([200.0, 210, 200, 230, 240, 250, 260])  # the diagonal is 200
    K = torch.eye(3).repeat(7, 1, 1)
    K[:, 0, 0] = K[:, 1, 1] = focal
    K[:, :2, 2] = torch.tensor([(WIDTH - 1) / 2, (HEIGHT - 1) / 2])
    transl = torch.tensor([[0.2, -0.1, 4.0], [0, 0.1, 5], [0.3, 0, 3], [0, 0, 0], [-0.2, 0.2, 6]])
    rows = [1, 2, 4, 0, 5]  # one person of each picture
    weak_cam = transl_to_weak(transl, crop[rows], K[rows])
    weak_cam[2] = torch.tensor([0.9, 0.0, 0.0])  # of a person without a crop
    found, _ = predictor(body, weak_cam).predict_people(people, folder)
    np.testing.assert_allclose(found.intrinsics, K, rtol=1e-6)
    seen = [1, 2, 5]
    of_seen = [0, 1, 4]
    torch.testing.assert_close(found.params.transl[seen], transl[of_seen], rtol=1e-4, atol=1e-4)


def test_the_network_sees_the_crops(body, people, folder):
    image = np.random.default_rng(1).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / "1.png"), image[..., ::-1])
    made = predictor(body, batch_size=1, jobs=1)
    made.predict_people(people.select([2]), folder)
    (crop,) = crop_of_keypoints(people.keypoints_2d[[2]], people.conf[[2]])
    expected = normalise_crops(cut_crop(image, crop, 32)[None])
    torch.testing.assert_close(made.network.head.batches[0], expected)
    made.predict(image, keypoints_2d=people.keypoints_2d[[2]])
    torch.testing.assert_close(made.network.head.batches[1], expected)
    box = [[20.0, 30, 50, 80]]
    found = made.predict(image, boxes=box, focal=300)
    torch.testing.assert_close(
        made.network.head.batches[2],
        normalise_crops(cut_crop(image, crop_of_boxes(box)[0], 32)[None]),
    )
    assert found.intrinsics[0, 0, 0] == 300
    torch.testing.assert_close(found.crop, torch.tensor([[44.5, 69.5, 96.0]]))


def test_people_of_one_large_picture_are_told_apart(body, folder):
    """A JPEG that is decoded at an eighth of its size, red on the left and redder on the right."""
    image = np.full((960, 1280, 3), COLOURS[1], np.uint8)
    image[:, 640:] = COLOURS[4]
    cv2.imwrite(str(folder / "large.jpg"), image)
    corners = np.array([[[-150.0, -200]], [[150, 200]]]).swapaxes(0, 1)
    two = People(
        keypoint_set="coco17",
        image=np.full(2, "large.jpg"),
        person=np.arange(2),
        annotation_id=np.arange(2),
        width=np.full(2, 1280),
        height=np.full(2, 960),
        keypoints_2d=np.array([[[960.0, 480]], [[320, 480]]]) + np.tile(corners, (2, 9, 1))[:, :17],
        conf=np.ones((2, 17)),
        focal=np.full(2, np.nan),
    )
    made = predictor(body)
    found, _ = made.predict_people(two, folder)
    torch.testing.assert_close(found.params.betas, answers()[1][[4, 1]])
    (crops,) = made.network.head.batches
    expected = torch.tensor([COLOURS[4], COLOURS[1]]) / 255
    shown = (
        crops * torch.tensor(IMAGENET_STD)[:, None, None]
        + torch.tensor(IMAGENET_MEAN)[:, None, None]
    )
    np.testing.assert_allclose(shown.mean(dim=(1, 2, 3)), expected, atol=0.01)


def test_a_picture_of_nobody(body):
    image = np.zeros((20, 30, 3), np.uint8)
    found = predictor(body).predict(image, boxes=np.zeros((0, 4)))
    assert len(found.params) == 0
    unseen = predictor(body).predict(
        image, keypoints_2d=np.ones((1, 17, 2)), conf=np.zeros((1, 17))
    )
    assert unseen.params.transl.isnan().all()
    with pytest.raises(ValueError, match="give either keypoints_2d"):
        predictor(body).predict(image)
    with pytest.raises(ValueError, match="give either keypoints_2d"):
        predictor(body).predict(image, boxes=[[0, 0, 9, 9]], keypoints_2d=np.ones((1, 17, 2)))


def test_answers_that_are_no_bodies_are_nan(body, people, folder):
    weak_cam = torch.tensor([[0.9, 0, 0], [-0.9, 0, 0], [1, 0, 0], [torch.nan, 0, 0], [0, 0, 0]])
    made = predictor(body, weak_cam)
    found, problems = made.predict_people(people, folder)
    table = prediction_run.make_table(people, found, body, problems, {})
    assert table.column_array("status").tolist() == [
        "diverged", "predicted", "diverged", "diverged", "no_keypoints", "diverged", "no_keypoints",
    ]  # fmt: skip
    assert table.has_parameters.tolist() == [False, True, False, False, False, False, False]


def test_the_table_states_the_distance_of_the_keypoints(body, people, folder):
    found, problems = predictor(body).predict_people(people, folder)
    table = prediction_run.make_table(people, found, body, problems, {})
    error = table.column_array("reprojection_error_px")
    assert np.isnan(error[[4, 6]]).all()
    estimates, _ = predictor(body)(people, folder)
    again = estimates_of_table(table, body)
    for name in PARAMETERS:
        torch.testing.assert_close(
            getattr(estimates.params, name), getattr(again.params, name), equal_nan=True
        )
    np.testing.assert_array_equal(estimates.focal, again.focal)
    params = found.params.select(torch.tensor([0]))
    posed = body(*(getattr(params, name) for name in PARAMETERS))
    points = map_keypoints(body, keypoint_set("coco17"))(posed)[0].numpy().astype(float)
    pixels, _ = cv2.projectPoints(
        points, np.zeros(3), np.zeros(3), found.intrinsics[0].numpy().astype(float), None
    )
    expected = np.linalg.norm(pixels[:, 0] - people.keypoints_2d[0], axis=1).mean()
    assert error[0] == pytest.approx(expected, rel=1e-4)


def test_shapes_of_another_body_are_left_out(body, people, folder):
    made = predictor(body, same_body=False)
    estimates, _ = made(people, folder)
    assert not estimates.has_betas
    assert (estimates.params.betas[0] == 0).all()
    assert estimates.known.tolist() == [True, True, True, True, False, True, False]


def test_bad_pictures_are_named_and_the_others_go_on(body, people, folder):
    (folder / "3.png").write_bytes(b"no picture")
    (folder / "1.png").unlink()
    cv2.imwrite(str(folder / "4.png"), np.zeros((9, 9, 3), np.uint8))
    found, problems = predictor(body).predict_people(people, folder)
    assert [problem.file for problem in problems] == ["3.png", "1.png", "4.png"]
    words = [problem.reason for problem in problems]
    assert "cannot be read as a picture" in words[0]
    assert "does not exist" in words[1]
    assert "is not of 120 x 160 pixels" in words[2]
    assert found.params.betas.isnan().any(dim=1).tolist() == [1, 0, 1, 1, 1, 1, 1]
    statuses = prediction_run.make_table(people, found, body, problems, {}).column_array("status")
    assert statuses.tolist() == [
        "no_picture", "predicted", "no_picture", "no_picture", "no_keypoints", "no_picture",
        "no_keypoints",
    ]  # fmt: skip


def test_a_few_pictures_are_in_memory_at_a_time(body, people, folder, monkeypatch):
    """However many there are: those of a batch, and those that the threads are ahead."""
    count, jobs, batch = 60, 2, 4
    many = replace(
        people.select(np.zeros(count, int)),
        image=np.array([f"{i}.jpg" for i in range(count)]),
        person=np.zeros(count),
    )
    opened, ahead = [], []
    image = np.full((HEIGHT, WIDTH, 3), COLOURS[0], np.uint8)

    def spy(path, size, shrink):
        opened.append(path)
        return image, 1

    monkeypatch.setattr(predict, "open_picture", spy)
    made = predictor(body, batch_size=batch, jobs=jobs)
    seen = 0

    def progress(done):
        nonlocal seen
        ahead.append(len(opened) - seen)
        seen += done

    found, _ = made.predict_people(many, folder, progress=progress)
    assert len(opened) == count
    assert not found.params.transl.isnan().any()
    assert max(ahead) <= batch + 2 * jobs + 1 + jobs


def test_people_whose_pictures_have_no_names(body, people, folder):
    nameless = replace(people, image=np.full(7, ""))
    with pytest.raises(InputError, match="name no pictures"):
        predictor(body).predict_people(nameless, folder)


# --- checkpoints


@pytest.mark.parametrize("system", ["SPIN", "CLIFF"])
def test_published_files_get_the_crops_of_their_authors(body, system, tmp_path, monkeypatch):
    """CLIFF's are 256 pixels high and 192 wide, and it is told where they are."""
    with torch.device("meta"):
        state = official_state(PUBLISHED[system](), system)
    path = tmp_path / "model.pt"
    torch.save({name: torch.zeros(t.shape, dtype=t.dtype) for name, t in state.items()}, path)
    assert architecture_of(path) == system
    made = load_predictor(path, body, batch_size=2)
    seen = []
    answer = ImageEstimate(torch.eye(3).repeat(1, 24, 1, 1), torch.ones(1, 10), torch.ones(1, 3))
    monkeypatch.setattr(
        type(made.network),
        "forward",
        lambda self, images, box=None: seen.append((images, box)) or answer,
    )
    image = np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    found = made.predict(image, boxes=[[100, 50, 90, 200]], focal=500)
    ((images, box),) = seen
    whole = normalise_crops(cut_crop(image, [144.5, 149.5, 240], 256)[None])
    if system == "CLIFF":
        torch.testing.assert_close(images, whole[..., 32:224])
        expected = [2.8 * (144.5 - 199.5) / 500, 2.8 * 0 / 500, (240 / 500 - 0.24) / 0.06]
        torch.testing.assert_close(box, torch.tensor([expected]))
    else:
        assert images.shape == (1, 3, 224, 224)
        assert box is None
    assert (found.params.betas == 0).all(), "SMPL's shapes are not the bundled body's"


def test_networks_that_see_no_pictures_are_refused(body):
    assert architecture_of(LIFTER_FILE) == "lifter"
    with pytest.raises(InputError, match=r"lifter\.pt is a lifter, which sees no pictures"):
        load_predictor(LIFTER_FILE, body)


def test_found_problems_are_not_told_twice(people, folder):
    first, again, other = (Problem(file=f, row=None, reason=f) for f in ("a", "a", "b"))
    found = Found(people=people, problems=[first], images=folder)
    assert found.with_problems([again, other]).problems == [first, other]
