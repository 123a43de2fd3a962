"""3D error of every solver and start on held-out poses, at three levels of keypoint noise.

    python benchmarks/accuracy.py [--people 192] [--solver adam --solver lbfgs]

Poses are those of subjects that no prior was fitted to; bodies, cameras and noise are random and
seeded (`benchmarks/problems.py`). The solver is told the camera's intrinsics. MPJPE and PA-MPJPE
are over LSP's 14 joints, MPJPE aligned at the pelvis, PVE over all vertices, aligned alike.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from problems import LEVELS, Truth, add_noise, make_truth, pose_body
from record import RESULTS, describe_run

from fitting.body import Body, load_body
from fitting.files import write_json
from fitting.fit import SOLVERS, choose_device
from fitting.initial import mean_starts
from fitting.keypoints import map_keypoints
from fitting.metrics import mpjpe, pa_mpjpe, pve
from fitting.problem import BodyParams, FitProblem, FitResult
from fitting.skeleton import joint_index, keypoint_set
from fitting.smplify import fit_smplify
from priors.gmm import MaxMixturePrior, load_pose_prior

OUTLIER_MM = 150.0


def errors_of(body: Body, params: BodyParams, truth: Truth) -> dict[str, np.ndarray]:
    """(N,) mm for each measure."""
    joints = map_keypoints(body, keypoint_set("lsp14"))
    got, true = pose_body(body, params), pose_body(body, truth.params)
    pelvis = joint_index("pelvis")
    a, b = (
        torch.cat([out.joints[:, pelvis, None], joints(out)], dim=1).double().cpu().numpy()
        for out in (got, true)
    )
    return {
        "mpjpe": mpjpe(a, b)[...] * a.shape[1] / (a.shape[1] - 1),  # the root's own error is zero
        "pa_mpjpe": pa_mpjpe(a[:, 1:], b[:, 1:]),
        "pve": pve(
            (got.vertices - got.joints[:, pelvis, None]).double().cpu().numpy(),
            (true.vertices - true.joints[:, pelvis, None]).double().cpu().numpy(),
        ),
    }
