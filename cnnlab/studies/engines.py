"""Engines: where the runs of a study are trained. One small interface, "submit a run, get its future".

process   in this process, one run after another
local     worker processes on this machine, each with its own thread
ray       a Ray cluster (`cnnlab.studies.ray_cluster`)
"""

import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Protocol, Self, runtime_checkable

import joblib
import psutil
import torch

from cnnlab.data import Data, Split
from cnnlab.device import resolve_device
from cnnlab.errors import LabError
from cnnlab.studies.worker import Job, Trained, Worker
from cnnlab.tracking.store import Store

ENGINES = ("auto", "process", "local", "ray")
WORKER_BYTES = 1_000_000_000  # of memory, with torch, MLflow, the images and one network
WORKERS_PER_CORE = 4  # more than one train no faster; so many still have the files and the memory that they need
SMALL = 30_000  # images to train in all: fewer are done sooner in this process than workers have started


@runtime_checkable
class Engine(Protocol):
    """Trains jobs, `slots` of them at a time; use it as a context."""

    slots: int
    deaths: tuple[type[BaseException], ...]  # errors that mean: the process that trained the job is gone
    on_progress: Callable[[], None]  # called while `submit` doesn't return

    def submit(self, job: Job) -> Future[Trained]:
        """Begin to train a job; one of the `slots` has to be free."""

    def images_done(self) -> int:
        """Return how many images were trained so far, over all jobs."""

    def describe(self) -> str:
        """Return in words where the runs are trained."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class InProcess:
    """Trains one job after another, here: `submit` returns when the job is done."""

    slots = 1
    deaths: tuple[type[BaseException], ...] = ()

    def __init__(self, store: Store, data: Data | None = None) -> None:
        self.on_progress: Callable[[], None] = lambda: None
        self._images = 0
        self._worker = Worker(store, data, self._count)

    def submit(self, job: Job) -> Future[Trained]:
        """Train a job."""
        future: Future[Trained] = Future()
        try:
            future.set_result(self._worker.train(job))
        except Exception as error:
            future.set_exception(error)
        return future

    def images_done(self) -> int:
        """Return how many images were trained so far."""
        return self._images

    def describe(self) -> str:
        """Return in words where the runs are trained."""
        return "in this process"

    def _count(self, images: int) -> None:
        self._images += images
        self.on_progress()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._worker.close()


class LocalWorkers:
    """Trains jobs in processes of their own on this machine.

    Every worker is an executor of one process, so that a process that dies costs its own job alone. It counts its
    images in memory that it shares with this process, and looks there whether it shall stop. The images to train on
    are in a file: a worker that dies while it starts would leave this process writing them to nobody for ever.
    """

    deaths: tuple[type[BaseException], ...] = (BrokenProcessPool,)

    def __init__(self, store: Store, workers: int, data: Data | None = None) -> None:
        self.on_progress: Callable[[], None] = lambda: None
        self.slots = workers
        self._store = store
        self._folder = tempfile.TemporaryDirectory(prefix="cnnlab-", ignore_cleanup_errors=True)
        self._images = _save(data, Path(self._folder.name) / "images.pt") if data else None
        self._context = multiprocessing.get_context("spawn")  # the same on all systems, and safe with threads
        self._shared = [self._context.RawArray("Q", 2) for _ in range(workers)]  # [images done, shall stop]
        self._pools = [self._new_pool(slot) for slot in range(workers)]
        self._futures: list[Future[Trained] | None] = [None] * workers

    def submit(self, job: Job) -> Future[Trained]:
        """Give a job to a worker that is free; one that died is replaced."""
        slot = next(i for i, future in enumerate(self._futures) if future is None or future.done())
        try:
            future = self._submit_to(slot, job)
        except BrokenProcessPool:
            self._pools[slot] = self._new_pool(slot)
            future = self._submit_to(slot, job)
        self._futures[slot] = future
        return future

    def images_done(self) -> int:
        """Return how many images were trained so far, over all workers."""
        return sum(images for images, _ in self._shared)

    def describe(self) -> str:
        """Return in words where the runs are trained."""
        return f"in {self.slots} worker process{'es' if self.slots > 1 else ''}"

    def _submit_to(self, slot: int, job: Job) -> Future[Trained]:
        with _no_main_module():  # the first job of a pool starts its process
            return self._pools[slot].submit(_train, job)

    def _new_pool(self, slot: int) -> ProcessPoolExecutor:
        arguments = (self._store, self._images, self._shared[slot])
        return ProcessPoolExecutor(1, self._context, initializer=_start_worker, initargs=arguments)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:  # nobody waits for what is being trained
            for shared in self._shared:
                shared[1] = 1
        for pool in self._pools:
            pool.shutdown(cancel_futures=True)
        self._folder.cleanup()


@contextmanager
def _no_main_module() -> Iterator[None]:
    """Start processes that don't import the program that is running.

    A worker needs nothing of it, and a script without `if __name__ == "__main__"` would run again in each of them.
    """
    program = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = program


def _save(data: Data, path: Path) -> Path:
    torch.save({"train": vars(data.train), "valid": vars(data.valid)}, path)
    return path


def _load(path: Path) -> Data:
    """Return what `_save` saved; its pages are in memory once, however many workers look at them."""
    splits = torch.load(path, mmap=True)
    return Data(Split(**splits["train"]), Split(**splits["valid"]))


# In a worker process

_worker: Worker


def _start_worker(store: Store, images: Path | None, shared: Any) -> None:
    """Make this process a worker that lives no longer than the one that started it."""
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes; the parent ends its workers
    threading.Thread(target=_end_with_parent, name="cnnlab-parent", daemon=True).start()

    def count(images: int) -> None:
        shared[0] += images
        if shared[1]:
            raise KeyboardInterrupt

    _worker = Worker(store, _load(images) if images else None, count)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _train(job: Job) -> Trained:
    return _worker.train(job)


# The choice


def choose_engine(
    name: str,
    store: Store,
    images: int,
    device: str = "auto",
    workers: int | None = None,
    address: str | None = None,
    gpus_per_run: float | None = None,
    data: Data | None = None,
) -> Engine:
    """Return the engine of this name; for "auto" worker processes where they are faster, else this process.

    Workers are faster on a CPU with several cores (benchmarks/ has the numbers), unless there are so few `images` to
    train, over all runs, that this is done before the workers have started. `workers` is for "local"; `address`
    and `gpus_per_run` are for "ray". Without `data` the workers load Fashion-MNIST.

    Raises:
        LabError: there is no such engine, or an option that it doesn't have, or too many workers.
    """
    if name not in ENGINES:
        raise LabError(f"there is no engine {name!r}: choose {', '.join(ENGINES)}.")
    if workers and name != "local":
        raise LabError(f"workers={workers} is for the engine local, not for {name}: add --engine local.")
    if workers and workers > (most := WORKERS_PER_CORE * (os.cpu_count() or 1)):
        raise LabError(
            f"workers={workers} is more than this machine can take: at most {most}, 4 for each of its cores."
        )
    if (address or gpus_per_run is not None) and name != "ray":
        raise LabError(f"an address and GPUs per run are for the engine ray, not for {name}: add --engine ray.")
    if name == "ray":
        from cnnlab.studies.ray_cluster import RayCluster

        return RayCluster(store, data, address, gpus_per_run)
    count = workers or num_workers()
    here = resolve_device(device) != "cpu" or count == 1 or images <= SMALL
    if name == "process" or (name == "auto" and here):
        return InProcess(store, data)
    return LocalWorkers(store, count, data)


def num_workers() -> int:
    """Return how many workers this machine takes: one for each physical core, as far as memory goes."""
    fitting = int(psutil.virtual_memory().available // WORKER_BYTES)
    return max(1, min(int(joblib.cpu_count(only_physical_cores=True)), fitting))
