"""Training the lifter on an endless stream of people."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from fitting.body import Body, load_body
from fitting.initial import mean_rotations
from fitting.metrics import mpjpe, pa_mpjpe
from priors.mocap import load_mocap

from .config import TrainingConfig
from .crop_view import look_at_people
from .lifter import Lifted, Lifter, LifterNetworkConfig, as_body_points, view_features
from .lifter_losses import joints_of, lifter_losses, rotation_error
from .synthetic.people import PeopleStream, StreamConfig, SyntheticPeople, validation_config
from .task import Batch


@dataclass(frozen=True, kw_only=True)
class LifterLossConfig:
    """Weights of the losses.

    Attributes:
        rotation: mean of |R^ - R|^2 over the joints.
        joints: mean distance of the joints relative to the pelvis, metres.
        betas: mean squared error.
        place: mean absolute error of the pelvis across, in sizes, and of the log of its distance.
        pose_nll, betas_nll, depth_nll, keypoint_nll: of the errors' densities. They teach how large
            the errors are, and leave the estimates alone: an estimate that may buy itself a lower
            density by being unsure learns less (Seitzer et al., ICLR 2022).
    """

    rotation: float = 1.0
    joints: float = 10.0
    betas: float = 0.05
    place: float = 1.0
    pose_nll: float = 0.1
    betas_nll: float = 0.02
    depth_nll: float = 0.02
    keypoint_nll: float = 0.1


@dataclass(frozen=True, kw_only=True)
class LifterConfig:
    """A file of `configs/` for the lifter."""

    task: Literal["lifter"] = "lifter"
    seed: int = 0
    training: TrainingConfig = field(default_factory=TrainingConfig)
    network: LifterNetworkConfig = field(default_factory=LifterNetworkConfig)
    data: StreamConfig = field(default_factory=StreamConfig)
    loss: LifterLossConfig = field(default_factory=LifterLossConfig)


_VALIDATION_PEOPLE = 2048
_VALIDATION_NUMBER = 0  # of the batch in a stream of its own


class LifterTask:
    """What `training.train` needs to know of the lifter."""

    name = "lifter"
    judged_by = "mpjpe_mm"

    def __init__(self, config: LifterConfig, body: Body | None = None) -> None:
        """Prepare the streams and a network with random weights; none means the bundled body."""
        self.config = config
        self.body = load_body() if body is None else body
        self.body_sha256 = self.body.sha256
        poses = load_mocap()
        self.stream = PeopleStream(self.body, poses, config.data, seed=config.seed)
        judged = validation_config(config.data)
        self.validation = PeopleStream(self.body, poses, judged, seed=config.seed)
        self.network: nn.Module = Lifter(config.network, mean_rotations(self.stream.pose_rotmat))

    def batch(self, number: int) -> Batch:
        """What is learned from the people of the stream's batch `number`."""
        return make_batch(self.stream.people(number, self.config.training.batch_size))

    def losses(self, network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Every loss by name, and their weighted sum."""
        raw = network(batch["features"])
        body = self._body_on(raw["pose"].device)
        # bodies want single precision: in half of it a hand is millimetres off
        with torch.autocast(raw["pose"].device.type, enabled=False):
            losses = lifter_losses(_decode(network, raw, batch), batch, body)
        weighted = [getattr(self.config.loss, name) * loss for name, loss in losses.items()]
        return {"loss": torch.stack(weighted).sum(), **losses}

    def evaluate(self, network: nn.Module) -> dict[str, float]:
        """Errors on people of the validation subjects, and how well the network knows them."""
        people = self.validation.people(_VALIDATION_NUMBER, _VALIDATION_PEOPLE)
        device = next(network.parameters()).device
        body = self._body_on(device)
        batch = {name: value.to(device) for name, value in make_batch(people).items()}
        lifted = _decode(network, network(batch["features"]), batch)
        joints, truth = joints_of(lifted, body).cpu(), batch["joints"].cpu()
        error = rotation_error(lifted.pose_rotmat, batch["pose_rotmat"])
        white = (lifted.pose_precision_root.mT @ error[..., None]).abs()
        return {
            "mpjpe_mm": float(mpjpe(joints, truth).mean()),
            "pa_mpjpe_mm": float(pa_mpjpe(joints, truth).mean()),
            "within_1_std": float((white < 1).float().mean()),
            "within_2_std": float((white < 2).float().mean()),
            **{name: float(x) for name, x in lifter_losses(lifted, batch, body).items()},
        }

    def _body_on(self, device: torch.device) -> Body:
        """The body where the network is; the streams' own stays on the CPU."""
        if self.body.v_template.device != device:
            self.body = copy.deepcopy(self.body).to(device)
        return self.body

    def pictures(self, network: nn.Module) -> dict[str, np.ndarray]:
        """None: its errors say more."""
        return {}


def make_task(config: LifterConfig) -> LifterTask:
    """The task of a configuration."""
    return LifterTask(config)


def _decode(network: nn.Module, raw: dict[str, Tensor], batch: Batch) -> Lifted:
    """In the frames of the turned cameras."""
    lifter = getattr(network, "module", network)  # of data-parallel and averaged networks
    assert isinstance(lifter, Lifter)
    return lifter.decode(raw, batch["size"])


def make_network(config: LifterConfig, body: Body | None) -> Lifter:
    """The network alone, for a checkpoint's weights. It does not depend on the body."""
    return Lifter(config.network, torch.eye(3).expand(24, 3, 3))


def make_batch(people: SyntheticPeople) -> Batch:
    """Inputs and targets of B people, as their turned cameras see them.

    The stream's keypoints are those of `skeleton.BODY_POINTS`, or of a set among them.
    """
    problem = as_body_points(people.problem)
    true = as_body_points(replace(people.problem, keypoints_2d=people.keypoints_2d))
    view = look_at_people(problem)
    rotations = people.pose_rotmat.clone()
    rotations[:, 0] = view.rotation @ rotations[:, 0]
    joints = people.joints @ view.rotation.mT
    error = (problem.keypoints_2d - true.keypoints_2d) / problem.person_size[:, None, None]
    return {
        "features": view_features(view, problem.conf),
        "size": view.size,
        "pose_rotmat": rotations,
        "betas": people.betas,
        "pelvis": joints[:, 0],
        "joints": joints - joints[:, :1],
        "keypoint_error": error,
        "seen": (problem.conf > 0).to(error),
    }
