"""The record of one run in MLflow: params, facts, metrics after every epoch, figures, the model."""

import copy
import tempfile
import time
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import mlflow
import numpy as np
import torch
from matplotlib.figure import Figure
from mlflow.models import infer_signature
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.fx import config as fx_config

from cnnlab.config import Config
from cnnlab.data import Data
from cnnlab.errors import LabError
from cnnlab.figures import run_figures
from cnnlab.params import from_params, to_params
from cnnlab.probes import PROBES
from cnnlab.progress import Watcher
from cnnlab.tracking.courier import Courier
from cnnlab.tracking.dead_runs import this_process
from cnnlab.tracking.environment import environment_facts
from cnnlab.tracking.journal import Journal
from cnnlab.tracking.seal import SEAL, seal_run
from cnnlab.tracking.store import Store, first_line
from cnnlab.training import Result

WEIGHTS = "weights.safetensors"
CORRECT = "valid_correct.npy"  # whether each validation image was classified correctly: bool (N,)
MODEL_REQUIREMENTS = [f"torch=={torch.__version__.split('+')[0]}"]


class RunLogger(Watcher):
    """A reporter that records one run; use it as a context, so that the run ends whatever happens.

        with RunLogger(courier, "02-dropout", config, name="dropout=0.3, seed 1", tags={}) as log:
            log.result(fit(config, data, reporters=[log]), data)

    An interrupt (Ctrl-C) ends the run as KILLED and any other exception as FAILED, with the epochs kept.
    """

    def __init__(
        self,
        courier: Courier,
        experiment: str,
        config: Config,
        name: str,
        tags: dict[str, str],
        started: int | None = None,
    ) -> None:
        self.config = config
        self._courier = courier
        self._journal = Journal.new()
        self._started = started or _now_ms()
        self._tags: dict[str, str] = {}  # what was written, for the seal
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

    @property
    def run_id(self) -> str | None:
        """The run's id in MLflow, None while it has not arrived there."""
        return self._courier.run_id(self._journal)

    def start(self, config: Config, facts: dict[str, str]) -> None:
        """Record what was built, before the first step."""
        self._facts(facts | environment_facts())

    def report(self, epoch: int, train_loss: float, test_loss: float, metric_dict: dict[str, float]) -> None:
        """Record one epoch; mltrainer calls the validation loss `test_loss`, and `loss/valid` is the same value."""
        self.write("metrics", step=epoch, metrics={"loss/train": train_loss, **metric_dict})

    def result(self, result: Result, data: Data) -> None:
        """Record the result: the final metrics, facts, figures, the weights and the model."""
        finals = {f"final/{name}": value for name, value in result.final.items()}
        # MLflow keeps them at the run and at the model; the same time and step make them the same points.
        points = {"time": _now_ms(), "step": len(result.epochs), "metrics": finals}
        self.write("metrics", **points)
        self._facts(result.facts)
        self._save_figures(run_figures(result, data))
        self._save_model(result, data.shape)
        self.write("model", **points)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        status = "FINISHED"
        if error is not None:
            stopped = isinstance(error, KeyboardInterrupt | SystemExit)
            status = "KILLED" if stopped else "FAILED"
            self._facts({"outcome": "interrupted" if stopped else f"failed: {type(error).__name__}: {error}"[:500]})
        self.close(status)

    def write(self, event: str, **content: Any) -> None:
        """Write an event into the journal, with the time in ms since 1970, and have it carried to MLflow."""
        self._journal.append(event, **{"time": _now_ms(), **content})
        self._tags |= content.get("tags", {})
        self._metrics |= content.get("metrics", {})
        self._courier.carry(self._journal)

    def close(self, status: str, **when: int) -> None:
        """Seal what was written, and end the run."""
        self._facts({"ended": datetime.now(UTC).isoformat(timespec="milliseconds")})
        self.write("tags", tags={SEAL: seal_run(self._started, to_params(self.config), self._tags, self._metrics)})
        self.write("end", status=status, **when)
        self._courier.flush()

    def _facts(self, facts: dict[str, str]) -> None:
        self.write("tags", tags={f"fact.{name}": value for name, value in facts.items()})

    def _save_figures(self, figures: dict[str, Figure]) -> None:
        folder = self._journal.files / "figures"
        folder.mkdir(parents=True)
        for name, figure in figures.items():
            figure.savefig(folder / f"{name}.png", dpi=100)

    def _save_model(self, result: Result, shape: tuple[int, ...]) -> None:
        model = copy.deepcopy(result.model).cpu().eval()
        weights = {name: value.contiguous() for name, value in model.state_dict().items()}
        save_file(weights, self._journal.files / WEIGHTS)
        np.save(self._journal.files / CORRECT, result.valid.correct.numpy())
        self.write("files")
        save_for_mlflow(model, shape, str(self._journal.model))


def reuse_run(courier: Courier, run_id: str, experiment: str, name: str, tags: dict[str, str]) -> None:
    """Record a finished run in another experiment too: the same numbers, marked as trained elsewhere.

    It names the predictions that were on record when it was trained, whatever `tags` say. Params, facts, metrics and
    times are those of the run `run_id`; its probes, figures and model stay there.
    """
    client = courier.store.client
    run = client.get_run(run_id)
    facts = {name: value for name, value in run.data.tags.items() if name.startswith("fact.")}
    tags = {name: value for name, value in tags.items() if name != "prediction"}
    tags |= {name: value for name, value in run.data.tags.items() if name == "prediction"}
    origin = f"Trained once, as run {run_id} of {client.get_experiment(run.info.experiment_id).name}: see there."
    points: dict[tuple[int, int], dict[str, float]] = {}
    for metric in run.data.metrics:
        if metric.partition("/")[0] in PROBES:
            continue
        for point in client.get_metric_history(run_id, metric):
            points.setdefault((point.step, point.timestamp), {})[metric] = point.value
    logger = RunLogger(
        courier,
        experiment,
        from_params(Config, run.data.params),
        name,
        facts | tags | {"reused_from": run_id, "mlflow.note.content": origin},
        started=run.info.start_time,
    )
    for (step, measured), metrics in sorted(points.items()):
        logger.write("metrics", time=measured, step=step, metrics=metrics)
    logger.close(run.info.status, time=run.info.end_time)


def log_figures(store: Store, run_id: str, figures: Mapping[str, Figure]) -> None:
    """Keep figures of a run or a prediction among its artifacts, by their names; a figure of that name is replaced."""
    with tempfile.TemporaryDirectory(prefix="cnnlab-") as folder:
        for name, figure in figures.items():
            figure.savefig(Path(folder) / f"{name}.png", dpi=110)
        store.client.log_artifacts(run_id, folder, "figures")


def load_weights(store: Store, run_id: str) -> dict[str, Tensor]:
    """Return the kept weights of a run, by the names of the network's parameters.

    Raises:
        LabError: the run has no weights in the store.
    """
    with tempfile.TemporaryDirectory(prefix="cnnlab-") as folder:
        try:
            # an embedded store gives its own file, which is only read
            file = store.client.download_artifacts(run_id, WEIGHTS, folder)
            return load_file(file)
        except Exception as error:  # MLflow raises whatever the library below it raises
            reason = first_line(error)
            raise LabError(f"the run {run_id} has no weights in the store: is models/ complete? ({reason})") from None


def _now_ms() -> int:
    return int(time.time() * 1000)


def save_for_mlflow(model: nn.Module, shape: tuple[int, ...], folder: str) -> None:
    """Save a model on the CPU in MLflow's format: as a graph, which loads without this package and without pickle.

    Shapes: float32 (B, *shape) -> logits float32 (B, K), for any B.
    """
    example = np.zeros((2, *shape), dtype=np.float32)  # two images: B stays variable
    traced = fx_config.do_not_emit_stack_traces
    fx_config.do_not_emit_stack_traces = True  # they name files of this machine
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logits = model(torch.from_numpy(example)).numpy()
            mlflow.pytorch.save_model(
                model,
                folder,
                signature=infer_signature(example, logits),
                input_example=example,
                pip_requirements=MODEL_REQUIREMENTS,
            )
    finally:
        fx_config.do_not_emit_stack_traces = traced
