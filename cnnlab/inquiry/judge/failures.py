"""Runs that failed: they are counted, with exact intervals, and not averaged."""

import pandas as pd

from cnnlab.inquiry.judge.statistics import exact_interval
from cnnlab.inquiry.task import task


def failed_runs(runs: pd.DataFrame) -> pd.Series:
    """Return which runs have no result, as their outcome tells: bool, one for each run."""
    outcomes = runs.get("fact.outcome", pd.Series("", index=runs.index))
    return outcomes.map(lambda outcome: isinstance(outcome, str) and task().failed(outcome)).astype(bool)


def failures_in_words(runs: pd.DataFrame) -> str:
    """Return how many runs of each arm failed, with the exact 95 % interval of the share; "" where none did."""
    failed = failed_runs(runs)
    if not failed.any():
        return ""
    counts = failed.groupby(runs["arm"], sort=False).agg(["sum", "size"])
    said = "; ".join(f"{arm}: {_share(int(row['sum']), int(row['size']))}" for arm, row in counts.iterrows())
    return f"{failed.sum()} of {len(runs)} runs failed ({said})."


def _share(failed: int, n: int) -> str:
    low, high = exact_interval(failed, n)
    return f"{failed} of {n}, 95 % interval {100 * low:.0f} to {100 * high:.0f} %"
