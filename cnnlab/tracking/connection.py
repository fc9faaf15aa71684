"""`connect()`: find the MLflow store, say which one it is, and bring it up to date."""

import os
from collections.abc import Callable
from pathlib import Path

import mlflow
from filelock import FileLock
from sqlalchemy.engine import make_url

from cnnlab import paths
from cnnlab.errors import LabError
from cnnlab.tracking.courier import deliver_leftovers
from cnnlab.tracking.store import Store, find_store, first_line, is_sqlite


def connect(say: Callable[[str], None] = print) -> Store:
    """Find the store, make sure that it answers, point MLflow at it, and deliver what waits for it.

    Raises:
        LabError: the store of `MLFLOW_TRACKING_URI` doesn't answer, or the file can't be opened.
    """
    store = find_store()
    if is_sqlite(store.uri):
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


def _create_tables(uri: str) -> None:
    """Create MLflow's tables in a database that doesn't exist yet, without a path of this machine in them."""
    file = Path(make_url(uri).database or "")
    if file.exists() and file.stat().st_size > 0:
        return
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore  # takes a second, and is seldom needed

    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(paths.state_folder() / "create.lock"):
        SqlAlchemyStore(uri, "mlflow-artifacts:/")


def _point_mlflow_at(store: Store) -> None:
    """Let plain `mlflow` calls of a student go to the same store."""
    mlflow.set_tracking_uri(store.uri)
    if store.is_project:
        # MLflow has put the address into the environment too, where it would pass for the user's own wish.
        os.environ.pop("MLFLOW_TRACKING_URI", None)
