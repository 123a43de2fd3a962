"""Training image regressors: HMR, SPIN, PARE, CLIFF and plainer ones, on people with pictures."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fitting.body import Body, load_body
from fitting.camera import project_points, weak_to_transl
from fitting.files import InputError, write_json
from fitting.keypoint_body import KeypointBody
from fitting.keypoints import map_keypoints
from fitting.metrics import mpjpe, pa_mpjpe, pve
from fitting.offline import choose_device
from fitting.overlay import draw_overlay
from fitting.table import write_fits
from priors.mocap import load_mocap

from .adversarial import AdversarialConfig, RealPeople, adversarial_losses
from .augmentation import AugmentationConfig
from .config import TrainingConfig
from .crops import CROP_SCALE, crop_matrix, restore_crops, transform_points
from .distributed import Group
from .heads import ImageEstimate, MeanParams, mean_of_prior, rest_pose
from .image_architectures import (
    AdversarialRegressor,
    ImageNetworkConfig,
    find_regressor,
    make_regressor,
)
from .image_data import ImageData, ImageDataConfig
from .image_losses import ImageLossConfig, image_loss_sum, image_losses
from .image_networks import ImageRegressor, locate_crops
from .image_sources import DataSourceConfig, read_source
from .learner import DTYPES
from .loop import FitLoop, LoopConfig, LoopPeople
from .snapshots import SHOWN, ShownPeople, Snapshots, concatenate_shown, cut_shown
from .task import Batch

LABELS = "labels"  # folder of a run: tables of the best fits known
COUNTS = "people.json"  # in it: how many people were left out of each
_PCK_SHARE = 0.1  # of the longer side of the box about the person
_CHUNK = 64  # people estimated at once when judged
_DRAWN = 8  # people in a picture of overlays


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """By whom the network is judged.

    Attributes:
        source: of people that are not among those to learn from.
        people: how many; their crops stay in memory, 0.6 MB each at 224 pixels.
    """

    source: DataSourceConfig = field(
        default_factory=lambda: DataSourceConfig(kind="drawn", split="validation")
    )
    people: int = 256

    def __post_init__(self) -> None:
        if self.people < 1:
            raise ValueError(f"people must be at least 1, got {self.people}")


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """A file of `configs/` for an image regressor."""

    task: Literal["image"] = "image"
    seed: int = 0
    training: TrainingConfig = field(default_factory=lambda: TrainingConfig(batch_size=64))
    network: ImageNetworkConfig = field(default_factory=ImageNetworkConfig)
    data: ImageDataConfig = field(default_factory=ImageDataConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    loss: ImageLossConfig = field(default_factory=ImageLossConfig)
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    loop: LoopConfig | None = None  # fits of whom nothing is known in 3D; none learns without

    def __post_init__(self) -> None:
        if self.loss.parts > 0 and self.network.head != "part_attention":
            raise ValueError(
                f"loss.parts needs the head part_attention, not {self.network.head}; set it to 0"
            )
        if self.network.cached and self.loss.parts > 0:
            raise ValueError("network.cached knows nothing of body parts; set loss.parts to 0")
        if self.network.cached and (self.network.views > 1) == self.augmentation.mirrors_only:
            raise ValueError(
                "network.cached knows pictures as they are and mirrored, and network.views - 1 "
                "that are augmented; set views to 4, or to 1 and augmentation to {scale: [1, 1], "
                "scale_std: null, rotation_deg: 0, color: 0}"
            )
        if self.network.cached and any(source.kind == "drawn" for source in self.data.sources):
            raise ValueError(
                "network.cached knows people of tables and keypoint files, and drawn ones have no "
                "end; set it to false, or draw them first with fit-cli synth"
            )


class ImageTask:
    """What `training.train` needs to know of an image regressor."""

    name = "image"

    def __init__(self, config: ImageConfig) -> None:
        """Open the sources and make the network.

        Raises:
            InputError: a source or a file of weights cannot be used.
        """
        self.config = config
        self.body = load_body(Path(config.data.body) if config.data.body else None)
        self.body_sha256 = self.body.sha256
        self.data = ImageData(
            config.data,
            self.body,
            seed=config.seed,
            augmentation=config.augmentation,
            for_loop=config.loop is not None,
        )
        self.loop = None if config.loop is None else self._make_loop(config.loop)
        self.network: nn.Module = make_regressor(
            config.network,
            adversarial=config.adversarial.encoder > 0,
            mean=self._mean(),
        )
        if config.loss.parts > 0:  # known only now: the network starts from the mean of the data
            self.data.part_size = _map_size(find_regressor(self.network), config.data.crop_size)
        judged = ImageDataConfig(
            sources=(config.evaluation.source,),
            crop_size=config.data.crop_size,
            filter=config.data.filter,
        )
        if config.network.cached:
            self.data.cache_features(self.encode, config.network.views)
        # another seed, so that drawn people are others even if the splits are not
        self.validation = ImageData(judged, self.body, seed=config.seed + 1)
        in_3d = self.validation.sources[0].mean is not None
        self.judged_by = "pa_mpjpe_mm" if in_3d else "keypoint_error"
        self.keypoint_body = KeypointBody(self.body, map_keypoints(self.body, self.data.keypoints))
        self._snapshots: Snapshots | None = None
        self._real_people = None
        if config.adversarial.encoder > 0:
            self._real_people = RealPeople(load_mocap(), seed=config.seed)

    def encode(self, images: Tensor) -> Tensor:
        """Features of crops (B, 3, S, S), in the precision of the training, on the CPU."""
        device, dtype = choose_device("auto"), DTYPES[self.config.training.precision]
        regressor = find_regressor(self.network)
        regressor.encoder.to(device).eval()
        with torch.no_grad(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            return regressor.encode(images.to(device)).cpu()

    def _make_loop(self, config: LoopConfig) -> FitLoop:
        datasets = {
            i: LoopPeople(
                name=f"{i}: {Path(self.config.data.sources[i].path).name}",
                people=source.fits,
                static=self.config.data.sources[i].params == "fits",
            )
            for i, source in enumerate(self.data.sources)
            if source.fits is not None
        }
        if not datasets:
            raise InputError(
                "loop has nobody to fit: the sources are drawn, or their parameters are the truth; "
                "leave loop out, or set params of a table to fits or none"
            )
        return FitLoop(config, self.body, self.data.keypoints, datasets)

    def _mean(self) -> MeanParams:
        """What the head starts from."""
        if self.config.network.mean == "prior":
            return mean_of_prior()
        if self.config.network.mean != "data":
            return rest_pose()
        known = [s.mean for s in self.data.sources if s.mean is not None]
        if not known:
            raise InputError(
                "network.mean data needs people with body parameters, and no source has any; use "
                "prior"
            )
        return known[0]

    def batch(self, number: int) -> Batch:
        """People of batch `number`, and real people for discriminators, where there are any."""
        size = self.config.training.batch_size
        batch = self.data.batch(number, size)
        if self._real_people is not None:
            batch["real_pose"], batch["real_betas"] = self._real_people.draw(number, size)
        return batch

    def losses(self, network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Every loss by name, and their weighted sum.

        In the loop estimates are fitted and stored while gradients are on: whoever only looks at
        a network leaves the fits as they are.
        """
        estimate = _estimate(network, batch)
        if self.loop is not None and torch.is_grad_enabled():
            batch = self.loop.targets(estimate, batch)
        config = self.config
        body, keypoint_body = self._bodies_on(batch["crop"].device)
        losses = image_losses(estimate, batch, body, keypoint_body, config.loss)
        total = image_loss_sum(losses, config.loss)
        regressor = find_regressor(network)
        if isinstance(regressor, AdversarialRegressor):
            against = adversarial_losses(
                regressor.discriminator,
                estimate,
                batch["real_pose"],
                batch["real_betas"],
                (batch["conf"] > 0).any(dim=1),
            )
            total = total + config.adversarial.encoder * against["adversarial_encoder"]
            total = total + config.adversarial.discriminator * against["adversarial_discriminator"]
            losses = losses | against
        return {"loss": total, **losses}

    def begin_files(self, run: Path, group: Group) -> None:
        """Make the store of fits, and have no snapshots yet; see `task.KeepsFiles`."""
        if self.loop is not None:
            self.loop.begin(run, group)
        self._snapshots = Snapshots(run, self._choose_shown, self.body_sha256)
        if group.is_first:
            self._snapshots.keep_until(-1)

    def resume_files(self, run: Path, step: int) -> None:
        """Open the store of fits, and have the snapshots of up to this step."""
        if self.loop is not None:
            self.loop.resume(run, step)
        self._snapshots = Snapshots(run, self._choose_shown, self.body_sha256)
        self._snapshots.keep_until(step)

    def show_files(self, step: int, network: nn.Module) -> None:
        """Take a snapshot of a few people."""
        assert self._snapshots is not None, "begin or resume a run first"
        device = next(network.parameters()).device
        self._snapshots.take(
            step,
            lambda batch: _estimate(network, {n: v.to(device) for n, v in batch.items()}),
            self.loop,
        )

    def _choose_shown(self) -> ShownPeople:
        """Some of those that the network is judged by, and some of those fitted in the loop."""
        size, datasets = self.config.data.crop_size, self.loop.datasets if self.loop else {}
        parts = [cut_shown(self.validation.sources[0].first(SHOWN), size)]
        for number, known in datasets.items():
            some = self.data.sources[number].first(-(-SHOWN // len(datasets)))
            parts.append(cut_shown(some, size, dataset=known.name))
        return concatenate_shown(parts)

    def save_files(self, step: int, group: Group) -> None:
        """Save what changed in the store."""
        if self.loop is not None:
            self.loop.opened.save(step, group)

    def commit_files(self, group: Group) -> None:
        """Put it where it belongs."""
        if self.loop is not None:
            self.loop.opened.commit(group)

    def finish_files(self, run: Path, group: Group) -> None:
        """Write the best fits known as tables: `labels/00.parquet` of the first source, ...

        Beside them stands how many people there are in the files, and how many of them were kept.
        """
        if self.loop is None or not group.is_first:
            return
        (run / LABELS).mkdir(exist_ok=True)
        counts = {}
        for number, known in self.loop.datasets.items():
            people = read_source(self.config.data.sources[number])
            table = self.loop.labels(number, people)
            write_fits(run / LABELS / f"{number:02d}.parquet", table)
            counts[known.name] = {"in_file": len(people), "kept": len(table)}
        write_json(run / LABELS / COUNTS, counts)

    def describe_files(self) -> dict[str, float]:
        """Statistics of the store; without fits there is no mean cost, as the log takes no NaN."""
        found = {} if self.loop is None else self.loop.opened.statistics()
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def _bodies_on(self, device: torch.device) -> tuple[Body, KeypointBody]:
        """The bodies where the network is; the data's own stays on the CPU."""
        if self.body.v_template.device != device:
            self.body = copy.deepcopy(self.body).to(device)
            self.keypoint_body = copy.deepcopy(self.keypoint_body).to(device)
        return self.body, self.keypoint_body

    @cached_property
    def _held_out(self) -> Batch:
        """Whom the network is judged by, read once."""
        return self.validation.first(self.config.evaluation.people)

    def _judged(self, network: nn.Module) -> Batch:
        """Them, with the features that a frozen encoder has always seen in them."""
        batch, regressor = self._held_out, find_regressor(network)
        if regressor.frozen and "features" not in batch:
            device = next(network.parameters()).device
            parts = [regressor.encode(p.to(device)) for p in batch["images"].split(_CHUNK)]
            batch["features"] = torch.cat(parts).cpu()
        return batch

    def evaluate(self, network: nn.Module) -> dict[str, float]:
        """Errors on held-out people; those in 3D on SMPL's 24 joints, from the pelvis."""
        truth = self._judged(network)
        seen = [self.see(network, chunk) for chunk in _chunks(truth)]
        found = {name: torch.cat([part[name] for part in seen]).numpy() for name in seen[0]}
        metrics: dict[str, float] = {}
        known = truth["has_params"].numpy() > 0
        if known.any():
            metrics |= _errors_in_3d({n: v[known] for n, v in found.items()})
        error = np.linalg.norm(found["projected"] - truth["keypoints_2d"].numpy(), axis=2)
        error = (error / truth["crop"][:, 2:].numpy())[truth["conf"].numpy() > 0]
        return {
            **metrics,
            "keypoint_error": float(error.mean()),
            "pck_2d": float((CROP_SCALE * error <= _PCK_SHARE).mean()),
        }

    def see(self, network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Estimated and true points of the people of a batch, metres and pixels, on the CPU."""
        device = next(network.parameters()).device
        body, keypoint_body = self._bodies_on(device)
        batch = {name: value.to(device) for name, value in batch.items()}
        estimate = _estimate(network, batch)
        posed = body.pose(estimate.pose_rotmat, estimate.betas)
        truth = body.pose(batch["pose_rotmat"], batch["betas"])
        keypoints, _ = keypoint_body.pose_rotations(estimate.pose_rotmat, estimate.betas)
        transl = weak_to_transl(estimate.weak_cam, batch["crop"], batch["intrinsics"])
        projected, _ = project_points(keypoints + transl[:, None], batch["intrinsics"])
        points = {
            "joints": posed.joints,
            "true_joints": truth.joints,
            "vertices": posed.vertices,
            "true_vertices": truth.vertices,
            "transl": transl,
            "projected": projected,
        }
        return {name: value.cpu() for name, value in points.items()}

    def pictures(self, network: nn.Module) -> dict[str, NDArray[np.uint8]]:
        """A few held-out people, and the estimated bodies over them."""
        batch = {name: value[:_DRAWN] for name, value in self._held_out.items()}
        seen = self.see(network, batch)
        crops, faces = restore_crops(batch["images"]), self.body.faces.cpu().numpy()
        columns = []
        for i, crop in enumerate(crops):
            matrix = crop_matrix(batch["crop"][i].numpy(), len(crop))
            to_crop = np.vstack([matrix, [0, 0, 1]]) @ batch["intrinsics"][i].numpy()
            overlay = draw_overlay(
                crop,
                (seen["vertices"][i] + seen["transl"][i]).numpy(),
                faces,
                to_crop,
                keypoints_2d=transform_points(batch["keypoints_2d"][i].numpy(), matrix),
                conf=batch["conf"][i].numpy(),
            )
            columns.append(np.concatenate([crop, overlay]))
        return {"people": np.concatenate(columns, axis=1)}


def _estimate(network: nn.Module, batch: Batch) -> ImageEstimate:
    """What a network says of the people of a batch; CLIFF's is told where their crops are."""
    box = None
    if find_regressor(network).head.needs_box:
        box = locate_crops(batch["crop"], batch["intrinsics"])
    return network(batch.get("images"), box, features=batch.get("features"))


def _chunks(batch: Batch) -> Iterator[Batch]:
    for start in range(0, len(batch["images"]), _CHUNK):
        yield {name: value[start : start + _CHUNK] for name, value in batch.items()}


def _errors_in_3d(points: dict[str, NDArray[np.floating]]) -> dict[str, float]:
    joints, truth = points["joints"], points["true_joints"]
    mesh = pve(points["vertices"], points["true_vertices"], joints[:, 0], truth[:, 0])
    return {
        "mpjpe_mm": float(mpjpe(joints, truth).mean()),
        "pa_mpjpe_mm": float(pa_mpjpe(joints, truth).mean()),
        "pve_mm": float(mesh.mean()),
    }


@torch.no_grad()
def _map_size(regressor: ImageRegressor, crop_size: int) -> int:
    """Pixels across the encoder's feature map, which are those of the body parts."""
    was_training = regressor.training
    features = regressor.eval().encoder(torch.zeros(1, 3, crop_size, crop_size))
    regressor.train(was_training)
    return features.shape[-1]


def make_task(config: ImageConfig) -> ImageTask:
    """The task of a configuration."""
    return ImageTask(config)


def make_network(config: ImageConfig, body: Body | None) -> ImageRegressor:
    """The network alone, for a checkpoint's weights. It does not depend on the body."""
    return make_regressor(config.network, adversarial=config.adversarial.encoder > 0)
