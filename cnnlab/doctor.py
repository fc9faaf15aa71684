"""`cnnlab doctor`: checks everything the lab needs, and says how to fix what is wrong."""

import importlib.metadata
import os
import platform
from collections.abc import Callable, Iterator

from cnnlab.inquiry import paths, server
from cnnlab.inquiry.errors import LabError

PATIENCE_S = 5.0  # for a store that another program holds


def examine() -> Iterator[tuple[bool, str]]:
    """Run all checks, one after another; yield whether each passed, and a line about it."""
    for name, check in CHECKS.items():
        try:
            yield True, f"OK    {name:9} {check()}"
        except LabError as error:
            yield False, f"FIX   {name:9} {error}"
        except Exception as error:  # a library's own words are better than a traceback
            said = f"{type(error).__name__}: {error}. Fix that first, then run `cnnlab doctor` again."
            yield False, f"FIX   {name:9} {said}"


def _python() -> str:
    return f"{platform.python_version()} on {platform.system()} {platform.machine()}"


def _packages() -> str:
    names = ("torch", "torchvision", "mlflow", "mltrainer", "mads_datasets", "hyperopt", "jupyterlab", "matplotlib")
    missing = [name for name in names if not _version(name)]
    points = importlib.metadata.entry_points(group="mlflow.artifact_repository", name="mlflow-artifacts")
    if missing or not points:
        raise LabError(f"missing: {', '.join(missing) or 'the entry point of cnnlab'}. Run `uv sync`.")
    server.require_mlflow()
    return ", ".join(f"{name} {_version(name)}" for name in names)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _data() -> str:
    from cnnlab.fashion_mnist import load_data

    data = load_data()
    return f"{len(data.train):,} train, {len(data.valid):,} valid, checksums correct"


def _store() -> str:
    from cnnlab.inquiry.record.schema import opened

    file = paths.database()
    if not file.exists():
        return f"{file} does not exist yet; the first run creates it"
    with opened(file, patience=PATIENCE_S) as database:
        (answer,) = database.execute("PRAGMA quick_check").fetchone()
    if answer != "ok":
        raise LabError(f"{file} is damaged ({answer}): take it from version control or a backup, or move it away.")
    return f"{file} ({file.stat().st_size / 1e6:.1f} MB), intact"


def _schema() -> str:
    from cnnlab.inquiry.record.connection import ask
    from cnnlab.inquiry.record.schema import age
    from cnnlab.inquiry.record.store import find_store, is_sqlite

    store = find_store()
    if store.file and is_sqlite(store.uri):
        how_old = age(store.file, PATIENCE_S) if store.file.exists() else "new"
        if how_old == "new":
            return "made with the store"
        if how_old == "older":
            return f"older than MLflow {_version('mlflow')}: the next command keeps a copy and upgrades it"
    return f"fits MLflow {_version('mlflow')}; {ask(store)} experiments"


def _spool() -> str:
    from cnnlab.inquiry.record.spool import spool_folder

    waiting = len(list(spool_folder().glob("*/journal.jsonl")))
    if waiting:
        raise LabError(f"{waiting} runs are not in MLflow yet: `cnnlab ui` delivers them.")
    return "every run is in MLflow"


def _server() -> str:
    status = server.status()
    if status.state in ("foreign", "unhealthy", "detached") or server.without_artifacts():
        raise LabError(str(status))
    return str(status)


def _tracking() -> str:
    from cnnlab.inquiry.record.elsewhere import CLOCK_S, check_workspace, look_at
    from cnnlab.inquiry.record.store import find_store, is_address

    uri = find_store().chosen
    if not uri:
        return "MLFLOW_TRACKING_URI is not set: runs go to this folder's store"
    if not is_address(uri):
        return f"MLFLOW_TRACKING_URI is {uri}"
    found = look_at(uri)
    check_workspace(uri, found)
    if found.version.split(".")[:2] != _version("mlflow").split(".")[:2]:
        raise LabError(
            f"{uri} runs MLflow {found.version}, and this lab {_version('mlflow')}: both need the same version."
        )
    if abs(found.clock_s) > CLOCK_S:
        raise LabError(f"the clock of {uri} is {found.clock_s:+.0f} s from this machine's: set this machine's clock.")
    who = f", user {found.user}" if found.user else ""
    where = f", workspace {os.environ['MLFLOW_WORKSPACE']}" if found.workspaces else ""
    return (
        f"MLFLOW_TRACKING_URI is {uri}: MLflow {found.version}{who}{where}, "
        f"clock accurate to {abs(found.clock_s):.0f} s"
    )


def _device() -> str:
    import torch

    from cnnlab.device import device_name, resolve_device

    return f"{device_name(resolve_device())}, {torch.get_num_threads()} threads, {os.cpu_count()} cores"


CHECKS: dict[str, Callable[[], str]] = {
    check.__name__.removeprefix("_"): check
    for check in (_python, _packages, _data, _store, _schema, _spool, _server, _tracking, _device)
}
