"""The locations of the project's files: one absolute path, from which all others follow."""

import os
from pathlib import Path

from cnnlab.inquiry.errors import LabError


def project_root() -> Path:
    """Return the folder that holds `mlflow.db`, `models/` and `experiment_log/`.

    It is `CNNLAB_HOME` if that is set, else the folder this package was cloned into. It never
    depends on the working directory, so a notebook and a terminal see the same store.

    Raises:
        LabError: `CNNLAB_HOME` is not a folder, or it is not set and the package was installed without its project.
    """
    if home := os.environ.get("CNNLAB_HOME"):
        folder = Path(home).expanduser().resolve()
        if folder.exists() and not folder.is_dir():
            raise LabError(f"CNNLAB_HOME is {folder}, which is a file: set it to a folder, or unset it.")
        return folder
    root = Path(__file__).resolve().parents[2]
    if not (root / "pyproject.toml").is_file():
        raise LabError(
            "cnnlab is installed outside its project folder; set CNNLAB_HOME to the folder for mlflow.db and models/."
        )
    return root


def database() -> Path:
    """Return the path of MLflow's SQLite file."""
    return project_root() / "mlflow.db"


def models_folder() -> Path:
    """Return the folder of the artifact store: the models and figures of all runs."""
    return project_root() / "models"


def experiment_log() -> Path:
    """Return the folder of the logbooks: one Markdown file per study."""
    return project_root() / "experiment_log"


def state_folder() -> Path:
    """Return the folder for files of this machine only (server log, undelivered runs), outside version control.

    Raises:
        LabError: it isn't writable.
    """
    return make_folder(project_root() / ".cnnlab")


def cache_folder() -> Path:
    """Return the cache folder for all projects of a user; it may not exist."""
    return Path.home() / ".cache" / "cnnlab"


def make_folder(folder: Path) -> Path:
    """Create a folder of the project if it doesn't exist yet, and return it.

    Raises:
        LabError: it can't be created, or isn't writable.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
    else:
        if os.access(folder, os.W_OK):
            return folder
        reason = "you have no permission to write there"
    raise LabError(f"{folder} can't be written to ({reason}): set CNNLAB_HOME to a folder of your own.")
