"""What the keypoints given to fits were like: how many were seen, and how far off they were."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch

from .body import Body
from .camera import project_points
from .files import InputError
from .keypoint_body import KeypointBody
from .keypoints import map_keypoints
from .people import person_size
from .problem import BodyParams
from .skeleton import KEYPOINT_SETS, KeypointSet
from .table import FitsTable

# Of the person's size. Noise of 4 px for a person 200 px tall has a deviation of 2 % along each
# axis, so that one keypoint in 270,000 is as far off by noise alone.
WRONG_SHARE = 0.1
_CHUNK = 1024


@dataclass(frozen=True, kw_only=True)
class KeypointQuality:
    """Of the keypoints of N people.

    A person's size is the longer side of the box around the true keypoints, seen or not.

    Attributes:
        set_size: (N,) int keypoints of the person's set; 0 for a row without keypoints.
        seen: (N,) int of these with a confidence above 0.
        compared: (N,) int of those seen, the ones whose true places are known.
        wrong: (N,) int of those compared, the ones farther off than `WRONG_SHARE` of the size.
        noise: (N,) median distance of those compared from the truth, as a share of the size; NaN
            where none is.
    """

    set_size: np.ndarray
    seen: np.ndarray
    compared: np.ndarray
    wrong: np.ndarray
    noise: np.ndarray


def measure_keypoints(
    given: FitsTable, truth: BodyParams, intrinsics: torch.Tensor, body: Body
) -> KeypointQuality:
    """Hold the keypoints of N fits against those of the true bodies before their true cameras.

    Args:
        given: the fits, of any keypoint sets; only their keypoints count.
        truth: the same N people as they are, in the camera frame, on the device of `body`.
        intrinsics: (N, 3, 3) pixels, of the true cameras; NaN where unknown, and then true places
            are unknown, too, as they are behind the camera, in keypoint sets unknown here, and
            where the body lacks a keypoint.
        body: of the truth.

    Raises:
        InputError: somebody's keypoints are not three numbers each.
    """
    N = len(given)
    found = KeypointQuality(
        set_size=np.zeros(N, dtype=int),
        seen=np.zeros(N, dtype=int),
        compared=np.zeros(N, dtype=int),
        wrong=np.zeros(N, dtype=int),
        noise=np.full(N, np.nan),
    )
    names = given.column_array("keypoint_set")
    for name in np.unique(names):
        of_set = np.flatnonzero(names == name)
        given_keypoints = _given_keypoints(given.select(of_set))
        if given_keypoints.shape[1] == 0:
            continue
        true_keypoints = np.full((*given_keypoints.shape[:2], 2), np.nan)
        known = KEYPOINT_SETS.get(str(name))
        if known is not None and len(known) == given_keypoints.shape[1]:
            rows = torch.from_numpy(of_set).to(intrinsics.device)
            true_keypoints = _true_keypoints(truth.select(rows), intrinsics[rows], body, known)
        part = _compare(given_keypoints, true_keypoints)
        for field in fields(KeypointQuality):
            getattr(found, field.name)[of_set] = getattr(part, field.name)
    return found


def _given_keypoints(table: FitsTable) -> np.ndarray:
    """(N, P, 3: x, y, conf) of N people with the same keypoint set."""
    flat = table.column_array("keypoints_2d").astype(np.float64)
    if flat.shape[1] % 3:
        raise InputError(
            f"keypoints_2d must hold x, y and confidence of each keypoint, got {flat.shape[1]} "
            f"numbers a person for the set {table.column_array('keypoint_set')[0]}"
        )
    return flat.reshape(len(flat), flat.shape[1] // 3, 3)


@torch.no_grad()
def _true_keypoints(
    truth: BodyParams, intrinsics: torch.Tensor, body: Body, keypoints: KeypointSet
) -> np.ndarray:
    """(N, P, 2) pixels, NaN where unknown."""
    keypoint_body = KeypointBody(body, map_keypoints(body, keypoints))
    parts = []
    for rows in torch.arange(len(truth), device=intrinsics.device).split(_CHUNK):
        people = truth.select(rows)
        points = keypoint_body(people.global_orient, people.body_pose, people.betas, people.transl)
        pixels, in_front = project_points(points, intrinsics[rows])
        known = (in_front & keypoint_body.defined)[..., None]
        parts.append(pixels.where(known, torch.nan).cpu().numpy().astype(np.float64))
    return np.concatenate(parts)


def _compare(given: np.ndarray, truth: np.ndarray) -> KeypointQuality:
    """Given keypoints (N, P, 3: x, y, conf) against true ones (N, P, 2), pixels."""
    seen = given[..., 2] > 0
    size = person_size(truth, np.isfinite(truth).all(axis=2))
    share = np.linalg.norm(given[..., :2] - truth, axis=2)
    share /= np.where(size > 0, size, np.nan)[:, None]
    compared = seen & np.isfinite(share)
    noise = np.full(len(given), np.nan)
    some = compared.any(axis=1)
    noise[some] = np.nanmedian(np.where(compared, share, np.nan)[some], axis=1)
    return KeypointQuality(
        set_size=np.full(len(given), given.shape[1]),
        seen=seen.sum(axis=1),
        compared=compared.sum(axis=1),
        wrong=(compared & (share > WRONG_SHARE)).sum(axis=1),
        noise=noise,
    )
