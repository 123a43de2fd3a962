"""Reprojection error on a COCO keypoint file, by solver and start: how well real annotations fit.

    python benchmarks/coco.py person_keypoints_val2017.json [--adam]

People with at least ten annotated keypoints count; errors are shares of the longer side of their
box. A low error is no proof of a good fit in 3D, but a high one shows a bad one.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
from record import RESULTS, describe_run

from fitting.files import write_json
from fitting.run import RunConfig, run
from regressor import load_lifter

LEAST_KEYPOINTS = 10
CASES = (("lm", "lift"), ("lm", "mean"))


def box_sizes(annotations: Path) -> dict[int, float]:
    """Longer side of the box, pixels, of each annotation with enough keypoints, by its id."""
    with annotations.open(encoding="utf-8") as file:
        people = json.load(file)["annotations"]
    enough = (a for a in people if a.get("num_keypoints", 0) >= LEAST_KEYPOINTS)
    return {a["id"]: max(a["bbox"][2:]) for a in enough}


def measure(annotations: Path, solver: str, init: str) -> dict[str, Any]:
    """Fit everyone, and compare."""
    with tempfile.TemporaryDirectory() as folder:
        config = RunConfig(
            input=annotations, output=Path(folder), solver=solver, init=init, overwrite=True
        )
        summary = run(config, make_estimator=load_lifter if init == "lift" else None)
    sizes = box_sizes(annotations)
    ids = summary.table.column_array("annotation_id").tolist()
    errors = summary.table.column_array("reprojection_error_px").tolist()
    pairs = zip(ids, errors, strict=True)
    shares = np.array([error / sizes[i] for i, error in pairs if i in sizes])
    found = {
        "solver": solver,
        "start": init,
        "people": len(shares),
        "not_fitted": int(np.isnan(shares).sum()),
        "mean_share_of_box": round(float(np.nanmean(shares)), 5),
        "median_share_of_box": round(float(np.nanmedian(shares)), 5),
        "above_5_percent": round(float((shares > 0.05).mean()), 4),
        "status": summary.record["counts"]["status"],
        "fits_per_second": summary.record["fits_per_second"],
    }
    click.echo(f"{solver} from {init}: {found['mean_share_of_box']:.2%} of the box, {found}")
    return found


@click.command()
@click.argument("annotations", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--adam", is_flag=True, help="SMPLify as SPIN runs it, too: three people a second.")
@click.option("-o", "--output", default=RESULTS / "coco.json", type=click.Path(path_type=Path))
def main(annotations: Path, adam: bool, output: Path) -> None:
    command = f"python benchmarks/coco.py {annotations.name}" + " --adam" * adam
    cases = [*CASES, ("adam", "mean")] if adam else CASES
    results = [measure(annotations, *case) for case in cases]
    write_json(output, {**describe_run(command), "results": results})


if __name__ == "__main__":
    main()
