"""Snapshots of a few people that a training run takes: what they hold, and that they stay."""

from __future__ import annotations

import numpy as np
import pytest
import roma
import torch
from test_image_data import write_people

from regressor import load_checkpoint
from regressor.checkpoints import read_checkpoint
from regressor.config import config_from_dict
from regressor.image_task import ImageTask
from regressor.run_log import TIMES_NAME, read_metrics
from regressor.snapshot_files import FOLDER, HELD_OUT, LEARNED_FROM, read_album, snapshot_files
from regressor.snapshots import SHOWN
from regressor.tasks import make_task
from regressor.training import train

COUNT, SIZE = 10, 64


@pytest.fixture(scope="module")
def people(tmp_path_factory, body):
    folder = write_people(tmp_path_factory.mktemp("people"), body, COUNT)
    (folder / "images" / "009.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def config(people):
    source = {"kind": "table", "path": str(people)}
    return config_from_dict(
        {
            "task": "image",
            "training": {
                **{"steps": 4, "batch_size": 3, "workers": 0, "precision": "float32"},
                **{"evaluate_every": 1, "log_every": 1, "save_every": 2},
            },
            "network": {"encoder": "efficientnet_lite0", "head": "sequential", "widths": [16]},
            "data": {"sources": [{**source, "params": "fits"}], "crop_size": SIZE},
            "evaluation": {"source": source, "people": 4},
            "loop": {"steps": 3},
        }
    )


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    """A whole run: its folder and its task."""
    folder, task = tmp_path_factory.mktemp("run"), make_task(config)
    train(task, config, folder, device="cpu")
    return folder, task


def files_of(folder):
    return {path.name: path.read_bytes() for path in (folder / FOLDER).iterdir()}


def test_who_is_shown(run):
    album = read_album(run[0])
    # Of eight evenly spread rows of either kind one, the last, cannot be read.
    assert album.group == [HELD_OUT] * (SHOWN - 1) + [LEARNED_FROM] * (SHOWN - 1)
    rows = np.linspace(0, COUNT - 1, SHOWN).round().astype(int)[:-1].tolist()
    assert album.row == rows * 2
    assert album.image == [f"{row:03d}.png" for row in rows] * 2
    assert np.isfinite(album.truth[: SHOWN - 1]).all()
    assert np.isnan(album.truth[SHOWN - 1 :]).all()  # fits are no truth
    assert [snapshot.step for snapshot in album.snapshots] == [1, 2, 3, 4]
    limited = read_album(run[0], limit=2)
    assert [snapshot.step for snapshot in limited.snapshots] == [1, 4]


def test_estimates_are_the_networks(run):
    folder, task = run
    album, network = read_album(folder), load_checkpoint(folder / "last.pt")
    batch = task.validation.first(SHOWN)
    count = SHOWN - 1
    with torch.no_grad():
        expected = network(batch["images"])
        transl = task.see(network, batch)["transl"]
    found = torch.from_numpy(album.snapshots[-1].estimate[:count])
    rotations = roma.rotvec_to_rotmat(found[:, :72].reshape(-1, 24, 3))
    torch.testing.assert_close(rotations, expected.pose_rotmat[:count], atol=1e-4, rtol=0)
    torch.testing.assert_close(found[:, 72:82], expected.betas[:count], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found[:, 82:], transl[:count], atol=1e-4, rtol=1e-4)


def test_fits_are_the_stores(run):
    folder, task = run
    album = read_album(folder)
    (dataset,) = task.loop.datasets.values()
    rows = np.array(album.row[SHOWN - 1 :])
    stored, last = task.loop.opened.read(dataset.name, rows), album.snapshots[-1]
    np.testing.assert_array_equal(last.fit[SHOWN - 1 :], stored.params)
    np.testing.assert_array_equal(last.cost[SHOWN - 1 :], stored.cost)
    np.testing.assert_array_equal(last.joint_std_mm[SHOWN - 1 :], stored.joint_std_mm)
    assert last.epoch[SHOWN - 1 :] == stored.epoch.tolist()
    assert set(last.origin[SHOWN - 1 :]) <= {"static", "loop"}
    assert last.origin[: SHOWN - 1] == ["none"] * (SHOWN - 1)
    assert np.isnan(last.fit[: SHOWN - 1]).all()


def test_cameras_are_of_the_crops(run):
    folder, task = run
    album, batch = read_album(folder), task.validation.first(SHOWN)
    crop, K = batch["crop"].numpy(), batch["intrinsics"].numpy()
    for i in range(SHOWN - 1):
        scale = SIZE / crop[i, 2]
        centre = scale * (K[i, :2, 2] - crop[i, :2]) + (SIZE - 1) / 2
        expected = [scale * K[i, 0, 0], scale * K[i, 1, 1], *centre]
        np.testing.assert_allclose(album.camera[i], expected, rtol=1e-4)
        seen = batch["conf"][i].numpy() > 0
        points = scale * (batch["keypoints_2d"][i].numpy()[seen] - crop[i, :2]) + (SIZE - 1) / 2
        np.testing.assert_allclose(album.keypoints[i], points, atol=1e-3)


def test_a_run_cut_short_ends_with_the_same_snapshots(run, config, tmp_path):
    """One that replaces another, whose snapshots go."""
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "step-0000000099.parquet").write_bytes(b"of another run")
    steps = []

    def kill(stage, done, total):
        steps.extend([stage] * done)
        if steps.count("train") == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(make_task(config), config, tmp_path, device="cpu", progress=kill, overwrite=True)
    assert list(snapshot_files(tmp_path)) == [1, 2, 3]
    task = make_task(config)
    task.resume_files(tmp_path, 2)  # the last checkpoint's
    assert list(snapshot_files(tmp_path)) == [1, 2]
    train(make_task(config), config, tmp_path, device="cpu", resume=True)
    assert files_of(tmp_path) == files_of(run[0])
    lines = (tmp_path / TIMES_NAME).read_text().splitlines()
    assert len(lines) == len(read_metrics(tmp_path)) == 4


def test_taking_them_changes_nothing(run, config, tmp_path, monkeypatch):
    monkeypatch.setattr(ImageTask, "show_files", lambda self, step, network: None)
    train(make_task(config), config, tmp_path, device="cpu")
    models = [read_checkpoint(folder / "last.pt").model for folder in (run[0], tmp_path)]
    assert all(torch.equal(tensor, models[1][name]) for name, tensor in models[0].items())
    assert read_metrics(run[0]) == read_metrics(tmp_path)
