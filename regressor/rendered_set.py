"""Folders of drawn pictures with their truth: `fit-cli synth`."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joblib import Parallel, cpu_count, delayed
from numpy.typing import NDArray
from PIL import Image

from fitting import __version__
from fitting.body import Body, load_body
from fitting.files import prepare_output, write_atomically, write_json
from fitting.images import write_image
from fitting.opencv import import_cv2
from fitting.skeleton import keypoint_set
from fitting.table import PARAMETERS, build_truth, write_fits
from fitting.versions import find_versions
from fitting.writers import coco_category
from priors.mocap import load_mocap

from .rendering import BATCH, UNSEEN, PictureConfig, PictureStream, RenderedPerson, RenderedPicture

IMAGES, MASKS = "images", "masks"
KEYPOINTS_FILE, TRUTH_FILE = "person_keypoints.json", "truth.parquet"

Progress = Callable[[str, int, int], object]


@dataclass(frozen=True, kw_only=True)
class SetConfig:
    """A folder of pictures.

    Attributes:
        count: number of pictures.
        seed: of everything.
        pictures: what to draw.
        suffix: "jpg" or "png".
        body: file of the body; the bundled one if none.
        jobs: processes; none means one for each core. The files do not depend on it.
    """

    count: int
    seed: int = 0
    pictures: PictureConfig = field(default_factory=PictureConfig)
    suffix: str = "jpg"
    body: Path | None = None
    jobs: int | None = None

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"count must be at least 1 picture, got {self.count}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")
        if self.jobs is not None and self.jobs < 1:
            raise ValueError(f"jobs must be at least 1, got {self.jobs}")
        if self.suffix not in ("jpg", "png"):
            raise ValueError(f"suffix must be jpg or png, got {self.suffix!r}")


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """A person in a picture, as the files have it."""

    person: RenderedPerson
    box: tuple[int, int, int, int]  # x, y, width, height of the pixels seen
    area: int  # number of these pixels
    runs: list[int]  # lengths of runs outside and inside, column by column: COCO's RLE


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A picture that was written."""

    name: str
    intrinsics: NDArray[np.floating]
    people: tuple[_Seen, ...]


def write_rendered_set(
    folder: Path | str,
    config: SetConfig,
    *,
    overwrite: bool = False,
    problems: Sequence[str] = (),
    progress: Progress = lambda stage, done, total: None,
) -> dict[str, Any]:
    """Draw pictures into a folder with their truth.

    Writes `images/`, `masks/` (PNG: `RenderedPicture.parts`), `person_keypoints.json` (COCO),
    `truth.parquet` (a fits table, rows as in the JSON) and, last, `run.json`. All but `run.json`
    are the same bytes for the same configuration, whatever `jobs`; picture i does not depend on
    the number of pictures.

    Args:
        folder: created where absent.
        config: what to write.
        overwrite: accept a folder that holds files; they are replaced one by one.
        problems: sentences for `run.json` on backgrounds left out.
        progress: called with "synth", pictures just written, and their number.

    Returns:
        The content of `run.json`.

    Raises:
        ValueError: the body is no good, or no pose is of the split.
        OutputError: a file cannot be written.
    """
    started = time.perf_counter()
    folder = prepare_output(folder, overwrite=overwrite)
    for name in (IMAGES, MASKS):
        prepare_output(folder / name, overwrite=True)
    body = load_body(config.body)
    rows = list(_write_pictures(folder, config, progress))
    drawn = time.perf_counter()
    _write_coco(folder / KEYPOINTS_FILE, rows, config)
    _write_truth(folder / TRUTH_FILE, rows, config, body)
    seconds = {"draw": drawn - started, "write": time.perf_counter() - drawn}
    record = {
        "command": _plain(config) | {"jobs": config.jobs},
        "versions": find_versions(),
        "counts": {"pictures": len(rows), "people": sum(len(row.people) for row in rows)},
        "seconds": {stage: round(value, 3) for stage, value in seconds.items()},
        "pictures_per_second": round(len(rows) / sum(seconds.values()), 2),
        "problems": list(problems),
    }
    write_json(folder / "run.json", record)
    return record


def _write_pictures(folder: Path, config: SetConfig, progress: Progress) -> Iterator[_Row]:
    """The pictures' rows in order, batch by batch, from several processes."""
    jobs = config.jobs or cpu_count()
    starts = range(0, config.count, BATCH)
    run = Parallel(n_jobs=min(jobs, len(starts)), return_as="generator")
    for rows in run(delayed(_write_batch)(folder, config, start) for start in starts):
        progress("synth", len(rows), config.count)
        yield from rows


def _write_batch(folder: Path, config: SetConfig, start: int) -> list[_Row]:
    """Draw and write the pictures from number `start`, a multiple of `BATCH`, on."""
    with _one_thread():
        stream = _open_stream(config.body, config.pictures, config.seed)
        pictures = stream.pictures(start // BATCH, min(BATCH, config.count - start))
    rows = []
    for number, picture in enumerate(pictures, start=start):
        name = f"{number:06d}.{config.suffix}"
        write_image(folder / IMAGES / name, picture.image)
        _write_mask(folder / MASKS / f"{number:06d}.png", picture.parts)
        rows.append(_Row(name=name, intrinsics=picture.intrinsics, people=_describe(picture)))
    return rows


@lru_cache(maxsize=1)
def _open_stream(body: Path | None, config: PictureConfig, seed: int) -> PictureStream:
    """A process keeps its stream from batch to batch: preparing one takes half a second."""
    return PictureStream(load_body(body), load_mocap(), config, seed=seed)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """The processes share the cores, and sums depend on how many threads they are shared by."""
    cv2 = import_cv2()
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def _write_mask(path: Path, mask: NDArray[np.uint8]) -> None:
    picture = Image.fromarray(mask)
    write_atomically(path, lambda stream: picture.save(stream, "PNG"))


def _describe(picture: RenderedPicture) -> tuple[_Seen, ...]:
    people = []
    for i, person in enumerate(picture.people):
        mask = picture.owner == i
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box = (columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1)
        x, y, width, height = (int(v) for v in box)
        people.append(
            _Seen(
                person=person,
                box=(x, y, width, height),
                area=int(mask.sum()),
                runs=_run_lengths(mask),
            )
        )
    return tuple(people)


def _run_lengths(mask: NDArray[np.bool_]) -> list[int]:
    """Lengths of the runs of False, True, False ... in a mask (H, W), down its columns."""
    values = mask.ravel(order="F")
    changes = np.flatnonzero(values[1:] != values[:-1]) + 1
    lengths = np.diff(np.concatenate([[0], changes, [values.size]])).tolist()
    return [0, *lengths] if values[0] else lengths


def _write_coco(path: Path, rows: Sequence[_Row], config: SetConfig) -> None:
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


def _write_truth(path: Path, rows: Sequence[_Row], config: SetConfig, body: Body) -> None:
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
        "config": json.dumps(_plain(config)),
        "version": __version__,
    }
    write_fits(path, build_truth(columns, K, metadata))


def _plain(config: SetConfig) -> dict[str, Any]:
    """What the files depend on, as JSON can hold it."""
    settings = asdict(config)
    del settings["jobs"]
    return json.loads(json.dumps(settings, default=str))
