"""What the documents show exists and runs.

Python blocks and commands of this program run, each page in order and in a folder of stand-ins
(stand_ins.py), with their sizes cut. All commands, those in `ONLY_PARSED` and of other programs
too, are held against what there is: commands, options, values and files of this project that they
name must exist. A command that is neither of this program nor known here fails.
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
import yaml

from cli.main import cli
from fitting.images import read_image
from fitting.skeleton import KEYPOINT_SETS

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)#\s]+)(#[^)]*)?\)")
SHELL = ("bash", "sh", "shell", "console", "")

# What cannot run here, and why.
ONLY_PARSED = {
    "--device cuda": "no GPU",
    "--backend dask --scheduler": "no cluster at that address",
    "--backend ray --scheduler": "no cluster at that address",
    "s3://": "no object store",
    "--solver adam": "hundreds of full-mesh steps a person",
}
# Appended to commands that run, so that they are quick and a folder can be used again.
SMALLER = {
    "fit": ["--overwrite", "--quiet"],
    "predict": ["--overwrite", "--quiet"],
    "export": ["--quiet"],
    "synth": ["--overwrite", "--quiet", "--count=2", "--jobs=1"],
    "train": ["--overwrite", "--quiet"],
}
SMALLER_TRAINING = ("steps=2", "batch_size=2", "evaluate_every=2", "workers=0")
SMALLER_TRAINING += ("average.batch_norm_batches=1",)
# By the task of a config.
SMALLER_TASK = {
    "image": ["evaluation.people=2"],
    "lifter": ["network.width=16"],
    "pose2mesh": ["network.pose_width=16"],
}
JUDGED_BY = ("lifter_task", "pose2mesh.task")  # of `regressor`: these have people of their own


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
        lines = block.text.replace("\\\n", " ").splitlines()
        if block.language == "console":  # with what the commands print
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        for line in lines:
            words = shlex.split(line, comments=True)
            if words := words[: words.index(">")] if ">" in words else words:
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


@pytest.fixture
def folder(stand_ins, tmp_path):
    """A copy of the stand-ins to work in, for tests in which networks are judged by two people."""
    folder = tmp_path / "folder"
    shutil.copytree(stand_ins, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in JUDGED_BY:
            patch.setattr(f"regressor.{name}._VALIDATION_PEOPLE", 2)
        yield folder
    shutil.rmtree(folder)  # checkpoints are large, and pytest keeps the folders of three runs


def runs(block: Block) -> bool:
    """Whether something of it runs."""
    return block.language == "python" or any(map(can_run, commands_of(block)))


def can_run(words: list[str]) -> bool:
    """Whether it is a command of this program that can run here."""
    line = shlex.join(words)
    return words[0] == "fit-cli" and not any(part in line for part in ONLY_PARSED)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("page", [p for p in PAGES if any(map(runs, blocks(p)))], ids=named)
def test_page_runs(page):
    """Its blocks in order, Python in one namespace."""
    namespace: dict[str, object] = {}
    for block in blocks(page):
        if block.language == "python":
            exec(compile(block.text, named(page), "exec"), namespace)
        for words in filter(can_run, commands_of(block)):
            run_command(words)


def run_command(words: list[str]) -> None:
    """Run it on less, and fail unless it ends well."""
    name = words[1] if words[1] in cli.list_commands(click.Context(cli)) else "fit"
    added = SMALLER.get(name, []) + (smaller_training(words) if name == "train" else [])
    if "--resume" in words:
        added = [word for word in added if word != "--overwrite"]
    try:
        cli.main([*words[1:], *added], prog_name="fit-cli", standalone_mode=False)
    except SystemExit as end:
        assert end.code in (0, None), shlex.join(words)


def smaller_training(words: list[str]) -> list[str]:
    """What makes the run of a config small."""
    config = next(word for word in words if word.endswith(".yaml"))
    task = yaml.safe_load(Path(config).read_text(encoding="utf-8"))["task"]
    settings = [*(f"training.{setting}" for setting in SMALLER_TRAINING), *SMALLER_TASK[task]]
    return [f"--set={setting}" for setting in settings]


def test_what_is_only_parsed_is_shown():
    shown = [shlex.join(c) for _, c in all_commands()]
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
        ("docs/loop.md", "| the true parameters |", "update_readme"),
        ("docs/loop.md", "| 2D keypoints alone | 31% |", "update_readme"),
        ("docs/pose2mesh.md", "| Pose2Mesh | all |", "update_readme"),
        ("docs/comparison.md", "| smplfitter ", "update_comparison"),
    ],
)
def test_tables_are_made_from_the_results(page, row, tool):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert load_tool(tool).updated(text) == text
    assert row in text


def test_every_keypoint_set_is_drawn():
    tool = load_tool("draw_keypoints")
    width, height = tool.TILE
    picture = read_image(DOCS / "pictures/keypoint_sets.png")
    tiles = picture.reshape(-1, height, tool.COLUMNS, width, 3).swapaxes(1, 2)
    is_drawn = (tiles < 255).any(axis=(2, 3, 4)).ravel()
    assert is_drawn.tolist() == sorted(is_drawn.tolist(), reverse=True)
    assert is_drawn.sum() == len(KEYPOINT_SETS)


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks" / "results").glob("*.json")))
def test_results_say_how_they_came_about(path):
    text = path.read_text(encoding="utf-8")
    assert {"command", "date", "revision", "machine", "versions"} <= set(json.loads(text))
    assert not re.search(r'[" ]/\w', text), "an absolute path of somebody's machine"
