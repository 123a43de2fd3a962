"""From table to table: what `fit-cli fit` in shards leaves of the bare solver's speed.

    OMP_WAIT_POLICY=passive python benchmarks/throughput.py [--people 65536] [--batch-size 1024]

The bare solver has the same people in memory: the lifter's estimates and the Levenberg-Marquardt
solve, batch by batch, with as many threads as the command has workers. The command reads a plain
`.npz`, fits, and writes Parquet files. Both are measured in turn, so that their ratio survives a
machine that others use. Three ratios are told: of the command from start to end; without what it
takes to start it and its workers, which is measured by a run of one person for each; and the latter
in seconds of processors, which say what is computed besides, however busy the machine is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
import torch
from kill import write_people
from record import RESULTS, describe_run

from fitting.body import load_body
from fitting.files import write_json
from fitting.map_fit import LmConfig
from fitting.offline import Solver, choose_starts, make_problem, make_solver
from fitting.problem import FitProblem
from fitting.readers import read_people
from fitting.skeleton import keypoint_set
from priors.gmm import load_pose_prior
from regressor import load_lifter

_SHARDS = 8  # of a run: all workers end at about the same time


@dataclass(frozen=True, kw_only=True)
class Bare:
    """Lifter and solver, and batches of people."""

    lifter: object
    solver: Solver
    batches: list[FitProblem]
    threads: int

    @classmethod
    def of_file(cls, path: Path, batch_size: int, threads: int) -> Bare:
        """The people of a keypoint file, and what `fit-cli fit` fits them with."""
        people, _ = read_people(path)
        body, prior = load_body(), load_pose_prior()
        rows = np.split(np.arange(len(people)), range(batch_size, len(people), batch_size))
        like = body.v_template
        return cls(
            lifter=load_lifter(body),
            solver=make_solver(
                body, prior, keypoint_set(people.keypoint_set), LmConfig.from_estimate()
            ),
            batches=[
                make_problem(people.select(some), device=like.device, dtype=like.dtype)
                for some in rows
            ],
            threads=threads,
        )

    def run(self, most: int | None = None) -> dict[str, float]:
        """Seconds of all people, or of so many batches, and of processors."""
        torch.set_num_threads(self.threads)
        began, busy = time.perf_counter(), time.process_time()
        for batch in self.batches[:most]:
            problem, starts = self.lifter(batch, choose_starts(None, estimates=True), 0)
            self.solver(problem, starts)
        return {"wall": time.perf_counter() - began, "processors": time.process_time() - busy}


def children_seconds() -> float:
    """Of processors, that ended children of this process have taken."""
    times = os.times()
    return times.children_user + times.children_system


def run_command(source: Path, output: Path, options: dict[str, int]) -> dict[str, float]:
    """Seconds of `fit-cli fit` from start to end, and what `run.json` says."""
    words = [str(word) for option in options.items() for word in option]
    program = [sys.executable, "-c", "from cli.main import main; main()", "fit"]
    began, busy = time.perf_counter(), children_seconds()
    subprocess.run(
        [*program, source, "-o", output, "--device", "cpu", "--quiet", "--overwrite", *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},  # it finds what we found
        stdout=subprocess.DEVNULL,
        check=True,
    )
    seconds = time.perf_counter() - began
    record = json.loads((output / "run.json").read_text(encoding="utf-8"))
    return {
        "wall": seconds,
        "processors": children_seconds() - busy,
        **{f"workers_{stage}": spent for stage, spent in record["seconds"].items()},
    }


def compare(people: int, turns: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Medians of the turns, and the command's speed relative to the bare solver's in each."""
    ratios = [
        {
            "whole": bare["wall"] / command["wall"],
            "begun": bare["wall"] / (command["wall"] - start["wall"]),
            "begun_processors": bare["processors"] / (command["processors"] - start["processors"]),
        }
        for bare, start, command in (turn.values() for turn in turns)
    ]
    seconds = {what: medians([turn[what] for turn in turns]) for what in turns[0]}
    return {
        "seconds": seconds,
        "people_per_second": {
            "bare": people / seconds["bare"]["wall"],
            "command": people / seconds["command"]["wall"],
            "command_begun": people / (seconds["command"]["wall"] - seconds["start"]["wall"]),
        },
        "ratio": medians(ratios),
        "ratio_of_each_turn": ratios,
    }


def rounded(value: Any) -> Any:
    """Numbers of nested lists and dictionaries, to three digits behind the point."""
    if isinstance(value, dict):
        return {name: rounded(item) for name, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else round(value, 3)


def medians(records: list[dict[str, float]]) -> dict[str, float]:
    """Of each number that the records have."""
    return {name: median(record[name] for record in records) for name in records[0]}


def take_turns(
    people: int, options: dict[str, int], turns: int, seed: int
) -> tuple[list[dict[str, dict[str, float]]], dict[str, float]]:
    """Seconds of the bare solver, of starting and of the command in each turn; bytes of a person.

    Args:
        people: in the input.
        options: of the command, whose batch size and number of workers the bare solver has, too.
        turns: number of them.
        seed: of the people.
    """
    taken, jobs = [], options["--jobs"]
    with tempfile.TemporaryDirectory() as temporary:
        source, few, out = (Path(temporary) / name for name in ("people.npz", "few.npz", "out"))
        write_people(source, people, seed)
        write_people(few, jobs, seed)
        bare = Bare.of_file(source, options["--batch-size"], jobs)
        bare.run(1)
        for _ in range(turns):
            taken.append({
                "bare": bare.run(),
                "start": run_command(few, out, {**options, "--shard-size": 1}),
                "command": run_command(source, out, options),
            })  # fmt: skip
            click.echo(
                ", ".join(f"{what} {spent['wall']:.1f} s" for what, spent in taken[-1].items())
            )
        written = sum(path.stat().st_size for path in out.glob("fits/*"))
        sizes = {"input": source.stat().st_size / people, "output": written / people}
    return taken, sizes


@click.command()
@click.option("--people", default=65_536, show_default=True)
@click.option("--batch-size", default=1024, show_default=True)
@click.option("--jobs", default=2, show_default=True)
@click.option("--turns", default=5, show_default=True, help="Measurements of each.")
@click.option("--seed", default=0, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), default=RESULTS / "throughput.json")
def main(people: int, batch_size: int, jobs: int, turns: int, seed: int, output: Path) -> None:
    """Measure the two in turn."""
    shard_size = -(-people // _SHARDS)
    options = {"--batch-size": batch_size, "--jobs": jobs, "--shard-size": shard_size}
    taken, sizes = take_turns(people, options, turns, seed)
    record = {
        **describe_run(
            f"python benchmarks/throughput.py --people {people} --batch-size {batch_size} --jobs "
            f"{jobs} --turns {turns} --seed {seed}",
            ("torch", "joblib", "pyarrow"),
        ),
        "seed": seed,
        "people": people,
        "batch_size": batch_size,
        "shard_size": shard_size,
        "workers": jobs,
        "turns": turns,
        "bytes_per_person": rounded(sizes),
        **rounded(compare(people, taken)),
    }
    write_json(output, record)
    click.echo(f"{record['ratio']} of the bare solver's speed -> {output}")


if __name__ == "__main__":
    main()
