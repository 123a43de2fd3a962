"""The web page of a run: one HTML file that holds all but the pictures beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from .page_file import base64_of, write_html

if TYPE_CHECKING:
    from pathlib import Path

    from fitting.people import Problem
    from fitting.skeleton import KeypointSet

    from .page_body import PageBody
    from .page_people import PagePeople

MAX_PLAIN = 50  # people of the list that is shown where scripts do not run
GOOD_ERROR, FAIR_ERROR = 0.03, 0.06  # relative errors that the page colours green and amber
# In the order they are run; each file says what it defines.
SCRIPTS = (
    "elements", "about", "data", "body", "crop", "studio", "meshes", "marks", "charts", "gallery",
    "stage", "person", "main",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Page:
    """What a page shows.

    Attributes:
        title: of the page.
        people: in the order of their list without scripts; None for nobody.
        keypoint_set: of their keypoints; None for nobody.
        summary: label to value, shown at the top in this order.
        problems: rows and pictures left out, listed at the end.
        body: of the people; none means no meshes.
        note: what there is to know about the body, "" for nothing.
    """

    title: str
    people: PagePeople | None
    keypoint_set: KeypointSet | None
    summary: Mapping[str, str]
    problems: Sequence[Problem] = ()
    body: PageBody | None = None
    note: str = ""


def write_page(path: Path | str, page: Page) -> None:
    """Write a page, atomically. It needs no network, and opens from the disk.

    Args:
        path: of the page, in the folder of the run.
        page: what it shows.

    Raises:
        OutputError: the page cannot be written.
    """
    write_html(
        path,
        "report.html",
        scripts=SCRIPTS,
        with_three=page.body is not None,
        page=page,
        about=_about(page),
        plain=list(_plain_rows(page.people)),
        records=base64_of(b"" if page.people is None else page.people.records.tobytes()),
        body=base64_of(b"" if page.body is None else page.body.content),
    )


def summarize(people: PagePeople | None) -> dict[str, str]:
    """A run in a few numbers: people, fitted people, and medians of what is known of them."""
    if people is None:
        return {"people": "0"}
    known = {
        name: [value for value in people.columns[name] if value is not None]
        for name in ("errorPx", "error", "sigma")
    }
    summary = {"people": f"{people.num_people:,}"}
    if people.num_people > len(people):
        summary["shown, the worst"] = f"{len(people):,}"
    summary["fitted"] = f"{len(known['errorPx']):,}"
    for name, label, form in (
        ("errorPx", "median error", "{:.1f} px"),
        ("error", "of the person’s size", "{:.1%}"),
        ("sigma", "median σ", "{:.0f} mm"),
    ):
        if known[name]:
            summary[label] = form.format(median(known[name]))
    return summary


def _about(page: Page) -> dict[str, Any]:
    """What the page's scripts read beside the records and the body."""
    about: dict[str, Any] = {"good": GOOD_ERROR, "fair": FAIR_ERROR, "count": 0}
    if page.people is None or page.keypoint_set is None:
        return about
    from fitting.skeleton import SMPL_JOINTS, SMPL_PARENTS

    return about | {
        "count": len(page.people),
        "columns": page.people.columns,
        "texts": page.people.texts,
        "layout": page.people.layout,
        "stride": page.people.records.shape[1],
        "runId": page.people.run_id,
        "keypointNames": page.keypoint_set.names,
        "edges": page.keypoint_set.edges.tolist(),
        "jointNames": SMPL_JOINTS,
        "parents": SMPL_PARENTS,
        "body": None if page.body is None else page.body.arrays,
    }


def _plain_rows(people: PagePeople | None) -> Iterable[dict[str, Any]]:
    """Title, numbers and pictures of the first people, for readers without scripts."""
    from fitting.pictures import person_files

    if people is None:
        return
    for i in range(min(len(people), MAX_PLAIN)):
        value = {name: column[i] for name, column in people.columns.items()}
        image = people.texts["image"][value["image"]]
        yield {
            "title": f"{image or 'no picture'}, person {value['person']}",
            "status": people.texts["status"][value["status"]],
            "error": value["errorPx"],
            "pictures": asdict(person_files(value["row"])) if value["drawn"] else {},
        }
