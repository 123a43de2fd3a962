"""Write the results on README.md and pages of docs/ from the committed JSON of the benchmarks.

python tools/update_readme.py [--check]
"""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
_DOCS = ("fitting", "lifter", "loop", "pose2mesh", "regressors")
PAGES = (ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in _DOCS))
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


def lifter_table(accuracy: Record) -> str:
    """Markdown of the lifter alone and of fits that begin at its estimates, by kind of motion."""
    results = [r for r in accuracy["results"] if r["start"] == "lift"]
    lines = [f"| | {' | '.join(NOISE.values())} |", "|---|--:|--:|--:|"]
    for motion in results[0]["families"]:
        for stage, solver in (("lifter", "start"), ("fit", "lm")):
            by_noise = {r["noise"]: r for r in results if r["solver"] == solver}
            cells = [_errors(_of_motion(by_noise.get(noise), motion)) for noise in NOISE]
            lines.append(f"| {motion}, {stage} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", _source(accuracy)]) + "\n"


_NETWORKS = {"lift": "lifter", "pose2mesh": "Pose2Mesh"}


def networks_table(accuracy: Record) -> str:
    """Markdown of the networks alone in a run of benchmarks/accuracy.py --pose2mesh."""
    lines = [
        f"| network | motion | {' | '.join(NOISE.values())} | weights | file | training |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    families = list(accuracy["networks"][0]["results"][0]["families"])
    for motion in (None, *families):
        for record in accuracy["networks"]:
            cells = [_NETWORKS[record["network"]], motion or "all"]
            by_noise = {r["noise"]: _of_motion(r, motion) for r in record["results"]}
            cells += [_three_errors(by_noise.get(noise)) for noise in NOISE]
            cells += _cost(record) if motion is None else [""] * 3
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", _source(accuracy)]) + "\n"


def _of_motion(result: Record | None, motion: str | None) -> Record | None:
    """The errors of one family of motion, or of everyone."""
    return result if motion is None or result is None else result["families"][motion]


def _three_errors(result: Record | None) -> str:
    return MISSING if result is None else f"{_errors(result)} / {result['pve']:.0f}"


def _cost(network: Record) -> list[str]:
    seconds = network["training_seconds"]
    return [
        f"{network['parameters'] / 1e6:.1f} million",
        f"{network['megabytes']:.0f} MB",
        MISSING if seconds is None else f"{seconds / 60:.0f} min",
    ]


_TEST_SETS = ("clear", "occluded")


def regressors_table(regressors: Record, accuracy: Record | None) -> str:
    """Markdown of a run of benchmarks/regressors.py, with the networks of accuracy.json."""
    runs: dict[str, list[Record]] = {}
    for record in regressors["runs"]:
        runs.setdefault(record["run"], []).append(record)
    lines = [
        "| run | | trained weights | steps | nothing in front | something in front |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for name, records in runs.items():
        weights = f"{records[0]['trained_weights'] / 1e6:.1f} million"
        steps = " and ".join(str(record["steps"]) for record in records)
        errors = [_mean_errors(records, on) for on in _TEST_SETS]
        lines.append(
            f"| `{name}` | {records[0]['what']} | {weights} | {steps} | {' | '.join(errors)} |"
        )
    lines += ["", *_findings(regressors["comparisons"], accuracy)]
    if (best := regressors["best"]) is not None:
        lines += ["", _best_sentence(best)]
    return "\n".join([*lines, "", _source(regressors)]) + "\n"


def _best_sentence(best: Record) -> str:
    baseline = f"`{best['baseline']}` with PA-MPJPE {best['baseline_pa_mpjpe_mm']:.1f} mm"
    if best["run"] == best["baseline"]:
        return f"No run is better than {baseline}."
    return (
        f"The best is `{best['run']}`: PA-MPJPE {best['pa_mpjpe_mm']:.1f} mm, "
        f"{best['lower_by']:.0%} less than {baseline}."
    )


def _mean_errors(records: list[Record], on: str) -> str:
    """MPJPE / PA-MPJPE / PVE, means over seeds, mm."""
    measures = ("mpjpe_mm", "pa_mpjpe_mm", "pve_mm")
    return " / ".join(
        f"{sum(r['errors'][on][m] for r in records) / len(records):.0f}" for m in measures
    )


def _findings(comparisons: list[Record], accuracy: Record | None) -> list[str]:
    """What was said, and whether it is seen."""
    lines = ["| said | by | PA-MPJPE, mm | by seed | seen here |", "|---|---|--:|--:|---|"]
    for claim in comparisons:
        errors = f"{claim['worse_pa_mpjpe_mm']:.1f} → {claim['better_pa_mpjpe_mm']:.1f}"
        seeds = ", ".join(f"{difference:+.1f}" for difference in claim["differences_mm"])
        seen = "yes" if claim["seen"] else "**no**"
        lines.append(f"| {claim['claim']} | {claim['source']} | {errors} | {seeds} | {seen} |")
    if accuracy is not None and "networks" in accuracy:
        lifter, mesh = (
            {r["noise"]: r["pa_mpjpe"] for r in network["results"]}["2px"]
            for network in sorted(accuracy["networks"], key=lambda n: n["network"])
        )
        lines.append(
            "| from keypoints, a mesh network is better than a lifter of parameters | Choi et al., "
            f"ECCV 2020 | {lifter:.1f} → {mesh:.1f} | | {'yes' if mesh < lifter else '**no**'} |"
        )
    return lines


def loop_gain_table(gain: Record) -> str:
    """Markdown of a run of benchmarks/loop_gain.py."""
    by_name: dict[str, list[Record]] = {}
    for run in gain["runs"]:
        by_name.setdefault(run["variant"], []).append(run)
    lines = [
        "| learns from | PA-MPJPE | MPJPE | PVE | its labels at the end, PA-MPJPE |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, runs in by_name.items():
        measured = [_mean_and_range(runs, f"{m}_mm") for m in ("pa_mpjpe", "mpjpe", "pve")]
        labels = _labels_error(name, runs, gain["static_fits"])
        lines.append(f"| {runs[0]['what']} | {' | '.join(measured)} | {labels} |")
    return "\n".join([*lines, "", _source(gain)]) + "\n"


def _mean_and_range(runs: list[Record], name: str) -> str:
    values = [run[name] for run in runs]
    spread = f" ± {(max(values) - min(values)) / 2:.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{spread}"


def _labels_error(variant: str, runs: list[Record], static_fits: Record) -> str:
    """PA-MPJPE of what a variant of loop_gain.py learned from, in the end."""
    if "fits" in runs[0]:
        return f"{statistics.fmean(run['fits']['pa_mpjpe_mm'] for run in runs):.1f}"
    start = variant.removeprefix("static_")
    return f"{static_fits[start]['pa_mpjpe_mm']:.1f}" if start in static_fits else ""


def loop_photos_table(photos: Record) -> str:
    """Markdown of a run of benchmarks/loop_photos.py."""
    lines = ["| learns from | PCK@0.2 | energy |", "|---|--:|--:|"]
    for name, pck in photos["mean_pck_02"].items():
        runs = [run for run in photos["runs"] if run["variant"] == name]
        energy = statistics.fmean(run["pose_energy"] for run in runs)
        lines.append(f"| {runs[0]['what']} | {pck:.0%} | {energy:,.0f} |")
    return "\n".join([*lines, "", _source(photos)]) + "\n"


_LOOP_TABLES = {
    "loop_gain": loop_gain_table,
    "loop_gain_long": loop_gain_table,
    "loop_photos": loop_photos_table,
    "loop_photos_tuned": loop_photos_table,
}


def _load(name: str, results: Path) -> Record | None:
    path = results / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def updated(page: str, results: Path = RESULTS) -> str:
    """A page's text with its marked sections made from the JSON in the folder `results`."""
    names = ("accuracy", "speed", "video", "calibration", "regressors")
    accuracy, speed, video, calibration, regressors = (_load(n, results) for n in names)
    sections: dict[str, str] = {}
    if accuracy is not None:
        sections["results"] = results_section(accuracy, speed)
        sections["lifter table"] = lifter_table(accuracy)
        if "networks" in accuracy:
            sections["networks table"] = networks_table(accuracy)
    if video is not None:
        sections |= {"video": video_sentence(video), "video table": video_table(video)}
    if calibration is not None:
        sections["calibration table"] = calibration_table(calibration)
    if regressors is not None:
        sections["regressors table"] = regressors_table(regressors, accuracy)
    for name, make_table in _LOOP_TABLES.items():
        record = _load(name, results)
        if record is not None:
            sections[f"{name.replace('_', ' ')} table"] = make_table(record)
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
