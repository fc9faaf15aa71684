"""Training a run again from what stands in the store, and comparing what comes out with what was recorded.

On the same kind of processor, with the same version of torch, the numbers are the same to the last bit. Elsewhere
sums are rounded in another order, and a training carries that on: its result is then as far away as that of another
seed may be. The criterion is the 95 % prediction interval for one more run of the arm, mean +- t(n - 1) x SD x
sqrt(1 + 1/n) over the recorded seeds (Hahn & Meeker 1991, Statistical Intervals, section 4.7).
"""

import math
from dataclasses import dataclass

import pandas as pd
import torch
from scipy import stats

from cnnlab.data import Data, load_data
from cnnlab.inquiry.fairness import DECISIVE
from cnnlab.inquiry.reference import OWNER, reference_studies
from cnnlab.inquiry.statistics import LEVEL
from cnnlab.studies.results import results
from cnnlab.tracking.environment import environment_facts
from cnnlab.tracking.store import Store
from cnnlab.tracking.table import find_run, load_runs, other_seeds
from cnnlab.training import fit

JUDGED = ("accuracy/valid", "loss/valid")
COMPARED = (*JUDGED, "accuracy/train_eval", "loss/train_eval", "loss/train")


@dataclass(frozen=True, repr=False)
class Reproduction:
    """A run that was trained again.

    table: for each metric `recorded, now`, in the unit of the store, and the ends `low, high` of the interval in which
    one more run of the arm is expected (nan where only one seed was recorded). n: how many seeds of the arm were
    recorded. differs: the facts of the machine that aren't those of the record, in words.
    """

    name: str
    experiment: str
    run_id: str
    n: int
    table: pd.DataFrame
    differs: tuple[str, ...]

    @property
    def is_identical(self) -> bool:
        """Whether every metric is what was recorded, to the last bit."""
        both = self.table[["recorded", "now"]]
        return bool((both.nunique(axis=1, dropna=False) == 1).all())  # a run that diverged has nan twice

    @property
    def is_within_spread(self) -> bool:
        """Whether accuracy and loss on the validation images are as one more run of the arm may be."""
        rows = self.table.loc[list(JUDGED)]
        return bool(rows["now"].between(rows["low"], rows["high"]).all())

    @property
    def is_reproduced(self) -> bool:
        """Whether the record holds: the same numbers, or numbers as one more seed might have given."""
        return self.is_identical or self.is_within_spread

    def sentence(self) -> str:
        """Return in a sentence whether the run was reproduced."""
        if self.is_identical:
            return "Reproduced: identical to the last bit."
        machine = (
            f"this machine differs ({', '.join(self.differs)})" if self.differs else "on a machine that looks alike"
        )
        if self.n < 2:
            return f"Not identical, {machine}; the record has no other seed of this arm that says how much may differ."
        spread = f"{'within' if self.is_within_spread else 'OUTSIDE'} the spread of the arm's {self.n} seeds"
        return f"{'Reproduced' if self.is_reproduced else 'NOT REPRODUCED'}, not identical: {machine}; {spread}."

    def __str__(self) -> str:
        lines = [f"{self.experiment}: {self.name} (run {self.run_id})"]
        for metric, row in self.table.iterrows():
            room = f", expected [{row.low:.4f}, {row.high:.4f}]" if metric in JUDGED and self.n > 1 else ""
            lines.append(f"  {metric!s:16} recorded {row.recorded:.6f}, now {row.now:.6f}{room}")
        return "\n".join([*lines, f"  {self.sentence()}"])

    __repr__ = __str__


def reproduce(run_id: str, store: Store, data: Data | None = None, progress: bool = True) -> Reproduction:
    """Train a finished run again from its params in the store, as it was trained, and compare; nothing is recorded.

    Raises:
        LabError: the store holds no such run of this lab.
    """
    runs = load_runs(store, kind=None)
    run = find_run(runs, run_id)
    device = "cpu" if str(run["fact.device"]).startswith("cpu") else "auto"
    data = data or load_data(lambda line: None)
    threads = torch.get_num_threads()
    torch.set_num_threads(int(run["fact.threads"]))
    try:
        result = fit(run["config"], data, device=device, title=str(run["name"]), progress=progress, probes=False)
    finally:
        torch.set_num_threads(threads)
    now = result.facts | environment_facts()
    before = {fact: str(run.get(f"fact.{fact}", "unknown")) for fact in DECISIVE}
    differs = [f"{fact} {before[fact]} -> {now[fact]}" for fact in DECISIVE if before[fact] != now[fact]]
    seeds = other_seeds(runs, run)
    table = pd.DataFrame({name: _compare(run[name], result.final[name], seeds[name]) for name in COMPARED}).T
    experiment = store.client.get_experiment(store.client.get_run(run_id).info.experiment_id).name
    return Reproduction(str(run["name"]), experiment, run_id, len(seeds), table, tuple(differs))


def _compare(recorded: float, now: float, seeds: pd.Series) -> dict[str, float]:
    """Return what was recorded and what came out, with the ends of the prediction interval for one more run."""
    n = len(seeds)
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * seeds.std() * math.sqrt(1 + 1 / n) if n > 1 else math.nan
    return {"recorded": recorded, "now": now, "low": seeds.mean() - half, "high": seeds.mean() + half}


def one_run_of_each(store: Store) -> list[str]:
    """Return the id of one reference run of every study that the store has: the first that was trained for it."""
    found = [results(study, store, OWNER) for study in reference_studies().values()]
    return [str(runs["run_id"].iloc[0]) for all_runs in found if len(runs := all_runs[all_runs["reused_from"] == ""])]
