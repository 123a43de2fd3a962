"""3D error of every solver and start on held-out poses, at three levels of keypoint noise.

    python benchmarks/accuracy.py [--people 192] [--solver lm] [--start regressor] [--level 4px]
        [--pose2mesh RUN/best.pt] [--training pose2mesh RUN/run.json] [--training lift RUN/run.json]

Poses are those of subjects that no prior was fitted to; bodies, cameras and noise are random and
seeded (`benchmarks/problems.py`). The solver is told the camera's intrinsics. MPJPE and PA-MPJPE
are over LSP's 14 joints, MPJPE aligned at the pelvis, PVE over all vertices, aligned alike.

The rows "start" are the errors of the estimates themselves. L-BFGS may fit only some of the
people, being slow; the other rows then say under "subset" how they did on the same ones. With a
Pose2Mesh to compare, "networks" holds its errors and the lifter's without a fit (`networks.py`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from cases import CASES, LIFT, REGRESSOR, STARTS, Case, make_fit
from networks import make_lifter, make_pose2mesh, mesh_errors, training_seconds
from problems import FAMILIES, LEVELS, Truth, add_noise, make_truth, perturb
from record import RESULTS, describe_run

from fitting.body import Body, load_body, pose_body
from fitting.camera import project_points
from fitting.evaluation import body_errors
from fitting.files import write_json
from fitting.keypoints import map_keypoints
from fitting.offline import SOLVERS, choose_device
from fitting.problem import BodyParams, FitProblem, FitResult
from priors.gmm import MaxMixturePrior, load_pose_prior
from regressor.lift import load_lifter

OUTLIER_MM = 150.0
POSE2MESH = "pose2mesh"
BATCH = {"lm": 1024, "adam": 64, "lbfgs": 64}  # people at once

Errors = dict[str, np.ndarray]  # (N,) for each measure


def errors_of(body: Body, params: BodyParams, truth: BodyParams) -> Errors:
    """(N,) mm for each measure."""
    errors = body_errors(params, truth, body)
    return {
        "mpjpe": errors["lsp14.mpjpe_mm"],
        "pa_mpjpe": errors["lsp14.pa_mpjpe_mm"],
        "pve": errors["pve_mm"],
    }


@torch.no_grad()
def reprojection_px(body: Body, params: BodyParams, problem: FitProblem) -> np.ndarray:
    """(N,) mean distance in pixels from the keypoints seen."""
    points = map_keypoints(body, problem.keypoint_set)(pose_body(body, params))
    distance = (project_points(points, problem.intrinsics)[0] - problem.keypoints_2d).norm(dim=-1)
    return distance.where(problem.conf > 0, torch.nan).nanmean(dim=1).cpu().numpy()


def solve_all(
    case: Case, body: Body, prior: MaxMixturePrior, problem: FitProblem, estimate: BodyParams
) -> tuple[FitResult, float]:
    """Fit all people, batch by batch; and the seconds it took, initial estimates included."""
    fit = make_fit(case, body, prior, problem.keypoint_set)
    began = time.perf_counter()
    parts = [
        fit(problem.select(rows), estimate.select(rows)).to("cpu")
        for rows in torch.arange(len(problem)).split(BATCH[case.solver])
    ]
    return FitResult.concatenate(parts), time.perf_counter() - began


def summarise(errors: Errors) -> dict[str, Any]:
    """Means over everyone, and the share of outliers."""
    means = {name: round(float(values.mean()), 2) for name, values in errors.items()}
    return {**means, "outliers": round(float((errors["mpjpe"] > OUTLIER_MM).mean()), 4)}


def make_record(errors: Errors, family: np.ndarray, subset: np.ndarray) -> dict[str, Any]:
    """Summaries of N people, of each family of motion, and of those at `subset` (n,)."""

    def of(rows: np.ndarray) -> dict[str, Any]:
        return summarise({name: values[rows] for name, values in errors.items()})

    record = {"people": len(family), **summarise(errors)}
    record["families"] = {name: of(family == name) for name in FAMILIES if name in family}
    if len(subset) < len(family):
        record["subset"] = {"people": len(subset), **of(subset)}
    return record


@dataclass(frozen=True, kw_only=True)
class Trial:
    """N people at one level of noise.

    Attributes:
        truth: as they are.
        family: (N,) str.
        problem: their keypoints as they were seen.
        estimate: a regressor-like one.
    """

    truth: BodyParams
    family: np.ndarray
    problem: FitProblem
    estimate: BodyParams

    def select(self, rows: np.ndarray) -> Trial:
        """The people at `rows` (indices)."""
        chosen = torch.as_tensor(rows, device=self.problem.conf.device)
        return Trial(
            truth=self.truth.select(chosen),
            family=self.family[rows],
            problem=self.problem.select(chosen),
            estimate=self.estimate.select(chosen),
        )


def measure_case(
    case: Case, body: Body, prior: MaxMixturePrior, trial: Trial, subset: np.ndarray
) -> dict[str, Any]:
    """The record of one solver and start. L-BFGS fits only the people at `subset` (n,)."""
    if case.solver == "lbfgs":
        trial = trial.select(subset)
    result, seconds = solve_all(case, body, prior, trial.problem, trial.estimate)
    errors = errors_of(body, result.params.to(body.v_template.device), trial.truth)
    errors["reprojection_px"] = result.mean_reprojection_error.numpy()
    return {
        "solver": case.solver,
        "start": case.start,
        "proximal": case.proximal,
        **make_record(errors, trial.family, subset),
        "seconds": round(seconds, 2),
        "people_per_second": round(len(trial.family) / seconds, 3),
    }


def measure_start(start: str, body: Body, trial: Trial, subset: np.ndarray) -> dict[str, Any]:
    """The record of an estimate itself: the regressor-like one, or the lifter's."""
    estimate = trial.estimate
    if start == LIFT:
        _, (estimate,) = load_lifter(body)(trial.problem)
    errors = errors_of(body, estimate, trial.truth)
    errors["reprojection_px"] = reprojection_px(body, estimate, trial.problem)
    labels = {"solver": "start", "start": start, "proximal": False}
    return {**labels, **make_record(errors, trial.family, subset)}


def measure(
    body: Body,
    truth: Truth,
    cases: Sequence[Case],
    levels: Sequence[str],
    seed: int,
    lbfgs_people: int,
) -> list[dict[str, Any]]:
    """One record for each case and level of noise, and for each level's regressor-like start.

    L-BFGS fits `lbfgs_people`, spread evenly over everyone and so over the families of motion.
    """
    prior = load_pose_prior().to(body.v_template.device)
    people = len(truth.family)
    few = min(lbfgs_people, people)
    subset = np.arange(few) * people // few
    estimate = perturb(truth.params, seed + 2)
    records = []
    for level in levels:
        problem = add_noise(truth.problem, LEVELS[level], seed + 1)
        trial = Trial(truth=truth.params, family=truth.family, problem=problem, estimate=estimate)
        for start in (LIFT, REGRESSOR):
            if any(case.start == start for case in cases):
                records.append({"noise": level, **measure_start(start, body, trial, subset)})
                _echo(records[-1], f"start: {start}")
        for case in cases:
            records.append({"noise": level, **measure_case(case, body, prior, trial, subset)})
            _echo(records[-1], case.label)
    return records


def measure_networks(
    body: Body,
    truth: Truth,
    levels: Sequence[str],
    seed: int,
    checkpoint: Path,
    runs: Sequence[tuple[str, Path]],
) -> list[dict[str, Any]]:
    """One record for the lifter and one for the Pose2Mesh of a checkpoint, on the same people."""
    everyone = np.arange(len(truth.family))
    networks = {LIFT: make_lifter(body), POSE2MESH: make_pose2mesh(body, checkpoint)}
    records = []
    for name, (make_mesh, size) in networks.items():
        seconds = training_seconds([path for trained, path in runs if trained == name])
        results = []
        for level in levels:
            problem = add_noise(truth.problem, LEVELS[level], seed + 1)
            errors = mesh_errors(make_mesh, body, problem, truth.params)
            results.append({"noise": level, **make_record(errors, truth.family, everyone)})
            _echo(results[-1], f"network: {name}")
        records.append({"network": name, **size, "training_seconds": seconds, "results": results})
    return records


def _echo(record: dict[str, Any], label: str) -> None:
    numbers = (
        f"MPJPE {record['mpjpe']:6.1f}  PA {record['pa_mpjpe']:6.1f}  PVE {record['pve']:6.1f}"
        f"  {record['outliers']:5.1%} outliers"
    )
    pixels = f"  {record['reprojection_px']:5.2f} px" if "reprojection_px" in record else ""
    speed = f"  {record['people_per_second']:7.2f}/s" if "people_per_second" in record else ""
    click.echo(f"{label:30} {record['noise']:5} {numbers}{pixels}{speed}")


@click.command()
@click.option("--people", default=192, show_default=True, type=click.IntRange(min=3))
@click.option(
    "--solver", "solvers", multiple=True, type=click.Choice(list(SOLVERS)), default=tuple(SOLVERS)
)
@click.option(
    "--start",
    "starts",
    multiple=True,
    type=click.Choice([*STARTS, LIFT, REGRESSOR]),
    default=(*STARTS, LIFT, REGRESSOR),
)
@click.option(
    "--level", "levels", multiple=True, type=click.Choice(list(LEVELS)), default=tuple(LEVELS)
)
@click.option("--lbfgs-people", default=24, show_default=True, type=click.IntRange(min=1))
@click.option("--seed", default=0, show_default=True)
@click.option("--device", default="cpu", show_default=True)
@click.option(
    "--pose2mesh",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Checkpoint of a Pose2Mesh to compare with the lifter, both without a fit.",
)
@click.option(
    "--training",
    "runs",
    multiple=True,
    type=(click.Choice([LIFT, POSE2MESH]), click.Path(exists=True, dir_okay=False, path_type=Path)),
    help="A network and the run.json of one stage of its training, which tells how long it took.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write instead of results/accuracy.json.",
)
def main(
    people: int,
    solvers: tuple[str, ...],
    starts: tuple[str, ...],
    levels: tuple[str, ...],
    lbfgs_people: int,
    seed: int,
    device: str,
    pose2mesh: Path | None,
    runs: tuple[tuple[str, Path], ...],
    output: Path | None,
) -> None:
    """Measure solvers from their starts; repeat --solver, --start and --level to choose several."""
    body = load_body().to(choose_device(device))
    truth = make_truth(body, people, seed)
    cases = [case for case in CASES if case.solver in solvers and case.start in starts]
    # first, as a checkpoint that does not fit is known at once then
    alone = measure_networks(body, truth, levels, seed, pose2mesh, runs) if pose2mesh else None
    records = measure(body, truth, cases, levels, seed, lbfgs_people)
    chosen = [f"--solver {name}" for name in solvers] if set(solvers) < set(SOLVERS) else []
    chosen += [f"--start {name}" for name in starts] if len(starts) < len(STARTS) + 2 else []
    chosen += [f"--level {name}" for name in levels] if len(levels) < len(LEVELS) else []
    # names without folders: those of this machine mean nothing elsewhere
    chosen += [f"--pose2mesh {pose2mesh.name}"] if pose2mesh else []
    options = f"--people {people} --lbfgs-people {lbfgs_people} --seed {seed} --device {device}"
    record = {
        **describe_run(" ".join(["python benchmarks/accuracy.py", options, *chosen])),
        "people": people,
        "seed": seed,
        "keypoint_set": "coco17",
        "mean_person_px": round(float(truth.problem.person_size.mean()), 1),
        "results": records,
        **({"networks": alone} if alone else {}),
    }
    RESULTS.mkdir(exist_ok=True)
    write_json(output or RESULTS / "accuracy.json", record)


if __name__ == "__main__":
    main()
