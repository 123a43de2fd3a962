"""The web page of a run: one self-contained HTML file beside the pictures it shows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from fitting.people import Problem

MAX_ROWS = 1000  # people shown; a browser copes with a few thousand pictures, loaded lazily
GOOD_ERROR, FAIR_ERROR = 0.03, 0.06  # relative errors that the page colours green and amber
BIN_WIDTH = 0.005  # of the relative errors' histogram; divides both limits above


@dataclass(frozen=True, kw_only=True)
class PageRow:
    """One person on the page; paths are relative to the page's folder, None where not drawn.

    Attributes:
        title: picture and person, shown as text whatever it contains.
        photo, overlay, side: paths of square pictures.
        reprojection_error_px: mean over seen keypoints; None without a fit.
        relative_error: the same as a share of the person's size; None without a fit.
        cost_final: of the fit; None without a fit.
        status: how the fit ended, such as `converged`.
        num_keypoints: keypoints seen.
    """

    title: str
    photo: str | None = None
    overlay: str | None = None
    side: str | None = None
    reprojection_error_px: float | None
    relative_error: float | None
    cost_final: float | None
    status: str
    num_keypoints: int

    @property
    def grade(self) -> str:
        """`good`, `fair`, `poor`, or `none` without a fit."""
        if self.relative_error is None:
            return "none"
        if self.relative_error <= GOOD_ERROR:
            return "good"
        return "fair" if self.relative_error <= FAIR_ERROR else "poor"

    @property
    def pictures(self) -> list[tuple[str, str]]:
        """(what it shows, path) of the pictures there are."""
        kinds = (("photograph", self.photo), ("fit", self.overlay), ("side", self.side))
        return [(kind, path) for kind, path in kinds if path is not None]


def write_page(
    path: Path | str,
    rows: Sequence[PageRow],
    *,
    summary: Mapping[str, str],
    problems: Sequence[Problem] = (),
    title: str = "Fitted people",
) -> None:
    """Write the page of a run, atomically. It needs no network, and scripts only to sort.

    Args:
        path: of the page; its folder is what the rows' paths are relative to.
        rows: people, shown worst first and those without a fit last, at most `MAX_ROWS`.
        summary: label to value, shown at the top in this order.
        problems: rows and pictures left out, listed at the end.
        title: of the page.

    Raises:
        OutputError: the page cannot be written.
    """
    import jinja2

    from fitting.files import write_atomically

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["link"] = quote_path
    template = environment.from_string(
        (files("cli") / "templates" / "report.html").read_text("utf-8")
    )
    ordered = sort_rows(rows)
    page = template.render(
        title=title,
        rows=ordered[:MAX_ROWS],
        num_rows=len(ordered),
        statuses=sorted({row.status for row in ordered}),
        summary=summary,
        histogram=_histogram(ordered),
        problems=problems,
        good_error=GOOD_ERROR,
        fair_error=FAIR_ERROR,
    )
    # A file name that is not valid UTF-8 may stand in a title or a problem: show "?" for it.
    encoded = page.encode("utf-8", errors="replace")
    write_atomically(path, lambda stream: stream.write(encoded))


def summarize(rows: Sequence[PageRow]) -> dict[str, str]:
    """A run in a few numbers, for `write_page`: people, fitted people and their median errors."""
    pixels = [row.reprojection_error_px for row in rows if row.reprojection_error_px is not None]
    shares = [row.relative_error for row in rows if row.relative_error is not None]
    summary = {"people": f"{len(rows):,}", "fitted": f"{len(pixels):,}"}
    if pixels:
        summary["median error"] = f"{median(pixels):.1f} px"
    if shares:
        summary["of the person's size"] = f"{median(shares):.1%}"
    return summary


def sort_rows(rows: Sequence[PageRow]) -> list[PageRow]:
    """Largest relative error first, those without a fit last; equals keep their order."""
    return sorted(
        rows, key=lambda row: math.inf if row.relative_error is None else -row.relative_error
    )


def quote_path(path: str) -> str:
    """A relative path as it must stand in a link: `#`, `?`, `:`, quotes and spaces are escaped."""
    return quote(path, safe="/", errors="surrogateescape")


def _histogram(rows: Sequence[PageRow]) -> list[tuple[float, int, float]]:
    """(upper bound, people, share of the fullest bin) of the relative errors.

    The last bin takes everyone beyond twice `FAIR_ERROR`, so that one failure squeezes nothing.
    """
    last = round(2 * FAIR_ERROR / BIN_WIDTH)
    counts = [0] * (last + 1)
    for row in rows:
        if row.relative_error is not None:
            counts[min(int(row.relative_error / BIN_WIDTH), last)] += 1
    fullest = max(counts)
    if fullest == 0:
        return []
    return [((i + 1) * BIN_WIDTH, count, count / fullest) for i, count in enumerate(counts)]
