"""What a study can show: the noise floor from repeated runs of its control, and the smallest detectable effect."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cnnlab.inquiry.checked import checked
from cnnlab.inquiry.design import Design
from cnnlab.inquiry.identity import Identity
from cnnlab.inquiry.judge.failures import failed_runs
from cnnlab.inquiry.judge.statistics import detectable, seeds_in_words, seeds_to_show
from cnnlab.inquiry.metrics import Metric
from cnnlab.inquiry.record.connection import default_store
from cnnlab.inquiry.record.environment import owner
from cnnlab.inquiry.record.runs import load_runs
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.shown import Part, Shown
from cnnlab.inquiry.task import find_metric


@dataclass(frozen=True, repr=False)
class Power(Shown):
    """The noise floor and what follows from it, in the metric's unit. It prints as two sentences.

    sd: between runs of the same arm, over n runs that differ only in their seed; nan where n < 2. is_own: whether
    these are runs of the study's control, or those of another arm, used as a rough guide.
    """

    study: Design = field(repr=False)
    metric: Metric
    sd: float
    n: int
    is_own: bool

    @property
    def detectable(self) -> float:
        """The smallest difference between two arms that the study detects with 80 % power.

        This is for two arms of the same spread that don't vary together: the difference in a seed has SD sqrt(2) x sd.
        """
        return detectable(math.sqrt(2) * self.sd, len(self.study.seeds))

    def sentence(self) -> str:
        """Return what was found, in words."""
        m, seeds = self.metric, len(self.study.seeds)
        if self.n < 2:
            return (
                "Noise floor unknown: run the A/A test first (two equal arms with different seeds). Until then nobody "
                f"knows which difference in {m.label} {seeds} seeds can show."
            )
        whose = "its control" if self.is_own else "another arm, used as a rough guide"
        needed = seeds_in_words(seeds_to_show(m.sesoi, math.sqrt(2) * self.sd), self.n)
        return (
            f"Noise floor: runs that differ only in their seed have a {m.label} with SD {m.say(self.sd, sign=False)} "
            f"(n = {self.n} runs of {whose}). With {seeds} seeds, {m.say_detectable(self.detectable)} in this study; "
            f"{m.say(m.sesoi, sign=False)} takes {needed}. Arms that share their seeds may vary "
            "together, and then smaller effects can be detected."
        )

    def parts(self) -> list[Part]:
        """Return what there is to show."""
        return [self.sentence()]


@checked
def power(study: Design, metric: str = "accuracy/valid", store: Store | None = None) -> Power:
    """Return what a study can show, from this owner's runs with the config of its control, on the same images, in any
    study.

    If there are fewer than two, the arm with the most runs in the store serves as a rough guide.

    Raises:
        LabError: there is no such metric, or the store doesn't answer.
    """
    measured = find_metric(metric)
    runs = load_runs(store or default_store())
    mine = (runs["status"] == "FINISHED") & (runs["owner"] == owner()) & ~failed_runs(runs)
    runs = runs[mine].drop_duplicates("identity")
    runs = runs[[identity.images == study.images for identity in runs["identity"]]]
    values: dict[Any, list[float]] = {}
    for identity, value in zip(runs["identity"], runs[metric], strict=True) if metric in runs else ():
        if np.isfinite(value):
            values.setdefault(identity.arm, []).append(measured.scale * value)
    own = values.get(Identity.of(study.arms[study.control], study.images).arm, [])
    is_own = len(own) >= 2
    used = own if is_own else max(values.values(), key=len, default=[])
    sd = float(np.std(used, ddof=1)) if len(used) >= 2 else math.nan
    return Power(study, measured, sd, len(used), is_own)
