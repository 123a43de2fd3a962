"""The closing summary of a run that leaves a fits table: `fit` and `predict`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .comfort import Outcome, counted, listed, number

if TYPE_CHECKING:
    from fitting.people import Problem

_WORDS = {  # of statuses, for people
    "converged": "converged",
    "max_steps": "at the limit of steps",
    "predicted": "predicted",
    "no_keypoints": "without keypoints",
    "diverged": "diverged",
    "no_picture": "without a picture",
}
_NOT_FITTED = ("no_keypoints", "diverged", "no_picture")


def conclude_run(
    output: Path,
    record: Mapping[str, Any],
    problems: Sequence[Problem],
    *,
    verb: str,
    report: bool,
) -> Outcome:
    """What a run came to.

    Args:
        output: folder of the run.
        record: content of its run.json.
        problems: rows and pictures left out.
        verb: what was done to people, a key of `record["counts"]`.
        report: whether there is a page of this run; one of an earlier run is not its.
    """
    counts = record["counts"]
    people, done = counts["people"], counts[verb]
    rate = record.get("fits_per_second", record.get("people_per_second"))
    speed = f" at {number(rate, 2)} people per second" if rate else ""
    drawn = {"overlays": record["command"]["overlays"], "report": report}
    error_px, files = median_error_px(output), _find_files(output, drawn)
    facts = _describe(counts, error_px, record["seconds"])
    for label, path in files.items():
        facts[label] = f"{path}/" if path.is_dir() else str(path)
    return Outcome(
        headline=f"{done} of {people} people {verb}{speed} -> {output}",
        facts=facts,
        record={
            "output": str(output),
            "files": {label: str(path) for label, path in files.items()},
            "counts": counts,
            "median_error_px": error_px,
            "people_per_second": rate,
            "seconds": record["seconds"],
        },
        problems=problems,
        named_in=str(output / "run.json"),
    )


def median_error_px(output: Path) -> float | None:
    """Median over the people of a run of their mean reprojection error; none if nobody has one."""
    import numpy as np
    import pyarrow.parquet as pq

    from fitting.table import table_files

    name = "reprojection_error_px"  # of all columns only this one: a run may be of millions
    parts = [
        pq.ParquetFile(file).read(columns=[name])[name].drop_null().to_numpy()
        for file in table_files(output)
    ]
    errors = np.concatenate(parts)
    return round(float(np.median(errors)), 3) if len(errors) else None


def _describe(
    counts: Mapping[str, Any], error_px: float | None, seconds: Mapping[str, float]
) -> dict[str, str]:
    """Lines on how it went."""
    status: Mapping[str, int] = counts["status"]
    lines = {
        "fits": _in_words({s: n for s, n in status.items() if s not in _NOT_FITTED}),
        "no fit": _in_words({s: n for s, n in status.items() if s in _NOT_FITTED}),
        "empty": "",
        "median": "" if error_px is None else f"{number(error_px)} px from the keypoints",
        "seconds": listed(seconds),
    }
    if counts.get("without_estimate"):
        lines["started"] = f"{number(counts['without_estimate'])} without a given estimate"
    if counts["pictures_without_people"]:
        lines["empty"] = f"{counted(counts['pictures_without_people'], 'picture')} without people"
    return {label: text for label, text in lines.items() if text}


def _in_words(status: Mapping[str, int]) -> str:
    return ", ".join(f"{number(n)} {_WORDS.get(s, s)}" for s, n in status.items() if n)


def _find_files(output: Path, drawn: Mapping[str, bool]) -> dict[str, Path]:
    """What a run left, by what it is; of what not every run draws only what this one drew."""
    paths = {
        "table": output / "fits.parquet",
        "parts": output / "fits",
        "record": output / "run.json",
        "overlays": output / "overlays",
        "report": output / "report.html",
    }
    return {
        label: path for label, path in paths.items() if drawn.get(label, True) and path.exists()
    }
