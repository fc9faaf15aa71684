"""Runs read from MLflow, as a table."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import pandas as pd
from mlflow.entities import Run, ViewType

from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.identity import Identity
from cnnlab.inquiry.log import log
from cnnlab.inquiry.params import ConfigError, from_params
from cnnlab.inquiry.printable import printable
from cnnlab.inquiry.record.seal import SEAL, is_sealed_right
from cnnlab.inquiry.record.store import Store, answering, find_experiment
from cnnlab.inquiry.task import task

RUN_KINDS = ("run", "trial")  # the kinds whose params are those of a `Config`
COLUMNS = ["run_id", "name", "kind", "status", "owner", "reused_from", "prediction", "started"]
COLUMNS += ["deleted", "measured", "seal", "sealed_right", "config", "identity"]


def load_runs(
    store: Store, experiment: str | None = None, deleted: bool = False, kind: str | None = "run"
) -> pd.DataFrame:
    """Return this lab's runs in an experiment (default: in all), one per row, oldest first.

    With `deleted`, runs that were deleted in the MLflow UI are included. `kind` selects runs of studies ("run"), trials
    of a search ("trial"), or both (None). Runs whose params this version of the lab can't read are left out, and a
    warning gives their number.

    Columns: `run_id, name, kind, status, owner, reused_from`; `prediction`, the seals of the run's predictions;
    `started`, in ms since 1970; `deleted`, in the MLflow UI; `measured`, whether any metric was logged; `seal` and
    `sealed_right`, see `cnnlab.inquiry.record.seal`; `config` (a `Config`) and `identity`; the final metrics by name
    (`accuracy/valid`, a fraction; `loss/valid`, nats); and the facts as `fact.<name>`.

    Raises:
        LabError: the store doesn't answer.
    """
    with answering(store, "the runs can't be read now"):
        runs = search_runs(store, f"tags.kind = '{kind}'" if kind else "", experiment, deleted)
    rows: list[dict[str, Any]] = []
    unread: list[str] = []
    for run in runs:
        if run.data.tags.get("kind") in RUN_KINDS:
            try:
                rows.append(_row(run))
            except ConfigError as error:
                unread.append(f"{run.info.run_name} ({run.info.run_id[:8]}): {error}")
    if unread:
        warn_unread("runs", tuple(unread))
    return pd.DataFrame(rows, columns=None if rows else COLUMNS)


@cache  # once is enough
def warn_unread(what: str, reasons: tuple[str, ...]) -> None:
    """Warn of records that this version of the lab can't read."""
    left_out = f"{what.capitalize()} that this version of the lab can't read are left out: {len(reasons)}"
    log.warning(printable(f"{left_out}, such as {reasons[0][:300]}"))  # anybody can choose the names of runs


def search_runs(store: Store, rule: str, experiment: str | None = None, deleted: bool = False) -> list[Run]:
    """Return the runs of an experiment (default: of all) that pass MLflow's filter `rule`, oldest first."""
    view = ViewType.ALL if deleted else ViewType.ACTIVE_ONLY
    client = store.client
    found = [find_experiment(client, experiment)] if experiment else client.search_experiments(view)
    ids = [one.experiment_id for one in found if one]
    runs: list[Run] = []
    token = None
    while ids:
        page = client.search_runs(ids, rule, view, 500, ["attributes.start_time ASC"], token)
        runs += page
        if not (token := page.token):
            break
    return runs


def run_link(run: Run) -> str:
    """Return a run's name in Markdown, as a link that leads to it in the MLflow UI."""
    return f"[{run.info.run_name}](#/experiments/{run.info.experiment_id}/runs/{run.info.run_id})"


@dataclass(frozen=True)
class RawRun:
    """Any run in MLflow, also one not made by this lab; times in ms since 1970."""

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
    artifact_uri: str
    sealed_right: bool | None  # None: it has no seal

    @property
    def kind(self) -> str:
        """The kind that this lab recorded: run, prediction, trial, ...; "" for a run not made by it."""
        return self.tags.get("kind", "")

    @property
    def owner(self) -> str:
        """The owner on record."""
        return self.tags.get("owner") or self.tags.get("mlflow.user", "")

    @property
    def seal(self) -> str:
        """Its seal; "" if it has none."""
        return self.tags.get(SEAL, "")

    @property
    def label(self) -> str:
        """Its name in a sentence."""
        return f"run {self.name} of {self.experiment} ({self.run_id[:8]})"


def load_raw(store: Store) -> list[RawRun]:
    """Return everything in a store, oldest first, including deleted runs.

    Raises:
        LabError: the store doesn't answer.
    """
    with answering(store, "the runs can't be read now"):
        names = {e.experiment_id: e.name for e in store.client.search_experiments(ViewType.ALL)}
        runs = search_runs(store, "", deleted=True)
    return [_raw(run, names[run.info.experiment_id]) for run in runs]


def _raw(run: Run, experiment: str) -> RawRun:
    return RawRun(
        run.info.run_id,
        run.info.run_name or "",
        experiment,
        run.info.status,
        run.info.start_time or 0,
        run.info.end_time,
        run.info.lifecycle_stage == "deleted",
        dict(run.data.params),
        dict(run.data.tags),
        dict(run.data.metrics),
        run.info.artifact_uri,
        is_sealed_right(run),
    )


def load_curves(store: Store, runs: pd.DataFrame, metrics: list[str]) -> pd.DataFrame:
    """Return metrics of `runs` after every epoch, one value per row: `arm, seed, metric, epoch, value`."""
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
        LabError: there is none with this id.
    """
    found = runs[(runs["run_id"] == run_id) & (runs["status"] == "FINISHED")]
    if found.empty:
        raise LabError(f"the store has no finished run {run_id!r} of this lab: the MLflow UI shows the ids of runs.")
    return found.iloc[0]


def same_arm(runs: pd.DataFrame, run: pd.Series) -> pd.DataFrame:
    """Return the finished runs of a run's owner that differ from it only in their seed, including the run itself."""
    alike = pd.Series([identity.arm == run["identity"].arm for identity in runs["identity"]], index=runs.index)
    theirs: pd.DataFrame = runs[alike & (runs["owner"] == run["owner"]) & (runs["status"] == "FINISHED")]
    return theirs.drop_duplicates("identity")


def trained(runs: pd.DataFrame) -> "pd.Series[str]":
    """Return the id under which each run was trained: its own, or that of the run it was taken over from."""
    return runs["run_id"].where(runs["reused_from"] == "", runs["reused_from"])


def _row(run: Run) -> dict[str, Any]:
    """Return the row of a run.

    Raises:
        ConfigError: this version of the lab can't read its params.
    """
    config = from_params(task().config_type, run.data.params)
    tags = run.data.tags
    return {
        "run_id": run.info.run_id,
        "name": run.info.run_name,
        "kind": tags.get("kind", ""),
        "status": run.info.status,
        "owner": tags.get("owner") or tags.get("mlflow.user", ""),
        "reused_from": tags.get("reused_from", ""),
        "prediction": tags.get("prediction", ""),
        "started": run.info.start_time or 0,
        "deleted": run.info.lifecycle_stage == "deleted",
        "measured": bool(run.data.metrics),
        "seal": tags.get(SEAL, ""),
        "sealed_right": is_sealed_right(run),
        "config": config,
        "identity": Identity.of(config, images_of(tags)),
        **task().derived(run.data.metrics),
        **{k.removeprefix("final/"): v for k, v in run.data.metrics.items() if k.startswith("final/")},
        **{k: v for k, v in tags.items() if k.startswith("fact.")},
    }


def images_of(tags: Mapping[str, str]) -> str:
    """Return the fingerprint of a run's data; "" if it isn't known."""
    return task().fingerprint(facts_of(tags))


def facts_of(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the facts among the tags of a run, by name."""
    return {name.removeprefix("fact."): value for name, value in tags.items() if name.startswith("fact.")}
