"""The students of a class on an MLflow server: each gets a user, a workspace of that name, and a role in it.

A workspace separates: what is in one can't be read, written or deleted from another, and an administrator sees all.
"""

import codecs
import csv
import io
import re
import secrets
from collections.abc import Iterator
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.mlflow_private import accounts
from cnnlab.inquiry.names import check_name
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


def read_roster(file: Path) -> dict[str, dict[str, str]]:
    """Return the rows of a roster, a CSV file as any spreadsheet writes it, by what is in its column "name".

    Titles of columns are in small letters.

    Raises:
        LabError: it can't be read, has no such column or nobody in it, or a name is impossible or there twice.
    """
    filled = _filled(file)
    titles = [title.casefold() for title in filled[0][1]] if filled else []
    if titles.count("name") != 1 or len(filled) < 2:
        raise LabError(f'the roster {file} needs a first line with one column "name", and one line per student.')
    rows: dict[str, dict[str, str]] = {}
    for line, cells in filled[1:]:
        if any(cells[len(titles) :]):
            raise LabError(f"{file}, line {line}: there are more cells than titles; put a cell with commas in quotes.")
        row = dict(zip_longest(titles, cells[: len(titles)], fillvalue=""))
        name = check_name("owner", row["name"], f"Correct line {line} of {file}.")
        if name.casefold() in map(str.casefold, rows):
            raise LabError(f"{file}, line {line}: {name} is there twice; give each student a name of their own.")
        rows[name] = row
    return rows


def _filled(file: Path) -> list[tuple[int, list[str]]]:
    """Return the lines of a CSV file that aren't blank, with their numbers; the first one shows the separator."""
    try:
        text = _decoded(file.read_bytes())
        first, _, rest = text.partition("\n")
        separator = max(",;\t", key=first.count)
        if said := re.fullmatch(r"sep=(.)\r?", first):  # a line of Excel's own
            text, separator = f"\n{rest}", said[1]
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        return [(lines.line_num, row) for cells in lines if any(row := [cell.strip() for cell in cells])]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LabError(f"the roster {file} can't be read ({error}): name a CSV file in UTF-8.") from None


def _decoded(content: bytes) -> str:
    """Return a text in one of the encodings in which spreadsheets write: UTF-16, UTF-8, or that of Windows."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16")
    with suppress(UnicodeDecodeError):
        return content.decode("utf-8-sig")
    return content.decode("cp1252")


def enroll(names: list[str], server: str) -> Iterator[Account]:
    """Give each student a user, a workspace and the right to use it, as the administrator of the environment.

    Existing accounts stay unchanged, and nobody is removed.

    Raises:
        LabError: a name can't be that of a workspace, the server doesn't answer or has no workspaces, or the user of
            the environment is no administrator.
    """
    users, workspaces = _administer(names, server)
    client = MlflowClient(server)
    with in_workspace():
        for name in names:
            if name not in workspaces:
                client.create_workspace(name, description=f"The predictions and runs of {name}")
            role = _role(users, name)
            account = Account(name, "" if _exists(users, name) else secrets.token_urlsafe(12))
            if account.password:
                users.create_user(name, account.password)
            if all(own.id != role for own in users.list_user_roles(name)):
                users.assign_role(name, role)
            yield account


def reset_password(name: str, server: str) -> Account:
    """Give a student a new password, as the administrator of the environment; the old one stops at once.

    Raises:
        LabError: as `enroll`, or nobody has this name.
    """
    users, _ = _administer([name], server)
    with in_workspace():
        if not _exists(users, name):
            raise LabError(f"{server} has no user {name}: run this without --reset, which makes the missing accounts.")
        account = Account(name, secrets.token_urlsafe(12))
        users.update_user_password(name, account.password)
    return account


def _administer(names: list[str], server: str) -> tuple["AuthServiceClient", list[str]]:
    """Return the users and the workspaces of a server on which these students can have accounts."""
    if bad := [name for name in names if not NAME.fullmatch(name) or name in RESERVED]:
        raise LabError(
            f"{', '.join(map(repr, bad))} can't be the name of a workspace: use 1 to 63 small letters, digits and "
            f"hyphens, no hyphen at either end, and none of {', '.join(RESERVED)}."
        )
    found = look_at(server)
    if not found.is_admin:
        raise LabError(
            f"{found.user or 'nobody'} is no administrator of {server}: set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD to the administrator's."
        )
    if found.workspaces is None:
        raise LabError(f"{server} has no workspaces: start it with --app-name basic-auth --enable-workspaces.")
    return accounts(server), found.workspaces


def _exists(users: "AuthServiceClient", name: str) -> bool:
    try:
        users.get_user(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False
    return True


def _role(users: "AuthServiceClient", name: str) -> int:
    """Return the id of the role of a workspace, which lets its user use it and no other; make it if it is missing."""
    role = next((role for role in users.list_roles(name) if role.name == ROLE), None)
    role = role or users.create_role(name, ROLE, "makes experiments and runs")
    if not users.list_role_permissions(role.id):
        users.add_role_permission(role.id, "workspace", "*", "USE")
    return int(role.id)
