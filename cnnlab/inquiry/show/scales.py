"""Axes of figures: their labels, and scales on which the differences are visible."""

import textwrap
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.scale import FuncScale
from matplotlib.ticker import Locator, LogLocator, NullLocator

from cnnlab.inquiry.metrics import Metric

WIDE = 3  # if a loss or error is this many times the smallest, a linear axis would squeeze the others
PERCENTS = (90, 99, 80, 95, 60, 20, 85, 92, 91, 93, 94, 97, 70, 40, 0, 10, 30, 50, 96, 98)  # roundest first
EFFECT_LABELS = {
    "arm": "difference in {}",
    "trend": "change in {} from the first to the last level",
    "interaction": "{} beyond what the two effects add up to",
}


def is_gap(metric: Metric) -> bool:
    """Return whether a metric is a difference of two others."""
    return metric.name.startswith("gap")


def unit_of(metric: Metric) -> str:
    """Return the unit of a metric's values: pp if the metric is a difference of shares."""
    return "%" if metric.unit == "pp" and not is_gap(metric) else metric.unit


def say_level(metric: Metric, value: float) -> str:
    """Return a value in the metric's unit, such as "91.20 %"."""
    return f"{value:.{metric.digits}f} {unit_of(metric)}".rstrip()


def short_label(metric: Metric) -> str:
    """Return a metric's label without the definition in parentheses."""
    return metric.label.partition(" (")[0]


def shortened(name: str, letters: int) -> str:
    """Return a name, without its middle if it has more than this many letters."""
    half = (letters - 5) // 2
    return name if len(name) <= letters else f"{name[:half].rstrip()} ... {name[-half:].lstrip()}"


def axis_label(metric: Metric) -> str:
    """Return the label of a vertical axis: the metric's definition if its label has one, on short lines."""
    name, _, definition = metric.label.partition(" (")
    text = definition.rstrip(")") or name
    unit = f" ({unit_of(metric)})" if unit_of(metric) else ""
    return textwrap.fill(text + unit, 36)


def effect_label(metric: Metric, kind: str) -> str:
    """Return the label of a horizontal axis for an effect on a metric; `kind` is that of the contrast."""
    label = EFFECT_LABELS[kind].format(metric.label.replace(" (", " = ").replace(")", ""))
    return f"{label} ({metric.unit})" if metric.unit else label


def fit_scale(axes: Axes, metric: Metric, values: np.ndarray, which: Literal["x", "y"] = "y") -> None:
    """Make an axis logarithmic, in the loss or in the error of a share, if the values are too far apart for a
    linear one. A gap stays linear.
    """
    values = values[np.isfinite(values)]
    if is_gap(metric) or not len(values):
        return
    if unit_of(metric) == "%":
        if 100 - values.min() > WIDE * (100 - values.max()):
            error_scale(axes, which)
            axes.autoscale_view()
            low, high = getattr(axes, f"get_{which}lim")()  # an interval may extend beyond the range of a share
            axes.set(**{f"{which}lim": (max(low, -5), min(high, 100 - (100 - values.max()) / WIDE))})
    elif metric.better == "lower" and 0 < WIDE * values.min() < values.max():
        axes.set(**{f"{which}scale": "log"})
        axis = getattr(axes, f"{which}axis")
        axis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_locator(NullLocator())


def error_scale(axes: Axes, which: Literal["x", "y"] = "y") -> None:
    """Make an axis in percent logarithmic in the error: equal steps divide 100 % - value by the same factor.

    So the differences among high values stay visible even if one value is far below.
    """
    axis = getattr(axes, f"{which}axis")
    axes.set(**{f"{which}scale": FuncScale(axis, (_fewer_errors, lambda y: 100 - np.exp(-np.asarray(y))))})
    axis.set_major_locator(_Percents())
    axis.set_major_formatter("{x:g}")


def _fewer_errors(percent: Any) -> Any:
    return -np.log(np.maximum(100 - percent, 0.01))


class _Percents(Locator):
    """Ticks at round percentages, as many as fit."""

    def __call__(self) -> list[float]:
        return self.tick_values(*sorted(self.axis.get_view_interval()))  # type: ignore[union-attr]

    def tick_values(self, vmin: float, vmax: float) -> list[float]:
        places = {float(percent): _fewer_errors(percent) for percent in PERCENTS if vmin <= percent <= vmax}
        room = 0.06 * (_fewer_errors(vmax) - _fewer_errors(vmin))
        kept: list[float] = []
        for percent, place in places.items():
            if all(abs(place - places[other]) > room for other in kept):
                kept.append(percent)
        return sorted(kept)
