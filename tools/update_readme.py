"""Write the results tables of README.md from the committed JSON of the benchmarks.

python tools/update_readme.py [--check]
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
MARKED = re.compile(r"(<!-- results -->\n).*?(<!-- /results -->)", re.DOTALL)

NOISE = {"true": "true", "2px": "σ = 2 px", "4px": "σ = 4 px"}
MISSING = "–"

Record = dict[str, Any]


def results_section(accuracy: Record, speed: Record | None) -> str:
    """Markdown of one run of benchmarks/accuracy.py and, where given, of benchmarks/speed.py."""
    lines = [
        f"3D error in mm, MPJPE / PA-MPJPE over LSP's 14 joints, of {accuracy['people']} people: "
        "poses of motion-capture subjects held out of the prior, random bodies and cameras, COCO's "
        "17 keypoints; noise for a person 200 px tall, with 10 % of the keypoints missing and 3 % "
        "wrong. Outliers: people over 150 mm at σ = 4 px. Starts: the mean pose from two sides; "
        "also the modes of the pose prior (`--starts 18`); the bundled lifter's estimate (the "
        "default), trained on other subjects; a regressor-like estimate (0.08 rad off about each "
        "axis of each joint; `--init`), of which only `lm` is told how good it may be.",
        "",
        *_table(accuracy, speed),
        "",
        _source(accuracy),
    ]
    if speed is not None:
        lines += ["", _speed_sentence(speed), "", _source(speed)]
    return "\n".join(lines) + "\n"


def _table(accuracy: Record, speed: Record | None) -> list[str]:
    """A line for each solver and start, in the order of the record."""
    lines = [
        "| solver | start | " + " | ".join(NOISE.values()) + " | outliers | people/s |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    rows: dict[tuple[str, str], dict[str, Record]] = {}
    for result in _with_subsets(accuracy["results"]):
        rows.setdefault(_names(result, accuracy), {})[result["noise"]] = result
    for (solver, start), by_noise in rows.items():
        errors = [_errors(by_noise.get(noise)) for noise in NOISE]
        outliers = f"{by_noise['4px']['outliers']:.0%}" if "4px" in by_noise else MISSING
        rate = _best_rate(next(iter(by_noise.values())), speed)
        lines.append(f"| {solver} | {start} | {' | '.join(errors)} | {outliers} | {rate} |")
    return lines


def _with_subsets(results: list[Record]) -> list[Record]:
    """The results, and below those of L-BFGS how others did on the same few people."""
    found = []
    for result in results:
        found.append(result)
        if result["solver"] == "lbfgs":
            same = (result["noise"], result["start"])
            found += [
                {**other, **other["subset"]}
                for other in results
                if (other["noise"], other["start"]) == same and "subset" in other
            ]
    return found


def _names(result: Record, accuracy: Record) -> tuple[str, str]:
    """What stands in the first two columns."""
    people = result.get("people", accuracy["people"])
    few = f", {people} people" if people < accuracy["people"] else ""
    if result["solver"] == "start":
        return "none" + few, result["start"]
    untold = (result["solver"], result["start"]) == ("lm", "regressor") and not result["proximal"]
    return f"`{result['solver']}`{few}", result["start"] + (", without its term" if untold else "")


def _errors(result: Record | None) -> str:
    return MISSING if result is None else f"{result['mpjpe']:.0f} / {result['pa_mpjpe']:.0f}"


def _best_rate(result: Record, speed: Record | None) -> str:
    """People per second at the best batch, where it was measured as the accuracy was."""
    key = (result["solver"], result["start"], result.get("proximal", False))
    rates = [
        r["people_per_second"]
        for r in (speed["results"] if speed else [])
        if (r["solver"], r["start"], r["proximal"]) == key
    ]
    if not rates:
        return MISSING
    best = max(rates)
    return f"{best:,.0f}" if best >= 10 else f"{best:.2g}"


def _speed_sentence(speed: Record) -> str:
    """Ratios, the time of one person, and memory."""
    comparison, memory, alone = speed["comparison"], speed["memory_gib"], speed["alone_ms"]
    lifter = speed["lifter"]
    ratio = comparison["lm_over_adam"]
    return (
        f"People/s are those of the best batch. With {comparison['batch']} people at once `lm` is "
        f"{ratio['regressor']:.0f} times as fast as `adam` at its best from the regressor-like "
        f"estimate, {ratio['mean']:.0f} times from the mean pose and {ratio['lift']:.0f} times "
        "from the lifter's estimate, where `adam` begins at the mean pose; the process needs "
        f"{memory['peak']:.2g} GiB. One person alone takes it {alone['regressor']:.0f}, "
        f"{alone['mean']:.0f} and {alone['lift']:.0f} ms. The lifter alone estimates "
        f"{lifter['people_per_second']:,.0f} people/s at a batch of {lifter['batch']}."
    )


def _source(record: Record) -> str:
    machine = record["machine"]
    return (
        f"`{record['command']}`, {record['date'][:10]}, {machine['cores']} cores of "
        f"{machine['processor']}, torch {record['versions']['torch']}."
    )


def updated(readme: str, results: Path = RESULTS) -> str:
    """README's text with its tables made from the JSON in the folder `results`."""
    accuracy = json.loads((results / "accuracy.json").read_text(encoding="utf-8"))
    path = results / "speed.json"
    speed = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    section = results_section(accuracy, speed)
    return MARKED.sub(lambda match: match[1] + section + match[2], readme)


@click.command()
@click.option("--check", is_flag=True, help="Only fail if README.md is not up to date.")
def main(check: bool) -> None:
    path = ROOT / "README.md"
    old = path.read_text(encoding="utf-8")
    new = updated(old)
    if check and new != old:
        raise click.ClickException("README.md is out of date; run python tools/update_readme.py")
    path.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
