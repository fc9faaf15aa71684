"""What an interval says about a prediction: the outcome, and the words for it.

The outcome follows from the 95 % interval [low, high] of the effect, turned so that the predicted direction is
positive, and the smallest effect of interest m. The first line that fits counts:

    practically equivalent    -m < low and high < m, where a difference was predicted
    supported                 low > 0; for "at least m": low > m; for "no difference": -m < low and high < m
    refuted                   high < 0; for "at least m": high < m; for "no difference": low > m or high < -m
    inconclusive              otherwise

It is always a 95 % interval. Two one-sided tests at 5 % (Lakens 2017, Equivalence Tests) would only require a 90 %
interval between -m and m. The stricter rule is a choice: one interval serves all outcomes, and a false "supported" and
a false "equivalent" each occur in at most 2.5 % of studies.

Direction and size are two claims. The outcome is about the direction; the predicted range is judged separately.

Confidence is about a difference in the predicted direction that isn't negligible. So "practically equivalent" counts as
not supported, even if the interval excludes 0 in that direction; the words then say so.
"""

from typing import Literal

from cnnlab.inquiry.judge.statistics import Effect, detectable, seeds_in_words, seeds_to_exclude, seeds_to_show
from cnnlab.inquiry.prediction import Prediction

Outcome = Literal["supported", "refuted", "practically equivalent", "inconclusive", "withheld", "waiting"]
DECIDED = ("supported", "refuted", "practically equivalent")  # outcomes that decide a question


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


def in_range(p: Prediction, effect: Effect) -> bool | None:
    """Return whether the estimate lies in the predicted range; None if there is no range."""
    if p.claim.size is None:
        return None
    low, high = p.claim.size
    return low <= p.sign * effect.estimate <= high


def outcome_in_words(p: Prediction, outcome: str, effect: Effect | None) -> str:
    """Return an outcome in words, direction and size separately, such as "direction supported, size as predicted"."""
    if outcome == "inconclusive" and effect and _excludes_zero(effect):
        return "inconclusive (a difference of unclear size)"
    if outcome == "practically equivalent" and effect and _excludes_zero(effect):
        return f"practically equivalent ({'in' if _nearest(p, effect) > 0 else 'against'} the predicted direction)"
    if effect is None or outcome != "supported" or not p.sign:
        return outcome
    direction = "supported" if p.claim.at_least_sesoi else "direction supported"
    inside = in_range(p, effect)
    if inside is False:
        return f"{direction}, size missed ({size_miss(p, effect)})"
    if _nearest(p, effect) < p.sesoi:
        return f"{direction}, size unclear"
    return f"{direction}, size as predicted" if inside else direction


def meaning(p: Prediction, outcome: Outcome, effect: Effect) -> list[str]:
    """Return what an outcome means, one or two sentences per line."""
    m = p.metric.say(p.sesoi, sign=False)
    if outcome == "inconclusive":
        lines = [_undecided(p, effect, m)]
    elif outcome == "practically equivalent":
        lines = [_negligible(p, effect, m)]
    elif outcome == "refuted" and p.claim.at_least_sesoi:
        lines = [f"The effect is smaller than the claimed {m}, or goes the other way."]
    elif outcome == "refuted":
        lines = ["The effect goes the other way." if p.sign else f"There is a difference of more than {m}."]
    elif not p.sign:
        lines = [f"Any difference is smaller than {m}."]
    elif p.claim.at_least_sesoi:
        lines = [f"The effect is in the predicted direction, and more than the claimed {m}."]
    else:
        lines = ["The effect is in the predicted direction."]
        if _nearest(p, effect) < p.sesoi:
            lines.append(f"Whether it is more than {m}, the smallest effect of interest, is unclear.")
    return [*lines, _size(p, effect)] if outcome == "supported" and p.claim.size else lines


def _size(p: Prediction, effect: Effect) -> str:
    assert p.claim.size is not None
    if in_range(p, effect):
        return f"The estimate lies in the predicted range, {p.range_in_words()}."
    low, high = sorted((p.sign * effect.low, p.sign * effect.high))
    overlap = low <= p.claim.size[1] and high >= p.claim.size[0]
    rest = "though the interval reaches into it" if overlap else "and so does the whole interval"
    return f"The estimate lies outside the predicted range, {p.range_in_words()}, {rest}."


def size_miss(p: Prediction, effect: Effect) -> str:
    """Return how far an effect in the predicted direction is outside the predicted range; "" if it is inside."""
    if in_range(p, effect) is not False:
        return ""
    assert p.claim.size is not None
    (low, high), found = p.claim.size, p.sign * effect.estimate
    factor, place = (low / found, "below the range") if found < low else (found / high, "above the range")
    if factor < 1.5:
        return f"a little {place}"
    return f"{place} by a factor of {factor:.0f}" if factor >= 10 else f"{place} by a factor of {factor:.1f}"


def _nearest(p: Prediction, effect: Effect) -> float:
    """Return the lower end of the interval in the predicted direction: the one nearest to no effect, or beyond it."""
    return effect.low if p.sign > 0 else -effect.high


def _excludes_zero(effect: Effect) -> bool:
    return effect.low > 0 or effect.high < 0


def _negligible(p: Prediction, effect: Effect, m: str) -> str:
    """Say that an effect is smaller than what matters, and its direction if the interval has one."""
    if not _excludes_zero(effect):
        return f"Whatever the effect is, it is smaller than what matters ({m})."
    if _nearest(p, effect) > 0:
        return f"The effect is in the predicted direction, and smaller than what matters ({m})."
    return f"The effect goes the other way, and is smaller than what matters ({m})."


def _unclear_size(p: Prediction, effect: Effect, m: str) -> str:
    """Say that there is a difference, and how many seeds would decide about its size if the estimate is right.

    If the estimate is so close to the smallest effect of interest that no number of seeds would decide, say that.
    """
    what = "There is a difference: the interval excludes 0. Whether it is more than"
    said = f"{what} {m} can't be told with {effect.n} seeds"
    needed = seeds_to_show(abs(abs(effect.estimate) - p.sesoi), effect.sd)
    if needed is None:
        place = "right at" if p.metric.say(abs(effect.estimate), sign=False) == m else "close to"
        return f"{said}: the estimate is {place} {m}, the smallest effect of interest."
    return (
        f"{said}. If the estimate is right, then judging by the spread of these {effect.n}, that takes "
        f"{seeds_in_words(needed, effect.n)}."
    )


def _undecided(p: Prediction, effect: Effect, m: str) -> str:
    """Say what the runs can't tell, and how many seeds would show that an effect of zero is smaller than m."""
    if _excludes_zero(effect):
        return _unclear_size(p, effect, m)
    guess = f"judging by the spread of these {effect.n}"
    needed = seeds_to_exclude(p.sesoi, effect.sd)
    found = p.metric.say_detectable(detectable(effect.sd, effect.n))
    if needed and needed <= effect.n:
        aim = f"If there were none, then {guess}, they would probably have shown that it is smaller than {m}"
    else:
        seeds = seeds_in_words(needed, effect.n)
        aim = f"If there is none, then {guess}, showing that it is smaller than {m} takes {seeds}"
    return f"These runs can't tell whether there is a difference. With {effect.n} seeds, {found}. {aim}."
