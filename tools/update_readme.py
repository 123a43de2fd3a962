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
ACCURACY = ROOT / "benchmarks" / "results" / "accuracy.json"
MARKED = re.compile(r"(<!-- results -->\n).*?(<!-- /results -->)", re.DOTALL)

NOISE = {
    "true": "true keypoints",
    "2px": "σ = 2 px, 10 % missing, 3 % wrong",
    "4px": "σ = 4 px, 10 % missing, 3 % wrong",
}


def accuracy_table(record: dict[str, Any]) -> str:
    """Markdown of one run of benchmarks/accuracy.py."""
    machine = record["machine"]
    lines = [
        f"3D error in mm over {record['people']} people: poses of motion-capture subjects held out "
        "of the prior, random bodies and cameras, COCO's 17 keypoints, noise for a person 200 px "
        "tall. MPJPE and PA-MPJPE over LSP's 14 joints; px: mean reprojection error for people "
        f"{record['mean_person_px']:.0f} px tall.",
        "",
        "| solver | start | keypoints | MPJPE | PA-MPJPE | PVE | px | people/s |",
        "|---|---|---|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| `{r['solver']}` | {r['start']} | {NOISE[r['noise']]} | {r['mpjpe']:.0f} "
        f"| {r['pa_mpjpe']:.0f} | {r['pve']:.0f} | {r['reprojection_px']:.1f} "
        f"| {r['people_per_second']:.2g} |"
        for r in record["results"]
    ]
    lines += [
        "",
        f"`{record['command']}`, {record['date'][:10]}, {machine['cores']} cores of "
        f"{machine['processor']}, torch {record['versions']['torch']}, seed {record['seed']}.",
    ]
    return "\n".join(lines) + "\n"


def updated(readme: str) -> str:
    """README's text with its tables made from the results."""
    table = accuracy_table(json.loads(ACCURACY.read_text(encoding="utf-8")))
    return MARKED.sub(lambda match: match[1] + table + match[2], readme)


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
