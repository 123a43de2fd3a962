"""Pick the poses that `benchmarks/` are run on: held-out subjects only, at most 250 per subject.

python tools/build_heldout_poses.py MOCAP.npz -o benchmarks/heldout_poses.npz
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from priors.mocap import load_mocap

CREDIT = (
    "The data used in this project was obtained from mocap.cs.cmu.edu. "
    "The database was created with funding from NSF EIA-0196217."
)


@click.command()
@click.argument("mocap", type=click.Path(exists=True, path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path))
@click.option("--per-subject", default=250, show_default=True)
def main(mocap: Path, output: Path, per_subject: int) -> None:
    poses = load_mocap(mocap).of_split("test")
    rows = []
    for subject in np.unique(poses.subject):
        of_subject = np.flatnonzero(poses.subject == subject)
        step = max(1, len(of_subject) // per_subject)  # evenly over the recordings, not random
        rows.append(of_subject[::step][:per_subject])
    chosen = poses.select(np.concatenate(rows))
    with output.open("wb") as file:
        np.savez_compressed(
            file,
            smpl_rotvec=chosen.rotvec.astype(np.float16),
            seq_start=np.arange(len(chosen)),
            seq_length=np.ones(len(chosen), dtype=int),
            seq_subject=chosen.subject,
            seq_action=chosen.action,
            credit=np.array(CREDIT),
        )
    click.echo(f"{len(chosen)} poses of {len(rows)} subjects -> {output}")


if __name__ == "__main__":
    main()
