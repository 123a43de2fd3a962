"""`fit-cli fit` in shards, killed at random moments and gone on with: is its table the same?

    OMP_WAIT_POLICY=passive python benchmarks/kill.py [--kills 200] [--jobs 1]

The command runs in a process of its own, forked from one that has imported everything: not all
kills are to fall into Python's start. It gets SIGKILL after a time drawn from zero to what a run
takes, and is given once more with --resume. When a run comes to its end, the manifest and every
part are compared with those of an unbroken run, byte by byte, and the next one begins in an empty
folder, until there were as many kills as asked for.
"""

from __future__ import annotations

import importlib
import multiprocessing
import tempfile
import time
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click
import numpy as np
import torch
from problems import LEVELS, add_noise, make_truth
from record import RESULTS, describe_run

from cli.main import main as fit_cli
from fitting.body import load_body
from fitting.files import write_json
from fitting.manifest import RECORD, ShardFolder, read_manifest

_POOL = 64  # different people; the others are these with other noise
_IMPORTED = ("fitting.shard_run", "regressor.lift")  # by the command, where it is not forked


@dataclass(frozen=True, kw_only=True)
class Case:
    """The run that is killed.

    Attributes:
        source: of the people.
        shard_size: of the run.
        jobs: number of workers; with one, shards are fitted in the process that is killed.
        log: where the command's output goes.
    """

    source: Path
    shard_size: int
    jobs: int
    log: Path

    def run(self, output: Path, wait: float | None = None) -> int | None:
        """Begin or go on; the exit code, or none where it was killed after `wait` seconds."""
        command = multiprocessing.get_context("fork").Process(target=self._command, args=(output,))
        command.start()
        command.join(wait)
        if command.is_alive():
            command.kill()
            command.join()
            return None
        return command.exitcode

    def _command(self, output: Path) -> None:
        options = ["--shard-size", self.shard_size, "--jobs", self.jobs, "--resume", "--quiet"]
        command = ["fit", self.source, "-o", output, "--device", "cpu", *options]
        with self.log.open("w") as log, redirect_stdout(log), redirect_stderr(log):
            fit_cli([str(word) for word in command])


@dataclass(kw_only=True)
class Outcome:
    """What came of all kills.

    Attributes:
        kills: that reached a running command.
        killed_at: how many of them by what the run had come to: nothing written, so many shards
            done, or all of them.
        runs: that came to their end.
        wrong: what differed from the unbroken run, or failed.
    """

    kills: int = 0
    killed_at: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    wrong: list[str] = field(default_factory=list)


def write_people(path: Path, count: int, seed: int) -> None:
    """A plain `.npz` of people with noisy keypoints."""
    problem = add_noise(make_truth(load_body(), _POOL, seed=seed).problem, LEVELS["2px"], seed=seed)
    rows = np.arange(count) % _POOL
    noise = np.random.default_rng(seed).normal(0, 1, (count, *problem.keypoints_2d.shape[1:]))
    width, height = problem.image_size.numpy()[rows].astype(int).T
    np.savez(
        path,
        keypoints_2d=(problem.keypoints_2d.numpy()[rows] + noise).astype(np.float32),
        conf=problem.conf.numpy()[rows],
        keypoint_set=problem.keypoint_set.name,
        width=width,
        height=height,
        focal=problem.intrinsics.numpy()[rows, 0, 0],
    )


def state_of(output: Path) -> str:
    """What a run has come to."""
    manifest = read_manifest(output)
    if manifest is None:
        return "nothing written"
    folder, shards = ShardFolder(output, manifest), range(len(manifest.shards))
    done = sum(folder.is_done(shard) for shard in shards)
    return "all shards done" if done == len(shards) else f"{done:02d} shards done"


def content_of(output: Path) -> dict[str, bytes]:
    """Of the files that must not depend on what happened, by name."""
    paths = [output / "manifest.json", *output.glob("fits/*.parquet")]
    return {path.name: path.read_bytes() for path in paths if path.is_file()}


class Waits:
    """Seconds before kills: from zero to about what a run takes, however busy the machine is."""

    def __init__(self, longest: float, rng: np.random.Generator) -> None:
        self._longest, self._rng = longest, rng

    def draw(self) -> float:
        """The next."""
        return self._rng.uniform(0, self._longest)

    def learn(self, *, killed: bool) -> None:
        """Longer where kills came early, shorter where the run came first: four kills to an end."""
        self._longest *= 1.1 if killed else 1.1**-4


def kill_until_done(
    case: Case, output: Path, outcome: Outcome, waits: Waits | None = None, most: int = 0
) -> None:
    """Bring one run to its end, killing it now and then.

    Args:
        case: what to run.
        output: folder of the run.
        outcome: what is counted.
        waits: before kills.
        most: kills in all; then it is let alone.
    """
    while True:
        is_safe = waits is None or outcome.kills >= most
        code = case.run(output, None if is_safe else waits.draw())
        if waits is not None:
            waits.learn(killed=code is None)
        if code is None:
            outcome.kills += 1
            outcome.killed_at[state_of(output)] += 1
            continue
        if code:
            said = case.log.read_text(encoding="utf-8")[-500:]
            outcome.wrong.append(f"run {outcome.runs}: exit code {code}, {said}")
        return


def check(run: Path, expected: dict[str, bytes], outcome: Outcome) -> None:
    """Note what tells a run that came to its end from the unbroken one."""
    if content_of(run) != expected or not (run / RECORD).is_file():
        outcome.wrong.append(f"run {outcome.runs}: another table than the unbroken run's")
    if left := [path.name for path in run.rglob("*.tmp")]:
        outcome.wrong.append(f"run {outcome.runs}: {left} left behind")
    outcome.runs += 1


@click.command()
@click.option("--kills", default=200, show_default=True)
@click.option("--people", default=80, show_default=True)
@click.option("--shard-size", default=5, show_default=True)
@click.option("--jobs", default=1, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), default=RESULTS / "kill.json")
def main(kills: int, people: int, shard_size: int, jobs: int, seed: int, output: Path) -> None:
    """Kill, resume, compare; the record is written after each run that came to its end."""
    torch.set_num_threads(1)  # threads would not survive the fork
    for name in _IMPORTED:
        importlib.import_module(name)
    outcome = Outcome()
    command = f"python benchmarks/kill.py --kills {kills} --people {people} --jobs {jobs}"
    record = {
        **describe_run(f"{command} --shard-size {shard_size} --seed {seed}", ("torch", "joblib")),
        "seed": seed,
        "people": people,
        "shards": -(-people // shard_size),
        "workers": jobs,
    }
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        case = Case(
            source=folder / "people.npz", shard_size=shard_size, jobs=jobs, log=folder / "log"
        )
        write_people(case.source, people, seed)
        began = time.perf_counter()
        kill_until_done(case, folder / "whole", outcome)
        waits = Waits(time.perf_counter() - began, np.random.default_rng(seed))
        expected = content_of(folder / "whole")
        while outcome.kills < kills:
            run = folder / f"run-{outcome.runs}"
            kill_until_done(case, run, outcome, waits, kills)
            check(run, expected, outcome)
            told = {**asdict(outcome), "killed_at": dict(sorted(outcome.killed_at.items()))}
            write_json(output, {**record, **told})
            click.echo(f"{outcome.kills} kills, {outcome.runs} runs, {len(outcome.wrong)} wrong")
    if outcome.wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
