"""`fit-cli train` as a user meets it: outputs, exit codes, interruption and one-sentence errors."""

from __future__ import annotations

import json
import os
import shutil
import signal

import pytest
import torch
from test_training import start_toy, wait_for_step
from timing import LONG
from toy_task import ENTRY

from regressor import load_checkpoint
from regressor.checkpoints import read_checkpoint
from regressor.run_log import read_metrics
from regressor.synthetic.rendered_set import SetConfig, write_rendered_set
from regressor.synthetic.rendering import PictureConfig
from regressor.tasks import TASKS

CONFIG = """\
task: toy
training:
  steps: 6
  batch_size: 8
  evaluate_every: 3
  log_every: 2
  save_every: 4
"""


@pytest.fixture(autouse=True)
def _toy(monkeypatch):
    monkeypatch.setitem(TASKS, "toy", ENTRY)


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "toy.yaml"
    path.write_text(CONFIG, encoding="utf-8")
    return path


def test_train_leaves_checkpoints_and_says_so(fit_cli, config, tmp_path):
    out = tmp_path / "run"
    code, said, heard = fit_cli("train", config, "-o", out)
    assert code == 0
    assert said.startswith("6 steps at ")
    assert f"at step 6 -> {out}\n" in said or f"at step 3 -> {out}\n" in said
    assert f"  best     {out / 'best.pt'}\n" in said
    assert "step 3: error" in heard
    assert [line["step"] for line in read_metrics(out)] == [2, 3, 4, 6]
    network = load_checkpoint(out / "best.pt")
    assert network(torch.ones(2, 3)).shape == (2, 2)
    assert json.loads((out / "run.json").read_text())["command"]


def test_settings_from_the_command_line(fit_cli, config, tmp_path):
    out = tmp_path / "run"
    code, said, heard = fit_cli(
        "train", config, "-o", out, "--set", "training.steps=2", "--set", "seed=5", "--quiet"
    )
    assert (code, heard) == (0, "")
    assert said.startswith("2 steps")
    found = read_checkpoint(out / "last.pt").config
    assert (found["training"]["steps"], found["seed"]) == (2, 5)


def test_resuming_and_replacing(fit_cli, config, tmp_path):
    out = tmp_path / "run"
    fit_cli("train", config, "-o", out)
    code, _, heard = fit_cli("train", config, "-o", out)
    assert code == 2
    assert "already holds files" in heard
    code, said, _ = fit_cli("train", config, "-o", out, "--resume", "--set", "training.steps=8")
    assert code == 0
    assert said.startswith("8 steps")
    code, said, _ = fit_cli("train", config, "-o", out, "--overwrite")
    assert code == 0
    assert said.startswith("6 steps")
    code, _, heard = fit_cli("train", config, "-o", out, "--resume", "--overwrite")
    assert code == 2
    assert "give one" in heard


def test_starting_at_the_weights_of_another_run(fit_cli, config, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    fit_cli("train", config, "-o", first)
    still = ["--set", "training.steps=1", "--set", "training.optimizer.lr=1e-30"]
    code, _, heard = fit_cli(
        "train", config, "--start", first / "last.pt", "-o", second, *still, "--set", "seed=9"
    )
    assert code == 0, heard
    begun, ended = (read_checkpoint(run / "last.pt").model for run in (second, first))
    for name in ("0.weight", "1.weight", "1.bias", "4.weight", "4.bias"):
        torch.testing.assert_close(begun[name], ended[name])
    wide = ["--set", "network.width=48"]
    code, _, heard = fit_cli(
        "train", config, "--start", first / "last.pt", "-o", tmp_path / "third", *wide
    )
    assert code == 2
    assert "last.pt: is of another network than is to be trained: 0.weight must be" in heard
    assert not (tmp_path / "third").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--set", "training.stebs=3"], "training.stebs is not a setting; did you mean training.s"),
        (["--set", "training.precision=float16"], "float16 needs a GPU; use bfloat16"),
        (["--resume"], "no run to resume"),
        (["--set", "task=lift"], "task lift is not known; did you mean lifter?"),
        (["--device", "cuda"], "PyTorch finds no GPU; use cpu"),
    ],
)
def test_bad_input_is_one_sentence(fit_cli, config, tmp_path, monkeypatch, change, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    code, said, heard = fit_cli("train", config, "-o", tmp_path / "run", "--device=cpu", *change)
    assert code == 2
    assert said == ""
    assert message in heard
    assert heard.count("\n") == 1


def test_a_missing_config(fit_cli, tmp_path):
    code, _, heard = fit_cli("train", tmp_path / "none.yaml", "-o", tmp_path / "run")
    assert code == 2
    assert "none.yaml: no such file; check the path of the config" in heard


def test_a_nan_loss_is_exit_code_1(fit_cli, config, tmp_path):
    out = tmp_path / "run"
    code, _, heard = fit_cli("train", config, "-o", out, "--set", "bad_batches=[4]", "--quiet")
    assert code == 1
    assert "the loss became NaN or infinite at step 5, in batch 4" in heard
    assert "last.pt holds step 4" in heard


def test_one_process_of_several_speaks(fit_cli, config, tmp_path, monkeypatch):
    """Whether a run ends well or not; the exit code is that of all."""
    bad = ("--set", "bad_batches=[4]", "--quiet", "--json")
    code, said, heard = fit_cli("train", config, "-o", tmp_path / "first", *bad)
    found = json.loads(said)
    assert (code, found["exit_code"], found["ended"]) == (1, 1, "diverged")
    assert found["problems"][0]["reason"] in heard
    monkeypatch.setenv("RANK", "1")
    assert fit_cli("train", config, "-o", tmp_path / "bad", *bad) == (1, "", "")
    assert fit_cli("train", config, "-o", tmp_path / "good", "--quiet", "--json") == (0, "", "")
    assert fit_cli("train", config, "-o", tmp_path / "none", "--dry-run") == (0, "", "")


def test_a_page_of_an_earlier_run_is_not_this_ones(fit_cli, config, tmp_path):
    assert "report.html" in fit_cli("train", config, "-o", tmp_path / "run")[1]
    again = ("train", config, "-o", tmp_path / "run", "--overwrite", "--no-report", "--json")
    assert "report" not in json.loads(fit_cli(*again)[1])["files"]


def test_a_dry_run_looks_at_the_weights_to_begin_at(fit_cli, config, tmp_path):
    plan = ("train", config, "-o", tmp_path / "run", "--dry-run", "--start")
    code, said, heard = fit_cli(*plan, tmp_path / "none.pt")
    assert (code, said) == (2, "")
    assert "none.pt" in heard


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """A folder with three drawn people."""
    folder = tmp_path_factory.mktemp("drawn")
    pictures = PictureConfig(size=(96, 96), occluded=0, truncated=0)
    write_rendered_set(folder, SetConfig(count=3, pictures=pictures, jobs=1))
    return folder


@pytest.fixture
def on_pictures(tmp_path):
    """Writes the config of an image regressor that learns from a folder of people."""

    def write(folder, network=""):
        source = f"{{kind: table, path: {folder}}}"
        path = tmp_path / "image.yaml"
        path.write_text(
            f"task: image\ntraining: {{steps: 1}}\nnetwork: {{{network}}}\n"
            f"data: {{sources: [{source}, {{kind: drawn}}]}}\n"
            f"evaluation: {{source: {source}, people: 2}}\n",
            encoding="utf-8",
        )
        return path

    return write


def test_a_dry_run_opens_what_would_be_learned_from(fit_cli, on_pictures, people, tmp_path):
    plan = ("train", on_pictures(people), "-o", tmp_path / "run", "--dry-run")
    code, said, heard = fit_cli(*plan)
    assert (code, heard) == (0, "")
    assert f"  learns from  3 people of {people}, drawn people\n" in said
    assert f"  judged by    2 people of {people}\n" in said
    assert not (tmp_path / "run").exists()


def test_a_dry_run_misses_what_the_run_would(fit_cli, on_pictures, people, tmp_path):
    shutil.copy(people / "truth.parquet", tmp_path)
    for folder, missing in ((tmp_path / "none", "none"), (tmp_path, "images")):
        plan = ("train", on_pictures(folder), "-o", tmp_path / "run", "--device", "cpu")
        code, said, heard = fit_cli(*plan, "--dry-run")
        assert (code, said) == (2, "")
        assert missing in heard
        assert fit_cli(*plan) == (code, said, heard)


def test_a_dry_run_looks_at_no_picture(fit_cli, on_pictures, people, tmp_path, monkeypatch):
    """Though a frozen encoder is to see all of them before the first step."""
    monkeypatch.setattr("regressor.image_data.cut_crop", None)
    network = "encoder: blazepose, pretrained: blazepose, frozen: true, cached: true"
    as_they_are = [
        "augmentation={scale: [1, 1], scale_std: null, rotation_deg: 0, color: 0}",
        f"data.sources=[{{kind: table, path: {people}}}]",
        "data.crop_size=256",
    ]
    code, said, heard = fit_cli(
        *("train", on_pictures(people, network), "-o", tmp_path / "run", "--dry-run"),
        *(f"--set={setting}" for setting in as_they_are),
    )
    assert (code, heard) == (0, "")
    assert "3 people" in said


def test_a_dry_run_tries_the_weights_to_begin_at(fit_cli, config, tmp_path):
    fit_cli("train", config, "-o", tmp_path / "first")
    plan = ("train", config, "-o", tmp_path / "second", "--dry-run")
    plan += ("--start", tmp_path / "first/last.pt")
    assert fit_cli(*plan)[0] == 0
    code, _, heard = fit_cli(*plan, "--set", "network.width=48")
    assert code == 2
    assert "is of another network than is to be trained" in heard


def test_ctrl_c_saves_and_says_how_to_go_on(fit_cli, config, tmp_path):
    out = tmp_path / "run"
    arguments = [config, "-o", out, "--set", "training.steps=500", "--set=training.workers=2"]
    process = start_toy([*arguments, "--set=training.prefetch=process"], slow=0.03)
    wait_for_step(out, 4, process)
    os.killpg(process.pid, signal.SIGINT)  # to its workers as well, as the terminal does
    said, heard = process.communicate(timeout=LONG)
    assert process.returncode == 130, heard
    assert "Traceback" not in heard
    line = said.splitlines()[-1]
    assert line.startswith(f"go on with: fit-cli train {config} -o {out}")
    step = read_checkpoint(out / "last.pt").training["learner"]["step"]
    assert f"{step} steps" in said
    assert 4 <= step < 500
    again = line.removeprefix("go on with: fit-cli ").split()
    code, said, _ = fit_cli(*again, "--set", f"training.steps={step + 2}")
    assert code == 0
    assert said.startswith(f"{step + 2} steps")
