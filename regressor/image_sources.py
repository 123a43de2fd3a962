"""Where people with pictures come from: folders with tables or keypoints, or they are drawn."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np
import roma
import torch
from numpy.typing import NDArray

from fitting.body import Body
from fitting.camera import transl_to_weak
from fitting.files import InputError
from fitting.initial import mean_rotations
from fitting.people import People
from fitting.skeleton import KeypointSet, keypoint_set
from fitting.sources import people_in_file
from priors.mocap import load_mocap

from .crops import crop_of_keypoints, crop_of_pictures
from .heads import MeanParams, rest_pose
from .image_people import (
    Floats,
    ImagePeople,
    OpenedPicture,
    PeopleFilter,
    concatenate_people,
    in_whole_pictures,
    measured_keypoints,
    open_picture,
    people_of_keypoints,
    people_of_table,
    read_mask,
    without_params,
)
from .synthetic.rendered_set import TRUTH_FILE
from .synthetic.rendering import BATCH, UNSEEN, PictureConfig, PictureStream, RenderedPicture

_LOG = logging.getLogger(__name__)
_ORDER = 1  # sets the random numbers of the order of people apart from others of a source


@dataclass(frozen=True, kw_only=True)
class DataSourceConfig:
    """Where people with pictures come from.

    Attributes:
        kind: "table", a fits table of `fit-cli synth` or `fit-cli fit`; "keypoints", a file of 2D
            keypoints; or "drawn", an endless stream of drawn people.
        path: of the table or the file.
        images: folder of its pictures; a table's are in `images/` beside it unless told otherwise.
        params: what the body parameters of a table are: the "truth", to learn from as they are;
            "fits" to begin the loop with; or "none", as if there were none.
        keypoint_format, keypoint_set: of a file of keypoints that does not tell.
        crop: what the network sees: a square about the "keypoints", or the whole "picture", where
            pictures were cut about their person before.
        share: of the people of a batch, relative to those of the other sources.
        split: of the motion-capture subjects whose poses are drawn.
        occluded, truncated: of drawn pictures, see `synthetic.rendering.PictureConfig`.
    """

    kind: Literal["table", "keypoints", "drawn"]
    path: str = ""
    images: str = ""
    params: Literal["truth", "fits", "none"] = "truth"
    keypoint_format: str = "auto"
    keypoint_set: str = ""
    crop: Literal["keypoints", "picture"] = "keypoints"
    share: float = 1.0
    split: Literal["train", "validation", "test"] = "train"
    occluded: float = 0.3
    truncated: float = 0.15

    def __post_init__(self) -> None:
        if not 0 < self.share < float("inf"):
            raise ValueError(f"share must be above 0, got {self.share}")
        if (self.kind == "drawn") == bool(self.path):
            wanted = "takes no" if self.kind == "drawn" else "needs a"
            raise ValueError(f"a source of the kind {self.kind} {wanted} path, got {self.path!r}")
        if self.kind == "keypoints" and not self.images:
            raise ValueError("a source of the kind keypoints needs images, the pictures' folder")
        if self.keypoint_set:
            keypoint_set(self.keypoint_set)
        for name, kinds in _USED_BY.items():
            if self.kind not in kinds and getattr(self, name) != getattr(DataSourceConfig, name):
                raise ValueError(
                    f"{name} has no effect with the kind {self.kind}, only with "
                    f"{' or '.join(kinds)}; leave it out"
                )


_USED_BY = {
    "params": ("table",),
    "images": ("table", "keypoints"),
    "keypoint_format": ("keypoints",),
    "keypoint_set": ("keypoints",),
    "crop": ("table", "keypoints"),
    "split": ("drawn",),
    "occluded": ("drawn",),
    "truncated": ("drawn",),
}


class Pictured(NamedTuple):
    """N people and how to get their pictures.

    Attributes:
        people: N of them.
        rows: (N,) of the source, -1 where it has none.
        epoch: (N,) how often the source was gone through before.
        open: the picture of person i, given how many of its pixels make one of the crop.
        mask: body parts (H, W) in the picture of person i.
    """

    people: ImagePeople
    rows: NDArray[np.int64]
    epoch: NDArray[np.int64]
    open: Callable[[int, float], OpenedPicture]
    mask: Callable[[int], NDArray[np.uint8]]


class Source(Protocol):
    """People with pictures.

    Attributes:
        mean: parameters of its people; None where nothing is known of them in 3D.
        fits: its people with the parameters that the loop begins with; None where they are not to
            be fitted.
    """

    mean: MeanParams | None
    fits: ImagePeople | None

    def take(self, number: int, slots: NDArray[np.integer], size: int) -> Pictured:
        """Those for some places (`slots`) in batch `number` of `size` people."""

    def first(self, count: int) -> Pictured:
        """At most `count` people, always the same."""


class FolderSource:
    """People with pictures in a folder, in another order each epoch."""

    def __init__(
        self,
        people: ImagePeople,
        folder: Path,
        masks: Path | None,
        seed: tuple[int, ...],
        *,
        params: Literal["truth", "fits", "none"] = "truth",
    ) -> None:
        """Of at least one person; the order follows from the seed."""
        self.folder, self.masks, self.seed = folder, masks, seed
        unknown = without_params(people)
        self.people = people if params == "truth" else unknown
        self.fits: ImagePeople | None = {"truth": None, "fits": people, "none": unknown}[params]
        self.mean = _mean_of(self.people if self.fits is None else self.fits)

    def take(self, number: int, slots: NDArray[np.integer], size: int) -> Pictured:
        """Each place of all batches counts one person on; see `Source`."""
        epoch, position = np.divmod(number * size + slots, len(self.people))
        rows = np.empty(len(slots), np.int64)
        for e in np.unique(epoch).tolist():
            order = _permutation((*self.seed, e, _ORDER), len(self.people))
            rows[epoch == e] = order[position[epoch == e]]
        return self.at(rows, epoch)

    def first(self, count: int) -> Pictured:
        """Rows evenly spread over all, for a data set is often sorted by subject or action."""
        N = len(self.people)
        rows = np.linspace(0, N - 1, min(count, N)).round().astype(np.int64)
        return self.at(rows, np.zeros_like(rows))

    def at(self, rows: NDArray[np.int64], epoch: NDArray[np.int64]) -> Pictured:
        """The people at `rows` (N,)."""
        people = self.people.select(rows)

        def open_one(i: int, shrink: float) -> OpenedPicture:
            width, height = people.image_size[i].astype(int).tolist()
            return open_picture(self.folder / str(people.image[i]), (width, height), shrink)

        def mask_of(i: int) -> NDArray[np.uint8]:
            assert self.masks is not None  # or no one would have parts
            return read_mask(self.masks, str(people.image[i]))

        return Pictured(people, rows, epoch, open_one, mask_of)


@lru_cache(maxsize=16)
def _permutation(seed: tuple[int, ...], count: int) -> NDArray[np.integer]:
    """An order of `count` rows; kept, as many batches of an epoch ask for it."""
    return np.random.default_rng(np.random.SeedSequence(seed)).permutation(count)


class DrawnSource:
    """People drawn as they are needed."""

    fits: ImagePeople | None = None

    def __init__(self, stream: PictureStream, keypoints: KeypointSet) -> None:
        self.stream, self.keypoints = stream, keypoints
        people, at_rest = stream.stream, rest_pose()
        self.mean: MeanParams | None = MeanParams(
            pose_rotmat=mean_rotations(people.pose_rotmat),
            betas=at_rest.betas,  # drawn from a unit normal
            weak_cam=at_rest.weak_cam,
        )

    def take(self, number: int, slots: NDArray[np.integer], size: int) -> Pictured:
        """The first pictures of the stream's batches that belong to batch `number`."""
        first = number * -(-size // BATCH)
        counts = [min(BATCH, len(slots) - start) for start in range(0, len(slots), BATCH)]
        drawn = [p for i, n in enumerate(counts) for p in self.stream.pictures(first + i, n)]
        source = keypoint_set(self.stream.config.keypoint_set)
        people = concatenate_people(
            [_drawn_person(picture, source, self.keypoints) for picture in drawn]
        )
        return Pictured(
            people,
            rows=np.full(len(people), -1),
            epoch=np.zeros(len(people), np.int64),
            open=lambda i, shrink: OpenedPicture(drawn[i].image, 1),
            mask=lambda i: drawn[i].parts,
        )

    def first(self, count: int) -> Pictured:
        """Of the first batch; see `Source`."""
        return self.take(0, np.arange(count), count)


def _drawn_person(
    picture: RenderedPicture, source: KeypointSet, target: KeypointSet
) -> ImagePeople:
    """The one person of a drawn picture; nothing is known where nobody can be seen."""
    height, width = picture.image.shape[:2]
    size = np.array([[width, height]])
    pose: Floats = np.zeros((1, 72))
    betas: Floats = np.zeros((1, 10))
    transl: Floats = np.zeros((1, 3))
    keypoints: Floats = np.zeros((1, len(source), 2))
    conf: Floats = np.zeros((1, len(source)))
    for person in picture.people:
        pose = np.concatenate([person.global_orient, person.body_pose])[None]
        betas, transl = person.betas[None], person.transl[None]
        keypoints = person.keypoints_2d[None]
        conf = (person.visibility != UNSEEN)[None].astype(np.float64)
    crop = crop_of_keypoints(keypoints, conf)
    is_there = np.array([bool(picture.people)])
    converted, converted_conf = measured_keypoints(keypoints, conf, source, target)
    return ImagePeople(
        file_row=np.array([-1]),
        image=np.array([""]),
        image_size=size,
        crop=np.where(np.isfinite(crop).all(), crop, crop_of_pictures(size)),
        intrinsics=picture.intrinsics[None],
        keypoints_2d=converted,
        conf=converted_conf,
        rotvec=pose.reshape(1, 24, 3),
        betas=betas,
        transl=transl,
        has_params=is_there,
        has_parts=is_there,
    )


def _mean_of(people: ImagePeople) -> MeanParams | None:
    """Of those people of whom parameters are known."""
    if not people.has_params.any():
        return None
    known = people.select(people.has_params)
    betas, transl, crop, intrinsics, rotvec = (
        torch.from_numpy(np.asarray(column, np.float32))
        for column in (known.betas, known.transl, known.crop, known.intrinsics, known.rotvec)
    )
    return MeanParams(
        pose_rotmat=mean_rotations(roma.rotvec_to_rotmat(rotvec)),
        betas=betas.mean(dim=0),
        weak_cam=transl_to_weak(transl, crop, intrinsics).median(dim=0).values,
    )


def read_source(config: DataSourceConfig) -> People:
    """All people of the file of a source, with their keypoints in its own set.

    Raises:
        InputError: it cannot be read.
    """
    path = Path(config.path)
    if config.kind == "table":
        path = path / TRUTH_FILE if (path / TRUTH_FILE).is_file() else path
        return people_in_file(path, images=None, keypoint_format="fits", keypoint_set=None).people
    return people_in_file(
        path,
        images=Path(config.images),
        keypoint_format=config.keypoint_format,
        keypoint_set=config.keypoint_set or None,
    ).people


def open_source(
    config: DataSourceConfig,
    body: Body,
    keypoints: KeypointSet,
    *,
    kept: PeopleFilter,
    crop_size: int,
    seed: tuple[int, int],
) -> Source:
    """A source of people.

    Args:
        config: which.
        body: that parameters belong to; a single-precision one on the CPU.
        keypoints: set to express keypoints in.
        kept: who is left out.
        crop_size: pixels across what is drawn.
        seed: of the run, and the source's number in it.

    Raises:
        InputError: a file cannot be used, or there is nobody left to learn from.
    """
    images = Path(config.images) if config.images else None
    if config.kind == "drawn":
        pictures = PictureConfig(
            size=(crop_size, crop_size),
            split=config.split,
            keypoint_set="coco_wholebody",
            occluded=config.occluded,
            truncated=config.truncated,
        )
        first = int(np.random.SeedSequence(seed).generate_state(1)[0])
        return DrawnSource(PictureStream(body, load_mocap(), pictures, seed=first), keypoints)
    path = Path(config.path)
    if config.kind == "table":
        people, folder, masks = people_of_table(
            path, keypoints, body_sha256=body.sha256, images=images
        )
    else:
        assert images is not None  # checked by the config
        folder, masks = images, None
        people = people_of_keypoints(
            path,
            keypoints,
            images=images,
            keypoint_format=config.keypoint_format,
            source_set=config.keypoint_set or None,
        )
    if config.crop == "picture":
        people = in_whole_pictures(people)
    chosen = kept.keep(people)
    if len(chosen) == 0:
        raise InputError(
            f"{path}: of its {len(people)} people with pictures none has {kept.least_keypoints} "
            f"keypoints seen and is {kept.least_size:g} pixels large; give other people, or lower "
            "data.filter"
        )
    if len(chosen) < len(people):
        _LOG.warning(
            "%s: %d of its %d people with pictures are left out, with fewer than %d keypoints seen "
            "or smaller than %g pixels",
            *(path, len(people) - len(chosen), len(people)),
            *(kept.least_keypoints, kept.least_size),
        )
    params = config.params if config.kind == "table" else "none"
    return FolderSource(chosen, folder, masks, seed, params=params)
