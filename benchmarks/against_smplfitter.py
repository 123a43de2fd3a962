"""The public package smplfitter (Sarandi and Pons-Moll, "Neural Localizer Fields", NeurIPS 2024).

It fits SMPL to points in 3D, all vertices with or without the joints, and our solvers to points in
a picture: another task, with most of the answer given. Its numbers stand beside ours as what closed
forms can do where the third dimension is known.
"""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cost import time_median

from fitting.body import Body, pose_body
from fitting.evaluation import body_errors
from fitting.problem import BodyParams
from fitting.skeleton import SMPL_PARENTS

_NUM_ITER = (1, 3)  # its README: "a good result can be obtained already with 1-3 iterations"
_ARRAYS = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights")


@torch.no_grad()
def measure_smplfitter(body: Body, truth: BodyParams, *, runs: int) -> dict[str, Any]:
    """People per second and mm of MPJPE for each input and number of iterations, on N people.

    Says under "skipped" why there are no numbers, where the package is not installed.
    """
    try:
        import smplfitter.pt  # noqa: F401
        from smplfitter import __version__
    except ImportError as error:
        return {"skipped": f"smplfitter is not installed ({error})"}
    fitter, posed = _make_fitter(body), pose_body(body, truth)
    rows = []
    for given, joints in (("vertices", None), ("vertices and joints", posed.joints)):
        for num_iter in _NUM_ITER:

            def fit(num_iter: int = num_iter, joints: Any = joints) -> dict[str, torch.Tensor]:
                return fitter(posed.vertices, target_joints=joints, num_iter=num_iter)

            seconds, count = time_median(fit, truth.transl.device, runs=runs, budget=5)
            errors = body_errors(_params(fit()), truth, body)
            rows.append(
                {
                    "given": given,
                    "num_iter": num_iter,
                    "people_per_second": round(len(truth) / seconds, 2),
                    "mpjpe": round(float(np.mean(errors["lsp14.mpjpe_mm"])), 2),
                    "runs": count,
                }
            )
    return {"version": __version__, "people": len(truth), "results": rows}


def _make_fitter(body: Body) -> Callable[..., dict[str, torch.Tensor]]:
    """Its `fit`, on our body: written in the layout of SMPL's files, the only ones it reads."""
    from smplfitter.pt import BodyFitter, BodyModel

    arrays = {name: getattr(body, name).double().cpu().numpy() for name in _ARRAYS}
    arrays["f"] = body.faces.cpu().numpy()
    arrays["kintree_table"] = np.array([SMPL_PARENTS, range(len(SMPL_PARENTS))])
    with tempfile.TemporaryDirectory() as folder:
        name = "basicmodel_neutral_lbs_10_207_0_v1.1.0.pkl"
        Path(folder, name).write_bytes(pickle.dumps(arrays))
        # Zeros mean that there is no child's template.
        np.save(Path(folder, "kid_template.npy"), np.zeros_like(arrays["v_template"]))
        model = BodyModel("smpl", "neutral", model_root=folder, num_betas=10)
    return BodyFitter(model).to(body.v_template.device).fit


def _params(fitted: dict[str, torch.Tensor]) -> BodyParams:
    pose = fitted["pose_rotvecs"]
    return BodyParams(
        global_orient=pose[:, :3],
        body_pose=pose[:, 3:],
        betas=fitted["shape_betas"],
        transl=fitted["trans"],
    )
