"""The notebook stops at every blank, and runs to its end when all are filled; its functions are in the package."""

import ast
import os
import re
import runpy
from copy import deepcopy
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from cnnlab.course.examples import EXAMPLES
from cnnlab.course.studies import SECTIONS
from cnnlab.inquiry.judge.review import review
from cnnlab.inquiry.record.connection import connect
from cnnlab.inquiry.record.entries import empty_reflections, entries
from cnnlab.inquiry.record.ledger import load_records
from cnnlab.inquiry.record.runs import load_runs
from tests.golden import copy_what_ships
from tests.helpers import settle

ROOT = Path(__file__).parents[1]
TOOL = runpy.run_path(str(ROOT / ".ci" / "notebook.py"))
HEADINGS = ["0 Set-up", "1 Baseline", "2 Dropout", "3 Normalization", "4 Combined", "Analysis and visualization"]
STEPS = ["Question", "Predict", "Run", "Confront", "Explain"]
WORDS = {"why": "the table shows a mechanism at work", "next": "the same with more seeds"}


@pytest.fixture
def notebook() -> nbformat.NotebookNode:
    return nbformat.read(ROOT / TOOL["NOTEBOOK"], as_version=4)


@pytest.fixture(scope="module")
def finished() -> nbformat.NotebookNode:
    return nbformat.read(ROOT / "experiment_log" / TOOL["FINISHED"], as_version=4)


def example_answers() -> dict[str, dict[str, Any]]:
    """Return an answer for every blank: the lab's examples."""
    claim = TOOL["Code"]('{"no norm": (norms, "norm=none"), "batch norm": (norms, "norm=batch")}')
    answers = {"vault": {"arms": claim, "reason": "the claim of this test"}}
    for section, study in SECTIONS.items():
        answers[f"{section}-reflect"] = WORDS
        answers |= {f"{section}-predict-{i}": example for i, example in enumerate(EXAMPLES[study], start=1)}
    return answers


def refuses(cell: nbformat.NotebookNode) -> bool:
    """Return whether the blanks of a cell stop it; a question without an answer is shown instead."""
    return TOOL["has_blanks"](cell) and "quiz(" not in cell.source


def with_blanks_first(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return a notebook with filled blanks, in which each cell with blanks first runs unfilled."""
    filled = TOOL["filled"](notebook, example_answers())
    cells = []
    for before, after in zip(notebook.cells, filled.cells, strict=True):
        if refuses(before):
            blank = deepcopy(before)
            blank.id += "-blank"
            blank.metadata["tags"] = ["raises-exception"]
            cells.append(blank)
        if not TOOL["is_left_open"](before, example_answers()):
            cells.append(after)
    filled.cells = cells
    return filled


def client_for(notebook: nbformat.NotebookNode, home: Path, monkeypatch: pytest.MonkeyPatch) -> NotebookClient:
    monkeypatch.setenv("CNNLAB_PROFILE", "tiny")
    monkeypatch.setenv("IPYTHONDIR", str(home / "ipython"))
    return NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(home)}})


def texts(outputs: list) -> list[str]:
    """Return the whole output of a cell, as text or HTML."""
    return [output.get("text", "") + output.get("data", {}).get("text/html", "") for output in outputs] + [
        output.get("data", {}).get("text/plain", "") for output in outputs
    ]


def test_run_all_stops_at_the_first_blank_with_nothing_trained_or_recorded(
    notebook: nbformat.NotebookNode, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CellExecutionError) as stopped:
        client_for(notebook, home, monkeypatch).execute()
    assert stopped.value.ename == "LabError"
    for open_one in (
        "still open: direction, confidence, because, if_refuted",
        "'higher', 'lower' or 'none'",
        "50 (a coin)",
    ):
        assert open_one in stopped.value.evalue
    ran = [cell.id for cell in notebook.cells if cell.cell_type == "code" and cell.execution_count]
    assert ran[-1] == "1-predict-1"
    assert load_records(connect()) == [] and load_runs(connect()).empty


def test_the_notebook_refuses_every_blank_and_runs_to_its_end_once_they_are_filled(
    notebook: nbformat.NotebookNode, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = with_blanks_first(notebook)
    client_for(both, home, monkeypatch).execute()
    outputs = {cell.id: cell.outputs for cell in both.cells if cell.cell_type == "code"}
    blank = {name: found for name, found in outputs.items() if name.endswith("-blank")}
    assert len(blank) == 26
    for name, found in blank.items():
        assert [output.get("ename") for output in found] == ["LabError"], name
        assert "still open: " in found[0]["evalue"], name
    assert "6 checks passed" in "".join(texts(outputs["sanity"]))
    assert "Noise floor: runs that differ only in their seed" in "".join(texts(outputs["2a-power"]))
    for section in SECTIONS:
        shown = "".join(texts(outputs[f"{section}-verdict"]))
        assert "I am" in shown and "% confident that" in shown and "n = 2 seeds" in shown, section
        assert any("image/png" in output.get("data", {}) for output in outputs[f"{section}-verdict"]), section
        assert "Written into experiment_log/" in "".join(texts(outputs[f"{section}-reflect"])), section
    assert len(TOOL["pictures"](both)) > 30
    assert all(len(picture.metadata["image/png"]["alt"]) > 10 for picture in TOOL["pictures"](both))
    assert "Right." in "".join(texts(outputs["1-quiz"]))
    assert "Opening 1 of the test vault" in "".join(texts(outputs["vault"]))
    assert WORDS["why"] in "".join(texts(outputs["conclusions"]))
    check_the_record(home)


def check_the_record(home: Path) -> None:
    """The cells' predictions are those of the shipped examples and recorded as such; each has a verdict."""
    store = connect()
    records = load_records(store)
    predicted = [(record.experiment.removeprefix("tiny-"), record.content["because"]) for record in records]
    expected = [(study, one["because"]) for study in SECTIONS.values() for one in EXAMPLES[study]]
    assert sorted(predicted) == sorted(expected)
    assert all(record.verdicts for record in records)
    assert {record.verdicts[-1].content["label"] for record in records} == {"example"}
    found = review(store)
    assert found.is_intact, found.problems
    assert len(entries()) == len(records)
    assert empty_reflections(home / "experiment_log") == []


@pytest.mark.parametrize("text", ["short", "a much longer thought " * 20, "with 'both' \"quotes\"\nand\tmore " * 9])
def test_an_answer_is_broken_into_lines_without_changing_it(text: str) -> None:
    code = TOOL["literal"](text, "    ")
    assert ast.literal_eval(code) == text
    assert max(map(len, code.splitlines())) < 110


def test_every_section_has_its_place_and_every_study_its_five_steps(notebook: nbformat.NotebookNode) -> None:
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert re.findall(r"^## (.*)", text, re.MULTILINE) == [*HEADINGS, "Extensions", "Glossary", "Sources"]
    steps = [line.lstrip("# ") for line in text.splitlines() if line.lstrip("# ") in STEPS and line.startswith("#")]
    assert steps == STEPS * len(SECTIONS)
    numbered = re.findall(r"^##+ (\d\w?) ", text, re.MULTILINE)
    assert [one for one in numbered if one in SECTIONS] == list(SECTIONS)
    for section, study in SECTIONS.items():
        assert study.startswith(f"0{section[0]}-")


def test_every_term_is_in_the_glossary(notebook: nbformat.NotebookNode) -> None:
    *cells, glossary, _ = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    known = glossary.lower()
    plain = re.sub(r"\*\*.*?\*\*", "", "\n".join(cells), flags=re.DOTALL)
    terms = {term.lower() for term in re.findall(r"(?<![\w*])\*([^*\n]+)\*", plain)} - {"italics"}
    assert len(terms) > 40
    assert [term for term in sorted(terms) if term.removesuffix("s") not in known] == []
    rows = [line.split("|")[1].strip() for line in glossary.splitlines()[4:]]
    assert rows == sorted(rows, key=str.lower)


def test_every_folded_explanation_names_a_number_and_a_misconception(notebook: nbformat.NotebookNode) -> None:
    folded = {cell.id: cell.source for cell in notebook.cells if "<details>" in cell.source}
    assert list(folded) == [f"{section}-why" for section in SECTIONS]
    for name, text in folded.items():
        assert "If you were right, if you were wrong" in text and "**The usual misconception**" in text, name


def test_the_notebook_defines_no_class_and_no_function(notebook: nbformat.NotebookNode) -> None:
    for cell in notebook.cells:
        if cell.cell_type == "code":
            code = "\n".join(line for line in cell.source.splitlines() if not line.startswith("%"))
            kinds = {type(node) for node in ast.walk(ast.parse(code))}
            assert not kinds & {ast.ClassDef, ast.FunctionDef}, cell.id


def test_the_notebook_ships_without_outputs(notebook: nbformat.NotebookNode) -> None:
    for cell in notebook.cells:
        assert not cell.metadata
        if cell.cell_type == "code":
            assert cell.execution_count is None and cell.outputs == []
    assert notebook.metadata.kernelspec.display_name == "Python 3 (ipykernel)"  # the name that JupyterLab would write


def test_the_finished_notebook_is_the_students_with_the_reference_results(
    notebook: nbformat.NotebookNode, finished: nbformat.NotebookNode, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    copy_what_ships(tmp_path)
    settle(monkeypatch, tmp_path, owner="reference")
    answers = TOOL["recorded"](connect())
    expected = TOOL["filled"](notebook, answers)
    assert [(cell.id, cell.source) for cell in finished.cells] == [(cell.id, cell.source) for cell in expected.cells]
    ran = [cell for cell in finished.cells if cell.cell_type == "code" and not TOOL["is_left_open"](cell, answers)]
    assert [cell.execution_count for cell in ran] == list(range(1, len(ran) + 1))
    assert not [cell.id for cell in ran for output in cell.outputs if output.output_type == "error"]
    still = [cell.id for cell in finished.cells if cell.cell_type == "code" and cell not in ran]
    assert {name.partition("-")[0] for name in still} == {"own"}


def test_the_finished_notebook_says_nothing_about_the_machine_and_is_small() -> None:
    for ending in (".ipynb", ".html"):
        raw = (ROOT / "experiment_log" / TOOL["FINISHED"]).with_suffix(ending).read_text(encoding="utf-8")
        for path in (str(Path.home()), str(ROOT), os.sep + "tmp" + os.sep):
            assert path not in raw
        assert len(raw) < 3_000_000
