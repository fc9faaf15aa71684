"""Learning rates: the range that works, and each norm at its own best rate, against numbers computed by hand."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cnnlab.config import BASE
from cnnlab.course.rates import _width, compare_rates
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.study import Study

RATES = (0.001, 0.01, 0.1)
STUDY = Study("rates", "?", BASE, (0, 1, 2), {"norm": ("none", "batch"), "lr": (*RATES, BASE.lr)})
ACCURACY = {  # by norm and rate, one per seed
    ("none", 0.001): (0.70, 0.71, 0.70),
    ("none", 0.006): (0.805, 0.80, 0.801),
    ("none", 0.01): (0.81, 0.805, 0.81),
    ("none", 0.1): (0.10, 0.10, 0.10),
    ("batch", 0.001): (0.85, 0.84, 0.86),
    ("batch", 0.006): (0.860, 0.856, 0.865),
    ("batch", 0.01): (0.859, 0.855, 0.866),
    ("batch", 0.1): (0.70, 0.852, 0.71),
}


def runs_of(study: Study) -> pd.DataFrame:
    rows = [
        {"arm": arm, "seed": seed, "config": config, "accuracy/valid": ACCURACY[config.norm, config.lr][seed]}
        for arm, seed, config in study.runs()
    ]
    return pd.DataFrame(rows).assign(**{"fact.outcome": "finished"})


@pytest.mark.parametrize(
    ("accuracies", "width"),
    [
        ((80, 90, 89.5, 70), 10),
        ((89.1, 90, 89.5, 89), 1000),
        ((89.5, 80, 90, 89.5), 10),  # what lies beyond a gap doesn't count
        ((90, 80, 70, 60), 1),
        ((0, 0, 0, 90), 1),
    ],
)
def test_the_range_that_works_is_around_the_best_rate(accuracies: tuple, width: float) -> None:
    assert math.isclose(10 ** _width(pd.Series(accuracies, index=[0.01, 0.1, 1.0, 10.0])), width)


def test_the_table_agrees_with_a_calculation_by_hand() -> None:
    found = compare_rates(STUDY, runs_of(STUDY))
    assert list(found.table["best rate"]) == ["0.01", "0.006"]
    assert list(found.table["accuracy there (%)"]) == ["80.83", "86.03"]
    assert not any("edge" in sentence for sentence in found.sentences)
    narrow, wide = found.table["range that works (highest / lowest)"]
    # none: 0.006 and 0.01 work in every seed; batch: from 0.001 in two seeds, up to 0.1 in one of the seeds
    assert narrow == "1.67 (the same for all 3 seeds)"
    logs = np.log10([10, 100 / 6, 10])
    e = stats.t.interval(0.95, 2, logs.mean(), stats.sem(logs))
    assert wide == f"{10 ** logs.mean():.3g} (95 % interval [{10 ** e[0]:.3g}, {10 ** e[1]:.3g}], n = 3 seeds)"
    gains = np.array([86.0 - 81.0, 85.6 - 80.5, 86.5 - 81.0])
    low, high = stats.t.interval(0.95, 2, gains.mean(), stats.sem(gains))
    assert f"batch - none: {gains.mean():+.2f} pp, 95 % interval [{low:+.2f}, {high:+.2f}] pp, n = 3" in str(found)


def test_a_range_is_never_narrower_than_a_single_rate() -> None:
    """The interval of the mean logarithm may reach below 0, but a range can't be below 1; the ratio of two can."""
    runs = runs_of(STUDY)
    at = [config.norm == "none" and config.lr == 0.006 for config in runs["config"]]
    runs.loc[pd.Series(at) & runs["seed"].lt(2), "accuracy/valid"] = 0.5  # then 0.01 works alone in two seeds
    found = compare_rates(STUDY, runs)
    assert "(95 % interval [1, " in found.table["range that works (highest / lowest)"].iloc[0]
    assert "Range of batch / range of none: 10 (95 % interval [2.81, 35.6], n = 3 seeds)." in found.sentences


def test_a_run_that_failed_does_not_work() -> None:
    runs = runs_of(STUDY)
    at_best = runs["arm"].eq("norm=none, lr=0.01") & runs["seed"].eq(0)
    runs["fact.outcome"] = runs["fact.outcome"].mask(at_best, "diverged at step 9")
    assert "the same for all" not in compare_rates(STUDY, runs).table.loc["none"].iloc[-1]


def test_other_studies_and_missing_runs_are_refused() -> None:
    with pytest.raises(LabError, match="runs of rates are missing"):
        compare_rates(STUDY, runs_of(STUDY)[:-1])
    with pytest.raises(LabError, match="doesn't vary norm and lr"):
        compare_rates(Study("x", "?", BASE, (0, 1), {"norm": ("none", "batch")}), runs_of(STUDY))


def test_a_best_rate_at_the_edge_is_named() -> None:
    study = Study("rates", "?", BASE, (0, 1, 2), {"norm": ("none", "batch"), "lr": (0.001, 0.006, 0.01)})
    assert (
        "Best at the edge of the rates that were tried, so a rate beyond it may be better: none."
        in compare_rates(study, runs_of(study)).sentences
    )
