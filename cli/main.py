"""The command `fit-cli`: which subcommands there are, and how errors end."""

from __future__ import annotations

import importlib
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import click

import fitting

from .comfort import BAD_USE, EXIT_CODES, EXPECTED, INTERRUPTED, sentence_of
from .options import did_you_mean

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

# Subcommand -> module that defines it. Modules are imported when their command is asked for, and
# import torch only inside the command, so that `fit-cli --help` answers at once.
_COMMANDS = {
    "fit": "cli.fit",
    "detect": "cli.detect",
    "predict": "cli.predict",
    "export": "cli.export",
    "train": "cli.train",
    "synth": "cli.synth",
    "evaluate": "cli.evaluate",
    "report": "cli.report",
    "body": "cli.body",
    "prior": "cli.prior",
    "completion": "cli.completion",
}
_SUMMARIES = {
    "fit": "Fit SMPL to people in pictures or keypoint files.",
    "detect": "Find people and their keypoints; writes COCO JSON.",
    "predict": "Predict the people of pictures by an image regressor.",
    "export": "Write fits as meshes or as pseudo labels.",
    "train": "Train a network from a config.",
    "synth": "Draw people whose bodies are known.",
    "evaluate": "Compare fits with the truth.",
    "report": "Make the web page of a run again.",
    "body": "Look at body files.",
    "prior": "Fit and look at pose priors.",
    "completion": "Print a script that completes commands in a shell.",
}
_WORD = re.compile(r"[A-Za-z-]+")  # what may be a mistyped command, rather than a path


class _LazyGroup(click.Group):
    """Imports a subcommand when it is used; a first word that is no subcommand is fit's INPUT."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        return getattr(importlib.import_module(_COMMANDS[cmd_name]), cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_SUMMARIES.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in _COMMANDS:
            if not ctx.resilient_parsing:
                _check_word(args[0])
            args = ["fit", *args]
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Commands, and files: the first word may be fit's INPUT."""
        from click.shell_completion import CompletionItem

        if incomplete.startswith("-"):
            return click.Command.shell_complete(self, ctx, incomplete)
        # Not click's own way, which would import every command for its help text.
        found = [
            CompletionItem(name, help=help_text)
            for name, help_text in _SUMMARIES.items()
            if name.startswith(incomplete)
        ]
        return found or [CompletionItem(incomplete, type="file")]


def _check_word(word: str) -> None:
    """UsageError for a word that looks like a mistyped command rather than like an input."""
    if _WORD.fullmatch(word) and not word.startswith("-") and not Path(word).exists():
        near = did_you_mean(word, _COMMANDS)
        if near:
            raise click.UsageError(f"{word!r} is neither a command nor a file or folder{near}")


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EXIT_CODES,
)
@click.version_option(fitting.__version__, prog_name="fit-cli")
def cli() -> None:
    """From photographs or 2D keypoints of people to SMPL body parameters.

    \b
    fit-cli PICTURES/ -o OUT         fit the people found in a folder of pictures
    fit-cli keypoints.json -o OUT    fit the people of a keypoint file
    """


def main(args: list[str] | None = None) -> NoReturn:
    """Entry point: ends with an exit code (docs/cli.md), and turns errors into one sentence."""
    # Where other programs want the cores, threads that spin while they wait hold each other up: a
    # training step took six times as long, and fits 1.5 times (2 cores, load 4).
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        with _polite_kills():
            code = cli.main(args, prog_name="fit-cli", standalone_mode=False)
    except click.Abort:
        click.echo("fit-cli: interrupted; what was finished stands", err=True)
        sys.exit(INTERRUPTED)
    except click.UsageError as error:
        error.show()  # with a hint at the help text
        sys.exit(BAD_USE)
    except EXPECTED as error:
        click.echo(f"fit-cli: {sentence_of(error)}", err=True)
        sys.exit(BAD_USE)
    sys.exit(code if isinstance(code, int) else 0)


@contextmanager
def _polite_kills() -> Iterator[None]:
    """A polite kill ends the program as an error would: bars are closed, half files removed."""

    def end(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    usual = signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if not usual or threading.current_thread() is not threading.main_thread():
        yield  # somebody else, such as a launcher, has a say in this process
        return
    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
