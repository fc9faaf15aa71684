"""The seam: all that the engine has to know about a science. One task is installed for a process."""

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

Facts = Mapping[str, str]  # what was measured of a run, by name
History = Callable[[str], list[float]]  # the values of a metric after every epoch
Kept = Mapping[str, Path | None]  # files of a run, by their names; None where there is none


@runtime_checkable
class Data(Protocol):
    """What is trained and validated on; it can be pickled."""

    @property
    def test(self) -> Any:
        """What only the vault looks at; None where there is nothing, or it is locked away."""

    def sha256(self) -> str:
        """Return a fingerprint of all of it but the test images."""


class Watcher(Protocol):
    """Hears of one training."""

    def start(self, facts: Facts) -> None:
        """Take what was built, before the first step."""

    def progress(self, amount: int) -> None:
        """Take how much more was trained, in the unit of `Task.amount`."""

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Take the metrics after one epoch."""


class Result(Protocol):
    """One finished training."""

    final: dict[str, float]  # the metrics that are the result of the run
    epochs: list[dict[str, float]]  # the metrics after each epoch
    facts: dict[str, str]  # measured from what was trained; one of them is "outcome"


@dataclass(frozen=True)
class FactRules:
    """What the names of facts mean where runs are compared."""

    needed: tuple[str, ...] = ()  # without them nobody can say what was compared
    decisive: tuple[str, ...] = ()  # about machine and software: they can change a result
    data: tuple[str, ...] = ()  # about the data: the same in all runs that are compared
    drawn: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # at random, and the fields they follow from
    printed: tuple[str, ...] = ()  # written by a library, of which another version may do it in another way
    printed_by: str = ""  # that library
    at_the_end: tuple[str, ...] = ()  # they hold only for a run that came to its end


class Task(Protocol):
    """A science: what a run is, how it is trained, and what can be said of it.

    Metrics are called by their names, facts too; facts are measured and kept as text. What has a value or a body here
    need not be said. A `config` is a `config_type`, `data` are what `load` returns or a study names (None: the former).
    """

    config_type: type[Params]  # its fields are the params of a run; `seed` is one of them
    metrics: tuple[Metric, ...]  # what can be predicted; the first is the share that is right
    facts: FactRules
    own_data: str  # the fingerprint of the data that a study is about where it names none
    data_name: str  # what those data are called
    other_data: str  # what others are called, such as "other images than ..."
    unit: str = "steps"  # in which `amount` counts
    modules: tuple[str, ...] = ()  # what training imports, which a worker does before its first run
    budget: tuple[str, ...] = ()  # fields that say how much is trained
    negligible: Mapping[str, Any] = {}  # fields that change next to nothing, with the value that stands for all
    scales: tuple[str, ...] = ()  # metrics on which an interaction is looked at
    by_image: Mapping[str, str] = {}  # metrics with a file that has them image by image: float or bool (N,), as NumPy
    details: tuple[str, ...] = ()  # how the names of metrics begin that are no results, such as what one layer did
    charts: Mapping[str, tuple[str, ...]] = {}  # the curves in the MLflow UI, by the titles of their sections
    bounds: Mapping[str, float] = {}  # metrics by which a run that is trained again is judged: how far off each may be
    compared: tuple[str, ...] = ()  # metrics that are the same to the last bit on the same kind of machine

    @property
    def released(self) -> tuple[str, ...]:
        """The fingerprints of the code that trains, as released, the latest first; all train the same numbers."""
        return ()

    @property
    def shipped(self) -> frozenset[str]:
        """The seals of the predictions and runs that come with the lab."""
        return frozenset()

    def canonical(self, config: Any) -> Any:
        """Return the same run, written in one way: fields that have no effect on it have their defaults."""
        return config

    def check(self, config: Any, data: Any) -> None:
        """Make sure that a config can be trained on these data (None: the task's own), or raise a LabError."""

    def amount(self, config: Any) -> int:
        """Return how much a run trains, such as images over all epochs."""

    def size(self, config: Any) -> str:
        """Return how much a run trains, in words."""

    def load(self) -> Data:
        """Return the task's own data."""

    def fingerprint(self, facts: Facts) -> str:
        """Return the fingerprint of the data of a run; "" where it isn't known."""

    def environment(self) -> dict[str, str]:
        """Return the facts about machine and software that results may depend on."""
        return {}

    def example_words(self) -> set[str]:
        """Return the sentences of the predictions that come with the task."""
        return set()

    def about(self, data: Any) -> Facts:
        """Return the facts about some data (None: the task's own) on which a description depends."""
        return {}

    def describe(self, config: Any, facts: Facts) -> dict[str, str]:
        """Return the facts that a run of a config should have, on data that `facts` are about."""

    def runs_on_cpu(self, device: str) -> bool:
        """Return whether runs are trained on the CPU, where several processes are faster than one."""
        return True

    def seconds(self, configs: Iterable[Any], data: Any, at_a_time: int) -> dict[Any, float]:
        """Return about how long a run of each config takes here, if `at_a_time` are trained at once."""

    def train(self, config: Any, data: Any, watcher: Watcher, device: str, threads: int) -> Result:
        """Train one run."""

    def failed(self, outcome: str) -> bool:
        """Return whether a run that ended so has no result: what it measured at its end is of no trained model."""
        return False

    def cautions(self, runs: "pd.DataFrame") -> list[str]:
        """Return what a reader of a verdict on these runs (`results`) should know of them, a sentence each."""
        return []

    def derived(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Return final metrics that follow from the last values of others, for runs that were recorded without them."""
        return {}

    def keep(self, result: Any, data: Any, folder: Path) -> None:
        """Write the files that a run leaves, such as its weights and figures, into a folder."""

    def export(self, config: Any, facts: Facts, kept: Kept, folder: Path) -> bool:
        """Write the model of a run in MLflow's format into a folder, from what it kept; return whether there is one."""
        return False

    def check_result(self, config: Any, run: Any, history: History, kept: Kept) -> Iterable[str]:
        """Yield what doesn't agree in what a run left behind; `run` is a `RawRun`."""
        return ()

    def leaves(self, ships: bool) -> tuple[str, ...]:
        """Return the names of the files by which a run can be checked; fewer where it comes with the lab."""

    def test_images(self) -> Any:
        """Return the task's own test images, which are locked away: the record comes first."""

    def evaluate(self, configs: Iterable[Any], kept: Iterable[Kept], data: Any, images: Any) -> "np.ndarray":
        """Return whether each of some runs, by what it kept, is right about each image: bool (runs, images)."""

    def reference(self, study: str) -> Any:
        """Return the study of the reference runs that one of this name is a version of; None where there is none."""
        return None


_installed: Task | str = ""


def install(task: Task | str) -> None:
    """Make a task that of this process; a text such as "package.module:NAME" names one that is loaded when needed."""
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
    """Return what can be predicted, by name."""
    return {metric.name: metric for metric in task().metrics}


def find_metric(name: str) -> Metric:
    """Return the metric of this name.

    Raises:
        LabError: there is no such metric; the sentence lists those there are.
    """
    known = metrics()
    if name not in known:
        containing = [one for one in known if name and name in one]
        close = containing or difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise LabError(f"metric={name!r} is not possible: {hint}there are {', '.join(known)}.")
    return known[name]
