"""Estimates of people from elsewhere, such as a regressor's, for fits to begin at and stay near."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from .body import Body
from .files import InputError
from .keypoint_body import SIZES
from .people import People, Problem, index_within_image
from .posing import params_of
from .problem import PARAMETERS, BodyParams, FitProblem, Proximal
from .readers.columns import as_texts, to_floats
from .readers.common import load_arrays
from .table import FitsTable, read_fits

# How far a regressor is expected to be off; docs/fitting.md has the calibration.
ESTIMATE_POSE_STD = 0.2  # radians, of each joint about each axis
ESTIMATE_BETAS_STD = 0.7

# Beyond these a number is a fault of its file, such as degrees for radians.
_LIMITS = {"global_orient": 100.0, "body_pose": 100.0, "betas": 100.0, "transl": 1e6}
SMPL_VERTICES = 6890  # bodies of as many have SMPL's shape components


class Estimator(Protocol):
    """Makes estimates of people from their keypoints, such as `regressor.load_lifter`'s.

    Attributes:
        name: what the fits table's column `init` says of them.
    """

    name: str

    def __call__(
        self, problem: FitProblem, count: int, seed: int
    ) -> tuple[FitProblem, list[BodyParams]]:
        """What is known of B people, and where their fits may begin.

        Args:
            problem: B people.
            count: of starts: the estimates, and samples around them.
            seed: of the samples; they do not depend on who else is among the B.

        Returns:
            The problem with its proximal term and keypoints' deviations; the starts.
        """


MakeEstimator = Callable[[Body], Estimator]


class PicturePredictor(Protocol):
    """Makes estimates of people from their pictures, such as `regressor.load_predictor`'s."""

    def __call__(
        self,
        people: People,
        images: Path,
        *,
        focal: float | None = None,
        progress: Callable[[int], object] = lambda done: None,
    ) -> tuple[Estimates, list[Problem]]:
        """Estimates of N people, NaN for those who cannot be seen.

        Args:
            people: N rows, whose keypoints say where they are in their pictures.
            images: folder of the pictures.
            focal: pixels, for everyone; none means each row's own, or else the picture's diagonal.
            progress: called with the number of people just done.

        Returns:
            The estimates in their order, and the pictures that cannot be read.
        """


MakePredictor = Callable[[Body], PicturePredictor]


@dataclass(frozen=True, kw_only=True)
class Estimates:
    """Estimates of N people, on the CPU.

    Attributes:
        params: N rows of float32, camera frame; NaN for people without an estimate, and NaN transl
            where only that is unknown.
        image: (N,) str, picture of each; "" where the file names none.
        person: (N,) int, index within the picture.
        annotation_id: (N,) int64, or None where the file has none.
        focal: (N,) float32 pixels of the camera that `transl` is for; NaN where unknown.
        has_betas: False if the file's betas are of another body, and so are zero in `params`.
        file: where they come from, for messages.
    """

    params: BodyParams
    image: np.ndarray
    person: np.ndarray
    focal: Tensor
    annotation_id: np.ndarray | None = None
    has_betas: bool = True
    file: str = "init"

    def __len__(self) -> int:
        return len(self.params)

    @property
    def known(self) -> Tensor:
        """(N,) bool, False for people without an estimate."""
        return ~self.params.global_orient.isnan().any(dim=1)

    def select(self, index: slice) -> Estimates:
        """The people of a slice."""
        ids = self.annotation_id
        return replace(
            self,
            params=self.params.select(torch.arange(len(self))[index]),
            image=self.image[index],
            person=self.person[index],
            focal=self.focal[index],
            annotation_id=None if ids is None else ids[index],
        )

    def proximal(self, pose_std: float) -> Proximal:
        """How near to the estimates fits should stay; `pose_std` in radians.

        Raises:
            ValueError: it is not positive.
        """
        if not pose_std > 0:
            raise ValueError(f"the estimates' deviation must be positive, got {pose_std}")
        betas_std = ESTIMATE_BETAS_STD if self.has_betas else torch.inf
        return Proximal(
            params=self.params,
            pose_precision=(pose_std**-2 * torch.eye(3)).expand(1, 24, 3, 3),
            betas_std=torch.full((1, 10), betas_std),
        )


def read_estimates(path: Path, body: Body) -> Estimates:
    """Read a fits table, or an `.npz` as SPIN's evaluation writes it (docs/conventions.md).

    Args:
        path: fits table, or output folder that holds one, or `.npz` with `pose` (N, 72) and `betas`
            (N, 10), or `shape` in its place, and perhaps `imgname` (N,) and `transl` (N, 3).
        body: that the people will be fitted with.

    Raises:
        InputError: the file cannot be used; one sentence with the fix.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist; check the path of the estimates")
    if path.suffix.lower() == ".npz":
        return _read_npz(path, body)
    return estimates_of_table(read_fits(path), body, file=str(path))


def estimates_of_table(table: FitsTable, body: Body, *, file: str = "init") -> Estimates:
    """Estimates of the people of a fits table; see `read_estimates`."""
    fitted_with = table.metadata.get("body_sha256", body.sha256)
    return _checked(
        Estimates(
            params=params_of(table, torch.zeros(())),
            image=table.column_array("image"),
            person=table.column_array("person"),
            focal=torch.from_numpy(table.column_array("fx")),
            annotation_id=table.column_array("annotation_id"),
            has_betas=fitted_with == body.sha256,
            file=file,
        )
    )


def estimates_of_params(params: BodyParams) -> Estimates:
    """Estimates from tensors, of people in their order; NaN where something is unknown.

    Raises:
        InputError: they are of unequal shapes, or a row holds other than plausible numbers.
    """
    N = len(params.global_orient)
    tensors = {}
    for name, length in zip(PARAMETERS, SIZES, strict=True):
        tensor = getattr(params, name).detach()
        if tensor.shape != (N, length):
            raise InputError(f"{name} of init must be {(N, length)}, got {tuple(tensor.shape)}")
        tensors[name] = tensor.to("cpu", torch.float32)
    return _checked(
        Estimates(
            params=BodyParams(**tensors),
            image=np.full(N, ""),
            person=np.arange(N),
            focal=torch.full((N,), torch.nan),
        )
    )


def match_estimates(estimates: Estimates, people: People) -> Estimates:
    """The estimates of the N people, in their order; NaN for those who have none.

    See `match_rows`.
    """
    index = torch.from_numpy(match_rows(estimates, people))
    nobody = unknown_params(1)  # at row -1
    return replace(
        estimates,
        params=BodyParams.concatenate([estimates.params, nobody]).select(index),
        focal=torch.cat([estimates.focal, nobody.transl[:, 0]])[index],
        image=people.image,
        person=people.person,
        annotation_id=people.annotation_id,
    )


def match_rows(estimates: Estimates, people: People) -> np.ndarray:
    """(N,) row of each person's estimate, -1 for none.

    By name of the picture and annotation id; by name and index within the picture where ids only
    count the rows; and by row number where there are no names.

    Raises:
        InputError: rows cannot be told apart, none is of these people, or there are no names and
            the numbers of rows differ.
    """
    if (estimates.image != "").any() and (people.image != "").any():
        return _rows_by_name(estimates, people)
    if len(estimates) == len(people):
        return np.arange(len(people))
    raise InputError(
        f"{estimates.file} has {len(estimates)} estimates for {len(people)} people, and no names "
        "of pictures to match them by; give one row for each person"
    )


def unknown_params(num_people: int) -> BodyParams:
    """Those of people without an estimate: NaN, float32."""
    columns = zip(PARAMETERS, SIZES, strict=True)
    return BodyParams(**{name: torch.full((num_people, size), torch.nan) for name, size in columns})


def _checked(estimates: Estimates) -> Estimates:
    """The same, people without pose or shape wholly unknown; betas of another body made zero.

    Raises:
        InputError: a row holds NaN in part, infinity or a number that cannot be meant.
    """
    params, fault = estimates.params, torch.zeros(len(estimates), dtype=torch.bool)
    without_betas = params.pack(("global_orient", "body_pose", "betas")).isnan().all(dim=1)
    for name in PARAMETERS:
        values = getattr(params, name)
        absent = values.isnan().all(dim=1) & (without_betas | (name == "transl"))
        fault |= ~((values.abs() <= _LIMITS[name]).all(dim=1) | absent)
    if fault.any():
        raise InputError(
            f"{estimates.file}, row {int(fault.nonzero()[0])}: the estimate holds infinity, NaN in "
            "part, or numbers too large for radians and metres; correct it, or give NaN for all of "
            "a person without an estimate"
        )
    if not estimates.has_betas:
        params = replace(params, betas=torch.zeros_like(params.betas))
    return replace(estimates, params=params.where(~without_betas))


_NPZ_WIDTHS = {"pose": 72, "betas": 10, "transl": 3}


def _read_npz(path: Path, body: Body) -> Estimates:
    arrays = _npz_arrays(path)
    columns = {n: to_floats(arrays[n], np.float32) for n in _NPZ_WIDTHS if n in arrays}
    pose, betas = torch.from_numpy(columns["pose"]), torch.from_numpy(columns["betas"])
    transl = torch.from_numpy(columns.get("transl", np.full((len(pose), 3), np.nan, np.float32)))
    names = (
        as_texts(arrays["imgname"], path, "imgname") if "imgname" in arrays else [""] * len(pose)
    )
    image = np.array(names, dtype=np.str_)
    return _checked(
        Estimates(
            params=BodyParams(
                global_orient=pose[:, :3], body_pose=pose[:, 3:], betas=betas, transl=transl
            ),
            image=image,
            person=index_within_image(image),
            focal=torch.full((len(pose),), torch.nan),
            has_betas=body.num_vertices == SMPL_VERTICES,
            file=str(path),
        )
    )


def _npz_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays that count, of the right shapes and kinds."""
    arrays, keys = load_arrays(path, [*_NPZ_WIDTHS, "imgname", "shape"])
    shape = arrays.pop("shape", None)  # what SPIN's data sets call the betas
    if shape is not None:
        arrays.setdefault("betas", shape)
    for name in ("pose", "betas"):
        if name not in arrays:
            raise InputError(
                f"{path} has no array {name}, it holds {', '.join(keys) or 'nothing'}; give pose "
                "(N, 72) and betas (N, 10), or a fits table"
            )
    N = arrays["pose"].shape[0] if arrays["pose"].ndim else 0
    for name, array in arrays.items():
        expected = (N, _NPZ_WIDTHS[name]) if name in _NPZ_WIDTHS else (N,)
        kinds, words = ("iuf", "numbers") if name in _NPZ_WIDTHS else ("US", "strings")
        if array.shape != expected or array.dtype.kind not in kinds:
            raise InputError(
                f"{path}: {name} must be {expected} {words}, got {array.shape} {array.dtype}; save "
                "it in that shape"
            )
    return arrays


def _rows_by_name(estimates: Estimates, people: People) -> np.ndarray:
    """(N,) row of each person's estimate, -1 for none."""
    names, wanted = estimates.image, people.image
    if not np.isin(wanted, names).any():  # SPIN names pictures by a path of its own
        names, wanted = (_file_names(paths, estimates.file) for paths in (names, wanted))
    ids, wanted_ids = estimates.annotation_id, people.annotation_id
    if ids is None or (_count_rows(ids) and _count_rows(wanted_ids)):
        ids, wanted_ids = estimates.person, people.person
    row_of: dict[tuple[str, int], int] = {}
    for row, key in enumerate(zip(names.tolist(), ids.tolist(), strict=True)):
        if row_of.setdefault(key, row) != row:
            raise InputError(
                f"{estimates.file}, row {row}: the same person as in row {row_of[key]}; keep one "
                "estimate of each person"
            )
    keys = zip(wanted.tolist(), wanted_ids.tolist(), strict=True)
    rows = np.array([row_of.get(key, -1) for key in keys], dtype=np.int64)
    if len(rows) and (rows < 0).all():
        raise InputError(
            f"{estimates.file}: none of its {len(estimates)} rows is of the {len(rows)} people to "
            f"fit (one in {people.image[0]}, for one); give the estimates of these pictures"
        )
    return rows


def _count_rows(ids: np.ndarray) -> bool:
    """Whether annotation ids are mere row numbers, as of people who were detected."""
    return np.array_equal(ids, np.arange(len(ids)))


def _file_names(paths: np.ndarray, file: str) -> np.ndarray:
    """Names of pictures without their folders."""
    names = {path: PurePosixPath(path.replace("\\", "/")).name for path in set(paths.tolist())}
    if len(set(names.values())) < len(names):
        raise InputError(
            f"{file}: pictures of one name in several folders; give their paths within the folder "
            "of pictures"
        )
    return np.array([names[path] for path in paths.tolist()], dtype=np.str_)
