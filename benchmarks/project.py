"""A project folder for a benchmark, with its own MLflow store and owner, and without a server."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


@contextmanager
def temporary_project() -> Iterator[Path]:
    """Make this process, and those it starts, use an empty project folder."""
    with TemporaryDirectory(prefix="cnnlab-benchmark-", ignore_cleanup_errors=True) as folder:
        os.environ.update(project_environment(folder))
        yield Path(folder)


def use_project(folder: Path) -> None:
    """Make this process, and those it starts, use a project folder that is kept."""
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.update(project_environment(str(folder)))


def project_environment(folder: str) -> dict[str, str]:
    """Return the variables that make a folder the project folder, with a port where no server answers."""
    return {"CNNLAB_HOME": folder, "CNNLAB_OWNER": "benchmark", "MLFLOW_PORT": str(_free_port())}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
