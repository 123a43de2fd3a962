"""The pictures of `fit-cli synth`, batch by batch, so that a run can be killed and gone on with.

    images/000000.jpg, masks/000000.png   of each picture
    unfinished/settings.json              what is drawn; written first
    unfinished/batch-000000.json          what is true of a batch, and the checksums of its files

A batch is done when its record is there and its files are those that the record means. The folder
`unfinished` goes when the run is finished.
"""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from fitting.body import load_body
from fitting.differences import differences, shown
from fitting.files import InputError, prepare_output, write_atomically, write_json
from fitting.images import write_image
from fitting.opencv import import_cv2
from fitting.table import PARAMETERS
from priors.mocap import load_mocap

from .rendering import BATCH, PictureConfig, PictureStream, RenderedPerson, RenderedPicture

IMAGES, MASKS = "images", "masks"
_UNFINISHED, _SETTINGS = "unfinished", "settings.json"
_LEFTOVERS = ".*.tmp"  # of `write_atomically`, where it was killed


@dataclass(frozen=True, kw_only=True)
class SetConfig:
    """A folder of pictures.

    Attributes:
        count: number of pictures.
        seed: of everything.
        pictures: what to draw.
        suffix: "jpg" or "png".
        body: file of the body; the bundled one if none.
        jobs: processes; none means one for each core. The files do not depend on it.
    """

    count: int
    seed: int = 0
    pictures: PictureConfig = field(default_factory=PictureConfig)
    suffix: str = "jpg"
    body: Path | None = None
    jobs: int | None = None

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"count must be at least 1 picture, got {self.count}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")
        if self.jobs is not None and self.jobs < 1:
            raise ValueError(f"jobs must be at least 1, got {self.jobs}")
        if self.suffix not in ("jpg", "png"):
            raise ValueError(f"suffix must be jpg or png, got {self.suffix!r}")

    @property
    def batches(self) -> range:
        """The first pictures of the batches."""
        return range(0, self.count, BATCH)

    def plain(self) -> dict[str, Any]:
        """What the files depend on, as JSON can hold it."""
        settings = asdict(self)
        del settings["jobs"]
        return json.loads(json.dumps(settings, default=str))


@dataclass(frozen=True, kw_only=True)
class SeenPerson:
    """A person in a picture, as the files have it."""

    person: RenderedPerson
    box: tuple[int, int, int, int]  # x, y, width, height of the pixels seen
    area: int  # number of these pixels
    runs: list[int]  # lengths of runs outside and inside, column by column: COCO's RLE


@dataclass(frozen=True, kw_only=True)
class PictureRow:
    """A picture that was written."""

    name: str
    intrinsics: NDArray[np.floating]
    people: tuple[SeenPerson, ...]


class BatchFolder:
    """The pictures of a run in its folder, and what is known of the batches that are done."""

    def __init__(self, folder: Path, config: SetConfig) -> None:
        self.folder, self.config = folder, config

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Make the folder ready for a new run.

        Args:
            settings: by which `check` tells the run from another one.

        Raises:
            OutputError: it cannot be written.
        """
        self.finish()  # what an earlier run left there
        prepare_output(self.folder / _UNFINISHED, overwrite=True)
        write_json(self.folder / _UNFINISHED / _SETTINGS, settings)
        self._make_folders()

    def _make_folders(self) -> None:
        """The folders of pictures, without what killed writers left half written."""
        for name in (IMAGES, MASKS):
            prepare_output(self.folder / name, overwrite=True)
        for folder in (self.folder, *(self.folder / n for n in (IMAGES, MASKS, _UNFINISHED))):
            _remove(folder.glob(_LEFTOVERS))

    def others(self) -> list[str]:
        """Names in the folder that a run has not left there before it began."""
        return sorted(
            path.name
            for path in self.folder.iterdir()
            if path.name != _UNFINISHED and not path.match(_LEFTOVERS)
        )

    def is_begun(self) -> bool:
        """Whether there is a run that did not finish."""
        return (self.folder / _UNFINISHED / _SETTINGS).exists()

    def check(self, settings: Mapping[str, Any]) -> None:
        """See that the run that did not finish is the one that is wanted.

        Raises:
            InputError: it is another; the message names what differs.
        """
        path = self.folder / _UNFINISHED / _SETTINGS
        try:
            found = dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"{path} is damaged; begin again with --overwrite") from error
        check_same(self.folder, found, settings)

    def find_done(self) -> list[int]:
        """First pictures of the batches that are done; leftovers of killed writers are removed."""
        self._make_folders()
        return [start for start in self.config.batches if self._is_done(start)]

    def _is_done(self, start: int) -> bool:
        try:
            checksums = self._read(start)["checksums"]
            return all(_checksum(self.folder / file) == c for file, c in checksums.items())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return False  # half a record is none: the batch is drawn again

    def count(self, starts: Sequence[int]) -> int:
        """Pictures of some batches."""
        return sum(min(BATCH, self.config.count - start) for start in starts)

    def draw(self, start: int) -> int:
        """Draw and write the pictures of the batch from number `start` on; returns how many."""
        config = self.config
        with _one_thread():
            stream = _open_stream(config.body, config.pictures, config.seed)
            pictures = stream.pictures(start // BATCH, self.count([start]))
        rows, files = [], []
        for number, picture in enumerate(pictures, start=start):
            name = f"{number:06d}.{config.suffix}"
            image, mask = f"{IMAGES}/{name}", f"{MASKS}/{number:06d}.png"
            # Checksums tell after a power cut what the disk has not; waiting for it would take
            # as long as drawing.
            write_image(self.folder / image, picture.image, durable=False)
            _write_mask(self.folder / mask, picture.parts)
            files += [image, mask]
            rows.append(_plain_row(name, picture))
        checksums = {file: _checksum(self.folder / file) for file in files}
        text = json.dumps({"checksums": checksums, "rows": rows}, separators=(",", ":"))
        write_atomically(self._record(start), lambda stream: stream.write(text.encode("utf-8")))
        return len(rows)

    def rows(self) -> Iterator[PictureRow]:
        """All pictures in order, when all batches are done."""
        for start in self.config.batches:
            for row in self._read(start)["rows"]:
                yield PictureRow(
                    name=row["name"],
                    intrinsics=np.array(row["intrinsics"]),
                    people=tuple(_restore_person(person) for person in row["people"]),
                )

    def finish(self) -> None:
        """Remove the records, which say nothing more than the files of the finished run."""
        unfinished = self.folder / _UNFINISHED
        _remove(sorted(unfinished.glob("*.json")))  # settings last: a kill here may cost time only
        _remove(unfinished.glob(_LEFTOVERS))
        with contextlib.suppress(OSError):  # there is none, or somebody put something there
            unfinished.rmdir()

    def _record(self, start: int) -> Path:
        return self.folder / _UNFINISHED / f"batch-{start:06d}.json"

    def _read(self, start: int) -> dict[str, Any]:
        return json.loads(self._record(start).read_text(encoding="utf-8"))


def check_same(folder: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """See that a run in a folder is the one that is wanted.

    Raises:
        InputError: a setting differs; the message names it.
    """
    known = {name: found.get(name) for name in wanted}
    for name, before, now in differences(known, wanted):
        raise InputError(
            f"{folder} holds a run with {name} {shown(before)}, not {shown(now)}; go on with the "
            "same options, or begin again with --overwrite"
        )


def _remove(paths: Iterable[Path]) -> None:
    for path in list(paths):
        path.unlink(missing_ok=True)


@lru_cache(maxsize=1)
def _open_stream(body: Path | None, config: PictureConfig, seed: int) -> PictureStream:
    """A process keeps its stream from batch to batch: preparing one takes half a second."""
    return PictureStream(load_body(body), load_mocap(), config, seed=seed)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """The processes share the cores, and sums depend on how many threads they are shared by."""
    cv2 = import_cv2()
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def _write_mask(path: Path, mask: NDArray[np.uint8]) -> None:
    """As PNG; its least effort is enough for areas of one value, and takes half the time."""
    picture = Image.fromarray(mask)
    write_atomically(
        path, lambda stream: picture.save(stream, "PNG", compress_level=1), durable=False
    )


def _checksum(path: Path) -> int:
    return zlib.crc32(path.read_bytes())


def _plain_row(name: str, picture: RenderedPicture) -> dict[str, Any]:
    """A picture as JSON can hold it, every number to its last bit."""
    return {
        "name": name,
        "intrinsics": picture.intrinsics.tolist(),
        "people": [
            {
                **{key: getattr(person, key).tolist() for key in _PERSON},
                **_outline(picture.owner == i),
            }
            for i, person in enumerate(picture.people)
        ],
    }


_PERSON = (*PARAMETERS, "keypoints_2d", "visibility")


def _restore_person(plain: Mapping[str, Any]) -> SeenPerson:
    return SeenPerson(
        person=RenderedPerson(**{key: np.array(plain[key]) for key in _PERSON}),
        box=tuple(plain["box"]),
        area=plain["area"],
        runs=plain["runs"],
    )


def _outline(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Box, area and runs (`SeenPerson`) of a mask (H, W) that is not empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = (columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1)
    return {"box": [int(v) for v in box], "area": int(mask.sum()), "runs": _run_lengths(mask)}


def _run_lengths(mask: NDArray[np.bool_]) -> list[int]:
    """Lengths of the runs of False, True, False ... in a mask (H, W), down its columns."""
    values = mask.ravel(order="F")
    changes = np.flatnonzero(values[1:] != values[:-1]) + 1
    lengths = np.diff(np.concatenate([[0], changes, [values.size]])).tolist()
    return [0, *lengths] if values[0] else lengths
