"""What a network says of the same few people at each evaluation, and the fits known of them then.

For readers of the run, who see both side by side (docs/report.md); `snapshot_files` has the files.
Who is shown follows from the config alone. As lines of metrics.jsonl, snapshots that an unfinished
sitting took after its last checkpoint are dropped when the run goes on, and taken again.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from fitting.camera import weak_to_transl
from fitting.images import JPEG_QUALITY, ImageError
from fitting.problem import PARAMETERS, BodyParams

from .crops import crop_matrix, cut_crop, normalise_crops, transform_points
from .heads import ImageEstimate
from .image_people import Floats, reduced_crop
from .image_sources import Pictured
from .loop import FitLoop
from .snapshot_files import (
    HELD_OUT,
    LEARNED_FROM,
    snapshot_files,
    write_people,
    write_snapshot,
)
from .store.fits import Origin, Rows, StoredFits
from .task import Batch

SHOWN = 8  # people of either kind
Predict = Callable[[Batch], ImageEstimate]


@dataclass(frozen=True, kw_only=True)
class ShownPeople:
    """K people and their crops.

    Attributes:
        group: (K,) str, `HELD_OUT` or `LEARNED_FROM`.
        dataset: (K,) str, in the store of fits; "" of those held out.
        row: (K,) of the data set, or of the source of those held out; -1 where it has none.
        image: (K,) str, "" where it is not in a folder.
        pixels: (K, S, S, 3) uint8 RGB.
        crop: (K, 3) centre x, y and side, full-image pixels.
        intrinsics: (K, 3, 3) pixels of the full image.
        keypoints_2d, conf: (K, P, 2) full-image pixels and (K, P).
        truth: (K, 85) global_orient, body_pose, betas and transl side by side; NaN where unknown.
    """

    group: NDArray[np.str_]
    dataset: NDArray[np.str_]
    row: Rows
    image: NDArray[np.str_]
    pixels: NDArray[np.uint8]
    crop: Floats
    intrinsics: Floats
    keypoints_2d: Floats
    conf: Floats
    truth: Floats

    def __len__(self) -> int:
        return len(self.row)

    @property
    def batch(self) -> Batch:
        """What networks are given."""
        return {
            "images": normalise_crops(self.pixels),
            "crop": torch.from_numpy(self.crop.astype(np.float32)),
            "intrinsics": torch.from_numpy(self.intrinsics.astype(np.float32)),
        }


def concatenate_shown(parts: Iterable[ShownPeople]) -> ShownPeople:
    """People of all parts, at least one, in order."""
    parts = list(parts)
    names = [field.name for field in fields(ShownPeople)]
    return ShownPeople(**{n: np.concatenate([getattr(part, n) for part in parts]) for n in names})


def cut_shown(taken: Pictured, size: int, *, dataset: str = "") -> ShownPeople:
    """The people of a source whose picture can be read, in crops of `size` pixels.

    Args:
        taken: N of them.
        size: pixels across.
        dataset: that they are learned from in the loop; "" means that they are held out.
    """
    cut = [_cut(taken, i, size) for i in range(len(taken.people))]
    crops = [crop for crop in cut if crop is not None]
    is_read = np.array([crop is not None for crop in cut], bool)
    people, K = taken.people.select(is_read), len(crops)
    truth = np.concatenate([people.rotvec.reshape(K, 72), people.betas, people.transl], axis=1)
    return ShownPeople(
        group=np.full(K, LEARNED_FROM if dataset else HELD_OUT),
        dataset=np.full(K, dataset),
        row=taken.rows[is_read],
        image=people.image,
        pixels=np.stack(crops) if crops else np.empty((0, size, size, 3), np.uint8),
        crop=people.crop,
        intrinsics=people.intrinsics,
        keypoints_2d=people.keypoints_2d,
        conf=people.conf,
        truth=np.where(people.has_params[:, None], truth, np.nan),
    )


def _cut(taken: Pictured, i: int, size: int) -> NDArray[np.uint8] | None:
    """The crop (S, S, 3) of a person as the network sees it; None if it cannot be read."""
    crop = np.asarray(taken.people.crop[i], np.float64)
    try:
        opened = taken.open(i, crop[2] / size)
    except ImageError:
        return None
    return cut_crop(opened.image, reduced_crop(crop, opened.reduction), size)


class Snapshots:
    """Takes the snapshots of a run while it trains."""

    def __init__(self, run: Path, choose: Callable[[], ShownPeople], body_sha256: str) -> None:
        """In the folder of a run; nothing is read or written yet.

        Args:
            run: folder.
            choose: who is shown; asked once.
            body_sha256: of the body that parameters belong to.
        """
        self._run, self._choose, self._body_sha256 = run, choose, body_sha256

    def keep_until(self, step: int) -> None:
        """Drop snapshots of later steps; -1 drops all, those of an earlier run in the folder."""
        for number, path in snapshot_files(self._run).items():
            if number > step:
                path.unlink(missing_ok=True)

    def take(self, step: int, predict: Predict, loop: FitLoop | None) -> None:
        """Write what a network says of the people, and the best fits that the loop knows.

        Raises:
            OutputError: the disk is full, and the like.
        """
        people = self._people
        if len(people) == 0:
            return
        fits = _fits_of(people, loop)
        known = fits.is_known
        columns = {
            "estimate": _lists(_estimated(people, predict)),
            "fit": _lists(fits.params, known),
            "joint_std_mm": _lists(fits.joint_std_mm, known),
            "cost": _numbers(fits.cost, known),
            "error_px": _numbers(fits.error_px, known),
            "origin": [Origin(origin).label for origin in fits.origin],
            "epoch": fits.epoch,
        }
        write_snapshot(self._run, step, columns)

    @cached_property
    def _people(self) -> ShownPeople:
        """Whom the snapshots show; written when they are chosen."""
        people = self._choose()
        size = people.pixels.shape[1]
        matrices = [crop_matrix(crop, size) for crop in people.crop]
        points = zip(people.keypoints_2d, people.conf, matrices, strict=True)
        cameras = zip(matrices, people.intrinsics, strict=True)
        columns = {
            **{n: getattr(people, n).tolist() for n in ("group", "dataset", "row", "image")},
            "size": [size] * len(people),
            "camera": [_camera(matrix, intrinsics) for matrix, intrinsics in cameras],
            "keypoints": [transform_points(p[c > 0], m).ravel().tolist() for p, c, m in points],
            "truth": _lists(people.truth, ~np.isnan(people.truth[:, 0])),
            "picture": [_encode(crop) for crop in people.pixels],
        }
        write_people(self._run, columns, body_sha256=self._body_sha256)
        return people


def _estimated(people: ShownPeople, predict: Predict) -> NDArray[np.float32]:
    """(K, 85) what a network says, in the cameras of the pictures."""
    batch = people.batch
    rotations, betas, weak_cam = (part.detach().float().cpu() for part in predict(batch)[:3])
    transl = weak_to_transl(weak_cam, batch["crop"], batch["intrinsics"])
    return BodyParams.from_rotations(rotations, betas, transl).pack(PARAMETERS).numpy()


def _fits_of(people: ShownPeople, loop: FitLoop | None) -> StoredFits:
    """The best fits known; none of those held out."""
    parts = []
    for dataset in dict.fromkeys(people.dataset.tolist()):  # people of one stand together
        rows = people.row[people.dataset == dataset]
        if loop is None or not dataset:
            parts.append(StoredFits.nothing(len(rows)))
        else:
            parts.append(loop.opened.read(dataset, rows))
    return StoredFits.concatenate(parts)


def _camera(matrix: Floats, intrinsics: Floats) -> list[float]:
    """fx, fy, cx, cy of a crop's pixels."""
    moved = np.vstack([matrix, [0, 0, 1]]) @ intrinsics
    return [moved[0, 0], moved[1, 1], moved[0, 2], moved[1, 2]]


def _encode(crop: NDArray[np.uint8]) -> bytes:
    """A JPEG."""
    stream = io.BytesIO()
    Image.fromarray(crop).save(stream, "JPEG", quality=JPEG_QUALITY)
    return stream.getvalue()


def _lists(values: Floats, known: NDArray[np.bool_] | None = None) -> list[list[float] | None]:
    """Rows as lists; None where they are not known."""
    known = np.ones(len(values), bool) if known is None else known
    rows = values.astype(np.float32).tolist()
    return [row if there else None for row, there in zip(rows, known, strict=True)]


def _numbers(values: Floats, known: NDArray[np.bool_]) -> list[float | None]:
    """None where they are not known."""
    return [v if there else None for v, there in zip(values.tolist(), known, strict=True)]
