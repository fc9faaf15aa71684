"""Gives jobs to an engine, and trains all of them even if some fail."""

import uuid
from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import replace

from tqdm import tqdm

from cnnlab.inquiry.log import log
from cnnlab.inquiry.record.courier import deliver_leftovers
from cnnlab.inquiry.record.dead_runs import close_job
from cnnlab.inquiry.record.store import Store, in_words
from cnnlab.inquiry.run.engines import Engine
from cnnlab.inquiry.run.worker import Job, Trained
from cnnlab.inquiry.task import task

LOOK_EVERY_S = 0.3


class Dispatcher:
    """Keeps an engine busy until every job has ended, and shows one progress bar for all of them.

    A job is tried once more if its process died or it ran out of memory.
    """

    def __init__(self, engine: Engine, store: Store, bar: tqdm) -> None:
        self._engine = engine
        self._store = store
        self._bar = bar
        self._failures: list[str] = []
        self._told: set[str] = set()
        self._shown = engine.trained()

    def train(self, jobs: list[Job]) -> list[str]:
        """Train all jobs; return a description of each failure."""
        self._engine.on_progress = self._show_progress
        waiting, running = deque(jobs), dict[Future[Trained], Job]()
        while waiting or running:
            while waiting and len(running) < self._engine.slots:
                job = waiting.popleft()
                running[self._engine.submit(job)] = job
            ended, _ = wait(running, timeout=LOOK_EVERY_S, return_when=FIRST_COMPLETED)
            self._show_progress()
            for future in ended:
                job, error = running.pop(future), future.exception()
                if error is None:
                    self._note(job, future.result())
                elif self._may_try_again(job, error):
                    waiting.append(replace(job, tags=job.tags | {"lab.job": uuid.uuid4().hex, "attempt": "2"}))
        return self._failures

    def _show_progress(self) -> None:
        trained = self._engine.trained()
        self._bar.update(trained - self._shown)
        self._shown = trained

    def _expect(self, amount: int) -> None:
        self._bar.total = (self._bar.total or 0) + amount

    def _note(self, job: Job, trained: Trained) -> None:
        self._expect(trained.amount - job.amount)  # fewer than planned where it stopped early
        results = ", ".join(metric.say_level(trained.final[metric.name]) for metric in task().metrics[:2])
        self._bar.set_postfix_str(f"{job.title}: {results}")
        for note in set(trained.notes) - self._told:
            self._told.add(note)
            log.warning(note)

    def _may_try_again(self, job: Job, error: BaseException) -> bool:
        """Record why a job did not finish; return whether to try it once more."""
        died = isinstance(error, self._engine.deaths)
        reason = "its process died (killed, or out of memory)" if died else in_words(error)
        if died:
            self._record_death(job, reason)
        if "attempt" not in job.tags and (died or _is_out_of_memory(error)):
            log.warning(f"{job.title}: {reason}. This is on record; the run is tried once more.")
            self._expect(job.amount)
            return True
        log.warning(f"{job.title} failed: {reason}.")
        self._failures.append(f"{job.title}: {reason}")
        return False

    def _record_death(self, job: Job, reason: str) -> None:
        """Close the run of a process that died."""
        deliver_leftovers()  # everything that it measured, if it was on this machine
        try:
            close_job(self._store, job.experiment, job.tags["lab.job"], f"interrupted: {reason}")
        except Exception as error:  # the store can't be reached now; the next command will look for dead runs again
            log.warning(f"The end of {job.title} could not be recorded now ({in_words(error)}).")


def _is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error is Python's MemoryError or a library's error for the same problem."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
