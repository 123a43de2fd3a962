"""Where runs in shards are read from and written to: folders of this machine, or object stores.

A URL such as s3://bucket/out becomes a `upath.UPath`. It has the methods of `pathlib.Path`, which
are all that is used of either, and fsspec does the work.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from .files import InputError, OutputError, json_bytes, prepare_output, write_atomically

_EXTRA = "fsspec; pip install 'bodyloop[remote]', and s3fs for s3://, gcsfs for gs://"


def to_location(text: str) -> Path:
    """A local path, or what stands for a URL; nothing is read yet.

    Raises:
        InputError: it is a URL, and what reads URLs is not installed, or does not know its kind.
    """
    if "://" not in text:
        return Path(text)
    try:
        from upath import UPath

        location = UPath(text)
    except ImportError as error:
        raise InputError(f"{text} needs {_EXTRA} ({error})") from error
    except ValueError as error:
        raise InputError(f"{text} is no URL that fsspec knows ({error})") from error
    return Path(location.path) if location.protocol == "file" else cast(Path, location)


def check_installed(location: Path) -> None:
    """See that there is what a kind of URL needs.

    Raises:
        InputError: there is not.
    """
    if is_remote(location):
        try:
            _ = location.fs  # type: ignore[attr-defined]
        except ImportError as error:
            raise InputError(f"{location} needs {_EXTRA} ({error})") from error


def is_remote(location: Path) -> bool:
    """Whether a location is a URL, of an object store for one."""
    return not isinstance(location, Path)


def exists(location: Path) -> bool:
    """Whether there is a file or a folder.

    Raises:
        InputError: a store does not tell.
    """
    if not is_remote(location):
        return location.exists()
    with _told(InputError, f"cannot look for {location}"):
        return location.exists()


def read_whole(location: Path) -> bytes:
    """Content of a file.

    Raises:
        FileNotFoundError, NotADirectoryError: there is none.
        InputError: it cannot be read.
    """
    try:
        return location.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise
    except Exception as error:
        raise InputError(_sentence(f"cannot read {location}", error)) from error


def write_whole(location: Path, content: bytes) -> None:
    """Write a file so that it holds either all the new content or what it held before.

    On this machine that is a renamed temporary file. An object store has no renaming and needs
    none: an object appears when all of it has been sent, and who is killed before has sent nothing.

    Raises:
        OutputError: it cannot be written.
    """
    if not is_remote(location):
        write_atomically(location, lambda stream: stream.write(content))
        return
    with _told(OutputError, f"cannot write {location}"):
        location.write_bytes(content)


def write_json(location: Path, value: Mapping[str, Any]) -> None:
    """Write indented UTF-8 JSON like `write_whole`; NaN and infinity are a `ValueError`."""
    write_whole(location, json_bytes(value))


def prepare_folder(folder: Path, *, overwrite: bool) -> None:
    """Make sure that a run may begin in a folder; see `files.prepare_output`."""
    if not is_remote(folder):
        prepare_output(folder, overwrite=overwrite)
        return
    with _told(OutputError, f"cannot use {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        is_used = bool(files_in(folder))
    if is_used and not overwrite:
        raise OutputError(
            f"{folder} already holds files; choose another folder or pass --overwrite"
        )


def remove(location: Path) -> None:
    """Remove a file, where there is one.

    Raises:
        OutputError: it cannot be removed.
    """
    try:
        location.unlink()
    except FileNotFoundError:  # another process may share the run
        pass
    except Exception as error:
        raise OutputError(
            f"cannot remove {location}: {_reason(error)}; see what you may do there, and go on "
            "with --resume"
        ) from error


def files_in(folder: Path) -> list[Path]:
    """What is in a folder; nothing where there is none, as object stores have no empty ones."""
    found = list(folder.iterdir()) if folder.is_dir() else []
    if is_remote(folder):  # fsspec would believe it later, too, whatever others write meanwhile
        folder.fs.invalidate_cache()  # type: ignore[attr-defined]
    return found


@contextmanager
def local_copy(location: Path) -> Iterator[Path]:
    """A file of an object store on this machine, as long as it is needed.

    Raises:
        InputError: it cannot be read.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / location.name
        with _told(InputError, f"cannot read {location}"):
            location.fs.get_file(location.path, str(copy))  # type: ignore[attr-defined]
        yield copy


@contextmanager
def _told(kind: type[InputError | OutputError], what: str) -> Iterator[None]:
    """Errors in one sentence: file systems raise whatever their libraries do."""
    try:
        yield
    except Exception as error:
        raise kind(_sentence(what, error)) from error


def _sentence(what: str, error: Exception) -> str:
    return f"{what}: {_reason(error)}; check the address, and what you may do there"


def _reason(error: Exception) -> str:
    """In one line; libraries of stores do not give their errors a `strerror`."""
    text = getattr(error, "strerror", None) or str(error).partition("\n")[0]
    return text or type(error).__name__
