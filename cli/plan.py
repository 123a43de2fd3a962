"""What `--dry-run` says of people to come and of where results would go."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .comfort import Outcome, counted, number

if TYPE_CHECKING:
    from fitting.body import Body
    from fitting.people import People, Problem
    from fitting.sources import SourceConfig


@dataclass(frozen=True, kw_only=True)
class PlannedPeople:
    """Who would be fitted, as far as can be told without a detector.

    Attributes:
        people: of a keypoint file; none means that they would be detected.
        pictures: number of pictures that they are in, or that would be searched.
        problems: rows that would be left out.
    """

    people: People | None
    pictures: int
    problems: Sequence[Problem]


def plan_people(config: SourceConfig, limit: int | None) -> PlannedPeople:
    """Read the keypoints that a run would read, or count the pictures that it would search.

    Raises:
        InputError: there is nothing to read; the message is that of the run itself.
    """
    import numpy as np

    from fitting.clock import StageClock
    from fitting.sources import check_exists, find_people, is_keypoint_source

    check_exists(config.input)
    if config.keypoints is None and not is_keypoint_source(config.input):
        return PlannedPeople(people=None, pictures=count_pictures(config.input), problems=())
    clock = StageClock({"load": 0.0, "detect": 0.0})
    found = find_people(config, clock, lambda stage, done, total: None)
    people = found.people.select(slice(limit))
    pictures = len(np.unique(people.image[people.image != ""]))
    return PlannedPeople(people=people, pictures=pictures, problems=found.problems)


def count_pictures(path: Path) -> int:
    """How many pictures would be searched: a file, or those of a folder; InputError for none."""
    from fitting.files import InputError
    from fitting.images import list_images

    count = 1 if path.is_file() else len(list_images(path))
    if count == 0:
        raise InputError(f"{path}: no picture here; give a folder with JPEG or PNG files")
    return count


def describe_body(body: Body) -> str:
    """The body that people would be given."""
    return f"{body.path.name}, {body.num_vertices:,} vertices"


def describe_camera(people: People | None, focal: float | None, cameras: Path | None) -> str:
    """The camera that people would be seen by."""
    import numpy as np

    if cameras is not None:
        from fitting.rig import read_cameras

        names = ", ".join(camera.name for camera in read_cameras(cameras))
        return f"calibrated: {names}"
    if focal is not None:
        return f"focal length of {number(focal, 4)} px"
    if people is None:
        return "focal length of each picture's diagonal"
    own = people.focal[np.isfinite(people.focal)]
    diagonals = np.hypot(people.width, people.height)[~np.isfinite(people.focal)]
    said = []
    if len(own):
        said.append(f"focal lengths of the file, {_range(own)} px")
    if len(diagonals):
        said.append(f"focal length of each picture's diagonal, {_range(diagonals)} px")
    return "; ".join(said) or "none"


def _range(values: Any) -> str:
    low, high = number(float(values.min()), 4), number(float(values.max()), 4)
    return low if low == high else f"{low} to {high}"


def conclude_plan(
    config: SourceConfig,
    planned: PlannedPeople,
    verb: str,
    *,
    camera: str,
    output: Path,
    names: Sequence[str],
    settings: Mapping[str, str],
) -> Outcome:
    """What a run would do.

    Args:
        config: where people come from.
        planned: who they are.
        verb: what would be done to them.
        camera: see `describe_camera`.
        output: where results would go, see `check_output`.
        names: of the files to write there.
        settings: what else there is to say.
    """
    people, pictures = planned.people, planned.pictures
    if people is None:
        who = f"whoever {config.detector} finds in {counted(pictures, 'picture')}"
        keypoint_set, seen = None, None
    else:
        keypoint_set, seen = people.keypoint_set, int((people.conf > 0).any(axis=1).sum())
        who = f"{counted(len(people), 'person', 'people')} in {counted(pictures, 'picture')}"
        who += f", {number(seen)} of them with keypoints"
    facts = {
        "reads": str(config.keypoints or config.input),
        "people": who,
        "keypoints": keypoint_set or f"those of {config.detector}",
        "camera": camera,
        **settings,
        "writes": f"{output}/: {', '.join(names)}",
    }
    return Outcome(
        headline=f"would {verb} {who} -> {output}",
        facts=facts,
        record={
            "dry_run": True,
            "input": str(config.input),
            "output": str(output),
            "people": None if people is None else len(people),
            "people_with_keypoints": seen,
            "pictures": pictures,
            "keypoint_set": keypoint_set,
            "camera": camera,
            "settings": dict(settings),
            "writes": [str(output / name) for name in names],
        },
        problems=planned.problems,
    )


def check_output(folder: Path, *, overwrite: bool) -> None:
    """Make sure that a run may write to a folder, without making it.

    Args:
        folder: of the results.
        overwrite: whether it may hold files.

    Raises:
        OutputError: it holds files, or nobody may write there.
    """
    from fitting.files import OutputError, prepare_output

    if folder.exists():
        prepare_output(folder, overwrite=overwrite)  # makes nothing where there is a folder
        return
    above = next(parent for parent in folder.absolute().parents if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise OutputError(
            f"cannot write {folder}: {above} is no folder that you may write to; choose another"
        )
