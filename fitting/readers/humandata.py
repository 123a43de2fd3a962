"""MMHuman3D's HumanData `.npz` (mmhuman3d/data/data_structures/human_data.py).

`image_path (N,)` and `keypoints2d (N, 190, 3)`, or `keypoints2d_` with a source's name: pixels of
the whole picture, in the order of HUMAN_DATA; `keypoints2d_mask (190,)` says which of these the
source has. A compressed file holds these only, (N, K, 3). Dictionaries (`smpl`, `meta`) are pickled
in such files and are never read.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..files import InputError
from ..npz import PickledArrayError
from ..people import People, Problem
from ..skeleton import KEYPOINT_SETS, SMPL_JOINTS, KeypointSet, keypoint_set
from .columns import Columns, as_numbers, as_texts, collect_columns
from .common import Reader, Request, load_arrays
from .spin import sizes_of

_SIZE = ("image_width", "image_height")
_PREFIX = "keypoints2d"
_COMPRESSED = "__keypoints_compressed__"
NUM_POINTS = 190

# Where HUMAN_DATA keeps what our keypoints mean. Several places: the first that the mask has.
_FACE = {"nose": 55, "right_eye": 56, "left_eye": 57, "right_ear": 58, "left_ear": 59}
_FEET = {
    f"{side}_{part}": start + i
    for side, start in (("left", 60), ("right", 63))
    for i, part in enumerate(("big_toe", "small_toe", "heel"))
}
_JOINTS = {name: i for i, name in enumerate(SMPL_JOINTS[:22])}
_JOINTS |= {"left_hand": 188, "right_hand": 189}
# SPIN's extra regressor: LSP's, MPII's and Human3.6M's own points.
_EXTRA = {
    name: 144 + i
    for i, name in enumerate(
        ("right_hip", "left_hip", "neck", "head_top", "pelvis", "thorax", "spine", "jaw", "head")
    )
}
_BODY25_START = 153
_ANNOTATED_SETS = ("coco17", "coco_wholebody", "lsp14", "mpii16")


def places(s: KeypointSet) -> list[tuple[int, ...]]:
    """For each of the P keypoints of a set its indices among HUMAN_DATA's 190, best first.

    Raises:
        ValueError: HUMAN_DATA has no place for some of them.
    """
    body25: list[tuple[int, ...]] = [(_BODY25_START + i,) for i in range(25)]
    if s.name == "body25":
        return body25
    if s.name == "spin49":
        return body25 + [_annotated_places(name) for name in s.names[25:]]
    if s.name == "smpl24":
        return [(_JOINTS[name],) for name in s.names]
    if s.name in _ANNOTATED_SETS:
        return [_annotated_places(name) for name in s.names]
    raise ValueError(
        f"HumanData has no place for {s.name}; convert the keypoints to one of "
        f"{', '.join(convertible_sets())}"
    )


def convertible_sets() -> tuple[str, ...]:
    """Names of the sets that HUMAN_DATA has places for."""
    return (*_ANNOTATED_SETS, "body25", "smpl24", "spin49")


def _annotated_places(name: str) -> tuple[int, ...]:
    """Of LSP's, MPII's and COCO's points: hips, necks and such have a place of their own.

    Versions of MMHuman3D before that place existed used SMPL's joint.
    """
    found = [table[name] for table in (_EXTRA, _FACE, _FEET, _JOINTS) if name in table]
    return tuple(found[:1] if name == "head" else found)


def _recognises(request: Request) -> bool:
    names = request.array_names
    return "image_path" in names and any(name.startswith(_PREFIX) for name in names)


def _read(request: Request) -> tuple[People, list[Problem]]:
    key = _keypoint_key(request)
    mask_key = f"{key}_mask"
    arrays = _load(request, [key, mask_key, _COMPRESSED, "image_path", *_SIZE, "focal_length"])
    names = as_texts(arrays["image_path"], request.path, "image_path")
    points = _points(arrays, key, len(names), request)
    mask = as_numbers(arrays[mask_key], (NUM_POINTS,), request.path, mask_key) > 0
    s = _set_of(mask, request)
    size, faults = sizes_of(arrays, names, request, "HumanData", _SIZE)
    focal = arrays.get("focal_length", np.full(len(names), np.nan))
    columns = Columns(
        keypoint_set=s.name,
        image=names,
        keypoints=_select(points, mask, s),
        size=size,
        faults=faults,
        focal=as_numbers(focal, (len(names),), request.path, "focal_length"),
    )
    return collect_columns(columns, request)


READER = Reader(
    holds="HumanData's .npz with image_path and keypoints2d", recognises=_recognises, read=_read
)


def _keypoint_key(request: Request) -> str:
    """Name of the keypoints to read: the plain one, or the only one."""
    _, keys = load_arrays(request.path, ())
    found = [
        key
        for key in keys
        if key.startswith(_PREFIX) and not key.endswith(("_mask", "_convention"))
    ]
    if not found or "image_path" not in keys:
        raise InputError(
            f"{request.path} must have image_path and {_PREFIX}, it holds "
            f"{', '.join(keys) or 'nothing'}; give a HumanData file"
        )
    if _PREFIX not in found and len(found) > 1:
        raise InputError(
            f"{request.path} has {', '.join(found)}; save it with one of them only, named {_PREFIX}"
        )
    key = _PREFIX if _PREFIX in found else found[0]
    if f"{key}_mask" not in keys:
        raise InputError(
            f"{request.path} has {key} without {key}_mask; add which of the {NUM_POINTS} keypoints "
            "it has"
        )
    return key


def _load(request: Request, names: list[str]) -> dict[str, np.ndarray]:
    """The arrays of these names; those pickled are refused, each with the way out."""
    found: dict[str, np.ndarray] = {}
    for name in names:
        try:
            found |= load_arrays(request.path, [name])[0]
        except InputError as error:
            if not isinstance(error.__cause__, PickledArrayError):
                raise
            raise InputError(
                f"{request.path}: {name} is pickled, which could run code and is not read; where "
                "you trust the file, load it in MMHuman3D and save the array by numpy.savez"
            ) from error
    return found


def _points(
    arrays: Mapping[str, np.ndarray], key: str, num_rows: int, request: Request
) -> np.ndarray:
    """(N, K, 3) x, y and confidence, K = 190 or the number in the mask."""
    mask = as_numbers(arrays[f"{key}_mask"], (NUM_POINTS,), request.path, f"{key}_mask") > 0
    flag = arrays.get(_COMPRESSED, np.zeros(()))
    compressed = flag.size == 1 and flag.dtype.kind in "biu" and bool(flag.ravel()[0])
    count = int(mask.sum()) if compressed else NUM_POINTS
    return as_numbers(arrays[key], (num_rows, count, 3), request.path, key)


def _set_of(mask: np.ndarray, request: Request) -> KeypointSet:
    """The set that takes most of the keypoints in the (190,) mask; the smallest of several."""
    if request.keypoint_set is not None:
        try:
            places(keypoint_set(request.keypoint_set))
        except ValueError as error:
            raise InputError(f"{request.path}: {error}") from error
        return keypoint_set(request.keypoint_set)
    sets = [KEYPOINT_SETS[name] for name in convertible_sets()]
    taken = [sum(any(mask[list(p)]) for p in places(s)) for s in sets]
    if not max(taken):
        raise InputError(
            f"{request.path} has none of the keypoints of {', '.join(convertible_sets())}; give "
            "keypoints of the body"
        )
    return min(zip(taken, sets, strict=True), key=lambda pair: (-pair[0], len(pair[1])))[1]


def _select(points: np.ndarray, mask: np.ndarray, s: KeypointSet) -> np.ndarray:
    """(N, P, 3) keypoints of a set; confidence 0 for those the mask lacks."""
    column = np.arange(NUM_POINTS) if points.shape[1] == NUM_POINTS else np.cumsum(mask) - 1
    selected = np.zeros((len(points), len(s), 3))
    for i, candidates in enumerate(places(s)):
        seen = [place for place in candidates if mask[place]]
        if seen:
            selected[:, i] = points[:, column[seen[0]]]
    return selected
