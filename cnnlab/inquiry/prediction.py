"""Predictions: a claim about a study, shown as a sentence and recorded before the study's runs."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from cnnlab.inquiry.checked import checked, refuse_blanks
from cnnlab.inquiry.claim import RANGE_LEVEL, Claim, Direction
from cnnlab.inquiry.contrast import Contrast, arm_contrast, interaction_contrast, trend_contrast
from cnnlab.inquiry.design import Design, count
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.metrics import Metric
from cnnlab.inquiry.params import ConfigError, replace
from cnnlab.inquiry.record.connection import default_store
from cnnlab.inquiry.record.environment import SHIPPED, owner
from cnnlab.inquiry.record.ledger import Record, load_records, record_prediction
from cnnlab.inquiry.record.runs import warn_unread
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.shown import Part, Quote, Shown
from cnnlab.inquiry.task import find_metric, task

EXAMPLE_WORDS = "those of the lab's example"


@dataclass(frozen=True, repr=False)
class Prediction(Shown):
    """A recorded claim about a contrast. Sizes are in the unit of the metric, in the predicted direction.

    claim: the claim with all defaults filled in.
    """

    study: str
    contrast: Contrast
    claim: Claim
    record: Record

    @property
    def metric(self) -> Metric:
        """The metric that the claim is about."""
        return find_metric(self.claim.metric)

    @property
    def sign(self) -> int:
        """+1 if a higher value is predicted, -1 for a lower one, 0 for no difference."""
        return {"higher": 1, "lower": -1, "none": 0}[self.claim.direction]

    @property
    def sesoi(self) -> float:
        """The smallest effect of interest; an effect that is certainly smaller is negligible."""
        return self.metric.sesoi if self.claim.sesoi is None else self.claim.sesoi

    @property
    def counts_failures(self) -> bool:
        """Whether failed runs are counted instead of averaged; older predictions lack this rule."""
        return "failed_runs" in self.record.content

    @property
    def is_example(self) -> bool:
        """Whether its words are copied from an example of the lab instead of being its owner's."""
        return self.record.content.get("words") == EXAMPLE_WORDS

    @property
    def n(self) -> int:
        """The number of seeds, the same in every arm."""
        return len(self.contrast.seeds)

    @property
    def question(self) -> tuple[object, ...]:
        """The question without the expected answer and the study: it is equal if two predictions ask the same."""
        return (self.metric.name, *self.contrast.question)

    @classmethod
    def from_record(cls, record: Record) -> "Prediction":
        """Return the prediction in a record.

        Raises:
            ConfigError: this version of the lab can't read it.
        """
        content = record.content
        try:
            said = {name: _value(name, content[name]) for name in Claim.model_fields if name in content}
            if said.get("direction") not in get_args(Direction):
                raise LabError(f"its direction is {content.get('direction')!r}")
            if said["direction"] != "none" and "low" in content:
                said["size"] = (float(content["low"]), float(content["high"]))
            return cls(content["study"], Contrast.from_json(content["design"]), Claim(**said), record)
        except (KeyError, ValueError, LabError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise ConfigError(f"the prediction in the record {record.run_id} can't be read: {reason}") from None

    def sentence(self) -> str:
        """Return the prediction in words: the direction and, in case it is right, the size."""
        claim, seeds, m = self.claim, count(self.n, "seed"), self.metric.say(self.sesoi, sign=False)
        sure = f"{self.contrast.text}: I am {claim.confidence:g} % confident that the {self.metric.label}"
        if not self.sign:
            return f"{sure} differs by less than {m} ({seeds})."
        least = f" by at least {m}" if claim.at_least_sesoi else ""
        about = seeds if least else f"{seeds}; smallest effect of interest: {m}"
        return f"{sure} is {claim.direction}{least}{self._in_other_words()} ({about}).{self._size()}"

    def _size(self) -> str:
        """Return a sentence with the range and, if it is on record, its author's confidence."""
        if self.claim.size is None:
            return ""
        level = self.record.content.get("range_level", "")
        sure = f"I am {level} % confident that it is {self.claim.direction} " if level else ""
        return f" If so, {sure}by {self.range_in_words()}."

    def range_in_words(self) -> str:
        """Return the predicted range, such as "0.03 to 0.15 nats"; "" if there is none."""
        if self.claim.size is None:
            return ""
        low, high = self.claim.size
        return f"{low:g} to {high:g} {self.metric.unit}".rstrip()

    def _in_other_words(self) -> str:
        if self.contrast.kind == "trend":
            return " at the end than at the beginning"
        if self.contrast.kind == "arm":
            return ""
        better = f", which is {'synergy' if self.claim.direction == self.metric.better else 'antagonism'}"
        return " than the two effects add up to" + (better if self.metric.better else "")

    def parts(self) -> list[Part]:
        """Return the parts to show."""
        lines = [line for line in (self.contrast.difference(), self.metric.caution) if line]
        lines += [f"Because: {self.claim.because}", f"If refuted, I conclude: {self.claim.if_refuted}"]
        if self.is_example:
            lines.append("These words are one of the lab's examples: the prediction is recorded as an example.")
        if self.claim.sesoi_because:
            lines.append(f"Reason for such a large smallest effect of interest: {self.claim.sesoi_because}")
        if self.claim.builds_on:
            lines.append(f"Builds on: {self.claim.builds_on}")
        if self.contrast.images != task().own_data:
            lines.append(f"On {task().other_data}.")
        when = f"{self.record.time:%Y-%m-%d %H:%M} UTC"
        lines.append(f"Recorded {when} by {self.record.owner}, sealed {self.record.sha256[:12]}.")
        return [Quote(self.sentence()), lines]


@checked
def predict(study: Design, *, store: Store | None = None, **claim: Any) -> Prediction:
    """Record what you expect of a study, before its first run, and return this prediction.

    What is compared: `arm` (with the study's control, or the arm named in `against`), or a `trend` over the levels of
    a field, or an `interaction` of two changes, such as `{"dropout": 0.5, "norm": "batch"}`.

    What you expect: the `direction` of the `metric` is "higher", "lower" or "none"; for an interaction also "synergy",
    "antagonism" or "additive". `confidence` is how sure you are of a difference in this direction that isn't
    negligible (for "none": of a negligible one), 50 to 99 (%). `sesoi` is the smallest effect of interest (default: the
    metric's; more than three times that needs a reason, `sesoi_because`). With `at_least_sesoi` you claim an effect of
    at least that. `size` is the range that you expect with 80 % confidence if the direction is right: its smallest and
    largest value, as positive numbers in the metric's unit (pp or nats). Without a range you claim only the direction.

    Runs that fail (diverge) are counted, for every metric: a mean over them says nothing about an effect.

    Why: `because` names the mechanism, `if_refuted` what you conclude if it turns out otherwise, and `builds_on` an
    earlier verdict, if there is one.

    Repeating the same call changes nothing. Other arguments make a new prediction; the old one stays on record. If
    the words are those of one of the lab's examples, the prediction is recorded as an example.

    Raises:
        LabError: an argument is blank (`...`), missing or impossible, or the store isn't writable.
    """
    refuse_blanks(claim, {name: field.description or "" for name, field in Claim.model_fields.items()})
    said = Claim(**claim)
    if len(study.seeds) < 2:
        raise LabError(f"{study.name} has one seed, and a verdict needs repetition: give it at least two.")
    contrast = choose_contrast(study, said)
    return _record(study, contrast, said.filled(contrast.kind), store or default_store())


def check_so_far(study: Design, said: Mapping[str, Any]) -> None:
    """Check the answers that a claim has so far; open ones are assumed to be possible. Sizes wait for their metric.

    Raises:
        LabError: an answer so far is impossible.
    """
    if "metric" not in said:
        said = {name: value for name, value in said.items() if name not in ("size", "sesoi", "at_least_sesoi")}
    has_size = said.get("size") or said.get("at_least_sesoi")
    open_yet: dict[str, Any] = {"metric": task().metrics[0].name, "direction": "higher" if has_size else "none"}
    open_yet |= {"confidence": 60.0} | dict.fromkeys(("because", "if_refuted"), "it is still open")
    if not {"arm", "trend", "interaction"} & set(said):
        open_yet["arm"] = next(arm for arm in study.arms if arm != (said.get("against") or study.control))
    claim = Claim(**{**open_yet, **said})
    claim.filled(choose_contrast(study, claim).kind)


def _signature() -> inspect.Signature:
    """Return the arguments of `predict`, including the fields of a claim, for help and completion."""
    study, store, _ = inspect.signature(predict).parameters.values()
    said = [field.replace(annotation=field.empty) for field in inspect.signature(Claim).parameters.values()]
    return inspect.Signature([study, *said, store])


predict.__signature__ = _signature()  # type: ignore[attr-defined]


def choose_contrast(study: Design, claim: Claim) -> Contrast:
    """Return the contrast of a study that a claim is about.

    Raises:
        LabError: the claim names no contrast, several, or one that the study doesn't have.
    """
    if sum(map(bool, (claim.arm, claim.trend, claim.interaction))) != 1:
        raise LabError(
            f"say what is compared, one of three: arm=... (one of {', '.join(study.arms)}), trend=... (a field such "
            "as 'dropout'), or interaction=... (two changes, such as {'dropout': 0.5, 'norm': 'batch'})."
        )
    if claim.arm:
        return arm_contrast(study, claim.arm, claim.against)
    if claim.against:
        raise LabError(
            f"against={claim.against!r} goes with arm=...; a trend and an interaction have the study's control."
        )
    return trend_contrast(study, claim.trend) if claim.trend else interaction_contrast(study, claim.interaction or {})


def _record(study: Design, contrast: Contrast, claim: Claim, store: Store) -> Prediction:
    """Write a prediction to the ledger and return it; if an equal one is current, return that instead."""
    content = _content(study, contrast, claim)
    if owner() not in SHIPPED and _has_shipped_words(claim, store):
        content["words"] = EXAMPLE_WORDS
    for known in reversed(load_predictions(store, study.name, owner())):
        if known.contrast.text == contrast.text and known.claim.metric == claim.metric:
            asked = replace(known.contrast, factors=contrast.factors)  # older ones also list fields without effect
            if (asked, known.claim) == (contrast, claim):
                return known
            break  # the owner changed their mind
    said = f"{say_claim(content)}, {content['confidence']} % sure"
    written = record_prediction(store, study.name, content, f"predicted: {contrast.text}", said)
    return Prediction.from_record(written)


def load_predictions(
    store: Store, experiment: str | None = None, owner: str | None = None, deleted: bool = False
) -> list[Prediction]:
    """Return the predictions in a store, oldest first; with `deleted`, also those that were deleted in the MLflow UI.

    A warning says how many can't be read.

    Raises:
        LabError: the store doesn't answer.
    """
    found, unread = [], []
    for record in load_records(store, experiment, owner):
        if deleted or not record.deleted:
            try:
                found.append(Prediction.from_record(record))
            except ConfigError as error:
                unread.append(str(error))
    if unread:
        warn_unread("predictions", tuple(unread))
    return found


def _has_shipped_words(claim: Claim, store: Store) -> bool:
    """Return whether a claim's reason or conclusion is copied word for word from a prediction of the lab."""
    shipped = [record.content for record in load_records(store) if record.owner in SHIPPED]
    words = {content.get(name) for content in shipped for name in ("because", "if_refuted")} | task().example_words()
    return not words.isdisjoint({claim.because, claim.if_refuted})


def _content(study: Design, contrast: Contrast, claim: Claim) -> dict[str, str]:
    """Return the params for the record of a prediction."""
    low, high = claim.size or ((None, None) if claim.direction != "none" else (0.0, claim.sesoi))
    content = {name: value for name, value in claim if name != "size"} | {
        "study": study.name,
        "contrast": contrast.text,
        "unit": find_metric(claim.metric).unit,
        "low": low,
        "high": high,
        "range_level": str(RANGE_LEVEL) if claim.size else "",
        "failed_runs": "are counted, and not averaged",
        "seeds": ", ".join(map(str, contrast.seeds)),
        "design": contrast.to_json(),
    }
    return {name: _text(value) for name, value in content.items() if value not in (None, "")}


def say_direction(direction: str) -> str:
    """Return a recorded direction in words: "higher", "lower" or "no difference"."""
    return "no difference" if direction == "none" else direction


def say_claim(content: Mapping[str, str]) -> str:
    """Return what a record predicts, such as "loss/valid higher by 0.01 to 0.08 nats"."""
    get = content.get
    metric, direction, unit = get("metric"), get("direction"), get("unit", "")
    if direction == "none":
        return f"{metric} differs by less than {get('sesoi')} {unit}".rstrip()
    size = f"{get('low')} to {get('high')} {unit}".rstrip() if "low" in content else ""
    if get("at_least_sesoi") == "True":
        least = f"by at least {get('sesoi')} {unit}".rstrip()
        return f"{metric} {direction} {least}" + (f" ({size})" if size else "")
    return f"{metric} {direction}" + (f" by {size}" if size else "")


def _text(value: object) -> str:
    """Return a value as text for a record; numbers are shortened if this loses nothing."""
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def _value(name: str, text: str) -> Any:
    """Return a value of a claim from its text in a record."""
    if name in ("confidence", "sesoi"):
        return float(text)
    return text == "True" if name == "at_least_sesoi" else text
