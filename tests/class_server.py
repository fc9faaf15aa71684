"""A server for a class, as docs/class.md says: PostgreSQL, and MLflow with users and workspaces."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest
import requests

from tests.helpers import free_port, wait_for

PROJECT = Path(__file__).parents[1]
PASSWORD = "the-administrators-password"
DATABASE_PASSWORD = "p@ss/word"  # with what has to be escaped in an address


@dataclass(frozen=True)
class ClassServer:
    """Its address, its databases, and what is said of them."""

    address: str
    database: str


def _programs() -> Path | None:
    """The folder of PostgreSQL's programs; Debian doesn't put it on the path."""
    on_path = shutil.which("initdb")
    found = [Path(on_path).parent] if on_path else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return found[-1] if found else None


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """A PostgreSQL of its own; the address of its databases, without their name."""
    programs = _programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: no test of a class")
    port = free_port()
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []  # PostgreSQL refuses root
    if as_user:
        shutil.chown(folder, "postgres")
        for parent in (folder, *folder.parents):
            parent.chmod(parent.stat().st_mode | 0o011)
    data, options = folder / "data", f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="

    (folder / "password").write_text(DATABASE_PASSWORD)

    def call(program: str, *arguments: str) -> None:
        command = [*as_user, str(programs / program), "-D", str(data), *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd=folder)

    call("initdb", "-A", "scram-sha-256", "--pwfile", str(folder / "password"), "-U", "mlflow", "-E", "UTF8")
    call("pg_ctl", "start", "-w", "-o", options, "-l", str(folder / "log"))
    try:
        yield f"postgresql://mlflow:{quote(DATABASE_PASSWORD, safe='')}@127.0.0.1:{port}"
    finally:
        with suppress(subprocess.CalledProcessError):  # it has ended already
            call("pg_ctl", "stop", "-m", "immediate", "-t", "120")


@contextmanager
def class_server(folder: Path) -> Iterator[ClassServer]:
    """A server of the kind that docs/class.md describes."""
    pytest.importorskip("flask_wtf", reason="the class extra is not installed: uv sync --extra class")
    psycopg = pytest.importorskip("psycopg", reason="the class extra is not installed: uv sync --extra class")
    with postgres(folder) as base:
        with psycopg.connect(f"{base}/postgres", autocommit=True) as connection:
            for name in ("mlflow", "mlflow_users"):
                connection.execute(f"CREATE DATABASE {name}")
        port = free_port()
        environment = os.environ | {
            "PGHOST": "127.0.0.1",
            "PGPORT": base.rpartition(":")[2],
            "PGUSER": "mlflow",
            "PGPASSWORD": DATABASE_PASSWORD,
            "MLFLOW_AUTH_CONFIG_PATH": str(PROJECT / "class" / "auth.ini"),
            "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "a secret of this test",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "50",
        }
        options = ["--app-name", "basic-auth", "--enable-workspaces", "--workers", "1", "--port", str(port)]
        options += ["--backend-store-uri", "postgresql+psycopg:///mlflow"]
        options += ["--artifacts-destination", str(folder / "artifacts")]
        with (folder / "server.log").open("w") as log:
            command = [sys.executable, "-m", "mlflow", "server", *options]
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder)
        address = f"http://127.0.0.1:{port}"
        try:
            wait_for(lambda: _answers(address))
            with psycopg.connect(f"{base}/mlflow", autocommit=True) as connection:
                connection.execute((PROJECT / "class" / "received.sql").read_text(encoding="utf-8"))
            yield ClassServer(address, f"{base}/mlflow")
        finally:
            ours = psutil.Process(process.pid)
            for one in (*ours.children(recursive=True), ours):
                one.kill()
            process.wait()


def _answers(address: str) -> bool:
    try:
        return requests.get(f"{address}/health", timeout=1).ok
    except requests.RequestException:
        return False
