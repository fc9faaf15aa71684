"""Chooses the engine that trains the runs of a study, and the number of workers."""

import os
from contextlib import AbstractContextManager, nullcontext

import joblib  # unlike psutil, it knows the share of the cores that a container has
import psutil

from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.run.engines import Engine, Here, Workers
from cnnlab.inquiry.task import Data, task

ENGINES = ("auto", "here", "workers", "ray")
WORKER_BYTES = 1_000_000_000  # of memory for torch, MLflow, the data and one network
WORKERS_PER_CORE = 4  # more than one is no faster; four still get enough memory and open files
SMALL = 30_000  # images to train in total: this process trains fewer before workers would have started


def choose_engine(
    name: str,
    store: Store,
    amount: int,
    device: str = "auto",
    workers: int | None = None,
    address: str | None = None,
    gpus_per_run: float | None = None,
    data: Data | None = None,
) -> Engine:
    """Return the engine of this name; "auto" chooses worker processes if they are faster, else this process.

    Workers are faster on a CPU with several cores (benchmarks/ has the numbers), unless the `amount` to train over all
    runs is so small that this process finishes before the workers have started. `workers` is their number; `address`
    and `gpus_per_run` are for "ray". Without `data` the workers load the task's own.

    Raises:
        LabError: there is no such engine, it doesn't have one of the options, or there are too many workers.
    """
    if name not in ENGINES:
        raise LabError(f"there is no engine {name!r}: choose {', '.join(ENGINES)}.")
    if workers and name not in ("auto", "workers"):
        raise LabError(f"workers={workers} is for the engine workers, not for {name}: leave one of the two out.")
    if workers and workers > (most := WORKERS_PER_CORE * (os.cpu_count() or 1)):
        raise LabError(f"workers={workers} is more than this machine can run: at most {most}, 4 per core.")
    if (address or gpus_per_run is not None) and name != "ray":
        raise LabError(f"an address and GPUs per run are for the engine ray, not for {name}: add --engine ray.")
    if name == "ray":
        from cnnlab.inquiry.run.ray_cluster import RayCluster

        return RayCluster(store, data, address, gpus_per_run)
    count = workers or num_workers()
    here = count == 1 or amount <= SMALL or not task().runs_on_cpu(device)
    if name == "here" or (name == "auto" and not workers and here):
        return Here(store, data)
    return Workers(store, count, data)


def engine_context(
    engine: str | Engine, store: Store, amount: int, device: str = "auto", data: Data | None = None
) -> AbstractContextManager[Engine]:
    """Return an engine as a context: a name gives that of `choose_engine`; a given engine stays open afterwards.

    Raises:
        LabError: see `choose_engine`.
    """
    return choose_engine(engine, store, amount, device, data=data) if isinstance(engine, str) else nullcontext(engine)


def num_workers() -> int:
    """Return the number of workers for this machine: one per physical core, if the memory is sufficient."""
    fitting = int(psutil.virtual_memory().available // WORKER_BYTES)
    return max(1, min(int(joblib.cpu_count(only_physical_cores=True)), fitting))
