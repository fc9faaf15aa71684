"""The file of a store: whether it can be opened, and which version of MLflow made its tables.

MLflow silently upgrades the tables of an older version, which then can't open them any more.
"""

import importlib.metadata
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Literal

from filelock import FileLock

from cnnlab.inquiry import paths
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.log import log
from cnnlab.inquiry.mlflow_private import known_revisions, upgrade_tables

BUSY_S = 60.0  # seconds to wait for a program that locks the store
MLFLOW = f"MLflow {importlib.metadata.version('mlflow')}"

INDEXES = {  # a third of the file's size, recreated within a second: so the file that ships with the lab has none
    "index_metrics_run_uuid": "metrics (run_uuid)",
    "index_metrics_run_uuid_key_step": 'metrics (run_uuid, "key", step)',
    "index_latest_metrics_run_uuid": "latest_metrics (run_uuid)",
    "index_params_run_uuid": "params (run_uuid)",
    "index_tags_run_uuid": "tags (run_uuid)",
}

Age = Literal["new", "current", "older"]


@contextmanager
def opened(file: Path, mode: Literal["ro", "rw"] = "ro", patience: float | None = None) -> Iterator[sqlite3.Connection]:
    """Open an SQLite file; wait up to `patience` (default: `BUSY_S`) seconds if another program has locked it.

    Raises:
        LabError: it can't be opened or read, or stays locked for longer.
    """
    if file.with_name(f"{file.name}-journal").exists() and os.access(file, os.W_OK):
        mode = "rw"  # a program was killed while writing: SQLite must undo that before anybody can read
    uri, timeout = f"{file.resolve().as_uri()}?mode={mode}", BUSY_S if patience is None else patience
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=timeout)) as database:
            yield database
    except sqlite3.Error as error:
        raise LabError(in_plain_words(error, file)) from None


def in_plain_words(error: Exception, file: Path) -> str:
    """Explain an error of SQLite, or of a library that uses it, about a file, and how to fix it."""
    if "database is locked" in str(error):
        return (
            f"another program is writing to {file} and keeps it locked: close it (a database browser, a copy or a "
            "synchronization in progress, another MLflow), then try again."
        )
    reason = str(error).splitlines()[0]
    if "readonly database" in reason or "disk is full" in reason:
        return f"{file} can't be written to ({reason}): fix that, or set CNNLAB_HOME to a folder of your own."
    fix = "it is damaged or not a store. Restore it from version control or a backup, or move it away"
    return f"{file} can't be read as an MLflow store ({reason}): {fix}."


def wait_until_free(file: Path) -> None:
    """Wait until no other program locks an SQLite file, so that the next write won't fail for this reason.

    Raises:
        LabError: it stays locked for longer than `BUSY_S`.
    """
    with opened(file, "rw") as database:
        try:
            database.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if "readonly" not in str(error):  # a read-only store can still be read
                raise
        database.rollback()


def add_indexes(file: Path) -> None:
    """Create the indexes of MLflow's large tables if a store lacks them; a read-only store is left unchanged.

    Raises:
        LabError: another program locks the store.
    """
    with opened(file, "rw") as database:
        try:
            for name, columns in INDEXES.items():
                database.execute(f"CREATE INDEX IF NOT EXISTS {name} ON {columns}")
        except sqlite3.OperationalError as error:
            if "readonly" not in str(error):
                raise


def age(file: Path, patience: float | None = None) -> Age:
    """Return how MLflow's tables in an SQLite file compare with those of the installed MLflow.

    "new" means that it has none; for `patience` see `opened`.

    Raises:
        LabError: a newer MLflow made them, or the file can't be read.
    """
    revision = _revision(file, patience)
    if not revision:
        return "new"
    known = known_revisions()
    if revision not in known:
        raise LabError(
            f"{file} was written by a newer MLflow: its tables (revision {revision}) are unknown to {MLFLOW}. "
            "Restore it from version control or an older backup, or use that newer MLflow."
        )
    return "current" if revision == known[0] else "older"


def keep_up_to_date(file: Path) -> None:
    """Upgrade the tables of a store that an older MLflow wrote; a copy of the old file is kept beside it.

    Raises:
        LabError: a newer MLflow made them, or they can't be upgraded; the file is then left unchanged.
    """
    if not file.exists() or age(file) != "older":
        return
    with FileLock(paths.state_folder() / "create.lock"):
        if age(file) != "older":  # another process was first
            return
        copy = file.with_name(f"{file.name}.{_revision(file)}-{datetime.now():%Y%m%d-%H%M%S}.bak")
        copy_database(file, copy)
        try:
            upgrade(file, file)
        except LabError:
            copy_database(copy, file)
            raise
    log.info(f"{file.name} was written by an older MLflow and is upgraded to {MLFLOW}; the old file is kept as {copy}.")


def copy_database(file: Path, copy: Path) -> None:
    """Copy an SQLite file with SQLite itself, so that the copy is consistent even while a server writes.

    Raises:
        LabError: the file can't be read.
    """
    with opened(file) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)


def upgrade(file: Path, name: Path) -> None:
    """Upgrade an SQLite file to the tables of the installed MLflow; `name` is its name in an error.

    Raises:
        LabError: its tables aren't MLflow's.
    """
    from sqlalchemy import create_engine

    engine = create_engine(f"sqlite:///{file.as_posix()}")
    try:
        upgrade_tables(engine)
    except Exception as error:  # MLflow raises whatever the libraries below it raise
        raise LabError(
            f"{name} can't be read: its tables are unknown to {MLFLOW} ({str(error).splitlines()[0]})."
        ) from None
    finally:
        engine.dispose()


def _revision(file: Path, patience: float | None = None) -> str:
    """Return the revision of MLflow's tables; "" if there are none."""
    with opened(file, patience=patience) as database:
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone():
            return ""
        found = database.execute("SELECT version_num FROM alembic_version").fetchone()
    return str(found[0]) if found else ""
