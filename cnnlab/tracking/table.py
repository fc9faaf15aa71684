"""Runs as a table: what is in MLflow, read back."""

from dataclasses import dataclass
from typing import Any

import pandas as pd
from mlflow.entities import Run, ViewType

from cnnlab.config import Config, ConfigError, from_params, replace
from cnnlab.errors import LabError
from cnnlab.tracking.seal import SEAL, is_sealed_right
from cnnlab.tracking.store import Store, first_line

COLUMNS = ["run_id", "name", "status", "owner", "reused_from", "started", "measured", "seal", "config"]


def load_runs(
    store: Store, experiment: str | None = None, deleted: bool = False, kind: str | None = "run"
) -> pd.DataFrame:
    """Return the runs of an experiment (of all, without a name) that this lab made, one row each, oldest first.

    With `deleted`, those are among them that were deleted in the MLflow UI. `kind` is what they are: a run of a study,
    a "trial" of a search, or whatever has the params of a `Config` (None).

    Columns: `run_id, name, status, owner, reused_from`; `started`, in ms since 1970; `measured`, whether any metric was
    logged; `seal`, see `cnnlab.tracking.seal`; `config` (a `Config`); the final metrics by their names
    (`accuracy/valid`, a fraction; `loss/valid`, nats), and the facts as `fact.<name>`.

    Raises:
        LabError: the store doesn't answer.
    """
    try:
        runs = search_runs(store, f"tags.kind = '{kind}'" if kind else "", experiment, deleted)
    except Exception as error:  # MLflow raises whatever the library below it raises
        raise LabError(
            f"the runs can't be read now, {store.uri} doesn't answer ({first_line(error)}). Nothing is lost: "
            "start that server, and call this again."
        ) from None
    rows = [row for run in runs if (row := _row(run)) is not None]
    return pd.DataFrame(rows, columns=None if rows else COLUMNS)


def search_runs(store: Store, rule: str, experiment: str | None = None, deleted: bool = False) -> list[Run]:
    """Return the runs of an experiment (of all, without a name) that pass MLflow's filter `rule`, oldest first."""
    view = ViewType.ALL if deleted else ViewType.ACTIVE_ONLY
    # MLflow's filter can't hold a name with a quote in it
    experiments = [e for e in store.client.search_experiments(view) if experiment in (None, e.name)]
    runs: list[Run] = []
    token = None
    while experiments:
        page = store.client.search_runs(
            [found.experiment_id for found in experiments],
            rule,
            view,
            max_results=500,
            order_by=["attributes.start_time ASC"],
            page_token=token,
        )
        runs += page
        if not (token := page.token):
            break
    return runs


@dataclass(frozen=True)
class RawRun:
    """A run as MLflow holds it, whoever made it; times in ms since 1970."""

    run_id: str
    name: str
    experiment: str
    status: str
    started: int
    ended: int | None
    deleted: bool
    params: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, float]
    sealed_right: bool | None  # None: it has no seal

    @property
    def kind(self) -> str:
        """What this lab says it is: run, prediction, trial, ...; "" for a run of somebody else."""
        return self.tags.get("kind", "")

    @property
    def owner(self) -> str:
        """Who made it."""
        return self.tags.get("owner") or self.tags.get("mlflow.user", "")


def load_raw(store: Store) -> list[RawRun]:
    """Return everything in a store, oldest first, deleted runs too.

    Raises:
        LabError: the store doesn't answer.
    """
    try:
        names = {e.experiment_id: e.name for e in store.client.search_experiments(ViewType.ALL)}
        runs = search_runs(store, "", deleted=True)
    except Exception as error:  # MLflow raises whatever the library below it raises
        raise LabError(f"the store {store.uri} can't be read ({first_line(error)}).") from None
    return [_raw(run, names[run.info.experiment_id]) for run in runs]


def _raw(run: Run, experiment: str) -> RawRun:
    return RawRun(
        run.info.run_id,
        run.info.run_name or "",
        experiment,
        run.info.status,
        run.info.start_time,
        run.info.end_time,
        run.info.lifecycle_stage == "deleted",
        dict(run.data.params),
        dict(run.data.tags),
        dict(run.data.metrics),
        is_sealed_right(run),
    )


def load_curves(store: Store, runs: pd.DataFrame, metrics: list[str]) -> pd.DataFrame:
    """Return metrics of `runs` after every epoch, one row each: `arm, seed, metric, epoch, value`."""
    rows = [
        {"arm": arm, "seed": seed, "metric": metric, "epoch": point.step, "value": point.value}
        for arm, seed, run_id in zip(runs["arm"], runs["seed"], trained(runs), strict=True)
        for metric in metrics
        for point in store.client.get_metric_history(run_id, metric)
    ]
    return pd.DataFrame(rows, columns=["arm", "seed", "metric", "epoch", "value"])


def find_run(runs: pd.DataFrame, run_id: str) -> pd.Series:
    """Return the row of a finished run.

    Raises:
        LabError: there is none of this id.
    """
    found = runs[(runs["run_id"] == run_id) & (runs["status"] == "FINISHED")]
    if found.empty:
        raise LabError(f"the store has no finished run {run_id!r} of this lab: its id stands in the MLflow UI.")
    return found.iloc[0]


def same_arm(runs: pd.DataFrame, run: pd.Series) -> pd.DataFrame:
    """Return the finished runs of a run's owner that differ from it in their seed alone, itself among them."""
    arm = replace(run["config"], seed=0)
    alike = pd.Series([replace(config, seed=0) == arm for config in runs["config"]], index=runs.index)
    theirs: pd.DataFrame = runs[alike & (runs["owner"] == run["owner"]) & (runs["status"] == "FINISHED")]
    return theirs.drop_duplicates("config")


def trained(runs: pd.DataFrame) -> "pd.Series[str]":
    """Return the id under which each run was trained: its own, or that of the run that was taken over."""
    return runs["run_id"].where(runs["reused_from"] == "", runs["reused_from"])


def _row(run: Run) -> dict[str, Any] | None:
    try:
        config: Config = from_params(run.data.params)
    except ConfigError:
        return None  # made by an other version of the lab, or half created
    return {
        "run_id": run.info.run_id,
        "name": run.info.run_name,
        "status": run.info.status,
        "owner": run.data.tags.get("owner") or run.data.tags.get("mlflow.user", ""),
        "reused_from": run.data.tags.get("reused_from", ""),
        "started": run.info.start_time,
        "measured": bool(run.data.metrics),
        "seal": run.data.tags.get(SEAL, ""),
        "config": config,
        **{k.removeprefix("final/"): v for k, v in run.data.metrics.items() if k.startswith("final/")},
        **{k: v for k, v in run.data.tags.items() if k.startswith("fact.")},
    }
