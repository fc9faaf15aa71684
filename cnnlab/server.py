"""The local MLflow server of one project folder: start it, stop it, say how it is.

Every answer of the server and the command lines of its processes carry the project folder
(uvicorn's option `--header`). So the server is recognised without a pid file, which goes stale,
and without the right to list other users' connections.
"""

import http.client
import os
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote, unquote

import psutil

from cnnlab.errors import LabError
from cnnlab.paths import database, models_folder, project_root, state_folder

HOST = "127.0.0.1"
DEFAULT_PORT = 5001

START_LIMIT = 120.0  # seconds; a dead server is noticed at once, so this is for slow disks only
STOP_LIMIT = 10.0  # seconds until a server that was asked to end is killed
PATIENCE = 10.0  # seconds until a silent server counts as broken: it may only be busy

_HEADER = "cnnlab-home"

# A detached process without a console would give each of its children a visible one.
_CREATION_FLAGS = 0
if sys.platform == "win32":
    _CREATION_FLAGS = subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP

State = Literal["running", "starting", "unhealthy", "foreign", "stopped"]


@dataclass(frozen=True)
class Status:
    """How the server on one port is; `str(status)` says it in a sentence.

    `foreign` means that the port is held by something else, `unhealthy` that our server is
    there but does not answer. `memory_mb` is the resident memory of all `pids`, in MB (2**20 bytes).
    """

    state: State
    url: str
    pids: tuple[int, ...] = ()
    memory_mb: float = 0.0
    note: str = ""

    def __str__(self) -> str:
        if not self.pids:
            return f"The MLflow server is not running. {self.note}".strip()
        pids = ", ".join(str(pid) for pid in self.pids)
        return f"The MLflow server is {self.state}: {self.url} (pids {pids}; {self.memory_mb:.0f} MB)."


def port() -> int:
    """The server's port: `MLFLOW_PORT` where that is set, else 5001.

    Raises:
        LabError: `MLFLOW_PORT` is not a whole number from 1 to 65535.
    """
    text = os.environ.get("MLFLOW_PORT", "").strip()
    if not text:
        return DEFAULT_PORT
    if not (text.isdecimal() and 1 <= int(text) <= 65535):
        raise LabError(
            f"MLFLOW_PORT is {text!r}, but a port is a whole number from 1 to 65535: "
            f"set it to such a number, or unset it to use {DEFAULT_PORT}."
        )
    return int(text)


def address(at: int | None = None) -> str:
    """The server's URL on port `at` (default: `port()`)."""
    return f"http://{HOST}:{port() if at is None else at}"


def is_listening(at: int) -> bool:
    """Whether anything takes connections on port `at`."""
    try:
        with socket.create_connection((HOST, at), timeout=0.4):
            return True
    except OSError:
        return False


def is_healthy(at: int) -> bool:
    """Whether an MLflow server, ours or not, answers on port `at`."""
    return _folder_served(at) is not None


def answers(at: int) -> bool:
    """Whether the server of this project folder answers on port `at`."""
    return is_listening(at) and _answers(at)


def is_ours(at: int) -> bool:
    """Whether port `at` is held by the server of this project folder, healthy or not."""
    folder = _folder_served(at)
    if folder is not None:
        return folder == _home()
    return is_listening(at) and bool(processes(at))


def processes(at: int | None = None) -> list[psutil.Process]:
    """The live processes of this project's server on port `at` (default: on any port).

    There is one, unless somebody started a second by hand.
    """
    return [process for process, its in _ports().items() if at in (None, its)]


def status(at: int | None = None) -> Status:
    """How this project's server on port `at` is (default: `port()`)."""
    at = port() if at is None else at
    url, mine = address(at), processes(at)
    if not mine:
        if is_listening(at):
            return Status("foreign", url, note=f"Port {at} is held by {_holder(at)}.")
        notes = [f"It runs on another port: {address(other)}." for other in sorted(set(_ports().values()))]
        return Status("stopped", url, note=" ".join(notes))
    state: State = "running" if _answers(at) else "unhealthy" if is_listening(at) else "starting"
    return Status(state, url, tuple(process.pid for process in mine), _memory_mb(mine))


def start(say: Callable[[str], None] = print) -> str:
    """Start this project's server, or find it running, and return its URL once it answers.

    The server outlives the caller. What it writes goes to `.cnnlab/server.log`.

    Raises:
        LabError: the port is held by something else, this project's server runs on another port,
            or the server ended or stayed silent; the message says what to do.
    """
    from filelock import FileLock, Timeout  # costs 0.1 s, which the other commands need not pay

    at = port()
    try:
        # Two terminals may start at once: the second waits here, then finds the first one's server.
        with FileLock(state_folder() / "server.lock", timeout=START_LIMIT + STOP_LIMIT + PATIENCE):
            return _start(at, say)
    except Timeout:
        raise LabError("Another start of this project's server has not ended; end it, then start again.") from None


def stop(say: Callable[[str], None] = print) -> None:
    """End all processes of this project's server, on whichever port; leave all others alone.

    Raises:
        LabError: a process could not be ended.
    """
    at = port()
    if ended := _end():
        say(f"Stopped the MLflow server (pids {', '.join(str(pid) for pid in ended)}).")
    elif is_listening(at):
        say(
            f"The MLflow server of this project is not running; "
            f"port {at} is held by {_holder(at)}, which is not ours and was left alone."
        )
    else:
        say("The MLflow server is not running.")


def _home() -> str:
    return project_root().as_posix()


def _mark() -> str:
    """What tells our processes from all others; quoted, as a path may hold spaces and accents."""
    return f"{_HEADER}:{quote(_home())}"


def _ports() -> dict[psutil.Process, int]:
    """Our processes, each with the port in its command line."""
    mark, found = _mark(), {}
    for process in psutil.process_iter(["cmdline"]):
        # Zombies and processes of other users show no command line.
        command: list[str] = process.info["cmdline"] or []
        if "--port" in command and any(mark in part.split() for part in command):
            found[process] = int(command[command.index("--port") + 1])
    return found


def _folder_served(at: int) -> str | None:
    """The project folder of the MLflow server on port `at`.

    Returns:
        "" where an MLflow server names no folder, None where no MLflow server answers.
    """
    # http.client, as urllib.request would send even this through a proxy.
    connection = http.client.HTTPConnection(HOST, at, timeout=2)
    try:
        connection.request("GET", "/health")
        response = connection.getresponse()
        if response.status == 200 and response.read(16).strip() == b"OK":
            return unquote(response.getheader(_HEADER, ""))
    except (OSError, http.client.HTTPException):
        pass
    finally:
        connection.close()
    return None


def _answers(at: int, patience: float = 0.0) -> bool:
    """Whether our server answers on port `at` within about `patience` seconds; asks at least once."""
    deadline = time.monotonic() + patience
    while _folder_served(at) != _home():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.2)
    return True


def _memory_mb(members: list[psutil.Process]) -> float:
    total = 0
    for process in members:
        with suppress(psutil.Error):
            total += process.memory_info().rss
    return total / 2**20


def _start(at: int, say: Callable[[str], None]) -> str:
    mine = _ports()
    for other in set(mine.values()) - {at}:
        if _answers(other, PATIENCE):
            raise LabError(
                f"The server of this project already runs on another port, {address(other)}: "
                f"use it with MLFLOW_PORT={other}, or stop it first (./stop_server.sh)."
            )
    if _answers(at, PATIENCE if mine else 0.0):
        say(f"The MLflow server is already running: {address(at)}")
        return address(at)
    if ended := _end():
        say(f"Ended what was left of an earlier server (pids {', '.join(str(pid) for pid in ended)}).")
    if is_listening(at):
        raise LabError(_taken(at))
    return _await(_launch(at), at, say)


def _launch(at: int) -> subprocess.Popen[bytes]:
    models_folder().mkdir(parents=True, exist_ok=True)
    with _log().open("wb") as log:
        server = subprocess.Popen(
            _command(at),
            cwd=project_root(),
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that neither Ctrl-C nor a closed terminal reaches it
            creationflags=_CREATION_FLAGS,
        )
    # A notebook may outlive the server that it started: wait for it, or its end leaves a zombie.
    threading.Thread(target=server.wait, daemon=True).start()
    return server


def _command(at: int) -> list[str]:
    # What `mlflow server` runs in the end. That command itself would import MLflow a first time, only to start
    # this in a second process: twice the wait, and twice the memory.
    options = ["--host", HOST, "--port", str(at), "--header", _mark(), "--no-access-log"]
    return [sys.executable, "-m", "uvicorn", *options, "mlflow.server.fastapi_app:app"]


def _environment() -> dict[str, str]:
    """The caller's environment, without what would change where the server keeps its data."""
    # Each option of `mlflow server` may also come from a variable. Those named MLFLOW_SERVER_*
    # (allowed hosts and origins) belong to the machine, not to the project, and stay.
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MLFLOW_", "_MLFLOW_")) or name.startswith("MLFLOW_SERVER_")
    }
    # Compiling MLflow anew at each start would triple the wait.
    inherited.pop("PYTHONDONTWRITEBYTECODE", None)
    return inherited | {
        # The names by which `mlflow server` hands its options on; MLflow's version is pinned.
        "_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{database().as_posix()}",
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": models_folder().as_uri(),
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "50",
    }


def _await(server: subprocess.Popen[bytes], at: int, say: Callable[[str], None]) -> str:
    """Return the URL of the server just launched as soon as it answers."""
    begin = time.monotonic()
    say("Starting the MLflow server; the first start in a folder takes longest ...")
    while time.monotonic() < begin + START_LIMIT:
        if server.poll() is not None:
            # uvicorn asks for the port only after its import, when another may have taken it.
            if is_listening(at) and not is_ours(at):
                raise LabError(f"While the server was starting, its port was taken. {_taken(at)}")
            raise LabError(f"The MLflow server ended while it was starting. {_last_words()}")
        if _answers(at):
            _open_store(at)
            say(f"The MLflow server is ready: {address(at)} ({time.monotonic() - begin:.1f} s)")
            return address(at)
        time.sleep(0.1)
    _end()
    raise LabError(f"The MLflow server did not answer within {START_LIMIT:.0f} s. {_last_words()}")


def _open_store(at: int) -> None:
    """Let the server open the database, and make its tables in a new one, before anybody else asks."""
    connection = http.client.HTTPConnection(HOST, at, timeout=START_LIMIT)
    try:
        connection.request("GET", "/api/2.0/mlflow/experiments/get?experiment_id=0")
        opened = connection.getresponse().status
    except (OSError, http.client.HTTPException):
        opened = 0
    finally:
        connection.close()
    if opened not in (200, 404):  # 404: a database without MLflow's default experiment
        _end()
        raise LabError(f"The MLflow server can't open {database()}: run `cnnlab doctor`. {_last_words()}")


def _end() -> list[int]:
    """End all of our processes, politely at first, and return their pids."""
    told: list[psutil.Process] = []
    begin = time.monotonic()
    # A process on its way out has no command line any more, and still holds its port.
    while mine := {*processes(), *filter(_lives, told)}:
        waited = time.monotonic() - begin
        if waited > 2 * STOP_LIMIT:
            pids = ", ".join(str(process.pid) for process in mine)
            raise LabError(f"Could not end the MLflow server (pids {pids}): end it in the task manager.")
        for process in mine:
            with suppress(psutil.Error):
                if waited > STOP_LIMIT:
                    process.kill()
                elif process not in told:
                    process.terminate()
        told += [process for process in mine if process not in told]
        time.sleep(0.1)
    return [process.pid for process in told]


def _lives(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _taken(at: int) -> str:
    return (
        f"Port {at} is held by {_holder(at)}: stop that program, "
        f"or use another port, for example MLFLOW_PORT={at % 65535 + 1} ./start_server.sh"
    )


def _holder(at: int) -> str:
    """Name what listens on port `at`, as far as this user may see it."""
    if folder := _folder_served(at):
        return f"the MLflow server of another project folder, {folder}"
    # Process by process, as on macOS one connection that may not be seen spoils the whole list.
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            sockets = process.net_connections("tcp")
            if any(s.status == psutil.CONN_LISTEN and s.laddr.port == at for s in sockets):
                return _describe(process)
    return "another program (this user may not see which)"


def _describe(process: psutil.Process) -> str:
    seen = process.as_dict(["name", "cmdline", "cwd"])
    command = shlex.join(seen["cmdline"] or [])
    short = command if len(command) <= 120 else f"{command[:117]}..."
    return f"{seen['name']} (pid {process.pid}, started in {seen['cwd'] or 'an unknown folder'}): {short}"


def _log() -> Path:
    return state_folder() / "server.log"


def _last_words() -> str:
    lines = _log().read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join([f"The end of {_log()}:", *(f"  {line}" for line in lines[-15:])])
