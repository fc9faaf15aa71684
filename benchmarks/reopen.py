"""A finished study that is written without training, and read back. Nothing here imports torch directly."""

import os
import time

from benchmarks.measure import Measured
from benchmarks.project import project_environment
from cnnlab.config import BASE, replace
from cnnlab.inquiry.study import Study

SMALL = replace(BASE, train_images=640, epochs=3)


def finished_study(runs: int) -> Study:
    """Return a study of one arm with this number of seeds."""
    return Study("finished", "How long does it take to read it back?", SMALL, tuple(range(runs)))


def results(runs: int) -> object:
    """Return the table of the finished study, as a user would get it."""
    return finished_study(runs).results()


# In a separate process


def write_runs(folder: str, runs: int) -> Measured:
    """Train one small run and record it with every seed, without figures and model."""
    os.environ.update(project_environment(folder))
    from cnnlab.fashion_mnist import load_data
    from cnnlab.inquiry.record.connection import connect
    from cnnlab.inquiry.record.courier import Courier
    from cnnlab.inquiry.record.environment import owner
    from cnnlab.inquiry.record.run_logger import RunLogger
    from cnnlab.training import fit

    started = time.perf_counter()
    result = fit(SMALL, load_data(), progress=False)
    courier = Courier(connect())
    study = finished_study(runs)
    for arm, seed, config in study.runs():
        tags = {"owner": owner(), "study": study.name, "arm": arm}
        with RunLogger(courier, study.name, config, f"{arm}, seed {seed}", tags) as log:
            log.start(result.facts)
            for number, epoch in enumerate(result.epochs, start=1):
                log.epoch(number, epoch)
            finals = {f"final/{name}": value for name, value in result.final.items()}
            log.write("metrics", step=len(result.epochs), metrics=finals)
    courier.close()
    return {"total_s": time.perf_counter() - started}


def again_s(folder: str, runs: int) -> Measured:
    """Read the study twice; measure the second time."""
    os.environ.update(project_environment(folder))
    results(runs)
    started = time.perf_counter()
    results(runs)
    return {"again_s": time.perf_counter() - started}
