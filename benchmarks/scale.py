"""`fit-cli fit` in shards on a big file: how much memory all its processes take, and how long.

    OMP_WAIT_POLICY=passive python benchmarks/scale.py [--people 1000000]

Everyone is seen, with keypoints of their own, and fitted. Peaks are those that Linux counts for
each process by itself; their sum is no less than what was in use at any moment.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
from kill import write_people
from record import RESULTS, describe_run

from fitting.files import write_json

_SAMPLE_SECONDS = 0.2


def children_of(parent: int) -> list[int]:
    """Processes that a process began."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            after_name = path.read_text(encoding="utf-8").rpartition(")")[2]
        except OSError:  # it has ended
            continue
        if int(after_name.split()[1]) == parent:
            found.append(int(path.parent.name))
    return found


def peak_of(process: int) -> float:
    """GiB, the most physical memory that a process has had; zero once it has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    except OSError:
        return 0.0
    found = re.findall(r"VmHWM:\s+(\d+) kB", status)
    return int(found[0]) / 2**20 if found else 0.0


def watch(process: subprocess.Popen[bytes]) -> dict[int, float]:
    """The peak of a running command and of each process it begins, GiB."""
    peaks: dict[int, float] = {}
    while process.poll() is None:
        for pid in (process.pid, *children_of(process.pid)):
            peaks[pid] = max(peaks.get(pid, 0.0), peak_of(pid))
        time.sleep(_SAMPLE_SECONDS)
    return peaks


def measure(source: Path, output: Path, shard_size: int, jobs: int) -> dict[str, object]:
    """Run the command."""
    options = ["--shard-size", str(shard_size), "--jobs", str(jobs), "--device", "cpu", "--quiet"]
    began = time.perf_counter()
    program = [sys.executable, "-c", "from cli.main import main; main()"]
    process = subprocess.Popen(
        [*program, "fit", source, "-o", output, *options],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},  # it finds what we found
    )
    peaks = watch(process)
    seconds = time.perf_counter() - began
    if process.returncode:
        raise click.ClickException(f"the command ended with exit code {process.returncode}")
    own = peaks.pop(process.pid)
    return {
        "seconds": round(seconds, 1),
        "peak_gib": round(own + sum(peaks.values()), 2),
        "peak_gib_of_the_command": round(own, 2),
        "peak_gib_of_each_worker": [round(peak, 2) for peak in peaks.values()],
    }


@click.command()
@click.option("--people", default=1_000_000, show_default=True)
@click.option("--shard-size", default=16_384, show_default=True)
@click.option("--jobs", default=2, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), default=RESULTS / "scale.json")
def main(people: int, shard_size: int, jobs: int, seed: int, output: Path) -> None:
    """Make a big file, fit it in shards and count what comes out."""
    with tempfile.TemporaryDirectory() as temporary:
        source, out = Path(temporary) / "people.npz", Path(temporary) / "out"
        write_people(source, people, seed)
        found = measure(source, out, shard_size, jobs)
        megabytes = source.stat().st_size / 1e6
        counts = json.loads((out / "run.json").read_text("utf-8"))["counts"]
    command = f"python benchmarks/scale.py --people {people} --jobs {jobs}"
    record = {
        **describe_run(f"{command} --shard-size {shard_size} --seed {seed}", ("torch", "joblib")),
        "seed": seed,
        "people": people,
        "shards": -(-people // shard_size),
        "workers": jobs,
        "input_mb": round(megabytes, 1),
        "fitted": counts["fitted"],
        "status": counts["status"],
        **found,
    }
    write_json(output, record)
    click.echo(f"{people} people, {found['peak_gib']} GiB, {found['seconds']} s -> {output}")


if __name__ == "__main__":
    main()
