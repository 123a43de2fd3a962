"""Write our figures in docs/comparison.md from the committed JSON of the benchmarks.

python tools/update_comparison.py [--check]
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "comparison.md"
NOISE = "2px"
_WORDS = {
    ("adam", "mean"): "`adam`: SMPLify as SPIN runs it, from the mean pose",
    ("adam", "regressor"): "the same from a regressor-like estimate",
    ("lbfgs", "regressor"): "`lbfgs`: SMPLify-X's stages, from a regressor-like estimate",
    ("lm", "mean"): "`lm`: ours, from the mean pose",
    ("lm", "lift"): "`lm` from the lifter, the default",
    ("lm", "regressor"): "`lm` from a regressor-like estimate",
}
_MARKED = re.compile(r"(<!-- comparison table -->\n).*?(<!-- /comparison table -->)", re.DOTALL)

Record = dict[str, Any]


def comparison_table(speed: Record, accuracy: Record) -> str:
    """Markdown of one run each of benchmarks/speed.py and benchmarks/accuracy.py."""
    lines = ["| what | people/s | batch | MPJPE, mm |", "|---|--:|--:|--:|"]
    for (solver, start), words in _WORDS.items():
        told = (solver, start) in (("lm", "lift"), ("lm", "regressor"))
        rates = [r for r in speed["results"] if (r["solver"], r["start"]) == (solver, start)]
        best = max(rates, key=lambda r: r["people_per_second"])
        (errors,) = (
            r
            for r in accuracy["results"]
            if (r["solver"], r["start"], r["noise"], r["proximal"]) == (solver, start, NOISE, told)
        )
        few = (
            f", {errors['people']} people"
            if errors.get("people", accuracy["people"]) < accuracy["people"]
            else ""
        )
        lines.append(f"| {words}{few} | {_rate(best)} | {best['batch']} | {errors['mpjpe']:.0f} |")
    theirs = speed["smplfitter"]
    for row in theirs["results"]:
        iterations = f"{row['num_iter']} iteration{'s' * (row['num_iter'] > 1)}"
        lines.append(
            f"| smplfitter {theirs['version']}, given true {row['given']}, {iterations} | "
            f"{_rate(row)} | {theirs['people']} | {row['mpjpe']:.0f} |"
        )
    sources = [_source(record) for record in (speed, accuracy)]
    return "\n".join([*lines, "", *sources]) + "\n"


def _rate(row: Record) -> str:
    rate = row["people_per_second"]
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"


def _source(record: Record) -> str:
    machine, versions = record["machine"], record["versions"]
    return (
        f"`{record['command']}`, {record['date'][:10]}, {machine['cores']} cores of "
        f"{machine['processor']}, torch {versions['torch']}."
    )


def updated(page: str, results: Path = RESULTS) -> str:
    """The page's text with its table made from the JSON in the folder `results`."""
    speed, accuracy = (
        json.loads((results / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("speed", "accuracy")
    )
    table = comparison_table(speed, accuracy)
    return _MARKED.sub(lambda match: match[1] + table + match[2], page)


@click.command()
@click.option("--check", is_flag=True, help="Only fail if the page is not up to date.")
def main(check: bool) -> None:
    old = PAGE.read_text(encoding="utf-8")
    new = updated(old)
    if check and new != old:
        raise click.ClickException(f"{PAGE} is out of date; run python tools/update_comparison.py")
    PAGE.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
