"""What a worker does, wherever it is: train one run and log it."""

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import torch

from cnnlab.config import Config
from cnnlab.data import Data
from cnnlab.errors import LabError
from cnnlab.fashion_mnist import load_data
from cnnlab.progress import Watcher
from cnnlab.tracking.courier import Courier
from cnnlab.tracking.run_logger import RunLogger
from cnnlab.tracking.store import Store
from cnnlab.tracking.table import Identity
from cnnlab.training import fit


@dataclass(frozen=True)
class Job:
    """One run to be trained: all that a worker needs to know, wherever it is.

    images: the fingerprint of the images to train and validate on.
    """

    experiment: str
    title: str
    config: Config
    images: str
    tags: dict[str, str]
    device: str = "auto"
    threads: int = 1

    @property
    def identity(self) -> Identity:
        """What the run is, beside its owner."""
        return Identity.of(self.config, self.images)

    @property
    def num_images(self) -> int:
        """How many images it trains, over all epochs."""
        return self.config.epochs * self.config.train_images


@dataclass(frozen=True)
class Trained:
    """A run that came to its end: its id in MLflow (None while that can't be reached) and its final metrics."""

    run_id: str | None
    final: dict[str, float]
    images: int  # trained, over all epochs
    notes: tuple[str, ...]  # what the user should be told


class _Counter(Watcher):
    """Hands on how many images were trained on."""

    def __init__(self, count: Callable[[int], None]) -> None:
        self._count = count

    def progress(self, images: int, said: str) -> None:
        self._count(images)


class Worker:
    """Trains jobs one after another, with the same data and the same courier.

    `count` is told of every batch how many images it had. Without `data` Fashion-MNIST is loaded.
    """

    def __init__(self, store: Store, data: Data | None, count: Callable[[int], None]) -> None:
        self._notes: list[str] = []
        self._data = data
        self._counter = _Counter(count)
        self._courier = Courier(store, self._notes.append)

    def train(self, job: Job) -> Trained:
        """Train and log one run; whatever happens, the run has an end in the record."""
        if self._data is None:
            self._data = load_data(say=lambda line: None)
        if self._data.sha256() != job.images:
            raise LabError("the engine was given other images than the study")
        threads = torch.get_num_threads()
        torch.set_num_threads(job.threads)
        try:
            with RunLogger(self._courier, job.experiment, job.config, job.title, job.tags) as log:
                result = fit(job.config, self._data, [log, self._counter], device=job.device, progress=False)
                log.result(result, self._data)
        finally:
            torch.set_num_threads(threads)
        notes, self._notes[:] = tuple(self._notes), []
        return Trained(log.run_id, result.final, int(result.facts["images_seen"]), notes)

    def close(self) -> None:
        """Deliver what is left."""
        self._courier.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
