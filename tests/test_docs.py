"""Every command of the README and the docs is executed; test_own.py has the Python blocks."""

import io
import re
import sys
from pathlib import Path

import click
import pytest

from cnnlab.course.profiles import find_profile
from cnnlab.course.studies import lab_studies
from cnnlab.inquiry.record.connection import connect
from cnnlab.inquiry.record.runs import load_runs
from cnnlab.inquiry.show.logbook import reflect
from tests.golden import PROJECT, copy_what_ships
from tests.helpers import Cnnlab
from tests.test_own import DOCS

# The commands of one student, in the order of a day, with their output; the placeholders are filled in below.
A_DAY = {
    "doctor": "OK",
    "predict dropout": "by a student, sealed",
    "plan dropout": "To train: 8 runs",
    "run dropout": "Head of everything that a student has on record",
    "verdict": ", confirmatory: loss/valid",
    "report": "Report: ",
    "review": "Intact: ",
    "review path/to/folder": "Intact: ",
    "review path/to/folder --head HEAD": "The head is that of a student",
    "review path/to/folder --reproduce 3": "Reproduced",
    "reproduce RUN_ID": "Reproduced: identical to the last bit.",
    "champion RUN_ID": "models:/fashion-cnn@champion",
    "server start": "",
    "server status": "running",
    "ui": "/lab",
    "server command": "mlflow",
    "server stop": "",
}
ANSWERS = ["dropout=0.5", "loss/valid", "higher", "", "70", "it takes features away", "it takes nothing away", "y"]

# CI itself, or the test that is named, executes what takes hours or needs a network.
ELSEWHERE = {
    "pip install uv": ".ci/run: pip install --quiet uv",
    "pip install .": "test_surroundings.py: pip",
    "pip install mlflow==3.17.2": "test_surroundings.py: pip",
    "uv sync": ".ci/run: uv sync",
    "uv sync --extra ray": ".ci/run: uv sync --quiet --compile-bytecode --extra ray --extra class",
    "uv run pytest": ".ci/run: uv run pytest",
    "uv run pytest tests/test_data.py": ".ci/run: uv run pytest",
    "bash .ci/run": ".ci/run: set -euo pipefail",
    "uv run cnnlab run baseline dropout --examples": "test_cli.py: test_the_main_job_runs_end_to_end_on_real_data",
    "uv run cnnlab run dropout --profile full": "test_reference.py: FULL",
    "uv run cnnlab run dropout --engine ray --address 10.0.0.5:6379": "test_ray.py: --address",
    "uv run cnnlab reproduce": "test_reproduce.py: one_run_of_each",
    "uv run jupyter lab 04_experiments.ipynb": "test_notebook.py: NotebookClient",
    "uv run 03_mlflow.py": "test_search.py: run_script",
    "./start_server.sh": "test_server.py: start_server.sh",
    "./stop_server.sh": "test_server.py: stop_server.sh",
    "uv sync --extra class": "class_server.py: uv sync --extra class",
    "uv run cnnlab class roster roster.csv --server URL": "test_class.py: roster_command",
    "uv run cnnlab class roster roster.csv --server $SERVER --out accounts": 'test_class.py: "--out"',
    "uv run cnnlab class roster roster.csv --server $SERVER --out accounts --reset ada": 'test_class.py: "--reset"',
    "uv run cnnlab class $SERVER --roster roster.csv --deadline 2026-12-01T18:00 \\": "test_class.py: look_at_class",
    "uv run cnnlab class path/to/hand-ins": 'test_classroom.py: here("class", ',
    "uv run cnnlab class handout lab.zip": 'test_handout.py: "handout"',
    "uv run cnnlab review $SERVER --database postgresql+psycopg:///mlflow": 'test_class.py: "--database"',
    "uv run mlflow server --app-name basic-auth --enable-workspaces --workers 1 \\": "class_server.py: basic-auth",
    "uvx pre-commit install": ".pre-commit-config.yaml: ruff",
    "uv run .ci/pin.py": "test_docs.py: .ci/pin.py",
    "uv run .ci/released.py --write": "test_integrity.py: released.py",
    "uv run .ci/notebook.py": "test_notebook.py: notebook.py",
    "uv run python -m tests.golden": "test_shipped.py: golden_files",
}
COMMAND = re.compile(r"(?:uvx? |pip install |bash |\./)\S.*")


def commands(text: str) -> set[str]:
    """Return the commands of a page: the lines of its bash blocks, and the text in backticks elsewhere."""
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = [part.split("  #")[0].strip() for line in "".join(blocks).splitlines() for part in line.split(" && ")]
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return {one for one in (*lines, *inline) if COMMAND.fullmatch(one) and one != "uv run"}


def test_every_command_is_executed_somewhere() -> None:
    written = set().union(*(commands(page.read_text(encoding="utf-8")) for page in DOCS))
    assert written == {f"uv run cnnlab {command}" for command in ["results", *A_DAY]} | set(ELSEWHERE)


@pytest.mark.parametrize("place", sorted(set(ELSEWHERE.values())))
def test_the_tests_that_execute_the_others_exist(place: str) -> None:
    name, text = place.split(": ", 1)
    file = PROJECT / name if name.startswith(".") else PROJECT / "tests" / name
    assert text in file.read_text(encoding="utf-8")


def test_a_day_with_the_commands_of_the_docs(
    home: Path, here: Cnnlab, light: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CNNLAB_PROFILE", "tiny")
    opened: list[str] = []
    monkeypatch.setattr(click, "launch", opened.append)
    filled = {"path/to/folder": str(home)}
    for command, says in A_DAY.items():
        monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(ANSWERS)))
        arguments = [filled.get(word, word) for word in command.split(" ")]
        done = here(*arguments)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        assert says in done.stdout + done.stderr, command
        if command == "run dropout":
            filled["HEAD"] = re.findall("[0-9a-f]{64}", done.stdout)[-1]
            runs = load_runs(connect())
            filled["RUN_ID"] = runs[runs["owner"] == "a student"]["run_id"].iloc[0]
        if command == "verdict":
            reflect(
                lab_studies(find_profile("tiny"))["tiny-02-dropout"],
                why="there were too few images",
                next="I would train longer",
            )
    assert len(opened) == 1 and opened[0].endswith("/lab")


def test_the_reference_results_are_shown(home: Path, here: Cnnlab) -> None:
    copy_what_ships(home)
    shown = here("results").stdout
    assert "winner    5  92.62     0.14" in shown
    assert max(map(len, shown.partition("Opening")[0].splitlines())) <= 80


def test_no_line_of_code_is_cut_off_at_the_width_of_a_web_page() -> None:
    pages = "\n".join(page.read_text(encoding="utf-8") for page in DOCS if page.name != "CONTRIBUTING.md")
    code = "\n".join(re.findall(r"```.*?```", pages, re.DOTALL)).splitlines()
    assert [line for line in code if len(line) > 88] == []


def test_the_readme_is_short() -> None:
    assert len((PROJECT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_every_link_leads_somewhere() -> None:
    """Links within the project; links to the web can't be followed without a network."""
    for page in DOCS:
        targets = re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
        assert [one for one in targets if "://" not in one and not (page.parent / one).exists()] == []
