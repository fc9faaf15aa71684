"""A prediction is checked, repeated as a sentence, recorded before the runs, and can't be changed without a trace."""

import dataclasses
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from cnnlab.config import Config, replace
from cnnlab.data import Data
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.judge.review import claim_of, labelled
from cnnlab.inquiry.prediction import Prediction, predict
from cnnlab.inquiry.record.connection import connect
from cnnlab.inquiry.record.ledger import START, Record, VerdictRecord, load_records
from cnnlab.inquiry.study import Study
from tests.helpers import small_study

pytestmark = pytest.mark.usefixtures("light")

CLAIM = {
    "metric": "loss/valid",
    "direction": "higher",
    "size": (0.01, 0.08),
    "confidence": 80,
    "because": "the network underfits,\nand dropout takes features away",
    "if_refuted": 'it overfits already: "regularise" more — même ici',
}


@pytest.fixture
def study(small: Config) -> Study:
    return small_study("tiny-02-dropout", "What does dropout change?", small, (0, 1), {"dropout": (0.0, 0.3, 0.5)})


@pytest.fixture
def grid(small: Config) -> Study:
    return small_study("tiny-04", "?", small, (0, 1), {"dropout": (0.0, 0.5), "norm": ("none", "batch")})


def test_a_prediction_is_repeated_in_one_sentence(home: Path, study: Study, grid: Study) -> None:
    assert predict(study, arm="dropout=0.5", **CLAIM).sentence() == (
        "dropout=0.5 against dropout=0.0: I am 80 % confident that the validation loss is higher (2 seeds; smallest "
        "effect of interest: 0.010 nats). If so, I am 80 % confident that it is higher by 0.01 to 0.08 nats."
    )
    least = predict(study, arm="dropout=0.5", at_least_sesoi=True, **CLAIM).sentence()
    assert "the validation loss is higher by at least 0.010 nats (2 seeds)." in least
    direction_alone = predict(study, arm="dropout=0.5", **(CLAIM | {"size": None})).sentence()
    assert direction_alone.endswith("is higher (2 seeds; smallest effect of interest: 0.010 nats).")
    trend = predict(study, trend="dropout", **CLAIM)
    assert "confident that the validation loss is higher at the end than at the beginning (2 seeds" in trend.sentence()
    none = predict(study, arm="dropout=0.3", **(CLAIM | {"direction": "none", "size": None, "sesoi": 0.02}))
    assert "differs by less than 0.020 nats (2 seeds)" in none.sentence()
    both = {"dropout": 0.5, "norm": "batch"}
    synergy = predict(grid, interaction=both, **(CLAIM | {"direction": "synergy"}))
    assert synergy.claim.direction == "lower"  # for a loss, lower is better
    assert "is lower than the two effects add up to, which is synergy" in synergy.sentence()
    assert synergy.contrast.weights == {
        "dropout=0.0, norm=none": 1.0,
        "dropout=0.0, norm=batch": -1.0,
        "dropout=0.5, norm=none": -1.0,
        "dropout=0.5, norm=batch": 1.0,
    }
    assert synergy.contrast.new == ("dropout=0.5, norm=batch",)


def test_a_claim_in_a_table_says_how_much_is_claimed_at_least(home: Path, study: Study) -> None:
    about = "dropout=0.5 against dropout=0.0: loss/valid higher"
    said = {"size": None} | {name: text for name, text in CLAIM.items() if name != "size"}
    for changes, claim in (
        ({"size": (0.01, 0.08)}, "by 0.01 to 0.08 nats"),
        ({"at_least_sesoi": True}, "by at least 0.01 nats"),
        ({"at_least_sesoi": True, "size": (0.01, 0.08)}, "by at least 0.01 nats (0.01 to 0.08 nats)"),
    ):
        record = predict(study, arm="dropout=0.5", **(said | changes)).record
        assert claim_of(record) == f"{about} {claim}"
    assert claim_of(predict(study, arm="dropout=0.5", **said).record) == about


def test_a_label_is_said_unless_it_is_confirmatory() -> None:
    for label, words in (("confirmatory", "refuted"), ("exploratory", "refuted, exploratory"), ("", "refuted")):
        verdicts = (VerdictRecord(1, {"label": label}),)
        assert labelled("refuted", Record("", "x", {}, 0, False, verdicts)) == words


def test_mlflow_returns_it_as_it_was_written(home: Path, study: Study) -> None:
    written = predict(study, arm="dropout=0.5", at_least_sesoi=True, builds_on="01-baseline", **CLAIM)
    (record,) = load_records(connect())
    assert Prediction.from_record(record) == written
    assert written.claim.because == CLAIM["because"]
    assert record.is_whole
    assert record.content["previous"] == START
    params = connect().client.get_run(record.run_id).data.params
    assert params == record.content
    assert params["because"] == CLAIM["because"]


def test_the_record_says_how_sure_the_range_is_and_what_a_failed_run_counts_as(home: Path, study: Study) -> None:
    content = predict(study, arm="dropout=0.5", **CLAIM).record.content
    assert (content["low"], content["high"], content["range_level"]) == ("0.01", "0.08", "80")
    assert content["failed_runs"] == "are counted, and not averaged"
    alone = predict(study, arm="dropout=0.5", **(CLAIM | {"size": None}))
    assert not {"low", "high", "range_level"} & set(alone.record.content)
    assert Prediction.from_record(load_records(connect())[1]) == alone


def test_an_older_record_says_no_more_than_its_author_did(home: Path, study: Study) -> None:
    made = predict(study, arm="dropout=0.5", **CLAIM)
    content = {name: text for name, text in made.record.content.items() if name not in ("range_level", "failed_runs")}
    old = Prediction.from_record(dataclasses.replace(made.record, content=content))
    assert old.claim == made.claim
    assert old.sentence().endswith("If so, by 0.01 to 0.08 nats.")
    assert made.counts_failures and not old.counts_failures


def test_the_same_call_again_writes_nothing_and_a_change_of_mind_is_a_new_record(home: Path, study: Study) -> None:
    first = predict(study, arm="dropout=0.5", **CLAIM)
    assert predict(study, arm="dropout=0.5", **CLAIM) == first
    second = predict(study, arm="dropout=0.5", **(CLAIM | {"confidence": 60}))
    records = load_records(connect())
    assert [record.content["confidence"] for record in records] == ["80", "60"]
    assert second.record and first.record
    assert second.record.content["previous"] == first.record.sha256
    # and the first claim again is a third one: each is a separate record
    predict(study, arm="dropout=0.5", **CLAIM)
    assert len(load_records(connect())) == 3


def test_a_record_cannot_be_rewritten_through_mlflow(home: Path, study: Study) -> None:
    record = predict(study, arm="dropout=0.5", **CLAIM).record
    assert record
    with pytest.raises(MlflowException, match="Changing param values is not allowed"):
        connect().client.log_param(record.run_id, "direction", "lower")


def test_a_record_rewritten_in_the_database_shows(home: Path, study: Study) -> None:
    predict(study, arm="dropout=0.5", **CLAIM)
    with closing(sqlite3.connect(home / "mlflow.db")) as database, database:
        database.execute("UPDATE params SET value = 'lower' WHERE key = 'direction'")
    (record,) = load_records(connect())
    assert not record.is_whole


def test_a_deleted_prediction_stays_in_the_chain(home: Path, study: Study) -> None:
    store = connect()
    first = predict(study, arm="dropout=0.5", **CLAIM)
    assert first.record
    store.client.delete_run(first.record.run_id)
    second = predict(study, arm="dropout=0.5", **CLAIM)
    assert second.record
    assert second.record.content["previous"] == first.record.sha256
    assert [record.deleted for record in load_records(store)] == [True, False]


def test_every_owner_has_a_separate_chain(home: Path, study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    predict(study, arm="dropout=0.5", **CLAIM)
    monkeypatch.setenv("CNNLAB_OWNER", "O'Brien")
    other = predict(study, arm="dropout=0.5", **CLAIM)
    assert other.record
    assert other.record.content["previous"] == START
    assert len(load_records(connect(), owner="O'Brien")) == 1
    assert len(load_records(connect())) == 2


def test_a_study_is_not_run_before_something_was_predicted(
    home: Path, study: Study, small_data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = connect()
    with pytest.raises(LabError, match=r"nothing is trained before you have predicted.*predict\(study, arm='dropout="):
        study.run(store, progress=False)
    predict(study, arm="dropout=0.5", **CLAIM)
    # of other arms than those that would run
    longer = dataclasses.replace(study, base=replace(study.base, epochs=3), arms={}, vary=study.vary, control="")
    with pytest.raises(LabError, match=r"its arm dropout=0.0 was changed \(epochs 2 -> 3\)\. Predict again"):
        longer.run(store, progress=False)
    # of somebody else
    monkeypatch.setenv("CNNLAB_OWNER", "another student")
    with pytest.raises(LabError, match="nothing is trained before you have predicted"):
        study.run(store, progress=False)
    assert store.client.search_runs([store.experiment_id(study.name)], "tags.kind = 'run'") == []


def test_a_deleted_prediction_does_not_allow_runs(home: Path, study: Study, small_data: Data) -> None:
    store = connect()
    prediction = predict(study, arm="dropout=0.5", **CLAIM)
    assert prediction.record
    store.client.delete_run(prediction.record.run_id)
    with pytest.raises(LabError, match="nothing is trained before you have predicted"):
        study.run(store, progress=False)


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"arm": "dropout=0.4"}, "has no arm 'dropout=0.4': choose from dropout=0.0, dropout=0.3, dropout=0.5"),
        ({"arm": "dropout=0.0"}, "is the control itself: choose another arm"),
        ({"arm": "dropout=0.5", "trend": "dropout"}, "one of three"),
        ({"arm": ""}, "one of three"),
        ({"arm": "", "trend": "norm"}, "needs three or more arms"),
        ({"arm": "", "trend": "dropout", "against": "dropout=0.3"}, "goes with arm"),
        ({"arm": "", "interaction": {"dropout": 0.5}}, "name two fields"),
        ({"arm": "", "interaction": {"dropout": 0.5, "norm": "batch"}}, "no arm that is the control with norm=batch"),
        ({"arm": "", "interaction": {"dropout": 0.5, "nrom": "batch"}}, "did you mean norm"),
        ({"metric": "accuracy"}, "did you mean 'accuracy/valid'"),
        ({"metric": "speed"}, "choose from accuracy/valid, loss/valid"),
        ({"direction": "better"}, "choose higher, lower, none"),
        ({"direction": "synergy"}, "choose higher, lower, none"),
        ({"size": 3}, "size=3 is not possible: it should be two numbers"),
        ({"size": (-3, -1)}, "both positive"),
        ({"size": (3, 1)}, "the smallest and the largest"),
        ({"direction": "none"}, "no difference has no size"),
        ({"sesoi": 0}, "more than 0"),
        ({"sesoi": 0.08}, r"size=\(0.01, 0.08\) doesn't reach beyond the smallest effect of interest, 0.08 nats: an"),
        ({"at_least_sesoi": True, "sesoi": 0.02}, r"size=\(0.01, 0.08\) begins below the smallest effect of interest"),
        ({"at_least_sesoi": True, "size": None, "direction": "none"}, "at_least_sesoi needs a direction"),
        ({"confidence": 30}, "from 50 .a coin. to 99"),
        ({"confidence": 100}, "from 50 .a coin. to 99"),
        ({"because": "  "}, "because='  ' is too short: describe the mechanism you have in mind in a sentence"),
        ({"if_refuted": "dunno"}, "what you learn if it turns out otherwise"),
        ({"because": "very long " * 700}, "because is too long for MLflow: 6,999 characters"),
    ],
)
def test_an_impossible_prediction_is_refused_in_one_sentence(
    home: Path, study: Study, changes: dict, hint: str
) -> None:
    with pytest.raises(LabError, match=hint):
        predict(study, **({"arm": "dropout=0.5"} | CLAIM | changes))
    assert load_records(connect()) == []


def test_without_repetition_or_without_a_second_arm_there_is_nothing_to_predict(home: Path, small: Config) -> None:
    with pytest.raises(LabError, match="has one seed, and a verdict needs repetition"):
        predict(small_study("x", "?", small, (0,), {"dropout": (0.0, 0.5)}), arm="dropout=0.5", **CLAIM)
    with pytest.raises(LabError, match="has only one arm: add another"):
        predict(small_study("x", "?", small, (0, 1)), arm="baseline", **CLAIM)


def test_arms_that_differ_only_in_a_nuisance_cannot_be_predicted_about(home: Path, small: Config) -> None:
    study = small_study("x", "?", small, (0, 1), {"lr": (0.01, 0.1)}, roles={"lr": "nuisance"})
    with pytest.raises(LabError, match="differ only in lr, which x calls a nuisance"):
        predict(study, arm="lr=0.1", **CLAIM)
    a_a = small_study("x", "?", small, (0, 1), arms={"A": small, "A again": replace(small, seed=1000)})
    assert predict(a_a, arm="A again", **CLAIM).contrast.nuisances == ("seed",)


def test_how_much_is_trained_differs_only_if_the_study_declares_it(small: Config) -> None:
    arms = {"single": small, "both, longer": replace(small, norm="batch", epochs=4)}
    with pytest.raises(LabError, match=r"the arms differ in epochs\. If that is the question"):
        small_study("x", "?", small, (0, 1), arms=arms)
    said = small_study("x", "?", small, (0, 1), arms=arms, roles={"epochs": "scientific"})
    assert said.role("scientific") == ["norm", "epochs"]
