"""A claim: what somebody expects of a study. Its fields are the arguments of `predict` in Python and in a terminal."""

from typing import Annotated, Any, ClassVar, Literal, Self, cast, get_args

from pydantic import BeforeValidator, Field, model_validator

from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.metrics import Metric
from cnnlab.inquiry.params import Params, replace
from cnnlab.inquiry.printable import printable
from cnnlab.inquiry.task import find_metric

Direction = Literal["higher", "lower", "none"]
# Directions of an interaction: better than, worse than or equal to the sum of both effects; the metric defines better.
INTERACTION_WORDS = ("synergy", "antagonism", "additive")
FEWEST_WORDS = 3  # of a reason
LARGEST = 100  # largest effect that can be claimed: no larger one exists in pp, and a loss this large has diverged
UNUSUAL_SESOI = 3  # times the metric's default: a larger SESOI needs a reason
RANGE_LEVEL = 80  # %: how sure the predictor is of the range, if the direction is right

Pair = Annotated[tuple[float, float], BeforeValidator(lambda pair: tuple(pair) if isinstance(pair, list) else pair)]


class Claim(Params):
    """What is compared, what is expected, and why.

    Raises:
        ConfigError: an impossible value; the message says what is allowed.
        LabError: values that don't fit together.
    """

    noun: ClassVar[str] = "A prediction"

    arm: str = Field("", description="the name of an arm, which is compared with the control")
    against: str = Field("", description="the name of another arm to compare it with")
    trend: str = Field("", description="the name of a field such as 'dropout', over all of its levels")
    interaction: dict[str, Any] | None = Field(
        None, description="two changes to the control, such as {'norm': 'batch', 'lr': 0.3}"
    )
    metric: str = Field(description="what is measured, such as 'accuracy/valid', 'loss/valid' or 'gap/loss'")
    direction: str = Field(
        description="'higher', 'lower' or 'none' (of an interaction also 'synergy', 'antagonism' or 'additive')"
    )
    size: Pair | None = Field(
        None, description="two numbers, such as (1, 3): the range that you are 80 % sure of; it may be left out"
    )
    confidence: float = Field(
        description="how sure you are of a difference in this direction that isn't negligible, a number from 50 (a "
        "coin) to 99 (%)"
    )
    because: str = Field(description="a sentence about the mechanism that you have in mind")
    if_refuted: str = Field(description="a sentence about what you learn if it turns out otherwise")
    sesoi: float | None = Field(None, description="the smallest effect of interest, in the metric's unit")
    sesoi_because: str = Field("", description="a sentence about why even an effect this large would not matter")
    at_least_sesoi: bool = Field(False, description="True or False: you claim at least the smallest effect of interest")
    builds_on: str = Field("", description="an earlier verdict that it builds on, in words")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        unit = find_metric(self.metric).unit or "its unit"
        if not 50 <= self.confidence <= 99:
            percent = f" Did you mean {100 * self.confidence:g}?" if 0.5 <= self.confidence < 1 else ""
            raise LabError(
                f"confidence={self.confidence:g} is not possible: it is how sure you are, from 50 (a coin) to 99 (%). "
                f"Less than 50 means that you expect something else: predict that.{percent}"
            )
        if self.size is not None and not 0 <= self.size[0] < self.size[1]:
            raise LabError(
                f"size={self.size!r} is not possible: give the smallest and the largest effect, both positive and "
                f"in {unit}; the direction gives the sign."
            )
        if self.sesoi is not None and self.sesoi <= 0:
            raise LabError(f"sesoi={self.sesoi:g} is not possible: the smallest effect of interest is more than 0.")
        for name, text in self:
            if isinstance(text, str) and (shown := printable(text, keep="\n\t")) != text:
                raise LabError(f"{name}={shown!r} has characters that can't be shown: leave them out.")
        asked = {"because": "the mechanism you have in mind", "if_refuted": "what you learn if it turns out otherwise"}
        for name, ask in asked.items():
            if len(getattr(self, name).split()) < FEWEST_WORDS:
                raise LabError(f"{name}={getattr(self, name)!r} is too short: describe {ask} in a sentence.")
        return self

    def filled(self, kind: str) -> "Claim":
        """Return the claim in its recorded form: with a direction of the metric and a smallest effect of interest, but
        without the comparison, which the contrast contains. `kind` is that of the contrast.

        Raises:
            LabError: a direction, size or smallest effect of interest is impossible for this metric and contrast.
        """
        metric = find_metric(self.metric)
        direction = _direction(self.direction, kind, metric)
        sesoi = metric.sesoi if self.sesoi is None else self.sesoi
        self._check_size(direction, sesoi, metric)
        if sesoi > UNUSUAL_SESOI * metric.sesoi and len(self.sesoi_because.split()) < FEWEST_WORDS:
            raise LabError(
                f"sesoi={sesoi:g} {metric.unit} is more than {UNUSUAL_SESOI} times the usual {metric.sesoi:g}, and a "
                "large one makes 'no difference' easy to claim: say in sesoi_because=... why this wouldn't matter."
            )
        words = {name: getattr(self, name).strip() for name in ("because", "if_refuted", "sesoi_because", "builds_on")}
        compared = {"arm": "", "against": "", "trend": "", "interaction": None}
        return replace(self, direction=direction, sesoi=sesoi, **words, **compared)

    def _check_size(self, direction: Direction, sesoi: float, metric: Metric) -> None:
        unit = metric.unit or "its unit"
        smallest = f"the smallest effect of interest, {sesoi:g} {unit}"
        if direction == "none" and self.size is not None:
            raise LabError("no difference has no size: leave size out, and choose sesoi instead.")
        if direction == "none" and self.at_least_sesoi:
            raise LabError("at_least_sesoi needs a direction: leave it out, or choose 'higher' or 'lower'.")
        if max(sesoi, *(self.size or (0.0,))) > LARGEST:
            raise LabError(f"an effect of more than {LARGEST} {unit} is not possible: choose a smaller size and sesoi.")
        if self.size and self.size[1] <= sesoi:
            raise LabError(
                f"size={self.size!r} doesn't reach beyond {smallest}: an effect in this range is negligible, and with "
                "enough seeds the prediction fails. Choose a larger size, a smaller sesoi or direction='none'."
            )
        if self.size and self.at_least_sesoi and self.size[0] < sesoi:
            raise LabError(
                f"size={self.size!r} begins below {smallest}, but at_least_sesoi=True claims at least that: begin "
                f"at {sesoi:g}, or leave at_least_sesoi out."
            )


def _direction(direction: str, kind: str, metric: Metric) -> Direction:
    if direction in INTERACTION_WORDS and kind == "interaction":
        if direction == "additive":
            return "none"
        if not metric.better:
            raise LabError(f"{metric.name} has no better side: say 'higher', 'lower' or 'none' instead.")
        worse: Direction = "lower" if metric.better == "higher" else "higher"
        return metric.better if direction == "synergy" else worse
    if direction in get_args(Direction):
        return cast(Direction, direction)
    words = ", ".join(get_args(Direction))
    more = f" (for an interaction also {', '.join(INTERACTION_WORDS)})"
    raise LabError(f"direction={direction!r} is not possible: choose {words}{more}.")
