"""The record doesn't depend on where runs are trained, and a worker that dies costs only its own run."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace as replace_fields
from multiprocessing import resource_tracker
from pathlib import Path

import psutil
import pytest
import torch
from mlflow.entities import Run

from cnnlab.config import BASE, Config, replace
from cnnlab.data import Data
from cnnlab.inquiry import server
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.record.connection import connect
from cnnlab.inquiry.record.dead_runs import is_gone, this_process
from cnnlab.inquiry.record.spool import spool_folder
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.run import engines
from cnnlab.inquiry.run.choose import choose_engine, num_workers
from cnnlab.inquiry.run.engines import Here, Workers
from cnnlab.inquiry.study import Study
from cnnlab.models import ACTIVATIONS
from tests.helpers import epochs_in, predicted, small_study, stripes, wait_for

ROOT = Path(__file__).parents[1]


@pytest.fixture
def study(small: Config) -> Study:
    return small_study("tiny-02-dropout", "What does dropout change?", small, (0, 1), {"dropout": (0.0, 0.5)})


def runs_of(store: Store, experiment: str) -> list[Run]:
    return list(store.client.search_runs([store.experiment_id(experiment)], "tags.kind = 'run'", max_results=1000))


def workers_of(process: psutil.Process) -> list[psutil.Process]:
    if sys.platform != "linux":
        return [child for child in process.children() if "spawn_main" in str(child.cmdline())]
    return [fork for child in process.children() if "forkserver" in str(child.cmdline()) for fork in child.children()]


def test_workers_give_the_same_numbers_as_one_process(
    home: Path, study: Study, small_data: Data, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    here = predicted(study).run(engine="here", progress=False)
    monkeypatch.setenv("CNNLAB_OWNER", "another student")
    said.clear()
    there = predicted(study).run(engine="workers", progress=False)
    same = ["arm", "seed", "accuracy/valid", "loss/valid", "gap/loss", "fact.train_sha256", "fact.threads"]
    assert there[same].equals(here[same])
    assert set(there["owner"]) == {"another student"}
    assert any(f"in {min(num_workers(), 4)} worker process" in line for line in said)


def test_a_killed_worker_costs_only_its_run(home: Path, study: Study, small_data: Data, said: list[str]) -> None:
    store = connect()
    longer = small_study(study.name, study.question, replace(study.base, epochs=15), study.seeds, study.vary)
    said.clear()
    with Workers(store, 2, small_data) as engine:

        def kill_a_worker() -> None:
            wait_for(lambda: any(images > 640 for images, _ in engine._shared))  # one is in its third epoch
            slot = next(slot for slot, (images, _) in enumerate(engine._shared) if images > 640)
            (pid,) = engine._pools[slot]._processes
            os.kill(pid, signal.SIGTERM if os.name == "nt" else signal.SIGKILL)

        killer = threading.Thread(target=kill_a_worker)
        killer.start()
        table = predicted(longer).run(store, engine, progress=False)
        killer.join()
    assert len(table) == 4
    assert any("its process died" in line and "tried once more" in line for line in said)
    runs = runs_of(store, study.name)
    assert sorted(run.info.status for run in runs) == ["FINISHED"] * 4 + ["KILLED"]
    (killed,) = (run for run in runs if run.info.status == "KILLED")
    assert killed.data.tags["fact.outcome"].startswith("interrupted")
    assert len(store.client.get_metric_history(killed.info.run_id, "loss/valid")) >= 2  # its measurements are kept
    (again,) = (run for run in runs if run.data.tags.get("attempt") == "2")
    assert {k: again.data.params[k] for k in ("dropout", "seed")} == {
        k: killed.data.params[k] for k in ("dropout", "seed")
    }
    assert not list(spool_folder().glob("*/journal.jsonl"))


class Breaks(torch.nn.Module):
    """A student's own layer, with a mistake."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("shapes don't match")


def test_a_run_that_fails_costs_the_others_nothing_and_is_named(
    home: Path, small: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ACTIVATIONS, "silu", Breaks)
    study = small_study("tiny-fails", "?", small, (0, 1), {"activation": ("relu", "silu")})
    with pytest.raises(LabError, match=r"2 of 4 runs of tiny-fails failed \(activation=silu, seed 1 of 2: .*shapes"):
        predicted(study).run(progress=False)
    assert list(study.results()["arm"]) == ["activation=relu"] * 2
    assert sorted(run.info.status for run in runs_of(connect(), "tiny-fails")) == ["FAILED"] * 2 + ["FINISHED"] * 2


def test_four_workers_lose_no_metric(home: Path, small: Config, small_data: Data) -> None:
    """Neither if all write to the SQLite file, nor if all log to one server for it, which starts in between."""
    store = connect()
    base, other, seeds = replace(small, epochs=12), replace(small, epochs=12, lr=0.02), range(2)
    with Workers(store, 4, small_data) as engine:
        assert store.kind == "embedded"
        check_study(small_study("tiny-file", "?", base, seeds, {"dropout": (0.0, 0.5)}), engine, store)
        try:
            server.start()
            assert store.kind == "server"
            check_study(small_study("tiny-server", "?", other, seeds, {"dropout": (0.0, 0.5)}), engine, store)
        finally:
            server.stop()


def check_study(study: Study, engine: Workers, store: Store) -> None:
    """Run a study, and find all of its data in the store."""
    table = predicted(study).run(store, engine, progress=False)
    assert len(table) == 4
    for run_id in table["run_id"]:
        for metric in ("loss/train", "loss/valid", "accuracy/valid", "gap/loss", "lr", "time/epoch_s"):
            points = store.client.get_metric_history(run_id, metric)
            assert [point.step for point in points] == list(range(1, 13))
        assert {file.path for file in store.client.list_artifacts(run_id)} >= {"figures", "weights.safetensors"}
    assert [run.info.status for run in runs_of(store, study.name)] == ["FINISHED"] * 4


@contextmanager
def runs_in_two_workers(*command: str) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """Start a study in another process; yield when both of its workers are in the middle of a run."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, *command], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        wait_for(lambda: sum(map(epochs_in, spool_folder().glob("*/journal.jsonl"))) >= 3)
        workers = workers_of(psutil.Process(process.pid))
        assert len(workers) == 2
        yield process, workers
    finally:
        process.kill()
        process.communicate()


LONG = """
from tests.test_engines import Workers, connect, long_study

with Workers(connect(), 2, long_study().data) as engine:
    long_study().run(engine=engine, progress=False)
"""


def long_study() -> Study:
    """Return a study of four runs, each long enough to be interrupted."""
    base = replace(BASE, blocks=((1, 8), (1, 8)), train_images=320, epochs=40, batch_size=32, lr=0.01)
    return small_study("tiny-long", "?", base, (0, 1), {"dropout": (0.0, 0.5)})


def test_a_killed_study_resumes_and_ends_with_each_run_once(home: Path) -> None:
    predicted(long_study())
    with runs_in_two_workers("-c", LONG) as (process, workers):
        process.kill()
        process.communicate()
        _, alive = psutil.wait_procs(workers, timeout=10)
        assert not alive  # workers end with the process that started them
    long_study().run(engine="here", progress=False)
    runs = runs_of(connect(), "tiny-long")
    finished = [run for run in runs if run.info.status == "FINISHED"]
    assert {run.info.status for run in runs} == {"FINISHED", "KILLED"}
    made = sorted((run.data.params["dropout"], run.data.params["seed"]) for run in finished)
    assert made == [("0.0", "0"), ("0.0", "1"), ("0.5", "0"), ("0.5", "1")]
    for run in runs:
        if run.info.status == "KILLED":
            assert run.data.tags["fact.outcome"].startswith("interrupted")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_ctrl_c_ends_a_study_in_workers_with_all_that_was_measured(home: Path) -> None:
    size = ("--profile", "tiny", "--epochs", "4", "--seeds", "2", "--engine", "workers", "--workers", "2")
    command = ("-m", "cnnlab", "run", "baseline", "--examples", *size)
    with runs_in_two_workers(*command) as (process, workers):
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "rerun the command to continue" in stderr
        assert "Traceback" not in stderr
        _, alive = psutil.wait_procs(workers, timeout=10)
        assert not alive
    runs = runs_of(connect(), "custom-01-baseline")
    assert "RUNNING" not in {run.info.status for run in runs}
    assert "KILLED" in {run.info.status for run in runs}
    assert sum("loss/valid" in run.data.metrics for run in runs) >= 1


def test_one_study_is_run_by_one_command_at_a_time(home: Path, study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Here, "submit", lambda engine, job: study.run(progress=False))
    with pytest.raises(LabError, match="another command is running the study tiny-02-dropout"):
        predicted(study).run(engine="here", progress=False)


def test_a_run_whose_process_is_gone_gets_an_end_in_the_record(
    home: Path, study: Study, small_data: Data, said: list[str]
) -> None:
    """Even if its journal is lost; a run of another machine, which may still be alive, is left unchanged."""
    store = connect()
    experiment = store.experiment_id(study.name)
    machine, pid, started = this_process().split("/")
    for process in (f"{machine}/{pid}/{int(started) - 1000}", f"{machine}-2/{pid}/{started}", this_process()):
        tags = {"owner": "a student", "lab.process": process, "kind": "run"}
        store.client.create_run(experiment, tags=tags, run_name=process)
    said.clear()
    predicted(study).run(store, progress=False)
    assert sum("is marked as KILLED" in line for line in said) == 1
    statuses = [run.info.status for run in runs_of(store, study.name) if "arm" not in run.data.tags]
    assert sorted(statuses) == ["KILLED", "RUNNING", "RUNNING"]


def test_a_process_is_gone_only_if_it_was_here_and_is_no_more() -> None:
    machine, pid, started = this_process().split("/")
    assert not is_gone(this_process())
    assert is_gone(f"{machine}/{pid}/{int(started) - 1000}")  # by now, another process has its id
    assert is_gone(f"{machine}/{2**22 + 1}/{started}")
    assert not is_gone(f"elsewhere/{pid}/{started}")
    assert not is_gone("")


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ({"name": "cloud"}, "there is no engine 'cloud': choose auto, here, workers, ray"),
        ({"name": "here", "workers": 3}, "is for the engine workers, not for here"),
        ({"name": "workers", "address": "10.0.0.5:6379"}, "add --engine ray"),
        ({"name": "workers", "gpus_per_run": 0.5}, "add --engine ray"),
    ],
)
def test_an_impossible_engine_is_refused(home: Path, arguments: dict, hint: str) -> None:
    with pytest.raises(LabError, match=hint):
        choose_engine(store=Store(), amount=10**9, **arguments)


def test_little_work_stays_in_this_process(home: Path) -> None:
    with choose_engine("auto", Store(), amount=10_000) as little:
        assert little.describe() == "in this process"
    with choose_engine("auto", Store(), amount=90_000, device="cpu") as much:
        assert (much.slots > 1) == (num_workers() > 1)


SCRIPT = """
from cnnlab.config import BASE, replace
from cnnlab.data import Data
from cnnlab.inquiry.run.runner import run_study
from cnnlab.inquiry.study import Study
from tests.helpers import stripes

print("the script runs")
small = replace(BASE, blocks=((1, 8), (1, 8)), train_images=320, epochs=1)
many = Data(stripes(2_000, seed=0), stripes(500, seed=1))  # far more than a pipe holds
study = Study("tiny-script", "?", small, (0,), {"dropout": (0.0, 0.5)}, data=many)
print(len(run_study(study, engine="workers", progress=False, explore=True)), "runs")
"""


@pytest.mark.parametrize("piped", [True, False])
def test_a_script_can_be_piped_in_and_needs_no_guard(home: Path, tmp_path: Path, piped: bool) -> None:
    script = tmp_path / "my script.py"
    script.write_text(SCRIPT)
    run = subprocess.run(
        [sys.executable, "-" if piped else str(script)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        input=SCRIPT if piped else None,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("the script runs") == 1
    assert "2 runs" in run.stdout


def test_workers_that_die_before_they_read_anything_are_failures_not_a_hang(
    home: Path, study: Study, small_data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "worker_context", lambda: multiprocessing.get_context("spawn"))
    many = Data(stripes(55_000, seed=0), small_data.valid)  # far more than a pipe holds
    study = replace_fields(study, data=many)
    nothing = shutil.which("false")  # a program that ends at once, instead of Python
    assert nothing
    resource_tracker.ensure_running()  # it is started in the same way
    multiprocessing.set_executable(nothing)
    try:
        with pytest.raises(LabError, match=r"4 of 4 runs of tiny-02-dropout failed .*its process died"):
            predicted(study).run(engine="workers", progress=False)
    finally:
        multiprocessing.set_executable(sys.executable)
