"""What a worker does on any engine: train one run and log it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.identity import Identity
from cnnlab.inquiry.record.courier import Courier
from cnnlab.inquiry.record.run_logger import RunLogger
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.task import Data, task

THREADS = 1  # per run on a CPU: the last bits of a result depend on it, so it is the same everywhere


@dataclass(frozen=True)
class Job:
    """One run to train: everything that a worker on any machine needs to know.

    images: the fingerprint of the data to train and validate on.
    """

    experiment: str
    title: str
    config: Any
    images: str
    tags: dict[str, str]
    device: str

    @property
    def identity(self) -> Identity:
        """What identifies the run, together with its owner."""
        return Identity.of(self.config, self.images)

    @property
    def amount(self) -> int:
        """How much the run trains, in the task's unit."""
        return task().amount(self.config)


@dataclass(frozen=True)
class Trained:
    """A finished run: its final metrics, and how much was trained."""

    final: dict[str, float]
    amount: int
    notes: tuple[str, ...] = ()  # what the user should be told


class Worker:
    """Trains jobs one after another, with the same data and the same courier.

    `count` is called with each amount trained. Without `data` the task's own are loaded.
    """

    def __init__(self, store: Store, data: Data | None, count: Callable[[int], None]) -> None:
        self._data = data
        self._fingerprint = ""
        self._count = count
        self._trained = 0
        self._courier = Courier(store)

    def train(self, job: Job) -> Trained:
        """Train and log one run; its end is recorded even if it fails."""
        if self._data is None:
            self._data = task().load()
        self._fingerprint = self._fingerprint or self._data.sha256()
        if self._fingerprint != job.images:
            raise LabError("the engine has other images than the study")
        self._trained = 0
        with RunLogger(self._courier, job.experiment, job.config, job.title, job.tags, count=self._progress) as logger:
            result = task().train(job.config, self._data, logger, job.device, THREADS)
            logger.result(result, self._data)
        return Trained(result.final, self._trained)

    def close(self) -> None:
        """Deliver what has not been delivered yet."""
        self._courier.close()

    def _progress(self, amount: int) -> None:
        self._trained += amount
        self._count(amount)
