"""Transfers spools to MLflow: in order, each entry once, and with retries until it succeeds."""

import threading
import time
from datetime import UTC, datetime
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from cnnlab.inquiry.log import log
from cnnlab.inquiry.mlflow_private import has_model, log_model
from cnnlab.inquiry.record.dead_runs import GONE
from cnnlab.inquiry.record.seal import ARRIVED, SEAL
from cnnlab.inquiry.record.spool import Spool, leftovers, spool_folder
from cnnlab.inquiry.record.store import Store, experiment_id, first_line

RETRY_S = 2.0


def deliver(spool: Spool, client: MlflowClient) -> str:
    """Transfer the new entries of a spool to MLflow; return the id of the run there.

    Raises:
        Exception: any error of MLflow when the store can't be reached. The entries that arrived are remembered:
            the next call continues from there.
    """
    done, run_id = spool.delivered
    for entry in spool.entries()[done:]:
        run_id = _EVENTS[entry["event"]](client, spool, run_id, entry) or run_id
        done += 1
        spool.mark_delivered(done, run_id)
    return run_id


def _create(client: MlflowClient, spool: Spool, run_id: str, entry: dict[str, Any]) -> str:
    experiment = experiment_id(client, entry["experiment"])
    # After a crash the run may already exist without its id being saved.
    known = client.search_runs([experiment], f"tags.`lab.journal` = '{spool.id}'", max_results=1)
    if known:
        run = known[0]
    else:
        tags = entry["tags"] | {"lab.journal": spool.id}
        run = client.create_run(experiment, entry["time"], tags, run_name=entry["name"])
    client.log_batch(run.info.run_id, params=[Param(k, v) for k, v in entry["params"].items()])
    return str(run.info.run_id)


def _metrics(client: MlflowClient, spool: Spool, run_id: str, entry: dict[str, Any]) -> None:
    points = [Metric(k, v, entry["time"], entry["step"]) for k, v in entry["metrics"].items()]
    client.log_batch(run_id, metrics=points)


def _tags(client: MlflowClient, spool: Spool, run_id: str, entry: dict[str, Any]) -> None:
    arrived = {ARRIVED: datetime.now(UTC).isoformat(timespec="milliseconds")} if SEAL in entry["tags"] else {}
    client.log_batch(run_id, tags=[RunTag(k, v) for k, v in (entry["tags"] | arrived).items()])


def _data(client: MlflowClient, spool: Spool, run_id: str, entry: dict[str, Any]) -> None:
    data = Dataset(entry["name"], entry["digest"], source_type="code", source="{}")
    inputs = [DatasetInput(data, [InputTag("mlflow.data.context", "training")])]
    try:
        client.log_inputs(run_id, inputs)
    except MlflowException:  # another worker recorded the same data at the same moment
        client.log_inputs(run_id, inputs)


def _files(client: MlflowClient, spool: Spool, run_id: str, entry: dict[str, Any]) -> None:
    client.log_artifacts(run_id, str(spool.files))


def _model(client: MlflowClient, spool: Spool, run_id: str, entry: dict[str, Any]) -> None:
    """Transfer the model that an earlier version of the lab saved for a run."""
    if not has_model(client, run_id):  # otherwise it arrived just before a crash
        log_model(client, run_id, spool.model)


def _end(client: MlflowClient, spool: Spool, run_id: str, entry: dict[str, Any]) -> None:
    client.set_terminated(run_id, entry["status"], entry["time"])


_EVENTS = {
    "create": _create,
    "metrics": _metrics,
    "tags": _tags,
    "data": _data,
    "files": _files,
    "model": _model,
    "end": _end,
}


class Courier:
    """A thread that transfers the spools of this process to MLflow, so that training never waits.

    If the store stops answering, the spools keep the measurements, the student is told once, and the
    courier tries again until it succeeds. If the project's server has ended, the courier writes
    directly to `mlflow.db`, which contains the server's runs.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._began_at = store.uri
        self._spools: list[Spool] = []
        self._state = threading.Condition()
        self._asked = 0  # the number of requests to transfer something
        self._done = 0  # the number of those that are done
        self._closing = False
        self._failures = 0  # in a row
        self._told = False
        self._thread = threading.Thread(target=self._work, name="cnnlab-courier", daemon=True)
        self._thread.start()

    def carry(self, spool: Spool) -> None:
        """Transfer a spool, or the new entries of a known one."""
        with self._state:
            if spool not in self._spools:
                self._spools.append(spool)
            self._asked += 1
            self._state.notify_all()

    def flush(self) -> bool:
        """Wait until everything has arrived; return False as soon as the store turns out to be unreachable."""
        with self._state:
            asked = self._asked
            while self._done < asked and self._failures < 2 and self._thread.is_alive():
                self._state.wait(timeout=1)
            return self._done >= asked

    def close(self) -> None:
        """Deliver what can be delivered, report the rest, and end the thread."""
        self.flush()
        with self._state:
            self._closing = True
            self._state.notify_all()
        self._thread.join(timeout=60)
        for spool in self._spools:
            spool.release()
        if self._spools:
            log.warning(
                f"Runs not in MLflow yet: {len(self._spools)}. {self._began_at} doesn't answer; all data are kept in "
                f"{spool_folder()}, and the next cnnlab command delivers them."
            )

    def _work(self) -> None:
        while True:
            with self._state:
                self._state.wait_for(lambda: self._done < self._asked or self._closing)
                if self._closing:
                    return
                asked = self._asked
            arrived = self._carry_all()
            with self._state:
                self._state.notify_all()
                if arrived:
                    self._done, self._failures = asked, 0
                else:
                    self._failures += 1
                    self._state.wait_for(lambda: self._closing, timeout=RETRY_S)

    def _carry_all(self) -> bool:
        """Transfer the new entries of every spool; return whether all of them arrived."""
        arrived = True
        for spool in list(self._spools):
            try:
                deliver(spool, self._client())
                if is_complete(spool):
                    self._spools.remove(spool)
                    spool.remove()
            except Exception as error:  # after any error, the spool still has the measurements: try again later
                arrived = False
                self._tell(
                    f"The MLflow store doesn't answer ({first_line(error)}). Training continues, nothing is lost: "
                    f"the measurements are kept in {spool_folder()} and delivered when it does."
                )
        return arrived

    def _client(self) -> MlflowClient:
        client = self.store.client
        if self._began_at.startswith("http") and client.tracking_uri.startswith("sqlite"):
            self._tell(
                f"The MLflow server {self._began_at} stopped answering. Training continues, nothing is lost: the "
                "measurements are written directly to mlflow.db. ./start_server.sh restarts the server."
            )
        return client

    def _tell(self, line: str) -> None:
        if not self._told:  # once is enough
            self._told = True
            log.warning(line)


def is_complete(spool: Spool) -> bool:
    """Return whether the run has ended and is completely in MLflow."""
    entries = spool.entries()
    return bool(entries) and entries[-1]["event"] == "end" and spool.delivered[0] == len(entries)


def deliver_leftovers() -> None:
    """Deliver what earlier processes could not, and close the runs of processes that died as KILLED."""
    for spool in leftovers():
        entries = spool.entries()
        if not entries:
            spool.remove()
            continue
        if entries[-1]["event"] != "end":
            spool.append("tags", tags={"fact.outcome": GONE})
            spool.append("end", status="KILLED", time=entries[-1].get("time", int(time.time() * 1000)))
        target = entries[0]["target"]
        store = Store() if target == "project" else Store(target)
        try:
            run_id = deliver(spool, store.client)
        except Exception as error:  # kept for the next time
            spool.release()
            log.warning(f"The run {entries[0]['name']} is still waiting in {spool.folder}: {first_line(error)}")
            continue
        status = spool.entries()[-1]["status"]
        log.info(f"Delivered to MLflow: the rest of the run {entries[0]['name']} ({run_id}, {status}).")
        spool.remove()
