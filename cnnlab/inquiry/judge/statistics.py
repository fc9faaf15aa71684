"""Effects over seeds with their intervals, and how many seeds it takes to detect one.

Every contrast is computed seed by seed: one number per seed, the weighted sum over its arms, and Student's t over
these numbers. All arms of a seed share their random numbers, so a seed is a block (Box, Hunter & Hunter 2005,
Statistics for Experimenters, chapter 4). This requires neither equal variances nor independence between arms, only that
the numbers of different seeds are independent and roughly normal. Welch's interval, from the means of the arms, detects
smaller effects with three seeds, but its rate of false "supported" exceeds the stated one if the spreads of the arms
differ; benchmarks/results/estimators.md has both.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.power import TTestPower

LEVEL = 0.95  # of all intervals
POWER = 0.80  # the probability with which an effect should be detected
MOST_SEEDS = 300  # more seeds than that are never advised
FEW_SEEDS = 4  # with fewer, the spread is too uncertain to advise against more seeds
SAME = 1e-9  # a smaller SD is rounding: the weights of a trend add up to zero only approximately


@dataclass(frozen=True)
class Effect:
    """The estimate of a contrast over n seeds, with its interval, in the metric's unit; sd is that of one seed's
    effect."""

    estimate: float
    low: float
    high: float
    sd: float
    n: int
    by_seed: tuple[float, ...]


def contrast_effect(values: pd.DataFrame, weights: Mapping[str, float]) -> Effect:
    """Return the effect of a contrast: mean over the seeds of sum over arms (weight x value), with its t-interval.

    `values` has one row per seed (n >= 2) and one column per arm, in the metric's unit. The interval is
    mean +- t(n - 1) x SD / sqrt(n) of the seeds' effects (Student 1908; paired samples).
    """
    by_seed = values[list(weights)].to_numpy() @ np.array(list(weights.values()))
    return t_interval(by_seed)


def t_interval(by_seed: np.ndarray, level: float = LEVEL) -> Effect:
    """Return mean and t-interval of n >= 2 independent numbers."""
    n = len(by_seed)
    mean, sd = float(np.mean(by_seed)), float(np.std(by_seed, ddof=1))
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * sd / math.sqrt(n)
    return Effect(mean, mean - half, mean + half, sd, n, tuple(by_seed.tolist()))


def crossed_interval(values: np.ndarray) -> tuple[float, float]:
    """Return the interval of the mean of values (S, N) over both seeds and images, each a sample from many more.

    S >= 2 seeds, N >= 2 images, every seed with every image; float, in the unit of the values. With the mean squares
    (MS) of a two-way analysis of variance, the variance of the mean is (MS_seeds + MS_images - MS_rest) / (S N)
    (Searle, Casella & McCulloch 1992, Variance Components, chapter 4); see `_over_images` for what follows from it.
    With two seeds it is too wide: it covers in up to 98 % instead of 95 % (benchmarks/results/estimators.md).
    """
    effect = _over_images(values.mean(axis=1), values)
    return effect.low, effect.high


def optimism(valid: np.ndarray, test: np.ndarray) -> Effect:
    """Return how far a mean over seeds and validation images (S, N) is above that over test images (S, M).

    Both come from the same S >= 2 seeds, in the same order. The interval, in the unit of the values, is over seeds and
    both samples of images; see `_over_images`.
    """
    return _over_images(valid.mean(axis=1) - test.mean(axis=1), valid, test)


def _over_images(by_seed: np.ndarray, *samples: np.ndarray) -> Effect:
    """Return the mean of one number per seed, with its interval over the seeds and over samples of images, each (S, N).

    The variance is that of the mean over the seeds, which includes the residual, plus (MS_images - MS_rest) / (S N) of
    each sample if that is positive. Its degrees of freedom are those of Satterthwaite 1946, Biometrics Bulletin 2.
    They are too many if few seeds make up nearly all of the variance, so the interval is never narrower than that over
    the seeds alone; and too few if the terms cancel, so they are never fewer than those of the seeds.
    benchmarks/results/estimators.md has its coverage.
    """
    alone = t_interval(by_seed)
    seeds = alone.n
    terms = [(alone.sd**2 / seeds, seeds - 1)]  # parts of the variance, with their degrees of freedom
    for values in samples:
        images, cells = values.shape[1], values.size
        columns = values.mean(axis=0)
        rest = values - columns - values.mean(axis=1, keepdims=True) + values.mean()
        of_images = float(columns.var(ddof=1)) / images
        of_rest = float((rest**2).sum()) / ((seeds - 1) * (images - 1) * cells)
        if of_images > of_rest:
            terms += [(of_images, images - 1), (-of_rest, (seeds - 1) * (images - 1))]
    variance = sum(part for part, _ in terms)
    if len(terms) == 1:  # the images add no variance of their own
        return alone
    freedom = max(seeds - 1, variance**2 / sum(part**2 / df for part, df in terms))
    half = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * math.sqrt(variance)
    low, high = alone.estimate - half, alone.estimate + half
    return replace(alone, low=min(low, alone.low), high=max(high, alone.high))


def exact_interval(count: int, n: int) -> tuple[float, float]:
    """Return the interval of a share, count of n >= 1, that covers in at least 95 % (Clopper & Pearson 1934)."""
    low, high = stats.binomtest(count, n).proportion_ci(LEVEL, method="exact")
    return float(low), float(high)


def proportion_interval(count: int, n: int) -> tuple[float, float]:
    """Return the interval of a share, count of n >= 1, that covers in about 95 % (Wilson 1927): for figures."""
    low, high = stats.binomtest(count, n).proportion_ci(LEVEL, method="wilson")
    return float(low), float(high)


def compare_with_control(values: pd.DataFrame, control: str, k: int) -> pd.DataFrame:
    """Return the difference of every arm from the control, with 95 % intervals that are simultaneous for k arms.

    Each arm has its own t-interval over the seeds, at the level 1 - 0.05 / k (Bonferroni; Dunn 1961): their SDs differ
    too much to be pooled. `values` has one row per seed and one column per arm; if these are some of k arms, the others
    are compared elsewhere. Columns: `difference, low, high`, in the unit of `values`. An arm that differs from the
    control by the same amount in all seeds has an interval of NaN: nothing says how far off other seeds would be.
    """
    arms = [arm for arm in values if arm != control]
    found = [t_interval((values[arm] - values[control]).to_numpy(), 1 - (1 - LEVEL) / k) for arm in arms]
    rows = [(e.estimate, e.low, e.high) if e.sd > SAME else (e.estimate, math.nan, math.nan) for e in found]
    return pd.DataFrame(rows, index=pd.Index(arms), columns=["difference", "low", "high"])


def detectable(sd: float, n: int) -> float:
    """Return the smallest effect that n seeds detect with `POWER`; sd is that of one seed's effect.

    From the noncentral t distribution (Cohen 1988, chapter 2; statsmodels' `TTestPower`).
    """
    if sd == 0 or n < 2:
        return 0.0 if sd == 0 else math.inf
    solved = TTestPower().solve_power(None, n, 1 - LEVEL, POWER, alternative="two-sided")
    return float(np.squeeze(solved)) * sd


def seeds_to_show(effect: float, sd: float) -> int | None:
    """Return how many seeds detect an effect of this size with `POWER`; None if it takes more than `MOST_SEEDS`."""
    return _fewest(lambda n: detectable(sd, n) <= abs(effect))


def seeds_in_words(needed: int | None, n: int) -> str:
    """Return in words how many seeds are needed, judging by the spread of n."""
    if needed:
        return f"about {needed} seeds"
    if n < FEW_SEEDS:
        return f"more than {MOST_SEEDS} seeds, but {n} seeds are too few to know the spread: add some first"
    return f"more than {MOST_SEEDS} seeds, so more seeds won't help"


def seeds_to_exclude(margin: float, sd: float) -> int | None:
    """Return how many seeds show that an effect of zero is smaller than the margin; None beyond `MOST_SEEDS`.

    The interval has to lie within (-margin, +margin): power = 2 T((margin - half) / SE) - 1, with SE = sd / sqrt(n),
    half = t(n - 1) x SE and T the distribution function of t(n - 1) (Julious 2004, Sample sizes for clinical trials
    with normal data, section 5).
    """

    def suffice(n: int) -> bool:
        room = margin * math.sqrt(n) / sd - stats.t.ppf((1 + LEVEL) / 2, n - 1)
        return bool(2 * stats.t.cdf(room, n - 1) - 1 >= POWER)

    return _fewest(suffice) if sd else 2


def _fewest(suffice: Callable[[int], bool]) -> int | None:
    """Return the smallest n from 2 to `MOST_SEEDS` that suffices, by bisection, since any larger n suffices too."""
    found = bisect_left(range(MOST_SEEDS + 1), True, lo=2, key=suffice)
    return found if found <= MOST_SEEDS else None
