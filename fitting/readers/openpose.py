"""OpenPose's `--write_json` output, BODY_25, BODY_25B or COCO, in full-image pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..files import InputError
from ..images import list_images
from ..people import People, Problem
from ..skeleton import keypoint_set
from .common import (
    Entry,
    Reader,
    Request,
    RowError,
    collect_people,
    list_keys,
    list_names,
    load_json,
    measure_picture,
    need_images,
    read_files,
    stack_triplets,
    usual_count,
)

_SUFFIX = "_keypoints.json"
# Peaks of OpenPose's interpolated heat maps come out slightly above 1; more than this is a fault.
_MAX_CONF = 1.2
# OpenPose's COCO model has a neck between nose and shoulders, which COCO itself lacks.
COCO18 = (
    "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow",
    "left_wrist", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle",
    "right_eye", "left_eye", "right_ear", "left_ear",
)  # fmt: skip


def _recognises(request: Request) -> bool:
    if request.path.is_dir():
        return bool(_files(request.path))
    return "people" in request.top_level


def _read(request: Request) -> tuple[People, list[Problem]]:
    images = need_images(request, "OpenPose output")
    is_folder = request.path.is_dir()
    files = _files(request.path) if is_folder else [request.path]
    if not files:
        raise InputError(
            f"{request.path} holds no *{_SUFFIX} (it holds {list_names(request.path)}); give "
            "OpenPose's folder, or the keypoint file itself"
        )
    pictures = {path.stem: path for path in list_images(images)}
    entries, problems = read_files(
        request, files, lambda file, first_id: _entries(file, pictures, images, first_id)
    )
    name, count = _set_name(entries, request)
    entries, triplets, bad = stack_triplets(entries, count, name)
    if count == len(COCO18):
        triplets = triplets[:, [COCO18.index(n) for n in keypoint_set(name).names]]
    conf = triplets[..., 2]
    conf = np.where((conf > 1) & (conf <= _MAX_CONF), 1.0, conf)
    _check_not_normalised(triplets, request)
    return collect_people(name, entries, triplets[..., :2], conf, problems + bad)


READER = Reader(
    holds=f"OpenPose's people (one file or a folder of *{_SUFFIX})",
    recognises=_recognises,
    read=_read,
)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name.endswith(_SUFFIX))


def _entries(
    file: Path, pictures: Mapping[str, Path], images: Path, first_id: int
) -> tuple[list[Entry], list[Problem]]:
    """The people of one picture; raises InputError where the whole file is no good."""
    document = load_json(file)
    people = document.get("people") if isinstance(document, dict) else None
    if not isinstance(people, list):
        raise InputError(
            f"{file} has no list of people, its top level holds {list_keys(document)}; write it "
            "with OpenPose's --write_json"
        )
    if not people:
        return [], []
    stem = file.name.removesuffix(_SUFFIX).removesuffix(".json")
    if stem not in pictures:
        raise InputError(f"{file} has no picture {stem}.* in {images}; add the picture")
    try:
        picture = measure_picture(images, pictures[stem].name)
    except RowError as error:
        raise InputError(f"{file} has no usable picture: {error}") from error
    entries: list[Entry] = []
    problems: list[Problem] = []
    for row, record in enumerate(people):
        keypoints = record.get("pose_keypoints_2d") if isinstance(record, dict) else None
        if isinstance(keypoints, list):
            entries.append(Entry(str(file), row, picture, first_id + len(entries), keypoints))
        else:
            reason = "the person has no list pose_keypoints_2d; write the file with OpenPose 1.x"
            problems.append(Problem(file=str(file), row=row, reason=reason))
    return entries, problems


def _set_name(entries: Sequence[Entry], request: Request) -> tuple[str, int]:
    """Name of the keypoint set, and how many keypoints OpenPose writes for it."""
    sets = {25: "body25", len(COCO18): "coco17"}
    counts = {name: count for count, name in sets.items()}
    if request.keypoint_set is not None:
        name = request.keypoint_set
        return name, counts.get(name, len(keypoint_set(name)))
    count = usual_count(entries) if entries else 25
    if count not in sets:
        raise InputError(
            f"{request.path} has {count:g} keypoints for each person; expected 25 (OpenPose's "
            "--model_pose BODY_25, or BODY_25B named with --keypoint-set) or 18 (COCO)"
        )
    return sets[int(count)], int(count)


def _check_not_normalised(triplets: np.ndarray, request: Request) -> None:
    seen = triplets[..., 2] > 0
    if seen.any() and (np.abs(triplets[seen][:, :2]) <= 1).all():
        raise InputError(
            f"{request.path} has coordinates between -1 and 1 only; run OpenPose with "
            "--keypoint_scale 0, which writes pixels"
        )
