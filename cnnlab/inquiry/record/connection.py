"""Finding the MLflow store, and bringing it up to date."""

import os
import shutil
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import mlflow
from filelock import FileLock

from cnnlab.inquiry import paths
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.log import log
from cnnlab.inquiry.mlflow_private import create_tables
from cnnlab.inquiry.record.courier import deliver_leftovers
from cnnlab.inquiry.record.elsewhere import check_workspace, look_at
from cnnlab.inquiry.record.schema import add_indexes, copy_database, keep_up_to_date, wait_until_free
from cnnlab.inquiry.record.store import Store, find_store, first_line, is_address, is_sqlite


def connect() -> Store:
    """Return `default_store()`, and print which store it is.

    Raises:
        LabError: see `default_store`.
    """
    store = default_store()
    log.info(store.describe())
    return store


def default_store() -> Store:
    """Find the store, check that it answers, point MLflow at it, and deliver the spools that wait for it.

    A store that an older MLflow wrote is upgraded; a copy of the old file is kept beside it.

    Raises:
        LabError: the store of `MLFLOW_TRACKING_URI` doesn't answer, or the file can't be opened, is locked by another
            program, or was written by a newer MLflow.
    """
    store = find_store()
    if store.file and is_sqlite(store.uri):
        _create_tables(store.uri, store.file)
        keep_up_to_date(store.file)
    if store.file:
        wait_until_free(store.file)
    ask(store)
    if store.chosen and "MLFLOW_TRACKING_USERNAME" in os.environ:  # a wrong workspace would look like an empty store
        check_workspace(store.uri, look_at(store.uri))
    if store.file:
        add_indexes(store.file)
    _point_mlflow_at(store)
    deliver_leftovers()
    return store


def ask(store: Store) -> int:
    """Check that a store answers; return the number of its experiments.

    Raises:
        LabError: it doesn't answer.
    """
    try:
        return len(store.client.search_experiments())
    except LabError:
        raise
    except Exception as error:  # MLflow raises whatever the library below it raises
        if is_address(store.uri):
            look_at(store.uri)  # its error message is more specific
        fix = "run `cnnlab doctor`"
        if store.chosen:
            first = "start that server" if store.file is None else "see what is wrong with that file"
            fix = f"{first}, or unset MLFLOW_TRACKING_URI to use this folder's mlflow.db"
        raise LabError(f"the MLflow store {store.uri} doesn't answer ({first_line(error)}): {fix}.") from None


def _create_tables(uri: str, file: Path) -> None:
    """Create MLflow's tables in a database that doesn't exist yet, without a path of this machine in them."""
    if file.exists() and file.stat().st_size > 0:
        return
    paths.make_folder(file.parent)
    with FileLock(paths.state_folder() / "create.lock"):
        template = paths.cache_folder() / f"tables-mlflow-{version('mlflow')}.db"  # creating them takes seconds
        if not template.exists():
            create_tables(uri)
            _keep(file, template)
        elif not file.exists() or not file.stat().st_size:
            part = file.with_name(f"{file.name}.{os.getpid()}")
            shutil.copyfile(template, part)
            part.replace(file)  # all or nothing


def _keep(file: Path, template: Path) -> None:
    """Keep an empty store as a template; if that fails, the next call creates the tables again."""
    part = template.with_name(f"{template.name}.{os.getpid()}")
    with suppress(OSError, LabError):
        paths.make_folder(template.parent)
        copy_database(file, part)
        part.replace(template)


def _point_mlflow_at(store: Store) -> None:
    """Make a student's direct `mlflow` calls use the same store."""
    mlflow.set_tracking_uri(store.uri)
    if not store.chosen:
        # MLflow also wrote the address to the environment, where it would look like the user's own choice.
        os.environ.pop("MLFLOW_TRACKING_URI", None)
