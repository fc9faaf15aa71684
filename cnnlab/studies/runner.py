"""Running a study: what is missing is trained, what is there is reused, and the results come from MLflow."""

from collections.abc import Callable

import pandas as pd

from cnnlab.config import Config
from cnnlab.data import Data
from cnnlab.studies.study import Study
from cnnlab.tracking.courier import Courier
from cnnlab.tracking.environment import owner
from cnnlab.tracking.run_logger import RunLogger, reuse_run
from cnnlab.tracking.store import Store
from cnnlab.tracking.table import load_runs
from cnnlab.tracking.views import publish_views
from cnnlab.training import fit

Say = Callable[[str], None]


def run_study(
    study: Study, data: Data, store: Store, say: Say = print, device: str = "auto", progress: bool = True
) -> pd.DataFrame:
    """Train every run of `study` that isn't finished yet, log it to `store`, and return the results.

    A run is identified by its config and its owner: calling this twice trains nothing twice, and after an
    interruption it goes on with what is missing.
    """
    done = set(results(study, store)["config"])
    todo = [(arm, config) for arm, config in study.runs() if config not in done]
    say(study.describe())
    if done:
        say(f"{len(done)} of its runs are finished already and are not trained again.")
    elsewhere = _trained_elsewhere(store) if todo else {}
    _publish(study, store, say)
    courier = Courier(store, say)
    try:
        for arm, config in todo:
            tags = {"owner": owner(), "mlflow.user": owner(), "study": study.name, "arm": arm}
            title = f"{arm}, seed {config.seed}"
            if config in elsewhere:
                say(f"{title}: trained already, in another study; its results are taken over.")
                reuse_run(courier, elsewhere[config], study.name, title, tags)
                continue
            with RunLogger(courier, study.name, config, title, tags) as log:
                log.result(fit(config, data, [log], device=device, title=title, progress=progress), data)
    finally:
        courier.close()
    return results(study, store)


def _trained_elsewhere(store: Store) -> dict[Config, str]:
    """Return the id of the first finished run of every config that this owner has trained, in any study."""
    runs = load_runs(store)
    runs = runs[(runs["status"] == "FINISHED") & (runs["owner"] == owner()) & (runs["reused_from"] == "")]
    first = runs.drop_duplicates("config")
    return dict(zip(first["config"], first["run_id"], strict=True))


def _publish(study: Study, store: Store, say: Say) -> None:
    try:
        publish_views(store, study.name, study.question, study.vary)
    except Exception as error:  # a view less is no reason not to train
        say(f"The shared views of {study.name} could not be written ({error}); the runs are not affected.")


def results(study: Study, store: Store) -> pd.DataFrame:
    """Return the finished runs of a study, one row each: `arm, seed, n`, final metrics and facts.

    Only runs of this owner count, and a config counts once, with its first finished run.
    """
    runs = load_runs(store, study.name)
    wanted = {config: arm for arm, config in study.runs()}
    runs = runs[(runs["status"] == "FINISHED") & (runs["owner"] == owner()) & runs["config"].isin(wanted)]
    runs = runs.drop_duplicates("config")
    runs.insert(0, "arm", [wanted[config] for config in runs["config"]])
    runs.insert(1, "seed", [config.seed for config in runs["config"]])
    return runs.reset_index(drop=True)


def summary(study: Study, runs: pd.DataFrame) -> pd.DataFrame:
    """Return mean and SD over the seeds for each arm, in the order of the study.

    Columns: `n`; `accuracy` and `accuracy_sd` in percent and percentage points; `loss`, `loss_sd` and
    `gap_loss` in nats; `epoch_s`, the time of one epoch, in seconds. The SD of a single run is unknown (nan).
    """
    if runs.empty:
        return pd.DataFrame()
    percent = runs.assign(accuracy=100 * runs["accuracy/valid"])
    groups = percent.groupby("arm")
    table = pd.DataFrame(
        {
            "n": groups.size(),
            "accuracy": groups["accuracy"].mean(),
            "accuracy_sd": groups["accuracy"].std(),
            "loss": groups["loss/valid"].mean(),
            "loss_sd": groups["loss/valid"].std(),
            "gap_loss": groups["gap/loss"].mean(),
            "epoch_s": groups["time/epoch_s"].mean(),
        }
    )
    return table.reindex([arm for arm in study.arms if arm in table.index])
