"""Mesh files, one for each person."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ..body import Body, pose_body
from ..files import InputError, short_name
from ..meshes import write_mesh
from ..posing import params_of
from ..table import FitsTable


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
            stem = short_name(Path(image[row]).stem) or "no-picture"
            write_mesh(folder / f"{row:06d}_{stem}_{person[row]}.{suffix}", mesh, faces)
        progress(len(batch))
    return len(rows)
