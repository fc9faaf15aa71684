"""Predictions: what somebody expects of a study, checked, said back as a sentence, and recorded before its runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any, Literal, get_args

from cnnlab.config import ConfigError
from cnnlab.errors import LabError
from cnnlab.inquiry.contrasts import arm_contrast, interaction_contrast, trend_contrast
from cnnlab.inquiry.metrics import Metric, find_metric
from cnnlab.studies.contrast import Contrast
from cnnlab.studies.study import Study
from cnnlab.tracking.connection import connect
from cnnlab.tracking.environment import owner
from cnnlab.tracking.ledger import Record, load_records, record_prediction
from cnnlab.tracking.store import Store

Direction = Literal["higher", "lower", "none"]
# What one says of an interaction: more, or less, than the two effects added up; the better side depends on the metric.
INTERACTION_WORDS = ("synergy", "antagonism", "additive")
FEWEST_WORDS = 3  # of a reason


@dataclass(frozen=True)
class Prediction:
    """What is expected of a contrast. Sizes are in the unit of the metric, in the predicted direction.

    low, high: the size range. sesoi: the smallest effect of interest; what is surely smaller is practically none.
    at_least_sesoi: the claim is not just a direction but at least the smallest effect of interest. confidence: the
    probability, in percent, with which the author expects "supported".
    """

    study: str
    contrast: Contrast
    metric: Metric
    direction: Direction
    low: float
    high: float
    sesoi: float
    at_least_sesoi: bool
    confidence: float
    because: str
    if_refuted: str
    builds_on: str = ""
    record: Record | None = None

    @property
    def sign(self) -> int:
        """+1 where a higher value is predicted, -1 for a lower one, 0 for no difference."""
        return {"higher": 1, "lower": -1, "none": 0}[self.direction]

    @property
    def n(self) -> int:
        """The number of seeds, the same in every arm."""
        return len(self.contrast.seeds)

    def to_content(self) -> dict[str, str]:
        """Return the params of the record."""
        content = {
            "study": self.study,
            "contrast": self.contrast.text,
            "metric": self.metric.name,
            "unit": self.metric.unit,
            "direction": self.direction,
            "low": f"{self.low:g}",
            "high": f"{self.high:g}",
            "sesoi": f"{self.sesoi:g}",
            "at_least_sesoi": str(self.at_least_sesoi),
            "confidence": f"{self.confidence:g}",
            "seeds": ", ".join(map(str, self.contrast.seeds)),
            "because": self.because,
            "if_refuted": self.if_refuted,
            "builds_on": self.builds_on,
            "design": self.contrast.to_json(),
        }
        return {name: value for name, value in content.items() if value}

    @classmethod
    def from_record(cls, record: Record) -> "Prediction":
        """Return the prediction of a record.

        Raises:
            ConfigError: the record isn't one of this version of the lab.
        """
        content = record.content
        try:
            return cls(
                study=content["study"],
                contrast=Contrast.from_json(content["design"]),
                metric=find_metric(content["metric"]),
                direction=content["direction"],  # type: ignore[arg-type]
                low=float(content["low"]),
                high=float(content["high"]),
                sesoi=float(content["sesoi"]),
                at_least_sesoi=content["at_least_sesoi"] == "True",
                confidence=float(content["confidence"]),
                because=content["because"],
                if_refuted=content["if_refuted"],
                builds_on=content.get("builds_on", ""),
                record=record,
            )
        except (KeyError, ValueError, LabError) as error:
            raise ConfigError(f"the record {record.run_id} is no prediction of this lab ({error}).") from None

    def sentence(self) -> str:
        """Return what is predicted, in words."""
        return f"{self._claim()} I am {self.confidence:g} % confident of that."

    def _claim(self) -> str:
        metric, say = self.metric, self.metric.say
        seeds = f"over {self.n} seed{'s' if self.n > 1 else ''}"
        if self.direction == "none":
            return (
                f"{self.contrast.text}: the {metric.label} differs by less than {say(self.sesoi, sign=False)}, {seeds}."
            )
        size = f"by {self.low:g} to {self.high:g} {metric.unit}".rstrip()
        least = ", and at least by that" if self.at_least_sesoi else ""
        return (
            f"{self.contrast.text}: the {metric.label} is {self.direction}{self._in_other_words()}, {size}, {seeds} "
            f"(smallest effect of interest: {say(self.sesoi, sign=False)}{least})."
        )

    def _in_other_words(self) -> str:
        if self.contrast.kind == "trend":
            return " at the end than at the beginning"
        if self.contrast.kind == "arm":
            return ""
        better = f", which is {'synergy' if self.direction == self.metric.better else 'antagonism'}"
        return " than the two effects add up to" + (better if self.metric.better else "")

    def __str__(self) -> str:
        lines = [self.sentence()]
        lines += [line for line in (self.contrast.difference(), self.metric.caution) if line]
        lines += [f"Because: {self.because}", f"If refuted, I conclude: {self.if_refuted}"]
        lines += [f"Builds on: {self.builds_on}"] if self.builds_on else []
        if self.record:
            when = f"{self.record.time:%Y-%m-%d %H:%M} UTC"
            lines.append(f"Recorded {when} by {self.record.owner}, sealed {self.record.sha256[:12]}.")
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return "<blockquote>" + "<br>".join(escape(line) for line in str(self).splitlines()) + "</blockquote>"


def predict(
    study: Study,
    *,
    metric: str,
    direction: str,
    confidence: float,
    because: str,
    if_refuted: str,
    arm: str = "",
    against: str = "",
    trend: str = "",
    interaction: Mapping[str, Any] | None = None,
    size: tuple[float, float] | None = None,
    sesoi: float | None = None,
    at_least_sesoi: bool = False,
    builds_on: str = "",
    store: Store | None = None,
) -> Prediction:
    """Record what you expect of a study, before its first run, and return it.

    What is compared: `arm` (with the study's control, or the arm named in `against`), or a `trend` over the levels of
    a field, or an `interaction` of two changes, such as `{"dropout": 0.5, "norm": "batch"}`.

    What you expect: the `metric` gets `direction` "higher", "lower" or "none"; for an interaction also "synergy",
    "antagonism" or "additive". `size` is the range in which you expect the effect, smallest and largest, as positive
    numbers in the metric's unit (pp or nats). `sesoi` is the smallest effect of interest (default: the metric's);
    with `at_least_sesoi` you claim an effect of at least that. `confidence` is how sure you are, 50 to 99 (%).

    Why: `because` names the mechanism, `if_refuted` what you conclude if it turns out otherwise, `builds_on` an
    earlier verdict, if there is one.

    The same call again changes nothing. With another content it is a new prediction; the old one stays on record.

    Raises:
        LabError: something is missing or impossible, in one sentence; or the store can't be written.
    """
    prediction = check_prediction(
        study=study,
        contrast=_choose_contrast(study, arm, against, trend, interaction),
        metric=find_metric(metric),
        direction=direction,
        size=size,
        sesoi=sesoi,
        at_least_sesoi=at_least_sesoi,
        confidence=confidence,
        because=because,
        if_refuted=if_refuted,
        builds_on=builds_on,
    )
    return record(prediction, store or connect(say=lambda line: None))


def record(prediction: Prediction, store: Store) -> Prediction:
    """Write a prediction into the ledger and return it with its record; an equal one that stands is not repeated."""
    content = prediction.to_content()
    for known in reversed(load_records(store, prediction.study, owner())):
        same_question = all(known.content.get(name) == content[name] for name in ("contrast", "metric"))
        if same_question and not known.deleted:
            if content.items() <= known.content.items():
                return Prediction.from_record(known)
            break  # a change of mind
    written = record_prediction(store, prediction.study, content, f"prediction: {prediction.contrast.text}")
    return Prediction.from_record(written)


def _choose_contrast(
    study: Study, arm: str, against: str, trend: str, interaction: Mapping[str, Any] | None
) -> Contrast:
    if sum(map(bool, (arm, trend, interaction))) != 1:
        raise LabError(
            f"say what is compared, one of three: arm=... (one of {', '.join(study.arms)}), trend=... (a field such "
            "as 'dropout'), or interaction=... (two changes, such as {'dropout': 0.5, 'norm': 'batch'})."
        )
    if arm:
        return arm_contrast(study, arm, against)
    if against:
        raise LabError(f"against={against!r} goes with arm=...; a trend and an interaction have the study's control.")
    return trend_contrast(study, trend) if trend else interaction_contrast(study, interaction or {})


def check_prediction(
    study: Study,
    contrast: Contrast,
    metric: Metric,
    direction: str,
    size: tuple[float, float] | None,
    sesoi: float | None,
    at_least_sesoi: bool,
    confidence: float,
    because: str,
    if_refuted: str,
    builds_on: str,
) -> Prediction:
    """Return the prediction, not yet recorded.

    Raises:
        LabError: a value that can't be; the sentence says what is allowed.
    """
    if len(study.seeds) < 2:
        raise LabError(f"{study.name} has one seed: without repetition there is no verdict; give it at least two.")
    way = _direction(direction, contrast, metric)
    smallest = metric.sesoi if sesoi is None else sesoi
    if not smallest > 0:
        raise LabError(f"sesoi={sesoi} is not possible: the smallest effect of interest is more than 0 {metric.unit}.")
    low, high = _size(size, way, smallest, metric)
    if at_least_sesoi and (way == "none" or high <= smallest):
        raise LabError(
            f"at_least_sesoi needs a direction, and a size that reaches beyond the smallest effect of interest, "
            f"{smallest:g} {metric.unit}."
        )
    if not 50 <= confidence <= 99:
        raise LabError(
            f"confidence={confidence} is not possible: it is how sure you are, from 50 (a coin) to 99 (%). "
            "Less than 50 means that you expect something else: predict that."
        )
    for name, text in {"because": because, "if_refuted": if_refuted}.items():
        if len(text.split()) < FEWEST_WORDS:
            ask = "the mechanism you have in mind" if name == "because" else "what you learn if it turns out otherwise"
            raise LabError(f"{name}={text!r} says too little: write in a sentence {ask}.")
    return Prediction(
        study=study.name,
        contrast=contrast,
        metric=metric,
        direction=way,
        low=low,
        high=high,
        sesoi=smallest,
        at_least_sesoi=at_least_sesoi,
        confidence=confidence,
        because=because.strip(),
        if_refuted=if_refuted.strip(),
        builds_on=builds_on.strip(),
    )


def _direction(direction: str, contrast: Contrast, metric: Metric) -> Direction:
    if direction in INTERACTION_WORDS and contrast.kind == "interaction":
        if direction == "additive":
            return "none"
        if not metric.better:
            raise LabError(f"of {metric.name} neither side is the better one: say 'higher', 'lower' or 'none' instead.")
        worse: Direction = "lower" if metric.better == "higher" else "higher"
        return metric.better if direction == "synergy" else worse
    if direction not in get_args(Direction):
        words = ", ".join(get_args(Direction))
        more = f" (for an interaction also {', '.join(INTERACTION_WORDS)})"
        raise LabError(f"direction={direction!r} is not possible: choose {words}{more}.")
    return direction  # type: ignore[return-value]


def _size(size: tuple[float, float] | None, way: Direction, sesoi: float, metric: Metric) -> tuple[float, float]:
    if way == "none":
        if size is not None:
            raise LabError("no difference has no size: leave size out, and choose sesoi instead.")
        return 0.0, sesoi
    if size is None:
        raise LabError(f"size is missing: how large is the effect, from ... to ... {metric.unit}? Such as size=(1, 3).")
    try:
        low, high = map(float, size)
    except (TypeError, ValueError):
        raise LabError(f"size={size!r} is not possible: give two numbers, such as size=(1, 3).") from None
    if not 0 <= low < high < float("inf"):
        raise LabError(
            f"size={size!r} is not possible: smallest and largest, both positive and in {metric.unit or 'its unit'}; "
            "the direction says which way."
        )
    return low, high
