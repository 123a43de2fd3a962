"""The fits table: one row for each person, in Parquet (docs/conventions.md).

A column is a NumPy array here: (N,) for one value a person, (N, K) for a list of K. Where a person
has no value, the file holds null and the array NaN, or -1 for the number of a track.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .files import InputError, write_atomically
from .manifest import FILE_NAME, PARTS_FOLDER, finished_parts, remove_manifest, remove_parts
from .npz import MAX_BYTES
from .people import NO_TRACK, UNSAFE_NAME_REASON, is_safe_name

_PART_NAME = re.compile(r"part-(\d+)\.parquet")
_METADATA_KEY = b"bodyloop"
_READ_BYTES = 1 << 20  # of each column at a time, where a file is not read at once

_FLOATS = pa.list_(pa.float32())
FITS_SCHEMA = pa.schema(
    [
        pa.field("image", pa.string(), nullable=False),
        pa.field("person", pa.int32(), nullable=False),
        pa.field("annotation_id", pa.int64(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("keypoint_set", pa.string(), nullable=False),
        pa.field("keypoints_2d", _FLOATS, nullable=False),  # P times x, y, conf
        pa.field("global_orient", _FLOATS),
        pa.field("body_pose", _FLOATS),
        pa.field("betas", _FLOATS),
        pa.field("transl", _FLOATS),
        *(pa.field(name, pa.float32()) for name in ("fx", "fy", "cx", "cy")),
        pa.field("reprojection_error_px", pa.float32()),
        pa.field("cost_initial", pa.float32()),
        pa.field("cost_final", pa.float32()),
        pa.field("num_steps", pa.int32(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("joint_std_mm", _FLOATS),
        pa.field("init", pa.string(), nullable=False),
        pa.field("track", pa.int64()),
    ]
)
# Lists of fixed length. The keypoints' length, 3 P, depends on their set.
LIST_LENGTHS = {
    "global_orient": 3, "body_pose": 69, "betas": 10, "transl": 3, "joint_std_mm": 24,
}  # fmt: skip
# Arrow's own mapping, to_pandas_dtype, imports pandas, which is not a dependency.
_NUMPY_TYPES = {pa.int32(): np.int32, pa.int64(): np.int64, pa.float32(): np.float32}
PARAMETERS = ("global_orient", "body_pose", "betas", "transl")


@dataclass(frozen=True, kw_only=True)
class FitsTable:
    """N fits in the order of the input, one row for each person.

    Attributes:
        columns: Arrow table of `FITS_SCHEMA`.
        metadata: of the file: the sha256 of the body, the configuration, the program's version.
    """

    columns: pa.Table
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.columns.num_rows

    def column_array(self, name: str) -> np.ndarray:
        """A column as an array, with NaN for null.

        Args:
            name: of a column of `FITS_SCHEMA`.

        Returns:
            (N,) or (N, K) array of the column's type; a copy.

        Raises:
            KeyError: there is no such column.
            ValueError: lists of unequal lengths, as of two keypoint sets: select the rows of one.
        """
        kind = FITS_SCHEMA.field(name).type
        column = self.columns.column(name).combine_chunks()
        if kind == _FLOATS:
            return _array_from_lists(column, name, LIST_LENGTHS.get(name))
        if kind == pa.string():
            return np.array(column.to_pylist(), dtype=np.str_)
        if name == "track":
            column = column.fill_null(NO_TRACK)
        return np.array(column.to_numpy(zero_copy_only=False), dtype=_NUMPY_TYPES[kind])

    @property
    def has_parameters(self) -> np.ndarray:
        """(N,) bool, False for people without a fit, such as those without keypoints."""
        return ~np.isnan(self.column_array("betas")).any(axis=1)

    @property
    def intrinsics(self) -> np.ndarray:
        """(N, 3, 3) float32 pixels, [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]; NaN where unknown."""
        intrinsics = np.zeros((len(self), 3, 3), dtype=np.float32)
        for name, row, column in (("fx", 0, 0), ("fy", 1, 1), ("cx", 0, 2), ("cy", 1, 2)):
            intrinsics[:, row, column] = self.column_array(name)
        intrinsics[:, 2, 2] = 1
        return intrinsics

    def select(self, index: np.ndarray) -> FitsTable:
        """The rows of a (N,) mask, or of row numbers in their order."""
        index = np.asarray(index)
        rows = np.flatnonzero(index) if index.dtype == bool else index.astype(np.int64)
        return FitsTable(columns=self.columns.take(pa.array(rows)), metadata=self.metadata)


def build_truth(
    columns: Mapping[str, np.ndarray], intrinsics: np.ndarray, metadata: Mapping[str, str]
) -> FitsTable:
    """A table of N people as they are, whom nobody had to fit.

    Args:
        columns: as those of `build_fits`, but for the camera and what a fit says of itself.
        intrinsics: (N, 3, 3) pixels.
        metadata: see `FitsTable`.
    """
    N = len(intrinsics)
    nothing = np.full(N, np.nan)
    given = {
        "fx": intrinsics[:, 0, 0],
        "fy": intrinsics[:, 1, 1],
        "cx": intrinsics[:, 0, 2],
        "cy": intrinsics[:, 1, 2],
        "reprojection_error_px": nothing,
        "cost_initial": nothing,
        "cost_final": nothing,
        "num_steps": np.zeros(N, dtype=np.int32),
        "status": np.full(N, "truth"),
        "init": np.full(N, "truth"),
    }
    return build_fits({**columns, **given}, metadata)


def build_fits(columns: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> FitsTable:
    """A fits table from arrays.

    Args:
        columns: an array for each column of `FITS_SCHEMA`, (N,) or (N, K). A row of a list column
            that is all NaN becomes null, as does a NaN among the floats and -1 among the tracks.
            `joint_std_mm` and `track` may be left out.
        metadata: see `FitsTable`.

    Raises:
        ValueError: a column is missing, unknown or of the wrong shape; or a row of parameters is
            NaN in part, or in some of its columns only: a failed fit must not pass as a fit.
    """
    if "image" in columns:
        rows = len(columns["image"])
        left_out = {
            "joint_std_mm": np.full((rows, LIST_LENGTHS["joint_std_mm"]), np.nan),
            "track": np.full(rows, NO_TRACK),
        }
        columns = left_out | dict(columns)
    missing = [name for name in FITS_SCHEMA.names if name not in columns]
    unknown = [name for name in columns if name not in FITS_SCHEMA.names]
    if missing or unknown:
        raise ValueError(
            f"the fits table needs the columns of FITS_SCHEMA; missing: "
            f"{', '.join(missing) or 'none'}, unknown: {', '.join(unknown) or 'none'}"
        )
    N = len(columns["image"])
    arrays = [_arrow_column(field, np.asarray(columns[field.name]), N) for field in FITS_SCHEMA]
    absent = np.stack([np.isnan(np.asarray(columns[name])).any(axis=1) for name in PARAMETERS])
    mixed = np.flatnonzero(absent.any(axis=0) & ~absent.all(axis=0))
    if len(mixed):
        raise ValueError(
            f"row {mixed[0]} has some of {', '.join(PARAMETERS)} only; give all of them or NaN"
        )
    return FitsTable(columns=pa.Table.from_arrays(arrays, schema=FITS_SCHEMA), metadata=metadata)


def write_fits(path: Path | str, table: FitsTable) -> None:
    """Write a fits table as one Parquet file, atomically.

    Raises:
        OutputError: the file cannot be written.
    """
    columns = _with_metadata(table)
    write_atomically(path, lambda stream: pq.write_table(columns, stream))


def replace_fits(output: Path, table: FitsTable) -> None:
    """Write `fits.parquet` in the folder of a run, in place of the table of any earlier run there.

    Raises:
        OutputError: it cannot be written.
    """
    remove_manifest(output)  # first: as long as there is one, the table is in parts
    write_fits(output / FILE_NAME, table)
    remove_parts(output)


def encode_fits(table: FitsTable) -> bytes:
    """The content of the file that `write_fits` would write."""
    stream = io.BytesIO()
    pq.write_table(_with_metadata(table), stream)
    return stream.getvalue()


def _with_metadata(table: FitsTable) -> pa.Table:
    text = json.dumps(dict(table.metadata), sort_keys=True)
    return table.columns.replace_schema_metadata({_METADATA_KEY: text.encode("utf-8")})


def read_fits(path: Path | str) -> FitsTable:
    """Read a fits table.

    Args:
        path: `fits.parquet`, a folder of `part-*.parquet`, or an output folder that holds either.

    Returns:
        The rows of all parts, in the order of the parts' numbers.

    Raises:
        InputError: there is no table, it is damaged or lacks columns, its parts are of different
            bodies, or it is of a run in shards that is not finished.
    """
    files = table_files(Path(path))
    parts = [_read_part(file) for file in files]
    for file, part in zip(files, parts, strict=True):
        if part.metadata.get("body_sha256") != parts[0].metadata.get("body_sha256"):
            raise InputError(
                f"{file} was fitted with another body than {files[0]}; keep parts of one run in a "
                "folder"
            )
    columns = pa.concat_tables([part.columns for part in parts])
    return FitsTable(columns=columns, metadata=parts[0].metadata)


def table_files(path: Path) -> list[Path]:
    """The Parquet files of a fits table, in order; see `read_fits`."""
    if not path.exists():
        raise InputError(f"{path} does not exist; check the path of the fits")
    if not path.is_dir():
        return [path]
    in_shards = finished_parts(path)
    if in_shards is not None:
        return in_shards
    if (path / FILE_NAME).is_file():
        return [path / FILE_NAME]
    for folder in (path / PARTS_FOLDER, path):
        if folder.is_dir():
            numbered = [(_PART_NAME.fullmatch(f.name), f) for f in folder.iterdir()]
            parts = sorted((int(match[1]), f) for match, f in numbered if match)
            if parts:
                return [f for _, f in parts]
    raise InputError(
        f"{path} holds neither {FILE_NAME} nor {PARTS_FOLDER}/part-*.parquet; give the output "
        "folder of fit-cli fit"
    )


def count_rows(path: Path) -> int:
    """Rows of one Parquet file; InputError if it is none."""
    with _reading(path), pq.ParquetFile(path) as file:
        return file.metadata.num_rows


def iterate_fits(path: Path, *, rows: int) -> Iterator[FitsTable]:
    """The rows of one Parquet file, so many at a time, in memory that does not grow with the file.

    Raises:
        InputError: see `read_fits`.
    """
    with _reading(path):  # not around the `yield`, which would catch errors of the caller
        file = pq.ParquetFile(path, buffer_size=_READ_BYTES)
        batches = file.iter_batches(rows, use_threads=False)
    with file:
        while True:
            with _reading(path):
                batch = next(batches, None)
                if batch is None:
                    return
                table = pa.Table.from_batches([batch], file.schema_arrow)
            yield _checked(table, path)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Errors of a damaged file in one sentence."""
    try:
        yield
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(
            f"{path} cannot be read as Parquet ({str(error).splitlines()[0].rstrip('.')}); run "
            "fit-cli fit again"
        ) from error


def _read_part(path: Path) -> FitsTable:
    with _reading(path), pq.ParquetFile(path) as file:
        _check_unpacked(file.metadata)
        table = file.read()
    return _checked(table, path)


def _check_unpacked(metadata: pq.FileMetaData) -> None:
    """ValueError for a decompression bomb: a value that repeats takes next to no bytes.

    The lengths of lists would be known from the metadata of columns, but to look at these ends the
    interpreter where they are damaged (PyArrow 26).
    """
    if 4 * metadata.num_rows * metadata.num_columns > MAX_BYTES:
        raise ValueError(f"it unpacks to more than {MAX_BYTES >> 30} GiB")


def _checked(table: pa.Table, path: Path) -> FitsTable:
    """The rows of a file, if they are fits."""
    with _reading(path):
        table.validate(full=True)
        names = table.column_names  # of damaged files they may be no text
    if "track" not in names:  # tables of earlier versions have none
        table = table.append_column("track", pa.nulls(len(table), pa.int64()))
    missing = [name for name in FITS_SCHEMA.names if name not in table.column_names]
    if missing:
        raise InputError(f"{path} has no column {missing[0]}; give a fits table of fit-cli fit")
    metadata = _metadata(table.schema.metadata or {}, path)
    for expected in FITS_SCHEMA:
        _check_column(table.column(expected.name), expected, path)
    _check_names(table.column("image"), path)
    columns = table.select(FITS_SCHEMA.names).cast(FITS_SCHEMA)
    return FitsTable(columns=columns, metadata=metadata)


def _metadata(schema_metadata: Mapping[bytes, bytes], path: Path) -> dict[str, str]:
    try:
        metadata = json.loads(schema_metadata.get(_METADATA_KEY, b"{}"))
    except ValueError as error:
        raise InputError(f"{path} has damaged metadata; run fit-cli fit again") from error
    if not isinstance(metadata, dict):
        raise InputError(f"{path} has damaged metadata; run fit-cli fit again")
    return {key: str(value) for key, value in metadata.items()}


def _check_names(images: pa.ChunkedArray, path: Path) -> None:
    """InputError where a picture's name leads out of the folder of pictures."""
    for name in images.unique().to_pylist():
        if not is_safe_name(name):
            raise InputError(f"{path}: of {name!a:.100}, {UNSAFE_NAME_REASON}")


def _check_column(column: pa.ChunkedArray, expected: pa.Field, path: Path) -> None:
    found = column.type
    # Item names and nullability of lists differ between writers, and are no fault.
    same = found.value_type == pa.float32() if pa.types.is_list(found) else found == expected.type
    if not same or pa.types.is_list(found) != pa.types.is_list(expected.type):
        raise InputError(
            f"{path} has a column {expected.name} of type {found}, expected {expected.type}; give "
            "a fits table of fit-cli fit"
        )
    if not expected.nullable and column.null_count:
        raise InputError(f"{path} has null in the column {expected.name}; run fit-cli fit again")
    length = LIST_LENGTHS.get(expected.name)
    if length is not None:
        try:
            _array_from_lists(column.combine_chunks(), expected.name, length)
        except ValueError as error:
            raise InputError(f"{path}: {error}") from error


def _arrow_column(field: pa.Field, array: np.ndarray, num_rows: int) -> pa.Array:
    if field.type == _FLOATS:
        length = LIST_LENGTHS.get(field.name, array.shape[-1] if array.ndim else 0)
        if array.shape != (num_rows, length):
            raise ValueError(f"{field.name} must be {(num_rows, length)}, got {array.shape}")
        return _lists_from_array(array.astype(np.float32), field)
    if array.shape != (num_rows,):
        raise ValueError(f"{field.name} must be {(num_rows,)}, got {array.shape}")
    if field.type == pa.float32():
        array = array.astype(np.float32)
        return pa.array(array, mask=np.isnan(array))
    if field.name == "track":
        return pa.array(array.astype(np.int64), mask=array == NO_TRACK)
    return pa.array(array.tolist() if array.dtype.kind == "U" else array, type=field.type)


def _lists_from_array(array: np.ndarray, field: pa.Field) -> pa.Array:
    """(N, K) float32 as Arrow lists; rows that are all NaN become null."""
    nan = np.isnan(array)
    absent = nan.all(axis=1) & field.nullable
    partly = np.flatnonzero(nan.any(axis=1) & ~absent)
    if len(partly):
        raise ValueError(f"{field.name} of row {partly[0]} holds NaN; give numbers, or NaN for all")
    ends = np.cumsum(np.where(absent, 0, array.shape[1]))
    offsets = np.concatenate([[0], ends]).astype(np.int32)
    # Arrow's way to say that list i is null: offset i is null.
    nulls = np.concatenate([absent, [False]])
    return pa.ListArray.from_arrays(pa.array(offsets, mask=nulls), pa.array(array[~absent].ravel()))


def _array_from_lists(column: pa.Array, name: str, length: int | None) -> np.ndarray:
    """Arrow lists of one length as (N, K) float32; null becomes a row of NaN."""
    lengths = column.value_lengths().to_numpy(zero_copy_only=False)
    present = column.is_valid().to_numpy(zero_copy_only=False)
    if length is None:
        length = int(lengths[present][0]) if present.any() else 0
    wrong = np.flatnonzero(present & (lengths != length))
    if len(wrong):
        raise ValueError(
            f"{name} of row {wrong[0]} has {int(lengths[wrong[0]])} numbers, expected {length}; "
            "select rows of one kind"
        )
    array = np.full((len(column), length), np.nan, dtype=np.float32)
    numbers = column.flatten().to_numpy(zero_copy_only=False)  # leaves the nulls out
    array[present] = numbers.reshape(int(present.sum()), length)
    return array
