"""Looking at a store without touching it: at a copy of its database, even of one that an older MLflow made."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow
from sqlalchemy import create_engine

from cnnlab.errors import LabError
from cnnlab.tracking.store import Store, first_line


@contextmanager
def snapshot(where: str) -> Iterator[Store]:
    """Give a store that may be read: the server of an address as it is, or a copy of an SQLite file.

    `where` is an address (http://...), a file, or a folder with an `mlflow.db` in it. The copy is made by SQLite
    itself, so that it is whole even while a server writes.

    Raises:
        LabError: there is no such file, or it isn't a database of MLflow.
    """
    if where.startswith(("http://", "https://")):
        yield Store(where)
        return
    file = Path(where.removeprefix("sqlite:///")).expanduser()
    file = file / "mlflow.db" if file.is_dir() else file
    if not file.is_file():
        raise LabError(f"there is no MLflow store {file}: name a folder with an mlflow.db, the file, or an address.")
    with TemporaryDirectory(prefix="cnnlab-", ignore_cleanup_errors=True) as folder:
        copy = Path(folder) / "mlflow.db"
        try:
            with closing(sqlite3.connect(file.resolve().as_uri() + "?mode=ro", uri=True)) as source:
                with closing(sqlite3.connect(copy)) as target:
                    source.backup(target)
                tables = {name for (name,) in source.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if "runs" not in tables:
                raise LabError(f"{file} is no MLflow store: it has no table of runs.")
            _bring_up_to_date(copy, file)
        except sqlite3.Error as error:
            raise LabError(f"{file} can't be read as an MLflow store ({first_line(error)}).") from None
        yield Store(f"sqlite:///{copy.as_posix()}")


def _bring_up_to_date(copy: Path, file: Path) -> None:
    """Upgrade the tables of the copy of a database that an older MLflow made.

    Raises:
        LabError: they aren't MLflow's, or those of a newer MLflow.
    """
    from mlflow.store.db.utils import _get_latest_schema_revision, _get_schema_version, _upgrade_db

    engine = create_engine(f"sqlite:///{copy.as_posix()}")
    try:
        if _get_schema_version(engine) != _get_latest_schema_revision():
            _upgrade_db(engine)
    except Exception as error:  # MLflow raises whatever the libraries below it raise
        raise LabError(
            f"{file} can't be read: its tables are none that MLflow {mlflow.__version__} knows ({first_line(error)})."
        ) from None
    finally:
        engine.dispose()
