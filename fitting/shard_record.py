"""What came of a run in shards: the receipts of its shards become `run.json`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .files import InputError
from .manifest import PARTS_FOLDER, ShardFolder, part_name
from .people import Problem
from .problem import count_fits
from .run_config import RunConfig, plain, refines
from .shard_sources import PeopleSource
from .versions import find_versions

_MOST_PROBLEMS = 1000  # named in `run.json`; the receipts name all


@dataclass(frozen=True, kw_only=True)
class ShardsSummary:
    """What a run in shards came to.

    Attributes:
        done: number of shards that are done now, by whichever process.
        total: number of shards.
        interrupted: whether it ended early because it was told to.
        problems: rows and pictures that something was wrong with, the first thousand of them.
        num_problems: of all of them.
        record: content of `run.json`; none as long as shards are missing.
    """

    done: int
    total: int
    interrupted: bool
    problems: list[Problem]
    num_problems: int
    record: dict[str, Any] | None


def finish_run(
    config: RunConfig,
    folder: ShardFolder,
    source: PeopleSource,
    *,
    seconds: Mapping[str, float],
    fits_per_second: float | None,
    interrupted: bool,
) -> ShardsSummary:
    """Write `run.json` if every shard is done.

    Args:
        config: of the run.
        folder: of the run.
        source: of its people.
        seconds: by stage, besides those that receipts tell.
        fits_per_second: of this sitting; none where nobody was fitted.
        interrupted: whether this sitting was.

    Raises:
        InputError: a part is not what its receipt says.
        OutputError: `run.json` cannot be written.
    """
    shards, totals, record = len(folder.manifest.shards), _Totals(), None
    totals.add_problems(source.problems)
    for shard in range(shards):
        receipt = folder.receipt(shard)  # one at a time: it may name many problems
        if receipt is not None:
            totals.add(shard, receipt)
    if len(totals.parts) == shards:
        _check_parts(folder.output, totals.parts)
        record = totals.record(config, source.empty, seconds, fits_per_second)
        folder.write_record(record)
    return ShardsSummary(
        done=len(totals.parts),
        total=shards,
        interrupted=interrupted,
        problems=totals.problems,
        num_problems=totals.num_problems,
        record=record,
    )


def _check_parts(output: Path, parts: Sequence[Mapping[str, Any]]) -> None:
    """See that parts are there, of the size that they were written with, perhaps by others.

    Their hashes are for --resume: to read all parts may take longer than to fit a worker's share.

    Args:
        output: folder of the run.
        parts: as `run.json` names them.

    Raises:
        InputError: one is missing, or something else is in its place.
    """
    for part in parts:
        path = output / part["file"]
        fault = _fault_of(path, part["bytes"])
        if fault is not None:
            raise InputError(f"{path} {fault}; --resume without --shards fits it again")


def _fault_of(part: Path, size: int | None) -> str | None:
    """What is wrong with a part of so many bytes, or of who knows how many."""
    try:
        found = part.stat().st_size
    except Exception:  # object stores raise whatever their libraries do
        return "is missing, though its receipt is there"
    if size in (None, found):
        return None
    return f"has {found} bytes, though its receipt says {size}"


@dataclass(kw_only=True)
class _Totals:
    """What the receipts of a run say together."""

    parts: list[dict[str, Any]] = field(default_factory=list)
    status: Counter[str] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)
    batch_sizes: list[int] = field(default_factory=list)
    without_estimate: int = 0
    num_problems: int = 0
    problems: list[Problem] = field(default_factory=list)

    def add(self, shard: int, receipt: dict[str, Any]) -> None:
        part = f"{PARTS_FOLDER}/{part_name(shard)}"
        facts = {name: receipt[name] for name in ("rows", "people", "sha256")}
        facts["bytes"] = receipt.get("bytes")  # which the first receipts did not tell
        self.parts.append({"file": part, **facts})
        self.status.update(receipt["status"])
        self.seconds.update(receipt["seconds"])
        self.batch_sizes.append(receipt["batch_size"])
        self.without_estimate += receipt["without_estimate"]
        self.add_problems([Problem(**problem) for problem in receipt["problems"]])

    def add_problems(self, problems: Sequence[Problem]) -> None:
        self.num_problems += len(problems)
        self.problems += problems[: _MOST_PROBLEMS - len(self.problems)]

    def record(
        self,
        config: RunConfig,
        empty: list[str],
        seconds: Mapping[str, float],
        fits_per_second: float | None,
    ) -> dict[str, Any]:
        """Content of `run.json`."""
        spent = {**seconds, **self.seconds}
        return {
            "command": plain(config),
            "versions": find_versions(),
            "counts": {
                "people": self.status.total(),
                "fitted": count_fits(self.status),
                "status": dict(self.status),
                "without_estimate": self.without_estimate if refines(config) else None,
                "pictures_without_people": len(empty),
                "problems": self.num_problems,
            },
            "batch_size": min(self.batch_sizes),
            "seconds": {stage: round(value, 3) for stage, value in spent.items()},
            "fits_per_second": None if fits_per_second is None else round(fits_per_second, 3),
            "pictures_without_people": empty,
            "problems": [asdict(problem) for problem in self.problems],
            "parts": self.parts,
        }
