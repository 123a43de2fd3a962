"""The web page of a training run, parsed back with the standard library."""

from __future__ import annotations

import json

import numpy as np
import pytest
import roma
import torch
from test_page import Parsed
from timing import seconds_of

from cli.page_curves import MAX_POINTS, read_log, speeds_of, thin
from cli.page_store import count_bins
from cli.report import write_report
from fitting.body import forward_kinematics
from regressor.run_log import METRICS_NAME, TIMES_NAME
from tests.training_runs import (
    DATASET,
    FOCAL,
    HOSTILE,
    SIZE,
    STEPS,
    write_album,
    write_log,
    write_run,
)


def page_of(folder, **options):
    write_report(folder, **options)
    return Parsed(folder / "report.html")


@pytest.fixture(scope="module")
def run(tmp_path_factory, body):
    folder = tmp_path_factory.mktemp("run_<b>")
    return folder, *write_run(folder, body)


@pytest.fixture(scope="module")
def page(run):
    return page_of(run[0])


def curves_of(page, kind="charts"):
    return {
        (chart["name"], curve["name"]): (curve["steps"], curve["values"])
        for chart in page.about[kind]
        for curve in chart["curves"]
    }


def test_curves_are_those_of_the_log(page):
    curves = curves_of(page)
    assert {chart for chart, _ in curves} == {
        "Loss", "Error of people held out", "Parts of the loss, unweighted", "pck_2d",
        "Learning rate", "Steps per second",
    }  # fmt: skip
    steps, values = curves["Error of people held out", "pa_mpjpe"]
    assert steps == [100, 200, 300]
    assert values == [150.0, 105.0, 90.0]
    assert curves["Loss", "loss"][0] == list(range(10, 301, 10))
    assert set(curves["Steps per second", "steps per second"][1]) == {2.0}
    store = curves_of(page, "storeCharts")
    assert store["Where the fits come from", "loop"] == ([100, 200, 300], [0.0, 0.5, 0.66667])
    assert ("Where the fits come from", "regressor") not in store


def test_summary_says_how_the_run_ended(page):
    for text in ("image", "300 of 300", "finished", "2 min", "best pa mpjpe mm, at step 300", "90"):
        assert text in page.text


def test_names_are_shown_as_text(run, page):
    assert f"Training of {run[0].name}" in page.text
    assert page.about["people"][1]["title"] == HOSTILE
    assert any(DATASET in text for text in page.text)
    assert not page.all("b") and page.open == []
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)


def test_hostile_logs_are_shown_as_text(tmp_path):
    name = "</script><script>alert(1)</script>"
    line = {"step": 1, "losses": {"loss": 1.0, name: 2.0}, "metrics": {"__proto__": 1.0}}
    (tmp_path / METRICS_NAME).write_text(json.dumps(line) + "\n")
    (tmp_path / "config.yaml").write_text("</pre></script><b>")
    page = page_of(tmp_path)
    assert not page.all("b") and page.open == []
    assert ("Parts of the loss, unweighted", name) in curves_of(page)
    assert "</pre></script><b>" in page.text


def test_only_the_pages_own_scripts_may_run(page):
    (policy,) = (
        attrs["content"] for attrs in page.all("meta") if attrs.get("http-equiv") is not None
    )
    assert policy.startswith("default-src 'none'; ")
    assert not any("src" in attrs for attrs in page.all("script"))
    assert [link["href"] for link in page.all("link")] == ["data:,"]


def test_people_are_those_of_the_snapshots(run, page, body):
    """Joints and errors, derived once more from the parameters."""
    _, estimates, against = run
    about = page.about
    assert about["steps"] == list(STEPS)
    assert [person["against"] for person in about["people"]] == ["truth", "fit", "fit"]
    joints = {}
    for name, params in (("estimate", estimates), ("fit", against)):
        first, length = about["layout"][name]
        part = page.records[:, first : first + length].reshape(params.shape)
        np.testing.assert_allclose(part, params, rtol=1e-6, atol=1e-6)
        joints[name] = posed(params.reshape(-1, 85), body)
        first, length = about["layout"][f"{name}Points"]
        points = page.records[:, first : first + length].reshape(-1, 24, 2)
        expected = FOCAL * joints[name][..., :2] / joints[name][..., 2:] + (SIZE - 1) / 2
        np.testing.assert_allclose(points, expected, atol=2e-2)
    apart = [part - part[:, :1] for part in joints.values()]
    errors = 1000 * np.linalg.norm(apart[0] - apart[1], axis=2).mean(axis=1)
    shown = [np.nan if error is None else error for error in about["columns"]["error"]]
    np.testing.assert_allclose(shown, errors, rtol=1e-3)
    assert np.isnan(errors).sum() == 2  # of the one who had no fit


def posed(params, body):
    numbers = torch.from_numpy(params).float()
    rotations = roma.rotvec_to_rotmat(numbers[:, :72].reshape(-1, 24, 3))
    with torch.no_grad():
        _, joints = forward_kinematics(rotations, body.rest_joints(numbers[:, 72:82]))
    return (joints + numbers[:, None, 82:]).numpy()


def test_store_is_counted(page):
    rows = [text for text in page.text if text.strip()]
    assert rows[rows.index("loop: fitted while training, from estimates") + 1] == "26"
    assert rows[rows.index("static: from fit-cli fit, before training") + 1] == "10"
    assert rows[rows.index("no fit") + 1] == "4"
    assert dict(page.about["epochs"]) == {0: 4, 1: 4, 2: 4, 3: 4, 4: 5, 5: 5}
    counts = {h["name"]: sum(h["counts"]) for h in page.about["histograms"]}
    assert counts == dict.fromkeys(
        ("Cost of the fits", "σ of the fits, mean of the joints", "Mean 2D error of the fits"), 36
    )


def test_people_left_out_are_counted_with_their_reasons(page):
    rows = [text for text in page.text if text.strip()]
    at = [i for i, text in enumerate(rows) if text == DATASET]
    assert {rows[i + 1]: rows[i + 2] for i in at} == {
        "no picture, too small, or too few keypoints seen (data.filter)": "7",
        "no fit": "4",
        "2D error above 10% of the person’s size": "3",
        "a beta above 4": "2",
    }


def test_a_page_can_be_made_without_the_body(run, tmp_path, body):
    write_log(tmp_path, 100)
    write_album(tmp_path, body)
    page = page_of(tmp_path, mesh=False)
    assert page.about["body"] is None and page.content("body") == ""
    assert len(page.about["people"]) == 3 and page.about["columns"]["error"][0] > 0


def test_a_run_without_pictures_has_curves_alone(tmp_path):
    write_log(tmp_path, 100)
    page = page_of(tmp_path)
    assert page.about["people"] == [] and page.about["histograms"] == []
    assert not page.all("dialog") and len(curves_of(page)) == 8
    assert (tmp_path / "report.html").stat().st_size < 100_000


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[1]\n{}\nnull\n", b"[" * 99999])
def test_damaged_runs_have_a_page(tmp_path, content, body):
    write_album(tmp_path, body)
    for name in ("run.json", "config.yaml", METRICS_NAME, TIMES_NAME):
        (tmp_path / name).write_bytes(content)
    for name in ("snapshots/people.parquet", "snapshots/step-0000000200.parquet"):
        page = page_of(tmp_path, mesh=False)
        assert page.about["charts"] == [] and "Nothing was logged yet." in page.text
        (tmp_path / name).write_bytes(content)


def test_a_killed_run_keeps_its_whole_lines(tmp_path):
    write_log(tmp_path, 100)
    with (tmp_path / METRICS_NAME).open("a") as stream:
        stream.write('{"step": 110, "losses": {"loss": NaN, "joints": 1e999}}\n{"step": 120, "lo')
    page = page_of(tmp_path)
    assert curves_of(page)["Loss", "loss"][0][-1] == 100
    assert any("has 1 lines that cannot be read" in text for text in page.text)


def test_a_hundred_thousand_lines_are_thinned(tmp_path):
    write_log(tmp_path, 100_000, every=1)
    assert seconds_of(lambda: page_of(tmp_path)) < 60  # about 3 s; docs/report.md
    page = page_of(tmp_path)
    steps, _ = curves_of(page)["Loss", "loss"]
    assert 300 < len(steps) <= MAX_POINTS and steps[-1] == 100_000
    assert (tmp_path / "report.html").stat().st_size < 500_000


def test_thinning_keeps_peaks_and_ends(rng):
    steps = np.arange(1, 50_001)
    values = rng.normal(size=50_000)
    values[12_345], values[40_000] = 99, -99
    kept, thinned = thin((steps, values))
    assert len(kept) <= MAX_POINTS and (np.diff(kept) > 0).all()
    assert (kept[0], kept[-1]) == (1, 50_000)
    np.testing.assert_array_equal(thinned, values[kept - 1])
    assert thinned.max() == 99 and thinned.min() == -99


def test_speed_is_that_between_lines():
    steps, rates = speeds_of((np.array([10, 20, 40]), np.array([5.0, 10.0, 30.0])))
    assert steps.tolist() == [10, 20, 40] and rates.tolist() == [2.0, 2.0, 1.0]


def test_bins_hold_every_value(rng):
    values = np.append(rng.gamma(2, 3, 500), [1e6, np.nan, np.inf])
    found = count_bins("x", "mm", values)
    assert sum(found.counts) == 501 and len(found.counts) <= 24
    edges = found.low + found.width * np.arange(len(found.counts))
    expected, _ = np.histogram(values[:501], np.append(edges, np.inf))
    assert found.counts == expected.tolist()
    assert count_bins("x", "", np.array([np.nan])) is None
    assert sum(count_bins("x", "", np.array([-7.0, -7.0])).counts) == 2


def test_lines_out_of_order_are_put_in_order(tmp_path):
    lines = [{"step": s, "lr": float(s)} for s in (3, 1, 2, 1)]
    (tmp_path / METRICS_NAME).write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    steps, values = read_log(tmp_path / METRICS_NAME, tmp_path / TIMES_NAME).of_kind("lr")[
        "learning rate"
    ]
    assert steps.tolist() == values.tolist() == [1, 2, 3]
