"""Checkpoints: what is saved is what is loaded, and a stranger's file runs nothing."""

from __future__ import annotations

import copy
import errno
import io
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from toy_task import ENTRY, ToyConfig, ToyNetworkConfig, make_network

import regressor
from fitting.body import load_body
from fitting.files import InputError, OutputError
from regressor.checkpoints import Checkpoint, load_checkpoint, read_checkpoint, save_checkpoint
from regressor.config import config_to_dict
from regressor.tasks import TASKS

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _toy(monkeypatch):
    monkeypatch.setitem(TASKS, "toy", ENTRY)


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = make_network(ToyConfig(network=ToyNetworkConfig(width=5)))
    network(torch.randn(20, 3))  # so that the batch norm has statistics
    return network


def checkpoint_of(network, **changes):
    return Checkpoint(
        **{
            "architecture": "toy",
            "config": config_to_dict(ToyConfig(network=ToyNetworkConfig(width=5))),
            "metrics": {"step": 3, "error": 0.25},
            "body_sha256": "",
            "model": network.state_dict(),
            **changes,
        }
    )


@pytest.fixture
def path(tmp_path, network):
    save_checkpoint(tmp_path / "best.pt", checkpoint_of(network))
    return tmp_path / "best.pt"


def test_a_loaded_network_answers_as_the_saved_one(path, network):
    loaded = regressor.load_checkpoint(path)
    x = torch.randn(7, 3)
    assert torch.equal(loaded(x), network.eval()(x))
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())


def test_everything_is_read_back(tmp_path, network):
    saved = checkpoint_of(network, training={"step": 3, "nested": {"a": [1, torch.ones(2)]}})
    save_checkpoint(tmp_path / "last.pt", saved)
    read = read_checkpoint(tmp_path / "last.pt")
    for name in ("architecture", "config", "metrics", "body_sha256"):
        assert getattr(read, name) == getattr(saved, name)
    assert read.training["step"] == 3
    assert torch.equal(read.training["nested"]["a"][1], torch.ones(2))
    assert all(torch.equal(read.model[k], v) for k, v in saved.model.items())


def test_the_file_is_plain_torch(path):
    """Anyone can read it without this package."""
    content = torch.load(path, weights_only=True)
    assert (content["format"], content["version"]) == ("bodyloop", 1)
    assert content["metrics"]["error"] == 0.25
    assert {"config", "body_sha256", "architecture", "model", "training"} <= set(content)


def test_importing_regressor_is_cheap():
    code = "import regressor, sys; print('torch' in sys.modules, hasattr(regressor, 'nothing'))"
    done = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True)
    assert done.split() == ["False", "False"]


@pytest.mark.parametrize("moment", ["write", "fsync"])
def test_a_full_disk_leaves_the_previous_one_whole(path, network, monkeypatch, moment):
    before = path.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if moment == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    else:
        monkeypatch.setattr(Path, "open", lambda *_: _FullDisk())
    with pytest.raises(OutputError, match=r"best\.pt: the disk is full; free some space"):
        save_checkpoint(path, checkpoint_of(network, metrics={"step": 9}))
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["best.pt"]


class _FullDisk(io.BytesIO):
    def write(self, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# --- Files that cannot be used ------------------------------------------------------------------


class Evil:
    def __reduce__(self):
        return os.mkdir, ("hacked",)


def damaged_files(folder, good):
    """name -> (file, words of the message)."""
    whole = good.read_bytes()
    files = {
        "truncated": whole[: len(whole) // 2],
        "cut short": whole[:-50],
        "scrambled": whole[:100] + b"\0" * 300 + whole[400:],
        "text": b"weights: none",
        "empty": b"",
        "pickle": pickle.dumps({"a": 1}, protocol=4),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with zipfile.ZipFile(folder / "zip", "w") as archive:
        archive.writestr("readme", "no checkpoint")
    return [folder / name for name in (*files, "zip")]


def test_damaged_files(tmp_path, path):
    for damaged in damaged_files(tmp_path, path):
        with pytest.raises(InputError, match="is no checkpoint, or is truncated or damaged") as e:
            load_checkpoint(damaged)
        assert str(e.value).startswith(f"{damaged}: ")
        assert "\n" not in str(e.value)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_is_not_run(tmp_path, monkeypatch, zipped):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Evil()}, "evil.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match="which might run code, so it is not loaded"):
        load_checkpoint("evil.pt")
    assert not Path("hacked").exists()


def test_a_whole_module_in_a_file_is_refused(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "module.pt")
    with pytest.raises(InputError, match="save its state dict alone"):
        load_checkpoint(tmp_path / "module.pt")


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(InputError, match="no such file; check the path"):
        load_checkpoint(tmp_path / "none.pt")
    with pytest.raises(InputError, match="cannot be read"):
        load_checkpoint(tmp_path)


def edited(path, **changes):
    content = torch.load(path, weights_only=True)
    content.update(changes)
    torch.save({k: v for k, v in content.items() if v is not ...}, path)
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "has version 2 of the format, this program reads version 1"),
        ({"model": ...}, "its part model is missing or wrong"),
        ({"metrics": [1]}, "its part metrics is missing or wrong"),
        ({"model": {"a": 3}}, "its part model must hold tensors alone"),
        ({"config": {"task": "toi"}}, "its config: task toi is not known; did you mean toy?"),
        ({"config": {"task": "toy", "widht": 3}}, "its config: widht is not a setting"),
    ],
)
def test_own_files_that_are_wrong(path, changes, message):
    with pytest.raises(InputError, match=message) as caught:
        load_checkpoint(edited(path, **changes))
    assert str(caught.value).startswith(f"{path}: ")


def test_tensors_missing_extra_and_of_another_shape(path, network):
    state = network.state_dict()
    bias = state.pop("4.bias")
    with pytest.raises(InputError, match=r"network toy .*1 \(4\.bias\) missing, none left over"):
        load_checkpoint(edited(path, model=state))
    extra = {f"head.{i}": bias for i in range(5)}
    with pytest.raises(InputError, match=r"5 \(head\.0, head\.1, head\.2, \.\.\.\) left over"):
        load_checkpoint(edited(path, model={**state, "4.bias": bias, **extra}))
    with pytest.raises(InputError, match=r"4\.bias must be \(2,\), got \(1,\)"):
        load_checkpoint(edited(path, model={**state, "4.bias": bias[:1]}))


def test_a_checkpoint_of_another_body(path, network):
    bundled = load_body()
    save_checkpoint(path, checkpoint_of(network, body_sha256=bundled.sha256))
    other = copy.copy(bundled)
    other.sha256 = "f" * 64
    load_checkpoint(path)
    load_checkpoint(path, body=bundled)
    with pytest.raises(InputError, match=r"was trained for the body .* not for ffffffffffff"):
        load_checkpoint(path, body=other)


def test_files_of_other_programs(tmp_path):
    path, one = tmp_path / "other.pt", torch.ones(1)
    for content, message in [
        ({"model": {"layer4.2.conv3.weight": one, "decpose.weight": one}}, "of SPIN, but does not"),
        (
            {"model": {"module.encoder.conv1.weight": one, "module.decpose.weight": one}},
            "looks like a checkpoint of CLIFF, but does not fit its network: 3",
        ),
        ({"state_dict": {"model.head.smpl_final_layer.weight": one}}, "of PARE, but does not"),
        ({"conv.weight": one}, r"holds no network known here; it holds 1 \(conv\.weight\)"),
        (one, "holds no network known here; give a best.pt"),
        ({"model_state_dict": {"pose_lifter.w1.weight": one}}, "Pose2Mesh"),
    ]:
        torch.save(content, path)
        with pytest.raises(InputError, match=message):
            load_checkpoint(path)
    with pytest.raises(InputError, match=r"is no checkpoint of bodyloop; .*looks like .*Pose2Mesh"):
        read_checkpoint(path)


def test_numbers_of_numpy_are_no_tensors(tmp_path):
    torch.save({"format": "bodyloop", "loss": np.float64(3)}, tmp_path / "a.pt")
    with pytest.raises(InputError, match="Python objects besides tensors"):
        load_checkpoint(tmp_path / "a.pt")
