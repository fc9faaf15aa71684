"""Looking at a store without touching it: at a copy of its database, even of one that an older MLflow made."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.record.schema import age, copy_database, opened, upgrade
from cnnlab.inquiry.record.store import Store, is_address


@contextmanager
def snapshot(where: str) -> Iterator[Store]:
    """Give a store that may be read: the server at an address, or a copy of an SQLite file.

    `where` is an address (http://...), a file, or a folder with an `mlflow.db` in it. The copy is made by SQLite
    itself, so that it is whole even while a server writes.

    Raises:
        LabError: there is no such file, or it isn't a database of MLflow, or one of a newer MLflow.
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
                raise LabError(f"{file} is no MLflow store: it has no table of runs.")
        copy = Path(folder) / "mlflow.db"
        copy_database(file, copy)
        if age(file) != "current":
            upgrade(copy, file)
        yield Store(f"sqlite:///{copy.as_posix()}")
