"""Square crops of people: where they lie in the picture, and cutting them out.

A crop is (centre x, centre y, side) in full-image pixels, as `fitting.camera.weak_to_transl` takes
it. The centre of a picture's first pixel is (0, 0), so a crop spans centre +- side / 2 and its
pixels' centres lie at k (x - centre) + (size - 1) / 2 with k = size / side: on the pixel borders
that is -0.5 to size - 0.5, and -1 to 1 in the crop of a weak-perspective camera.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fitting.images import check_image
from fitting.opencv import import_cv2

from .encoders.base import IMAGENET_MEAN, IMAGENET_STD

Floats = NDArray[np.float64]

CROP_SCALE = 1.2  # side of a crop over the longer side of the box about the person, as SPIN's
CROP_SIZE = 224  # pixels across in what the published networks take


def crop_of_keypoints(
    keypoints_2d: ArrayLike, conf: ArrayLike, *, scale: float = CROP_SCALE
) -> Floats:
    """Squares around the keypoints that are seen.

    Args:
        keypoints_2d: (N, P, 2) pixels.
        conf: (N, P); 0 means unseen, and the coordinates do not count.
        scale: side over the longer side of the keypoints' box.

    Returns:
        (N, 3) crops; rows of NaN where the keypoints seen have no extent: none or only one.
    """
    points, seen = np.asarray(keypoints_2d, np.float64), np.asarray(conf) > 0
    if points.ndim != 3 or points.shape[2] != 2 or seen.shape != points.shape[:2]:
        raise ValueError(
            "keypoints_2d must be (N, P, 2) pixels and conf (N, P), got "
            f"{points.shape} and {seen.shape}"
        )
    low = np.where(seen[..., None], points, np.inf).min(axis=1, initial=np.inf)
    high = np.where(seen[..., None], points, -np.inf).max(axis=1, initial=-np.inf)
    is_empty = ~seen.any(axis=1)
    low[is_empty] = high[is_empty] = np.nan
    return _squares((low + high) / 2, high - low, scale)


def crop_of_boxes(bbox: ArrayLike, *, scale: float = CROP_SCALE) -> Floats:
    """Squares around boxes.

    Args:
        bbox: (N, 4) x, y, width and height as COCO has them, from border to border: a box of one
            pixel at (3, 4) is (3, 4, 1, 1) there, with its centre at (3.5, 4.5); here, where
            pixels are counted from centres, it is at (3, 4).
        scale: side over the longer side of the box.

    Returns:
        (N, 3) crops; rows of NaN where a box is empty or holds NaN.
    """
    boxes = np.asarray(bbox, np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"bbox must be (N, 4) x, y, width, height, got {boxes.shape}")
    return _squares(boxes[:, :2] + boxes[:, 2:] / 2 - 0.5, boxes[:, 2:], scale)


def crop_of_pictures(image_size: ArrayLike) -> Floats:
    """Squares that hold all of a picture.

    Args:
        image_size: (N, 2) width and height, pixels.

    Returns:
        (N, 3) crops.
    """
    size = np.asarray(image_size, np.float64)
    return _squares((size - 1) / 2, size, 1.0)


def _squares(centre: Floats, extent: Floats, scale: float) -> Floats:
    crops = np.column_stack([centre, scale * extent.max(axis=1)])
    crops[~((crops[:, 2] > 0) & np.isfinite(crops).all(axis=1))] = np.nan
    return crops


def crop_matrix(crop: ArrayLike, size: int, *, angle: float = 0.0, flip: bool = False) -> Floats:
    """The affine map from the full picture to a crop's pixels.

    Args:
        crop: (3,) centre x, y and side, full-image pixels.
        size: pixels across the crop.
        angle: radians that the picture is turned by about the crop's centre, from x towards y:
            clockwise as one sees it.
        flip: exchange left and right of the crop, after turning.

    Returns:
        (2, 3) M, so that a crop pixel is M [x, y, 1]^T.

    Raises:
        ValueError: the crop is not three finite numbers with a side above 0.
    """
    numbers = np.asarray(crop, np.float64)
    if numbers.shape != (3,) or not np.isfinite(numbers).all() or numbers[2] <= 0:
        raise ValueError(
            f"crop must be centre x, y and a side above 0 in pixels, got {numbers.tolist()}"
        )
    cos, sin = math.cos(angle), math.sin(angle)
    linear = size / numbers[2] * np.array([[cos, -sin], [sin, cos]])
    if flip:
        linear[0] *= -1
    return np.column_stack([linear, (size - 1) / 2 - linear @ numbers[:2]])


def transform_points(points: ArrayLike, matrix: ArrayLike) -> Floats:
    """Points (..., 2) under an affine map (2, 3)."""
    affine = np.asarray(matrix, np.float64)
    return np.asarray(points, np.float64) @ affine[:, :2].T + affine[:, 2]


def cut_crop(
    image: NDArray[np.uint8],
    crop: ArrayLike,
    size: int = CROP_SIZE,
    *,
    angle: float = 0.0,
    flip: bool = False,
) -> NDArray[np.uint8]:
    """Cut a crop out of a picture; what lies outside of the picture is black.

    Where it shrinks, pixels are averaged over areas first: bilinear interpolation alone would look
    at every second or fifth pixel and turn hair and stripes into noise.

    Args:
        image: (H, W, 3) uint8 RGB; not modified.
        crop, size, angle, flip: as `crop_matrix`.

    Returns:
        (size, size, 3) uint8 RGB.
    """
    check_image(image)
    matrix = crop_matrix(crop, size, angle=angle, flip=flip)
    if np.linalg.norm(matrix[:, 0]) < 1:
        image, matrix = _shrunk(image, matrix, size)
    cv2 = import_cv2()
    return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR)


def cut_labels(
    labels: NDArray[np.uint8],
    crop: ArrayLike,
    size: int,
    *,
    angle: float = 0.0,
    flip: bool = False,
) -> NDArray[np.uint8]:
    """Cut a crop out of a map of labels (H, W): each pixel takes the label at its centre.

    Returns:
        (size, size) uint8; 0 outside of the map.
    """
    cv2 = import_cv2()
    matrix = crop_matrix(crop, size, angle=angle, flip=flip)
    return cv2.warpAffine(labels, matrix, (size, size), flags=cv2.INTER_NEAREST)


def _shrunk(
    image: NDArray[np.uint8], matrix: Floats, size: int
) -> tuple[NDArray[np.uint8], Floats]:
    """The part of the picture that a crop shows, at the crop's resolution, and the map from it."""
    low, high = _seen_part(matrix, size, image.shape[:2])
    part = image[low[1] : high[1], low[0] : high[0]]
    extent = high - low
    shrunk = np.maximum(1, np.rint(extent * np.linalg.norm(matrix[:, 0]))).astype(int)
    cv2 = import_cv2()
    small = cv2.resize(part, shrunk.tolist(), interpolation=cv2.INTER_AREA)
    # from pixels of `small`, counted from their centres, to those of the picture
    step = extent / shrunk
    shift = low + (step - 1) / 2
    grow = np.array([[step[0], 0, shift[0]], [0, step[1], shift[1]], [0, 0, 1]])
    return small, matrix @ grow


def _seen_part(
    matrix: Floats, size: int, shape: tuple[int, ...]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First column and row, and those behind the last, that a crop's pixels depend on."""
    corners = np.array([[-0.5, -0.5], [size - 0.5, -0.5], [-0.5, size - 0.5], [size - 0.5] * 2])
    places = np.linalg.solve(matrix[:, :2], (corners - matrix[:, 2]).T).T
    margin = 2 / np.linalg.norm(matrix[:, 0])  # two crop pixels: bilinear weights reach there
    limits = np.array(shape[1::-1])
    low = np.clip(np.floor(places.min(axis=0) - margin), 0, limits - 1).astype(int)
    high = np.clip(np.ceil(places.max(axis=0) + margin), low + 1, limits).astype(int)
    return low, high


def normalise_crops(crops: NDArray[np.uint8]) -> Tensor:
    """Crops as networks take them.

    Args:
        crops: (B, S, S, 3) uint8 RGB.

    Returns:
        (B, 3, S, S) float32, less ImageNet's mean and divided by its deviation.
    """
    if crops.ndim != 4 or crops.shape[3] != 3 or crops.dtype != np.uint8:
        raise ValueError(f"crops must be (B, S, S, 3) uint8 RGB, got {crops.shape} {crops.dtype}")
    # a table for each channel: a seventh of the time that arithmetic on floats takes
    levels = np.arange(256)[:, None] / 255
    tables = ((levels - IMAGENET_MEAN) / IMAGENET_STD).astype(np.float32)
    batch, height, width, channels = crops.shape
    normalised = np.empty((batch, channels, height, width), np.float32)
    cv2 = import_cv2()
    for crop, planes in zip(crops, normalised, strict=True):
        for channel, plane in enumerate(cv2.split(crop)):
            planes[channel] = cv2.LUT(plane, tables[:, channel])
    return torch.from_numpy(normalised)


def restore_crops(images: Tensor) -> NDArray[np.uint8]:
    """Undo `normalise_crops`, for pictures: (B, 3, S, S) -> (B, S, S, 3) uint8 RGB."""
    colors = images.detach().cpu().permute(0, 2, 3, 1).numpy() * IMAGENET_STD + IMAGENET_MEAN
    return np.rint(255 * np.clip(colors, 0, 1)).astype(np.uint8)
