"""Shared views of an experiment in the MLflow UI: a sorted table with the right columns, and mean curves.

MLflow stores such a view in a tag of the experiment, and a link opens it.
The format is undocumented; a test opens both views in a real browser.
"""

import json
from collections.abc import Iterable, Sequence
from math import isfinite, nan
from typing import Any
from urllib.parse import urlencode

from mlflow.entities import Run

from cnnlab.inquiry.mlflow_private import SHARED_VIEW
from cnnlab.inquiry.record.environment import owner
from cnnlab.inquiry.record.ledger import FOUND, NOTE, PREDICTED
from cnnlab.inquiry.record.runs import search_runs
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.task import task

VIEWS = {
    "table": "every run, best first",
    "curves": "the mean curve of each arm, with a band over the seeds",
    "predictions": "what was predicted, and the verdicts",
}


def publish_views(store: Store, experiment: str, question: str, varied: Iterable[str]) -> None:
    """Write the question above an experiment's table, and the views to its tags.

    `varied` are the fields that differ between the arms; they become columns. There is one curve per arm or, if the
    experiment has runs of several owners, one per arm and owner.
    """
    experiment_id = store.experiment_id(experiment)
    columns = ["tags.`arm`", *(f"params.`{name}`" for name in varied), "params.`seed`"]
    finals = [f"final/{metric.name}" for metric in task().metrics[:3]]
    columns += [f"metrics.`{name}`" for name in finals] + ["tags.`fact.outcome`", "tags.`owner`"]
    table = {
        "searchFilter": "tags.kind = 'run'",
        "orderByKey": f"metrics.`{finals[0]}`",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "selectedColumns": columns,
    }
    runs = search_runs(store, "tags.kind = 'run'", experiment)
    owners = {owner(), *(run.data.tags.get("owner", "") for run in runs)}
    keys = ("arm", "owner") if len(owners) > 1 else ("arm",)
    groups = [{"mode": "tag", "groupByData": key} for key in keys]
    curves = table | {"groupBy": {"aggregateFunction": "average", "groupByKeys": groups}} | _charts(runs)
    tags = store.client.get_experiment(experiment_id).tags
    if question not in tags.get(NOTE, ""):  # otherwise it may already contain verdicts
        store.client.set_experiment_tag(experiment_id, NOTE, question)
    for key, view in {"table": table, "curves": curves, "predictions": _predictions(table)}.items():
        store.client.set_experiment_tag(experiment_id, f"{SHARED_VIEW}{key}", json.dumps(view))


def _predictions(table: dict[str, Any]) -> dict[str, Any]:
    columns = [f"tags.`{name}`" for name in (PREDICTED, FOUND, "owner")]
    order = {"orderByKey": "attributes.start_time", "orderByAsc": True}
    return table | {"searchFilter": "tags.kind = 'prediction'", "selectedColumns": columns} | order


def _range(runs: Iterable[Run], metric: str) -> dict[str, float | None]:
    """Return the range of the vertical axis in which the runs end, with some room for the curves before."""
    ends = [value for run in runs if isfinite(value := run.data.metrics.get(metric, nan))]
    room = max(ends, default=0) - min(ends, default=0)
    if not room:
        return {"yMin": None, "yMax": None}
    return {"yMin": min(ends) - room, "yMax": max(ends) + room}


def _charts(runs: Sequence[Run]) -> dict[str, Any]:
    sections = [
        {"uuid": title, "name": title, "display": True, "isReordered": False, "deleted": False, "isGenerated": False}
        for title in task().charts
    ]
    charts = [
        {
            "uuid": metric,
            "type": "LINE",
            "metricSectionId": title,
            "metricKey": metric,
            "selectedMetricKeys": [metric],
            "runsCountToCompare": 100,  # otherwise the UI draws only the first 10 runs
            "xAxisKey": "step",
            "xAxisScaleType": "linear",
            "scaleType": "linear",
            "lineSmoothness": 0,
            "selectedXAxisMetricKey": "",
            "useGlobalXaxisKey": True,
            "range": {"xMin": None, "xMax": None} | _range(runs, metric),
            "isGenerated": False,
            "deleted": False,
        }
        for title, metrics in task().charts.items()
        for metric in metrics
    ]
    return {"compareRunSections": sections, "compareRunCharts": charts, "isAccordionReordered": True}


def view_link(address: str, experiment_id: str, key: str) -> str:
    """Return the link to a view; `address` is that of the server, such as http://127.0.0.1:5001."""
    query = {"viewStateShareKey": key} | ({"compareRunsMode": "CHART"} if key == "curves" else {})
    return f"{address}/#/experiments/{experiment_id}/runs?{urlencode(query)}"


def view_links(store: Store, address: str) -> dict[str, dict[str, str]]:
    """Return the links to all views, by the experiment's name and the view's key."""
    experiments = sorted(store.client.search_experiments(), key=lambda experiment: experiment.name)
    return {
        e.name: {key: view_link(address, e.experiment_id, key) for key in VIEWS}
        for e in experiments
        if any(tag.startswith(SHARED_VIEW) for tag in e.tags)
    }
