"""Between stores and fits tables: what goes in comes out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fits import fit_columns
from stored import digest, random_fits

from fitting.files import InputError
from fitting.people import People
from fitting.table import build_fits, read_fits, write_fits
from regressor.store.fit_store import create_store
from regressor.store.fits import Origin
from regressor.store.identity import DatasetIdentity, StoreIdentity
from regressor.store.tables import export_fits, fits_of_table

N = 12


def table_of(body, **changes):
    """Fits of people two in a picture, with deviations."""
    columns = fit_columns(N)
    columns["image"] = np.array([f"{n // 2}.jpg" for n in range(N)], dtype=np.str_)
    columns["person"] = np.arange(N) % 2
    columns["joint_std_mm"] = np.random.default_rng(5).uniform(5, 300, (N, 24))
    columns["cost_final"] = np.linspace(1, 2, N)
    columns["keypoints_2d"] = np.random.default_rng(6).uniform(0, 1, (N, 51))
    return build_fits(columns | changes, {"body_sha256": body.sha256})


def people_of(table):
    numbers = table.column_array("keypoints_2d").reshape(len(table), 17, 3)
    names = ("image", "person", "annotation_id", "width", "height")
    return People(
        keypoint_set="coco17",
        **{name: table.column_array(name) for name in names},
        keypoints_2d=numbers[..., :2],
        conf=numbers[..., 2],
        focal=table.column_array("fx"),
    )


def store_at(folder, body, table, **changes):
    identity = StoreIdentity(
        body_sha256=body.sha256, datasets=(DatasetIdentity(name="d", num_rows=N, sha256="0"),)
    )
    found = fits_of_table(table, people_of(table), table.intrinsics, body, **changes)
    return create_store(folder, identity, [("d", found.rows, found.fits)])


def test_a_table_comes_back(tmp_path, body, rng):
    """All of it but how the fits were made; a row without a fit stays one."""
    none = {n: fit_columns(N)[n] for n in ("global_orient", "body_pose", "betas", "transl")}
    for column in none.values():
        column[3] = np.nan
    table = table_of(body, **none)
    store = store_at(tmp_path / "store", body, table)
    exported = export_fits(store, "d", people_of(table), table.intrinsics, {"made": "here"})
    assert exported.metadata == {"made": "here", "body_sha256": body.sha256}
    for name in table.columns.column_names:
        found, expected = exported.column_array(name), table.column_array(name)
        if name == "joint_std_mm":  # kept as half floats
            np.testing.assert_allclose(found[0], expected[0], rtol=1e-3)
        elif name == "status":
            assert found.tolist() == ["best_known" if n != 3 else "no_fit" for n in range(N)]
        elif name == "init":
            assert found.tolist() == ["static@0" if n != 3 else "none" for n in range(N)]
        elif name in ("reprojection_error_px", "cost_final"):
            assert np.isnan(found[3])
            np.testing.assert_array_equal(np.delete(found, 3), np.delete(expected, 3))
        elif name not in ("num_steps", "cost_initial"):
            np.testing.assert_array_equal(found, expected, err_msg=name)


def test_a_store_comes_back_bit_for_bit(tmp_path, body, rng):
    """By way of a file, and of rows in another order, with origins and epochs."""
    table = table_of(body)
    store = store_at(tmp_path / "one", body, table)
    changed = random_fits(rng, 5, cost=np.zeros(5), focal=np.full(5, 1000.0))
    changed.origin[:2] = Origin.REGRESSOR
    store.update("d", [1, 2, 3, 5, 8], changed)
    exported = export_fits(store, "d", people_of(table), table.intrinsics, {})
    write_fits(tmp_path / "fits.parquet", exported.select(rng.permutation(N)))
    found = fits_of_table(
        read_fits(tmp_path / "fits.parquet"), people_of(table), table.intrinsics, body
    )
    np.testing.assert_array_equal(found.rows, np.arange(N))
    assert digest(found.fits) == digest(store.read("d", np.arange(N)))
    assert exported.column_array("init")[1] == f"regressor@{changed.epoch[0]}"
    assert exported.column_array("init")[8] == f"loop@{changed.epoch[4]}"


def test_people_are_matched_by_picture_and_person(tmp_path, body):
    table = table_of(body)
    people = people_of(table).select([9, 4, 7])
    found = fits_of_table(
        table.select(np.array([7, 0, 9])), people, table.intrinsics[[9, 4, 7]], body
    )
    assert found.rows.tolist() == [0, 2]
    np.testing.assert_array_equal(found.fits.params[:, 82:85], table.column_array("transl")[[9, 7]])
    np.testing.assert_array_equal(found.fits.cost, table.column_array("cost_final")[[9, 7]])


def test_fits_for_other_cameras_are_left_out_and_counted(body):
    table = table_of(body)
    cameras = table.intrinsics.copy()
    cameras[2, 0, 0] *= 1.01  # another focal length
    cameras[5, 0, 2] += 3  # another principal point
    found = fits_of_table(table, people_of(table), cameras, body)
    assert found.other_camera == 2
    assert found.rows.tolist() == [0, 1, 3, 4, *range(6, N)]


def test_costs_may_be_evaluated_anew(body):
    table = table_of(body, cost_final=np.full(N, np.nan))
    assert len(fits_of_table(table, people_of(table), table.intrinsics, body).rows) == 0
    costs = np.arange(N) + 0.5
    found = fits_of_table(table, people_of(table), table.intrinsics, body, costs=costs)
    np.testing.assert_array_equal(found.fits.cost, costs)


def test_a_table_of_another_body_is_refused(body):
    table = replace(table_of(body), metadata={"body_sha256": "f" * 64})
    with pytest.raises(InputError, match=r"static.parquet: is of the body ffffffffffff, not of"):
        fits_of_table(table, people_of(table), table.intrinsics, body, file="static.parquet")
