"""The plan of a study: what a run of it would train, and roughly how long this takes on this machine."""

import heapq
from dataclasses import dataclass

import pandas as pd

from cnnlab.inquiry.checked import checked
from cnnlab.inquiry.design import Design
from cnnlab.inquiry.errors import stopping
from cnnlab.inquiry.identity import Identity
from cnnlab.inquiry.record.connection import default_store
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.run.choose import engine_context, num_workers
from cnnlab.inquiry.run.engines import Engine
from cnnlab.inquiry.run.results import results, trained_elsewhere
from cnnlab.inquiry.shown import Part, Shown
from cnnlab.inquiry.task import task

LOGGING_S = 1.0  # figures and delivery of one run
START_S = 6.0  # for the imports of the worker processes
MODELS_S = 4.0  # for the models of the best run of each arm, at the end


@dataclass(frozen=True, repr=False)
class Plan(Shown):
    """What `study.run()` would do. It is shown as a table and a sentence.

    arms: one row per arm: its difference from the control, the parameters of the network, the number of runs,
        how many are finished, taken over from other studies, or still to be trained, and the minutes per run.
    seconds: the approximate training time, from a short timing on this machine.
    """

    study: Design
    arms: pd.DataFrame
    seconds: float
    where: str

    def parts(self) -> list[Part]:
        """Return the parts to show."""
        says_nothing = {
            "parameters": self.arms["parameters"].nunique() == 1,
            "finished": not self.arms["taken over"].any(),  # since the rest is still to be trained
            "taken over": not self.arms["taken over"].any(),
            "one run": not self.arms["to train"].any(),
        }
        table = self.arms.drop(columns=[name for name, is_so in says_nothing.items() if is_so])
        return [self.study.describe(), table, self.sentence]

    @property
    def sentence(self) -> str:
        """Say how many runs are missing and roughly how long they take."""
        missing = int(self.arms["to train"].sum())
        if not missing:
            return "Nothing is left to train."
        return f"To train: {missing} runs, about {duration(self.seconds)} {self.where} (from a short timing here)."


@checked
@stopping()
def make_plan(study: Design, store: Store | None = None, engine: str | Engine = "auto") -> Plan:
    """Return the plan of a study. On first use on a machine, a short training is timed."""
    store = store or default_store()
    done = set(results(study, store)["identity"])
    elsewhere = set(trained_elsewhere(store)) - done
    counts = {"finished": done, "taken over": elsewhere}
    images = study.images
    identities = [(arm, Identity.of(config, images)) for arm, _, config in study.runs()]
    rows = []
    for arm, config in study.arms.items():
        runs = {identity for name, identity in identities if name == arm}
        row = {"arm": arm, "differs": study.differs(arm) or "(control)", "runs": len(runs)}
        row |= {"parameters": task().describe(config, task().about(study.data)).get("num_parameters", "")}
        row |= {name: len(runs & known) for name, known in counts.items()}
        rows.append(row | {"to train": len(runs - done - elsewhere)})
    arms = pd.DataFrame(rows).set_index("arm")
    missing = [identity.config for _, identity in identities if identity not in done | elsewhere]
    with engine_context(engine, store, sum(map(task().amount, missing))) as chosen:
        slots, where = min(chosen.slots, len(missing)), chosen.describe()
    waiting = {arm: study.arms[arm] for arm in arms.index[arms["to train"] > 0]}
    here = min(slots, num_workers())  # a cluster may run more jobs at a time than this machine
    seconds = task().seconds(waiting.values(), study.data, here) if waiting else {}
    times = {arm: LOGGING_S + seconds[config] for arm, config in waiting.items()}
    arms["one run"] = [duration(times[arm]) if arm in times else "" for arm in arms.index]
    start_s = START_S if slots > 1 else 0.0
    ends = [start_s + MODELS_S if missing else 0.0] * max(slots, 1)  # when each worker is free
    for arm, one_run in times.items():
        for _ in range(arms.loc[arm, "to train"]):
            heapq.heapreplace(ends, ends[0] + one_run)
    return Plan(study, arms, float(max(ends)), where)


def duration(seconds: float) -> str:
    """Return a time in everyday words."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
