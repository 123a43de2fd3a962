"""People with pictures in folders: what is known of them, as columns; and reading their pictures.

Rows come from a fits table, with body parameters, or from a keypoint file, without.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fitting.camera import make_intrinsics
from fitting.files import InputError
from fitting.images import ImageError, read_image
from fitting.opencv import import_cv2
from fitting.people import person_size
from fitting.skeleton import KeypointSet, convert_keypoints, keypoint_set
from fitting.sources import people_in_file
from fitting.table import FitsTable, read_fits

from .crops import crop_of_keypoints, crop_of_pictures
from .synthetic.rendered_set import IMAGES, MASKS, TRUTH_FILE

Floats = NDArray[np.floating]

_JPEG = (".jpg", ".jpeg", ".jfif")
_REDUCTIONS = (8, 4, 2)  # by which a JPEG's decoder can shrink while it decodes


@dataclass(frozen=True, kw_only=True)
class ImagePeople:
    """N people; P keypoints of one set. Where something is unknown, it is zero and flagged.

    Attributes:
        file_row: (N,) row in the file that they come from, -1 where there is none.
        image: (N,) str, path of the picture in its folder; "" where it is not in a folder.
        image_size: (N, 2) width and height, pixels.
        crop: (N, 3) centre x, y and side, full-image pixels.
        intrinsics: (N, 3, 3) pixels.
        keypoints_2d: (N, P, 2) pixels.
        conf: (N, P).
        rotvec: (N, 24, 3) axis-angle, the root's in the camera frame.
        betas: (N, 10).
        transl: (N, 3) metres.
        has_params: (N,) bool, whether the three above are known.
        has_parts: (N,) bool, whether there is a picture of body parts.
    """

    file_row: NDArray[np.int64]
    image: NDArray[np.str_]
    image_size: Floats
    crop: Floats
    intrinsics: Floats
    keypoints_2d: Floats
    conf: Floats
    rotvec: Floats
    betas: Floats
    transl: Floats
    has_params: NDArray[np.bool_]
    has_parts: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.crop)

    def select(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> ImagePeople:
        """The people of a mask, or of row numbers in their order."""
        return replace(self, **{f.name: getattr(self, f.name)[rows] for f in fields(self)})


def concatenate_people(parts: Iterable[ImagePeople]) -> ImagePeople:
    """People one after another; at least one part."""
    parts = list(parts)
    names = [field.name for field in fields(ImagePeople)]
    return ImagePeople(**{n: np.concatenate([getattr(part, n) for part in parts]) for n in names})


def without_params(people: ImagePeople) -> ImagePeople:
    """The same people as if nothing were known of their bodies."""
    zeros = {n: np.zeros_like(getattr(people, n)) for n in ("rotvec", "betas", "transl")}
    return replace(people, has_params=np.zeros(len(people), bool), **zeros)


def in_whole_pictures(people: ImagePeople) -> ImagePeople:
    """The same people, for whom crops are all of their pictures."""
    return replace(people, crop=crop_of_pictures(people.image_size).astype(np.float32))


@dataclass(frozen=True, kw_only=True)
class PeopleFilter:
    """Which people there is nothing to learn from.

    Attributes:
        least_keypoints: that must be seen.
        least_size: pixels of the longer side of the box about them.
    """

    least_keypoints: int = 6
    least_size: float = 40.0

    def keep(self, people: ImagePeople) -> ImagePeople:
        """The others."""
        seen = (people.conf > 0).sum(axis=1) >= self.least_keypoints
        large = person_size(people.keypoints_2d, people.conf) >= self.least_size
        return people.select(seen & large & np.isfinite(people.crop).all(axis=1))


def people_of_table(
    path: Path, keypoints: KeypointSet, *, body_sha256: str, images: Path | None = None
) -> tuple[ImagePeople, Path, Path | None]:
    """People of a fits table, such as `fit-cli synth` and `fit-cli fit` write.

    Args:
        path: the table, or a folder with `truth.parquet` or a fits table.
        keypoints: set to express its keypoints in.
        body_sha256: of the body that its parameters are to be of.
        images: folder of its pictures; none means `images/` beside it.

    Returns:
        The people, the folder of their pictures, and that of their masks of body parts (`masks/`
        beside a truth table), if there is one. Masks name the parts of everybody in a picture, so
        only those of people who are alone in theirs count.

    Raises:
        InputError: the table cannot be read, is of another body, or its pictures are not there.
    """
    file = path / TRUTH_FILE if (path / TRUTH_FILE).is_file() else path
    table = read_fits(file)
    found = table.metadata.get("body_sha256", body_sha256)
    if found != body_sha256:
        raise InputError(
            f"{file} is of the body {found[:12]}, not of {body_sha256[:12]}; give its body as "
            "data.body"
        )
    beside = file.parent
    folder = beside / IMAGES if images is None else images
    masks = beside / MASKS if file.name == TRUTH_FILE and (beside / MASKS).is_dir() else None
    sets = table.column_array("keypoint_set")
    parts = [
        _of_one_set(table, np.flatnonzero(sets == name), keypoint_set(str(name)), keypoints)
        for name in dict.fromkeys(sets.tolist())
    ]
    if not parts:
        raise InputError(f"{file} holds nobody; give a table with people")
    people = concatenate_people(parts)
    _, inverse, counts = np.unique(people.image, return_inverse=True, return_counts=True)
    alone = counts[inverse] == 1
    people = replace(people, has_parts=alone & (masks is not None))
    return _with_pictures(people, folder, file), folder, masks


def _of_one_set(
    table: FitsTable, rows: NDArray[np.integer], source: KeypointSet, target: KeypointSet
) -> ImagePeople:
    table, N = table.select(rows), len(rows)
    numbers = table.column_array("keypoints_2d").reshape(N, len(source), 3)
    size = np.column_stack([table.column_array("width"), table.column_array("height")])
    has_params = table.has_parameters
    params = {
        name: np.where(has_params[:, None], table.column_array(name), 0)
        for name in ("global_orient", "body_pose", "betas", "transl")
    }
    known = np.isfinite(table.intrinsics).all(axis=(1, 2))
    guessed = make_intrinsics(torch.from_numpy(size.astype(np.float32))).numpy()
    people = _unknown_people(
        table.column_array("image"),
        size,
        np.where(known[:, None, None], table.intrinsics, guessed),
        *measured_keypoints(numbers[..., :2], numbers[..., 2], source, target),
    )
    rotvec = np.concatenate([params["global_orient"], params["body_pose"]], axis=1)
    return replace(
        people,
        file_row=rows.astype(np.int64),
        rotvec=rotvec.reshape(N, 24, 3),
        betas=params["betas"],
        transl=params["transl"],
        has_params=has_params,
    )


def people_of_keypoints(
    path: Path,
    keypoints: KeypointSet,
    *,
    images: Path,
    keypoint_format: str = "auto",
    source_set: str | None = None,
) -> ImagePeople:
    """People of a keypoint file with pictures, of whom nothing is known in 3D.

    Args:
        path: as `fitting.readers.read_people` takes.
        keypoints: set to express its keypoints in.
        images: folder of its pictures.
        keypoint_format, source_set: of the file, where it does not tell.

    Raises:
        InputError: the file cannot be read, or its pictures are not there.
    """
    found = people_in_file(
        path, images=images, keypoint_format=keypoint_format, keypoint_set=source_set
    )
    people = found.people
    size = np.column_stack([people.width, people.height]).astype(np.float32)
    intrinsics = make_intrinsics(torch.from_numpy(size), torch.from_numpy(people.focal)).numpy()
    of_set = keypoint_set(people.keypoint_set)
    converted = measured_keypoints(people.keypoints_2d, people.conf, of_set, keypoints)
    return _with_pictures(_unknown_people(people.image, size, intrinsics, *converted), images, path)


def measured_keypoints(
    keypoints_2d: Floats, conf: Floats, source: KeypointSet, target: KeypointSet
) -> tuple[Floats, Floats]:
    """`convert_keypoints`, without what would only be the middle of two others.

    It would say nothing new, and a fit would take it for one more witness.
    """
    converted, converted_conf = convert_keypoints(keypoints_2d, conf, source, target)
    return converted, converted_conf * np.isin(target.points, source.points)


def _unknown_people(
    image: NDArray[np.str_], size: Floats, intrinsics: Floats, keypoints_2d: Floats, conf: Floats
) -> ImagePeople:
    """People of whom only keypoints are known."""
    N = len(image)
    return ImagePeople(
        file_row=np.arange(N),
        image=image,
        image_size=size.astype(np.float32),
        crop=crop_of_keypoints(keypoints_2d, conf).astype(np.float32),
        intrinsics=intrinsics,
        keypoints_2d=keypoints_2d,
        conf=conf,
        rotvec=np.zeros((N, 24, 3), np.float32),
        betas=np.zeros((N, 10), np.float32),
        transl=np.zeros((N, 3), np.float32),
        has_params=np.zeros(N, bool),
        has_parts=np.zeros(N, bool),
    )


def _with_pictures(people: ImagePeople, folder: Path, source: Path) -> ImagePeople:
    """Those whose picture is in the folder."""
    names, inverse = np.unique(people.image, return_inverse=True)
    there = np.array([bool(name) and (folder / name).is_file() for name in names.tolist()], bool)
    if not there.any():
        raise InputError(
            f"{folder}: none of the {len(names)} pictures that {source} names is here; give the "
            "folder of its pictures as images"
        )
    return people.select(there[inverse])


class OpenedPicture(NamedTuple):
    """A decoded picture, (H, W, 3) uint8 RGB, at 1 / `reduction` of its size."""

    image: NDArray[np.uint8]
    reduction: int


def open_picture(path: Path, size: tuple[int, int], shrink: float) -> OpenedPicture:
    """Read a picture, a JPEG at a reduced size if a crop shrinks it that much anyway.

    OpenCV decodes JPEGs: on one core a picture of 1280 x 1280 takes it 4.2 ms (3.0 at half the
    size, 2.6 at a quarter), and Pillow 18 ms. What OpenCV cannot read, or what does not end as a
    JPEG does, is left to `read_image` and its messages.

    Args:
        path: of the picture.
        size: width and height that it is known to have, pixels.
        shrink: full-image pixels for each pixel of the crop.

    Raises:
        ImageError: it cannot be read, or is of another size.
    """
    image, reduction = None, 1
    if path.suffix.lower() in _JPEG:
        reduction = next((n for n in _REDUCTIONS if n <= shrink), 1)
        image = _decode_jpeg(path, reduction)
    if image is None:
        image, reduction = read_image(path), 1
    expected = tuple(-(-side // reduction) for side in size)
    if image.shape[1::-1] != expected:
        raise ImageError(
            f"{path} is not of {size[0]} x {size[1]} pixels as its people's file says; give the "
            "pictures that the keypoints were found in"
        )
    return OpenedPicture(image, reduction)


def _decode_jpeg(path: Path, reduction: int) -> NDArray[np.uint8] | None:
    """The picture by OpenCV, upright; None if it is no whole JPEG."""
    try:
        with path.open("rb") as file:
            file.seek(-min(64, os.fstat(file.fileno()).st_size), os.SEEK_END)
            is_whole = b"\xff\xd9" in file.read()
    except OSError:
        return None
    if not is_whole:
        return None
    cv2 = import_cv2()
    flags = {
        1: cv2.IMREAD_COLOR_RGB,
        2: cv2.IMREAD_REDUCED_COLOR_2,
        4: cv2.IMREAD_REDUCED_COLOR_4,
        8: cv2.IMREAD_REDUCED_COLOR_8,
    }
    image = cv2.imread(str(path), flags[reduction])
    if image is None or reduction == 1:
        return image
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def reduced_crop(crop: Floats, reduction: int) -> Floats:
    """A crop (3,) of a picture in the pixels of the same picture at 1 / `reduction`."""
    return np.array([*((crop[:2] + 0.5) / reduction - 0.5), crop[2] / reduction])


def read_mask(folder: Path, image: str) -> NDArray[np.uint8]:
    """(H, W) uint8 body parts of a picture: 1 + joint index, 0 for the background.

    Raises:
        ImageError: the mask is not there, or not such a picture.
    """
    path = (folder / image).with_suffix(".png")
    cv2 = import_cv2()
    mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if path.is_file() else None
    if mask is None or mask.ndim != 2 or mask.dtype != np.uint8:
        raise ImageError(f"{path} is no mask of body parts; draw the pictures again: fit-cli synth")
    return mask
