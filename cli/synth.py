"""`fit-cli synth`: rendered people with full ground truth."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .comfort import EXIT_CODES, Outcome, concluded, listed, number
from .options import (
    ANY_PATH,
    Choice,
    KeypointSetName,
    body_option,
    check_beginning,
    dry_run_option,
    jobs_option,
    output_option,
    overwrite_option,
    resume_option,
    seed_option,
)
from .plan import check_output
from .progress import StageBars

if TYPE_CHECKING:
    from regressor.synthetic.rendered_set import SetConfig


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


@click.command(epilog=EXIT_CODES)
@output_option("Folder for pictures and truth.")
@click.option("--count", required=True, type=click.IntRange(min=1), help="Number of pictures.")
@click.option(
    "--split",
    default="train",
    show_default=True,
    type=Choice(["train", "validation", "test"]),
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
    type=ANY_PATH,
    help="Folder of photographs to put people before, in place of drawn surroundings.",
)
@click.option(
    "--keypoint-set",
    "set_name",
    default="coco17",
    show_default=True,
    metavar="NAME",
    type=KeypointSetName(),
    help="Of person_keypoints.json.",
)
@click.option(
    "--format",
    "suffix",
    default="jpg",
    show_default=True,
    type=Choice(["jpg", "png"]),
    help="Of the pictures.",
)
@body_option("Body to draw; the bundled one if not given.", name="body_file")
@seed_option()
@jobs_option("Processes")
@resume_option("Go on with the run in the folder that was stopped.")
@overwrite_option("Replace files of an earlier run in the folder.")
@dry_run_option()
@concluded
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
    jobs: int,
    resume: bool,
    overwrite: bool,
    dry_run: bool,
    quiet: bool,
) -> Outcome:
    """Draw people whose bodies are known, for training and for tests.

    Leaves images/, masks/ (body parts by pixel), person_keypoints.json (COCO), truth.parquet and
    run.json in the output folder. A run that was killed goes on with --resume, and what it leaves
    is the same as if it had not been.
    """
    check_beginning(resume=resume, overwrite=overwrite)
    from regressor.synthetic.rendered_set import SetConfig, write_rendered_set
    from regressor.synthetic.rendering import PictureConfig
    from regressor.synthetic.surroundings import find_backgrounds

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
        count=count,
        seed=seed,
        pictures=pictures,
        suffix=suffix,
        body=body_file,
        jobs=None if jobs < 0 else jobs,
    )
    if dry_run:
        check_output(output, overwrite=overwrite or resume)
        return _plan(output, config, problems)
    with StageBars(hidden=quiet) as bars:
        record = write_rendered_set(
            output,
            config,
            overwrite=overwrite,
            resume=resume,
            problems=problems,
            progress=bars.update,
        )
    return _conclude(output, record, problems)


def _conclude(output: Path, record: Mapping[str, Any], problems: Sequence[str]) -> Outcome:
    """What was drawn."""
    counts, rate = record["counts"], record["pictures_per_second"]
    files = {
        "pictures": output / "images",
        "masks": output / "masks",
        "keypoints": output / "person_keypoints.json",
        "truth": output / "truth.parquet",
        "record": output / "run.json",
    }
    facts = {"seconds": listed(record["seconds"])}
    if record["resumed_at"]:
        facts["found"] = f"{number(record['resumed_at'])} pictures of an earlier sitting"
    return Outcome(
        headline=f"{counts['pictures']} pictures of {counts['people']} people, {rate:.0f} per "
        f"second -> {output}",
        facts=facts | {label: str(path) for label, path in files.items()},
        record={
            "output": str(output),
            "files": {label: str(path) for label, path in files.items()},
            "counts": counts,
            "pictures_per_second": rate,
            "seconds": record["seconds"],
        },
        problems=problems,
        named_in=str(output / "run.json"),
    )


def _plan(output: Path, config: SetConfig, problems: Sequence[str]) -> Outcome:
    """What would be drawn."""
    pictures, settings = config.pictures, config.plain()
    width, height = pictures.size
    return Outcome(
        headline=f"would draw {number(config.count)} pictures -> {output}",
        facts={
            "pictures": f"{width} x {height} pixels, {config.suffix}"
            + (", crops" if pictures.crop else f", at most {pictures.people} people in each"),
            "poses": f"of the subjects of the {pictures.split} split, seed {config.seed}",
            "keypoints": pictures.keypoint_set,
            "surroundings": f"{number(len(pictures.backgrounds))} photographs"
            if pictures.backgrounds
            else "drawn",
            "writes": f"{output}/: images/, masks/, person_keypoints.json, truth.parquet, run.json",
        },
        record={"dry_run": True, "output": str(output), "settings": settings},
        problems=problems,
    )
