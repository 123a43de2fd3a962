"""Pick the motions that `benchmarks/video.py` is run on: of held-out subjects only.

python tools/build_heldout_sequences.py MOCAP.npz -o benchmarks/heldout_sequences.npz
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from build_heldout_poses import CREDIT

from priors.mocap import MocapPoses, load_mocap


def choose(poses: MocapPoses, per_subject: int, length: int, least: int) -> np.ndarray:
    """Rows of the first `length` poses of some sequences of each subject, of at least `least`."""
    rows = []
    for subject in np.unique(poses.subject):
        sequences = [
            found
            for number in np.unique(poses.sequence[poses.subject == subject])
            if len(found := np.flatnonzero(poses.sequence == number)) >= least
        ]
        step = max(1, len(sequences) // per_subject)
        rows += [found[:length] for found in sequences[::step][:per_subject]]
    return np.concatenate(rows)


@click.command()
@click.argument("mocap", type=click.Path(exists=True, path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path))
@click.option("--per-subject", default=6, show_default=True)
@click.option("--length", default=60, show_default=True, help="Poses of each sequence, at most.")
@click.option("--least", default=30, show_default=True)
def main(mocap: Path, output: Path, per_subject: int, length: int, least: int) -> None:
    poses = load_mocap(mocap).of_split("test")
    chosen = poses.select(choose(poses, per_subject, length, least))
    _, first, count = np.unique(chosen.sequence, return_index=True, return_counts=True)
    with output.open("wb") as file:
        np.savez_compressed(
            file,
            smpl_rotvec=chosen.rotvec.astype(np.float16),
            seq_start=first,
            seq_length=count,
            seq_subject=chosen.subject[first],
            seq_action=chosen.action[first],
            credit=np.array(CREDIT),
        )
    click.echo(f"{len(chosen)} poses of {len(first)} sequences -> {output}")


if __name__ == "__main__":
    main()
