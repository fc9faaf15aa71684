"""Reads a store without changing it: from a copy of its database, even if an older MLflow wrote it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.record.schema import age, copy_database, opened, upgrade
from cnnlab.inquiry.record.store import Store, is_address


@contextmanager
def snapshot(where: str) -> Iterator[Store]:
    """Yield a store for reading: the server at an address, or a copy of an SQLite file.

    `where` is an address (http://...), a file, or a folder with an `mlflow.db` in it. SQLite itself makes the copy,
    so that it is consistent even while a server writes.

    Raises:
        LabError: there is no such file, it isn't a database of MLflow, or a newer MLflow wrote it.
    """
    if is_address(where):
        yield Store(where)
        return
    file = Path(where.removeprefix("sqlite:///")).expanduser()
    file = file / "mlflow.db" if file.is_dir() else file
    if not file.is_file():
        raise LabError(f"there is no MLflow store {file}: name a folder with an mlflow.db, the file, or an address.")
    with TemporaryDirectory(prefix="cnnlab-", ignore_cleanup_errors=True) as folder:
        with opened(file) as database:
            if not database.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'runs'").fetchone():
                raise LabError(f"{file} is not an MLflow store: it has no table of runs.")
        copy = Path(folder) / "mlflow.db"
        copy_database(file, copy)
        if age(file) != "current":
            upgrade(copy, file)
        yield Store(f"sqlite:///{copy.as_posix()}")
