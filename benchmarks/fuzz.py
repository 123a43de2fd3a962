"""Hostile fitting problems by the hundred thousand: no fit may fail, none may touch its neighbours.

    python benchmarks/fuzz.py [--problems 100000]

Every batch holds the same few sound problems at the same rows, among problems that no one would
call sound; every other one begins at the lifter's estimates, the rest at the mean pose. Counted are
people with a keypoint seen whose parameters are not finite, batches that raise, and sound problems
whose fit differs in any bit from that of the first batch of the same start.
"""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import click
import numpy as np
import torch
from cases import CASES, LIFT, make_fit
from problems import IMAGE_SIZE, LEVELS, add_noise, make_truth
from record import RESULTS, describe_run

from fitting.body import load_body
from fitting.camera import make_intrinsics
from fitting.files import write_json
from fitting.problem import PARAMETERS, BodyParams, FitProblem, FitResult
from fitting.skeleton import keypoint_set
from priors.gmm import load_pose_prior

BATCH = 256
NO_ESTIMATE = BodyParams(**{name: torch.empty(0) for name in PARAMETERS})  # neither start has use
SOUND = 8
KINDS = (
    "anywhere",
    "one keypoint",
    "two keypoints",
    "one place",
    "on a line",
    "far outside",
    "huge",
    "tiny",
    "barely seen",
    "mirrored",
    "tiny focal",
    "huge focal",
)


def hostile(count: int, rng: np.random.Generator, name: str = "coco17") -> FitProblem:
    """`count` problems, of every kind in turn, on pictures of random sizes."""
    s = keypoint_set(name)
    P = len(s)
    size = 10 ** rng.uniform(1, 4, (count, 2))
    xy = rng.uniform(0, 1, (count, P, 2)) * size[:, None]
    conf = np.where(rng.random((count, P)) < 0.2, 0.0, rng.random((count, P)))
    focal = np.linalg.norm(size, axis=1)
    kind = np.arange(count) % len(KINDS)

    def of(*names: str) -> np.ndarray:
        return np.isin(kind, [KINDS.index(n) for n in names])

    place = rng.integers(P, size=count)
    for row in np.flatnonzero(of("one keypoint", "two keypoints")):
        conf[row] = 0
        conf[row, place[row] : place[row] + 1 + (KINDS[kind[row]] == "two keypoints")] = 1
    xy[of("one place")] = xy[of("one place")][:, :1]
    line = rng.normal(size=(count, 1, 2)) * rng.normal(size=(count, P, 1)) * size[:, None]
    xy[of("on a line")] = line[of("on a line")]
    xy[of("far outside")] += 1e5 * rng.normal(size=(count, 1, 2))[of("far outside")]
    scale = 10.0 ** rng.uniform(3, 30, (count, 1, 1))
    xy[of("huge")] *= scale[of("huge")]
    xy[of("tiny")] /= scale[of("tiny")]
    conf[of("barely seen")] *= 1e-6
    middle = size[:, None] / 2
    xy[of("mirrored")] = (2 * middle - xy)[of("mirrored")]  # as if behind the camera
    focal = focal * np.where(of("tiny focal"), 1e-3, np.where(of("huge focal"), 1e4, 1.0))
    image_size = torch.from_numpy(size).float()
    return FitProblem(
        keypoint_set=s,
        keypoints_2d=torch.from_numpy(xy).float(),
        conf=torch.from_numpy(conf).float(),
        intrinsics=make_intrinsics(image_size, torch.from_numpy(focal).float()),
        image_size=image_size,
    )


def among(sound: FitProblem, problem: FitProblem) -> FitProblem:
    """`problem` with its first rows replaced by the sound ones."""
    names = ("keypoints_2d", "conf", "intrinsics", "image_size")
    rest = slice(len(sound), None)
    return replace(
        problem,
        **{n: torch.cat([getattr(sound, n), getattr(problem, n)[rest]]) for n in names},
    )


def count_failures(problem: FitProblem, result: FitResult, expected: FitResult) -> tuple[int, int]:
    """People whose fit is not finite, and sound ones that changed by a bit."""
    seen = (problem.conf > 0).any(dim=1)
    x = result.params.pack(PARAMETERS)
    bad = int((seen & ~x.isfinite().all(dim=1)).sum())
    changed = x[:SOUND] != expected.params.pack(PARAMETERS)[:SOUND]
    return bad, int(changed.any(dim=1).sum())


@click.command()
@click.option("--problems", default=100_000, show_default=True, type=click.IntRange(min=1))
@click.option("--seed", default=0, show_default=True)
@click.option("-o", "--output", default=RESULTS / "fuzz.json", type=click.Path(path_type=Path))
def main(problems: int, seed: int, output: Path) -> None:
    body, prior = load_body(), load_pose_prior()
    rng = np.random.default_rng(seed)
    sound = add_noise(make_truth(body, SOUND, seed).problem, LEVELS["2px"], seed)
    cases = [case for case in CASES if case.solver == "lm" and case.start in ("mean", LIFT)]
    fits = cycle([(case.start, make_fit(case, body, prior, sound.keypoint_set)) for case in cases])
    not_finite = changed = raised = done = 0
    first: dict[str, FitResult] = {}
    began = time.perf_counter()
    while done < problems:
        problem = among(sound, hostile(BATCH, rng))
        start, fit = next(fits)
        try:
            result = fit(problem, NO_ESTIMATE)
        except (RuntimeError, ValueError, ArithmeticError) as error:
            raised += 1
            click.echo(f"raised: {error}")
            continue
        finally:
            done += BATCH - SOUND
        bad, different = count_failures(problem, result, first.setdefault(start, result))
        not_finite, changed = not_finite + bad, changed + different
    record = {
        **describe_run(f"python benchmarks/fuzz.py --problems {problems} --seed {seed}"),
        "problems": done,
        "kinds": KINDS,
        "image_size_of_sound_problems": IMAGE_SIZE,
        "seed": seed,
        "not_finite": not_finite,
        "batches_that_raised": raised,
        "neighbours_changed": changed,
        "seconds": round(time.perf_counter() - began, 1),
    }
    write_json(output, record)
    click.echo(f"{done} problems: {not_finite} not finite, {raised} raised, {changed} changed")
    if not_finite or raised or changed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
