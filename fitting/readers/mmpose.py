"""MMPose's and RTMPose's JSON: what the inferencer's `pred_out_dir` and the demos write.

A file holds the people of one picture (a list of instances), or of the frames of a video (a list of
`frame_id` and `instances`); either may stand under `instance_info` beside a `meta_info`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..files import InputError
from ..images import list_images
from ..people import People, Problem
from ..skeleton import KEYPOINT_SETS, keypoint_set
from ..tracks import number_frames
from .common import (
    Entry,
    Picture,
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
    shown,
    stack_triplets,
    usual_count,
)

_OPENPOSE_SUFFIX = "_keypoints.json"  # such files are OpenPose's
_DEMO_PREFIX = "results_"  # of the demos, before the picture's name
# Maxima of SimCC (RTMPose) are no probabilities: they reach beyond 1, and a bit below 0. Numbers
# beyond this are a fault.
_MAX_SCORE = 20.0
_NUM_WHOLEBODY = 133
_COCO17 = KEYPOINT_SETS["coco17"].names
_WHOLEBODY23 = KEYPOINT_SETS["coco_wholebody"].names
_HALPE26 = (
    *_COCO17, "head", "neck", "hip", "left_big_toe", "right_big_toe", "left_small_toe",
    "right_small_toe", "left_heel", "right_heel",
)  # fmt: skip
# Keypoints by their number: the set that takes them, and their names in the file's order.
_LAYOUTS: dict[int, tuple[str, tuple[str, ...]]] = {
    17: ("coco17", _COCO17),
    26: ("coco_wholebody", _HALPE26),  # RTMPose's body with feet
    _NUM_WHOLEBODY: ("coco_wholebody", _WHOLEBODY23),
    16: ("mpii16", KEYPOINT_SETS["mpii16"].names),
    14: ("lsp14", KEYPOINT_SETS["lsp14"].names),
}
_ALIASES = {"root": "pelvis", "upper_neck": "neck", "neck_base": "neck"}


def _recognises(request: Request) -> bool:
    if not request.path.is_dir():
        return request.is_json and _is_mmpose(request.document)
    for file in _files(request.path):
        try:
            document = load_json(file)
        except InputError:
            continue
        if document:  # a picture without people says nothing
            return _is_mmpose(document)
    return False


def _is_mmpose(document: Any) -> bool:
    if isinstance(document, dict):
        return "instance_info" in document
    first = document[0] if document else None
    return isinstance(first, dict) and ("keypoint_scores" in first or "instances" in first)


def _read(request: Request) -> tuple[People, list[Problem]]:
    images = need_images(request, "MMPose output")
    is_folder = request.path.is_dir()
    files = _files(request.path) if is_folder else [request.path]
    if not files:
        raise InputError(
            f"{request.path} holds no *.json (it holds {list_names(request.path)}); give MMPose's "
            "folder of predictions, or one file"
        )
    metas: list[Mapping[str, Any]] = []

    def read_one(file: Path, first_id: int) -> tuple[list[Entry], list[Problem]]:
        document = load_json(file) if is_folder else request.document
        found = _entries(file, document, images, first_id)
        metas.append(_meta_info(document))
        return found

    entries, problems = read_files(request, files, read_one)
    meta = next(filter(None, metas), {})
    name, order = _layout(entries, meta, request)
    entries, triplets, bad = stack_triplets(entries, len(order), name)
    triplets = triplets[:, _indices(name, order)]
    conf = triplets[..., 2]
    conf = np.where((conf >= -1) & (conf <= _MAX_SCORE), conf.clip(0, 1), conf)
    return collect_people(name, entries, triplets[..., :2], conf, problems + bad)


READER = Reader(
    holds="MMPose's instance_info or instances (one file or a folder of predictions)",
    recognises=_recognises,
    read=_read,
)


def _files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix == ".json" and not path.name.endswith(_OPENPOSE_SUFFIX) and path.is_file()
    )


def _meta_info(document: Any) -> Mapping[str, Any]:
    meta = document.get("meta_info") if isinstance(document, dict) else None
    return meta if isinstance(meta, dict) else {}


def _entries(
    file: Path, document: Any, images: Path, first_id: int
) -> tuple[list[Entry], list[Problem]]:
    """The people of one file; raises InputError where the whole file is no good."""
    records = document.get("instance_info") if isinstance(document, dict) else document
    if not isinstance(records, list):
        raise InputError(
            f"{file} has no list instance_info, its top level holds {list_keys(document)}; give "
            "the JSON that MMPose writes"
        )
    if any(isinstance(record, dict) and "instances" in record for record in records):
        per_picture = _frames(file, records, images)
    else:
        per_picture = [(_picture_of_file(file, images), records)] if records else []
    entries: list[Entry] = []
    problems: list[Problem] = []
    flat = [(picture, instance) for picture, found in per_picture for instance in found]
    for row, (picture, instance) in enumerate(flat):
        try:
            keypoints = _triplets(instance)
        except RowError as error:
            problems.append(Problem(file=str(file), row=row, reason=str(error)))
        else:
            entries.append(Entry(str(file), row, picture, first_id + len(entries), keypoints))
    return entries, problems


def _frames(file: Path, records: list[Any], images: Path) -> list[tuple[Picture, list[Any]]]:
    """The instances of each frame of a video, with its picture: one after another, naturally."""
    names = [path.name for path in list_images(images)]
    if len(names) != len(records):
        raise InputError(
            f"{file} has {len(records)} frames, but {images} has {len(names)} pictures; give "
            "exactly the frames of the video, in the order of their names"
        )
    _, numbers = number_frames(np.array(names, dtype=np.str_))
    pictures = [names[i] for i in np.argsort(numbers)]
    frames = []
    for name, record in zip(pictures, records, strict=True):
        instances = record.get("instances") if isinstance(record, dict) else None
        if not isinstance(instances, list):
            raise InputError(
                f"{file} has a frame without a list of instances (that of {name}); give an empty "
                "list for a frame without people"
            )
        if instances:
            frames.append((_measured(file, images, name), instances))
    return frames


def _picture_of_file(file: Path, images: Path) -> Picture:
    pictures = {path.stem: path.name for path in list_images(images)}
    for stem in (file.stem, file.stem.removeprefix(_DEMO_PREFIX)):
        if stem in pictures:
            return _measured(file, images, pictures[stem])
    raise InputError(f"{file} has no picture {file.stem}.* in {images}; add the picture")


def _measured(file: Path, images: Path, name: str) -> Picture:
    try:
        return measure_picture(images, name)
    except RowError as error:
        raise InputError(f"{file} has no usable picture: {error}") from error


def _triplets(instance: Any) -> list[Any]:
    """x, y, score of each keypoint in one list."""
    points = instance.get("keypoints") if isinstance(instance, dict) else None
    scores = instance.get("keypoint_scores") if isinstance(instance, dict) else None
    if not isinstance(points, list) or not isinstance(scores, list):
        raise RowError("the person has no lists keypoints and keypoint_scores; run MMPose again")
    if len(points) != len(scores):
        raise RowError(
            f"the person has {len(points)} keypoints but {len(scores)} keypoint_scores; run MMPose "
            "again"
        )
    if not all(isinstance(point, list) and len(point) == 2 for point in points):
        raise RowError("a keypoint is no pair x, y; give the keypoints of a 2D model")
    return [value for point, score in zip(points, scores, strict=True) for value in (*point, score)]


def _layout(
    entries: Sequence[Entry], meta: Mapping[str, Any], request: Request
) -> tuple[str, tuple[str, ...]]:
    """Name of the keypoint set, and the names of the file's keypoints in their order.

    Names beyond those of the set (WholeBody's face and hands) are numbers.
    """
    count = usual_count(entries) if entries else 17
    if request.keypoint_set is not None and len(keypoint_set(request.keypoint_set)) == count:
        return request.keypoint_set, keypoint_set(request.keypoint_set).names
    names = _names_in(meta)
    for s in KEYPOINT_SETS.values():
        if names and names == s.names:
            return s.name, names
    name, order = _LAYOUTS.get(int(count), ("", ()))
    if not name or (names and not set(order) <= set(names)):
        raise InputError(
            f"{request.path} has {count:g} keypoints for each person"
            + (f" ({', '.join(map(shown, names[:3]))}, ...)" if names else "")
            + f", expected {', '.join(map(str, _LAYOUTS))}; name their set with --keypoint-set"
        )
    rest = tuple(str(i) for i in range(len(order), int(count)))
    return request.keypoint_set or name, (names or order + rest)


def _names_in(meta: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the keypoints, where the file's meta_info has them."""
    names = meta.get("keypoint_id2name")
    if not isinstance(names, dict):
        return ()
    ordered = [names.get(str(i)) for i in range(len(names))]
    texts = [_ALIASES.get(name, name) for name in ordered if isinstance(name, str)]
    return tuple(texts) if len(set(texts)) == len(names) else ()


def _indices(name: str, order: tuple[str, ...]) -> list[int]:
    """Where the set's keypoints stand in the file."""
    missing = [n for n in keypoint_set(name).names if n not in order]
    if missing:
        raise InputError(
            f"the file's keypoints have no {missing[0]}, which {name} needs; name another "
            "--keypoint-set"
        )
    return [order.index(n) for n in keypoint_set(name).names]
