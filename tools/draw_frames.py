"""Draw the frames of docs/conventions.md: of bodies, of cameras, and of a picture's pixels.

python tools/draw_frames.py -o docs/pictures/frames.png
"""

from __future__ import annotations

from pathlib import Path

import click
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray

from fitting.body import Body, load_body
from fitting.rasterizer import render_mesh

_SIZE = 360
_COLORS = {"x": "crimson", "y": "seagreen", "z": "royalblue"}
_REST = np.diag([1.0, -1.0, -1.0])  # y up, z towards the viewer: what a camera before it sees
_OBLIQUE = np.array([[0.85, 0, 0.53], [0.18, 0.94, -0.29], [-0.5, 0.34, 0.8]])  # a look from aside


def _draw_frame(axis: Axes, body: Body, orient: tuple[float, float, float], turn: NDArray) -> None:
    """A body of zero pose and this `global_orient`, and the axes that it stands in."""
    with torch.no_grad():
        posed = body(
            torch.tensor([orient]), torch.zeros(1, 69), torch.zeros(1, 10), torch.zeros(1, 3)
        )
    away = np.array([0, 0, 6.0])
    focal = 2.9 * _SIZE
    K = np.array([[focal, 0, _SIZE / 2], [0, focal, _SIZE / 2], [0, 0, 1]])
    seen = _OBLIQUE @ turn
    vertices = posed.vertices[0].numpy() @ seen.T + away
    picture = render_mesh(
        vertices, body.faces.numpy(), K, (_SIZE, _SIZE), background=(246, 247, 249)
    )
    axis.imshow(picture.color)
    for name, direction in zip("xyz", np.eye(3), strict=True):
        ends = np.stack([np.zeros(3), 0.75 * direction]) @ seen.T + away
        pixels = (ends @ K.T)[:, :2] / ends[:, 2:]
        axis.annotate(
            name,
            pixels[0],
            pixels[1],
            color=_COLORS[name],
            fontsize=12,
            ha="center",
            va="center",
            arrowprops={"arrowstyle": "<-", "color": _COLORS[name], "lw": 2},
        )
    axis.set_axis_off()


def _draw_pixels(axis: Axes) -> None:
    """The upper left corner of a picture."""
    axis.set(xlim=(-1, 3.5), ylim=(3.5, -1), aspect="equal")
    for edge in np.arange(-0.5, 4):
        axis.plot([edge, edge], [-0.5, 3.5], color="0.7", lw=1)
        axis.plot([-0.5, 3.5], [edge, edge], color="0.7", lw=1)
    axis.plot(0, 0, "o", color="black")
    axis.text(0.1, -0.1, "(0, 0)", fontsize=9)
    axis.text(-0.5, -0.6, "(-0.5, -0.5)", fontsize=9)
    axis.annotate(
        "x", (0, 0), (3, 0), color=_COLORS["x"], va="center", arrowprops={"arrowstyle": "<-"}
    )
    axis.annotate(
        "y", (0, 0), (0, 3), color=_COLORS["y"], ha="center", arrowprops={"arrowstyle": "<-"}
    )
    axis.set_axis_off()


@click.command()
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path))
def main(output: Path) -> None:
    body = load_body()
    figure, axes = plt.subplots(1, 4, figsize=(11, 3))
    upright = (np.pi, 0.0, 0.0)
    _draw_frame(axes[0], body, (0.0, 0.0, 0.0), _REST)
    _draw_frame(axes[1], body, (0.0, 0.0, 0.0), np.eye(3))
    _draw_frame(axes[2], body, upright, np.eye(3))
    _draw_pixels(axes[3])
    titles = ("body at rest, mesh files", "camera, zero pose", "camera, (π, 0, 0)", "pixels")
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title, fontsize=10)
    figure.tight_layout()
    figure.savefig(output, dpi=110)


if __name__ == "__main__":
    main()
