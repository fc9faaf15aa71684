"""The trials of a search as a table: what `03_mlflow.py` logged, read back."""

import pandas as pd

from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.record.environment import owner
from cnnlab.inquiry.record.runs import load_runs
from cnnlab.inquiry.record.store import Store


class NoTrials(LabError):
    """The search hasn't been run."""


def finished_trials(store: Store, experiment: str) -> pd.DataFrame:
    """Return the finished trials of this owner, one row each with the columns of `cnnlab.load_runs`, oldest first.

    Raises:
        NoTrials: there are none yet.
        LabError: the store doesn't answer.
    """
    runs = load_runs(store, experiment, kind="trial")
    runs = runs[(runs["status"] == "FINISHED") & (runs["owner"] == owner())]
    if runs.empty:
        raise NoTrials(
            f"{owner()} has no trials in {experiment} yet: run the search first, with `uv run 03_mlflow.py` (and the "
            "same --profile, --epochs and --seeds, if you use any)."
        )
    return runs


def load_trials(store: Store, experiment: str) -> pd.DataFrame:
    """Return the finished trials of this owner, one row each, in the order in which they were tried.

    Columns: `trial` (from 1), every field of `Config`, `width` and `depth` of the first block, and the final metrics by
    their names.

    Raises:
        NoTrials: there are none yet.
        LabError: the store doesn't answer.
    """
    runs = finished_trials(store, experiment)
    finals = [str(name) for name in runs if "/" in str(name)]
    rows = []
    for number, (_, run) in enumerate(runs.iterrows(), start=1):
        depth, width = run["config"].blocks[0]
        rows.append({"trial": number, "width": width, "depth": depth} | dict(run["config"]) | run[finals].to_dict())
    return pd.DataFrame(rows)
