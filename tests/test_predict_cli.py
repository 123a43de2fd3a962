"""`fit-cli predict`, and `fit-cli fit --init` with an image regressor, as a user meets them."""

from __future__ import annotations

import json
import re
import shlex
import time
from pathlib import Path

import numpy as np
import pytest
from untrained import save_untrained

from fitting.body import load_body
from fitting.map_fit import LmConfig, Stage
from fitting.offline import SOLVERS
from fitting.table import read_fits
from regressor.synthetic.rendered_set import SetConfig, write_rendered_set
from regressor.synthetic.rendering import PictureConfig

PAGE = Path(__file__).resolve().parents[1] / "docs" / "regressors.md"
KEYPOINTS = ("--keypoints", "PEOPLE/person_keypoints.json")
PLAIN = ("--no-overlays", "--no-report")


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setitem(SOLVERS, "lm", lambda: LmConfig(stages=(Stage(steps=2),)))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Drawn people, and a checkpoint of a network that has learned nothing."""
    folder = tmp_path_factory.mktemp("predict")
    pictures = PictureConfig(size=(96, 72), crop=False, people=2)
    write_rendered_set(folder / "PEOPLE", SetConfig(count=3, pictures=pictures, jobs=1))
    (folder / "RUN").mkdir()
    save_untrained(folder / "RUN" / "best.pt")
    save_untrained(folder / "RUN" / "other.pt", body_sha256="0" * 64)
    return folder


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    """A folder of one's own with the same files."""
    for path in made.rglob("*"):
        if path.is_file():
            target = tmp_path / path.relative_to(made)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.hardlink_to(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def record_of(folder):
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))


def shown_commands():
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    commands = [shlex.split(line)[1:] for line in lines if line.startswith("fit-cli")]
    return [c for c in commands if c[0] == "predict" or "--init" in c]


def test_the_shown_commands(fit_cli, folder):
    """They leave what they say, and the fits begin where the predictions are."""
    predicting, fitting = shown_commands()
    code, said, err = fit_cli(*predicting)
    assert (code, err) == (0, "")
    table, record = read_fits("PREDICTED"), record_of(folder / "PREDICTED")
    truth = read_fits("PEOPLE/truth.parquet")
    assert table.column_array("image").tolist() == truth.column_array("image").tolist()
    seen = np.isin(table.column_array("status"), ["predicted"])
    assert record["counts"]["predicted"] == seen.sum() > 2
    assert f"{seen.sum()} of {len(truth)} people predicted" in said
    assert set(table.column_array("init")) == {"network"}
    assert table.metadata["body_sha256"] == load_body().sha256
    assert set(record["seconds"]) == {"load", "detect", "predict", "write"}
    page = (folder / "PREDICTED" / "report.html").read_text(encoding="utf-8")
    assert "people/000000_overlay.jpg" in page
    assert len(list((folder / "PREDICTED" / "overlays").iterdir())) == 3
    code, said, err = fit_cli(*fitting)
    assert (code, err) == (0, "")
    assert set(read_fits("FITTED").column_array("init")[seen]) == {"given"}


def test_predicting_first_is_as_giving_the_predictions(fit_cli, folder):
    code, _, err = fit_cli("predict", "PEOPLE/images", *KEYPOINTS, "--checkpoint", "RUN/best.pt",
                           "-o", "P", *PLAIN)  # fmt: skip
    assert (code, err) == (0, "")
    for init, out in (("P", "A"), ("RUN/best.pt", "B")):
        code, _, err = fit_cli(
            "fit", "PEOPLE/images", *KEYPOINTS, "--init", init, "-o", out, *PLAIN
        )
        assert (code, err) == (0, "")
    given, at_once = read_fits("A"), read_fits("B")
    assert given.columns.equals(at_once.columns)
    assert record_of(folder / "B")["counts"]["without_estimate"] == 0
    assert record_of(folder / "B")["command"]["init"] == "RUN/best.pt"
    assert record_of(folder / "B")["command"]["proximal_std"] == 0.2


def test_predicting_counts_among_the_seconds(fit_cli, folder, monkeypatch):
    from regressor.predict import Predictor

    predict_people = Predictor.predict_people

    def slowly(self, *args, **options):
        time.sleep(1)
        return predict_people(self, *args, **options)

    monkeypatch.setattr(Predictor, "predict_people", slowly)
    options = ("PEOPLE/images", *KEYPOINTS, "--init", "RUN/best.pt", "-o", "F", *PLAIN)
    assert fit_cli("fit", *options)[0] == 0
    assert record_of(folder / "F")["seconds"]["init"] > 1


def test_batches_and_jobs_change_nothing(fit_cli, folder):
    for out, options in {"A": ("--batch-size", 1, "--jobs", 1), "B": ("--jobs", 3)}.items():
        code, _, _ = fit_cli("predict", "PEOPLE/images", *KEYPOINTS, "--checkpoint", "RUN/best.pt",
                             "-o", out, *options, *PLAIN)  # fmt: skip
        assert code == 0
    one, two = read_fits("A"), read_fits("B")
    for name in ("body_pose", "betas", "transl"):
        np.testing.assert_allclose(
            one.column_array(name), two.column_array(name), rtol=1e-3, atol=1e-4
        )


def test_a_bad_picture_is_named_once_and_the_others_go_on(fit_cli, folder):
    """In the order of the pictures; whom no one sees is fitted from the lifter's estimate."""
    (folder / "PEOPLE" / "images" / "000001.jpg").unlink()
    cut = (folder / "PEOPLE" / "images" / "000002.jpg").read_bytes()[:200]
    (folder / "PEOPLE" / "images" / "000002.jpg").unlink()
    (folder / "PEOPLE" / "images" / "000002.jpg").write_bytes(cut)
    options = ("PEOPLE/images", *KEYPOINTS, "-o")
    for code, said, err in (
        fit_cli("predict", *options, "P", "--checkpoint", "RUN/best.pt", *PLAIN),
        fit_cli("fit", *options, "F", "--init", "RUN/best.pt", *PLAIN),
    ):
        assert code == 1
        assert "people" in said
        assert err.count("fit-cli:") == err.count("\n") == 2
        assert "000001.jpg" in err and "000002.jpg" in err
    table, fits = read_fits("P"), read_fits("F")
    bad = np.isin(table.column_array("image"), ["000001.jpg", "000002.jpg"])
    assert set(table.column_array("status")[bad]) <= {"no_picture", "no_keypoints"}
    assert set(table.column_array("status")[~bad]) <= {"predicted", "no_keypoints"}
    assert set(fits.column_array("init")[bad]) == {"lift"}
    assert len(record_of(folder / "P")["problems"]) == 2


def test_people_are_detected_where_there_are_no_keypoints(fit_cli, folder, monkeypatch):
    import fitting.sources
    from fitting.detector import Detection

    class OnePerson:
        keypoint_set = "coco17"

        def __call__(self, image):
            xy = np.random.default_rng(0).uniform(10, 70, (17, 2))
            return [Detection(keypoints_2d=xy, conf=np.full(17, 0.9), score=0.9)]

    monkeypatch.setattr(fitting.sources, "load_detector", lambda name: OnePerson())
    options = ("--checkpoint", "RUN/best.pt", "--focal", 200, "--limit", 3, *PLAIN)
    code, said, _ = fit_cli("predict", "PEOPLE/images", "-o", "P", *options)
    assert code == 0
    assert "3 of 3 people predicted" in said
    assert (read_fits("P").column_array("fx") == 200).all()
    code, said, _ = fit_cli("predict", "PEOPLE/images/000000.jpg", "-o", "Q", *options)
    assert "1 of 1 people predicted" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("no", "--checkpoint", "RUN/best.pt"), "no: no such file or folder"),
        (("PEOPLE/images", *KEYPOINTS, "--checkpoint", "RUN/no.pt"), "RUN/no.pt: no such file"),
        (
            ("PEOPLE/images", *KEYPOINTS, "--checkpoint", "RUN/other.pt"),
            "trained for the body 0000",
        ),
        (("PEOPLE/images", *KEYPOINTS, "--checkpoint", "PEOPLE/truth.parquet"), "is no checkpoint"),
        (
            ("PEOPLE/person_keypoints.json", "--checkpoint", "RUN/best.pt"),
            "names with --images",
        ),
    ],
)
def test_what_cannot_be_used_is_one_sentence(fit_cli, folder, arguments, message):
    code, _, err = fit_cli("predict", *arguments, "-o", "OUT")
    assert code == 2
    assert message in err
    assert len(err.splitlines()) == 1


def test_a_start_that_sees_pictures_needs_them(fit_cli, folder):
    code, _, err = fit_cli("fit", KEYPOINTS[1], "--init", "RUN/best.pt", "-o", "OUT")
    assert code == 2
    assert "RUN/best.pt sees pictures" in err


def test_an_earlier_run_is_replaced_only_if_asked(fit_cli, folder):
    options = ("PEOPLE/images", *KEYPOINTS, "--checkpoint", "RUN/best.pt", "-o", "P")
    old = folder / "P" / "people" / "000000_photo.jpg"
    old.parent.mkdir(parents=True)
    old.touch()
    code, _, err = fit_cli("predict", *options, *PLAIN)
    assert code == 2
    assert "--overwrite" in err
    code, _, _ = fit_cli("predict", *options, *PLAIN, "--overwrite")
    assert code == 0
    assert not old.exists()


def test_every_status_is_described():
    from regressor import prediction_run

    page = (PAGE.parent / "conventions.md").read_text(encoding="utf-8")
    assert re.search(f"`{prediction_run.PREDICTED}`.*`{prediction_run.NO_PICTURE}`", page)
