"""The shortest way from keypoints to bodies: `fitting.fit`."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from priors.gmm import load_pose_prior

from .body import Body, load_body
from .estimates import (
    ESTIMATE_POSE_STD,
    Estimates,
    MakeEstimator,
    estimates_of_params,
    estimates_of_table,
    match_estimates,
)
from .files import InputError
from .fits import Fits
from .offline import choose_device, configure_solver, fit_people
from .people import People, check_rows, index_within_image
from .problem import BodyParams, FitResult
from .skeleton import keypoint_set as set_of_name
from .table import FitsTable
from .tracks import DEFAULT_FPS, make_tracks

_MOST_STARTS = 18


def fit(
    keypoints_2d: ArrayLike,
    conf: ArrayLike | None = None,
    *,
    image_size: ArrayLike,
    keypoint_set: str = "coco17",
    focal: ArrayLike | None = None,
    solver: str = "lm",
    body: Body | Path | str | None = None,
    device: str = "auto",
    solve_focal: bool = False,
    batch_size: int = 256,
    starts: int | None = None,
    init: BodyParams | FitResult | FitsTable | MakeEstimator | None = None,
    proximal_std: float = ESTIMATE_POSE_STD,
    track: ArrayLike | None = None,
    fps: float = DEFAULT_FPS,
    image: Sequence[str] | None = None,
    seed: int = 0,
) -> Fits:
    """Fit SMPL to the 2D keypoints of N people.

    Arrays are NumPy's, PyTorch's (of any device) or lists, and stay as they are. The same arguments
    and seed give the same bits on one machine.

    Example:
        >>> fits = fitting.fit(keypoints_2d, conf, image_size=(640, 480))
        >>> fits.params.body_pose, fits.mean_reprojection_error, fits.joint_std_mm
        >>> fits.vertices()  # (N, V, 3) metres, in the camera frame
        >>> fits.save("fits.parquet")  # and fitting.load_fits("fits.parquet")

    Args:
        keypoints_2d: (N, P, 2) full-image pixels; (0, 0) is the centre of the first pixel.
        conf: (N, P) in [0, 1], 0 for unseen; none means that all are seen.
        image_size: width and height of the pictures in pixels, (2,) or one for each person (N, 2).
            NumPy's `image.shape` has them the other way round.
        keypoint_set: name of the set of P keypoints (`fitting.skeleton.KEYPOINT_SETS`).
        focal: pixels, for everyone or (N,); none, and NaN, mean the picture's diagonal.
        solver: "lm" (Levenberg-Marquardt), or one of the published baselines: "adam" (SMPLify as in
            SPIN) and "lbfgs" (as in SMPLify-X).
        body: SMPL-format file or a body already loaded; none means the bundled one.
        device: "auto", "cpu" or "cuda".
        solve_focal: take the focal lengths for guesses and let "lm" solve for them too.
        batch_size: people solved side by side.
        starts: initial poses tried for each person, 1 to 18; none means 2, 4 with `track`, 1 with
            `init`.
        init: where fits begin: `regressor.load_lifter`, the default of `fit-cli`; or estimates of
            the N people in their order, such as a regressor's or earlier fits, to refine: people
            whose row is NaN start from the mean pose, bodies whose transl is NaN are placed; none
            means the mean pose.
        proximal_std: radians, how far the joints of `init` are expected to be off about each axis.
        track: (N,) who is who in a video: rows with one number are one person in pictures that
            follow each other, and are fitted together; -1 for a picture alone. Where nobody was
            found give a row of conf 0: it is fitted from those before and after.
        fps: pictures in a second.
        image: (N,) names of the pictures, for tables of the fits; with `track` the numbers in them
            say when pictures were taken. None means that they have no names.
        seed: of the starts around `init`.

    Returns:
        Parameters in the camera frame (x right, y down, z forward; metres, radians), reprojection
        errors, costs, status and standard deviations, on the CPU. Who has no keypoint seen keeps
        the row, with status `NO_KEYPOINTS` and NaN parameters.

    Raises:
        ValueError: an argument has the wrong shape or value; the message names the row.
        TypeError: `init` is nothing to begin at.
    """
    where = choose_device(device)
    config = configure_solver(solver, solve_focal=solve_focal)
    _check_counts(batch_size, starts)
    people = _as_people(keypoints_2d, conf, image_size, keypoint_set, focal, track, image)
    own = body if isinstance(body, Body) else load_body(body)
    estimates = _estimates_of(init, own)
    # `to` moves a body in place, and it may be the caller's.
    placed = own if own.v_template.device == where else copy.deepcopy(own).to(where)
    made = fit_people(
        people,
        placed,
        load_pose_prior().to(where),
        config,
        batch_size=batch_size,
        starts=starts,
        estimates=None if estimates is None else match_estimates(estimates, people),
        estimator=init(placed) if callable(init) else None,
        pose_std=proximal_std,
        seed=seed,
        tracks=None if track is None else make_tracks(people, fps),
    )
    return Fits.of(made, people, own)


def _check_counts(batch_size: int, starts: int | None) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if starts is not None and not 1 <= starts <= _MOST_STARTS:
        raise ValueError(f"starts must be 1 to {_MOST_STARTS}, or None, got {starts}")


def _estimates_of(init: object, body: Body) -> Estimates | None:
    """Estimates to begin at; none if people begin elsewhere."""
    if isinstance(init, FitsTable):
        return estimates_of_table(init, body)
    if isinstance(init, FitResult):
        return replace(estimates_of_params(init.params), focal=init.intrinsics[:, 0, 0].cpu())
    if isinstance(init, BodyParams):
        return estimates_of_params(init)
    if init is None or callable(init):
        return None
    raise TypeError(
        f"init must be BodyParams, a FitResult, a FitsTable, regressor.load_lifter or None, got "
        f"{init!r:.60}; read a file of fits by fitting.load_fits(path)"
    )


def _as_people(
    keypoints_2d: ArrayLike,
    conf: ArrayLike | None,
    image_size: ArrayLike,
    name: str,
    focal: ArrayLike | None,
    track: ArrayLike | None,
    image: Sequence[str] | None,
) -> People:
    """The arguments of `fit` as N rows; InputError naming what cannot be used."""
    xy = _keypoints(keypoints_2d, name)
    N, P = xy.shape[:2]
    width, height = _sizes(image_size, N).T
    names = np.full(N, "") if image is None else np.array(list(image), dtype=np.str_)
    if names.shape != (N,):
        raise ValueError(f"image must be ({N},) names of pictures, got {names.shape}")
    people = People(
        keypoint_set=name,
        image=names,
        person=np.arange(N) if image is None else index_within_image(names),
        annotation_id=np.arange(N),
        width=width,
        height=height,
        keypoints_2d=xy,
        conf=np.ones((N, P)) if conf is None else _shaped(conf, (N, P), "conf"),
        focal=_per_person(np.nan if focal is None else focal, N, "focal"),
        track=None if track is None else _shaped(track, (N,), "track"),
    )
    people, problems = check_rows(people, "keypoints_2d")
    if problems:
        raise InputError(str(problems[0]))
    return people


def _keypoints(keypoints_2d: ArrayLike, name: str) -> np.ndarray:
    """(N, P, 2) float32 of the set called `name`."""
    P, xy = len(set_of_name(name)), _array(keypoints_2d, "keypoints_2d")
    if xy.ndim == 3 and xy.shape[1:] == (P, 2):
        return xy.astype(np.float32)
    advice = "choose the set by keypoint_set"
    if xy.shape == (P, 2):
        advice = "give one person as keypoints_2d[None]"
    elif xy.ndim == 3 and xy.shape[1:] == (P, 3):
        advice = "pass the confidences separately as conf: xyc[..., :2], xyc[..., 2]"
    raise ValueError(
        f"keypoints_2d must be (N, {P}, 2) pixels for {name}, got {xy.shape}; {advice}"
    )


def _sizes(image_size: ArrayLike, N: int) -> np.ndarray:
    """(N, 2) width and height."""
    size = _array(image_size, "image_size")
    if size.shape not in ((2,), (N, 2)):
        raise ValueError(
            f"image_size must be (width, height) in pixels, or ({N}, 2) of them, got an array of "
            f"shape {size.shape}"
        )
    return np.broadcast_to(size, (N, 2))


def _per_person(values: ArrayLike, N: int, name: str) -> np.ndarray:
    array = _array(values, name)
    if array.shape not in ((), (N,)):
        raise ValueError(f"{name} must be one number, or ({N},), got {array.shape}")
    return np.broadcast_to(array, (N,))


def _shaped(values: ArrayLike, shape: tuple[int, ...], name: str) -> np.ndarray:
    array = _array(values, name)
    if array.shape != shape:
        raise ValueError(f"{name} must be {shape}, got {array.shape}")
    return array


def _array(values: Any, name: str) -> np.ndarray:
    """Numbers as an array, also of tensors with a gradient or on a GPU."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if values.is_floating_point() else values  # NumPy has no bfloat16
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ValueError(f"{name} must be an array, got rows of unequal lengths") from error
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name} must be numbers, got an array of {array.dtype}")
    return array
