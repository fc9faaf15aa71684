"""Conclusions from an interval: separate for direction and size, two kinds of inconclusive, and the seeds needed."""

import re

import numpy as np
import pytest
from statsmodels.stats.power import TTestPower

from cnnlab.config import BASE
from cnnlab.inquiry.claim import Claim
from cnnlab.inquiry.contrast import arm_contrast
from cnnlab.inquiry.judge.outcome import decide, in_range, meaning, outcome_in_words
from cnnlab.inquiry.judge.statistics import MOST_SEEDS, Effect, t_interval
from cnnlab.inquiry.prediction import Prediction
from cnnlab.inquiry.record.ledger import Record
from cnnlab.inquiry.study import Study

STUDY = Study("x", "?", BASE, range(5), {"dropout": (0.0, 0.5)})


def claimed(direction: str = "higher", metric: str = "accuracy/valid", **claim: object) -> Prediction:
    said = Claim(
        **{"arm": "dropout=0.5", "metric": metric, "direction": direction, "confidence": 80, **claim},
        because="this is a mechanism",
        if_refuted="it is not so",
    )
    return Prediction("x", arm_contrast(STUDY, "dropout=0.5"), said.filled("arm"), Record("", "x", {}, 0, False))


def effect(mean: float, sd: float, n: int = 5) -> Effect:
    """Return an effect with exactly this mean and SD over n seeds."""
    pattern = np.random.default_rng(n).normal(size=n)
    return t_interval(mean + sd * (pattern - pattern.mean()) / pattern.std(ddof=1))


def judged(p: Prediction, e: Effect) -> tuple[str, str]:
    outcome = decide(e, p.sign, p.sesoi, p.claim.at_least_sesoi)
    return outcome_in_words(p, outcome, e), " ".join(meaning(p, outcome, e))


SIZES = [  # direction, size, estimate (nats) -> in words
    ("higher", (0.5, 1), 0.033, "direction supported, size missed (below the range by a factor of 15)"),
    ("higher", (0.01, 0.02), 0.033, "direction supported, size missed (above the range by a factor of 1.7)"),
    ("higher", (0.04, 0.1), 0.033, "direction supported, size missed (a little below the range)"),
    ("lower", (0.03, 0.15), -0.033, "direction supported, size as predicted"),
    ("lower", (0.03, 0.15), 0.033, "refuted"),
    ("lower", None, -0.033, "direction supported"),
]


@pytest.mark.parametrize(("direction", "size", "estimate", "words"), SIZES)
def test_direction_and_size_are_two_claims(direction: str, size: tuple | None, estimate: float, words: str) -> None:
    p = claimed(direction, "loss/valid", size=size)
    assert judged(p, effect(estimate, 0.006))[0] == words
    assert in_range(p, effect(estimate, 0.006)) == (None if size is None else "as predicted" in words)


def test_a_missed_size_says_whether_the_interval_reaches_into_the_range() -> None:
    near, far = (judged(claimed("higher", "loss/valid", size=(low, 1)), effect(0.033, 0.006))[1] for low in (0.04, 0.5))
    assert "outside the predicted range, 0.04 to 1 nats, though the interval reaches into it." in near
    assert "outside the predicted range, 0.5 to 1 nats, and so does the whole interval." in far


def test_supported_below_what_matters_leaves_the_size_unclear() -> None:
    """20 seeds detect an effect of 0.25 pp, but it is below the smallest effect of interest, 0.3 pp."""
    words, said = judged(claimed(size=(0.1, 1)), effect(0.25, 0.2, n=20))
    assert words == "direction supported, size unclear"
    assert "Whether it is more than 0.30 pp, the smallest effect of interest, is unclear." in said
    assert "unclear" not in " ".join(judged(claimed(size=(0.1, 1)), effect(0.5, 0.2, n=20)))


def test_at_least_what_matters_is_a_claim_about_the_size() -> None:
    p = claimed(size=(0.3, 1), at_least_sesoi=True)
    assert judged(p, effect(0.5, 0.2, n=20)) == (
        "supported, size as predicted",
        "The effect is in the predicted direction, and more than the claimed 0.30 pp. The estimate lies in the "
        "predicted range, 0.3 to 1 pp.",
    )
    other_way = judged(p, effect(-0.5, 0.2, n=20))
    assert other_way == ("refuted", "The effect is smaller than the claimed 0.30 pp, or goes the other way.")
    assert judged(p, effect(0.1, 0.2, n=20))[0] == "practically equivalent (in the predicted direction)"
    assert judged(p, effect(0.3, 0.2, n=20))[0].startswith("inconclusive")


def test_a_difference_whose_size_cannot_be_told_is_a_difference() -> None:
    """-0.64 [-0.93, -0.35] pp from 5 seeds, against 0.5 pp: about 26 seeds would decide, if the estimate is right."""
    found = effect(-0.64, 0.2336)
    assert (found.low, found.high) == pytest.approx((-0.93, -0.35), abs=0.005)
    words, said = judged(claimed("none", sesoi=0.5), found)
    assert words == "inconclusive (a difference of unclear size)"
    assert said.startswith("There is a difference: the interval excludes 0. Whether it is more than 0.50 pp can't be")
    needed = int(re.search(r"about (\d+) seeds", said)[1])
    power = [TTestPower().power(0.14 / found.sd, n, 0.05) for n in (needed - 1, needed)]
    assert power[0] < 0.8 <= power[1]
    assert 24 <= needed <= 26


def test_runs_that_show_nothing_are_not_called_a_difference() -> None:
    said = judged(claimed(size=(1, 2)), effect(0.3, 1.0))[1]
    assert said.startswith("These runs can't tell whether there is a difference.")
    assert re.search(r"If there is none, .* showing that it is smaller than 0.30 pp takes about \d+ seeds.", said)


def test_a_suggested_number_of_seeds_is_larger_than_the_one_run_and_never_absurd() -> None:
    rng = np.random.default_rng(0)
    for _ in range(500):
        n = int(rng.integers(2, 40))
        p = claimed("none") if rng.random() < 0.5 else claimed("lower", at_least_sesoi=bool(rng.random() < 0.5))
        words, said = judged(p, effect(rng.normal(0, 0.5), rng.exponential(0.5) + 0.01, n))
        if words.startswith("inconclusive"):
            numbers = [int(text) for text in re.findall(r"about (\d+) seeds", said)]
            assert all(n < number <= MOST_SEEDS for number in numbers)
            others = "more seeds won't help", "add some first", "would probably have shown", "the estimate is"
            assert numbers or any(words in said for words in others)
            assert n >= 4 or "aren't the way" not in said


def test_an_estimate_right_at_what_matters_is_said_to_be_there_and_needs_no_number() -> None:
    words, said = judged(claimed("none"), effect(0.3, 0.05))
    assert words == "inconclusive (a difference of unclear size)"
    assert said == (
        "There is a difference: the interval excludes 0. Whether it is more than 0.30 pp can't be told with 5 seeds: "
        "the estimate is right at 0.30 pp, the smallest effect of interest."
    )
    assert "the estimate is close to 0.30 pp, the" in judged(claimed("none"), effect(0.27, 0.3, n=30))[1]


def test_the_spread_of_three_seeds_is_no_reason_to_stop() -> None:
    assert judged(claimed(), effect(1.0, 20.0, n=3))[1].endswith(
        "takes more than 300 seeds, but 3 seeds are too few to know the spread: add some first."
    )


NEGLIGIBLE = [  # direction, estimate, SD -> in words, what it means
    ("higher", 0.1, 0.05, " (in the predicted direction)", "The effect is in the predicted direction, and smaller"),
    ("lower", -0.1, 0.05, " (in the predicted direction)", "The effect is in the predicted direction, and smaller"),
    ("higher", -0.1, 0.05, " (against the predicted direction)", "The effect goes the other way, and is smaller"),
    ("lower", 0.1, 0.05, " (against the predicted direction)", "The effect goes the other way, and is smaller"),
    ("lower", 0.1, 0.1, "", "Whatever the effect is, it is smaller"),
]


@pytest.mark.parametrize(("direction", "estimate", "sd", "words", "said"), NEGLIGIBLE)
def test_a_negligible_effect_has_its_direction_said_where_the_interval_has_one(
    direction: str, estimate: float, sd: float, words: str, said: str
) -> None:
    """It counts as not supported, since a prediction of a direction claims an effect that matters."""
    p, e = claimed(direction), effect(estimate, sd)
    assert decide(e, p.sign, p.sesoi) == "practically equivalent"
    assert judged(p, e) == (f"practically equivalent{words}", f"{said} than what matters (0.30 pp).")


def test_more_seeds_are_not_suggested_if_hundreds_would_not_suffice() -> None:
    assert f"more than {MOST_SEEDS} seeds, so more seeds won't help." in judged(claimed(), effect(1.0, 20.0))[1]
