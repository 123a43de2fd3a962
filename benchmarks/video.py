"""Frame by frame against all pictures of a person together (`--video`), on held-out motions.

    python benchmarks/video.py [--sequences 30]

Motions of subjects that neither a prior nor a weight was fitted to, 10 pictures a second, at most
6 s long; bodies and cameras are random and seeded (`benchmarks/sequences.py`). At the level
"hidden" keypoints are noisy as at 4 px, an arm or a leg is hidden half of the time, and nothing is
seen in four pictures of each sequence.

Errors are over the pictures in which something is seen, the same ones for both, and, under
"unseen", over the others, which frame by frame have no fit. Accelerations are of the 24 joints in
the camera frame, over neighbours that both have.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from accuracy import OUTLIER_MM, errors_of
from problems import LEVELS, Truth
from record import RESULTS, describe_run
from sequences import FPS, Hidden, as_seen, held_out_sequences, make_sequences

from fitting.body import Body, load_body, pose_body
from fitting.files import write_json
from fitting.initial import MeanStarts
from fitting.map_fit import LmConfig
from fitting.metrics import acceleration_error
from fitting.offline import make_solver
from fitting.problem import BodyParams, FitProblem, FitResult
from fitting.tracks import Track
from fitting.video import VideoConfig, VideoSolver, map_solver, search_seen
from priors.gmm import load_pose_prior
from regressor.lift import load_lifter

HIDDEN = "hidden"
MEAN_STARTS = 4  # what `--video` takes from the mean pose
STARTS = ("mean", "lift")


class Fitter:
    """Fits the pictures of sequences alone, or each sequence together."""

    def __init__(self, body: Body, problem: FitProblem, track: np.ndarray, start: str) -> None:
        prior, keypoints = load_pose_prior(), problem.keypoint_set
        self.problem = problem
        self.tracks = [
            Track(rows, np.arange(len(rows)) / FPS)
            for rows in (np.flatnonzero(track == t) for t in range(track.max() + 1))
        ]
        if start == "lift":
            self.estimate: Any = load_lifter(body)
            config = LmConfig.from_estimate()
        else:
            make_starts = MeanStarts(body, prior, keypoints, MEAN_STARTS)
            self.estimate = lambda problem: (problem, make_starts(problem))
            config = LmConfig()
        self.solver = make_solver(body, prior, keypoints, config)

    def alone(self) -> FitResult:
        return self.solver(*self.estimate(self.problem))

    def together(self) -> FitResult:
        config = VideoConfig()
        problem, starts = self.estimate(self.problem)
        known, candidates = search_seen(self.solver, problem, starts, config)
        assert candidates is not None
        video = VideoSolver(map_solver(self.solver), config)
        return video(problem, candidates, known, self.tracks)


def joints_of(body: Body, params: BodyParams) -> np.ndarray:
    """(N, 24, 3) metres, camera frame."""
    return np.concatenate(
        [
            pose_body(body, params.select(rows)).joints.numpy()
            for rows in torch.arange(len(params)).split(256)
        ]
    )


def jitter(found: np.ndarray, truth: np.ndarray, track: np.ndarray, kept: np.ndarray) -> float:
    """Mean acceleration error over all three neighbours that are `kept` (N,)."""
    errors = []
    for t in range(track.max() + 1):
        rows = np.flatnonzero(track == t)
        error = acceleration_error(found[rows], truth[rows], fps=FPS)
        whole = kept[rows[2:]] & kept[rows[1:-1]] & kept[rows[:-2]]
        errors.append(error[whole])
    return round(float(np.concatenate(errors).mean()), 2)


def summarise(
    body: Body, result: FitResult, truth: Truth, track: np.ndarray, seen: np.ndarray
) -> dict[str, Any]:
    """Errors over the N pictures, and of those not seen where they have fits."""

    def mean(rows: np.ndarray) -> dict[str, float]:
        chosen = torch.as_tensor(np.flatnonzero(rows))
        errors = errors_of(body, result.params.select(chosen), truth.params.select(chosen))
        apart = (result.params.transl - truth.params.transl)[chosen].norm(dim=1)
        return {
            **{name: round(float(values.mean()), 2) for name, values in errors.items()},
            "outliers": round(float((errors["mpjpe"] > OUTLIER_MM).mean()), 4),
            "transl_mm": round(1000 * float(apart.mean()), 1),
        }

    true_joints = joints_of(body, truth.params)
    joints = joints_of(body, result.params)
    error = (joints - joints[:, :1]) - (true_joints - true_joints[:, :1])
    within = np.abs(error[seen, 1:]) / result.joint_std[torch.as_tensor(seen)][:, 1:].numpy()
    record = {
        **mean(seen),
        "acceleration_m_s2": jitter(joints, true_joints, track, seen),
        "within_1_sigma": round(float((within < 1).mean()), 3),
        "within_2_sigma": round(float((within < 2).mean()), 3),
    }
    fitted = ~result.params.transl.isnan().any(dim=1).numpy()
    if (fitted & ~seen).any():
        record["unseen"] = {"pictures": int((fitted & ~seen).sum()), **mean(fitted & ~seen)}
    return record


def measure(
    body: Body, truth: Truth, track: np.ndarray, level: str, seed: int
) -> list[dict[str, Any]]:
    """One record for each way to fit, of one level of noise."""
    hidden = Hidden() if level == HIDDEN else None
    noise = LEVELS["4px" if hidden else level]
    problem = as_seen(truth.problem, track, noise, hidden, seed + 1)
    seen = problem.seen.numpy()
    records = []
    for start in STARTS:
        fitter = Fitter(body, problem, track, start)
        for method, fit in {"alone": fitter.alone, "video": fitter.together}.items():
            began = time.perf_counter()
            result = fit()
            seconds = time.perf_counter() - began
            numbers = summarise(body, result, truth, track, seen)
            rate = round(len(seen) / seconds, 1)
            records.append(
                {
                    "noise": level,
                    "method": method,
                    "start": start,
                    **numbers,
                    "pictures_per_second": rate,
                }
            )
            click.echo(
                f"{level:6} {method} from {start:4}  MPJPE {numbers['mpjpe']:6.1f}  PA "
                f"{numbers['pa_mpjpe']:5.1f}  {numbers['acceleration_m_s2']:6.2f} m/s2  {rate}/s"
            )
    return records


@click.command()
@click.option(
    "--sequences", default=1000, help="The first so many only.", type=click.IntRange(min=1)
)
@click.option("--level", "levels", multiple=True, default=(*LEVELS, HIDDEN))
@click.option("--seed", default=0, show_default=True)
@click.option("-o", "--output", default=RESULTS / "video.json", type=click.Path(path_type=Path))
def main(sequences: int, levels: tuple[str, ...], seed: int, output: Path) -> None:
    """Measure; repeat --level to choose several."""
    body, mocap = load_body(), held_out_sequences()
    mocap = mocap.select(mocap.sequence < sequences)
    truth, track = make_sequences(body, mocap, seed)
    records = [r for level in levels for r in measure(body, truth, track, level, seed)]
    count = int(track.max()) + 1
    chosen = [f"--level {name}" for name in levels] if len(levels) <= len(LEVELS) else []
    command = f"python benchmarks/video.py --sequences {count} --seed {seed}"
    record = {
        **describe_run(" ".join([command, *chosen])),
        "sequences": count,
        "pictures": len(track),
        "fps": FPS,
        "keypoint_set": "coco17",
        "results": records,
    }
    write_json(output, record)


if __name__ == "__main__":
    main()
