"""Figures of verdicts: effects beside their predictions, an interaction, and the calibration of predictions."""

import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from cnnlab.inquiry.claim import RANGE_LEVEL
from cnnlab.inquiry.contrast import Contrast
from cnnlab.inquiry.design import count
from cnnlab.inquiry.identity import differences
from cnnlab.inquiry.judge.calibration import Calibration
from cnnlab.inquiry.judge.failures import failed_runs
from cnnlab.inquiry.judge.outcome import outcome_in_words
from cnnlab.inquiry.judge.reference import Reference
from cnnlab.inquiry.judge.statistics import Effect, proportion_interval
from cnnlab.inquiry.judge.verdict import Verdict
from cnnlab.inquiry.show.figures import MEAN, legend_below, mean_interval, panels, say_lacking, titled
from cnnlab.inquiry.show.scales import axis_label, effect_label
from cnnlab.inquiry.show.style import BLUE, GREY, ORANGE, OUTCOME_COLOURS, WIDTH, YELLOW, LabFigure
from cnnlab.inquiry.task import find_metric, task

RANGE = Patch(color=YELLOW, alpha=0.6, lw=0, label="predicted range")
SMALL = Patch(color=GREY, alpha=0.2, lw=0, label="too small to matter")
IMAGES = Line2D([], [], color="black", marker="|", lw=1, ms=8, alpha=0.5, label="interval on new images as well")
EFFECT = Line2D([], [], color="black", marker="D", ms=5, label="mean effect with its 95 % interval")


def say_outcomes(outcomes: Iterable[str]) -> str:
    """Return the number of predictions with each outcome, such as "2 of 3 predictions supported, 1 inconclusive"."""
    counts = Counter(outcomes)
    total, supported = counts.total(), counts.pop("supported", 0)
    if not total:
        return "no verdict yet"
    if total == 1:
        return f"prediction {next(iter(counts), 'supported')}"
    rest = "".join(f", {count} {outcome}" for outcome, count in counts.most_common())
    return f"{supported} of {total} predictions supported{rest}"


def plot_effects(
    verdicts: Sequence[Verdict], number: str = "", references: Sequence[Reference | None] | None = None
) -> Figure:
    """Plot each effect with its 95 % interval, the predicted range as a bar, and the negligible range in grey.

    Every prediction has its own axis, in its metric's unit. A thin whisker is the interval over seeds and images, if
    it is known. `references`, one per verdict, are the effects in the reference runs, drawn as hollow marks below.
    """
    pairs = zip(verdicts, references or [None] * len(verdicts), strict=True)
    shown = [(one, reference) for one, reference in pairs if one.effect]
    figure = LabFigure(figsize=(WIDTH, 0.8 + 1.2 * max(1, len(shown))), layout="constrained")
    all_axes = np.ravel(figure.subplots(max(1, len(shown)), 1))
    for axes, (one, reference) in zip(all_axes, shown, strict=False):
        _draw_effect(axes, one, reference.effect if reference else None)
    if not shown:
        all_axes[0].axis("off")
        all_axes[0].text(0.5, 0.5, "no effect can be shown yet", ha="center", va="center", color=GREY)
        return titled(figure, "Effects", number)
    legend_below(figure, _effect_legend(shown))
    studies = ", ".join(dict.fromkeys(one.prediction.study for one in verdicts))
    return titled(figure, f"{studies}: {say_outcomes(one.outcome for one in verdicts)}", number)


def _draw_effect(axes: Axes, one: Verdict, reference: Effect | None) -> None:
    p, e = one.prediction, one.effect
    assert e is not None
    axes.use_sticky_edges = False
    axes.axvspan(-p.sesoi, p.sesoi, color=GREY, alpha=0.2, lw=0)
    axes.axvline(0, color=GREY, lw=1)
    if ends := _predicted_range(one):
        axes.barh(0.5, ends[1] - ends[0], left=ends[0], height=0.5, color=YELLOW, alpha=0.6)
    colour = OUTCOME_COLOURS[one.outcome]
    if one.on_new_images:
        low, high = one.on_new_images
        error = [[e.estimate - low], [high - e.estimate]]
        axes.errorbar(e.estimate, -0.1, xerr=error, fmt="none", color=colour, alpha=0.5, capsize=6, lw=1)
    error = [[e.estimate - e.low], [e.high - e.estimate]]
    axes.errorbar(e.estimate, -0.1, xerr=error, fmt="D", color=colour, capsize=4, ms=5, lw=2)
    axes.plot(e.by_seed, [-0.5] * e.n, "|", color=GREY, ms=7)
    if reference:
        error = [[reference.estimate - reference.low], [reference.high - reference.estimate]]
        axes.errorbar(reference.estimate, -0.8, xerr=error, fmt="D", mfc="white", color="black", capsize=3, ms=4, lw=1)
    axes.set(ylim=(-1.05, 1), yticks=[])
    axes.set_xlabel(effect_label(p.metric, p.contrast.kind), fontsize=8, labelpad=1)
    axes.tick_params(labelsize=8)
    outcome = f"{outcome_in_words(p, one.outcome, e)}{', exploratory' if one.because else ''}"
    failures = int(failed_runs(one.runs).sum())
    failed = f", {count(failures, 'run')} failed" if failures else ""
    title = f"{p.contrast.text}: {outcome}, {p.metric.say(e.estimate)} (n = {e.n} seeds{failed})"
    axes.set_title(textwrap.fill(title, 132), fontsize=8, loc="left", pad=3)


def _predicted_range(one: Verdict) -> tuple[float, float] | None:
    """Return the predicted range of an effect on the axis; for "no difference" the negligible range."""
    p = one.prediction
    if not p.sign:
        return -p.sesoi, p.sesoi
    if p.claim.size is None:
        return None
    low, high = sorted(p.sign * end for end in p.claim.size)
    return low, high


def _effect_legend(shown: Sequence[tuple[Verdict, Reference | None]]) -> list[Any]:
    """Return the legend entries for the marks that these effects have."""
    seed = Line2D([], [], color=GREY, marker="|", ls="", ms=7, label="effect of one seed")
    hollow = Line2D([], [], color="black", marker="D", mfc="white", ms=4, lw=1, label="reference runs")
    entries: list[Any] = [RANGE] if any(_predicted_range(one) for one, _ in shown) else []
    entries += [SMALL, EFFECT, seed]
    entries += [IMAGES] if any(one.on_new_images for one, _ in shown) else []
    return entries + ([hollow] if any(reference for _, reference in shown) else [])


def plot_interaction(one: Verdict, number: str = "") -> Figure:
    """Plot the four arms of an interaction on both scales, with a line for the case that two effects just add up.

    A mean is over the runs that didn't fail. A panel gives the number that did, and the title that the effect includes.
    """
    p, contrast, runs = one.prediction, one.prediction.contrast, one.runs
    failed = failed_runs(runs)
    neither, both = contrast.control, contrast.new[0]
    a, b = (arm for arm in contrast.arms if arm not in (neither, both))
    (a_off, a_on), (b_off, b_on) = (_levels(contrast, arm) for arm in (a, b))
    figure, all_axes = panels(len(task().scales), 3.9)
    for axes, name in zip(all_axes, task().scales, strict=True):
        metric = find_metric(name)
        known = metric.scale * runs[name].mask(failed)
        values = {arm: known[runs["arm"] == arm] for arm in contrast.arms}
        means = {arm: float(some.mean()) for arm, some in values.items()}
        for pair, colour, style, label in (((neither, b), BLUE, "-", a_off), ((a, both), ORANGE, "--", a_on)):
            axes.plot([0, 1], [means[arm] for arm in pair], style, color=colour, label=label)
            for x, arm in enumerate(pair):
                mean, low, high = mean_interval(values[arm].dropna())
                axes.errorbar(x, mean, [[mean - low], [high - mean]], fmt="D", color=colour, capsize=4, ms=5)
                axes.plot([x] * len(values[arm]), values[arm], "o", color=colour, alpha=0.4, ms=4)
        added = means[a] + means[b] - means[neither]
        axes.plot([0, 1], [means[a], added], ":", color=GREY, marker="x", label="if the effects just added up")
        axes.set_xticks([0, 1], [b_off, b_on], fontsize=8)
        axes.set(ylabel=axis_label(metric), xlim=(-0.25, 1.25))
        axes.set_title(say_lacking(values, runs.loc[failed, "arm"]).replace("; ", "\n"), fontsize=8)
        axes.grid(axis="y", alpha=0.3)
    axes.errorbar([], [], [], fmt="D", color="black", capsize=4, ms=5, label=MEAN)
    legend_below(figure)
    n = len(runs) // len(contrast.arms)
    found = f"{outcome_in_words(p, one.outcome, one.effect)}{', exploratory' if one.because else ''}"
    if one.effect:
        found += f", {p.metric.say(one.effect.estimate)} beyond the sum"
    averaged = f"; the effect includes {count(int(failed.sum()), 'run')} that failed" if failed.any() else ""
    return titled(figure, f"{p.study}, {contrast.text}: {found} (n = {n} seeds{averaged})", number)


def _levels(contrast: Contrast, arm: str) -> tuple[str, str]:
    """Return the setting that an arm changes, before and after the change, such as ("norm=none", "norm=batch")."""
    pairs = differences(contrast.arms[contrast.control], contrast.arms[arm]).items()
    before = ", ".join(f"{name}={old}" for name, (old, _) in pairs)
    return before, ", ".join(f"{name}={new}" for name, (_, new) in pairs)


def plot_calibration(found: Calibration, number: str = "") -> Figure:
    """Plot how many predictions came true for each confidence, and the stated confidence beside the result.

    The intervals of shares are those of Wilson 1927.
    """
    figure, (left, right) = panels(2, 2.4)
    confidence, supported = found.decided["confidence"], found.decided["supported"].astype(bool)
    _draw_counts(left, confidence.to_numpy(float), supported.to_numpy(bool))
    left.set_title(f"decided predictions (n = {len(confidence)} of {len(found.table)})", fontsize=8)
    true, n = int(supported.sum()), len(supported)
    held, of = found.coverage
    said = float(confidence.mean()) if n else float("nan")
    _draw_share(right, 1, true, n, said, f"direction: said {said:.0f} %, came true in {true} of {n}")
    sizes = f"size: {RANGE_LEVEL} % expected, {held} of {count(of, 'range')} held"
    _draw_share(right, 0, held, of, RANGE_LEVEL, sizes)
    right.set(xlabel="share of predictions (%)", xlim=(-4, 104), ylim=(-0.45, 1.75), yticks=[])
    right.grid(axis="x", alpha=0.3)
    legend_below(figure)
    came = f"{true} of {count(n, 'decided prediction')} came true"
    title = f"{came} ({100 * true / n:.0f} %), {said:.0f} % expected" if n else "nothing decided yet"
    return titled(figure, f"Calibration: {title}", number)


def _draw_counts(axes: Axes, confidence: np.ndarray, supported: np.ndarray) -> None:
    """Draw the numbers of predictions that came true and that didn't, for each ten percent of confidence."""
    edges = np.arange(50, 101, 10)
    yes, no = (np.histogram(confidence[which], edges)[0] for which in (supported, ~supported))
    true: dict[str, Any] = {"color": BLUE, "label": "came true"}
    untrue: dict[str, Any] = {"color": "white", "edgecolor": ORANGE, "hatch": "///", "label": "did not come true"}
    for counts, below, options in ((yes, 0 * yes, true), (no, yes, untrue)):
        if len(places := np.flatnonzero(counts)):  # a bar without height would still have an edge
            axes.bar(places, counts[places], bottom=below[places], **options)
    axes.set_axisbelow(True)
    axes.set_xticks(range(5), [f"{low}-{low + 9}" for low in edges[:-1]], fontsize=8)
    axes.set(xlabel="confidence (%)", ylabel="predictions", xlim=(-0.6, 4.6), ylim=(0, max(1, *(yes + no)) * 1.08))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.grid(axis="y", alpha=0.3)


def _draw_share(axes: Axes, y: float, count: int, n: int, expected: float, text: str) -> None:
    """Draw the share of n that came true, with its interval, and the stated confidence beside it."""
    axes.text(0, y + 0.42, text if n else f"{text.partition(':')[0]}: nothing to count yet", fontsize=8)
    if not n:
        return
    share, low, high = (100 * value for value in (count / n, *proportion_interval(count, n)))
    label = "came out, with 95 % interval"
    error = [[max(share - low, 0)], [max(high - share, 0)]]  # rounding
    axes.errorbar(share, y, xerr=error, fmt="D", color=BLUE, capsize=4, ms=6, lw=2, label=label, clip_on=False)
    axes.plot([expected] * 2, [y - 0.2, y + 0.2], color="black", lw=2, ls=(0, (2, 1)), label="said or expected")
