"""The lab that an instructor hands out: without the reference results, so that nobody sees the answers first."""

import os
import re
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

from cnnlab.course.profiles import PROFILES
from cnnlab.course.studies import lab_studies
from cnnlab.inquiry import paths
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.record.connection import default_store
from cnnlab.inquiry.record.views import publish_views

FOLDER = "cnn-lab"  # in the zip
KEPT = (
    *("pyproject.toml", "README.md", "LICENSE", ".gitignore", "*.ipynb", "*.py", "*.sh"),
    *("cnnlab/**/*", "docs/*.md", "benchmarks/**/*.py", "benchmarks/results/*.md", "tests/**/*.py"),
    *("models/README.md", "experiment_log/README.md"),
)
# For instructors, or tests that need the reference results or these files.
LEFT_OUT = (
    *("docs/results.md", "docs/instructors.md", "docs/class.md", "benchmarks/results/reproduction.md"),
    *(f"tests/{name}.py" for name in ("golden", "class_server", "identical")),
    *(
        f"tests/test_{name}.py"
        for name in (
            *("architecture", "benchmarks", "class", "classroom", "docs", "handout", "identical", "integrity", "own"),
            *("notebook", "reference", "report", "reviewer2", "search", "shipped", "surroundings", "words"),
        )
    ),
)
SEARCHES = "benchmarks/results/b"  # files that begin like this say how the networks BASE and BEST were found
RESULTS = re.compile(r"!\[Every prediction of the reference.*?(?=^## Two commands)", re.DOTALL | re.MULTILINE)
SECTION = re.compile(r"^## (Results|Teach a class)\n.*?(?=^## )", re.DOTALL | re.MULTILINE)
FOR_OTHERS = re.compile(r"\|.*(docs/(results|instructors|class)|CONTRIBUTING)\.md")  # a row of a table
SOLVED = re.compile(r" The finished lab is in \[experiment_log/reference\.ipynb\].*?is no prediction\.")


def hand_out(file: Path) -> int:
    """Write the lab of a student into a zip; return the number of its files.

    Its store has the experiments of the studies, without runs.

    Raises:
        LabError: this isn't the lab's own folder, or the file exists.
    """
    root = paths.project_root()
    if not (root / "04_experiments.ipynb").is_file():
        raise LabError(f"{root} isn't the lab's own folder: run this there, without CNNLAB_HOME.")
    if file.exists():
        raise LabError(f"{file} already exists: remove it, or choose another name.")
    found = {path for pattern in KEPT for path in root.glob(pattern) if path.is_file()}
    names = {path.relative_to(root).as_posix() for path in found if "__pycache__" not in path.parts} - set(LEFT_OUT)
    names = {name for name in names if not name.startswith(SEARCHES)}
    with TemporaryDirectory(prefix="cnnlab-", ignore_cleanup_errors=True) as folder:
        store = _empty_store(Path(folder))
        with zipfile.ZipFile(file, "x", zipfile.ZIP_DEFLATED) as archive:
            for name in sorted(names):
                archive.writestr(_entry(name, root / name), _content(name, root / name))
            archive.write(store, f"{FOLDER}/mlflow.db")
    return len(names) + 1


def _content(name: str, file: Path) -> bytes:
    """Return a file as students get it: no text shows the results or links to what isn't there."""
    if name not in ("README.md", "04_experiments.ipynb", "docs/commands.md"):
        return file.read_bytes()
    text = SOLVED.sub("", SECTION.sub("", RESULTS.sub("", file.read_text(encoding="utf-8"))))
    return "".join(line for line in text.splitlines(keepends=True) if not FOR_OTHERS.match(line)).encode()


def _entry(name: str, file: Path) -> zipfile.ZipInfo:
    """Return the entry of a file; scripts stay executable."""
    entry = zipfile.ZipInfo.from_file(file, f"{FOLDER}/{name}")
    entry.external_attr = (0o755 if name.endswith(".sh") else 0o644) << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry


def _empty_store(folder: Path) -> Path:
    """Make a store in which the experiments of all studies exist, with their questions."""
    before = dict(os.environ)
    os.environ["CNNLAB_HOME"] = str(folder)
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    try:
        store = default_store()
        for study in lab_studies(PROFILES["quick"]).values():
            publish_views(store, study.name, study.question, study.role("scientific"))
        return paths.database()
    finally:
        os.environ.clear()
        os.environ.update(before)
