"""The web page of a run, parsed back with the standard library."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from cli.page import MAX_ROWS, PageRow, quote_path, sort_rows, summarize, write_page
from fitting.people import Problem

HOSTILE = ("<script>alert(1)</script>.jpg", "a\"b'c#?.jpg", "10%25&amp; a:b.jpg", "{{ 1 + 1 }}.jpg")
VOID = {"meta", "link", "img", "input", "br", "hr"}


class Page(HTMLParser):
    """Tags with their attributes, visible text, and the titles of the cards in order."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags, self.text, self.titles, self.open = [], [], [], []
        self.source = path.read_text("utf-8")
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag  # well nested

    def handle_data(self, data):
        if self.open and self.open[-1] not in {"style", "script"}:
            self.text.append(data)
        if self.open[-2:] == ["h3", "bdi"]:
            self.titles.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def make_row(title, error=0.02, **changes):
    numbers = {
        "reprojection_error_px": None if error is None else 300 * error,
        "relative_error": error,
        "cost_final": None if error is None else 1234.5,
        "status": "converged" if error is not None else "no_keypoints",
        "num_keypoints": 17,
    }
    return PageRow(title=title, **{**numbers, **changes})


@pytest.fixture
def page(tmp_path):
    """A page of hostile names whose pictures exist under exactly these names."""
    rows = []
    for i, name in enumerate(HOSTILE):
        folder = tmp_path / "people"
        folder.mkdir(exist_ok=True)
        safe = name.replace("/", "_")  # the one character that no file name can hold
        files = {kind: f"people/{kind} {safe}" for kind in ("photo", "overlay", "side")}
        for file in files.values():
            (tmp_path / file).write_bytes(b"")
        rows.append(make_row(name, 0.01 * (i + 1), **files))
    problems = [
        Problem(file="<img src=x onerror=alert(1)>.json", row=3, reason="x is NaN & <b>bad</b>"),
        Problem(file="notes.txt", row=None, reason="not a picture"),
    ]
    path = tmp_path / "report.html"
    write_page(path, rows, summary={"people <i>": "4 & more"}, problems=problems)
    return Page(path)


def test_names_are_shown_as_text(page):
    assert page.titles == list(HOSTILE)[::-1]  # the worst first
    assert "<img src=x onerror=alert(1)>.json" in page.text
    assert "x is NaN & <b>bad</b>" in page.text
    assert "people <i>" in page.text and "4 & more" in page.text
    assert len(page.all("script")) == 1  # ours
    assert not page.all("b") and page.open == []
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)


def test_links_lead_to_the_pictures(page, tmp_path):
    images, links = page.all("img"), page.all("a")
    assert len(images) == len(links) == 3 * len(HOSTILE)
    for reference in [image["src"] for image in images] + [link["href"] for link in links]:
        parts = urlsplit(reference)
        assert not (parts.scheme or parts.netloc or parts.query or parts.fragment)
        assert (tmp_path / unquote(parts.path)).is_file(), reference
    for image in images:
        assert image["loading"] == "lazy" and image["alt"]


def test_page_needs_no_network(page):
    assert "http" not in page.source and "@import" not in page.source
    assert "url(" not in page.source and not page.all("link")
    assert not any("src" in attrs for attrs in page.all("script"))


def test_controls_are_hidden_until_a_script_runs(page):
    (form,) = page.all("form")
    assert "hidden" in form
    assert "hidden" not in page.all("ol")[0]


def test_numbers_are_shown(page):
    text = " ".join(page.text)
    for shown in ("4.0 %", "12.0 px", "1234", "17", "converged"):  # of the worst
        assert shown in text
    assert {"good", "fair"} == {attrs["class"].split()[1] for attrs in page.all("li")}


def test_worst_come_first_and_people_without_a_fit_last():
    rows = [make_row("none", None), make_row("a", 0.1), make_row("b", 0.3), make_row("c", 0.1)]
    assert [row.title for row in sort_rows(rows)] == ["b", "a", "c", "none"]
    grades = [make_row("", error).grade for error in (0.01, 0.05, 0.5, None)]
    assert grades == ["good", "fair", "poor", "none"]


def test_people_without_pictures_or_fits_are_listed(tmp_path):
    path = tmp_path / "report.html"
    write_page(path, [make_row("lost.jpg, person 0", None)], summary={})
    page = Page(path)
    assert page.titles == ["lost.jpg, person 0"] and not page.all("img")
    assert "no keypoints" in page.text and "Left out" not in page.text


def test_a_run_without_people_says_so(tmp_path):
    path = tmp_path / "report.html"
    write_page(path, [], summary=summarize([]))
    assert "No person was found." in Page(path).text


def test_very_long_runs_show_the_worst(tmp_path):
    path = tmp_path / "report.html"
    rows = [make_row(f"{i}.jpg", i * 1e-5) for i in range(MAX_ROWS + 5)]
    write_page(path, rows, summary={})
    page = Page(path)
    assert len(page.titles) == MAX_ROWS and page.titles[0] == f"{MAX_ROWS + 4}.jpg"
    assert any(f"worst of {MAX_ROWS + 5} people" in text for text in page.text)


def test_histogram_counts_everyone_fitted(tmp_path):
    path = tmp_path / "report.html"
    rows = [make_row("", error) for error in (0.001, 0.002, 0.041, 0.042, 0.043, 9.0, None)]
    write_page(path, rows, summary={})
    bars = [(attrs["title"], attrs["class"], attrs["style"]) for attrs in Page(path).all("i")]
    assert [bar for bar in bars if not bar[0].startswith("0 ")] == [
        ("2 people up to 0.5 %", "good", "height:66.7%"),
        ("3 people up to 4.5 %", "fair", "height:100.0%"),
        ("1 people above 12.0 %", "poor", "height:33.3%"),
    ]


def test_summary_gives_medians_of_the_fitted():
    rows = [make_row("", error) for error in (0.01, 0.02, 0.09, None)]
    assert summarize(rows) == {
        "people": "4",
        "fitted": "3",
        "median error": "6.0 px",
        "of the person's size": "2.0%",
    }


def test_names_that_are_no_unicode_do_not_stop_the_page(tmp_path):
    name = b"caf\xe9.jpg".decode("utf-8", errors="surrogateescape")  # Latin-1, as Linux allows
    path = tmp_path / "report.html"
    write_page(path, [make_row(name, photo=f"people/{name}")], summary={})
    page = Page(path)
    assert page.titles == ["caf?.jpg"]
    assert page.all("img")[0]["src"] == "people/caf%E9.jpg"


def test_a_colon_is_no_scheme():
    assert quote_path("javascript:alert(1).jpg") == "javascript%3Aalert%281%29.jpg"
