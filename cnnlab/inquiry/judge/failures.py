"""Runs that failed: they are counted, with exact intervals, and not averaged."""

import numpy as np
import pandas as pd
from scipy import stats

from cnnlab.inquiry.judge.statistics import LEVEL, exact_interval
from cnnlab.inquiry.task import task

LEAST_P = 0.001  # smaller ones are shown as "<"


def failed_runs(runs: pd.DataFrame) -> pd.Series:
    """Return which runs have no result, judging by their outcome: bool, one per run."""
    outcomes = runs.get("fact.outcome", pd.Series("", index=runs.index))
    return outcomes.map(lambda outcome: isinstance(outcome, str) and task().failed(outcome)).astype(bool)


def failures_in_words(runs: pd.DataFrame) -> str:
    """Return how many runs of each arm failed, with the exact 95 % interval of the share; "" if none did."""
    failed = failed_runs(runs)
    if not failed.any():
        return ""
    said = "; ".join(f"{arm}: {_share(*counts)}" for arm, counts in failures_by_arm(runs).items())
    return f"{failed.sum()} of {len(runs)} runs failed ({said})."


def failures_by_arm(runs: pd.DataFrame) -> dict[str, tuple[int, int]]:
    """Return per arm how many of its runs failed, and how many it has."""
    return {str(arm): (int(some.sum()), len(some)) for arm, some in failed_runs(runs).groupby(runs["arm"], sort=False)}


def compare_failures(runs: pd.DataFrame) -> str:
    """Return in a sentence whether two or more arms fail equally often, by Fisher's exact test.

    Fisher 1935; for more than two arms Freeman & Halton 1951, by simulation, always with the same random numbers. The
    test treats all runs as independent: if the runs of a seed tend to fail together, it is cautious.
    """
    table = [(failed, n - failed) for failed, n in failures_by_arm(runs).values()]
    simulated = stats.MonteCarloMethod(rng=np.random.default_rng(0)) if len(table) > 2 else None
    p = float(stats.fisher_exact(table, method=simulated).pvalue)
    said = "the arms don't fail" if p <= 1 - LEVEL else "these runs can't tell whether the arms fail"
    shown = f"p = {p:.2g}" if p >= LEAST_P else f"p < {LEAST_P}"
    return f"Fisher's exact test gives {shown}, so {said} equally often."


def _share(failed: int, n: int) -> str:
    low, high = exact_interval(failed, n)
    return f"{failed} of {n}, 95 % interval {100 * low:.0f} to {100 * high:.0f} %"
