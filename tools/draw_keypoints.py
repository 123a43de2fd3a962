"""Draw every keypoint set on the resting body, so that its definition can be checked by eye.

python tools/draw_keypoints.py -o docs/pictures/keypoint_sets.png
"""

from __future__ import annotations

from pathlib import Path

import click
import cv2
import numpy as np
import torch

from fitting.body import load_body
from fitting.camera import project_points
from fitting.images import write_image
from fitting.keypoints import map_keypoints
from fitting.rasterizer import render_mesh
from fitting.skeleton import KEYPOINT_SETS, KeypointSet

TILE = (560, 440)  # width, height
COLUMNS = 3
SCALE = 2  # drawn larger and shrunk, since OpenCV's circles are coarse
LEFT, RIGHT, MIDDLE = (214, 69, 65), (52, 120, 190), (60, 140, 80)


def view(points: torch.Tensor, side: bool) -> torch.Tensor:
    """Body frame to a camera 8 m in front of it, or on its left."""
    x, y, z = points.unbind(-1)
    middle = y.new_tensor(-0.28)  # between head and feet
    across, depth = (-z, -x) if side else (x, -z)
    return torch.stack([across, middle - y, 8 + depth], dim=-1)


def draw_tile(
    s: KeypointSet, points: torch.Tensor, vertices: torch.Tensor, faces: np.ndarray
) -> np.ndarray:
    """Front and side view of one set, with its edges."""
    width, height = TILE[0] * SCALE, TILE[1] * SCALE
    canvas = np.full((height, width, 3), 255, dtype=np.uint8)
    for side, centre in ((False, 0.4), (True, 0.89)):
        K = torch.tensor(
            [[3.4 * TILE[0], 0, centre * TILE[0]], [0, 3.4 * TILE[0], TILE[1] * 0.62], [0, 0, 1]]
        )
        K[:2] *= SCALE
        body = view(vertices, side)
        canvas = render_mesh(
            body.numpy(), faces, K.numpy(), (width, height), background=canvas, supersample=1
        ).color
        xy = project_points(view(points, side), K)[0].numpy()
        draw_keypoints(canvas, s, xy)
    cv2.putText(
        canvas,
        f"{s.name} ({len(s)})",
        (16, 44),
        cv2.FONT_HERSHEY_DUPLEX,
        1.2,
        (20, 20, 20),
        2,
        cv2.LINE_AA,
    )
    return cv2.resize(canvas, TILE, interpolation=cv2.INTER_AREA)


def draw_keypoints(canvas: np.ndarray, s: KeypointSet, xy: np.ndarray) -> None:
    for a, b in s.edges:
        ends = [tuple(int(v) for v in xy[i].round()) for i in (a, b)]
        cv2.line(canvas, *ends, (90, 90, 90), 2, cv2.LINE_AA)
    for name, point in zip(s.names, xy, strict=True):
        colour = LEFT if "left" in name else RIGHT if "right" in name else MIDDLE
        cv2.circle(canvas, tuple(int(v) for v in point.round()), 7, colour, -1, cv2.LINE_AA)


@click.command()
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path))
def main(output: Path) -> None:
    body = load_body()
    zeros = torch.zeros(1, 69)
    with torch.no_grad():
        posed = body(zeros[:, :3], zeros, zeros[:, :10])
    tiles = [
        draw_tile(s, map_keypoints(body, s)(posed)[0], posed.vertices[0], body.faces.numpy())
        for s in KEYPOINT_SETS.values()
    ]
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % COLUMNS)
    rows = [np.concatenate(tiles[i : i + COLUMNS], axis=1) for i in range(0, len(tiles), COLUMNS)]
    write_image(output, np.concatenate(rows))


if __name__ == "__main__":
    main()
