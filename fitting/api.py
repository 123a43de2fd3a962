"""The shortest way from keypoints to bodies: `fitting.fit`."""

from __future__ import annotations

from pathlib import Path

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
from .offline import choose_device, configure_solver, fit_people
from .people import People, check_rows
from .problem import BodyParams, FitResult
from .skeleton import keypoint_set as set_of_name
from .table import FitsTable
from .tracks import DEFAULT_FPS, make_tracks


def fit(
    keypoints_2d: ArrayLike,
    conf: ArrayLike | None = None,
    *,
    image_size: tuple[int, int],
    keypoint_set: str = "coco17",
    focal: float | None = None,
    solver: str = "lm",
    body: Body | Path | str | None = None,
    device: str = "auto",
    solve_focal: bool = False,
    batch_size: int = 256,
    starts: int | None = None,
    init: BodyParams | FitsTable | MakeEstimator | None = None,
    proximal_std: float = ESTIMATE_POSE_STD,
    track: ArrayLike | None = None,
    fps: float = DEFAULT_FPS,
    seed: int = 0,
) -> FitResult:
    """Fit SMPL to the 2D keypoints of N people.

    Args:
        keypoints_2d: (N, P, 2) full-image pixels; (0, 0) is the centre of the first pixel.
        conf: (N, P) in [0, 1], 0 for unseen; none means that all are seen.
        image_size: width and height of the pictures, pixels.
        keypoint_set: name of the set of P keypoints.
        focal: pixels; none means the picture's diagonal.
        solver: "lm" (Levenberg-Marquardt), or one of the published baselines: "adam" (SMPLify as in
            SPIN) and "lbfgs" (as in SMPLify-X).
        body: SMPL-format file or a body already loaded; none means the bundled one.
        device: "auto", "cpu" or "cuda".
        solve_focal: take the focal lengths for guesses and let "lm" solve for them too.
        batch_size: people solved side by side.
        starts: initial poses tried for each person, 1 to 18; none means 2, 4 with `track`, 1 with
            `init`.
        init: where fits begin: `regressor.load_lifter`, the default of `fit-cli`; or estimates of
            the N people in their order, such as a regressor's, to refine: people whose row is NaN
            start from the mean pose, bodies whose transl is NaN are placed; none means the mean
            pose.
        proximal_std: radians, how far the joints of `init` are expected to be off about each axis.
        track: (N,) who is who in a video: rows with one number are one person in pictures that
            follow each other, and are fitted together; -1 for a picture alone. Where nobody was
            found give a row of conf 0: it is fitted from those before and after.
        fps: pictures in a second.
        seed: of the starts around `init`.

    Returns:
        Parameters in the camera frame, reprojection errors, costs and status, on the CPU.

    Raises:
        ValueError: an argument has the wrong shape or value; the message names the row.
    """
    where = choose_device(device)
    config = configure_solver(solver, solve_focal=solve_focal)
    people = _as_people(keypoints_2d, conf, image_size, keypoint_set, track)
    loaded = body if isinstance(body, Body) else load_body(body)
    estimates, estimator = None, None
    if isinstance(init, (BodyParams, FitsTable)):
        estimates = match_estimates(_as_estimates(init, loaded), people)
    loaded = loaded.to(where)
    if callable(init):
        estimator = init(loaded)
    return fit_people(
        people,
        loaded,
        load_pose_prior().to(where),
        config,
        focal=focal,
        batch_size=batch_size,
        starts=starts,
        estimates=estimates,
        estimator=estimator,
        pose_std=proximal_std,
        seed=seed,
        tracks=None if track is None else make_tracks(people, fps),
    ).result


def _as_estimates(init: BodyParams | FitsTable, body: Body) -> Estimates:
    if isinstance(init, FitsTable):
        return estimates_of_table(init, body)
    return estimates_of_params(init)


def _as_people(
    keypoints_2d: ArrayLike,
    conf: ArrayLike | None,
    image_size: tuple[int, int],
    name: str,
    track: ArrayLike | None,
) -> People:
    xy = np.asarray(keypoints_2d, dtype=np.float32)
    P = len(set_of_name(name))
    if xy.ndim != 3 or xy.shape[1:] != (P, 2):
        raise ValueError(
            f"keypoints_2d must be (N, {P}, 2) pixels for {name}, got {xy.shape}; pass the "
            "confidences separately as conf"
        )
    N = len(xy)
    people = People(
        keypoint_set=name,
        image=np.full(N, ""),
        person=np.arange(N),
        annotation_id=np.arange(N),
        width=np.full(N, image_size[0]),
        height=np.full(N, image_size[1]),
        keypoints_2d=xy,
        conf=np.ones((N, P)) if conf is None else np.asarray(conf),
        focal=np.full(N, np.nan),
        track=None if track is None else np.asarray(track),
    )
    people, problems = check_rows(people, "keypoints_2d")
    if problems:
        raise InputError(str(problems[0]))
    return people
