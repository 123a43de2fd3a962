"""The web page of a training run in Chromium, as a reader sees and uses it; see `browsing`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from browsing import (
    assert_looks_as_approved,
    nameless_controls,
    pixels,
    wait_until,
)

from cli.report import write_report
from fitting.rasterizer import render_mesh
from regressor.run_log import METRICS_NAME, TIMES_NAME
from regressor.snapshot_files import HELD_OUT, LEARNED_FROM
from tests.training_runs import FOCAL, HOSTILE, SIZE, write_run

ALL_DRAWN = """step => [...document.querySelectorAll('.pair')].every(
    (e) => e.dataset.step === step || e.getBoundingClientRect().top > innerHeight)"""


class Run:
    """A run and its page."""

    def __init__(self, folder, body):
        self.body = body
        self.estimates, self.against = write_run(folder, body)
        write_report(folder)
        self.folder, self.url = folder, (folder / "report.html").as_uri()


@pytest.fixture(scope="module")
def run(tmp_path_factory, body):
    folder = tmp_path_factory.mktemp("x") / "a run <b>"
    folder.mkdir()
    return Run(folder, body)


def chart(page, title):
    return page.locator(".chart", has=page.get_by_role("heading", name=title, exact=True))


def value(page, title, curve=0):
    return chart(page, title).locator(".curve-key b").nth(curve).inner_text()


def go_to(page, place):
    """Move the slider of the steps."""
    page.locator("#step").fill(str(place))


def open_closer(page, run, k, step):
    page.goto(f"{run.url}#person-{k}")
    page.wait_for_selector(f"dialog[data-shown='{k}-{step}']")


def test_charts_say_the_values_at_a_step(kept_page):
    assert kept_page.locator("h1").inner_text() == "Training of a run <b>"
    assert value(kept_page, "Error of people held out") == "90 mm"  # of the last evaluation
    plot = chart(kept_page, "Loss").locator("svg")
    plot.focus()
    kept_page.keyboard.press("Home")
    assert plot.get_attribute("aria-valuetext").startswith("step 10: loss ")
    first = value(kept_page, "Loss")
    kept_page.keyboard.press("ArrowRight")
    assert plot.get_attribute("aria-valuenow") == "20" and value(kept_page, "Loss") != first
    # All charts go along, those with fewer steps to their nearest one.
    assert value(kept_page, "Error of people held out") == "150 mm"
    kept_page.keyboard.press("Escape")
    assert value(kept_page, "Error of people held out") == "90 mm"


def test_the_pointer_reads_curves(kept_page):
    plot = chart(kept_page, "Error of people held out").locator("svg")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    kept_page.mouse.move(box["x"] + 60, box["y"] + 100)
    assert value(kept_page, "Error of people held out") == "150 mm"
    kept_page.mouse.move(5, 5)
    assert value(kept_page, "Error of people held out") == "90 mm"


def test_scales_turn_logarithmic_and_curves_hide(kept_page):
    parts = chart(kept_page, "Parts of the loss, unweighted")
    switch, curves = parts.locator("input"), parts.locator("path.curve, .dots path")
    assert switch.is_checked()
    before = curves.first.get_attribute("d")
    switch.uncheck()
    assert curves.first.get_attribute("d") != before
    switch.check()
    assert curves.first.get_attribute("d") == before
    parts.locator(".curve-key").first.click()
    assert curves.count() == 1
    parts.locator(".curve-key").first.click()
    assert curves.count() == 2


def test_curves_lie_where_their_values_are(kept_page):
    """Between the labels of the axis, which is linear here."""
    error = chart(kept_page, "Error of people held out")
    labels = error.locator("svg > text[text-anchor=end]")
    texts = labels.evaluate_all("e => e.map((text) => Number(text.textContent))")
    lines = error.locator("svg .grid").evaluate_all("e => e.map((l) => l.y1.baseVal.value)")
    slope, offset = np.polyfit(texts, lines, 1)
    dots = error.locator(".dots.color-0 circle").evaluate_all(
        "e => e.map((c) => c.cy.baseVal.value)"
    )
    np.testing.assert_allclose(dots, slope * np.array([150, 105, 90]) + offset, atol=0.2)


def test_the_slider_shows_earlier_steps(kept_page, run):
    kept_page.locator("#people").scroll_into_view_if_needed()  # none is drawn before it is seen
    wait_until(kept_page, "() => document.querySelector('.pair').dataset.step === '300'")
    numbers = kept_page.locator(".pair .numbers")
    assert "from the truth" in numbers.nth(0).inner_text()
    assert numbers.nth(2).inner_text().endswith("loop, epoch 6 · σ 40 mm")
    go_to(kept_page, 0)
    assert kept_page.locator("#step-value").inner_text() == "step 100"
    assert numbers.nth(2).inner_text() == "no fit yet"
    kept_page.locator("#step").focus()
    kept_page.keyboard.press("ArrowRight")
    assert kept_page.locator("#step-value").inner_text() == "step 200"
    kept_page.keyboard.press("End")
    assert kept_page.locator("#step-value").inner_text() == "step 300"


def test_people_stand_in_their_groups(kept_page):
    assert kept_page.locator("#people h3").all_inner_texts() == [
        "Held out: the estimate, beside it the truth",
        "Learned from: the estimate, beside it the best fit known",
    ]
    for group, count in ((HELD_OUT, 1), (LEARNED_FROM, 2)):
        assert (
            kept_page.get_by_role("list", name=group, exact=True).locator(".pair").count() == count
        )


def test_names_of_files_are_text(kept_page):
    assert kept_page.locator(".pair .name").all_inner_texts() == [
        "drawn person 1",
        HOSTILE,
        "b.jpg",
    ]
    assert kept_page.locator("img[src=x]").count() == 0


def test_bodies_lie_where_the_rasterizer_puts_them(kept_page, run):
    open_closer(kept_page, run, 1, 300)
    for side, params in (("estimate", run.estimates), ("fit", run.against)):
        drawn = pixels(kept_page, f"#closer-{side} canvas")[..., 3] / 255
        scale = len(drawn) / SIZE
        centre = scale * SIZE / 2 - 0.5
        K = np.array([[scale * FOCAL, 0, centre], [0, scale * FOCAL, centre], [0, 0, 1]])
        numbers = torch.from_numpy(params[-1, 1:2]).float().split([3, 69, 10, 3], dim=1)
        with torch.no_grad():
            vertices = run.body(*numbers).vertices[0].numpy()
        expected = render_mesh(vertices, run.body.faces.numpy(), K, (len(drawn),) * 2).coverage
        assert expected.mean() > 0.03
        assert np.minimum(drawn, expected).sum() / np.maximum(drawn, expected).sum() > 0.97
    assert (pixels(kept_page, "#orbit")[..., 3] > 0).mean() > 0.03
    assert nameless_controls(kept_page) == []
    kept_page.keyboard.press(",")
    kept_page.wait_for_selector("dialog[data-shown='1-200']")
    kept_page.keyboard.press("ArrowRight")
    kept_page.wait_for_selector("dialog[data-shown='2-200']")
    assert kept_page.locator("#closer-fit .nobody").count() == 1
    kept_page.keyboard.press("Escape")
    wait_until(kept_page, "() => document.activeElement.closest('.pair') !== null")
    assert nameless_controls(kept_page) == []


def test_the_body_to_turn_stays_the_one_that_was_opened(visit, run):
    """Though the cards behind the dialog show others: one studio draws them all."""
    page = visit(run.url, height=1500)
    wait_until(page, ALL_DRAWN, "300")
    page.locator(".pair a").nth(1).click()
    page.wait_for_selector("dialog[data-shown='1-300']")
    opened = pixels(page, "#orbit").astype(float)
    for key, step in ((",", 200), (".", 300)):
        page.keyboard.press(key)
        page.wait_for_selector(f"dialog[data-shown='1-{step}']")
        page.wait_for_timeout(500)  # frames in which cards may be drawn
    assert np.abs(pixels(page, "#orbit") - opened).mean() < 0.5
    page.keyboard.press("Escape")
    wait_until(page, ALL_DRAWN, "300")


def test_store_and_epochs_are_drawn(kept_page):
    bars = kept_page.locator(".bars .bar")
    assert bars.count() > 20
    made = (
        kept_page.locator(".bars").first.locator(".bar").evaluate_all("e => e.map((b) => b.title)")
    )
    assert made[4] == "epoch 4: 5 people"
    label = kept_page.locator(".bars").first.get_attribute("aria-label")
    assert "26 people, most of them at epoch 4 (5)" in label


def test_without_webgl_joints_are_drawn(visit, run):
    page = visit("about:blank")
    page.context.add_init_script(
        "const get = HTMLCanvasElement.prototype.getContext;"
        "HTMLCanvasElement.prototype.getContext = function (kind, ...options) {"
        "  return kind.startsWith('webgl') ? null : get.call(this, kind, ...options); };"
        "console.error = () => {};"  # three.js tells what the page copes with
    )
    open_closer(page, run, 1, 300)
    assert page.locator("#closer-estimate .bone").count() == 23
    assert page.locator("#model").is_hidden()


def test_without_scripts_the_last_values_are_listed(visit, run):
    page = visit(run.url, java_script_enabled=False)
    rows = page.locator("noscript tr", has_text="pa_mpjpe")
    assert rows.all_inner_texts() == ["Error of people held out: pa_mpjpe\t300\t90 mm"]


def test_a_run_of_nothing_but_names_opens(visit, tmp_path):
    (tmp_path / METRICS_NAME).write_text("")
    (tmp_path / TIMES_NAME).write_text("")
    write_report(tmp_path)
    page = visit((tmp_path / "report.html").as_uri())
    assert page.locator(".empty").inner_text() == "Nothing was logged yet."


@pytest.mark.parametrize(
    ("name", "person", "options"),
    [
        ("training_light", None, {"color_scheme": "light", "height": 1500}),
        ("training_phone", None, {"color_scheme": "dark", "width": 390, "height": 780}),
        ("training_person_dark", 1, {"color_scheme": "dark", "height": 900}),
    ],
)
def test_the_page_looks_as_approved(visit, run, name, person, options):
    page = visit(run.url, **options)
    if person is not None:
        open_closer(page, run, person, 300)
    else:
        wait_until(page, ALL_DRAWN, "300")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert_looks_as_approved(page, name)
