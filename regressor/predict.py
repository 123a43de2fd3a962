"""People from their pictures alone, by an image regressor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from joblib import cpu_count
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fitting.body import Body, load_body
from fitting.camera import make_intrinsics, weak_to_transl
from fitting.estimates import SMPL_VERTICES, Estimates, unknown_params
from fitting.files import InputError
from fitting.images import ImageError, check_image
from fitting.offline import make_problem
from fitting.people import People, Problem
from fitting.problem import PARAMETERS, BodyParams

from .checkpoints import OpenedNetwork, open_network
from .crops import CROP_SIZE, crop_of_boxes, crop_of_keypoints, cut_crop, normalise_crops
from .image_networks import PUBLISHED, ImageRegressor, locate_crops
from .image_people import open_picture, reduced_crop
from .prefetch import map_in_threads

ARCHITECTURES = ("image", *PUBLISHED)
"""Of checkpoints whose networks see pictures; see `checkpoints.architecture_of`."""

BATCH_SIZE = 32
_CLIFF_SIZE = (256, 192)

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class CropShape:
    """What a network's crops are like.

    Attributes:
        side: pixels along the crop's side.
        width: columns in its middle that the network sees.
    """

    side: int = CROP_SIZE
    width: int = CROP_SIZE

    def cut(self, image: NDArray[np.uint8], crop: NDArray[np.floating]) -> NDArray[np.uint8]:
        """(side, width, 3) of a picture (H, W, 3), for crop (3,) in its pixels."""
        aside = (self.side - self.width) // 2
        return cut_crop(image, crop, self.side)[:, aside : aside + self.width]


class Predicted(NamedTuple):
    """What a network says of N people in their pictures, on the CPU.

    Attributes:
        params: camera frame; NaN for people without a crop, and where the network's answer is no
            body before the camera.
        crop: (N, 3) centre x, y and side of what it saw, full-image pixels.
        intrinsics: (N, 3, 3) pixels, of the cameras assumed.
    """

    params: BodyParams
    crop: Tensor
    intrinsics: Tensor


class _Seen(NamedTuple):
    """A person's crop as networks take it."""

    row: int
    image: Tensor  # (3, side, width)


class Predictor:
    """Estimates people from pictures: a `fitting.estimates.PicturePredictor`.

    Attributes:
        network: on the body's device.
        body: that estimates are for.
        same_body: whether the network's shapes are of it; they are zero if not, as they would mean
            something else.
        shape: of the crops.
    """

    def __init__(
        self,
        network: ImageRegressor,
        body: Body,
        *,
        same_body: bool,
        shape: CropShape | None = None,
        batch_size: int = BATCH_SIZE,
        jobs: int = -1,
    ) -> None:
        """Take a network in eval mode; `jobs` pictures are read at a time, -1 for one each core."""
        self.network, self.body, self.same_body = network, body, same_body
        self.shape = CropShape() if shape is None else shape
        self.batch_size = batch_size
        self.jobs = cpu_count() if jobs < 0 else max(1, jobs)

    def predict(
        self,
        image: NDArray[np.uint8],
        *,
        keypoints_2d: ArrayLike | None = None,
        conf: ArrayLike | None = None,
        boxes: ArrayLike | None = None,
        focal: float | None = None,
    ) -> Predicted:
        """Estimate the N people of a picture, who are where their keypoints or boxes are.

        Args:
            image: (H, W, 3) uint8 RGB.
            keypoints_2d: (N, P, 2) pixels, of any keypoint set.
            conf: (N, P), 0 for unseen; none means that all are seen.
            boxes: (N, 4) x, y, width and height as COCO has them, in place of keypoints.
            focal: pixels; none means the picture's diagonal.

        Raises:
            ValueError: a shape is wrong, or there are not either keypoints or boxes.
        """
        check_image(image)
        if boxes is not None and keypoints_2d is None:
            crop = crop_of_boxes(boxes)
        elif keypoints_2d is not None and boxes is None:
            points = np.asarray(keypoints_2d, dtype=np.float64)
            crop = crop_of_keypoints(points, np.ones(points.shape[:2]) if conf is None else conf)
        else:
            raise ValueError("give either keypoints_2d (N, P, 2) or boxes (N, 4) to find people by")
        size = torch.tensor([image.shape[1::-1]], dtype=torch.float32).expand(len(crop), 2)
        focals = None if focal is None else torch.full((len(crop),), float(focal))
        intrinsics = make_intrinsics(size, focals)
        rows = np.flatnonzero(~np.isnan(crop[:, 0])).tolist()
        seen = (_Seen(row, self._cut(image, crop[row])) for row in rows)
        return self._estimate(seen, torch.from_numpy(crop).float(), intrinsics)

    def predict_people(
        self,
        people: People,
        images: Path,
        *,
        focal: float | None = None,
        progress: Callable[[int], object] = lambda done: None,
    ) -> tuple[Predicted, list[Problem]]:
        """Estimate N people in the pictures of a folder.

        Pictures are read and cut in other threads while the network is busy; a few are in memory
        at a time, however many there are.

        Args:
            people: whose keypoints say where they are.
            images: folder of their pictures.
            focal: pixels, for everyone; none means each row's own, or else the picture's diagonal.
            progress: called with the number of people just done.

        Returns:
            The people, and the pictures that cannot be read.

        Raises:
            InputError: the people's pictures have no names.
        """
        cpu = torch.device("cpu")
        problem = make_problem(people, focal=focal, device=cpu, dtype=torch.float32)
        crop = crop_of_keypoints(people.keypoints_2d, people.conf)
        reader = _Reader(people, images, crop, self._cut, self.shape.side)
        problems: list[Problem] = []
        with closing(map_in_threads(reader.read, reader.pictures(), self.jobs)) as pictures:
            seen = _people_of(pictures, problems)
            predicted = self._estimate(
                seen, torch.from_numpy(crop).float(), problem.intrinsics, progress
            )
        return predicted, problems

    def __call__(
        self,
        people: People,
        images: Path,
        *,
        focal: float | None = None,
        progress: Callable[[int], object] = lambda done: None,
    ) -> tuple[Estimates, list[Problem]]:
        """The same for fits to begin at; see `fitting.estimates.PicturePredictor`."""
        found, problems = self.predict_people(people, images, focal=focal, progress=progress)
        estimates = Estimates(
            params=found.params,
            image=people.image,
            person=people.person,
            annotation_id=people.annotation_id,
            focal=found.intrinsics[:, 0, 0],
            has_betas=self.same_body,
            file="the network",
        )
        return estimates, problems

    def _cut(self, image: NDArray[np.uint8], crop: NDArray[np.floating]) -> Tensor:
        return normalise_crops(self.shape.cut(image, crop)[None])[0]

    @torch.no_grad()
    def _estimate(
        self,
        seen: Iterable[_Seen],
        crop: Tensor,
        intrinsics: Tensor,
        progress: Callable[[int], object] = lambda done: None,
    ) -> Predicted:
        """N people, of whom some are seen; the others have NaN."""
        params = unknown_params(len(crop))
        left = len(crop)
        for batch in _batched(seen, self.batch_size):
            rows = torch.tensor([person.row for person in batch])
            images = torch.stack([person.image for person in batch])
            found = self._run(images, crop[rows], intrinsics[rows])
            for name in PARAMETERS:
                getattr(params, name)[rows] = getattr(found, name)
            progress(len(batch))
            left -= len(batch)
        progress(left)
        return Predicted(params, crop, intrinsics)

    def _run(self, images: Tensor, crop: Tensor, intrinsics: Tensor) -> BodyParams:
        """B people by the network, on the CPU; NaN for answers that are no bodies."""
        device = self.body.v_template.device
        box = locate_crops(crop, intrinsics).to(device) if self.network.head.needs_box else None
        answer = self.network(images.to(device), box)
        pose, betas, weak_cam = (
            tensor.float().cpu() for tensor in (answer.pose_rotmat, answer.betas, answer.weak_cam)
        )
        params = BodyParams.from_rotations(
            pose,
            betas if self.same_body else torch.zeros_like(betas),
            weak_to_transl(weak_cam, crop, intrinsics),
        )
        # a camera whose scale is not positive would have the body behind it
        is_body = params.pack(PARAMETERS).isfinite().all(dim=1) & (weak_cam[:, 0] > 0)
        return params.where(is_body)


class _Reader:
    """Reads pictures and cuts the people out of them."""

    def __init__(
        self,
        people: People,
        images: Path,
        crop: NDArray[np.floating],
        cut: Callable[[NDArray[np.uint8], NDArray[np.floating]], Tensor],
        side: int,
    ) -> None:
        if len(people) and not (people.image != "").any():
            raise InputError("the keypoints name no pictures, without which no one can be seen")
        self.people, self.images, self.crop = people, images, crop
        self.cut, self.side = cut, side

    def pictures(self) -> Iterator[NDArray[np.integer]]:
        """Rows of the people of each picture who have a crop, in the order of the pictures."""
        rows = np.flatnonzero(~np.isnan(self.crop[:, 0]) & (self.people.image != ""))
        _, first, index = np.unique(self.people.image[rows], return_index=True, return_inverse=True)
        place = np.argsort(np.argsort(first))[index]
        order = np.argsort(place, kind="stable")
        if len(rows):
            yield from np.split(rows[order], np.flatnonzero(np.diff(place[order])) + 1)

    def read(self, rows: NDArray[np.integer]) -> list[_Seen] | Problem:
        """The people at `rows`, all of one picture, or why it cannot be read."""
        name = str(self.people.image[rows[0]])
        size = (int(self.people.width[rows[0]]), int(self.people.height[rows[0]]))
        try:
            shrink = float(self.crop[rows, 2].min()) / self.side
            image, reduction = open_picture(self.images / name, size, shrink)
        except ImageError as error:
            return Problem(file=name, row=None, reason=str(error))
        return [
            _Seen(row, self.cut(image, reduced_crop(self.crop[row], reduction)))
            for row in rows.tolist()
        ]


def _people_of(
    pictures: Iterable[list[_Seen] | Problem], problems: list[Problem]
) -> Iterator[_Seen]:
    """The people of all pictures; adds the problems to the list."""
    for picture in pictures:
        if isinstance(picture, Problem):
            problems.append(picture)
        else:
            yield from picture


def _batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of so many items, the last one of what is left."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def load_predictor(
    path: Path | str,
    body: Body | None = None,
    *,
    batch_size: int = BATCH_SIZE,
    jobs: int = -1,
) -> Predictor:
    """What estimates people from pictures by the network of a checkpoint.

    Args:
        path: of a run of `fit-cli train` with an image regressor, or of a published file.
        body: that estimates are for, on the device where the network shall be; none means the
            bundled one. Published networks know SMPL: of other bodies they give the pose alone.
        batch_size: people that the network sees at a time.
        jobs: pictures read at a time, -1 for one each core.

    Raises:
        InputError: the file cannot be used, is for another body or sees no pictures.
    """
    body = load_body() if body is None else body
    opened = open_network(path, body=body, device=body.v_template.device)
    if not isinstance(opened.network, ImageRegressor):
        raise InputError(
            f"{path} is a {opened.architecture}, which sees no pictures; give a checkpoint of an "
            "image regressor"
        )
    known = opened.body_sha256 == body.sha256
    return Predictor(
        opened.network,
        body,
        same_body=known if opened.config else body.num_vertices == SMPL_VERTICES,
        shape=_crop_shape(opened),
        batch_size=batch_size,
        jobs=jobs,
    )


def _crop_shape(opened: OpenedNetwork) -> CropShape:
    """Of what the network was trained with."""
    if opened.architecture == "CLIFF":
        side, width = _CLIFF_SIZE
        return CropShape(side=side, width=width)
    if not opened.config:
        return CropShape()
    side = opened.config["data"]["crop_size"]
    return CropShape(side=side, width=side)
