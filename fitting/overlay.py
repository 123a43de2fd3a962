"""Pictures of a fit: the body over its photograph, from the side, and cut out for a gallery."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .images import check_image
from .opencv import import_cv2
from .rasterizer import DEFAULT_COLOR, DEFAULT_LIGHT, Light, render_mesh

FloatArray = NDArray[np.floating]
Picture = NDArray[np.uint8]

DETECTED_COLOR = (255, 196, 0)  # keypoints of the input
PROJECTED_COLOR = (230, 30, 120)  # keypoints of the fitted body
SIDE_BACKGROUND = (238, 240, 243)
CANVAS_COLOR = (128, 128, 128)  # what a crop shows beyond the photograph
SUBPIXEL_BITS = 4  # OpenCV's drawing functions take coordinates in sixteenths of a pixel


@dataclass(frozen=True, kw_only=True)
class Crop:
    """A square cut out of a photograph and scaled, with the camera that belongs to it.

    Attributes:
        image: (S, S, 3) uint8 RGB.
        intrinsics: (3, 3) pixels of the crop: the same camera frame is drawn on `image`.
        corner: full-image column and row of the crop's left and upper edge, whole pixels.
        scale: crop pixels per full-image pixel.
    """

    image: Picture
    intrinsics: FloatArray
    corner: tuple[int, int]
    scale: float

    def convert_points(self, points: ArrayLike) -> FloatArray:
        """Full-image pixels (..., 2) to pixels of the crop."""
        # Edges, half a pixel before the first centre, fall on edges.
        return (np.asarray(points, np.float64) - self.corner + 0.5) * self.scale - 0.5


@dataclass(frozen=True, kw_only=True)
class PersonPictures:
    """One person as a gallery shows them; three squares (S, S, 3) uint8 RGB of the same size."""

    photo: Picture
    overlay: Picture
    side: Picture


def draw_person(
    image: Picture,
    vertices: ArrayLike,
    faces: ArrayLike,
    intrinsics: ArrayLike,
    *,
    keypoints_2d: ArrayLike,
    conf: ArrayLike,
    projected: ArrayLike | None = None,
    edges: Iterable[tuple[int, int]] = (),
    size: int = 384,
) -> PersonPictures:
    """The photograph cut out around a person, the same with the body drawn in, and a side view.

    Drawing costs as much as the crop has pixels, however large the photograph.

    Args:
        image: (H, W, 3) uint8 RGB.
        vertices: (V, 3) metres, camera frame.
        faces: (F, 3) vertex indices.
        intrinsics: (3, 3) pixels of the whole photograph.
        keypoints_2d: (P, 2) full-image pixels.
        conf: (P,) in [0, 1]; keypoints of zero are ignored.
        projected: (P, 2) full-image pixels of the fitted body's keypoints.
        edges: pairs of keypoints to join by a line.
        size: side of each picture in pixels.
    """
    seen = np.asarray(conf) > 0
    around = np.asarray(keypoints_2d)[seen]
    if projected is not None:
        around = np.concatenate([around, np.asarray(projected)[seen]])
    crop = crop_around(image, around, intrinsics, size=size)
    overlay = draw_overlay(
        crop.image,
        vertices,
        faces,
        crop.intrinsics,
        keypoints_2d=crop.convert_points(keypoints_2d),
        conf=conf,
        projected=None if projected is None else crop.convert_points(projected),
        edges=edges,
    )
    side = draw_side_view(vertices, faces, size=size)
    return PersonPictures(photo=crop.image, overlay=overlay, side=side)


def draw_overlay(
    image: Picture,
    vertices: ArrayLike,
    faces: ArrayLike,
    intrinsics: ArrayLike,
    *,
    keypoints_2d: ArrayLike | None = None,
    conf: ArrayLike | None = None,
    projected: ArrayLike | None = None,
    edges: Iterable[tuple[int, int]] = (),
    opacity: float = 0.75,
    colors: ArrayLike = DEFAULT_COLOR,
    light: Light = DEFAULT_LIGHT,
) -> Picture:
    """Draw bodies over a photograph, and how far keypoints are from where the fit puts them.

    Args:
        image: (H, W, 3) uint8 RGB; not edited.
        vertices: (V, 3), or (N, V, 3) for N people; metres, camera frame.
        faces: (F, 3) vertex indices.
        intrinsics: (3, 3) pixels.
        keypoints_2d: (P, 2) pixels, drawn as discs.
        conf: (P,) in [0, 1]; keypoints of zero are left out. None draws all.
        projected: (P, 2) pixels, drawn as rings joined to their keypoint: the residuals.
        edges: pairs of keypoints to join by a line.
        opacity: of the bodies, in [0, 1].
        colors: RGB in [0, 1] that broadcasts to (N, V, 3).
        light: where the light comes from.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: an argument has the wrong shape or range.
    """
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity must be within [0, 1], got {opacity}")
    check_image(image)
    size = (image.shape[1], image.shape[0])
    body = render_mesh(vertices, faces, intrinsics, size, colors=colors, light=light)
    picture = image.copy()
    # The body on black is already weighted by its coverage, so it is added as it is.
    rows, columns = _bounding_slices(body.coverage > 0)
    hidden = opacity * body.coverage[rows, columns, None]
    blended = image[rows, columns] * (1 - hidden) + opacity * body.color[rows, columns]
    picture[rows, columns] = np.rint(blended)
    if keypoints_2d is not None:
        _draw_keypoints(picture, keypoints_2d, conf, projected, edges)
    return picture


def draw_side_view(
    vertices: ArrayLike,
    faces: ArrayLike,
    *,
    size: int = 384,
    colors: ArrayLike = DEFAULT_COLOR,
    light: Light = DEFAULT_LIGHT,
    background: tuple[int, int, int] = SIDE_BACKGROUND,
) -> Picture:
    """Draw a body as seen from the photographer's right, which shows how it stands in depth.

    The left edge of the picture is towards the camera; the vertical is the camera's.

    Args:
        vertices: (V, 3) metres, camera frame.
        faces: (F, 3) vertex indices.
        size: side of the square picture in pixels.
        colors: RGB in [0, 1], (3,) or (V, 3).
        light: where the light comes from, as the side's viewer sees it.
        background: RGB from 0 to 255.

    Returns:
        (size, size, 3) uint8 RGB with the whole body visible.
    """
    points = np.asarray(vertices, np.float64)
    centred = points - (points.min(axis=0) + points.max(axis=0)) / 2
    turned = np.stack([centred[:, 2], centred[:, 1], -centred[:, 0]], axis=1)
    extent = max(float(np.linalg.norm(turned, axis=1).max()), 1e-6)  # a point draws nothing
    # Ten radii away perspective is mild; 1 / sin(angle) keeps the bounding sphere in view.
    distance = 10 * extent
    focal = 0.5 * size * np.sqrt(distance**2 - extent**2) / extent
    centre = (size - 1) / 2
    intrinsics = np.array([[focal, 0, centre], [0, focal, centre], [0, 0, 1]])
    rendering = render_mesh(
        turned + np.array([0, 0, distance]),
        faces,
        intrinsics,
        (size, size),
        colors=colors,
        light=light,
        background=background,
    )
    return rendering.color


def crop_around(
    image: Picture,
    points: ArrayLike,
    intrinsics: ArrayLike,
    *,
    size: int = 384,
    padding: float = 0.25,
) -> Crop:
    """Cut a padded square around points and scale it.

    Args:
        image: (H, W, 3) uint8 RGB.
        points: (P, 2) full-image pixels; those outside the photograph count as on its border, and
            without any the whole photograph is shown.
        intrinsics: (3, 3) pixels of the photograph.
        size: side of the crop in pixels.
        padding: margin on each side, as a share of the points' extent.

    Returns:
        The crop; grey where it reaches beyond the photograph.
    """
    check_image(image)
    limits = np.array([image.shape[1], image.shape[0]]) - 1.0
    inside = np.asarray(points, np.float64).reshape(-1, 2)
    inside = np.clip(inside[np.isfinite(inside).all(axis=1)], 0, limits)
    low, high = (inside.min(axis=0), inside.max(axis=0)) if len(inside) else (np.zeros(2), limits)
    side = int(np.ceil((high - low).max() * (1 + 2 * padding))) + 1
    corner = np.rint((low + high + 1 - side) / 2).astype(int)
    scale = size / side
    to_crop = np.array(
        [
            [scale, 0, scale * (0.5 - corner[0]) - 0.5],
            [0, scale, scale * (0.5 - corner[1]) - 0.5],
            [0, 0, 1],
        ]
    )
    cv2 = import_cv2()
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return Crop(
        image=cv2.resize(_cut(image, corner, side), (size, size), interpolation=method),
        intrinsics=to_crop @ np.asarray(intrinsics, np.float64),
        corner=(int(corner[0]), int(corner[1])),
        scale=scale,
    )


def _cut(photo: Picture, corner: NDArray[np.integer], side: int) -> Picture:
    """The square of `side` pixels at `corner`, filled up beyond the photograph."""
    canvas = np.full((side, side, 3), CANVAS_COLOR, np.uint8)
    height, width = photo.shape[:2]
    left, top = np.maximum(corner, 0)
    right, bottom = np.minimum(corner + side, (width, height))
    rows = slice(top - corner[1], bottom - corner[1])
    columns = slice(left - corner[0], right - corner[0])
    canvas[rows, columns] = photo[top:bottom, left:right]
    return canvas


def _draw_keypoints(
    picture: Picture,
    keypoints_2d: ArrayLike,
    conf: ArrayLike | None,
    projected: ArrayLike | None,
    edges: Iterable[tuple[int, int]],
) -> None:
    """Draw the skeleton, the keypoints and their residuals on `picture`, in place."""
    keypoints = np.asarray(keypoints_2d, np.float64)
    weights = np.ones(len(keypoints)) if conf is None else np.asarray(conf)
    seen: NDArray[np.bool_] = np.isfinite(keypoints).all(axis=1) & (weights > 0)
    radius = max(2.0, min(picture.shape[:2]) / 110)
    for start, end in edges:
        if seen[start] and seen[end]:
            _draw_line(picture, keypoints[start], keypoints[end], DETECTED_COLOR, radius / 3)
    if projected is not None:
        fitted = np.asarray(projected, np.float64)
        for index in np.flatnonzero(seen & np.isfinite(fitted).all(axis=1)):
            _draw_line(picture, keypoints[index], fitted[index], PROJECTED_COLOR, radius / 2)
            _draw_circle(picture, fitted[index], PROJECTED_COLOR, 1.5 * radius, radius / 2)
    for index in np.flatnonzero(seen):
        _draw_circle(picture, keypoints[index], DETECTED_COLOR, radius)


def _draw_circle(
    picture: Picture,
    centre: FloatArray,
    color: tuple[int, int, int],
    radius: float,
    thickness: float | None = None,
) -> None:
    """A ring, or without a thickness a disc."""
    cv2 = import_cv2()
    scaled = round(radius * 2**SUBPIXEL_BITS)
    pen = cv2.FILLED if thickness is None else max(1, round(thickness))
    cv2.circle(picture, _to_subpixels(centre), scaled, color, pen, cv2.LINE_AA, SUBPIXEL_BITS)


def _draw_line(
    picture: Picture,
    start: FloatArray,
    end: FloatArray,
    color: tuple[int, int, int],
    thickness: float,
) -> None:
    cv2 = import_cv2()
    cv2.line(
        picture,
        _to_subpixels(start),
        _to_subpixels(end),
        color,
        max(1, round(thickness)),
        cv2.LINE_AA,
        SUBPIXEL_BITS,
    )


def _to_subpixels(point: FloatArray) -> tuple[int, int]:
    """OpenCV's fixed point, bounded: a diverged projection must not overflow 32 bits."""
    column, row = np.rint(np.clip(point, -30_000, 60_000) * 2**SUBPIXEL_BITS).astype(int)
    return int(column), int(row)


def _bounding_slices(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Rows and columns of the smallest box around the true pixels; empty slices without any."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return slice(0, 0), slice(0, 0)
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
