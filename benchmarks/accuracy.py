"""3D error of every solver and start on held-out poses, at three levels of keypoint noise.

    python benchmarks/accuracy.py [--people 192] [--solver adam --solver lbfgs]

Poses are those of subjects that no prior was fitted to; bodies, cameras and noise are random and
seeded (`benchmarks/problems.py`). The solver is told the camera's intrinsics. MPJPE and PA-MPJPE
are over LSP's 14 joints, MPJPE aligned at the pelvis, PVE over all vertices, aligned alike.
"""

from __future__ import annotations

import time
from typing import Any

import click
import numpy as np
import torch
from problems import FAMILIES, LEVELS, Truth, add_noise, make_truth
from record import RESULTS, describe_run

from fitting.body import Body, load_body
from fitting.evaluation import body_errors
from fitting.files import write_json
from fitting.initial import MeanStarts
from fitting.offline import SOLVERS, choose_device, make_solver
from fitting.problem import BodyParams, FitProblem, FitResult
from priors.gmm import MaxMixturePrior, load_pose_prior

OUTLIER_MM = 150.0
BATCH = 64


def errors_of(body: Body, params: BodyParams, truth: BodyParams) -> dict[str, np.ndarray]:
    """(N,) mm for each measure."""
    errors = body_errors(params, truth, body)
    return {
        "mpjpe": errors["lsp14.mpjpe_mm"],
        "pa_mpjpe": errors["lsp14.pa_mpjpe_mm"],
        "pve": errors["pve_mm"],
    }


def solve_all(
    body: Body, prior: MaxMixturePrior, problem: FitProblem, solver: str
) -> tuple[FitResult, float]:
    """Fit all people from the mean pose, batch by batch; and the seconds it took."""
    began = time.perf_counter()
    fit = make_solver(body, prior, problem.keypoint_set, SOLVERS[solver]())
    make_starts = MeanStarts(body, prior, problem.keypoint_set)
    parts = []
    for rows in torch.arange(len(problem)).split(BATCH):
        batch = problem.select(rows)
        parts.append(fit(batch, make_starts(batch)).to("cpu"))
    return FitResult.concatenate(parts), time.perf_counter() - began


def summarise(
    errors: dict[str, np.ndarray], family: np.ndarray, result: FitResult, seconds: float
) -> dict[str, Any]:
    """Means over everyone, and 3D errors by family of motion."""

    def means(rows: np.ndarray) -> dict[str, float]:
        return {name: round(float(values[rows].mean()), 2) for name, values in errors.items()}

    return {
        **means(np.ones(len(family), dtype=bool)),
        "outliers": round(float((errors["mpjpe"] > OUTLIER_MM).mean()), 4),
        "reprojection_px": round(float(result.mean_reprojection_error.mean()), 3),
        "seconds": round(seconds, 2),
        "people_per_second": round(len(family) / seconds, 3),
        "families": {name: means(family == name) for name in FAMILIES},
    }


def measure(body: Body, truth: Truth, solvers: tuple[str, ...], seed: int) -> list[dict[str, Any]]:
    """One record for each solver and level of noise."""
    prior = load_pose_prior().to(body.v_template.device)
    records = []
    for level, noise in LEVELS.items():
        problem = add_noise(truth.problem, noise, seed + 1)
        for solver in solvers:
            result, seconds = solve_all(body, prior, problem, solver)
            errors = errors_of(body, result.params.to(body.v_template.device), truth.params)
            numbers = summarise(errors, truth.family, result, seconds)
            records.append({"solver": solver, "start": "mean", "noise": level, **numbers})
            click.echo(
                f"{solver:6} {level:5} MPJPE {numbers['mpjpe']:6.1f}  PA {numbers['pa_mpjpe']:6.1f}"
                f"  PVE {numbers['pve']:6.1f}  {numbers['reprojection_px']:5.2f} px"
                f"  {numbers['people_per_second']:6.2f}/s"
            )
    return records


@click.command()
@click.option("--people", default=192, show_default=True, type=click.IntRange(min=3))
@click.option("--solver", "solvers", multiple=True, default=tuple(SOLVERS), show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--device", default="cpu", show_default=True)
def main(people: int, solvers: tuple[str, ...], seed: int, device: str) -> None:
    body = load_body().to(choose_device(device))
    truth = make_truth(body, people, seed)
    records = measure(body, truth, solvers, seed)
    chosen = " ".join(f"--solver {name}" for name in solvers)
    command = (
        f"python benchmarks/accuracy.py --people {people} {chosen} --seed {seed} --device {device}"
    )
    record = {
        **describe_run(command),
        "people": people,
        "seed": seed,
        "keypoint_set": "coco17",
        "mean_person_px": round(float(truth.problem.person_size.mean()), 1),
        "results": records,
    }
    RESULTS.mkdir(exist_ok=True)
    write_json(RESULTS / "accuracy.json", record)


if __name__ == "__main__":
    main()
