"""What an instructor hands out: a lab that works, and in which nobody sees the answers first."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from cnnlab.inquiry.record.ledger import load_records
from cnnlab.inquiry.record.runs import load_raw
from cnnlab.inquiry.record.snapshot import snapshot
from tests.golden import PROJECT

FIRST = ["run", "baseline", "--examples", "--profile", "tiny", "--epochs", "1", "--seeds", "2", "--quiet"]


@pytest.fixture(scope="module")
def handed_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked lab, in a folder with a space."""
    folder = tmp_path_factory.mktemp("handed out")
    environment = {name: value for name, value in os.environ.items() if name != "CNNLAB_HOME"}
    environment["MLFLOW_TRACKING_URI"] = "http://127.0.0.1:9"  # that of a class, which has no part in this
    command = [sys.executable, "-m", "cnnlab", "class", "handout", str(folder / "lab.zip")]
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(folder / "lab.zip") as archive:
        archive.extractall(folder / "my lab")
    return folder / "my lab" / "cnn-lab"


def on_its_own(lab: Path) -> dict[str, str]:
    """The environment of a student who works in a lab that was handed out."""
    here = {name: value for name, value in os.environ.items() if not name.startswith(("CNNLAB_HOME", "MLFLOW"))}
    return here | {"PYTHONPATH": str(lab), "CNNLAB_OWNER": "a student"}


def test_it_has_no_answers(handed_out: Path) -> None:
    with snapshot(str(handed_out)) as store:
        assert load_raw(store) == [] and load_records(store) == []
        names = {one.name for one in store.client.search_experiments()}
    assert {"quick-01-baseline", "quick-02-dropout", "quick-04-combined"} <= names
    assert [file.name for file in (handed_out / "experiment_log").iterdir()] == ["README.md"]
    assert not [*handed_out.rglob("reference.ipynb"), *handed_out.rglob("reference.html")]
    assert not list(handed_out.rglob("solution*"))
    assert not [
        *handed_out.rglob("best-*.md"),
        *handed_out.rglob("reproduction.md"),
        *handed_out.glob("benchmarks/*.md"),
    ]


def test_no_page_shows_results_or_links_to_what_isnt_there(handed_out: Path) -> None:
    for page in (*handed_out.glob("*.md"), *handed_out.glob("docs/*.md"), handed_out / "04_experiments.ipynb"):
        text = page.read_text(encoding="utf-8")
        assert "95 % interval |" not in text, page.name
        for target in re.findall(r"\]\(([^)#:\\]+)\)", text):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_no_text_names_a_page_or_a_benchmark_that_isnt_there(handed_out: Path) -> None:
    named = re.compile(r"(?:benchmarks|docs)/[\w./*-]+\.(?:md|py)|CONTRIBUTING\.md")
    texts = [file for kind in ("*.md", "*.ipynb", "*.sh", "cnnlab/**/*.py") for file in handed_out.rglob(kind)]
    texts.remove(handed_out / "cnnlab" / "course" / "handout.py")  # which names what is left out
    for file in texts:
        for name in named.findall(file.read_text(encoding="utf-8")):
            assert list(handed_out.glob(name)), f"{file.name}: {name}"


def test_no_page_has_an_empty_table_or_says_that_the_results_are_there(handed_out: Path) -> None:
    for page in (*handed_out.rglob("*.md"), handed_out / "04_experiments.ipynb"):
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"\| ?---\|\n(?!\|)|ships? with", text), page.name
    command = [sys.executable, "-m", "cnnlab", "results"]
    done = subprocess.run(command, cwd=handed_out, env=on_its_own(handed_out), capture_output=True, text=True)
    assert done.returncode == 1
    assert "Error: this store has no reference results: see your own with `cnnlab verdict`." in done.stderr


def test_its_scripts_can_be_started(handed_out: Path) -> None:
    with zipfile.ZipFile(handed_out.parents[1] / "lab.zip") as archive:
        modes = [archive.getinfo(f"cnn-lab/{name}").external_attr >> 16 for name in ("start_server.sh", "README.md")]
    assert modes == [0o755, 0o644]


def test_the_two_commands_of_its_readme_work(handed_out: Path, tmp_path: Path) -> None:
    """The first one at its smallest size; of the second, all tests are found, and those of two files are run."""
    lab = shutil.copytree(handed_out, tmp_path / "lab")

    def call(*arguments: str) -> str:
        command = [sys.executable, "-m", *arguments]
        done = subprocess.run(command, cwd=lab, env=on_its_own(lab), capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    said = call("cnnlab", *FIRST)
    assert "MLflow: lab/mlflow.db" in said and "95 % interval [" in said
    few = "test_config.py or test_outcome.py"
    assert " passed" in call("pytest", "-q", "-n0", "-p", "no:cacheprovider", "-k", few)


def test_an_existing_file_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "lab.zip").write_text("something")
    command = [sys.executable, "-m", "cnnlab", "class", "handout", str(tmp_path / "lab.zip")]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 1 and "already exists" in done.stderr
