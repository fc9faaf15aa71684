"""The outcome of a prediction, in one plain sentence."""

from cnnlab.inquiry.contrast import Contrast
from cnnlab.inquiry.judge.review import recorded_effect
from cnnlab.inquiry.prediction import Prediction
from cnnlab.inquiry.record.ledger import Record


def came_out(record: Record) -> str:
    """Return the effect of the last verdict, as in "With dropout 0.5, the validation loss is 0.033 nats higher than
    with dropout 0.0."; an interval that contains 0 is given with both ends. "" if the verdict has no effect.

    Raises:
        ConfigError: another version of the lab recorded the prediction.
    """
    effect = recorded_effect(record)
    if effect is None:
        return ""
    p = Prediction.from_record(record)
    low, high, size = (p.metric.say(abs(x), sign=False) for x in (effect.low, effect.high, effect.estimate))
    if effect.low <= 0 <= effect.high:
        amount = f"between {low} lower and {high} higher"
    else:
        amount = f"{size} {'higher' if effect.estimate > 0 else 'lower'}"
    here, there = _compared(p.contrast)
    return f"{here}, the {p.metric.label} is {amount} than {there}."


def _compared(contrast: Contrast) -> tuple[str, str]:
    """Return the two sides of a comparison, such as "With dropout 0.5" and "with dropout 0.0"."""
    arms = {arm: _name(arm) for arm in contrast.arms}
    if contrast.kind == "arm":
        (arm,) = contrast.new
        return f"With {arms[arm]}", f"with {arms[contrast.control]}"
    if contrast.kind == "trend":
        (field,) = contrast.factors
        levels = sorted(getattr(config, field) for config in contrast.arms.values())
        return f"At {field} {levels[-1]:g}, on a straight line through all levels", f"at {levels[0]:g}"
    changes = contrast.text.removeprefix("interaction of ").split(" and ")
    return f"With {' and '.join(map(_name, changes))} together", "the two changes add up to"


def _name(arm: str) -> str:
    """Return an arm as it is written in a sentence: "dropout 0.5", "norm=batch", or a name in quotation marks."""
    field, equals, value = arm.partition("=")
    if not equals:
        return f'"{arm}"'
    return f"{field} {value}" if value.replace(".", "", 1).isdigit() else arm
