"""The notebook runs top to bottom, and it calls; what it calls is defined in the package."""

import ast
import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "04_experiments.ipynb"
SECTIONS = ["Set-up", "Baseline", "Dropout", "Normalization", "Combined", "Analysis"]


@pytest.fixture
def notebook() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


def code_of(notebook: nbformat.NotebookNode) -> list[str]:
    return [
        "\n".join(line for line in cell.source.splitlines() if not line.startswith("%"))
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def test_the_notebook_runs_top_to_bottom(
    notebook: nbformat.NotebookNode, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CNNLAB_PROFILE", "tiny")
    monkeypatch.setenv("IPYTHONDIR", str(home / "ipython"))
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(home)}})
    client.execute()
    outputs = {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}
    for cell in ("baseline-figure", "dropout-figure", "dropout-curves"):
        assert any("image/png" in output.get("data", {}) for output in outputs[cell])
    (bar,) = (o for o in outputs["dropout-run"] if "%|" in o.get("data", {}).get("text/plain", ""))
    assert "tiny-02-dropout 100%" in bar["data"]["text/plain"]
    said = "".join(output.get("text", "") for output in outputs["dropout-run"])
    assert "Training 6 runs" in said  # three arms x two seeds; the control is taken over
    assert "To train: 6 runs, about" in outputs["dropout-plan"][0]["data"]["text/html"]
    table = outputs["dropout-run"][-1]["data"]["text/html"]
    assert all(f"dropout={p}" in table for p in (0.0, 0.1, 0.3, 0.5))


def test_every_section_has_its_place(notebook: nbformat.NotebookNode) -> None:
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    found = [line.split(". ", 1)[1] for line in text.splitlines() if line.startswith("## ")]
    assert found == SECTIONS


def test_the_notebook_defines_no_class_and_no_long_function(notebook: nbformat.NotebookNode) -> None:
    for source in code_of(notebook):
        for node in ast.walk(ast.parse(source)):
            assert not isinstance(node, ast.ClassDef)
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 5


def test_the_notebook_keeps_its_outputs_and_nothing_of_the_machine(notebook: nbformat.NotebookNode) -> None:
    ran = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count is not None for cell in ran)
    assert [cell.execution_count for cell in ran] == list(range(1, len(ran) + 1))
    assert all("execution" not in cell.metadata for cell in notebook.cells)
    raw = NOTEBOOK.read_text(encoding="utf-8")
    for path in (str(Path.home()), str(NOTEBOOK.parent), os.sep + "tmp" + os.sep):
        assert path not in raw
