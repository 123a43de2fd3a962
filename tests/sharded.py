"""Small runs in shards, for the tests: whole, and killed by the system at random moments.

`python sharded.py FOLDER KILLS` kills a run so many times, goes on after each, and prints what came
of it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bodies import synthetic_arrays, write_body

from fitting.map_fit import LmConfig, Stage
from fitting.offline import SOLVERS
from fitting.run_config import RunConfig
from fitting.shard_run import ShardConfig, ShardsSummary, run_shards
from fitting.shard_work import FitPlan, ShardDone, ShardTask

NUM_PEOPLE = 23


def people_arrays(count=NUM_PEOPLE, seed=0):
    """Arrays of a plain `.npz`: people who look like nobody, three of them in each picture."""
    rng = np.random.default_rng(seed)
    return {
        "keypoints_2d": rng.uniform(100, 400, (count, 17, 2)).astype(np.float32),
        "conf": rng.uniform(0.1, 1, (count, 17)).astype(np.float32),
        "keypoint_set": np.array("coco17"),
        "width": np.full(count, 500),
        "height": rng.integers(400, 600, count),
        "focal": rng.uniform(500, 900, count),
        "image": np.array([f"{i % (count // 3 + 1):03d} é.jpg" for i in range(count)]),
    }


def make_config(folder: Path, **changes) -> RunConfig:
    """A run of a few people on a body of few vertices; its files are in `folder`."""
    source, body = folder / "people.npz", folder / "body.npz"
    if not source.exists():
        np.savez(source, **people_arrays())
        write_body(body, synthetic_arrays())
    settings = {"batch_size": 4, "jobs": 1, "overlays": False, "device": "cpu"}
    return RunConfig(input=source, body=body, output=folder / "out", **settings | changes)


def go(config: RunConfig, size: int | None = 4, **options) -> ShardsSummary:
    """A run in shards of so many people; `options` are those of `ShardConfig` and `run_shards`."""
    names = ("stop", "progress", "make_predictor")
    calls = {name: options.pop(name) for name in names if name in options}
    return run_shards(config, ShardConfig(size=size, **options), **calls)


def fit_at_once(plan: FitPlan, task: ShardTask) -> ShardDone:
    """In place of a shard's fits, some bytes that follow from its people."""
    people = task.rows.people
    part = people.keypoints_2d.tobytes()[:40] + plan.key.encode()
    facts = {"people": len(people), "status": {}, "without_estimate": 0, "seconds": {}}
    facts |= {"batch_size": plan.config.batch_size, "bytes": len(part)}
    facts["problems"] = [asdict(problem) for problem in task.rows.problems]
    return ShardDone(shard=task.shard, part=part, facts=facts)


def files_of(output: Path) -> dict[str, bytes]:
    """Every file whose content must not depend on what happened, by name."""
    kept = [output / "manifest.json", *output.glob("fits/*.parquet"), *output.glob("*.parquet")]
    return {str(path.relative_to(output)): path.read_bytes() for path in kept if path.exists()}


def left_behind(output: Path) -> list[str]:
    """Temporary files."""
    return [path.name for path in output.rglob("*.tmp")]


def _run_until(config: RunConfig, seconds: float) -> bool:
    """Go on with a run in a process of its own, kill it; whether it had ended by then."""
    child = os.fork()
    if child == 0:
        go(config, resume=True)
        os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFEXITED(status)


def kill_at_random(folder: Path, kills: int) -> dict[str, object]:
    """Kill runs at random moments until there were so many kills; what differs from a whole run."""
    config, rng = make_config(folder), np.random.default_rng(0)
    began = time.perf_counter()
    go(replace(config, output=folder / "whole"))
    usual = time.perf_counter() - began
    expected, found, runs = files_of(folder / "whole"), {"kills": 0, "wrong": []}, 0
    while found["kills"] < kills:
        runs += 1
        killed = replace(config, output=folder / f"run {runs}")
        while not _run_until(killed, rng.uniform(0, usual)):
            found["kills"] += 1
        if files_of(killed.output) != expected or left_behind(killed.output):
            found["wrong"].append(runs)
    return {**found, "runs": runs}


if __name__ == "__main__":
    SOLVERS["lm"] = lambda: LmConfig(stages=(Stage(steps=2),))
    print(json.dumps(kill_at_random(Path(sys.argv[1]), int(sys.argv[2]))))
