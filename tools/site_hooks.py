"""What MkDocs does to pages besides: formulas, the notebook, and links out of the folder docs.

Named in mkdocs.yml. Formulas become MathML, which browsers draw by themselves, so that the site
needs no script for them and no network.
"""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

_NOTEBOOK = "tour.ipynb"
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)")
_FORMULA = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<tex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL
)


# What a browser fetches by itself; links to follow are not among it.
_FETCHED = re.compile(
    r'<(?:script|img|iframe|source|video)[^>]*\ssrc="(?P<src>(?:https?:)?//[^"]*)"'
    r'|<link[^>]*\brel="?(?:stylesheet|preconnect|preload|icon)[^>]*href="(?P<href>(?:https?:)?//[^"]*)"'
    r"|url\(['\"]?(?P<url>(?:https?:)?//[^)'\"]*)"
)


def on_files(files: Files, config: Any) -> Files:
    """The notebook, as it was executed, becomes a page of its name with its pictures beside it."""
    from nbconvert import MarkdownExporter

    notebook = Path(config["docs_dir"], _NOTEBOOK)
    if not notebook.exists():
        return files
    text, resources = MarkdownExporter().from_filename(str(notebook))
    pictures: dict[str, bytes] = resources["outputs"]
    for name in pictures:
        text = text.replace(f"({name})", f"(tour/{name})")
    page = str(Path(_NOTEBOOK).with_suffix(".md"))
    files.append(File.generated(config, page, content=text))
    for name, content in pictures.items():
        files.append(File.generated(config, f"tour/{name}", content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links to the notebook lead to its page; those out of docs say the file's path instead."""
    docs = Path(config["docs_dir"])
    here = (docs / page.file.src_uri).parent

    def rewrite(match: re.Match[str]) -> str:
        text, target = match.groups()
        if target.endswith(_NOTEBOOK):
            return f"[{text}]({target.removesuffix('.ipynb')}.md)"
        if "://" in target or target.startswith(("#", "mailto:")):
            return match[0]
        path = (here / target.partition("#")[0]).resolve()
        if path.is_relative_to(docs) or not path.exists():
            return match[0]
        name = path.relative_to(docs.parent)
        return f"`{name}`" if text.strip("`") == name.name else f"{text} (`{name}`)"

    return _LINK.sub(rewrite, markdown)


def on_page_content(content: str, page: Any, config: Any, files: Files) -> str:
    """Formulas in TeX become MathML."""

    def draw(match: re.Match[str]) -> str:
        display = "block" if match["tag"] == "div" else "inline"
        return convert(html.unescape(match["tex"]), display=display)

    return _FORMULA.sub(draw, content)


def on_post_build(config: Any) -> None:
    """Fail if a page or style would fetch something from a network when it is read."""
    site = Path(config["site_dir"])
    found = [
        f"{path.relative_to(site)}: {next(filter(None, match.groups()))}"
        for suffix in ("*.html", "*.css")
        for path in sorted(site.rglob(suffix))
        for match in _FETCHED.finditer(path.read_text(encoding="utf-8"))
    ]
    if found:
        raise PluginError("the site would use the network: " + "; ".join(found))
