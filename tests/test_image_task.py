"""Image regressors in the training loop: every config trains, and what was trained loads again."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_image_data import write_people

from fitting.camera import transl_to_weak
from fitting.files import InputError
from fitting.metrics import mpjpe
from regressor import load_checkpoint
from regressor.config import config_from_dict, load_config
from regressor.distributed import join_group
from regressor.encoders import make_encoder
from regressor.heads import ImageEstimate
from regressor.image_architectures import AdversarialRegressor, make_regressor
from regressor.image_networks import ImageRegressor
from regressor.learner import Learner
from regressor.tasks import make_task
from regressor.training import train

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
NAMES = [
    "hmr", "spin", "pare", "cliff", "resnet50_sequential", "resnet152_iterative", "resnet50v2_fc",
    "loop",
]  # fmt: skip
IN_LOOP = ("spin", "loop")


@pytest.fixture(scope="module")
def people(tmp_path_factory, body):
    return write_people(tmp_path_factory.mktemp("people"), body, 6)


def table(folder):
    return {"kind": "table", "path": str(folder)}


@pytest.fixture
def small(people):
    """A config of a small network and few people, with settings of sections replaced."""

    def make(**sections):
        raw = {
            "training": {
                "steps": 2,
                "batch_size": 3,
                "evaluate_every": 1,
                "log_every": 1,
                "workers": 0,
            },
            "network": {"encoder": "efficientnet_lite0", "head": "sequential", "widths": [16]},
            "data": {"sources": [table(people)], "crop_size": 64},
            "evaluation": {"source": table(people), "people": 4},
        }
        for name, settings in sections.items():
            raw[name] = {**raw.get(name, {}), **settings}
        return config_from_dict({"task": "image", **raw})

    return make


@pytest.mark.parametrize("name", NAMES)
def test_every_config_trains(name, people):
    """A step on two small crops: losses are finite, and what is trained moves, nothing else."""
    source = f"{{kind: table, path: {people}}}"
    overrides = [f"data.sources=[{source}]", f"evaluation.source={source}"]
    overrides.append(f"data.crop_size={256 if name == 'loop' else 64}")
    overrides += ["loop=null"] * (name in IN_LOOP)
    config = load_config(
        CONFIGS / f"{name}.yaml",
        [
            *overrides,
            *("training.batch_size=2", "training.accumulate=1", "training.precision=float32"),
            *('network.pretrained=""', "network.frozen=false", "network.cached=false"),
        ],
    )
    task = make_task(config)
    with join_group() as group:
        learner = Learner(task, config, group, torch.device("cpu"))
        before = {n: p.detach().clone() for n, p in task.network.named_parameters()}
        learner.update(iter([task.batch(0)]))
        losses = learner.window.means(group)
        with_gradient = learner.state_dict()["optimizer"]["state"]
    # or several processes would wait for gradients that never come
    assert len(with_gradient) == sum(p.requires_grad for p in task.network.parameters())
    assert np.isfinite(list(losses.values())).all()
    assert losses["loss"] > 0
    moved = [n for n, p in task.network.named_parameters() if not torch.equal(p, before[n])]
    for part in ("encoder", "head"):
        assert any(n.startswith(part) for n in moved)
    assert (config.adversarial.encoder > 0) == any(n.startswith("discriminator") for n in moved)
    assert ("parts" in losses) == (name == "pare")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"data": {"sources": [{"kind": "drawn"}]}}, "drawn ones have no end"),
        ({"augmentation": {"rotation_deg": 30, "unrotated": 0.5}}, "as they are and mirrored"),
        ({"network": {"views": 4}}, "as they are and mirrored"),
        ({"network": {"cached": False, "views": 4}}, "views, at least 1, are of cached features"),
        ({"network": {"views": 0}}, "views, at least 1, are of cached features"),
    ],
)
def test_what_cannot_be_cached(changed, message, small):
    cached = {"encoder": "blazepose", "pretrained": "blazepose", "frozen": True, "cached": True}
    plain = {"scale": [1, 1], "scale_std": None, "rotation_deg": 0, "color": 0}
    sections = {"network": cached, "augmentation": plain} | changed
    sections["network"] = cached | sections["network"]
    with pytest.raises(InputError, match=message):
        small(**sections)


def test_a_run_leaves_a_regressor(small, tmp_path):
    config = small(adversarial={"encoder": 1.0})
    task = make_task(config)
    record = train(task, config, tmp_path / "run", device="cpu")
    assert record["best"]["value"] > 0
    network = load_checkpoint(tmp_path / "run" / "last.pt")
    assert isinstance(network, ImageRegressor)
    assert not network.training
    images = task._held_out["images"]
    estimate = network(images)
    assert isinstance(estimate, ImageEstimate)
    task.network.eval()
    torch.testing.assert_close(estimate.pose_rotmat, task.network(images).pose_rotmat)


def test_resuming_is_exact(small, tmp_path):
    config = small(training={"steps": 3, "save_every": 1, "evaluate_every": 3})
    train(make_task(config), config, tmp_path / "whole", device="cpu")
    cut = replace(config, training=replace(config.training, steps=1))
    train(make_task(cut), cut, tmp_path / "parts", device="cpu")
    train(make_task(config), config, tmp_path / "parts", device="cpu", resume=True)
    whole, parts = (
        torch.load(tmp_path / name / "last.pt", weights_only=True)["model"]
        for name in ("whole", "parts")
    )
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


class Oracle(ImageRegressor):
    """Says of the held-out people what the table says."""

    def __init__(self, task, turn=None):
        super().__init__(task.network.encoder, task.network.head)
        truth = task._held_out
        weak = transl_to_weak(truth["transl"], truth["crop"], truth["intrinsics"])
        pose = truth["pose_rotmat"] if turn is None else truth["pose_rotmat"].clone()
        if turn is not None:
            pose[:, 0] = turn @ pose[:, 0]
        self.estimate = ImageEstimate(pose, truth["betas"], weak)

    def forward(self, images, box=None, *, features=None):
        return ImageEstimate(*self.estimate)


@torch.no_grad()
def test_evaluation_of_the_truth_and_of_turned_people(small, body):
    task = make_task(small())
    perfect = task.evaluate(Oracle(task))
    assert perfect["mpjpe_mm"] < 1e-3
    assert perfect["pa_mpjpe_mm"] < 1e-3
    assert perfect["pve_mm"] < 1e-3
    assert perfect["keypoint_error"] < 1e-4
    assert perfect["pck_2d"] == 1
    # half a turn about the vertical: what a similarity undoes, and the other errors do not
    turn = torch.diag(torch.tensor([-1.0, 1.0, -1.0]))
    turned = task.evaluate(Oracle(task, turn))
    assert turned["pa_mpjpe_mm"] < 1e-2
    truth = task._held_out["joints"].numpy()
    expected = mpjpe(truth * np.array([-1, 1, -1]), truth).mean()
    assert turned["mpjpe_mm"] == pytest.approx(expected, rel=1e-3)
    assert turned["pck_2d"] < 0.9


@torch.no_grad()
def test_pictures_show_bodies_where_people_are(small):
    """Drawn over grey, bluish bodies are where the photographs are bluish."""
    task = make_task(small())
    photographs = task.pictures(Oracle(task))["people"][:64].astype(int)
    task._held_out["images"].zero_()
    bodies = task.pictures(Oracle(task))["people"][64:].astype(int)
    assert photographs.shape == bodies.shape == (64, 4 * 64, 3)
    person, body = (p[..., 2] > p[..., 1] + 5 for p in (photographs, bodies))
    assert (person & body).sum() > 0.95 * body.sum()
    assert body.sum() > 0.4 * person.sum()  # at this size discs of keypoints hide much of them


def test_frozen_encoders_stay(small, tmp_path):
    weights = make_encoder("efficientnet_lite0").state_dict()
    torch.save(weights, tmp_path / "weights.pth")
    config = small(
        network={
            "pretrained": str(tmp_path / "weights.pth"),
            "frozen": True,
            "mean": "data",
        }
    )
    task = make_task(config)
    train(task, config, tmp_path / "run", device="cpu")
    found = task.network.encoder.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in weights.items())
    head = torch.load(tmp_path / "run" / "last.pt", weights_only=True)["model"]["head.mean"]
    mean = task.data.sources[0].mean
    torch.testing.assert_close(head[-3:], mean.weak_cam)
    assert mean.weak_cam[0] > 0.5
    (tmp_path / "weights.pth").unlink()  # not needed any more
    load_checkpoint(tmp_path / "run" / "best.pt")


def test_the_mean_of_people_is_what_they_are_spread_about(small):
    """Rotations nearest to all in the mean square: any turn away from them is farther."""
    task = make_task(small(network={"mean": "data"}))
    people = task.data.sources[0].people
    from scipy.spatial.transform import Rotation

    knees = Rotation.from_rotvec(people.rotvec[:, 4]).mean().as_matrix()
    np.testing.assert_allclose(task.data.sources[0].mean.pose_rotmat[4], knees, atol=1e-4)
    np.testing.assert_allclose(task.data.sources[0].mean.betas, people.betas.mean(0), atol=1e-5)


def test_people_in_2d_alone_judge_by_pixels(small, people, tmp_path):
    from test_image_data import write_coco

    path = write_coco(tmp_path / "k.json", people)
    source = {"kind": "keypoints", "path": str(path), "images": str(people / "images")}
    task = make_task(small(data={"sources": [source]}, evaluation={"source": source}))
    assert task.judged_by == "keypoint_error"
    with torch.no_grad():
        assert "mpjpe_mm" not in task.evaluate(task.network.eval())
    losses = task.losses(task.network.train(), task.batch(0))
    assert losses["keypoints_2d"] > 0
    assert losses["rotations"] == losses["joints"] == 0
    with pytest.raises(InputError, match=r"no source has any; use prior"):
        make_task(small(data={"sources": [source]}, network={"mean": "data"}))


def test_discriminators_come_with_the_prior_alone(small):
    config = small().network
    assert isinstance(make_regressor(config, adversarial=True), AdversarialRegressor)
    assert type(make_regressor(config, adversarial=False)) is ImageRegressor


def test_a_lost_picture_does_not_end_training(small, body, tmp_path, caplog):
    people = write_people(tmp_path / "people", body, 4)
    config = small(data={"sources": [table(people)]})
    task = make_task(config)
    (people / "images" / "001.png").unlink()
    with caplog.at_level(logging.WARNING):
        train(task, config, tmp_path / "run", device="cpu")
    assert sum("001.png" in text for text in caplog.messages) == 1


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"network": {"frozen": True}}, "a frozen encoder needs pretrained weights"),
        ({"network": {"pretrained": "imagenet", "encoder": "resnet50"}}, "efficientnet_lite0 only"),
        (
            {"network": {"mean": "none"}},
            "mean none is for the head part_attention, not for sequential",
        ),
        ({"loss": {"parts": 1}}, r"loss.parts needs the head part_attention, not sequential"),
        ({"network": {"hed": "spin"}}, r"network.hed"),
        ({"data": {"crop_size": 8}}, "at least 32"),
        ({"data": {"sources": []}}, "at least one source"),
    ],
)
def test_settings_are_checked(small, sections, message):
    with pytest.raises(InputError, match=message):
        small(**sections)


def test_weights_that_do_not_fit_are_named(small, tmp_path):
    path = tmp_path / "w.pth"
    config = small(network={"pretrained": str(path)})
    with pytest.raises(InputError, match=r"w.pth: no such file"):
        make_task(config)
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"w.pth: cannot be read as tensors alone"):
        make_task(config)
    torch.save({"model": {"a": torch.zeros(1)}}, path)
    with pytest.raises(InputError, match=r"w.pth: holds more than names and tensors"):
        make_task(config)
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(InputError, match=r"w.pth: does not fit EfficientNetLite0"):
        make_task(config)
