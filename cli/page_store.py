"""The store of fits of a training run in numbers: where fits come from, and how good they are."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .page_file import short

if TYPE_CHECKING:
    from fitting.table import FitsTable
    from regressor.loop import LoopConfig
    from regressor.store.fits import StoredFits

NUM_BINS = 24
MAX_READ = 200_000  # people whose fits are read; of more, so many that are evenly spread
_CHUNK = 1 << 14  # people at once, 7 MB
_TAIL = 0.02  # share of values beyond the last bin's lower edge


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """How often values fall into equal bins.

    Attributes:
        name: of what is counted.
        unit: of the values.
        low, width: the first bin's lower edge, and the bins' width.
        counts: the last bin's takes all that lie beyond.
    """

    name: str
    unit: str
    low: float
    width: float
    counts: Sequence[int]

    @property
    def plain(self) -> dict[str, Any]:
        """As JSON can hold it."""
        low, width = short(self.low, 6), short(self.width, 6)
        return {**vars(self), "low": low, "width": width}


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """People of a data set who are not learned from, and why."""

    dataset: str
    reason: str
    count: int


@dataclass(frozen=True, kw_only=True)
class StoreNumbers:
    """What a store of fits holds.

    Attributes:
        num_people: of all data sets.
        num_read: of them, whom the numbers below are of.
        origins: word -> people whose fit comes from there; "none" for those without.
        epochs: epoch -> fits of the loop that were made in it and are still the best.
        histograms: of the fits.
        left_out: where the run wrote its labels.
    """

    num_people: int
    num_read: int
    origins: Mapping[str, int]
    epochs: Mapping[int, int]
    histograms: Sequence[Histogram]
    left_out: Sequence[LeftOut] = ()


def collect_store(run: Path) -> StoreNumbers | None:
    """The store of a run as it was last saved; None where there is none that can be read."""
    from regressor.loop import FOLDER
    from regressor.store.columns import FitColumns

    folder = run / FOLDER
    count = _count_people(folder)
    if count is None or FitColumns.missing(folder, count) is not None:
        return None
    rows = np.unique(np.linspace(0, count - 1, min(count, MAX_READ)).astype(np.int64))
    columns = FitColumns(folder, count)
    parts = [_Part(columns.read(rows[i : i + _CHUNK])) for i in range(0, len(rows), _CHUNK)]
    return StoreNumbers(
        num_people=count,
        num_read=len(rows),
        origins=_sum(part.origins for part in parts),
        epochs=_sum(part.epochs for part in parts),
        histograms=[
            histogram
            for name, unit, values in (
                ("Cost of the fits", "", [part.cost for part in parts]),
                ("σ of the fits, mean of the joints", "mm", [part.sigma for part in parts]),
                ("Mean 2D error of the fits", "px", [part.error for part in parts]),
            )
            if (histogram := count_bins(name, unit, np.concatenate(values))) is not None
        ],
        left_out=list(_left_out(run)),
    )


class _Part:
    """What is kept of some people's fits."""

    def __init__(self, fits: StoredFits) -> None:
        from regressor.store.fits import Origin

        labels = {int(origin): origin.label for origin in Origin}
        known = fits.select(fits.is_known)
        made, counts = np.unique(fits.origin, return_counts=True)
        self.origins = {
            labels.get(o, "unknown"): c for o, c in zip(made.tolist(), counts.tolist(), strict=True)
        }
        made, counts = np.unique(known.epoch[known.origin == Origin.LOOP], return_counts=True)
        self.epochs = dict(zip(made.tolist(), counts.tolist(), strict=True))
        self.cost, self.error = known.cost, known.error_px
        self.sigma = known.joint_std_mm.astype(np.float32).mean(axis=1)


def count_bins(name: str, unit: str, values: NDArray[np.floating]) -> Histogram | None:
    """A histogram of the finite ones of some values (N,); None without any."""
    values = values[np.isfinite(values)].astype(np.float64)
    if len(values) == 0:
        return None
    low, high = min(0.0, float(values.min())), float(np.quantile(values, 1 - _TAIL))
    width = _round_width((high - low) / NUM_BINS or 1.0)
    low = width * np.floor(low / width)
    last = int(min(NUM_BINS - 1, np.ceil((high - low) / width)))
    bins = np.minimum(np.floor((values - low) / width), last).astype(int)
    counts = np.bincount(bins, minlength=last + 1).tolist()
    return Histogram(name=name, unit=unit, low=low, width=width, counts=counts)


def _round_width(least: float) -> float:
    """The next 1, 2 or 5 times a power of ten."""
    power = 10.0 ** np.floor(np.log10(least))
    return float(next(step * power for step in (1, 2, 5, 10) if step * power >= least))


def _count_people(folder: Path) -> int | None:
    """People of all data sets, by the store's manifest; None if it is missing or damaged."""
    from regressor.store.identity import MANIFEST

    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        count = sum(int(dataset["num_rows"]) for dataset in manifest["datasets"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return count if count > 0 else None


def _sum(counts: Iterator[Mapping[Any, int]]) -> dict[Any, int]:
    """Sums by key, in the keys' order."""
    total: dict[Any, int] = {}
    for part in counts:
        for key, count in part.items():
            total[key] = total.get(key, 0) + count
    return dict(sorted(total.items()))


# --- Who is left out ----------------------------------------------------------------------------


def _left_out(run: Path) -> Iterator[LeftOut]:
    """People whom the run did not learn from at its end, by the labels that it wrote."""
    from fitting.table import read_fits
    from regressor.config import load_config
    from regressor.image_task import COUNTS, LABELS
    from regressor.training import CONFIG_NAME

    try:
        loop = load_config(run / CONFIG_NAME).loop
        counts = json.loads((run / LABELS / COUNTS).read_text(encoding="utf-8"))
        for name, number in counts.items():
            path = run / LABELS / f"{int(name.split(':')[0]):02d}.parquet"
            missing = int(number["in_file"]) - int(number["kept"])
            reasons = {
                "no picture, too small, or too few keypoints seen (data.filter)": missing,
                **_untrusted(read_fits(path), loop),
            }
            yield from (
                LeftOut(dataset=name, reason=reason, count=count)
                for reason, count in reasons.items()
                if count > 0
            )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return  # a run that is not finished has no labels; a damaged file costs its lines


def _untrusted(labels: FitsTable, loop: LoopConfig) -> dict[str, int]:
    """Reason -> people whose fit counts nothing; as `FitLoop.targets` trusts fits."""
    has_fit = labels.has_parameters
    error = labels.column_array("reprojection_error_px") > loop.largest_error * _sizes(labels)
    shape = np.abs(labels.column_array("betas")).max(axis=1, initial=0) > loop.largest_beta
    return {
        "no fit": int((~has_fit).sum()),
        f"2D error above {loop.largest_error:.0%} of the person’s size": int(
            (has_fit & error).sum()
        ),
        f"a beta above {loop.largest_beta:g}": int((has_fit & ~error & shape).sum()),
    }


def _sizes(labels: FitsTable) -> NDArray[np.floating]:
    """(N,) pixels, of the keypoints that the loop sees."""
    from fitting.people import person_size
    from fitting.skeleton import BODY_POINTS, keypoint_set
    from regressor.image_people import measured_keypoints

    if len(labels) == 0:
        return np.zeros(0)
    source = keypoint_set(str(labels.column_array("keypoint_set")[0]))
    numbers = labels.column_array("keypoints_2d").reshape(len(labels), len(source), 3)
    return person_size(*measured_keypoints(numbers[..., :2], numbers[..., 2], source, BODY_POINTS))
