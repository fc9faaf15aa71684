"""Figures of a study: runs as dots with the means of arms, curves, dose and response, isolation plots.

Every figure shows n, states the finding in its title, can have a number, and fits the width of an A4 page. Arms have
Okabe & Ito's colors, which color-blind readers can distinguish, and different line styles, which also work in gray.
"""

import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from cnnlab.inquiry.design import Design
from cnnlab.inquiry.judge.failures import failed_runs
from cnnlab.inquiry.judge.statistics import t_interval
from cnnlab.inquiry.metrics import Metric
from cnnlab.inquiry.record.runs import load_curves
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.show.scales import WIDE, axis_label, fit_scale, is_gap, say_level, short_label, shortened
from cnnlab.inquiry.show.style import ARM_STYLES, BLUE, GREY, ORANGE, WIDTH, LabFigure
from cnnlab.inquiry.task import find_metric, task

MEAN = "mean with its 95 % interval"
FAILED, FAR_OFF = "run that failed", "far off"
BEST_OF_VALUE, BEST = "best trial of this value", "best trial of all"
MARKS = ("one run", "one trial", MEAN, "best mean", BEST_OF_VALUE, BEST, FAR_OFF, FAILED)  # the last in a legend
BAND = Patch(color=GREY, alpha=0.2, lw=0, label="band: lowest to highest seed, line: mean")
BAR = Line2D([], [], color=GREY, marker=".", ls="-", label="bar: lowest to highest seed, dot: mean")  # of one epoch


def mean_interval(values: pd.Series) -> tuple[float, float, float]:
    """Return the mean and the ends of its 95 % t-interval (Student 1908); the ends for a single value are nan."""
    if len(values) < 2:
        return float(values.mean()), float("nan"), float("nan")
    effect = t_interval(values.to_numpy())
    return effect.estimate, effect.low, effect.high


def titled(figure: Figure, title: str, number: str = "") -> Figure:
    """Give a figure its title, with its number if it has one, in lines that fit its width."""
    letters = int(13 * figure.get_figwidth())
    figure.suptitle(textwrap.fill(f"Figure {number}. {title}" if number else title, letters), fontsize=10)
    return figure


def legend_below(figure: Figure, more: Iterable[Any] = ()) -> None:
    """Give a figure one legend below its axes, with each label in any of them once, and with `more`.

    The arms come first, then the entries that all arms have in common.
    """
    drawn = [one for axes in figure.axes for one in zip(*axes.get_legend_handles_labels(), strict=True)]
    entries = dict[str, Any]()
    for one, label in [*drawn, *((one, str(one.get_label())) for one in more)]:
        entries.setdefault(label, one)
    labels = sorted(entries, key=lambda label: MARKS.index(label) if label in MARKS else -1)
    if labels:
        room = int(16 * figure.get_figwidth())  # in letters
        is_short = sum(len(label) + 7 for label in labels) <= room
        columns = len(labels) if is_short else max(1, room // (max(map(len, labels)) + 7))
        options: dict[str, Any] = {"loc": "outside lower center", "frameon": False, "fontsize": 8}
        rows = -(-len(labels) // columns)
        figure.set_figheight(figure.get_figheight() + 0.17 * max(0, rows - 2))
        figure.legend([entries[label] for label in labels], labels, ncols=columns, **options)


def panels(count: int, height: float, sharey: bool = False) -> tuple[Figure, list[Axes]]:
    """Return a figure of page width and of `height` inches, with this number of panels side by side."""
    figure = LabFigure(figsize=(WIDTH, height), layout=ConstrainedLayoutEngine(w_pad=0.08))
    return figure, list(figure.subplots(1, count, sharey=sharey, squeeze=False)[0])


def by_arm(study: Design, runs: pd.DataFrame, metric: Metric) -> dict[str, pd.Series]:
    """Return a metric for each arm that has runs, in the metric's unit; nan for a run that failed or lacks it."""
    if metric.name not in runs:
        return {}
    known = metric.scale * runs[metric.name].astype(float).mask(failed_runs(runs))
    values = {arm: known[runs["arm"] == arm] for arm in study.arms}
    return {arm: some for arm, some in values.items() if len(some)}


def say_n(values: pd.Series) -> str:
    """Return how many of the values exist, such as "n = 5" or "n = 2 of 5"."""
    return f"n = {values.count()}" + (f" of {len(values)}" if values.count() < len(values) else "")


def say_lacking(values: Mapping[str, pd.Series], failed: Iterable[str]) -> str:
    """Return which arms have fewer values than others, such as "lr=0.3: n = 2 of 5, 3 failed"; "" if none has.

    `failed` contains the arm of every failed run.
    """
    n, failures = max(map(len, values.values()), default=0), Counter(failed)
    return "; ".join(
        f"{shortened(arm, 40)}: n = {some.count()} of {n}" + (f", {failures[arm]} failed" if failures[arm] else "")
        for arm, some in values.items()
        if some.count() < n
    )


def say_means(metric: Metric, values: Mapping[str, pd.Series]) -> str:
    """Return the range of the means of the arms, in words."""
    means = {arm: some.mean() for arm, some in values.items() if some.count()}
    if not means:
        return f"no run has a {short_label(metric)}"
    low, high = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
    first = f"mean {short_label(metric)} {'from ' if low != high else ''}{say_level(metric, means[low])}"
    if low == high:
        return first
    return f"{first} ({shortened(low, 40)}) to {say_level(metric, means[high])} ({shortened(high, 40)})"


def plot_arms(study: Design, runs: pd.DataFrame, metrics: tuple[str, ...] = (), number: str = "") -> Figure:
    """Plot every run as a dot and, beside it, the mean of its arm with its 95 % t-interval; one panel per metric.

    The default `metrics` are the first two of the task.
    """
    shown = [find_metric(name) for name in metrics] or list(task().metrics[:2])
    figure, all_axes = panels(len(shown), 4.2)
    for axes, metric in zip(all_axes, shown, strict=True):
        values = by_arm(study, runs, metric)
        for x, some in enumerate(values.values()):
            dots_and_mean(axes, x, some)
        name_arms(axes, values, WIDTH / len(shown))
        axes.set(ylabel=axis_label(metric))
        axes.grid(axis="y", alpha=0.3)
        if values:
            fit_scale(axes, metric, np.concatenate(list(values.values())))
    legend_below(figure)
    return titled(figure, f"{study.name}: {say_means(shown[0], by_arm(study, runs, shown[0]))}", number)


def name_arms(axes: Axes, values: Mapping[str, pd.Series], width: float) -> None:
    """Write the names of the arms with their n below the axis; slant them if `width` inches are not enough."""
    letters = int(85 * width / (8 * max(len(values), 1)))  # below a tick, of 8 points
    labels = [f"{wrapped(arm, letters)}\n{say_n(some)}" for arm, some in values.items()]
    slanted: dict[str, Any] = {"fontsize": 8}
    if any(len(line) > letters for label in labels for line in label.split("\n")):
        labels = [f"{shortened(arm, 40)}, {say_n(some)}" for arm, some in values.items()]
        figure = axes.get_figure(root=True)
        assert figure is not None
        figure.set_figheight(max(figure.get_figheight(), 3.2 + 0.045 * max(map(len, labels))))  # they hang far down
        slanted = {"fontsize": 7, "rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(len(values)), labels, **slanted)
    axes.set_xlim(-0.5, max(len(values), 1) - 0.5)


def dots_and_mean(
    axes: Axes, x: float, values: pd.Series, colour: str = BLUE, width: float = 0.12, label: str = MEAN
) -> None:
    """Draw the values at x as dots and, beside them, their mean with its interval; a single value has no mean."""
    values = values.dropna()
    mean, low, high = mean_interval(values)
    spread = np.linspace(-width, width, len(values)) if len(values) > 1 else np.zeros(len(values))
    if len(values):
        axes.plot(x + spread, values, "o", color=colour, alpha=0.4, ms=4, label="one run")
    if len(values) > 1:
        error = [[mean - low], [high - mean]]
        axes.errorbar(x + 2 * width, mean, error, fmt="D", color=colour, capsize=4, ms=5, label=label)


def wrapped(name: str, letters: int = 11) -> str:
    """Break the name of an arm into lines of at most this many letters, if possible."""
    lines = name.replace(", ", ",\n").replace(" in the ", "\nin the\n").split("\n")
    return "\n".join(line.replace("=", "=\n") if len(line) > letters else line for line in lines)


def plot_curves(
    study: Design, runs: pd.DataFrame, store: Store, metrics: tuple[str, ...] = (), number: str = ""
) -> Figure:
    """Plot metrics after each epoch: the mean of every arm, with a band from its lowest to its highest seed.

    The default `metrics` are the second and third of the task. If a loss falls steeply in the first quarter of the
    epochs, its scale fits the rest.
    """
    shown = [find_metric(name) for name in metrics] or list(task().metrics[1:3])
    curves = load_curves(store, runs, [metric.name for metric in shown])
    figure, all_axes = panels(len(shown), 3.9)
    for axes, metric in zip(all_axes, shown, strict=True):
        some = curves[curves["metric"] == metric.name]
        draw_curves(axes, study, some, metric.scale)
        _fit_curves(axes, metric, some.assign(value=metric.scale * some["value"]))
        axes.set(xlabel="epoch", ylabel=axis_label(metric))
    legend_below(figure, [spread_of(curves)])
    return titled(figure, f"{study.name}: {say_means(shown[0], by_arm(study, runs, shown[0]))}", number)


def draw_curves(axes: Axes, study: Design, curves: pd.DataFrame, scale: float = 1.0) -> None:
    """Draw the mean curve of every arm, with a band from its lowest to its highest seed.

    After one epoch there are no curves: each arm is a mean with a bar.
    """
    is_single = curves["epoch"].nunique() == 1
    for arm, (colour, line, marker), x, values in curves_by_arm(study, curves):
        mean, low, high = (scale * some.to_numpy() for some in (values.mean(), values.min(), values.max()))
        label = f"{arm} (n = {values.size().max()})"
        if is_single:
            axes.errorbar(x, mean, [mean - low, high - mean], fmt=marker, color=colour, ms=7, label=label)
            axes.set_xlim(round(x[0]) - 0.6, round(x[0]) + 0.6)
        else:
            axes.plot(x, mean, line, color=colour, marker=marker, ms=5, label=label)
            axes.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)


def curves_by_arm(study: Design, curves: pd.DataFrame) -> Iterator[tuple[str, tuple[str, str, str], np.ndarray, Any]]:
    """Yield each arm that has values, with its style, the positions of its epochs, and its values grouped by epoch.

    If there is only one epoch, the arms are side by side.
    """
    apart = 0.8 / len(study.arms) if curves["epoch"].nunique() == 1 else 0.0
    for i, (arm, style) in enumerate(zip(study.arms, cycle(ARM_STYLES), strict=False)):
        values = curves[curves["arm"] == arm].groupby("epoch")["value"]
        if values.ngroups:
            x = np.array(list(values.groups), dtype=float) + apart * (i - (len(study.arms) - 1) / 2)
            yield arm, style, x, values


def spread_of(curves: pd.DataFrame) -> Any:
    """Return the legend entry for the spread over seeds in `draw_curves`."""
    return BAR if curves["epoch"].nunique() == 1 else BAND


def _fit_curves(axes: Axes, metric: Metric, curves: pd.DataFrame) -> None:
    """Choose a scale on which the ends of the curves can be distinguished."""
    values = curves["value"].astype(float)
    if metric.better == "lower" and not is_gap(metric) and values.max() > WIDE * values.min() > 0:
        values = curves.loc[curves["epoch"] > curves["epoch"].max() / 4, "value"]
        if values.max() < curves["value"].max():
            axes.set_title("(higher in the first epochs)", fontsize=8)
    fit_scale(axes, metric, values.to_numpy())
    if len(values.dropna()):
        scale = axes.yaxis.get_transform()
        low, high = scale.transform(np.array([values.min(), values.max()]))
        margin = 0.05 * ((high - low) or abs(high) or 1)
        axes.set_ylim(*scale.inverted().transform(np.array([low - margin, high + margin])))


def plot_levels(
    studies: Mapping[str, tuple[Design, pd.DataFrame]], field: str, metric: str = "", number: str = "", lines: str = ""
) -> Figure:
    """Plot dose and response: a metric over the levels of a field, with one panel per study under its title.

    A dot is a run, a diamond the mean of an arm with its 95 % t-interval, and a ring the best mean of a line. `lines`
    names a second field, such as "norm": each of its values has a line. A failed run is a cross, at the edge if it has
    no value. A study without runs has no panel.
    """
    measured = find_metric(metric or task().metrics[1].name)
    studies = {title: (study, runs) for title, (study, runs) in studies.items() if len(runs)}
    figure, all_axes = panels(len(studies), 3.9)
    best: dict[str, float] = {}
    for axes, (title, (study, runs)) in zip(all_axes, studies.items(), strict=True):
        groups: dict[str, list[str]] = {}
        for arm in by_arm(study, runs, measured):
            groups.setdefault(f"{lines}={getattr(study.arms[arm], lines)}" if lines else "", []).append(arm)
        for (name, arms), style in zip(groups.items(), cycle(ARM_STYLES), strict=False):
            levels = {arm: float(getattr(study.arms[arm], field)) for arm in arms}
            if found := _draw_line(axes, levels, runs, measured, style, name):
                best[", ".join(filter(None, (title if len(studies) > 1 or not name else "", name)))] = levels[found]
        _name_panel(axes, title, study, runs, measured)
        _place_levels(axes, field, {float(getattr(study.arms[arm], field)) for arm in set(runs["arm"])})
    legend_below(figure)
    at = ", ".join(f"{level:g} ({name})" for name, level in best.items())
    own = "; each panel has its own scale" if len(studies) > 1 else ""
    label = short_label(measured)[0].upper() + short_label(measured)[1:]
    return titled(figure, f"{label} over {field}{': best mean at ' if at else ''}{at}{own}", number)


def _draw_line(
    axes: Axes, levels: dict[str, float], runs: pd.DataFrame, metric: Metric, style: tuple[str, str, str], name: str
) -> str | None:
    """Draw the runs of some arms at their levels with a line through the means; return the arm with the best one."""
    colour, line, _ = style
    means: dict[str, float] = {}
    for arm, level in levels.items():
        one = runs[runs["arm"] == arm]
        values = metric.scale * one[metric.name].astype(float)
        failed = values.isna() | failed_runs(one)
        well = values[~failed]
        if len(well):
            axes.plot([level] * len(well), well, "o", color=colour, alpha=0.4, ms=4, label="one run")
            means[arm] = float(well.mean())
        if len(well) > 1:
            mean, low, high = mean_interval(well)
            error = [[mean - low], [high - mean]]
            axes.errorbar(level, mean, error, fmt="D", color=colour, capsize=4, ms=4, label=MEAN)
        _draw_failed(axes, level, values[failed], metric, colour)
    axes.plot([levels[arm] for arm in means], list(means.values()), line, color=colour, label=name or None)
    if not means or not metric.better:
        return None
    best = (min if metric.better == "lower" else max)(means, key=means.__getitem__)
    axes.plot(levels[best], means[best], "o", color=colour, mfc="none", ms=12, mew=1.5, label="best mean")
    return best


def _draw_failed(axes: Axes, level: float, values: pd.Series, metric: Metric, colour: str) -> None:
    """Draw failed runs as crosses: at their value or, if they have none, at the edge on the bad side."""
    options: dict[str, Any] = {"color": colour, "ms": 8, "mew": 2, "label": FAILED}
    if values.count():
        axes.plot([level] * values.count(), values.dropna(), "x", **options)
    if values.isna().any():
        edge = 0.03 if metric.better == "higher" else 0.97
        axes.plot(level, edge, "x", transform=axes.get_xaxis_transform(), **options)


def _name_panel(axes: Axes, title: str, study: Design, runs: pd.DataFrame, metric: Metric) -> None:
    values = by_arm(study, runs, metric)
    lacking = say_lacking(values, runs.loc[failed_runs(runs), "arm"])
    counts = f"(n = {max(map(len, values.values()))} per level{f'; {lacking}' if lacking else ''})"
    figure = axes.get_figure(root=True)
    assert figure is not None
    letters = int(100 / len(figure.axes))
    axes.set_title(f"{title}\n{textwrap.fill(counts, letters)}", fontsize=8)
    axes.set_ylabel(axis_label(metric))
    axes.grid(alpha=0.3)
    fit_scale(axes, metric, np.concatenate(list(values.values())))


def _place_levels(axes: Axes, field: str, levels: set[float]) -> None:
    """Show the levels on the horizontal axis, which is logarithmic if they span more than a factor of ten."""
    if 0 < 10 * min(levels) < max(levels):
        axes.set_xscale("log")
    axes.set_xticks(sorted(levels), [f"{level:g}" for level in sorted(levels)], fontsize=8)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(field)
    axes.margins(x=0.08)


def plot_isolation(trials: pd.DataFrame, fields: Iterable[str], score: str = "", number: str = "") -> Figure:
    """Plot the scores of a search's trials over the values of each field, with the best of each value in front.

    `trials` has one row per trial: the fields and the score. The line through the best trials shows the effect of a
    field if all others are chosen optimally for it (Godbole et al. 2023, Deep Learning Tuning Playbook, isolation
    plots). A field with a different value in every trial has no such line. A trial without a score, or with one so bad
    that it would hide the differences among the others, is a triangle at the edge. The best of all has a ring.
    """
    names, metric = list(fields), find_metric(score or task().metrics[1].name)
    scores, is_off = _without_far_off(metric.scale * trials[metric.name], metric.better)
    near = scores.where(~is_off)
    pick = "min" if metric.better == "lower" else "max"
    best = getattr(near, f"idx{pick}")() if near.count() else None
    figure, all_axes = panels(len(names), 3.3, sharey=True)
    for axes, name in zip(all_axes, names, strict=True):
        places = _place_trials(axes, trials[name])
        axes.plot(places[~is_off], near[~is_off], "o", color=GREY, alpha=0.6, ms=4, label="one trial")
        if is_off.any():
            mark = "^" if metric.better == "lower" else "v"
            axes.plot(places[is_off], scores[is_off], mark, color=ORANGE, ms=6, label=FAR_OFF)
        if not places.is_unique:
            of_value = near.groupby(places).agg(pick).dropna()
            axes.plot(of_value.index, of_value, "D", color=BLUE, ms=6, label=BEST_OF_VALUE)
        if best is not None:
            axes.plot(places[best], near[best], "o", color=BLUE, mfc="none", ms=12, label=BEST)
        axes.set_xlabel(name)
        axes.grid(alpha=0.3)
    all_axes[0].set_ylabel(axis_label(metric))
    legend_below(figure)
    far_off = f", {is_off.sum()} far off" if is_off.any() else ""
    title = f"Isolation plots of a search (n = {len(trials)}{far_off})"
    if best is not None:
        at = ", ".join(f"{name}={trials.loc[best, name]}" for name in names)
        title += f": best {short_label(metric)} {say_level(metric, near[best])} with {at}"
    return titled(figure, title, number)


def _place_trials(axes: Axes, values: pd.Series) -> pd.Series:
    """Return the positions of a field's values on the horizontal axis."""
    if pd.api.types.is_numeric_dtype(values) and values.is_unique and values.min() > 0:  # drawn from a range
        _logarithmic(axes)
        return values
    levels = sorted(values.unique())
    _name_levels(axes, levels)
    return values.map(levels.index)


def _without_far_off(scores: pd.Series, better: str) -> tuple[pd.Series, pd.Series]:
    """Move scores beyond the outer fence (Tukey 1977) to the edge; return all scores, and which ones were moved."""
    sign = 1 if better == "lower" else -1
    badness = sign * scores
    low, high = badness.quantile([0.25, 0.75])
    is_off = ~(badness <= high + 3 * (high - low))  # including nan
    near = badness[~is_off]
    edge = near.max() + 0.2 * (near.max() - near.min())
    return sign * badness.where(~is_off, edge), is_off


def _logarithmic(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.tick_params(axis="x", labelrotation=45, labelsize=8)
    axes.margins(x=0.15)


def _name_levels(axes: Axes, levels: list[Any]) -> None:
    is_short = len(levels) <= 4 and not isinstance(levels[0], str)
    slanted: dict[str, Any] = {} if is_short else {"rotation": 45, "ha": "right"}
    axes.set_xticks(range(len(levels)), [str(level) for level in levels], fontsize=8, **slanted)
    axes.set_xlim(-0.5, len(levels) - 0.5)


def log_figures(store: Store, run_id: str, figures: Mapping[str, Figure]) -> None:
    """Store figures as artifacts of a run or prediction, by name; existing figures of these names are replaced."""
    with TemporaryDirectory(prefix="cnnlab-") as folder:
        for name, figure in figures.items():
            figure.savefig(Path(folder) / f"{name}.png", dpi=110)
        store.client.log_artifacts(run_id, folder, "figures")
