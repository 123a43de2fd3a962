"""The benchmark of image regressors: its arithmetic, its configs, and that it runs."""

from __future__ import annotations

import importlib
import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from fitting.files import InputError
from regressor.synthetic.rendered_set import SetConfig
from regressor.synthetic.rendering import PictureConfig

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def regressors(benchmark):
    return benchmark("regressors")


def record(run, seed, clear, occluded=0.0):
    return {
        "run": run,
        "seed": seed,
        "errors": {"clear": {"pa_mpjpe_mm": clear}, "occluded": {"pa_mpjpe_mm": occluded}},
    }


def test_claims_are_seen_only_in_every_seed(regressors):
    records = [
        record("sequential", 0, 100.0),
        record("iterative", 0, 90.0),
        record("sequential", 1, 100.0),
        record("iterative", 1, 101.0),
        record("lite0", 0, 60.0, 80.0),
        record("lite0_parts", 0, 70.0, 75.0),
    ]
    feedback, pretrained, attention = regressors.compare(records)
    assert (feedback["worse"], feedback["better"]) == ("sequential", "iterative")
    assert feedback["differences_mm"] == [-10.0, 1.0]
    assert feedback["better_pa_mpjpe_mm"] == 95.5
    assert not feedback["seen"]
    assert pretrained["differences_mm"] == [-30.0]  # the seed that both have
    assert attention["on"] == "occluded"
    assert attention["differences_mm"] == [-5.0]
    assert attention["seen"]


def test_the_best_is_measured_by_the_baseline(regressors):
    records = [record("sequential", 0, 80.0), record("lite0", 0, 60.0), record("unpaired", 0, 90.0)]
    best = regressors.find_best(records)
    assert (best["run"], best["lower_by"]) == ("lite0", 0.25)
    assert regressors.find_best(records[1:]) is None


def test_claims_are_about_runs_that_there_are(regressors):
    names = [run.name for run in regressors.RUNS]
    assert len(set(names)) == len(names)
    assert regressors.BASELINE in names
    for claim in regressors.COMPARISONS:
        assert {claim.worse, claim.better} <= set(names)
        assert claim.on in regressors.TEST_SETS


def settings(regressors, folder):
    return regressors.Settings(
        cache=folder,
        steps=40,
        pictures=4,
        judged=2,
        crop_size=64,
        batch_size=2,
        evaluations=2,
        device="cpu",
        jobs=1,
    )


def test_runs_differ_in_nothing_but_what_they_compare(regressors, tmp_path):
    common = settings(regressors, tmp_path)
    configs = {r.name: regressors.configure(r, 3, common) for r in regressors.RUNS}
    for config in configs.values():
        assert config.seed == 3
        assert replace(config.training, optimizer=None) == replace(
            configs["sequential"].training, optimizer=None
        )
        assert replace(config.data, crop_size=64) == replace(
            configs["sequential"].data, crop_size=64
        )
        assert config.training.evaluate_every == 20
        assert config.training.schedule.name == "cosine"
    assert configs["lite0_frozen"].network.frozen
    assert configs["lite0_vertices"].loss.wanted == {"keypoints_2d", "vertices", "location"}
    assert configs["unpaired"].loss.wanted == {"keypoints_2d", "camera"}
    assert configs["unpaired"].loss == configs["unpaired_adversarial"].loss
    assert configs["unpaired_adversarial"].adversarial.encoder == 1
    assert configs["lite0_parts"].network.head == "part_attention"


def test_pictures_are_drawn_once_and_not_taken_for_others(regressors, tmp_path):
    config = SetConfig(count=1, pictures=PictureConfig(size=(32, 32)), jobs=1)
    regressors.prepare_set(tmp_path / "set", config)
    picture = tmp_path / "set" / "images" / "000000.jpg"
    drawn = picture.stat().st_mtime_ns
    regressors.prepare_set(tmp_path / "set", config)
    assert picture.stat().st_mtime_ns == drawn
    with pytest.raises(InputError, match="pictures of other settings; give another --cache"):
        regressors.prepare_set(tmp_path / "set", SetConfig(count=2, jobs=1))


def test_it_runs(regressors, tmp_path):
    options = {
        "--cache": tmp_path / "cache",
        "--output": tmp_path / "regressors.json",
        "--steps": 1,
        "--pictures": 4,
        "--judged": 2,
        "--crop-size": 32,
        "--batch-size": 2,
        "--evaluations": 1,
        "--seeds": 1,
        "--jobs": 1,
        "--only": "sequential",
    }
    arguments = [str(part) for pair in options.items() for part in pair]
    done = CliRunner().invoke(regressors.main, arguments)
    assert done.exit_code == 0, done.output + repr(done.exception)
    found = json.loads((tmp_path / "regressors.json").read_text(encoding="utf-8"))
    (run,) = found["runs"]
    assert (run["run"], run["seed"], found["best"]["lower_by"]) == ("sequential", 0, 0)
    assert run["curve"][-1]["step"] == run["steps"] >= 1
    assert run["errors"]["clear"]["pa_mpjpe_mm"] != run["errors"]["occluded"]["pa_mpjpe_mm"] > 0
    assert str(tmp_path) not in found["command"]
    assert "machine" in found


def test_the_table_says_what_is_not_seen():
    path = ROOT / "tools" / "update_readme.py"
    spec = importlib.util.spec_from_file_location("update_readme", path)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    errors = {"mpjpe_mm": 80.4, "pa_mpjpe_mm": 50.0, "pve_mm": 99.6}
    run = {"run": "lite0", "what": "it", "trained_weights": 6.1e6}
    claim = {
        "claim": "more is better",
        "source": "A. Author",
        "worse_pa_mpjpe_mm": 50.0,
        "better_pa_mpjpe_mm": 51.0,
        "differences_mm": [-1.0, 3.0],
        "seen": False,
    }
    networks = [
        {"network": name, "results": [{"noise": "2px", "pa_mpjpe": error}]}
        for name, error in (("pose2mesh", 61.0), ("lift", 40.0))
    ]
    best = {
        "run": "lite0",
        "pa_mpjpe_mm": 50.0,
        "baseline": "sequential",
        "baseline_pa_mpjpe_mm": 62.5,
        "lower_by": 0.2,
    }
    machine = {"cores": 2, "processor": "a CPU"}
    record = {
        "runs": [
            {
                **run,
                "steps": steps,
                "errors": {"clear": errors, "occluded": {**errors, "pve_mm": x}},
            }
            for steps, x in ((400, 100.0), (420, 102.0))
        ],
        "comparisons": [claim],
        "best": best,
        "command": "python it",
        "date": "2026-01-01T00:00:00",
        "machine": machine,
        "versions": {"torch": "2"},
    }
    table = tool.regressors_table(record, {"networks": networks})
    assert "| 400 and 420 | 80 / 50 / 100 | 80 / 50 / 101 |" in table
    assert "| A. Author | 50.0 → 51.0 | -1.0, +3.0 | **no** |" in table
    assert "| 40.0 → 61.0 | | **no** |" in table
    assert "`lite0`: PA-MPJPE 50.0 mm, 20% less than `sequential` with PA-MPJPE 62.5 mm" in table
    none_better = {**record, "best": {**best, "run": "sequential"}}
    assert "No run is better than `sequential`" in tool.regressors_table(none_better, None)
