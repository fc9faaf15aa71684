"""The trials of a search as a table: what `03_mlflow.py` logged, read back."""

import pandas as pd

from cnnlab.config import from_params
from cnnlab.errors import LabError
from cnnlab.tracking.environment import owner
from cnnlab.tracking.store import Store, first_line
from cnnlab.tracking.table import search_runs


def load_trials(store: Store, experiment: str) -> pd.DataFrame:
    """Return the finished trials of this owner, one row each, in the order in which they were tried.

    Columns: `trial` (from 1), every field of `Config`, `width` and `depth` of the first block, and the final metrics by
    their names.

    Raises:
        LabError: the store doesn't answer, or there are no trials yet.
    """
    try:
        runs = search_runs(store, "tags.kind = 'trial'", experiment)
    except Exception as error:  # MLflow raises whatever the library below it raises
        raise LabError(f"the trials can't be read now: {store.uri} ({first_line(error)}).") from None
    rows: list[dict[str, object]] = []
    for run in runs:
        if run.info.status == "FINISHED" and run.data.tags.get("owner") == owner():
            config = from_params(run.data.params)
            depth, width = config.blocks[0]
            finals = {k.removeprefix("final/"): v for k, v in run.data.metrics.items() if k.startswith("final/")}
            rows.append({"trial": len(rows) + 1, "width": width, "depth": depth} | vars(config) | finals)
    if not rows:
        raise LabError(f"there are no trials in {experiment} yet: `uv run 03_mlflow.py` makes them.")
    return pd.DataFrame(rows)
