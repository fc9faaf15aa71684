"""The local MLflow server of one project folder: start it, stop it, report its status.

Every response of the server and the command lines of its processes contain the project folder
(uvicorn's option `--header`). This identifies the server without a pid file, which can become
stale, and without permission to list other users' connections. A second header identifies the
opened file: if `mlflow.db` is deleted or replaced, the server silently keeps using the old file.
"""

import http.client
import importlib.metadata
import os
import shlex
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import quote, unquote, urlparse
from urllib.request import url2pathname

import psutil

from cnnlab.inquiry import mlflow_private
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.log import log
from cnnlab.inquiry.paths import database, make_folder, models_folder, project_root, state_folder

MLFLOW = "3.17.2"  # the version that this lab is made for; versions before 3.17 can't open its store
HOST = "127.0.0.1"
DEFAULT_PORT = 5001

START_LIMIT = 120.0  # seconds; this matters on slow disks only: a dead server is noticed at once
STOP_LIMIT = 10.0  # seconds after which a server that was told to stop is killed
PATIENCE = 10.0  # seconds before a silent server counts as broken: it may just be busy

_HEADER = "cnnlab-home"
_FILE_HEADER = "cnnlab-file"
NOTE = "cnnlab: "  # prefix of the log lines that are meant for the user who started the server

# A detached process without a console would give each of its children a visible one.
_CREATION_FLAGS = 0
if sys.platform == "win32":
    _CREATION_FLAGS = subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP

RESTART = "stop it and start it again (`uv run cnnlab server stop`, then `uv run cnnlab server start`)"

State = Literal["running", "detached", "starting", "unhealthy", "foreign", "stopped"]


@dataclass(frozen=True)
class Status:
    """The state of the server on one port; `str(status)` describes it and says how to fix a problem.

    `foreign` means that another program holds the port, `unhealthy` that our server runs but
    does not answer, and `detached` that its `mlflow.db` was deleted or replaced.
    `memory_mb` is the resident memory of all `pids`, in MB (2**20 bytes).
    """

    state: State
    url: str
    pids: tuple[int, ...] = ()
    memory_mb: float = 0.0
    note: str = ""

    def __str__(self) -> str:
        said = "The MLflow server is not running."
        if self.pids:
            pids = ", ".join(str(pid) for pid in self.pids)
            said = f"The MLflow server is {self.state}: {self.url} (pids {pids}; {self.memory_mb:.0f} MB)."
        return f"{said} {self.note}".strip()


class _Served(NamedTuple):
    """The folder and the file that an MLflow server reports; "" if it isn't a server of this lab."""

    folder: str
    file: str


def require_mlflow() -> None:
    """Check MLflow's version before importing it: its own error message would not explain the problem.

    Raises:
        LabError: MLflow is too old or not installed.
    """
    try:
        found = importlib.metadata.version("mlflow")
    except importlib.metadata.PackageNotFoundError:
        found = ""
    numbers, needed = ([int(part) for part in text.split(".")[:2] if part] for text in (found, MLFLOW))
    if numbers < needed:
        raise LabError(
            f"this lab needs MLflow {MLFLOW}, and {found or 'none'} is installed: run `uv sync`, or without uv "
            f"`pip install mlflow=={MLFLOW}` (pip warns that mltrainer asks for an older one; it works with this one)."
        )


def port() -> int:
    """Return the server's port: `MLFLOW_PORT` if it is set, else 5001.

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
    """Return the server's URL on port `at` (default: `port()`)."""
    return f"http://{HOST}:{port() if at is None else at}"


def is_listening(at: int) -> bool:
    """Return whether any program accepts connections on port `at`."""
    try:
        with socket.create_connection((HOST, at), timeout=0.4):
            return True
    except OSError:
        return False


def answers(at: int) -> bool:
    """Return whether the server of this project folder answers on port `at`.

    Raises:
        LabError: it answers, but its `mlflow.db` was deleted or replaced.
    """
    if not is_listening(at) or not _answers(at):
        return False
    if _is_detached(at):
        raise LabError(_detached())
    return True


def processes(at: int | None = None) -> list[psutil.Process]:
    """Return the live processes of this project's server on port `at` (default: on any port).

    There is at most one, unless somebody started a second one by hand.
    """
    return [process for process, its in _ports().items() if at in (None, its)]


def status() -> Status:
    """Return the state of this project's server on port `port()`."""
    at = port()
    mine, pids = processes(at), ", ".join(map(str, without_artifacts()))
    state, note = _state(at, bool(mine))
    if pids:
        note += (
            f" A server without --artifacts-destination models holds this store (pid {pids}): it shows the runs, but "
            "none of their figures and models. End it, then run `uv run cnnlab server start`, or the line that "
            "`uv run cnnlab server command` prints."
        )
    return Status(state, address(at), tuple(process.pid for process in mine), _memory_mb(mine), note.strip())


def without_artifacts() -> list[int]:
    """Return the pids of hand-started MLflow servers that use this store but look elsewhere for figures and models."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any(part.startswith("mlflow.server") for part in process.info["cmdline"] or []):
            with suppress(psutil.Error):
                told, cwd = process.environ(), Path(process.cwd())
                store, models = (told.get(name, "") for name in (mlflow_private.STORE, mlflow_private.FOLDER))
                serves = mlflow_private.SERVES in told and _local(models, cwd) == models_folder().resolve()
                if _local(store, cwd) == database().resolve() and not serves:
                    found.append(process.pid)
    return found


def command() -> list[str]:
    """Return the command with which a user can serve this folder's store, figures and models by hand."""
    options = {"--backend-store-uri": _store_uri(), "--artifacts-destination": models_folder().as_uri()}
    options |= {"--host": HOST, "--port": str(port()), "--workers": "1"}  # one process is enough for an SQLite file
    return [sys.executable, "-m", "mlflow", "server", *(part for option in options.items() for part in option)]


def start() -> str:
    """Start this project's server unless it is running, and return its URL once it answers.

    The server keeps running after the caller ends. Its output goes to `.cnnlab/server.log`.

    Raises:
        LabError: another program holds the port, this project's server runs on another port,
            or the server ended or did not answer; the message says what to do.
    """
    from filelock import FileLock, Timeout  # takes 0.1 s, which the other commands can avoid

    at = port()
    try:
        # Two terminals may start at once: the second waits here, then finds the first one's server.
        with FileLock(state_folder() / "server.lock", timeout=START_LIMIT + STOP_LIMIT + PATIENCE):
            return _start(at)
    except Timeout:
        raise LabError("Another start of this project's server has not finished: stop it, then try again.") from None


def stop() -> None:
    """Stop all processes of this project's server, on any port, and no others.

    Raises:
        LabError: a process could not be stopped.
    """
    at = port()
    if ended := _end():
        log.info(f"Stopped the MLflow server (pids {', '.join(str(pid) for pid in ended)}).")
    elif is_listening(at):
        log.info(
            f"The MLflow server of this project is not running; "
            f"port {at} is held by {_holder(at)}, which does not belong to this project and was not stopped."
        )
    else:
        log.info("The MLflow server is not running.")


def _home() -> str:
    return project_root().as_posix()


def _mark() -> str:
    """Return the mark of our processes; it is quoted, since a path may contain spaces and accents."""
    return f"{_HEADER}:{quote(_home())}"


def _file_id() -> str:
    """Return an id that distinguishes the current file `mlflow.db` from earlier and later ones of that name."""
    with suppress(FileNotFoundError):
        file = database().stat()
        return f"{file.st_dev}-{file.st_ino}"
    return "none"


def _is_detached(at: int) -> bool:
    """Return whether our server on port `at` opened a different file than the current `mlflow.db`."""
    served = _served(at)
    return served is not None and served.file not in ("", _file_id())


def _detached() -> str:
    return (
        f"{database()} was deleted or replaced while the MLflow server ran: the server still writes to the old file, "
        f"and what it writes will be lost. Put the file that you want to keep there, then {RESTART}."
    )


def _state(at: int, has_process: bool) -> tuple[State, str]:
    """Return the state of the server on port `at`, and how to fix a problem."""
    if has_process and _answers(at):
        return ("detached", _detached()) if _is_detached(at) else ("running", "")
    if has_process:
        return ("unhealthy", f"It doesn't answer: {RESTART}.") if is_listening(at) else ("starting", "")
    if is_listening(at):
        return "foreign", f"{_taken(at)}."
    return "stopped", " ".join(f"It runs on another port: {address(at)}." for at in sorted(set(_ports().values())))


def _store_uri() -> str:
    return f"sqlite:///{database().as_posix()}"


def _local(address: str, cwd: Path) -> Path:
    """Return the path that an address such as sqlite:///mlflow.db or file:///... means to a process in `cwd`."""
    path = address.removeprefix("sqlite:///").partition("?")[0]
    return (cwd / (url2pathname(urlparse(path).path) if path.startswith("file:") else path)).resolve()


def _ports() -> dict[psutil.Process, int]:
    """Return our processes, each with the port in its command line."""
    mark, found = _mark(), {}
    for process in psutil.process_iter(["cmdline"]):
        # Zombies and processes of other users show no command line.
        command: list[str] = process.info["cmdline"] or []
        if "--port" in command and any(mark in part.split() for part in command):
            found[process] = int(command[command.index("--port") + 1])
    return found


def _served(at: int) -> _Served | None:
    """Return what the MLflow server on port `at` serves; None if no MLflow server answers."""
    # http.client, since urllib.request would send even this request through a proxy.
    connection = http.client.HTTPConnection(HOST, at, timeout=2)
    with closing(connection), suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/health")
        response = connection.getresponse()
        if response.status == 200 and response.read(16).strip() == b"OK":
            return _Served(unquote(response.getheader(_HEADER, "")), response.getheader(_FILE_HEADER, ""))
    return None


def _answers(at: int, patience: float = 0.0) -> bool:
    """Return whether our server answers on port `at` within about `patience` seconds; ask at least once."""
    deadline = time.monotonic() + patience
    while (served := _served(at)) is None or served.folder != _home():
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


def _start(at: int) -> str:
    require_mlflow()
    mine = _ports()
    for other in set(mine.values()) - {at}:
        if _answers(other, PATIENCE):
            raise LabError(
                f"The server of this project already runs on another port, {address(other)}: "
                f"use it with MLFLOW_PORT={other}, or stop it first (./stop_server.sh)."
            )
    if _answers(at, PATIENCE if mine else 0.0):
        answers(at)  # refuses a server whose file is gone: it may hold the last copy
        log.info(f"The MLflow server is already running: {address(at)}")
        return address(at)
    if ended := _end():
        log.info(f"Stopped the rest of an earlier server (pids {', '.join(str(pid) for pid in ended)}).")
    if is_listening(at):
        raise LabError(_taken(at))
    return _await(_launch(at), at)


def _launch(at: int) -> subprocess.Popen[bytes]:
    make_folder(models_folder())
    database().touch()  # so that the server and all its observers mean the same file
    with _log().open("wb") as output:
        server = subprocess.Popen(
            _command(at),
            cwd=project_root(),
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that neither Ctrl-C nor a closed terminal reaches it
            creationflags=_CREATION_FLAGS,
        )
    # A notebook may outlive the server that it started: without this wait, the server would become a zombie.
    threading.Thread(target=server.wait, daemon=True).start()
    return server


def _command(at: int) -> list[str]:
    # This is what `mlflow server` finally runs. That command imports MLflow once itself, only to start this in a
    # second process, which takes twice the time and twice the memory.
    options = ["--host", HOST, "--port", str(at), "--header", _mark(), "--header", f"{_FILE_HEADER}:{_file_id()}"]
    return [sys.executable, "-m", "uvicorn", *options, "--no-access-log", "cnnlab.inquiry.show.served:app"]


def _environment() -> dict[str, str]:
    """Return the caller's environment without the variables that change where the server keeps its data."""
    # A variable can also set each option of `mlflow server`. Those named MLFLOW_SERVER_* (allowed
    # hosts and origins) are settings of the machine, not of the project, and are kept.
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MLFLOW_", "_MLFLOW_")) or name.startswith("MLFLOW_SERVER_")
    }
    # Compiling MLflow at each start would triple the wait.
    inherited.pop("PYTHONDONTWRITEBYTECODE", None)
    return inherited | {
        # The variables through which `mlflow server` passes on its options; MLflow's version is pinned.
        mlflow_private.STORE: _store_uri(),
        mlflow_private.ROOT: mlflow_private.ROOT_URI,
        mlflow_private.FOLDER: models_folder().as_uri(),
        mlflow_private.SERVES: "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "50",
    }


def _await(server: subprocess.Popen[bytes], at: int) -> str:
    """Return the URL of the server just launched as soon as it answers."""
    begin = time.monotonic()
    log.info("Starting the MLflow server; the first start in a folder takes longest ...")
    while time.monotonic() < begin + START_LIMIT:
        if server.poll() is not None:
            # uvicorn requests the port only after importing the app: by then another program may have taken it.
            if is_listening(at) and not processes(at):
                raise LabError(f"Another program took the port while the server was starting. {_taken(at)}")
            raise LabError(f"The MLflow server ended while it was starting. {_last_words()}")
        if _answers(at):
            _open_store(at)
            for line in _log_lines():
                if line.startswith(NOTE):
                    log.info(line.removeprefix(NOTE))
            log.info(f"The MLflow server is ready: {address(at)} ({time.monotonic() - begin:.1f} s)")
            return address(at)
        time.sleep(0.1)
    _end()
    raise LabError(f"The MLflow server did not answer within {START_LIMIT:.0f} s. {_last_words()}")


def _open_store(at: int) -> None:
    """Make the server open the database, and create the tables of a new one, before any other request."""
    opened, connection = 0, http.client.HTTPConnection(HOST, at, timeout=START_LIMIT)
    with closing(connection), suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/api/2.0/mlflow/experiments/get?experiment_id=0")
        opened = connection.getresponse().status
    if opened not in (200, 404):  # 404: a database without MLflow's default experiment
        _end()
        raise LabError(f"The MLflow server can't open {database()}: run `cnnlab doctor`. {_last_words()}")


def _end() -> list[int]:
    """Terminate all of our processes, kill those that don't end, and return their pids."""
    told: list[psutil.Process] = []
    begin = time.monotonic()
    # A process that is ending no longer has a command line, but still holds its port.
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
    """Return the name of the program that listens on port `at`, if this user may see it."""
    if (served := _served(at)) and served.folder:
        return f"the MLflow server of another project folder, {served.folder}"
    # Ask each process: on macOS, a single forbidden connection makes a listing of all of them fail.
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


def _log_lines() -> list[str]:
    return _log().read_text(encoding="utf-8", errors="replace").splitlines()


def _last_words() -> str:
    return "\n".join([f"The end of {_log()}:", *(f"  {line}" for line in _log_lines()[-15:])])
