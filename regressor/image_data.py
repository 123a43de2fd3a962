"""Data sets of people with pictures: numbered batches of crops and what is known of the people.

Sources are mixed in given shares: fits tables with a folder of pictures, keypoint files with
pictures, and people drawn as they are needed. A batch is a pure function of the seed and its
number. What a batch holds:

| name | shape | |
|---|---|---|
| images | (B, 3, S, S) | normalised crops |
| crop | (B, 3) | centre x, y and side in the augmented picture, pixels |
| intrinsics | (B, 3, 3) | of the augmented picture, pixels |
| keypoints_2d, conf | (B, P, 2), (B, P) | in the augmented picture, pixels; conf 0 where unknown |
| pose_rotmat, betas, has_params | (B, 24, 3, 3), (B, 10), (B,) | the root's in the camera frame |
| transl | (B, 3) | metres, camera frame; known where `has_params` |
| joints, has_joints | (B, 24, 3), (B,) | SMPL's, metres relative to the pelvis, camera frame |
| parts, has_parts | (B, h, w), (B,) | 1 + joint index, 0 background; if asked for |

A flag of 0 says that what it stands for is unknown; the values there are zeros, and identities
among the rotations. For the loop (`loop`), if asked for, also:

| name | shape | |
|---|---|---|
| dataset, row, epoch | (B,) int64 | source and row of those to be fitted, row -1 of the others |
| angle, flip | (B,) float64, bool | how the picture was turned, and mirrored after that |
| plain_keypoints_2d, plain_conf, plain_intrinsics | | as above, of the picture as it is |
| plain_size | (B, 2) | width and height of that picture, pixels |
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import numpy as np
import roma
import torch
from numpy.typing import NDArray
from torch import Tensor

from fitting.body import Body, forward_kinematics
from fitting.files import InputError
from fitting.images import ImageError
from fitting.keypoints import map_keypoints
from fitting.skeleton import BODY_POINTS

from .augmentation import (
    UNCHANGED,
    AugmentationConfig,
    Augmentations,
    Floats,
    change_pixels,
    choose_crops,
    concatenate_augmentations,
    draw_augmentations,
    hide_labels,
    mirror_labels,
    move_cameras,
    move_crops,
    move_points,
    picture_matrices,
    swap_sides,
    turn_joints,
    turn_points,
    turn_poses,
)
from .crops import CROP_SIZE, cut_crop, cut_labels, normalise_crops
from .feature_cache import Encode, FeatureCache
from .image_people import ImagePeople, PeopleFilter, concatenate_people, reduced_crop
from .image_sources import DataSourceConfig, FolderSource, Pictured, open_source
from .task import Batch

_LOG = logging.getLogger(__name__)
_MIX, _AUGMENT, _VIEWS = 0, 1, 2  # set the random numbers of one purpose apart from another's


@dataclass(frozen=True, kw_only=True)
class ImageDataConfig:
    """What people to learn from.

    Attributes:
        sources: at least one.
        crop_size: pixels across the crops.
        filter: who is left out.
        body: file of the body that the parameters belong to; "" means the bundled one.
    """

    sources: tuple[DataSourceConfig, ...] = (DataSourceConfig(kind="drawn"),)
    crop_size: int = CROP_SIZE
    filter: PeopleFilter = field(default_factory=PeopleFilter)
    body: str = ""

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError("sources must name at least one source of people, got none")
        if self.crop_size < 32:
            raise ValueError(f"crop_size must be at least 32 pixels, got {self.crop_size}")


class ImageData:
    """Batches of people to learn from, and people to be judged by.

    Attributes:
        keypoints: the set of the batches' keypoints.
        for_loop: whether batches hold what the loop needs.
        features: of the people; then batches hold "features" (B, C, h, w) in place of "images".
    """

    keypoints = BODY_POINTS

    def __init__(
        self,
        config: ImageDataConfig,
        body: Body,
        *,
        seed: int,
        augmentation: AugmentationConfig = UNCHANGED,
        part_size: int | None = None,
        for_loop: bool = False,
    ) -> None:
        """Open the sources.

        Args:
            config: which.
            body: that parameters belong to; a single-precision one on the CPU.
            seed: of the order of people, of their mixture and of the augmentations.
            augmentation: how pictures are changed.
            part_size: pixels across the maps of body parts; none leaves them out.
            for_loop: see above.

        Raises:
            InputError: a source cannot be used.
        """
        self.config, self.seed, self.augmentation = config, seed, augmentation
        self.part_size, self.for_loop = part_size, for_loop
        self.sources = [
            open_source(
                source,
                body,
                self.keypoints,
                kept=config.filter,
                crop_size=config.crop_size,
                seed=(seed, i),
            )
            for i, source in enumerate(config.sources)
        ]
        self._body = body
        self._defined = map_keypoints(body, self.keypoints).defined.numpy()
        self._warned: set[str] = set()
        self.features: FeatureCache | None = None

    def batch(self, number: int, size: int) -> Batch:
        """Batch `number` of `size` people, augmented.

        People whose picture cannot be read have zeros for flags and confidences; each such picture
        is named once in the log.

        Raises:
            InputError: none of the pictures can be read.
        """
        mixed = np.random.default_rng((self.seed, number, _MIX))
        share = np.array([source.share for source in self.config.sources])
        # spread evenly, so that each batch has each source's share to within one person
        places = (np.arange(size) + mixed.random()) / size
        chosen = np.searchsorted(np.cumsum(share / share.sum())[:-1], places, side="right")
        taken = [
            source.take(number, slots, size)
            for i, source in enumerate(self.sources)
            if len(slots := np.flatnonzero(chosen == i))
        ]
        rng = np.random.default_rng((self.seed, number, _AUGMENT))
        drawn = draw_augmentations(self.augmentation, size, rng)
        view = rng.integers(1 if self.features is None else self.features.num_views, size=size)
        return self._make(taken, np.sort(chosen), drawn, number, view)

    def first(self, count: int) -> Batch:
        """At most `count` people of the first source, always the same, not augmented."""
        taken = self.sources[0].first(count)
        N = len(taken.people)
        drawn = draw_augmentations(UNCHANGED, N, np.random.default_rng(0))
        return self._make([taken], np.zeros(N, np.int64), drawn, 0, np.zeros(N, np.int64))

    def _make(
        self,
        taken: list[Pictured],
        dataset: NDArray[np.integer],
        drawn: Augmentations,
        number: int,
        view: NDArray[np.integer],
    ) -> Batch:
        people = concatenate_people(part.people for part in taken)
        parts = None
        if self.features is not None:
            row = np.concatenate([part.rows for part in taken])
            features, is_read, drawn = self.features.read(dataset, row, view, drawn.flip)
            seen = {"features": features}
        else:
            pixels, parts, is_read = self._read(taken, people, drawn)
            seen = {"images": normalise_crops(pixels)}
        if not is_read.any():
            raise InputError(
                f"batch {number}: none of its {len(people)} pictures can be read; see that the "
                "folder of pictures is still there"
            )
        batch = self._truth(people, drawn)
        if self.for_loop:
            batch |= self._plain(people, taken, dataset, drawn)
        if parts is not None:
            batch["parts"] = torch.from_numpy(parts.astype(np.int64))
            batch["has_parts"] = torch.from_numpy(people.has_parts).float()
        read = torch.from_numpy(is_read).float()
        for name in ("conf", "plain_conf", "has_params", "has_joints", "has_parts"):
            if name in batch:
                batch[name] = batch[name] * read.reshape(-1, *[1] * (batch[name].dim() - 1))
        return {**seen, **batch}

    def cache_features(self, encode: Encode, views: int = 1) -> None:
        """Compute what an encoder sees of all people, and give that from now on.

        Args:
            encode: crops -> features.
            views: of each picture: the first is the picture as it is, the others are augmented.

        Raises:
            ValueError: people are drawn, so that there is no end.
        """
        sources = [source for source in self.sources if isinstance(source, FolderSource)]
        if len(sources) < len(self.sources):
            raise ValueError("features can be cached of tables and keypoint files only")

        def cut(taken: Pictured, drawn: Augmentations) -> tuple[Tensor, NDArray[np.bool_]]:
            pixels, _, is_read = self._read([taken], taken.people, drawn)
            return normalise_crops(pixels), is_read

        N = sum(len(source.people) for source in sources)
        rng = np.random.default_rng((self.seed, _VIEWS))
        drawn = [
            draw_augmentations(self.augmentation if view else UNCHANGED, N, rng)
            for view in range(views)
        ]
        self.features = FeatureCache(sources, concatenate_augmentations(drawn), cut, encode)

    def _read(
        self, taken: list[Pictured], people: ImagePeople, drawn: Augmentations
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None, NDArray[np.bool_]]:
        """Crops (B, S, S, 3), body parts (B, h, w), and which of the pictures could be read."""
        size = self.config.crop_size
        crop = _chosen_crops(people, drawn)
        pixels = np.zeros((len(crop), size, size, 3), np.uint8)
        parts = None
        if self.part_size is not None:
            parts = np.zeros((len(crop), self.part_size, self.part_size), np.uint8)
        is_read = np.zeros(len(crop), bool)
        places = [(part, i) for part in taken for i in range(len(part.people))]
        for row, (part, i) in enumerate(places):
            angle, flip = float(drawn.angle[row]), bool(drawn.flip[row])
            try:
                opened = part.open(i, crop[row, 2] / size)
                where = reduced_crop(crop[row], opened.reduction)
                cut = cut_crop(opened.image, where, size, angle=angle, flip=flip)
                pixels[row] = change_pixels(cut, drawn, row)
                if parts is not None and part.people.has_parts[i]:
                    labels = cut_labels(
                        part.mask(i), crop[row], parts.shape[1], angle=angle, flip=flip
                    )
                    labels = mirror_labels(labels) if flip else labels
                    parts[row] = hide_labels(labels, drawn, row)
            except ImageError as error:
                self._warn(str(error))
            else:
                is_read[row] = True
        return pixels, parts, is_read

    def _warn(self, text: str) -> None:
        """Say it once; training goes on."""
        if text not in self._warned:
            self._warned.add(text)
            _LOG.warning("%s; training goes on without its people", text)

    def _truth(self, people: ImagePeople, drawn: Augmentations) -> Batch:
        """What is known of the people, as their augmented pictures show them."""
        crop = _chosen_crops(people, drawn)
        matrices = picture_matrices(crop, people.image_size[:, 0], drawn)
        points = swap_sides(
            move_points(people.keypoints_2d, matrices), self.keypoints.flip, drawn.flip
        )
        conf = swap_sides(people.conf * self._defined, self.keypoints.flip, drawn.flip)
        rotations = roma.rotvec_to_rotmat(_floats(people.rotvec))
        betas, has_params = _floats(people.betas), _floats(people.has_params)
        rest = self._body.rest_joints(betas)
        _, joints = forward_kinematics(rotations, rest)
        pelvis = rest[:, 0]  # at which the posed body is turned
        moved = turn_points((pelvis + _floats(people.transl))[:, None], drawn.turns)[:, 0] - pelvis
        known = has_params[:, None]
        return {
            "crop": _floats(move_crops(crop, matrices)),
            "intrinsics": _floats(move_cameras(people.intrinsics.astype(np.float64), matrices)),
            "keypoints_2d": _floats(points),
            "conf": _floats(conf),
            "pose_rotmat": turn_poses(rotations, drawn.turns),
            "betas": betas,
            "transl": moved * known,
            "has_params": has_params,
            "joints": turn_joints(joints - joints[:, :1], drawn.turns) * known[..., None],
            "has_joints": has_params.clone(),
        }

    def _plain(
        self,
        people: ImagePeople,
        taken: list[Pictured],
        dataset: NDArray[np.integer],
        drawn: Augmentations,
    ) -> Batch:
        """What the loop needs."""
        row = np.concatenate([part.rows for part in taken])
        fitted = np.array([source.fits is not None for source in self.sources])
        return {
            "dataset": torch.from_numpy(dataset.astype(np.int64)),
            "row": torch.from_numpy(np.where(fitted[dataset], row, -1)),
            "epoch": torch.from_numpy(np.concatenate([part.epoch for part in taken])),
            "angle": drawn.turns.angle,
            "flip": drawn.turns.flip,
            "plain_keypoints_2d": _floats(people.keypoints_2d),
            "plain_conf": _floats(people.conf),
            "plain_intrinsics": _floats(people.intrinsics),
            "plain_size": _floats(people.image_size),
        }


def _chosen_crops(people: ImagePeople, drawn: Augmentations) -> Floats:
    return choose_crops(people.crop.astype(np.float64), drawn)


def _floats(array: NDArray[np.generic]) -> Tensor:
    return torch.from_numpy(np.asarray(array, np.float32))
