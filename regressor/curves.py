"""Curves of losses and errors over a training run, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec

import numpy as np
from torch import Tensor


class CurveRecorder:
    """Mean losses between evaluations and the metrics of each, in this process's memory.

    A resumed run's curves begin where it went on; metrics.jsonl holds the whole story.

    Attributes:
        points: one an evaluation; "batch" is the number of the last batch before it.
    """

    def __init__(self) -> None:
        self.points: list[dict[str, float]] = []
        self._sums: dict[str, Tensor] = {}
        self._count = 0
        self._number: Tensor | None = None

    def add(self, losses: Mapping[str, Tensor], number: Tensor) -> None:
        """Add the losses of a batch; nothing is read back from the device."""
        for name, loss in losses.items():
            value = loss.detach().float()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._count += 1
        self._number = number

    def mark(self, metrics: Mapping[str, float]) -> None:
        """Make a point of the losses since the last one and of these metrics."""
        if self._number is None:
            return
        means = {name: float(total) / self._count for name, total in self._sums.items()}
        self.points.append({"batch": float(self._number), **means, **metrics})
        self._sums, self._count = {}, 0

    def pictures(self) -> dict[str, np.ndarray]:
        """The curves, once there are two points; none without matplotlib, of the extra `train`."""
        if len(self.points) < 2 or find_spec("matplotlib") is None:
            return {}
        return {"curves": draw_curves(self.points, across="batch")}


def draw_curves(points: Sequence[Mapping[str, float]], *, across: str) -> np.ndarray:
    """Draw every quantity of a run over `across`, losses and errors in panels of their own.

    Args:
        points: of the run, in order; each holds `across` and what was measured there by name.
            Names that end in `_mm` are errors; the others are losses, drawn on a logarithmic scale.
        across: name of the horizontal axis, such as "batch".

    Returns:
        (H, W, 3) uint8 RGB.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)  # without pyplot: no window and no state shared by threads
    names = list(dict.fromkeys(name for point in points for name in point if name != across))
    panels = (
        ("loss", [n for n in names if not n.endswith("_mm")]),
        (
            "error (mm)",
            [n for n in names if n.endswith("_mm")],
        ),
    )
    for axes, (label, members) in zip(figure.subplots(1, 2), panels, strict=True):
        for name in members:
            drawn = [(point[across], point[name]) for point in points if name in point]
            axes.plot(*zip(*drawn, strict=True), marker=".", label=name.removesuffix("_mm"))
        axes.set(xlabel=across, ylabel=label)
        if members:
            axes.legend(fontsize="small")
    if panels[0][1]:
        figure.axes[0].set_yscale("log")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
