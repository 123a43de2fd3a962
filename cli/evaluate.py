"""`fit-cli evaluate`: fits against the truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click


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
    from fitting.table import read_fits
    from fitting.writers import check_body

    if plots_folder is not None:
        check_matplotlib()
    groups = None if groups_file is None else read_groups(groups_file)
    body = load_body(body_file)
    tables = [read_fits(path) for path in (predicted, truth)]
    for table in tables:
        check_body(table, body)
    comparison = compare_fits(tables[0], tables[1], body)
    columns = {} if groups is None else group_by_columns(groups, comparison)
    numbers = mean_errors(comparison) | break_down(comparison, columns)
    if json_file is not None:
        write_json(json_file, numbers)
    _say(numbers)
    if plots_folder is not None:
        left_out = write_plots(plots_folder, comparison, columns)
        click.echo(f"plots -> {plots_folder}")
        for name, reason in left_out.items():
            click.echo(f"no {name}: {reason}")


_TABLE = (
    ("MPJPE", "mpjpe_mm", "mm"),
    ("PA-MPJPE", "pa_mpjpe_mm", "mm"),
    ("PCK@150", "pck_150", ""),
    ("AUC", "auc", ""),
)
_COLUMNS = ("people", "MPJPE", "median", "> 150 mm", "PA-MPJPE", "median", "wrong kp")
_MOST_ROWS = 12  # of a table that are printed; the JSON holds all
_WIDEST_LABEL = 24


def _say(numbers: dict[str, Any]) -> None:
    people = numbers["people"]
    click.echo(f"{people['matched']} of {people['truth']} people matched")
    click.echo(f"{'':18} {'SMPL, 24 joints':>16} {'LSP, 14 joints':>16}")
    for label, key, unit in _TABLE:
        cells = (_number(numbers[joints][key], unit) for joints in ("smpl24", "lsp14"))
        click.echo(f"{label:18} {next(cells):>16} {next(cells):>16}")
    click.echo(f"{'PVE':18} {_number(numbers['pve_mm'], 'mm'):>16}")
    click.echo(f"{'joints, picture':18} {_number(numbers['joint_error_px'], 'px'):>16}")
    _say_joints(numbers["mpjpe_by_joint_mm"]["smpl24"])
    _say_calibration(numbers["overall"]["calibration"], numbers["calibration_reference"])
    click.echo("\nby group, LSP's joints, mm")
    click.echo(_line("", _COLUMNS))
    _say_groups("", [{"group": "everyone", **numbers["overall"]}])
    _say_groups("keypoints seen", numbers["by_keypoints_seen"])
    _say_groups("noise, of the person's size", numbers["by_noise"])
    for name, rows in numbers["by_group"].items():
        _say_groups(name, rows)


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


def _say_groups(title: str, rows: list[dict[str, Any]]) -> None:
    """A line for each group that has somebody, and one for those that have nobody."""
    if title:
        click.echo(title)
    some = [row for row in rows if row["people"]]
    for row in some[:_MOST_ROWS]:
        click.echo(_line(_cut(row["group"]), _cells(row)))
    if len(some) > _MOST_ROWS:
        click.echo(f"  and {len(some) - _MOST_ROWS} more groups, which --json writes")
    nobody = [_cut(row["group"]) + _without_fit(row) for row in rows if not row["people"]]
    if nobody:
        more = ", ..." if len(nobody) > _MOST_ROWS else ""
        click.echo(f"  nobody: {', '.join(nobody[:_MOST_ROWS])}{more}")


def _line(label: str, cells: Sequence[str]) -> str:
    return f"  {label:{_WIDEST_LABEL}}" + "".join(f"{cell:>11}" for cell in cells)


def _cut(label: str) -> str:
    return label if len(label) <= _WIDEST_LABEL else label[: _WIDEST_LABEL - 1] + "…"


def _without_fit(row: dict[str, Any]) -> str:
    return f" ({row['missing']} without a fit)" if row.get("missing") else ""


def _cells(row: dict[str, Any]) -> list[str]:
    errors, keypoints = row["lsp14"], row["keypoints"]
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
