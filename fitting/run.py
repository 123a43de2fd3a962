"""One run of `fit-cli fit`: people in, fits table, pictures and `run.json` out."""

from __future__ import annotations

import json
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from priors.gmm import load_pose_prior

from .body import Body, load_body
from .detector import load_detector
from .files import prepare_output, write_json
from .fit import SOLVERS, PeopleFit, choose_device, fit_people
from .people import People, Problem
from .pictures import PersonPictures, draw_people
from .problem import Status
from .skeleton import convert_keypoints, keypoint_set
from .sources import Found, is_keypoint_source, people_in_file, people_in_pictures
from .table import FitsTable, write_fits

Progress = Callable[[str, int, int], object]
"""Told (stage, number of items just done, number of items in all)."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What `fit-cli fit` is asked to do.

    Attributes:
        input: a picture, a folder of pictures, or a keypoint file or folder.
        output: folder for the results.
        keypoints: keypoint file of the pictures in `input`; none means to detect people.
        keypoint_format: of the keypoint file; "auto" recognises it.
        keypoint_set: overrides what the keypoint file says.
        images: folder of the pictures that a keypoint file given as `input` names.
        detector: for pictures without keypoints.
        body: SMPL-format file; none means the bundled body.
        solver: a name in `fit.SOLVERS`.
        focal: pixels, for everyone; none means each row's own, or else the picture's diagonal.
        device: "auto", "cpu" or "cuda".
        batch_size: people solved side by side.
        jobs: pictures drawn at a time; -1 means as many as there are cores.
        overlays: draw each person over its picture.
        limit: fit the first so many people only.
        seed: of all random choices.
        overwrite: replace an earlier run in `output`.
    """

    input: Path
    output: Path
    keypoints: Path | None = None
    keypoint_format: str = "auto"
    keypoint_set: str | None = None
    images: Path | None = None
    detector: str = "blazepose"
    body: Path | None = None
    solver: str = "adam"
    focal: float | None = None
    device: str = "auto"
    batch_size: int = 64
    jobs: int = -1
    overlays: bool = True
    limit: int | None = None
    seed: int = 0
    overwrite: bool = False


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """What a run did.

    Attributes:
        table: the fits, as written.
        pictures: of each row; empty where none were drawn.
        problems: rows and pictures that something was wrong with.
        record: content of `run.json`.
    """

    table: FitsTable
    pictures: list[PersonPictures]
    problems: list[Problem]
    record: dict[str, Any]


@dataclass
class _Clock:
    """Seconds by stage."""

    seconds: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("load", "detect", "init", "fit", "write"), 0.0)
    )

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[stage] += time.perf_counter() - began
