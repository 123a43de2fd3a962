"""How far bodies are from the true ones, person by person: `fit-cli evaluate`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .body import Body, BodyOutput, pose_body
from .camera import project_points
from .files import InputError
from .groups import Person
from .keypoint_quality import KeypointQuality, measure_keypoints
from .keypoints import KeypointMap, map_keypoints
from .metrics import (
    auc,
    pa_mpjpe,
    pck,
    pck_2d,
    point_errors_mm,
    pve,
    relative_to_root,
    reprojection_error,
)
from .people import person_size
from .posing import params_of
from .problem import PARAMETERS, BodyParams
from .skeleton import KEYPOINT_SETS, KeypointSet, joint_index
from .table import FitsTable

# Human3.6M's joints but pelvis, spine and nose, in LSP's order: what SPIN and others are judged by
# on Human3.6M and 3DPW (H36M_TO_J14 in SPIN's constants.py).
_H36M14 = (
    "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "right_wrist",
    "right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist", "neck", "head",
)  # fmt: skip


def _h36m14() -> KeypointSet:
    whole = KEYPOINT_SETS["h36m17"]
    points = tuple(whole.points[whole.index(name)] for name in _H36M14)
    return KeypointSet(name="h36m14", names=_H36M14, points=points, limbs=())


JOINT_SETS = {
    joints.name: joints
    for joints in (
        KEYPOINT_SETS["smpl24"], KEYPOINT_SETS["lsp14"], _h36m14(), KEYPOINT_SETS["h36m17"],
    )
}  # fmt: skip
"""The joints that bodies are judged by."""
_CHUNK = 128  # people posed at once, about 50 MB of skinning transforms for 7,000 vertices


@dataclass(frozen=True, kw_only=True)
class BodyErrors:
    """Of N bodies, with their pelvises laid upon each other.

    Attributes:
        errors: (N,) float64 arrays: "mpjpe_mm", "pa_mpjpe_mm", "pck_150", "auc" and, with cameras,
            "pck_2d" under "SET.NAME" for each of `JOINT_SETS` (see `evaluate_fits`); "pve_mm", and
            with cameras "joint_error_px".
        joint_errors_mm: (N, J) float64 by joint set; of the joints that the body has.
        joint_names: J names by joint set.
    """

    errors: Mapping[str, np.ndarray]
    joint_errors_mm: Mapping[str, np.ndarray]
    joint_names: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """N people that predictions and truth both hold, in the truth's order.

    Attributes:
        counts: `people` of `evaluate_fits`.
        matched: the N people, by picture and number.
        missing: people of the truth without a fit.
        bodies: how far the N bodies are off; the errors hold "reprojection_error_px", too.
        keypoints: what the predictions were made from.
        joint_std_mm: (N, 24) as in the predictions; NaN for those that do not say.
    """

    counts: Mapping[str, int]
    matched: Sequence[Person]
    missing: Sequence[Person]
    bodies: BodyErrors
    keypoints: KeypointQuality
    joint_std_mm: np.ndarray


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
        * for each of `JOINT_SETS`, where `keypoints.map_keypoints` places its joints on the body
          (without those that it lacks), `mpjpe_mm`, `pa_mpjpe_mm`, `pck_150` and `auc` (of errors
          aligned at SMPL's pelvis), and `pck_2d`, each body through its own camera.
        * `pve_mm`; `joint_error_px`, the distance of the 24 joints in the picture, each body
          through its own camera; `reprojection_error_px` of the predictions, as they report it.

        Missing people count in no mean. A number that nobody has is None.

    Raises:
        InputError: a person occurs twice in a table, or the tables have nobody in common.
    """
    return mean_errors(compare_fits(predicted, truth, body))


def compare_fits(predicted: FitsTable, truth: FitsTable, body: Body) -> Comparison:
    """Match the people of two tables and hold each against the truth; see `evaluate_fits`.

    Raises:
        InputError: as `evaluate_fits`; or parameters of somebody are NaN in part, or infinite.
    """
    match = match_people(predicted, truth)
    tables = predicted.select(match.rows), truth.select(match.truth_rows)
    found, wanted = (params_of(table, body.v_template) for table in tables)
    _check_finite(found, match.rows, "predictions")
    _check_finite(wanted, match.truth_rows, "truth")
    cameras = [torch.from_numpy(table.intrinsics).to(body.v_template) for table in tables]
    bodies = compare_bodies(found, wanted, body, intrinsics=cameras)
    reported = {"reprojection_error_px": tables[0].column_array("reprojection_error_px")}
    return Comparison(
        counts=match.counts,
        matched=match.people,
        missing=match.missing,
        bodies=replace(bodies, errors={**bodies.errors, **reported}),
        keypoints=measure_keypoints(tables[0], wanted, cameras[1], body),
        joint_std_mm=tables[0].column_array("joint_std_mm").astype(np.float64),
    )


def mean_errors(comparison: Comparison) -> dict[str, Any]:
    """What `evaluate_fits` returns: "set.name" becomes an entry of a dictionary for the set."""
    means: dict[str, Any] = {name: {} for name in JOINT_SETS}
    for key, values in comparison.bodies.errors.items():
        joint_set, _, name = key.rpartition(".")
        (means[joint_set] if joint_set else means)[name] = mean_of_known(values)
    return {"people": dict(comparison.counts)} | means


def mean_of_known(values: np.ndarray) -> float | None:
    """Mean over the people who have the number, such as a camera; None if nobody has."""
    known = values[~np.isnan(values)]
    return float(known.mean(dtype=np.float64)) if len(known) else None


def body_errors(
    predicted: BodyParams,
    truth: BodyParams,
    body: Body,
    *,
    intrinsics: Sequence[Tensor] | None = None,
) -> dict[str, np.ndarray]:
    """Errors of N bodies, person by person: the `errors` of `compare_bodies`."""
    return dict(compare_bodies(predicted, truth, body, intrinsics=intrinsics).errors)


@torch.no_grad()
def compare_bodies(
    predicted: BodyParams,
    truth: BodyParams,
    body: Body,
    *,
    intrinsics: Sequence[Tensor] | None = None,
) -> BodyErrors:
    """Errors of N bodies, person by person, with their pelvises laid upon each other.

    Bodies are posed a chunk at a time, so that memory does not grow with N.

    Args:
        predicted: N people.
        truth: the same N people as they should be.
        body: of both, on their device.
        intrinsics: two of (N, 3, 3) pixels, of the cameras of `predicted` and of `truth`.

    Raises:
        ValueError: there are not as many people in one as in the other.
    """
    if len(predicted) != len(truth):
        raise ValueError(
            f"predicted holds {len(predicted)} people and truth {len(truth)}; give the same ones"
        )
    maps = [map_keypoints(body, joints) for joints in JOINT_SETS.values()]
    parts = []
    for rows in torch.arange(len(truth)).split(_CHUNK):
        posed = pose_body(body, predicted.select(rows)), pose_body(body, truth.select(rows))
        part = _chunk_errors(*posed, maps)
        if intrinsics is not None:
            cameras = [K[rows] for K in intrinsics]
            part = replace(
                part, errors={**part.errors, **_errors_in_pictures(posed, cameras, maps)}
            )
        parts.append(part)
    return BodyErrors(
        errors=_concatenate([part.errors for part in parts]),
        joint_errors_mm=_concatenate([part.joint_errors_mm for part in parts]),
        joint_names=parts[0].joint_names,
    )


def _concatenate(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


class PeopleMatch(NamedTuple):
    """The same people in both tables, both with parameters; and who is missing.

    Attributes:
        rows, truth_rows: (N,) of those whom both tables hold, in the truth's order.
        people: the same N by picture and number.
        missing: people of the truth without a fit.
        counts: `people` of `evaluate_fits`.
    """

    rows: np.ndarray
    truth_rows: np.ndarray
    people: list[Person]
    missing: list[Person]
    counts: dict[str, int]


def match_people(predicted: FitsTable, truth: FitsTable) -> PeopleMatch:
    """Find the people of one table in the other, by picture and number within it.

    Raises:
        InputError: as `evaluate_fits`.
    """
    row_of = _rows_by_person(predicted, "predictions")
    truth_row_of = _rows_by_person(truth, "truth")
    has_fit, has_truth = predicted.has_parameters, truth.has_parameters
    wanted = {person: row for person, row in truth_row_of.items() if has_truth[row]}
    matched = [person for person in wanted if person in row_of and has_fit[row_of[person]]]
    if not matched:
        raise InputError(
            f"none of the {len(wanted)} people of the truth has a fit among the {len(predicted)} "
            "rows of the predictions; people are matched by the columns image and person, so give "
            "tables made from the same pictures"
        )
    found = set(matched)
    counts = {
        "truth": len(wanted),
        "matched": len(matched),
        "missing": len(wanted) - len(matched),
        "extra": sum(person not in truth_row_of for person in row_of),
    }
    return PeopleMatch(
        rows=np.array([row_of[person] for person in matched]),
        truth_rows=np.array([wanted[person] for person in matched]),
        people=matched,
        missing=[person for person in wanted if person not in found],
        counts=counts,
    )


def _check_finite(params: BodyParams, rows: np.ndarray, words: str) -> None:
    """Parameters are all NaN or all numbers in our tables; others' may be anything."""
    for name in PARAMETERS:
        wrong = np.flatnonzero(~getattr(params, name).isfinite().all(dim=1).cpu().numpy())
        if len(wrong):
            raise InputError(
                f"{name} in row {rows[wrong[0]]} of the {words} holds NaN or infinity; leave all "
                f"of {', '.join(PARAMETERS)} empty for people without a fit"
            )


def _rows_by_person(table: FitsTable, words: str) -> dict[Person, int]:
    images, persons = table.column_array("image").tolist(), table.column_array("person").tolist()
    rows: dict[Person, int] = {}
    for row, person in enumerate(zip(images, persons, strict=True)):
        if rows.setdefault(person, row) != row:
            raise InputError(
                f"person {person[1]} of the picture {person[0]!r} stands in rows {rows[person]} "
                f"and {row} of the {words}; keep one of them"
            )
    return rows


def _chunk_errors(found: BodyOutput, wanted: BodyOutput, maps: Iterable[KeypointMap]) -> BodyErrors:
    """Errors in 3D alone."""
    pelvis = joint_index("pelvis")
    roots = [output.joints[:, pelvis].cpu().numpy() for output in (found, wanted)]
    errors: dict[str, np.ndarray] = {}
    joint_errors_mm: dict[str, np.ndarray] = {}
    joint_names: dict[str, tuple[str, ...]] = {}
    for joints_of in maps:
        joints = [_defined_joints(output, joints_of).cpu().numpy() for output in (found, wanted)]
        error_mm = point_errors_mm(*map(relative_to_root, joints, roots))
        name = joints_of.keypoint_set.name
        joint_errors_mm[name] = error_mm
        defined = joints_of.defined.tolist()
        joint_names[name] = tuple(
            joint for joint, has in zip(joints_of.keypoint_set.names, defined, strict=True) if has
        )
        errors |= {
            f"{name}.mpjpe_mm": error_mm.mean(axis=1),
            f"{name}.pa_mpjpe_mm": pa_mpjpe(*joints),
            f"{name}.pck_150": pck(error_mm),
            f"{name}.auc": auc(error_mm),
        }
    vertices = [output.vertices.cpu().numpy() for output in (found, wanted)]
    errors["pve_mm"] = pve(*vertices, *roots)
    return BodyErrors(errors=errors, joint_errors_mm=joint_errors_mm, joint_names=joint_names)


def _defined_joints(output: BodyOutput, joints_of: KeypointMap) -> Tensor:
    """(B, J, 3) without those that the body lacks; means are over the others."""
    return joints_of(output)[:, joints_of.defined]


def _errors_in_pictures(
    posed: tuple[BodyOutput, BodyOutput], cameras: Sequence[Tensor], maps: Iterable[KeypointMap]
) -> dict[str, np.ndarray]:
    """Between the joints of two bodies as pictures show them, each body before its own camera."""
    errors = {}
    for joints_of in maps:
        found, wanted = (
            project_points(_defined_joints(output, joints_of), K)[0].cpu().numpy()
            for output, K in zip(posed, cameras, strict=True)
        )
        error_px = reprojection_error(found, wanted)
        name = joints_of.keypoint_set.name
        errors[f"{name}.pck_2d"] = pck_2d(error_px, person_size(wanted, np.ones_like(error_px)))
        if name == "smpl24":
            errors["joint_error_px"] = error_px.mean(axis=1)
    return errors
