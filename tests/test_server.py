"""The MLflow server of a project folder, tried with real servers on free ports."""

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cnnlab.inquiry import server
from cnnlab.inquiry.errors import LabError
from tests.helpers import free_port

SCRIPTS = [Path(__file__).parents[1] / name for name in ("start_server.sh", "stop_server.sh")]
posix_only = pytest.mark.skipif(os.name == "nt", reason="uses POSIX signals or /bin/sh")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project folder with a space in its name and its own port; its server is stopped at the end."""
    home = tmp_path_factory.mktemp("server") / "my lab"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("CNNLAB_HOME", str(home))
        environment.setenv("MLFLOW_PORT", str(free_port()))
        yield home
        server.stop()


@pytest.fixture
def running(lab: Path) -> int:
    """The port of the running server of `lab`."""
    server.start()
    return server.port()


@pytest.fixture
def foreign_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A web server that isn't MLflow, on the port of the project folder `tmp_path`."""
    at = free_port()
    monkeypatch.setenv("CNNLAB_HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_PORT", str(at))
    command = [sys.executable, "-u", "-m", "http.server", str(at), "--bind", server.HOST]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it prints that it serves
        yield process
        process.kill()


def request(at: int, method: str, path: str, body: str | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(server.HOST, at, timeout=20)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def is_alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def refusal() -> str:
    with pytest.raises(LabError) as caught:
        server.start()
    return str(caught.value)


def test_a_started_server_is_healthy_and_ours(running: int) -> None:
    now = server.status()
    assert server.answers(running)
    assert now.state == "running"
    assert now.url == f"http://127.0.0.1:{running}"
    assert set(now.pids) == {process.pid for process in server.processes(running)}
    assert now.url in str(now)


def test_a_second_start_finds_the_first_server(running: int, said: list[str]) -> None:
    before = server.status().pids
    said.clear()
    assert server.start() == server.address()
    assert "already running" in said[0]
    assert server.status().pids == before


def test_the_server_fits_into_600_mb(running: int) -> None:
    assert 50 < server.status().memory_mb < 600


def test_runs_and_artifacts_stay_in_the_project_folder(running: int, lab: Path) -> None:
    made, answer = request(running, "POST", "/api/2.0/mlflow/experiments/create", '{"name": "of this folder"}')
    assert made == 200
    assert json.loads(answer)["experiment_id"] == "1"
    stored, _ = request(running, "PUT", "/api/2.0/mlflow-artifacts/artifacts/1/note.txt", "kept")
    assert stored == 200
    assert (lab / "models/1/note.txt").read_text() == "kept"
    assert (lab / "mlflow.db").stat().st_size > 0
    assert {path.name for path in lab.iterdir()} <= {".cnnlab", "models", "mlflow.db", "mlflow.db-wal", "mlflow.db-shm"}


@posix_only
def test_the_server_is_out_of_reach_of_the_terminal_that_started_it(running: int) -> None:
    sessions = {os.getsid(process.pid) for process in server.processes()}
    assert len(sessions) == 1
    assert os.getsid(0) not in sessions


def test_another_folders_server_is_named_and_never_stopped(
    running: int, lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    before = server.status().pids
    with monkeypatch.context() as other:
        other.setenv("CNNLAB_HOME", str(tmp_path / "my lab"))
        said.clear()
        server.stop()
        assert str(lab) in said[0] and "not stopped" in said[0]
        assert str(lab) in refusal()
        assert server.status().state == "foreign"
        assert server.is_listening(running) and not server.answers(running)
        assert server.processes() == []
    assert server.status().state == "running"
    assert server.status().pids == before


def test_one_folder_gets_no_second_server_on_another_port(running: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_PORT", str(free_port()))
    assert server.address(running) in refusal()
    assert server.status().state == "stopped"
    assert server.address(running) in str(server.status())
    assert len(server.processes()) == 1


@posix_only
def test_a_server_that_hangs_is_unhealthy_but_still_ours(running: int) -> None:
    paused = server.processes()
    try:
        for process in paused:
            process.suspend()
        assert server.status().state == "unhealthy"
        assert server.processes(running) == paused
    finally:
        for process in paused:
            process.resume()
    assert server.answers(running)


def test_after_kill_9_a_start_leaves_exactly_one_server(running: int) -> None:
    (crashed,) = server.processes()
    crashed.kill()
    psutil.wait_procs([crashed], timeout=5)
    assert server.status().state == "stopped"
    server.start()
    assert server.answers(running)
    assert len(server.processes()) == 1
    assert server.processes() != [crashed]


@posix_only
def test_what_hangs_after_a_crash_is_ended_and_replaced(
    running: int, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    monkeypatch.setattr(server, "PATIENCE", 1.0)
    monkeypatch.setattr(server, "STOP_LIMIT", 1.0)
    (hung,) = server.processes()
    hung.suspend()
    said.clear()
    server.start()
    assert "earlier server" in said[0] and str(hung.pid) in said[0]
    assert not is_alive(hung)
    assert len(server.processes()) == 1
    assert server.status().state == "running"


def test_two_terminals_that_start_at_once_share_one_server(running: int) -> None:
    server.stop()
    command = [sys.executable, "-c", "from cnnlab.inquiry.server import start; start()"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)]
    said = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sorted("already running" in text for text in said) == [False, True]
    assert len(server.processes()) == 1
    assert server.status().state == "running"


def test_stop_ends_all_processes_and_frees_the_port(running: int, said: list[str]) -> None:
    ours = server.processes()
    server.stop()
    assert not any(is_alive(process) for process in ours)
    assert not server.is_listening(running)
    assert server.status().state == "stopped"
    said.clear()
    server.stop()
    assert said == ["The MLflow server is not running."]


def test_a_port_held_by_another_program_is_refused_by_name(foreign_program: subprocess.Popen[bytes]) -> None:
    message = refusal()
    assert f"pid {foreign_program.pid}" in message
    assert "http.server" in message
    assert "MLFLOW_PORT=" in message
    assert server.status().state == "foreign"
    assert server.processes() == []


def test_stop_leaves_another_program_alone(foreign_program: subprocess.Popen[bytes], said: list[str]) -> None:
    server.stop()
    assert f"pid {foreign_program.pid}" in said[0] and "not stopped" in said[0]
    assert foreign_program.poll() is None
    assert server.is_listening(server.port())


def test_a_server_that_cannot_start_shows_the_end_of_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CNNLAB_HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_PORT", str(free_port()))
    (tmp_path / "mlflow.db").write_text("not a database " * 100)
    message = refusal()
    assert "file is not a database" in message
    assert str(tmp_path / ".cnnlab/server.log") in message
    assert server.processes() == []


@pytest.mark.parametrize("value", ["0", "65536", "-1", "5001.5", "mlflow"])
def test_an_impossible_port_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_PORT", value)
    for action in (server.port, server.address, server.start, server.stop, server.status):
        with pytest.raises(LabError, match="1 to 65535"):
            action()


def test_the_port_is_5001_unless_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_PORT", raising=False)
    assert server.address() == "http://127.0.0.1:5001"
    monkeypatch.setenv("MLFLOW_PORT", "65535")
    assert server.address() == "http://127.0.0.1:65535"


def test_asking_for_the_server_imports_neither_mlflow_nor_torch() -> None:
    code = "import sys; from cnnlab.inquiry.server import status; status(); "
    code += "print({'mlflow', 'torch', 'filelock'} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"


@posix_only
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_without_uv_a_script_says_how_to_get_it(script: Path, tmp_path: Path) -> None:
    for command in ([str(script)], ["/bin/sh", str(script)]):
        answer = subprocess.run(command, env={"PATH": ""}, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert answer.returncode == 1
        assert "pip install uv" in answer.stderr
        assert len(answer.stderr.splitlines()) == 1


@posix_only
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_runs_the_command_in_its_own_folder(script: Path, tmp_path: Path) -> None:
    folder = tmp_path / "my lab"
    folder.mkdir()
    (folder / script.name).write_bytes(script.read_bytes())
    stand_in = tmp_path / "uv"
    stand_in.write_text('#!/bin/sh\npwd\nprintf "%s|" "$@"\n')
    stand_in.chmod(0o755)
    answer = subprocess.run(
        ["/bin/sh", f"my lab/{script.name}", "two words"],
        env={"PATH": str(tmp_path), "CDPATH": "/usr:/"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    action = script.name.removesuffix("_server.sh")
    assert answer.stdout == f"{folder}\nrun|cnnlab|server|{action}|two words|"
