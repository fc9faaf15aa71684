"""The files of runs, from a project folder or a server, and the models that are made from them."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.mlflow_private import ROOT_URI, has_model, log_model
from cnnlab.inquiry.params import from_params
from cnnlab.inquiry.record.artifacts import artifact_folder
from cnnlab.inquiry.record.runs import RawRun, facts_of
from cnnlab.inquiry.record.store import Store, first_line, is_sqlite
from cnnlab.inquiry.task import task

Files = Callable[[RawRun, str], Path | None]  # a file of a run, by name; None if it doesn't exist


class NoFile(LabError):
    """A run has no such file in the store."""


def run_file(store: Store, run_id: str, name: str, folder: Path) -> Path:
    """Return a file of a run, or the folder of all for the name ""; don't change it: it may be the store's own.

    Raises:
        NoFile: the run has no such file in the store.
    """
    try:
        address = store.client.get_run(run_id).info.artifact_uri
        if is_sqlite(store.uri) and address.startswith(ROOT_URI):
            file = artifact_folder(address, store.uri) / name  # MLflow would search the models of the run each time
            file.stat()
            return file
        return Path(store.client.download_artifacts(run_id, name, str(folder)))
    except Exception as error:  # MLflow raises whatever the library below it raises
        reason = first_line(error)
        raise NoFile(f"the run {run_id} has no {name} in the store: is models/ complete? ({reason})") from None


def downloaded(store: Store, folder: Path) -> Files:
    """Return a function that downloads a run's files from a server into a folder."""

    def file(run: RawRun, name: str) -> Path | None:
        try:
            target = folder / run.run_id
            target.mkdir(exist_ok=True)
            return run_file(store, run.run_id, name, target)
        except NoFile:
            return None

    return file


def in_folder(folder: Path) -> Files:
    """Return a function that finds a run's files in a project folder."""
    store = f"sqlite:///{(folder / 'mlflow.db').as_posix()}"

    def file(run: RawRun, name: str) -> Path | None:
        try:
            path = artifact_folder(run.artifact_uri, store) / name
        except Exception:  # MLflow's: the address points outside the folder
            return None
        return path if path.is_file() else None

    return file


def export_model(store: Store, run_id: str) -> None:
    """Add the model of a run to the store, unless it is already there.

    Raises:
        NoFile: the run's weights aren't in the store.
    """
    client = store.client
    if has_model(client, run_id):
        return
    run = client.get_run(run_id)
    with TemporaryDirectory(prefix="cnnlab-", ignore_cleanup_errors=True) as folder:
        files, model = Path(folder) / "files", Path(folder) / "model"
        files.mkdir()
        kept = {name: run_file(store, run_id, name, files) for name in task().leaves(ships=False)}
        config = from_params(task().config_type, run.data.params)
        if task().export(config, facts_of(run.data.tags), kept, model):
            log_model(client, run_id, model)
