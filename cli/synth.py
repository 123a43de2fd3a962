"""`fit-cli synth`: rendered people with full ground truth."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from .progress import StageBars


class _Size(click.ParamType):
    """A side in pixels for square crops, or WIDTHxHEIGHT."""

    name = "size"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int, bool]:
        """Width, height, and whether these are of a crop."""
        match = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", str(value))
        if match is None:
            self.fail(f"{value!r} is neither a side in pixels nor WIDTHxHEIGHT", param, ctx)
        return int(match[1]), int(match[2] or match[1]), match[2] is None


@click.command()
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for pictures and truth.",
)
@click.option("--count", required=True, type=click.IntRange(min=1), help="Number of pictures.")
@click.option(
    "--split",
    default="train",
    show_default=True,
    type=click.Choice(["train", "validation", "test"]),
    help="Motion-capture subjects whose poses are drawn.",
)
@click.option(
    "--size",
    default="224",
    show_default=True,
    type=_Size(),
    metavar="SIDE|WxH",
    help="Square crops around a person, or whole pictures.",
)
@click.option(
    "--people",
    default=1,
    show_default=True,
    type=click.IntRange(min=1, max=16),
    help="At most so many in a picture.",
)
@click.option(
    "--occluded",
    default=0.3,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Share of pictures with something in front of the person.",
)
@click.option(
    "--truncated",
    default=0.15,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Share of crops that cut the person off.",
)
@click.option(
    "--backgrounds",
    type=click.Path(path_type=Path),
    help="Folder of photographs to put people before, in place of drawn surroundings.",
)
@click.option("--keypoint-set", "set_name", default="coco17", show_default=True)
@click.option("--format", "suffix", default="jpg", type=click.Choice(["jpg", "png"]))
@click.option(
    "--body",
    "body_file",
    type=click.Path(path_type=Path),
    help="Body to draw; the bundled one if not given.",
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
@click.option("--jobs", type=click.IntRange(min=1), help="Processes; one for each core if absent.")
@click.option("--resume", is_flag=True, help="Go on with the run in the folder that was stopped.")
@click.option("--overwrite", is_flag=True, help="Replace files of an earlier run in the folder.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
def synth(
    output: Path,
    count: int,
    split: str,
    size: tuple[int, int, bool],
    people: int,
    occluded: float,
    truncated: float,
    backgrounds: Path | None,
    set_name: str,
    suffix: str,
    body_file: Path | None,
    seed: int,
    jobs: int | None,
    resume: bool,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Draw people whose bodies are known, for training and for tests.

    Leaves images/, masks/ (body parts by pixel), person_keypoints.json (COCO), truth.parquet and
    run.json in the output folder. A run that was killed goes on with --resume, and what it leaves
    is the same as if it had not been.
    """
    if resume and overwrite:
        raise click.UsageError("--resume goes on with a run, --overwrite replaces it; give one")
    from regressor.rendered_set import SetConfig, write_rendered_set
    from regressor.rendering import PictureConfig
    from regressor.surroundings import find_backgrounds

    photos, problems = ([], []) if backgrounds is None else find_backgrounds(backgrounds)
    pictures = PictureConfig(
        size=size[:2],
        crop=size[2],
        people=people,
        split=split,
        keypoint_set=set_name,
        occluded=occluded,
        truncated=truncated,
        backgrounds=tuple(photos),
    )
    config = SetConfig(
        count=count, seed=seed, pictures=pictures, suffix=suffix, body=body_file, jobs=jobs
    )
    with StageBars(hidden=quiet) as bars:
        record = write_rendered_set(
            output,
            config,
            overwrite=overwrite,
            resume=resume,
            problems=problems,
            progress=bars.update,
        )
    for problem in problems:
        click.echo(f"fit-cli: {problem}", err=True)
    counts, rate = record["counts"], record["pictures_per_second"]
    click.echo(
        f"{counts['pictures']} pictures of {counts['people']} people, {rate:.0f} per second "
        f"-> {output}"
    )
    if problems:
        raise SystemExit(1)
