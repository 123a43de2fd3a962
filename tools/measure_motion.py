"""Measure how far joints turn in a while: the deviations in `fitting/temporal.py`.

python tools/measure_motion.py MOCAP.npz

Of the validation subjects, 10 pictures a second. For an Ornstein-Uhlenbeck process of deviation s
the mean square of what turns in dt, about each axis, is 2 s^2 (1 - exp(-dt / correlation time)):
s is the geometric mean over 0.1 to 1 s, of both sides together.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from scipy.spatial.transform import Rotation

from fitting.skeleton import SMPL_JOINTS
from fitting.temporal import MotionWeights
from priors.mocap import MocapPoses, load_mocap

LAGS = (1, 2, 3, 5, 10)  # tenths of a second
REST = 0.05  # radians, in quadrature: the recordings leave some joints at rest


def mean_square_turn(poses: MocapPoses, lag: int) -> np.ndarray:
    """(24,) square radians about each axis, 2 (1 - cos a) for the angle a."""
    same = np.flatnonzero(poses.sequence[lag:] == poses.sequence[:-lag])
    one, other = (
        Rotation.from_rotvec(poses.rotvec[rows].reshape(-1, 3)) for rows in (same, same + lag)
    )
    angle = (one.inv() * other).magnitude().reshape(-1, 24)
    return (2 - 2 * np.cos(angle)).mean(axis=0) / 3


def measure(poses: MocapPoses) -> dict[str, float]:
    """Radians, of each joint below the root, left and right together."""
    time = MotionWeights().correlation_time
    squares = np.stack([mean_square_turn(poses, lag) for lag in LAGS])
    expected = 2 * (1 - np.exp(-0.1 * np.array(LAGS) / time))
    names = np.array([name.split("_", 1)[-1] for name in SMPL_JOINTS])
    found = {}
    for name in dict.fromkeys(names[1:].tolist()):
        of_joint = np.maximum(squares[:, names == name].mean(axis=1), 1e-9)
        variance = np.exp(np.log(of_joint / expected).mean())
        found[name] = float(np.sqrt(variance + REST**2))
    return found


@click.command()
@click.argument("mocap", type=click.Path(exists=True, path_type=Path))
def main(mocap: Path) -> None:
    for name, std in measure(load_mocap(mocap).of_split("validation")).items():
        click.echo(f"{name:9} {std:.3f}")


if __name__ == "__main__":
    main()
