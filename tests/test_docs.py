"""What the documents show exists and runs."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from urllib.parse import unquote

import click
import pytest

from cli.main import cli

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)#\s]+)(#[^)]*)?\)")


def blocks(page: Path, *languages: str) -> list[str]:
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [text for language, text in found if language in languages]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_and_pictures_exist(page):
    for target, _ in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / unquote(target)).exists(), target


def shown_commands() -> list[tuple[str, str]]:
    """Each `fit-cli` line of the documents, with the page's name."""
    lines = []
    for page in PAGES:
        for block in blocks(page, "bash", "sh"):
            lines += [(page.name, s) for s in block.splitlines() if s.startswith("fit-cli")]
    return lines


@pytest.mark.parametrize(("page", "line"), shown_commands())
def test_shown_commands_parse(page, line):
    """Subcommands, options and values are those of the program."""
    command: click.Command = cli
    arguments = shlex.split(line, comments=True)[1:]
    context = click.Context(cli)
    while isinstance(command, click.Group):
        _, found, arguments = command.resolve_command(context, arguments)
        assert found is not None, line
        command, context = found, click.Context(found, parent=context)
    command.make_context("fit-cli", arguments)


def test_readme_shows_commands():
    assert len([page for page, _ in shown_commands() if page == "README.md"]) >= 6


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_shown_python_runs(page, tmp_path, monkeypatch):
    """In order, in one namespace, in a folder with a picture of someone."""
    snippets = blocks(page, "python")
    if not snippets:
        pytest.skip("no Python on this page")
    data = pytest.importorskip("skimage.data")
    from fitting.images import write_image

    for name in ("people.jpg", "group.jpg"):
        write_image(tmp_path / name, data.astronaut())
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    for snippet in snippets:
        exec(compile(snippet, page.name, "exec"), namespace)


@pytest.mark.parametrize(
    ("page", "row"),
    [
        ("README.md", "| `adam` |"),
        ("docs/fitting.md", "| 4px | lift | video |"),
        ("docs/pose2mesh.md", "| Pose2Mesh | all |"),
    ],
)
def test_tables_are_made_from_the_results(page, row):
    import importlib.util

    path = ROOT / "tools" / "update_readme.py"
    spec = importlib.util.spec_from_file_location("update_readme", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = (ROOT / page).read_text(encoding="utf-8")
    assert module.updated(text) == text
    assert row in text


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks" / "results").glob("*.json")))
def test_results_say_how_they_came_about(path):
    text = path.read_text(encoding="utf-8")
    assert {"command", "date", "revision", "machine", "versions"} <= set(json.loads(text))
    assert not re.search(r'[" ]/\w', text), "an absolute path of somebody's machine"
