"""The metrics that a prediction can be about: their units, and which difference is too small to matter."""

import difflib
from dataclasses import dataclass
from typing import Literal

from cnnlab.errors import LabError


@dataclass(frozen=True)
class Metric:
    """A final metric of a run. `scale` turns the value in the store into `unit`, in which effects are said.

    `sesoi` is the smallest effect of interest where a prediction names none, and `better` which way is the good one.
    `caution` says what the metric is easily mistaken for.
    """

    name: str
    label: str
    unit: str
    scale: float
    sesoi: float
    better: Literal["higher", "lower", ""]
    digits: int
    caution: str = ""

    def say(self, value: float, sign: bool = True) -> str:
        """Return a number in the metric's unit, such as "+0.31 pp"."""
        return f"{value:{'+' if sign else ''}.{self.digits}f} {self.unit}".rstrip()

    def say_detectable(self, value: float) -> str:
        """Return the smallest effect that is found in words; an accuracy can't differ by more than 100 pp."""
        if self.unit == "pp" and value > 100:
            return "not even an effect of 100 pp is found 4 times in 5"
        return f"an effect of {self.say(value, sign=False)} is found 4 times in 5"


TRAIN_MODE = (
    "This gap doesn't show overfitting: dropout and label smoothing raise the training loss in train mode, and "
    "validation has neither; gap/loss compares both in eval mode."
)
_ALL = (
    Metric("accuracy/valid", "validation accuracy", "pp", 100, 0.3, "higher", 2),
    Metric("loss/valid", "validation loss", "nats", 1, 0.01, "lower", 3),
    Metric("gap/loss", "gap (validation - training loss in eval mode)", "nats", 1, 0.01, "lower", 3),
    Metric("gap/accuracy", "gap (training - validation accuracy in eval mode)", "pp", 100, 0.3, "lower", 2),
    Metric("gap/train_mode", "gap (validation - training loss in train mode)", "nats", 1, 0.01, "", 3, TRAIN_MODE),
    Metric("loss/train_eval", "training loss in eval mode", "nats", 1, 0.01, "lower", 3),
    Metric("accuracy/train_eval", "training accuracy in eval mode", "pp", 100, 0.3, "higher", 2),
    Metric("variance_ratio", "variance in eval mode / running variance of BatchNorm", "", 1, 0.05, "", 2),
)
METRICS = {metric.name: metric for metric in _ALL}


def find_metric(name: str) -> Metric:
    """Return the metric of this name.

    Raises:
        LabError: there is no such metric; the sentence lists those there are.
    """
    if name not in METRICS:
        containing = [known for known in METRICS if name and name in known]
        close = containing or difflib.get_close_matches(name, METRICS, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise LabError(f"metric={name!r} is not possible: {hint}there are {', '.join(METRICS)}.")
    return METRICS[name]
