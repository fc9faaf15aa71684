"""`cnnlab doctor`: everything the lab needs, checked, each with the command that mends it."""

import importlib.metadata
import os
import platform
import sqlite3
from collections.abc import Callable
from contextlib import closing

from cnnlab import paths, server
from cnnlab.errors import LabError

Say = Callable[[str], None]


class Ill(Exception):
    """A check failed; the text says what is wrong and what mends it."""


def examine(say: Say) -> bool:
    """Run all checks, say a line for each, and return whether all are well."""
    well = True
    for name, check in CHECKS.items():
        try:
            say(f"OK    {name:9} {check()}")
        except (Ill, LabError) as error:
            well = False
            say(f"MEND  {name:9} {error}")
    return well


def _python() -> str:
    return f"{platform.python_version()} on {platform.system()} {platform.machine()}"


def _packages() -> str:
    names = ("torch", "torchvision", "mlflow", "mltrainer", "mads_datasets", "hyperopt", "jupyterlab", "matplotlib")
    missing = [name for name in names if not _version(name)]
    points = importlib.metadata.entry_points(group="mlflow.artifact_repository", name="mlflow-artifacts")
    if missing or not points:
        raise Ill(f"missing: {', '.join(missing) or 'the entry point of cnnlab'}. Run `uv sync`.")
    return ", ".join(f"{name} {_version(name)}" for name in names)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _data() -> str:
    from cnnlab.data import load_data

    said: list[str] = []
    data = load_data(said.append)
    return f"{said[-1]} {len(data.train):,} train, {len(data.valid):,} valid, checksums right"


def _store() -> str:
    file = paths.database()
    if not file.exists():
        return f"{file} does not exist yet; the first run makes it"
    with closing(sqlite3.connect(file.as_uri() + "?mode=ro", uri=True)) as database:
        try:
            (answer,) = database.execute("PRAGMA quick_check").fetchone()
        except sqlite3.DatabaseError as error:
            answer = str(error)
    if answer != "ok":
        raise Ill(f"{file} is damaged ({answer}): take it from version control or a backup, or move it away.")
    return f"{file} ({file.stat().st_size / 1e6:.1f} MB), whole"


def _schema() -> str:
    from cnnlab.tracking.store import find_store

    store = find_store()
    if store.kind == "embedded" and not paths.database().exists():
        return "made with the store"
    try:
        experiments = store.client.search_experiments()
    except Exception as error:  # whatever the libraries below MLflow raise
        first = str(error).splitlines()[0]
        raise Ill(f"{store.uri}: {first} If the schema is old: `uv run mlflow db upgrade {store.uri}`.") from None
    return f"fits MLflow {_version('mlflow')}; {len(experiments)} experiments"


def _spool() -> str:
    from cnnlab.tracking.journal import spool_folder

    waiting = len(list(spool_folder().glob("*/journal.jsonl")))
    if waiting:
        raise Ill(f"{waiting} runs are on their way to MLflow or were left over: `cnnlab ui` delivers them.")
    return "nothing waits for delivery"


def _server() -> str:
    status = server.status()
    if status.state in ("foreign", "unhealthy"):
        raise Ill(f"{status} Stop it, or choose another port: MLFLOW_PORT={server.port() + 1} ./start_server.sh")
    return str(status)


def _tracking() -> str:
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    return f"MLFLOW_TRACKING_URI is {uri}" if uri else "MLFLOW_TRACKING_URI is not set: runs go to this folder's store"


def _device() -> str:
    from cnnlab.device import describe_device

    return f"{describe_device()}, {os.cpu_count()} cores"


CHECKS: dict[str, Callable[[], str]] = {
    "python": _python,
    "packages": _packages,
    "data": _data,
    "store": _store,
    "schema": _schema,
    "spool": _spool,
    "server": _server,
    "tracking": _tracking,
    "device": _device,
}
