"""The verdict on a prediction: computed from its runs, with an interval, never typed.

    records ─► which runs, and did they exist before? ─► fair? ─► effect with interval ─► outcome

The outcome follows from the 95 % interval [low, high] of the effect, turned so that the predicted direction is
positive, and the smallest effect of interest m (Lakens 2017, Equivalence Tests, for the third line):

    withheld                  the comparison is unfair, or numbers are missing
    waiting                   some runs aren't there yet
    practically equivalent    -m < low and high < m, where a difference was predicted
    supported                 low > 0; for "at least m": low > m; for "no difference": -m < low and high < m
    refuted                   high < 0; for "at least m": high < m; for "no difference": low > m or high < -m
    inconclusive              else: this many seeds can't tell
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from dataclasses import replace as replace_fields
from datetime import UTC, datetime
from typing import Literal

import numpy as np
import pandas as pd

from cnnlab.inquiry.checked import checked
from cnnlab.inquiry.design import Design
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.judge.before import asked_at_once, by_chance, seen_before, standing, what_was_known
from cnnlab.inquiry.judge.fairness import Fairness, check_fairness
from cnnlab.inquiry.judge.statistics import (
    Effect,
    Improvement,
    compare_with_control,
    contrast_effect,
    detectable,
    improvement,
    seeds_in_words,
    seeds_to_exclude,
    seeds_to_show,
)
from cnnlab.inquiry.metrics import Metric
from cnnlab.inquiry.prediction import Prediction, load_predictions
from cnnlab.inquiry.record.connection import default_store
from cnnlab.inquiry.record.environment import owner
from cnnlab.inquiry.record.ledger import VerdictRecord, record_verdict
from cnnlab.inquiry.record.runs import load_runs
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.run.results import results
from cnnlab.inquiry.shown import Details, Head, Part, Quote, Shown
from cnnlab.inquiry.task import find_metric, task

Outcome = Literal["supported", "refuted", "practically equivalent", "inconclusive", "withheld", "waiting"]
NAN = float("nan")
SAME = 1e-9  # an SD that is no more than rounding: the weights of a trend add up to zero only nearly
RUNS_IN_A_PARAM = 40  # each takes up to 124 characters, of the 6,000 of a param in MLflow
Label = Literal["confirmatory", "exploratory"]
DECIDED = ("supported", "refuted", "practically equivalent")  # outcomes that settle a question


@dataclass(frozen=True, repr=False)
class Verdict(Shown):
    """What the runs of a study say about a prediction. Printed, or shown in a notebook, it is a short text.

    label: "confirmatory", or "exploratory" with `because`: results existed before the prediction, its record isn't what
    was sealed, or the seeds aren't the predicted ones. effect: in the metric's unit, positive where the metric is
    higher. others: arms that the prediction isn't about, compared with its control (exploratory). other_scales: an
    interaction depends on the scale, so it is computed for accuracy and for loss. runs: what was used, one row each.
    """

    prediction: Prediction
    outcome: Outcome
    because: tuple[str, ...]
    runs: pd.DataFrame
    notes: tuple[str, ...]  # what was known or tried beside the prediction
    reasons: tuple[str, ...] = ()  # why it is withheld or waits
    fairness: Fairness = field(default_factory=Fairness)
    effect: Effect | None = None
    on_new_images: tuple[float, float] | None = None  # the interval over seeds and images, where images are known
    wins: Improvement | None = None
    other_scales: dict[str, Effect] = field(default_factory=dict)
    others: pd.DataFrame = field(default_factory=pd.DataFrame)
    recorded: VerdictRecord | None = None  # what stands in MLflow

    @property
    def label(self) -> Label:
        """Whether it tests a prediction, or explores."""
        return "exploratory" if self.because else "confirmatory"

    @property
    def in_size_range(self) -> bool | None:
        """Whether the estimate fell into the predicted size range; None without an estimate."""
        if self.effect is None:
            return None
        p, estimate = self.prediction, self.effect.estimate
        return p.low <= p.sign * estimate <= p.high if p.sign else abs(estimate) <= p.high

    def headline(self) -> str:
        """Return the outcome with its label and the effect, or with the reasons why there is none, in one line."""
        if self.effect is None:
            return f"{self.outcome}: {' '.join(self.reasons)}"
        return f"{self.outcome} ({self.label}): {effect_in_words(self.prediction.metric, self.effect)}"

    def lines(self) -> list[str]:
        """Return all there is to say, a sentence a line."""
        said = [self.headline(), self.prediction.contrast.difference(), self.prediction.metric.caution]
        said += [f"Exploratory, because {reason}." for reason in self.because]
        if self.effect:
            said += [self._meaning(), self._size(), self._power(self.effect), self._wins()]
        said += [
            f"On another scale (exploratory): {effect_in_words(find_metric(name), effect)}."
            for name, effect in self.other_scales.items()
        ]
        said += [f"Noted: {note}" for note in (*self.fairness.notes, *self.notes)]
        return [line for line in said if line]

    def _meaning(self) -> str:
        """Return the outcome in words."""
        p, m = self.prediction, self.prediction.metric.say(self.prediction.sesoi, sign=False)
        if self.outcome == "supported":
            return "The runs agree with the prediction." if p.sign else f"Any difference is smaller than {m}."
        if self.outcome == "refuted":
            if p.claim.at_least_sesoi:
                return f"The effect is smaller than the claimed {m}, or goes the other way."
            return "The effect goes the other way." if p.sign else f"There is a difference of more than {m}."
        if self.outcome == "practically equivalent":
            return f"Whatever the effect is, it is smaller than what matters ({m})."
        return "So few runs can't tell: some effects in the interval agree with the prediction, and some don't."

    def _size(self) -> str:
        p, inside = self.prediction, "inside" if self.in_size_range else "outside"
        size = f"{p.low:g} to {p.high:g} {p.metric.unit}".rstrip()
        return f"The estimate is {inside} the predicted size, {size}." if p.sign else ""

    def _power(self, effect: Effect) -> str:
        """Return what an inconclusive verdict would have taken."""
        if self.outcome != "inconclusive":
            return ""
        p, n, sesoi = self.prediction, effect.n, self.prediction.metric.say(self.prediction.sesoi, sign=False)
        if p.sign:
            needed, aim = seeds_to_show(p.sesoi, effect.sd), f"to show an effect of {sesoi}"
        else:
            needed, aim = seeds_to_exclude(p.sesoi, effect.sd), f"to show that there is less than {sesoi}"
        return (
            f"With {n} seeds, {p.metric.say_detectable(detectable(effect.sd, n))}; {aim} takes "
            f"{seeds_in_words(needed)} (both guess the spread from these {n})."
        )

    def _wins(self) -> str:
        if (w := self.wins) is None:
            return ""
        better = "better" if self.prediction.metric.better else "higher"
        return f"It is {better} in {w.wins} of {w.n} seeds (95 % interval of the share: {w.low:.2f} to {w.high:.2f})."

    def parts(self) -> list[Part]:
        """Return what there is to show."""
        p, (head, *rest) = self.prediction, self.lines()
        shown: list[Part] = [Quote(f"Predicted: {p.sentence()}"), Head(head), rest, *self.fairness.details()]
        if not self.others.empty:
            unit = f" in {p.metric.unit}" if p.metric.unit else ""
            about = f"difference to {p.contrast.control}{unit}, with intervals that hold together"
            shown.append(Details(f"Other arms (exploratory): {about}", self.others.round(3)))
        return shown


def effect_in_words(metric: Metric, effect: Effect) -> str:
    """Return an effect with its interval and n, such as "accuracy/valid +0.31 pp, 95 % interval [...], n = 5 seeds"."""
    interval = f"95 % interval [{metric.say(effect.low)}, {metric.say(effect.high)}]"
    return f"{metric.name} {metric.say(effect.estimate)}, {interval}, n = {effect.n} seeds"


class Verdicts(Shown, tuple[Verdict, ...]):
    """The verdicts on all predictions of one study."""

    def parts(self) -> Sequence[Part]:
        """Return what there is to show."""
        return [part for one in self for part in (one, "")][:-1]


@checked
def verdict(study: Design, store: Store | None = None) -> Verdicts:
    """Compute the verdict on every prediction of this owner about `study`, record those that aren't waiting, and
    return them in the order of the predictions.

    Raises:
        LabError: nothing was predicted, or the store doesn't answer.
    """
    store = store or default_store()
    found = []
    for one in compute_verdicts(study, store):
        if one.outcome != "waiting":
            recorded = record_verdict(store, one.prediction.record, to_content(one), note(one))
            one = replace_fields(one, recorded=recorded)
        found.append(one)
    return Verdicts(found)


def compute_verdicts(study: Design, store: Store, of: str = "") -> list[Verdict]:
    """Return the verdict on every prediction about `study` that stands, of one owner (`of`; without it, of this one).

    Raises:
        LabError: nothing was predicted, or the store doesn't answer.
    """
    runs = results(study, store, of)
    everything = load_runs(store, deleted=True, kind=None)
    made = load_predictions(store, owner=of or owner(), deleted=True)
    predictions = standing([one for one in made if not one.record.deleted], everything)
    claims = [one for one in made if one in predictions or one.record.deleted]
    about = [
        one for one in predictions if one.study == study.name and not one.contrast.unlike(study.arms, study.images)
    ]
    if not about:
        raise LabError(
            f"nothing that was predicted about {study.name} stands: it was never predicted, or the same was predicted "
            "anew later, maybe in another study. There is nothing to confront the runs with."
        )
    return [
        judge(
            one,
            study,
            runs,
            seen_before(one, everything),
            [*what_was_known(one, everything), *by_chance(asked_at_once(one, claims))],
        )
        for one in about
    ]


def judge(
    prediction: Prediction, study: Design, runs: pd.DataFrame, known: list[str], notes: Sequence[str] = ()
) -> Verdict:
    """Return the verdict on a prediction from the finished runs of its study.

    `runs` has the columns of `cnnlab.results`; `known` are ids of runs that existed before the prediction; `notes` say
    what else was known or tried.
    """
    contrast = prediction.contrast
    seeds = sorted({*contrast.seeds, *study.seeds}) if _adds_seeds(prediction, study) else list(contrast.seeds)
    used = runs[runs["arm"].isin(list(contrast.arms)) & runs["seed"].isin(seeds)].reset_index(drop=True)
    because = _why_exploratory(prediction, study, known, used)
    withheld = Verdict(prediction, "withheld", because, used, tuple(notes))
    wanted = len(seeds) * len(contrast.arms)
    if missing := wanted - len(used):
        return replace_fields(withheld, outcome="waiting", reasons=(f"{missing} of {wanted} runs are missing.",))
    if broken := _broken_seals(used):
        return replace_fields(withheld, reasons=(broken,))
    fairness = check_fairness(used, contrast.control, contrast.factors, contrast.nuisances)
    withheld = replace_fields(withheld, fairness=fairness)
    if not fairness.is_fair:
        return replace_fields(withheld, reasons=(*fairness.unfair, *fairness.unknown))
    if problem := _no_numbers(used, prediction.metric.name):
        return replace_fields(withheld, reasons=(problem,))
    effect = _effect(prediction.metric, used, contrast.weights)
    if effect.sd <= SAME:
        reason = "all seeds give exactly the same effect: no interval can be computed."
        return replace_fields(withheld, reasons=(reason,))
    return replace_fields(
        withheld,
        outcome=decide(effect, prediction.sign, prediction.sesoi, prediction.claim.at_least_sesoi),
        effect=effect,
        wins=_wins(prediction, effect),
        other_scales=_other_scales(prediction, used),
        others=_others(prediction, study, runs, seeds),
    )


def _effect(metric: Metric, runs: pd.DataFrame, weights: Mapping[str, float]) -> Effect:
    """Return the effect on a metric, in its unit; every run has a number of it."""
    return contrast_effect(metric.scale * runs.pivot(index="seed", columns="arm", values=metric.name), weights)


def decide(effect: Effect, sign: int, sesoi: float, at_least_sesoi: bool = False) -> Outcome:
    """Return the outcome for an effect; `sign` is the predicted direction, 0 for "no difference"."""
    inside = -sesoi < effect.low and effect.high < sesoi
    if sign == 0:
        outside = effect.low > sesoi or effect.high < -sesoi
        return "supported" if inside else "refuted" if outside else "inconclusive"
    if inside:
        return "practically equivalent"
    low, high = (effect.low, effect.high) if sign > 0 else (-effect.high, -effect.low)
    claimed = sesoi if at_least_sesoi else 0.0
    return "supported" if low > claimed else "refuted" if high < claimed else "inconclusive"


def _adds_seeds(prediction: Prediction, study: Design) -> bool:
    return not set(study.seeds) <= set(prediction.contrast.seeds)


def _why_exploratory(prediction: Prediction, study: Design, known: list[str], used: pd.DataFrame) -> tuple[str, ...]:
    reasons = []
    if not prediction.record.is_whole:
        reasons.append("its record was changed after it was sealed")
    if known:
        reasons.append(f"{len(known)} of its runs existed before the prediction")
    if _adds_seeds(prediction, study):
        reasons.append(f"{prediction.n} seeds were predicted, and others were added later")
    new = used[used["arm"].isin(prediction.contrast.new)]
    named = [prediction.record.sha256 in seals.split(",") for seals in new["prediction"]]
    if not all(named) and not known:
        reasons.append(
            f"{named.count(False)} of its runs don't name the prediction: it wasn't on record when they began"
        )
    return tuple(reasons)


def _broken_seals(used: pd.DataFrame) -> str:
    """Return which runs aren't what was sealed when they ended, in words; "" where all are."""
    broken = used[~used["sealed_right"].eq(True)]
    if broken.empty:
        return ""
    run = broken.iloc[0]
    what = "has no seal" if run["sealed_right"] is None else "was changed after it had ended"
    return (
        f"{len(broken)} of {len(used)} runs aren't what was sealed, such as {run['arm']}, seed {run['seed']}, which "
        f"{what}: delete them in the MLflow UI and run the study again."
    )


def _no_numbers(used: pd.DataFrame, column: str) -> str:
    """Return which runs have no number for a metric, in words; "" where all have."""
    if column not in used:
        return f"{column} was measured in none of the runs."
    without = used[~np.isfinite(used[column].astype(float))]
    if without.empty:
        return ""
    first = without.iloc[0]
    return f"{column} is missing in {len(without)} runs, such as {first['arm']}, seed {first['seed']}."


def _wins(prediction: Prediction, effect: Effect) -> Improvement | None:
    if prediction.contrast.kind != "arm":
        return None
    better = -1 if prediction.metric.better == "lower" else 1
    return improvement(better * np.array(effect.by_seed))


def _other_scales(prediction: Prediction, used: pd.DataFrame) -> dict[str, Effect]:
    own, contrast = prediction.metric.name, prediction.contrast
    if contrast.kind != "interaction" or own not in task().scales:
        return {}
    others = [name for name in task().scales if name != own and not _no_numbers(used, name)]
    return {name: _effect(find_metric(name), used, contrast.weights) for name in others}


def _others(prediction: Prediction, study: Design, runs: pd.DataFrame, seeds: list[int]) -> pd.DataFrame:
    """Return the other arms of the study beside the control of the prediction, with simultaneous intervals."""
    weights, metric = prediction.contrast.weights, prediction.metric
    values = runs[runs["seed"].isin(seeds)].pivot(index="seed", columns="arm", values=metric.name)
    complete = metric.scale * values.reindex(columns=list(study.arms)).dropna(axis="columns")
    if set(complete) <= set(weights) or (complete.std() == 0).all():
        return pd.DataFrame()
    table = compare_with_control(complete, prediction.contrast.control)
    return table[~table.index.isin(list(weights))]


def to_content(one: Verdict) -> dict[str, str]:
    """Return the params of a verdict's record; they name every run it rests on, with the seal of what was in it."""
    content = {"outcome": one.outcome, "label": one.label, "said": " ".join(one.lines())[:5500]}
    if one.effect:
        e = one.effect
        content |= {"estimate": repr(e.estimate), "low": repr(e.low), "high": repr(e.high), "n": str(e.n)}
        content["in_size_range"] = str(one.in_size_range)
    column = one.prediction.metric.name
    rows = one.runs.sort_values(["arm", "seed"]).to_dict("records")
    used = [f"{run['run_id']} {run.get('seal') or '-'} {run.get(column, NAN)!r}" for run in rows]
    for start in range(0, len(used), RUNS_IN_A_PARAM):
        content[f"runs_{start // RUNS_IN_A_PARAM + 1}"] = "; ".join(used[start : start + RUNS_IN_A_PARAM])
    return content


def note(one: Verdict) -> str:
    """Return the Markdown that the MLflow UI shows above the prediction's run."""
    said = "\n".join(f"- {line}" for line in one.lines()[1:])
    when = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    return f"> {one.prediction.sentence()}\n\n**{one.headline()}**\n\n{said}\n\nComputed {when} by cnnlab."
