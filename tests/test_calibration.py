"""Calibration counts what was predicted and decided, and nothing else."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest

from cnnlab.config import BASE, replace
from cnnlab.data import Data
from cnnlab.inquiry.claim import Claim
from cnnlab.inquiry.judge.calibration import Calibration, calibrate_records, interval_score
from cnnlab.inquiry.judge.verdict import Verdict, judge, note, to_content
from cnnlab.inquiry.prediction import predict
from cnnlab.inquiry.record.connection import connect
from cnnlab.inquiry.record.ledger import load_records, record_verdict
from tests.helpers import settle, small_study, spare_figures

SMALL = replace(BASE, blocks=((1, 8), (1, 8)), train_images=320, epochs=2, batch_size=32, lr=0.01)
STUDY = small_study("tiny-02-dropout", "?", SMALL, (0, 1, 2), {"dropout": (0.0, 0.5)})
CONTROL, ARM = STUDY.arms
WORDS = {"because": "this is a mechanism", "if_refuted": "it is not so"}
# metric, size, confidence, effect of each seed (in the metric's own unit), runs known before -> outcome, in size range
CASES = [
    ("accuracy/valid", (1, 3), 80, (0.019, 0.020, 0.021), [], "supported", True),
    ("loss/valid", (0.1, 0.3), 90, (-0.19, -0.20, -0.21), [], "refuted", False),
    ("gap/loss", (0.001, 0.1), 60, (0.0019, 0.002, 0.0021), [], "practically equivalent", True),
    ("accuracy/train_eval", (5, 9), 95, (0.02, -0.02, 0.01), [], "inconclusive", False),
    ("loss/train_eval", (0.1, 0.3), 99, (-0.19, -0.20, -0.21), ["a run"], "refuted", False),
    ("gap/train_mode", (0.1, 0.3), 99, (0.2, 0.2, 0.2), [], "withheld", None),
]


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory, small_data: Data) -> Iterator[list[Verdict]]:
    """Recorded verdicts on real predictions and runs, with the numbers of `CASES`."""
    with pytest.MonkeyPatch.context() as patch:
        spare_figures(patch)
        settle(patch, tmp_path_factory.mktemp("my lab"))
        store = connect()
        predictions = [
            predict(STUDY, arm=ARM, metric=metric, direction="higher", size=size, confidence=confidence, **WORDS)
            for metric, size, confidence, *_ in CASES
        ]
        runs = STUDY.run(store, progress=False)
        found = []
        for prediction, (metric, _, _, effects, known, *_) in zip(predictions, CASES, strict=True):
            one = judge(prediction, STUDY, with_effects(runs, metric, effects), known)
            assert prediction.record
            record_verdict(store, prediction.record, to_content(one), note(one))
            found.append(one)
        yield found


def with_effects(runs: pd.DataFrame, metric: str, effects: tuple[float, ...]) -> pd.DataFrame:
    runs = runs.copy()
    runs.loc[runs["arm"] == CONTROL, metric] = 0.5
    runs.loc[runs["arm"] == ARM, metric] = [0.5 + effect for effect in effects]
    return runs


@pytest.fixture
def found(verdicts: list[Verdict]) -> Calibration:
    return calibrate_records(load_records(connect()))


def test_the_cases_have_their_outcomes(found: Calibration) -> None:
    assert list(found.table["outcome"]) == [case[-2] for case in CASES]
    assert list(found.table["in_size_range"]) == [case[-1] for case in CASES]
    assert list(found.table["label"]) == ["confirmatory"] * 4 + ["exploratory", "confirmatory"]


def test_the_brier_score_is_that_of_the_decided_confirmatory_ones(found: Calibration) -> None:
    assert len(found.decided) == 3
    assert found.brier == pytest.approx(((0.8 - 1) ** 2 + (0.9 - 0) ** 2 + (0.6 - 0) ** 2) / 3)


def test_the_other_score_counts_inconclusive_ones_as_not_supported(found: Calibration) -> None:
    assert found.inconclusive == 1
    assert found.brier_of_all == pytest.approx((0.2**2 + 0.9**2 + 0.6**2 + 0.95**2) / 4)


def test_the_size_counts_where_it_was_predicted_and_measured(found: Calibration) -> None:
    assert found.coverage == (1, 1)  # a range is claimed only in case the direction is right


@pytest.mark.parametrize(
    ("low", "high", "value", "score"),
    [
        (1, 3, 2, 2),  # the width
        (1, 3, 3, 2),
        (1, 3, 3.5, 7),  # 2 + 10 x 0.5
        (1, 3, 0, 12),  # 2 + 10 x 1
        (0, 100, 2, 100),  # contains everything, and says nothing
    ],
)
def test_the_interval_score_is_the_width_and_ten_times_the_miss(
    low: float, high: float, value: float, score: float
) -> None:
    """Gneiting & Raftery 2007, equation 43, with alpha = 0.2."""
    assert interval_score(low, high, value) == pytest.approx(score)


def test_the_interval_score_is_lowest_for_the_central_range_of_the_effects() -> None:
    values = np.random.default_rng(1).normal(2, 1, 20_000)
    mean = {half: np.mean([interval_score(2 - half, 2 + half, value) for value in values]) for half in (0.8, 1.28, 2.5)}
    assert min(mean, key=lambda half: mean[half]) == 1.28  # the 10 and 90 % quantiles


def test_the_ranges_of_supported_predictions_are_scored_in_units_of_what_matters(found: Calibration) -> None:
    """The cases are (1, 3) pp for +2 pp, (0.1, 0.3) nats for -0.2, (0.001, 0.1) for +0.002, (5, 9) for 0.33, etc."""
    by_hand = [2 / 0.3, (0.2 + 10 * 0.3) / 0.01, 0.099 / 0.01, (4 + 10 * (5 - 1 / 3)) / 0.3, 3.2 / 0.01, np.nan]
    assert found.table["interval_score"].tolist() == pytest.approx(by_hand, nan_ok=True)
    assert found.interval_score == pytest.approx(2 / 0.3)  # of the one that is confirmatory and supported


def test_a_claim_of_a_direction_fails_where_the_effect_is_negligible(found: Calibration) -> None:
    """Confidence is about a difference that isn't negligible, as `predict` says."""
    equivalent = found.table["outcome"] == "practically equivalent"
    assert not found.decided.loc[equivalent[equivalent].index, "supported"].any()
    said = Claim.model_fields["confidence"].description
    assert said and said.startswith("how sure you are of a difference in this direction that isn't negligible")


def test_a_surprise_was_held_with_confidence_and_turned_out_wrong(found: Calibration) -> None:
    assert list(found.surprises["confidence"]) == [90]  # at 60 % nobody is surprised, and exploring isn't predicting


def test_the_sentence_gives_every_n(found: Calibration) -> None:
    assert found.sentence() == (
        "6 predictions; 3 decided by a confirmatory verdict: 1 supported, at a mean confidence of 77 %. Brier score "
        "0.40 (n = 3; 0 is perfect, 0.25 is what always saying 50 % gets). With 1 inconclusive verdict "
        "counted as not supported, it is 0.53 (n = 4). Sizes: the estimate lies in 1 of 1 range; it should do so in "
        "80 %. Mean interval score 6.7 times the smallest effect of interest (lower is better). "
        "Wrong despite a confidence of 75 % or more: 1."
    )


def test_only_the_last_verdict_on_a_prediction_counts(verdicts: list[Verdict]) -> None:
    store = connect()
    record = load_records(store)[0]
    content = to_content(verdicts[0]) | {"outcome": "refuted"}
    record_verdict(store, record, content, "another")
    try:
        again = calibrate_records(load_records(store))
        assert len(again.table) == 6
        assert again.table["outcome"].iloc[0] == "refuted"
    finally:
        record_verdict(store, record, to_content(verdicts[0]), note(verdicts[0]))


def test_without_verdicts_there_is_nothing_to_score() -> None:
    nothing = calibrate_records([])
    assert nothing.brier != nothing.brier
    assert nothing.coverage == (0, 0)
    assert nothing.surprises.empty
    assert str(nothing) == "0 predictions, none decided by a confirmatory verdict yet."


def test_it_is_shown_as_text_and_in_a_notebook_whatever_is_missing(
    found: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert found.table["in_size_range"].isna().any()  # the withheld one has no estimate
    for shown in (str(found), found._repr_html_()):
        assert "practically equivalent" in shown and "Brier score" in shown
