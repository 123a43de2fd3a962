"""Tables of fits of invented people."""

from __future__ import annotations

from typing import Any

import numpy as np

from fitting.table import FitsTable, build_fits

FOCAL = 1000.0


def fit_columns(N: int) -> dict[str, Any]:
    """N different people, each alone in a picture, 10 m away."""
    rng = np.random.default_rng(1)
    numbers = ("reprojection_error_px", "cost_initial", "cost_final")
    return {
        "image": np.array([f"{n}.jpg" for n in range(N)], dtype=np.str_),
        "person": np.zeros(N, dtype=int),
        "annotation_id": np.arange(N),
        "width": np.full(N, 640),
        "height": np.full(N, 480),
        "keypoint_set": np.full(N, "coco17"),
        "keypoints_2d": np.zeros((N, 51)),
        "global_orient": rng.normal(0, 0.5, (N, 3)),
        "body_pose": rng.normal(0, 0.3, (N, 69)),
        "betas": rng.normal(0, 0.5, (N, 10)),
        "transl": np.tile([0.0, 0.0, 10.0], (N, 1)),
        "fx": np.full(N, FOCAL),
        "fy": np.full(N, FOCAL),
        "cx": np.full(N, 319.5),
        "cy": np.full(N, 239.5),
        **{name: np.full(N, 3.0) for name in numbers},
        "num_steps": np.full(N, 5),
        "status": np.full(N, "converged"),
        "init": np.full(N, "mean"),
    }


def fits_table(changes: dict[str, Any], N: int = 4) -> FitsTable:
    """These people, with `changes` in place of some columns."""
    return build_fits(fit_columns(N) | changes, {})
