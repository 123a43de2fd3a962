"""What tools/site_hooks.py does to the pages of the site; `make docs` builds it as a whole."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[1]

pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install '.[docs]'")
pytest.importorskip("latex2mathml")

from mkdocs.exceptions import PluginError  # noqa: E402
from mkdocs.structure.files import Files  # noqa: E402


@pytest.fixture(scope="module")
def hooks():
    spec = importlib.util.spec_from_file_location("site_hooks", ROOT / "tools" / "site_hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def rewritten(hooks):
    """Markdown of a page as the site has it."""

    def rewrite(markdown, page="guides/folder.md"):
        config = {"docs_dir": str(ROOT / "docs")}
        file = SimpleNamespace(file=SimpleNamespace(src_uri=page))
        return hooks.on_page_markdown(markdown, file, config, Files([]))

    return rewrite


def test_formulas_become_mathml(hooks):
    page = (
        '<p><span class="arithmatex">\\(a &lt; b\\)</span></p>'
        '<div class="arithmatex">\\[\\frac{x}{2}\\]</div>'
    )
    inline, block = ElementTree.fromstring(f"<x>{hooks.on_page_content(page, None, {}, None)}</x>")
    space = "{http://www.w3.org/1998/Math/MathML}"
    assert [e.text for e in inline.iter() if e.tag == f"{space}mi"] == ["a", "b"]
    assert block.get("display") == "block"
    assert block.find(f".//{space}mfrac") is not None


@pytest.mark.parametrize(
    ("markdown", "expected"),
    [
        ("[tour](../tour.ipynb)", "[tour](../tour.md)"),
        ("[speed.json](../../benchmarks/results/speed.json)", "`benchmarks/results/speed.json`"),
        ("[how](../../CONTRIBUTING.md)", "how (`CONTRIBUTING.md`)"),
        ("[scale](../scale.md#memory)", "[scale](../scale.md#memory)"),
        ("[web](https://example.org/a)", "[web](https://example.org/a)"),
        ("![picture](../pictures/synth.jpg)", "![picture](../pictures/synth.jpg)"),
        ("[lost](../../nowhere.md)", "[lost](../../nowhere.md)"),  # MkDocs will say so
    ],
)
def test_links_lead_to_pages_of_the_site_or_name_the_file(rewritten, markdown, expected):
    assert rewritten(markdown) == expected


@pytest.mark.parametrize(
    "page",
    [
        '<script async src="https://cdn.example.org/a.js"></script>',
        '<link rel="stylesheet" href="//fonts.example.org/css">',
        '<style>@import url("https://example.org/a.css")</style>',
        '<img alt="" src="http://example.org/a.png">',
    ],
)
def test_a_page_that_would_use_the_network_fails_the_build(hooks, tmp_path, page):
    (tmp_path / "a.html").write_text(f"<p>{page}</p>", encoding="utf-8")
    with pytest.raises(PluginError, match=r"a\.html: (https?:)?//"):
        hooks.on_post_build({"site_dir": str(tmp_path)})


def test_links_to_follow_are_no_use_of_the_network(hooks, tmp_path):
    (tmp_path / "a.html").write_text('<a href="https://example.org">a</a>', encoding="utf-8")
    hooks.on_post_build({"site_dir": str(tmp_path)})
