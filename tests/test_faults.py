"""Whatever fails during a run in shards: one clear sentence, and a folder to go on with."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from fits import fits_table
from sharded import NUM_PEOPLE, files_of, fit_at_once, go, left_behind, make_config, people_arrays
from stored import Operations
from timing import LONG

import fitting.chains
import fitting.offline
import fitting.shard_run
import fitting.shard_sources
import fitting.video
from fitting.estimates import Estimates, unknown_params
from fitting.files import InputError, OutputError
from fitting.map_fit import LmConfig, Stage
from fitting.offline import SOLVERS
from fitting.run import run
from fitting.shard_files import state_of
from fitting.table import read_fits, write_fits
from fitting.video import VideoConfig
from fitting.workers import WorkerError

SHARDS = -(-NUM_PEOPLE // 4)
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Faults are tested here, so few steps do."""
    monkeypatch.setitem(SOLVERS, "lm", lambda: LmConfig(stages=(Stage(steps=2),)))


@pytest.fixture
def config(tmp_path):
    return make_config(tmp_path)


def check_goes_on(config, size=4, **options):
    """With what is done already; to the same bits as a run that nothing happened to."""
    whole = replace(config, output=config.output.parent / "whole")
    go(whole, size, **options)
    assert go(config, None, resume=True, **options).record is not None
    assert files_of(config.output) == files_of(whole.output)
    assert left_behind(config.output) == []


def in_one_sentence(error, words):
    return "\n" not in str(error.value) and words in str(error.value)


# --- The disk ------------------------------------------------------------------------------------

REFUSALS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EACCES: "permission is denied",
    errno.EROFS: "the file system is read-only",
    errno.EIO: os.strerror(errno.EIO),
}


@pytest.mark.parametrize("code", REFUSALS, ids=errno.errorcode.get)
def test_a_refused_write_ends_the_run_and_keeps_what_is_done(code, config, monkeypatch):
    """Whichever operation on files it is that the system refuses."""

    def refuse():
        raise OSError(code, os.strerror(code))

    def run_to(folder, operations):
        with pytest.MonkeyPatch.context() as patch:
            operations.patch(patch.setattr)
            go(replace(config, output=folder), 12)

    monkeypatch.setattr(fitting.shard_run, "fit_shard", fit_at_once)
    Operations().patch(monkeypatch.setattr)  # nothing is forced to the disk, which takes long
    every = Operations()
    run_to(config.output.parent / "counted", every)
    for at in range(every.count):
        refused = Operations(at, refuse)
        with pytest.raises(OutputError) as caught:
            run_to(config.output, refused)
        words = REFUSALS[code] if "cannot write" in str(caught.value) else os.strerror(code)
        assert in_one_sentence(caught, words), at
        go(config, 12, resume=True)
        assert files_of(config.output) == files_of(config.output.parent / "counted"), at
        assert left_behind(config.output) == []
        shutil.rmtree(config.output)


@pytest.mark.parametrize("content", ["{", '{"format": "bodyloop run in shards", "version": 1}'])
def test_a_manifest_that_is_no_use_is_replaced(content, config, monkeypatch):
    """Its error says to begin again with --overwrite."""
    monkeypatch.setattr(fitting.shard_run, "fit_shard", fit_at_once)
    go(config)
    whole = files_of(config.output)
    (config.output / "manifest.json").write_text(content)
    with pytest.raises(InputError, match="begin again with --overwrite"):
        go(config, resume=True)
    go(replace(config, overwrite=True))
    assert files_of(config.output) == whole


_ON_A_SMALL_DISK = """
mount -t tmpfs -o size=$2 none "$1" || exit 99
"${@:3}"
cp -r "$1"/. "$1-copy"
"""
_FIT_AND_GO_ON = """
import subprocess, sys
from cli.main import main
for more in ([], ["--resume"]):
    try:
        main([*sys.argv[2:], *more])
    except SystemExit as end:
        print("code", end.code or 0)
    subprocess.run(["mount", "-o", "remount,size=8m", sys.argv[1]], check=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a file system of Linux")
def test_a_disk_that_is_full_indeed(config, tmp_path):
    """A file system of 40 kB, which then grows."""
    disk = config.output
    disk.mkdir()
    options = ["--shard-size", "4", "--init", "mean", "--body", config.body, "--jobs", "1"]
    fit = ["fit", config.input, "-o", disk, "--device", "cpu", "--batch-size", "4", *options]
    done = subprocess.run(
        ["unshare", "--user", "--mount", "--map-root-user", "bash", "-c", _ON_A_SMALL_DISK, "-",
         disk, "40k", sys.executable, "-c", _FIT_AND_GO_ON, disk, *fit],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "code" not in done.stdout:
        pytest.skip("file systems cannot be mounted here")
    assert re.findall("code .*", done.stdout) == ["code 2", "code 0"], done.stderr
    assert "the disk is full; free some space" in done.stderr
    assert "Traceback" not in done.stderr
    found = files_of(tmp_path / "out-copy")
    assert len(found) == SHARDS + 1


# --- What is read --------------------------------------------------------------------------------


def opened_for_writing(pipe, process):
    """A named pipe, once the process reads it."""
    while True:
        try:
            return os.fdopen(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK), "wb")
        except OSError as error:
            assert error.errno == errno.ENXIO
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_an_input_that_stalls_is_ended_by_ctrl_c(config, tmp_path):
    """The second one: a network file may come back after the first."""
    stalled = tmp_path / "stalled.npz"
    os.mkfifo(stalled)
    options = ["--shard-size", "4", "--init", "mean", "--body", config.body]
    process = subprocess.Popen(
        [sys.executable, "-c", "from cli.main import main; main()",
         "fit", stalled, "-o", config.output, *options],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    said = []
    with opened_for_writing(stalled, process):  # and gives it nothing
        process.send_signal(signal.SIGINT)
        while not "".join(said).strip():  # or the system might make one signal of the two
            said.append(process.stderr.readline())
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        said += process.communicate(timeout=LONG)[1].splitlines()
    assert process.returncode == 128 + signal.SIGINT
    assert [line.strip() for line in said if line.strip()] == [
        "fit-cli: finishing the shards begun; Ctrl-C once more ends at once",
        "fit-cli: interrupted; what was finished stands",
    ]
    assert go(config).record is not None  # nothing stands in the way of the same run


def test_a_table_that_loses_rows_meanwhile_ends_the_run(config, tmp_path, monkeypatch):
    monkeypatch.setattr(fitting.shard_run, "fit_shard", fit_at_once)
    parts = tmp_path / "parts"
    parts.mkdir()
    points = {"keypoints_2d": np.full((8, 51), 0.5)}
    for number in range(2):
        write_fits(parts / f"part-{number}.parquet", fits_table(points, 8))

    def shorten(stage, done, total):
        write_fits(parts / "part-1.parquet", fits_table({"keypoints_2d": np.full((2, 51), 0.5)}, 2))

    with pytest.raises(InputError) as caught:
        go(replace(config, input=parts), 8, progress=shorten)
    assert in_one_sentence(caught, "parts was changed while it was read")


def predictor_that(replaces):
    """Of pictures, which says nothing of their people, and replaces one meanwhile."""
    calls = []

    def predict(people, images, *, focal=None, progress=None):
        calls.append(len(people))
        if len(calls) == 2:
            replaces(images / people.image[0])
        N = len(people)
        unknown = unknown_params(N)
        return Estimates(
            params=unknown, image=people.image, person=people.person, focal=torch.full((N,), 9.0)
        ), []

    return lambda body: predict


@pytest.fixture
def pictured(config, tmp_path):
    """A run of people each in a picture of their own, at which a network may look."""
    images, checkpoint = tmp_path / "images", tmp_path / "net.pt"
    images.mkdir()
    checkpoint.write_bytes(b"network")
    arrays = people_arrays()
    arrays["image"] = np.array([f"{i:03d}.jpg" for i in range(NUM_PEOPLE)])
    np.savez(config.input, **arrays)
    for name in arrays["image"]:
        (images / name).write_bytes(b"picture")
    return replace(config, images=images, init=str(checkpoint))


def test_a_picture_that_is_replaced_meanwhile_ends_the_run(pictured):
    with pytest.raises(InputError) as caught:
        go(pictured, make_predictor=predictor_that(lambda path: path.write_bytes(b"another")))
    assert in_one_sentence(caught, "004.jpg was changed while it was read; put back what it was")
    assert len(list(pictured.output.glob("fits/*.parquet"))) == 1
    (pictured.images / "004.jpg").write_bytes(b"picture")
    check_goes_on(pictured, make_predictor=predictor_that(lambda path: None))


@pytest.mark.parametrize("looks", [False, True])
def test_pictures_are_asked_for_their_state_only_where_they_are_looked_at(
    looks, pictured, monkeypatch
):
    """Once at the beginning and once when their shard is done; each takes a network file long."""
    asked = Counter()

    def state(path):
        asked[path.name] += 1
        return state_of(path)

    monkeypatch.setattr(fitting.shard_sources, "state_of", state)
    monkeypatch.setattr(fitting.shard_run, "fit_shard", fit_at_once)
    config = pictured if looks else replace(pictured, init="mean")
    go(config, make_predictor=predictor_that(lambda path: None) if looks else None)
    names = [f"{i:03d}.jpg" for i in range(NUM_PEOPLE)]
    assert asked == (dict.fromkeys(names, 2) if looks else {})


# --- Memory --------------------------------------------------------------------------------------


def out_of_memory_above(monkeypatch, most, error):
    """Solvers for whom so many people are the most."""
    make_solver = fitting.offline.make_solver

    def make(*args):
        solve = make_solver(*args)

        def limited(problem, starts):
            if len(problem.conf) > most:
                error()
            return solve(problem, starts)

        return limited

    monkeypatch.setattr(fitting.offline, "make_solver", make)


def fail_as_gpu():
    raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.")


def test_a_gpu_out_of_memory_halves_the_batch(config, monkeypatch, caplog, tmp_path):
    """Fits are those of the smaller batch; manifest and command keep the one asked for."""
    go(replace(config, batch_size=2, output=tmp_path / "two"), 8)
    out_of_memory_above(monkeypatch, 3, fail_as_gpu)
    asked = replace(config, batch_size=8)
    record = go(asked, 8).record
    assert record["batch_size"] == 2
    assert record["command"]["batch_size"] == 8
    manifest = json.loads((config.output / "manifest.json").read_text())
    assert manifest["settings"]["batch_size"] == 8
    receipt = json.loads((config.output / "fits" / "_part-00000.json").read_text())
    assert receipt["batch_size"] == 2
    said = [r.getMessage() for r in caplog.records if r.name == "fitting.batches"]
    assert said[:2] == [
        "the GPU's memory does not hold 8 people; going on with 4",
        "the GPU's memory does not hold 4 people; going on with 2",
    ]
    for shard in range(3):
        found, expected = (
            read_fits(folder / "fits" / f"part-{shard:05d}.parquet").columns
            for folder in (config.output, tmp_path / "two")
        )
        assert found.equals(expected)
    go(asked, 8, resume=True)


def test_a_video_is_fitted_by_smaller_batches_too(config, monkeypatch):
    """People of a batch that is tried again count once."""
    video = replace(config, video=True, batch_size=8, limit=9)
    small = run(replace(video, batch_size=2, output=config.output / "small"))
    search = fitting.offline.search_seen

    def limited(solver, problem, starts, settings):
        if len(problem.conf) > 3:
            fail_as_gpu()
        return search(solver, problem, starts, settings)

    monkeypatch.setattr(fitting.offline, "search_seen", limited)
    found = run(replace(video, output=config.output / "large"))
    assert found.record["batch_size"] == 2
    assert found.table.columns.equals(small.table.columns)


@pytest.fixture
def tracks(config, monkeypatch):
    """A video of six tracks, each a job of its own, in two windows."""
    row = np.arange(NUM_PEOPLE)
    image = np.array([f"{i:03d}.jpg" for i in row % 4])
    np.savez(config.input, **people_arrays() | {"image": image, "track": row // 4})
    few = partial(VideoConfig, window=3, overlap=1, stages=(Stage(steps=2),))
    monkeypatch.setattr(fitting.offline, "VideoConfig", few)
    monkeypatch.setattr(fitting.chains, "_CHUNK_PICTURES", 1)
    return replace(config, video=True)


def jobs_in_memory(monkeypatch, most):
    """A GPU whose memory holds what comes of so many jobs; they are done before it tells."""

    def map_on_gpu(work, jobs):
        done = [work(job) for job in jobs[:most]]
        return done if len(jobs) <= most else fail_as_gpu()

    monkeypatch.setattr(fitting.video, "map_on_cores", map_on_gpu)


def test_tracks_that_a_gpu_does_not_hold_are_solved_some_at_a_time(
    tracks, monkeypatch, caplog, tmp_path
):
    """Also in the windows after; to the same bits, as none is counted that is solved again."""
    whole = run(tracks).table
    assert whole.column_array("num_steps").min() >= 4  # alone, and together
    jobs_in_memory(monkeypatch, 2)
    found = run(replace(tracks, output=tmp_path / "few"))
    assert found.table.columns.equals(whole.columns)
    assert [r.getMessage() for r in caplog.records if r.name == "fitting.batches"] == [
        "the GPU's memory does not hold 6 tracks; going on with 3",
        "the GPU's memory does not hold 3 tracks; going on with 1",
    ]


def test_a_track_that_a_gpu_does_not_hold_ends_the_run(fit_cli, tracks, monkeypatch):
    jobs_in_memory(monkeypatch, 0)
    options = ("--init", "mean", "--body", tracks.body, "--device", "cpu", "--video", "--no-report")
    code, said, err = fit_cli("fit", tracks.input, "-o", tracks.output, *options)
    assert (code, said) == (2, "")
    assert err.splitlines()[-1] == (
        "fit-cli: the GPU's memory does not hold a single track; end other programs that use it, "
        "or use the CPU"
    )
    assert not (tracks.output / "fits.parquet").exists()


def fail_as_cpu():
    torch.empty(1 << 55)  # PyTorch's own error


@pytest.mark.parametrize("error", [fail_as_gpu, fail_as_cpu])
def test_no_memory_at_all_says_what_resuming_allows(error, config, monkeypatch):
    with monkeypatch.context() as patch:
        out_of_memory_above(patch, 0, error)
        with pytest.raises(WorkerError) as caught:
            go(config)
    assert in_one_sentence(caught, "out of memory; end other programs or give fewer --jobs")
    check_goes_on(config)
