"""Training a run again from its record in the store, and comparing the result with what was recorded.

On the same kind of processor the numbers are identical to the last bit. Elsewhere sums are rounded in another order or
to fewer digits, and training amplifies that: mostly to less than the distance between two seeds, in an unstable arm to
as much (see benchmarks/reproduction.py). Hence there is a bound, which is narrower than the distance between two
seeds. A run within it agrees with the record up to effects too small to matter, though it might have had another seed.
A run beyond it doesn't, unless its arm is unstable: then this machine can't tell.
"""

import math
import random
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pandas as pd
from scipy import stats
from tqdm import tqdm

from cnnlab.inquiry.checked import checked
from cnnlab.inquiry.errors import LabError, stopping
from cnnlab.inquiry.judge.statistics import LEVEL
from cnnlab.inquiry.params import from_params
from cnnlab.inquiry.progress import progress_bar
from cnnlab.inquiry.record.environment import REFERENCE, environment_facts
from cnnlab.inquiry.record.runs import RawRun, find_run, load_raw, load_runs, same_arm
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.shown import Part, Shown
from cnnlab.inquiry.task import Data, Facts, task

UNKNOWN = "nan"  # a fact that older runs don't have
FEWEST = 4  # other seeds that it takes for a narrower bound: the SD of fewer is too often far too small


@dataclass(frozen=True, repr=False)
class Reproduction(Shown):
    """A run that was trained again.

    table: for each metric `recorded` and `now`, and for those that are judged the `bound`, in the unit of the store
    (accuracy: a fraction; loss: nats). differs: in words, how this machine differs from that of the record. n: how many
    other seeds of the arm are on record. is_stable: whether these lie close together.
    """

    name: str
    experiment: str
    run_id: str
    table: pd.DataFrame
    differs: tuple[str, ...]
    n: int
    is_stable: bool

    @property
    def is_identical(self) -> bool:
        """Whether every metric is identical to the record, to the last bit."""
        both = self.table[["recorded", "now"]]
        return bool((both.nunique(axis=1, dropna=False) == 1).all())  # a run that diverged has nan twice

    @property
    def is_within_bound(self) -> bool:
        """Whether accuracy and loss on the validation images are within their bounds."""
        rows = self.table.loc[list(task().bounds)]
        return bool(((rows["now"] - rows["recorded"]).abs() <= rows["bound"]).all())

    @property
    def is_reproduced(self) -> bool:
        """Whether the record was reproduced: the same numbers, or on another kind of processor within the bound."""
        return self.is_identical or (bool(self.differs) and self.is_within_bound)

    def sentence(self) -> str:
        """Return in a sentence whether the run was reproduced."""
        if self.is_identical:
            return "Reproduced: identical to the last bit."
        if not self.differs:
            return (
                f"NOT REPRODUCED: not identical, though this machine is of the same kind ({', '.join(kind_facts())})."
            )
        machine = f"this machine differs ({', '.join(self.differs)})"
        if self.is_within_bound:
            return f"Reproduced, not identical: {machine}; the difference is within the bound for another processor."
        if self.is_stable:
            return f"NOT REPRODUCED: {machine}, but the difference is BEYOND the bound for another processor."
        why = "the seeds of this arm lie far apart" if self.n > 1 else "fewer than two other seeds are on record"
        return (
            f"CAN'T TELL here: {machine}, and {why}, so rounding alone may explain the difference. "
            "Train it on the recorded kind of machine."
        )

    def parts(self) -> list[Part]:
        """Return what there is to show."""
        title = f"{self.experiment}: {self.name} (run {self.run_id})"
        columns = ["recorded", "now"] if self.is_identical or not self.differs else ["recorded", "now", "bound"]
        return [title, self.table[columns].map("{:.6f}".format).replace({"bound": {"nan": ""}}), self.sentence()]


@checked
@stopping()
def reproduce(run_id: str, store: Store, data: Data | None = None, progress: bool = True) -> Reproduction:
    """Train a finished run again from its params in the store, and compare; nothing is recorded.

    Raises:
        LabError: the store holds no such run of this lab, or it was trained on other images than `data`.
    """
    runs = load_runs(store, kind=None)
    run = find_run(runs, run_id)
    data = data or task().load()
    if run["identity"].images != data.sha256():
        raise LabError(f"the run {run_id} can't be trained again here: it was trained on other images.")
    device = "cpu" if str(run.get("fact.device")).startswith("cpu") else "auto"
    recorded = str(run.get("fact.threads"))
    with progress_bar(str(run["name"]), task().amount(run["config"]), task().unit, progress) as bar:
        threads = int(recorded) if recorded.isdecimal() else 1
        result = task().train(run["config"], data, _Bar(bar), device, threads)
    now = result.facts | environment_facts()
    differs = tuple(_differences({fact: str(run.get(f"fact.{fact}", UNKNOWN)) for fact in kind_facts()}, now))
    arm = same_arm(runs, run)
    others = arm[arm["identity"] != run["identity"]]
    bounds = {metric: bound(metric, others[metric]) for metric in task().bounds}
    columns = {"recorded": run, "now": pd.Series(result.final), "bound": pd.Series(bounds)}
    table = pd.DataFrame(columns, index=pd.Index(task().compared)).astype(float)
    stable = all(is_stable(metric, others[metric]) for metric in task().bounds)
    experiment = store.client.get_experiment(store.client.get_run(run_id).info.experiment_id).name
    return Reproduction(str(run["name"]), experiment, run_id, table, differs, len(others), stable)


class _Bar:
    """A watcher that moves a progress bar."""

    def __init__(self, bar: tqdm) -> None:
        self._bar = bar

    def progress(self, amount: int) -> None:
        """Move it."""
        self._bar.update(amount)

    def start(self, facts: Facts) -> None:
        """Do nothing: only the end matters."""

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Do nothing: only the end matters."""


def kind_facts() -> tuple[str, ...]:
    """Return the facts that decide whether two machines are of the same kind."""
    return (*task().facts.decisive, "system", "processor", "threads")


def _differences(before: dict[str, str], now: dict[str, str]) -> Iterator[str]:
    """Say in which facts this machine differs, or may differ, from that of a record."""
    for fact, value in before.items():
        if value == UNKNOWN and fact == "processor" and fact in now:
            yield "the processor of the record isn't known"
        elif value not in (UNKNOWN, now.get(fact)):
            yield f"{fact} {textwrap.shorten(value, 60)} -> {textwrap.shorten(now[fact], 60)}"


def bound(metric: str, others: pd.Series) -> float:
    """Return the largest difference that another kind of processor may make, in the unit of the store.

    Half the distance that two seeds of the arm exceed in 5 of 100 cases, t(n - 1) x SD x sqrt(2) with the SD of the
    n `others` on record; but at most `Task.bounds`, which alone count where n < `FEWEST`, and at least half of them,
    since in long runs on all images the seeds lie no further apart than that, and rounding changes as much as they do.
    benchmarks/reproduction.py measures how often the bound holds.
    """
    n, widest = others.count(), task().bounds[metric]
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * others.std() / math.sqrt(2) if n >= FEWEST else math.inf
    return min(max(half, widest / 2), widest)


def is_stable(metric: str, others: pd.Series) -> bool:
    """Return whether the seeds of an arm lie so close together that rounding won't carry a run beyond its bound; not if
    one diverged, or there are fewer than two."""
    return bool(others.std(skipna=False) <= task().bounds[metric])


def reproduce_random(
    store: Store, n: int, data: Data | None = None, rng: random.Random | None = None, progress: bool = True
) -> Iterator[Reproduction | str]:
    """Train n finished runs again, picked at random among those of all owners, and yield the results.

    A run that can't be trained again here yields a sentence that says why. Unless `rng` is given, nobody can know
    beforehand which runs are picked.
    """
    runs = [run for run in load_raw(store) if _is_trained(run)]
    data = data or task().load()
    for run in (rng or random.SystemRandom()).sample(runs, min(n, len(runs))):
        try:
            from_params(task().config_type, run.params)  # raises where they can't be read
            yield reproduce(run.run_id, store, data, progress)
        except LabError as error:
            yield f"{run.experiment}: {run.name} (run {run.run_id}) of {run.owner}: {error}"


def one_run_of_each(store: Store) -> list[str]:
    """Return the id of one reference run per study in the store: the first that was trained for it."""
    first: dict[str, str] = {}
    for run in load_raw(store):
        if _is_trained(run) and run.owner == REFERENCE:
            first.setdefault(run.experiment, run.run_id)
    return [first[experiment] for experiment in sorted(first)]


def _is_trained(run: RawRun) -> bool:
    """Return whether it is a run of a study that was trained to its end, not taken over or deleted in the UI."""
    return run.kind == "run" and run.status == "FINISHED" and not run.deleted and "reused_from" not in run.tags
