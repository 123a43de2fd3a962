"""The people of a run in shards, some rows at a time.

Plain `.npz` files and fits tables are read as the shards need them, so that memory does not grow
with the file; whatever else people come from is read at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from .clock import StageClock
from .estimates import Estimates, match_estimates
from .files import InputError
from .people import Problem, hash_people
from .readers import recognise_format
from .readers.common import Request
from .shard_files import (
    NotByRowsError,
    PeopleOfArrays,
    PeopleOfTable,
    Rows,
    changed_error,
    state_of,
)
from .sources import Progress, SourceConfig, find_people, is_keypoint_source
from .storage import is_remote, local_copy


class PeopleSource(Protocol):
    """Where the people of a run in shards come from.

    Attributes:
        sha256: of what is read, 64 hexadecimal digits.
        num_rows: the bad ones included.
        problems: that belong to no row.
        images: folder of the pictures; None where there are none.
        empty: names of pictures without a person.
    """

    sha256: str
    num_rows: int
    problems: list[Problem]
    images: Path | None
    empty: list[str]

    def read(self, first: int, last: int) -> Rows:
        """The rows from `first` to before `last`; quickest where each call goes on from the last.

        Raises:
            InputError: the file is damaged, or was changed since it was opened.
        """

    def check_pictures(self, first: int, last: int) -> None:
        """See that the pictures of some rows are what they were when the source was opened.

        Nobody looks where the source was opened for a run that sees no pictures.

        Raises:
            InputError: one was replaced, or written to.
        """

    def close(self) -> None:
        """Let go of the files; nothing can be read any more."""


def open_people(
    config: SourceConfig,
    estimates: Estimates | None,
    clock: StageClock,
    progress: Progress,
    *,
    sees_pictures: bool = False,
) -> PeopleSource:
    """The people of a run, read as they are needed where the format lets it.

    Args:
        config: where they come from.
        estimates: of everyone; with them people are read at once, to be matched.
        clock: with the stages "load" and "detect".
        progress: told of detection.
        sees_pictures: the run looks at the pictures of its shards as they are fitted.

    Raises:
        ValueError, OSError: there is nobody; the message is one sentence with the fix.
    """
    if is_remote(config.input):
        return PeopleElsewhere(config, estimates, clock, progress)
    with clock.time("load"):
        source = _open_stream(config) if estimates is None else None
    return source or PeopleAtOnce(config, estimates, clock, progress, sees_pictures)


def _open_stream(config: SourceConfig) -> PeopleSource | None:
    """A file that can be read some rows at a time, if that is what people come from."""
    if config.keypoints or config.images or not is_keypoint_source(config.input):
        return None
    kind = config.keypoint_format
    kind = recognise_format(config.input) if kind == "auto" else kind
    request = Request(path=config.input, keypoint_set=config.keypoint_set)
    if kind == "fits":
        return PeopleOfTable(request)
    if kind == "npz" and request.is_zip:
        try:
            return PeopleOfArrays(request)
        except NotByRowsError:
            return None
    return None


class PeopleElsewhere:
    """The people of a file in an object store, which is copied to this machine first."""

    images: Path | None = None

    def __init__(
        self,
        config: SourceConfig,
        estimates: Estimates | None,
        clock: StageClock,
        progress: Progress,
    ) -> None:
        self._url = str(config.input)
        with ExitStack() as opened:
            with clock.time("load"):
                self._copy = opened.enter_context(local_copy(config.input))
            with self._naming():
                source = open_people(replace(config, input=self._copy), estimates, clock, progress)
            self._source = opened.enter_context(closing(source))
            self._opened = opened.pop_all()
        self.sha256, self.num_rows = source.sha256, source.num_rows
        self.problems, self.empty = self._named(source.problems), source.empty

    def read(self, first: int, last: int) -> Rows:
        """See `PeopleSource`."""
        with self._naming():
            rows = self._source.read(first, last)
        return replace(rows, problems=self._named(rows.problems))

    def check_pictures(self, first: int, last: int) -> None:
        """There are none."""

    def close(self) -> None:
        """See `PeopleSource`."""
        self._opened.close()

    def _named(self, problems: list[Problem]) -> list[Problem]:
        """As problems of the URL: nobody knows the copy."""
        return [replace(problem, file=self._url) for problem in problems]

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """Errors likewise."""
        try:
            yield
        except InputError as error:
            raise InputError(str(error).replace(str(self._copy), self._url)) from error


class PeopleAtOnce:
    """People who were all read, or detected, before the first shard."""

    def __init__(
        self,
        config: SourceConfig,
        estimates: Estimates | None,
        clock: StageClock,
        progress: Progress,
        sees_pictures: bool,
    ) -> None:
        found = find_people(config, clock, progress)
        self._people = found.people
        self._estimates = None if estimates is None else match_estimates(estimates, found.people)
        self.sha256, self.num_rows = hash_people(found.people), len(found.people)
        self.problems, self.images, self.empty = found.problems, found.images, found.empty
        self._sees_pictures = sees_pictures
        self._pictures = {path: state_of(path) for path in self._paths(0, self.num_rows)}

    def read(self, first: int, last: int) -> Rows:
        """See `PeopleSource`."""
        rows = slice(first, last)
        estimates = None if self._estimates is None else self._estimates.select(rows)
        return Rows(people=self._people.select(rows), estimates=estimates)

    def check_pictures(self, first: int, last: int) -> None:
        """See `PeopleSource`."""
        for path in self._paths(first, last):
            if state_of(path) != self._pictures[path]:
                raise changed_error(path)

    def close(self) -> None:
        """Nothing is open."""

    def _paths(self, first: int, last: int) -> list[Path]:
        """Of the pictures of some rows; of none that the run does not look at.

        To ask a network file system for the state of each takes long.
        """
        if self.images is None or not self._sees_pictures:
            return []
        return [self.images / name for name in np.unique(self._people.image[first:last]) if name]
