"""Runs in shards on URLs: of a local and of an in-memory file system, and of none that is known."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sharded import NUM_PEOPLE, fit_at_once, go, make_config, people_arrays

import fitting.shard_run
from fitting.files import InputError, OutputError
from fitting.run import run
from fitting.storage import (
    check_installed,
    exists,
    files_in,
    is_remote,
    read_whole,
    to_location,
    write_whole,
)

upath = pytest.importorskip("upath", reason="universal_pathlib is not installed")


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Shards that are not fitted: what is written is tested here, and where."""
    monkeypatch.setattr(fitting.shard_run, "fit_shard", fit_at_once)
    return make_config(tmp_path)


@pytest.fixture
def memory():
    """A folder in memory that is not there yet."""
    fsspec = pytest.importorskip("fsspec")
    files = fsspec.filesystem("memory")
    if files.exists("/bucket"):
        files.rm("/bucket", recursive=True)
    return to_location("memory://bucket/store")


@pytest.fixture(params=["memory", "file"])
def store(request, memory, tmp_path):
    """The same of each kind of file system."""
    return memory if request.param == "memory" else to_location(f"file://{tmp_path}/store")


def content_of(folder) -> dict[str, bytes]:
    """Every file below a folder, by its path from there."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path)[len(str(folder)) :]: path.read_bytes() for path in files}


def without_addresses(files: dict[str, bytes]) -> dict[str, object]:
    """Of the record, what seconds and paths have no part in."""
    kept = {name: content for name, content in files.items() if name != "/run.json"}
    record = json.loads(files["/run.json"])
    return kept | {"/run.json": (record["counts"], record["parts"])}


def test_a_store_holds_what_a_folder_would(config, store):
    source = store / "in" / "people.npz"
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_bytes(config.input.read_bytes())
    remote = replace(config, input=source, output=store / "out")
    stopped = go(remote, stop=iter([False, False, True, True]).__next__)
    assert (stopped.done, stopped.record) == (2, None)
    summary = go(remote, None, resume=True)
    assert summary.record["command"]["input"] == str(source)
    go(config)
    assert without_addresses(content_of(store / "out")) == without_addresses(
        content_of(config.output)
    )
    with pytest.raises(OutputError, match="already holds files"):
        go(remote)
    go(replace(remote, overwrite=True), 10)
    names = {path.name for path in (store / "out" / "fits").iterdir()}
    assert len(names) == 6


def test_damage_and_other_runs_are_seen_in_a_store(config, store):
    remote = replace(config, output=store / "out")
    go(remote)
    expected = content_of(store / "out")
    (store / "out" / "fits" / "part-00002.parquet").write_bytes(b"half")
    (store / "out" / "fits" / "_part-00004.json").unlink()
    fitted = []
    go(remote, None, resume=True, progress=lambda *stage: fitted.append(stage))
    assert len(fitted) == 2
    assert without_addresses(content_of(store / "out")) == without_addresses(expected)
    with pytest.raises(InputError, match="seed 0, not 3"):
        go(replace(remote, seed=3), resume=True)
    (store / "out" / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"but no manifest\.json"):
        go(remote, resume=True)


def test_shares_make_one_run_in_a_store(config, store):
    remote = replace(config, output=store / "out")
    assert go(remote, share=(2, 2)).record is None
    assert go(remote, share=(1, 2)).record["counts"]["people"] == 0  # nobody is counted here
    assert len(list((store / "out" / "fits").iterdir())) == 2 * -(-NUM_PEOPLE // 4)
    (store / "out" / "fits" / "part-00001.parquet").unlink()
    with pytest.raises(InputError, match=r"part-00001\.parquet is missing"):
        go(remote, share=(1, 2))


def test_problems_name_the_url(config, store):
    arrays = people_arrays()
    arrays["conf"][5] = 2
    np.savez(config.input, **arrays)
    source = store / "people.npz"
    store.mkdir(parents=True, exist_ok=True)
    source.write_bytes(config.input.read_bytes())
    summary = go(replace(config, input=source))
    assert [(problem.file, problem.row) for problem in summary.problems] == [(str(source), 5)]


def test_errors_name_the_url(config, store):
    source = store / "people.npz"
    store.mkdir(parents=True, exist_ok=True)
    source.write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(InputError) as caught:
        go(replace(config, input=source))
    assert str(caught.value).startswith(f"{source} cannot be read as .npz")


def test_what_others_write_after_a_listing_is_seen(memory, monkeypatch):
    """Object stores' file systems remember what a folder held."""
    files = type(memory.fs)
    lists, tells = files.ls, files.info
    monkeypatch.setattr(files, "invalidate_cache", lambda self, path=None: self.dircache.clear())

    def ls(self, path, detail=True, **options):
        self.dircache[self._strip_protocol(path)] = lists(self, path, detail=True)
        return lists(self, path, detail=detail, **options)

    def info(self, path, **options):
        path = self._strip_protocol(path)
        found = self._ls_from_cache(path)
        return next(one for one in found if one["name"] == path) if found else tells(self, path)

    monkeypatch.setattr(files, "ls", ls)
    monkeypatch.setattr(files, "info", info)
    memory.mkdir(parents=True)
    assert files_in(memory) == []
    with memory.fs.open((memory / "other").path, "wb") as stream:
        stream.write(b"content")
    assert exists(memory / "other")


def test_what_cannot_be_reached_is_told_in_one_sentence(config, memory, monkeypatch):
    with pytest.raises(InputError, match="no such file"):
        go(replace(config, input=memory / "none.npz"))

    def refuse(self, data):
        raise RuntimeError("no credentials\nand more")

    monkeypatch.setattr(type(memory), "write_bytes", refuse)
    with pytest.raises(OutputError, match="no credentials; check the address") as caught:
        write_whole(memory / "x", b"content")
    assert "\n" not in str(caught.value)
    for name in ("exists", "read_bytes"):
        monkeypatch.setattr(type(memory), name, lambda self: refuse(self, b""))
    for ask in (exists, read_whole):
        with pytest.raises(InputError, match="no credentials; check the address"):
            ask(memory / "x")


def test_locations(monkeypatch):
    assert to_location("a/b.npz") == Path("a/b.npz")
    assert not is_remote(to_location("a/b.npz"))
    assert is_remote(to_location("memory://bucket/x"))
    assert to_location("file:///a/b.npz") == Path("/a/b.npz")
    with pytest.raises(InputError, match="nonsense://x is no URL"):
        to_location("nonsense://x")
    with pytest.raises(InputError, match=r"pip install 'bodyloop\[remote\]'"):
        check_installed(to_location("dropbox://folder/x"))
    monkeypatch.setitem(sys.modules, "upath", None)
    with pytest.raises(InputError, match=r"pip install 'bodyloop\[remote\]'"):
        to_location("s3://bucket/x")


def test_a_run_in_one_piece_stays_on_this_machine(config, memory):
    with pytest.raises(InputError, match="add --shard-size"):
        run(replace(config, output=memory / "out"))


def test_the_command_takes_urls(fit_cli, config, memory):
    memory.mkdir(parents=True, exist_ok=True)
    (memory / "people.npz").write_bytes(config.input.read_bytes())
    options = ["--shard-size", 4, "--body", config.body, "--init", "mean", "--jobs", 1]
    options += ["--device", "cpu"]
    code, said, _ = fit_cli("fit", f"{memory}/people.npz", "-o", f"{memory}/out", *options)
    assert code == 0
    assert f"people fitted -> {memory}/out" in said
    assert (memory / "out" / "run.json").is_file()
    code, _, err = fit_cli("synth", "-o", f"{memory}/drawn", "--count", 1)
    assert code == 2
    assert "only fit-cli fit takes URLs" in err
    code, _, err = fit_cli("fit", f"{memory}/people.npz", "-o", f"{memory}/b", "--dry-run")
    assert code == 2
    assert "for this machine only" in err
