"""The seam: everything that the engine has to know about a science. One task is installed per process."""

import difflib
import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.metrics import Metric
from cnnlab.inquiry.params import Params

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

Facts = Mapping[str, str]  # what was measured about a run, by name
History = Callable[[str], list[float]]  # the values of a metric, one per epoch
Kept = Mapping[str, Path | None]  # files of a run, by name; None if a file is missing


@runtime_checkable
class Data(Protocol):
    """The data for training and validation; they can be pickled."""

    @property
    def test(self) -> Any:
        """The data that only the vault uses; None if there are none, or if they are locked away."""

    def sha256(self) -> str:
        """Return a fingerprint of everything except the test images."""


class Watcher(Protocol):
    """Receives the events of one training."""

    def start(self, facts: Facts) -> None:
        """Receive the facts about what was built, before the first step."""

    def progress(self, amount: int) -> None:
        """Receive the additional amount trained, in the unit of `Task.amount`."""

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Receive the metrics after one epoch."""


class Result(Protocol):
    """One finished training."""

    final: dict[str, float]  # the metrics that are the result of the run
    epochs: list[dict[str, float]]  # the metrics after each epoch
    facts: dict[str, str]  # measured from what was trained; one of them is "outcome"


@dataclass(frozen=True)
class FactRules:
    """The roles of facts, by name, in comparisons of runs."""

    needed: tuple[str, ...] = ()  # without them it is unknown what was compared
    decisive: tuple[str, ...] = ()  # about the machine and the software: they can change a result
    data: tuple[str, ...] = ()  # about the data: the same in all runs that are compared
    drawn: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # random, with the fields that they depend on
    printed: tuple[str, ...] = ()  # printed by a library; another version of it may print them differently
    printed_by: str = ""  # that library
    at_the_end: tuple[str, ...] = ()  # they are valid only for a run that finished


class Task(Protocol):
    """A science: what a run is, how it is trained, and what can be said about it.

    Metrics and facts are identified by their names; facts are measured and stored as text. Members with a value or body
    here are optional. A `config` is a `config_type`; `data` are those of a study (None: the task's own, from `load`).
    """

    config_type: type[Params]  # its fields, including `seed`, are the params of a run
    metrics: tuple[Metric, ...]  # what can be predicted; the first is the fraction that is right
    facts: FactRules
    own_data: str  # the fingerprint of the data of a study that names none
    data_name: str  # the name of those data
    other_data: str  # the name of other data, such as "other images than ..."
    unit: str = "steps"  # the unit of `amount`
    modules: tuple[str, ...] = ()  # the modules for training, which a worker imports before its first run
    budget: tuple[str, ...] = ()  # the fields that determine how much is trained
    negligible: Mapping[str, Any] = {}  # fields that change next to nothing, with the value that represents all others
    scales: tuple[str, ...] = ()  # metrics on which an interaction is examined
    by_image: Mapping[str, str] = {}  # metrics with a NumPy file of their values per image: float or bool (N,)
    details: tuple[str, ...] = ()  # prefixes of metrics that are not results, such as those of a single layer
    charts: Mapping[str, tuple[str, ...]] = {}  # the curves in the MLflow UI, by section title
    bounds: Mapping[str, float] = {}  # metrics that are checked after a rerun: how far off each may be
    compared: tuple[str, ...] = ()  # metrics that are equal to the last bit on the same kind of machine

    @property
    def released(self) -> tuple[str, ...]:
        """The fingerprints of released training code, latest first; all versions give the same numbers."""
        return ()

    @property
    def shipped(self) -> frozenset[str]:
        """The seals of the predictions and runs that come with the lab."""
        return frozenset()

    def canonical(self, config: Any) -> Any:
        """Return the config in canonical form: fields that have no effect on the run have their defaults."""
        return config

    def check(self, config: Any, data: Any) -> None:
        """Raise a LabError if a config can't be trained on these data (None: the task's own)."""

    def amount(self, config: Any) -> int:
        """Return how much a run trains, such as the number of images over all epochs."""

    def size(self, config: Any) -> str:
        """Return how much a run trains, in words."""

    def load(self) -> Data:
        """Return the task's own data."""

    def fingerprint(self, facts: Facts) -> str:
        """Return the fingerprint of the data of a run; "" if it isn't known."""

    def environment(self) -> dict[str, str]:
        """Return the facts about the machine and the software that results may depend on."""
        return {}

    def example_words(self) -> set[str]:
        """Return the sentences of the predictions that come with the task."""
        return set()

    def about(self, data: Any) -> Facts:
        """Return the facts about data (None: the task's own) on which a description depends."""
        return {}

    def describe(self, config: Any, facts: Facts) -> dict[str, str]:
        """Return the facts that a run of a config should have on the data described by `facts`."""

    def runs_on_cpu(self, device: str) -> bool:
        """Return whether runs are trained on the CPU, where several processes are faster than one."""
        return True

    def seconds(self, configs: Iterable[Any], data: Any, at_a_time: int) -> dict[Any, float]:
        """Return the approximate seconds per run of each config on this machine, with `at_a_time` runs at once."""

    def train(self, config: Any, data: Any, watcher: Watcher, device: str, threads: int) -> Result:
        """Train one run."""

    def failed(self, outcome: str) -> bool:
        """Return whether a run with this outcome has no result: its final metrics are not those of a trained model."""
        return False

    def cautions(self, runs: "pd.DataFrame") -> list[str]:
        """Return sentences with what a reader of a verdict on these runs (`results`) should know about them."""
        return []

    def derived(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Return final metrics that follow from the last values of others, for runs recorded without them."""
        return {}

    def keep(self, result: Any, data: Any, folder: Path) -> None:
        """Write the files of a run, such as its weights and figures, to a folder."""

    def export(self, config: Any, facts: Facts, kept: Kept, folder: Path) -> bool:
        """Write a run's model, from the files it kept, to a folder in MLflow's format; return whether it has one."""
        return False

    def check_result(self, config: Any, run: Any, history: History, kept: Kept) -> Iterable[str]:
        """Yield each contradiction in what a run left behind; `run` is a `RawRun`."""
        return ()

    def leaves(self, ships: bool) -> tuple[str, ...]:
        """Return the names of the files with which a run can be checked; fewer if it ships with the lab."""

    def test_images(self) -> Any:
        """Return the task's own test images, which are locked away: record the opening before calling this."""

    def evaluate(self, configs: Iterable[Any], kept: Iterable[Kept], data: Any, images: Any) -> "np.ndarray":
        """Return whether each run, from the files it kept, is right about each image: bool (runs, images)."""

    def reference(self, study: str) -> Any:
        """Return the study of the reference runs for the study of this name; None if there is none."""
        return None


_installed: Task | str = ""


def install(task: Task | str) -> None:
    """Install the task of this process; a text such as "package.module:NAME" names one that is loaded when needed."""
    global _installed
    _installed = task


def task() -> Task:
    """Return the task of this process."""
    if not isinstance(_installed, str):
        return _installed
    module, _, name = _installed.partition(":")
    found: Task = getattr(importlib.import_module(module), name)
    install(found)
    return found


def metrics() -> dict[str, Metric]:
    """Return the metrics that can be predicted, by name."""
    return {metric.name: metric for metric in task().metrics}


def find_metric(name: str) -> Metric:
    """Return the metric of this name.

    Raises:
        LabError: there is no such metric; the message lists the known ones.
    """
    known = metrics()
    if name not in known:
        containing = [one for one in known if name and name in one]
        close = containing or difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}? Otherwise " if close else ""
        raise LabError(f"metric={name!r} is not possible: {hint}choose from {', '.join(known)}.")
    return known[name]
