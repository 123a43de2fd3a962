"""Scores of drawn bodies against masks: scikit-learn, pixels counted by hand, and drawn people."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from fits import fits_table
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from fitting.body import load_body
from fitting.breakdown import Grouping
from fitting.evaluation_plots import draw_segmentation
from fitting.files import InputError
from fitting.segmentation_scores import (
    CLASSES,
    MASK_KINDS,
    Segmentation,
    accuracy,
    count_confusion,
    f1_scores,
    mean_f1,
    measure_segmentation,
    score_segmentation,
)
from fitting.skeleton import SMPL_JOINTS
from fitting.table import PARAMETERS, read_fits

WIDTH, HEIGHT = 120, 90
CAMERA = {"fx": 100.0, "fy": 110.0, "cx": 60.0, "cy": 44.0}
PARTS = {
    "head": "head neck",
    "torso": "pelvis spine1 spine2 spine3 left_collar right_collar",
    "left_arm": "left_shoulder left_elbow left_wrist left_hand",
    "right_arm": "right_shoulder right_elbow right_wrist right_hand",
    "left_leg": "left_hip left_knee left_ankle left_foot",
    "right_leg": "right_hip right_knee right_ankle right_foot",
}


@pytest.fixture(scope="module")
def body():
    return load_body()


def standing(N=1, **changes):
    """N people before the camera, all in one picture, beside one another."""
    places = np.array([[-0.6, 0.1, 3.0], [0.1, 0.0, 4.0], [0.7, 0.2, 5.0]])[:N]
    columns = {
        "image": np.full(N, "a.jpg"),
        "person": np.arange(N),
        "width": np.full(N, WIDTH),
        "height": np.full(N, HEIGHT),
        "global_orient": np.tile([np.pi, 0.0, 0.0], (N, 1)),
        "body_pose": np.zeros((N, 69)),
        "betas": np.zeros((N, 10)),
        "transl": places,
        **{name: np.full(N, value) for name, value in CAMERA.items()},
    }
    return fits_table(columns | changes, N)


def painted(body, table, rows):
    """(H, W) SMPL's joint + 1 by OpenCV's painter's algorithm: the far triangles first."""
    columns = [torch.from_numpy(table.column_array(name)) for name in PARAMETERS]
    vertices = body(*columns).vertices.numpy().astype(float)[rows]
    pixels = np.concatenate(
        [
            cv2.projectPoints(points, np.zeros(3), np.zeros(3), camera.astype(float), None)[0]
            for points, camera in zip(vertices, table.intrinsics[rows], strict=True)
        ]
    )
    depths = vertices[..., 2].ravel()
    faces = np.concatenate([body.faces.numpy() + body.num_vertices * i for i in range(len(rows))])
    labels = np.tile(body.part_labels.numpy(), len(rows))
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for face in faces[np.argsort(-depths[faces].mean(axis=1))]:
        corners = np.rint(16 * pixels[face, 0]).astype(np.int32)
        color = 1 + int(np.median(labels[face]))
        cv2.fillConvexPoly(mask, corners, color, lineType=cv2.LINE_8, shift=4)
    return mask


def write_mask(folder, mask, name="a.png"):
    folder.mkdir(exist_ok=True)
    cv2.imwrite(str(folder / name), mask)
    return folder


def test_scores_are_those_of_scikit_learn(rng):
    truth = rng.integers(0, 7, (40, 50))
    drawn = np.where(rng.random((40, 50)) < 0.6, truth, rng.integers(0, 7, (40, 50)))
    confusion = count_confusion(truth, drawn, 7)
    flat = truth.ravel(), drawn.ravel()
    np.testing.assert_array_equal(confusion, confusion_matrix(*flat))
    assert accuracy(confusion) == pytest.approx(accuracy_score(*flat))
    np.testing.assert_allclose(f1_scores(confusion), f1_score(*flat, average=None))
    assert mean_f1(confusion) == pytest.approx(f1_score(*flat, average="macro"))


def test_classes_that_do_not_occur_count_in_no_mean():
    confusion = np.diag([5, 3, 0])
    np.testing.assert_array_equal(f1_scores(confusion), [1, 1, np.nan])
    assert mean_f1(confusion) == 1
    assert accuracy(np.zeros((2, 2), int)) is mean_f1(np.zeros((2, 2), int)) is None


@pytest.mark.parametrize("rows", [[0], [0, 1, 2]])
def test_people_are_drawn_where_opencv_projects_them(body, rows, tmp_path):
    """Pixels differ on outlines alone, where OpenCV paints every pixel that a triangle touches."""
    table = standing(len(rows))
    folder = write_mask(tmp_path / "masks", painted(body, table, rows))
    found = measure_segmentation(table, table, body, folder)
    scores = score_segmentation(found, {}, [])["overall"]
    assert scores["pictures"] == 1
    assert scores["foreground"]["f1"] > 0.93
    assert scores["parts"]["f1"] > 0.85
    moved = table.column_array("transl") + np.array([0.1, 0, 0])
    shifted = measure_segmentation(standing(len(rows), transl=moved), table, body, folder)
    assert mean_f1(shifted.confusion[0]) < scores["parts"]["f1"] - 0.1


def test_each_person_is_seen_by_a_camera_of_its_own(body, tmp_path):
    """The camera of the second one puts it behind the first, of whom the depths do not change."""
    table = standing(2, fx=np.array([100.0, 140]), cx=np.array([60.0, 42]))
    folder = write_mask(tmp_path / "masks", painted(body, table, [0, 1]))
    found = measure_segmentation(table, table, body, folder)
    scores = score_segmentation(found, {}, [])["overall"]
    assert scores["foreground"]["f1"] > 0.93
    assert scores["parts"]["f1"] > 0.85
    assert mean_f1(measure_segmentation(standing(2), table, body, folder).confusion[0]) < 0.8


@pytest.mark.parametrize("kind", MASK_KINDS)
def test_kinds_of_masks_agree(body, kind, tmp_path):
    table = standing(2)
    joints = painted(body, table, [0, 1])
    lsp = np.zeros_like(joints)
    for part, limbs in PARTS.items():
        values = [i for i, joint in enumerate(SMPL_JOINTS, start=1) if joint in limbs.split()]
        lsp[np.isin(joints, values)] = CLASSES.index(part)
    masks = {"smpl24": joints, "lsp6": lsp, "person": np.where(joints > 0, 255, 0).astype(np.uint8)}
    found = {
        name: measure_segmentation(
            table, table, body, write_mask(tmp_path / name, masks[name]), kind=name
        )
        for name in ("smpl24", kind)
    }
    scores = {name: score_segmentation(f, {}, [])["overall"] for name, f in found.items()}
    assert scores[kind]["foreground"] == scores["smpl24"]["foreground"]
    if kind == "person":
        assert scores[kind]["parts"] is None
    else:
        assert scores[kind]["parts"] == scores["smpl24"]["parts"]


def invented():
    """Three pictures of four people; confusions of background and person alone."""
    confusion = np.array([[[8, 2], [0, 10]], [[10, 0], [5, 5]], [[0, 0], [0, 20]]])
    people = [[("a", 0), ("a", 1)], [("b", 0)], [("c", 0)]]
    return Segmentation(
        images=["a", "b", "c"],
        people=people,
        confusion=confusion,
        classes=("background", "person"),
        left_out=["d"],
    )


def test_groups_by_hand():
    matched = [("a", 0), ("a", 1), ("b", 0), ("c", 0)]
    action = Grouping(labels=("walk", "run", "swim"), index=np.array([0, 1, 1, 0]))
    scores = score_segmentation(invented(), {"action": action}, matched)
    assert scores["pictures_left_out"] == 1
    assert scores["overall"]["foreground"]["accuracy"] == pytest.approx(53 / 60)
    walk, run, swim = scores["by_group"]["action"]
    assert (walk["group"], walk["pictures"]) == ("walk", 2)
    assert walk["foreground"]["accuracy"] == pytest.approx((8 + 10 + 20) / 40)
    assert run["foreground"]["f1"] == pytest.approx((2 * 18 / (18 + 25) + 2 * 15 / (15 + 22)) / 2)
    assert swim == {
        "group": "swim",
        "pictures": 0,
        "foreground": {"accuracy": None, "f1": None},
        "parts": None,
    }


def test_pictures_with_somebody_without_a_fit_are_left_out(body, tmp_path):
    image = np.array(["a.jpg", "a.jpg", "sub/b.jpg"])
    truth = standing(3, image=image, person=np.array([0, 1, 0]))
    (tmp_path / "sub").mkdir()
    cv2.imwrite(str(tmp_path / "sub" / "b.png"), painted(body, truth, [2]))
    found = measure_segmentation(truth.select(np.array([1, 2])), truth, body, tmp_path)
    assert (found.images, found.left_out) == (["sub/b.jpg"], ["a.jpg"])
    unknown = {"fx": np.array([100.0, np.nan, 100])}
    found = measure_segmentation(
        standing(3, image=image, person=np.array([0, 1, 0]), **unknown), truth, body, tmp_path
    )
    assert (found.images, found.left_out) == (["sub/b.jpg"], ["a.jpg"])


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (None, "a.png does not exist; give the folder of the masks"),
        (b"no picture", "a.png cannot be read as a picture"),
        (np.zeros((9, 8), np.uint8), "a.png must be 120 x 90 pixels of 8-bit grey .*, got 8 x 9"),
        (np.zeros((HEIGHT, WIDTH, 3), np.uint8), "got 120 x 90 of mode RGB"),
        (np.full((HEIGHT, WIDTH), 25, np.uint8), "holds the value 25, which no mask of kind smpl"),
    ],
)
def test_bad_masks_are_named(body, mask, message, tmp_path):
    if isinstance(mask, bytes):
        (tmp_path / "a.png").write_bytes(mask)
    elif mask is not None:
        write_mask(tmp_path, mask)
    with pytest.raises(InputError, match=message):
        measure_segmentation(standing(), standing(), body, tmp_path)


def test_pictures_without_names_have_no_masks(body, tmp_path):
    nameless = standing(image=np.array([""]))
    with pytest.raises(InputError, match="the truth names none"):
        measure_segmentation(nameless, nameless, body, tmp_path)


def test_the_truth_of_drawn_people_scores_nearly_one(body, tmp_path):
    """Without clothes that stand off and nothing in front; skirts stand off all the same."""
    from regressor.synthetic.rendered_set import SetConfig, write_rendered_set
    from regressor.synthetic.rendering import PictureConfig

    pictures = PictureConfig(size=(96, 96), split="test", occluded=0, looseness=0)
    write_rendered_set(tmp_path / "set", SetConfig(count=6, pictures=pictures, jobs=1))
    truth = read_fits(tmp_path / "set" / "truth.parquet")
    found = measure_segmentation(truth, truth, body, tmp_path / "set" / "masks")
    scores = score_segmentation(found, {}, [])["overall"]
    assert scores["pictures"] == 6
    assert scores["foreground"]["f1"] > 0.99
    assert scores["parts"]["f1"] > 0.97


def test_bars_are_the_scores():
    (axes,) = draw_segmentation(invented()).axes
    expected = f1_scores(invented().confusion.sum(axis=0))
    np.testing.assert_allclose([bar.get_width() for bar in axes.patches], expected)
