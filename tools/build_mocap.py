"""Pack the motion-capture poses that ship with the package: sources whose licence allows it.

python tools/build_mocap.py MOCAP.npz -o priors/assets/mocap_poses.npz

Poses of all splits are kept, as sequences of at most ten poses a second. Recordings that came by
way of a repository without a licence are left out, unless the files there are CMU's own.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from build_heldout_poses import CREDIT

UNLICENSED = "shannonkao/"  # a conversion whose repository has no licence


@click.command()
@click.argument("mocap", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path))
def main(mocap: Path, output: Path) -> None:
    with np.load(mocap, allow_pickle=False) as file:
        kept = ~np.char.startswith(file["seq_source"], UNLICENSED)
        start, length = file["seq_start"][kept], file["seq_length"][kept]
        rows = np.concatenate([np.arange(s, s + n) for s, n in zip(start, length, strict=True)])
        arrays = {
            # rounding to half floats turns a joint by less than 0.1 degrees
            "smpl_rotvec": file["smpl_rotvec"][rows].astype(np.float16),
            "seq_start": np.cumsum(length) - length,
            "seq_length": length,
            **{key: file[key][kept] for key in ("seq_subject", "seq_action", "seq_source")},
        }
    with output.open("wb") as opened:
        np.savez_compressed(opened, **arrays, credit=np.array(CREDIT))
    click.echo(f"{len(rows)} poses in {len(length)} sequences -> {output}")


if __name__ == "__main__":
    main()
