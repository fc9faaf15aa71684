"""A review names what was changed, removed or tried before in any store, which it only reads."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import mlflow
import pytest
from alembic import command
from click.testing import CliRunner
from mlflow import MlflowClient
from mlflow.store.db.utils import _get_alembic_config
from mlflow.store.tracking.dbmodels.initial_models import Base as InitialBase
from sqlalchemy import create_engine

from cnnlab.cli import cli
from cnnlab.config import BASE, replace
from cnnlab.data import Data
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.judge.review import Review, name_of, review
from cnnlab.inquiry.judge.verdict import verdict
from cnnlab.inquiry.prediction import predict
from cnnlab.inquiry.record.connection import connect
from cnnlab.inquiry.record.ledger import Record, load_records
from cnnlab.inquiry.record.runs import load_runs
from cnnlab.inquiry.record.seal import seal_record
from cnnlab.inquiry.record.snapshot import snapshot
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.run.runner import run_study
from cnnlab.inquiry.show.text import review_text
from tests.helpers import free_port, small_study, spare_figures

pytestmark = pytest.mark.usefixtures("light")

SMALL = replace(BASE, blocks=((1, 8), (1, 8)), train_images=320, epochs=3, batch_size=32, lr=0.01)
SMALL = replace(SMALL, precision="float32")  # the same effects on every processor
DROPOUT = small_study("02-dropout", "?", SMALL, (0, 1), {"dropout": (0.0, 0.5)})
NORM = small_study("03-norm", "?", SMALL, (0, 1), {"norm": ("none", "batch")})
WORDS = {"metric": "accuracy/valid", "because": "this is a mechanism", "if_refuted": "it is not so"}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, small_data: Data) -> Iterator[Path]:
    """A folder with a store: first a scout explored, then a student predicted three times, ran and confronted."""
    folder = tmp_path_factory.mktemp("my lab")
    with pytest.MonkeyPatch.context() as patch:
        spare_figures(patch)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("CNNLAB_HOME", str(folder))
        patch.setenv("MLFLOW_PORT", str(free_port()))
        store = connect()
        patch.setenv("CNNLAB_OWNER", "a scout")
        scouting = small_study("scouting", "?", SMALL, (0,), arms={"look": replace(SMALL, dropout=0.5)}, control="look")
        run_study(scouting, store, progress=False, explore=True)
        patch.setenv("CNNLAB_OWNER", "a student")
        predict(DROPOUT, arm="dropout=0.5", direction="lower", size=(1, 9), confidence=80, **WORDS)
        predict(DROPOUT, arm="dropout=0.5", direction="lower", size=(1, 9), confidence=60, **WORDS)
        predict(NORM, arm="norm=batch", direction="higher", size=(1, 9), confidence=60, **WORDS)
        for study in (DROPOUT, NORM):
            study.run(store, progress=False)
        verdict(DROPOUT, store)
        yield folder


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("copy") / "mlflow.db"


@pytest.fixture
def tampered(lab: Path, copy: Path) -> Callable[..., Review]:
    """Return a function that reviews a fresh copy of the store after running some SQL statements in it."""

    def look(*statements: str, **values: Any) -> Review:
        with closing(sqlite3.connect(lab / "mlflow.db")) as source, closing(sqlite3.connect(copy)) as target, target:
            source.backup(target)
            for statement in statements:
                assert target.execute(statement, values).rowcount > 0
        return review(Store(f"sqlite:///{copy.as_posix()}"))

    return look


@pytest.fixture
def records(lab: Path) -> list[Record]:
    """Return the student's three predictions, oldest first."""
    return load_records(connect())


def last_run(study: str) -> str:
    """Return the id of the last run that was started in a study."""
    return str(load_runs(connect(), study)["run_id"].iloc[-1])


def test_an_untouched_store_is_intact(lab: Path) -> None:
    with snapshot(str(lab)) as opened:
        found = review(opened, lab)
    assert found.problems == []
    assert found.is_intact
    assert found.runs == 9  # the scout's 1, the 4 + 2 trained, and the 2 taken over
    assert found.foreign == []
    assert found.unverified == []
    assert {owner: len(theirs) for owner, theirs in found.heads.items()} == {"a scout": 1, "a student": 3 + 8 + 1}


def test_what_a_scout_had_run_before_is_noted(lab: Path) -> None:
    with snapshot(str(lab)) as opened:
        notes = review(opened).notes
    seen = [note for note in notes if "other owners of this store had run its arms before it: a scout (1)" in note]
    assert len(seen) == 2  # both predictions about dropout, and not that about the norm
    assert all("of a student in 02-dropout" in note for note in seen)
    assert "Runs without a prediction, by a scout: 1." in notes


def test_the_timeline_has_what_happened_in_order(lab: Path) -> None:
    with snapshot(str(lab)) as opened:
        found = review(opened)
    what = list(found.timeline["what"])
    assert what[0].startswith("first run of scouting (in all: 1 FINISHED)")
    assert what[1:4] == [f"predicted ({i}), in {name}" for i, name in enumerate(["02-dropout"] * 2 + ["03-norm"], 1)]
    assert what[4] == "first run of 02-dropout (in all: 4 FINISHED)"
    assert what[5] == "first run of 03-norm (in all: 4 FINISHED, 2 of them taken over)"
    assert what[6].startswith("verdict 1 on (2): ")  # the first was replaced before there were results
    assert list(found.timeline["time"]) == sorted(found.timeline["time"])
    assert list(found.predictions["verdict"])[::2] == ["no verdict yet"] * 2
    assert "95 % interval [" in found.predictions["effect"].iloc[1]
    claims = list(found.predictions["prediction"])
    assert claims[0] == "dropout=0.5 against dropout=0.0: accuracy/valid lower by 1 to 9 pp"


def named(found: Review, *parts: str) -> bool:
    """Return whether one problem contains all of these parts."""
    return any(all(part in problem for part in parts) for problem in found.problems)


SET = "UPDATE params SET value = :value WHERE key = :key AND run_uuid = :run"
SEAL = "UPDATE params SET value = :seal WHERE key = 'sha256' AND run_uuid = :run"
FOR_GOOD = [f"DELETE FROM {table} WHERE run_uuid = :run" for table in ("params", "tags", "runs")]
RUN_FOR_GOOD = [f"DELETE FROM {table} WHERE run_uuid = :run" for table in ("metrics", "latest_metrics")] + FOR_GOOD
IN_THE_UI = "UPDATE runs SET lifecycle_stage = 'deleted' WHERE run_uuid = :run"


@pytest.mark.parametrize(("key", "value"), [("direction", "higher"), ("because", "hindsight is a mechanism")])
def test_a_changed_prediction_is_named(
    tampered: Callable[..., Review], records: list[Record], key: str, value: str
) -> None:
    found = tampered(SET, run=records[0].run_id, key=key, value=value)
    assert found.problems == [f"{name_of(records[0])}: it was changed after it was sealed."]


def test_a_resealed_prediction_fits_neither_its_successor_nor_its_runs(
    tampered: Callable[..., Review], records: list[Record]
) -> None:
    seal = seal_record(records[0].content | {"direction": "higher"})
    found = tampered(SET, SEAL, run=records[0].run_id, key="direction", value="higher", seal=seal)
    was = records[0].sha256[:12]
    assert named(found, name_of(records[1]), f"the record before it ({was}) is missing")
    assert named(
        found, "run dropout=0.5, seed 2 of 2 of 02-dropout", f"the prediction that it belongs to ({was}) is missing"
    )


@pytest.mark.parametrize("position", [0, 1])
def test_a_deleted_record_leaves_a_gap(tampered: Callable[..., Review], records: list[Record], position: int) -> None:
    gone, follower = records[position : position + 2]
    found = tampered(*FOR_GOOD, run=gone.run_id)
    assert named(found, name_of(follower), f"the record before it ({gone.sha256[:12]}) is missing")


def test_a_deleted_last_record_is_revealed_by_its_runs(tampered: Callable[..., Review], records: list[Record]) -> None:
    found = tampered(*FOR_GOOD, run=records[2].run_id)
    said = f"the prediction that it belongs to ({records[2].sha256[:12]}) is missing"
    assert named(found, "run norm=batch, seed 1 of 2 of 03-norm", said)
    assert len(found.problems) == 4 + 2  # its runs, and those of the same network in the other study


def test_a_prediction_hidden_from_the_lab_is_noticed(tampered: Callable[..., Review], records: list[Record]) -> None:
    hide = "UPDATE tags SET value = 'note' WHERE key = 'kind' AND run_uuid = :run"
    found = tampered(hide, run=records[1].run_id)
    assert named(found, name_of(records[2]), f"the record before it ({records[1].sha256[:12]}) is missing")


def test_a_prediction_deleted_in_the_ui_stays_in_the_chain_and_is_noted(
    tampered: Callable[..., Review], records: list[Record]
) -> None:
    found = tampered(IN_THE_UI, run=records[0].run_id)
    assert found.is_intact
    assert f"{name_of(records[0])}: deleted in the MLflow UI; it stays in the chain." in found.notes


def test_a_second_record_that_follows_the_same_one_is_named(
    tampered: Callable[..., Review], records: list[Record]
) -> None:
    fork = records[1].content | {"direction": "higher"}
    fork["sha256"] = seal_record(fork)
    columns = "experiment_id, name, user_id, status, start_time, end_time, lifecycle_stage, artifact_uri"
    found = tampered(
        f"INSERT INTO runs (run_uuid, {columns}) SELECT 'fork', {columns} FROM runs WHERE run_uuid = :run",
        "INSERT INTO tags (key, value, run_uuid) SELECT key, value, 'fork' FROM tags WHERE run_uuid = :run",
        *(f"INSERT INTO params (key, value, run_uuid) VALUES ('{key}', :new_{key}, 'fork')" for key in fork),
        run=records[1].run_id,
        **{f"new_{key}": value for key, value in fork.items()},
    )
    seals = records[1].sha256[:12], fork["sha256"][:12]
    for one, other in (seals, seals[::-1]):
        assert named(found, f"prediction {one}", f"it follows the same record as {other}")
    assert len(found.problems) == 2


def test_a_backdated_record_is_named(tampered: Callable[..., Review], records: list[Record]) -> None:
    record = records[2]
    untrue = f"{name_of(record)}: the time it gives is not the time at which MLflow received it."
    by_its_words = tampered(SET, run=record.run_id, key="time", value="2020-01-01T00:00:00.000+00:00")
    assert by_its_words.problems == [f"{name_of(record)}: it was changed after it was sealed.", untrue]
    in_mlflow = "UPDATE runs SET start_time = start_time - 86400000 WHERE run_uuid = :run"
    assert tampered(in_mlflow, run=record.run_id).problems == [untrue]


def test_a_record_whose_clock_was_turned_back_is_named(tampered: Callable[..., Review], records: list[Record]) -> None:
    """Sealed again, with MLflow's time changed to match: then it is older than its predecessor."""
    earlier = records[2].content | {"time": "2020-01-01T00:00:00.000+00:00"}
    found = tampered(
        SET,
        SEAL,
        "UPDATE runs SET start_time = 1577836800000 WHERE run_uuid = :run",
        run=records[2].run_id,
        key="time",
        value=earlier["time"],
        seal=seal_record(earlier),
    )
    assert named(found, seal_record(earlier)[:12], "the time it gives is earlier than that of the record")


GARBLED = {
    "no time": "DELETE FROM params WHERE key = 'time' AND run_uuid = :run",
    "no time of the verdict": "DELETE FROM params WHERE key = 'verdict_1_time' AND run_uuid = :run",
    "time": "UPDATE params SET value = 'yesterday' WHERE key = 'time' AND run_uuid = :run",
    "design": "UPDATE params SET value = '[1]' WHERE key = 'design' AND run_uuid = :run",
    "runs": "UPDATE params SET value = '?' WHERE key = 'verdict_1_runs_1' AND run_uuid = :run",
    "no outcome": "DELETE FROM params WHERE key = 'verdict_1_outcome' AND run_uuid = :run",
    "number": "UPDATE params SET key = 'verdict_one_label' WHERE key = 'verdict_1_label' AND run_uuid = :run",
}


@pytest.mark.parametrize("what", GARBLED)
def test_a_garbled_record_is_named_and_stops_nothing(
    tampered: Callable[..., Review], records: list[Record], what: str
) -> None:
    found = tampered(GARBLED[what], run=records[1].run_id)
    assert named(found, name_of(records[1]), "it was changed after it was sealed")
    assert review_text(found)


def test_a_truncated_record_is_not_a_prediction(tampered: Callable[..., Review], records: list[Record]) -> None:
    run_id = records[2].run_id
    found = tampered("DELETE FROM params WHERE run_uuid = :run", run=run_id)
    assert named(found, f"prediction {run_id[:8]} of nobody in 03-norm", "it was only partly written")
    assert "(cut short)" in review_text(found)
    partly = tampered("DELETE FROM params WHERE key = 'sha256' AND run_uuid = :run", run=run_id)
    assert named(partly, f"prediction {run_id[:8]} of a student in 03-norm", "it was only partly written")


METRIC = "UPDATE {} SET value = value + 0.01 WHERE key = 'final/accuracy/valid' AND run_uuid = :run"
CHANGES = {
    "a final metric": [METRIC.format("latest_metrics"), METRIC.format("metrics")],
    "a param": ["UPDATE params SET value = '0.4' WHERE key = 'dropout' AND run_uuid = :run"],
    "a fact": ["UPDATE tags SET value = '99' WHERE key = 'fact.steps' AND run_uuid = :run"],
    "a fact taken away": ["DELETE FROM tags WHERE key = 'fact.steps' AND run_uuid = :run"],
    "the owner": ["UPDATE tags SET value = 'somebody' WHERE key = 'owner' AND run_uuid = :run"],
    "the arm": ["UPDATE tags SET value = 'dropout=0.4' WHERE key = 'arm' AND run_uuid = :run"],
    "its kind": ["UPDATE tags SET value = 'trial' WHERE key = 'kind' AND run_uuid = :run"],
    "no kind": ["DELETE FROM tags WHERE key = 'kind' AND run_uuid = :run"],
    "its start": ["UPDATE runs SET start_time = start_time + 60000 WHERE run_uuid = :run"],
}


@pytest.mark.parametrize("study", ["02-dropout", "03-norm"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_run_is_named_with_or_without_a_verdict(
    tampered: Callable[..., Review], change: str, study: str
) -> None:
    run_id = last_run(study)
    found = tampered(*CHANGES[change], run=run_id)
    assert named(found, f"of {study} ({run_id[:8]})", "were changed after it ended")
    by_verdict = named(found, "verdict 1", f"({run_id[:8]}) was changed after the verdict")
    assert by_verdict == (study == "02-dropout" and change == "a final metric")


def test_a_resealed_run_is_named_by_the_verdict_that_rests_on_it(tampered: Callable[..., Review]) -> None:
    run_id = last_run("02-dropout")
    found = tampered("UPDATE tags SET value = 'another' WHERE key = 'lab.seal' AND run_uuid = :run", run=run_id)
    assert named(found, "verdict 1", f"({run_id[:8]}) was changed after the verdict")


def test_a_note_on_a_run_does_not_count_as_a_change(tampered: Callable[..., Review]) -> None:
    note = "INSERT INTO tags (key, value, run_uuid) VALUES ('mlflow.note.content', 'looked odd', :run)"
    assert tampered(note, run=last_run("02-dropout")).is_intact


def test_a_run_deleted_in_the_ui_is_noted_and_reported_missing(tampered: Callable[..., Review]) -> None:
    run_id = last_run("02-dropout")
    found = tampered(IN_THE_UI, run=run_id)
    assert found.is_intact
    assert f"run dropout=0.5, seed 2 of 2 of 02-dropout ({run_id[:8]}): deleted in the MLflow UI." in found.notes
    assert any("1 of its 4 runs are missing (dropout=0.5, seed 1)" in note for note in found.notes)


def test_a_permanently_deleted_run_is_noticed(tampered: Callable[..., Review]) -> None:
    judged, not_judged = last_run("02-dropout"), last_run("03-norm")
    assert named(tampered(*RUN_FOR_GOOD, run=judged), "verdict 1", f"the run {judged} that it rests on is gone")
    notes = tampered(*RUN_FOR_GOOD, run=not_judged).notes
    assert any("1 of its 4 runs are missing (norm=batch, seed 1)" in note for note in notes)


@pytest.mark.parametrize(("key", "value"), [("outcome", "supported!"), ("label", "exploratory"), ("estimate", "9.9")])
def test_a_changed_verdict_is_named(
    tampered: Callable[..., Review], records: list[Record], key: str, value: str
) -> None:
    found = tampered(SET, run=records[1].run_id, key=f"verdict_1_{key}", value=value)
    assert found.problems == [f"{name_of(records[1])}, verdict 1: it was changed after it was sealed."]


def test_a_swapped_owner_is_named(tampered: Callable[..., Review], records: list[Record]) -> None:
    in_the_ui = "UPDATE tags SET value = 'somebody' WHERE key = 'owner' AND run_uuid = :run"
    shown = tampered(in_the_ui, run=records[1].run_id)
    assert shown.problems == [f"{name_of(records[1])}: in the MLflow UI its owner is somebody."]
    said = tampered(SET, run=records[1].run_id, key="owner", value="somebody")
    assert named(said, f"prediction {records[1].sha256[:12]} of somebody", "was changed after it was sealed")


def test_clocks_that_disagree_a_little_are_no_problem(home: Path) -> None:
    """Two machines write to one store, and the clock of the second is a minute behind."""
    store = connect()
    told = {"arm": "dropout=0.5", "direction": "lower", "size": (1, 9)} | WORDS
    predict(DROPOUT, **told, confidence=60)
    (first,) = load_records(store)
    second = first.content | {"confidence": "70", "previous": first.sha256}
    shifted = first.time - timedelta(minutes=1)
    second["time"] = shifted.isoformat(timespec="milliseconds")
    second["sha256"] = seal_record(second)
    tags = {"kind": "prediction", "owner": "a student"}
    run = store.client.create_run(store.experiment_id("02-dropout"), int(shifted.timestamp() * 1000), tags)
    for name, value in second.items():
        store.client.log_param(run.info.run_id, name, value)
    third = predict(DROPOUT, **told, confidence=80)
    assert third.record and third.record.content["previous"] == second["sha256"]
    with snapshot(str(home)) as opened:
        found = review(opened)
    assert found.problems == []
    assert [head.number for head in found.heads["a student"]] == [1, 2, 3]


# The command


def test_the_command_only_reads_and_says_by_its_exit_code_whether_all_fits(lab: Path, tmp_path: Path) -> None:
    folder = tmp_path / "handed in"
    folder.mkdir()
    shutil.copyfile(lab / "mlflow.db", folder / "mlflow.db")
    before = (folder / "mlflow.db").read_bytes()
    good = CliRunner().invoke(cli, ["review", str(folder)], env={"COLUMNS": "80"})
    assert good.exit_code == 0
    assert good.output.startswith("Intact: 3 predictions and 9 runs, each as it was sealed.")
    assert max(map(len, good.output.splitlines())) <= 80
    assert (folder / "mlflow.db").read_bytes() == before
    assert [file.name for file in folder.iterdir()] == ["mlflow.db"]
    with closing(sqlite3.connect(folder / "mlflow.db")) as database, database:
        database.execute("UPDATE params SET value = 'higher' WHERE key = 'direction' AND value = 'lower'")
    bad = CliRunner().invoke(cli, ["review", str(folder / "mlflow.db")])
    assert bad.exit_code == 1
    assert bad.output.startswith("NOT INTACT: 2 problems.")


def test_a_file_that_is_read_only_can_be_reviewed(lab: Path, tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    shutil.copyfile(lab / "mlflow.db", file)
    file.chmod(0o444)
    with snapshot(str(file)) as opened:
        assert review(opened).is_intact


def test_a_store_is_read_as_it_was_before_a_change_that_is_being_written(lab: Path, tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    shutil.copyfile(lab / "mlflow.db", file)
    with closing(sqlite3.connect(file)) as writer:
        writer.execute("UPDATE params SET value = 'higher' WHERE key = 'direction'")  # not committed
        with snapshot(str(file)) as opened:
            assert review(opened).is_intact
        writer.rollback()


def test_a_path_without_a_store_is_refused_in_one_sentence(home: Path, tmp_path: Path) -> None:
    text, other, strange = (tmp_path / name for name in ("notes.db", "other.db", "strange.db"))
    text.write_text("these are my notes, and no database\n" * 50, encoding="utf-8")
    for file, table in ((other, "books (title TEXT)"), (strange, "runs (title TEXT)")):
        with closing(sqlite3.connect(file)) as database, database:
            database.execute(f"CREATE TABLE {table}")
    (tmp_path / "empty.db").touch()
    hints = {
        text: "can't be read as an MLflow store (file is not a database)",
        other: "is not an MLflow store: it has no table of runs",
        tmp_path / "empty.db": "is not an MLflow store: it has no table of runs",
        strange: "its tables are unknown to MLflow",
        tmp_path / "nowhere": "there is no MLflow store",
    }
    for file, hint in hints.items():
        with pytest.raises(LabError) as error, snapshot(str(file)):
            pass
        assert hint in str(error.value)
        assert file.name in str(error.value)
    with pytest.raises(LabError, match=r"http://127\.0\.0\.1:9"), snapshot("http://127.0.0.1:9") as opened:
        review(opened)


def test_a_store_of_a_newer_mlflow_is_refused(home: Path) -> None:
    connect()
    with closing(sqlite3.connect(home / "mlflow.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    with pytest.raises(LabError, match=f"unknown to MLflow {mlflow.__version__}"), snapshot(str(home)):
        pass


def test_a_store_of_an_older_mlflow_is_read_and_not_upgraded(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    uri = f"sqlite:///{file.as_posix()}"
    engine = create_engine(uri)
    InitialBase.metadata.create_all(engine)
    engine.dispose()
    command.upgrade(_get_alembic_config(uri), "97727af70f4d")  # of 2022, MLflow 1.28
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("INSERT INTO experiments (experiment_id, name, lifecycle_stage) VALUES (1, 'old', 'active')")
        columns = "run_uuid, name, experiment_id, status, lifecycle_stage, start_time, source_type, user_id"
        database.execute(f"INSERT INTO runs ({columns}) VALUES ('a', 'a', 1, 'FINISHED', 'active', 1, 'LOCAL', 'me')")
        database.execute("INSERT INTO params (key, value, run_uuid) VALUES ('lr', '0.1', 'a')")
    before = file.read_bytes()
    with snapshot(str(file)) as opened:
        assert review(opened).foreign[0] == "old: 1 run that this lab did not make."
    assert file.read_bytes() == before


# Stores that this lab did not make


@pytest.fixture
def foreign(tmp_path: Path) -> Callable[[list[dict[str, Any]]], Review]:
    """Return a function that reviews a store with runs of these params, logged by plain MLflow calls."""

    def look(params: list[dict[str, Any]], **tags: str) -> Review:
        file = tmp_path / "theirs.db"
        client = MlflowClient(f"sqlite:///{file.as_posix()}")
        experiment = client.create_experiment("cnn tuning", artifact_location=tmp_path.as_uri())
        for values in params:
            run = client.create_run(experiment, tags=tags)
            for name, value in values.items():
                client.log_param(run.info.run_id, name, value)
            client.log_metric(run.info.run_id, "val_acc", 0.9)
            client.set_terminated(run.info.run_id)
        with snapshot(str(file)) as opened:
            return review(opened)

    return look


def test_with_single_runs_no_difference_can_be_distinguished_from_chance(foreign: Callable[..., Review]) -> None:
    found = foreign([{"lr": 0.1, "epochs": 3}, {"lr": 0.2, "epochs": 3}, {"lr": 0.1, "epochs": 10, "dropout": 0.5}])
    text = "\n".join(found.foreign)
    assert found.is_intact
    assert found.runs == 0
    assert "cnn tuning: 3 runs that this lab did not make." in text
    assert "Typed params that vary: lr, epochs, dropout. Whether the networks that ran had these values can't" in text
    assert "3 configurations. Each of them was run once: no difference can be told from chance." in text
    assert "No seed was logged" in text
    unfair = "no other run differs from dropout=0.5, epochs=10, lr=0.1 in one param only; the nearest differs in 2: "
    assert unfair + "epochs: 3 -> 10, dropout: - -> 0.5." in text
    assert "from epochs=3, lr=0.2" not in text  # that run differs only in lr
    assert "Can't know: the networks themselves" in text


def test_repeated_runs_with_seeds_can_be_compared_and_equal_ones_are_no_repetition(
    foreign: Callable[..., Review],
) -> None:
    runs = [{"dropout": p, "torch_seed": seed} for p in (0.0, 0.5) for seed in (1, 2, 3)]
    text = "\n".join(foreign([*runs, runs[0]]).foreign)
    assert "2 configurations, each run 3 to 4 times" in text
    assert "Typed params that vary: dropout." in text
    assert "No seed" not in text
    assert "Params and seed of 1 run are the same as another run's: that is not a repetition." in text
    assert "Unfair" not in text


def test_a_single_run_and_runs_without_params_are_described(foreign: Callable[..., Review]) -> None:
    text = "\n".join(foreign([{"lr": 0.1}, {}]).foreign)
    assert "cnn tuning: 2 runs that this lab did not make." in text
    assert "1 of them have no params" in text
    assert "1 configuration. It was run once" in text


def test_runs_without_any_params_say_nothing(foreign: Callable[..., Review]) -> None:
    assert "They have no params: what differs between them can't be known." in "\n".join(foreign([{}, {}]).foreign)


@pytest.mark.parametrize("kind", ["baseline", "run", "prediction"])
def test_a_tag_of_theirs_named_like_one_of_ours_stops_nothing(foreign: Callable[..., Review], kind: str) -> None:
    found = foreign([{"lr": 0.1, "verdict_of_me": "good"}], kind=kind)
    assert review_text(found)
    assert (found.foreign != []) == (kind == "baseline")


def test_an_empty_store_is_empty(home: Path) -> None:
    connect()
    with snapshot(str(home)) as opened:
        found = review(opened)
    assert review_text(found) == "Intact: 0 predictions and 0 runs, each as it was sealed."
