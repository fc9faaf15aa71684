"""Facts about the machine and the software of a run."""

import getpass
import os
import platform
import subprocess
from functools import cache
from importlib.metadata import version

from cnnlab.inquiry import paths
from cnnlab.inquiry.names import check_name
from cnnlab.inquiry.task import task

EXAMPLE, REFERENCE = "example", "reference"
SHIPPED = (EXAMPLE, REFERENCE)  # owners whose predictions or results ship with the lab


def owner() -> str:
    """Return the owner of runs made here: `CNNLAB_OWNER`, else `MLFLOW_TRACKING_USERNAME`, else the account's name.

    Raises:
        LabError: this isn't a valid name for an owner.
    """
    name = os.environ.get("CNNLAB_OWNER") or os.environ.get("MLFLOW_TRACKING_USERNAME") or getpass.getuser()
    return check_name("owner", name, "Set CNNLAB_OWNER to one.")


@cache
def environment_facts() -> dict[str, str]:
    """Return the versions, the commit and the kind of machine that results may depend on."""
    return {
        **{f"version.{name}": version(name) for name in ("mlflow", "numpy")},
        "version.python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "git_commit": _git_commit(),
        **task().environment(),
    }


def _git_commit() -> str:
    """Return the commit of the project folder, with "+changes" if its code was changed since."""
    try:
        folder = ["git", "-C", str(paths.project_root())]
        commit = _output([*folder, "rev-parse", "HEAD"])
        changed = _output([*folder, "status", "--porcelain", "--untracked-files=no", "--", "*.py", "pyproject.toml"])
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit}+changes" if changed else commit


def _output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True, encoding="utf-8")
    return done.stdout.strip()
