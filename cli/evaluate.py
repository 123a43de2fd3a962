"""`fit-cli evaluate`: fits against the truth."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from .comfort import EXIT_CODES, labelled
from .options import ANY_PATH, FILE, FOLDER, Choice, body_option

JOINT_SETS = ("smpl24", "lsp14", "h36m14", "h36m17")
MASK_KINDS = ("smpl24", "lsp6", "person")
_STDOUT = "-"


@click.command(epilog=EXIT_CODES)
@click.argument("predicted", type=ANY_PATH)
@click.argument("truth", type=ANY_PATH)
@body_option("Body of both tables; the bundled one if not given.", name="body_file")
@click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    is_flag=False,
    flag_value=_STDOUT,
    metavar="[FILE]",
    help="Write the numbers to FILE, too; without one, print JSON in place of the text.",
)
@click.option(
    "--groups",
    "groups_file",
    type=FILE,
    help="CSV with columns image, person and others, such as action: a table for each of these.",
)
@click.option(
    "--joints",
    default="lsp14",
    show_default=True,
    type=Choice(JOINT_SETS),
    help="Of the tables by group and of the plots; the means are over all sets.",
)
@click.option(
    "--masks",
    "masks_folder",
    type=FOLDER,
    help="Masks of body parts, NAME.png for each picture: draws the predictions and counts pixels.",
)
@click.option(
    "--mask-kind",
    default="smpl24",
    show_default=True,
    type=Choice(MASK_KINDS),
    help="What pixels hold: 1 + SMPL's joint, 1 + LSP's part, or anything but 0 for a person.",
)
@click.option(
    "--plots",
    "plots_folder",
    type=FOLDER,
    help="Draw calibration and errors here, as PNG.",
)
@click.option("--quiet", is_flag=True, help="Say in one line how many people were compared.")
def evaluate(
    predicted: Path,
    truth: Path,
    body_file: Path | None,
    json_file: Path | None,
    groups_file: Path | None,
    joints: str,
    masks_folder: Path | None,
    mask_kind: str,
    plots_folder: Path | None,
    quiet: bool,
) -> None:
    """Compare the fits PREDICTED with the TRUTH, both fits tables or folders of runs.

    People are matched by picture and number within it.
    """  # fmt: skip
    from fitting.body import load_body
    from fitting.breakdown import break_down, group_by_columns
    from fitting.evaluation import compare_fits, mean_errors
    from fitting.evaluation_plots import check_matplotlib, write_plots
    from fitting.groups import read_groups
    from fitting.segmentation_scores import measure_segmentation, score_segmentation
    from fitting.table import read_fits
    from fitting.writers import check_body

    if plots_folder is not None:
        check_matplotlib()
    groups = None if groups_file is None else read_groups(groups_file)
    body = load_body(body_file)
    fits, true_fits = (read_fits(path) for path in (predicted, truth))
    for table in (fits, true_fits):
        check_body(table, body)
    comparison = compare_fits(fits, true_fits, body)
    columns = {} if groups is None else group_by_columns(groups, comparison)
    numbers = mean_errors(comparison) | break_down(comparison, columns)
    segmentation = None
    if masks_folder is not None:
        segmentation = measure_segmentation(fits, true_fits, body, masks_folder, kind=mask_kind)
        scores = score_segmentation(segmentation, columns, comparison.matched)
        numbers["segmentation"] = scores
    left_out: Mapping[str, str] = {}
    if plots_folder is not None:
        left_out = write_plots(
            plots_folder, comparison, columns, joints=joints, segmentation=segmentation
        )
    _tell(numbers, joints, json_file, quiet=quiet)
    if plots_folder is not None:
        _say_plots(plots_folder, left_out, aside=json_file == Path(_STDOUT))


def _tell(numbers: dict[str, Any], joints: str, json_file: Path | None, *, quiet: bool) -> None:
    """The numbers as JSON, as text, or both."""
    from fitting.files import write_json

    if json_file == Path(_STDOUT):
        click.echo(json.dumps(numbers, indent=2, ensure_ascii=False, allow_nan=False))
        return
    if json_file is not None:
        write_json(json_file, numbers)
    if quiet:
        click.echo(_matched(numbers))
    else:
        _say(numbers, joints)


def _say_plots(folder: Path, left_out: Mapping[str, str], *, aside: bool) -> None:
    click.echo(f"plots -> {folder}", err=aside)
    for name, reason in left_out.items():
        click.echo(f"no {name}: {reason}", err=aside)


def _matched(numbers: dict[str, Any]) -> str:
    people = numbers["people"]
    return f"{people['matched']} of {people['truth']} people matched"


_TABLE = (
    ("MPJPE", "mpjpe_mm", "mm"),
    ("PA-MPJPE", "pa_mpjpe_mm", "mm"),
    ("PCK@150", "pck_150", ""),
    ("AUC", "auc", ""),
    ("2D PCK@0.1", "pck_2d", ""),
)
_COLUMNS = ("people", "MPJPE", "median", "> 150 mm", "PA-MPJPE", "median", "wrong kp")
_MASK_COLUMNS = ("pictures", "person acc", "F1", "parts acc", "F1")
_MOST_ROWS = 12  # of a table that are printed; the JSON holds all
_WIDEST_LABEL = 24


def _say(numbers: dict[str, Any], joints: str) -> None:
    click.echo(_matched(numbers))
    click.echo(f"{'':18}" + "".join(f"{name:>12}" for name in JOINT_SETS))
    for label, key, unit in _TABLE:
        cells = (_number(numbers[name][key], unit) for name in JOINT_SETS)
        click.echo(f"{label:18}" + "".join(f"{cell:>12}" for cell in cells))
    click.echo(f"{'PVE':18}{_number(numbers['pve_mm'], 'mm'):>12}")
    click.echo(f"{'joints, picture':18}{_number(numbers['joint_error_px'], 'px'):>12}")
    _say_joints(numbers["mpjpe_by_joint_mm"]["smpl24"])
    _say_calibration(numbers["overall"]["calibration"], numbers["calibration_reference"])
    click.echo(f"\nby group, joints of {joints}, mm")
    groups = {
        "": [{"group": "everyone", **numbers["overall"]}],
        "keypoints seen": numbers["by_keypoints_seen"],
        "noise, of the person's size": numbers["by_noise"],
        **numbers["by_group"],
    }
    _say_groups(groups, "people", _COLUMNS, lambda row: _error_cells(row, joints))
    if "segmentation" in numbers:
        _say_segmentation(numbers["segmentation"])


def _say_segmentation(scores: dict[str, Any]) -> None:
    without = scores["pictures_left_out"]
    left_out = f", {without} with somebody without a fit left out" if without else ""
    click.echo(f"\npixels{left_out}")
    groups = {"": [{"group": "everyone", **scores["overall"]}], **scores["by_group"]}
    _say_groups(groups, "pictures", _MASK_COLUMNS, _mask_cells)
    parts = scores["overall"]["parts"]
    if parts is not None:
        f1 = ((part.replace("_", " "), value) for part, value in parts["f1_by_part"].items())
        words = ", ".join(f"{part} {_number(value, '')}" for part, value in f1)
        click.echo(f"F1: {words}")


def _number(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    return f"{value:.1f} {unit}" if unit else f"{value:.3f}"


def _say_joints(means_mm: dict[str, float]) -> None:
    worst = sorted(means_mm, key=means_mm.__getitem__, reverse=True)[:4]
    words = (f"{joint.replace('_', ' ')} {means_mm[joint]:.1f} mm" for joint in worst)
    click.echo(labelled(f"{'farthest off':18} ", ", ".join(words)))


def _say_calibration(found: dict[str, Any] | None, normal: dict[str, dict[str, float]]) -> None:
    if found is None:
        click.echo(f"{'calibration':18} -, the predictions have no joint_std_mm")
        return
    shares = []
    for limit, words in (("within_1", "within"), ("within_2", "within twice")):
        low, high = sorted(100 * reference[limit] for reference in normal.values())
        shares.append(
            f"{100 * found[limit]:.0f} % of joints {words} their stated distance "
            f"(normal errors: {low:.0f} to {high:.0f} %)"
        )
    both = (
        f"{found['predicted_mm']:.0f} mm stated, {found['actual_mm']:.0f} mm actual, of "
        f"{found['people']} people"
    )
    click.echo(labelled(f"{'calibration':18} ", f"{shares[0]}, {shares[1]}; {both}"))


def _say_groups(
    groups: Mapping[str, list[dict[str, Any]]],
    count: str,
    columns: Sequence[str],
    cells_of: Callable[[dict[str, Any]], Sequence[str]],
) -> None:
    """A table, as narrow as its cells let it be, with a part for each way of grouping."""
    some = {title: [row for row in rows if row[count]] for title, rows in groups.items()}
    shown = {
        title: [(_cut(row["group"]), cells_of(row)) for row in rows[:_MOST_ROWS]]
        for title, rows in some.items()
    }
    lines = [("", columns), *(line for part in shown.values() for line in part)]
    label_width = max(len(label) for label, _ in lines)
    widths = [max(map(len, column)) + 2 for column in zip(*(c for _, c in lines), strict=True)]

    def say(label: str, cells: Sequence[str]) -> None:
        padded = (f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        click.echo(f"  {label:{label_width}}" + "".join(padded))

    say("", columns)
    for title, part in shown.items():
        if title:
            click.echo(title)
        for label, cells in part:
            say(label, cells)
        if len(some[title]) > _MOST_ROWS:
            click.echo(f"  and {len(some[title]) - _MOST_ROWS} more groups, which --json writes")
        _say_nobody([row for row in groups[title] if not row[count]])


def _say_nobody(rows: Sequence[dict[str, Any]]) -> None:
    """The groups of which there is nobody."""
    names = [_cut(row["group"]) + _without_fit(row) for row in rows]
    if names:
        more = ", ..." if len(names) > _MOST_ROWS else ""
        click.echo(f"  nobody: {', '.join(names[:_MOST_ROWS])}{more}")


def _cut(label: str) -> str:
    return label if len(label) <= _WIDEST_LABEL else label[: _WIDEST_LABEL - 1] + "…"


def _without_fit(row: dict[str, Any]) -> str:
    return f" ({row['missing']} without a fit)" if row.get("missing") else ""


def _error_cells(row: dict[str, Any], joints: str) -> list[str]:
    errors, keypoints = row[joints], row["keypoints"]
    missing = row.get("missing", 0)
    compared = keypoints["compared"]
    wrong = f"{100 * keypoints['wrong'] / compared:.1f} %" if compared else "-"
    return [
        f"{row['people']} of {row['people'] + missing}" if missing else str(row["people"]),
        *(f"{errors[name]:.1f}" for name in ("mpjpe_mm", "mpjpe_median_mm")),
        f"{100 * errors['above_150']:.0f} %",
        *(f"{errors[name]:.1f}" for name in ("pa_mpjpe_mm", "pa_mpjpe_median_mm")),
        wrong,
    ]


def _mask_cells(row: dict[str, Any]) -> list[str]:
    both = (row["foreground"], row["parts"] or {})
    numbers = (_number(scores.get(key), "") for scores in both for key in ("accuracy", "f1"))
    return [str(row["pictures"]), *numbers]
