"""Options of the commands that look for people in pictures or keypoint files."""

from __future__ import annotations

from pathlib import Path

import click

from .options import (
    ANY_PATH,
    FOLDER,
    Choice,
    Decorator,
    KeypointSetName,
    PathOrUrl,
    all_of,
    output_option,
)

KEYPOINT_FORMATS = (
    "auto", "mmpose", "coco", "openpose", "spin", "humandata", "npz", "lsp", "mpii", "3dpw", "fits",
)  # fmt: skip


def detector_option(help: str) -> Decorator:
    """`--detector`."""
    return click.option(
        "--detector",
        default="blazepose",
        show_default=True,
        type=Choice(["blazepose", "rtmlib"]),
        help=help,
    )


_OPTIONS: tuple[Decorator, ...] = (
    click.argument("input", type=PathOrUrl(path_type=Path)),
    output_option("Folder for the results."),
    click.option(
        "--keypoints",
        type=ANY_PATH,
        help="2D keypoints of the pictures in INPUT; without it, people are detected.",
    ),
    click.option(
        "--keypoint-format",
        default="auto",
        show_default=True,
        type=Choice(KEYPOINT_FORMATS),
        metavar="NAME",
        help=f"Of the keypoint file: {', '.join(KEYPOINT_FORMATS)}.",
    ),
    click.option(
        "--keypoint-set",
        metavar="NAME",
        type=KeypointSetName(),
        help="Overrides what the keypoint file says.",
    ),
    click.option(
        "--images", type=FOLDER, help="Pictures that a keypoint file given as INPUT names."
    ),
    detector_option("For pictures without keypoints."),
)

# Decorates a command with INPUT, `--output` and what `fitting.sources.SourceConfig` holds.
source_options = all_of(_OPTIONS)
