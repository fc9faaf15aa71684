"""The same study on each engine of the lab: in this process, in local workers, on a Ray of this machine."""

import dataclasses
import time
from concurrent.futures import Future

import torch

from benchmarks.measure import Measured, Options, Pipeline, column
from benchmarks.project import quiet, temporary_project
from benchmarks.study import WARM_UP, Size, first_start, lab, small_study, warm_and_measure
from benchmarks.table import Report, Table, ratio, spread
from cnnlab.studies.engines import InProcess
from cnnlab.studies.worker import Job, Trained
from cnnlab.tracking.connection import connect

FULL, QUICK = Size(4, 10_000, 3, repeats=3), WARM_UP
GOAL = 0.10  # more than local workers need
LOCAL, RAY = "local workers, 1 thread each", "Ray on this machine, 1 thread each"


def run(options: Options) -> Report:
    """Measure all engines."""
    size = QUICK if options.quick else FULL
    measured, repeats = warm_and_measure(_pipelines, size, options)
    local_s, local_after_s = column(measured[LOCAL], "total_s"), _after_start(measured[LOCAL])
    rows = []
    for name, results in measured.items():
        total_s, start_s, after_s = column(results, "total_s"), column(results, "start_s"), _after_start(results)
        cells = (
            spread(total_s),
            ratio(total_s, local_s),
            spread(start_s),
            spread(after_s),
            ratio(after_s, local_after_s),
        )
        rows.append((name, str(results[0]["slots"]), *cells))
    columns = ("engine", "runs at a time", "seconds in all", "÷ local", "start-up, s", "after it, s", "÷ local")
    return Report(
        "Engines",
        size.describe(repeats),
        [Table(f"Goal: Ray needs at most {GOAL:.0%} more time than local workers.", columns, rows)],
        ["Start-up is the time until the first run begins: a new MLflow store, the workers and what they import."],
    )


def _pipelines(size: Size) -> list[Pipeline]:
    return [
        Pipeline(LOCAL, lab, size.arguments | {"engine": "local"}),
        Pipeline(RAY, lab, size.arguments | {"engine": "ray"}),
        Pipeline("one process, all threads", all_threads, size.arguments),
    ]


def _after_start(results: list[Measured]) -> list[float]:
    return [one["total_s"] - one["start_s"] for one in results]


# In a process of its own


class AllThreads(InProcess):
    """Trains one job after another, each with as many threads as torch takes by itself."""

    def submit(self, job: Job) -> Future[Trained]:
        """Train a job."""
        return super().submit(dataclasses.replace(job, threads=torch.get_num_threads()))


def all_threads(seed: int, num_seeds: int, images: int, epochs: int) -> Measured:
    """Run the study in one process with all threads, which no engine of the lab does by itself."""
    study = small_study(seed, num_seeds, images, epochs)
    with temporary_project():
        began, started = time.time(), time.perf_counter()
        store = connect(quiet)
        with AllThreads(store) as where:
            study.run(store=store, say=quiet, engine=where, device="cpu", progress=False)
        total_s = time.perf_counter() - started
        return {"total_s": total_s, "start_s": first_start(study, store) - began, "slots": where.slots}
