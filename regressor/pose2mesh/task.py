"""Training Pose2Mesh on an endless stream of people."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from fitting.body import Body, load_body
from fitting.files import InputError
from fitting.keypoint_body import KeypointBody
from fitting.keypoints import map_keypoints
from fitting.metrics import pa_mpjpe, point_errors_mm
from fitting.skeleton import KeypointSet, keypoint_set
from priors.mocap import MocapPoses, load_mocap

from ..checkpoints import load_checkpoint
from ..config import TrainingConfig
from ..curves import CurveRecorder
from ..synthetic.people import PeopleStream, StreamConfig, SyntheticPeople, validation_config
from ..task import Batch
from .losses import (
    coordinate_loss,
    edge_loss,
    face_edges,
    joint_regressor,
    joints_of_meshes,
    normal_loss,
)
from .mesh_net import PUBLISHED_CHANNELS
from .network import (
    COCO19,
    MeshEstimate,
    Pose2Mesh,
    make_mesh_net,
    see_people,
)
from .pose_net import PoseNet

_MM_PER_METRE = 1000.0
_VALIDATION_PEOPLE = 512
_VALIDATION_NUMBER = 0  # of the batch in a stream of its own


@dataclass(frozen=True, kw_only=True)
class Pose2MeshNetworkConfig:
    """Sizes of the networks; the defaults are the published ones.

    Attributes:
        keypoint_set: of the keypoints that go in: "coco19" (COCO's with pelvis and neck) or a name
            of `fitting.skeleton`.
        pose_width, pose_stages, dropout: of PoseNet.
        mesh_channels: widths of MeshNet's convolutions, block by block (`PUBLISHED_CHANNELS`): one
            block on the skeleton, one on each level of the mesh from the coarsest on, and a second
            one on the finest that ends in 3.
    """

    keypoint_set: str = COCO19.name
    pose_width: int = 4096
    pose_stages: int = 2
    dropout: float = 0.5
    mesh_channels: tuple[tuple[int, ...], ...] = PUBLISHED_CHANNELS

    def __post_init__(self) -> None:
        input_set(self)
        if self.pose_width < 1 or self.pose_stages < 0 or not 0 <= self.dropout < 1:
            raise ValueError(
                f"pose_width >= 1, pose_stages >= 0 and 0 <= dropout < 1 are needed, got {self}"
            )
        blocks = self.mesh_channels
        if len(blocks) < 3 or not all(block and min(block) > 0 for block in blocks):
            raise ValueError("mesh_channels needs three or more blocks of positive widths")
        if blocks[-1][-1] != 3:
            raise ValueError(f"mesh_channels must end in 3 coordinates, got {blocks[-1][-1]}")


@dataclass(frozen=True, kw_only=True)
class Pose2MeshLossConfig:
    """Weights of the losses (`losses`), which are in metres; the published ones.

    Attributes:
        pose: of the lifted joints.
        vertex, joint, normal, edge: of the mesh.
        edge_from: number of the first batch whose edges count: lengths mean little before there is
            a body.
    """

    pose: float = 1.0
    vertex: float = 1.0
    joint: float = 1.0
    normal: float = 0.1
    edge: float = 20.0
    edge_from: int = 0


@dataclass(frozen=True, kw_only=True)
class Pose2MeshConfig:
    """A file of `configs/` for Pose2Mesh.

    Attributes:
        stage: "posenet" trains the lifter alone; "whole" goes on with both networks.
        posenet: checkpoint of the first stage, from which the second takes the lifter; "" starts
            with a fresh one.
    """

    task: Literal["pose2mesh"] = "pose2mesh"
    seed: int = 0
    stage: Literal["posenet", "whole"] = "whole"
    posenet: str = ""
    training: TrainingConfig
    network: Pose2MeshNetworkConfig = field(default_factory=Pose2MeshNetworkConfig)
    data: StreamConfig = field(default_factory=lambda: StreamConfig(keypoint_sets={"coco17": 1.0}))
    loss: Pose2MeshLossConfig = field(default_factory=Pose2MeshLossConfig)

    def __post_init__(self) -> None:
        if self.stage == "posenet" and self.posenet:
            raise ValueError('posenet has no effect with stage "posenet"; leave it out')


def input_set(config: Pose2MeshNetworkConfig) -> KeypointSet:
    """The keypoints that go in."""
    return COCO19 if config.keypoint_set == COCO19.name else keypoint_set(config.keypoint_set)


class Pose2MeshTask:
    """What `training.train` needs to know of Pose2Mesh."""

    name = "pose2mesh"

    def __init__(
        self, config: Pose2MeshConfig, body: Body | None = None, poses: MocapPoses | None = None
    ) -> None:
        """Prepare the streams and the network; none means the bundled body and poses.

        Raises:
            InputError: the first stage's checkpoint cannot be used.
        """
        self.config = config
        self.body = load_body() if body is None else body
        self.body_sha256 = self.body.sha256
        self.judged_by = "lifted_mpjpe_mm" if config.stage == "posenet" else "mpjpe_mm"
        keypoints = input_set(config.network)
        self.keypoint_set = keypoints
        self.keypoint_body = KeypointBody(self.body, map_keypoints(self.body, keypoints))
        self.mesh_joints = joint_regressor(self.body, keypoints)
        self.judged_joints = joint_regressor(self.body, keypoint_set("lsp14"))
        self.stream, self.validation = _streams(
            self.body, load_mocap() if poses is None else poses, config
        )
        network = make_network(config, self.body)
        if config.posenet:
            _take_lifter(network, config.posenet, self.body)
        self.network: nn.Module = network
        self._curves = CurveRecorder()

    def batch(self, number: int) -> Batch:
        """People of the stream's batch `number`, and the number itself for each of them."""
        people = self.stream.people(number, self.config.training.batch_size)
        return {**self.make_batch(people), "number": torch.full((len(people),), number)}

    def make_batch(self, people: SyntheticPeople) -> Batch:
        """Inputs and truth of B people, along the axes of cameras turned towards them.

        The mesh is left to `losses`: parameters are smaller to hand over and posed in no time.
        """
        pose_2d, rotation = see_people(people.problem, self.keypoint_set)
        rotations = people.pose_rotmat.clone()
        rotations[:, 0] = rotation @ rotations[:, 0]
        keypoints, joints = self.keypoint_body.pose_rotations(rotations, people.betas)
        return {
            "pose_2d": pose_2d,
            "pose_rotmat": rotations,
            "betas": people.betas,
            "keypoints": keypoints - joints[:, :1],
        }

    def losses(self, network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Every loss by name, and their weighted sum."""
        estimate = network(batch["pose_2d"])
        with torch.autocast(batch["pose_2d"].device.type, enabled=False):
            losses = self._losses(estimate, batch)
        weights = self.config.loss
        weighted = {name: getattr(weights, name) * loss for name, loss in losses.items()}
        if "edge" in weighted:
            weighted["edge"] = weighted["edge"] * (batch["number"][0] >= weights.edge_from)
        named = {"loss": torch.stack(list(weighted.values())).sum(), **losses}
        if network.training:
            self._curves.add(named, batch["number"][0])
        return named

    def _losses(self, estimate: MeshEstimate, batch: Batch) -> dict[str, Tensor]:
        """Without their weights."""
        lifted = estimate.joints_mm / _MM_PER_METRE
        losses = {"pose": coordinate_loss(lifted, batch["keypoints"])}
        if estimate.vertices is not None:
            truth = self._true_mesh(batch)
            A, faces = self.mesh_joints.to(truth), self.body.faces
            joints, true_joints = (joints_of_meshes(A, v) for v in (estimate.vertices, truth))
            edges, true_edges = face_edges(estimate.vertices, faces), face_edges(truth, faces)
            losses |= {
                "vertex": coordinate_loss(estimate.vertices, truth),
                "joint": coordinate_loss(joints, true_joints),
                "normal": normal_loss(edges, true_edges),
                "edge": edge_loss(edges, true_edges),
            }
        return {name: loss.mean() for name, loss in losses.items()}

    @torch.no_grad()
    def _true_mesh(self, batch: Batch) -> Tensor:
        """(B, V, 3) metres relative to the pelvis, on the batch's device."""
        posed = self.body.to(batch["betas"].device).pose(batch["pose_rotmat"], batch["betas"])
        return posed.vertices - posed.joints[:, :1]

    def evaluate(self, network: nn.Module) -> dict[str, float]:
        """Errors on people of the validation subjects, relative to the pelvis.

        `mpjpe_mm` is over LSP's 14 joints as both meshes have them; see `joint_regressor`.
        """
        device = next(network.parameters()).device
        people = self.validation.people(_VALIDATION_NUMBER, _VALIDATION_PEOPLE)
        whole = self.make_batch(people)
        parts: dict[str, list[np.ndarray]] = defaultdict(list)
        for first in range(0, len(people), self.config.training.batch_size):
            rows = slice(first, first + self.config.training.batch_size)
            batch = {name: value[rows].to(device) for name, value in whole.items()}
            for name, errors in self._errors_mm(network(batch["pose_2d"]), batch).items():
                parts[name].append(errors)
        metrics = {name: float(np.concatenate(values).mean()) for name, values in parts.items()}
        self._curves.mark(metrics)
        return metrics

    def _errors_mm(self, estimate: MeshEstimate, batch: Batch) -> dict[str, np.ndarray]:
        """Errors of each person by name, (B,) mm."""
        lifted = estimate.joints_mm.cpu() / _MM_PER_METRE
        errors = {"lifted_mpjpe_mm": point_errors_mm(lifted, batch["keypoints"].cpu()).mean(axis=1)}
        if estimate.vertices is not None:
            truth = self._true_mesh(batch).cpu()
            vertices = estimate.vertices.cpu()
            joints, true_joints = self.judged_joints @ vertices, self.judged_joints @ truth
            errors["mpjpe_mm"] = point_errors_mm(joints, true_joints).mean(axis=1)
            errors["pa_mpjpe_mm"] = pa_mpjpe(joints, true_joints)
            errors["pve_mm"] = point_errors_mm(vertices, truth).mean(axis=1)
        return errors

    def pictures(self, network: nn.Module) -> dict[str, np.ndarray]:
        """Curves of losses and errors, one point an evaluation; none before the second."""
        return self._curves.pictures()


def make_task(config: Pose2MeshConfig) -> Pose2MeshTask:
    """The task of a configuration, on the bundled body."""
    return Pose2MeshTask(config)


def make_network(config: Pose2MeshConfig, body: Body | None) -> Pose2Mesh:
    """A network with fresh weights; its mesh is that of `body`, none means the bundled one."""
    sizes, keypoints = config.network, input_set(config.network)
    lifter = PoseNet(
        len(keypoints), width=sizes.pose_width, stages=sizes.pose_stages, dropout=sizes.dropout
    )
    if config.stage == "posenet":
        return Pose2Mesh(keypoints, lifter, None)
    body = load_body() if body is None else body
    return Pose2Mesh(keypoints, lifter, make_mesh_net(body, keypoints, sizes.mesh_channels))


def _take_lifter(network: Pose2Mesh, path: str, body: Body) -> None:
    """Give the network the lifter of the first stage's checkpoint."""
    trained = load_checkpoint(path, body=body)
    if not isinstance(trained, Pose2Mesh) or trained.keypoint_set != network.keypoint_set:
        raise InputError(f"{path}: holds no PoseNet for the keypoints of this config")
    expected = network.pose_lifter.state_dict()
    weights = trained.pose_lifter.state_dict()
    if {k: v.shape for k, v in weights.items()} != {k: v.shape for k, v in expected.items()}:
        raise InputError(
            f"{path}: its PoseNet is of another size; train both stages with the same pose_width "
            "and pose_stages"
        )
    network.pose_lifter.load_state_dict(weights)


def _streams(
    body: Body, poses: MocapPoses, config: Pose2MeshConfig
) -> tuple[PeopleStream, PeopleStream]:
    """People to learn from, and people of the validation subjects, by whom the lifter is judged."""
    configs = (config.data, validation_config(config.data))
    first, second = (PeopleStream(body, poses, data, seed=config.seed) for data in configs)
    return first, second
