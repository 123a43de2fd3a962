"""Pictures of how far fits are off: `fit-cli evaluate --plots`. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .breakdown import NOISE_LABELS, Grouping, curve_of, group_by_noise, stated_and_actual
from .calibration import normal_share_within, share_within
from .evaluation import Comparison
from .files import prepare_output, write_atomically
from .metrics import PCK_THRESHOLD_MM, auc, pck
from .segmentation_scores import Segmentation, f1_scores

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_GROUPS = 6  # curves in one panel that can still be told apart
_PCK_POINTS = 76  # of a curve, 2 mm apart
_LONGEST_TEXT = 24  # letters that fit under a panel, beside the numbers


def check_matplotlib() -> None:
    """Make sure that pictures can be drawn.

    Raises:
        ImportError: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise ImportError("plots need matplotlib; install it by pip install 'bodyloop[train]'")


def write_plots(
    folder: Path | str,
    comparison: Comparison,
    columns: Mapping[str, Grouping] | None = None,
    *,
    joints: str = "lsp14",
    segmentation: Segmentation | None = None,
) -> dict[str, str]:
    """Draw calibration and errors as PNG files, replacing earlier ones.

    Args:
        folder: for the files; made if absent.
        comparison: N people.
        columns: groupings of theirs by name; calibration is drawn for the groups of those with few.
        joints: the set whose mean error is drawn for each person.
        segmentation: of their pictures, if there are masks.

    Returns:
        For each picture that could not be drawn, why; an earlier one of its name is removed.

    Raises:
        ImportError: matplotlib is not installed.
        OutputError: a file cannot be written.
    """
    check_matplotlib()
    folder = prepare_output(folder, overwrite=True)
    groupings = {"noise of keypoints": group_by_noise(comparison.keypoints), **(columns or {})}
    pictures: dict[str, Callable[[], Figure | str]] = {
        "calibration.png": lambda: draw_calibration(comparison, groupings),
        "error_by_keypoints.png": lambda: draw_by_keypoints(comparison, joints),
        "error_by_noise.png": lambda: draw_by_noise(comparison, joints),
        "error_by_joint.png": lambda: draw_by_joint(comparison, joints),
        "pck.png": lambda: draw_pck(comparison),
    }
    (folder / "segmentation.png").unlink(missing_ok=True)
    if segmentation is not None:
        pictures["segmentation.png"] = lambda: draw_segmentation(segmentation)
    left_out = {}
    for name, draw in pictures.items():
        figure = draw()
        if isinstance(figure, str):
            left_out[name] = figure
            (folder / name).unlink(missing_ok=True)  # one of an earlier run would mislead
        else:
            _save(folder / name, figure)
    return left_out


def _save(path: Path, figure: Figure) -> None:
    write_atomically(path, lambda stream: figure.savefig(stream, format="png"))


def _panels(count: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure with panels side by side, each of so many inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * count, height), dpi=100, layout="constrained")
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def _plain(text: str) -> str:
    """Text of the user's: short, and not to be read as a formula."""
    short = text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 1]}…"
    return short.replace("$", r"\$")


# --- calibration


def draw_calibration(comparison: Comparison, groupings: Mapping[str, Grouping]) -> Figure | str:
    """Stated against actual distances of joints from the truth, mm.

    Args:
        comparison: N people.
        groupings: of theirs by name; those with 2 to `MOST_GROUPS` groups get a panel each.

    Returns:
        The picture, or why there is none.
    """
    everyone = np.arange(len(comparison.matched))
    curves = [("everyone", {"everyone": everyone})]
    for name, grouping in groupings.items():
        groups = {
            label: np.flatnonzero(grouping.index == i) for i, label in enumerate(grouping.labels)
        }
        groups = {label: rows for label, rows in groups.items() if _says(comparison, rows)}
        if 1 < len(groups) <= MOST_GROUPS:
            curves.append((f"by {name}", groups))
    if not _says(comparison, everyone):
        return "the predictions do not say how sure they are (joint_std_mm)"
    figure, panels = _panels(len(curves), 4.4, 6.3)
    for axes, (title, groups) in zip(panels, curves, strict=True):
        _draw_curves(axes, comparison, groups)
        axes.set(title=_plain(title), xlabel="stated distance (mm)", ylabel="actual distance (mm)")
    return figure


def _says(comparison: Comparison, rows: np.ndarray) -> bool:
    return len(stated_and_actual(comparison, rows)[0]) > 0


def _draw_curves(axes: Axes, comparison: Comparison, groups: Mapping[str, np.ndarray]) -> None:
    """A reliability curve for each group, and the line on which it should lie."""
    lines, labels = [], []
    for label, rows in groups.items():
        stated, actual = stated_and_actual(comparison, rows)
        curve = curve_of(stated, actual)
        lines += axes.plot(curve.predicted, curve.actual, marker="o", markersize=4)
        within = " / ".join(f"{100 * share_within(actual / stated, k):.0f}" for k in (1, 2))
        labels.append(f"{_plain(label)}, n = {len(stated)}: {within} %")
    most = max(axes.get_xlim()[1], axes.get_ylim()[1])
    axes.plot([0, most], [0, most], color="grey", linewidth=1, linestyle="--")
    axes.set(xlim=(0, most), ylim=(0, most), box_aspect=1, anchor="N")
    # Given one by one, as labels of lines are dropped where they begin with an underscore.
    axes.legend(
        lines, labels, title=f"joints within once / twice\n(normal errors: {_normal_shares()})",
        fontsize="small", title_fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.16),
    )  # fmt: skip


def _normal_shares() -> str:
    ranges = (sorted(100 * normal_share_within(k, axes) for axes in (1, 3)) for k in (1, 2))
    return " / ".join(f"{low:.0f} to {high:.0f}" for low, high in ranges) + " %"


# --- errors


def draw_by_keypoints(comparison: Comparison, joints: str = "lsp14") -> Figure | str:
    """Errors against the number of keypoints seen; the picture, or why there is none."""
    from matplotlib.ticker import MaxNLocator

    keypoints = comparison.keypoints
    known = keypoints.set_size > 0
    if not known.any():
        return "the predictions hold no keypoints"
    sizes = np.unique(keypoints.set_size[known])
    seen = keypoints.seen[known].astype(float)
    label = f"keypoints seen, of {sizes[0]}"
    if len(sizes) > 1:
        seen, label = (100 * seen / keypoints.set_size[known]).round(), "keypoints seen (%)"
    figure, (axes,) = _panels(1, 7, 4.2)
    values, index = np.unique(seen, return_inverse=True)
    _draw_bands(axes, values, index, comparison.bodies.errors[f"{joints}.mpjpe_mm"][known], joints)
    axes.set(xlabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def draw_by_noise(comparison: Comparison, joints: str = "lsp14") -> Figure | str:
    """Errors against the noise of keypoints; the picture, or why there is none."""
    index = group_by_noise(comparison.keypoints).index
    known = ~np.isnan(comparison.keypoints.noise)
    if not known.any():
        return "no keypoint's true place is known"
    counts = np.bincount(index[known], minlength=len(NOISE_LABELS))
    figure, (axes,) = _panels(1, 7, 4.2)
    errors_mm = comparison.bodies.errors[f"{joints}.mpjpe_mm"][known]
    _draw_bands(axes, np.arange(len(NOISE_LABELS)), index[known], errors_mm, joints)
    ticks = [f"{label}\nn = {n}" for label, n in zip(NOISE_LABELS, counts, strict=True)]
    axes.set_xticks(range(len(ticks)), ticks)
    axes.set(xlabel="median distance of a person's keypoints from the truth, of the person's size")
    return figure


def _draw_bands(
    axes: Axes, at: np.ndarray, index: np.ndarray, errors_mm: np.ndarray, joints: str
) -> None:
    """Each person's error, and the median and the quartiles of those at each place.

    Args:
        axes: to draw on.
        at: (G,) places on the horizontal axis.
        index: (N,) the place of each person.
        errors_mm: (N,).
        joints: name of their set.
    """
    used = np.unique(index)
    quartiles = np.array([np.percentile(errors_mm[index == g], (25, 50, 75)) for g in used])
    low, median, high = quartiles.T
    axes.plot(at[index], errors_mm, ".", color="grey", alpha=0.4, markersize=4, label="a person")
    axes.fill_between(at[used], low, high, alpha=0.3, label="quartiles")
    axes.vlines(at[used], low, high, alpha=0.6)  # a band between single places has no width
    axes.plot(at[used], median, marker="o", label="median")
    axes.set(ylabel=f"MPJPE of the joints of {joints} (mm)", ylim=(0, None))
    axes.legend(fontsize="small")


def draw_by_joint(comparison: Comparison, joints: str = "lsp14") -> Figure:
    """Mean and median error of each joint of SMPL's tree, and of those of the set `joints`."""
    bodies = comparison.bodies
    sets = list(dict.fromkeys(("smpl24", joints)))
    figure, panels = _panels(len(sets), 4.6, 5.6)
    for axes, name in zip(panels, sets, strict=True):
        names = bodies.joint_names[name]
        errors_mm = bodies.joint_errors_mm[name]
        bars = axes.barh([joint.replace("_", " ") for joint in names], errors_mm.mean(axis=0))
        axes.plot(np.median(errors_mm, axis=0), np.arange(len(names)), "k|", markersize=8)
        axes.bar_label(bars, fmt="%.0f", fontsize="small", padding=6)
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.set(title=f"{name}: mean, and median (|)", xlabel="error from the pelvis (mm)")
    return figure


def draw_pck(comparison: Comparison) -> Figure:
    """Share of the joints of each set within a distance, up to the limit of PCK."""
    thresholds = np.linspace(0, PCK_THRESHOLD_MM, _PCK_POINTS)
    figure, (axes,) = _panels(1, 5.6, 4.2)
    for name, errors_mm in comparison.bodies.joint_errors_mm.items():
        shares = [pck(errors_mm, threshold_mm=t).mean() for t in thresholds]
        axes.plot(thresholds, shares, label=f"{name}, AUC {auc(errors_mm).mean():.3f}")
    axes.set(xlabel="error at most (mm), from the pelvis", ylabel="share of joints", ylim=(0, 1.02))
    axes.legend(fontsize="small")
    return figure


def draw_segmentation(segmentation: Segmentation) -> Figure | str:
    """F1 of each class over all pictures; the picture, or why there is none."""
    if not segmentation.images:
        return "in every picture somebody is without a fit"
    f1 = np.nan_to_num(f1_scores(segmentation.confusion.sum(axis=0)))
    figure, (axes,) = _panels(1, 4.6, 3.4)
    bars = axes.barh([name.replace("_", " ") for name in segmentation.classes], f1)
    axes.bar_label(bars, fmt="%.2f", fontsize="small", padding=4)
    axes.invert_yaxis()
    axes.set(title=f"{len(segmentation.images)} pictures", xlabel="F1 of pixels", xlim=(0, 1.1))
    return figure
