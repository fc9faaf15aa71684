"""Every run reaches MLflow in spite of failures, and the store opens anywhere."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import mlflow
import numpy as np
import psutil
import pytest
import torch
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from safetensors.torch import load_file

from cnnlab.config import Config
from cnnlab.data import Batches, Data
from cnnlab.inquiry import server
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.params import from_params, replace
from cnnlab.inquiry.record.artifacts import artifact_folder
from cnnlab.inquiry.record.connection import connect
from cnnlab.inquiry.record.courier import Courier
from cnnlab.inquiry.record.files import export_model
from cnnlab.inquiry.record.run_logger import RunLogger
from cnnlab.inquiry.record.runs import load_runs
from cnnlab.inquiry.record.spool import Spool, spool_folder
from cnnlab.inquiry.record.vault_record import read_test_set
from cnnlab.models import build_model
from cnnlab.one_run import WEIGHTS, Passing
from cnnlab.training import Result, fit
from tests.helpers import epochs_in, free_port, wait_for

EPOCH_METRICS = {"loss/train", "loss/valid", "accuracy/valid", "loss/train_eval", "accuracy/train_eval"}
EPOCH_METRICS |= {"gap/loss", "gap/accuracy", "lr", "time/epoch_s", "time/images_per_s"}
ACTIVATIONS, NORMS = ("block1.activation1", "block2.activation1"), ("block1.norm1", "block2.norm1")  # of `small`
PROBES = {f"{probe}/{name}" for probe in ("activation_mean", "activation_sd", "dead_share") for name in ACTIVATIONS}
SUMMARIES = {"variance_ratio", "dead_share"}
RATIOS = ("variance_ratio", "variance_ratio_low", "variance_ratio_high", "live_channels")
PROBES |= SUMMARIES | {f"{probe}/{name}" for probe in RATIOS for name in NORMS}
GRAD_NORMS = {f"grad_norm/{name}" for name in ("block1.conv1", "block2.conv1", "head.linear", *NORMS)}


@contextmanager
def courier() -> Iterator[Courier]:
    carrier = Courier(connect())
    yield carrier
    carrier.close()


def log_one(config: Config, data: Data, carrier: Courier, experiment: str = "quick-02-dropout") -> tuple[str, Result]:
    with RunLogger(carrier, experiment, config, "a run", {"owner": "a student"}) as log:
        result = fit(config, data, [Passing(log)], progress=False)
        log.result(result, data)
    store = carrier.store
    newest, *_ = store.client.search_runs([store.experiment_id(experiment)])
    export_model(store, newest.info.run_id)
    return newest.info.run_id, result


def logits_of(model, data: Data) -> torch.Tensor:
    with torch.no_grad():
        return model(next(iter(Batches(data.valid, 500, data.normaliser())))[0])


@pytest.fixture
def recorded(home: Path, small: Config, small_data: Data) -> tuple[str, Result]:
    """The id and result of one run in the embedded store."""
    with courier() as carrier:
        return log_one(replace(small, dropout=0.3, norm="batch"), small_data, carrier)


def test_params_are_the_config_and_nothing_else(recorded: tuple[str, Result]) -> None:
    run = MlflowClient().get_run(recorded[0])
    assert set(run.data.params) == set(Config.model_fields)
    assert from_params(Config, run.data.params) == recorded[1].config
    assert run.info.status == "FINISHED"


def test_metrics_are_logged_by_epoch_and_the_result_once(recorded: tuple[str, Result]) -> None:
    client, (run_id, result) = MlflowClient(), recorded
    run = client.get_run(run_id)
    assert {name for name in run.data.metrics if not name.startswith("final/")} == EPOCH_METRICS | PROBES | GRAD_NORMS
    for name in ("loss/train", "accuracy/valid", "variance_ratio", "dead_share/block1.activation1"):
        points = client.get_metric_history(run_id, name)
        measured = [(i, e[name]) for i, e in enumerate(result.epochs, 1) if name in e]
        assert [(p.step, p.value) for p in points] == measured
    (final,) = client.get_metric_history(run_id, "final/accuracy/valid")
    assert final.value == result.final["accuracy/valid"]
    finals = {name.removeprefix("final/") for name in run.data.metrics if name.startswith("final/")}
    assert finals == set(result.final) >= {"loss/train", "gap/train_mode", "variance_ratio"}
    assert finals & (PROBES | GRAD_NORMS) == SUMMARIES  # values of a single layer are not results of the run


def test_facts_are_tags(recorded: tuple[str, Result]) -> None:
    tags = MlflowClient().get_run(recorded[0]).data.tags
    assert tags["fact.optimizer"].startswith("AdamW(lr=0.01")
    assert tags["fact.outcome"] == "finished"
    assert tags["fact.version.torch"] == torch.__version__.split("+")[0]
    assert "BatchNorm2d" in tags["fact.module_tree"]
    assert tags["kind"] == "run"


def test_figures_and_files_are_artifacts(recorded: tuple[str, Result]) -> None:
    client, (run_id, result) = MlflowClient(), recorded
    figures = {Path(f.path).name for f in client.list_artifacts(run_id, "figures")}
    assert figures == {"learning_curves.png", "confusion_matrix.png", "confident_mistakes.png"}
    correct = np.load(client.download_artifacts(run_id, "valid_correct.npy"))
    assert correct.mean() == result.final["accuracy/valid"]
    losses = np.load(client.download_artifacts(run_id, "valid_loss.npy"))
    assert losses.mean() == pytest.approx(result.final["loss/valid"], rel=1e-5)
    weights = load_file(client.download_artifacts(run_id, "weights.safetensors"))
    model = build_model(result.config)
    model.load_state_dict(weights)
    assert model.eval()


def test_the_model_gives_the_same_predictions_without_the_class(
    recorded: tuple[str, Result], small_data: Data, home: Path
) -> None:
    run_id, result = recorded
    (output,) = MlflowClient().get_run(run_id).outputs.model_outputs
    np.save(home / "x.npy", next(iter(Batches(small_data.valid, 500, small_data.normaliser())))[0].numpy())
    script = f"""
        import sys, mlflow, numpy as np, torch
        mlflow.set_tracking_uri({mlflow.get_tracking_uri()!r})
        model = mlflow.pytorch.load_model("models:/{output.model_id}")
        np.save(sys.argv[1] + "/y.npy", model(torch.from_numpy(np.load(sys.argv[1] + "/x.npy"))).detach().numpy())
        assert not any(name.startswith(("cnnlab.models", "cnnlab.training")) for name in sys.modules)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script), str(home)], check=True, timeout=120)
    expected = logits_of(result.model.eval(), small_data)
    assert np.array_equal(np.load(home / "y.npy"), expected.numpy())
    assert torch.equal(expected.argmax(1) == small_data.valid.y, result.valid.correct)


def test_no_model_is_a_pickle_and_no_path_of_the_machine_is_in_the_store(
    recorded: tuple[str, Result], home: Path
) -> None:
    assert not [file for file in home.rglob("*") if file.suffix in {".pkl", ".pth", ".pickle"}]
    models = list(home.rglob("model.pt2"))
    assert models and not any(b"site-packages" in model.read_bytes() for model in models)
    dump = "\n".join(closing_dump(home / "mlflow.db"))
    for path in (str(home), str(Path.home()), str(Path.cwd())):
        assert path not in dump
    for file in home.glob("models/**/*"):
        if file.suffix in {".yaml", ".json", ".txt"} or file.name == "MLmodel":
            assert str(home) not in file.read_text()


def closing_dump(file: Path) -> list[str]:
    with closing(sqlite3.connect(file)) as database:
        return list(database.iterdump())


def test_a_mixed_store_opens_after_a_move(
    home: Path, small: Config, small_data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Embedded and server runs in one experiment; the folder is moved; figures and models open both ways."""
    with courier() as carrier:
        assert carrier.store.kind == "embedded"
        runs = [log_one(small, small_data, carrier)]
    server.start()
    try:
        with courier() as carrier:
            assert carrier.store.kind == "server"
            runs.append(log_one(replace(small, seed=1), small_data, carrier))
    finally:
        server.stop()
    moved = home.parent / "moved" / "to here"
    shutil.move(home, moved)
    monkeypatch.setenv("CNNLAB_HOME", str(moved))
    _everything_opens(runs, small_data)
    server.start()
    try:
        _everything_opens(runs, small_data)
    finally:
        server.stop()


def _everything_opens(runs: list[tuple[str, Result]], data: Data) -> None:
    store = connect()
    assert len(load_runs(store, "quick-02-dropout")) == 2
    for run_id, result in runs:
        figure = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="figures/confusion_matrix.png")
        assert Path(figure).read_bytes().startswith(b"\x89PNG")
        (output,) = store.client.get_run(run_id).outputs.model_outputs
        model = mlflow.pytorch.load_model(f"models:/{output.model_id}")
        assert torch.equal(logits_of(model, data), logits_of(result.model.eval(), data))


class KillServer:
    """A reporter that kills or stops the server during training, as the system might.

    It may restart the server after the courier has reported (in `said`) that it was gone.
    """

    def __init__(self, said: list[str], restart: bool = False, how: str = "kill") -> None:
        self.said = said
        self.restart = restart
        self.how = how

    def report(self, epoch: int, train_loss: float, test_loss: float, metric_dict: dict[str, float]) -> None:
        if epoch == 2:
            for process in server.processes():
                getattr(process, self.how)()
            if self.how == "kill":
                psutil.wait_procs(server.processes(), timeout=5)
        if epoch == 4 and self.restart:
            wait_for(lambda: any("nothing is lost" in line for line in self.said))
            server.start()


@pytest.mark.parametrize(("how", "restart"), [("kill", False), ("kill", True), ("suspend", False)])
def test_a_lost_server_costs_no_metric_and_no_run(
    home: Path, running_server: str, small: Config, small_data: Data, how: str, restart: bool, said: list[str]
) -> None:
    """kill -9 without and with a restart, and a server that accepts connections but never answers.

    The last may hold SQLite's lock while it hangs: then the measurements wait until it is stopped.
    """
    said.clear()
    config = replace(small, epochs=6)
    with courier() as carrier:
        assert carrier.store.kind == "server"
        with RunLogger(carrier, "quick-02-dropout", config, "survivor", {"owner": "a student"}) as log:
            result = fit(config, small_data, [Passing(log), KillServer(said, restart, how)], progress=False)
            log.result(result, small_data)
    assert result.outcome == "finished"
    assert len([line for line in said if "nothing is lost" in line]) == 1  # reported once
    if how == "suspend":
        server.stop()
    store = connect()
    assert not list(spool_folder().glob("*"))
    (run,) = store.client.search_runs([store.experiment_id("quick-02-dropout")])
    assert run.info.status == "FINISHED"
    for name in EPOCH_METRICS:
        points = store.client.get_metric_history(run.info.run_id, name)
        assert [p.step for p in points] == [1, 2, 3, 4, 5, 6]
    assert [p.value for p in store.client.get_metric_history(run.info.run_id, "loss/train")] == [
        e["loss/train"] for e in result.epochs
    ]
    assert store.client.list_artifacts(run.info.run_id, "figures")


def test_a_store_elsewhere_that_dies_gets_its_runs_from_the_next_command(
    home: Path, small: Config, small_data: Data, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: list[str]
) -> None:
    """MLFLOW_TRACKING_URI names a server whose store has no other access: the measurements wait in the spool."""
    url = server.start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
    said.clear()
    with courier() as carrier:
        assert carrier.store.kind == "environment"
        with RunLogger(carrier, "dropout", small, "waits", {"owner": "a student"}) as log:
            result = fit(small, small_data, [Passing(log), KillServer(said)], progress=False)
            log.result(result, small_data)
    assert result.outcome == "finished"
    assert len([line for line in said if "nothing is lost" in line]) == 1
    assert "the next cnnlab command delivers them" in said[-1]
    assert len(list(spool_folder().glob("*/journal.jsonl"))) == 1
    with pytest.raises(LabError, match="doesn't answer"):
        connect()
    server.start()
    try:
        store = connect()
        assert "Delivered to MLflow" in said[-2]
        (run,) = store.client.search_runs([store.experiment_id("dropout")])
        assert run.info.status == "FINISHED"
        assert run.data.metrics["final/accuracy/valid"] == result.final["accuracy/valid"]
        assert {"figures", WEIGHTS} <= {file.path for file in store.client.list_artifacts(run.info.run_id)}
        assert not list(spool_folder().glob("*"))
    finally:
        server.stop()


ENDLESS = """
    import sys
    from tests.helpers import stripes
    from cnnlab.config import BASE, replace
    from cnnlab.data import Data
    from cnnlab.inquiry.record.courier import Courier
    from cnnlab.inquiry.record.run_logger import RunLogger
    from cnnlab.inquiry.record.connection import connect
    from cnnlab.one_run import Passing
    from cnnlab.training import fit

    data = Data(stripes(640, seed=1), stripes(203, seed=2))
    config = replace(BASE, blocks=((1, 8),), train_images=320, epochs=100_000, schedule="constant")
    courier = Courier(connect())
    try:
        with RunLogger(courier, "quick-02-dropout", config, "endless", {"owner": "a student"}) as log:
            fit(config, data, [Passing(log)], progress=False)
    finally:
        courier.close()
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL and no SIGINT for one process")
@pytest.mark.parametrize(("how", "outcome"), [(signal.SIGKILL, "without a message"), (signal.SIGINT, "interrupted")])
def test_the_epochs_of_a_stopped_process_are_kept(home: Path, how: signal.Signals, outcome: str) -> None:
    root = Path(__file__).parents[1]
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(ENDLESS)], cwd=root, stderr=subprocess.PIPE)
    try:
        wait_for(lambda: sum(map(epochs_in, spool_folder().glob("*/journal.jsonl"))) >= 3)
        (journal,) = spool_folder().glob("*/journal.jsonl")
        if how == signal.SIGKILL:
            connect()  # another command must not take the journal of a living process
            assert journal.exists()
        process.send_signal(how)
        process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    written = epochs_in(journal) if journal.exists() else None
    store = connect()
    (run,) = store.client.search_runs([store.experiment_id("quick-02-dropout")])
    assert run.info.status == "KILLED"
    assert outcome in run.data.tags["fact.outcome"]
    assert run.data.tags["fact.num_parameters"]
    epochs = [p.step for p in store.client.get_metric_history(run.info.run_id, "loss/valid")]
    assert epochs == list(range(1, len(epochs) + 1))
    assert len(epochs) >= 3
    assert written is None or len(epochs) == written
    assert not list(spool_folder().glob("*"))


def test_a_locked_database_loses_nothing(home: Path, small: Config, small_data: Data, said: list[str]) -> None:
    """Another program locks the SQLite file from before the run begins until after it has ended."""
    with courier() as carrier, closing(sqlite3.connect(home / "mlflow.db")) as database:
        database.execute("BEGIN EXCLUSIVE")
        with RunLogger(carrier, "quick-02-dropout", small, "patient", {"owner": "a student"}) as log:
            result = fit(small, small_data, [Passing(log)], progress=False)
            log.result(result, small_data)
        assert len(list(spool_folder().glob("*"))) == 1  # it has not arrived
        database.rollback()
    store = connect()
    (run,) = store.client.search_runs([store.experiment_id("quick-02-dropout")])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["final/loss/valid"] == result.final["loss/valid"]
    assert len([line for line in said if "nothing is lost" in line]) == 1


def test_a_line_truncated_by_a_crash_is_ignored(home: Path) -> None:
    journal = Spool.new()
    journal.append("create", name="x")
    journal.append("metrics", step=1, metrics={"loss/train": float("nan")})
    with (journal.folder / "journal.jsonl").open("a") as file:
        file.write('{"event": "metrics", "st')
    assert [entry["event"] for entry in journal.entries()] == ["create", "metrics"]
    journal.release()


def test_delivering_again_after_a_crash_makes_no_second_run(home: Path, small: Config, small_data: Data) -> None:
    with courier() as carrier:
        logger = RunLogger(carrier, "quick-02-dropout", small, "once", {"owner": "a student"})
        result = fit(small, small_data, [Passing(logger)], progress=False)
        logger.result(result, small_data)
        assert carrier.flush()
        (folder,) = spool_folder().glob("*")
        kept = json.loads((folder / "delivered.json").read_text())
        carrier.close()
    (folder / "delivered.json").unlink()  # as if the process had died before writing it
    store = connect()
    (run,) = store.client.search_runs([store.experiment_id("quick-02-dropout")])
    assert run.info.run_id == kept["run_id"]
    assert len(store.client.get_metric_history(run.info.run_id, "loss/train")) == small.epochs


def test_an_address_outside_the_store_is_refused(tmp_path: Path) -> None:
    uri = f"sqlite:///{(tmp_path / 'my lab' / 'mlflow.db').as_posix()}"
    inside = artifact_folder("mlflow-artifacts:/quick-02-dropout/abc/artifacts", uri)
    assert inside == (tmp_path / "my lab" / "models" / "quick-02-dropout" / "abc" / "artifacts").resolve()
    for bad in ("mlflow-artifacts:/../../etc", "mlflow-artifacts:/a/%2e%2e/%2e%2e/%2e%2e/x"):
        with pytest.raises(MlflowException, match="is outside"):
            artifact_folder(bad, uri)


def test_a_store_that_does_not_answer_is_named_at_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(LabError, match="unset MLFLOW_TRACKING_URI"):
        connect()


def test_reading_the_test_set_is_a_run_with_its_reason(home: Path) -> None:
    store = connect()
    test = read_test_set(store, "the final claim")
    assert len(test) == 10_000
    (run,) = store.client.search_runs([store.experiment_id("test-set")])
    assert run.data.params == {"reason": "the final claim"}
    assert run.data.tags["kind"] == "test-reading"
    assert run.data.tags["owner"] == "a student"
    with pytest.raises(MlflowException):
        store.client.log_param(run.info.run_id, "reason", "another one")
    with pytest.raises(LabError, match="say why"):
        read_test_set(store, "")
    assert len(store.client.search_runs([store.experiment_id("test-set")])) == 1


def test_connecting_twice_follows_the_server(home: Path, running_server: str) -> None:
    """MLflow writes its address to the environment; that is not a choice of the user."""
    assert connect().kind == "server"
    assert mlflow.get_tracking_uri() == running_server
    server.stop()
    assert connect().kind == "embedded"
