"""Where the runs are: `connect()` finds the MLflow store and says which one it is."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
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
    """One MLflow store: its address, and whether it is a server's, this project's file, or the user's choice."""

    uri: str
    kind: Literal["environment", "server", "embedded"]

    @cached_property
    def client(self) -> MlflowClient:
        """MLflow's client for this store."""
        return MlflowClient(self.uri)

    @property
    def is_project(self) -> bool:
        """Whether this is the project's own `mlflow.db`, through its server or directly."""
        return self.kind != "environment"

    def describe(self) -> str:
        """Return one sentence that says where the runs go."""
        return {
            "environment": f"MLflow: {self.uri} (from MLFLOW_TRACKING_URI)",
            "server": f"MLflow: the server at {self.uri}",
            "embedded": f"MLflow: {_short(paths.database())} (its server isn't running; ./start_server.sh starts it)",
        }[self.kind]

    def experiment_id(self, name: str) -> str:
        """Return the id of the experiment of this name; it is made where it doesn't exist yet."""
        found = self.client.get_experiment_by_name(name)
        if found is None:
            # An address without a folder of this machine in it: the store can be moved.
            location = f"mlflow-artifacts:/{name}" if self.kind != "environment" or _is_sqlite(self.uri) else None
            try:
                return self.client.create_experiment(name, artifact_location=location)
            except MlflowException:
                found = self.client.get_experiment_by_name(name)  # somebody else made it just now
                if found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            self.client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)


def find_store() -> Store:
    """Return the store that a run should go to now.

    `MLFLOW_TRACKING_URI` if that is set; else this project's server if it answers; else the file
    `mlflow.db` itself. The last two hold the same runs.
    """
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        return Store(uri, "environment")
    return project_store()


def project_store() -> Store:
    """Return the way to this project's `mlflow.db`: through its server if that answers, else directly."""
    port = server.port()
    if server.is_listening(port) and server.is_healthy(port) and server.is_ours(port):
        return Store(server.address(port), "server")
    return Store(f"sqlite:///{paths.database().as_posix()}", "embedded")


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
            if store.kind == "environment"
            else "run `cnnlab doctor`"
        )
        reason = str(error).splitlines()[0][:200]
        raise LabError(f"the MLflow store {store.uri} doesn't answer ({reason}): {mend}.") from None
    _point_mlflow_at(store)
    say(store.describe())
    deliver_leftovers(say)
    return store


def _point_mlflow_at(store: Store) -> None:
    """Let plain `mlflow` calls of a student go to the same store."""
    mlflow.set_tracking_uri(store.uri)
    if store.kind != "environment":
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
