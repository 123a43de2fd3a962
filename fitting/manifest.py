"""What stands in the folder of a run in shards, so that it can be killed and gone on with.

    manifest.json             what is fitted and how; the first file written, and never changed
    fits/part-00000.parquet   the fits of the first shard
    fits/_part-00000.json     its receipt, written after it: the part's hash, and what was wrong
    run.json                  written when there is a receipt for every shard

Readers of folders of Parquet files let names pass that begin with an underscore.

A manifest depends on nothing but the input and the settings, so that processes that share a run
write the same one. A shard is done when its receipt is of this manifest and its part has the hash
in the receipt; anything else in the folder does not count.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from .differences import shown
from .files import InputError
from .storage import (
    exists,
    files_in,
    prepare_folder,
    read_whole,
    remove,
    write_json,
    write_whole,
)

MANIFEST = "manifest.json"
RECORD = "run.json"
FILE_NAME = "fits.parquet"  # of a run that is not in shards
PARTS_FOLDER = "fits"
_FORMAT, _VERSION = "bodyloop run in shards", 2  # 2: receipts tell the batch size
_PART_FILE = re.compile(r"part-(\d+)\.parquet|_part-(\d+)\.json")
# Of `files.write_atomically` and `prepare_output`, where they were killed.
_LEFTOVER = re.compile(r"\.(?:_?part-(\d+)\.)?.*\.tmp")


def part_name(shard: int) -> str:
    """File name of a shard's fits."""
    return f"part-{shard:05d}.parquet"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What is fitted and how: whatever the results depend on.

    Attributes:
        input_sha256: of the people to fit, or of the file they are in.
        num_rows: of the input.
        shard_size: rows in a shard; the last one may have fewer.
        settings: as JSON can hold them.
    """

    input_sha256: str
    num_rows: int
    shard_size: int
    settings: Mapping[str, Any]

    @property
    def shards(self) -> list[tuple[int, int]]:
        """First row of each shard, and the row after its last; one empty shard if no rows."""
        firsts = range(0, max(self.num_rows, 1), self.shard_size)
        return [(first, min(first + self.shard_size, self.num_rows)) for first in firsts]

    @property
    def content(self) -> dict[str, Any]:
        """Of the file."""
        return {
            "format": _FORMAT,
            "version": _VERSION,
            "input": {"sha256": self.input_sha256, "rows": self.num_rows},
            "shard_size": self.shard_size,
            "settings": dict(self.settings),
            "shards": [list(rows) for rows in self.shards],
        }

    @cached_property
    def key(self) -> str:
        """SHA-256 of the content, by which receipts name the run that they are of."""
        return _hash(json.dumps(self.content, sort_keys=True, allow_nan=False).encode("utf-8"))


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def read_manifest(output: Path) -> Manifest | None:
    """The manifest of the run in a folder; none where there is no run in shards.

    Raises:
        InputError: it is damaged or cannot be read, or is of another version of this program.
    """
    path = output / MANIFEST
    try:
        content = json.loads(read_whole(path))
        if content["format"] == _FORMAT and content["version"] != _VERSION:
            raise InputError(
                f"{path} has version {content['version']}, this program reads {_VERSION}; use the "
                "program that wrote it, or begin again with --overwrite"
            )
        manifest = Manifest(
            input_sha256=content["input"]["sha256"],
            num_rows=int(content["input"]["rows"]),
            shard_size=int(content["shard_size"]),
            settings=dict(content["settings"]),
        )
        is_sound = manifest.shard_size > 0 and manifest.content == content
    except (FileNotFoundError, NotADirectoryError):
        return None
    except InputError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path) from error
    if not is_sound:
        raise _damaged(path)
    return manifest


def _damaged(path: Path) -> InputError:
    return InputError(f"{path} is damaged; copy it again, or begin again with --overwrite")


def check_same(output: Path, found: Manifest, wanted: Manifest) -> None:
    """See that the run in a folder is the one that is wanted.

    Raises:
        InputError: it is another; the message names the first difference.
    """
    fix = "go on as it was begun, or begin again with --overwrite"
    if found.input_sha256 != wanted.input_sha256:
        raise InputError(
            f"{output} holds a run of another input, or its input was changed since; {fix}"
        )
    was = {"shard_size": found.shard_size, **found.settings}
    now = json.loads(json.dumps({"shard_size": wanted.shard_size, **wanted.settings}))
    for name in [*now, *(name for name in was if name not in now)]:
        if was.get(name) != now.get(name):
            raise InputError(
                f"{output} holds a run with {name} {shown(was.get(name))}, not "
                f"{shown(now.get(name))}; {fix}"
            )


class ShardFolder:
    """The files of one run in shards."""

    def __init__(self, output: Path, manifest: Manifest) -> None:
        self.output, self.manifest = output, manifest

    def part(self, shard: int) -> Path:
        """File of a shard's fits."""
        return self.output / PARTS_FOLDER / part_name(shard)

    def receipt(self, shard: int) -> dict[str, Any] | None:
        """What was said of a shard when it was written; none if nothing, or for another run."""
        try:
            receipt = json.loads(read_whole(self._receipt_path(shard)))
            return receipt if receipt["run"] == self.manifest.key else None
        except (OSError, ValueError, KeyError, TypeError):
            return None  # half a receipt means no more than none: the shard is fitted again

    def is_done(self, shard: int) -> bool:
        """Whether a shard's part is there, as it was written to the last bit."""
        receipt = self.receipt(shard)
        try:
            return receipt is not None and _hash(read_whole(self.part(shard))) == receipt["sha256"]
        except (OSError, InputError, KeyError):
            return False

    def write(self, shard: int, part: bytes, facts: Mapping[str, Any]) -> None:
        """Write a shard's fits, a Parquet file, and then its receipt.

        Raises:
            OutputError: the disk is full and the like; the shard is not done then.
        """
        write_whole(self.part(shard), part)
        receipt = {
            "run": self.manifest.key,
            "rows": list(self.manifest.shards[shard]),
            "sha256": _hash(part),
            **facts,
        }
        write_json(self._receipt_path(shard), receipt)

    def write_record(self, record: Mapping[str, Any]) -> None:
        """Write `run.json`: every shard is done.

        Raises:
            OutputError: it cannot be written.
        """
        write_json(self.output / RECORD, record)

    def begin(self, shards: Iterable[int]) -> None:
        """Make the folder ready for some shards of a new run, or of one that was killed.

        What cannot count is removed: what killed writers left, and what an earlier run left.

        Args:
            shards: that this process is going to write; those of others are let alone.
        """
        if not self._is_begun():
            write_json(self.output / MANIFEST, self.manifest.content)
        prepare_folder(self.output / PARTS_FOLDER, overwrite=True)
        for path in [*self._stale(set(shards))]:
            remove(path)

    def _is_begun(self) -> bool:
        try:
            return read_manifest(self.output) == self.manifest
        except InputError:  # damaged, or of another version: who goes on was refused before
            return False

    def _stale(self, own: Set[int]) -> Iterator[Path]:
        """What cannot count, and is of the shards `own` or of nobody."""
        is_alone = len(own) == len(self.manifest.shards)
        in_parts = files_in(self.output / PARTS_FOLDER)
        yield from (self.output / FILE_NAME, self.output / RECORD)
        yield from (path for path in in_parts if not self._is_of_run(path))
        for path in (*files_in(self.output), *in_parts):
            leftover = _LEFTOVER.fullmatch(path.name)
            if leftover and (is_alone or (leftover[1] and int(leftover[1]) in own)):
                yield path

    def _is_of_run(self, path: Path) -> bool:
        """Whether a file may stay: it is of one of the shards, or is none of ours."""
        match = _PART_FILE.fullmatch(path.name)
        return match is None or int(match[1] or match[2]) < len(self.manifest.shards)

    def _receipt_path(self, shard: int) -> Path:
        return self.output / PARTS_FOLDER / f"_part-{shard:05d}.json"


def finished_parts(output: Path) -> list[Path] | None:
    """The parts of the run in a folder, in order; none where there is no run in shards.

    Raises:
        InputError: the run is not finished.
    """
    manifest = read_manifest(output)
    if manifest is None:
        return None
    folder = ShardFolder(output, manifest)
    shards = range(len(manifest.shards))
    absent = [n for n in shards if folder.receipt(n) is None or not folder.part(n).is_file()]
    if absent:
        raise InputError(
            f"{output} holds {len(shards) - len(absent)} of the {len(shards)} shards of a run; "
            f"finish it with fit-cli fit ... --resume, or give {output / PARTS_FOLDER} for what is "
            "there"
        )
    return [folder.part(n) for n in shards]


def prepare_resume(output: Path) -> None:
    """See that a folder holds a run in shards, or nothing yet.

    Raises:
        InputError: it holds something else.
        OutputError: it cannot be written.
    """
    prepare_folder(output, overwrite=True)
    # In this order: another process may begin the same run meanwhile, with the manifest.
    names = (path.name for path in files_in(output))
    others = sorted(name for name in names if not _LEFTOVER.fullmatch(name))
    if others and not exists(output / MANIFEST):
        raise InputError(
            f"{output} holds {others[0]} but no {MANIFEST}, so it is no run in shards; choose "
            "another folder, or begin again with --overwrite"
        )


def remove_manifest(output: Path) -> None:
    """From now on the parts in the folder are leftovers: another kind of run replaces theirs."""
    with contextlib.suppress(FileNotFoundError):
        (output / MANIFEST).unlink()


def remove_parts(output: Path) -> None:
    """Remove what is left of a run in shards, whose manifest is gone."""
    parts = output / PARTS_FOLDER
    if parts.is_dir():
        for path in parts.iterdir():
            if _PART_FILE.fullmatch(path.name):
                path.unlink()
        with contextlib.suppress(OSError):  # it holds something else
            parts.rmdir()
