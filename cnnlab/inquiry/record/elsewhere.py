"""An MLflow server elsewhere: does it answer, does it know this user, and is this one of the user's workspaces?"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.mlflow_private import ask_server

WORKSPACE = "MLFLOW_WORKSPACE"
CLOCK_S = 120  # by which two times may differ: that of a record and MLflow's, or those of two machines


@dataclass(frozen=True)
class Elsewhere:
    """What a server says about itself and this user.

    user: "" if the server has no users. workspaces: those that the user may enter; None if the server has none.
    clock_s: how many seconds its clock is ahead of this machine's.
    """

    version: str
    user: str
    is_admin: bool
    workspaces: list[str] | None
    clock_s: float


def look_at(uri: str) -> Elsewhere:
    """Return what a server says about itself and the user of the environment.

    Raises:
        LabError: it doesn't answer, refuses the name of its host, or doesn't know the user or the password.
    """
    with in_workspace():
        version, date = _get(uri, "/version")
        if not re.fullmatch(r"\d+\.\d+.*", str(version)):
            raise LabError(f"{uri} isn't an MLflow server: check the address.")
        info = _get(uri, "/api/3.0/mlflow/server-info")[0]
        answer = _get(uri, "/api/2.0/mlflow/users/current")[0]
        workspaces = None
        if isinstance(info, dict) and info.get("workspaces_enabled"):
            workspaces = [one["name"] for one in _get(uri, "/api/3.0/mlflow/workspaces")[0]["workspaces"]]
    user = answer.get("user", {}) if isinstance(answer, dict) else {}
    clock_s = (parsedate_to_datetime(date) - datetime.now(UTC)).total_seconds() if date else 0.0
    return Elsewhere(str(version), user.get("username", ""), bool(user.get("is_admin")), workspaces, clock_s)


def lab_address(uri: str) -> str:
    """Return the address of the page of the lab on a server; "" on one that `cnnlab server start` didn't start."""
    try:
        has_page = ask_server(uri, "/lab").status_code == 200
    except Exception:  # MLflow raises whatever the library below it raises
        has_page = False
    return f"{uri}/lab" if has_page else ""


@contextmanager
def in_workspace(name: str = "") -> Iterator[None]:
    """Let MLflow speak to one workspace of a server, or without a name to the server as a whole."""
    before = os.environ.pop(WORKSPACE, None)
    if name:
        os.environ[WORKSPACE] = name
    try:
        yield
    finally:
        os.environ.pop(WORKSPACE, None)
        if before is not None:
            os.environ[WORKSPACE] = before


def check_workspace(uri: str, found: Elsewhere) -> None:
    """Make sure that a user works in a workspace that is theirs.

    Raises:
        LabError: there are workspaces, and the one of the environment isn't among them.
    """
    workspace = os.environ.get(WORKSPACE, "")
    if found.workspaces is None or workspace in found.workspaces:
        return
    said = f"MLFLOW_WORKSPACE is {workspace!r}" if workspace else "MLFLOW_WORKSPACE is not set"
    allowed = ", ".join(found.workspaces) or "none: ask your instructor for one"
    raise LabError(f"{uri} keeps runs in workspaces, and {said}. Yours: {allowed}.")


def _get(uri: str, path: str) -> tuple[Any, str]:
    """Return what a server answers, as JSON where it is, and the time on its clock."""
    try:
        response = ask_server(uri, path)
    except Exception as error:  # MLflow raises whatever the library below it raises
        raise LabError(
            f"{uri} doesn't answer ({type(error).__name__}): start that server, correct its address, or unset "
            "MLFLOW_TRACKING_URI to use this folder's mlflow.db."
        ) from None
    if response.status_code == 401:
        user = os.environ.get("MLFLOW_TRACKING_USERNAME", "")
        known = f"doesn't know the user {user!r} with this password" if user else "asks for a user and a password"
        raise LabError(f"{uri} {known}: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD to yours.")
    if response.status_code == 403 and "Host header" in response.text:
        raise LabError(f"{uri} refuses its own name: its owner has to start it with that name in --allowed-hosts.")
    date = response.headers.get("Date", "")
    is_json = "json" in response.headers.get("Content-Type", "")
    return (response.json() if is_json else response.text.strip()), date
