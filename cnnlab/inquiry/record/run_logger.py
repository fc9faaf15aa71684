"""The record of one run in MLflow: params, facts, metrics after each epoch, and files."""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Self

from mlflow.entities import Run

from cnnlab.inquiry.params import Params, from_params, to_params
from cnnlab.inquiry.record.courier import Courier
from cnnlab.inquiry.record.dead_runs import this_process
from cnnlab.inquiry.record.environment import environment_facts
from cnnlab.inquiry.record.ledger import NOTE
from cnnlab.inquiry.record.runs import run_link
from cnnlab.inquiry.record.seal import SEAL, seal_run
from cnnlab.inquiry.record.spool import Spool
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.task import Facts, Result, task


class RunLogger:
    """A watcher that records one run; use it as a context, so that the run's end is always recorded.

        with RunLogger(courier, "02-dropout", config, name="dropout=0.3, seed 1", tags={}) as log:
            log.result(task().train(config, data, log, "cpu", threads=1), data)

    An interrupt (Ctrl-C) marks the run as KILLED, any other exception as FAILED, and its epochs are kept. `count` is
    called with each amount trained.
    """

    def __init__(
        self,
        courier: Courier,
        experiment: str,
        config: Params,
        name: str,
        tags: dict[str, str],
        started: int | None = None,
        count: Callable[[int], None] = lambda amount: None,
    ) -> None:
        self.config = config
        self.progress = count
        self._courier = courier
        self._spool = Spool.new()
        self._started = started or _now_ms()
        self._tags: dict[str, str] = {}  # the tags written so far, for the seal
        self._metrics: dict[str, float] = {}
        own = {"kind": "run", "mlflow.source.name": "cnnlab", "mlflow.source.type": "LOCAL"}
        self.write(
            "create",
            time=self._started,
            target=courier.store.chosen or "project",
            experiment=experiment,
            name=name,
            params=to_params(config),
            tags=own | {"lab.process": this_process()} | tags,
        )

    def start(self, facts: Facts) -> None:
        """Record the facts about what was built, before the first step."""
        self._facts({**facts, **environment_facts()})
        self._data(facts)

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics after one epoch."""
        self.write("metrics", step=epoch, metrics=dict(metrics))

    def result(self, result: Result, data: Any) -> None:
        """Record the result: the final metrics, facts and files."""
        finals = {f"final/{name}": value for name, value in result.final.items()}
        self.write("metrics", step=len(result.epochs), metrics=finals)
        self._facts(result.facts)
        self._spool.files.mkdir()
        task().keep(result, data, self._spool.files)
        self.write("files")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        status = "FINISHED"
        if error is not None:
            stopped = isinstance(error, KeyboardInterrupt | SystemExit)
            status = "KILLED" if stopped else "FAILED"
            self._facts({"outcome": "interrupted" if stopped else f"failed: {type(error).__name__}: {error}"[:500]})
        self.close(status)

    def write(self, event: str, **content: Any) -> None:
        """Write an event to the spool, with the time in ms since 1970, and have it transferred to MLflow."""
        self._spool.append(event, **{"time": _now_ms(), **content})
        self._tags |= content.get("tags", {})
        self._metrics |= content.get("metrics", {})
        self._courier.carry(self._spool)

    def close(self, status: str, **when: int) -> None:
        """Seal what was written, and end the run."""
        self._facts({"ended": datetime.now(UTC).isoformat(timespec="milliseconds")})
        self.write("tags", tags={SEAL: seal_run(self._started, to_params(self.config), self._tags, self._metrics)})
        self.write("end", status=status, **when)
        self._courier.flush()

    def _data(self, facts: Facts) -> None:
        """Record the data of the run, so that the MLflow UI shows them."""
        fingerprint = task().fingerprint(facts)
        if fingerprint:
            name = task().data_name if fingerprint == task().own_data else "other data"
            self.write("data", name=name, digest=fingerprint[:8])

    def _facts(self, facts: Facts) -> None:
        self.write("tags", tags={f"fact.{name}": value for name, value in facts.items()})


def taken_over(run: Run, store: Store) -> str:
    """Return the description of a run that was taken over from another study: where it was trained, with a link."""
    name = store.client.get_experiment(run.info.experiment_id).name
    return f"Trained once, in {name}: {run_link(run)} has its files."


def reuse_run(courier: Courier, run_id: str, experiment: str, name: str, tags: dict[str, str]) -> None:
    """Record a finished run in another experiment too: the same numbers, marked as trained elsewhere.

    It names the predictions that were on record when the run was trained, and ignores those in `tags`. Params, facts,
    metrics and times are those of the run `run_id`; the metrics of single layers, files and model are only there.
    """
    client = courier.store.client
    run = client.get_run(run_id)
    config = from_params(task().config_type, run.data.params)
    kept = {name: value for name, value in run.data.tags.items() if name == "prediction" or name.startswith("fact.")}
    given = {name: value for name, value in tags.items() if name != "prediction"}
    tags = kept | given | {"reused_from": run_id, NOTE: taken_over(run, courier.store)}
    points: dict[tuple[int, int], dict[str, float]] = {}
    for metric in run.data.metrics:
        if not metric.startswith(task().details):
            for point in client.get_metric_history(run_id, metric):
                points.setdefault((point.step, point.timestamp), {})[metric] = point.value
    logger = RunLogger(courier, experiment, config, name, tags, started=run.info.start_time)
    logger._data({name.removeprefix("fact."): value for name, value in kept.items()})
    for (step, measured), metrics in sorted(points.items()):
        logger.write("metrics", time=measured, step=step, metrics=metrics)
    logger.close(run.info.status, time=run.info.end_time)


def _now_ms() -> int:
    return int(time.time() * 1000)
