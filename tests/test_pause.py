"""The pause works: a blank stops a prediction, the lab's words are recognized, and the student's are shown again."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest

from cnnlab.config import BASE, replace
from cnnlab.course.examples import EXAMPLES
from cnnlab.course.questions import QUESTIONS, quiz
from cnnlab.data import Data
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.judge.calibration import calibrate_records
from cnnlab.inquiry.judge.statistics import t_interval
from cnnlab.inquiry.judge.vault import open_vault
from cnnlab.inquiry.judge.verdict import Verdict
from cnnlab.inquiry.prediction import load_predictions, predict
from cnnlab.inquiry.record.connection import connect
from cnnlab.inquiry.record.ledger import load_records
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.show.conclusions import conclusions
from cnnlab.inquiry.show.confront import confront, given_back
from cnnlab.inquiry.show.logbook import reflect
from tests.helpers import settle, small_study, spare_figures

BLANK: Any = ...
SMALL = replace(BASE, blocks=((1, 8), (1, 8)), train_images=320, epochs=1, batch_size=32, lr=0.01)
STUDY = small_study("rates", "What does <dropout> change?", SMALL, (0, 1), {"dropout": (0.0, 0.5)})
OWN = {"because": "this is my mechanism", "if_refuted": "it was another one"}
CLAIM = {"arm": "dropout=0.5", "metric": "loss/valid", "direction": "higher", "confidence": 80, **OWN}


@pytest.fixture
def store(home: object) -> Store:
    return connect()


@pytest.mark.parametrize(
    ("blanks", "said"),
    [
        ({"direction": BLANK}, "still open: direction. .*'higher', 'lower' or 'none'"),
        ({"size": (BLANK, BLANK)}, "still open: size. .*two numbers, such as"),
        ({"size": (0.1, BLANK)}, "still open: size"),
        ({"confidence": BLANK, "because": BLANK}, "still open: confidence, because. .*50 .a coin. to 99.*mechanism"),
        (
            dict.fromkeys(["direction", "confidence", "because", "if_refuted"], BLANK),
            "direction, confidence, because, if",
        ),
    ],
)
def test_a_blank_is_refused_in_one_sentence_with_what_can_be_chosen(store: Store, blanks: dict, said: str) -> None:
    with pytest.raises(LabError, match=said):
        predict(STUDY, store=store, **(CLAIM | blanks))
    assert load_records(store) == []


def test_a_blank_reason_leaves_the_vault_shut(store: Store) -> None:
    with pytest.raises(LabError, match="still open: reason"):
        open_vault({"x": (STUDY, "dropout=0.5")}, BLANK, store)
    with pytest.raises(LabError, match="still open: arms, reason"):
        open_vault(BLANK, BLANK, store)


@pytest.mark.parametrize(("owner", "is_example"), [("a student", True), ("reference", False), ("example", False)])
def test_the_words_of_an_example_are_recorded_as_such(
    store: Store, monkeypatch: pytest.MonkeyPatch, owner: str, is_example: bool
) -> None:
    monkeypatch.setenv("CNNLAB_OWNER", owner)
    example = EXAMPLES["02-dropout"][0]
    words = {name: f" {example[name]} " for name in OWN}
    copied = predict(STUDY, store=store, **(CLAIM | {"size": (0.1, 0.2)} | words))
    own = predict(STUDY, store=store, **CLAIM)
    assert [one.is_example for one in load_predictions(store)] == [is_example, False]
    assert ("one of the lab's examples" in str(copied)) == is_example
    assert "one of the lab's examples" not in str(own)


@pytest.mark.parametrize("name", OWN)
def test_one_sentence_of_the_reference_is_enough_to_count_as_copied(
    store: Store, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("CNNLAB_OWNER", "reference")
    predict(STUDY, store=store, **CLAIM)
    monkeypatch.setenv("CNNLAB_OWNER", "a student")
    words = {one: f"a thought about {one} of my own" for one in OWN}
    predict(STUDY, store=store, **(CLAIM | words))
    predict(STUDY, store=store, **(CLAIM | words | {name: CLAIM[name]}))
    assert [one.is_example for one in load_predictions(store, owner="a student")] == [False, True]


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory, small_data: Data) -> Iterator[tuple[Store, Verdict, Verdict]]:
    """The verdicts on a prediction in the words of an example, and on one in the student's own words."""
    with pytest.MonkeyPatch.context() as patch:
        spare_figures(patch)
        settle(patch, tmp_path_factory.mktemp("my lab"))
        store = connect()
        words = {name: EXAMPLES["02-dropout"][0][name] for name in OWN}
        predict(STUDY, store=store, **(CLAIM | words))
        predict(STUDY, store=store, **(CLAIM | {"metric": "accuracy/valid"}))
        STUDY.run(store, progress=False)
        copied, own = confront(STUDY, store)
        yield store, copied, own


def test_a_verdict_on_an_example_counts_for_nobody(judged: tuple[Store, Verdict, Verdict]) -> None:
    store, copied, own = judged
    assert (copied.label, own.label) == ("example", "confirmatory")
    labels = calibrate_records(load_records(store)).table["label"]
    assert list(labels) == ["example", "confirmatory"]


def with_outcome(one: Verdict, outcome: Any, mean: float, size: tuple[float, float] | None = None) -> Verdict:
    claim = replace(one.prediction.claim, size=size)
    effect = t_interval(pd.Series([mean - 0.001, mean + 0.001]).to_numpy())
    return dataclasses.replace(
        one, outcome=outcome, effect=effect, prediction=dataclasses.replace(one.prediction, claim=claim)
    )


def test_your_own_words_are_shown_again_if_the_outcome_was_different(judged: tuple[Store, Verdict, Verdict]) -> None:
    one = judged[2]
    for outcome in ("refuted", "practically equivalent"):
        back = " ".join(given_back(with_outcome(one, outcome, -1)))
        assert 'You were 80 % sure, because: "this is my mechanism"' in back
        assert 'If refuted, you wanted to conclude: "it was another one" Do you?' in back
    missed = " ".join(given_back(with_outcome(one, "supported", 0.1, size=(1, 2))))
    assert "the size came out below the range by a factor of 10" in missed and '"this is my mechanism"' in missed
    for outcome, size in (("supported", (0.05, 2)), ("supported", None), ("inconclusive", (1, 2))):
        assert given_back(with_outcome(one, outcome, 0.1, size)) == []


def test_the_table_of_conclusions_has_a_row_per_study_from_the_record(judged: tuple[Store, Verdict, Verdict]) -> None:
    store, copied, own = judged
    other = small_study("not run", "?", SMALL, (0, 1), {"dropout": (0.0, 0.5)})
    table = conclusions([STUDY, other], store).table
    assert list(table.index) == ["rates"]
    row = table.loc["rates"]
    assert row["Question"] == STUDY.question and row["Why (your words)"] == "?"
    assert "loss/valid higher (80 %)" in row["Expected"] and "2. dropout=0.5 against" in row["Expected"]
    for verdict in (copied, own):
        assert verdict.effect and f"n = {verdict.effect.n}" in row["Found (95 % interval)"]
    assert "1 epoch of 320 images, 2 seeds" in row["What it does not show"]
    reflect(STUDY, why="it was chance and nothing else", store=store)
    again = conclusions([STUDY], store)
    assert again.table.loc["rates", "Why (your words)"] == "it was chance and nothing else"
    assert "What does &lt;dropout&gt; change?" in again._repr_html_()
    assert "no verdicts yet" in str(conclusions([other], store))


def test_a_question_is_shown_until_it_is_answered_and_then_explained() -> None:
    for section, question in QUESTIONS.items():
        shown = str(quiz(section, answer=BLANK))
        assert all(choice.text in shown for choice in question.choices.values())
        assert not any(choice.feedback in shown for choice in question.choices.values())
        said = {letter: str(quiz(section, answer=letter)) for letter in question.choices}
        assert [letter for letter in said if "Right." in said[letter]] == [question.right]
        assert all(question.choices[letter].feedback in text for letter, text in said.items())
    assert {question.right for question in QUESTIONS.values()} == {"a", "b", "c"}
    for call, sentence in (
        ({"section": "9", "answer": "a"}, "no question '9'"),
        ({"section": "1", "answer": "z"}, '"c"'),
    ):
        with pytest.raises(LabError, match=sentence):
            quiz(**call)
