"""Collects what the page of a training run shows from the run's folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fitting.body import Body
    from regressor.snapshot_files import Album

    from .page_body import PageBody
    from .page_curves import TrainingLog
    from .page_training import TrainingPage

MAX_SETTINGS = 100_000  # characters of a config that are shown


def is_training(output: Path) -> bool:
    """Whether a folder is of `fit-cli train`: all its runs have a log from the first step on."""
    from regressor.run_log import METRICS_NAME

    return (output / METRICS_NAME).is_file()


def training_page(output: Path, *, mesh: bool) -> TrainingPage:
    """The page of the run in a folder, whatever of it can be read.

    Args:
        output: folder of the run, which may still be training, or have been killed.
        mesh: put the body that it learned into the page.
    """
    from regressor.run_log import METRICS_NAME, TIMES_NAME
    from regressor.snapshot_files import read_album

    from .page_album import MAX_SNAPSHOTS, collect_album
    from .page_curves import collect_charts, collect_store_charts, read_log
    from .page_store import collect_store
    from .page_training import TrainingPage

    log = read_log(output / METRICS_NAME, output / TIMES_NAME)
    record, settings = _read_record(output), _read_settings(output)
    notes = []
    if log.num_bad:
        notes.append(
            f"{METRICS_NAME} has {log.num_bad} lines that cannot be read, as a killed run may "
            "leave one; the curves go without them."
        )
    album = read_album(output, limit=MAX_SNAPSHOTS)
    body = packed = None
    if album is not None:
        body, packed, note = _find_body(album, settings, mesh=mesh)
        notes += [note] * bool(note)
    return TrainingPage(
        title=f"Training of {output.resolve().name}",
        summary=_summarize(record, settings, log),
        charts=collect_charts(log),
        store_charts=collect_store_charts(log),
        store=collect_store(output),
        album=None if album is None else collect_album(album, body),
        body=packed,
        settings=settings[:MAX_SETTINGS],
        notes=notes,
    )


def _read_record(output: Path) -> dict[str, Any]:
    """run.json; empty if it is missing or damaged."""
    from regressor.run_log import RECORD_NAME

    try:
        record = json.loads((output / RECORD_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _read_settings(output: Path) -> str:
    """Text of the config; "" if it is missing."""
    from regressor.training import CONFIG_NAME

    try:
        return (output / CONFIG_NAME).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _section(settings: str, name: str) -> dict[str, Any]:
    """A section of a config; empty if it has none, or is damaged."""
    import yaml

    try:
        found = yaml.safe_load(settings)[name]
    except (yaml.YAMLError, KeyError, TypeError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _summarize(record: dict[str, Any], settings: str, log: TrainingLog) -> dict[str, str]:
    """The run in a few numbers, those that are known."""
    steps, planned = record.get("steps"), _section(settings, "training").get("steps")
    steps = max(log.last_step, steps if isinstance(steps, int) else 0)
    summary = {}
    if isinstance(record.get("task"), str):
        summary["task"] = record["task"]
    summary["steps"] = f"{steps:,}" + (f" of {planned:,}" if isinstance(planned, int) else "")
    if isinstance(record.get("ended"), str):
        # Whoever is killed cannot say so.
        summary["state"] = record["ended"].replace("running", "not finished")
    match record.get("best"):
        case {"value": float(value), "step": int(step)}:
            name = _name_of_best(value, step, log)
            summary[f"best{name}, at step {step:,}"] = f"{value:.4g}"
    if len(log.seconds[1]):
        summary["training time"] = _duration(float(log.seconds[1][-1]))
    rate = record.get("steps_per_second")
    if isinstance(rate, (int, float)):
        summary["steps per second"] = f"{rate:.3g}"
    return summary


def _name_of_best(value: float, step: int, log: TrainingLog) -> str:
    """Name of the metric that was best, with a space before it; "" if it is not in the log."""
    for name, (steps, values) in log.of_kind("metrics").items():
        if value in values[steps == step]:
            return f" {name.replace('_', ' ')}"
    return ""


def _duration(seconds: float) -> str:
    """Such as "2 h 5 min"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _find_body(
    album: Album, settings: str, *, mesh: bool
) -> tuple[Body | None, PageBody | None, str]:
    """The body that snapshots are of, as the page holds it if it shall, and what to say of it."""
    from fitting.body import load_body
    from fitting.files import InputError
    from fitting.skeleton import keypoint_set

    from .page_body import licence_note, pack_body

    path = _section(settings, "data").get("body") or None
    try:
        body = load_body(Path(str(path)) if path else None)
        if body.sha256 != album.body_sha256:
            raise InputError(f"the run learned another body than {body.path}")
    except ValueError as error:
        return None, None, f"Bodies are not shown: {error}."
    if not mesh:
        return body, None, ""
    packed = pack_body(body, keypoint_set("smpl24"))
    return body, packed, "" if path is None else licence_note(Path(str(path)))
