"""Options of the commands that look for people in pictures or keypoint files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

KEYPOINT_FORMATS = (
    "auto", "mmpose", "coco", "openpose", "spin", "humandata", "npz", "lsp", "mpii", "3dpw", "fits",
)  # fmt: skip

_OPTIONS = (
    click.argument("input", type=click.Path(path_type=Path)),
    click.option(
        "-o",
        "--output",
        required=True,
        type=click.Path(path_type=Path, file_okay=False),
        help="Folder for the results.",
    ),
    click.option(
        "--keypoints",
        type=click.Path(path_type=Path),
        help="2D keypoints of the pictures in INPUT; without it, people are detected.",
    ),
    click.option(
        "--keypoint-format",
        default="auto",
        show_default=True,
        type=click.Choice(KEYPOINT_FORMATS),
        help="Of the keypoint file.",
    ),
    click.option("--keypoint-set", metavar="NAME", help="Overrides what the keypoint file says."),
    click.option(
        "--images",
        type=click.Path(path_type=Path, file_okay=False),
        help="Pictures that a keypoint file given as INPUT names.",
    ),
    click.option(
        "--detector",
        default="blazepose",
        show_default=True,
        type=click.Choice(["blazepose", "rtmlib"]),
        help="For pictures without keypoints.",
    ),
)


def source_options(command: Command) -> Command:
    """Decorate a command with INPUT, `--output` and what `fitting.sources.SourceConfig` holds."""
    for option in reversed(_OPTIONS):  # the last one decorates first
        command = option(command)
    return command
