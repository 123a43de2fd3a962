"""Reading and writing files so that a crash or a full disk never leaves half a result."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

_MAX_NAME = 100  # of the 255 bytes a file name may have, leaving room for what is put around it


class InputError(ValueError):
    """A file given to the program cannot be used; the message is one sentence with the fix."""


class OutputError(OSError):
    """A result cannot be written; the message is one sentence with the fix."""


def write_atomically(
    path: Path | str, write: Callable[[BinaryIO], object], *, durable: bool = True
) -> None:
    """Write a file so that `path` holds either the complete new content or what it held before.

    The content goes to a temporary name in the same folder, is forced to the disk, and is renamed.

    Args:
        path: file to write or replace; its folder must exist.
        write: receives a file open for binary writing, and need not close it.
        durable: wait until the disk has it, some milliseconds. Without, only a program that is
            killed leaves no half file; a computer that loses its power may.

    Raises:
        OutputError: the disk is full, the folder is missing or may not be written, and the like.
    """
    path = Path(path)
    begin = path.name.encode("utf-8", "replace")[:_MAX_NAME].decode("utf-8", "ignore")
    temporary = path.with_name(f".{begin}.{secrets.token_hex(6)}.tmp")
    try:
        try:
            # "x": two writers never share a temporary name; `open` honours the umask, unlike the
            # private files of `tempfile`.
            with temporary.open("xb") as stream:
                write(stream)
                if durable:
                    stream.flush()
                    os.fsync(stream.fileno())
            temporary.replace(path)
        except BaseException:
            _remove_quietly(temporary)
            raise
        if durable:
            _sync_folder(path.parent)
    except OSError as error:
        raise _output_error(path, error) from error


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as indented UTF-8 JSON, atomically; NaN and infinity are a `ValueError`.

    Args:
        path: file to write or replace.
        value: whatever `json.dumps` accepts, without NaN: strict readers reject it.

    Raises:
        OutputError: the file cannot be written.
    """
    content = json_bytes(value)
    write_atomically(path, lambda stream: stream.write(content))


def json_bytes(value: Any) -> bytes:
    """Content of a file of indented UTF-8 JSON; NaN and infinity are a `ValueError`."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()


def short_name(name: str) -> str:
    """A name for a file after one from a stranger's file, of at most 100 bytes.

    Args:
        name: a path or a name; its folders become part of the name. A longer one keeps its end,
            behind eight digits of the hash of all of it.
    """
    flat = name.replace("/", "_").replace("\\", "_")
    encoded = flat.encode("utf-8", "replace")
    if len(encoded) <= _MAX_NAME:
        return flat
    digest = hashlib.sha256(encoded).hexdigest()[:8]
    return f"{digest}_{encoded[len(digest) + 1 - _MAX_NAME :].decode('utf-8', 'ignore')}"


def sha256_of(path: Path | str) -> str:
    """SHA-256 of a file's content, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def prepare_output(folder: Path | str, *, overwrite: bool = False) -> Path:
    """Create the folder of a run, or make sure that an existing one may be written.

    Args:
        folder: created with its parents where absent.
        overwrite: accept a folder that already holds files. Nothing is deleted here: files are
            replaced one by one as they are written.

    Returns:
        The folder.

    Raises:
        OutputError: it holds files and `overwrite` is false, a file stands in its place, or it
            may not be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not overwrite and any(folder.iterdir()):
            raise OutputError(
                f"{folder} already holds files; choose another folder or pass --overwrite"
            )
        probe = folder / f".{secrets.token_hex(6)}.tmp"
        probe.touch(exist_ok=False)
        probe.unlink()
    except OutputError:
        raise
    except OSError as error:
        raise _output_error(folder, error) from error
    return folder


_REASONS = {
    errno.ENOSPC: "the disk is full; free some space or choose another folder",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another folder",
    errno.EACCES: "permission is denied; choose a folder you may write to",
    errno.EPERM: "permission is denied; choose a folder you may write to",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.ENOENT: "its folder does not exist; create the folder first",
    errno.ENOTDIR: "a file stands where a folder is needed; choose another path",
    errno.EEXIST: "a file stands where a folder is needed; choose another path",
    errno.EISDIR: "a folder stands where the file is needed; choose another path",
    errno.ENAMETOOLONG: "its name is too long; choose a shorter one",
}


def _output_error(path: Path, error: OSError) -> OutputError:
    reason = _REASONS.get(error.errno or 0, f"{error.strerror or error}; choose another path")
    return OutputError(f"cannot write {path}: {reason}")


def _remove_quietly(path: Path) -> None:
    """Remove a temporary file while another error is on its way, which must not be replaced."""
    with contextlib.suppress(OSError):
        path.unlink()


def _sync_folder(folder: Path) -> None:
    """Force a rename to the disk; only POSIX can open a folder for that."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
