"""How far given keypoints are from true ones, against closed forms on bodies at rest."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch
from bodies import synthetic_arrays, write_body
from fits import FOCAL, fits_table

from fitting.body import load_body
from fitting.files import InputError
from fitting.keypoint_quality import measure_keypoints
from fitting.posing import params_of
from fitting.table import FitsTable

N = 3
CENTRE = np.array([319.5, 239.5])
AT_REST = {
    "global_orient": np.zeros((N, 3)),
    "body_pose": np.zeros((N, 69)),
    "betas": np.zeros((N, 10)),
}


@pytest.fixture(scope="module")
def body(tmp_path_factory):
    path = write_body(tmp_path_factory.mktemp("body") / "body.npz", synthetic_arrays())
    return load_body(path, dtype=torch.float64)


def true_joints() -> np.ndarray:
    """(24, 2) pixels of the synthetic body at rest, 10 m away: x_px = f x / z + c."""
    arrays = synthetic_arrays()
    joints = arrays["J_regressor"] @ arrays["v_template"] + [0, 0, 10]
    return FOCAL * joints[:, :2] / joints[:, 2:] + CENTRE


def measure(body, truth: FitsTable, keypoints: np.ndarray, name: str = "smpl24"):
    """Keypoints (N, P, 3) held against the people of `truth`."""
    given = {"keypoint_set": np.full(N, name), "keypoints_2d": keypoints.reshape(N, -1)}
    K = torch.from_numpy(truth.intrinsics).to(body.v_template)
    table = fits_table(given, N)
    return measure_keypoints(table, params_of(truth, body.v_template), K, body)


def exact() -> np.ndarray:
    return np.tile(np.concatenate([true_joints(), np.ones((24, 1))], axis=1), (N, 1, 1))


def test_distances_are_shares_of_the_person(body):
    size = np.ptp(true_joints(), axis=0).max()
    keypoints = exact()
    keypoints[1, :, 0] += 0.03 * size
    keypoints[2, :, :2] += np.array([0.012, -0.016]) * size  # 2 % of it
    found = measure(body, fits_table(AT_REST, N), keypoints)
    np.testing.assert_allclose(found.noise, [0, 0.03, 0.02], atol=1e-6)  # float32 in the table
    for name, expected in (("set_size", 24), ("seen", 24), ("compared", 24), ("wrong", 0)):
        np.testing.assert_array_equal(getattr(found, name), expected)


def test_wrong_keypoints_are_counted_and_leave_the_median(body):
    size = np.ptp(true_joints(), axis=0).max()
    keypoints = exact()
    keypoints[..., 1] += 0.01 * size
    keypoints[1, [3, 7], 0] += 0.5 * size
    keypoints[2, [0, 5, 9], 0] += 0.5 * size
    keypoints[2, 5:10, 2] = 0  # 5 and 9 are not seen
    found = measure(body, fits_table(AT_REST, N), keypoints)
    np.testing.assert_array_equal(found.wrong, [0, 2, 1])
    np.testing.assert_array_equal(found.seen, [24, 24, 19])
    np.testing.assert_allclose(found.noise, 0.01, atol=1e-6)


def test_people_without_keypoints_or_cameras_have_no_noise(body):
    keypoints = exact()
    keypoints[0, :, 2] = 0
    unknown = {"fx": np.array([FOCAL, np.nan, FOCAL])}
    found = measure(body, fits_table(AT_REST | unknown, N), keypoints)
    np.testing.assert_array_equal(found.seen, [0, 24, 24])
    np.testing.assert_array_equal(found.compared, [0, 0, 24])
    np.testing.assert_array_equal(np.isnan(found.noise), [True, True, False])


def test_points_behind_the_camera_are_nowhere(body):
    arrays = synthetic_arrays()
    z = (arrays["J_regressor"] @ arrays["v_template"])[:, 2]
    near = {"transl": np.tile([0.0, 0.0, -np.median(z)], (N, 1))}
    found = measure(body, fits_table(AT_REST | near, N), exact())
    np.testing.assert_array_equal(found.compared, 12)


def test_points_that_a_body_lacks_are_nowhere(body):
    keypoints = np.ones((N, 17, 3))
    found = measure(body, fits_table(AT_REST, N), keypoints, "coco17")
    np.testing.assert_array_equal(found.seen, 17)
    np.testing.assert_array_equal(found.compared, 12)  # all but eyes, ears and nose


@pytest.mark.parametrize(("name", "points"), [("another_set", 9), ("coco17", 9), ("coco17", 0)])
def test_sets_of_others_are_counted_only(body, name, points):
    found = measure(body, fits_table(AT_REST, N), np.ones((N, points, 3)), name)
    np.testing.assert_array_equal(found.seen, points)
    np.testing.assert_array_equal(found.set_size, points)
    np.testing.assert_array_equal(found.compared, 0)


def test_tables_of_two_sets(body):
    """The second person has another set than the others, and the third another camera."""
    zoomed = {"fx": np.array([FOCAL, FOCAL, 2 * FOCAL]), "fy": np.array([FOCAL, FOCAL, 2 * FOCAL])}
    keypoints = exact()
    keypoints[2, :, :2] = 2 * (keypoints[2, :, :2] - CENTRE) + CENTRE
    keypoints[..., 0] += 0.03 * np.ptp(keypoints[..., :2], axis=1).max(axis=1)[:, None]
    given = {"keypoint_set": np.full(N, "smpl24"), "keypoints_2d": keypoints.reshape(N, -1)}
    smpl, coco, truth = fits_table(given, N), fits_table({}, N), fits_table(AT_REST | zoomed, N)
    parts = [smpl.columns[:1], coco.columns[1:2], smpl.columns[2:]]
    K = torch.from_numpy(truth.intrinsics).to(body.v_template)
    table = FitsTable(columns=pa.concat_tables(parts))
    found = measure_keypoints(table, params_of(truth, body.v_template), K, body)
    np.testing.assert_array_equal(found.set_size, [24, 17, 24])
    np.testing.assert_array_equal(found.seen, [24, 0, 24])
    np.testing.assert_allclose(found.noise, [0.03, np.nan, 0.03], atol=1e-6)


def test_coordinates_that_are_no_numbers_are_not_compared(body):
    """Tables of other programs may hold them."""
    keypoints = exact()
    keypoints[0, 0, 0] = np.inf
    found = measure(body, fits_table(AT_REST, N), keypoints)
    np.testing.assert_array_equal(found.compared, [23, 24, 24])


def test_keypoints_of_two_numbers_are_refused(body):
    with pytest.raises(InputError, match=r"got 34 numbers a person for the set coco17"):
        measure(body, fits_table(AT_REST, N), np.ones((N, 17, 2)), "coco17")
