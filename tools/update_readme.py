"""Write the results of README.md and docs/fitting.md from the committed JSON of the benchmarks.

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
PAGES = (ROOT / "README.md", ROOT / "docs" / "fitting.md")
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


def video_sentence(video: Record) -> str:
    """What fitting pictures together gains at the highest noise."""
    found = {(r["start"], r["method"]): r for r in video["results"] if r["noise"] == "4px"}

    def change(start: str, key: str) -> str:
        return " to ".join(f"{found[start, method][key]:.0f}" for method in ("alone", "video"))

    return (
        f"On {video['sequences']} held-out motions with keypoints 4 px off MPJPE falls from "
        f"{change('lift', 'mpjpe')} mm (from the mean pose from {change('mean', 'mpjpe')}), and "
        f"the error of accelerations from {change('lift', 'acceleration_m_s2')} m/s².\n"
    )


def video_table(video: Record) -> str:
    """Markdown of one run of benchmarks/video.py."""
    lines = [
        "| keypoints | start | | MPJPE | PA-MPJPE | over 150 mm | acceleration, m/s² | "
        "within 1σ, 2σ | pictures/s |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for r in video["results"]:
        cells = (
            r["noise"],
            r["start"],
            r["method"],
            f"{r['mpjpe']:.0f}",
            f"{r['pa_mpjpe']:.0f}",
            f"{r['outliers']:.0%}",
            f"{r['acceleration_m_s2']:.1f}",
            f"{r['within_1_sigma']:.0%}, {r['within_2_sigma']:.0%}",
            f"{r['pictures_per_second']:.0f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", _source(video)]) + "\n"


_CALIBRATED = {
    "lift": "the lifter",
    "regressor": "`--init`, an estimate 0.08 rad off",
    "mean": "mean pose, 2 starts",
    "modes": "18 starts",
}


def calibration_table(calibration: Record) -> str:
    """Markdown of one run of benchmarks/calibration.py."""
    lines = [
        "| start | keypoints | within 1σ (68 %) | within 2σ (95 %) | in depth | predicted mm | "
        "actual mm |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for r in calibration["results"]:
        cells = (
            _CALIBRATED[r["start"]],
            r["noise"],
            f"{r['within_1_sigma']:.0%}",
            f"{r['within_2_sigma']:.0%}",
            f"{r['within_1_sigma_depth']:.0%}, {r['within_2_sigma_depth']:.0%}",
            f"{r['predicted_mm']:.0f}",
            f"{r['actual_mm']:.0f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", _source(calibration)]) + "\n"


def _load(name: str, results: Path) -> Record | None:
    path = results / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def updated(page: str, results: Path = RESULTS) -> str:
    """A page's text with its marked sections made from the JSON in the folder `results`."""
    names = ("accuracy", "speed", "video", "calibration")
    accuracy, speed, video, calibration = (_load(name, results) for name in names)
    sections: dict[str, str] = {}
    if accuracy is not None:
        sections["results"] = results_section(accuracy, speed)
    if video is not None:
        sections |= {"video": video_sentence(video), "video table": video_table(video)}
    if calibration is not None:
        sections["calibration table"] = calibration_table(calibration)
    for name, section in sections.items():
        marked = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        page = marked.sub(lambda match, text=section: match[1] + text + match[2], page)
    return page


@click.command()
@click.option("--check", is_flag=True, help="Only fail if a page is not up to date.")
def main(check: bool) -> None:
    for path in PAGES:
        old = path.read_text(encoding="utf-8")
        new = updated(old)
        if check and new != old:
            raise click.ClickException(f"{path} is out of date; run python tools/update_readme.py")
        path.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
