"""The lab's surroundings: proxies, folders, other versions and programs; each problem is named with its fix."""

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import mlflow
import numpy as np
import psutil
import pytest
import torch
from alembic import command
from click.testing import CliRunner
from mlflow import MlflowClient
from mlflow.store.db.utils import _get_alembic_config
from mlflow.store.tracking.dbmodels.initial_models import Base as InitialBase
from sqlalchemy import create_engine

from cnnlab.cli import cli, main
from cnnlab.config import Config
from cnnlab.course.champion import register_champion
from cnnlab.data import Batches, Data
from cnnlab.doctor import CHECKS, examine
from cnnlab.inquiry import server
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.record import schema
from cnnlab.inquiry.record.connection import connect
from cnnlab.inquiry.record.courier import Courier
from cnnlab.inquiry.record.run_logger import RunLogger
from cnnlab.inquiry.record.snapshot import snapshot
from cnnlab.inquiry.record.store import Store, find_store
from cnnlab.inquiry.run.choose import choose_engine
from cnnlab.models import build_model
from cnnlab.one_run import Passing
from cnnlab.training import fit
from tests.helpers import free_port, predicted, small_study, wait_for

ROOT = Path(__file__).parents[1]
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
OLD = "97727af70f4d"  # of 2022, MLflow 1.28


def python(code: str, **environment: str) -> str:
    """Return the output of a new process that runs this code."""
    inherited = {name: value for name, value in os.environ.items() if name.upper() not in (*PROXIES, "NO_PROXY")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=inherited | environment, cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def cnnlab(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "cnnlab", *arguments],
        env=os.environ | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
    )
    assert "Traceback" not in done.stdout + done.stderr
    return done


def diagnosis(check: str) -> str:
    """Return the doctor's sentence about a failed check."""
    with pytest.raises(LabError) as caught:
        CHECKS[check]()
    return str(caught.value)


# Proxies


def test_traffic_to_this_machine_bypasses_a_proxy_and_other_traffic_uses_it(running_server: str) -> None:
    closed = f"http://127.0.0.1:{free_port()}"
    code = """
        import os, requests
        from cnnlab import connect
        print(connect().kind)
        print(requests.get(f"http://localhost:{os.environ['MLFLOW_PORT']}/health").text)
        print(requests.utils.get_environ_proxies("http://fashion.example")["http"])
        print(os.environ["NO_PROXY"] == os.environ["no_proxy"], os.environ["no_proxy"])
    """
    proxies = dict.fromkeys(PROXIES, closed) | {"no_proxy": "intranet.example, 127.0.0.1"}
    said = python(re.sub(r"\n +", "\n", code), **proxies).splitlines()
    assert said[1:] == ["server", "OK", closed, "True intranet.example,127.0.0.1,localhost,::1"]


@pytest.mark.parametrize("wish", ["*", ""])
def test_without_a_proxy_nothing_is_changed(wish: str) -> None:
    """`NO_PROXY` alone would hide from Python a proxy that is set in Windows or macOS."""
    given = {"HTTP_PROXY": "http://proxy.example", "NO_PROXY": wish} if wish else {}
    assert python("import cnnlab, os; print(os.environ.get('NO_PROXY', ''))", **given).strip() == wish


# MLFLOW_TRACKING_URI


@pytest.mark.parametrize("address", ["file:///tmp/mlruns", "./mlruns", "mlruns", "file:mlruns", r"C:\lab\mlruns"])
def test_a_folder_of_files_is_refused_as_a_store(home: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with pytest.raises(LabError, match=r"a folder of files.*http://\.\.\..*sqlite:///.*unset it") as caught:
        connect()
    assert address in str(caught.value).replace("\\\\", "\\") and "doesn't answer" not in str(caught.value)
    assert "a folder of files" in diagnosis("schema")
    assert diagnosis("tracking") == diagnosis("schema")


@pytest.mark.parametrize(
    "address", ["databricks://mine", "postgresql://db/mlflow", "sqlite://", "sqlite:///", "http://"]
)
def test_an_address_that_the_lab_cannot_use_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with pytest.raises(LabError, match="isn't a store that this lab can use"):
        find_store()


def test_your_own_sqlite_file_is_a_store(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{(tmp_path / 'new one' / 'my.db').as_posix()}")
    assert connect().kind == "environment"
    assert (tmp_path / "new one" / "my.db").stat().st_size > 0


# The project folder


@pytest.mark.parametrize("below", ["", "/lab"], ids=["a file", "below a file"])
@pytest.mark.parametrize(
    "arguments", [["plan", "baseline"], ["server", "start"], ["ui"], ["results", "--write"], ["doctor"]], ids=" ".join
)
def test_a_project_folder_that_cannot_be_one_is_named_by_every_command(
    home: Path, arguments: list[str], below: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = home / "a file"
    file.write_text("no folder")
    monkeypatch.setenv("CNNLAB_HOME", f"{file}{below}")
    done = CliRunner().invoke(cli, arguments)
    said = done.output + str(done.exception)
    assert isinstance(done.exception, LabError | SystemExit), done.exception
    assert done.exit_code == 1
    assert str(file) in said and ("which is a file: set it" in said if not below else "set CNNLAB_HOME to" in said)


def test_results_are_not_written_where_there_is_no_readme(home: Path) -> None:
    done = CliRunner().invoke(cli, ["results", "--write"])
    assert isinstance(done.exception, LabError)
    assert f"there is no {home / 'README.md'} to write into" in str(done.exception)


# A file that is deleted or replaced


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps files that are open")
def test_a_server_whose_file_is_gone_is_named_by_everything_that_would_use_it(running_server: str, home: Path) -> None:
    file = home / "mlflow.db"
    kept = home / "kept.db"
    connect()
    shutil.copy(file, kept)
    for damage in (file.unlink, lambda: shutil.move(shutil.copy(kept, home / "other.db"), file)):
        damage()
        assert server.status().state == "detached"
        for said in (str(server.status()), diagnosis("server"), diagnosis("schema"), refusal(lambda: connect())):
            assert f"{file} was deleted or replaced" in said and "server stop" in said
        assert "was deleted or replaced" in refusal(lambda: server.start())  # it would end the last holder
    assert cnnlab("server", "status").returncode == 1
    planned = cnnlab("plan", "baseline", "--profile", "tiny")
    assert planned.returncode == 1 and planned.stderr.startswith(f"Error: {file} was deleted or replaced")
    server.stop()
    server.start()
    assert connect().kind == "server" and server.status().state == "running"


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(LabError) as caught:
        action()
    return str(caught.value)


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps files that are open")
def test_a_run_in_progress_when_the_file_is_deleted_is_delivered_after_a_restart(
    running_server: str, home: Path, small: Config, small_data: Data, said: list[str]
) -> None:
    courier = Courier(connect())
    (home / "mlflow.db").unlink()
    with RunLogger(courier, "quick-02-dropout", small, "survivor", {"owner": "a student"}) as log:
        fit(small, small_data, [Passing(log)], progress=False)
    courier.close()
    assert "was deleted or replaced" in said[1] and "the next cnnlab command delivers them" in said[-1]
    server.stop()
    server.start()
    store = connect()
    (run,) = store.client.search_runs([store.experiment_id("quick-02-dropout")])
    assert run.info.status == "FINISHED" and run.data.metrics["loss/valid"] > 0


# Servers that somebody started by hand


@contextmanager
def by_hand(line: list[str] | str, at: int, cwd: Path) -> Iterator[None]:
    """Run an MLflow server during the block."""
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (cwd / "by hand.log").open("wb") as log:
        process = psutil.Popen(
            line,
            cwd=cwd,
            env=environment,
            shell=isinstance(line, str),
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )
    try:
        wait_for(lambda: server.is_listening(at))
        yield
    finally:
        family = [process, *process.children(recursive=True)]
        for member in family:
            member.kill()
        psutil.wait_procs(family, timeout=10)


def test_servers_that_look_for_figures_elsewhere_are_named(home: Path, tmp_path: Path) -> None:
    """One was started in the folder, the other with its store and a wrong folder."""
    connect()
    ports, hand = (free_port(), free_port()), [sys.executable, "-m", "mlflow"]
    options = [
        "--backend-store-uri",
        f"sqlite:///{(home / 'mlflow.db').as_posix()}",
        "--artifacts-destination",
        "models",
    ]
    here = by_hand([*hand, "ui", "--workers", "1", "--port", str(ports[0])], ports[0], home)
    elsewhere = by_hand([*hand, "server", "--workers", "1", "--port", str(ports[1]), *options], ports[1], tmp_path)
    with here, elsewhere:
        one, other = server.without_artifacts()
        for said in (str(server.status()), diagnosis("server"), CliRunner().invoke(cli, ["server", "status"]).output):
            assert f"without --artifacts-destination models holds this store (pid {one}, {other})" in said
            assert "cnnlab server command" in said
    assert server.without_artifacts() == []
    assert "without" not in str(server.status())


def test_the_line_for_starting_a_server_by_hand_serves_the_figures_of_runs(home: Path) -> None:
    store = connect()
    run = store.client.create_run(store.experiment_id("by-hand"))
    store.client.log_text(run.info.run_id, "a figure", "figures/one.txt")
    line = CliRunner().invoke(cli, ["server", "command"]).output.strip()
    at = server.port()
    with by_hand(line, at, home.parent):
        client = MlflowClient(server.address(at))
        there = Path(client.download_artifacts(run.info.run_id, "figures/one.txt", str(home.parent)))
        assert there.read_text() == "a figure"
        assert server.without_artifacts() == []


# The version of MLflow


def test_an_mlflow_that_is_too_old_is_named_before_it_is_imported(home: Path, tmp_path: Path) -> None:
    info = tmp_path / "older" / "mlflow-3.5.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mlflow\nVersion: 3.5.1\n")
    older = {"PYTHONPATH": os.pathsep.join([str(info.parent), os.environ.get("PYTHONPATH", "")])}
    sentence = (
        f"this lab needs MLflow {server.MLFLOW}, and 3.5.1 is installed: run `uv sync`, or without uv `pip install"
    )
    for arguments in (("plan",), ("server", "start"), ("review",)):
        done = cnnlab(*arguments, **older)
        assert done.returncode == 1 and done.stderr.startswith(f"Error: {sentence}")
        assert len(done.stderr.splitlines()) == 1
    examined = cnnlab("doctor", **older).stdout.splitlines()
    assert examined[1].startswith(f"FIX   packages  {sentence}")
    imported = (
        "try:\n    import cnnlab.inquiry.record.store\n"
        "except Exception as e:\n    import sys; print('mlflow' in sys.modules, e)"
    )
    assert python(imported, **older).startswith(f"False {sentence}")


def test_the_required_version_is_the_pinned_one() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["uv"]
    assert f"mlflow=={server.MLFLOW}" in settings["override-dependencies"]
    server.require_mlflow()


# Stores of other versions


@pytest.fixture
def older(bare_home: Path) -> Path:
    """The store of a project folder, written by MLflow 1.28, with one experiment."""
    file = bare_home / "mlflow.db"
    uri = f"sqlite:///{file.as_posix()}"
    engine = create_engine(uri)
    InitialBase.metadata.create_all(engine)
    engine.dispose()
    command.upgrade(_get_alembic_config(uri), OLD)
    with closing(sqlite3.connect(file)) as database, database:
        columns = "experiment_id, name, lifecycle_stage, artifact_location"
        database.execute(f"INSERT INTO experiments ({columns}) VALUES (7, 'old', 'active', 'mlflow-artifacts:/7')")
    return file


@pytest.fixture
def newer(home: Path) -> Path:
    """The store of a project folder, as if a newer MLflow had written it."""
    connect()
    with closing(sqlite3.connect(home / "mlflow.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    return home / "mlflow.db"


def revision(file: Path) -> str:
    with closing(sqlite3.connect(file)) as database:
        return str(database.execute("SELECT version_num FROM alembic_version").fetchone()[0])


@pytest.mark.parametrize("open_it", [connect, server.start], ids=["file", "server"])
def test_a_store_of_an_older_mlflow_is_upgraded_beside_a_copy_of_it(
    older: Path, open_it: Callable, said: list[str]
) -> None:
    assert "keeps a copy and upgrades it" in CHECKS["schema"]() and revision(older) == OLD
    said.clear()
    try:
        open_it()
        assert connect().client.get_experiment("7").name == "old"
    finally:
        server.stop()
    (copy,) = older.parent.glob("*.bak")
    assert revision(copy) == OLD and OLD in copy.name and revision(older) != OLD
    assert f"the old file is kept as {copy}" in "\n".join(said)
    connect()
    assert len(list(older.parent.glob("*.bak"))) == 1


def test_a_store_that_cannot_be_upgraded_is_unchanged(older: Path) -> None:
    with closing(sqlite3.connect(older)) as database, database:
        database.execute("DROP TABLE metrics")
    before = list(closing_dump(older))
    assert "its tables are unknown to MLflow" in refusal(lambda: connect())
    assert list(closing_dump(older)) == before


def closing_dump(file: Path) -> list[str]:
    with closing(sqlite3.connect(file)) as database:
        return list(database.iterdump())


def test_a_store_of_a_newer_mlflow_is_named_as_one(newer: Path, home: Path) -> None:
    sentence = f"{newer} was written by a newer MLflow: its tables (revision ffffffffffff) are unknown to MLflow"
    with pytest.raises(LabError) as looked, snapshot(str(home)):
        pass
    said = [
        refusal(lambda: connect()),
        refusal(lambda: server.start()),
        diagnosis("schema"),
        str(looked.value),
    ]
    assert all(sentence in text and "db upgrade" not in text and "doesn't answer" not in text for text in said), said
    assert "Traceback" not in said[1] and server.processes() == []
    assert not list(home.glob("*.bak"))


# Other programs that hold the file


@contextmanager
def held(file: Path, seconds: float) -> Iterator[None]:
    """Lock a file in another process for this time; the block begins when it is locked."""
    begun, ended = threading.Event(), threading.Event()

    def hold() -> None:
        with closing(sqlite3.connect(file)) as database:
            database.execute("BEGIN EXCLUSIVE")
            begun.set()
            ended.wait(seconds)

    holder = threading.Thread(target=hold)
    holder.start()
    begun.wait()
    try:
        yield
    finally:
        ended.set()
        holder.join()


def test_a_command_waits_for_a_program_that_locks_the_file(home: Path) -> None:
    """SQLite itself gives up after 5 s, and MLflow writes this to the log."""
    connect()
    with held(home / "mlflow.db", seconds=8):
        begin = time.monotonic()
        done = cnnlab("plan", "baseline", "--profile", "tiny")
        assert done.returncode == 0 and done.stderr == ""
        assert time.monotonic() - begin > 7


@pytest.mark.parametrize("served", [False, True])
def test_a_program_that_locks_the_file_for_too_long_is_named(
    home: Path, served: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect()
    file, sentence = home / "mlflow.db", "another program is writing to"
    monkeypatch.setattr(schema, "BUSY_S", 0.5)
    monkeypatch.setattr("cnnlab.doctor.PATIENCE_S", 0.5)
    try:
        if served:
            server.start()
        with held(file, 60):
            assert f"{sentence} {file} and keeps it locked: close it" in refusal(lambda: connect())
            assert sentence in diagnosis("store")
            with pytest.raises(LabError, match=sentence), snapshot(str(file)):
                pass
    finally:
        server.stop()


def test_a_command_that_finds_the_file_locked_later_says_so_without_a_traceback(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Here the file is locked after the command has found it unlocked, and the error is MLflow's."""
    connect()
    same_file = f"sqlite:///{home.as_posix()}/./mlflow.db"  # which MLflow has not opened yet

    def locked() -> None:
        with held(home / "mlflow.db", 60):
            MlflowClient(same_file).search_experiments()

    monkeypatch.setattr("cnnlab.inquiry.record.connection.deliver_leftovers", locked)
    monkeypatch.setattr(sys, "argv", ["cnnlab", "plan", "baseline", "--profile", "tiny"])
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # this process keeps its own signal handlers
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert ended.value.code == 1
    assert said.startswith(f"Error: another program is writing to {home / 'mlflow.db'}") and len(said.splitlines()) == 1


# The doctor


def test_the_doctor_has_a_sentence_for_every_problem(bare_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (bare_home / "mlflow.db").mkdir()
    monkeypatch.setitem(CHECKS, "data", lambda: str(1 / 0))  # something that nobody thought of
    lines = [line for _, line in examine()]
    assert len(lines) == len(CHECKS)
    ill = {line.split()[1]: line for line in lines if line.startswith("FIX")}
    assert set(ill) == {"data", "store", "schema"}
    assert "can't be read as an MLflow store" in ill["store"] and "move it away" in ill["store"]
    assert "ZeroDivisionError: division by zero. Fix that first" in ill["data"]


def test_the_doctor_names_a_program_on_our_port_with_the_fix(home: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "http.server", os.environ["MLFLOW_PORT"], "--bind", server.HOST],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as other:
        assert other.stdout
        other.stdout.readline()
        said = diagnosis("server")
        other.kill()
    assert f"pid {other.pid}" in said and "stop that program, or use another port" in said


# Engines


def test_more_workers_than_the_machine_can_run_are_refused() -> None:
    most = 4 * (os.cpu_count() or 1)
    with pytest.raises(LabError, match=rf"workers=999999 .* at most {most}, 4 per core"):
        choose_engine("workers", Store(), 1, workers=999_999)
    with choose_engine("workers", Store(), 1, workers=most) as engine:  # a worker starts with its first job
        assert engine.slots == most


# Calls that are shown


@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType")  # MLflow, about its own code
def test_the_call_that_03_mlflow_shows_logs_a_model_that_opens(home: Path, small: Config, small_data: Data) -> None:
    connect()
    text = (ROOT / "03_mlflow.py").read_text(encoding="utf-8")
    (call,) = re.findall(r"# .*: (mlflow\.pytorch\.log_model\(.*\))$", text, re.MULTILINE)
    x = next(iter(Batches(small_data.valid, 50, small_data.normaliser())))[0]

    class Trained:
        model = build_model(small).eval()

    with mlflow.start_run(experiment_id="0"):  # an earlier test may have chosen another one
        info = eval(call, {"mlflow": mlflow, "result": Trained, "x": x})
    with torch.inference_mode():
        assert torch.equal(mlflow.pytorch.load_model(info.model_uri)(x), Trained.model(x))


def test_the_code_of_a_champions_card_gives_its_logits(home: Path, small: Config, small_data: Data) -> None:
    store = connect()
    study = predicted(small_study("my-champion", "?", small, (0,), vary={"dropout": (0.0, 0.3)}))
    runs = study.run(store, progress=False)
    card = register_champion(str(runs["run_id"].iloc[0]), store, small_data)
    code = "\n".join(line.removeprefix("    ") for line in card.splitlines() if line.startswith("    "))
    shown = {"pixels": small_data.valid.x.numpy()}
    exec(code, shown)
    with torch.inference_mode():
        network = mlflow.pytorch.load_model("models:/fashion-cnn@champion")
        expected = torch.cat([network(x) for x, _ in Batches(small_data.valid, 100, small_data.normaliser())])
    np.testing.assert_allclose(shown["logits"], expected.numpy(), atol=1e-4)
    with pytest.raises(mlflow.exceptions.MlflowException, match="float"):
        shown["model"].predict(shown["x"])  # the model doesn't accept NumPy's type


HALF_WRITTEN = """
import os, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("PRAGMA cache_size = 1")  # so that pages go to the disk before the end
database.execute("BEGIN")
numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 90000) SELECT i FROM n"
database.execute(f"CREATE TABLE half AS {numbers}")
os._exit(9)
"""


def test_the_unfinished_write_of_a_killed_program_is_undone(home: Path) -> None:
    """SQLite keeps the old pages in a file beside the database, and must restore them before anybody can read."""
    connect()
    subprocess.run([sys.executable, "-c", HALF_WRITTEN, str(home / "mlflow.db")])
    assert (home / "mlflow.db-journal").stat().st_size > 0
    assert connect().client.search_experiments()
    with closing(sqlite3.connect(home / "mlflow.db")) as database:
        assert not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'half'").fetchone()
