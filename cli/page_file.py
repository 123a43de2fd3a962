"""One HTML file that holds its style, its scripts and its data, and needs no network."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    import jinja2


def write_html(
    path: Path | str, template: str, *, scripts: Sequence[str], with_three: bool, **values: Any
) -> None:
    """Write a page, atomically. It opens from the disk.

    Args:
        path: of the page.
        template: of `cli/templates`.
        scripts: of `cli/static/report`, in the order they are run; each file says what it defines.
        with_three: put three.js into the page, for scripts that draw in 3D.
        values: for the template.

    Raises:
        OutputError: the page cannot be written.
    """
    from fitting.files import write_atomically

    style = _read("static/report", "page.css")
    # Names that the files give are the page's own, none the browser's or a library's.
    script = "".join(_read("static/report", f"{name}.js") for name in scripts)
    script = f'(() => {{\n"use strict";\n{script}}})();\n'
    library = _read("static/three", "three.js") if with_three else ""
    text = (
        _environment()
        .get_template(template)
        .render(
            style=style,
            script=script,
            library=library,
            policy=_policy(style, (script, library)),
            **values,
        )
    )
    # A file name that is not valid UTF-8 may stand in a page: show "?" for it.
    encoded = text.encode("utf-8", errors="replace")
    write_atomically(path, lambda stream: stream.write(encoded))


def base64_of(content: bytes) -> str:
    """As text that a page can hold."""
    return b64encode(content).decode("ascii")


def short(value: float, digits: int) -> float | None:
    """A number of some significant digits, as JSON can hold it: None for NaN and infinity."""
    rounded = float(f"{value:.{digits}g}")
    return rounded if abs(rounded) < float("inf") else None


def _environment() -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: _read("templates", name)),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment


def _policy(style: str, scripts: Iterable[str]) -> str:
    """Content security policy: these scripts and this style run, and nothing is fetched.

    Should a hostile name ever be taken for markup, it could neither run nor call home.
    """
    allowed = " ".join(_hash_source(script) for script in scripts)
    return (
        f"default-src 'none'; base-uri 'none'; form-action 'none'; script-src {allowed}; "
        f"style-src {_hash_source(style)}; img-src 'self' file: data: blob:"
    )


def _hash_source(text: str) -> str:
    return f"'sha256-{base64_of(hashlib.sha256(text.encode()).digest())}'"


def _read(folder: str, name: str) -> str:
    return (files("cli") / folder / name).read_text("utf-8")
