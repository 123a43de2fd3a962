"""`fit-cli evaluate` as a user meets it, by the command that docs/evaluation.md shows."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from fits import fit_columns, fits_table

from fitting.table import PARAMETERS, read_fits, write_fits

PAGE = Path(__file__).resolve().parents[1] / "docs" / "evaluation.md"
N = 3


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """With the tables and the file that the document names; the last person has no fit."""
    parameters = {name: fit_columns(N)[name].copy() for name in PARAMETERS}
    parameters["body_pose"] *= 0.8
    for column in parameters.values():
        column[2] = np.nan
    stated = np.full((N, 24), 60.0)
    keypoints = np.ones((N, 17, 3))
    predicted = parameters | {"joint_std_mm": stated, "keypoints_2d": keypoints.reshape(N, -1)}
    (tmp_path / "OUT").mkdir()
    write_fits(tmp_path / "OUT" / "fits.parquet", fits_table(predicted, N))
    write_fits(tmp_path / "truth.parquet", fits_table({}, N))
    example = re.search(r"```csv\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[1]
    (tmp_path / "groups.csv").write_text(example, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shown_commands() -> list[list[str]]:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("fit-cli")]


def shown_command() -> list[str]:
    (command,) = (command for command in shown_commands() if "--masks" not in command)
    return command


def keys(value) -> set[str]:
    """Of all dictionaries within, but for names of joints and of columns."""
    if isinstance(value, list):
        return set().union(*map(keys, value))
    if not isinstance(value, dict):
        return set()
    named = ("by_group", "mpjpe_by_joint_mm", "f1_by_part")
    inner = {k: v for k, v in value.items() if k not in named}
    return set(value).union(*map(keys, inner.values()))


def test_the_shown_command(fit_cli, folder):
    code, said, err = fit_cli(*shown_command())
    assert (code, err) == (0, "")
    assert "2 of 3 people matched" in said
    numbers = json.loads((folder / "errors.json").read_text(encoding="utf-8"))
    rows = {row["group"]: row for row in numbers["by_group"]["action"]}
    assert (rows["walk"]["people"], rows["dance"]["people"], rows["dance"]["missing"]) == (2, 0, 1)
    assert "nobody: dance (1 without a fit)" in said
    (walk,) = (line.split() for line in said.splitlines() if line.startswith("  walk"))
    errors = rows["walk"]["lsp14"]
    assert walk[:3] == ["walk", "2", f"{errors['mpjpe_mm']:.1f}"]
    (subject,) = (line.split() for line in said.splitlines() if line.startswith("  B "))
    assert subject[:4] == ["B", "1", "of", "2"]
    assert f"{100 * numbers['overall']['calibration']['within_1']:.0f} % of joints within" in said
    pictures = sorted(path.name for path in (folder / "plots").glob("*"))
    page = PAGE.read_text(encoding="utf-8")
    assert len(pictures) == 5
    assert all(f"`{name}`" in page for name in pictures)


def test_every_number_is_described(fit_cli, folder):
    fit_cli(*shown_command())
    numbers = json.loads((folder / "errors.json").read_text(encoding="utf-8"))
    described = set(re.findall(r"`(\w+)`", PAGE.read_text(encoding="utf-8")))
    assert keys(numbers) <= described


@pytest.fixture
def masks(folder):
    """A set of drawn people beside fits that are the truth, but for one who has none."""
    from regressor.synthetic.rendered_set import SetConfig, write_rendered_set
    from regressor.synthetic.rendering import PictureConfig

    pictures = PictureConfig(size=(64, 64), occluded=0, looseness=0)
    write_rendered_set(folder / "PEOPLE", SetConfig(count=3, pictures=pictures, jobs=1))
    truth = read_fits(folder / "PEOPLE" / "truth.parquet")
    write_fits(folder / "OUT" / "fits.parquet", truth.select(np.arange(2)))
    return folder


def test_the_shown_command_with_masks(fit_cli, masks):
    (command,) = (command for command in shown_commands() if "--masks" in command)
    options = ("--json", "errors.json", "--plots", "plots")
    code, said, err = fit_cli(*command, *options)
    assert (code, err) == (0, "")
    numbers = json.loads((masks / "errors.json").read_text(encoding="utf-8"))
    assert keys(numbers) <= set(re.findall(r"`(\w+)`", PAGE.read_text(encoding="utf-8")))
    scores = numbers["segmentation"]
    assert (scores["overall"]["pictures"], scores["pictures_left_out"]) == (2, 1)
    assert scores["overall"]["foreground"]["f1"] > 0.98
    assert "1 with somebody without a fit left out" in said
    assert f"F1: background {scores['overall']['parts']['f1_by_part']['background']:.3f}" in said
    assert (masks / "plots" / "segmentation.png").is_file()
    assert "by group, joints of h36m14, mm" in said
    fit_cli("evaluate", "OUT", "PEOPLE/truth.parquet", "--plots", "plots")
    assert not (masks / "plots" / "segmentation.png").exists()


def test_pixels_by_group_and_kind(fit_cli, masks):
    (masks / "g.csv").write_text("image,person,action\n000000.jpg,0,walk\n", encoding="utf-8")
    options = ("--groups", "g.csv", "--masks", "PEOPLE/masks", "--mask-kind", "person")
    code, said, err = fit_cli("evaluate", "OUT", "PEOPLE/truth.parquet", *options)
    assert (code, err) == (0, "")
    pixels = said[said.index("pixels") :].splitlines()
    (walk,) = (line.split() for line in pixels if line.startswith("  walk"))
    assert walk[1] == "1"
    assert walk[-2:] == ["-", "-"]
    code, _, err = fit_cli("evaluate", "OUT", "PEOPLE/truth.parquet", "--masks", masks / "no")
    assert code == 2
    assert "no/000000.png does not exist" in err


def test_choices_are_those_of_the_library():
    from cli import evaluate
    from fitting.evaluation import JOINT_SETS
    from fitting.segmentation_scores import MASK_KINDS

    assert tuple(JOINT_SETS) == evaluate.JOINT_SETS
    assert evaluate.MASK_KINDS == MASK_KINDS


def test_columns_are_aligned(fit_cli, folder):
    _, said, _ = fit_cli(*shown_command())
    lines = said.splitlines()
    heading = next(line for line in lines if "PA-MPJPE" in line and "people" in line)
    for name in ("everyone", "walk", "14 to 17", "over 4 %"):
        row = next(line for line in lines if line.startswith(f"  {name} "))
        assert len(row) == len(heading)


def test_predictions_that_state_nothing(fit_cli, folder):
    truth = folder / "truth.parquet"
    code, said, _ = fit_cli("evaluate", truth, truth, "--plots", folder / "p")
    assert code == 0
    assert "calibration        -, the predictions have no joint_std_mm" in said
    assert "no calibration.png: the predictions do not say how sure they are" in said
    assert "  none " in said
    assert not (folder / "p" / "calibration.png").exists()


def test_long_tables_are_cut(fit_cli, folder):
    people, many = 15, folder / "many.parquet"
    write_fits(many, fits_table({}, people))
    lines = [f"{n}.jpg,0,{'long name ' * 5}{n}" for n in range(people)]
    (folder / "g.csv").write_text("\n".join(["image,person,group", *lines]), encoding="utf-8")
    _, said, _ = fit_cli("evaluate", many, many, "--groups", folder / "g.csv", "--json", "e.json")
    assert said.count("long name long name lon…") == 12
    assert "and 3 more groups, which --json writes" in said
    numbers = json.loads((folder / "e.json").read_text(encoding="utf-8"))
    assert len(numbers["by_group"]["group"]) == people


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,person,action\n0.jpg,zero,walk\n", "g.csv, line 2: person must be the whole"),
        ("image,person,action\nx.jpg,0,walk\n", "g.csv holds none of the 3 people of the truth"),
    ],
)
def test_bad_groups_are_named_in_one_sentence(text, message, fit_cli, folder):
    (folder / "g.csv").write_text(text, encoding="utf-8")
    code, _, err = fit_cli("evaluate", "OUT", "truth.parquet", "--groups", "g.csv")
    assert code == 2
    assert message in err
    assert len(err.splitlines()) == 1


def test_plots_without_matplotlib_fail_before_the_work(fit_cli, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, said, err = fit_cli("evaluate", "OUT", "truth.parquet", "--plots", "p")
    assert (code, said) == (2, "")
    assert err == "fit-cli: plots need matplotlib; install it by pip install 'bodyloop[train]'\n"
