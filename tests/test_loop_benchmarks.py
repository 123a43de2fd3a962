"""The benchmarks of the loop: their arithmetic, and that they run."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from fitting.images import write_image
from fitting.table import read_fits


def run(module, *options):
    result = CliRunner().invoke(module.main, [str(option) for option in options])
    assert result.exit_code == 0, result.output


def test_what_is_gained_is_of_means_over_seeds(benchmark):
    errors = {
        "keypoints": [140, 160], "full": [90, 110], "static_lift": [124, 116],
        "loop_lift": [100, 104],
    }  # fmt: skip
    records = [
        {"variant": name, "pa_mpjpe_mm": error}
        for name, values in errors.items()
        for error in values
    ]
    found = benchmark("loop_gain").compare(records)
    assert found["loop_below_static_lift"] == pytest.approx(1 - 102 / 120)
    assert found["gap_closed_lift"] == pytest.approx(48 / 50)
    assert "gap_closed_mean" not in found


def test_thresholds_keep_the_surest(benchmark):
    std, errors = np.arange(40.0)[::-1], np.arange(40.0)[::-1] ** 2
    points = benchmark("label_quality").curve(std, errors)
    assert [p["kept"] for p in points[::10]] == [0.05, 0.55]
    assert points[0]["mpjpe_mm"] == 0.5  # 0 and 1
    assert points[0]["largest_std_mm"] == 1
    assert points[-1]["mpjpe_mm"] == pytest.approx(39 * 40 * 79 / 6 / 40)


def test_gains_are_measured(benchmark, tmp_path):
    module = benchmark("loop_gain")
    only = [o for name in ("keypoints", "loop_mean", "full") for o in ("--only", name)]
    settings = ["--people", 6, "--judged", 4, "--steps", 2, "--batch-size", 2, "--seeds", 1]
    command = ["--cache", tmp_path, *settings, *only, "--output", tmp_path / "gain.json"]
    run(module, *command)
    found = json.loads((tmp_path / "gain.json").read_text())
    assert [record["variant"] for record in found["runs"]] == ["keypoints", "loop_mean", "full"]
    assert found["runs"][1]["fits"]["mpjpe_mm"] > 0
    assert np.isfinite(found["compared"]["gap_closed_mean"])
    truth, seen = (read_fits(tmp_path / p) for p in ("train/truth.parquet", "observed.parquet"))
    moved = seen.column_array("keypoints_2d") != truth.column_array("keypoints_2d")
    assert moved.any()
    np.testing.assert_array_equal(seen.column_array("betas"), truth.column_array("betas"))
    run(module, *command)  # whoever was stopped goes on: what was trained is not trained again
    assert json.loads((tmp_path / "gain.json").read_text())["runs"] == found["runs"]
    run(module, *command, "--steps", 3, "--only", "full")
    again = {r["variant"]: r for r in json.loads((tmp_path / "gain.json").read_text())["runs"]}
    assert again["full"]["finished"] > found["runs"][2]["finished"]


def test_cost_is_measured(benchmark, tmp_path):
    module = benchmark("loop")
    settings = ["--encoder", "resnet18", "--batch-size", 2, "--crop-size", 64, "--turns", 1]
    run(module, *settings, "--precision", "float32", "--output", tmp_path / "loop.json")
    found = json.loads((tmp_path / "loop.json").read_text())
    assert set(found["share_added"]) == {"lm", "adam"}
    assert found["seconds_added"]["adam"] > found["seconds_added"]["lm"]


def test_gains_on_photographs_are_measured(benchmark, tmp_path, monkeypatch):
    module = benchmark("loop_photos")
    names = [variant.name for variant in module.variants()]
    assert names[:2] == ["keypoints", "adversarial_1"]
    chosen = [v for v in module.variants() if v.name in ("adversarial_0.1", "loop_lift")]
    monkeypatch.setattr(module, "variants", lambda: chosen)
    write_photographs(tmp_path / "photographs", module.LSP, count=20)
    settings = ["--steps", 2, "--batch-size", 2, "--seeds", 1]
    folders = ["--photographs", tmp_path / "photographs", "--cache", tmp_path / "cache"]
    run(module, *folders, *settings, "--output", tmp_path / "photos.json")
    found = json.loads((tmp_path / "photos.json").read_text())
    assert (found["learned_from"], found["held_out"]) == (18, 2)
    assert found["static_fits"]["pck_02"] > 0.9
    assert [record["variant"] for record in found["runs"]] == ["adversarial_0.1", "loop_lift"]
    assert found["runs"][1]["fits"]["pck_02"] > 0.9
    assert (tmp_path / "cache/runs/loop_lift-0.png").exists()


def write_photographs(folder, keypoints, count):
    """Pictures of noise in which somebody stands, with their joints, as LSP-extended's are."""
    names = keypoints.names
    heights = {"ankle": 210, "knee": 165, "hip": 115, "wrist": 120, "elbow": 90, "shoulder": 60}
    at = np.full((len(names), 3), 1.0)
    for i, name in enumerate(names):
        side, _, part = name.partition("_")
        beside = {"right": -20, "left": 20}.get(side, 0)
        at[i, :2] = 128 + beside, heights.get(part, 50 if name == "neck" else 25)
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    images = [f"im{i:05}.png" for i in range(count)]
    for image in images:
        write_image(folder / "images" / image, rng.integers(0, 255, (256, 256, 3), dtype=np.uint8))
    moved = at + rng.normal(size=(count, len(names), 3)) * [3, 3, 0]
    np.savez(folder / "keypoints.npz", imgname=images, keypoints_2d=moved, joint_names=names)
