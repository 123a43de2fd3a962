"""Draw small meshes for the pictures of ``docs/body.md``.

Private to the tools, so that building the body needs nothing of the package itself.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Image = NDArray[np.uint8]

SUPERSAMPLING = 2  # cv2.triangleRasterize does not antialias: draw larger, then shrink
FIELD_OF_VIEW = np.radians(12.0)  # long lens: nearly orthographic, as in a textbook plate
SKIN = (0.80, 0.76, 0.72)
# Light over the viewer's left shoulder; camera frame: x right, y up, z towards the viewer.
LIGHT = np.array([-0.35, 0.45, 0.82])
AMBIENT = 0.25


def yaw(angle_deg: float) -> FloatArray:
    """(3, 3) turn about the vertical; +90 shows the person's left side."""
    c, s = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    return np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])


def view_points(
    points: FloatArray, *, centre: FloatArray, height: float, rotation: FloatArray
) -> FloatArray:
    """Body frame (y up, z forward) to a camera that sees ``height`` metres around ``centre``.

    Args:
        points: (N, 3) metres.
        centre: (3,) metres, shown in the middle of the picture.
        height: metres seen from top to bottom of the picture.
        rotation: (3, 3) turn of the body before the camera looks at it from the front.

    Returns:
        (N, 3) metres, x right, y up, z towards the viewer, camera at the origin.
    """
    distance = height / 2 / np.tan(FIELD_OF_VIEW / 2)
    return (points - centre) @ rotation.T - [0, 0, distance]


def project(points: FloatArray, *, size: tuple[int, int]) -> FloatArray:
    """Pixels (N, 2) of points given by :func:`view_points`; size is (height, width)."""
    height, width = size
    focal = height / 2 / np.tan(FIELD_OF_VIEW / 2)
    offset = points[:, :2] * [1, -1] / -points[:, 2:] * focal
    return offset + np.array([(width - 1) / 2, (height - 1) / 2])


def draw_mesh(
    points: FloatArray,
    faces: IntArray,
    *,
    size: tuple[int, int],
    colours: FloatArray | tuple[float, float, float] = SKIN,
) -> Image:
    """Draw a smoothly shaded mesh on white.

    Args:
        points: (V, 3) from :func:`view_points`.
        faces: (F, 3) indices.
        size: (height, width) pixels.
        colours: (V, 3) or one colour, RGB in [0, 1].

    Returns:
        (height, width, 3) uint8 RGB.
    """
    height, width = (SUPERSAMPLING * n for n in size)
    light = np.clip(vertex_normals(points, faces) @ (LIGHT / np.linalg.norm(LIGHT)), 0, 1)
    shade = (AMBIENT + (1 - AMBIENT) * light)[:, None] * np.asarray(colours)
    far = 100.0
    settings = cv2.TriangleRasterizeSettings()
    settings.setCullingMode(cv2.RASTERIZE_CULLING_NONE)
    settings.setShadingType(cv2.RASTERIZE_SHADING_SHADED)
    image, _ = cv2.triangleRasterize(
        points.astype(np.float32),
        faces.astype(np.int32),
        shade.astype(np.float32),
        np.ones((height, width, 3), np.float32),
        np.full((height, width), far, np.float32),
        np.eye(4, dtype=np.float32),
        FIELD_OF_VIEW,
        0.1,
        far,
        settings,
    )
    small = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
    return (np.clip(small, 0, 1) * 255 + 0.5).astype(np.uint8)


def vertex_normals(points: FloatArray, faces: IntArray) -> FloatArray:
    """(V, 3) unit normals, area-weighted over the adjoining triangles."""
    corners = points[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    summed = np.zeros_like(points)
    for k in range(3):
        np.add.at(summed, faces[:, k], normals)
    return summed / np.maximum(np.linalg.norm(summed, axis=1, keepdims=True), 1e-12)


def label(image: Image, text: str) -> Image:
    """A copy with a caption in the top left corner."""
    out = image.copy()
    cv2.putText(out, text, (8, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (40, 40, 40), 1, cv2.LINE_AA)
    return out


def grid(images: list[Image], *, columns: int) -> Image:
    """Tile equally large pictures row by row; the last row is filled with white."""
    blank = np.full_like(images[0], 255)
    padded = images + [blank] * (-len(images) % columns)
    rows = [np.hstack(padded[i : i + columns]) for i in range(0, len(padded), columns)]
    return np.vstack(rows)
