"""The finished lab: uv run .ci/notebook.py

It fills the blanks of 04_experiments.ipynb with what the reference recorded, runs it in the full profile, and writes
experiment_log/reference.ipynb, and the same as a page. A section without a verdict on record stays unchanged. It needs
the weights of the networks, so it comes before .ci/ship.py.
"""

import base64
import html
import io
import os
import re
import textwrap
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from PIL import Image

from cnnlab.course.examples import EXAMPLES
from cnnlab.course.profiles import PROFILES
from cnnlab.course.questions import QUESTIONS
from cnnlab.course.reference import OWNER, reference_studies
from cnnlab.course.search import search_study
from cnnlab.course.studies import SECTIONS
from cnnlab.inquiry import paths
from cnnlab.inquiry.claim import Claim
from cnnlab.inquiry.prediction import Prediction, choose_contrast, load_predictions
from cnnlab.inquiry.record.connection import connect
from cnnlab.inquiry.record.entries import entries, reflected
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.record.vault_record import load_vault

NOTEBOOK, FINISHED = "04_experiments.ipynb", "reference.ipynb"
BLANK = re.compile(r"^(?P<begin>(?P<indent> *)(?P<name>\w+)=)(?:\.\.\.|\(\.\.\., \.\.\.\))(?=,$)", re.MULTILINE)
QUIZ = re.compile(r'(?P<begin>quiz\("(?P<section>\w+)", answer=)\.\.\.')
NO_TEXT = "No description has been provided for this image"
WIDTH = 88  # characters of a line of code in JupyterLab, at 1440 px
Answers = Mapping[str, Mapping[str, Any]]  # by the id of a cell, then by the name of a blank


class Code(str):
    """An answer that is code, not text."""

    def __repr__(self) -> str:
        return str(self)


def literal(value: Any, indent: str) -> str:
    """Return the code of an answer; a long text is broken into strings that fit a line."""
    if not isinstance(value, str) or isinstance(value, Code) or len(value) < WIDTH:
        return repr(value)
    parts = textwrap.wrap(value, WIDTH, drop_whitespace=False, replace_whitespace=False, expand_tabs=False)
    return "\n".join(["(", *(f"{indent}    {part!r}" for part in parts), f"{indent})"])


def has_blanks(cell: nbformat.NotebookNode) -> bool:
    """Return whether a cell waits for answers."""
    return cell.cell_type == "code" and bool(BLANK.search(cell.source) or QUIZ.search(cell.source))


def fill(source: str, answers: Mapping[str, Any]) -> str:
    """Return the code of a cell with answers in its blanks; of a question, with the right one.

    Raises:
        KeyError: a blank has no answer.
    """
    if answers.get("builds_on") and "builds_on=" not in source:  # what only the reference had seen before
        source = source.removesuffix(")") + "    builds_on=...,\n)"
    source = QUIZ.sub(lambda blank: f"{blank['begin']}{QUESTIONS[blank['section']].right!r}", source)
    return BLANK.sub(
        lambda blank: blank["begin"] + literal(answers[blank["name"]], blank["indent"]),
        source,
    )


def is_left_open(cell: nbformat.NotebookNode, answers: Answers) -> bool:
    """Return whether a cell belongs to a section with a prediction that has no answer, such as the student's own."""
    section = cell.id.partition("-")[0]
    return section in ("own", *SECTIONS) and f"{section}-reflect" not in answers


def filled(notebook: nbformat.NotebookNode, answers: Answers) -> nbformat.NotebookNode:
    """Return a notebook with answers in its blanks; a section without answers stays unchanged."""
    notebook = deepcopy(notebook)
    for cell in notebook.cells:
        if has_blanks(cell) and not is_left_open(cell, answers):
            cell.source = fill(cell.source, answers.get(cell.id, {}))
    return notebook


def reflection_on(predictions: list[Prediction]) -> dict[str, str]:
    """Return the last reflection on some predictions."""
    seals = {one.record.sha256[:12] for one in predictions}
    written = entries()
    last = [name for name in written if name.partition("-")[0] in seals][-1]
    words = reflected(written.values())[last]
    return {"why": words.why, "next": words.next}


def recorded(store: Store) -> Answers:
    """Return what the reference recorded, for every cell that asks for it."""
    answers: dict[str, dict[str, Any]] = {}
    known = load_predictions(store, owner=OWNER)
    studies = reference_studies() | {"05-search": search_study(PROFILES["full"], store)}
    for section, name in SECTIONS.items():
        about = [one for one in known if one.study == name and one.record.verdicts]
        if not about:
            continue
        asked = []
        for number, example in enumerate(EXAMPLES[name], start=1):
            wanted = (choose_contrast(studies[name], Claim(**example)).text, example["metric"])
            asked.append([one for one in about if (one.contrast.text, one.metric.name) == wanted][-1])
            answers[f"{section}-predict-{number}"] = dict(asked[-1].claim)
        answers[f"{section}-reflect"] = reflection_on(asked)
    arms = {arm: Code(f'(search_study(profile, store), "{arm}")') for arm in ("baseline", "winner")}
    return answers | {"vault": {"arms": arms, "reason": load_vault(store, OWNER)[0].reason}}


def run(notebook: nbformat.NotebookNode, answers: Answers) -> None:
    """Run the cells of a filled notebook in the project folder, except those of sections that are open."""
    still = [cell for cell in notebook.cells if cell.cell_type == "code" and is_left_open(cell, answers)]
    kept = [cell.source for cell in still]
    for cell in still:
        cell.source = ""  # a cell without code is not run
    folder = {"metadata": {"path": str(paths.project_root())}}
    NotebookClient(notebook, timeout=None, kernel_name="python3", record_timing=False, resources=folder).execute()
    for cell, source in zip(still, kept, strict=True):
        cell.source = source


def smaller(png: str) -> str:
    """Return a picture with 256 colours, in base64 as it came: less than half as large, and nobody sees it."""
    file = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(png))) as picture:
        picture.convert("RGB").quantize(256).save(file, "png", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def pictures(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """Return the outputs of a notebook that are pictures."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output for output in outputs if "image/png" in output.get("data", {})]


def as_page(notebook: nbformat.NotebookNode) -> str:
    """Return a notebook as HTML, each picture with its alternative text in place of nbconvert's."""
    page, _ = HTMLExporter().from_notebook_node(notebook)
    for picture in pictures(notebook):
        text = picture.metadata.get("image/png", {}).get("alt", "A figure; its title is in the picture.")
        page = page.replace(f'alt="{NO_TEXT}"', f'alt="{html.escape(text)}"', 1)
    return str(page)


def main() -> None:
    """Write the finished lab."""
    os.environ |= {"CNNLAB_OWNER": OWNER, "CNNLAB_PROFILE": "full"}
    answers = recorded(connect())
    notebook = filled(nbformat.read(paths.project_root() / NOTEBOOK, as_version=4), answers)
    run(notebook, answers)
    for picture in pictures(notebook):
        picture.data["image/png"] = smaller(picture.data["image/png"])
    nbformat.write(notebook, paths.experiment_log() / FINISHED)
    page = (paths.experiment_log() / FINISHED).with_suffix(".html")
    page.write_text(as_page(notebook), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
