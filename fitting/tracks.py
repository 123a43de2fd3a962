"""Who is who from picture to picture, and when each picture was taken."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from .files import InputError
from .people import NO_TRACK, People, person_size

DEFAULT_FPS = 30.0
MAX_STRIDE = 0.5  # sizes of a person, from where they are expected; beyond it is somebody else
MAX_GAP = 1.0  # seconds, after which a person who comes back is somebody else
_FORBIDDEN = 1e6  # finite, as `linear_sum_assignment` wants it
_MAX_DIGITS = 15  # of a number that float64 holds exactly


class Track(NamedTuple):
    """One person in t pictures, in order of time.

    Attributes:
        rows: (t,) int64, of the N rows of a table of people.
        seconds: (t,) float64, rising.
    """

    rows: np.ndarray
    seconds: np.ndarray

    def at(self, where: np.ndarray | slice) -> Track:
        """Some of its pictures: a mask or a slice."""
        return Track(self.rows[where], self.seconds[where])


def make_tracks(people: People, fps: float) -> list[Track]:
    """The tracks of N people, each row in one; rows of no track are tracks of one picture.

    Pictures are in the order of their numbers (`number_frames`), or of the rows where they have no
    names. A track lies within one folder.

    Args:
        people: N rows with tracks.
        fps: numbers of pictures in a second.

    Raises:
        InputError: somebody is in one picture twice, or `fps` is no rate.
    """
    if people.track is None:
        raise InputError("people without tracks; give `track`, or link them with link_people")
    check_fps(fps)
    folder, frame = number_frames(people.image)
    named = people.image != ""
    tracks = []
    for rows in _groups(np.stack([folder, people.track], axis=1)):
        if people.track[rows[0]] == NO_TRACK:
            tracks += [Track(np.array([row]), np.zeros(1)) for row in rows.tolist()]
            continue
        numbers = frame[rows] if named[rows].all() else np.arange(len(rows))
        order = np.argsort(numbers, kind="stable")
        times = (numbers[order] - numbers[order[0]]) / fps
        _check_once(people, rows[order], times)
        tracks.append(Track(rows[order], times))
    return tracks


def _check_once(people: People, rows: np.ndarray, times: np.ndarray) -> None:
    assert people.track is not None  # `make_tracks` saw to it
    twice = np.flatnonzero(np.diff(times) == 0)
    if len(twice):
        first, row = rows[twice[0]], rows[twice[0] + 1]
        raise InputError(
            f"row {row}: track {people.track[row]} is in the picture {people.image[row]} twice, in "
            f"row {first} too; give each person of a picture a track of their own"
        )


def link_people(people: People, fps: float) -> np.ndarray:
    """(N,) int64 tracks of people in pictures that follow each other; -1 where nothing is seen.

    From picture to picture people are matched so that the sum of distances is least (Kuhn's
    assignment problem): between the keypoints found and those last seen, moved on at the speed they
    had, as a share of the person's size. Nobody moves further than `MAX_STRIDE`, or comes back
    after `MAX_GAP`.

    Args:
        people: N rows with names of pictures.
        fps: numbers of pictures in a second.

    Raises:
        InputError: pictures have no names, or `fps` is no rate.
    """
    check_fps(fps)
    if (people.image == "").any():
        row = int(np.flatnonzero(people.image == "")[0])
        raise InputError(
            f"row {row} names no picture, so that nobody knows what follows what; give the names "
            "of pictures, or who is who as `track`"
        )
    folder, frame = number_frames(people.image)
    track = np.full(len(people), NO_TRACK, dtype=np.int64)
    seen = np.asarray((people.conf > 0).any(axis=1))
    count = 0
    for in_folder in _groups(folder[:, None]):
        active: list[_Trail] = []
        rows = in_folder[seen[in_folder]]
        for of_frame in _groups(frame[rows][:, None]):
            found = rows[of_frame]
            now = int(frame[found[0]])
            active = [t for t in active if now - t.frame <= MAX_GAP * fps]
            matched = _match(active, people, found, now)
            for row, trail in zip(found.tolist(), matched, strict=True):
                if trail is None:
                    active.append(_Trail.begin(people, row, now, count))
                    track[row], count = count, count + 1
                else:
                    trail.follow(people, row, now)
                    track[row] = trail.number
    return track


def number_frames(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Folder and number (N,) int64 of each picture, for (N,) names.

    The number is the last one in the name (`clip_0012.jpg` is 12), so that pictures left out leave
    a gap; where some picture of the folder has none, or two have the same, it is their place in
    natural order, in which 2 comes before 10.
    """
    names, inverse = np.unique(image, return_inverse=True)
    paths = [PurePosixPath(name.replace("\\", "/")) for name in names.tolist()]
    folders = {parent: i for i, parent in enumerate(dict.fromkeys(p.parent for p in paths))}
    folder = np.array([folders[path.parent] for path in paths], dtype=np.int64)
    frame = np.zeros(len(names), dtype=np.int64)
    for number in range(len(folders)):
        at = np.flatnonzero(folder == number)
        frame[at] = _numbers([paths[i].stem for i in at])
    return folder[inverse], frame[inverse]


def _numbers(stems: list[str]) -> np.ndarray:
    digits = [re.findall(r"[0-9]+", stem)[-1:] for stem in stems]
    if all(found and len(found[0]) <= _MAX_DIGITS for found in digits):
        numbers = np.array([int(found[0]) for found in digits], dtype=np.int64)
        if len(set(numbers.tolist())) == len(stems):
            return numbers
    order = sorted(range(len(stems)), key=lambda i: _natural_key(stems[i]))
    return np.argsort(order)


def _natural_key(name: str) -> list[tuple[int, int, str]]:
    parts = re.split(r"([0-9]+)", name)
    return [(0, int(p), "") if i % 2 else (1, 0, p) for i, p in enumerate(parts)]


def check_fps(fps: float) -> None:
    """InputError unless `fps` is a rate."""
    if not (math.isfinite(fps) and fps > 0):
        raise InputError(f"fps must be a positive number of pictures in a second, got {fps}")


def _groups(keys: np.ndarray) -> Iterator[np.ndarray]:
    """Indices of rows with equal keys (N, K), in the order of the keys."""
    if len(keys) == 0:
        return
    _, inverse = np.unique(keys, axis=0, return_inverse=True)
    inverse = inverse.reshape(-1)  # NumPy 2.0 keeps the axis
    order = np.argsort(inverse, kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(inverse[order])) + 1)


@dataclass
class _Trail:
    """A person as last seen."""

    number: int
    frame: int
    keypoints_2d: np.ndarray  # (P, 2)
    conf: np.ndarray  # (P,)
    size: float
    speed: np.ndarray  # (2,) pixels from one number to the next

    @classmethod
    def begin(cls, people: People, row: int, frame: int, number: int) -> _Trail:
        xy, conf = people.keypoints_2d[row], people.conf[row]
        return cls(number, frame, xy, conf, _size(xy, conf), np.zeros(2))

    def follow(self, people: People, row: int, frame: int) -> None:
        """Go on with what is seen now."""
        xy, conf = people.keypoints_2d[row], people.conf[row]
        both = (self.conf > 0) & (conf > 0)
        moved = (xy - self.keypoints_2d)[both].mean(axis=0) / (frame - self.frame)
        # half of what it was: keypoints that come and go jerk
        self.speed = moved if not self.speed.any() else (self.speed + moved) / 2
        self.keypoints_2d, self.conf, self.frame = xy, conf, frame
        self.size = _size(xy, conf)

    def distance(self, xy: np.ndarray, conf: np.ndarray, frame: int) -> float:
        """Mean distance of keypoints from where they are expected, in sizes of the person."""
        both = (self.conf > 0) & (conf > 0)
        if not both.any():
            return _FORBIDDEN
        expected = self.keypoints_2d + self.speed * (frame - self.frame)
        apart = np.linalg.norm((xy - expected)[both], axis=1).mean()
        share = float(apart / max(self.size, _size(xy, conf)))
        return share if share <= MAX_STRIDE else _FORBIDDEN


def _size(xy: np.ndarray, conf: np.ndarray) -> float:
    return max(float(person_size(xy[None], conf[None])[0]), 1.0)


def _match(
    active: list[_Trail], people: People, found: np.ndarray, frame: int
) -> list[_Trail | None]:
    """Whom each of the people found (n,) follows, none for nobody."""
    matched: list[_Trail | None] = [None] * len(found)
    costs = np.array(
        [
            [trail.distance(people.keypoints_2d[row], people.conf[row], frame) for trail in active]
            for row in found
        ]
    ).reshape(len(found), len(active))
    for person, trail in zip(*linear_sum_assignment(costs), strict=True):
        if costs[person, trail] < _FORBIDDEN:
            matched[person] = active[trail]
    return matched
