"""Figures of a study: every run as a dot with the mean of its arm, curves, dose and response, isolation plots.

Every figure can have a number, tells n, and fits the width of an A4 page. Arms have Okabe & Ito's colours, which
colour-blind readers tell apart, and a line style each, so that a figure also reads in grey.
"""

from collections.abc import Iterable, Mapping
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from cnnlab.inquiry.design import Design
from cnnlab.inquiry.judge.statistics import t_interval
from cnnlab.inquiry.metrics import Metric
from cnnlab.inquiry.record.runs import load_curves
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.show.style import ARM_STYLES, BLUE, GREY, ORANGE, WIDTH
from cnnlab.inquiry.task import find_metric, task


def mean_interval(values: pd.Series) -> tuple[float, float, float]:
    """Return mean and the ends of its 95 % t-interval (Student 1908); the ends of a single value are nan."""
    if len(values) < 2:
        return float(values.mean()), float("nan"), float("nan")
    effect = t_interval(values.to_numpy())
    return effect.estimate, effect.low, effect.high


def titled(figure: Figure, title: str, number: str = "") -> Figure:
    """Give a figure its title, with its number where it has one."""
    figure.suptitle(f"Figure {number}. {title}" if number else title, fontsize=10)
    return figure


def panels(count: int, height: float, sharey: bool = False) -> tuple[Figure, list[Axes]]:
    """Return a figure as wide as a page, `height` in inches, with so many panels side by side."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, list(figure.subplots(1, count, sharey=sharey, squeeze=False)[0])


def axis_label(metric: Metric) -> str:
    """Return how an axis names a metric: in percent where it is a share, by its name where its label is long."""
    unit = "%" if metric.unit == "pp" and not metric.name.startswith("gap") else metric.unit
    label = metric.label if len(metric.label) < 30 else metric.name
    return f"{label} ({unit})" if unit else label


def plot_arms(study: Design, runs: pd.DataFrame, metrics: tuple[str, ...] = (), number: str = "") -> Figure:
    """Return every run as a dot and, beside it, the mean of its arm with its 95 % t-interval; one panel per metric.

    Without `metrics` they are the first two of the task.
    """
    metrics = metrics or tuple(metric.name for metric in task().metrics[:2])
    counts = runs["arm"].value_counts()
    arms = [arm for arm in study.arms if arm in counts]
    size = 8 if len(arms) < 8 else 7
    letters = 780 // (size * len(metrics) * max(len(arms), 1))  # below a tick; 780 of one point fill the figure
    labels = [f"{wrapped(arm, letters)}\nn = {counts[arm]}" for arm in arms]
    figure, all_axes = panels(len(metrics), 3.8)
    for axes, name in zip(all_axes, metrics, strict=True):
        metric = find_metric(name)
        for x, arm in enumerate(arms):
            dots_and_mean(axes, x, metric.scale * runs.loc[runs["arm"] == arm, name])
        axes.set_xticks(range(len(arms)), labels, fontsize=size)
        axes.set(ylabel=axis_label(metric))
        axes.grid(axis="y", alpha=0.3)
    return titled(figure, f"{study.name}: each run (dot), mean and 95 % interval of the mean (diamond)", number)


def dots_and_mean(axes: Axes, x: float, values: pd.Series, colour: str = BLUE, width: float = 0.12) -> None:
    """Draw the values at a place as dots, and beside them their mean with its interval."""
    mean, low, high = mean_interval(values)
    spread = np.linspace(-width, width, len(values)) if len(values) > 1 else np.zeros(1)
    axes.plot(x + spread, values, "o", color=GREY, alpha=0.7, ms=4)
    axes.errorbar(x + 2 * width, mean, [[mean - low], [high - mean]], fmt="D", color=colour, capsize=4, ms=5)


def wrapped(name: str, letters: int = 11) -> str:
    """Return the name of an arm on several short lines, if it can be of so many letters."""
    lines = name.replace(", ", ",\n").replace(" in the ", "\nin the\n").split("\n")
    return "\n".join(line.replace("=", "=\n") if len(line) > letters else line for line in lines)


def plot_curves(
    study: Design, runs: pd.DataFrame, store: Store, metrics: tuple[str, ...] = (), number: str = ""
) -> Figure:
    """Return metrics after each epoch: the mean of every arm, with a band from its lowest to its highest seed.

    Without `metrics` they are the second and the third of the task.
    """
    metrics = metrics or tuple(metric.name for metric in task().metrics[1:3])
    curves = load_curves(store, runs, list(metrics))
    figure, all_axes = panels(len(metrics), 3.6)
    for axes, name in zip(all_axes, metrics, strict=True):
        metric = find_metric(name)
        draw_curves(axes, study, curves[curves["metric"] == name], metric.scale)
        axes.set(xlabel="epoch", ylabel=axis_label(metric))
    axes.legend(frameon=False, fontsize=8)
    return titled(figure, f"{study.name}: mean over the seeds, band from the lowest to the highest", number)


def draw_curves(axes: Axes, study: Design, curves: pd.DataFrame, scale: float = 1.0) -> None:
    """Draw the mean curve of every arm, with a band from its lowest to its highest seed."""
    for arm, (colour, line) in zip(study.arms, cycle(ARM_STYLES), strict=False):
        one = (scale * curves[curves["arm"] == arm].set_index("epoch")["value"]).groupby("epoch")
        if one.ngroups:
            axes.plot(one.mean(), line, color=colour, marker=".", label=f"{arm} (n = {one.size().max()})")
            axes.fill_between(one.mean().index, one.min(), one.max(), color=colour, alpha=0.15, lw=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)


def plot_levels(
    studies: Mapping[str, tuple[Design, pd.DataFrame]], field: str, metric: str = "", number: str = ""
) -> Figure:
    """Return dose and response: a metric over the levels of a field, one panel for each study by its title.

    A dot is a run, a diamond the mean of an arm with its 95 % t-interval; the line joins the means. A study without
    runs has no panel.
    """
    measured = find_metric(metric or task().metrics[1].name)
    studies = {title: (study, runs) for title, (study, runs) in studies.items() if len(runs)}
    figure, all_axes = panels(len(studies), 3.4)
    for axes, (title, (study, runs)) in zip(all_axes, studies.items(), strict=True):
        values = {arm: measured.scale * some[measured.name] for arm, some in runs.groupby("arm")}
        arms = [arm for arm in study.arms if arm in values]
        levels = np.array([float(getattr(study.arms[arm], field)) for arm in arms])
        width = 0.02 * (np.ptp(levels) or 1)
        for level, arm in zip(levels, arms, strict=True):
            dots_and_mean(axes, level, values[arm], width=width)
        axes.plot(levels + 2 * width, [values[arm].to_numpy().mean() for arm in arms], "-", color=BLUE, alpha=0.6)
        axes.set(xlabel=field, ylabel=axis_label(measured), xticks=levels)
        axes.set_title(f"{title} (n = {max(map(len, values.values()))} an arm)", fontsize=9)
        axes.grid(alpha=0.3)
    return titled(figure, f"Dose and response: {measured.label} over {field}", number)


def plot_isolation(trials: pd.DataFrame, fields: Iterable[str], score: str = "", number: str = "") -> Figure:
    """Return, for each field of a search, the score of its trials over the field's values, the best of each in front.

    `trials` has one row a trial: the fields and the score. The line of the best is what a field is worth when all
    others may be chosen for it (Godbole et al. 2023, Deep Learning Tuning Playbook, isolation plots). A trial so bad
    that the others could not be told apart, or without a score, is a triangle at the edge.
    """
    score = score or task().metrics[1].name
    names, metric = list(fields), find_metric(score)
    scores, is_off = _without_far_off(metric.scale * trials[score], metric.better)
    near = scores.where(~is_off)
    figure, all_axes = panels(len(names), 2.9, sharey=True)
    for axes, name in zip(all_axes, names, strict=True):
        values = trials[name]
        if pd.api.types.is_numeric_dtype(values) and values.is_unique and values.min() > 0:  # drawn from a range
            places, best = values, near
            _logarithmic(axes)
        else:
            levels = sorted(values.unique())
            places = values.map(levels.index)
            best = near.groupby(places).transform("min" if metric.better == "lower" else "max")
            _name_levels(axes, levels)
        axes.plot(places[~is_off], near[~is_off], "o", color=GREY, alpha=0.6, ms=4)
        axes.plot(places[is_off], scores[is_off], "^" if metric.better == "lower" else "v", color=ORANGE, ms=6)
        axes.plot(places, best, "D", color=BLUE, ms=6)
        axes.set_xlabel(name)
        axes.grid(alpha=0.3)
    all_axes[0].set_ylabel(axis_label(metric))
    far_off = f", {is_off.sum()} far off: triangle" if is_off.any() else ""
    title = f"Isolation plots of a search: every trial, and the best of each value (n = {len(trials)}{far_off})"
    return titled(figure, title, number)


def _without_far_off(scores: pd.Series, better: str) -> tuple[pd.Series, pd.Series]:
    """Return scores of which those beyond the outer fence (Tukey 1977) are moved to the edge, and which these are."""
    sign = 1 if better == "lower" else -1
    badness = sign * scores
    low, high = badness.quantile([0.25, 0.75])
    is_off = ~(badness <= high + 3 * (high - low))  # nan as well
    near = badness[~is_off]
    edge = near.max() + 0.2 * (near.max() - near.min())
    return sign * badness.where(~is_off, edge), is_off


def _logarithmic(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", labelrotation=45, labelsize=8)
    axes.margins(x=0.15)


def _name_levels(axes: Axes, levels: list[Any]) -> None:
    is_short = len(levels) <= 4 and not isinstance(levels[0], str)
    slanted: dict[str, Any] = {} if is_short else {"rotation": 45, "ha": "right"}
    axes.set_xticks(range(len(levels)), [str(level) for level in levels], fontsize=8, **slanted)
    axes.set_xlim(-0.5, len(levels) - 0.5)


def log_figures(store: Store, run_id: str, figures: Mapping[str, Figure]) -> None:
    """Keep figures of a run or a prediction among its artifacts, by their names; a figure of that name is replaced."""
    with TemporaryDirectory(prefix="cnnlab-") as folder:
        for name, figure in figures.items():
            figure.savefig(Path(folder) / f"{name}.png", dpi=110)
        store.client.log_artifacts(run_id, folder, "figures")
