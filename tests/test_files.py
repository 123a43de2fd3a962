"""Atomic writing: the old content or the new, never a mixture, and one sentence when it fails."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from pathlib import Path
from typing import BinaryIO

import pytest

from fitting.files import OutputError, prepare_output, sha256_of, write_atomically, write_json


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _fail_with(code: int):
    def write(stream: BinaryIO) -> None:
        stream.write(b"half")
        raise OSError(code, os.strerror(code))

    return write


def test_writes_and_replaces(tmp_path):
    path = tmp_path / "result.bin"
    write_atomically(path, lambda stream: stream.write(b"old"))
    write_atomically(path, lambda stream: stream.write(b"new content"))
    assert path.read_bytes() == b"new content"
    assert _names(tmp_path) == ["result.bin"]


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_honours_the_umask(tmp_path):
    previous = os.umask(0o022)
    try:
        write_atomically(tmp_path / "a", lambda stream: stream.write(b"x"))
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "disk is full; free some space"),
        (errno.EACCES, "permission is denied; choose a folder"),
        (errno.EROFS, "read-only"),
        (errno.EIO, "choose another path"),
    ],
)
def test_a_failed_write_keeps_the_old_file_and_names_the_fix(tmp_path, code, words):
    path = tmp_path / "result.bin"
    path.write_bytes(b"old")
    with pytest.raises(OutputError, match=words) as caught:
        write_atomically(path, _fail_with(code))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == b"old"
    assert _names(tmp_path) == ["result.bin"]


def test_a_disk_that_fills_at_the_last_moment(tmp_path, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="disk is full"):
        write_atomically(tmp_path / "a", lambda stream: stream.write(b"x"))
    assert _names(tmp_path) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_the_real_full_device_gives_the_same_error(tmp_path):
    def write(stream: BinaryIO) -> None:
        with Path("/dev/full").open("wb", buffering=0) as full:
            full.write(b"x")

    with pytest.raises(OutputError, match="disk is full"):
        write_atomically(tmp_path / "a", write)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_other_exceptions_pass_through_and_leave_nothing(tmp_path, error):
    def write(stream: BinaryIO) -> None:
        stream.write(b"half")
        raise error

    with pytest.raises(error):
        write_atomically(tmp_path / "a", write)
    assert _names(tmp_path) == []


def test_missing_folder_file_as_folder_and_folder_as_file(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for path, words in [
        (tmp_path / "missing" / "a", "does not exist; create"),
        (tmp_path / "file" / "a", "a file stands where a folder is needed"),
        (tmp_path / "folder", "a folder stands where the file is needed"),
    ]:
        with pytest.raises(OutputError, match=words):
            write_atomically(path, lambda stream: stream.write(b"x"))
    assert _names(tmp_path) == ["file", "folder"]


def test_the_longest_name_a_file_may_have(tmp_path):
    path = tmp_path / ("n" * 255)
    write_atomically(path, lambda stream: stream.write(b"x"))
    assert path.read_bytes() == b"x"


def test_write_json_round_trip_and_strictness(tmp_path):
    path = tmp_path / "run.json"
    value = {"counts": [1, 2], "name": "Zoë", "seconds": {"fit": 0.1}}
    write_json(path, value)
    assert json.loads(path.read_text(encoding="utf-8")) == value
    assert "Zoë" in path.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"error": float("nan")})
    assert json.loads(path.read_text(encoding="utf-8")) == value


@pytest.mark.parametrize("size", [0, 5, (1 << 20) + 3])
def test_sha256_equals_hashlib(tmp_path, size):
    content = bytes(i % 251 for i in range(size))
    (tmp_path / "a").write_bytes(content)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(content).hexdigest()


def test_prepare_output_creates_and_refuses(tmp_path):
    folder = prepare_output(tmp_path / "a" / "b")
    assert folder.is_dir()
    assert prepare_output(folder) == folder  # an empty folder is as good as a new one
    (folder / "fits.parquet").touch()
    with pytest.raises(OutputError, match=r"already holds files.*--overwrite"):
        prepare_output(folder)
    assert prepare_output(folder, overwrite=True) == folder
    assert _names(folder) == ["fits.parquet"]


def test_prepare_output_where_a_file_stands(tmp_path):
    (tmp_path / "a").touch()
    for path in (tmp_path / "a", tmp_path / "a" / "b"):
        with pytest.raises(OutputError, match="a file stands where a folder is needed"):
            prepare_output(path)


def test_prepare_output_without_permission(tmp_path, monkeypatch):
    def deny(self: Path, **_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "touch", deny)  # as root every real folder can be written
    with pytest.raises(OutputError, match="permission is denied; choose a folder you may write"):
        prepare_output(tmp_path)
