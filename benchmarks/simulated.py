"""Simulated studies, with given SDs of the arms and correlations within a seed, and intervals computed from them."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.95

Intervals = tuple[np.ndarray, np.ndarray]  # lower and upper ends, one per study
Estimator = Callable[[np.ndarray, np.ndarray], Intervals]


class Situation(NamedTuple):
    """The weights of a contrast, and the SD of each arm."""

    name: str
    weights: tuple[float, ...]
    sds: tuple[float, ...]


def draw(
    situation: Situation, n: int, block: float, studies: int, rng: np.random.Generator, tails: float = np.inf
) -> np.ndarray:
    """Return values with mean 0: (studies, n, arms), normal or with the tails of a t distribution."""
    arms = len(situation.sds)
    correlations = np.full((arms, arms), block) + (1 - block) * np.eye(arms)
    shape = studies, n, arms
    own = rng.standard_normal(shape) if np.isinf(tails) else rng.standard_t(tails, shape) / np.sqrt(tails / (tails - 2))
    return own @ np.linalg.cholesky(correlations).T * np.array(situation.sds)


def per_seed(values: np.ndarray, weights: np.ndarray, level: float = LEVEL) -> Intervals:
    """Student's t over the effects of the seeds."""
    effects = values @ weights
    n = effects.shape[1]
    error = effects.std(axis=1, ddof=1) / np.sqrt(n)
    return _interval(effects.mean(axis=1), error, np.full(len(effects), n - 1.0), level)


def welch(values: np.ndarray, weights: np.ndarray) -> Intervals:
    """A contrast of independent means with different variances (Welch 1947); Satterthwaite's degrees of freedom."""
    n = values.shape[1]
    parts = values.var(axis=1, ddof=1) * weights**2 / n
    total = parts.sum(axis=1)
    return _interval(values.mean(axis=1) @ weights, np.sqrt(total), total**2 / ((parts**2).sum(axis=1) / (n - 1)))


def pooled(values: np.ndarray, weights: np.ndarray) -> Intervals:
    """A contrast of independent means with the same variance in all arms."""
    n, arms = values.shape[1:]
    variance = values.var(axis=1, ddof=1).mean(axis=1)
    error = np.sqrt(variance * (weights**2).sum() / n)
    return _interval(values.mean(axis=1) @ weights, error, np.full(len(values), arms * (n - 1.0)))


ESTIMATORS: dict[str, Estimator] = {"per seed": per_seed, "Welch": welch, "pooled": pooled}


def _interval(mean: np.ndarray, error: np.ndarray, freedom: np.ndarray, level: float = LEVEL) -> Intervals:
    half = error * stats.t.ppf((1 + level) / 2, freedom)
    return mean - half, mean + half


def percent(happened: np.ndarray) -> str:
    """Return how often something happened, in percent."""
    return f"{100 * happened.mean():.1f}"


def holds(intervals: Intervals, truth: float = 0.0) -> np.ndarray:
    """Return which intervals contain the true value."""
    low, high = intervals
    return (low <= truth) & (high >= truth)
