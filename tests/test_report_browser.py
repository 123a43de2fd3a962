"""The web page of a run in Chromium, as a reader sees and uses it; see `browsing`."""

from __future__ import annotations

import csv
import json
import re
from io import BytesIO, StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from browsing import (
    assert_looks_as_approved,
    nameless_controls,
    pixels,
    wait_until,
)

from cli.report import write_report
from fitting.body import pose_body
from fitting.camera import project_points
from fitting.files import write_json
from fitting.images import write_image
from fitting.keypoints import map_keypoints
from fitting.overlay import crop_around
from fitting.people import person_size
from fitting.pictures import draw_people, person_files
from fitting.posing import params_of
from fitting.rasterizer import render_mesh
from fitting.skeleton import keypoint_set
from fitting.table import PARAMETERS, build_fits, write_fits
from tests.fits import fit_columns

HOSTILE = ("<img src=x onerror=alert(1)>.jpg", "a \"b\" 'c', #?&amp;.jpg", "=1+1.jpg")
NUM_FITTED, UNSEEN = 12, 12  # people with a fit, and the row of one without
SIZE = (400, 320)  # of the pictures: width, height


def make_table(body):
    """A fits table of people about 3 m away; keypoints are off by what the error says."""
    rng = np.random.default_rng(5)
    N = NUM_FITTED + 1
    columns = fit_columns(N)
    names = [f"{n}.jpg" for n in range(N)]
    names[2:5] = HOSTILE
    columns |= {
        "image": np.array(names),
        "width": np.full(N, SIZE[0]),
        "height": np.full(N, SIZE[1]),
        "fx": np.full(N, 450.0),
        "fy": np.full(N, 430.0),
        "cx": np.full(N, 190.0),
        "cy": np.full(N, 165.0),
        "global_orient": np.array([np.pi, 0, 0]) + rng.normal(0, 0.4, (N, 3)),
        "body_pose": rng.normal(0, 0.35, (N, 69)),
        "betas": rng.normal(0, 1.5, (N, 10)),
        "transl": np.array([0.0, 0.1, 3.4]) + rng.normal(0, 0.15, (N, 3)),
        "joint_std_mm": rng.uniform(5, 20, (N, 1)) * np.arange(24),
        "cost_final": rng.uniform(1, 50, N),
        "status": np.where(np.arange(N) % 4 == 1, "max_steps", "converged").astype("U12"),
    }
    for name in (*PARAMETERS, "joint_std_mm", "cost_initial", "cost_final"):
        columns[name][UNSEEN] = np.nan
    columns["status"][UNSEEN] = "no_keypoints"
    keypoints = np.zeros((N, 17, 3))
    projected = project_keypoints(build_fits(columns, {}), body)[0][:UNSEEN]
    shift = rng.normal(0, 1, projected.shape) * np.linspace(1, 9, UNSEEN)[:, None, None]
    keypoints[:UNSEEN, :, :2], keypoints[:UNSEEN, :, 2] = projected + shift, 1
    keypoints[3, 9] = 0
    error = np.linalg.norm(shift, axis=2).mean(axis=1)
    columns |= {
        "keypoints_2d": keypoints.reshape(N, -1),
        "reprojection_error_px": np.append(error, np.nan),
    }
    return build_fits(columns, {"body_sha256": body.sha256})


def project_keypoints(table, body):
    """(N, 17, 2) pixels, and (N, V, 3) vertices in the camera frame."""
    posed = pose_body(body, params_of(table, body.v_template))
    points = map_keypoints(body, keypoint_set("coco17"))(posed)
    pixels, _ = project_points(points, torch.from_numpy(table.intrinsics))
    return pixels.numpy(), posed.vertices.numpy()


def paint_pictures(folder, table, vertices, faces):
    """Rendered people before a plain wall, in place of photographs."""
    folder.mkdir()
    colors = np.random.default_rng(8).uniform(0.3, 0.9, (len(table), 2, 3))
    for row in range(NUM_FITTED):
        wall = np.linspace(colors[row, 0], 0.8 * colors[row, 0], SIZE[1])[:, None]
        background = np.rint(255 * np.broadcast_to(wall, (SIZE[1], SIZE[0], 3))).astype(np.uint8)
        drawn = render_mesh(
            vertices[row], faces, table.intrinsics[row], SIZE, colors=colors[row, 1],
            background=background,
        )  # fmt: skip
        write_image(folder / table.column_array("image")[row], drawn.color)


class Run:
    """A run with pictures and its page."""

    def __init__(self, folder, body):
        self.folder, self.body = folder, body
        with torch.no_grad():
            self.table = make_table(body)
            self.projected, self.vertices = project_keypoints(self.table, body)
        self.faces = body.faces.numpy()
        paint_pictures(folder / "pictures", self.table, self.vertices, self.faces)
        write_fits(folder / "fits.parquet", self.table)
        write_json(folder / "run.json", {"command": {}, "problems": []})
        draw_people(self.table, body, folder / "pictures", folder, jobs=1)
        write_report(folder)
        self.url = (folder / "report.html").as_uri()

    def titles(self, rows):
        names = self.table.column_array("image")
        return [f"{names[row]}, person 0" for row in rows]


@pytest.fixture(scope="module")
def run(tmp_path_factory, body):
    return Run(tmp_path_factory.mktemp("run"), body)


@pytest.fixture
def page(visit, run):
    return visit(run.url)


def titles(page):
    return page.locator(".card .name").all_inner_texts()


def open_person(page, run, row):
    """The dialog of a row, as a link to it opens it."""
    page.goto(f"{run.url}#person-{row}")
    page.wait_for_selector(f"dialog[data-shown='{row}']")


def save(page, click):
    """Content and name of the file that a button offers."""
    with page.expect_download() as download:
        page.click(click)
    return Path(download.value.path()).read_bytes(), download.value.suggested_filename


def test_everyone_is_shown_worst_first(page, run):
    keypoints = run.table.column_array("keypoints_2d").reshape(13, 17, 3)
    size = person_size(keypoints[..., :2], keypoints[..., 2])[:NUM_FITTED]
    error = run.table.column_array("reprojection_error_px")[:NUM_FITTED]
    assert page.locator("#count").inner_text() == "13 people"
    order = np.argsort(-error / size)
    assert titles(page) == [*run.titles(order), f"{UNSEEN}.jpg, person 0"]
    assert f"{error[order[0]]:.1f} px" in page.locator(".card").first.inner_text()
    page.locator(".card img").first.evaluate("image => image.decode()")  # its file is there


def test_people_are_sorted_by_numbers(page, run):
    for order, column in (
        ("errorPx", "reprojection_error_px"),
        ("sigma", "joint_std_mm"),
        ("cost", "cost_final"),
    ):
        values = run.table.column_array(column).reshape(13, -1).mean(axis=1)[:NUM_FITTED]
        page.select_option("select[name=order]", order)
        assert titles(page)[:NUM_FITTED] == run.titles(np.argsort(-values))
        page.click("#direction")
        assert titles(page)[:NUM_FITTED] == run.titles(np.argsort(values))
        page.click("#direction")


def test_pictures_are_sorted_as_people_count(page):
    page.select_option("select[name=order]", "image")
    numbered = [name for name in titles(page) if name[0].isdigit()]
    assert numbered == [f"{n}.jpg, person 0" for n in (0, 1, 5, 6, 7, 8, 9, 10, 11, 12)]


def test_people_are_found_by_name_and_status(page):
    page.fill("input[name=words]", "1+1")
    assert titles(page) == ["=1+1.jpg, person 0"]
    assert page.locator("#count").inner_text() == "1 of 13 people"
    page.fill("input[name=words]", "")
    page.select_option("select[name=status]", "max_steps")
    assert page.locator(".card").count() == 3
    page.fill("input[name=words]", "nowhere")
    assert page.locator("#nobody").is_visible()


def test_bars_keep_their_people(page, run):
    bars = page.locator("#error-histogram .bars button")
    counts = [int(re.search(r"(\d+) (person|people)$", t)[1]) for t in labels(bars)]
    assert sum(counts) == NUM_FITTED
    full = int(np.argmax(counts))
    bars.nth(full).click()
    assert page.locator(".card").count() == counts[full]
    assert bars.nth(full).get_attribute("aria-pressed") == "true"
    bars.nth(len(counts) - 1).click(modifiers=["Shift"])
    assert page.locator(".card").count() == sum(counts[full:])
    page.locator(".chip").click()
    assert page.locator("#count").inner_text() == "13 people"


def labels(bars):
    return [bar.get_attribute("aria-label") for bar in bars.all()]


def test_hostile_names_are_text(page, run):
    page.click("#direction")
    assert set(run.titles((2, 3, 4))) <= set(titles(page))
    assert page.locator("img[src=x]").count() == 0
    open_person(page, run, 2)
    assert page.locator("#person-title").inner_text() == f"{HOSTILE[0]}, person 0"


def test_saved_meshes_are_those_of_the_body(kept_page, run):
    for row in (0, 7, 11):
        open_person(kept_page, run, row)
        expected = run.vertices[row] * [1, -1, -1]  # y up
        for suffix in ("obj", "glb"):
            content, name = save(kept_page, f"#save-{suffix}")
            assert name == f"{row:06d}_{row}_0.{suffix}"
            mesh = trimesh.load(BytesIO(content), file_type=suffix, force="mesh", process=False)
            assert np.linalg.norm(mesh.vertices - expected, axis=1).max() < 1e-3
            np.testing.assert_array_equal(mesh.faces, run.faces)


def test_body_and_keypoints_lie_where_the_run_drew_them(kept_page, run):
    row = 6
    open_person(kept_page, run, row)
    given = run.table.column_array("keypoints_2d").reshape(13, 17, 3)[row, :, :2]
    photo = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    around = np.concatenate([given, run.projected[row]])
    crop = crop_around(photo, around, run.table.intrinsics[row])
    circles = "circles => circles.map(c => [c.cx.baseVal.value, c.cy.baseVal.value])"
    for kind, points in (("given", given), ("projected", run.projected[row])):
        drawn = kept_page.locator(f"#points .{kind} circle").evaluate_all(circles)
        # The drawing's origin is an edge, the crop's the centre of a pixel.
        np.testing.assert_allclose(np.array(drawn) - 0.5, crop.convert_points(points), atol=0.02)
    coverage = render_mesh(run.vertices[row], run.faces, crop.intrinsics, (384, 384)).coverage
    drawn = pixels(kept_page, "#stage-body")[..., 3] / 255  # twice as large
    alpha = drawn.reshape(384, 2, 384, 2).mean(axis=(1, 3))
    assert np.minimum(alpha, coverage).sum() / np.maximum(alpha, coverage).sum() > 0.98


def test_the_numbers_of_a_person_are_the_tables(kept_page, run):
    row = 3
    open_person(kept_page, run, row)
    given = run.table.column_array("keypoints_2d").reshape(13, 17, 3)[row]
    expected = np.linalg.norm(given[:, :2] - run.projected[row], axis=1)
    shown = kept_page.locator("#keypoint-errors .value").all_inner_texts()
    assert shown[9] == "unseen"  # the left wrist
    for p in set(range(17)) - {9}:
        assert float(shown[p].removesuffix(" px")) == pytest.approx(expected[p], abs=0.06)
    stds = kept_page.locator("#joint-stds .value").all_inner_texts()
    expected = run.table.column_array("joint_std_mm")[row]
    assert stds == [f"{value:.1f} mm" for value in expected.tolist()]
    parameters = json.loads(kept_page.locator("#parameters").inner_text())
    for name in PARAMETERS:
        np.testing.assert_allclose(
            parameters[name], run.table.column_array(name)[row], rtol=1e-6, atol=1e-9
        )
    np.testing.assert_allclose(parameters["intrinsics"], run.table.intrinsics[row], rtol=1e-6)


def test_the_mesh_turns(kept_page, run):
    open_person(kept_page, run, 5)
    views = [pixels(kept_page, "#orbit")]
    assert (views[0][..., 3] > 0).mean() > 0.05  # somebody is there

    def act(key=None):
        if key is not None:
            kept_page.locator("#orbit").press(key)
        views.append(pixels(kept_page, "#orbit"))
        assert np.abs(views[-1] - views[-2]).mean() > 1, key

    box = kept_page.locator("#orbit").bounding_box()
    kept_page.mouse.move(box["x"] + 100, box["y"] + 150)
    kept_page.mouse.down()
    kept_page.mouse.move(box["x"] + 220, box["y"] + 120, steps=3)
    kept_page.mouse.up()
    act()
    act("ArrowLeft")
    before = (views[-1][..., 3] > 0).sum()
    act("+")
    assert (views[-1][..., 3] > 0).sum() > 1.1 * before
    kept_page.check("#paint")
    act()
    assert kept_page.url.endswith("#person-5")  # the arrows did not go on to another


def test_body_fades_and_keypoints_hide(kept_page, run):
    open_person(kept_page, run, 0)
    kept_page.locator("#opacity").fill("20")
    assert kept_page.locator("#stage-body").evaluate("c => c.style.opacity") == "0.2"
    kept_page.uncheck("#show-projected")
    assert kept_page.locator("#points .projected circle").first.is_hidden()
    assert kept_page.locator("#points .given circle").first.is_visible()


def test_keys_alone_open_mark_and_close(page, run):
    order = titles(page)
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.name") == "words"
    page.locator(".card a").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[data-shown]")
    assert page.locator("#person-title").inner_text() == order[2]
    assert page.locator("#person-place").inner_text() == "3 of 13"
    page.keyboard.press("Enter")  # once too often
    assert page.locator("#mark").get_attribute("aria-pressed") == "false"
    page.keyboard.press("b")
    assert page.locator("#mark").get_attribute("aria-pressed") == "true"
    page.keyboard.press("ArrowRight")
    assert page.locator("#person-title").inner_text() == order[3]
    page.keyboard.press("Escape")
    here = "title => document.activeElement.innerText.endsWith(title)"
    wait_until(page, here, order[3])
    assert page.locator(".card.marked .name").all_inner_texts() == [order[2]]


def test_marks_outlive_a_reload_and_are_honoured(page, run, fit_cli, tmp_path):
    for place in (0, 4, 5):
        page.locator(".card a").nth(place).focus()
        page.keyboard.press("b")
    names = page.locator(".card.marked .name").all_inner_texts()
    page.reload()
    page.check("input[name=marked]")
    assert titles(page) == names and len(names) == 3
    content, name = save(page, "#save-marks")
    assert name == "marks.csv"
    rows = list(csv.DictReader(StringIO(content.decode(), newline="")))
    assert sorted(f"{row['image']}, person {row['person']}" for row in rows) == sorted(names)
    (tmp_path / name).write_bytes(content)
    options = ("--to", "spin", "-o", tmp_path / "labels.npz", "--exclude", tmp_path / name)
    code, said, _ = fit_cli("export", run.folder, *options)
    assert code == 0 and said.startswith(f"{NUM_FITTED - 3} people")


def test_marked_names_of_any_letters_are_found_again(page, run, fit_cli, tmp_path):
    page.fill("input[name=words]", ",")  # everyone
    for title in run.titles((2, 3, 4)):
        page.locator(".card", has_text=title).locator("a").focus()
        page.keyboard.press("b")
    content, name = save(page, "#save-marks")
    (tmp_path / name).write_bytes(content)
    options = ("--to", "eft", "-o", tmp_path / "labels.json", "--exclude", tmp_path / name)
    code, said, _ = fit_cli("export", run.folder, *options)
    assert code == 0 and said.startswith(f"{NUM_FITTED - 3} people")


def test_somebody_without_a_fit_opens(kept_page, run):
    open_person(kept_page, run, UNSEEN)
    assert "no keypoints" in kept_page.locator("#facts").inner_text()
    assert kept_page.locator("#model").is_hidden()
    assert kept_page.locator("#parameters").inner_text() == "no fit"


def test_without_webgl_the_drawn_pictures_are_shown(visit, run):
    page = visit("about:blank")
    page.context.add_init_script(
        "const get = HTMLCanvasElement.prototype.getContext;"
        "HTMLCanvasElement.prototype.getContext = function (kind, ...options) {"
        "  return kind.startsWith('webgl') ? null : get.call(this, kind, ...options); };"
        "console.error = () => {};"  # three.js tells what the page copes with
    )
    open_person(page, run, 0)
    assert page.locator("#stage-overlay").is_visible() and page.locator("#model").is_hidden()
    source = page.locator("#from-side-picture").get_attribute("src")
    assert source == person_files(0).side


def test_without_scripts_people_are_listed(visit, run):
    page = visit(run.url, java_script_enabled=False)
    assert page.locator(".plain li").count() == 13
    assert page.locator(".plain bdi").all_inner_texts()[-1] == f"{UNSEEN}.jpg, person 0"


def test_every_control_has_a_name(kept_page, run):
    open_person(kept_page, run, 0)
    assert nameless_controls(kept_page) == []


def test_ten_thousand_people_are_quick(visit, tmp_path):
    N = 10_000
    columns = fit_columns(N)
    points = np.random.default_rng(2).uniform(0, 300, (N, 17, 3))
    points[..., 2] = 1
    error = np.random.default_rng(3).gamma(2, 4, N)
    columns |= {"keypoints_2d": points.reshape(N, 51), "reprojection_error_px": error}
    write_fits(tmp_path / "fits.parquet", build_fits(columns, {}))
    write_json(tmp_path / "run.json", {"command": {}, "problems": []})
    write_report(tmp_path)
    page = visit((tmp_path / "report.html").as_uri())
    assert page.locator("#count").inner_text() == "10,000 people"
    assert page.locator(".card").count() < 80
    paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
    wait_until(page, "() => performance.getEntriesByName('first-contentful-paint').length > 0")
    assert page.evaluate(paint) < 10_000  # ms, on a machine with much else to do; docs/report.md
    page.locator(".card a").first.focus()
    page.keyboard.press("End")
    last = page.locator("[aria-posinset='10000']")
    assert last.is_visible() and page.locator(".card").count() < 80
    assert last.locator("svg").count() == 1  # keypoints in place of a picture
    assert "10.0" not in last.inner_text()


@pytest.mark.parametrize(
    ("name", "row", "options"),
    [
        ("gallery_light", None, {"color_scheme": "light"}),
        ("person_dark", 9, {"color_scheme": "dark"}),
        ("gallery_phone", None, {"color_scheme": "dark", "width": 390, "height": 780}),
        ("person_phone", 9, {"color_scheme": "light", "width": 390, "height": 780}),
    ],
)
def test_the_page_looks_as_approved(visit, run, name, row, options):
    page = visit(run.url, **options)
    if row is not None:
        open_person(page, run, row)
    assert_looks_as_approved(page, name)
