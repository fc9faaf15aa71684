"""The time of a logged run besides the forward pass, backward pass and optimizer."""

import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch

from benchmarks.bare import bare_step
from benchmarks.measure import Measured, Options, Pipeline, column, interleave
from benchmarks.peers import WARM_UP
from benchmarks.project import temporary_project
from benchmarks.table import Report, Table, spread
from cnnlab.config import BASE, Config, replace
from cnnlab.data import Batches, Data
from cnnlab.device import resolve_precision
from cnnlab.fashion_mnist import load_data
from cnnlab.figures import run_figures
from cnnlab.inquiry.record.connection import connect
from cnnlab.inquiry.record.courier import Courier
from cnnlab.inquiry.record.run_logger import RunLogger
from cnnlab.one_run import Passing, save_for_mlflow
from cnnlab.training import Result, fit

GOAL = 0.05


class Size(NamedTuple):
    """The size of one run."""

    images: int
    epochs: int

    def __str__(self) -> str:
        return f"{self.epochs} x {self.images:,} images"


FULL, QUICK = (Size(10_000, 3), Size(55_000, 1)), (Size(640, 1),)
PARTS = {
    "step_s": "forward, backward, optimiser, schedule (the bare loop)",
    "data_s": "data: order, batches, normalisation",
    "metrics_s": "metrics: reading the training loss, counting (rest of the training loop)",
    "set_up_s": "set-up: subset, network, facts",
    "journal_s": "logging during the training",
    "figures_s": "figures",
    "model_s": "saving the model in MLflow's format",
    "delivery_s": "logging of the result, delivery to MLflow",
}


def run(options: Options) -> Report:
    """Measure a run of each size."""
    sizes = QUICK if options.quick else FULL
    repeats = options.repeats or (1 if options.quick else 5)
    tables = [table for size in sizes for table in _measure(size, repeats, options)]
    return Report(
        "Overhead of a logged run",
        f"BASE in {resolve_precision(BASE.precision, 'cpu')}, with one thread, {' and '.join(map(str, sizes))}; "
        f"n = {repeats} repetitions in turn. "
        "Median (smallest to largest).",
        tables,
        [
            "A run is `RunLogger`, `fit` and `result`, up to the moment when everything is in an SQLite store.",
            "The bare loop has its batches ready and normalised in memory; network, memory format, optimiser, schedule "
            "and the number of steps are the same.",
            "Data, figures and model are timed alone, after the run; the rest of the training loop is the training "
            "time less the bare loop and the data, so that it also holds the noise between two processes.",
        ],
    )


def _measure(size: Size, repeats: int, options: Options) -> list[Table]:
    arguments = size._asdict()
    pipelines = [Pipeline(f"logged run, {size}", logged, arguments), Pipeline(f"bare loop, {size}", bare, arguments)]
    runs, steps = interleave(pipelines, repeats, options.say).values()
    for one, step in zip(runs, steps, strict=True):
        one["step_s"] = step["step_s"]
        one["metrics_s"] = one["training_s"] - one["data_s"] - one["step_s"]
        one["share"] = 100 * (1 - one["step_s"] / one["run_s"])
    summary = Table(
        f"**{size}.** Share of the run that is not the bare loop; goal: at most {GOAL:.0%}.",
        ("logged run less its evaluation, s", "bare loop, s", "share, %", "evaluation (not counted), s"),
        [tuple(spread(column(runs, name), digits=2) for name in ("run_s", "step_s", "share", "evaluation_s"))],
    )
    whole = median(column(runs, "run_s"))
    rows = [
        (text, spread(column(runs, name), digits=2), f"{100 * median(column(runs, name)) / whole:.1f}")
        for name, text in PARTS.items()
    ]
    return [summary, Table("Where it goes:", ("part", "seconds", "% of the run"), rows)]


# In a separate process


def bare(seed: int, images: int, epochs: int) -> Measured:
    """Train on batches that are already in memory."""
    torch.set_num_threads(1)
    data, config = load_data(), _config(seed, images, epochs)
    fit(_short(config), data, device="cpu", progress=False)  # fills caches and the allocator as in a run
    batches = list(
        Batches(data.train.take(torch.arange(images)), config.batch_size, data.normaliser(), torch.Generator())
    )
    step = bare_step(config, num_steps=epochs * len(batches))
    started = time.perf_counter()
    for _ in range(epochs):
        for x, y in batches:
            step(x, y)
    return {"step_s": time.perf_counter() - started}


def logged(seed: int, images: int, epochs: int) -> Measured:
    """Train and log a run as a worker does; then time some of its parts separately."""
    torch.set_num_threads(1)
    data, config = load_data(), _config(seed, images, epochs)
    with temporary_project() as folder:
        courier = Courier(connect())
        log_run(courier, _short(config), data)
        measured, result = log_run(courier, config, data)
        courier.close()
        measured |= _parts(result, data, folder)
    measured["delivery_s"] -= measured["figures_s"] + measured["model_s"]
    return measured


def log_run(courier: Courier, config: Config, data: Data) -> tuple[Measured, Result]:
    """Train and log one run; `run_s` excludes its evaluation."""
    started = time.perf_counter()
    with RunLogger(courier, "benchmark", config, "a run", {}) as log:
        reporter = TimedReporter(log)
        result = fit(config, data, [reporter], device="cpu", progress=False)
        fitted = time.perf_counter()
        log.result(result, data)
    ended = time.perf_counter()
    epochs_s = sum(epoch["time/epoch_s"] for epoch in result.epochs)
    training_s = sum(config.train_images / epoch["time/images_per_s"] for epoch in result.epochs)
    return {
        "run_s": ended - started - (epochs_s - training_s),
        "training_s": training_s,
        "evaluation_s": epochs_s - training_s,
        "set_up_s": fitted - started - epochs_s - reporter.seconds,
        "journal_s": reporter.seconds,
        "delivery_s": ended - fitted,
    }, result


class TimedReporter(Passing):
    """Passes everything on to the logger of a run, and measures how many seconds this takes."""

    def __init__(self, log: RunLogger) -> None:
        super().__init__(log)
        self.seconds = 0.0

    def start(self, config: Config, facts: dict[str, str]) -> None:
        """Pass the facts on."""
        started = time.perf_counter()
        super().start(config, facts)
        self.seconds += time.perf_counter() - started

    def report(self, epoch: int, train_loss: float, test_loss: float, metric_dict: dict[str, float]) -> None:
        """Pass the metrics of one epoch on."""
        started = time.perf_counter()
        super().report(epoch, train_loss, test_loss, metric_dict)
        self.seconds += time.perf_counter() - started


def _parts(result: Result, data: Data, folder: Path) -> Measured:
    """Return the seconds of the parts that can be timed separately."""
    config = result.config
    batches = Batches(
        data.train.take(torch.arange(config.train_images)), config.batch_size, data.normaliser(), torch.Generator()
    )
    times = [time.perf_counter()]
    for _ in range(config.epochs):
        for _batch in batches:
            pass
    times.append(time.perf_counter())
    for name, figure in run_figures(result, data).items():
        figure.savefig(folder / f"{name}.png", dpi=100)
    times.append(time.perf_counter())
    with TemporaryDirectory() as model:
        save_for_mlflow(result.model.cpu().eval(), data.shape, model)
    times.append(time.perf_counter())
    data_s, figures_s, model_s = (after - before for before, after in pairwise(times))
    return {"data_s": data_s, "figures_s": figures_s, "model_s": model_s}


def _config(seed: int, images: int, epochs: int) -> Config:
    return replace(BASE, train_images=images, epochs=epochs, seed=seed)


def _short(config: Config) -> Config:
    return replace(config, train_images=min(config.train_images, WARM_UP), epochs=1)
