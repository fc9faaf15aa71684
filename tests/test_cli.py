"""The command line does what it says, and its exit codes are right."""

import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cnnlab.inquiry import server
from cnnlab.inquiry.record.connection import connect
from cnnlab.inquiry.record.ledger import load_records
from cnnlab.inquiry.record.spool import spool_folder
from tests.helpers import Cnnlab, epochs_in, wait_for

ROOT = Path(__file__).parents[1]


def cnnlab(*arguments: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cnnlab", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", timeout=timeout)


def test_the_main_job_runs_end_to_end_on_real_data(home: Path, here: Cnnlab) -> None:
    """The README's first command, for two studies: example predictions, real runs, verdicts; a repeat is free."""
    command = ("run", "baseline", "02-dropout", "--examples", "--profile", "tiny")
    done = cnnlab(*command)
    assert done.returncode == 0, done.stderr
    assert "MLflow: my lab/mlflow.db" in done.stdout
    said = done.stdout.index('as the owner "example"')
    assert said < done.stdout.index("tiny-02-dropout: 4 arms x 2 seeds, each 1 epoch of 640 images.")
    assert done.stdout.count("I am 60 % confident that") >= 2  # when it is recorded, and above the verdict
    assert done.stdout.count("95 % interval [") == 2
    rows = re.findall(r"^ ?(dropout=0\.\d) +2 +\d\d\.\d\d ", done.stdout, re.MULTILINE)
    assert rows == [f"dropout={p}" for p in (0.0, 0.1, 0.3, 0.5)]
    assert f"{os.environ['MLFLOW_PORT']}/lab" in done.stdout
    bars = done.stderr.splitlines()  # one line per study: the bar's last state
    assert [bar.split("%")[0] for bar in bars] == ["tiny-01-baseline 100", "tiny-02-dropout 100"]
    runs = runs_in_store()
    assert len(runs) == 12
    again = here(*command)
    assert again.returncode == 0
    assert "8 of its runs are finished already" in again.stdout
    assert again.stderr == ""
    assert runs_in_store() == runs
    trained_again = here("review", "--reproduce", "1")
    assert trained_again.returncode == 0
    assert "Reproduced: identical to the last bit." in trained_again.stdout


def test_the_plan_of_the_main_job_names_what_is_missing_and_trains_nothing(home: Path, here: Cnnlab) -> None:
    done = here("plan", "02-dropout", "--profile", "tiny")
    assert done.returncode == 0, done.stderr
    assert "To train: 8 runs, about" in done.stdout
    assert "dropout: 0.0 -> 0.5" in done.stdout
    assert runs_in_store() == []


def runs_in_store() -> list[str]:
    store = connect()
    ids = [experiment.experiment_id for experiment in store.client.search_experiments()]
    return [run.info.run_id for run in store.client.search_runs(ids, "tags.kind = 'run'")]


def test_a_study_is_predicted_run_and_judged_by_its_student(home: Path, here: Cnnlab) -> None:
    """The commands do the same as in the notebook; without a prediction nothing is trained."""
    size = ("--profile", "tiny", "--epochs", "1")
    refused = here("run", "baseline", *size)
    assert refused.returncode == 1
    assert "nothing is trained before you have predicted what comes out" in refused.stderr
    options = ("--metric", "accuracy/valid", "--direction", "none", "--confidence", "70", *size)
    words = ("--because", "only the random numbers differ", "--if-refuted", "something else differs too")
    nothing = here("verdict", *size)
    assert nothing.returncode == 1
    assert "a student has predicted nothing yet: begin with `uv run cnnlab predict dropout`." in nothing.stderr
    predicted = here("predict", "baseline", "--arm", "baseline again", *options, *words)
    assert predicted.returncode == 0, predicted.stderr
    assert "differs by less than 0.30 pp (2 seeds)" in predicted.stdout
    assert "by a student, sealed" in predicted.stdout
    waiting = here("verdict", *size).stdout
    assert "4 of 4 runs are missing" in waiting
    assert "`cnnlab run` trains them):\n  baseline: 2 runs\n  baseline again: 2 runs\n" in waiting
    done = here("run", "baseline", *size)
    assert done.returncode == 0
    assert "Head of everything that a student has on record (note it, or hand it in): " in done.stdout
    assert "inconclusive, confirmatory: accuracy/valid" in here("verdict", *size).stdout
    reviewed = here("review")
    assert reviewed.returncode == 0
    assert "1 prediction" in reviewed.stdout
    assert "Reflections that are empty: tiny-01-baseline.md (1)" in reviewed.stdout


def test_what_a_prediction_lacks_is_asked_for(home: Path, here: Cnnlab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("baseline again\nsixty\n60\ny\n"))
    given = ("--metric", "loss/valid", "--direction", "higher")
    done = here("predict", "baseline", "--profile", "tiny", *given, "--because", "a b c", "--if-refuted", "d e f")
    assert done.returncode == 0, done.stderr
    assert "confidence is 'sixty', and should be a number, such as 70." in done.stderr
    assert "I am 60 % confident that the validation loss is higher (2 seeds; smallest effect" in done.stdout


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--confidence", "30"), "confidence=30 is not possible"),
        (("--metric", "loss/valid", "--size", "0.2", "0.1"), r"size=(0.2, 0.1) is not possible"),
        (("--arm", "dropout=0.9"), "dropout=0.9"),
        (("--because", "why"), "because='why' is too short"),
    ],
)
def test_given_options_are_checked_before_anything_is_asked(
    home: Path, here: Cnnlab, given: tuple[str, ...], said: str
) -> None:
    done = here("predict", "02-dropout", "--profile", "tiny", *given)
    assert done.returncode == 1 and said in done.stderr
    assert "What does dropout" not in done.stdout  # the question of the study comes first where something is asked


def test_sizes_wait_for_their_metric(home: Path, here: Cnnlab, monkeypatch: pytest.MonkeyPatch) -> None:
    """0.03 nats is much, and 0.03 pp is nothing."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("loss/valid\n70\ny\n"))
    given = ("--arm", "dropout=0.5", "--direction", "higher", "--size", "0.03", "0.2", "--because", "a b c")
    done = here("predict", "02-dropout", "--profile", "tiny", *given, "--if-refuted", "d e f")
    assert done.returncode == 0, done.stderr
    assert "it is higher by 0.03 to 0.2 nats" in done.stdout


def test_answers_that_are_not_recorded_need_not_be_typed_again(
    home: Path, here: Cnnlab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("baseline again\n60\nn\n"))
    given = ("--profile", "tiny", "--metric", "loss/valid", "--direction", "higher", "--size", "0.1", "0.3")
    done = here("predict", "baseline", *given, "--because", "a b c", "--if-refuted", "d e f")
    assert done.returncode == 130 and load_records(connect()) == []
    command = done.stderr.partition("Nothing was recorded. Your answers so far:\n")[2]
    again = here(*shlex.split(command)[3:])
    assert again.returncode == 0, again.stderr
    assert "it is higher by 0.1 to 0.3 nats" in again.stdout


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_ctrl_c_ends_the_run_as_killed_with_its_epochs_kept(home: Path) -> None:
    command = [sys.executable, "-m", "cnnlab", "run", "baseline", "--profile", "tiny", "--epochs", "3000"]
    command += ["--examples", "--engine", "here"]  # test_engines.py has worker processes
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: sum(map(epochs_in, spool_folder().glob("*/journal.jsonl"))) >= 2)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130
    assert "Stopped. What was measured is kept" in stderr
    assert "Traceback" not in stderr
    store = connect()
    (run,) = store.client.search_runs([store.experiment_id("custom-01-baseline")], "tags.kind = 'run'")
    assert run.info.status == "KILLED"
    assert len(store.client.get_metric_history(run.info.run_id, "loss/valid")) >= 2


@pytest.mark.parametrize(
    ("arguments", "code", "hint"),
    [
        (("run", "--profile", "huge"), 2, "'huge' is not one of 'tiny', 'quick', 'full'"),
        (("run", "normalisation"), 1, "did you mean 'normalization'? Otherwise choose from baseline, dropout,"),
        (
            (
                "predict",
                "baseline",
                "--arm",
                "x",
                "--metric",
                "loss/valid",
                "--direction",
                "none",
                "--confidence",
                "50",
                "--because",
                "a b c",
                "--if-refuted",
                "d e f",
            ),
            1,
            "choose from baseline, baseline again",
        ),
        (("review", "nowhere"), 1, "there is no MLflow store"),
        (("report",), 1, "there is nothing to report yet"),
        (("run", "--epochs", "0"), 2, "0 is not in the range"),
        (("run", "--engine", "cloud"), 2, "'cloud' is not one of 'auto', 'here', 'workers', 'ray'"),
        (("run", "--engine", "here", "--workers", "2"), 1, "workers=2 is for the engine workers"),
        (("fly",), 2, "No such command"),
        (("server", "status"), 1, ""),
    ],
)
def test_a_mistake_gets_one_sentence_and_the_right_exit_code(
    home: Path, here: Cnnlab, arguments: tuple[str, ...], code: int, hint: str
) -> None:
    done = here(*arguments)
    assert done.returncode == code
    assert hint in done.stderr
    assert "Traceback" not in done.stderr


def test_help_of_predict_lists_the_directions() -> None:
    text = cnnlab("predict", "--help").stdout
    assert "--direction [higher|lower|none|synergy|antagonism|additive]" in text


def test_help_names_every_command() -> None:
    done = cnnlab("--help")
    assert done.returncode == 0
    for command in ("predict", "run", "verdict", "report", "review", "plan", "doctor", "server", "ui"):
        assert command in done.stdout


def test_the_doctor_finds_a_healthy_lab_well(home: Path, here: Cnnlab) -> None:
    done = here("doctor")
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    assert all(line.startswith("OK") for line in lines)
    assert [line.split()[1] for line in lines] == [
        "python", "packages", "data", "store", "schema", "spool", "server", "tracking", "device",
    ]  # fmt: skip
    assert "55,000 train, 5,000 valid" in done.stdout


def test_the_doctor_says_how_to_fix_a_damaged_store(home: Path, here: Cnnlab) -> None:
    connect()
    file = home / "mlflow.db"
    file.write_bytes(b"not a database at all" * 500)
    done = here("doctor")
    assert done.returncode == 1
    ill = [line for line in done.stdout.splitlines() if line.startswith("FIX")]
    assert any("is damaged" in line and "version control" in line for line in ill)
    assert "Traceback" not in done.stderr


def test_the_doctor_sees_runs_that_wait(home: Path, here: Cnnlab) -> None:
    folder = spool_folder() / json.dumps("left over").strip('"')
    folder.mkdir(parents=True)
    (folder / "journal.jsonl").write_text('{"event": "create"}\n')
    done = here("doctor")
    assert done.returncode == 1
    assert "1 runs are not in MLflow yet" in done.stdout
    shutil.rmtree(folder)


def test_the_server_commands_start_and_stop_one_server(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        started = cnnlab("server", "start")
        assert started.returncode == 0, started.stderr
        assert f"http://127.0.0.1:{os.environ['MLFLOW_PORT']}" in started.stdout
        assert cnnlab("server", "status").returncode == 0
        links = cnnlab("ui", "--no-open")
        assert links.returncode == 0
        assert "/lab\n" in links.stdout
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address())
        assert cnnlab("ui", "--no-open").stdout.splitlines()[-1] == f"{server.address()}/lab"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{(home / 'mlflow.db').as_posix()}")
        refused = cnnlab("ui", "--no-open")
        assert refused.returncode == 1
        assert "mlflow.db, which no server shows: name a server, or unset it." in refused.stderr
        monkeypatch.delenv("MLFLOW_TRACKING_URI")
    finally:
        assert cnnlab("server", "stop").returncode == 0
    assert cnnlab("server", "status").returncode == 1
