"""Folders of drawn pictures with their truth: `fit-cli synth`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, cpu_count, delayed

from fitting import __version__
from fitting.body import Body, load_body
from fitting.files import InputError, prepare_output, write_atomically, write_json
from fitting.skeleton import keypoint_set
from fitting.table import PARAMETERS, build_truth, write_fits
from fitting.versions import find_versions
from fitting.writers import coco_category

from .rendered_batches import IMAGES, MASKS, BatchFolder, PictureRow, SetConfig, check_same
from .rendering import UNSEEN, RenderedPerson

__all__ = ["IMAGES", "KEYPOINTS_FILE", "MASKS", "TRUTH_FILE", "SetConfig", "write_rendered_set"]

KEYPOINTS_FILE, TRUTH_FILE = "person_keypoints.json", "truth.parquet"
_RECORD = "run.json"

Progress = Callable[[str, int, int], object]


def write_rendered_set(
    folder: Path | str,
    config: SetConfig,
    *,
    overwrite: bool = False,
    resume: bool = False,
    problems: Sequence[str] = (),
    progress: Progress = lambda stage, done, total: None,
) -> dict[str, Any]:
    """Draw pictures into a folder with their truth.

    Writes `images/`, `masks/` (PNG: `RenderedPicture.parts`), `person_keypoints.json` (COCO),
    `truth.parquet` (a fits table, rows as in the JSON) and, last, `run.json`. All but `run.json`
    are the same bytes for the same configuration, whatever `jobs`, and however often the run was
    killed and resumed; picture i does not depend on the number of pictures.

    Args:
        folder: created where absent.
        config: what to write.
        overwrite: accept a folder that holds files; they are replaced one by one.
        resume: go on with the run in the folder, or begin it where there is none.
        problems: sentences for `run.json` on backgrounds left out.
        progress: called with "synth", pictures just written or found, and their number.

    Returns:
        The content of `run.json`.

    Raises:
        ValueError: the body is no good, or no pose is of the split.
        InputError: the folder holds something else than the run to resume.
        OutputError: a file cannot be written.
    """
    started = time.perf_counter()
    folder = prepare_output(folder, overwrite=overwrite or resume)
    batches = BatchFolder(folder, config)
    if resume and not batches.is_begun() and (folder / _RECORD).exists():
        return _read_finished(folder, config)
    body = load_body(config.body)
    found = _begin(batches, body, resume=resume)
    _draw_missing(batches, found, progress)
    drawn = time.perf_counter()
    rows = list(batches.rows())
    _write_coco(folder / KEYPOINTS_FILE, rows, config)
    _write_truth(folder / TRUTH_FILE, rows, config, body)
    record = _describe(
        rows,
        config,
        resumed_at=batches.count(found) if resume else None,
        seconds={"draw": drawn - started, "write": time.perf_counter() - drawn},
    )
    record["problems"] = list(problems)
    write_json(folder / _RECORD, record)
    batches.finish()
    return record


def _describe(
    rows: Sequence[PictureRow],
    config: SetConfig,
    *,
    resumed_at: int | None,
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """The content of run.json, without problems."""
    drawn_now = len(rows) - (resumed_at or 0)
    return {
        "command": config.plain() | {"jobs": config.jobs},
        "versions": find_versions(),
        "counts": {"pictures": len(rows), "people": sum(len(row.people) for row in rows)},
        "resumed_at": resumed_at,
        "seconds": {stage: round(value, 3) for stage, value in seconds.items()},
        "pictures_per_second": round(drawn_now / sum(seconds.values()), 2),
    }


def _begin(batches: BatchFolder, body: Body, *, resume: bool) -> list[int]:
    """Make the folder ready; returns the batches that it already has.

    Raises:
        InputError: there is something else than the run to resume.
        OutputError: it cannot be written.
    """
    settings = {
        **batches.config.plain(),
        "version": __version__,
        "body_sha256": body.sha256,
    }
    if resume and batches.is_begun():
        batches.check(settings)
        return batches.find_done()
    if resume and (others := batches.others()):
        raise InputError(
            f"{batches.folder} holds {others[0]} but no run to resume; choose another folder, or "
            "begin again with --overwrite"
        )
    (batches.folder / _RECORD).unlink(missing_ok=True)
    batches.begin(settings)
    return []


def _read_finished(folder: Path, config: SetConfig) -> dict[str, Any]:
    """The record of the run in a folder, which has nothing left to do.

    Raises:
        InputError: it is of another run.
    """
    path = folder / _RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        command = dict(record["command"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged; begin again with --overwrite") from error
    check_same(folder, command, config.plain())
    return record


def _draw_missing(batches: BatchFolder, found: Sequence[int], progress: Progress) -> None:
    """Draw what is not there yet, batch by batch, in several processes."""
    config = batches.config
    progress("synth", batches.count(found), config.count)
    missing = sorted(set(config.batches) - set(found))
    jobs = min(config.jobs or cpu_count(), max(1, len(missing)))
    run = Parallel(n_jobs=jobs, return_as="generator_unordered")
    for number in run(delayed(batches.draw)(start) for start in missing):
        progress("synth", number, config.count)


def _write_coco(path: Path, rows: Sequence[PictureRow], config: SetConfig) -> None:
    width, height = config.pictures.size
    images = [
        {"id": i, "file_name": row.name, "width": width, "height": height}
        for i, row in enumerate(rows)
    ]
    annotations: list[dict[str, Any]] = []
    for image_id, row in enumerate(rows):
        for seen in row.people:
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": image_id,
                    "category_id": 1,
                    "keypoints": _flags(seen.person),
                    "num_keypoints": int((seen.person.visibility != UNSEEN).sum()),
                    "bbox": list(seen.box),
                    "area": seen.area,
                    "segmentation": {"size": [height, width], "counts": seen.runs},
                    "iscrowd": 0,
                }
            )
    document = {
        "info": {"description": "drawn by fit-cli synth", "version": __version__},
        "images": images,
        "annotations": annotations,
        "categories": [coco_category(keypoint_set(config.pictures.keypoint_set))],
    }
    # Without indentation: a line for each run of each mask would be most of the file.
    text = json.dumps(document, separators=(",", ":"))
    write_atomically(path, lambda stream: stream.write(text.encode("utf-8")))


def _flags(person: RenderedPerson) -> list[float]:
    """COCO's x, y, v of each keypoint; zeros for those that are not in the picture."""
    triplets = np.column_stack([person.keypoints_2d.round(3), person.visibility])
    triplets[person.visibility == UNSEEN] = 0
    return triplets.astype(float).ravel().tolist()


def _write_truth(path: Path, rows: Sequence[PictureRow], config: SetConfig, body: Body) -> None:
    """The true parameters as a fits table, with the camera of each picture."""
    seen = [(row, i, one.person) for row in rows for i, one in enumerate(row.people)]
    N = len(seen)
    width, height = config.pictures.size
    K = np.array([row.intrinsics for row, _, _ in seen]).reshape(N, 3, 3)
    points = [np.column_stack([p.keypoints_2d, p.visibility != UNSEEN]) for _, _, p in seen]
    columns = {
        "image": np.array([row.name for row, _, _ in seen], dtype=np.str_),
        "person": np.array([i for _, i, _ in seen], dtype=np.int32),
        "annotation_id": np.arange(N),
        "width": np.full(N, width),
        "height": np.full(N, height),
        "keypoint_set": np.full(N, config.pictures.keypoint_set),
        "keypoints_2d": np.array(points).reshape(N, -1),
        **{name: np.array([getattr(p, name) for _, _, p in seen]) for name in PARAMETERS},
    }
    metadata = {
        "body_sha256": body.sha256,
        "config": json.dumps(config.plain()),
        "version": __version__,
    }
    write_fits(path, build_truth(columns, K, metadata))
