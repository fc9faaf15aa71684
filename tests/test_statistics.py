"""Effects, intervals and powers, against independent calculations and by simulation."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats
from statsmodels.stats.power import TTestPower

from cnnlab.inquiry.judge.outcome import decide
from cnnlab.inquiry.judge.statistics import (
    compare_with_control,
    contrast_effect,
    detectable,
    improvement,
    seeds_to_exclude,
    seeds_to_show,
    t_interval,
)

ARM = {"control": -1.0, "arm": 1.0}
INTERACTION = {"neither": 1.0, "a": -1.0, "b": -1.0, "both": 1.0}


def draw(rng: np.random.Generator, n: int, sds: dict[str, float], block: float = 0.15) -> pd.DataFrame:
    """Values of n seeds in arms with these SDs and mean 0; `block` is the correlation of the arms of a seed."""
    own, shared = rng.standard_normal((n, len(sds))), rng.standard_normal((n, 1))
    return pd.DataFrame((np.sqrt(1 - block) * own + np.sqrt(block) * shared) * list(sds.values()), columns=list(sds))


def test_one_arm_against_another_is_the_paired_t_test() -> None:
    values = draw(np.random.default_rng(1), 7, {"control": 1.0, "arm": 3.0})
    effect = contrast_effect(values, ARM)
    peer = stats.ttest_rel(values["arm"], values["control"])
    interval = peer.confidence_interval(0.95)
    assert effect.estimate == pytest.approx(values["arm"].mean() - values["control"].mean())
    assert (effect.low, effect.high) == pytest.approx((interval.low, interval.high))
    assert effect.n == 7


def test_a_trend_is_the_least_squares_line_over_the_levels_with_seeds_as_blocks() -> None:
    levels = np.array([0.0, 0.1, 0.3, 0.5])
    values = draw(np.random.default_rng(2), 6, {f"p{x}": 1.0 for x in levels})
    centred = levels - levels.mean()
    weights = dict(zip(values, centred / (centred**2).sum() * 0.5, strict=True))
    effect = contrast_effect(values, weights)
    values.columns = pd.Index(levels)
    long = values.reset_index(names="seed").melt("seed", var_name="level", value_name="y").astype(float)
    fit = smf.ols("y ~ level + C(seed)", long).fit()
    assert effect.estimate == pytest.approx(0.5 * fit.params["level"])
    # and its interval is that of the slopes fitted to each seed alone
    slopes = [0.5 * np.polyfit(levels, row, 1)[0] for row in values.to_numpy()]
    peer = stats.ttest_1samp(slopes, 0).confidence_interval(0.95)
    assert (effect.low, effect.high) == pytest.approx((peer.low, peer.high))


def test_an_interaction_is_that_of_the_linear_model() -> None:
    values = draw(np.random.default_rng(3), 5, dict.fromkeys(INTERACTION, 1.0))
    long = values.reset_index(names="seed").melt("seed", var_name="arm", value_name="y")
    long["a"], long["b"] = long["arm"].isin(["a", "both"]).astype(int), long["arm"].isin(["b", "both"]).astype(int)
    fit = smf.ols("y ~ a * b + C(seed)", long).fit()
    assert contrast_effect(values, INTERACTION).estimate == pytest.approx(fit.params["a:b"])


def test_the_share_of_wins_has_the_exact_binomial_interval() -> None:
    wins = improvement(np.array([0.1, 0.2, -0.1, 0.0, 0.3]))
    assert (wins.wins, wins.n) == (3, 5)
    # Clopper & Pearson through quantiles of the beta distribution
    assert wins.low == pytest.approx(stats.beta.ppf(0.025, 3, 3))
    assert wins.high == pytest.approx(stats.beta.ppf(0.975, 4, 2))
    assert improvement(np.array([1.0, 2.0])).high == 1.0


def test_several_arms_share_one_control_and_their_intervals_hold_together() -> None:
    """Dunnett's intervals of two arms are wider than each alone, and narrower than Bonferroni's."""
    values = draw(np.random.default_rng(4), 8, {"control": 1.0, "a": 1.0, "b": 1.0}, block=0.0)
    table = compare_with_control(values, "control")
    assert list(table.index) == ["a", "b"]
    assert table["difference"].tolist() == pytest.approx([values[x].mean() - values["control"].mean() for x in "ab"])
    pooled = np.sqrt(values.var().mean() * 2 / 8)
    half = (table["high"] - table["low"]) / 2
    assert (stats.t.ppf(0.975, 21) * pooled < half).all()
    assert (half < stats.t.ppf(1 - 0.05 / 4, 21) * pooled).all()
    assert compare_with_control(values, "control").equals(table)  # the integration is seeded


def test_an_arm_without_spread_is_compared_without_a_warning() -> None:
    """All runs of an arm that doesn't train end at chance; pytest turns a warning into an error."""
    values = pd.DataFrame({"control": [82.1, 82.4, 82.9], "fine": [84.0, 84.3, 84.1], "failed": [10.0, 10.0, 10.0]})
    table = compare_with_control(values, "control")
    assert table.loc["failed", "difference"] == pytest.approx(-72.466667)
    assert table.loc["failed", "high"] < -70


def test_the_detectable_effect_is_found_four_times_in_five() -> None:
    rng = np.random.default_rng(5)
    for n in (3, 5, 10):
        effect = detectable(0.7, n)
        found = [t_interval(row) for row in rng.normal(effect, 0.7, (8_000, n))]
        assert np.mean([e.low > 0 or e.high < 0 for e in found]) == pytest.approx(0.80, abs=0.015)


def test_the_seeds_needed_are_the_fewest_that_suffice() -> None:
    n = seeds_to_show(0.3, 0.28)
    assert n
    assert detectable(0.28, n) <= 0.3 < detectable(0.28, n - 1)
    assert seeds_to_show(1e-6, 1.0) is None
    rng = np.random.default_rng(6)
    n = seeds_to_exclude(0.3, 0.28)
    assert n
    power = [np.mean([inside(t_interval(row), 0.3) for row in rng.normal(0, 0.28, (6_000, k))]) for k in (n - 1, n)]
    assert power[1] == pytest.approx(0.80, abs=0.06)
    assert power[0] < power[1]


def inside(effect, margin: float) -> bool:
    return -margin < effect.low and effect.high < margin


def test_the_power_grows_with_seeds_and_a_spread_of_zero_needs_two() -> None:
    assert detectable(1.0, 3) > detectable(1.0, 5) > detectable(1.0, 20)
    assert detectable(0.0, 3) == 0
    assert seeds_to_show(0.3, 0.0) == seeds_to_exclude(0.3, 0.0) == 2


def test_thousands_of_seeds_are_said_up_to_the_limit_and_two_do_not_suffice_where_the_power_is_not_known() -> None:
    assert seeds_to_exclude(0.01, 0.28) == 8_240
    assert seeds_to_exclude(0.01, 0.5) is None
    assert np.isnan(TTestPower().power(8.54708812559251, 2, 0.05))  # by SciPy's noncentral t
    assert seeds_to_show(8.54708812559251, 1.0) == 3


SITUATIONS = [
    (n, sds, block, weights)
    for n, block in ((3, 0.0), (3, 0.15), (5, 0.15), (10, 0.5))
    for sds, weights in (
        ({"control": 1.0, "arm": 1.0}, ARM),
        ({"control": 0.24, "arm": 1.2}, ARM),
        ({"neither": 0.69, "a": 1.2, "b": 0.24, "both": 0.6}, INTERACTION),
    )
]


@pytest.mark.parametrize(("n", "sds", "block", "weights"), SITUATIONS)
def test_without_an_effect_supported_stays_at_its_rate_and_intervals_cover(
    n: int, sds: dict, block: float, weights: dict
) -> None:
    """4,000 simulated studies each: "supported" in at most 2.5 %, and the interval holds the truth in 95 %."""
    rng = np.random.default_rng(n)
    outcomes, covered = [], 0
    for _ in range(4_000):
        effect = contrast_effect(draw(rng, n, sds, block), weights)
        outcomes.append(decide(effect, sign=1, sesoi=0.3))
        covered += effect.low <= 0 <= effect.high
    error = 3 * np.sqrt(0.025 * 0.975 / 4_000)
    assert outcomes.count("supported") / 4_000 <= 0.025 + error
    assert outcomes.count("refuted") / 4_000 <= 0.025 + error
    assert covered / 4_000 == pytest.approx(0.95, abs=3 * np.sqrt(0.05 * 0.95 / 4_000))


def test_a_claim_of_no_difference_is_seldom_supported_where_there_is_just_that_difference() -> None:
    rng = np.random.default_rng(7)
    found = [decide(t_interval(row), 0, 0.3) for row in rng.normal(0.3, 0.1, (4_000, 5))]
    assert found.count("supported") / 4_000 <= 0.025 + 3 * np.sqrt(0.025 * 0.975 / 4_000)


@pytest.mark.parametrize(
    ("low", "high", "sign", "at_least", "outcome"),
    [
        (0.1, 0.9, 1, False, "supported"),
        (0.1, 0.9, -1, False, "refuted"),
        (-0.9, -0.1, -1, False, "supported"),
        (-0.9, -0.1, 1, False, "refuted"),
        (-0.1, 0.9, 1, False, "inconclusive"),
        (0.05, 0.2, 1, False, "practically equivalent"),
        (-0.2, 0.2, 1, False, "practically equivalent"),
        (0.1, 0.9, 1, True, "inconclusive"),
        (0.4, 0.9, 1, True, "supported"),
        (-0.6, 0.2, 1, True, "refuted"),
        (-0.9, -0.4, -1, True, "supported"),
        (-0.2, 0.2, 0, False, "supported"),
        (0.1, 0.9, 0, False, "inconclusive"),
        (0.4, 0.9, 0, False, "refuted"),
        (-0.9, -0.4, 0, False, "refuted"),
    ],
)
def test_the_outcome_follows_from_the_interval(
    low: float, high: float, sign: int, at_least: bool, outcome: str
) -> None:
    middle, half = (low + high) / 2, (high - low) / 2
    rows = np.array([-1.0, 0.0, 1.0]) * half * np.sqrt(3) / stats.t.ppf(0.975, 2) + middle
    effect = t_interval(rows)
    assert (effect.low, effect.high) == pytest.approx((low, high))
    assert decide(effect, sign, 0.3, at_least) == outcome
