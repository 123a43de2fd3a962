"""Pose2Mesh: from 2D keypoints to a mesh, without body parameters.

Choi, Moon and Lee, "Pose2Mesh: Graph Convolutional Network for 3D Human Pose and Mesh Recovery from
a 2D Human Pose" (ECCV 2020). PoseNet lifts keypoints to 3D; MeshNet convolves keypoints and lifted
joints on the graph of the skeleton, spreads them over a coarse mesh by one linear layer, and
refines that level by level up to the body's own mesh.

Parameters have the names and shapes of the authors' published checkpoints. What those files lack is
the mesh graph: `official` says what follows from that.

Units: keypoints go in as `normalise_pose` makes them; lifted joints come out in millimetres (as
published), vertices in metres, both relative to the pelvis, along the camera's axes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fitting.body import Body
from fitting.problem import FitProblem
from fitting.skeleton import KEYPOINT_SETS, KeypointSet, convert_keypoints

from ..crop_view import look_at_people
from .mesh_graph import SparseArray, adjacency, build_mesh_graph, scaled_laplacian
from .mesh_net import Channels, MeshNet
from .pose_net import PoseNet

_MM_PER_METRE = 1000.0
_COCO17 = KEYPOINT_SETS["coco17"]
# The authors' "coco" joints.
COCO19 = KeypointSet(
    name="coco19",
    names=(*_COCO17.names, "pelvis", "neck"),
    points=(*_COCO17.points, "mid_hip", "mid_shoulder"),
    limbs=(
        ("left_eye", "right_eye"), ("nose", "left_eye"), ("nose", "right_eye"),
        ("left_eye", "left_ear"), ("right_eye", "right_ear"), ("neck", "nose"),
        ("neck", "left_shoulder"), ("left_shoulder", "left_elbow"), ("left_elbow", "left_wrist"),
        ("neck", "right_shoulder"), ("right_shoulder", "right_elbow"),
        ("right_elbow", "right_wrist"), ("neck", "pelvis"),
        ("pelvis", "left_hip"), ("left_hip", "left_knee"), ("left_knee", "left_ankle"),
        ("pelvis", "right_hip"), ("right_hip", "right_knee"), ("right_knee", "right_ankle"),
    ),
)  # fmt: skip


class MeshEstimate(NamedTuple):
    """What the network says of B people; relative to the pelvis, along the camera's axes."""

    vertices: Tensor | None  # (B, V, 3) metres; none of a network that only lifts
    joints_mm: Tensor  # (B, J, 3) millimetres, the lifted keypoints


def normalise_pose(keypoints_2d: Tensor, seen: Tensor) -> Tensor:
    """Keypoints as the network sees them: without place and size in the picture.

    (x - mean) / deviation, x and y each by themselves, over the keypoints of a person that are
    seen. Any crop around the person, as the authors take before, cancels out in it. They give the
    network all keypoints; here one that is not seen lies at the mean, 0.

    Args:
        keypoints_2d: (B, J, 2) pixels or any other unit; those unseen do not count.
        seen: (B, J) bool.

    Returns:
        (B, J, 2); all zero for a person of whom at most one keypoint is seen.
    """
    mask = seen[..., None]
    count = mask.sum(dim=1, keepdim=True).clamp(min=1)
    known = keypoints_2d.where(mask, 0)
    centred = (known - known.sum(dim=1, keepdim=True) / count).where(mask, 0)
    deviation = (centred.square().sum(dim=1, keepdim=True) / count).sqrt()
    # points upon each other have no size: they stay where they are, at 0
    return centred / deviation.where(deviation > 1e-3, 1.0)


class Pose2Mesh(nn.Module):
    """PoseNet and MeshNet, one after the other.

    Attributes:
        keypoint_set: of the J keypoints it takes; none where a checkpoint does not say.
        pose_lifter: normalised keypoints (B, J * 2) -> joints (B, J * 3) in millimetres.
        pose2mesh: keypoints and lifted joints in metres (B, J, 5) -> vertices (B, V, 3) in metres;
            none while only the lifter is trained.
    """

    def __init__(
        self, keypoint_set: KeypointSet | None, pose_lifter: PoseNet, pose2mesh: MeshNet | None
    ) -> None:
        super().__init__()
        self.keypoint_set = keypoint_set
        self.pose_lifter = pose_lifter
        self.pose2mesh = pose2mesh

    def forward(self, pose_2d: Tensor) -> MeshEstimate:
        """Estimate the meshes of normalised keypoints (B, J, 2), `normalise_pose`."""
        joints_mm = self.pose_lifter(pose_2d.flatten(1)).unflatten(1, (-1, 3))
        if self.pose2mesh is None:
            return MeshEstimate(None, joints_mm)
        # as published, PoseNet learns from its own loss alone
        both = torch.cat([pose_2d, joints_mm.detach() / _MM_PER_METRE], dim=2)
        return MeshEstimate(self.pose2mesh(both), joints_mm)


def skeleton_graph(keypoint_set: KeypointSet) -> SparseArray:
    """(J, J) scaled Laplacian of the limbs and of the pairs of left and right."""
    mirrored = np.stack([np.arange(len(keypoint_set)), keypoint_set.flip], axis=1)
    edges = np.concatenate([keypoint_set.edges, mirrored])
    return scaled_laplacian(adjacency(edges, len(keypoint_set)))


def make_mesh_net(body: Body, keypoint_set: KeypointSet, channels: Channels) -> MeshNet:
    """An untrained MeshNet for the topology of `body`; the same body always gives the same one."""
    graph = build_mesh_graph(body.faces.cpu(), body.num_vertices, levels=len(channels) - 3)
    return MeshNet(
        len(keypoint_set),
        channels=channels,
        coarse_nodes=graph.sizes[-1],
        skeleton=skeleton_graph(keypoint_set),
        graph=graph,
    )


@torch.no_grad()
def predict(network: Pose2Mesh, problem: FitProblem) -> Tensor:
    """Meshes of people from their keypoints.

    Args:
        network: in eval mode, with a MeshNet.
        problem: of B people; keypoints of another set are converted, those it lacks are unseen.

    Returns:
        (B, V, 3) metres relative to the pelvis, along the axes of the pictures' cameras. A person
        of whom nothing is seen gets the network's mean pose.

    Raises:
        ValueError: the network cannot say which keypoints it takes, or it only lifts.
    """
    if network.keypoint_set is None:
        raise ValueError("the network's keypoint set is unknown: set network.keypoint_set first")
    like = next(network.parameters())
    pose_2d, rotation = see_people(problem, network.keypoint_set)
    vertices = network(pose_2d.to(like)).vertices
    if vertices is None:
        raise ValueError("this network only lifts keypoints; load one that has a MeshNet as well")
    return vertices @ rotation.to(like)  # v = R^T v', as rows


def see_people(problem: FitProblem, keypoint_set: KeypointSet) -> tuple[Tensor, Tensor]:
    """What the network takes of B people, seen by cameras turned towards them.

    The published network is trained on people near the middle of their pictures, and is not told
    where they are: someone in a corner would come out turned, as they are seen from the side.

    Returns:
        pose_2d: (B, J, 2), normalised.
        rotation: (B, 3, 3) from the picture's camera frame to the turned camera's, in which the
            network estimates.
    """
    view = look_at_people(problem)
    keypoints, conf = convert_keypoints(
        view.keypoints.cpu().numpy(), problem.conf.cpu().numpy(), problem.keypoint_set, keypoint_set
    )
    return normalise_pose(torch.from_numpy(keypoints), torch.from_numpy(conf) > 0), view.rotation
