"""Whether joints are as far from the truth as `lm` says: predicted against actual deviations.

    python benchmarks/calibration.py [--people 600]

On the problems of `benchmarks/accuracy.py`. Writes the numbers and a reliability curve: people's
joints sorted by predicted distance, in ten bins of as many, against their root mean square
distance.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import matplotlib
import numpy as np
from cases import Case, make_fit
from problems import LEVELS, Truth, add_noise, make_truth, perturb
from record import RESULTS, describe_run

from fitting.body import Body, load_body, pose_body
from fitting.calibration import reliability_curve, root_mean_square, share_within
from fitting.files import write_json
from fitting.problem import BodyParams, FitResult
from priors.gmm import load_pose_prior

matplotlib.use("agg")

CASES = (
    Case(solver="lm", start="lift", proximal=True),
    Case(solver="lm", start="regressor", proximal=True),
    Case(solver="lm", start="mean"),
    Case(solver="lm", start="modes"),
)
BINS = 10
PICTURE = Path(__file__).parents[1] / "docs" / "calibration.png"


def about_pelvis(body: Body, params: BodyParams) -> np.ndarray:
    """(N, 23, 3) metres: all joints but the pelvis, relative to it."""
    joints = pose_body(body, params).joints.numpy()
    return joints[:, 1:] - joints[:, :1]


def compare(body: Body, result: FitResult, truth: Truth) -> dict[str, Any]:
    """Fractions within one and two deviations, and the reliability curve."""
    error = about_pelvis(body, result.params) - about_pelvis(body, truth.params)
    std = result.joint_std[:, 1:].numpy()
    deviations = error / std
    predicted = 1000 * np.linalg.norm(std, axis=2).ravel()
    actual = 1000 * np.linalg.norm(error, axis=2).ravel()
    curve = reliability_curve(predicted, actual, BINS)

    def within(axes: slice, limit: float) -> float:
        return round(share_within(deviations[..., axes], limit), 3)

    return {
        "within_1_sigma": within(slice(3), 1),
        "within_2_sigma": within(slice(3), 2),
        "within_1_sigma_depth": within(slice(2, 3), 1),
        "within_2_sigma_depth": within(slice(2, 3), 2),
        "predicted_mm": round(root_mean_square(predicted), 1),
        "actual_mm": round(root_mean_square(actual), 1),
        "curve_predicted_mm": [round(value, 1) for value in curve.predicted],
        "curve_actual_mm": [round(value, 1) for value in curve.actual],
    }


def draw(records: list[dict[str, Any]], path: Path) -> None:
    """One panel for each start, one curve for each level of noise."""
    from matplotlib import pyplot as plt

    starts = list(dict.fromkeys(record["start"] for record in records))
    figure, panels = plt.subplots(1, len(starts), figsize=(4 * len(starts), 4), sharey=True)
    for start, panel in zip(starts, panels, strict=True):
        for record in (record for record in records if record["start"] == start):
            curve = record["curve_predicted_mm"], record["curve_actual_mm"]
            panel.plot(*curve, marker="o", label=record["noise"])
        most = max(panel.get_xlim()[1], panel.get_ylim()[1])
        panel.plot([0, most], [0, most], color="grey", linewidth=1, linestyle="--")
        panel.set(title=f"from {start}", xlabel="predicted distance (mm)")
        panel.legend(title="keypoints")
    panels[0].set_ylabel("actual distance (mm)")
    figure.tight_layout()
    figure.savefig(path, dpi=90)


@click.command()
@click.option("--people", default=600, show_default=True, type=click.IntRange(min=BINS))
@click.option("--seed", default=0, show_default=True)
@click.option(
    "-o", "--output", default=RESULTS / "calibration.json", type=click.Path(path_type=Path)
)
@click.option("--picture", default=PICTURE, type=click.Path(path_type=Path))
def main(people: int, seed: int, output: Path, picture: Path) -> None:
    body, prior = load_body(), load_pose_prior()
    truth = make_truth(body, people, seed)
    estimate = perturb(truth.params, seed + 2)
    records = []
    for case in CASES:
        fit = make_fit(case, body, prior, truth.problem.keypoint_set)
        for level, noise in LEVELS.items():
            result = fit(add_noise(truth.problem, noise, seed + 1), estimate)
            numbers = compare(body, result, truth)
            records.append({"start": case.start, "noise": level, **numbers})
            click.echo(
                f"{case.start:9} {level:5} within 1 sigma {numbers['within_1_sigma']:.2f}, 2 sigma "
                f"{numbers['within_2_sigma']:.2f}; {numbers['predicted_mm']:.0f} mm predicted, "
                f"{numbers['actual_mm']:.0f} mm actual"
            )
    command = f"python benchmarks/calibration.py --people {people} --seed {seed}"
    write_json(output, {**describe_run(command), "people": people, "results": records})
    draw(records, picture)


if __name__ == "__main__":
    main()
