"""The verdict on a prediction: computed from its runs, with an interval, never typed.

    records ─► which runs, and did they exist before? ─► fair? ─► effect with interval ─► outcome

It is withheld if the comparison is unfair, numbers are missing or runs failed, and waits for missing runs.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from dataclasses import replace as replace_fields
from datetime import UTC, datetime
from math import isnan
from typing import Literal

import numpy as np
import pandas as pd

from cnnlab.inquiry.checked import checked
from cnnlab.inquiry.design import Design, count
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.judge.before import asked_at_once, by_chance, seen_before, standing, what_was_known
from cnnlab.inquiry.judge.failures import compare_failures, failed_runs, failures_by_arm, failures_in_words
from cnnlab.inquiry.judge.fairness import Fairness, check_fairness
from cnnlab.inquiry.judge.new_images import interval_on_new_images
from cnnlab.inquiry.judge.outcome import Outcome, decide, in_range, meaning, outcome_in_words
from cnnlab.inquiry.judge.statistics import SAME, Effect, compare_with_control, contrast_effect, exact_interval
from cnnlab.inquiry.metrics import Metric
from cnnlab.inquiry.prediction import Prediction, load_predictions
from cnnlab.inquiry.record.connection import default_store
from cnnlab.inquiry.record.environment import owner
from cnnlab.inquiry.record.ledger import VerdictRecord, record_verdict
from cnnlab.inquiry.record.runs import load_runs
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.run.results import results
from cnnlab.inquiry.shown import Details, Folded, Head, Part, Quote, Shown
from cnnlab.inquiry.task import find_metric, task

NAN = float("nan")
RUNS_IN_A_PARAM = 40  # each takes up to 124 characters, of the 6,000 of a param in MLflow
MEAN_OF_FAILED = "A mean over failed runs is not an effect."
NO_SPREAD = "all seeds give exactly the same effect: no interval can be computed."
NO_RULE = "The prediction was recorded without a rule for them, so they are averaged as they were measured."
Label = Literal["confirmatory", "exploratory", "example"]
Pair = tuple[str, frozenset[str]]  # a metric and two arms, whose difference has one interval in either direction


@dataclass(frozen=True, repr=False)
class Verdict(Shown):
    """What the runs of a study say about a prediction. Printed, or shown in a notebook, it is a short text.

    label: "confirmatory", or "exploratory" with `because`: results existed before the prediction, its record was
    changed, or the seeds aren't the predicted ones; or "example": the words of the prediction are the lab's. effect: in
    the metric's unit, positive if the metric is higher; its interval is about new seeds on the same images,
    `on_new_images` about both (None if the metric isn't known image by image). others: arms that no prediction is
    about, compared with its control (exploratory), with intervals that are simultaneous for all `num_others` arms of
    the study but the control; `not_compared` says why an arm isn't. missing: the seeds of an arm that it waits for.
    other_scales: an interaction depends on the scale, so it is computed for accuracy and for loss. runs: what was used,
    one row each.
    """

    prediction: Prediction
    outcome: Outcome
    because: tuple[str, ...]
    runs: pd.DataFrame
    notes: tuple[str, ...]  # what else was known or tried
    reasons: tuple[str, ...] = ()  # why it is withheld or waits
    fairness: Fairness = field(default_factory=Fairness)
    effect: Effect | None = None
    on_new_images: tuple[float, float] | None = None
    other_scales: dict[str, Effect] = field(default_factory=dict)
    others: pd.DataFrame = field(default_factory=pd.DataFrame)
    num_others: int = 0
    not_compared: dict[str, str] = field(default_factory=dict)
    missing: dict[str, tuple[int, ...]] = field(default_factory=dict)
    recorded: VerdictRecord | None = None  # what is in MLflow

    @property
    def label(self) -> Label:
        """Whether it tests a prediction of its owner, or explores."""
        return "exploratory" if self.because else "example" if self.prediction.is_example else "confirmatory"

    def headline(self) -> str:
        """Return the outcome with its label and the effect, or with the reasons why there is none, in one line."""
        if self.effect is None:
            return f"{self.outcome}: {' '.join(self.reasons)}"
        p = self.prediction
        outcome = outcome_in_words(p, self.outcome, self.effect)
        return f"{outcome}, {self.label}: {effect_in_words(p.metric, self.effect)}"

    def lines(self) -> list[str]:
        """Return all sentences, one per line."""
        return [self.headline(), *self._said(), *self._noted()]

    def _said(self) -> list[str]:
        """Return what follows the headline, one sentence per line."""
        p = self.prediction
        said = [p.contrast.difference(), p.metric.caution]
        said += [f"Exploratory, because {reason}." for reason in self.because]
        if self.effect:
            said += [*meaning(p, self.outcome, self.effect), self._images(), _signs(p, self.effect)]
        said += [
            f"On another scale (exploratory): {effect_in_words(find_metric(name), effect)}."
            for name, effect in self.other_scales.items()
        ]
        said += [f"Noted: {note}" for note in self.notes]
        return [line for line in said if line]

    def _noted(self) -> list[str]:
        return [f"Noted: {note}" for note in self.fairness.notes]

    def _images(self) -> str:
        """Say which images the interval is about."""
        said = "This interval is for new seeds on the same validation images."
        if self.on_new_images is None:
            return said
        return f"{said} For new images as well, it is {self.prediction.metric.say_interval(*self.on_new_images)}."

    def parts(self) -> list[Part]:
        """Return what there is to show."""
        p = self.prediction
        shown: list[Part] = [Quote(f"Predicted: {p.sentence()}"), Head(self.headline()), self._said()]
        shown += [Folded(self._noted()), *self.fairness.details()]
        if not self.others.empty:
            intervals = f"95 % intervals, simultaneous for all {self.num_others} of the study (Bonferroni)"
            about = f"{p.metric.label}, difference from {p.contrast.control}, {intervals}"
            shown.append(Details(f"Other arms (exploratory): {about}", self._others()))
        if self.not_compared:
            said = "; ".join(f"{arm} ({why})" for arm, why in self.not_compared.items())
            shown.append([f"Not compared: {said}."])
        return shown

    def _others(self) -> pd.DataFrame:
        """Return the comparisons of other arms in words; an interval that isn't known is left empty."""
        say, rows = self.prediction.metric, self.others.itertuples(index=False)
        said = [(say.say(d), "" if isnan(low) else say.say_interval(low, high)) for d, low, high in rows]
        return pd.DataFrame(said, index=self.others.index, columns=["difference", "95 % interval"])


def effect_in_words(metric: Metric, effect: Effect) -> str:
    """Return an effect with its interval and n, such as "accuracy/valid +0.31 pp, 95 % interval [...], n = 5 seeds"."""
    interval = f"95 % interval {metric.say_interval(effect.low, effect.high)}"
    return f"{metric.name} {metric.say(effect.estimate)}, {interval}, n = {effect.n} seeds"


def _signs(p: Prediction, effect: Effect) -> str:
    """Say in how many seeds the effect has the predicted sign; where none was predicted, the sign of most seeds.

    With fewer than six seeds, no share is certain to be above a half.
    """
    positive, negative = (sum(sign * one > 0 for one in effect.by_seed) for sign in (1, -1))
    sign = p.sign or (1 if positive >= negative else -1)
    found = positive if sign > 0 else negative
    share = f"{found} of {effect.n} seeds"
    word = "positive" if sign > 0 else "negative"
    said = f"{share} have the predicted sign" if p.sign else f"The effect is {word} in {share}"
    if effect.n < 6:
        return f"{said}."
    low, high = exact_interval(found, effect.n)
    return f"{said} (95 % interval of the share: {low:.2f} to {high:.2f})."


class Verdicts(Shown, tuple[Verdict, ...]):
    """The verdicts on all predictions of one study."""

    def parts(self) -> Sequence[Part]:
        """Return what there is to show."""
        return [part for one in self for part in (one, "")][:-1]


@checked
def verdict(study: Design, store: Store | None = None) -> Verdicts:
    """Compute the verdict on every prediction of this owner about `study`, record those that aren't waiting, and
    return all in the order of the predictions.

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
    """Return the verdict on every current prediction of an owner (`of`; default: this one) about `study`.

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
            f"{study.name} has no prediction to confront with its runs: none was made, or a newer one about the same "
            "question, perhaps in another study, has replaced it."
        )
    compared = [one for one in about if one.contrast.kind == "arm"]
    shown = {_pair(one, arm) for one in compared for arm in one.contrast.new}
    found = []
    for one in about:
        notes = [*what_was_known(one, everything), *by_chance(asked_at_once(one, claims))]
        judged = judge(one, study, runs, seen_before(one, everything), notes, shown)
        shown |= {_pair(one, arm) for arm in (*judged.others.index, *judged.not_compared)}
        if judged.effect:
            images = interval_on_new_images(one.metric, judged.runs, one.contrast.weights, store)
            judged = replace_fields(judged, on_new_images=images)
        found.append(judged)
    return found


def _pair(prediction: Prediction, arm: str) -> Pair:
    return prediction.metric.name, frozenset((prediction.contrast.control, arm))


def judge(
    prediction: Prediction,
    study: Design,
    runs: pd.DataFrame,
    known: list[str],
    notes: Sequence[str] = (),
    shown: Collection[Pair] = (),
) -> Verdict:
    """Return the verdict on a prediction from the finished runs of its study.

    `runs` has the columns of `cnnlab.results`; `known` are ids of runs that existed before the prediction; `notes` say
    what else was known or tried; `shown` are differences whose interval is shown elsewhere.
    """
    contrast = prediction.contrast
    seeds = sorted({*contrast.seeds, *study.seeds}) if _adds_seeds(prediction, study) else list(contrast.seeds)
    runs = runs[runs["seed"].isin(seeds)]
    used = runs[runs["arm"].isin(list(contrast.arms))].reset_index(drop=True)
    because = _why_exploratory(prediction, study, known, used)
    found = Verdict(prediction, "withheld", because, used, (*notes, *task().cautions(used)))
    wanted = len(seeds) * len(contrast.arms)
    if lacking := wanted - len(used):
        done = set(zip(used["arm"], used["seed"], strict=True))
        missing = {arm: tuple(seed for seed in seeds if (arm, seed) not in done) for arm in contrast.arms}
        missing = {arm: some for arm, some in missing.items() if some}
        said = f"{lacking} of {wanted} runs are missing."
        return replace_fields(found, outcome="waiting", reasons=(said,), missing=missing)
    if broken := _broken_seals(used):
        return replace_fields(found, reasons=(broken,))
    found = replace_fields(found, fairness=check_fairness(used, contrast.control, contrast.factors, contrast.nuisances))
    if reasons := _why_no_effect(found):
        return replace_fields(found, reasons=reasons)
    effect = _effect(prediction.metric, used, contrast.weights)
    if effect.sd <= SAME:
        return replace_fields(found, reasons=(NO_SPREAD,))
    return replace_fields(
        _with_others(found, study, runs, shown),
        outcome=decide(effect, prediction.sign, prediction.sesoi, prediction.claim.at_least_sesoi),
        notes=(*found.notes, *_averaged(used)),
        effect=effect,
        other_scales=_other_scales(prediction, used),
    )


def _why_no_effect(found: Verdict) -> tuple[str, ...]:
    """Return why no effect can be computed though all runs exist: unfair, failed, or without numbers."""
    if not found.fairness.is_fair:
        return *found.fairness.unfair, *found.fairness.unknown
    if found.prediction.counts_failures and (counted := failures_in_words(found.runs)):
        return counted, MEAN_OF_FAILED, compare_failures(found.runs)
    problem = _no_numbers(found.runs, found.prediction.metric.name)
    return (problem,) if problem else ()


def _averaged(used: pd.DataFrame) -> list[str]:
    """Say that failed runs were averaged, which happens only if the prediction has no rule for them."""
    counted = failures_in_words(used)
    return [f"{counted} {NO_RULE}"] if counted else []


def _effect(metric: Metric, runs: pd.DataFrame, weights: Mapping[str, float]) -> Effect:
    """Return the effect on a metric, in its unit; every run has a number for it."""
    return contrast_effect(metric.scale * runs.pivot(index="seed", columns="arm", values=metric.name), weights)


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
    """Return in words which runs were changed after they were sealed; "" if none."""
    broken = used[~used["sealed_right"].eq(True)]
    if broken.empty:
        return ""
    run = broken.iloc[0]
    what = "has no seal" if run["sealed_right"] is None else "was changed after it had ended"
    return (
        f"{len(broken)} of {len(used)} runs aren't as they were sealed, such as {run['arm']}, seed {run['seed']}, "
        f"which {what}: delete them in the MLflow UI and run the study again."
    )


def _no_numbers(used: pd.DataFrame, column: str) -> str:
    """Return in words which runs have no number for a metric; "" if all have one."""
    if column not in used:
        return f"{column} was measured in none of the runs."
    without = used[~np.isfinite(used[column].astype(float))]
    if without.empty:
        return ""
    first = without.iloc[0]
    return f"{column} is missing in {count(len(without), 'run')}, such as {first['arm']}, seed {first['seed']}."


def _other_scales(prediction: Prediction, used: pd.DataFrame) -> dict[str, Effect]:
    own, contrast = prediction.metric.name, prediction.contrast
    if contrast.kind != "interaction" or own not in task().scales:
        return {}
    others = [name for name in task().scales if name != own and not _no_numbers(used, name)]
    return {name: _effect(find_metric(name), used, contrast.weights) for name in others}


def _with_others(found: Verdict, study: Design, runs: pd.DataFrame, shown: Collection[Pair]) -> Verdict:
    """Return the verdict with the arms that have no interval yet, compared with the control; failures are named."""
    metric, contrast = found.prediction.metric, found.prediction.contrast
    arms = [arm for arm in study.arms if arm not in contrast.weights and _pair(found.prediction, arm) not in shown]
    values = runs[~failed_runs(runs)].pivot(index="seed", columns="arm", values=metric.name)
    complete = metric.scale * values.reindex(columns=[contrast.control, *arms]).dropna(axis="columns")
    if contrast.control not in complete:
        return found
    k = len(study.arms) - 1
    failures = failures_by_arm(runs).items()
    return replace_fields(
        found,
        others=compare_with_control(complete, contrast.control, k) if len(complete.columns) > 1 else pd.DataFrame(),
        num_others=k,
        not_compared={arm: f"{some} of {n} runs failed" for arm, (some, n) in failures if some and arm in arms},
    )


def to_content(one: Verdict) -> dict[str, str]:
    """Return the params of a verdict's record; they name every run it rests on, with its seal."""
    content = {"outcome": one.outcome, "label": one.label, "said": " ".join(one.lines())[:5500]}
    if one.effect:
        e = one.effect
        content |= {"estimate": repr(e.estimate), "low": repr(e.low), "high": repr(e.high), "n": str(e.n)}
        inside = in_range(one.prediction, e)
        content |= {"in_size_range": str(inside)} if inside is not None else {}
    if one.on_new_images:
        low, high = map(float, one.on_new_images)
        content |= {"images_low": repr(low), "images_high": repr(high)}
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
