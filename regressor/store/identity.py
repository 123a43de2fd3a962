"""What a fit store is for, as its manifest says, and whether that is what is wanted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fitting.files import InputError, write_json

from .fits import Rule

FORMAT, VERSION = "bodyloop fit store", 1
MANIFEST = "manifest.json"

_HASHED_ROWS = 1 << 16  # at once


@dataclass(frozen=True, kw_only=True)
class DatasetIdentity:
    """What a data set is known by.

    Attributes:
        name: unique in a store.
        num_rows: people.
        sha256: of its rows, see `hash_fit_inputs`.
    """

    name: str
    num_rows: int
    sha256: str

    def __post_init__(self) -> None:
        if self.num_rows < 1:
            raise ValueError(f"{self.name} must have at least one row, got {self.num_rows}")


@dataclass(frozen=True, kw_only=True)
class StoreIdentity:
    """What a store is for; costs of anything else cannot be compared with its own.

    Attributes:
        body_sha256: of the body that parameters belong to.
        datasets: in order.
        energy: text that tells one energy's settings from another's, such as the JSON of its
            weights. Costs under two energies are two kinds of numbers.
        rule: which of two fits is the better one: "map", of lower cost, or "spin", of lower mean
            2D error, as Kolotouros et al. (ICCV 2019) have it.
    """

    body_sha256: str
    datasets: tuple[DatasetIdentity, ...]
    energy: str = ""
    rule: Rule = "map"

    def __post_init__(self) -> None:
        names = [dataset.name for dataset in self.datasets]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"a store needs data sets of different names, got {names}")
        if self.rule not in ("map", "spin"):
            raise ValueError(f"rule must be map or spin, got {self.rule!r}")

    @property
    def num_rows(self) -> int:
        """People of all data sets."""
        return sum(dataset.num_rows for dataset in self.datasets)


def hash_fit_inputs(
    image: NDArray[np.str_], keypoints_2d: ArrayLike, conf: ArrayLike, intrinsics: ArrayLike
) -> str:
    """SHA-256 of what fits of a data set's people depend on, 64 hexadecimal digits.

    Other columns, such as who is who in a video, may change: `fitting.people.hash_people` has all.

    Args:
        image: (N,) names of the pictures.
        keypoints_2d: (N, P, 2) pixels.
        conf: (N, P).
        intrinsics: (N, 3, 3) pixels. With another focal length, a fit's cost and distance are
            those of another camera.
    """
    digest = hashlib.sha256()
    columns = [np.asarray(column) for column in (keypoints_2d, conf, intrinsics)]
    digest.update(repr([len(image), *(column.shape[1:] for column in columns)]).encode())
    for start in range(0, len(image), _HASHED_ROWS):
        some = slice(start, start + _HASHED_ROWS)
        digest.update("\0".join(image[some].tolist()).encode("utf-8", "surrogatepass"))
        for column in columns:
            digest.update(np.ascontiguousarray(column[some], "<f4").tobytes())
    return digest.hexdigest()


def _read_manifest(folder: Path) -> Mapping[str, Any]:
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"{folder}: is no fit store, or one that was never finished; begin a new run"
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: is damaged; copy the store again") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise InputError(f"{path}: is not of a fit store; check the path")
    if manifest.get("version") != VERSION:
        raise InputError(
            f"{path}: has version {manifest.get('version')}, this program reads version {VERSION}; "
            "use the program that wrote it"
        )
    return manifest


def write_identity(folder: Path, identity: StoreIdentity) -> None:
    """Write the manifest, by which a folder becomes a store.

    Raises:
        OutputError: it cannot be written.
    """
    content = {"format": FORMAT, "version": VERSION, **asdict(identity)}
    write_json(folder / MANIFEST, content)


def check_identity(folder: Path, wanted: StoreIdentity) -> None:
    """See that a store is for what it is wanted for.

    Raises:
        InputError: it is no store, or is for something else; the message names the first
            difference and the fix.
    """
    manifest = _read_manifest(folder)
    try:
        datasets = tuple(DatasetIdentity(**dataset) for dataset in manifest["datasets"])
        others = {name: manifest[name] for name in ("body_sha256", "energy", "rule")}
        found = StoreIdentity(datasets=datasets, **others)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder / MANIFEST}: is damaged; copy the store again") from error
    if found.body_sha256 != wanted.body_sha256:
        raise InputError(
            f"{folder}: its fits are of the body {found.body_sha256[:12]}, not of "
            f"{wanted.body_sha256[:12]}; give its body as data.body, or begin a new run"
        )
    for name in ("rule", "energy"):
        was, now = getattr(found, name), getattr(wanted, name)
        if was != now:
            raise InputError(
                f"{folder}: its fits were judged by the {name} {was!r}, not by {now!r}, so they "
                "cannot be compared; resume with the same config or begin a new run"
            )
    _check_datasets(folder, found, wanted)


def _check_datasets(folder: Path, found: StoreIdentity, wanted: StoreIdentity) -> None:
    fix = "give the data sets that it was made for, or begin a new run"
    names = [[dataset.name for dataset in identity.datasets] for identity in (found, wanted)]
    if names[0] != names[1]:
        raise InputError(
            f"{folder}: is of the data sets {', '.join(names[0])}, not of {', '.join(names[1])}; "
            f"{fix}"
        )
    for was, now in zip(found.datasets, wanted.datasets, strict=True):
        if was.num_rows != now.num_rows:
            raise InputError(
                f"{folder}: the data set {was.name} had {was.num_rows} people, now it has "
                f"{now.num_rows}; {fix}"
            )
        if was.sha256 != now.sha256:
            raise InputError(
                f"{folder}: the people of the data set {was.name} changed (pictures' names, "
                f"keypoints or cameras) since the store was written; {fix}"
            )
