"""The web page of a run, parsed back with the standard library."""

from __future__ import annotations

import json
import zlib
from base64 import b64decode, b64encode
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from cli.page import MAX_PLAIN, Page, summarize, write_page
from cli.page_body import pack_body
from cli.page_people import MAX_PEOPLE, collect_people
from cli.report import write_report
from fitting.body import load_body
from fitting.files import write_json
from fitting.keypoints import map_keypoints
from fitting.people import Problem
from fitting.pictures import person_files
from fitting.skeleton import keypoint_set
from fitting.table import build_fits, write_fits
from priors.gmm import load_pose_prior
from tests.bodies import synthetic_arrays, write_body
from tests.fits import fit_columns, fits_table

HOSTILE = (
    "</script><script>alert(1)</script>.jpg",
    "a\"b'c#?.jpg",
    "10%25&amp; a:b.jpg",
    "{{ 1 }}",
)
VOID = {"meta", "link", "img", "input", "br", "hr"}


class Parsed(HTMLParser):
    """Tags with their attributes, visible text, and the content of scripts and styles."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags, self.text, self.open, self.raw = [], [], [], []
        self.source = path.read_text("utf-8")
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in {"script", "style"}:
            self.raw.append((tag, dict(attrs), []))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag  # well nested

    def handle_data(self, data):
        if self.open and self.open[-1] in {"style", "script"}:
            self.raw[-1][2].append(data)
        else:
            self.text.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]

    def content(self, identity):
        """What stands in the script of this id."""
        (found,) = ("".join(text) for _, attrs, text in self.raw if attrs.get("id") == identity)
        return found

    @property
    def about(self):
        return json.loads(self.content("about"))

    @property
    def records(self):
        return np.frombuffer(b64decode(self.content("records")), "<f4").reshape(
            -1, self.about["stride"]
        )


def write_run(folder, changes, N=4, *, command=None, problems=(), metadata=None):
    """A run of N invented people, as `fit-cli fit` leaves it."""
    folder.mkdir(exist_ok=True)
    table = build_fits(fit_columns(N) | changes, metadata or {})
    write_fits(folder / "fits.parquet", table)
    write_json(folder / "run.json", {"command": command or {}, "problems": list(problems)})
    return table


def report(folder, changes, N=4, **options):
    write_run(folder, changes, N, **options)
    write_report(folder)
    return Parsed(folder / "report.html")


def seen_keypoints(N, size=200.0):
    """(N, 51) a set of keypoints `size` pixels high."""
    points = np.random.default_rng(3).uniform(0, 1, (N, 17, 3))
    points[..., 2] = 1
    points[:, 0, :2], points[:, 1, :2] = 0, 1
    return (points * [size, size, 1]).reshape(N, 51)


def test_names_are_shown_as_text(tmp_path):
    problems = [
        vars(Problem(file="<img src=x onerror=alert(1)>.json", row=3, reason="NaN & <b>bad</b>"))
    ]
    page = report(tmp_path, {"image": np.array(HOSTILE)}, problems=problems)
    for name in HOSTILE:
        assert f"{name}, person 0" in page.text  # of the list without scripts
    assert sorted(page.about["texts"]["image"]) == sorted(HOSTILE)
    assert "<img src=x onerror=alert(1)>.json" in page.text
    assert "NaN & <b>bad</b>" in page.text
    assert not page.all("b") and page.open == []
    assert len(page.all("script")) == 5  # ours, three.js, and three of data
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)


def test_page_needs_no_network(tmp_path):
    page = report(tmp_path, {})
    assert not any("src" in attrs for attrs in page.all("script"))
    assert [link["href"] for link in page.all("link")] == ["data:,"]
    (style,) = (text for tag, _, text in page.raw if tag == "style")
    assert "url(" not in "".join(style) and "@import" not in "".join(style)


def test_only_the_pages_own_scripts_may_run(tmp_path):
    page = report(tmp_path, {})
    (policy,) = (
        attrs["content"] for attrs in page.all("meta") if attrs.get("http-equiv") is not None
    )
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    for kind, tag in (("script-src", "script"), ("style-src", "style")):
        run = [t for name, attrs, t in page.raw if name == tag and "type" not in attrs]
        hashes = [b64encode(sha256("".join(text).encode()).digest()).decode() for text in run]
        assert rules[kind].split() == [f"'sha256-{digest}'" for digest in hashes]


def test_columns_and_records_are_those_of_the_table(tmp_path):
    keypoints = seen_keypoints(4)
    error = np.array([4.0, 8.0, np.nan, 2.0])
    columns = {"keypoints_2d": keypoints, "reprojection_error_px": error}
    columns["joint_std_mm"] = np.outer([10.0, 20.0, np.nan, 30.0], np.ones(24))
    table = write_run(tmp_path, columns)
    write_report(tmp_path)
    page = Parsed(tmp_path / "report.html")
    found = page.about["columns"]
    assert found["row"] == [1, 0, 3, 2]  # the worst first, those without a fit last
    assert found["error"] == [0.04, 0.02, 0.01, None]
    assert found["errorPx"] == [8.0, 4.0, 2.0, None]
    assert found["sigma"] == [20.0, 10.0, 30.0, None]
    assert found["size"] == [200.0] * 4 and found["seen"] == [17] * 4
    assert [page.about["texts"]["image"][i] for i in found["image"]] == [
        "1.jpg", "0.jpg", "3.jpg", "2.jpg",
    ]  # fmt: skip
    assert page.about["stride"] % 3 == 0
    for name, source in (("keypoints", "keypoints_2d"), ("betas", "betas"), ("transl", "transl")):
        first, length = page.about["layout"][name]
        part = page.records[:, first : first + length]
        np.testing.assert_array_equal(part, table.column_array(source)[[1, 0, 3, 2]])


def test_prior_cost_is_that_of_pose_and_shape(tmp_path):
    prior = load_pose_prior()
    common = prior.means[prior.peak_costs.argmin()].numpy()  # costs nothing
    poses = np.stack([common, common, common + 0.1])
    betas = np.zeros((3, 10))
    betas[1, :2] = 3, 4
    found = collect_people(fits_table({"body_pose": poses, "betas": betas}, 3), tmp_path).columns
    costs = dict(zip(found["row"], found["prior"], strict=True))
    assert costs[0] == pytest.approx(0, abs=1e-4)
    assert costs[1] == pytest.approx(0.5 * 25, rel=1e-3)  # of a Gaussian, five deviations away
    assert costs[2] > 1


def test_pictures_are_those_that_were_drawn(tmp_path):
    (tmp_path / "people").mkdir()
    files = person_files(2)
    for file in vars(files).values():
        (tmp_path / file).write_bytes(b"")
    page = report(tmp_path, {})
    assert dict(zip(*(page.about["columns"][n] for n in ("row", "drawn")), strict=True)) == {
        0: 0, 1: 0, 2: 1, 3: 0,
    }  # fmt: skip
    shown = [image["src"] for image in page.all("img") if "src" in image]
    assert shown == [files.photo, files.overlay, files.side]


def test_body_is_packed_to_a_tenth_of_a_millimetre(body):
    points = keypoint_set("coco17")
    packed = pack_body(body, points)
    content = zlib.decompress(packed.content)

    def unpack(name):
        about = packed.arrays[name]
        count = int(np.prod(about["shape"]))
        assert about["offset"] % np.dtype(about["type"]).itemsize == 0  # JavaScript's arrays ask it
        values = np.frombuffer(content, f"<{about['type']}", count, about["offset"])
        values = values.reshape(about["shape"])
        if about["scales"] is None:
            return values
        return values * np.reshape(about["scales"], (-1, *[1] * (values.ndim - 1)))

    poses = body.posedirs.permute(2, 0, 1).numpy()
    np.testing.assert_allclose(unpack("poses"), poses, atol=1.1e-4)
    np.testing.assert_allclose(unpack("template")[0], body.v_template.numpy(), atol=2e-5)
    np.testing.assert_allclose(unpack("shapes"), body.shapedirs.permute(2, 0, 1), atol=1e-6)
    np.testing.assert_allclose(unpack("weights"), body.weights.numpy().T, atol=2e-5)
    np.testing.assert_array_equal(unpack("faces"), body.faces)
    places = map_keypoints(body, points)
    np.testing.assert_array_equal(unpack("vertexIds"), places.vertex_ids)
    np.testing.assert_array_equal(unpack("keypointVertices"), places.vertex_weights)
    assert len(packed.content) < 1e6


def test_a_page_of_few_people_is_small(tmp_path):
    report(tmp_path, {}, N=20)
    assert (tmp_path / "report.html").stat().st_size < 2e6


def test_another_body_is_named_and_can_be_left_out(tmp_path):
    other = write_body(tmp_path / "SMPL_<b>.npz", synthetic_arrays())
    metadata = {"body_sha256": load_body(other).sha256}
    page = report(tmp_path, {}, command={"body": str(other)}, metadata=metadata)
    assert any("This page holds the body SMPL_<b>.npz" in text for text in page.text)
    assert page.about["body"]["template"]["shape"] == [1, 80, 3]
    write_report(tmp_path, mesh=False)
    page = Parsed(tmp_path / "report.html")
    assert page.about["body"] is None and page.content("body") == ""
    assert not any("This page holds" in text for text in page.text)


@pytest.mark.parametrize(
    ("command", "said"),
    [({"body": "gone.npz"}, "no such body file"), ({}, "another body")],
    ids=["gone", "changed"],
)
def test_without_its_body_a_run_has_a_page(tmp_path, command, said):
    page = report(tmp_path, {}, command=command, metadata={"body_sha256": "0" * 64})
    assert any("not shown in 3D" in text and said in text for text in page.text)
    assert page.about["body"] is None and page.about["count"] == 4


def test_a_run_without_people_says_so(tmp_path):
    page = report(tmp_path, {}, N=0)
    assert "No person was found." in page.text
    assert page.about["count"] == 0 and not page.all("dialog")


def test_very_long_runs_show_the_worst(tmp_path, monkeypatch):
    monkeypatch.setattr("cli.page_people.MAX_PEOPLE", 3)
    errors = {"reprojection_error_px": np.array([1.0, 4.0, 2.0, 3.0, 5.0])}
    page = report(tmp_path, {**errors, "keypoints_2d": seen_keypoints(5)}, N=5)
    assert page.about["columns"]["row"] == [4, 1, 3]
    assert {"shown, the worst", "3", "5"} <= set(page.text)
    assert MAX_PEOPLE >= 10_000


def test_the_list_without_scripts_is_short(tmp_path):
    page = report(tmp_path, {}, N=MAX_PLAIN + 9)
    assert sum(text.startswith(f"{MAX_PLAIN} of") for text in page.text) == 0
    assert sum(text.endswith(", person 0") for text in page.text) == MAX_PLAIN


def test_summary_gives_medians_of_the_fitted(tmp_path):
    error = np.array([2.0, 4.0, 18.0, np.nan])
    columns = {"keypoints_2d": seen_keypoints(4), "reprojection_error_px": error}
    people = collect_people(fits_table(columns), tmp_path)
    assert summarize(people) == {
        "people": "4",
        "fitted": "3",
        "median error": "4.0 px",
        "of the person’s size": "2.0%",
    }
    assert summarize(None) == {"people": "0"}


def test_names_that_are_no_unicode_do_not_stop_the_page(tmp_path):
    name = b"caf\xe9.json".decode("utf-8", errors="surrogateescape")  # Latin-1, as Linux allows
    problem = Problem(file=name, row=None, reason="not a picture")
    page = Page(title=name, people=None, keypoint_set=None, summary={}, problems=[problem])
    write_page(tmp_path / "report.html", page)
    assert Parsed(tmp_path / "report.html").text.count("caf?.json") == 3
