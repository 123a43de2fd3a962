"""Keypoint files: what is read equals what was written, and each fault is named with its fix."""

from __future__ import annotations

import copy
import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from timing import seconds_of

from cli.sources import KEYPOINT_FORMATS
from fitting.files import InputError
from fitting.people import People, check_rows, concatenate, index_within_image, is_safe_name
from fitting.readers import FORMATS, read_people, recognise_format
from fitting.skeleton import keypoint_set


def coco_person(row: int, *, points: int = 17, image_id: int = 7, **extra: Any) -> dict[str, Any]:
    """An annotation whose keypoint p lies at (100 row + p, 200 + p) with flag p % 3."""
    triplets = [[100 * row + p, 200 + p, p % 3] for p in range(points)]
    keypoints = [value for triplet in triplets for value in triplet]
    return {"id": 50 + row, "image_id": image_id, "category_id": 1, "keypoints": keypoints} | extra


def coco_file(*annotations: Any, **extra: Any) -> dict[str, Any]:
    return {
        "images": [
            {"id": 7, "file_name": "seven.jpg", "width": 640, "height": 480},
            {"id": 8, "file_name": "sub/eight.png", "width": 320, "height": 240},
        ],
        "annotations": list(annotations),
        "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "cat"}],
    } | extra


def write(path: Path, document: Any) -> Path:
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


@pytest.fixture
def pictures(tmp_path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, size in [("a.jpg", (64, 48)), ("000000000012.png", (30, 50))]:
        Image.new("RGB", size).save(folder / name)
    return folder


def plain_arrays(N: int = 3, **changes: Any) -> dict[str, Any]:
    arrays = {
        "keypoints_2d": np.arange(N * 34, dtype=np.float64).reshape(N, 17, 2),
        "conf": np.full((N, 17), 0.5),
        "keypoint_set": "coco17",
        "width": np.full(N, 640),
        "height": np.full(N, 480),
    } | changes
    return {name: array for name, array in arrays.items() if array is not None}


def write_npz(path: Path, arrays: dict[str, Any]) -> Path:
    np.savez(path, **arrays)
    return path


# --- COCO ---


def test_coco_keeps_every_person_in_order(tmp_path):
    nobody = coco_person(2, image_id=8, keypoints=[0] * 51, iscrowd=1)
    cat = coco_person(3, category_id=2)
    path = write(tmp_path / "a.json", coco_file(coco_person(1), nobody, cat, coco_person(4)))
    people, problems = read_people(path)
    assert problems == []
    assert people.keypoint_set == "coco17"
    assert people.image.tolist() == ["seven.jpg", "sub/eight.png", "seven.jpg"]
    assert people.person.tolist() == [0, 0, 1]
    assert people.annotation_id.tolist() == [51, 52, 54]
    assert (people.width.tolist(), people.height.tolist()) == ([640, 320, 640], [480, 240, 480])
    flags = np.arange(17) % 3
    np.testing.assert_array_equal(people.conf[0], flags > 0)
    np.testing.assert_array_equal(people.conf[1], 0)
    expected = np.stack([400 + np.arange(17), 200 + np.arange(17)], axis=1) * (flags > 0)[:, None]
    np.testing.assert_array_equal(people.keypoints_2d[2], expected)
    assert np.isnan(people.focal).all()
    assert people.track is None


def test_coco_third_values_are_confidences_where_one_has_a_fraction(tmp_path):
    person = coco_person(1)
    person["keypoints"][2::3] = [1] * 16 + [0.25]
    people, _ = read_people(write(tmp_path / "a.json", coco_file(person)))
    np.testing.assert_array_equal(people.conf[0], [1] * 16 + [0.25])


def test_coco_flags_and_confidences_do_not_mix(tmp_path):
    person = coco_person(2)
    person["keypoints"][2] = 0.5  # makes the 2s of the other person confidences out of range
    path = write(tmp_path / "a.json", coco_file(coco_person(1), person))
    people, problems = read_people(path)
    assert len(people) == 0
    assert [p.row for p in problems] == [0, 1]
    assert "outside [0, 1]" in problems[0].reason


@pytest.mark.parametrize(("points", "name", "kept"), [
    (17, "coco17", 17), (23, "coco_wholebody", 23), (133, "coco_wholebody", 23),
])  # fmt: skip
def test_coco_sets_by_count(tmp_path, points, name, kept):
    path = write(tmp_path / "a.json", coco_file(coco_person(1, points=points)))
    people, problems = read_people(path)
    assert (people.keypoint_set, problems) == (name, [])
    seen = np.arange(kept) % 3 > 0
    np.testing.assert_array_equal(people.keypoints_2d[0, :, 0], (100 + np.arange(kept)) * seen)


def test_coco_wholebody_feet_follow_the_body(tmp_path):
    feet = [v for p in range(6) for v in (p, 10 + p, 2)]
    path = write(tmp_path / "a.json", coco_file(coco_person(1, foot_kpts=feet), coco_person(2)))
    people, problems = read_people(path)
    assert (people.keypoint_set, problems) == ("coco_wholebody", [])
    np.testing.assert_array_equal(people.keypoints_2d[0, 17:, 1], 10 + np.arange(6))
    np.testing.assert_array_equal(people.conf[:, 17:], [[1] * 6, [0] * 6])


def test_coco_set_by_the_names_in_the_file(tmp_path):
    names = list(keypoint_set("blazepose33").names)
    categories = [{"id": 1, "name": "person", "keypoints": names}]
    document = coco_file(coco_person(1, points=33), categories=categories)
    people, _ = read_people(write(tmp_path / "a.json", document))
    assert people.keypoint_set == "blazepose33"


def test_coco_set_named_by_the_caller(tmp_path):
    path = write(tmp_path / "a.json", coco_file(coco_person(1, points=14), coco_person(2)))
    with pytest.raises(InputError, match=r"a\.json has 14 keypoints.*--keypoint-set"):
        read_people(path)
    people, problems = read_people(path, keypoint_set="lsp14")
    assert (people.keypoint_set, len(people)) == ("lsp14", 1)
    assert problems[0].row == 1
    assert "51 numbers of keypoints, expected 3 x 14 for lsp14" in problems[0].reason
    with pytest.raises(InputError, match="did you mean coco17"):
        read_people(path, keypoint_set="coco-17")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id": 50}, "annotation id 50 occurs before"),
        ({"id": "x"}, "no integer id"),
        ({"id": 10**30}, "no integer id"),
        ({"image_id": 99}, "image_id 99 is not in the list of images"),
        ({"image_id": [7]}, r"image_id [7] is not in the list of images"),
        ({"keypoints": None}, "no list of keypoints"),
        ({"keypoints": []}, "0 numbers of keypoints, expected 3 x 17"),
        ({"keypoints": ["5"] * 51}, "something else than numbers"),
        ({"keypoints": [None] * 51}, "something else than numbers"),
        ({"keypoints": [[1, 2, 3]] * 51}, "something else than numbers"),
        ({"keypoints": [float("nan"), 5, 2] * 17}, "NaN or infinite coordinate"),
        ({"keypoints": [5, float("inf"), 2] * 17}, "NaN or infinite coordinate"),
        ({"keypoints": [10**400, 5, 2] * 17}, "NaN or infinite coordinate"),
        ({"keypoints": [1e39, 5, 2] * 17}, "NaN or infinite coordinate"),
        ({"keypoints": [2e6, 5, 2] * 17}, "more than 1000000 pixels away"),
        ({"keypoints": [5, 5, -1] * 17}, "outside [0, 1]"),
        ({"keypoints": [5, 5, 3] * 17}, "outside [0, 1]"),
        ({"keypoints": [5, 5, float("nan")] * 17}, "outside [0, 1]"),
    ],
)
def test_coco_leaves_out_one_bad_row_and_names_it(tmp_path, change, words):
    path = write(tmp_path / "a.json", coco_file(coco_person(0), coco_person(1, **change)))
    people, problems = read_people(path)
    assert people.annotation_id.tolist() == [50]
    assert [(p.file, p.row) for p in problems] == [(str(path), 1)]
    assert words in problems[0].reason
    assert "\n" not in str(problems[0])


def test_coco_rows_that_are_no_dictionaries(tmp_path):
    path = write(tmp_path / "a.json", coco_file(None, coco_person(1), [3]))
    people, problems = read_people(path)
    assert people.annotation_id.tolist() == [51]
    assert [p.row for p in problems] == [0, 2]


def test_coordinates_of_unseen_keypoints_do_not_matter(tmp_path):
    person = coco_person(1, keypoints=[float("nan"), 1e300, 0] * 16 + [5, 6, 2])
    people, problems = read_people(write(tmp_path / "a.json", coco_file(person)))
    assert problems == []
    np.testing.assert_array_equal(people.keypoints_2d[0], [[0, 0]] * 16 + [[5, 6]])


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../a.jpg", "x/../../a.jpg", "..\\a.jpg", "C:\\a.jpg", "c:a.jpg",
             "\\\\host\\a.jpg", "a\nb.jpg", "\ud800.jpg", "..", "n" * 2000],
)  # fmt: skip
def test_names_that_leave_the_folder_of_pictures(tmp_path, name):
    document = coco_file(coco_person(1), coco_person(2, image_id=8))
    document["images"][0]["file_name"] = name
    people, problems = read_people(write(tmp_path / "a.json", document))
    assert people.image.tolist() == ["sub/eight.png"]
    assert "inside the folder of pictures" in problems[0].reason


@pytest.mark.parametrize("name", ["a.jpg", "train/a..b.jpg", "..a/b.jpg", "été 1.jpg", "a/b/c.png"])
def test_ordinary_names(name):
    assert is_safe_name(name)


def test_coco_sizes_from_the_pictures(tmp_path, pictures):
    document = coco_file(coco_person(1), coco_person(2, image_id=8))
    document["images"][0] = {"id": 7, "file_name": "a.jpg", "width": 0}
    document["images"][1] = {"id": 8, "file_name": "missing.jpg"}
    path = write(tmp_path / "a.json", document)
    people, problems = read_people(path, images=pictures)
    assert (people.width.tolist(), people.height.tolist()) == ([64], [48])
    assert "missing.jpg" in problems[0].reason
    people, problems = read_people(path)
    assert len(people) == 0
    assert [("--images" in p.reason, p.row) for p in problems] == [(True, 0), (True, 1)]


def test_no_size_is_looked_up_outside_the_folder_of_pictures(tmp_path, pictures):
    Image.new("RGB", (9, 9)).save(tmp_path / "outside.png")
    document = coco_file(coco_person(1), coco_person(2, image_id=8))
    document["images"][0] = {"id": 7, "file_name": "../outside.png"}
    document["images"][1] = {"id": 8, "file_name": "../missing.png"}
    _, problems = read_people(write(tmp_path / "a.json", document), images=pictures)
    # The reasons are the same whether the picture exists, so that nobody can probe for files.
    assert problems[0].reason == problems[1].reason
    assert "inside the folder of pictures" in problems[0].reason


def test_coco_first_of_repeated_images_counts(tmp_path):
    document = coco_file(coco_person(1))
    document["images"].append(document["images"][0] | {"file_name": "other.jpg", "width": 5})
    people, problems = read_people(write(tmp_path / "a.json", document))
    assert (people.image.tolist(), people.width.tolist(), problems) == (["seven.jpg"], [640], [])


@pytest.mark.parametrize("categories", [True, None, {}, [None, 3], "person"])
def test_coco_categories_of_the_wrong_kind_are_ignored(tmp_path, categories):
    path = write(tmp_path / "a.json", coco_file(coco_person(1), categories=categories))
    assert len(read_people(path)[0]) == 1


def test_coco_without_ids_numbers_the_rows(tmp_path):
    rows = [coco_person(1), coco_person(2)]
    for row in rows:
        del row["id"]
    people, problems = read_people(write(tmp_path / "a.json", coco_file(*rows)))
    assert (people.annotation_id.tolist(), problems) == ([0, 1], [])


def test_coco_results(tmp_path, pictures):
    rows = [coco_person(n, image_id=i) for n, i in enumerate([12, "a", "a.jpg", 13])]
    path = write(tmp_path / "a.json", rows)
    assert recognise_format(path) == "coco"
    with pytest.raises(InputError, match=r"bare list of results.*--images"):
        read_people(path)
    people, problems = read_people(path, images=pictures)
    assert people.image.tolist() == ["000000000012.png", "a.jpg", "a.jpg"]
    assert people.person.tolist() == [0, 0, 1]
    assert people.height.tolist() == [50, 48, 48]
    assert "is called 13" in problems[0].reason


def test_coco_without_people(tmp_path):
    people, problems = read_people(write(tmp_path / "a.json", coco_file()))
    assert (len(people), people.conf.shape, problems) == (0, (0, 17), [])


@pytest.mark.shared
def test_coco_val2017(shared):
    path = shared / "data" / "coco_val2017_kpts" / "person_keypoints_val2017.json"
    assert seconds_of(lambda: read_people(path)) < 5  # 0.1 s alone on two cores
    people, problems = read_people(path)
    annotations = json.loads(path.read_bytes())["annotations"]
    assert (len(people), problems) == (2213, [])
    assert people.annotation_id.tolist() == [a["id"] for a in annotations]
    counts = (people.conf > 0).sum(axis=1)
    assert counts.tolist() == [a["num_keypoints"] for a in annotations]
    assert (counts == 0).sum() == 859
    names = {i["id"]: i["file_name"] for i in json.loads(path.read_bytes())["images"]}
    assert people.image.tolist() == [names[a["image_id"]] for a in annotations]


# --- OpenPose ---


def openpose_person(points: int = 25) -> dict[str, Any]:
    return {"pose_keypoints_2d": [v for p in range(points) for v in (10 + p, 20 + p, 0.5)]}


def test_openpose_folder(tmp_path, pictures):
    folder = tmp_path / "op"
    folder.mkdir()
    write(folder / "a_keypoints.json", {"people": [openpose_person(), {}, openpose_person()]})
    write(folder / "000000000012_keypoints.json", {"people": [openpose_person()]})
    write(folder / "empty_keypoints.json", {"people": []})
    write(folder / "lost_keypoints.json", {"people": [openpose_person()]})
    (folder / "broken_keypoints.json").write_text("{")
    with pytest.raises(InputError, match=r"OpenPose output.*--images"):
        read_people(folder)
    people, problems = read_people(folder, images=pictures)
    assert people.keypoint_set == "body25"
    assert people.image.tolist() == ["000000000012.png", "a.jpg", "a.jpg"]
    assert people.annotation_id.tolist() == [0, 1, 2]
    assert (people.width.tolist(), people.height.tolist()) == ([30, 64, 64], [50, 48, 48])
    np.testing.assert_array_equal(people.keypoints_2d[1, :, 1], 20 + np.arange(25))
    assert [(Path(p.file).name, p.row) for p in problems] == [
        ("a_keypoints.json", 1), ("broken_keypoints.json", None), ("lost_keypoints.json", None),
    ]  # fmt: skip
    assert "pose_keypoints_2d" in problems[0].reason
    assert "not valid JSON" in problems[1].reason
    assert "no picture lost.*" in problems[2].reason


def test_openpose_single_file_and_coco_model(tmp_path, pictures):
    path = write(tmp_path / "a_keypoints.json", {"people": [openpose_person(18)]})
    people, _ = read_people(path, images=pictures)
    names = keypoint_set("coco17").names
    # Table of OpenPose's documentation ("Pose Output Format (COCO)").
    expected = {"nose": 0, "right_shoulder": 2, "left_wrist": 7, "right_hip": 8, "left_ankle": 13,
                "right_eye": 14, "left_eye": 15, "right_ear": 16, "left_ear": 17}  # fmt: skip
    assert people.keypoint_set == "coco17"
    for name, position in expected.items():
        assert people.keypoints_2d[0, names.index(name), 0] == 10 + position


def test_openpose_confidence_slightly_above_one(tmp_path, pictures):
    person = openpose_person()
    person["pose_keypoints_2d"][2] = 1.03
    other = openpose_person()
    other["pose_keypoints_2d"][2] = 1.5
    path = write(tmp_path / "a_keypoints.json", {"people": [person, other]})
    people, problems = read_people(path, images=pictures)
    assert people.conf[:, 0].tolist() == [1]
    assert [p.row for p in problems] == [1]


def test_openpose_faults_of_a_whole_file(tmp_path, pictures):
    def fails(document: Any, words: str, **options: Any) -> None:
        path = write(tmp_path / "a_keypoints.json", document)
        with pytest.raises(InputError, match=words):
            read_people(path, images=pictures, **options)

    normalised = {"pose_keypoints_2d": [0.5, 0.25, 0.9] * 25}
    fails({"people": [normalised]}, "--keypoint_scale 0")
    fails({"people": [openpose_person(15)]}, "15 keypoints.*BODY_25")
    fails({"people": 3}, "no list of people", keypoint_format="openpose")
    fails([1], "its top level holds a list", keypoint_format="openpose")


# --- plain .npz ---


def test_npz_round_trip(tmp_path, rng):
    arrays = plain_arrays(
        keypoints_2d=rng.uniform(0, 600, (3, 17, 2)).astype(np.float32),
        conf=rng.uniform(0.1, 1, (3, 17)).astype(np.float32),
        image=np.array(["b.jpg", "a.jpg", "b.jpg"]),
        focal=np.array([500, np.nan, 700.5]),
        track=np.array([4, 5, 4]),
        betas=np.zeros((3, 10)),  # other arrays may be in the file
    )
    people, problems = read_people(write_npz(tmp_path / "a.npz", arrays))
    assert problems == []
    for name in ("keypoints_2d", "conf", "image", "focal", "track", "width", "height"):
        np.testing.assert_array_equal(getattr(people, name), arrays[name])
    assert people.person.tolist() == [0, 0, 1]
    assert people.annotation_id.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"conf": None}, "no array conf; it holds"),
        ({"width": None, "widths": np.ones(3)}, "no array width; rename widths"),
        ({"focals": np.ones(3)}, "no array focal; rename focals"),
        ({"conf": np.ones(3)}, r"conf must be \(N, P\), got \(3,\)"),
        ({"keypoints_2d": np.ones((3, 17, 3))}, r"must be \(3, 17, 2\) numbers, got \(3, 17, 3\)"),
        ({"width": np.ones(4)}, r"width must be \(3,\) numbers, got \(4,\)"),
        ({"image": np.arange(3)}, r"image must be \(3,\) strings"),
        ({"focal": np.array(["x"] * 3)}, r"focal must be \(3,\) numbers"),
        ({"keypoint_set": "coco_17"}, "did you mean coco17"),
        ({"keypoint_set": "lsp14"}, "17 keypoints for each person, but lsp14 has 14"),
    ],
)
def test_npz_faults_of_the_file(tmp_path, changes, words):
    path = write_npz(tmp_path / "a.npz", plain_arrays(**changes))
    with pytest.raises(InputError, match=words) as caught:
        read_people(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"width": np.array([640, 0, 640])}, "width and height"),
        ({"height": np.array([480.0, np.nan, 480])}, "width and height"),
        ({"height": np.array([1, 2**40, 1])}, "width and height"),
        ({"focal": np.array([np.nan, -3, 5])}, "focal length"),
        ({"image": np.array(["a.jpg", "../b.jpg", "c.jpg"])}, "inside the folder"),
    ],
)
def test_npz_rows_at_fault(tmp_path, changes, words):
    people, problems = read_people(write_npz(tmp_path / "a.npz", plain_arrays(**changes)))
    assert people.annotation_id.tolist() == [0, 2]
    assert [p.row for p in problems] == [1]
    assert words in problems[0].reason


class _Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("bomb"),))


def test_npz_never_unpickles(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    array = io.BytesIO()
    header = {"descr": "|O", "fortran_order": False, "shape": (3,)}
    np.lib.format.write_array_header_1_0(array, header)
    path = write_npz(tmp_path / "a.npz", plain_arrays(width=None))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("width.npy", array.getvalue() + pickle.dumps(_Bomb()))
    with pytest.raises(InputError, match="numbers and strings only"):
        read_people(path)
    assert not (tmp_path / "bomb").exists()


# --- the formats together ---


def test_the_command_line_offers_every_format():
    assert KEYPOINT_FORMATS == FORMATS


def test_formats_are_told_by_content_not_by_name(tmp_path):
    paths = {
        "coco": write(tmp_path / "a.npz", coco_file()),
        "openpose": write(tmp_path / "b", {"people": []}),
        "npz": tmp_path / "c.json",
    }
    with paths["npz"].open("wb") as stream:
        np.savez(stream, **plain_arrays())
    assert {name: recognise_format(path) for name, path in paths.items()} == {
        name: name for name in paths
    }
    folder = tmp_path / "folder"
    folder.mkdir()
    write(folder / "x_keypoints.json", {"people": []})
    assert recognise_format(folder) == "openpose"
    with pytest.raises(InputError, match="none does not exist"):
        recognise_format(tmp_path / "none")


def test_unknown_content_is_answered_with_what_is_known(tmp_path):
    known = "MMPose's instance_info .*, or COCO's images and annotations, or OpenPose's people .*"
    with pytest.raises(InputError, match=f"top level holds 'shapes'; expected {known}"):
        read_people(write(tmp_path / "a.json", {"shapes": []}))
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(InputError, match=f"it holds nothing; expected {known}"):
        read_people(folder)
    with pytest.raises(InputError, match=r"holds no \*_keypoints\.json \(it holds nothing\)"):
        read_people(folder, keypoint_format="openpose", images=tmp_path)


# --- files of no use ---


def test_paths_of_no_use(tmp_path):
    def fails(content: bytes | None, words: str, **options: Any) -> None:
        path = tmp_path / "file"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(InputError, match=words) as caught:
            read_people(path, **options)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)

    fails(None, "does not exist")
    for keypoint_format in ("auto", "coco", "openpose", "npz"):
        fails(b"", "is empty", keypoint_format=keypoint_format, images=tmp_path)
    fails(b'{"images": [', "not valid JSON")
    fails(b"\xff\xd8\xff\xe0", "neither JSON, .npz, .mat, .pkl nor .parquet")
    fails(b"[" * 100_000, "not valid JSON")
    fails(b'{"\xff": 1}', "not valid JSON")
    fails(b"3", "a single int", keypoint_format="coco")
    fails(b'{"shapes": [], "version": 5}', "top level holds 'shapes', 'version'")
    fails(b'{"annotations": []}', "no list of images")
    fails(b'{"people": []}', "no list of annotations.*'people'", keypoint_format="coco")
    fails(b"PK\x03\x04 not a zip", "cannot be read as .npz")
    fails(b"\x93NUMPY\x01\x00", "a single array")


def test_folders_of_no_use(tmp_path):
    with pytest.raises(InputError, match=r"it holds nothing"):
        read_people(tmp_path)
    (tmp_path / "a.txt").touch()
    with pytest.raises(InputError, match=r"it holds a\.txt"):
        read_people(tmp_path)
    with pytest.raises(InputError, match=r"cannot be read"):
        read_people(tmp_path, keypoint_format="coco")
    with pytest.raises(InputError, match="unknown keypoint format 'cocoo'"):
        read_people(tmp_path, keypoint_format="cocoo")
    with pytest.raises(InputError, match="is not a folder"):
        read_people(tmp_path, images=tmp_path / "none")


def test_byte_order_mark(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(coco_file(coco_person(1))).encode())
    assert len(read_people(path)[0]) == 1


_JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3)
    ),
    max_leaves=5,
)


@settings(max_examples=150)
@given(data=st.data())
def test_any_damage_to_a_coco_file_is_a_problem_or_one_sentence(data, tmp_path_factory):
    document = coco_file(coco_person(0), coco_person(1))
    del document["categories"][1]
    places: list[tuple[Any, Any]] = [(document, key) for key in document]
    for record in (*document["images"], *document["annotations"], *document["categories"]):
        places += [(record, key) for key in record]
    places += [(document["annotations"][1]["keypoints"], i) for i in range(3)]
    holder, key = data.draw(st.sampled_from(places))
    holder[key] = data.draw(_JSON_VALUES)
    path = write(tmp_path_factory.mktemp("damage") / "a.json", copy.deepcopy(document))
    try:
        people, problems = read_people(path)
    except InputError as error:
        assert str(path) in str(error)
        assert "\n" not in str(error)
        return
    assert np.isfinite(people.keypoints_2d).all()
    assert ((people.conf >= 0) & (people.conf <= 1)).all()
    assert len(people) + len(problems) <= len(document["annotations"])


# --- the record itself ---


def make_people(N: int, **changes: Any) -> People:
    columns = {
        "keypoint_set": "lsp14",
        "image": np.array([f"{n}.jpg" for n in range(N)], dtype=np.str_),
        "person": np.zeros(N),
        "annotation_id": np.arange(N),
        "width": np.full(N, 640),
        "height": np.full(N, 480),
        "keypoints_2d": np.ones((N, 14, 2)),
        "conf": np.ones((N, 14)),
        "focal": np.full(N, np.nan),
    }
    return People(**(columns | changes))


def test_people_have_exact_types_and_reject_other_shapes():
    people = make_people(2)
    types = {name: getattr(people, name).dtype for name in ("person", "annotation_id", "conf")}
    assert types == {"person": np.int32, "annotation_id": np.int64, "conf": np.float32}
    with pytest.raises(ValueError, match=r"keypoints_2d must be \(2, 14, 2\), got \(2, 14, 3\)"):
        make_people(2, keypoints_2d=np.ones((2, 14, 3)))
    with pytest.raises(TypeError, match="focals"):
        make_people(2, focals=np.ones(2))


def test_integers_saturate_rather_than_wrap():
    people = make_people(3, width=np.array([2.0**40, np.nan, -np.inf]), height=np.uint64([1, 2, 3]))
    assert people.width[0] > 1_000_000
    assert people.width[1:].max() <= 0
    assert make_people(1, width=np.uint64([2**63])).width[0] == 2**31 - 1
    assert make_people(1, width=np.array([2**40])).width[0] == 2**31 - 1


def test_select_and_concatenate():
    people = make_people(4)
    for index in (np.array([False, True, False, True]), [1, 3], slice(1, None, 2)):
        assert people.select(index).annotation_id.tolist() == [1, 3]
    assert len(people.select([])) == 0
    tracked = make_people(1, track=np.array([9]))
    both = concatenate([people, tracked])
    assert both.track is not None
    assert both.track.tolist() == [-1, -1, -1, -1, 9]
    assert concatenate([people, people]).track is None
    with pytest.raises(ValueError, match="coco17, lsp14"):
        concatenate([people, make_people(1, keypoint_set="coco17")])
    with pytest.raises(ValueError, match="got none"):
        concatenate([])


def test_check_rows_reports_the_callers_names_and_leaves_its_input():
    conf = np.ones((3, 14))
    conf[0] = 0
    conf[2, 5] = np.nan
    people = make_people(3, conf=conf)
    good, problems = check_rows(people, np.array(["x", "y", "z"]), np.array([10, 20, 30]))
    assert len(good) == 2
    assert [(p.file, p.row) for p in problems] == [("z", 30)]
    assert (good.keypoints_2d[0] == 0).all()
    assert (people.keypoints_2d == 1).all()


@given(st.lists(st.sampled_from(["", "a", "b", "c"]), max_size=20))
def test_index_within_image_counts_earlier_rows(names):
    expected = [names[:n].count(name) for n, name in enumerate(names)]
    assert index_within_image(np.array(names, dtype=np.str_)).tolist() == expected
