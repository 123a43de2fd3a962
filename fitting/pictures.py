"""Draw the people of a run: whole pictures with everyone in them, and squares for the report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from joblib import Parallel, delayed

from .body import Body, pose_body
from .camera import project_points
from .files import short_name
from .images import MAX_MEGAPIXELS, ImageError, read_image, write_image
from .keypoints import map_keypoints
from .overlay import CANVAS_COLOR, draw_overlay, draw_person
from .posing import params_of
from .skeleton import keypoint_set
from .table import FitsTable

OVERLAYS = "overlays"
PEOPLE = "people"
_BLOCK = 64  # people of one picture drawn at a time, the farthest first: memory has a limit

_TINTS = np.array(
    [[0.62, 0.72, 0.88], [0.93, 0.70, 0.55], [0.66, 0.84, 0.62], [0.84, 0.68, 0.87],
     [0.92, 0.84, 0.55], [0.58, 0.83, 0.83]]
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PersonFiles:
    """Square pictures of one row, as paths relative to the run's folder."""

    photo: str
    overlay: str
    side: str


def person_files(row: int) -> PersonFiles:
    """Where the pictures of a row stand."""
    kinds = ("photo", "overlay", "side")
    return PersonFiles(**{kind: f"{PEOPLE}/{row:06d}_{kind}.jpg" for kind in kinds})


def remove_pictures(output: Path) -> None:
    """Remove the squares of an earlier run, whose rows may have been other people."""
    for old in (output / PEOPLE).glob("[0-9]*_*.jpg"):
        old.unlink()


def draw_people(
    table: FitsTable,
    body: Body,
    images: Path,
    output: Path,
    *,
    jobs: int = -1,
    progress: Callable[[int], object] = lambda done: None,
) -> None:
    """Draw every fitted person over its picture.

    Writes `overlays/NAME.jpg`, each picture with all its people, and for each person the squares
    that `person_files` names. A picture that cannot be read is replaced by grey of the same size.

    Args:
        table: fits, whose `image` is relative to `images`.
        body: the one fitted, on the CPU.
        images: folder of the pictures.
        output: folder of the run.
        jobs: pictures drawn at a time; -1 means as many as there are cores.
        progress: called with the number of people just drawn.

    Raises:
        OutputError: a picture cannot be written.
    """
    if len(table) == 0:
        return
    for folder in (OVERLAYS, PEOPLE):
        (output / folder).mkdir(exist_ok=True)
    painter = _Painter(table, body, images, output)
    names, groups = np.unique(table.column_array("image"), return_inverse=True)
    order = np.argsort(groups, kind="stable")
    rows_by_image = np.split(order, np.cumsum(np.bincount(groups, minlength=len(names)))[:-1])
    # Threads share the body; drawing spends its time in OpenCV and PyTorch, which release the lock.
    parallel = Parallel(n_jobs=jobs, backend="threading", return_as="generator_unordered")
    for count in parallel(delayed(painter.draw)(rows) for rows in rows_by_image):
        progress(count)


class _Painter:
    """What all pictures of a run have in common."""

    def __init__(self, table: FitsTable, body: Body, images: Path, output: Path) -> None:
        self.body, self.images, self.output = body, images, output
        self.faces = body.faces.numpy()
        self.image = table.column_array("image")
        self.keypoint_map = map_keypoints(body, keypoint_set(table.column_array("keypoint_set")[0]))
        self.has_fit = table.has_parameters
        self.params = params_of(table, body.v_template)
        self.size = np.stack([table.column_array(name) for name in ("height", "width")], axis=1)
        self.intrinsics = table.intrinsics
        self.keypoints = table.column_array("keypoints_2d").reshape(len(table), -1, 3)

    def draw(self, rows: np.ndarray) -> int:
        """Draw those of the people at `rows`, all of one picture, who have a fit; their number."""
        fitted = rows[self.has_fit[rows]]
        picture = self._picture(int(fitted[0])) if len(fitted) else None
        if picture is None:
            return len(rows)
        overlay = picture
        tints = _TINTS[np.arange(len(fitted)) % len(_TINTS)][:, None]
        farthest_first = np.argsort(-self.params.transl[fitted, 2].numpy(), kind="stable")
        for first in range(0, len(fitted), _BLOCK):
            block = np.sort(farthest_first[first : first + _BLOCK])
            vertices, projected = self._pose(fitted[block])
            intrinsics = self.intrinsics[fitted[0]]
            overlay = draw_overlay(overlay, vertices, self.faces, intrinsics, colors=tints[block])
            for i, row in enumerate(fitted[block].tolist()):
                self._draw_squares(row, picture, vertices[i], projected[i])
        write_image(self.output / OVERLAYS / _overlay_name(self.image[fitted[0]]), overlay)
        return len(rows)

    def _picture(self, row: int) -> np.ndarray | None:
        """The photograph, or grey where it cannot be read (which the run has already reported).

        None where that grey would be larger than photographs may be: only a file claims it to be.
        """
        try:
            return read_image(self.images / self.image[row])
        except ImageError:
            if self.size[row].prod(dtype=float) > MAX_MEGAPIXELS * 1e6:
                return None
            return np.full((*self.size[row], 3), CANVAS_COLOR, dtype=np.uint8)

    def _pose(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Vertices (N, V, 3) in the camera frame and projected keypoints (N, P, 2) in pixels."""
        with torch.no_grad():
            posed = pose_body(self.body, self.params.select(torch.from_numpy(rows)))
            points = self.keypoint_map(posed)
            pixels, _ = project_points(points, torch.from_numpy(self.intrinsics[rows]).to(points))
        return posed.vertices.numpy(), pixels.numpy()

    def _draw_squares(
        self, row: int, picture: np.ndarray, vertices: np.ndarray, projected: np.ndarray
    ) -> None:
        pictures = draw_person(
            picture,
            vertices,
            self.faces,
            self.intrinsics[row],
            keypoints_2d=self.keypoints[row, :, :2],
            conf=self.keypoints[row, :, 2],
            projected=projected,
            edges=[(int(a), int(b)) for a, b in self.keypoint_map.keypoint_set.edges],
        )
        files = person_files(row)
        write_image(self.output / files.photo, pictures.photo)
        write_image(self.output / files.overlay, pictures.overlay)
        write_image(self.output / files.side, pictures.side)


def _overlay_name(image: str) -> str:
    """A flat JPEG name for a picture that may lie in a subfolder."""
    flat = short_name(image) or "no-picture"
    return flat if flat.lower().endswith((".jpg", ".jpeg")) else f"{flat}.jpg"
