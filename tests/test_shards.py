"""Runs in shards: the same bits however often they are stopped, killed, damaged or shared out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from sharded import (
    NUM_PEOPLE,
    files_of,
    fit_at_once,
    go,
    left_behind,
    make_config,
    people_arrays,
)
from stored import Killed, Operations
from tasks import die_of_three
from timing import LONG

import fitting.map_fit
import fitting.shard_record
import fitting.shard_run
from fitting.files import InputError, OutputError
from fitting.map_fit import LmConfig, Stage
from fitting.offline import SOLVERS
from fitting.run import run
from fitting.shard_work import fit_shard
from fitting.table import read_fits, write_fits
from fitting.workers import WorkerError, map_unordered

SHARDS = -(-NUM_PEOPLE // 4)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Shards are tested here, so few steps do."""
    monkeypatch.setitem(SOLVERS, "lm", lambda: LmConfig(stages=(Stage(steps=2),)))


@pytest.fixture
def config(tmp_path):
    return make_config(tmp_path)


def record_of(output: Path):
    return json.loads((output / "run.json").read_text(encoding="utf-8"))


# --- The same as in one piece --------------------------------------------------------------------


def test_parts_hold_what_an_unbroken_run_holds(config, tmp_path):
    """Batches of four either way, and one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    table = run(replace(config, output=tmp_path / "one")).table
    torch.set_num_threads(before)
    summary = go(config)
    found = read_fits(config.output)
    assert found.columns.equals(table.columns)
    assert found.metadata["body_sha256"] == table.metadata["body_sha256"]
    assert (summary.done, summary.total, summary.interrupted) == (SHARDS, SHARDS, False)
    record = record_of(config.output)
    expected = record_of(tmp_path / "one")
    assert record == summary.record
    assert record["counts"] == expected["counts"]
    assert set(record["seconds"]) == set(expected["seconds"])
    assert [part["rows"] for part in record["parts"]][-1] == [20, 23]
    assert torch.get_num_threads() == before


def test_shares_make_one_run(config, tmp_path):
    go(config)
    shared = replace(config, output=tmp_path / "shared")
    first = go(shared, share=(2, 2))
    assert (first.done, first.record) == (SHARDS // 2, None)
    assert sorted(p.name for p in (shared.output / "fits").glob("*.parquet")) == [
        f"part-{n:05d}.parquet" for n in range(1, SHARDS, 2)
    ]
    assert go(shared, share=(1, 2)).record["counts"]["people"] == NUM_PEOPLE
    assert files_of(shared.output) == files_of(config.output)


LOST = {
    "is missing": lambda part: part.unlink(),
    "has 20 bytes": lambda part: part.write_bytes(part.read_bytes()[:20]),
    "has 3 bytes": lambda part: part.write_bytes(b"xyz"),
}


@pytest.mark.parametrize("fault", LOST)
@pytest.mark.parametrize("shares", [2, 1], ids=["of another share", "of its own"])
def test_a_part_that_is_lost_after_its_receipt_is_named_at_the_end(
    fault, shares, config, monkeypatch
):
    monkeypatch.setattr(fitting.shard_run, "fit_shard", fit_at_once)
    go(replace(config, output=config.output.parent / "whole"))
    part = config.output / "fits" / "part-00001.parquet"

    def lose(stage, done, total):  # also what the last shards find damaged already
        if not lost and part.is_file():
            lost.append(LOST[fault](part))

    lost = []
    if shares == 2:
        assert go(config, share=(2, 2)).record is None
    with pytest.raises(InputError) as caught:
        go(config, share=(1, shares), progress=lose)
    said = str(caught.value)
    assert f"{part} {fault}" in said
    assert said.endswith("; --resume without --shards fits it again")
    assert "\n" not in said
    assert not (config.output / "run.json").exists()
    assert go(config, resume=True).record is not None
    assert files_of(config.output) == files_of(config.output.parent / "whole")


def test_receipts_that_do_not_tell_a_size_are_believed(config, monkeypatch):
    """Those of runs that were begun before receipts told it."""
    monkeypatch.setattr(fitting.shard_run, "fit_shard", fit_at_once)
    sizes = [part["bytes"] for part in go(config).record["parts"]]
    assert sizes == [path.stat().st_size for path in sorted(config.output.glob("fits/*.parquet"))]
    for path in config.output.glob("fits/_part-*.json"):
        receipt = json.loads(path.read_text())
        del receipt["bytes"]
        path.write_text(json.dumps(receipt))
    again = go(config, resume=True)
    assert [part["bytes"] for part in again.record["parts"]] == [None] * SHARDS
    (config.output / "fits" / "part-00001.parquet").unlink()
    with pytest.raises(InputError, match="is missing"):
        go(config, share=(1, 2))


def test_no_people_make_an_empty_table(config):
    np.savez(config.input, **{n: a[:0] if a.ndim else a for n, a in people_arrays().items()})
    assert go(config).record["counts"]["people"] == 0
    assert len(read_fits(config.output)) == 0


def test_speed_counts_those_who_are_fitted(config):
    arrays = people_arrays()
    np.savez(config.input, **arrays | {"conf": np.zeros_like(arrays["conf"])})
    assert go(config).record["fits_per_second"] is None
    np.savez(config.input, **arrays)
    assert go(replace(config, overwrite=True)).record["fits_per_second"] > 0


def test_who_diverged_or_is_unseen_does_not_count_as_fitted(config, tmp_path, monkeypatch):
    """Neither in shards nor in one piece."""
    make_result = fitting.map_fit.make_result

    def spoil(problem, keypoints, params, solution, *others):
        cost = solution.cost_final.masked_fill(problem.intrinsics[:, 0, 0] > 700, torch.nan)
        return make_result(problem, keypoints, params, replace(solution, cost_final=cost), *others)

    monkeypatch.setattr(fitting.map_fit, "make_result", spoil)
    arrays = people_arrays()
    arrays["conf"][5], arrays["focal"][5] = 0, 600
    np.savez(config.input, **arrays)
    diverged = int((arrays["focal"] > 700).sum())
    assert 1 < diverged < NUM_PEOPLE - 1
    counts = go(config).record["counts"]
    in_one_piece = run(replace(config, output=tmp_path / "one"))
    assert in_one_piece.record["counts"] == counts
    assert counts["people"] == NUM_PEOPLE
    assert (counts["status"]["diverged"], counts["status"]["no_keypoints"]) == (diverged, 1)
    known = ~np.isnan(in_one_piece.table.column_array("transl")[:, 0])
    assert counts["fitted"] == NUM_PEOPLE - diverged - 1 == known.sum()


def test_limit_counts_rows(config):
    go(replace(config, limit=6))
    assert len(read_fits(config.output)) == 6
    assert record_of(config.output)["parts"][1]["rows"] == [4, 6]


def test_bad_rows_are_named_with_their_numbers(config, monkeypatch):
    arrays = people_arrays()
    arrays["conf"][[2, 9, 10]] = 2
    arrays["conf"][5] = 0
    np.savez(config.input, **arrays)
    monkeypatch.setattr(fitting.shard_record, "_MOST_PROBLEMS", 2)
    summary = go(config)
    assert [problem.row for problem in summary.problems] == [2, 9]
    assert summary.num_problems == summary.record["counts"]["problems"] == 3
    table = read_fits(config.output)
    assert table.column_array("annotation_id").tolist() == [
        n for n in range(NUM_PEOPLE) if n not in {2, 9, 10}
    ]
    assert (table.column_array("status") == "no_keypoints").sum() == 1
    receipt = json.loads((config.output / "fits" / "_part-00002.json").read_text())
    assert [problem["row"] for problem in receipt["problems"]] == [9, 10]


def test_estimates_are_matched_over_the_whole_input(config, tmp_path):
    """By name and index, also where a shard's first row is not the first of its picture."""
    whole = replace(config, output=tmp_path / "one")
    table = run(whole).table
    write_fits(tmp_path / "shuffled.parquet", table.select(np.arange(NUM_PEOPLE)[::-1]))
    given = replace(config, init=str(tmp_path / "shuffled.parquet"))
    go(given)
    expected = run(replace(given, output=tmp_path / "two")).table
    found = read_fits(config.output)
    assert set(found.column_array("init")) == {"given"}
    np.testing.assert_allclose(
        found.column_array("transl"), expected.column_array("transl"), rtol=1e-3
    )


# --- Stopped and gone on with --------------------------------------------------------------------


def stop_after(count):
    """A `stop` that says yes once it was asked so often."""
    asked = []

    def stop():
        asked.append(None)
        return len(asked) > count

    return stop


def test_a_stopped_run_is_gone_on_with(config, tmp_path):
    go(replace(config, output=tmp_path / "whole"))
    stopped = go(config, stop=stop_after(2))
    assert (stopped.done, stopped.interrupted, stopped.record) == (2, True, None)
    with pytest.raises(InputError, match=f"holds 2 of the {SHARDS} shards.* --resume") as caught:
        read_fits(config.output)
    assert "\n" not in str(caught.value)
    assert len(read_fits(config.output / "fits")) == 8
    fitted = []
    go(config, None, resume=True, progress=lambda stage, done, total: fitted.append((done, total)))
    assert fitted == [(4, 15), (4, 15), (4, 15), (3, 15)]
    assert files_of(config.output) == files_of(tmp_path / "whole")
    again = go(config, resume=True)
    assert again.record["counts"] == record_of(tmp_path / "whole")["counts"]
    assert again.record["fits_per_second"] is None


def damage_part(output):
    path = output / "fits" / "part-00002.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "a changed bit": damage_part,
    "no part": lambda output: (output / "fits" / "part-00002.parquet").unlink(),
    "no receipt": lambda output: (output / "fits" / "_part-00002.json").unlink(),
    "half a receipt": lambda output: (output / "fits" / "_part-00002.json").write_text('{"run": '),
    "another run's": lambda output: (output / "fits" / "_part-00002.json").write_text(
        (output / "fits" / "_part-00002.json").read_text().replace('"run": "', '"run": "0')
    ),
    "leftovers": lambda output: [
        (output / "fits" / f".{name}.0a1b2c.tmp").write_text("half")
        for name in ("part-00002.parquet", "_part-00002.json")
    ],
    "no record": lambda output: (output / "run.json").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_damaged_is_fitted_again(damage, config):
    go(config)
    expected, times = files_of(config.output), {}
    for path in config.output.glob("fits/*.parquet"):
        times[path.name] = path.stat().st_mtime_ns
    DAMAGE[damage](config.output)
    go(config, resume=True)
    assert files_of(config.output) == expected
    assert left_behind(config.output) == []
    assert (config.output / "run.json").is_file()
    others = {path.name: path.stat().st_mtime_ns for path in config.output.glob("fits/*.parquet")}
    times.pop("part-00002.parquet")
    assert times.items() <= others.items()  # nobody else was fitted again


CHANGES = {
    "seed 0, not 1": {"seed": 1},
    "batch_size 4, not 5": {"batch_size": 5},
    "focal null, not 700": {"focal": 700.0},
    'solver "lm", not "adam"': {"solver": "adam"},
    "starts 2, not 3": {"starts": 3},
    "limit null, not 9": {"limit": 9},
}


@pytest.mark.parametrize("words", CHANGES)
def test_a_changed_setting_is_named(words, config):
    go(config, stop=stop_after(1))
    before = files_of(config.output)
    changed = replace(config, **CHANGES[words])
    with pytest.raises(InputError, match=words) as caught:
        go(changed, resume=True)
    assert "\n" not in str(caught.value)
    assert files_of(config.output) == before


def test_other_changes_are_named(config, tmp_path):
    go(config, stop=stop_after(1))
    with pytest.raises(InputError, match="shard_size 4, not 5"):
        go(config, 5, resume=True)
    body = tmp_path / "other.npz"
    body.write_bytes(config.body.read_bytes() + b" ")
    with pytest.raises(InputError, match=r"with body \"\w+"):
        go(replace(config, body=body), resume=True)
    (tmp_path / "moved.npz").write_bytes(config.input.read_bytes())
    np.savez(config.input, **people_arrays(seed=1))
    with pytest.raises(InputError, match="another input, or its input was changed"):
        go(config, resume=True)
    moved = replace(config, input=tmp_path / "moved.npz", jobs=2)
    assert go(moved, resume=True, stop=lambda: True).done == 1  # neither makes a difference


def test_folders_that_hold_something_else_are_refused(config):
    go(config)
    with pytest.raises(OutputError, match="already holds files"):
        go(config)
    with pytest.raises(InputError, match="give one"):
        go(replace(config, overwrite=True), resume=True)
    (config.output / "manifest.json").write_text("{")
    with pytest.raises(InputError, match=r"manifest\.json is damaged"):
        go(config, resume=True)
    with pytest.raises(InputError, match=r"manifest\.json is damaged"):
        read_fits(config.output)
    (config.output / "manifest.json").unlink()
    with pytest.raises(InputError, match="but no manifest"):
        go(config, resume=True)
    with pytest.raises(InputError, match="give --shard-size"):
        go(config, None, resume=True)


def test_what_shards_would_part_is_refused(config):
    for change, words in (
        ({"video": True}, "--video and --cameras"),
        ({"overlays": True}, "draw no pictures"),
    ):
        with pytest.raises(InputError, match=words):
            go(replace(config, **change))
    assert not config.output.exists()


def test_runs_of_either_kind_replace_each_other(config):
    run(config)
    over = replace(config, overwrite=True)
    go(over)
    assert not (config.output / "fits.parquet").exists()
    go(over, 10)
    assert len(list(config.output.glob("fits/*"))) == 6
    assert len(read_fits(config.output)) == NUM_PEOPLE
    fitted = []
    go(over, 10, progress=lambda *stage: fitted.append(stage))  # the same once more
    assert len(fitted) == 3
    run(replace(over, limit=5))
    assert len(read_fits(config.output)) == 5
    assert sorted(path.name for path in config.output.iterdir()) == ["fits.parquet", "run.json"]


def test_an_input_that_changes_meanwhile_ends_the_run(config):
    def change(stage, done, total):
        config.input.write_bytes(config.input.read_bytes())

    with pytest.raises(InputError, match="was changed while it was read"):
        go(config, progress=change)


# --- Killed --------------------------------------------------------------------------------------


@pytest.fixture
def unfitted(monkeypatch):
    """Shards are not fitted, and nothing is forced to the disk, which takes long."""
    monkeypatch.setattr(fitting.shard_run, "fit_shard", fit_at_once)
    Operations().patch(monkeypatch.setattr)


def run_until(config, operations, **options):
    """Whether the run came to its end before its process did."""
    with pytest.MonkeyPatch.context() as patch:
        operations.patch(patch.setattr)
        try:
            go(config, 12, **options)
        except Killed:
            return False
    return True


@pytest.mark.parametrize("replaced", [False, True], ids=["new", "overwrite"])
def test_killed_at_every_write_it_is_gone_on_with(replaced, config, tmp_path, unfitted):
    """Also where it replaces another run, which counts until the new manifest stands."""

    def begin(folder):
        started = replace(config, output=folder)
        if replaced:
            go(replace(started, limit=22), 5)
        return replace(started, overwrite=replaced)

    operations = Operations()
    whole = begin(tmp_path / "whole")
    assert run_until(whole, operations)
    expected = files_of(whole.output)
    assert operations.count > 30
    for at in range(0, operations.count, 2 if replaced else 1):
        deadly = Operations(at)
        deadly._action = deadly.die
        killed = begin(tmp_path / str(at))
        old = (killed.output / "manifest.json").read_bytes() if replaced else None
        assert not run_until(killed, deadly), at
        manifest = killed.output / "manifest.json"
        if replaced and manifest.read_bytes() == old:
            go(killed, 12)  # not begun yet, so the same command does
        else:
            go(replace(killed, overwrite=False), 12, resume=True)
        assert files_of(killed.output) == expected, at
        assert left_behind(killed.output) == [], at


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forks of itself")
def test_killed_by_the_system_at_random_moments(tmp_path):
    script = Path(__file__).with_name("sharded.py")
    done = subprocess.run(
        [sys.executable, script, tmp_path, "6"],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["wrong"] == []
    assert found["kills"] >= 6


# --- Workers -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted_alone(tmp_path_factory):
    """A run without workers, with the solver's own settings, which workers have."""
    config = make_config(tmp_path_factory.mktemp("alone"))
    go(config)
    return config


@pytest.fixture
def on_workers(fitted_alone, tmp_path, monkeypatch):
    """The same on two, who stay for the next test that needs some: to begin takes them seconds."""
    monkeypatch.undo()
    return replace(fitted_alone, output=tmp_path / "two", jobs=2)


def test_two_workers_make_the_same_bits_as_one(fitted_alone, on_workers):
    go(on_workers)
    assert files_of(on_workers.output) == files_of(fitted_alone.output)


def test_a_worker_that_is_killed_loses_only_its_shard(fitted_alone, on_workers):
    """By the system, as where memory runs out."""
    psutil = pytest.importorskip("psutil", reason="psutil finds the workers")
    killed = []

    def kill_one(stage, done, total):
        for child in [] if killed else psutil.Process().children():
            if "loky" in " ".join(child.cmdline()) and "tracker" not in " ".join(child.cmdline()):
                child.kill()
                killed.append(child.pid)
                return

    with pytest.raises(WorkerError) as caught:
        go(on_workers, progress=kill_one)
    said = str(caught.value)
    assert "a worker died, perhaps for want of memory; give fewer --jobs" in said
    assert "\n" not in said
    assert 1 <= len(list(on_workers.output.glob("fits/*.parquet"))) < SHARDS
    assert go(replace(on_workers, jobs=1), None, resume=True).record is not None
    assert files_of(on_workers.output) == files_of(fitted_alone.output)
    assert left_behind(on_workers.output) == []


def test_a_worker_that_dies_is_told(tmp_path):
    with pytest.raises(WorkerError, match="a worker died"):
        list(map_unordered(die_of_three, range(8), jobs=2))


def test_workers_end_with_a_run_that_is_killed():
    """Their output closes then: nobody has it open any more."""
    code = "\n".join((
        "import os, signal, sys",
        "from fitting.workers import map_unordered",
        "from tasks import slowly",
        "for _ in map_unordered(slowly, range(1000), jobs=2):",
        "    os.kill(os.getpid(), signal.SIGKILL)",
    ))  # fmt: skip
    tests = Path(__file__).parent
    path = os.pathsep.join([str(tests), str(tests.parent)])
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE, timeout=LONG, check=False, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL


def test_no_more_tasks_are_taken_than_there_are_workers():
    taken, most = [], []

    def tasks():
        for n in range(6):
            taken.append(n)
            yield n

    for count, _ in enumerate(map_unordered(abs, tasks(), jobs=1), 1):
        most.append(len(taken) - count)
    assert most == [0] * 6


def test_a_worker_that_is_stopped_with_the_run_is_no_error(config, monkeypatch):
    """Ctrl-C may reach it before it knows to let that pass."""

    def broken(*args, **kwargs):
        yield fit_shard(args[0].args[0], next(args[1]))
        raise WorkerError from BrokenProcessPool()

    monkeypatch.setattr(fitting.shard_run, "map_unordered", broken)
    summary = go(config, stop=stop_after(1))
    assert (summary.done, summary.interrupted) == (1, True)
    with pytest.raises(WorkerError):
        go(config, resume=True)
    monkeypatch.undo()


# --- The command ---------------------------------------------------------------------------------


def test_ctrl_c_says_how_to_go_on(fit_cli, config, monkeypatch, tmp_path):

    from cli.main import main

    def interrupted(plan, task):
        os.kill(os.getpid(), signal.SIGINT)
        return fit_shard(plan, task)

    options = ["--body", config.body, "--init", "mean", "--jobs", 1, "--shard-size", 4, "--quiet"]
    options += ["--batch-size", 4, "--device", "cpu"]
    with monkeypatch.context() as patch:
        patch.setattr(fitting.shard_run, "fit_shard", interrupted)
        code, said, _ = fit_cli("fit", config.input, "-o", config.output, *options)
    assert code == 128 + signal.SIGINT
    done, again = said.splitlines()
    assert f"1 of {SHARDS} shards done" in done
    words = again.removeprefix("go on with: fit-cli ")
    assert words.endswith("--resume")
    with pytest.raises(SystemExit) as caught:
        main(words.split())
    assert not caught.value.code
    go(replace(config, output=tmp_path / "whole"))
    assert files_of(config.output) == files_of(tmp_path / "whole")


def test_a_second_ctrl_c_ends_at_once(fit_cli, config, monkeypatch):
    def interrupted(plan, task):
        if task.shard == 1:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        return fit_shard(plan, task)

    options = ["--body", config.body, "--init", "mean", "--jobs", 1, "--shard-size", 4]
    with monkeypatch.context() as patch:
        patch.setattr(fitting.shard_run, "fit_shard", interrupted)
        code, _, err = fit_cli("fit", config.input, "-o", config.output, *options)
    assert (code, err.strip()) == (130, "fit-cli: interrupted; what was finished stands")
    code, said, _ = fit_cli("fit", config.input, "-o", config.output, *options, "--resume")
    assert code == 0
    assert f"{NUM_PEOPLE} of {NUM_PEOPLE} people fitted" in said


def test_usage_of_shards(fit_cli, config):
    for options, words in (
        (["--shards", "3/2"], "not K/N"),
        (["--scheduler", "tcp://x:1"], "add --shard-size"),
        (["--shard-size", 4, "--scheduler", "tcp://x:1"], "add --backend dask"),
        (["--shard-size", 4, "--backend", "dask"], "add --scheduler"),
        (["--shard-size", 4, "--overlays"], "leave --overlays out"),
        (["--resume"], "give --shard-size"),
    ):
        settings = ["--body", config.body, "--init", "mean"]
        code, _, err = fit_cli(config.input, "-o", config.output, *settings, *options)
        assert code == 2
        assert words in err
    assert not list(config.output.glob("fits/*"))


def test_readers_take_the_parts(fit_cli, config, tmp_path):
    """`evaluate`, `export`, `report`, and a fit of the same people again."""
    go(config)
    out, body = config.output, ["--body", config.body]
    assert fit_cli("evaluate", out, out, *body)[0] == 0
    assert fit_cli("export", out, "--to", "spin", "-o", tmp_path / "spin.npz")[0] == 0
    assert fit_cli("report", out)[0] == 0
    again = replace(config, input=out, output=tmp_path / "again")
    go(again)
    assert read_fits(again.output).columns.equals(read_fits(out).columns)
    assert pq.read_table(out / "fits").num_rows == NUM_PEOPLE  # as others read Parquet folders
