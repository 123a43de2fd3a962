"""Max-mixture of Gaussians over body pose.

Bogo et al., "Keep it SMPL" (ECCV 2016), section 3.2, after Olson and Agarwal (RSS 2012): the sum
over components is replaced by its largest term, whose negative log is a plain quadratic.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

BUNDLED_POSE_PRIOR = Path(__file__).with_name("assets") / "pose_prior.npz"
POSE_DIM = 69  # axis-angle of SMPL's joints 1 to 23
_MAX_REASON = 300  # characters


class MaxMixturePrior(torch.nn.Module):
    """M Gaussians over `body_pose`; `.to(...)` moves them.

    Attributes:
        means: (M, 69) radians.
        log_weights: (M,).
        precision_factor: (M, 69, 69) lower triangular L with L L^T the precision.
        peak_costs: (M,) cost of each component at its mean; the least of them is zero.
    """

    means: Tensor
    log_weights: Tensor
    precision_factor: Tensor
    peak_costs: Tensor

    def __init__(self, weights: np.ndarray, means: np.ndarray, covariances: np.ndarray) -> None:
        """Take weights (M,) that sum to 1, means (M, 69) and covariances (M, 69, 69).

        Raises:
            ValueError: shapes disagree, weights are no probabilities, or a covariance is not
                positive definite.
        """
        super().__init__()
        weights, means, covariances = (
            np.asarray(a, dtype=np.float64) for a in (weights, means, covariances)
        )
        _check_mixture(weights, means, covariances)
        try:
            precision_factor = np.linalg.cholesky(np.linalg.inv(covariances))
        except np.linalg.LinAlgError as error:
            raise ValueError("a covariance of the pose prior is not positive definite") from error
        log_weights = np.log(weights)
        log_det = 2 * np.log(np.diagonal(precision_factor, axis1=1, axis2=2)).sum(axis=1)
        log_peaks = log_weights + 0.5 * log_det  # less a constant that all share
        self.register_buffer("means", torch.from_numpy(means))
        self.register_buffer("log_weights", torch.from_numpy(log_weights))
        self.register_buffer("precision_factor", torch.from_numpy(precision_factor))
        self.register_buffer("peak_costs", torch.from_numpy(log_peaks.max() - log_peaks))

    def component_costs(self, body_pose: Tensor) -> Tensor:
        """(B, M) -log(w_m N(body_pose; mean_m, covariance_m)) + c for body_pose (B, 69).

        The constant c makes the least cost of any pose zero, so that costs are never negative.
        """
        difference = body_pose[:, None] - self.means
        whitened = torch.einsum("bmi,mij->bmj", difference, self.precision_factor)
        return 0.5 * whitened.square().sum(dim=-1) + self.peak_costs

    def forward(self, body_pose: Tensor) -> Tensor:
        """(B,) cost of body_pose (B, 69): the least of its component costs, in nats."""
        return self.component_costs(body_pose).amin(dim=1)

    @property
    def mean(self) -> Tensor:
        """(69,) mean of the mixture, the usual initial pose of a fit."""
        return self.log_weights.exp() @ self.means


def _check_mixture(weights: np.ndarray, means: np.ndarray, covariances: np.ndarray) -> None:
    M = weights.size
    shapes = [array.shape for array in (weights, means, covariances)]
    if shapes != [(M,), (M, POSE_DIM), (M, POSE_DIM, POSE_DIM)]:
        raise ValueError(
            f"a pose prior of {M} components needs means {(M, POSE_DIM)} and covariances "
            f"{(M, POSE_DIM, POSE_DIM)}, got {means.shape} and {covariances.shape}"
        )
    if not (np.isfinite(means).all() and np.isfinite(covariances).all()):
        raise ValueError("the pose prior holds NaN or infinity")
    if not (weights > 0).all() or abs(weights.sum() - 1) > 1e-3:
        raise ValueError(
            f"the weights of a pose prior must be positive and sum to 1, got {weights}"
        )


def load_pose_prior(
    path: Path | str | None = None, *, dtype: torch.dtype = torch.float32
) -> MaxMixturePrior:
    """Load a mixture written by `save_pose_prior`, or the bundled one.

    Raises:
        ValueError: the file is missing, not a mixture, or damaged; the message names it.
    """
    path = BUNDLED_POSE_PRIOR if path is None else Path(path)
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = [file[key] for key in ("weights", "means", "covariances")]
        # Of a member that is no array, NumPy gives the bytes.
        if not all(isinstance(a, np.ndarray) and a.dtype.kind == "f" for a in arrays):
            raise ValueError("weights, means and covariances must be floating-point numbers")
        return MaxMixturePrior(*arrays).to(dtype)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such pose prior; make one with `fit-cli prior fit`") from None
    except Exception as error:  # a damaged archive can raise nearly anything
        reason = str(error).partition("\n")[0][:_MAX_REASON]
        raise ValueError(f"{path}: not a pose prior ({reason})") from error


def save_pose_prior(
    path: Path, weights: np.ndarray, means: np.ndarray, covariances: np.ndarray
) -> None:
    """Write a mixture as `.npz` in float32; arrays as for `MaxMixturePrior`."""
    MaxMixturePrior(weights, means, covariances)  # refuses what could not be loaded again
    weights, means, covariances = (
        np.asarray(a, dtype=np.float32) for a in (weights, means, covariances)
    )
    with path.open("wb") as file:
        np.savez_compressed(file, weights=weights, means=means, covariances=covariances)
