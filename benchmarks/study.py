"""Wall time of a whole study, logged to MLflow: the lab with worker processes against the stock pipeline."""

import os
import time
from collections.abc import Callable
from typing import NamedTuple

import mlflow
import torch
from mltrainer import ReportTypes

from benchmarks.measure import Measured, Options, Pipeline, column, interleave
from benchmarks.peers import BATCH_SIZE, first, stock_trainer
from benchmarks.project import temporary_project
from benchmarks.table import Report, Table, ratio, spread
from cnnlab.config import BASE, replace
from cnnlab.fashion_mnist import load_data
from cnnlab.inquiry.record.connection import connect
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.run.choose import choose_engine
from cnnlab.inquiry.run.runner import run_study
from cnnlab.inquiry.study import Study

DROPOUTS = (0.0, 0.5)
GOAL = 2.5
STOCK, LAB = "stock: one run after another", "lab: worker processes"


class Size(NamedTuple):
    """How much is trained: each of the two arms of a study has `seeds` seeds."""

    seeds: int
    images: int
    epochs: int
    repeats: int

    @property
    def arguments(self) -> dict[str, int]:
        """The arguments of a measured process."""
        return {"num_seeds": self.seeds, "images": self.images, "epochs": self.epochs}

    def describe(self, repeats: int) -> str:
        """Return the sizes in words."""
        return (
            f"{len(DROPOUTS) * self.seeds} runs: dropout {' and '.join(map(str, DROPOUTS))}, {self.seeds} seeds each, "
            f"{self.epochs} x {self.images:,} images per run; n = {repeats} repetitions in turn. "
            "Median (smallest to largest)."
        )


FULL, QUICK = Size(4, 10_000, 3, repeats=3), Size(4, 640, 1, repeats=1)
WARM_UP = Size(1, 640, 1, repeats=1)  # loads the files of all packages into the system's cache


def run(options: Options) -> Report:
    """Measure both."""
    size = QUICK if options.quick else FULL
    measured, repeats = warm_and_measure(_pipelines, size, options)
    stock_s = column(measured[STOCK], "total_s")
    rows = []
    for name, results in measured.items():
        seconds = column(results, "total_s")
        rows.append((name, spread(seconds), ratio(stock_s, seconds)))
    after_start = [one["total_s"] - one["start_s"] for one in measured[LAB]]
    rows.append((f"{LAB}, from the start of the first run", spread(after_start), ratio(stock_s, after_start)))
    return Report(
        "Wall time of a study",
        size.describe(repeats),
        [Table(f"Goal: {GOAL:g} times faster than stock.", ("pipeline", "seconds", "times faster than stock"), rows)],
        [
            "Both on the CPU. The time begins after the imports, with an empty store, and includes loading the images.",
            "Each run of the lab also stores figures, its facts and its model; a stock run stores its metrics only.",
            f"Stock trains with all cores ({measured[STOCK][0]['threads']} threads); the lab had "
            f"{measured[LAB][0]['slots']} workers of one thread. Precision of the lab's runs, as recorded: "
            f"{measured[LAB][0]['precision']}.",
        ],
    )


def warm_and_measure(
    pipelines: Callable[[Size], list[Pipeline]], size: Size, options: Options
) -> tuple[dict[str, list[Measured]], int]:
    """Measure pipelines that run studies, after a small warm-up round; also return the number of repetitions."""
    repeats = options.repeats or size.repeats
    if not options.quick:
        interleave(pipelines(WARM_UP), 1, options.say)
    return interleave(pipelines(size), repeats, options.say), repeats


def _pipelines(size: Size) -> list[Pipeline]:
    return [Pipeline(STOCK, stock, size.arguments), Pipeline(LAB, lab, size.arguments | {"engine": "workers"})]


# In a separate process


def lab(seed: int, engine: str, num_seeds: int, images: int, epochs: int) -> Measured:
    """Run a study with one of the lab's engines."""
    study = small_study(seed, num_seeds, images, epochs)
    with temporary_project():
        began, started = time.time(), time.perf_counter()
        store = connect()
        with choose_engine(engine, store, images, device="cpu") as where:
            runs = run_study(study, store, where, "cpu", progress=False, explore=True)
            slots = where.slots
        total_s = time.perf_counter() - started
        precision = ", ".join(sorted(set(runs["fact.precision"])))
        start_s = first_start(study, store) - began
        return {"total_s": total_s, "start_s": start_s, "slots": slots, "precision": precision}


def small_study(seed: int, num_seeds: int, images: int, epochs: int) -> Study:
    """Return the study to time; another `seed` gives it other seeds."""
    base = replace(BASE, train_images=images, epochs=epochs, batch_size=BATCH_SIZE)
    seeds = tuple(range(seed * num_seeds, (seed + 1) * num_seeds))
    return Study("benchmark", "How long does it take?", base, seeds, {"dropout": DROPOUTS})


def first_start(study: Study, store: Store) -> float:
    """Return when the first run of a study began, in seconds since 1970."""
    runs = store.client.search_runs([store.experiment_id(study.name)])
    return float(min(run.info.start_time for run in runs)) / 1000


def stock(seed: int, num_seeds: int, images: int, epochs: int) -> Measured:
    """Train as many runs one after another with mltrainer, each logged by its own MLflow reporter."""
    with temporary_project() as folder:
        os.chdir(folder)  # MLflow creates a folder for artifacts in the working directory
        started = time.perf_counter()
        data = load_data()
        train = first(data.train, images)
        mlflow.set_tracking_uri(f"sqlite:///{folder.as_posix()}/mlflow.db")
        mlflow.set_experiment("stock")
        for run_seed in range(seed * num_seeds, (seed + 1) * num_seeds):
            for dropout in DROPOUTS:
                torch.manual_seed(run_seed)
                with mlflow.start_run(run_name=f"dropout={dropout}, seed {run_seed}"):
                    mlflow.log_params({"dropout": dropout, "seed": run_seed})
                    steps, report = images // BATCH_SIZE, [ReportTypes.MLFLOW]
                    stock_trainer(train, data.valid, folder, epochs, steps, dropout, report=report).loop()
        return {"total_s": time.perf_counter() - started, "threads": torch.get_num_threads()}
