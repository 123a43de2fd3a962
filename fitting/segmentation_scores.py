"""How well drawn bodies cover the people of pictures, part by part: `fit-cli evaluate --masks`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from .body import Body, pose_body
from .breakdown import Grouping
from .evaluation import match_people
from .files import InputError
from .groups import Person
from .posing import params_of
from .rasterizer import render_labels
from .skeleton import LSP_PARTS, lsp_part_of_joint
from .table import FitsTable

CLASSES = ("background", *LSP_PARTS)
_NOBODY, _UNKNOWN = 0, 255
_VALUES = 256  # that a pixel of a mask may have


def _class_of_value() -> dict[str, NDArray[np.uint8]]:
    """What masks of each kind hold: (256,) index into `CLASSES`, or `_UNKNOWN`."""
    tables = {kind: np.full(_VALUES, _UNKNOWN, np.uint8) for kind in ("smpl24", "lsp6", "person")}
    for table in tables.values():
        table[0] = _NOBODY
    part_of_joint = lsp_part_of_joint()
    tables["smpl24"][1 : 1 + len(part_of_joint)] = 1 + part_of_joint
    tables["lsp6"][1 : len(CLASSES)] = np.arange(1, len(CLASSES))
    tables["person"][1:] = 1
    return tables


_CLASS_OF_VALUE = _class_of_value()
MASK_KINDS = tuple(_CLASS_OF_VALUE)
"""smpl24: 1 + joint's index in SMPL's tree; lsp6: place in `CLASSES`; person: anything but 0."""


@dataclass(frozen=True, kw_only=True)
class Segmentation:
    """Pixels of M pictures, by what they show and what is drawn there.

    Attributes:
        images: the M names.
        people: those of the truth in each.
        confusion: (M, K, K) numbers of pixels of each true class (row) drawn as each (column).
        classes: the K names: `CLASSES`, or background and person.
        left_out: names of pictures with somebody who has no fit or no camera.
    """

    images: Sequence[str]
    people: Sequence[Sequence[Person]]
    confusion: NDArray[np.int64]
    classes: tuple[str, ...]
    left_out: Sequence[str]


def measure_segmentation(
    predicted: FitsTable,
    truth: FitsTable,
    body: Body,
    folder: Path | str,
    *,
    kind: str = "smpl24",
) -> Segmentation:
    """Draw the predicted people of each picture and compare them with its mask.

    People are matched as by `evaluation.match_people`; predictions of others are not drawn.

    Args:
        predicted: the fits to judge, with their cameras.
        truth: whose pictures count, and their sizes.
        body: of the predictions, on the CPU.
        folder: of the masks: 8-bit grey PNG, called as the picture but for the suffix.
        kind: one of `MASK_KINDS`.

    Raises:
        InputError: a mask is missing, damaged, of another size or holds other values; or the
            tables do not fit together.
    """
    match = match_people(predicted, truth)
    found = predicted.select(match.rows)
    sizes = np.stack([truth.column_array(name) for name in ("width", "height")], axis=1)
    sizes = sizes[match.truth_rows]
    painter = _Painter(found, body, people_alone=kind == "person")
    rows_of: dict[str, list[int]] = {}
    for row, (image, _) in enumerate(match.people):
        rows_of.setdefault(image, []).append(row)
    unknown = {image for image, _ in match.missing}
    unknown |= {match.people[row][0] for row in np.flatnonzero(~painter.has_camera)}
    counted = [image for image in rows_of if image not in unknown]
    K = len(painter.classes)
    confusion = np.zeros((len(counted), K, K), np.int64)
    for i, image in enumerate(counted):
        rows = rows_of[image]
        size = (int(sizes[rows[0], 0]), int(sizes[rows[0], 1]))
        mask = _read_mask(_mask_path(Path(folder), image), size, kind)
        confusion[i] = count_confusion(mask, painter.draw(rows, size), K)
    return Segmentation(
        images=counted,
        people=[[match.people[row] for row in rows_of[image]] for image in counted],
        confusion=confusion,
        classes=painter.classes,
        left_out=sorted(unknown),
    )


def count_confusion(
    truth: NDArray[np.integer], drawn: NDArray[np.integer], num_classes: int
) -> NDArray[np.int64]:
    """(K, K) numbers of pixels of each true class (row) and drawn class (column)."""
    pairs = truth.astype(np.int64) * num_classes + drawn
    return np.bincount(pairs.ravel(), minlength=num_classes**2).reshape(num_classes, num_classes)


def score_segmentation(
    segmentation: Segmentation, columns: Mapping[str, Grouping], matched: Sequence[Person]
) -> dict[str, Any]:
    """Accuracy and F1 over all pictures, and over those of each group of people.

    Pixels of all pictures count alike, and F1 is the mean over the classes, as in SPIN's
    evaluation on LSP's masks (Lassner et al., "Unite the People", CVPR 2017).

    Args:
        segmentation: of M pictures.
        columns: groupings of N people by name.
        matched: the N people.

    Returns:
        A dictionary ready for JSON (docs/evaluation.md).
    """
    return {
        "overall": _scores(segmentation, range(len(segmentation.images))),
        "pictures_left_out": len(segmentation.left_out),
        "by_group": {
            name: [
                {"group": label, **_scores(segmentation, _pictures_of(segmentation, people))}
                for label, people in _people_by_group(grouping, matched).items()
            ]
            for name, grouping in columns.items()
        },
    }


def _people_by_group(grouping: Grouping, matched: Sequence[Person]) -> dict[str, set[Person]]:
    people: dict[str, set[Person]] = {label: set() for label in grouping.labels}
    for person, group in zip(matched, grouping.index.tolist(), strict=True):
        people[grouping.labels[group]].add(person)
    return people


def _pictures_of(segmentation: Segmentation, people: set[Person]) -> list[int]:
    """Numbers of the pictures that show some of these people."""
    return [i for i, shown in enumerate(segmentation.people) if not people.isdisjoint(shown)]


def _scores(segmentation: Segmentation, pictures: Iterable[int]) -> dict[str, Any]:
    chosen = list(pictures)
    confusion = segmentation.confusion[chosen].sum(axis=0)
    scores: dict[str, Any] = {
        "pictures": len(chosen),
        "foreground": {
            "accuracy": accuracy(_foreground(confusion)),
            "f1": mean_f1(_foreground(confusion)),
        },
        "parts": None,
    }
    if segmentation.classes == CLASSES:
        by_class = [None if np.isnan(f1) else float(f1) for f1 in f1_scores(confusion)]
        scores["parts"] = {
            "accuracy": accuracy(confusion),
            "f1": mean_f1(confusion),
            "f1_by_part": dict(zip(CLASSES, by_class, strict=True)),
        }
    return scores


def _foreground(confusion: NDArray[np.int64]) -> NDArray[np.int64]:
    """(2, 2) of (K, K): background and everything else."""
    edges = [0, 1]
    return np.add.reduceat(np.add.reduceat(confusion, edges, axis=0), edges, axis=1)


def accuracy(confusion: NDArray[np.int64]) -> float | None:
    """Share of the pixels of a (K, K) confusion whose class is right; None without pixels."""
    total = confusion.sum()
    return float(np.trace(confusion) / total) if total else None


def f1_scores(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """(K,) 2 tp / (2 tp + fp + fn) of a (K, K) confusion; NaN for classes that occur nowhere."""
    either = confusion.sum(axis=0) + confusion.sum(axis=1)
    twice = 2.0 * np.diagonal(confusion)
    return np.divide(twice, either, out=np.full(len(either), np.nan), where=either > 0)


def mean_f1(confusion: NDArray[np.int64]) -> float | None:
    """Mean F1 of the classes that occur; None where none does."""
    scores = f1_scores(confusion)
    known = scores[~np.isnan(scores)]
    return float(known.mean()) if len(known) else None


class _Painter:
    """Draws the labels of people of a table."""

    def __init__(self, table: FitsTable, body: Body, *, people_alone: bool) -> None:
        self.body = body
        self.params = params_of(table, body.v_template)
        self.intrinsics = table.intrinsics.astype(np.float64)
        self.has_camera = np.isfinite(self.intrinsics).all(axis=(1, 2))
        self.classes = ("background", "person") if people_alone else CLASSES
        self.labels = np.ones(body.num_vertices, np.int64)
        if not people_alone:
            self.labels += body.lsp_part_labels.numpy()
        self.faces = body.faces.numpy()

    def draw(self, rows: Sequence[int], size: tuple[int, int]) -> NDArray[np.int64]:
        """(H, W) index into `classes` at the centres of a picture's pixels.

        Each person is seen by a camera of its own: K X goes to a camera without intrinsics, which
        leaves depths as they are, so that the nearer person hides the other.
        """
        with torch.no_grad():
            posed = pose_body(self.body, self.params.select(torch.tensor(rows)))
        points = posed.vertices.numpy().astype(np.float64)
        points = points @ np.swapaxes(self.intrinsics[rows], 1, 2)
        N, V = points.shape[:2]
        labels = render_labels(
            points.reshape(-1, 3),
            np.concatenate([self.faces + V * i for i in range(N)]),
            np.tile(self.labels, N),
            np.eye(3),
            size,
        )
        return np.maximum(labels, _NOBODY)


def _mask_path(folder: Path, image: str) -> Path:
    if not image:
        raise InputError("masks go by the pictures' names, and the truth names none")
    return folder / PurePosixPath(image.replace("\\", "/")).with_suffix(".png")


def _read_mask(path: Path, size: tuple[int, int], kind: str) -> NDArray[np.uint8]:
    """(H, W) index into the classes."""
    try:
        with Image.open(path) as picture:
            picture.load()
            mode, values = picture.mode, np.array(picture)
    except FileNotFoundError as error:
        raise InputError(
            f"{path} does not exist; give the folder of the masks, each called as its picture but "
            "for .png"
        ) from error
    except Exception as error:  # decoders raise anything from SyntaxError to struct.error
        raise InputError(f"{path} cannot be read as a picture; copy it again") from error
    if mode not in ("L", "P", "1") or values.shape != size[::-1]:
        raise InputError(
            f"{path} must be {size[0]} x {size[1]} pixels of 8-bit grey as its picture, got "
            f"{' x '.join(map(str, values.shape[1::-1]))} of mode {mode}"
        )
    classes = _CLASS_OF_VALUE[kind][values.astype(np.uint8)]
    if (classes == _UNKNOWN).any():
        value = int(values[classes == _UNKNOWN][0])
        raise InputError(
            f"{path} holds the value {value}, which no mask of kind {kind} has; give another "
            f"--mask-kind: {', '.join(MASK_KINDS)}"
        )
    return classes
