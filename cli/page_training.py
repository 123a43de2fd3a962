"""The web page of a training run: curves, people across the epochs, and the store of fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .page_file import base64_of, write_html

if TYPE_CHECKING:
    from pathlib import Path

    from .page_album import PageAlbum
    from .page_body import PageBody
    from .page_curves import Chart
    from .page_store import StoreNumbers

# In the order they are run; each file says what it defines.
SCRIPTS = (
    "elements", "about", "body", "meshes", "studio", "scales", "lines", "bins", "album", "training",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TrainingPage:
    """What a page shows.

    Attributes:
        title: of the page.
        summary: label to value, shown at the top in this order.
        charts: of losses, errors and the like.
        store_charts: of the store of fits.
        store: numbers of the store, None for a run without one.
        album: snapshots of people, None for a run without them.
        body: of these people; none means no meshes.
        settings: text of the run's config.
        notes: what there is to know.
    """

    title: str
    summary: Mapping[str, str]
    charts: Sequence[Chart]
    store_charts: Sequence[Chart] = ()
    store: StoreNumbers | None = None
    album: PageAlbum | None = None
    body: PageBody | None = None
    settings: str = ""
    notes: Sequence[str] = ()


def write_training_page(path: Path | str, page: TrainingPage) -> None:
    """Write a page, atomically. It needs no network, and opens from the disk.

    Raises:
        OutputError: the page cannot be written.
    """
    write_html(
        path,
        "training.html",
        scripts=SCRIPTS,
        with_three=page.body is not None,
        page=page,
        about=_about(page),
        groups={} if page.album is None else _headings(page.album),
        origins=[] if page.store is None else _origin_rows(page.store),
        records=base64_of(b"" if page.album is None else page.album.records.tobytes()),
        body=base64_of(b"" if page.body is None else page.body.content),
    )


def _about(page: TrainingPage) -> dict[str, Any]:
    """What the page's scripts read beside the records and the body."""
    about: dict[str, Any] = {
        "charts": [chart.plain for chart in page.charts],
        "storeCharts": [chart.plain for chart in page.store_charts],
        "histograms": [],
        "epochs": [],
        "people": [],
        "body": None if page.body is None else page.body.arrays,
    }
    if page.store is not None:
        about["histograms"] = [histogram.plain for histogram in page.store.histograms]
        about["epochs"] = [[epoch, count] for epoch, count in page.store.epochs.items()]
    if page.album is not None:
        from fitting.skeleton import SMPL_PARENTS

        about |= {
            "people": page.album.people,
            "steps": page.album.steps,
            "columns": page.album.columns,
            "layout": page.album.layout,
            "stride": page.album.records.shape[1],
            "parents": SMPL_PARENTS,
        }
    return about


def _headings(album: PageAlbum) -> dict[str, str]:
    """Group of people -> what stands above them; of the groups that there are."""
    from regressor.snapshot_files import HELD_OUT, LEARNED_FROM

    known = {person["group"] for person in album.people if person["against"]}
    headings = {
        HELD_OUT: "Held out: the estimate" + ", beside it the truth" * (HELD_OUT in known),
        LEARNED_FROM: "Learned from: the estimate, beside it the best fit known",
    }
    there = {person["group"] for person in album.people}
    return {group: heading for group, heading in headings.items() if group in there}


def _origin_rows(store: StoreNumbers) -> list[dict[str, str]]:
    """Where fits come from, in words, most often first."""
    from regressor.store.fits import Origin

    meanings = {
        Origin.STATIC: "from fit-cli fit, before training",
        Origin.REGRESSOR: "estimates as they are",
        Origin.LOOP: "fitted while training, from estimates",
    }
    words = {origin.label: f"{origin.label}: {meaning}" for origin, meaning in meanings.items()}
    words[Origin.NONE.label] = "no fit"
    ordered = sorted(store.origins.items(), key=lambda item: -item[1])
    return [
        {
            "origin": words.get(origin, origin),
            "count": f"{count:,}",
            "share": f"{count / store.num_read:.1%}",
        }
        for origin, count in ordered
    ]
