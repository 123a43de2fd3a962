"""Read people with 2D keypoints from the files of data sets, detectors and other programs.

Files come from strangers: a bad row is left out and named, a file that cannot be used at all is an
`InputError`, and nothing in a file is ever unpickled or used as a path outside the picture folder.

A format is a module with a `Reader`, and an entry in `_READERS`.
"""

from __future__ import annotations

from pathlib import Path

from ..files import InputError
from ..people import People, Problem
from ..skeleton import keypoint_set as set_of_name
from . import coco, fits, humandata, lsp, mmpose, mpii, openpose, plain, spin, threedpw
from .common import Reader, Request, list_keys, list_names, shown
from .matlab import is_matlab, list_variables

# The first that recognises a file reads it: a format that looks like another goes before it.
_READERS: dict[str, Reader] = {
    "mmpose": mmpose.READER,
    "coco": coco.READER,
    "openpose": openpose.READER,
    "spin": spin.READER,
    "humandata": humandata.READER,
    "npz": plain.READER,
    "lsp": lsp.READER,
    "mpii": mpii.READER,
    "3dpw": threedpw.READER,
    "fits": fits.READER,
}
FORMATS = ("auto", *_READERS)

_ARRAY_MAGIC = b"\x93NUMPY"


def read_people(
    path: Path | str,
    *,
    keypoint_format: str = "auto",
    keypoint_set: str | None = None,
    images: Path | str | None = None,
) -> tuple[People, list[Problem]]:
    """Read people with 2D keypoints.

    docs/formats.md describes the formats; `auto` looks at the content. People keep the order of the
    file, those without any seen keypoint included.

    Args:
        path: file or folder.
        keypoint_format: one of `FORMATS`.
        keypoint_set: name of the set, where the file does not tell.
        images: folder of the pictures, for the sizes that a file lacks.

    Returns:
        The people, and a problem for each row left out.

    Raises:
        InputError: the file cannot be used; one sentence with the fix.
    """
    if keypoint_format not in FORMATS:
        raise InputError(
            f"unknown keypoint format {keypoint_format!r}; use one of {', '.join(FORMATS)}"
        )
    request = _checked_request(path, keypoint_set, images)
    name = _recognise(request) if keypoint_format == "auto" else keypoint_format
    return _READERS[name].read(request)


def recognise_format(path: Path | str) -> str:
    """The format of a keypoint file or folder, told by its content.

    Raises:
        InputError: it is of no known format; the message says what it holds.
    """
    return _recognise(_checked_request(path, None, None))


def _checked_request(path: Path | str, set_name: str | None, images: Path | str | None) -> Request:
    request = Request(
        path=Path(path),
        keypoint_set=None if set_name is None else _checked_set(set_name),
        images=None if images is None else Path(images),
    )
    if not request.path.exists():
        raise InputError(f"{path} does not exist; check the path of the keypoints")
    if request.images is not None and not request.images.is_dir():
        raise InputError(f"{images} is not a folder; give the folder that holds the pictures")
    return request


def _checked_set(name: str) -> str:
    try:
        return set_of_name(name).name
    except ValueError as error:
        raise InputError(str(error)) from error


def _recognise(request: Request) -> str:
    for name, reader in _READERS.items():
        if reader.recognises(request):
            return name
    path, known = request.path, ", or ".join(reader.holds for reader in _READERS.values())
    if path.is_dir():
        raise InputError(
            f"{path} holds no keypoints, it holds {list_names(path)}; expected {known}"
        )
    if request.is_json:
        raise InputError(
            f"{path} is not a known keypoint format, its top level holds "
            f"{list_keys(request.document)}; expected {known}"
        )
    if request.start.startswith(_ARRAY_MAGIC):
        raise InputError(f"{path} is a single array; save it with names by numpy.savez")
    if is_matlab(request):
        names = ", ".join(map(shown, list_variables(path))) or "nothing"
        raise InputError(f"{path} is a MATLAB file of {names}; expected joints of LSP, or RELEASE")
    raise InputError(
        f"{path} is neither JSON, .npz, .mat, .pkl nor .parquet (it begins with "
        f"{request.start[:8]!r}); give a file of keypoints"
    )
