"""How far one table of fits is from another, person by person: `fit-cli evaluate`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .body import Body
from .camera import project_points
from .files import InputError
from .metrics import auc, pa_mpjpe, pck, point_errors_mm, pve, relative_to_root, reprojection_error
from .skeleton import SMPL_JOINTS, joint_index, keypoint_set
from .table import PARAMETERS, FitsTable

_CAMERA = ("fx", "fy", "cx", "cy")
_CHUNK = 128  # people posed at once, about 50 MB of skinning transforms for 7,000 vertices

# LSP's 14 joints among SMPL's: its neck and head joints stand for LSP's neck and top of the head.
MAIN_JOINTS = tuple("head" if n == "head_top" else n for n in keypoint_set("lsp14").names)
_JOINT_SETS = {
    "smpl24": list(range(len(SMPL_JOINTS))),
    "lsp14": [joint_index(name) for name in MAIN_JOINTS],
}


def evaluate_fits(predicted: FitsTable, truth: FitsTable, body: Body) -> dict[str, Any]:
    """Errors of predicted bodies, averaged over the people that both tables hold.

    People are matched by picture and number within it. Both are posed with the same `body`, and
    compared with their pelvises laid upon each other.

    Args:
        predicted: the fits to judge.
        truth: what they should be.
        body: of both tables.

    Returns:
        A dictionary ready for JSON:

        * `people`: `truth` with parameters; of these `matched`, and `missing` from the predictions
          or without parameters there; `extra` predictions of people who are not in the truth.
        * `smpl24` and `lsp14` (`MAIN_JOINTS`), each with `mpjpe_mm`, `pa_mpjpe_mm`, `pck_150` and
          `auc` (of pelvis-aligned errors).
        * `pve_mm`; `joint_error_px`, the distance of the 24 joints in the picture, each body
          through its own camera; `reprojection_error_px` of the predictions, as they report it.

        Missing people count in no mean. A number that nobody has is None.

    Raises:
        InputError: a person occurs twice in a table, or the tables have nobody in common.
    """
    rows, truth_rows, people = _match(predicted, truth)
    predicted, truth = predicted.select(rows), truth.select(truth_rows)
    chunks = [slice(start, start + _CHUNK) for start in range(0, len(rows), _CHUNK)]
    found = _bodies(predicted, body, chunks)
    wanted = _bodies(truth, body, chunks)
    parts = [_errors(*pair) for pair in zip(found, wanted, strict=True)]
    errors = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    errors["reprojection_error_px"] = predicted.column_array("reprojection_error_px")
    result: dict[str, Any] = {"people": people}
    for name in _JOINT_SETS:
        prefix = f"{name}."
        result[name] = {
            key.removeprefix(prefix): _mean(values)
            for key, values in errors.items()
            if key.startswith(prefix)
        }
    return result | {key: _mean(values) for key, values in errors.items() if "." not in key}


def _match(predicted: FitsTable, truth: FitsTable) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """Row numbers of the same people in both tables, both with parameters; and who is missing."""
    row_of = _rows_by_person(predicted, "predictions")
    truth_row_of = _rows_by_person(truth, "truth")
    has_fit, has_truth = predicted.has_parameters, truth.has_parameters
    wanted = {person: row for person, row in truth_row_of.items() if has_truth[row]}
    pairs = [
        (row_of[person], row)
        for person, row in wanted.items()
        if person in row_of and has_fit[row_of[person]]
    ]
    if not pairs:
        raise InputError(
            f"none of the {len(wanted)} people of the truth has a fit among the {len(predicted)} "
            "rows of the predictions; people are matched by the columns image and person, so give "
            "tables made from the same pictures"
        )
    counts = {
        "truth": len(wanted),
        "matched": len(pairs),
        "missing": len(wanted) - len(pairs),
        "extra": sum(person not in truth_row_of for person in row_of),
    }
    rows, truth_rows = np.array(pairs).T
    return rows, truth_rows, counts


def _rows_by_person(table: FitsTable, words: str) -> dict[tuple[str, int], int]:
    images, persons = table.column_array("image").tolist(), table.column_array("person").tolist()
    rows: dict[tuple[str, int], int] = {}
    for row, person in enumerate(zip(images, persons, strict=True)):
        if rows.setdefault(person, row) != row:
            raise InputError(
                f"person {person[1]} of the picture {person[0]!r} stands in rows {rows[person]} "
                f"and {row} of the {words}; keep one of them"
            )
    return rows


def _bodies(
    table: FitsTable, body: Body, chunks: list[slice]
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Vertices (B, V, 3), joints (B, 24, 3) and projected joints (B, 24, 2) of each chunk."""
    parameters = {name: table.column_array(name) for name in PARAMETERS}
    camera = np.stack([table.column_array(name) for name in _CAMERA], axis=1)
    for chunk in chunks:
        with torch.no_grad():
            inputs = {name: _like(body, array[chunk]) for name, array in parameters.items()}
            output = body(**inputs)
            pixels, _ = project_points(output.joints, _intrinsics(_like(body, camera[chunk])))
        yield output.vertices.cpu().numpy(), output.joints.cpu().numpy(), pixels.cpu().numpy()


def _like(body: Body, array: np.ndarray) -> Tensor:
    return torch.from_numpy(array).to(body.v_template)


def _intrinsics(camera: Tensor) -> Tensor:
    """(B, 3, 3) from (B, 4) fx, fy, cx, cy."""
    intrinsics = torch.eye(3).to(camera).repeat(len(camera), 1, 1)
    intrinsics[:, [0, 1, 0, 1], [0, 1, 2, 2]] = camera
    return intrinsics


def _errors(
    found: tuple[np.ndarray, np.ndarray, np.ndarray],
    wanted: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> dict[str, np.ndarray]:
    """(B,) errors of each person by name, those of a joint set under "set.name"."""
    (vertices, joints, pixels), (true_vertices, true_joints, true_pixels) = found, wanted
    root, true_root = joints[:, 0], true_joints[:, 0]
    errors: dict[str, np.ndarray] = {}
    for name, index in _JOINT_SETS.items():
        error_mm = point_errors_mm(
            relative_to_root(joints[:, index], root),
            relative_to_root(true_joints[:, index], true_root),
        )
        errors |= {
            f"{name}.mpjpe_mm": error_mm.mean(axis=1),
            f"{name}.pa_mpjpe_mm": pa_mpjpe(joints[:, index], true_joints[:, index]),
            f"{name}.pck_150": pck(error_mm),
            f"{name}.auc": auc(error_mm),
        }
    errors["pve_mm"] = pve(vertices, true_vertices, root, true_root)
    errors["joint_error_px"] = reprojection_error(pixels, true_pixels).mean(axis=1)
    return errors


def _mean(values: np.ndarray) -> float | None:
    """Mean over the people who have the number, such as a camera; None if nobody has."""
    known = values[~np.isnan(values)]
    return float(known.mean(dtype=np.float64)) if len(known) else None
