"""The files of runs: in the folder of a project, or by way of a server."""

from collections.abc import Callable
from pathlib import Path

from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.record.artifacts import artifact_folder
from cnnlab.inquiry.record.runs import RawRun
from cnnlab.inquiry.record.store import Store, first_line

Files = Callable[[RawRun, str], Path | None]  # a file of a run, by its name; None where there is none


def run_file(store: Store, run_id: str, name: str, folder: Path) -> Path:
    """Return a file of a run, or all of them for the name ""; an embedded store gives its own, which are only read.

    Raises:
        LabError: the run has no such file in the store.
    """
    try:
        return Path(store.client.download_artifacts(run_id, name, str(folder)))
    except Exception as error:  # MLflow raises whatever the library below it raises
        reason = first_line(error)
        raise LabError(f"the run {run_id} has no {name} in the store: is models/ complete? ({reason})") from None


def downloaded(store: Store, folder: Path) -> Files:
    """Return how to get a run's files from a server, by way of a folder."""

    def file(run: RawRun, name: str) -> Path | None:
        try:
            target = folder / run.run_id
            target.mkdir(exist_ok=True)
            return run_file(store, run.run_id, name, target)
        except LabError:
            return None

    return file


def in_folder(folder: Path) -> Files:
    """Return how to get a run's files from the folder of a project."""
    store = f"sqlite:///{(folder / 'mlflow.db').as_posix()}"

    def file(run: RawRun, name: str) -> Path | None:
        try:
            path = artifact_folder(run.artifact_uri, store) / name
        except Exception:  # MLflow's: its address leads out of the folder
            return None
        return path if path.is_file() else None

    return file
