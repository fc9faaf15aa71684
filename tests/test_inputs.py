"""Bad input gets one sentence before anything is trained: what is wrong, what is allowed, and what to do."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from click.testing import CliRunner
from nbclient import NotebookClient

from cnnlab.cli import cli
from cnnlab.config import Config
from cnnlab.course.profiles import PROFILES, find_profile
from cnnlab.course.studies import FIRST_OF_BEST, FIRST_OF_THEIR_OWN, lab_studies
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.judge.power import power
from cnnlab.inquiry.judge.vault import open_vault
from cnnlab.inquiry.judge.verdict import verdict
from cnnlab.inquiry.names import check_name
from cnnlab.inquiry.params import replace
from cnnlab.inquiry.prediction import predict
from cnnlab.inquiry.record.connection import connect
from cnnlab.inquiry.record.courier import Courier
from cnnlab.inquiry.record.environment import owner
from cnnlab.inquiry.record.run_logger import RunLogger
from cnnlab.inquiry.record.runs import load_raw
from cnnlab.inquiry.seeds import OFFSET, my_seeds
from cnnlab.inquiry.show.confront import confront
from cnnlab.inquiry.study import Study
from cnnlab.training import fit
from tests.helpers import SMALL_DATA, predicted, small_study

pytestmark = pytest.mark.usefixtures("light")

CLAIM = {
    "arm": "dropout=0.5",
    "metric": "loss/valid",
    "direction": "higher",
    "size": (0.01, 0.08),
    "confidence": 80,
    "because": "the network underfits here",
    "if_refuted": "it overfits already here",
}


@pytest.fixture
def study(small: Config) -> Study:
    return small_study("tiny-02-dropout", "?", small, (0, 1), {"dropout": (0.0, 0.5)})


# Names


@pytest.mark.parametrize(
    "name",
    ["../x", "..", ".", "%2e%2e", "a\0b", "a/b", "a\\b", "a:b", "", " a", "a.", "x" * 65, 5, "-rf", "CON", "nul.txt"],
)
def test_a_name_that_points_to_another_folder_is_refused_at_once(small: Config, name: Any) -> None:
    with pytest.raises(LabError, match="can't be the name of a study: use letters, digits") as refused:
        small_study(name, "?", small, (0, 1), {"dropout": (0.0, 0.5)})
    assert len(str(refused.value)) < 300


def test_owners_and_arms_follow_the_same_rule(small: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LabError, match="can't be the name of an arm"):
        small_study("x", "?", small, (0, 1), arms={"a/b": small}, control="a/b")
    for name in ("o" * 300, "../x", "\x1b[2J"):
        monkeypatch.setenv("CNNLAB_OWNER", name)
        with pytest.raises(LabError, match=r"can't be the name of an owner: .* Set CNNLAB_OWNER to one\."):
            owner()


@pytest.mark.parametrize("name", ["quick-02-dropout", "dropout=0.5, norm=batch", "Übung 3", "O'Brien", "a.b@c.org"])
def test_ordinary_names_are_fine(name: str) -> None:
    assert check_name("owner", name) == name


def test_the_owner_is_the_one_who_logs_in_unless_another_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
    monkeypatch.delenv("CNNLAB_OWNER", raising=False)
    assert owner() == "ada"
    monkeypatch.setenv("CNNLAB_OWNER", "grace")
    assert owner() == "grace"


# Predictions


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"arm": ["dropout=0.5"]}, r"arm=\['dropout=0.5'\] is not possible: it should be the name of an arm"),
        ({"arm": "", "trend": 5}, "trend=5 is not possible: it should be the name of a field"),
        ({"arm": "", "interaction": "x"}, "interaction='x' is not possible: it should be two changes"),
        ({"metric": None}, "metric=None is not possible: it should be what is measured"),
        ({"sesoi": "0.3"}, "sesoi='0.3' is not possible"),
        ({"confidence": "70"}, "confidence='70' is not possible: it should be how sure you are"),
        ({"because": 5}, "because=5 is not possible: it should be a sentence"),
        ({"sesoi": float("inf")}, "sesoi=inf is not possible"),
        ({"sesoi": 1e308}, "an effect of more than 100 nats is not possible"),
        ({"size": (0, 5000), "metric": "accuracy/valid"}, "an effect of more than 100 pp is not possible"),
        ({"at_least_sesoi": "False"}, "at_least_sesoi='False' is not possible: it should be True or False"),
        ({"size": {0: 1, 2: 3}}, r"size=\{0: 1, 2: 3\} is not possible: it should be two numbers"),
        ({"size": (1, float("nan"))}, "size"),
        ({"confidence": 0.75}, "Did you mean 75?"),
        ({"confidence": float("nan")}, "confidence=nan is not possible"),
        ({"confidense": 70}, "A prediction has no field 'confidense'; did you mean confidence?"),
    ],
)
def test_wrong_types_and_nonsense_get_one_sentence(home: Path, study: Study, changes: dict, hint: str) -> None:
    with pytest.raises(LabError, match=hint) as refused:
        predict(study, **(CLAIM | changes))
    assert "\n" not in str(refused.value)
    assert load_raw(connect()) == []


def test_a_missing_argument_is_named_with_what_it_should_be(home: Path, study: Study) -> None:
    for name in ("metric", "direction", "confidence", "because", "if_refuted"):
        with pytest.raises(LabError, match=f"{name} is missing: it should be"):
            predict(study, **{field: value for field, value in CLAIM.items() if field != name})


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda study: predict("dropout", **CLAIM), "predict: study is 'dropout', and should be a Study"),
        (lambda study: predict(study, store="x", **CLAIM), "predict: store is 'x', and should be a Store"),
        (lambda study: verdict("dropout"), "verdict: study is 'dropout', and should be a Study"),
        (lambda study: confront("x"), "confront: study is 'x', and should be a Study"),
        (lambda study: power(5), "power: study is 5, and should be a Study"),
        (lambda study: study.run(engine=5), "run_study: engine is 5, and should be a str or Engine"),
        (lambda study: fit(study, SMALL_DATA), "fit: config is .*, and should be a Config"),
        (lambda study: open_vault([study], "a reason is here"), "open_vault: arms is .*, and should be a dict"),
        (lambda study: dataclasses.replace(study, base=5), "base is 5, and should be a Config"),
        (lambda study: dataclasses.replace(study, question=5), "question is 5, and should be a str"),
        (lambda study: dataclasses.replace(study, vary=[1]), r"vary is \[1\], and should be a dict"),
        (lambda study: dataclasses.replace(study, roles=["x"]), "roles is .*, and should be a dict"),
        (lambda study: dataclasses.replace(study, data="fashion"), "data is of the kind str, and should be a Data"),
        (lambda study: my_seeds(-1), r"my_seeds\(-1, first=0\) is not possible: give 1 to 1,000 seeds"),
        (lambda study: my_seeds(99_999_999), "give 1 to 1,000 seeds, from 0 on"),
        (lambda study: my_seeds("5"), "give 1 to 1,000 seeds, from 0 on"),
        (lambda study: my_seeds(3, of=5), "5 can't be the name of an owner"),
    ],
)
def test_an_argument_of_another_kind_is_refused_in_one_sentence(
    home: Path, study: Study, call: Callable[[Study], object], said: str
) -> None:
    with pytest.raises(LabError, match=said):
        call(study)


def test_more_images_than_there_are_are_refused_before_anything_is_predicted(study: Study) -> None:
    with pytest.raises(
        LabError, match=r"02-dropout, dropout=0\.0: train_images=5000 is not possible: the data hold 640"
    ):
        dataclasses.replace(study, base=replace(study.base, train_images=5000), arms={})


def test_two_words_are_not_a_reason_but_three_are(home: Path, study: Study) -> None:
    with pytest.raises(LabError, match="is too short"):
        predict(study, **(CLAIM | {"because": "two words"}))
    assert predict(study, **(CLAIM | {"because": "there are three"})).claim.because == "there are three"


def test_an_unknown_study_is_answered_with_the_known_ones() -> None:
    studies = lab_studies(PROFILES["full"])
    with pytest.raises(LabError, match=r"there is no study 'dropout': did you mean '02-dropout'\? Otherwise choose"):
        studies["dropout"]


# Seeds


def test_seeds_follow_from_the_owner_and_the_shipped_ones_are_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CNNLAB_OWNER", "ada")
    ada = my_seeds(20)
    assert my_seeds(5) == ada[:5] and my_seeds(3, first=4) == ada[4:7]
    monkeypatch.setenv("CNNLAB_OWNER", "grace")
    assert not set(ada) & set(my_seeds(20)) and my_seeds(20, of="ada") == ada
    for name in ("reference", "example"):
        assert my_seeds(3, of=name) == (0, 1, 2) and my_seeds(2, first=100, of=name) == (100, 101)


def test_no_two_of_a_class_share_a_seed_and_all_fit_with_the_offset_of_the_a_a_test() -> None:
    seeds = [seed for student in range(100) for seed in my_seeds(10, of=f"student {student}")]
    assert len(set(seeds)) == len(seeds)
    assert all(seed >= 0 and seed + OFFSET < 2**32 for seed in seeds)


def test_every_profile_runs_with_the_seeds_of_its_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CNNLAB_OWNER", "ada")
    for profile in PROFILES.values():
        for study in lab_studies(profile).values():
            is_apart = study.name.endswith(("02-dropout-short", "02-dropout-long"))
            first = FIRST_OF_BEST if study.name == "06-best" else FIRST_OF_THEIR_OWN if is_apart else 0
            assert study.seeds == my_seeds(len(study.seeds), first)
            assert all(config.seed < 2**32 for _, _, config in study.runs())


@pytest.mark.parametrize("seeds", [(), (1, 1), (0.5,), ("0",), (True,), 5, range(10**9), (2**32,), (-1,)])
def test_impossible_seeds_are_refused_at_once(small: Config, seeds: Any) -> None:
    with pytest.raises(LabError, match="seeds"):
        small_study("x", "?", small, seeds, {"dropout": (0.0, 0.5)})


def test_bounds_of_the_command_line(home: Path) -> None:
    for arguments in (["run", "--seeds", "99999999"], ["plan", "--seeds", "0"]):
        found = CliRunner().invoke(cli, arguments)
        assert found.exit_code == 2 and "is not in the range 1<=x<=1000" in found.output
    with pytest.raises(LabError, match=r"seeds=99999999 is not possible: choose 1 to 1,000\."):
        find_profile("tiny", seeds=99_999_999)


# Experiments that were deleted or renamed in the UI


def test_a_deleted_experiment_is_reported_with_the_fix_and_never_restored_silently(home: Path, study: Study) -> None:
    store = connect()
    predicted(study).run(store, "here", progress=False)
    experiment = store.experiment_id(study.name)
    store.client.delete_experiment(experiment)
    back = rf"was deleted in the MLflow UI\. To restore it .*restore_experiment\('{experiment}'\)"
    for call in (
        lambda: study.run(store, progress=False),
        lambda: verdict(study, store),
        lambda: predict(study, store=store, **CLAIM),
        lambda: study.plan(store),
        lambda: study.results(store),
    ):
        with pytest.raises(LabError, match=back):
            call()
    assert store.client.get_experiment(experiment).lifecycle_stage == "deleted"
    store.client.restore_experiment(experiment)
    assert len(study.results(store)) == 4


def test_a_renamed_experiment_is_recognised(home: Path, study: Study) -> None:
    store = connect()
    predicted(study).run(store, "here", progress=False)
    store.client.rename_experiment(store.experiment_id(study.name), "my dropout")
    said = "the experiment tiny-02-dropout was renamed to 'my dropout' in the MLflow UI: rename it back"
    for call in (
        lambda: study.run(store, progress=False),
        lambda: verdict(study, store),
        lambda: predict(study, store=store, **CLAIM),
    ):
        with pytest.raises(LabError, match=said):
            call()
    ran = CliRunner().invoke(cli, ["verdict", "--profile", "tiny"])
    assert ran.exit_code == 1 and "was renamed to 'my dropout'" in str(ran.exception)
    store.client.rename_experiment(store.client.get_experiment_by_name("my dropout").experiment_id, study.name)
    assert verdict(study, store)[0].label == "confirmatory"


def test_a_renamed_experiment_without_runs_is_recognised_too(home: Path, study: Study) -> None:
    store = connect()
    predict(study, store=store, **CLAIM)
    store.client.rename_experiment(store.experiment_id(study.name), "my dropout")
    with pytest.raises(LabError, match="was renamed to 'my dropout'"):
        study.run(store, progress=False)


def test_a_run_that_ended_before_its_facts_locks_nothing(home: Path, study: Study) -> None:
    store = connect()
    predicted(study)
    carrier = Courier(store)
    RunLogger(carrier, study.name, study.base, "interrupted at once", {"owner": "a student"}).close("KILLED")
    carrier.close()
    assert len(study.run(store, "here", progress=False)) == 4


# Interrupts


CELL = """
import signal, threading, time, os
from cnnlab import BASE, Study, connect, predict, replace
study = Study("my-long", "?", replace(BASE, epochs=50), (0, 1), {"dropout": (0.0, 0.5)})
predict(study, arm="dropout=0.5", metric="loss/valid", direction="higher", size=(0.1, 1), confidence=60,
        because="this is a mechanism", if_refuted="it is not so")
threading.Timer(4, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
study.run(engine="here", progress=False)
"""


def test_interrupting_a_cell_ends_with_one_sentence(home: Path) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    NotebookClient(notebook, timeout=120, allow_errors=True).execute()
    (error,) = [output for output in notebook.cells[0].outputs if output.output_type == "error"]
    assert error.traceback == ["Stopped. What was measured is kept; study.run() continues from here."]
    (run,) = [run for run in load_raw(connect()) if run.kind == "run"]
    assert run.status == "KILLED"


# Records that were garbled


def test_a_record_that_cannot_be_read_is_left_out_and_reported(
    home: Path, study: Study, caplog: pytest.LogCaptureFixture
) -> None:
    import sqlite3
    from contextlib import closing

    predict(study, **CLAIM)
    with closing(sqlite3.connect(home / "mlflow.db")) as database, database:
        database.execute("UPDATE params SET value = 'sideways' WHERE key = 'direction'")
    with pytest.raises(LabError, match="tiny-02-dropout has no prediction to confront with its runs"):
        verdict(study)
    assert "left out: 1" in caplog.text and "its direction is 'sideways'" in caplog.text


def test_numbers_of_numpy_are_numbers(home: Path, study: Study) -> None:
    one = predict(study, **(CLAIM | {"size": [np.float64(0.01), 1], "confidence": np.float64(70)}))
    assert (one.claim.size, one.claim.confidence) == ((0.01, 1.0), 70.0)
    assert dataclasses.replace(study, seeds=[0, 1]).seeds == (0, 1)
    assert replace(study.base, lr=np.float64(0.02)).lr == 0.02
