"""Drawing textured surfaces: the rasteriser says which triangle a pixel sees, the rest is here.

Shading is deferred: colours are worked out for the samples that are seen, from where they lie on
the surface, so that patterns are as fine as the picture however coarse the mesh is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fitting.opencv import import_cv2
from fitting.rasterizer import MIN_DEPTH, Light, render_face_ids, shade_normals

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]

NOBODY = -1


@dataclass(frozen=True, kw_only=True)
class Surface:
    """Something to draw.

    Attributes:
        vertices: (V, 3) metres, camera frame.
        faces: (F, 3), counter-clockwise seen from outside.
        texture: (V, 3) where each vertex lies in the frame of `paint`.
        normals: (V, 3) unit, outwards.
        labels: (F,) uint8 written where a triangle is seen.
        owner: number of the person it belongs to, or `NOBODY`.
        paint: RGB (M, 3) in [0, 1], unlit, of points (M, 3).
    """

    vertices: Floats
    faces: Ints
    texture: Floats
    normals: Floats
    labels: NDArray[np.uint8]
    owner: int
    paint: Callable[[Floats], Floats]


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What was drawn, to be laid over a background.

    Attributes:
        window: rows and columns of the picture beyond which nothing was drawn.
        color: (h, w, 3) float32 RGB of the window, already multiplied by alpha.
        alpha: (h, w) float32 in [0, 1], the covered share of a pixel and its neighbourhood.
        labels: (H, W) uint8 at the pixels' centres, 0 where there is nothing.
        owner: (H, W) int16 likewise, `NOBODY` where there is nobody.
        depth: (H, W) float32 metres likewise, inf where there is nothing.
    """

    window: tuple[slice, slice]
    color: NDArray[np.float32]
    alpha: NDArray[np.float32]
    labels: NDArray[np.uint8]
    owner: NDArray[np.int16]
    depth: NDArray[np.float32]

    def over(self, background: NDArray[np.float32]) -> NDArray[np.float32]:
        """(H, W, 3) this over a background (H, W, 3)."""
        cv2 = import_cv2()
        picture = background.copy()
        transparent = 1 - self.alpha
        behind = np.ascontiguousarray(background[self.window])
        behind = cv2.multiply(behind, cv2.merge((transparent, transparent, transparent)))
        picture[self.window] = cv2.add(self.color, behind)
        return picture


@dataclass(frozen=True, kw_only=True)
class _Scene:
    """All surfaces as one, and those of their triangles of which the outside may be seen."""

    vertices: Floats  # (V, 3) metres, camera frame
    pixels: Floats  # (2, V)
    values: NDArray[np.float32]  # (V, 7) texture, normal and depth
    faces: Ints  # (F, 3)
    labels: NDArray[np.uint8]  # (F,)
    surface: NDArray[np.int16]  # (F,) number of the surface


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """The M pixels of a window whose centre is covered."""

    place: Ints  # (M,) position in the flattened window
    row: Ints  # (M,) of the picture
    column: Ints  # (M,) of the picture
    face: Ints  # (M,) triangle of the scene


def draw_surfaces(
    surfaces: Sequence[Surface],
    intrinsics: Floats,
    size: tuple[int, int],
    light: Light,
    *,
    tint: Floats | None = None,
) -> Layer:
    """Draw surfaces, nearer ones hiding farther ones.

    Colours are those at the pixels' centres. Outlines are softer: four samples for each pixel, at
    its centre and half-way to its neighbours, are weighed by a tent two pixels wide.

    Args:
        surfaces: at least one; closed, so that triangles facing away need not be drawn.
        intrinsics: (3, 3) pixels.
        size: width and height in pixels.
        light: the lamp.
        tint: (3,) RGB colour of its light, white if none.

    Raises:
        ValueError: there is nothing to draw, or shapes do not fit.
    """
    if not surfaces:
        raise ValueError("surfaces must hold at least one to draw, got none")
    K = np.asarray(intrinsics, np.float64)
    scene = _arrange(surfaces, K)
    window = _find_window(scene, size)
    samples = _face_ids(scene, K, window)
    seen = _find_seen(samples, window)
    values = _interpolate(scene, seen)
    colors = _paint(surfaces, np.take(scene.surface, seen.face), values[:, :3])
    lit = shade_normals(_unit(values[:, 3:6]), light)[:, None]
    colors *= lit if tint is None else lit * tint.astype(np.float32)
    color, alpha = _soften(colors, seen.place, samples >= 0)
    place = seen.row * size[0] + seen.column
    owners = np.array([s.owner for s in surfaces], np.int16)[scene.surface]
    return Layer(
        window=window,
        color=color,
        alpha=alpha,
        labels=_scatter(np.take(scene.labels, seen.face), place, size, 0),
        owner=_scatter(np.take(owners, seen.face), place, size, NOBODY),
        depth=_scatter(values[:, 6], place, size, np.inf),
    )


def _arrange(surfaces: Sequence[Surface], K: Floats) -> _Scene:
    """All surfaces, and of their triangles the half that faces the camera: each takes time.

    Those that reach behind the camera are left out later, by the rasteriser.
    """
    vertices = np.concatenate([s.vertices for s in surfaces]).astype(np.float32)
    values = np.empty((len(vertices), 7), np.float32)
    values[:, :3] = np.concatenate([s.texture for s in surfaces])
    values[:, 3:6] = np.concatenate([s.normals for s in surfaces])
    values[:, 6] = vertices[:, 2]
    first = np.cumsum([0, *(len(s.vertices) for s in surfaces[:-1])])
    faces = np.concatenate([s.faces + n for s, n in zip(surfaces, first, strict=True)])
    counts = [len(s.faces) for s in surfaces]
    homogeneous = K @ vertices.T
    pixels = homogeneous[:2] / np.maximum(homogeneous[2], MIN_DEPTH)
    rows = np.flatnonzero(_turned_area(pixels, faces) < 0)
    return _Scene(
        vertices=vertices,
        pixels=pixels,
        values=values,
        faces=np.take(faces, rows, axis=0),
        labels=np.take(np.concatenate([s.labels for s in surfaces]), rows),
        surface=np.take(np.repeat(np.arange(len(surfaces), dtype=np.int16), counts), rows),
    )


def _turned_area(pixels: Floats, faces: Ints) -> Floats:
    """(F,) twice the area of triangles in the picture, negative where their outside is seen.

    In the picture, where y points down, corners that run counter-clockwise run against the sense
    in which x turns to y.
    """
    a, b, c = (np.take(pixels, corner, axis=1) for corner in faces.T)
    (ux, uy), (vx, vy) = b - a, c - a
    return ux * vy - uy * vx


def _find_window(scene: _Scene, size: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns that the scene covers, and two more to each side; never empty."""
    limits = np.array(size)
    low = np.clip(scene.pixels.min(axis=1) - 2, 0, limits - 1).astype(int)
    high = np.clip(scene.pixels.max(axis=1) + 3, low + 1, limits).astype(int)
    return slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))


def _face_ids(scene: _Scene, K: Floats, window: tuple[slice, slice]) -> NDArray[np.int32]:
    """(2 h - 1, 2 w - 1) triangle seen at each sample, -1 for none; pixels have even numbers."""
    rows, columns = window
    to_window = K - np.array([[0, 0, columns.start], [0, 0, rows.start], [0, 0, 0]])
    to_grid = np.diag([2.0, 2.0, 1.0]) @ to_window  # pixel (u, v) is the sample (2 u, 2 v)
    size = 2 * (columns.stop - columns.start) - 1, 2 * (rows.stop - rows.start) - 1
    return render_face_ids(scene.vertices, scene.faces, to_grid, size)


def _find_seen(samples: NDArray[np.int32], window: tuple[slice, slice]) -> _Seen:
    centres = np.ascontiguousarray(samples[::2, ::2])
    place = np.flatnonzero(centres >= 0)
    row, column = np.divmod(place, centres.shape[1])
    rows, columns = window
    return _Seen(
        place=place,
        row=row + rows.start,
        column=column + columns.start,
        face=np.take(centres, place),
    )


def _interpolate(scene: _Scene, seen: _Seen) -> NDArray[np.float32]:
    """(M, 7) the scene's values at the centres of pixels.

    With (x, y, z) the barycentric coordinates of a pixel in its triangle's picture, those of the
    point on the triangle are proportional to x, y and z over the depths of its corners.
    """
    corners = np.take(scene.faces, seen.face, axis=0)  # (M, 3)
    a, b, c = (np.take(scene.pixels, corner, axis=1) for corner in corners.T)
    (ux, uy), (vx, vy) = b - a, c - a
    x, y = seen.column - a[0], seen.row - a[1]
    area = ux * vy - uy * vx
    second, third = (x * vy - y * vx) / area, (ux * y - uy * x) / area
    weights = np.stack([1 - second - third, second, third])
    # At an outline the sample may lie a rounding error outside of its triangle.
    np.maximum(weights, 0, out=weights)
    weights /= np.take(scene.vertices[:, 2], corners.T)
    weights = (weights / weights.sum(axis=0)).astype(np.float32)
    return np.einsum("im,mic->mc", weights, np.take(scene.values, corners, axis=0))


def _paint(surfaces: Sequence[Surface], seen: Ints, texture: Floats) -> NDArray[np.float32]:
    """(M, 3) colours of points (M, 3) of the surfaces numbered `seen` (M,)."""
    colors = np.empty(texture.shape, np.float32)
    for i, surface in enumerate(surfaces):
        rows = np.flatnonzero(seen == i)
        colors[rows] = surface.paint(np.take(texture, rows, axis=0))
    return colors


def _unit(vectors: Floats) -> Floats:
    squared = np.einsum("mi,mi->m", vectors, vectors)[:, None]  # several times faster than norm
    return vectors / np.sqrt(np.maximum(squared, 1e-12))


def _soften(
    colors: NDArray[np.float32], place: Ints, covered: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Colours (h, w, 3), multiplied by alpha, and alpha (h, w).

    Args:
        colors: (M, 3) of the pixels whose centre is covered.
        place: (M,) where these are in the flattened picture.
        covered: (2 h - 1, 2 w - 1) whether a sample is covered.
    """
    cv2 = import_cv2()
    tent = np.array([0.25, 0.5, 0.25], np.float32)
    soft = cv2.sepFilter2D(covered.view(np.uint8), cv2.CV_32F, tent, tent)
    alpha = np.ascontiguousarray(soft[::2, ::2])
    shaded = np.zeros((*alpha.shape, 4), np.float32)
    pixels = shaded.reshape(-1, 4)
    pixels[place, :3] = colors
    pixels[place, 3] = 1
    # Beyond the outermost centres the outline has the colour of its neighbours.
    outline = np.flatnonzero((alpha > 0) & (alpha < 1))
    around = np.take(cv2.blur(shaded, (3, 3)).reshape(-1, 4), outline, axis=0)
    share = around[:, 3:]
    filled = around[:, :3] / np.where(share > 0, share, 1)
    own = np.take(pixels, outline, axis=0)
    visible = np.where(share > 0, np.take(alpha, outline)[:, None], 0)
    alpha.ravel()[outline] = visible[:, 0]
    pixels[outline, :3] = visible * np.where(own[:, 3:] > 0, own[:, :3], filled)
    return cv2.cvtColor(shaded, cv2.COLOR_RGBA2RGB), alpha


def _scatter(
    values: NDArray[Any], place: Ints, size: tuple[int, int], empty: float
) -> NDArray[Any]:
    """(H, W) picture with values (M,) at some places of the flattened picture."""
    picture = np.full((size[1], size[0]), empty, values.dtype)
    picture.ravel()[place] = values
    return picture
