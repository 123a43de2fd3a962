"""Where people come from: keypoint files, or pictures and a detector."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from .clock import StageClock
from .detector import Detection, Detector, load_detector
from .files import InputError
from .images import ImageError, list_images, read_image
from .people import People, Problem, concatenate
from .readers import read_people, recognise_format
from .skeleton import keypoint_set as set_of_name
from .storage import exists

# Detectors place hidden limbs, too; below this confidence they are guesses, and count as unseen.
_MIN_CONF = 0.2
_KEYPOINT_SUFFIXES = (".json", ".npz", ".mat", ".pkl", ".parquet")


Progress = Callable[[str, int, int], object]
"""Told (stage, number of items just done, number of items in all)."""


def check_exists(path: Path) -> None:
    """InputError if there is nothing at `path`."""
    if not exists(path):
        raise InputError(f"{path}: no such file or folder; check the path of the input")


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """Where people come from.

    Attributes:
        input: a picture, a folder of pictures, or a keypoint file or folder.
        keypoints: keypoint file of the pictures in `input`; none means to detect people.
        keypoint_format: of the keypoint file; "auto" recognises it.
        keypoint_set: overrides what the keypoint file says.
        images: folder of the pictures that a keypoint file given as `input` names.
        detector: for pictures without keypoints.
    """

    input: Path
    keypoints: Path | None = None
    keypoint_format: str = "auto"
    keypoint_set: str | None = None
    images: Path | None = None
    detector: str = "blazepose"


@dataclass(frozen=True, kw_only=True)
class Found:
    """People to fit, and what could not be read on the way to them.

    Attributes:
        people: one row each.
        problems: rows and pictures left out.
        images: folder that `people.image` is relative to; None where there are no pictures.
        empty: names of pictures without a person.
    """

    people: People
    problems: list[Problem]
    images: Path | None
    empty: list[str] = field(default_factory=list)

    def with_problems(self, problems: Iterable[Problem]) -> Found:
        """The same with further problems, of files of which nothing is said so far."""
        known = {problem.file for problem in self.problems}
        new = [problem for problem in problems if problem.file not in known]
        return replace(self, problems=[*self.problems, *new])


def is_keypoint_source(path: Path) -> bool:
    """Whether `path` is a keypoint file, or a folder of such files, rather than pictures."""
    if path.is_dir():
        return not list_images(path) and _is_known(path)
    return path.suffix.lower() in _KEYPOINT_SUFFIXES


def _is_known(folder: Path) -> bool:
    try:
        recognise_format(folder)
    except InputError:
        return False
    return True


def find_people(config: SourceConfig, clock: StageClock, progress: Progress) -> Found:
    """Read or detect people, as the stages "load" and "detect".

    Raises:
        ValueError, OSError: there is nobody; the message is one sentence with the fix.
    """
    source = config.keypoints
    images: Path | None = config.input.parent if config.input.is_file() else config.input
    if source is None and is_keypoint_source(config.input):
        source, images = config.input, config.images
    if source is None:
        with clock.time("load"):
            detector = load_detector(config.detector)
            total = 1 if config.input.is_file() else len(list_images(config.input))
        with clock.time("detect"):
            found = people_in_pictures(
                config.input, detector, progress=lambda done: progress("detect", done, total)
            )
    else:
        with clock.time("load"):
            found = people_in_file(
                source,
                images=images,
                keypoint_format=config.keypoint_format,
                keypoint_set=config.keypoint_set,
                picture=config.input.name if config.keypoints and config.input.is_file() else None,
            )
    return found


def people_in_file(
    keypoints: Path,
    *,
    images: Path | None,
    keypoint_format: str = "auto",
    keypoint_set: str | None = None,
    picture: str | None = None,
) -> Found:
    """Read the people of a keypoint file or folder.

    Args:
        keypoints: as `readers.read_people` takes.
        images: folder of the pictures it names, where there is one.
        keypoint_format: of `keypoints`, or "auto".
        keypoint_set: overrides what the file says.
        picture: name of the one picture whose people are wanted; none means all.

    Raises:
        InputError: the file cannot be read, none of the pictures it names is in `images`, or it
            does not name `picture`.
    """
    people, problems = read_people(
        keypoints, keypoint_format=keypoint_format, keypoint_set=keypoint_set, images=images
    )
    if picture is not None:
        people = people.select(people.image == picture)
        if len(people) == 0:
            raise InputError(f"{keypoints} names nobody in {picture}; check the picture's name")
    if images is not None:
        problems = [*problems, *_absent_pictures(people, keypoints, images)]
    return Found(people=people, problems=problems, images=images)


def _absent_pictures(people: People, keypoints: Path, images: Path) -> list[Problem]:
    """A problem for each picture that is named but not there; its people can still be fitted."""
    names = [str(name) for name in np.unique(people.image) if name]
    absent = [name for name in names if not (images / name).is_file()]
    if names and len(absent) == len(names):
        raise InputError(
            f"{images}: none of the {len(names)} pictures that {keypoints} names is here "
            f"({absent[0]}, for one); give the folder of its pictures"
        )
    return [
        Problem(
            file=name,
            row=None,
            reason=f"{keypoints.name} names this picture but {images} has no such file; nothing "
            "but their keypoints is known of its people",
        )
        for name in absent
    ]


def people_in_pictures(
    input_path: Path, detector: Detector, *, progress: Callable[[int], object] = lambda done: None
) -> Found:
    """Detect the people in a picture or a folder of pictures.

    Raises:
        InputError: there is no picture, or no person in any of them.
    """
    paths = [input_path] if input_path.is_file() else list_images(input_path)
    folder = input_path.parent if input_path.is_file() else input_path
    if not paths:
        raise InputError(f"{input_path}: no picture here; give a folder with JPEG or PNG files")
    parts, problems, empty = [], [], []
    for path in paths:
        try:
            image = read_image(path)
        except ImageError as error:
            problems.append(Problem(file=path.name, row=None, reason=str(error)))
        else:
            detections = detector(image)
            size = (image.shape[1], image.shape[0])
            parts.append(_as_people(detections, path.name, size, detector.keypoint_set))
            if not detections:
                empty.append(path.name)
        progress(1)
    if not parts:
        raise InputError(
            f"{input_path}: none of the {len(paths)} pictures can be read; {problems[0].reason}"
        )
    if not any(len(part) for part in parts):
        raise InputError(
            f"{input_path}: no person found in any of its {len(parts)} pictures; give their "
            "keypoints with --keypoints"
        )
    people = concatenate(parts)
    people = replace(people, annotation_id=np.arange(len(people)))  # they have none of their own
    return Found(people=people, problems=problems, images=folder, empty=empty)


def _as_people(
    detections: Sequence[Detection], name: str, size: tuple[int, int], keypoint_set: str
) -> People:
    N, P = len(detections), len(set_of_name(keypoint_set))
    image = np.full(N, name)
    conf = _stack((d.conf for d in detections), (N, P))
    return People(
        keypoint_set=keypoint_set,
        image=image,
        person=np.arange(N),
        annotation_id=np.arange(N),
        width=np.full(N, size[0]),
        height=np.full(N, size[1]),
        keypoints_2d=_stack((d.keypoints_2d for d in detections), (N, P, 2)),
        conf=np.where(conf >= _MIN_CONF, conf, 0),
        focal=np.full(N, np.nan),
    )


def _stack(arrays: Iterable[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    return np.array(list(arrays), dtype=np.float32).reshape(shape)
