"""Drawing textured surfaces: the rasteriser says which triangle a pixel sees, the rest is here.

Shading is deferred: colours are worked out for the samples that are seen, from where they lie on
the surface, so that patterns are as fine as the picture however coarse the mesh is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
        color: (H, W, 3) float32 RGB, already multiplied by alpha.
        alpha: (H, W) float32 in [0, 1], the covered share of a pixel and its neighbourhood.
        labels: (H, W) uint8 at the pixels' centres, 0 where there is nothing.
        owner: (H, W) int16 likewise, `NOBODY` where there is nobody.
        depth: (H, W) float32 metres likewise, inf where there is nothing.
    """

    color: NDArray[np.float32]
    alpha: NDArray[np.float32]
    labels: NDArray[np.uint8]
    owner: NDArray[np.int16]
    depth: NDArray[np.float32]


@dataclass(frozen=True)
class _Triangles:
    """The triangles of all surfaces that face the camera, with what is interpolated in them."""

    corners: Floats  # (F, 3, 3) metres, camera frame
    values: Floats  # (F, 3, 7) texture, normal and depth at the corners
    labels: NDArray[np.uint8]  # (F,)
    surface: NDArray[np.int16]  # (F,) number of the surface


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
    triangles = _facing_camera(surfaces)
    width, height = size
    to_picture = np.asarray(intrinsics, np.float64)
    to_grid = np.diag([2.0, 2.0, 1.0]) @ to_picture  # pixel (u, v) is the sample (2 u, 2 v)
    samples = _face_ids(triangles.corners, to_grid, (2 * width - 1, 2 * height - 1))
    ids = np.ascontiguousarray(samples[::2, ::2])
    covered = np.flatnonzero(ids >= 0)
    face = ids.ravel()[covered].astype(np.int32)
    values = _interpolate(triangles, face, _rays(covered, width, to_picture))
    colors = _paint(surfaces, triangles.surface[face], values[:, :3])
    lit = shade_normals(_unit(values[:, 3:6]), light)[:, None]
    shaded = np.zeros((height, width, 4), np.float32)
    shaded.reshape(-1, 4)[covered, :3] = colors * (
        lit if tint is None else lit * tint.astype(np.float32)
    )
    shaded.reshape(-1, 4)[covered, 3] = 1
    depth = np.full((height, width), np.inf, np.float32)
    depth.ravel()[covered] = values[:, 6]
    color, alpha = _soften(shaded, (samples >= 0).astype(np.float32))
    owners = np.array([s.owner for s in surfaces], np.int16)
    return Layer(
        color=color,
        alpha=alpha,
        labels=np.where(ids >= 0, triangles.labels[ids], 0).astype(np.uint8),
        owner=np.where(ids >= 0, owners[triangles.surface[ids]], NOBODY).astype(np.int16),
        depth=depth,
    )


def _facing_camera(surfaces: Sequence[Surface]) -> _Triangles:
    """Triangles whose outside is seen, half of them: drawing takes time for each."""
    corners, values, labels, number = [], [], [], []
    for i, surface in enumerate(surfaces):
        vertices = surface.vertices.astype(np.float32)
        a, b, c = (vertices[surface.faces[:, k]] for k in range(3))
        outwards = np.cross(b - a, c - a)
        facing = np.einsum("fi,fi->f", outwards, a) < 0
        if vertices[:, 2].min() < MIN_DEPTH:
            facing &= (vertices[:, 2] >= MIN_DEPTH)[surface.faces].all(axis=1)
        value = np.concatenate([surface.texture, surface.normals, vertices[:, 2:]], axis=1)
        kept = surface.faces[facing]
        corners.append(vertices[kept])
        values.append(value.astype(np.float32)[kept])
        labels.append(surface.labels[facing])
        number.append(np.full(len(kept), i, np.int16))
    return _Triangles(*(np.concatenate(parts) for parts in (corners, values, labels, number)))


def _face_ids(corners: Floats, intrinsics: Floats, size: tuple[int, int]) -> NDArray[np.int64]:
    """(H, W) the triangle seen at each pixel, -1 for none."""
    if len(corners) == 0:
        return np.full((size[1], size[0]), -1, np.int64)
    faces = np.arange(3 * len(corners)).reshape(-1, 3)
    return render_face_ids(corners.reshape(-1, 3), faces, intrinsics, size)


def _rays(index: Ints, width: int, intrinsics: Floats) -> Floats:
    """(M, 3) directions with z = 1 of the pixels with these positions in a flattened picture."""
    row, column = np.divmod(index, width)
    inverse = np.linalg.inv(intrinsics)
    return column[:, None] * inverse[:, 0] + row[:, None] * inverse[:, 1] + inverse[:, 2]


def _interpolate(triangles: _Triangles, face: Ints, rays: Floats) -> Floats:
    """(M, 7) values where rays (M, 3) meet triangles (M,).

    The ray r meets the triangle (a, b, c) where r t = x a + y b + z c with x, y, z proportional to
    r . (b x c), r . (c x a) and r . (a x b): Cramer's rule. Interpolation is right in perspective.
    """
    a, b, c = np.moveaxis(triangles.corners.astype(np.float64), 1, 0)
    planes = np.stack([np.cross(b, c), np.cross(c, a), np.cross(a, b)], axis=1)
    weights = np.einsum("mij,mj->mi", planes[face], rays)
    # At an outline the sample may lie a rounding error outside of its triangle.
    weights = np.maximum(weights / (weights @ np.ones((3, 1))), 0)  # faster than sum(axis=1)
    weights = (weights / (weights @ np.ones((3, 1)))).astype(np.float32)
    return np.einsum("mi,mic->mc", weights, triangles.values[face])


def _paint(surfaces: Sequence[Surface], seen: Ints, texture: Floats) -> Floats:
    """(M, 3) colours of points (M, 3) of the surfaces numbered `seen` (M,)."""
    colors = np.zeros(texture.shape, np.float32)
    for i, surface in enumerate(surfaces):
        rows = np.flatnonzero(seen == i)
        colors[rows] = surface.paint(texture[rows])
    return colors


def _unit(vectors: Floats) -> Floats:
    squared = np.einsum("mi,mi->m", vectors, vectors)[:, None]  # several times faster than norm
    return vectors / np.sqrt(np.maximum(squared, 1e-12))


def _soften(
    shaded: NDArray[np.float32], coverage: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Colours (H, W, 3), multiplied by alpha, and alpha (H, W).

    Args:
        shaded: (H, W, 4) RGB of pixels whose centre is covered, and 1; zeros elsewhere.
        coverage: (2 H - 1, 2 W - 1) 1 where a sample is covered, else 0.
    """
    cv2 = import_cv2()
    tent = np.array([0.25, 0.5, 0.25], np.float32)
    alpha = cv2.sepFilter2D(coverage, -1, tent, tent, borderType=cv2.BORDER_REFLECT_101)[::2, ::2]
    # Beyond the outermost centres the outline has the colour of its neighbours.
    around = cv2.blur(shaded, (3, 3))
    share = around[..., 3:]
    filled = around[..., :3] / np.where(share > 0, share, 1)
    alpha = np.where(share[..., 0] > 0, alpha, 0)
    color = np.where(shaded[..., 3:] > 0, shaded[..., :3], filled)
    return color * alpha[..., None], alpha
