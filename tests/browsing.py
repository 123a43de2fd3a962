"""Web pages in Chromium, as readers see and use them.

Approved pictures stand in tests/approved; BODYLOOP_APPROVE=1 replaces them by what pages look like
now. Look at them before you commit them. They show rendered people only.
"""

from __future__ import annotations

import os
import shutil
import time
from base64 import b64decode
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from timing import LONG

APPROVED = Path(__file__).with_name("approved")
SOFTWARE_WEBGL = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
if CHROMIUM is None:
    pytest.skip("no Chromium on the PATH; apt-get install chromium", allow_module_level=True)
# No `importorskip`: where there is a browser, tests must not be left out without a word.
from playwright import sync_api  # noqa: E402


@contextmanager
def chromium():
    """A browser, for the tests of a module."""
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=SOFTWARE_WEBGL)
        yield browser
        browser.close()


@contextmanager
def visiting(browser):
    """What opens pages, and a list of what they say on the console or ask of the network."""
    contexts, faults = [], []

    def open_page(url, *, width=1200, height=800, **options):
        context = browser.new_context(
            viewport={"width": width, "height": height}, reduced_motion="reduce", **options
        )
        contexts.append(context)
        context.set_offline(True)
        context.set_default_timeout(60_000)
        page = context.new_page()
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("dialog", lambda dialog: faults.append(dialog.message))
        page.on("request", lambda request: check_request(request.url, faults))
        page.goto(url)
        return page

    yield open_page, faults
    for context in contexts:
        context.close()


def check_request(url, faults):
    if not url.startswith(("file:", "data:", "blob:")):
        faults.append(f"asked for {url}")


def pixels(page, selector):
    """(H, W, 4) of a canvas, as it is before the page blends it."""
    data_url = page.locator(selector).evaluate(
        "canvas => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame("
        "() => done(canvas.toDataURL()))))"  # it is drawn with the next frame
    )
    with Image.open(BytesIO(b64decode(data_url.split(",")[1]))) as image:
        return np.asarray(image.convert("RGBA")).astype(float)


def wait_until(page, is_so, argument=None, seconds=LONG):
    """`page.wait_for_function`, which evaluates text in the page: its policy forbids that."""
    until = time.monotonic() + seconds
    while not page.evaluate(is_so, argument):
        assert time.monotonic() < until, is_so
        page.wait_for_timeout(20)


def nameless_controls(page):
    """Controls in sight without a name for readers of the screen, as HTML."""
    return page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, a, canvas, svg[role], img")]
        .filter((e) => !(e.ariaLabel || e.innerText?.trim() || e.labels?.[0]?.innerText.trim()
                         || e.alt || e.title || e.closest(".card, [aria-hidden=true]")))
        .filter((e) => !(e.matches("img") && e.alt === "" && e.parentElement.matches(".square")))
        .filter((e) => e.checkVisibility()).map((e) => e.outerHTML)"""
    )


def assert_looks_as_approved(page, name):
    """What is on the screen is what somebody looked at, but for fonts."""
    wait_until(page, "() => [...document.images].every((i) => i.complete || !i.checkVisibility())")
    shot = Image.open(BytesIO(page.screenshot())).convert("RGB")
    small = shot.resize((shot.width // 2, shot.height // 2), Image.Resampling.BOX)
    path = APPROVED / f"report_{name}.png"
    if os.environ.get("BODYLOOP_APPROVE"):
        small.quantize(256).save(path, optimize=True)
    with Image.open(path) as approved:
        difference = coarse(small) - coarse(approved.convert("RGB"))
    # Fonts differ between machines, and a letter is small; a view or a body that is gone is not.
    assert np.abs(difference).mean() < 3
    assert (np.abs(difference).max(axis=2) > 40).mean() < 0.01


def coarse(picture):
    """Means over 8 x 8 pixels."""
    width, height = (side // 8 for side in picture.size)
    return np.asarray(picture.resize((width, height), Image.Resampling.BOX)).astype(float)
