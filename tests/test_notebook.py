"""The notebook runs top to bottom, and it calls; what it calls is defined in the package."""

import ast
import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from cnnlab.course.examples import EXAMPLES
from cnnlab.inquiry.judge.review import review
from cnnlab.inquiry.record.connection import connect
from cnnlab.inquiry.record.entries import entries
from cnnlab.inquiry.record.ledger import load_records

NOTEBOOK = Path(__file__).parents[1] / "04_experiments.ipynb"
SECTIONS = ["Set-up", "Baseline", "Dropout", "Normalization", "Combined", "Search", "Analysis"]


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
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(home)}})
    client.execute()
    outputs = {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}
    assert "6 checks passed" in "".join(texts(outputs["sanity"]))
    assert "Noise floor: runs that differ only in their seed" in "".join(texts(outputs["dropout-power"]))
    for study in ("baseline", "dropout", "dropout-long", "lr", "norm", "tiny", "combined"):
        shown = "".join(texts(outputs[f"{study}-verdict"]))
        assert "I am" in shown and "% confident that" in shown
        assert "n = 2 seeds" in shown
        assert any("image/png" in output.get("data", {}) for output in outputs[f"{study}-verdict"])
    for cell, found in outputs.items():
        if cell.endswith(("-figure", "-gaps", "-dose", "-probes")):
            assert any("image/png" in output.get("data", {}) for output in found), cell
    assert "The winner's curse" in "".join(texts(outputs["search-run"]))
    assert "Opening 1 of the test vault" in "".join(texts(outputs["vault"]))
    check_the_record(home)


def texts(outputs: list) -> list[str]:
    """Everything that a cell says, as text or HTML."""
    return [output.get("text", "") + output.get("data", {}).get("text/html", "") for output in outputs] + [
        output.get("data", {}).get("text/plain", "") for output in outputs
    ]


def check_the_record(home: Path) -> None:
    """What the cells predict is what ships as examples; every prediction has a verdict; the chain is intact."""
    store = connect()
    records = load_records(store)
    searched = [record for record in records if record.experiment == "tiny-05-search"]  # predicted by the script
    by_cells = [record for record in records if record not in searched]
    predicted = [(record.experiment.removeprefix("tiny-"), record.content["because"]) for record in by_cells]
    in_notebook = {study: examples for study, examples in EXAMPLES.items() if study != "02-dropout-short"}
    assert predicted == [(study, one["because"]) for study, examples in in_notebook.items() for one in examples]
    assert all(record.verdicts for record in records)
    assert {record.verdicts[-1].content["label"] for record in records} == {"confirmatory"}
    found = review(store)
    assert found.is_intact, found.problems
    assert len(searched) == 1
    assert len(entries()) == len(records)


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
