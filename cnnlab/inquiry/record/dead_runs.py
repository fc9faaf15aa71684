"""Runs whose process died: they are closed in the record, so that "RUNNING" always means running."""

import os
import platform

import psutil
from mlflow.entities import Run

from cnnlab.inquiry.log import log
from cnnlab.inquiry.record.store import Store

GONE = "interrupted: its process ended without a message"


def this_process() -> str:
    """Return a name for this process that is unique on all machines: "<machine>/<id>/<start in s>"."""
    return f"{platform.node()}/{os.getpid()}/{psutil.Process().create_time():.0f}"


def is_gone(process: str) -> bool:
    """Return whether a process, named by `this_process`, ran on this machine and has ended."""
    machine, *numbers = process.split("/")
    if machine != platform.node() or len(numbers) != 2:
        return False
    pid, started = map(int, numbers)
    try:
        return abs(psutil.Process(pid).create_time() - started) > 2
    except psutil.NoSuchProcess:
        return True


def close_dead_runs(store: Store, experiment: str, owner: str) -> None:
    """Mark as KILLED every run of `owner` that is RUNNING in the record, but whose process on this machine is gone."""
    for run in _running(store, experiment):
        if run.data.tags.get("owner") == owner and is_gone(run.data.tags.get("lab.process", "")):
            _close(store, run, GONE)
            log.warning(f"The process of the run {run.info.run_name} died; the run is marked as KILLED in the record.")


def close_job(store: Store, experiment: str, job: str, reason: str) -> None:
    """Mark as KILLED the run with the tag `lab.job`, if it is still RUNNING."""
    for run in _running(store, experiment):
        if run.data.tags.get("lab.job") == job:
            _close(store, run, reason)


def _running(store: Store, experiment: str) -> list[Run]:
    known = store.client.get_experiment_by_name(experiment)
    if known is None:
        return []
    return list(store.client.search_runs([known.experiment_id], "attributes.status = 'RUNNING'"))


def _close(store: Store, run: Run, reason: str) -> None:
    store.client.set_tag(run.info.run_id, "fact.outcome", reason)
    store.client.set_terminated(run.info.run_id, "KILLED")
