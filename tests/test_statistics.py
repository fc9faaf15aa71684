"""Effects, intervals and powers, against independent calculations and by simulation."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.power import TTestPower
from statsmodels.stats.proportion import proportion_confint

from cnnlab.inquiry.judge.outcome import decide
from cnnlab.inquiry.judge.statistics import (
    MOST_SEEDS,
    compare_with_control,
    contrast_effect,
    crossed_interval,
    detectable,
    exact_interval,
    optimism,
    proportion_interval,
    seeds_in_words,
    seeds_to_exclude,
    seeds_to_show,
    t_interval,
)

ARM = {"control": -1.0, "arm": 1.0}
INTERACTION = {"neither": 1.0, "a": -1.0, "b": -1.0, "both": 1.0}


def draw(rng: np.random.Generator, n: int, sds: dict[str, float], block: float = 0.15) -> pd.DataFrame:
    """Draw values of n seeds in arms with these SDs and mean 0; `block` is the correlation of the arms of a seed."""
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


@pytest.mark.parametrize(("count", "n"), [(0, 4), (1, 6), (5, 5), (7, 40)])
def test_the_intervals_of_a_share_are_those_of_statsmodels(count: int, n: int) -> None:
    assert exact_interval(count, n) == pytest.approx(proportion_confint(count, n, method="beta"))
    assert proportion_interval(count, n) == pytest.approx(proportion_confint(count, n, method="wilson"), abs=1e-12)


def test_several_arms_have_their_own_spread_and_simultaneous_intervals() -> None:
    values = draw(np.random.default_rng(4), 8, {"control": 1.0, "a": 1.0, "b": 20.0})
    table = compare_with_control(values, "control", k=2)
    assert list(table.index) == ["a", "b"]
    pd.testing.assert_frame_equal(compare_with_control(values[["a", "control"]], "control", k=2), table.loc[["a"]])
    for arm in "ab":
        peer = stats.ttest_rel(values[arm], values["control"])
        interval = peer.confidence_interval(1 - 0.05 / 2)
        assert table.loc[arm, ["low", "high"]].tolist() == pytest.approx([interval.low, interval.high])
        assert table.loc[arm, "difference"] == pytest.approx(values[arm].mean() - values["control"].mean())


def test_simultaneous_intervals_cover_together_for_any_spreads() -> None:
    sds = {"control": 0.22, "a": 0.29, "b": 0.67, "c": 3.74}
    rng, together = np.random.default_rng(9), 0
    for _ in range(1_000):
        table = compare_with_control(draw(rng, 5, sds), "control", k=3)
        together += bool(((table["low"] <= 0) & (table["high"] >= 0)).all())
    assert 0.95 - 2 * np.sqrt(0.05 * 0.95 / 1_000) <= together / 1_000 <= 0.98


def test_an_arm_whose_differences_are_all_the_same_has_no_interval() -> None:
    values = pd.DataFrame({"control": [10.0, 10.0, 10.0], "fine": [84.0, 84.3, 84.1], "failed": [9.8, 9.8, 9.8]})
    table = compare_with_control(values, "control", k=2)
    assert table.loc["failed", "difference"] == pytest.approx(-0.2)
    assert table.loc["failed", ["low", "high"]].isna().all()
    assert table.loc["fine", "low"] > 70


def test_the_detectable_effect_is_detected_with_80_percent_power() -> None:
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


@pytest.mark.parametrize("sd", [0.2, 0.35, 0.5, 1.0, 2.0, 4.0])
def test_the_seeds_that_show_equivalence_have_the_exact_power(sd: float) -> None:
    """The lab's formula is an approximation that gives at most one seed too many."""
    n = seeds_to_exclude(1.0, sd)
    assert n
    assert power_of_equivalence(n, sd) >= 0.80 > power_of_equivalence(n - 2, sd)


def power_of_equivalence(n: int, sd: float) -> float:
    """Return P(the interval lies within -1 and 1) without an effect, over the distribution of the estimated SD."""
    if n < 2:
        return 0.0
    estimated = sd * np.sqrt(stats.chi2.ppf((np.arange(5_000) + 0.5) / 5_000, n - 1) / (n - 1))
    room = (1 - stats.t.ppf(0.975, n - 1) * estimated / np.sqrt(n)) * np.sqrt(n) / sd
    return float(np.mean(np.where(room > 0, 2 * stats.norm.cdf(room) - 1, 0)))


def test_the_power_grows_with_seeds_and_a_spread_of_zero_needs_two() -> None:
    assert detectable(1.0, 3) > detectable(1.0, 5) > detectable(1.0, 20)
    assert detectable(0.0, 3) == 0
    assert seeds_to_show(0.3, 0.0) == seeds_to_exclude(0.3, 0.0) == 2


def test_at_most_some_hundred_seeds_are_suggested_and_two_do_not_suffice_if_the_power_is_unknown() -> None:
    assert seeds_to_exclude(0.06, 0.28) == pytest.approx(231, abs=1)
    assert seeds_to_exclude(0.05, 0.28) is seeds_to_show(0.01, 0.28) is None
    assert seeds_in_words(26, 5) == seeds_in_words(26, 2) == "about 26 seeds"
    assert seeds_in_words(None, 4) == f"more than {MOST_SEEDS} seeds, so more seeds won't help"
    assert np.isnan(TTestPower().power(8.54708812559251, 2, 0.05))  # by SciPy's noncentral t
    assert seeds_to_show(8.54708812559251, 1.0) == 3


def test_a_spread_of_few_seeds_is_no_reason_to_stop() -> None:
    poor = f"more than {MOST_SEEDS} seeds, but 3 seeds are too few to know the spread: add some first"
    assert seeds_in_words(None, 3) == poor


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
    """4,000 simulated studies each: "supported" in at most 2.5 %, and the interval contains the truth in 95 %."""
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


def test_a_claim_of_no_difference_is_rarely_supported_if_the_effect_equals_the_limit() -> None:
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


# Intervals over seeds and images

EXAMPLE = np.array([[1.0, 3.0, 2.0, 6.0], [2.0, 5.0, 2.0, 8.0], [1.0, 4.0, 5.0, 6.0]])  # 3 seeds, 4 images


def mean_squares(values: np.ndarray) -> list[float]:
    """Return the mean squares of seeds, images and rest, by least squares."""
    long = pd.DataFrame(values).reset_index(names="seed").melt("seed", var_name="image", value_name="y")
    long["y"] = long["y"].astype(float)
    table = anova_lm(smf.ols("y ~ C(seed) + C(image)", long).fit())
    return (table["sum_sq"] / table["df"]).tolist()


def test_the_crossed_interval_follows_from_the_mean_squares_of_the_analysis_of_variance() -> None:
    """The means are 3, 4.25, 4 (seeds), 4/3, 4, 3, 20/3 (images), 3.75 (all): by hand, SS 3.5, 44.92 and 7.83."""
    seeds, images, rest = mean_squares(EXAMPLE)
    assert (seeds, images, rest) == pytest.approx((3.5 / 2, 44.9166667 / 3, 7.8333333 / 6))
    total = seeds + images - rest
    freedom = total**2 / (seeds**2 / 2 + images**2 / 3 + rest**2 / 6)
    half = stats.t.ppf(0.975, freedom) * np.sqrt(total / 12)
    assert crossed_interval(EXAMPLE) == pytest.approx((3.75 - half, 3.75 + half))


def test_if_images_have_no_effect_the_crossed_interval_is_that_of_the_seeds() -> None:
    alone = t_interval(np.array([0.0, 1.0, 2.0]))
    assert crossed_interval(np.repeat([[0.0], [1.0], [2.0]], 500, axis=1)) == pytest.approx((alone.low, alone.high))
    assert crossed_interval(np.full((3, 50), 2.0)) == (2.0, 2.0)
    balanced = EXAMPLE - EXAMPLE.mean(axis=0)  # all images have the same mean
    alone = t_interval(balanced.mean(axis=1))
    assert crossed_interval(balanced) == pytest.approx((alone.low, alone.high))


def test_if_the_terms_cancel_the_degrees_of_freedom_are_those_of_the_seeds() -> None:
    """Satterthwaite's would be 0.05 here, and the interval would be infinite."""
    rest = np.random.default_rng(1).standard_normal((3, 200))
    rest = rest - rest.mean(axis=0) - rest.mean(axis=1, keepdims=True) + rest.mean()
    images = np.random.default_rng(2).standard_normal(200)
    of_rest = (rest**2).sum() / (2 * 199)
    images = (images - images.mean()) / images.std(ddof=1) * np.sqrt(1.02 * of_rest / 3)  # MS_images = 1.02 MS_rest
    half = stats.t.ppf(0.975, 2) * np.sqrt(0.02 * of_rest / 600)
    assert crossed_interval(rest + images) == pytest.approx((-half, half))


def cross(rng: np.random.Generator, seeds: np.ndarray, n: int, of_images: float, of_rest: float) -> np.ndarray:
    """Draw values (S, n) of seeds with these effects, on n images."""
    shape = len(seeds), n
    return seeds[:, None] + of_images * rng.standard_normal((1, n)) + of_rest * rng.standard_normal(shape)


@pytest.mark.parametrize("n", [3, 10])
@pytest.mark.parametrize(("of_seeds", "of_images", "of_rest"), [(2, 0, 1), (0, 2, 1), (0.2, 2, 2), (0, 0.1, 4)])
def test_the_crossed_interval_always_covers(n: int, of_seeds: float, of_images: float, of_rest: float) -> None:
    rng, studies, covered = np.random.default_rng(n), 1_000, 0
    for _ in range(studies):
        low, high = crossed_interval(cross(rng, of_seeds * rng.standard_normal(n), 200, of_images, of_rest))
        covered += low <= 0 <= high
    assert covered / studies == pytest.approx(0.955, abs=0.0225)


@pytest.mark.parametrize(("of_seeds", "of_images", "of_rest"), [(1, 0, 1), (0, 2, 4), (0.1, 2, 2)])
def test_the_interval_of_validation_minus_test_covers(of_seeds: float, of_images: float, of_rest: float) -> None:
    """Effects that a seed has in both sets cancel out, and the images of both sets count."""
    rng, studies, covered = np.random.default_rng(7), 1_000, 0
    for _ in range(studies):
        common, own = 5 * rng.standard_normal(5), of_seeds * rng.standard_normal(5)
        valid = 0.5 + cross(rng, common + own, 150, of_images, of_rest)
        found = optimism(valid, cross(rng, common, 300, of_images, of_rest))
        covered += found.low <= 0.5 <= found.high
    assert covered / studies == pytest.approx(0.955, abs=0.0225)


def test_the_variance_of_validation_minus_test_counts_seeds_and_rest_once_and_the_images_of_both() -> None:
    valid, test = EXAMPLE, np.hstack([EXAMPLE[::-1], EXAMPLE + 0.5])[:, :7]
    by_seed = valid.mean(axis=1) - test.mean(axis=1)
    terms = [(by_seed.var(ddof=1) / 3, 2)]
    for values in (valid, test):
        (_, images, rest), (s, n) = mean_squares(values), values.shape
        terms += [(images / (s * n), n - 1), (-rest / (s * n), (s - 1) * (n - 1))]
    variance = sum(part for part, _ in terms)
    half = stats.t.ppf(0.975, variance**2 / sum(part**2 / df for part, df in terms)) * np.sqrt(variance)
    found = optimism(valid, test)
    assert (found.estimate, found.high) == pytest.approx((by_seed.mean(), by_seed.mean() + half))
    assert found.by_seed == pytest.approx(tuple(by_seed))
