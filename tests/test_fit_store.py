"""The fit store: against a dictionary of best fits, killed at every write, and by two processes."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import stored
import torch
from stored import IDENTITY, content, digest, offers, random_fits

from fitting.files import InputError, OutputError
from fitting.problem import BodyParams, FitResult, Status
from regressor.store.fit_store import create_store, open_store
from regressor.store.fits import COLUMNS, Origin, StoredFits
from regressor.store.identity import DatasetIdentity, StoreIdentity, hash_fit_inputs
from regressor.store.journal import Segment

PEOPLE = replace(IDENTITY, datasets=(DatasetIdentity(name="p", num_rows=30, sha256="3" * 64),))


@pytest.fixture
def store(tmp_path):
    """Of 30 people, empty."""
    return create_store(tmp_path / "store", PEOPLE)


@pytest.fixture
def unsynced(monkeypatch):
    """Files that are not forced to the disk, which takes long and does not matter to a process."""
    stored.Operations().patch(monkeypatch.setattr)


def assert_same(found: StoredFits, expected: StoredFits) -> None:
    """Equal to the last bit."""
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    assert digest(found) == digest(expected)


# --- Which fit is kept --------------------------------------------------------------------------


@pytest.mark.parametrize(("rule", "judged"), [("map", "cost"), ("spin", "error_px")])
def test_keeps_the_best_as_a_dictionary_does(tmp_path, rng, rule, judged):
    """Through saves and folds; with duplicates, ties, NaN and infinity among the offers."""
    store = create_store(tmp_path / "store", replace(PEOPLE, rule=rule))
    best: dict[int, tuple[float, StoredFits]] = {}
    for step in range(12):
        rows, fits = rng.integers(0, 30, 40), random_fits(rng, 40)
        fits.params[:3, 7] = [np.nan, np.inf, -np.inf]
        getattr(fits, judged)[3:5] = [np.nan, -np.inf]
        expected = np.zeros(40, bool)
        order = sorted(range(5, 40), key=lambda i: (getattr(fits, judged)[i], fits.epoch[i], i))
        for i in order:
            if i in [j for j in order if rows[j] == rows[i]][:1]:
                value = float(getattr(fits, judged)[i])
                if rows[i] not in best or value < best[rows[i]][0]:
                    best[rows[i]] = value, fits.select([i])
                    expected[i] = True
        np.testing.assert_array_equal(store.update("p", rows, fits), expected)
        if step % 3 == 1:
            store.save(step)
        if step % 6 == 1:
            store.commit()
        known = np.array(sorted(best))
        assert_same(
            store.read("p", known), StoredFits.concatenate([best[r][1] for r in known.tolist()])
        )
        others = np.setdiff1d(np.arange(30), known)
        assert not store.read("p", others).is_known.any()


@pytest.mark.parametrize("name", ["params", "cost", "error_px", "focal", "joint_std_mm"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_fit_that_is_not_finite_never_enters(store, rng, name, bad):
    fits = random_fits(rng, 2)
    value = getattr(fits, name).astype(np.float32)
    value.reshape(2, -1)[0, 0] = bad
    is_kept = store.update("p", [4, 5], replace(fits, **{name: value}))
    # An infinite deviation is stored as the largest half float: such a joint is not known at all
    assert is_kept.tolist() == [name == "joint_std_mm" and np.isinf(bad), True]
    found = store.read("p", [4, 5])
    assert np.isfinite(np.column_stack([getattr(found, n) for n in COLUMNS])).all()


def test_unknown_deviations_may_be_kept(store, rng):
    fits = random_fits(rng, 1, joint_std_mm=np.full((1, 24), np.nan))
    assert store.update("p", [0], fits).all()
    assert np.isnan(store.read("p", [0]).joint_std_mm).all()


def test_a_persons_focal_length_never_changes(store, rng):
    store.update("p", [3], random_fits(rng, 1))
    cheaper = random_fits(rng, 1, cost=[0.0], focal=[510.0])
    with pytest.raises(ValueError, match=r"p, row 3: a fit for a focal length of 510 .* for 500"):
        store.update("p", [3], cheaper)
    with pytest.raises(ValueError, match="p, row 7"):
        store.update("p", [7, 7], random_fits(rng, 2, focal=[500.0, 600.0]))
    assert not store.read("p", [7]).is_known.any()


@pytest.mark.parametrize(
    ("dataset", "rows", "message"),
    [
        ("q", [0], r"no data set 'q' in the store; it has \['p'\]"),
        ("p", [-1], "rows must be in 0 to 29, got -1 to -1"),
        ("p", [30], "rows must be in 0 to 29, got 30 to 30"),
        ("p", [[1]], r"rows must be \(B,\)"),
        ("p", [1, 2], "got 1 fits for 2 rows"),
    ],
)
def test_rows_are_checked(store, rng, dataset, rows, message):
    with pytest.raises(ValueError, match=message):
        store.update(dataset, rows, random_fits(rng, 1))


def test_data_sets_do_not_mix(tmp_path, rng):
    store = create_store(tmp_path / "store", IDENTITY)
    fits = random_fits(rng, 5)
    store.update("a", np.arange(5), fits)
    assert not store.read("b", np.arange(3)).is_known.any()
    assert_same(store.read("a", [4, 0, 4]), fits.select([4, 0, 4]))


def test_an_empty_batch_changes_nothing(store, rng):
    assert len(store.update("p", [], random_fits(rng, 0))) == 0
    assert len(store.read("p", [])) == 0


def test_results_of_solvers_become_fits(rng):
    numbers = {
        name: torch.from_numpy(rng.normal(size=(2, size))).float()
        for name, size in zip(BodyParams.__dataclass_fields__, (3, 69, 10, 3), strict=True)
    }
    result = FitResult(
        params=BodyParams(**numbers),
        reprojection_error=torch.tensor([[1.0, torch.nan, 3.0], [torch.nan] * 3]),
        cost_initial=torch.tensor([9.0, 9.0]),
        cost_final=torch.tensor([4.0, torch.nan]),
        num_steps=torch.tensor([3, 3], dtype=torch.int32),
        status=torch.tensor([Status.CONVERGED, Status.DIVERGED], dtype=torch.int32),
        intrinsics=torch.tensor([[700.0, 0, 5], [0, 701, 6], [0, 0, 1]]).expand(2, 3, 3),
        joint_std=torch.full((2, 24, 3), 0.01),
    )
    fits = StoredFits.of_result(result, epoch=5, origin=Origin.LOOP)
    assert fits.is_sound.tolist() == [True, False]
    assert (fits.error_px[0], fits.cost[0], fits.focal[0], fits.epoch[0]) == (2, 4, 700, 5)
    np.testing.assert_allclose(fits.joint_std_mm, 10 * np.sqrt(3), rtol=1e-3)
    for name, numbers_in in numbers.items():
        assert torch.equal(getattr(fits.body_params, name), numbers_in)


def test_statistics(store, rng):
    nothing = store.statistics()
    assert nothing.pop("cost") != nothing.get("cost")
    assert set(nothing.values()) == {0}
    static = random_fits(rng, 6, cost=np.full(6, 10.0), origin=np.full(6, Origin.STATIC))
    store.update("p", np.arange(6), static)
    store.save(1)
    store.commit()
    store.update("p", np.arange(4), random_fits(rng, 4, cost=np.array([5.0, 5.0, 20.0, 20.0])))
    assert store.statistics() == {
        "filled": 0.2,
        "cost": pytest.approx((4 * 10 + 2 * 5) / 6),
        "improved": 0.5,
        "static": pytest.approx(4 / 6),
        "regressor": 0,
        "loop": pytest.approx(2 / 6),
    }


# --- Store and checkpoint agree -----------------------------------------------------------------


def filled(folder: Path):
    """A store with checkpoints at 2 and 4, and a save at 6 that no checkpoint followed."""
    store, states = create_store(folder, IDENTITY, offers(0)), {}
    for step in (2, 4, 6):
        for offer in offers(step):
            store.update(*offer)
        rng = np.random.default_rng(step)
        store.update("a", [0], random_fits(rng, 1, cost=[-step]))  # better each time
        store.save(step)
        states[step] = digest(content(store))
        if step == 2:
            store.commit()
    return states


def test_the_checkpoints_step_decides_what_is_there(tmp_path):
    states = filled(tmp_path)
    for step, expected in states.items():
        assert digest(content(open_store(tmp_path, IDENTITY, step=step))) == expected


def test_a_run_goes_on_from_a_save_that_was_given_up(tmp_path):
    """As if the save at 6 had never been."""
    filled(tmp_path / "one")
    store = open_store(tmp_path / "one", IDENTITY, step=4)
    for offer in offers(5):
        store.update(*offer)
    store.save(5)
    store.commit()
    expected = create_store(tmp_path / "two", IDENTITY, offers(0))
    for step in (2, 4, 5):
        for offer in offers(step):
            expected.update(*offer)
        if step < 5:
            rng = np.random.default_rng(step)
            expected.update("a", [0], random_fits(rng, 1, cost=[-step]))
    again = open_store(tmp_path / "one", IDENTITY, step=5)
    assert_same(content(again), content(expected))
    with pytest.raises(InputError, match="holds fits up to step 5, the checkpoint is of step 4"):
        open_store(tmp_path / "one", IDENTITY, step=4)
    with pytest.raises(InputError, match=r"is missing, so the store is not the one that was saved"):
        open_store(tmp_path / "one", IDENTITY, step=6)


def test_a_damaged_segment_is_named(tmp_path):
    filled(tmp_path)
    segment = next(tmp_path.glob("journal/*4-rank-0000.npz"))
    segment.write_bytes(segment.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"step-0000000004-rank-0000.npz: is damaged"):
        open_store(tmp_path, IDENTITY, step=6)


def test_a_segment_of_another_store_is_found_out(tmp_path):
    filled(tmp_path / "one")
    other = create_store(tmp_path / "two", IDENTITY)
    other.save(3)
    other.save(4)
    name = "journal/step-0000000004-rank-0000.npz"
    (tmp_path / "one" / name).write_bytes((tmp_path / "two" / name).read_bytes())
    with pytest.raises(InputError, match=r"step-0000000003-rank-0000.npz: is missing"):
        open_store(tmp_path / "one", IDENTITY, step=4)


def test_steps_of_saves_rise_and_commits_follow_saves(store, rng):
    store.save(3)
    with pytest.raises(ValueError, match="was saved at step 3, and cannot be at 3"):
        store.save(3)
    store.update("p", [0], random_fits(rng, 1))
    with pytest.raises(ValueError, match="commit before the next update"):
        store.commit()


def test_killed_at_every_write_it_comes_back_bit_for_bit(tmp_path, unsynced):
    """While it is made, saved and folded; then it goes on as if nothing had happened."""
    found = stored.kill_everywhere(tmp_path, stored.killed_in_thought)
    assert found["wrong"] == []
    assert found["operations"] > 150
    assert found["resumed_at"] == [0, 2, 4]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forks of itself")
def test_killed_by_the_system_it_comes_back_too(tmp_path):
    found = json.loads(run_script("kill", tmp_path))
    assert found["wrong"] == []
    assert found["resumed_at"] == [0, 2, 4]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_the_last_state(tmp_path, unsynced, code):
    """At whichever operation of a save or a fold it fills up, and training may go on."""

    def fail():
        raise OSError(code, os.strerror(code))

    def run(folder, at):
        store = create_store(folder, IDENTITY, offers(0))
        for offer in offers(1):
            store.update(*offer)
        store.save(1)
        before = digest(content(store))
        for offer in offers(2):
            store.update(*offer)
        operations = stored.Operations(at, fail)
        with pytest.MonkeyPatch.context() as patch:
            operations.patch(patch.setattr)
            try:
                store.save(2)
                store.commit()
            except OutputError as error:
                assert len(str(error).splitlines()) == 1
                assert "cannot write" in str(error)
            else:
                assert at is None or operations.removing
        saved = store.step
        if saved == 1:
            assert digest(content(open_store(folder, IDENTITY, step=1))) == before
        full = digest(content(store))
        if saved < 2:
            store.save(2)
        assert digest(content(open_store(folder, IDENTITY, step=2))) == full
        store.commit()
        assert digest(content(open_store(folder, IDENTITY, step=2))) == full
        return operations.count

    count = run(tmp_path / "whole", None)
    assert count > 30
    for at in range(0, count, 1 if code == errno.ENOSPC else 9):
        run(tmp_path / str(at), at)


# --- Several processes --------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="its processes are forks of one")
def test_two_processes_know_the_best_of_both(tmp_path):
    """Against loops over all offers: the cheapest, then of the earlier save, epoch and rank."""
    run_script("pair", tmp_path)
    candidates: dict[tuple[str, int], list[tuple[tuple[float, ...], StoredFits]]] = {}
    for rank in range(2):
        for step in range(stored.STEPS + 1):
            interval = -(-step // stored.SAVE_EVERY)
            for dataset, rows, fits in offers(step, 0 if step == 0 else rank):
                for i, row in enumerate(rows.tolist()):
                    key = (fits.cost[i], interval, fits.epoch[i] if step == 0 else 0, rank, step)
                    candidates.setdefault((dataset, row), []).append((key, fits.select([i])))
    ranks = [np.load(tmp_path / f"{rank}.npz") for rank in range(2)]
    digests = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert digests[0] == digests[1]
    starts = {"a": 0, "b": IDENTITY.datasets[0].num_rows}
    for (dataset, row), found in candidates.items():
        least = min(key[0] for key, _ in found)
        for rank in ranks:
            at = starts[dataset] + row
            assert rank["cost"][at] == least
            same = [fits for key, fits in found if key[0] == least]
            assert any((rank["params"][at] == fits.params[0]).all() for fits in same)
    for name in COLUMNS:
        np.testing.assert_array_equal(ranks[0][name], ranks[1][name])
    assert (ranks[0]["origin"] > 0).sum() == len(candidates)


def test_merging_does_not_depend_on_who_asks(tmp_path, rng):
    """Ties go to the earlier epoch, then to the lower rank."""
    store = create_store(tmp_path, PEOPLE)
    cost, epoch = np.array([[5.0, 5.0, 5.0, 4.0], [5.0, 5.0, 3.0, 4.0]]), np.zeros((2, 4), int)
    epoch[0, 1] = 1
    parts = [random_fits(rng, 4, cost=cost[r], epoch=epoch[r]) for r in range(2)]
    for rank, fits in enumerate(parts):
        segment = {"step": 1, "previous": -1, "rank": rank, "size": 2, "rows": np.arange(4)}
        store._journal.write(Segment(**segment, fits=fits))
    expected = [parts[0], parts[1], parts[1], parts[0]]
    found = content(open_store(tmp_path, PEOPLE, step=1)).select(slice(4))
    assert_same(found, StoredFits.concatenate([p.select([i]) for i, p in enumerate(expected)]))


def run_script(what: str, folder: Path) -> str:
    """Output of `stored.py`, in a process of its own with one thread, since it forks."""
    done = subprocess.run(
        [sys.executable, Path(stored.__file__), what, folder],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- What it is for -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (replace(IDENTITY, body_sha256="c" * 64), "of the body bbbbbbbbbbbb, not of cccccccccccc"),
        (replace(IDENTITY, rule="spin"), "judged by the rule 'map', not by 'spin'"),
        (replace(IDENTITY, energy="other"), "judged by the energy '', not by 'other'"),
        (
            replace(IDENTITY, datasets=IDENTITY.datasets[::-1]),
            "is of the data sets a, b, not of b, a",
        ),
        (
            replace(
                IDENTITY,
                datasets=(
                    IDENTITY.datasets[0],
                    replace(IDENTITY.datasets[1], num_rows=4, sha256="4" * 64),
                ),
            ),
            "the data set b had 3 people, now it has 4",
        ),
        (
            replace(
                IDENTITY,
                datasets=tuple(replace(d, sha256="4" * 64) for d in IDENTITY.datasets),
            ),
            r"the people of the data set a changed \(.*\) since the store was written; give the",
        ),
    ],
)
def test_a_store_of_something_else_is_refused(tmp_path, wanted, message):
    create_store(tmp_path, IDENTITY)
    with pytest.raises(InputError, match=message):
        open_store(tmp_path, wanted)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("manifest.json", None, "is no fit store, or one that was never finished"),
        ("manifest.json", "{", r"manifest.json: is damaged"),
        ("manifest.json", "[]", "is not of a fit store"),
        ("manifest.json", '{"format": "bodyloop fit store", "version": 9}', "has version 9"),
        ("manifest.json", '{"format": "bodyloop fit store", "version": 1}', "is damaged"),
        ("state.json", '{"folded": 1}', r"state.json: is missing or damaged"),
        ("params.bin", "short", r"params.bin: is missing or of the wrong length"),
        ("cost.bin", None, r"cost.bin: is missing or of the wrong length"),
    ],
)
def test_damage_is_named(tmp_path, name, text, message):
    create_store(tmp_path, IDENTITY)
    (tmp_path / name).unlink()
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        open_store(tmp_path, IDENTITY)
    assert len(str(caught.value).splitlines()) == 1


def test_only_an_empty_folder_is_taken_unasked(tmp_path, rng):
    first = create_store(tmp_path, PEOPLE)
    first.update("p", [1], random_fits(rng, 1))
    first.save(1)
    with pytest.raises(OutputError, match="already holds files"):
        create_store(tmp_path, PEOPLE)
    again = create_store(tmp_path, PEOPLE, overwrite=True)
    assert not content(again).is_known.any()
    assert not list((tmp_path / "journal").iterdir())


def test_identities_are_checked():
    with pytest.raises(ValueError, match="different names"):
        StoreIdentity(body_sha256="", datasets=(IDENTITY.datasets[0],) * 2)
    with pytest.raises(ValueError, match="rule must be map or spin"):
        replace(IDENTITY, rule="best")
    with pytest.raises(ValueError, match="at least one row"):
        DatasetIdentity(name="a", num_rows=0, sha256="")


def test_a_hash_sees_whatever_fits_depend_on(rng):
    people = {
        "image": np.array(["a.jpg", "bc.jpg"]),
        "keypoints_2d": rng.uniform(0, 100, (2, 5, 2)).astype(np.float32),
        "conf": np.ones((2, 5), np.float32),
        "intrinsics": np.tile(np.diag([500.0, 500, 1]), (2, 1, 1)),
    }
    hashes = {hash_fit_inputs(**people)}
    assert hash_fit_inputs(**{k: v.copy() for k, v in people.items()}) in hashes
    assert hash_fit_inputs(**people | {"intrinsics": people["intrinsics"].astype("f4")}) in hashes
    for name in ("keypoints_2d", "conf", "intrinsics"):
        changed = people[name].copy()
        changed.reshape(-1)[-1] += 0.5
        hashes.add(hash_fit_inputs(**people | {name: changed}))
    hashes.add(hash_fit_inputs(**people | {"image": np.array(["a.jpgb", "c.jpg"])}))
    hashes.add(hash_fit_inputs(**{name: column[::-1] for name, column in people.items()}))
    assert len(hashes) == 6


def test_a_million_people_take_no_room_before_they_have_fits(tmp_path, rng):
    many = replace(PEOPLE, datasets=(replace(PEOPLE.datasets[0], num_rows=1_000_000),))
    store = create_store(tmp_path, many)
    if not hasattr(os, "statvfs"):
        pytest.skip("no sparse files")
    assert sum(p.stat().st_size for p in tmp_path.glob("*.bin")) == 405_000_000
    store.update("p", [999_999], random_fits(rng, 1))
    store.save(1)
    store.commit()
    assert sum(512 * p.stat().st_blocks for p in tmp_path.glob("*.bin")) < 1_000_000
    assert store.statistics()["filled"] == 1e-6
