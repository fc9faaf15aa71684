"""Engines: where the runs of a study are trained. An engine is an `Executor` that takes jobs and returns `Trained`.

here      in this process, one run after another
workers   worker processes on this machine, each with its own thread
ray       a Ray cluster (`cnnlab.inquiry.run.ray_cluster`)
"""

import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from cnnlab.inquiry.log import Collector, only_collect
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.run.start import worker_context
from cnnlab.inquiry.run.worker import Job, Trained, Worker
from cnnlab.inquiry.task import Data, Task, install, task


class Engine(Executor):
    """Trains jobs, `slots` of them at a time; use it as a context."""

    slots = 1
    deaths: tuple[type[BaseException], ...] = ()  # errors which mean that the process that trained the job died
    on_progress: Callable[[], None] = staticmethod(lambda: None)  # called while `submit` doesn't return

    def submit(self, job: Job) -> Future[Trained]:  # type: ignore[override]
        """Start training a job; one of the `slots` must be free."""
        raise NotImplementedError

    def trained(self) -> int:
        """Return the amount trained so far, over all jobs."""
        raise NotImplementedError

    def describe(self) -> str:
        """Return a description of where the runs are trained."""
        raise NotImplementedError


class Here(Engine):
    """Trains one job after another, in this process: `submit` returns when the job is done."""

    def __init__(self, store: Store, data: Data | None = None) -> None:
        self._trained = 0
        self._worker = Worker(store, data, self._count)

    def submit(self, job: Job) -> Future[Trained]:  # type: ignore[override]
        """Train a job."""
        future: Future[Trained] = Future()
        try:
            future.set_result(self._worker.train(job))
        except Exception as error:
            future.set_exception(error)
        return future

    def trained(self) -> int:
        """Return the amount trained so far."""
        return self._trained

    def describe(self) -> str:
        """Return a description of where the runs are trained."""
        return "in this process"

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Deliver what has not been delivered yet."""
        self._worker.close()

    def _count(self, amount: int) -> None:
        self._trained += amount
        self.on_progress()


class Workers(Engine):
    """Trains jobs in separate processes on this machine.

    Every worker is an executor with a single process, so a process that dies costs only its own job. The memory that it
    shares with this process contains the amount trained and whether to stop. The data are passed in a file: if a worker
    died while starting, this process would wait forever to send them.
    """

    deaths = (BrokenProcessPool,)

    def __init__(self, store: Store, workers: int, data: Data | None = None) -> None:
        self.slots = workers
        self._store = store
        self._folder = tempfile.TemporaryDirectory(prefix="cnnlab-", ignore_cleanup_errors=True)
        self._file = Path(self._folder.name) / "data.pickle" if data else None
        if self._file:
            self._file.write_bytes(pickle.dumps(data))
        self._shared = [multiprocessing.RawArray("Q", 2) for _ in range(workers)]  # [amount trained, should stop]
        self._pools: dict[int, ProcessPoolExecutor] = {}
        self._futures: list[Future[Trained] | None] = [None] * workers

    def submit(self, job: Job) -> Future[Trained]:  # type: ignore[override]
        """Give a job to a free worker; a worker that died is replaced."""
        slot = next(i for i, future in enumerate(self._futures) if future is None or future.done())
        try:
            future = self._submit_to(slot, job)
        except BrokenProcessPool:
            del self._pools[slot]
            future = self._submit_to(slot, job)
        self._futures[slot] = future
        return future

    def trained(self) -> int:
        """Return the amount trained so far, over all workers."""
        return sum(done for done, _ in self._shared)

    def describe(self) -> str:
        """Return a description of where the runs are trained."""
        return f"in {self.slots} worker process{'es' if self.slots > 1 else ''}"

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Stop the workers."""
        for pool in self._pools.values():
            pool.shutdown(wait, cancel_futures=True)
        self._folder.cleanup()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:  # nobody waits for the jobs in progress
            for shared in self._shared:
                shared[1] = 1
        self.shutdown()

    def _submit_to(self, slot: int, job: Job) -> Future[Trained]:
        if slot not in self._pools:
            arguments = (dict(os.environ), task(), self._store, self._file, self._shared[slot])
            self._pools[slot] = ProcessPoolExecutor(1, worker_context(), initializer=_start_worker, initargs=arguments)
        with _no_main_module():  # the first job of a pool starts its process
            return self._pools[slot].submit(_train, job)


@contextmanager
def _no_main_module() -> Iterator[None]:
    """Start processes that don't import the main program.

    A worker doesn't need it, and a script without `if __name__ == "__main__"` would run again in each process.
    """
    program = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = program


# In a worker process

_worker: Worker
_said: Collector


def _start_worker(environment: dict[str, str], science: Task, store: Store, file: Path | None, shared: Any) -> None:
    """Make this process a worker that ends when its parent process ends."""
    global _worker, _said
    _said = only_collect()
    os.environ.clear()  # it may have been forked from a process that started before a variable was set
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent stops its workers
    threading.Thread(target=_end_with_parent, name="cnnlab-parent", daemon=True).start()

    def count(amount: int) -> None:
        shared[0] += amount
        if shared[1]:
            raise KeyboardInterrupt

    install(science)
    _worker = Worker(store, pickle.loads(file.read_bytes()) if file else None, count)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _train(job: Job) -> Trained:
    return replace(_worker.train(job), notes=_said.take())
