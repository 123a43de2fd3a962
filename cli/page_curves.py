"""What a training run logged, as the charts of its page: a few hundred points of each curve."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .page_file import short

MAX_POINTS = 800  # of a curve; a screen has not many more pixels across
MAX_CURVES = 60  # of a chart
DIGITS = 5  # significant ones of the values
_LARGEST = 1e300  # beyond it a number is a fault of its file
_SPEEDS = 200  # points of the curve of steps per second, each a mean since the one before

Series = tuple[NDArray[np.int64], NDArray[np.float64]]
"""Steps, rising, and values."""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Curves that share a scale.

    Attributes:
        name: of the chart, unique on a page.
        curves: name -> steps and values, at most `MAX_POINTS` of them.
        unit: of the values, "" for none, "%" for shares.
        log: whether the scale is logarithmic to begin with.
    """

    name: str
    curves: Mapping[str, Series]
    unit: str = ""
    log: bool = False

    @property
    def plain(self) -> dict[str, Any]:
        """As JSON can hold it."""
        curves = [
            {
                "name": name,
                "steps": steps.tolist(),
                "values": [short(value, DIGITS) for value in values.tolist()],
            }
            for name, (steps, values) in self.curves.items()
        ]
        return {"name": self.name, "unit": self.unit, "log": self.log, "curves": curves}


@dataclass(frozen=True, kw_only=True)
class TrainingLog:
    """What metrics.jsonl and times.jsonl of a run say, as far as they can be read.

    Attributes:
        series: kind ("losses", "metrics", "files" or "lr") and name -> values that are finite.
        seconds: of training by the steps at which lines were written.
        num_bad: lines that cannot be read, such as the last one of a killed run.
    """

    series: Mapping[tuple[str, str], Series]
    seconds: Series
    num_bad: int

    def of_kind(self, kind: str) -> dict[str, Series]:
        """Name -> values."""
        return {name: series for (k, name), series in self.series.items() if k == kind}

    @property
    def last_step(self) -> int:
        """The last one that was logged; 0 for none."""
        return max((int(steps[-1]) for steps, _ in self.series.values()), default=0)


def read_log(metrics: Path, times: Path) -> TrainingLog:
    """Read the log of a run; files that are missing, damaged or cut short cost what is lost."""
    lines, num_bad = _read_lines(metrics)
    found: dict[tuple[str, str], dict[int, float]] = {}
    for line in lines:
        for kind, name, value in _numbers(line):
            found.setdefault((kind, name), {})[line["step"]] = value
    read, _ = _read_lines(times)
    seconds = {t["step"]: t["seconds"] for t in read if _is_number(t.get("seconds"))}
    return TrainingLog(
        series={key: _as_series(points) for key, points in found.items()},
        seconds=_as_series(seconds),
        num_bad=num_bad,
    )


def collect_charts(log: TrainingLog) -> list[Chart]:
    """Losses, errors of people held out, learning rate and speed; those that there are."""
    losses, metrics = log.of_kind("losses"), log.of_kind("metrics")
    total = {"loss": losses.pop("loss")} if "loss" in losses else {}
    in_mm = {n.removesuffix("_mm"): s for n, s in metrics.items() if n.endswith("_mm")}
    likewise = {name: s for name, s in metrics.items() if name in losses}
    others = {n: s for n, s in metrics.items() if not n.endswith("_mm") and n not in losses}
    return [
        chart
        for chart in (
            _chart("Loss", total, log=True),
            _chart("Error of people held out", in_mm, unit="mm"),
            _chart("Parts of the loss, unweighted", losses, log=True),
            _chart("The same of people held out", likewise, log=True),
            *(_chart(name, {name: series}) for name, series in others.items()),
            _chart("Learning rate", log.of_kind("lr")),
            _chart("Steps per second", {"steps per second": speeds_of(log.seconds)}),
        )
        if chart is not None
    ]


def collect_store_charts(log: TrainingLog) -> list[Chart]:
    """What the log says of the store of fits."""
    files = log.of_kind("files")
    # What no fit ever came from is no curve.
    origins = ("static", "regressor", "loop")
    shares = {name: s for name, s in files.items() if name in origins and s[1].any()}
    return [
        chart
        for chart in (
            _chart("Where the fits come from", shares, unit="%"),
            _chart("Offered fits that were better", _pick(files, "improved"), unit="%"),
            _chart("People with a fit", _pick(files, "filled"), unit="%"),
            _chart("Mean cost of the fits", _pick(files, "cost")),
        )
        if chart is not None
    ]


def thin(series: Series, limit: int = MAX_POINTS) -> Series:
    """At most so many points of a curve, its peaks among them.

    Of each of limit / 2 stretches the lowest and the highest point stay, as drawn one over the
    other they would look.
    """
    steps, values = series
    if len(steps) <= limit:
        return series
    edges = np.linspace(0, len(steps), limit // 2 + 1).astype(int)
    kept = {
        int(start + pick(values[start:stop]))
        for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
        for pick in (np.argmin, np.argmax)
    }
    index = np.array(sorted(kept))
    # The ends are what readers look for.
    index[0], index[-1] = 0, len(steps) - 1
    return steps[index], values[index]


def speeds_of(seconds: Series) -> Series:
    """Steps per second between lines of the log, at the later one's step."""
    steps, elapsed = seconds
    index = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), _SPEEDS + 1)).astype(int))
    steps, elapsed = np.append(0, steps[index]), np.append(0, elapsed[index])
    spent = np.diff(elapsed)
    is_sound = spent > 0
    return steps[1:][is_sound], np.diff(steps)[is_sound] / spent[is_sound]


def _chart(
    name: str, curves: Mapping[str, Series], *, unit: str = "", log: bool = False
) -> Chart | None:
    """A chart; None without curves."""
    kept = {n: thin(s) for n, s in list(curves.items())[:MAX_CURVES] if len(s[0])}
    if not kept:
        return None
    if log:
        log = all((values > 0).all() for _, values in kept.values())
    return Chart(name=name, curves=kept, unit=unit, log=log)


def _pick(series: Mapping[str, Series], name: str) -> dict[str, Series]:
    return {name: series[name]} if name in series else {}


def _as_series(points: Mapping[int, float]) -> Series:
    steps = sorted(points)
    return np.array(steps, np.int64), np.array([points[step] for step in steps], np.float64)


def _numbers(line: Mapping[str, Any]) -> Iterator[tuple[str, str, float]]:
    """Kind, name and value of all numbers of a line."""
    if _is_number(line.get("lr")):
        yield "lr", "learning rate", line["lr"]
    for kind in ("losses", "metrics", "files"):
        named = line.get(kind)
        if isinstance(named, Mapping):
            yield from ((kind, name, value) for name, value in named.items() if _is_number(value))


def _is_number(value: Any) -> bool:
    is_real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_real and abs(value) < _LARGEST


def _read_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Lines with a step, and how many there are that are none."""
    try:
        text = path.read_bytes().decode("utf-8", errors="replace")
    except OSError:
        return [], 0
    lines = text.splitlines()
    read = list(_parse(lines))
    return read, len(lines) - len(read)


def _parse(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for text in lines:
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict) and type(line.get("step")) is int and abs(line["step"]) < 2**53:
            yield line
