"""A small random body in SMPL's format, so that tests need no licensed file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fitting.skeleton import SMPL_PARENTS

NUM_VERTICES = 80


def synthetic_arrays(seed: int = 0, num_joints: int = 24) -> dict[str, np.ndarray]:
    """Arrays of a random body of 80 vertices about a real kinematic tree, in float64."""
    rng = np.random.default_rng(seed)
    parents = list(SMPL_PARENTS)
    if num_joints > 24:  # SMPL-H or SMPL-X: extra joints hang off the head and the wrists
        extra = num_joints - 22
        faces = extra - 30
        chains = [
            (20 if hand == 0 else 21) if joint % 3 == 0 else 22 + faces + 15 * hand + joint - 1
            for hand in (0, 1)
            for joint in range(15)
        ]
        parents = [*parents[:22], *[15] * faces, *chains]
    V = NUM_VERTICES
    weights = rng.random((V, num_joints)) ** 8
    regressor = rng.random((num_joints, V)) ** 8
    return {
        "v_template": rng.normal(0, 0.4, (V, 3)),
        "shapedirs": rng.normal(0, 0.02, (V, 3, 10)),
        "posedirs": rng.normal(0, 0.01, (V, 3, 9 * (num_joints - 1))),
        "J_regressor": regressor / regressor.sum(1, keepdims=True),
        "weights": weights / weights.sum(1, keepdims=True),
        "kintree_table": np.array([[2**32 - 1, *parents[1:]], range(num_joints)], dtype=np.int64),
        "f": rng.integers(0, V, (2 * V, 3)).astype(np.uint32),
    }


def write_body(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    """Write the arrays as an SMPL-format `.npz`."""
    with path.open("wb") as file:
        np.savez(file, **arrays)
    return path
