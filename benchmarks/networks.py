"""Networks that see a person in keypoints, without a fit: their errors, their size, their training.

Pose2Mesh gives a mesh and no body parameters, so joints are taken from meshes: from each network's
and from the true one by the same weights (`regressor.pose2mesh.losses.joint_regressor`). They lie
some millimetres beside the joints of the skeleton, with which the fits are measured.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fitting.body import Body, pose_body
from fitting.files import InputError
from fitting.metrics import pa_mpjpe, pve
from fitting.problem import BodyParams, FitProblem
from fitting.skeleton import keypoint_set
from regressor.checkpoints import load_checkpoint
from regressor.lift import LIFTER_FILE, load_lifter
from regressor.pose2mesh.losses import joint_regressor
from regressor.pose2mesh.network import Pose2Mesh, predict

_CHUNK = 64  # people at once, so that memory does not grow with them

# people as they were seen -> their vertices (B, V, 3) metres, wherever the pelvis is
MakeMesh = Callable[[FitProblem], Tensor]


def make_lifter(body: Body) -> tuple[MakeMesh, dict[str, Any]]:
    """The bundled lifter's meshes, and its size."""
    lift = load_lifter(body)

    def make_mesh(problem: FitProblem) -> Tensor:
        _, (estimate,) = lift(problem)
        return pose_body(body, estimate).vertices

    return make_mesh, describe_size(lift.lifter, LIFTER_FILE)


def make_pose2mesh(body: Body, path: Path) -> tuple[MakeMesh, dict[str, Any]]:
    """Meshes of the Pose2Mesh in a checkpoint, and its size.

    Raises:
        InputError: the checkpoint holds something else.
    """
    network = load_checkpoint(path, body=body, device=body.v_template.device)
    if not isinstance(network, Pose2Mesh) or network.pose2mesh is None:
        raise InputError(f"{path}: holds no Pose2Mesh; give best.pt of its second stage")
    return lambda problem: predict(network, problem), describe_size(network, path)


def describe_size(network: nn.Module, path: Path) -> dict[str, Any]:
    """How many weights a network has, and how large its file is."""
    return {
        "parameters": sum(p.numel() for p in network.parameters()),
        "megabytes": round(path.stat().st_size / 1e6, 1),
    }


def training_seconds(runs: Sequence[Path]) -> float | None:
    """Time spent on all the updates of the runs, one after another; none where there is no run.

    Args:
        runs: files run.json, one a stage.
    """
    if not runs:
        return None
    records = [json.loads(path.read_text(encoding="utf-8")) for path in runs]
    return round(sum(record["seconds"]["train"] for record in records), 1)


@torch.no_grad()
def mesh_errors(
    make_mesh: MakeMesh, body: Body, problem: FitProblem, truth: BodyParams
) -> dict[str, np.ndarray]:
    """(N,) mm: MPJPE and PA-MPJPE over LSP's 14 joints, and PVE, with the pelvises as one."""
    joints_of = joint_regressor(body, keypoint_set("lsp14"))
    parts = []
    for rows in torch.arange(len(problem), device=problem.conf.device).split(_CHUNK):
        meshes = make_mesh(problem.select(rows)), pose_body(body, truth.select(rows)).vertices
        roots = [(body.J_regressor[0] @ vertices).cpu().numpy() for vertices in meshes]
        joints = [(joints_of @ vertices).cpu().numpy() for vertices in meshes]
        vertices = [vertices.cpu().numpy() for vertices in meshes]
        parts.append(
            {
                "mpjpe": pve(*joints, *roots),
                "pa_mpjpe": pa_mpjpe(*joints),
                "pve": pve(*vertices, *roots),
            }
        )
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
