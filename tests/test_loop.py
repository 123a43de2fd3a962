"""The loop: what it fits, keeps and gives back, and that a run that was cut short goes on alike."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import roma
import torch
from test_image_data import write_people

from fitting.camera import project_points, transl_to_weak
from fitting.files import InputError
from fitting.metrics import mpjpe
from fitting.people import person_size
from fitting.problem import PARAMETERS
from fitting.table import read_fits
from regressor.checkpoints import read_checkpoint
from regressor.config import config_from_dict, load_config
from regressor.crops import cut_crop, normalise_crops
from regressor.distributed import Group
from regressor.heads import ImageEstimate
from regressor.image_losses import image_losses
from regressor.image_task import LABELS
from regressor.loop import FOLDER
from regressor.run_log import read_metrics
from regressor.store.fit_store import open_store
from regressor.store.fits import Origin
from regressor.tasks import make_task
from regressor.training import train

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
COUNT = 7


@pytest.fixture(scope="module")
def people(tmp_path_factory, body):
    return write_people(tmp_path_factory.mktemp("people"), body, COUNT)


@pytest.fixture
def make_config(people):
    """A config of a small network; what the table's parameters are, and changed sections."""

    def make(params, **sections):
        source = {"kind": "table", "path": str(people)}
        raw = {
            "training": {
                **{"steps": 4, "batch_size": 3, "workers": 0, "precision": "float32"},
                **{"evaluate_every": 2, "log_every": 2, "save_every": 2},
            },
            "network": {"encoder": "efficientnet_lite0", "head": "sequential", "widths": [16]},
            "data": {"sources": [{**source, "params": params}], "crop_size": 64},
            "evaluation": {"source": source, "people": 4},
            "loop": {"steps": 3},
        }
        for name, settings in sections.items():
            raw[name] = settings if settings is None else {**raw.get(name, {}), **settings}
        return config_from_dict({"task": "image", **raw})

    return make


def begin(config, folder):
    task = make_task(config)
    task.begin_files(folder, Group())
    return task


def true_batch(make_config, number):
    """What the task without a loop knows of the same people."""
    return make_task(make_config("truth", loop=None)).batch(number)


def estimate_of(batch, *, turned_by=0.0):
    """The truth, every joint turned by so many radians about its x axis, as an estimate."""
    turn = roma.rotvec_to_rotmat(torch.tensor([turned_by, 0.0, 0.0]))
    weak_cam = transl_to_weak(batch["transl"], batch["crop"], batch["intrinsics"])
    return ImageEstimate(batch["pose_rotmat"] @ turn, batch["betas"], weak_cam)


def test_static_fits_that_are_the_truth_give_the_truth(make_config, tmp_path):
    """Turned and mirrored pictures: two ways to what is known, by batches and by the store."""
    task = begin(make_config("fits", loop={"solver": "none", "half_std_mm": None}), tmp_path)
    for number in range(4):
        batch = task.batch(number)
        truth = true_batch(make_config, number)
        assert not batch["has_params"].any()
        found = task.loop.targets(estimate_of(truth), batch)
        assert found["has_params"].all()
        for name in ("pose_rotmat", "betas", "transl", "joints"):
            torch.testing.assert_close(found[name], truth[name], atol=2e-5, rtol=1e-5)
        for name in ("images", "keypoints_2d", "conf", "crop"):
            torch.testing.assert_close(found[name], batch[name], atol=0, rtol=0)


@pytest.mark.parametrize(("solver", "steps"), [("lm", 8), ("adam", 20)])
def test_fits_from_estimates_come_nearer_and_are_kept(make_config, tmp_path, solver, steps):
    loop = {"solver": solver, "steps": steps, "half_std_mm": None, "largest_error": 9}
    task = begin(make_config("none", loop=loop), tmp_path)
    truth, batch = true_batch(make_config, 1), task.batch(1)
    estimate = estimate_of(truth, turned_by=0.15)
    found = task.loop.targets(estimate, batch)
    fitted = task.loop.opened.read(*named(task, batch))
    assert (fitted.origin == Origin.LOOP).all()
    assert (fitted.epoch == batch["epoch"].numpy()).all()
    before, after = (
        reprojection(task, batch, parts, transl)
        for parts, transl in (
            (estimate, truth["transl"]),
            (ImageEstimate(found["pose_rotmat"], found["betas"], None), found["transl"]),
        )
    )
    assert after < 0.5 * before


def named(task, batch):
    (dataset,) = task.loop.datasets.values()
    return dataset.name, batch["row"].numpy()


def reprojection(task, batch, estimate, transl):
    """Mean 2D error in half sides of the crop, in the augmented picture."""
    weak_cam = transl_to_weak(transl, batch["crop"], batch["intrinsics"])
    config = replace(task.config.loss, keypoint_norm="l1")
    losses = image_losses(
        estimate._replace(weak_cam=weak_cam), batch, task.body, task.keypoint_body, config
    )
    return float(losses["keypoints_2d"])


def test_worse_fits_are_not_kept(make_config, tmp_path):
    task = begin(make_config("fits", loop={"steps": 1, "half_std_mm": None}), tmp_path)
    batch = task.batch(0)
    before = task.loop.opened.read(*named(task, batch))
    far = estimate_of(true_batch(make_config, 0), turned_by=1.0)
    task.loop.targets(far, batch)
    after = task.loop.opened.read(*named(task, batch))
    np.testing.assert_array_equal(after.params, before.params)
    assert (after.origin == Origin.STATIC).all()


def test_nan_estimates_and_unseen_people_change_nothing(make_config, tmp_path):
    task = begin(make_config("none"), tmp_path)
    batch, estimate = task.batch(0), estimate_of(true_batch(make_config, 0))
    batch["plain_conf"][0] = 0
    estimate.pose_rotmat[1] = torch.nan
    found = task.loop.targets(estimate, batch)
    known = task.loop.opened.read(*named(task, batch)).is_known
    assert known.tolist() == [False, False, True]
    assert (found["has_params"] > 0).tolist() == [False, False, True]
    assert all(found[n].isfinite().all() for n in ("pose_rotmat", "betas", "transl", "joints"))


def test_how_much_fits_count(make_config, tmp_path):
    """The wider the posterior the less, and nothing behind the gates."""
    task = begin(make_config("fits", loop={"solver": "none", "half_std_mm": 80.0}), tmp_path)
    batch, estimate = task.batch(0), estimate_of(true_batch(make_config, 0))
    fits = task.loop.opened.read(*named(task, batch))
    std = fits.joint_std_mm.astype(float).mean(axis=1)
    found = task.loop.targets(estimate, batch)
    np.testing.assert_allclose(found["has_params"], 1 / (1 + (std / 80) ** 2), rtol=1e-3)
    for gate in ({"largest_error": 1e-9}, {"largest_beta": 1e-3}):
        task = begin(make_config("fits", loop={"solver": "none", **gate}), tmp_path)
        assert not task.loop.targets(estimate, task.batch(0))["has_params"].any()


def test_people_whose_truth_is_known_keep_it(make_config, people, tmp_path):
    source = {"kind": "table", "path": str(people)}
    both = {"sources": [source, {**source, "params": "none"}], "crop_size": 64}
    task = begin(make_config("none", data=both), tmp_path)
    batch = task.batch(0)
    found = task.loop.targets(estimate_of(batch, turned_by=0.3), batch)
    is_true = batch["dataset"] == 0
    assert 0 < is_true.sum() < 3
    assert (batch["row"][is_true] == -1).all()
    for name in ("pose_rotmat", "joints", "has_params"):
        torch.testing.assert_close(found[name][is_true], batch[name][is_true], atol=0, rtol=0)


def test_looking_at_a_network_leaves_the_fits(make_config, tmp_path):
    task = begin(make_config("none"), tmp_path)
    with torch.no_grad():
        task.losses(task.network, task.batch(0))
    assert task.loop.opened.statistics()["filled"] == 0
    task.losses(task.network, task.batch(0))
    assert task.loop.opened.statistics()["filled"] > 0


def test_a_run_without_a_fit_is_logged(make_config, tmp_path):
    """Nothing is fitted, so no fit has a cost: there is no mean, rather than one that is NaN."""
    config = make_config("none", loop={"solver": "none"}, training={"steps": 2})
    train(make_task(config), config, tmp_path, device="cpu")
    files = read_metrics(tmp_path)[-1]["files"]
    assert files["filled"] == 0
    assert "cost" not in files


def test_a_run_cut_short_goes_on_to_the_same_end(make_config, tmp_path):
    """Killed after the step of the first save, with fits that no save had seen."""
    config = make_config("fits", training={"steps": 6})
    train(make_task(config), config, tmp_path / "whole", device="cpu")
    task = make_task(config)
    steps = []

    def kill(stage, done, total):
        steps.extend([stage] * done)
        if steps.count("train") == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(task, config, tmp_path / "cut", device="cpu", progress=kill)
    resumed = make_task(config)
    train(resumed, config, tmp_path / "cut", device="cpu", resume=True)
    stores, models = [], []
    for name in ("whole", "cut"):
        identity = resumed.loop.identity
        store = open_store(tmp_path / name / FOLDER, identity, step=6)
        stores.append(store.read(identity.datasets[0].name, np.arange(COUNT)))
        models.append(read_checkpoint(tmp_path / name / "last.pt").model)
    for column in ("params", "cost", "epoch", "origin"):
        np.testing.assert_array_equal(getattr(stores[0], column), getattr(stores[1], column))
    for name, tensor in models[0].items():
        torch.testing.assert_close(models[1][name], tensor, atol=0, rtol=0)
    assert (stores[0].origin == Origin.LOOP).any()
    labels = [read_fits(tmp_path / name / LABELS / "00.parquet") for name in ("whole", "cut")]
    assert labels[0].columns.equals(labels[1].columns)
    assert set(labels[0].column_array("init")) <= {"static@0", *(f"loop@{e}" for e in range(3))}
    packed = [labels[0].column_array(name) for name in PARAMETERS]
    np.testing.assert_array_equal(np.concatenate(packed, axis=1), stores[0].params)
    lines = (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()
    assert 0 < json.loads(lines[-1])["files"]["loop"] <= 1


def test_stores_of_others_and_loops_without_people_are_refused(make_config, tmp_path):
    config = make_config("fits")
    train(make_task(config), config, tmp_path / "run", device="cpu")
    other = make_task(make_config("fits", loop={"rule": "spin"}))
    with pytest.raises(InputError, match=r"judged by the rule 'map'.*begin a new run"):
        other.resume_files(tmp_path / "run", 4)
    with pytest.raises(InputError, match="loop has nobody to fit"):
        make_task(make_config("truth"))
    other = make_task(make_config("fits", loop={"lifter": False}))
    with pytest.raises(InputError, match="judged by the energy"):
        other.resume_files(tmp_path / "run", 4)


def test_costs_do_not_depend_on_where_fits_began(make_config, tmp_path):
    """What the store compares is assessed: the same body from two starts costs the same."""
    task = begin(make_config("fits", loop={"solver": "none"}), tmp_path)
    rows = np.arange(COUNT)
    (dataset,) = task.loop.datasets.values()
    found = task.loop.opened.read(dataset.name, rows)
    params = found.body_params.pack(PARAMETERS)
    assert np.isfinite(found.cost).all() and (found.error_px < 0.1).all()
    truth = dataset.people
    moved = np.concatenate([truth.rotvec.reshape(COUNT, 72), truth.betas, truth.transl], axis=1)
    np.testing.assert_allclose(params, moved, atol=1e-6)
    assert mpjpe(moved[:, None, :3], params.numpy()[:, None, :3]).max() < 1e-3


@pytest.mark.parametrize("part", [True, "early"])
def test_cached_features_are_those_of_the_pictures(part, make_config):
    """Of mirrored people, too."""
    frozen = {"encoder": "blazepose", "pretrained": "blazepose", "frozen": part}
    settings = {
        "network": {**frozen, "mean": "prior"},
        "data": {"crop_size": 256},
        "augmentation": {"scale": [1, 1], "scale_std": None, "rotation_deg": 0, "color": 0},
    }
    plain = make_task(make_config("none", **settings))
    cached = make_task(make_config("none", **{**settings, "network": {**frozen, "cached": True}}))
    for number in range(2):
        batch, other = cached.batch(number), plain.batch(number)
        assert "images" not in batch
        features = plain.network.eval().encode(other["images"])
        torch.testing.assert_close(batch["features"], features, atol=2e-3, rtol=2e-3)
        torch.testing.assert_close(batch["keypoints_2d"], other["keypoints_2d"])
    assert other["flip"].any()
    with torch.no_grad():
        estimates = [
            plain.network.eval()(other["images"]),
            plain.network(None, features=batch["features"]),
        ]
    torch.testing.assert_close(estimates[0].betas, estimates[1].betas, atol=1e-3, rtol=0)
    with pytest.raises(InputError, match=r"network\.cached knows pictures as they are"):
        make_config("none", network={**frozen, "cached": True})


def test_cached_views_are_the_augmented_pictures(make_config, people):
    """What an encoder is shown, cut anew out of the pictures as the batches say they are turned."""
    frozen = {"encoder": "blazepose", "pretrained": "blazepose", "frozen": True}
    turned = {"scale": [1, 1], "scale_std": None, "rotation_deg": 30, "unrotated": 0, "color": 0}
    data = make_task(make_config("none", network=frozen, augmentation=turned)).data
    data.cache_features(lambda images: images, views=3)
    assert data.features.num_views == 3
    angles: dict[int, set[float]] = {}
    for number in range(20):
        batch = data.batch(number, 4)
        known = data.sources[0].people.select(batch["row"].numpy())
        for i, row in enumerate(batch["row"].tolist()):
            angle, flip = float(batch["angle"][i]), bool(batch["flip"][i])
            angles.setdefault(row, set()).add(angle)
            picture = cv2.imread(str(people / "images" / known.image[i]))[..., ::-1]
            crop = cut_crop(picture, known.crop[i], data.config.crop_size, angle=angle, flip=flip)
            expected = normalise_crops(crop[None])[0].half().float()
            torch.testing.assert_close(batch["features"][i], expected)
    assert all(len(found) <= 3 and 0.0 in found for found in angles.values())
    assert sum(len(found) for found in angles.values()) > 2 * COUNT


def test_cached_views_have_the_truth_of_their_augmentation(make_config):
    """The true body, projected, is where the keypoints of the augmented picture are."""
    frozen = {"encoder": "blazepose", "pretrained": "blazepose", "frozen": True}
    turned = {"scale": [0.8, 1.2], "scale_std": None, "rotation_deg": 30, "unrotated": 0}
    task = make_task(make_config("truth", loop=None, network=frozen, augmentation=turned))
    task.data.cache_features(lambda images: images, views=3)
    batch = task.data.batch(1, 7)
    keypoints, _ = task.keypoint_body.pose_rotations(batch["pose_rotmat"], batch["betas"])
    pixels, _ = project_points(keypoints + batch["transl"][:, None], batch["intrinsics"])
    seen = batch["conf"] > 0
    assert seen.any()
    torch.testing.assert_close(pixels[seen], batch["keypoints_2d"][seen], atol=0.05, rtol=0)
    uncut = torch.from_numpy(task.data.sources[0].people.crop[:, 2])
    assert not torch.isin(batch["crop"][:, 2], uncut).all()  # views are cut larger and smaller


@pytest.mark.parametrize(("name", "crop"), [("spin", 64), ("loop", 256)])
def test_configs_fit_in_the_loop(name, crop, people, tmp_path):
    source = f"{{kind: table, path: {people}}}"
    fits = f"{{kind: table, path: {people}, params: fits}}"
    overrides = [f"data.sources=[{fits}]", f"evaluation.source={source}", f"data.crop_size={crop}"]
    overrides += ["training.batch_size=2", "training.precision=float32", "loop.steps=2"]
    config = load_config(CONFIGS / f"{name}.yaml", overrides)
    task = begin(config, tmp_path)
    batch = task.batch(0)
    losses = task.losses(task.network.train(), batch)
    assert losses["loss"].isfinite()
    assert losses["rotations"] > 0
    fits = task.loop.opened.read(*named(task, batch))
    assert fits.is_known.all()
    assert fits.judged_by(config.loop.rule) is (fits.cost if name == "loop" else fits.error_px)


def test_people_who_are_too_small_are_left_out_and_counted(make_config, caplog):
    (dataset,) = make_task(make_config("none")).loop.datasets.values()
    size = person_size(dataset.people.keypoints_2d, dataset.people.conf)
    settings = {"crop_size": 64, "filter": {"least_size": float(np.median(size))}}
    (kept,) = make_task(make_config("none", data=settings)).loop.datasets.values()
    large = np.flatnonzero(size >= np.median(size))
    assert 0 < len(large) < COUNT
    np.testing.assert_array_equal(kept.people.file_row, large)
    assert any(f"{COUNT - len(large)} of its {COUNT} people" in text for text in caplog.messages)
