"""Files from strangers by the million: is every one read, or refused by the documented error?

    python benchmarks/fuzz_parsers.py [--seconds 600] [--jobs 2] [--parser coco ...]

Each parser of `parsers.py` is fuzzed in a process of its own by libFuzzer, which keeps the files
that reach new code of this project and goes on from them; half of the damage is done within the
structure of the files (`damage.py`). A finding is an error that is not documented, a warning, a
result that is not fit for use, a message of several lines, a crash of the interpreter, or a file
that takes more than `--timeout` seconds or `--memory` MiB. The files are kept in `--findings`.
"""

from __future__ import annotations

import contextlib
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import atheris
import click
import joblib
from record import RESULTS, describe_run

from fitting.files import write_json

INSTRUMENTED = ("fitting", "priors", "regressor")
MOST_RESTARTS = 20  # after crashes of the interpreter
_STATUS = re.compile(r"^#(\d+)\s+\w+\s+cov: (\d+)", re.MULTILINE)
_STATISTIC = re.compile(r"^stat::(\w+):\s+(\d+)", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Target:
    """What libFuzzer calls: a parser, and where files of one process lie.

    Attributes:
        name: of the parser.
        parser: one of `parsers.parsers()`, imported with instruments.
        path: where each file is written to be read.
        images: folder of the pictures that files name.
        findings: folder of what is found.
        known: titles of findings so far.
    """

    name: str
    parser: Any
    path: Path
    images: Path
    findings: Path
    known: set[str]

    def read(self, content: bytes) -> None:
        """Read a file, and keep it where that is a finding."""
        self.path.write_bytes(content)
        try:
            self.parser.read(self.path, self.images)
        except self.parser.refusal as error:
            if fault := _fault_of_message(str(error)):
                self._keep(fault, str(error), content)
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)
            ours = [f for f in place if any(f"/{p}/" in f.filename for p in INSTRUMENTED)]
            last = (ours or place)[-1]
            title = f"{type(error).__name__} {Path(last.filename).name} {last.lineno}"
            self._keep(title, traceback.format_exc(), content)

    def mutate(self, content: bytes, most: int, seed: int) -> bytes:
        """Other content: every other time by damage to the structure."""
        rng = Random(seed)
        if rng.random() < 0.5:
            with contextlib.suppress(Exception):  # no file of its kind any more
                return self.parser.damage(content, rng)[:most]
        return atheris.Mutate(content, most)

    def _keep(self, title: str, text: str, content: bytes) -> None:
        """The first file of each kind of finding, and what it did."""
        stem = re.sub(r"\W+", "-", f"{self.name} {title}")
        if stem not in self.known:
            self.known.add(stem)
            stem = str(self.findings / stem)
            Path(f"{stem}.txt").write_text(text, encoding="utf-8", errors="backslashreplace")
            Path(f"{stem}.bin").write_bytes(content)


def fuzz_here(name: str, work: Path, findings: Path, options: tuple[str, ...]) -> None:
    """Fuzz one parser in this process, which libFuzzer ends."""
    with atheris.instrument_imports(include=list(INSTRUMENTED)):
        from parsers import make_pictures, parsers

    parser = parsers()[name]
    images, corpus, path = work / "pictures", work / "corpus", work / "read" / parser.name
    if not corpus.exists():  # after a restart the files that reached new code are there
        make_pictures(images)
        for folder in (corpus, path.parent):
            folder.mkdir()
        for number, content in enumerate(parser.good()):
            (corpus / f"good-{number}").write_bytes(content)
    warnings.simplefilter("error")
    known = {p.stem for p in findings.glob("*.txt")}
    target = Target(
        name=name, parser=parser, path=path, images=images, findings=findings, known=known
    )
    arguments = [sys.argv[0], str(corpus), *options]
    atheris.Setup(arguments, target.read, custom_mutator=target.mutate)
    atheris.Fuzz()


def _fault_of_message(message: str) -> str:
    """What is wrong with what a refusal says; "" if nothing."""
    if "\n" in message:
        return "message of several lines"
    return "long message" if len(message) > 3000 else ""


def fuzz(
    name: str, seconds: int, timeout: int, memory: int, findings: Path
) -> tuple[str, dict[str, Any]]:
    """Fuzz one parser in processes of their own, a new one where the interpreter crashed.

    Returns:
        Its name, and its record.
    """
    run = {key: describe_run("")[key] for key in ("date", "revision")}
    outputs: list[str] = []
    crashes = 0
    began, used = time.perf_counter(), _cpu_seconds()
    with tempfile.TemporaryDirectory() as work:
        while len(outputs) <= MOST_RESTARTS:
            left = seconds - (time.perf_counter() - began) * bool(outputs)
            if left < 1:
                break
            limits = [
                f"-max_total_time={left:.0f}", f"-timeout={timeout}", f"-rss_limit_mb={memory}",
                f"-malloc_limit_mb={2 * memory}", "-max_len=65536", "-print_final_stats=1",
                f"-artifact_prefix={findings}/{name.replace(' ', '-')}-",
            ]  # fmt: skip
            inside = ["--inside", name, "--work", work, "--findings", str(findings), "--", *limits]
            done = subprocess.run(
                [sys.executable, __file__, *inside], capture_output=True, text=True,
                errors="replace", check=False,
            )  # fmt: skip
            outputs.append(done.stderr)
            if done.returncode == 0:
                break
            crashes += 1
            click.echo(done.stderr[-2000:])
    of_parser = findings.glob(f"{name.replace(' ', '-')}-*")
    record = {
        **run,
        "seconds": round(time.perf_counter() - began, 1),
        "cpu_seconds": round(_cpu_seconds() - used, 1),
        **_summary(outputs),
        "crashes": crashes,
        "findings": sorted(path.stem for path in of_parser if path.suffix != ".bin"),
    }
    return name, record


def _cpu_seconds() -> float:
    """Of all processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _summary(outputs: list[str]) -> dict[str, Any]:
    """Of what libFuzzer said in one process or several."""
    status = [[(int(n), int(cov)) for n, cov in _STATUS.findall(text)] for text in outputs]
    statistics = [dict(_STATISTIC.findall(text)) for text in outputs]
    return {
        "executions": sum(lines[-1][0] for lines in status if lines),
        "edges_of_good_files": max((lines[0][1] for lines in status if lines), default=0),
        "edges": max((lines[-1][1] for lines in status if lines), default=0),
        "slowest_s": max((int(s.get("slowest_unit_time_sec", 0)) for s in statistics), default=0),
        "peak_mib": max((int(s.get("peak_rss_mb", 0)) for s in statistics), default=0),
    }


@click.command()
@click.option("--parser", "names", multiple=True, help="Of parsers.py; all if not given.")
@click.option("--seconds", default=600, show_default=True, help="For each parser.")
@click.option("--jobs", default=1, show_default=True, help="Parsers side by side.")
@click.option("--timeout", default=30, show_default=True, help="Seconds for one file.")
@click.option("--memory", default=3000, show_default=True, help="MiB of the whole process.")
@click.option("--findings", type=click.Path(path_type=Path), default=Path("findings"))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=RESULTS / "fuzz_parsers.json"
)
@click.option("--inside", hidden=True)
@click.option("--work", type=click.Path(path_type=Path), hidden=True)
@click.argument("options", nargs=-1)
def main(
    names: tuple[str, ...], seconds: int, jobs: int, timeout: int, memory: int, findings: Path,
    output: Path, inside: str | None, work: Path | None, options: tuple[str, ...],
) -> None:  # fmt: skip
    """Fuzz the parsers; the record is written after each."""
    if inside is not None and work is not None:
        fuzz_here(inside, work, findings, options)
        return
    from parsers import parsers

    findings.mkdir(exist_ok=True)
    command = f"python benchmarks/fuzz_parsers.py --seconds {seconds} --jobs {jobs}"
    packages = ("atheris", "numpy", "torch", "pillow", "pyarrow", "pyyaml", "pydantic")
    record = {**describe_run(command, packages), "timeout_s": timeout, "memory_mib": memory}
    results = json.loads(output.read_text("utf-8"))["parsers"] if output.exists() else {}
    runs = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")(
        joblib.delayed(fuzz)(name, seconds, timeout, memory, findings)
        for name in names or parsers()
    )
    for name, result in runs:
        results[name] = result
        write_json(output, {**record, "parsers": dict(sorted(results.items()))})
        click.echo(f"{name}: {result['executions']} files, {len(result['findings'])} findings")
    if any(r["findings"] or r["crashes"] for r in results.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
