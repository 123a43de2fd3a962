"""How long a newcomer takes from a clone to fits of their own photographs, following the README.

    python benchmarks/first_use.py --pictures FOLDER [--repository .]

In an empty folder, with an environment that holds nothing but HOME, PATH and pip's own settings:
clone, `make demo`, which sets up `.venv`, and `fit-cli FOLDER -o OUT`. A person also reads, and
looks at the report.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

import click
from record import RESULTS, describe_run

from fitting.files import write_json


@click.command()
@click.option("--pictures", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--repository", default=".", show_default=True)
@click.option("--output", default=RESULTS / "first_use.json", type=click.Path(path_type=Path))
def main(pictures: Path, repository: str, output: Path) -> None:
    """Time each command; the first that fails ends it."""
    described = describe_run("python benchmarks/first_use.py --pictures PHOTOGRAPHS")
    source = repository if "://" in repository else str(Path(repository).resolve())
    seconds = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clone, kept = folder / "bodyloop", ("PATH", "PIP_", "SSL_", "REQUESTS_")
        environment = {n: v for n, v in os.environ.items() if n.startswith(kept)} | {"HOME": name}
        steps = {
            "clone": (folder, ["git", "clone", "--quiet", source, str(clone)]),
            "make demo": (clone, ["make", "demo"]),
            "fit-cli PICTURES/ -o OUT": (
                clone,
                [".venv/bin/fit-cli", str(pictures.resolve()), "-o", str(folder / "OUT")],
            ),
        }
        for step, (where, command) in steps.items():
            began = time.perf_counter()
            subprocess.run(command, cwd=where, env=environment, check=step != [*steps][-1])
            seconds[step] = round(time.perf_counter() - began, 1)
        counts = json.loads((folder / "OUT" / "run.json").read_text(encoding="utf-8"))["counts"]
        page = (folder / "OUT" / "report.html").stat().st_size
    total = round(sum(seconds.values()), 1)
    click.echo(f"{seconds}: {total} s; {counts}")
    found = {"seconds": seconds, "total_seconds": total, "counts": counts, "page_bytes": page}
    write_json(output, {**described, **found})


if __name__ == "__main__":
    main()
