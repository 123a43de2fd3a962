"""What a threshold on the deviation of labels buys: error against the share of people kept.

    python benchmarks/label_quality.py FITS TRUTH --what "..."

FITS is any fits table of people whose truth is known, such as `labels/` of a run in the loop on
drawn people, or `fit-cli fit` of their keypoints. People are put in the order of the mean of their
joints' posterior deviations (`joint_std_mm`); each threshold keeps those below it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from record import RESULTS, describe_run

from fitting.body import load_body
from fitting.evaluation import compare_fits
from fitting.files import write_json
from fitting.table import read_fits
from regressor.synthetic.rendered_set import TRUTH_FILE

PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "label_quality.png"
KEPT = tuple(k / 20 for k in range(1, 21))  # shares of the people
_ERROR = "smpl24.mpjpe_mm"


def curve(std: NDArray[np.floating], errors: NDArray[np.floating]) -> list[dict[str, float]]:
    """Thresholds on the deviation (N,) mm, and the mean error (N,) of those below, mm."""
    order = np.argsort(std, kind="stable")
    points = []
    for share in KEPT:
        count = max(1, round(share * len(std)))
        points.append(
            {
                "kept": share,
                "largest_std_mm": round(float(std[order[count - 1]]), 2),
                "mpjpe_mm": round(float(errors[order[:count]].mean()), 2),
            }
        )
    return points


def draw(points: list[dict[str, float]], path: Path) -> None:
    """The error of the labels kept, against their share; thresholds are written beside it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    kept, errors = ([p[name] for p in points] for name in ("kept", "mpjpe_mm"))
    axes.plot(kept, errors, marker="o", markersize=4)
    for point in points[1::4]:
        axes.annotate(
            f"σ ≤ {point['largest_std_mm']:.0f} mm",
            (point["kept"], point["mpjpe_mm"]),
            textcoords="offset points",
            xytext=(8, -10),
        )
    axes.set(xlabel="share of labels kept", ylabel="their MPJPE, mm", xlim=(0, 1.15))
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


@click.command()
@click.argument("fits", type=click.Path(path_type=Path))
@click.argument("truth", type=click.Path(path_type=Path))
@click.option("--what", required=True, help="What the fits are, for readers of the result.")
@click.option("--output", default=RESULTS / "label_quality.json", type=click.Path(path_type=Path))
@click.option("--picture", default=PICTURE, type=click.Path(path_type=Path))
def main(fits: Path, truth: Path, what: str, output: Path, picture: Path) -> None:
    """Measure and draw."""
    known = truth / TRUTH_FILE if truth.is_dir() else truth
    found = compare_fits(read_fits(fits), read_fits(known), load_body())
    std = found.joint_std_mm.mean(axis=1)
    errors = found.bodies.errors[_ERROR]
    usable = np.isfinite(std) & np.isfinite(errors)
    points = curve(std[usable], errors[usable])
    rising = bool(np.all(np.diff([p["mpjpe_mm"] for p in points]) >= 0))
    draw(points, picture)
    content: dict[str, Any] = {"what": what, "people": int(usable.sum()), "curve": points}
    command = f'python benchmarks/label_quality.py FITS TRUTH --what "{what}"'
    write_json(output, {**describe_run(command), **content, "error_rises_with_std": rising})
    click.echo(f"{points[4]} ... {points[-1]}, rising: {rising}")


if __name__ == "__main__":
    main()
