"""The results of a study, read from MLflow."""

import pandas as pd

from cnnlab.inquiry.checked import checked
from cnnlab.inquiry.design import Design
from cnnlab.inquiry.identity import Identity
from cnnlab.inquiry.promises import broken_promises
from cnnlab.inquiry.record.connection import default_store
from cnnlab.inquiry.record.environment import owner
from cnnlab.inquiry.record.runs import load_runs
from cnnlab.inquiry.record.store import Store


@checked
def results(study: Design, store: Store | None = None, of: str = "") -> pd.DataFrame:
    """Return the finished runs of a study, one per row: `arm, seed`, then the columns of `cnnlab.load_runs`.

    Only the runs of one owner (`of`; default: this one) on the images of the study count. If a run was repeated, the
    first that finished counts. The rows are in the order of `study.runs()`.
    """
    store = store or default_store()
    runs = load_runs(store, study.name)
    runs = runs[(runs["status"] == "FINISHED") & (runs["owner"] == (of or owner()))].drop_duplicates("identity")
    images = study.images
    wanted = [(arm, seed, Identity.of(config, images)) for arm, seed, config in study.runs()]
    table = pd.DataFrame(wanted, columns=["arm", "seed", "identity"])
    return table.merge(runs, on="identity", how="inner", validate="one_to_one")


def trained_elsewhere(store: Store) -> dict[Identity, str]:
    """Return the id of the first finished run of each identity that this owner has trained, in any study.

    A run doesn't count if it was changed later, or if its params now mean something else in the code.
    """
    runs = load_runs(store)
    runs = runs[(runs["status"] == "FINISHED") & (runs["owner"] == owner()) & (runs["reused_from"] == "")]
    first = runs[runs["sealed_right"].eq(True)].drop_duplicates("identity")  # None: it has no seal
    return {run["identity"]: run["run_id"] for _, run in first.iterrows() if not broken_promises(run)}
