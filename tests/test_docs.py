"""What the documents show exists and runs.

Python blocks of every page run. Shell commands of the pages in `RUN` run too, each page in order
and in a folder of stand-ins (stand_ins.py), with their sizes cut. Those of other pages, and those
in `ONLY_PARSED`, are held against the real program: commands, options, values and files of this
project that they name must exist. A command that is neither of this program nor known here fails.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shlex
import shutil
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import click
import pytest

from cli.main import cli

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)#\s]+)(#[^)]*)?\)")
SHELL = ("bash", "sh", "shell", "console", "")

RUN = [ROOT / "README.md", DOCS / "quickstart.md", DOCS / "troubleshooting.md"]
RUN += [DOCS / f"{name}.md" for name in ("cli", "evaluation", "formats", "report")]
RUN += sorted((DOCS / "guides").glob("*.md"))
# Of pages that run: what cannot run here, and why.
ONLY_PARSED = {
    "train configs/lifter.yaml": "evaluates on hundreds of people",
    "train configs/pose2mesh_posenet.yaml": "evaluates on hundreds of people",
    "training.steps=20000": "the command before it does the same with fewer steps",
    "--device cuda": "no GPU",
    "--solver adam": "hundreds of full-mesh steps a person",
}
# Appended to commands that run, so that they are quick and a folder can be used again.
SMALLER = {
    "fit": ["--overwrite", "--quiet"],
    "predict": ["--overwrite", "--quiet"],
    "export": ["--quiet"],
    "synth": ["--overwrite", "--quiet", "--count", "2", "--jobs", "1", "--size", "64"],
    "train": ["--overwrite", "--quiet"]
    + [f"--set=training.{s}" for s in ("steps=2", "batch_size=2", "evaluate_every=2", "workers=0")],
}


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [Block(language, textwrap.dedent(text)) for _, language, text in found]


def commands_of(block: Block) -> Iterator[list[str]]:
    """The words of each command of a block of shell, without comments."""
    if block.language in SHELL:
        for line in block.text.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield words


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_and_pictures_exist(page):
    for target, _ in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / unquote(target)).exists(), target


def all_commands() -> list[tuple[str, list[str]]]:
    return [
        (named(page), c) for page in PAGES for block in blocks(page) for c in commands_of(block)
    ]


# --- held against the program ---------------------------------------------------------------------


@pytest.mark.parametrize(("page", "words"), all_commands(), ids=lambda x: x if x == str(x) else "")
def test_shown_commands_exist(page, words):
    check_command(words)


@pytest.mark.parametrize(
    "line",
    [
        "fit-cli fti PICTURES/ -o OUT",
        "fit-cli fit PICTURES/ -o OUT --solve newton",
        "fit-cli fit PICTURES/ -o OUT --solver newton",
        "fit-cli export OUT --to fbx -o OUT",
        "make dome",
        "pip install '.[trian]'",
        "python benchmarks/acuracy.py",
        "python benchmarks/speed.py --devise cpu",
        "torchrun --no-python fit-cli trian a.yaml -o OUT",
        "conda install bodyloop",
    ],
)
def test_what_does_not_exist_is_found(line):
    with pytest.raises((AssertionError, click.ClickException)):
        check_command(shlex.split(line))


def check_command(words: list[str]) -> None:
    """Fail unless the command's program, options and values exist."""
    while "=" in words[0]:
        words = words[1:]  # NAME=VALUE before a command
    program, arguments = words[0], words[1:]
    checks = {
        "fit-cli": check_fit_cli,
        "make": check_make,
        "pip": check_pip,
        "python": check_script,
        "torchrun": lambda rest: check_fit_cli(rest[rest.index("fit-cli") + 1 :]),
        "export": lambda rest: None,  # of a variable
    }
    assert program in checks, f"{program}: not a program of this project"
    checks[program](arguments)


def check_fit_cli(arguments: list[str]) -> None:
    command: click.Command = cli
    context = click.Context(cli)
    while isinstance(command, click.Group):
        assert command is cli or arguments, "a subcommand is missing"
        name, found, arguments = command.resolve_command(context, arguments)
        assert found is not None, name
        command, context = found, click.Context(found, parent=context)
    command.make_context(command.name, list(arguments))


def check_make(arguments: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^([\w./-]+):", makefile, re.MULTILINE)
    assert set(arguments) <= set(targets), arguments


def check_pip(arguments: list[str]) -> None:
    """Extras are those of setup.py."""
    assert arguments[0] in ("install", "uninstall")
    text = (ROOT / "setup.py").read_text(encoding="utf-8")
    tree = next(
        n
        for n in ast.parse(text).body
        if isinstance(n, ast.Assign) and "EXTRAS" in ast.unparse(n.targets[0])
    )
    extras = {ast.literal_eval(key) for key in tree.value.keys} | {"dev"}
    for argument in arguments[1:]:
        asked = re.fullmatch(r"(?:\.|bodyloop)\[([\w,]+)\]", argument)
        assert asked is None or set(asked[1].split(",")) <= extras, argument


def check_script(arguments: list[str]) -> None:
    """A script of this project, and options that it has."""
    path = ROOT / arguments[0]
    assert path.is_file(), arguments[0]
    text = path.read_text(encoding="utf-8")
    for word in arguments[1:]:
        if word.startswith("-"):
            assert f'"{word.partition("=")[0]}"' in text, word


def test_readme_shows_commands():
    assert len([c for page, c in all_commands() if page == "README.md" and c[0] == "fit-cli"]) >= 6


# --- run ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory):
    from stand_ins import make_stand_ins

    data = pytest.importorskip("skimage.data")
    return make_stand_ins(tmp_path_factory.mktemp("stand_ins"), data.astronaut()[::2, ::2])


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_page_runs(page, stand_ins, tmp_path, monkeypatch):
    """Its blocks in order, Python in one namespace."""
    shown = blocks(page)
    if not any(b.language == "python" for b in shown) and page not in RUN:
        pytest.skip("no Python on this page, and its commands are only parsed")
    folder = tmp_path / "folder"
    shutil.copytree(stand_ins, folder)
    monkeypatch.chdir(folder)
    namespace: dict[str, object] = {}
    for block in shown:
        if block.language == "python":
            exec(compile(block.text, named(page), "exec"), namespace)
        elif page in RUN:
            for words in commands_of(block):
                run_command(words)


def run_command(words: list[str]) -> None:
    """Run a command of this program, unless it is one that cannot run here."""
    if words[0] != "fit-cli" or any(part in shlex.join(words) for part in ONLY_PARSED):
        return
    name = words[1] if words[1] in cli.list_commands(click.Context(cli)) else "fit"
    added = SMALLER.get(name, [])
    if "--resume" in words:
        added = [word for word in added if word != "--overwrite"]
    try:
        cli.main([*words[1:], *added], prog_name="fit-cli", standalone_mode=False)
    except SystemExit as end:
        assert end.code in (0, None), shlex.join(words)


def test_what_is_only_parsed_is_shown():
    shown = [shlex.join(c) for page, c in all_commands() if page in map(named, RUN)]
    for part in ONLY_PARSED:
        assert any(part in line for line in shown), part


# --- figures --------------------------------------------------------------------------------------


def load_tool(name):
    path = ROOT / "tools" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("page", "row", "tool"),
    [
        ("README.md", "| `adam` |", "update_readme"),
        ("docs/fitting.md", "| 4px | lift | video |", "update_readme"),
        ("docs/pose2mesh.md", "| Pose2Mesh | all |", "update_readme"),
        ("docs/comparison.md", "| smplfitter ", "update_comparison"),
    ],
)
def test_tables_are_made_from_the_results(page, row, tool):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert load_tool(tool).updated(text) == text
    assert row in text


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks" / "results").glob("*.json")))
def test_results_say_how_they_came_about(path):
    text = path.read_text(encoding="utf-8")
    assert {"command", "date", "revision", "machine", "versions"} <= set(json.loads(text))
    assert not re.search(r'[" ]/\w', text), "an absolute path of somebody's machine"
