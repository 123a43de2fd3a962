"""How far bodies are from the true ones, person by person: `fit-cli evaluate`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .body import Body, BodyOutput, pose_body
from .camera import project_points
from .files import InputError
from .keypoints import KeypointMap, map_keypoints
from .metrics import auc, pa_mpjpe, pck, point_errors_mm, pve, relative_to_root, reprojection_error
from .posing import params_of
from .problem import BodyParams
from .skeleton import joint_index, keypoint_set
from .table import FitsTable

JOINT_SETS = ("smpl24", "lsp14")
_CHUNK = 128  # people posed at once, about 50 MB of skinning transforms for 7,000 vertices


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
        * `smpl24`, the joints of SMPL's tree, and `lsp14`, LSP's joints where
          `keypoints.map_keypoints` places them on the body (without those that it lacks), each
          with `mpjpe_mm`, `pa_mpjpe_mm`, `pck_150` and `auc` (of errors aligned at SMPL's pelvis).
        * `pve_mm`; `joint_error_px`, the distance of the 24 joints in the picture, each body
          through its own camera; `reprojection_error_px` of the predictions, as they report it.

        Missing people count in no mean. A number that nobody has is None.

    Raises:
        InputError: a person occurs twice in a table, or the tables have nobody in common.
    """
    rows, truth_rows, people = _match(predicted, truth)
    tables, like = (predicted.select(rows), truth.select(truth_rows)), body.v_template
    found, wanted = (params_of(table, like) for table in tables)
    intrinsics = [torch.from_numpy(table.intrinsics).to(like) for table in tables]
    errors = body_errors(found, wanted, body, intrinsics=intrinsics)
    errors["reprojection_error_px"] = tables[0].column_array("reprojection_error_px")
    return {"people": people} | _means(errors)


@torch.no_grad()
def body_errors(
    predicted: BodyParams,
    truth: BodyParams,
    body: Body,
    *,
    intrinsics: Sequence[Tensor] | None = None,
) -> dict[str, np.ndarray]:
    """Errors of N bodies, person by person, with their pelvises laid upon each other.

    Bodies are posed a chunk at a time, so that memory does not grow with N.

    Args:
        predicted: N people.
        truth: the same N people as they should be.
        body: of both, on their device.
        intrinsics: two of (N, 3, 3) pixels, of the cameras of `predicted` and of `truth`.

    Returns:
        (N,) float64 arrays: "mpjpe_mm", "pa_mpjpe_mm", "pck_150" and "auc" under "smpl24.NAME" and
        "lsp14.NAME" (see `evaluate_fits`), "pve_mm", and with intrinsics "joint_error_px".

    Raises:
        ValueError: there are not as many people in one as in the other.
    """
    if len(predicted) != len(truth):
        raise ValueError(
            f"predicted holds {len(predicted)} people and truth {len(truth)}; give the same ones"
        )
    maps = [map_keypoints(body, keypoint_set(name)) for name in JOINT_SETS]
    parts = []
    for rows in torch.arange(len(truth)).split(_CHUNK):
        posed = pose_body(body, predicted.select(rows)), pose_body(body, truth.select(rows))
        part = _chunk_errors(*posed, maps)
        if intrinsics is not None:
            cameras = [K[rows] for K in intrinsics]
            part["joint_error_px"] = _joint_errors_px(posed, cameras).mean(axis=1)
        parts.append(part)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


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


def _chunk_errors(
    found: BodyOutput, wanted: BodyOutput, maps: Iterable[KeypointMap]
) -> dict[str, np.ndarray]:
    """(B,) errors in 3D of each person by name, those of a joint set under "set.name"."""
    pelvis = joint_index("pelvis")
    roots = [output.joints[:, pelvis].cpu().numpy() for output in (found, wanted)]
    errors: dict[str, np.ndarray] = {}
    for joints_of in maps:
        # A body without a landmark has no such joint; its mean is over the others.
        joints = [
            joints_of(output)[:, joints_of.defined].cpu().numpy() for output in (found, wanted)
        ]
        error_mm = point_errors_mm(*map(relative_to_root, joints, roots))
        name = joints_of.keypoint_set.name
        errors |= {
            f"{name}.mpjpe_mm": error_mm.mean(axis=1),
            f"{name}.pa_mpjpe_mm": pa_mpjpe(*joints),
            f"{name}.pck_150": pck(error_mm),
            f"{name}.auc": auc(error_mm),
        }
    vertices = [output.vertices.cpu().numpy() for output in (found, wanted)]
    errors["pve_mm"] = pve(*vertices, *roots)
    return errors


def _joint_errors_px(posed: Iterable[BodyOutput], cameras: Iterable[Tensor]) -> np.ndarray:
    """(B, 24) distances in the picture between the joints of two bodies, each before its camera."""
    pixels = [
        project_points(output.joints, K)[0].cpu().numpy()
        for output, K in zip(posed, cameras, strict=True)
    ]
    return reprojection_error(*pixels)


def _means(errors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Means over the people; "set.name" becomes an entry of a dictionary for the set."""
    means: dict[str, Any] = {name: {} for name in JOINT_SETS}
    for key, values in errors.items():
        joint_set, _, name = key.rpartition(".")
        (means[joint_set] if joint_set else means)[name] = _mean(values)
    return means


def _mean(values: np.ndarray) -> float | None:
    """Mean over the people who have the number, such as a camera; None if nobody has."""
    known = values[~np.isnan(values)]
    return float(known.mean(dtype=np.float64)) if len(known) else None
