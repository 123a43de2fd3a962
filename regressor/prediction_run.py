"""One run of `fit-cli predict`: pictures in, fits table, overlays and `run.json` out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fitting import __version__
from fitting.body import Body, load_body
from fitting.camera import project_points
from fitting.clock import StageClock
from fitting.files import InputError, prepare_output, write_json
from fitting.keypoint_body import KeypointBody
from fitting.keypoints import map_keypoints
from fitting.metrics import mean_over_seen, reprojection_error
from fitting.offline import choose_device
from fitting.people import People, Problem
from fitting.problem import PARAMETERS, Status
from fitting.run import RunSummary, draw_overlays, people_columns, plain
from fitting.skeleton import keypoint_set
from fitting.sources import Found, Progress, SourceConfig, check_exists, find_people
from fitting.table import FitsTable, build_fits, replace_fits
from fitting.versions import find_versions

from .predict import BATCH_SIZE, Predicted, load_predictor

PREDICTED, NO_PICTURE = "predicted", "no_picture"
"""What the column `status` says of people besides `Status`: all went well, or no one saw them."""

_STAGES = ("load", "detect", "predict", "write")
_CHUNK = 1024  # people projected at once


@dataclass(frozen=True, kw_only=True)
class PredictConfig(SourceConfig):
    """What `fit-cli predict` is asked to do, besides where people come from.

    Attributes:
        output: folder for the results.
        checkpoint: of the network (`predict.load_predictor`).
        body: SMPL-format file; none means the bundled body.
        focal: pixels, for everyone; none means each row's own, or else the picture's diagonal.
        device: "auto", "cpu" or "cuda".
        batch_size: people that the network sees at a time.
        jobs: pictures read, and drawn, at a time; -1 means as many as there are cores.
        overlays: draw each person over its picture.
        limit: predict the first so many people only.
        overwrite: replace an earlier run in `output`.
    """

    output: Path
    checkpoint: Path
    body: Path | None = None
    focal: float | None = None
    device: str = "auto"
    batch_size: int = BATCH_SIZE
    jobs: int = -1
    overlays: bool = True
    limit: int | None = None
    overwrite: bool = False


def run_prediction(
    config: PredictConfig, progress: Progress = lambda stage, done, total: None
) -> RunSummary:
    """Predict the people of `config.input` and write everything to `config.output`.

    Raises:
        ValueError, OSError: nothing could be done; the message is one sentence with the fix.
    """
    check_exists(config.input)
    clock = StageClock(dict.fromkeys(_STAGES, 0.0))
    with clock.time("load"):
        body = load_body(config.body).to(choose_device(config.device))
        predictor = load_predictor(
            config.checkpoint, body, batch_size=config.batch_size, jobs=config.jobs
        )
    output = prepare_output(config.output, overwrite=config.overwrite)
    found = find_people(config, clock, progress)
    found = replace(found, people=found.people.select(slice(config.limit)))
    with clock.time("predict"):
        predicted, problems = predictor.predict_people(
            found.people,
            _images_of(found, config),
            focal=config.focal,
            progress=lambda done: progress("predict", done, len(found.people)),
        )
    found = found.with_problems(problems)
    with clock.time("write"):
        metadata = _metadata(config, body)
        table = make_table(found.people, predicted, body.to("cpu"), found.problems, metadata)
        replace_fits(output, table)
        images = found.images if config.overlays else None
        draw_overlays(table, body, images, output, config.jobs, progress)
    record = _record(config, found, table, clock)
    write_json(output / "run.json", record)
    return RunSummary(table=table, problems=found.problems, record=record)


def _images_of(found: Found, config: PredictConfig) -> Path:
    if found.images is None:
        raise InputError(
            f"{config.checkpoint} sees pictures; give the folder of those that {config.input} "
            "names with --images"
        )
    return found.images


def make_table(
    people: People,
    predicted: Predicted,
    body: Body,
    problems: list[Problem],
    metadata: Mapping[str, str],
) -> FitsTable:
    """The fits table (docs/conventions.md) of N people and what was predicted of them.

    Args:
        people: N rows.
        predicted: of the N.
        body: of the predictions, on the CPU.
        problems: with the names of the pictures that cannot be read.
        metadata: of the file.
    """
    N = len(people)
    columns = {
        **people_columns(people, predicted.params, predicted.intrinsics),
        "reprojection_error_px": _reprojection_error(people, predicted, body),
        "cost_initial": np.full(N, np.nan),
        "cost_final": np.full(N, np.nan),
        "num_steps": np.zeros(N, dtype=np.int32),
        "status": _statuses(people, predicted, problems),
        "init": np.full(N, "network"),
    }
    return build_fits(columns, metadata)


def _statuses(people: People, predicted: Predicted, problems: list[Problem]) -> np.ndarray:
    """(N,) str, how each prediction ended."""
    unreadable = [problem.file for problem in problems if problem.row is None]
    statuses = np.full(len(people), Status.DIVERGED.label, dtype="<U20")
    statuses[(people.image == "") | np.isin(people.image, unreadable)] = NO_PICTURE
    statuses[predicted.crop.isnan().any(dim=1).numpy()] = Status.NO_KEYPOINTS.label
    statuses[~predicted.params.betas.isnan().any(dim=1).numpy()] = PREDICTED
    return statuses


@torch.no_grad()
def _reprojection_error(people: People, predicted: Predicted, body: Body) -> np.ndarray:
    """(N,) pixels, mean over the keypoints seen that the body has; NaN for none."""
    keypoint_body = KeypointBody(body, map_keypoints(body, keypoint_set(people.keypoint_set)))
    errors = np.full(len(people), np.nan)
    for rows in torch.arange(len(people)).split(_CHUNK):
        params = predicted.params.select(rows)
        points = keypoint_body(*(getattr(params, name) for name in PARAMETERS))
        pixels, _ = project_points(points, predicted.intrinsics[rows])
        there = people.select(rows.numpy())
        conf = there.conf * keypoint_body.defined.numpy()
        distances = reprojection_error(pixels.numpy(), there.keypoints_2d)
        errors[rows.numpy()] = mean_over_seen(distances, conf)
    return errors


def _metadata(config: PredictConfig, body: Body) -> dict[str, str]:
    return {
        "body_sha256": body.sha256,
        "config": json.dumps(plain(config)),
        "version": __version__,
    }


def _record(
    config: PredictConfig, found: Found, table: FitsTable, clock: StageClock
) -> dict[str, Any]:
    """Content of run.json."""
    statuses = Counter(table.column_array("status").tolist())
    seconds = clock.seconds["predict"]
    return {
        "command": plain(config),
        "versions": find_versions(),
        "counts": {
            "people": len(table),
            "predicted": statuses[PREDICTED],
            "status": dict(statuses),
            "pictures_without_people": len(found.empty),
            "problems": len(found.problems),
        },
        "seconds": {stage: round(value, 3) for stage, value in clock.seconds.items()},
        "people_per_second": round(statuses[PREDICTED] / seconds, 3) if seconds > 0 else None,
        "pictures_without_people": found.empty,
        "problems": [asdict(problem) for problem in found.problems],
    }
