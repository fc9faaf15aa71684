"""Where the runs are: `connect()` finds the MLflow store and says which one it is."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import mlflow
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from cnnlab import paths, server
from cnnlab.errors import LabError

# MLflow would wait four minutes for a server that is gone; the journal keeps the points, so seconds will do.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")

for chatty in ("alembic", "mlflow", "urllib3.connectionpool"):
    logging.getLogger(chatty).setLevel(logging.ERROR)


@dataclass(frozen=True)
class Store:
    """One MLflow store: the one the user chose, or else this project's own.

    The project's own is the file `mlflow.db`, and there are two ways to it, which hold the same runs: its server,
    if that answers, or the file itself. Each use takes the way that is open at that moment.
    """

    chosen: str | None = None  # the address of MLFLOW_TRACKING_URI, where that is set

    @property
    def is_project(self) -> bool:
        """Whether this is the project's own store."""
        return self.chosen is None

    @property
    def uri(self) -> str:
        """The address at this moment."""
        if self.chosen:
            return self.chosen
        port = server.port()
        return server.address(port) if server.answers(port) else f"sqlite:///{paths.database().as_posix()}"

    @property
    def kind(self) -> Literal["environment", "server", "embedded"]:
        """Which way leads to the store at this moment."""
        if not self.is_project:
            return "environment"
        return "embedded" if _is_sqlite(self.uri) else "server"

    @property
    def client(self) -> MlflowClient:
        """MLflow's client for the address of this moment."""
        return _client(self.uri)

    def describe(self) -> str:
        """Return one sentence that says where the runs go."""
        return {
            "environment": f"MLflow: {self.uri} (from MLFLOW_TRACKING_URI)",
            "server": f"MLflow: the server at {self.uri}",
            "embedded": f"MLflow: {_short(paths.database())} (its server isn't running; ./start_server.sh starts it)",
        }[self.kind]

    def experiment_id(self, name: str) -> str:
        """Return the id of the experiment of this name; it is made where it doesn't exist yet."""
        return experiment_id(self.client, name)


def experiment_id(client: MlflowClient, name: str) -> str:
    """Return the id of the experiment of this name; it is made where it doesn't exist yet."""
    found = client.get_experiment_by_name(name)
    if found is None:
        # A server gives its experiments an address without a folder of this machine in it; a file does not.
        location = f"mlflow-artifacts:/{name}" if _is_sqlite(client.tracking_uri) else None
        try:
            return client.create_experiment(name, artifact_location=location)
        except MlflowException:
            found = client.get_experiment_by_name(name)  # somebody else made it just now
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def find_store() -> Store:
    """Return the store that runs go to: that of `MLFLOW_TRACKING_URI` if it is set, else the project's own."""
    return Store(os.environ.get("MLFLOW_TRACKING_URI") or None)


def connect(say: Callable[[str], None] = print) -> Store:
    """Find the store, make sure that it answers, point MLflow at it, and deliver what waits for it.

    Raises:
        LabError: the store of `MLFLOW_TRACKING_URI` doesn't answer, or the file can't be opened.
    """
    from cnnlab.tracking.courier import deliver_leftovers

    store = find_store()
    if _is_sqlite(store.uri):
        _create_tables(store.uri)
    try:
        store.client.search_experiments(max_results=1)
    except Exception as error:  # MLflow raises whatever the library below it raises
        mend = (
            "start that server, or unset MLFLOW_TRACKING_URI to use this folder's mlflow.db"
            if not store.is_project
            else "run `cnnlab doctor`"
        )
        reason = first_line(error)
        raise LabError(f"the MLflow store {store.uri} doesn't answer ({reason}): {mend}.") from None
    _point_mlflow_at(store)
    say(store.describe())
    deliver_leftovers(say)
    return store


@cache
def _client(uri: str) -> MlflowClient:
    return MlflowClient(uri)


def first_line(error: Exception) -> str:
    """Return the beginning of an error's text, for a sentence about it."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _point_mlflow_at(store: Store) -> None:
    """Let plain `mlflow` calls of a student go to the same store."""
    mlflow.set_tracking_uri(store.uri)
    if store.is_project:
        # MLflow has put the address into the environment too, where it would pass for the user's own wish.
        os.environ.pop("MLFLOW_TRACKING_URI", None)


def _short(file: Path) -> str:
    return f"{file.parent.name}/{file.name}"


def _create_tables(uri: str) -> None:
    """Create MLflow's tables in a database that doesn't exist yet, without a path of this machine in them."""
    from sqlalchemy.engine import make_url

    file = Path(make_url(uri).database or "")
    if file.exists() and file.stat().st_size > 0:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(paths.state_folder() / "create.lock"):
        SqlAlchemyStore(uri, "mlflow-artifacts:/")


def _is_sqlite(uri: str) -> bool:
    return uri.startswith("sqlite:")
