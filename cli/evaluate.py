"""`fit-cli evaluate`: fits against the truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

JOINT_SETS = ("smpl24", "lsp14", "h36m14", "h36m17")
MASK_KINDS = ("smpl24", "lsp6", "person")


@click.command()
@click.argument("predicted", type=click.Path(path_type=Path))
@click.argument("truth", type=click.Path(path_type=Path))
@click.option(
    "--body",
    "body_file",
    type=click.Path(path_type=Path),
    help="Body of both tables; the bundled one if not given.",
)
@click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the numbers here, too.",
)
@click.option(
    "--groups",
    "groups_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="CSV with columns image, person and others, such as action: a table for each of these.",
)
@click.option(
    "--joints",
    default="lsp14",
    show_default=True,
    type=click.Choice(JOINT_SETS),
    help="Of the tables by group and of the plots; the means are over all sets.",
)
@click.option(
    "--masks",
    "masks_folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Masks of body parts, NAME.png for each picture: draws the predictions and counts pixels.",
)
@click.option(
    "--mask-kind",
    default="smpl24",
    show_default=True,
    type=click.Choice(MASK_KINDS),
    help="What pixels hold: 1 + SMPL's joint, 1 + LSP's part, or anything but 0 for a person.",
)
@click.option(
    "--plots",
    "plots_folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Draw calibration and errors here, as PNG.",
)
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
) -> None:
    """Compare the fits PREDICTED with the TRUTH, both fits tables or folders of runs.

    People are matched by picture and number within it.
    """  # fmt: skip
    from fitting.body import load_body
    from fitting.breakdown import break_down, group_by_columns
    from fitting.evaluation import compare_fits, mean_errors
    from fitting.evaluation_plots import check_matplotlib, write_plots
    from fitting.files import write_json
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
    if json_file is not None:
        write_json(json_file, numbers)
    _say(numbers, joints)
    if plots_folder is not None:
        left_out = write_plots(
            plots_folder, comparison, columns, joints=joints, segmentation=segmentation
        )
        click.echo(f"plots -> {plots_folder}")
        for name, reason in left_out.items():
            click.echo(f"no {name}: {reason}")


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
    people = numbers["people"]
    click.echo(f"{people['matched']} of {people['truth']} people matched")
    click.echo(f"{'':18}" + "".join(f"{name:>12}" for name in JOINT_SETS))
    for label, key, unit in _TABLE:
        cells = (_number(numbers[name][key], unit) for name in JOINT_SETS)
        click.echo(f"{label:18}" + "".join(f"{cell:>12}" for cell in cells))
    click.echo(f"{'PVE':18}{_number(numbers['pve_mm'], 'mm'):>12}")
    click.echo(f"{'joints, picture':18}{_number(numbers['joint_error_px'], 'px'):>12}")
    _say_joints(numbers["mpjpe_by_joint_mm"]["smpl24"])
    _say_calibration(numbers["overall"]["calibration"], numbers["calibration_reference"])
    click.echo(f"\nby group, joints of {joints}, mm")
    click.echo(_line("", _COLUMNS))
    groups = {
        "": [{"group": "everyone", **numbers["overall"]}],
        "keypoints seen": numbers["by_keypoints_seen"],
        "noise, of the person's size": numbers["by_noise"],
        **numbers["by_group"],
    }
    for title, rows in groups.items():
        _say_groups(title, rows, "people", lambda row: _error_cells(row, joints))
    if "segmentation" in numbers:
        _say_segmentation(numbers["segmentation"])


def _say_segmentation(scores: dict[str, Any]) -> None:
    without = scores["pictures_left_out"]
    left_out = f", {without} with somebody without a fit left out" if without else ""
    click.echo(f"\npixels{left_out}")
    click.echo(_line("", _MASK_COLUMNS))
    groups = {"": [{"group": "everyone", **scores["overall"]}], **scores["by_group"]}
    for title, rows in groups.items():
        _say_groups(title, rows, "pictures", _mask_cells)
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
    click.echo(f"{'farthest off':18} {', '.join(words)}")


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
    click.echo(f"{'calibration':18} {shares[0]},")
    click.echo(f"{'':18} {shares[1]};")
    click.echo(
        f"{'':18} {found['predicted_mm']:.0f} mm stated, {found['actual_mm']:.0f} mm actual, of "
        f"{found['people']} people"
    )


def _say_groups(
    title: str,
    rows: list[dict[str, Any]],
    count: str,
    cells_of: Callable[[dict[str, Any]], Sequence[str]],
) -> None:
    """A line for each group of which there is some `count`, and one for those without."""
    if title:
        click.echo(title)
    some = [row for row in rows if row[count]]
    for row in some[:_MOST_ROWS]:
        click.echo(_line(_cut(row["group"]), cells_of(row)))
    if len(some) > _MOST_ROWS:
        click.echo(f"  and {len(some) - _MOST_ROWS} more groups, which --json writes")
    nobody = [_cut(row["group"]) + _without_fit(row) for row in rows if not row[count]]
    if nobody:
        more = ", ..." if len(nobody) > _MOST_ROWS else ""
        click.echo(f"  nobody: {', '.join(nobody[:_MOST_ROWS])}{more}")


def _line(label: str, cells: Sequence[str]) -> str:
    return f"  {label:{_WIDEST_LABEL}}" + "".join(f"{cell:>11}" for cell in cells)


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
