"""The students of a class on an MLflow server: each gets a user, a workspace of that name, and a role in it.

A workspace separates: what is in one can't be read, written or deleted from another, and an administrator sees all.
"""

import csv
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.mlflow_private import accounts
from cnnlab.inquiry.record.elsewhere import in_workspace, look_at

if TYPE_CHECKING:
    from mlflow.server.auth.client import AuthServiceClient

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")  # what MLflow allows as the name of a workspace
RESERVED = ("admin", "default", "reference", "example")
ROLE = "student"


class Account(NamedTuple):
    """A student's way to the server; password: "" if the account existed already, with a password of its own."""

    name: str
    password: str

    def environment(self, server: str) -> str:
        """Return the lines that a student puts into the terminal, or into a file that it reads."""
        return (
            f"export MLFLOW_TRACKING_URI={server}\n"
            f"export MLFLOW_TRACKING_USERNAME={self.name} MLFLOW_TRACKING_PASSWORD={self.password}\n"
            f"export MLFLOW_WORKSPACE={self.name} CNNLAB_OWNER={self.name}\n"
        )


def read_roster(file: Path) -> list[str]:
    """Return the names of a roster: the column "name" of a CSV file, in order.

    Raises:
        LabError: it can't be read, has no such column or nobody in it, or a name is impossible or there twice.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            rows = list(csv.DictReader(lines))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LabError(f"the roster {file} can't be read ({error}): name a CSV file in UTF-8.") from None
    if not rows or "name" not in rows[0]:
        raise LabError(f'the roster {file} needs a first line with the column "name", and one line per student.')
    names = [(row["name"] or "").strip() for row in rows]
    for line, name in enumerate(names, start=2):
        if not NAME.fullmatch(name) or name in RESERVED:
            raise LabError(
                f"{file}, line {line}: {name!r} can't be a name. Use 1 to 63 small letters, digits and hyphens, and "
                f"none of {', '.join(RESERVED)}."
            )
        if names.index(name) != line - 2:
            raise LabError(f"{file}, line {line}: {name} is there twice; give each student a name of their own.")
    return names


def enroll(names: list[str], server: str) -> Iterator[Account]:
    """Give each student a user, a workspace and the right to use it, as the administrator of the environment.

    Existing accounts stay unchanged, and nobody is removed.

    Raises:
        LabError: the server doesn't answer, has no workspaces, or the user of the environment is no administrator.
    """
    found = look_at(server)
    if not found.is_admin:
        raise LabError(
            f"{found.user or 'nobody'} is no administrator of {server}: set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD to the administrator's."
        )
    if found.workspaces is None:
        raise LabError(f"{server} has no workspaces: start it with --app-name basic-auth --enable-workspaces.")
    users = accounts(server)
    client = MlflowClient(server)
    with in_workspace():
        for name in names:
            if name not in found.workspaces:
                client.create_workspace(name, description=f"The predictions and runs of {name}")
            yield Account(name, _user(users, name))
            _give_role(users, name)


def _user(users: "AuthServiceClient", name: str) -> str:
    """Make a user where there is none; return the password, "" of one that was there."""
    try:
        users.get_user(name)
        return ""
    except MlflowException:
        password = secrets.token_urlsafe(12)
        users.create_user(name, password)
        return password


def _give_role(users: "AuthServiceClient", name: str) -> None:
    """Let a user use the workspace of the same name, and no other."""
    role = next((role for role in users.list_roles(name) if role.name == ROLE), None)
    if role is None:
        role = users.create_role(name, ROLE, "makes experiments and runs")
        users.add_role_permission(role.id, "workspace", "*", "USE")
    if all(own.id != role.id for own in users.list_user_roles(name)):
        users.assign_role(name, role.id)
