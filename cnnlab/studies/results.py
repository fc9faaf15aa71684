"""What came out of a study, read back from MLflow; nothing here needs torch."""

import pandas as pd

from cnnlab.checked import checked
from cnnlab.studies.study import Study
from cnnlab.tracking.connection import connect
from cnnlab.tracking.environment import owner
from cnnlab.tracking.store import Store
from cnnlab.tracking.table import Identity, load_runs


@checked
def results(study: Study, store: Store | None = None, of: str = "") -> pd.DataFrame:
    """Return the finished runs of a study, one row each: `arm, seed`, then the columns of `cnnlab.load_runs`.

    Only runs of one owner count (`of`; without it, of this one), on the images of the study, and each run once, the
    first that finished. The rows are in the order of `study.runs()`.
    """
    store = store or connect(say=lambda line: None)
    runs = load_runs(store, study.name)
    runs = runs[(runs["status"] == "FINISHED") & (runs["owner"] == (of or owner()))].drop_duplicates("identity")
    images = study.images
    wanted = [(arm, seed, Identity.of(config, images)) for arm, seed, config in study.runs()]
    table = pd.DataFrame(wanted, columns=["arm", "seed", "identity"])
    return table.merge(runs, on="identity", how="inner", validate="one_to_one")


def summary(study: Study, runs: pd.DataFrame) -> pd.DataFrame:
    """Return mean and SD over the seeds for each arm, in the order of the study.

    Columns: `n`; `accuracy` and `accuracy_sd` in percent and percentage points; `loss`, `loss_sd` and
    `gap_loss` in nats; `epoch_s`, the time of one epoch, in seconds. The SD of a single run is unknown (nan),
    and so is the mean where one of the runs has no number (it diverged).
    """
    if runs.empty:
        return pd.DataFrame()
    percent = runs.assign(accuracy=100 * runs["accuracy/valid"])
    groups = percent.groupby("arm")
    table = pd.DataFrame(
        {
            "n": groups.size(),
            "accuracy": groups["accuracy"].mean(skipna=False),
            "accuracy_sd": groups["accuracy"].std(skipna=False),
            "loss": groups["loss/valid"].mean(skipna=False),
            "loss_sd": groups["loss/valid"].std(skipna=False),
            "gap_loss": groups["gap/loss"].mean(skipna=False),
            "epoch_s": groups["time/epoch_s"].mean(),
        }
    )
    return table.reindex([arm for arm in study.arms if arm in table.index])
