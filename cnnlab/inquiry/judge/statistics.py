"""Effects over seeds with their intervals, and how many seeds it takes to see one.

Every contrast is computed seed by seed: one number for each seed, the weighted sum over its arms, and Student's t over
these numbers. All arms of a seed share their random numbers, so a seed is a block (Box, Hunter & Hunter 2005,
Statistics for Experimenters, chapter 4). This needs no equal variances and no independence between arms: only that the
numbers of different seeds are independent and roughly normal. Welch's interval, from the means of the arms, finds
smaller effects with three seeds, but its rate of false "supported" exceeds the stated one where the spreads of the
arms differ; benchmarks/results/estimators.md has both.
"""

import math
import warnings
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.power import TTestPower

LEVEL = 0.95  # of all intervals
POWER = 0.80  # the probability with which an effect shall be found
MOST_SEEDS = 300


@dataclass(frozen=True)
class Effect:
    """The estimate of a contrast over n seeds, with its interval, in the metric's unit; sd is of one seed's effect."""

    estimate: float
    low: float
    high: float
    sd: float
    n: int
    by_seed: tuple[float, ...]


def contrast_effect(values: pd.DataFrame, weights: Mapping[str, float]) -> Effect:
    """Return the effect of a contrast: mean over the seeds of sum over arms (weight x value), with its t-interval.

    `values` has one row for each seed (n >= 2) and one column for each arm, in the metric's unit. The interval is
    mean +- t(n - 1) x SD / sqrt(n) of the seeds' effects (Student 1908; paired samples).
    """
    by_seed = values[list(weights)].to_numpy() @ np.array(list(weights.values()))
    return t_interval(by_seed)


def t_interval(by_seed: np.ndarray) -> Effect:
    """Return mean and t-interval of n >= 2 independent numbers."""
    n = len(by_seed)
    mean, sd = float(np.mean(by_seed)), float(np.std(by_seed, ddof=1))
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * sd / math.sqrt(n)
    return Effect(mean, mean - half, mean + half, sd, n, tuple(by_seed.tolist()))


@dataclass(frozen=True)
class Improvement:
    """In how many of n seeds an arm beat another (ties count for neither), with the exact interval of that share."""

    wins: int
    n: int
    low: float
    high: float


def improvement(differences: np.ndarray) -> Improvement:
    """Return P(improvement) from the differences to the control, positive where the arm is better.

    The interval is that of Clopper & Pearson 1934; the quantity is that of Bouthillier et al. 2021, section 4.
    """
    wins, n = int((differences > 0).sum()), len(differences)
    interval = stats.binomtest(wins, n).proportion_ci(LEVEL, method="exact")
    return Improvement(wins, n, float(interval.low), float(interval.high))


def compare_with_control(values: pd.DataFrame, control: str) -> pd.DataFrame:
    """Return the difference of every arm to the control, with intervals that hold for all of them together.

    Dunnett 1955 (`scipy.stats.dunnett`), which assumes equal variances in all arms: for exploring, not for a verdict.
    Columns: `difference, low, high`, in the unit of `values` (one row for each seed, one column for each arm).
    """
    arms = [arm for arm in values if arm != control]
    samples = [values[arm].to_numpy() for arm in arms]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # an arm whose runs all ended at chance has no spread
        found = stats.dunnett(*samples, control=values[control].to_numpy(), rng=np.random.default_rng(0))
    interval = found.confidence_interval(LEVEL)
    means = [float(values[arm].mean() - values[control].mean()) for arm in arms]
    return pd.DataFrame({"difference": means, "low": interval.low, "high": interval.high}, index=pd.Index(arms))


def detectable(sd: float, n: int) -> float:
    """Return the smallest effect that n seeds show with `POWER`; sd is that of one seed's effect.

    From the noncentral t distribution (Cohen 1988, chapter 2; statsmodels' `TTestPower`).
    """
    if sd == 0 or n < 2:
        return 0.0 if sd == 0 else math.inf
    solved = TTestPower().solve_power(None, n, 1 - LEVEL, POWER, alternative="two-sided")
    return float(np.squeeze(solved)) * sd


def seeds_to_show(effect: float, sd: float) -> int | None:
    """Return how many seeds show an effect of this size with `POWER`; None where more than `MOST_SEEDS` would."""
    return _fewest(lambda n: detectable(sd, n) <= abs(effect))


def seeds_in_words(needed: int | None) -> str:
    """Return how many seeds are needed, in words."""
    return f"about {needed} seeds" if needed else f"more than {MOST_SEEDS} seeds: more seeds aren't the way"


def seeds_to_exclude(margin: float, sd: float) -> int | None:
    """Return how many seeds show, if there is no effect, that it is smaller than the margin; None beyond `MOST_SEEDS`.

    The interval has to lie within (-margin, +margin): power = 2 T((margin - half) / SE) - 1, with SE = sd / sqrt(n),
    half = t(n - 1) x SE and T the distribution function of t(n - 1) (Julious 2004, Sample sizes for clinical trials
    with normal data, section 5).
    """

    def suffice(n: int) -> bool:
        room = margin * math.sqrt(n) / sd - stats.t.ppf((1 + LEVEL) / 2, n - 1)
        return bool(2 * stats.t.cdf(room, n - 1) - 1 >= POWER)

    return _fewest(suffice) if sd else 2


def _fewest(suffice: Callable[[int], bool]) -> int | None:
    """Return the smallest n from 2 to `MOST_SEEDS` that suffices, by bisection: more suffice as well."""
    found = bisect_left(range(MOST_SEEDS + 1), True, lo=2, key=suffice)
    return found if found <= MOST_SEEDS else None


def exact_interval(k, n):
    i = stats.binomtest(k, n).proportion_ci(LEVEL, method="exact")
    return float(i.low), float(i.high)


def crossed_interval(values):
    seeds, images = values.shape
    mean = values.mean()
    rows, columns = values.mean(1), values.mean(0)
    ms_s = images * rows.var(ddof=1)
    ms_i = seeds * columns.var(ddof=1)
    rest = values - rows[:, None] - columns[None] + mean
    ms_r = (rest**2).sum() / ((seeds - 1) * (images - 1))
    total = max(ms_s + ms_i - ms_r, ms_s, ms_i)
    df = total**2 / (ms_s**2 / (seeds - 1) + ms_i**2 / (images - 1) + ms_r**2 / ((seeds - 1) * (images - 1)))
    half = stats.t.ppf(0.975, df) * (total / (seeds * images)) ** 0.5
    return float(mean - half), float(mean + half)
