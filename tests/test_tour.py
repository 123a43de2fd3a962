"""The notebook docs/tour.ipynb: runs from top to bottom, and stands there as it ran."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "docs" / "tour.ipynb"
LARGEST_KB = 400

nbformat = pytest.importorskip("nbformat")


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def code_of(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kinds(cell) -> set[str]:
    """What a cell shows: text, pictures."""
    return {
        "picture" if "image/jpeg" in output.get("data", {}) else output.output_type
        for output in cell.outputs
    }


def test_has_ten_cells_that_stand_there_as_they_ran(notebook):
    nbformat.validate(notebook)
    cells = code_of(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, 11))
    assert sum("picture" in kinds(cell) for cell in cells) == 7
    assert all(kinds(cell) for cell in cells)


def test_is_small_and_names_no_folder_of_somebodys_machine(notebook):
    assert NOTEBOOK.stat().st_size < LARGEST_KB * 1000
    texts = [o.get("text", "") for cell in code_of(notebook) for o in cell.outputs]
    assert not any(place in text for text in texts for place in ("/tmp", "/home", str(ROOT)))


def test_runs(notebook, tmp_path, monkeypatch):
    """Each cell shows what it showed when the notebook was committed: pictures, words or both."""
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    fresh = nbformat.from_dict(notebook)
    for cell in code_of(fresh):
        cell.outputs, cell.execution_count = [], None
    client = nbclient.NotebookClient(
        fresh,
        timeout=1800,
        kernel_name="python3",
        coalesce_streams=True,
        resources={"metadata": {"path": str(tmp_path)}},
    )
    client.execute()
    for before, after in zip(code_of(notebook), code_of(fresh), strict=True):
        assert kinds(before) == kinds(after), before.source
