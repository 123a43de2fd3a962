"""The command `fit-cli`: which subcommands there are, and how errors end."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

import fitting

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
}


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
            args = ["fit", *args]
        return super().resolve_command(ctx, args)


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(fitting.__version__, prog_name="fit-cli")
def cli() -> None:
    """From photographs or 2D keypoints of people to SMPL body parameters.

    \b
    fit-cli PICTURES/ -o OUT               fit the people found in a folder of pictures
    fit-cli keypoints.json -o OUT          fit the people of a keypoint file
    """


def main(args: list[str] | None = None) -> Any:
    """Entry point: runs the command and turns expected errors into one sentence, exit code 2."""
    # Where other programs want the cores, threads that spin while they wait hold each other up: a
    # training step took six times as long, and fits 1.5 times (2 cores, load 4).
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        return cli.main(args, prog_name="fit-cli", standalone_mode=True)
    except (ValueError, OSError, ImportError) as error:
        click.echo(f"fit-cli: {error}", err=True)
        sys.exit(2)
    except MemoryError:
        click.echo("fit-cli: out of memory; give a smaller --batch-size", err=True)
        sys.exit(2)
