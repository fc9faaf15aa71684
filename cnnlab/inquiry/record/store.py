"""The MLflow store of the runs, and the ways to access it."""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from mlflow import MlflowClient
from mlflow.entities import Experiment, ViewType
from mlflow.exceptions import MlflowException
from sqlalchemy.engine import make_url

from cnnlab.inquiry import paths, server
from cnnlab.inquiry.errors import LabError

# MLflow would wait four minutes for a dead server; the spool keeps the measurements, so seconds are enough.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

for chatty in ("alembic", "mlflow", "urllib3.connectionpool"):
    logging.getLogger(chatty).setLevel(logging.ERROR)
# What they would log about a database error is also in the error itself.
for chatty in ("mlflow.store.db.utils", "sqlalchemy.pool"):
    logging.getLogger(chatty).setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class Store:
    """One MLflow store: the one the user chose, or else this project's own.

    The project's own store is the file `mlflow.db`. There are two ways to access it, which give the same runs: through
    its server, if that answers, or directly. Each access uses the way that is available at that moment.
    """

    chosen: str | None = None  # the address of MLFLOW_TRACKING_URI; None: the project's own

    @property
    def uri(self) -> str:
        """The current address.

        Raises:
            LabError: the project's server holds an `mlflow.db` that was deleted or replaced.
        """
        if self.chosen:
            return self.chosen
        port = server.port()
        return server.address(port) if server.answers(port) else f"sqlite:///{paths.database().as_posix()}"

    @property
    def kind(self) -> Literal["environment", "server", "embedded"]:
        """The way in which the store can currently be accessed."""
        if self.chosen:
            return "environment"
        return "embedded" if is_sqlite(self.uri) else "server"

    @property
    def file(self) -> Path | None:
        """The SQLite file of the store; None for a server elsewhere. The project's store always has one."""
        if not self.chosen:
            return paths.database()
        return Path(make_url(self.uri).database or "") if is_sqlite(self.uri) else None

    @property
    def client(self) -> MlflowClient:
        """MLflow's client for the current address."""
        return _client(self.uri)

    def describe(self) -> str:
        """Return a sentence that says where the runs go."""
        home = paths.project_root().name
        return {
            "environment": f"MLflow: {self.uri} (from MLFLOW_TRACKING_URI)",
            "server": f"MLflow: the server at {self.uri}",
            "embedded": f"MLflow: {home}/mlflow.db (its server isn't running; ./start_server.sh starts it)",
        }[self.kind]

    def experiment_id(self, name: str) -> str:
        """Return the id of the experiment of this name; create it if it doesn't exist yet."""
        return experiment_id(self.client, name)


def experiment_id(client: MlflowClient, name: str) -> str:
    """Return the id of the experiment of this name; create it if it doesn't exist yet.
    Raises:
        LabError: it was deleted or renamed in the MLflow UI.
    """
    found = find_experiment(client, name)
    if found is None:
        # A server gives its experiments an address without a folder of this machine; a file does not.
        location = f"mlflow-artifacts:/{name}" if is_sqlite(client.tracking_uri) else None
        try:
            return client.create_experiment(name, artifact_location=location)
        except MlflowException:
            found = find_experiment(client, name)  # somebody else created it just now
            if found is None:
                raise
    return str(found.experiment_id)


def find_experiment(client: MlflowClient, name: str) -> Experiment | None:
    """Return the experiment of this name; None if there never was one.

    Raises:
        LabError: it was deleted or renamed in the MLflow UI; the message says how to restore it.
    """
    found = client.get_experiment_by_name(name)
    if found is not None and found.lifecycle_stage == "deleted":
        raise LabError(
            f"the experiment {name} was deleted in the MLflow UI. To restore it with all of its runs, call "
            f"cnnlab.connect().client.restore_experiment({found.experiment_id!r}) in Python; else give the study "
            "another name."
        )
    if found is None and (renamed := _find_by_records(client, name)):
        raise LabError(
            f"the experiment {name} was renamed to {renamed.name!r} in the MLflow UI: rename it back to {name} there; "
            "else give the study another name."
        )
    return found


def _find_by_records(client: MlflowClient, study: str) -> Experiment | None:
    """Return the experiment that contains runs or predictions of a study, under any name."""
    ids = [experiment.experiment_id for experiment in client.search_experiments(ViewType.ALL)]
    for rule in (f'tags.study = "{study}"', f'params.study = "{study}"'):
        for run in client.search_runs(ids, rule, ViewType.ALL, max_results=1):
            return client.get_experiment(run.info.experiment_id)
    return None


@contextmanager
def answering(store: Store, what: str) -> Iterator[None]:
    """Replace an error of MLflow, or of a library that it uses, by one sentence: what failed, where, why, and the fix.

    Raises:
        LabError: the store doesn't answer: `what`, with the address and the reason.
    """
    try:
        yield
    except LabError:
        raise
    except Exception as error:
        is_held = "database is locked" in str(error)
        why = "another program is writing to it" if is_held else f"it doesn't answer ({first_line(error)})"
        fix = "stop that program" if is_held else "run `cnnlab doctor`"
        raise LabError(f"{what}: {store.uri}, {why}. Nothing is lost: {fix}, and then run this again.") from None


def find_store() -> Store:
    """Return the store for runs: that of `MLFLOW_TRACKING_URI` if it is set, else the project's own.

    Raises:
        LabError: `MLFLOW_TRACKING_URI` isn't the address of a possible store, but for example a folder.
    """
    chosen = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    if chosen and not re.match(r"https?://[^/]|sqlite:///[^?]", chosen):
        is_folder = chosen.startswith("file:") or "://" not in chosen
        raise LabError(
            f"MLFLOW_TRACKING_URI is {chosen!r}, {'a folder of files, ' if is_folder else ''}which isn't a store that "
            "this lab can use: set it to a server (http://...) or an SQLite file (sqlite:///...), or unset it to use "
            "this folder's mlflow.db."
        )
    return Store(chosen or None)


@cache
def _client(uri: str) -> MlflowClient:
    return MlflowClient(uri)


def first_line(error: Exception) -> str:
    """Return the beginning of an error's text, for use in a sentence."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def in_words(error: BaseException) -> str:
    """Return the kind of an error with the beginning of its text."""
    return f"{type(error).__name__}: {(str(error).splitlines() or ['no details'])[0][:200]}"


def is_address(uri: str) -> bool:
    """Return whether a store is a server."""
    return uri.startswith(("http://", "https://"))


def is_sqlite(uri: str) -> bool:
    """Return whether an address is that of an SQLite file."""
    return uri.startswith("sqlite:")
