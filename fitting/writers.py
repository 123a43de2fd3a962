"""Write keypoints and fits in other programs' formats."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .body import Body, pose_body
from .files import InputError, write_json
from .meshes import write_mesh
from .people import People
from .posing import params_of
from .skeleton import KeypointSet, keypoint_set
from .table import FitsTable


def write_coco(path: Path, people: People) -> None:
    """Write people as COCO keypoint JSON, with confidences in place of visibility flags.

    The category lists the names of the keypoints, so that the file can be read again whatever the
    set. Pictures are numbered from 0 in the order of their first person.

    Raises:
        OutputError: the file cannot be written.
    """
    s = keypoint_set(people.keypoint_set)
    names, first, image_id = np.unique(people.image, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(first))
    triplets = np.concatenate([people.keypoints_2d, people.conf[..., None]], axis=2)
    images = [
        {
            "id": int(order[i]),
            "file_name": str(names[i]),
            "width": int(people.width[first[i]]),
            "height": int(people.height[first[i]]),
        }
        for i in np.argsort(first)
    ]
    annotations = [
        {
            "id": int(people.annotation_id[row]),
            "image_id": int(order[image_id[row]]),
            "category_id": 1,
            "keypoints": triplets[row].astype(float).round(3).ravel().tolist(),
            "num_keypoints": int((people.conf[row] > 0).sum()),
            "bbox": _box(people.keypoints_2d[row][people.conf[row] > 0]),
            "iscrowd": 0,
        }
        for row in range(len(people))
    ]
    document = {"images": images, "annotations": annotations, "categories": [coco_category(s)]}
    write_json(path, document)


def coco_category(s: KeypointSet) -> dict[str, Any]:
    """COCO's category of people with the keypoints of a set."""
    return {
        "id": 1,
        "name": "person",
        "keypoints": list(s.names),
        "skeleton": (s.edges + 1).tolist(),
    }


def _box(points: np.ndarray) -> list[float]:
    """[x, y, width, height] in pixels around (P, 2) points; zeros around none."""
    if len(points) == 0:
        return [0.0, 0.0, 0.0, 0.0]
    low, high = points.min(axis=0), points.max(axis=0)
    return [round(float(v), 3) for v in (*low, *(high - low))]


def check_body(table: FitsTable, body: Body) -> None:
    """Make sure that `table` was fitted with `body`: parameters mean nothing on another one.

    Raises:
        InputError: it was not.
    """
    fitted_with = table.metadata.get("body_sha256")
    if fitted_with is not None and fitted_with != body.sha256:
        raise InputError(
            f"these fits were made with another body than {body.path} (sha256 {fitted_with[:12]}…, "
            f"not {body.sha256[:12]}…); pass the one they were made with as --body"
        )


def write_meshes(
    table: FitsTable,
    body: Body,
    folder: Path,
    suffix: str,
    *,
    batch_size: int = 64,
    progress: Callable[[int], object] = lambda done: None,
) -> int:
    """Write one mesh per fitted person into `folder`, as ROW_IMAGE_PERSON.suffix.

    Args:
        table: fits; rows without one are passed over.
        body: the one they were made with.
        folder: created where absent.
        suffix: "obj", "ply" or "glb".
        batch_size: people posed at a time.
        progress: called with the number of meshes just written.

    Returns:
        The number of meshes.

    Raises:
        InputError: the fits are of another body.
        OutputError: a file cannot be written.
    """
    check_body(table, body)
    folder.mkdir(parents=True, exist_ok=True)
    faces = body.faces.cpu().numpy()
    rows = np.flatnonzero(table.has_parameters)
    image, person = table.column_array("image"), table.column_array("person")
    for first in range(0, len(rows), batch_size):
        batch = rows[first : first + batch_size]
        with torch.no_grad():
            posed = pose_body(body, params_of(table.select(batch), body.v_template))
        for row, mesh in zip(batch, posed.vertices.cpu().numpy(), strict=True):
            stem = Path(image[row]).stem or "no-picture"
            write_mesh(folder / f"{row:06d}_{stem}_{person[row]}.{suffix}", mesh, faces)
        progress(len(batch))
    return len(rows)
