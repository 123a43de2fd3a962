"""Read SMPL-format body files and check them.

The format is that of the SMPL web site (Loper et al., "SMPL: A Skinned Multi-Person Linear Model",
SIGGRAPH Asia 2015), as `.npz` or `.pkl`. SMPL-H and SMPL-X files are read as 24-joint bodies with
flat hands and a closed mouth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .files import sha256_of
from .npz import holds_texts, read_npz
from .skeleton import SMPL_PARENTS
from .unpickler import load_pickle

BUNDLED_BODY = Path(__file__).with_name("assets") / "body.npz"

_KEYS = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table", "f")
_ALL_KEYS = (*_KEYS, "landmark_names", "landmark_regressor")
_NUM_JOINTS = len(SMPL_PARENTS)
_MAX_VERTICES = 1_000_000
_MAX_METRES = 10.0  # a body larger than this is in other units, or damaged
_MAX_SHARE = 10.0  # of one vertex in a joint, or of one joint in a vertex; they may be negative
_NUM_BETAS = 10

# Fingers, jaw and eyes of the larger models, by joint index: SMPL-H has 52 joints, SMPL-X 55.
_FIRST_HAND_JOINT = {52: 22, 55: 25}
_JOINTS_PER_HAND = 15
_KNUCKLES = (0, 3, 6, 9)  # first joints of index, middle, pinky and ring finger within a hand
_HEAD, _LEFT_HAND, _RIGHT_HAND = 15, 22, 23
_NUM_BODY_JOINTS = 22  # joints 0 to 21 are the same in SMPL, SMPL-H and SMPL-X


class BodyFileError(ValueError):
    """A body file that cannot be used; the message names the file and the fault."""


@dataclass(frozen=True, kw_only=True)
class BodyArrays:
    """The arrays of one body, checked. V vertices, F faces, 24 joints.

    Attributes:
        v_template: (V, 3) rest vertices, metres, y up, facing +z, +x the person's left.
        shapedirs: (V, 3, 10) vertex offsets per unit of beta.
        posedirs: (V, 3, 207) vertex offsets per entry of the 23 matrices R - I.
        J_regressor: (24, V) joints from rest vertices.
        weights: (V, 24) skinning weights; rows sum to 1.
        faces: (F, 3) vertex indices.
        landmarks: weights over vertices of named points of the skin, (V,) each.
        path: the file read.
        sha256: of the file.
    """

    v_template: np.ndarray
    shapedirs: np.ndarray
    posedirs: np.ndarray
    J_regressor: np.ndarray
    weights: np.ndarray
    faces: np.ndarray
    landmarks: Mapping[str, np.ndarray]
    path: Path
    sha256: str


def load_body_arrays(path: Path = BUNDLED_BODY) -> BodyArrays:
    """Read and check a body file.

    Args:
        path: SMPL, SMPL-H or SMPL-X as `.npz` or `.pkl`. Nothing in the file is run.

    Raises:
        BodyFileError: the file is missing, damaged, unsafe, incomplete, or not a body.
    """
    if not path.is_file():
        raise BodyFileError(f"{path}: no such body file; give an SMPL-format .npz or .pkl")
    try:
        raw = _read_npz(path) if path.suffix == ".npz" else load_pickle(path, _ALL_KEYS)[0]
    except OSError as error:
        raise BodyFileError(f"{path}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise BodyFileError(str(error)) from error
    missing = [key for key in _KEYS if key not in raw]
    if missing:
        raise BodyFileError(
            f"{path}: not an SMPL-format body: {', '.join(missing)} missing; "
            f"it has {', '.join(sorted(raw)) or 'nothing'}"
        )
    try:
        arrays = {key: _numeric(key, raw[key]) for key in _KEYS}
        _check_tree(arrays["kintree_table"])
        _check_sizes(arrays)
        body = _reduce_to_24_joints({**arrays, "shapedirs": arrays["shapedirs"][..., :_NUM_BETAS]})
        _check_values(body)
        landmarks = _landmarks(raw, len(body["v_template"]))
    except ValueError as error:
        raise BodyFileError(f"{path}: {error}") from error
    return BodyArrays(
        v_template=body["v_template"],
        shapedirs=body["shapedirs"],
        posedirs=body["posedirs"],
        J_regressor=body["J_regressor"],
        weights=body["weights"],
        faces=body["f"].astype(np.int64),
        landmarks=landmarks,
        path=path,
        sha256=sha256_of(path),
    )


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        return read_npz(path, _ALL_KEYS)[0]
    except ValueError as error:
        raise ValueError(f"{path}: not a readable .npz of plain arrays ({error})") from error


def _numeric(key: str, value: Any) -> np.ndarray:
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "iuf":
        got = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
        raise ValueError(f"{key} must be an array of numbers, got {got}")
    if not np.isfinite(value).all():
        raise ValueError(f"{key} holds NaN or infinity")
    return value


def _check_tree(kintree_table: np.ndarray) -> None:
    if kintree_table.ndim != 2 or len(kintree_table) != 2:
        raise ValueError(f"kintree_table must be (2, 24), got {kintree_table.shape}")
    num_joints = kintree_table.shape[1]
    if num_joints != _NUM_JOINTS and num_joints not in _FIRST_HAND_JOINT:
        raise ValueError(
            f"kintree_table has {num_joints} joints; only SMPL (24), SMPL-H (52) and SMPL-X (55) "
            "can be used"
        )
    known = min(num_joints, _NUM_BODY_JOINTS)
    parents = kintree_table[0, 1:known]
    expected = np.array(SMPL_PARENTS)[1:known]
    if not np.array_equal(parents, expected):
        joint = int(np.flatnonzero(parents != expected)[0]) + 1
        raise ValueError(
            f"kintree_table gives joint {joint} the parent {parents[joint - 1]}, but in SMPL's "
            f"tree it is {SMPL_PARENTS[joint]}"
        )


def _reduce_to_24_joints(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Merge fingers into SMPL's hand joints, jaw and eyes into the head.

    With hands flat and mouth closed (all merged rotations zero) the result moves exactly as the
    larger model does, since equal transforms can be merged and zero pose features drop out.
    """
    num_joints = arrays["kintree_table"].shape[1]
    if num_joints == _NUM_JOINTS:
        return arrays
    first = _FIRST_HAND_JOINT[num_joints]
    target = np.arange(num_joints)
    target[_NUM_BODY_JOINTS:first] = _HEAD
    target[first : first + _JOINTS_PER_HAND] = _LEFT_HAND
    target[first + _JOINTS_PER_HAND :] = _RIGHT_HAND
    merge = np.eye(_NUM_JOINTS)[target]  # (num_joints, 24)
    knuckles = first + np.array(_KNUCKLES)
    regressor = arrays["J_regressor"]
    hands = [regressor[knuckles + offset].mean(0) for offset in (0, _JOINTS_PER_HAND)]
    posedirs = np.zeros((*arrays["posedirs"].shape[:2], 9 * (_NUM_JOINTS - 1)))
    kept = 9 * (_NUM_BODY_JOINTS - 1)
    posedirs[..., :kept] = arrays["posedirs"][..., :kept]
    return {
        **arrays,
        "weights": arrays["weights"] @ merge,
        "J_regressor": np.concatenate([regressor[:_NUM_BODY_JOINTS], np.stack(hands)]),
        "posedirs": posedirs,
    }


def _check_sizes(arrays: Mapping[str, np.ndarray]) -> None:
    """Of the arrays of J joints, before they are reduced to 24."""
    V, J = len(np.atleast_1d(arrays["v_template"])), arrays["kintree_table"].shape[1]
    if not 4 <= V <= _MAX_VERTICES:
        raise ValueError(f"v_template has {V} vertices; a body has between 4 and {_MAX_VERTICES}")
    shapes: dict[str, tuple[int | None, ...]] = {
        "v_template": (V, 3),
        "shapedirs": (V, 3, None),
        "posedirs": (V, 3, 9 * (J - 1)),
        "J_regressor": (J, V),
        "weights": (V, J),
        "f": (None, 3),
    }
    for key, shape in shapes.items():
        got = arrays[key].shape
        if len(got) != len(shape) or any(
            n not in (None, m) for n, m in zip(shape, got, strict=True)
        ):
            wanted = tuple("N" if n is None else n for n in shape)
            raise ValueError(f"{key} must be {wanted}, got {got}")
    _check(arrays["shapedirs"].shape[2] >= _NUM_BETAS, f"shapedirs must have {_NUM_BETAS} or more")
    _check(len(arrays["f"]) > 0, "f must hold a face")


def _check_values(body: Mapping[str, np.ndarray]) -> None:
    V = len(body["v_template"])
    _check(body["f"].min() >= 0 and body["f"].max() < V, f"f must index {V} vertices")
    for key in ("v_template", "shapedirs", "posedirs"):
        _check(np.abs(body[key]).max() < _MAX_METRES, f"{key} must be in metres")
    for key in ("weights", "J_regressor"):
        rows = body[key]
        _check(np.abs(rows.sum(1) - 1).max() < 1e-2, f"the rows of {key} must sum to 1")
        _check(np.abs(rows).max() < _MAX_SHARE, f"{key} must hold shares, of about 0 to 1")


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)


def _landmarks(raw: Mapping[str, Any], num_vertices: int) -> dict[str, np.ndarray]:
    """Named points of the skin: those in the file, or the published ids of a known topology."""
    if "landmark_names" in raw and "landmark_regressor" in raw:
        names = raw["landmark_names"]
        rows = _numeric("landmark_regressor", raw["landmark_regressor"])
        if not isinstance(names, np.ndarray) or names.ndim != 1 or not holds_texts(names):
            raise ValueError("landmark_names must be an array of texts")
        if rows.shape != (len(names), num_vertices):
            raise ValueError(
                f"landmark_regressor must be {(len(names), num_vertices)}, got {rows.shape}"
            )
        _check(np.abs(rows).max(initial=0) < _MAX_SHARE, "landmark_regressor must hold shares")
        return {str(name): row for name, row in zip(names, rows, strict=True)}
    return {
        name: (np.arange(num_vertices) == vertex).astype(np.float64)
        for name, vertex in _VERTEX_IDS.get(num_vertices, {}).items()
    }


def _both_sides(left: dict[str, int], right: dict[str, int]) -> dict[str, int]:
    return {f"{side}_{name}": i for side, ids in (("left", left), ("right", right))
            for name, i in ids.items()}  # fmt: skip


# Vertices of SMPL's and SMPL-X's own meshes, by vertex count; the ids are those of the public
# `smplx` package (its vertex_ids.py), the top of the head that of SMPLify's joint list.
_VERTEX_IDS: dict[int, dict[str, int]] = {
    6890: {
        "nose": 332,
        "head_top": 411,
        **_both_sides(
            {"eye": 2800, "ear": 583, "thumb_tip": 2746, "index_tip": 2319, "middle_tip": 2445,
             "ring_tip": 2556, "pinky_tip": 2673, "big_toe": 3216, "small_toe": 3226,
             "heel": 3387},
            {"eye": 6260, "ear": 4071, "thumb_tip": 6191, "index_tip": 5782, "middle_tip": 5905,
             "ring_tip": 6016, "pinky_tip": 6133, "big_toe": 6617, "small_toe": 6624,
             "heel": 6787},
        ),
    },
    10475: {
        "nose": 9120,
        **_both_sides(
            {"eye": 9448, "ear": 6, "thumb_tip": 5361, "index_tip": 4933, "middle_tip": 5058,
             "ring_tip": 5169, "pinky_tip": 5286, "big_toe": 5770, "small_toe": 5780,
             "heel": 8846},
            {"eye": 9929, "ear": 616, "thumb_tip": 8079, "index_tip": 7669, "middle_tip": 7794,
             "ring_tip": 7905, "pinky_tip": 8022, "big_toe": 8463, "small_toe": 8474,
             "heel": 8635},
        ),
    },
}  # fmt: skip
