"""Snapshots of a training run as its web page holds them: a record for each person and step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .page_file import base64_of, short

if TYPE_CHECKING:
    from fitting.body import Body
    from regressor.snapshot_files import Album, Snapshot

MAX_SNAPSHOTS = 40  # on a page, 1.4 KB each for each person
DIGITS = 4
Floats = NDArray[np.floating]


@dataclass(frozen=True, kw_only=True)
class PageAlbum:
    """K people after S numbers of steps.

    Attributes:
        people: K times `group`, `title`, `picture` (a data URL), `size` in pixels, `camera` and
            `keypoints` (x and y in turn) in its pixels, and `against`, what the estimate is
            compared with: "truth", "fit" or "".
        steps: S of them.
        columns: S * K values each, person after person for each step; None where there is none.
            `error` is the mean distance of the joints from the fit or truth in mm, roots laid upon
            each other; `cost`, `errorPx` and `sigma` (mm) are the fit's, `origin` says where from.
        records: (S * K, R) float32, the parts of `layout` side by side: `estimate` and `fit`
            (85 parameters each, the truth where there is that), `estimatePoints` and `fitPoints`
            (24 joints, x and y in turn, pixels of the picture); NaN where there is none.
        layout: part -> its first column and its length.
    """

    people: Sequence[Mapping[str, Any]]
    steps: Sequence[int]
    columns: Mapping[str, list[Any]]
    records: Floats
    layout: Mapping[str, tuple[int, int]]


def collect_album(album: Album, body: Body | None) -> PageAlbum | None:
    """The snapshots of a run; None if there are none.

    Args:
        album: as it was read.
        body: that its parameters are of; without, there are no joints and no errors.
    """
    if not album.snapshots:
        return None
    posed = [_pose(album, snapshot, body) for snapshot in album.snapshots]
    parts = {name: np.concatenate([record[name] for record in posed]) for name in posed[0]}
    error = parts.pop("error")[:, 0]
    layout, first = {}, 0
    for name, part in parts.items():
        layout[name] = (first, part.shape[1])
        first += part.shape[1]
    records = np.zeros((len(error), -(-first // 3) * 3), dtype="<f4")  # base64 counts in threes
    records[:, :first] = np.concatenate(list(parts.values()), axis=1)
    return PageAlbum(
        people=[_person(album, k) for k in range(len(album))],
        steps=[snapshot.step for snapshot in album.snapshots],
        columns={"error": _plain(error), **_columns(album.snapshots)},
        records=records,
        layout=layout,
    )


def _person(album: Album, k: int) -> dict[str, Any]:
    """What does not change while the run goes on."""
    is_known = bool(np.isfinite(album.truth[k]).all())
    place = f"row {album.row[k]}" if album.row[k] >= 0 else f"drawn person {k + 1}"
    return {
        "group": album.group[k],
        "title": album.image[k] or place,
        "place": f"{album.dataset[k]}, {place}" if album.dataset[k] else place,
        "picture": f"data:image/jpeg;base64,{base64_of(album.picture[k])}",
        "size": album.size,
        "camera": album.camera[k].tolist(),
        "keypoints": [round(x, 1) for x in album.keypoints[k].ravel().tolist()],
        "against": "truth" if is_known else "fit" if album.dataset[k] else "",
    }


def _columns(snapshots: Sequence[Snapshot]) -> dict[str, list[Any]]:
    def all_of(name: str) -> Floats:
        return np.concatenate([getattr(snapshot, name) for snapshot in snapshots])

    return {
        "cost": _plain(all_of("cost")),
        "errorPx": _plain(all_of("error_px")),
        "sigma": _plain(all_of("joint_std_mm").mean(axis=1)),
        "origin": [origin for snapshot in snapshots for origin in snapshot.origin],
        "epoch": [epoch for snapshot in snapshots for epoch in snapshot.epoch],
    }


def _pose(album: Album, snapshot: Snapshot, body: Body | None) -> dict[str, Floats]:
    """(K, ...) records of a snapshot and the errors."""
    fit = np.where(np.isfinite(album.truth), album.truth, snapshot.fit)
    K = len(album)
    record = {"estimate": snapshot.estimate, "fit": fit}
    joints = {name: _joints(params, body) for name, params in record.items()}
    for name in ("estimate", "fit"):
        record[f"{name}Points"] = _project(joints[name], album.camera).reshape(K, -1)
    return {**record, "error": _errors(joints["estimate"], joints["fit"])[:, None]}


def _joints(params: Floats, body: Body | None) -> Floats:
    """(K, 24, 3) joints of 85 parameters each, camera frame, metres; NaN where unknown."""
    import roma
    import torch

    from fitting.body import forward_kinematics

    if body is None:
        return np.full((len(params), 24, 3), np.nan)
    numbers = torch.from_numpy(params)
    with torch.no_grad():
        rotations = roma.rotvec_to_rotmat(numbers[:, :72].unflatten(1, (24, 3)))
        _, joints = forward_kinematics(rotations, body.rest_joints(numbers[:, 72:82]))
    return (joints + numbers[:, None, 82:]).numpy()


def _project(joints: Floats, camera: Floats) -> Floats:
    """(K, 24, 2) pixels of the pictures; NaN where a joint is not in front of the camera."""
    in_front = np.where(joints[..., 2:] > 0, joints[..., 2:], np.nan)
    focal, centre = camera[:, None, :2], camera[:, None, 2:]
    return joints[..., :2] / in_front * focal + centre


def _errors(joints: Floats, others: Floats) -> Floats:
    """(K,) mm, NaN where either is unknown."""
    from fitting.metrics import mpjpe

    known = np.isfinite(joints).all(axis=(1, 2)) & np.isfinite(others).all(axis=(1, 2))
    errors = np.full(len(joints), np.nan)
    if known.any():
        errors[known] = mpjpe(joints[known], others[known])
    return errors


def _plain(values: Floats) -> list[float | None]:
    return [short(value, DIGITS) for value in values.tolist()]
