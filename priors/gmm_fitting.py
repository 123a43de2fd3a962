"""Fit the pose prior to motion capture."""

from __future__ import annotations

import numpy as np

from .gmm import POSE_DIM
from .mocap import MocapPoses, mirror_rotvec


def fit_mixture(
    mocap: MocapPoses,
    *,
    num_components: int = 8,
    min_std: float = 0.05,
    max_per_subject: int = 2000,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fit a mixture of full-covariance Gaussians to body poses by expectation maximisation.

    Each pose counts together with its mirror image, and no subject with more than `max_per_subject`
    poses, so that the prior has no preferred side and no favourite actor.

    Args:
        mocap: training poses.
        num_components: M.
        min_std: radians, added in quadrature to every deviation: joints that the recordings leave
            at rest (fingers, some wrists) would otherwise be infinitely stiff.
        max_per_subject: poses.
        seed: of the subsampling and of the start of EM.

    Returns:
        weights (M,), means (M, 69) and covariances (M, 69, 69).
    """
    from sklearn.mixture import GaussianMixture  # an optional extra: only fitting needs it

    rng = np.random.default_rng(seed)
    rows = [
        rng.permutation(np.flatnonzero(mocap.subject == subject))[:max_per_subject]
        for subject in np.unique(mocap.subject)
    ]
    rotvec = mocap.rotvec[np.sort(np.concatenate(rows))].astype(np.float64)
    both = np.concatenate([rotvec, mirror_rotvec(rotvec)])[:, 1:].reshape(-1, POSE_DIM)
    mixture = GaussianMixture(
        num_components, reg_covar=min_std**2, max_iter=300, n_init=3, random_state=seed
    )
    mixture.fit(both)
    return mixture.weights_, mixture.means_, mixture.covariances_
