"""Mesh files for other programs: OBJ, PLY and GLB."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from .files import write_atomically

Frame = Literal["y_up", "camera"]

SUFFIXES = (".obj", ".ply", ".glb")
# Half a turn about x takes x right, y down, z forward to x right, y up, z towards the viewer.
CAMERA_TO_Y_UP = np.diag([1.0, -1.0, -1.0])


def write_mesh(
    path: Path | str,
    vertices: ArrayLike,
    faces: ArrayLike,
    *,
    colors: ArrayLike | None = None,
    frame: Frame = "y_up",
) -> Path:
    """Write a triangle mesh; the suffix chooses the format: .obj, .ply (binary) or .glb.

    The file appears complete or not at all. Vertices keep their order and number, so that files
    of one body correspond vertex by vertex. OBJ holds eight decimals; the others hold float32.

    Args:
        path: where to write; an existing file is replaced.
        vertices: (V, 3) metres, camera frame.
        faces: (F, 3) vertex indices.
        colors: (3,) or (V, 3) RGB in [0, 1]; none writes no colours.
        frame: axes of the file: "y_up", as viewers expect, so that people stand upright, or
            "camera" (x right, y down, z forward), so that the mesh projects onto its photograph.

    Returns:
        The path written.

    Raises:
        ValueError: the suffix or frame is unknown, or an array has the wrong shape.
        OutputError: the file cannot be written.
    """
    target = Path(path)
    suffix = target.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"cannot write {target.name}: use one of {', '.join(SUFFIXES)}")
    if frame not in ("y_up", "camera"):
        raise ValueError(f'frame must be "y_up" or "camera", got {frame!r}')
    encoded = _encode(vertices, faces, colors, suffix, frame)
    write_atomically(target, lambda stream: stream.write(encoded))
    return target


def _encode(
    vertices: ArrayLike, faces: ArrayLike, colors: ArrayLike | None, suffix: str, frame: Frame
) -> bytes:
    """The file's content."""
    import trimesh

    points = np.asarray(vertices, np.float64)
    triangles = np.asarray(faces)
    if points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f"vertices must be (V, 3) metres, got {points.shape}")
    if triangles.ndim != 2 or triangles.shape[1] != 3 or triangles.dtype.kind not in "iu":
        raise ValueError(
            f"faces must be (F, 3) integers, got {triangles.shape} of {triangles.dtype}"
        )
    tint = None
    if colors is not None:
        rgb = np.broadcast_to(np.clip(np.asarray(colors, np.float64), 0, 1), points.shape)
        opaque = np.ones((len(points), 1))
        tint = np.rint(255 * np.hstack([rgb, opaque])).astype(np.uint8)
    mesh = trimesh.Trimesh(
        points @ CAMERA_TO_Y_UP if frame == "y_up" else points,
        triangles,
        vertex_colors=tint,
        process=False,  # merging or reordering vertices would break correspondence
    )
    content = mesh.export(file_type=suffix.removeprefix("."))
    return content.encode() if isinstance(content, str) else bytes(content)
