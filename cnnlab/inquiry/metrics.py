"""The metrics that predictions can be about: their units, and which differences are too small to matter."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """A final metric of a run. `scale` converts the value in the store to `unit`, the unit of effects.

    `sesoi` is the default smallest effect of interest, and `better` the direction that is better.
    `caution` warns of a common misreading of the metric.
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
        """Return a number in the metric's unit, such as "+0.31 pp"; what is rounded to zero has no sign."""
        return f"{self._rounded(value, sign)} {self.unit}".rstrip()

    def say_interval(self, low: float, high: float) -> str:
        """Return an interval in the metric's unit, such as "[+0.25, +0.37] pp"."""
        return f"[{self._rounded(low)}, {self._rounded(high)}] {self.unit}".rstrip()

    def _rounded(self, value: float, sign: bool = True) -> str:
        text = f"{value:{'+' if sign else ''}z.{self.digits}f}"
        return text if float(text) else text.removeprefix("+")

    def say_level(self, value: float) -> str:
        """Return a value from the store in words, such as "accuracy/valid 91.20 %"."""
        unit = "%" if self.unit == "pp" else self.unit
        return f"{self.name} {self.scale * value:z.{self.digits}f} {unit}".rstrip()

    def say_detectable(self, value: float) -> str:
        """Return a phrase about the smallest detectable effect; an accuracy can't differ by more than 100 pp."""
        if self.unit == "pp" and value > 100:
            return "not even an effect of 100 pp would be detected with 80 % power"
        return f"an effect of {self.say(value, sign=False)} would be detected with 80 % power"
