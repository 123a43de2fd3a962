"""`fit-cli evaluate`: fits against the truth."""

from __future__ import annotations

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
def evaluate(predicted: Path, truth: Path, body_file: Path | None, json_file: Path | None) -> None:
    """Compare the fits PREDICTED with the TRUTH, both fits tables or folders of runs.

    People are matched by picture and number within it.
    """  # fmt: skip
    from fitting.body import load_body
    from fitting.evaluation import evaluate_fits
    from fitting.files import write_json
    from fitting.table import read_fits
    from fitting.writers import check_body

    body = load_body(body_file)
    tables = [read_fits(path) for path in (predicted, truth)]
    for table in tables:
        check_body(table, body)
    numbers = evaluate_fits(tables[0], tables[1], body)
    if json_file is not None:
        write_json(json_file, numbers)
    _say(numbers)


_TABLE = (
    ("MPJPE", "mpjpe_mm", "mm"),
    ("PA-MPJPE", "pa_mpjpe_mm", "mm"),
    ("PCK@150", "pck_150", ""),
    ("AUC", "auc", ""),
)


def _say(numbers: dict[str, Any]) -> None:
    people = numbers["people"]
    click.echo(f"{people['matched']} of {people['truth']} people matched")
    click.echo(f"{'':18} {'SMPL, 24 joints':>16} {'LSP, 14 joints':>16}")
    for label, key, unit in _TABLE:
        cells = (_number(numbers[joints][key], unit) for joints in ("smpl24", "lsp14"))
        click.echo(f"{label:18} {next(cells):>16} {next(cells):>16}")
    click.echo(f"{'PVE':18} {_number(numbers['pve_mm'], 'mm'):>16}")
    click.echo(f"{'joints, picture':18} {_number(numbers['joint_error_px'], 'px'):>16}")


def _number(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    return f"{value:.1f} {unit}" if unit else f"{value:.3f}"
