"""Fits as a store keeps them: columns of NumPy arrays, and which of two fits is the better one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fitting.keypoint_body import SIZES
from fitting.problem import PARAMETERS, BodyParams, FitResult

Rows = NDArray[np.int64]
Rule = Literal["map", "spin"]


class Origin(IntEnum):
    """Where a stored fit comes from; the names stand in exported tables."""

    NONE = 0  # there is no fit yet
    STATIC = 1  # `fit-cli fit`, before training
    REGRESSOR = 2  # a network's estimate as it is
    LOOP = 3  # fitted while training, from a network's estimate

    @property
    def label(self) -> str:
        """The word used in files: `static`, `regressor`, ..."""
        return self.name.lower()


class Column(NamedTuple):
    """A number, or `width` numbers, of every person."""

    dtype: np.dtype[Any]
    width: int | None

    @property
    def row_bytes(self) -> int:
        """Of one person."""
        return self.dtype.itemsize * (self.width or 1)

    def shape(self, count: int) -> tuple[int, ...]:
        """Of the array of `count` people."""
        return (count,) if self.width is None else (count, self.width)


# Little-endian, as the files are. Deviations are known to some ten percent, so that the three
# digits of half floats are more than enough for them, and a tenth of the store is saved.
COLUMNS: Mapping[str, Column] = {
    "params": Column(np.dtype("<f4"), sum(SIZES)),
    "joint_std_mm": Column(np.dtype("<f2"), 24),
    "cost": Column(np.dtype("<f4"), None),
    "error_px": Column(np.dtype("<f4"), None),
    "focal": Column(np.dtype("<f4"), None),
    "epoch": Column(np.dtype("<i4"), None),
    "origin": Column(np.dtype("u1"), None),
}
_LARGEST_STD_MM = float(np.finfo(np.float16).max)


@dataclass(frozen=True, kw_only=True)
class StoredFits:
    """Fits of B people on the CPU, in the camera of their pictures as they are, not augmented.

    Attributes:
        params: (B, 85) float32, global_orient, body_pose, betas and transl side by side.
        joint_std_mm: (B, 24) float16, expected distance of each joint from where it is, relative
            to the pelvis; a row of NaN where it is unknown.
        cost: (B,) float32, negative log posterior.
        error_px: (B,) float32, mean distance of the keypoints seen.
        focal: (B,) float32 pixels, of the camera that cost and transl are for.
        epoch: (B,) int32, in which the fit was made.
        origin: (B,) uint8 values of `Origin`; where it is `NONE`, everything else is zero.
    """

    params: NDArray[np.float32]
    joint_std_mm: NDArray[np.float16]
    cost: NDArray[np.float32]
    error_px: NDArray[np.float32]
    focal: NDArray[np.float32]
    epoch: NDArray[np.int32]
    origin: NDArray[np.uint8]

    def __post_init__(self) -> None:
        """Convert to the columns' types; ValueError if a shape is wrong."""
        count = len(self.params)
        for name, column in COLUMNS.items():
            value = np.asarray(getattr(self, name))
            if value.shape != column.shape(count):
                raise ValueError(f"{name} must be {column.shape(count)}, got {value.shape}")
            if name == "joint_std_mm" and value.dtype != column.dtype:
                value = np.minimum(value, _LARGEST_STD_MM)  # NaN stays NaN
            with np.errstate(over="ignore"):  # infinity is found by `is_sound`
                object.__setattr__(self, name, value.astype(column.dtype, copy=False))

    def __len__(self) -> int:
        return len(self.params)

    @property
    def is_known(self) -> NDArray[np.bool_]:
        """(B,) whether there is a fit."""
        return self.origin != Origin.NONE

    @property
    def body_params(self) -> BodyParams:
        """The parameters as tensors, which share the memory."""
        split = torch.from_numpy(self.params).split(SIZES, dim=1)
        return BodyParams(**dict(zip(PARAMETERS, split, strict=True)))

    def select(self, rows: NDArray[Any] | slice) -> StoredFits:
        """The fits at `rows` (indices, a mask or a slice)."""
        return StoredFits(**{name: getattr(self, name)[rows] for name in COLUMNS})

    @staticmethod
    def concatenate(parts: Sequence[StoredFits]) -> StoredFits:
        """People of all parts, in order."""
        return StoredFits(
            **{n: np.concatenate([getattr(part, n) for part in parts]) for n in COLUMNS}
        )

    @staticmethod
    def nothing(count: int) -> StoredFits:
        """People without a fit."""
        return StoredFits(**{n: np.zeros(c.shape(count), c.dtype) for n, c in COLUMNS.items()})

    @staticmethod
    def of_result(result: FitResult, *, epoch: int | Rows, origin: Origin) -> StoredFits:
        """What a solver found; waits for the device. NaN of failed fits stays, see `is_sound`.

        Args:
            result: of B people.
            epoch: of all, or (B,).
            origin: of all.
        """
        B = len(result)

        def on_cpu(tensor: torch.Tensor) -> NDArray[Any]:
            return tensor.detach().float().cpu().numpy()

        return StoredFits(
            params=on_cpu(result.params.pack(PARAMETERS)),
            joint_std_mm=on_cpu(result.joint_std_mm),
            cost=on_cpu(result.cost_final),
            error_px=on_cpu(result.mean_reprojection_error),
            focal=on_cpu(result.intrinsics[:, 0, 0]),
            epoch=np.broadcast_to(epoch, B),
            origin=np.full(B, origin, np.uint8),
        )

    @property
    def is_sound(self) -> NDArray[np.bool_]:
        """(B,) False where there is no fit, or where NaN or infinity is in it."""
        numbers = np.column_stack([self.params, self.cost, self.error_px, self.focal])
        std = self.joint_std_mm
        has_std = np.isfinite(std).all(axis=1) | np.isnan(std).all(axis=1)
        return self.is_known & np.isfinite(numbers).all(axis=1) & (self.focal > 0) & has_std

    def judged_by(self, rule: Rule) -> NDArray[np.float32]:
        """(B,) what the better fit has less of: "map" the cost, "spin" the mean 2D error."""
        return self.cost if rule == "map" else self.error_px


assert {field.name for field in fields(StoredFits)} == set(COLUMNS)


def best_of_rows(rows: Rows, fits: StoredFits, rule: Rule) -> NDArray[np.int64]:
    """Indices of the best fit of each distinct row, in the order of the rows.

    On a tie the earlier epoch's, then the one that comes first.
    """
    order = np.lexsort((fits.epoch, fits.judged_by(rule), rows))  # a stable sort
    in_order = rows[order]
    return order[np.diff(in_order, prepend=-1) != 0]
