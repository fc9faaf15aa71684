"""Current texts of what ships: predictions, verdicts, the review, and the runs that `cnnlab reproduce` trains again.

    uv run python -m tests.golden

rewrites `tests/golden/`. A difference from the committed files is a decision, and the commit message explains it.
"""

import io
import json
import os
import re
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cnnlab.course.reference import OWNER, reference_studies
from cnnlab.inquiry.judge.reproduce import one_run_of_each
from cnnlab.inquiry.judge.review import review
from cnnlab.inquiry.judge.verdict import compute_verdicts
from cnnlab.inquiry.params import to_params
from cnnlab.inquiry.prediction import load_predictions
from cnnlab.inquiry.record.connection import connect
from cnnlab.inquiry.record.ledger import Record, load_records
from cnnlab.inquiry.record.runs import load_runs
from cnnlab.inquiry.record.snapshot import snapshot
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.show.text import review_text
from cnnlab.inquiry.study import Study

PROJECT = Path(__file__).parents[1]
SHIPPED = ("mlflow.db", "models", "experiment_log")
FOLDER = Path(__file__).parent / "golden"


def copy_what_ships(folder: Path) -> None:
    """Copy the committed store, models and logbooks: the project's own may already contain a student's runs."""
    if (PROJECT / ".git").exists():
        command = ["git", "-C", str(PROJECT), "archive", "--format=zip", "HEAD", *SHIPPED]
        archive = subprocess.run(command, capture_output=True, check=True).stdout
        with zipfile.ZipFile(io.BytesIO(archive)) as files:
            files.extractall(folder)
    else:  # not a clone, such as an unpacked download
        shutil.copy(PROJECT / "mlflow.db", folder)
        for name in SHIPPED[1:]:
            shutil.copytree(PROJECT / name, folder / name)


def golden_files(store: Store, folder: Path) -> dict[str, str]:
    """Return the golden files by name, made from a copy of what ships."""
    with snapshot(str(folder)) as opened:
        found = review_text(review(opened, folder), width=120)
    return {
        "records.json": _json([record.content | _verdicts(record) for record in load_records(store)]),
        "verdicts.txt": "\n\n".join(_verdict_texts(store)) + "\n",
        "review.txt": found + "\n",
        "runs.json": _json(_runs(store)),
    }


def runs_of_golden(folder: Path) -> list[str]:
    """Return the seals of the runs in the golden file."""
    return [run["seal"] for run in json.loads((folder / "runs.json").read_text(encoding="utf-8")).values()]


def records_of_golden(folder: Path) -> list[str]:
    """Return the seals of the predictions in the golden file."""
    return [record["sha256"] for record in json.loads((folder / "records.json").read_text(encoding="utf-8"))]


def what_ships(folder: Path) -> tuple[int, int]:
    """Return the numbers of predictions and runs in the golden review."""
    found = re.search(r"^Intact: (\d+) predictions and (\d+) runs", (folder / "review.txt").read_text("utf-8"), re.M)
    assert found
    return int(found[1]), int(found[2])


def _verdicts(record: Record) -> dict[str, Any]:
    return {"verdicts": [one.content for one in record.verdicts]}


def _verdict_texts(store: Store) -> Iterator[str]:
    """Compute and yield the verdict on every shipped prediction."""
    for experiment in dict.fromkeys(record.experiment for record in load_records(store)):
        study = reference_studies().get(experiment)
        if study is None:  # the search, whose arms are those of the predictions
            contrast = load_predictions(store, experiment)[0].contrast
            study = Study(experiment, "?", contrast.arms[contrast.control], contrast.seeds, arms=contrast.arms)
        for one in compute_verdicts(study, store, OWNER):
            yield f"{experiment}\n{one}"


def _runs(store: Store) -> dict[str, Any]:
    """Return params, final metrics and facts of the runs that `cnnlab reproduce` trains again."""
    runs = load_runs(store, kind=None).set_index("run_id").loc[one_run_of_each(store)]
    return {
        run_id: to_params(row["config"])
        | {"seal": row["seal"]}
        | {name: value for name, value in row.items() if "/" in str(name) or str(name).startswith("fact.")}
        for run_id, row in runs.iterrows()
    }


def _json(content: Any) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


if __name__ == "__main__":
    with TemporaryDirectory() as name:
        os.environ |= {"CNNLAB_HOME": name, "CNNLAB_OWNER": "a student"}
        copy_what_ships(Path(name))
        FOLDER.mkdir(exist_ok=True)
        for file, text in golden_files(connect(), Path(name)).items():
            (FOLDER / file).write_text(text, encoding="utf-8", newline="\n")
