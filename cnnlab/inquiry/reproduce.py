"""Training a run again from what stands in the store, and comparing what comes out with what was recorded.

On the same kind of processor, with the same version of torch, the numbers are the same to the last bit. Elsewhere
sums are rounded in another order, and a training carries that on: the result may then be as far off as that of another
seed. Two seeds of an arm lie no further apart than t(n - 1) x SD x sqrt(2) in 95 of 100 cases, with the SD of the n
other seeds on record; the run itself has no say in how much it may be off.
"""

import math
from dataclasses import dataclass

import pandas as pd
import torch
from scipy import stats

from cnnlab.data import Data, load_data
from cnnlab.inquiry.fairness import DECISIVE
from cnnlab.inquiry.reference import OWNER
from cnnlab.inquiry.statistics import LEVEL
from cnnlab.tracking.environment import environment_facts
from cnnlab.tracking.store import Store
from cnnlab.tracking.table import find_run, load_raw, load_runs, same_arm
from cnnlab.training import fit

JUDGED = ("accuracy/valid", "loss/valid")
COMPARED = (*JUDGED, "accuracy/train_eval", "loss/train_eval", "loss/train")


@dataclass(frozen=True, repr=False)
class Reproduction:
    """A run that was trained again.

    table: for each metric `recorded, now` and `apart`, how far two seeds may be apart (nan where fewer than two others
    are on record), in the unit of the store. n: how many other seeds of the arm are on record. differs: the facts of
    the machine that aren't those of the record, in words.
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
        """Whether accuracy and loss on the validation images are no further off than another seed may be."""
        rows = self.table.loc[list(JUDGED)]
        return bool(((rows["now"] - rows["recorded"]).abs() <= rows["apart"]).all())

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
            return f"NOT identical, {machine}; no two other seeds are on record that say how much may differ."
        far = f"{'no further' if self.is_within_spread else 'FURTHER'} off than two of its {self.n} other seeds may be"
        return f"{'Reproduced' if self.is_reproduced else 'NOT REPRODUCED'}, not identical: {machine}; {far}."

    def __str__(self) -> str:
        lines = [f"{self.experiment}: {self.name} (run {self.run_id})"]
        for metric, row in self.table.iterrows():
            room = f" (two seeds may be {row.apart:.6f} apart)" if metric in JUDGED and self.n > 1 else ""
            lines.append(f"  {metric!s:20} recorded {row.recorded:.6f}, now {row.now:.6f}{room}")
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
    arm = same_arm(runs, run)
    others = arm[arm["config"] != run["config"]]
    table = pd.DataFrame({name: _compare(run[name], result.final[name], others[name]) for name in COMPARED}).T
    experiment = store.client.get_experiment(store.client.get_run(run_id).info.experiment_id).name
    return Reproduction(str(run["name"]), experiment, run_id, len(others), table, tuple(differs))


def _compare(recorded: float, now: float, others: pd.Series) -> dict[str, float]:
    """Return what was recorded and what came out, with how far two seeds may be apart."""
    n = len(others)
    apart = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * others.std() * math.sqrt(2) if n > 1 else math.nan
    return {"recorded": recorded, "now": now, "apart": apart}


def one_run_of_each(store: Store) -> list[str]:
    """Return the id of one reference run of every study that the store has: the first that was trained for it."""
    first: dict[str, str] = {}
    for run in load_raw(store):
        is_finished = run.kind == "run" and run.status == "FINISHED" and not run.deleted
        if is_finished and run.owner == OWNER and "reused_from" not in run.tags:
            first.setdefault(run.experiment, run.run_id)
    return [first[experiment] for experiment in sorted(first)]
