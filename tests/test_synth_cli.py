"""`fit-cli synth`: its files, read by others' eyes, and its errors."""

from __future__ import annotations

import hashlib
import importlib
import json

import cv2
import numpy as np
import pytest

from fitting.body import load_body
from fitting.images import read_image
from fitting.readers import read_people
from fitting.table import read_fits


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Four pictures of up to two people."""
    from regressor.synthetic.rendered_set import SetConfig, write_rendered_set
    from regressor.synthetic.rendering import PictureConfig

    folder = tmp_path_factory.mktemp("synth") / "set"
    pictures = PictureConfig(size=(160, 120), crop=False, people=2)
    write_rendered_set(folder, SetConfig(count=4, pictures=pictures, jobs=1))
    return folder


def digest(folder):
    """SHA-256 by file, without the record of times."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "run.json"
    }


def test_files_are_the_same_whatever_the_jobs(fit_cli, tmp_path):
    """33 pictures are two batches: in two processes, and one after another."""
    options = ("--count", 33, "--size", 32, "--seed", 3, "--quiet")
    for name, jobs in (("one", 1), ("two", 2)):
        code, said, err = fit_cli("synth", "-o", tmp_path / name, *options, "--jobs", jobs)
        assert (code, err) == (0, "")
        assert "33 pictures of 33 people" in said
    one, two = digest(tmp_path / "one"), digest(tmp_path / "two")
    assert len(one) == 2 * 33 + 2
    assert one == two
    fit_cli("synth", "-o", tmp_path / "other", "--count", 2, "--size", 32, "--seed", 4)
    fit_cli("synth", "-o", tmp_path / "fewer", "--count", 2, "--size", 32, "--seed", 3)
    other, fewer = digest(tmp_path / "other"), digest(tmp_path / "fewer")
    for name in ("images/000000.jpg", "images/000001.jpg", "masks/000001.png"):
        assert fewer[name] == one[name]
        assert other[name] != one[name]


SMALL = ("--count", 40, "--size", 32, "--quiet", "--jobs", 1)  # two batches


class KilledError(BaseException):
    """What no handler of the program catches, as a kill is."""


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """Digests of a run that was never killed."""
    from regressor.synthetic.rendered_set import SetConfig, write_rendered_set
    from regressor.synthetic.rendering import PictureConfig

    folder = tmp_path_factory.mktemp("unbroken") / "set"
    config = SetConfig(count=40, pictures=PictureConfig(size=(32, 32)), jobs=1)
    write_rendered_set(folder, config)
    return digest(folder)


@pytest.fixture
def kill(monkeypatch, tmp_path):
    """Kill a run of `SMALL` in tmp_path / "set" at the n-th call of a function."""
    from cli.main import main

    def run(module, name, n):
        calls = iter(range(1, n))
        function = getattr(module, name)

        def dying(*args, **options):
            if next(calls, None) is None:
                raise KilledError
            return function(*args, **options)

        with monkeypatch.context() as patch, pytest.raises(KilledError):
            patch.setattr(module, name, dying)
            main(["synth", "-o", str(tmp_path / "set"), *map(str, SMALL)])
        return tmp_path / "set"

    return run


@pytest.mark.parametrize(
    ("module", "name", "n", "found"),
    [
        ("rendered_batches", "write_json", 1, 0),  # before the first file
        ("rendered_batches", "write_image", 9, 0),
        ("rendered_batches", "write_image", 35, 32),  # in the second batch
        ("rendered_batches", "_checksum", 70, 32),
        ("rendered_set", "_write_coco", 1, 40),
        ("rendered_set", "write_json", 1, 40),  # run.json
    ],
)
def test_a_killed_run_goes_on_as_if_it_had_not_been(
    fit_cli, kill, unbroken, module, name, n, found
):
    folder = kill(importlib.import_module(f"regressor.synthetic.{module}"), name, n)
    assert not (folder / "run.json").exists()
    for half in (folder, folder / "images"):  # what a kill leaves of a file
        if half.is_dir():
            (half / ".000039.jpg.0123456789ab.tmp").write_bytes(b"half")
    code, said, err = fit_cli("synth", "-o", folder, *SMALL, "--resume")
    assert (code, err) == (0, "")
    assert "40 pictures of 40 people" in said
    assert digest(folder) == unbroken
    assert json.loads((folder / "run.json").read_text("utf-8"))["resumed_at"] == found


def test_pictures_that_the_disk_lost_are_drawn_again(fit_cli, kill, unbroken):
    """As after a power cut: names are there, contents are not."""
    from regressor.synthetic import rendered_set

    folder = kill(rendered_set, "_write_coco", 1)
    (folder / "images" / "000003.jpg").write_bytes(b"")
    code, *_ = fit_cli("synth", "-o", folder, *SMALL, "--resume")
    assert code == 0
    assert digest(folder) == unbroken
    assert json.loads((folder / "run.json").read_text("utf-8"))["resumed_at"] == 8


def test_a_finished_run_has_nothing_left_to_do(fit_cli, unbroken, tmp_path):
    for _ in range(2):  # the first one begins it
        code, said, _ = fit_cli("synth", "-o", tmp_path / "set", *SMALL, "--resume")
        assert code == 0 and "40 pictures" in said
        assert digest(tmp_path / "set") == unbroken
    record = json.loads((tmp_path / "set" / "run.json").read_text("utf-8"))
    assert record["resumed_at"] == 0
    code, _, err = fit_cli("synth", "-o", tmp_path / "set", *SMALL, "--resume", "--seed", 1)
    assert code == 2
    assert "a run with seed 0, not 1" in err


def test_another_run_is_not_resumed(fit_cli, kill, unbroken):
    from regressor.synthetic import rendered_batches

    folder = kill(rendered_batches, "write_image", 35)
    before = digest(folder)
    code, _, err = fit_cli("synth", "-o", folder, *SMALL, "--resume", "--occluded", 0.5)
    assert code == 2
    assert "pictures.occluded 0.3, not 0.5" in err and len(err.splitlines()) == 1
    code, _, err = fit_cli("synth", "-o", folder, *SMALL, "--resume", "--overwrite")
    assert code == 2 and "give one" in err
    code, _, err = fit_cli("synth", "-o", folder, *SMALL)
    assert code == 2 and "--overwrite" in err
    assert digest(folder) == before
    (folder / "unfinished" / "settings.json").write_text("{", "utf-8")
    code, _, err = fit_cli("synth", "-o", folder, *SMALL, "--resume")
    assert code == 2 and "settings.json is damaged" in err
    code, *_ = fit_cli("synth", "-o", folder, *SMALL, "--overwrite")
    assert code == 0
    assert digest(folder) == unbroken


def test_a_folder_of_other_things_is_no_run(fit_cli, tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"dear to somebody")
    code, _, err = fit_cli("synth", "-o", tmp_path, *SMALL, "--resume")
    assert code == 2
    assert "holds holiday.jpg but no run to resume" in err
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]


def test_the_reader_finds_the_truth(made):
    people, problems = read_people(made / "person_keypoints.json")
    truth = read_fits(made / "truth.parquet")
    assert not problems
    assert people.image.tolist() == truth.column_array("image").tolist()
    assert people.person.tolist() == truth.column_array("person").tolist()
    triplets = truth.column_array("keypoints_2d").reshape(len(truth), 17, 3)
    seen = people.conf > 0
    np.testing.assert_array_equal(seen, triplets[..., 2] > 0)
    np.testing.assert_allclose(people.keypoints_2d[seen], triplets[..., :2][seen], atol=1e-3)
    assert truth.metadata["body_sha256"] == load_body().sha256
    assert set(truth.column_array("status")) == {"truth"}


def test_boxes_areas_and_outlines_are_those_of_the_masks(made):
    document = json.loads((made / "person_keypoints.json").read_text("utf-8"))
    sizes = {image["id"]: image for image in document["images"]}
    covered = {i: np.zeros((120, 160), bool) for i in sizes}
    for a in document["annotations"]:
        runs = np.array(a["segmentation"]["counts"])
        values = np.repeat(np.arange(len(runs)) % 2, runs).astype(bool)
        mask = values.reshape(160, 120).T
        assert a["area"] == mask.sum() > 0
        assert a["bbox"] == list(cv2.boundingRect(mask.astype(np.uint8)))
        flags = np.array(a["keypoints"]).reshape(-1, 3)
        assert a["num_keypoints"] == (flags[:, 2] > 0).sum()
        assert not (covered[a["image_id"]] & mask).any()
        covered[a["image_id"]] |= mask
    for i, image in sizes.items():
        parts = cv2.imread(str(made / "masks" / f"{i:06d}.png"), cv2.IMREAD_UNCHANGED)
        assert parts.ndim == 2 and parts.max() <= 24
        np.testing.assert_array_equal(parts > 0, covered[i])
        assert read_image(made / "images" / image["file_name"]).shape == (120, 160, 3)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # its own
def test_pycocotools_reads_it(made):
    coco_module = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    coco = coco_module.COCO(str(made / "person_keypoints.json"))
    for annotation in coco.loadAnns(coco.getAnnIds()):
        assert coco.annToMask(annotation).sum() == annotation["area"]


def test_fit_and_evaluate_run_on_it(fit_cli, made, tmp_path):
    out = tmp_path / "fits"
    keypoints = made / "person_keypoints.json"
    code, _, err = fit_cli(
        "fit", made / "images", "--keypoints", keypoints, "-o", out, "--no-overlays", "--no-report"
    )
    assert (code, err) == (0, "")
    numbers = tmp_path / "numbers.json"
    code, _, _ = fit_cli("evaluate", out, made / "truth.parquet", "--json", numbers)
    assert code == 0
    found = json.loads(numbers.read_text("utf-8"))
    truth = read_fits(made / "truth.parquet")
    assert found["people"]["matched"] + found["people"]["missing"] == len(truth)
    assert found["smpl24"]["pa_mpjpe_mm"] < 200


def test_the_record_says_what_was_made(made):
    record = json.loads((made / "run.json").read_text("utf-8"))
    assert record["counts"]["pictures"] == 4
    assert record["command"]["pictures"]["size"] == [160, 120]
    assert set(record["seconds"]) == {"draw", "write"}


def test_backgrounds_are_the_users(fit_cli, tmp_path):
    folder, out = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    red = np.zeros((100, 140, 3), np.uint8)
    red[..., 2] = 255  # OpenCV's red
    cv2.imwrite(str(folder / "red.png"), red)
    (folder / "broken.jpg").write_bytes(b"no picture at all")
    code, said, err = fit_cli(
        "synth", "-o", out, "--count", 2, "--size", 64, "--backgrounds", folder, "--truncated", 0
    )
    assert code == 1
    assert "broken.jpg" in err and len(err.splitlines()) == 1
    assert "2 pictures" in said
    for i in range(2):
        r, g, b = read_image(out / "images" / f"{i:06d}.jpg")[:3, :3].mean(axis=(0, 1))
        assert r > 150
        assert max(g, b) < 100
    assert "broken.jpg" in json.loads((out / "run.json").read_text("utf-8"))["problems"][0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--count", 0), "0 is not in the range x>=1"),
        (("--count", 2, "--size", "big"), "neither a side in pixels nor WIDTHxHEIGHT"),
        (("--count", 2, "--size", "4"), "at least 16 x 16"),
        (("--count", 2, "--keypoint-set", "coco18"), "did you mean coco17"),
        (("--count", 2, "--body", "missing.npz"), "missing.npz"),
    ],
)
def test_bad_options_are_one_sentence(fit_cli, tmp_path, options, words):
    code, _, err = fit_cli("synth", "-o", tmp_path / "out", *options)
    assert code == 2
    assert words in err
    assert not (tmp_path / "out" / "run.json").exists()


def test_backgrounds_that_are_none(fit_cli, tmp_path):
    (tmp_path / "empty").mkdir()
    for folder, words in ((tmp_path / "empty", "found none"), (tmp_path / "no", "not a folder")):
        code, _, err = fit_cli(
            "synth", "-o", tmp_path / "out", "--count", 1, "--backgrounds", folder
        )
        assert code == 2
        assert words in err and len(err.splitlines()) == 1


def test_a_full_folder_is_left_alone(fit_cli, made):
    before = digest(made)
    code, _, err = fit_cli("synth", "-o", made, "--count", 1)
    assert code == 2
    assert "--overwrite" in err
    assert digest(made) == before
