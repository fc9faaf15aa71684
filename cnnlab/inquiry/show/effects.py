"""Figures of verdicts: an effect beside what was predicted, an interaction, and how good predictions were."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cnnlab.inquiry.contrast import Contrast
from cnnlab.inquiry.identity import differences
from cnnlab.inquiry.judge.calibration import Calibration
from cnnlab.inquiry.judge.reference import Reference
from cnnlab.inquiry.judge.statistics import Effect
from cnnlab.inquiry.judge.verdict import Verdict
from cnnlab.inquiry.show.figures import axis_label, mean_interval, panels, titled
from cnnlab.inquiry.show.style import BLUE, GREEN, GREY, ORANGE, WIDTH, YELLOW
from cnnlab.inquiry.task import find_metric, task

OUTCOME_COLOURS = {"supported": GREEN, "refuted": ORANGE, "practically equivalent": BLUE, "inconclusive": GREY}


def plot_effects(
    verdicts: Sequence[Verdict], number: str = "", references: Sequence[Reference | None] | None = None
) -> Figure:
    """Return each effect with its 95 % interval, the predicted size as a bar, and what is too small to matter in grey.

    Every prediction has an axis of its own, in its metric's unit. `references`, one for each verdict, are the effects
    in the reference runs, drawn hollow below.
    """
    pairs = zip(verdicts, references or [None] * len(verdicts), strict=True)
    shown = [(one, reference) for one, reference in pairs if one.effect]
    figure = Figure(figsize=(WIDTH, 0.5 + 1.15 * max(1, len(shown))), layout="constrained")
    all_axes = np.ravel(figure.subplots(max(1, len(shown)), 1))
    for axes, (one, reference) in zip(all_axes, shown, strict=False):
        _draw_effect(axes, one, reference.effect if reference else None)
    if not shown:
        all_axes[0].axis("off")
        all_axes[0].text(0.5, 0.5, "no effect can be shown yet", ha="center", va="center", color=GREY)
    hollow = ", reference runs (hollow)" if any(reference for _, reference in shown) else ""
    title = f"Effect with 95 % interval, predicted size (bar), too small to matter (grey){hollow}"
    return titled(figure, title, number)


def _draw_effect(axes: Axes, one: Verdict, reference: Effect | None) -> None:
    p, e = one.prediction, one.effect
    assert e is not None
    axes.axvspan(-p.sesoi, p.sesoi, color=GREY, alpha=0.2, lw=0)
    axes.axvline(0, color=GREY, lw=1)
    if p.claim.size:
        ends = sorted(p.sign * end for end in p.claim.size)
        axes.barh(0.5, ends[1] - ends[0], left=ends[0], height=0.5, color=YELLOW, alpha=0.6)
    error = [[e.estimate - e.low], [e.high - e.estimate]]
    axes.errorbar(e.estimate, -0.1, xerr=error, fmt="D", color=OUTCOME_COLOURS[one.outcome], capsize=4, ms=5)
    axes.plot(e.by_seed, [-0.5] * e.n, "|", color=GREY, ms=7)
    if reference:
        error = [[reference.estimate - reference.low], [reference.high - reference.estimate]]
        axes.errorbar(reference.estimate, -0.8, xerr=error, fmt="D", mfc="white", color="black", capsize=3, ms=4, lw=1)
    axes.set(ylim=(-1, 1), yticks=[])
    axes.set_xlabel(f"{p.metric.name} ({p.metric.unit})" if p.metric.unit else p.metric.name, fontsize=8, labelpad=1)
    axes.tick_params(labelsize=8)
    axes.set_title(f"{p.contrast.text}: {one.outcome}, {one.label}, n = {e.n}", fontsize=8, loc="left", pad=3)


def plot_interaction(one: Verdict, number: str = "") -> Figure:
    """Return the four arms of an interaction on both scales, with the line on which two effects would just add up."""
    contrast, runs = one.prediction.contrast, one.runs
    neither, both = contrast.control, contrast.new[0]
    a, b = (arm for arm in contrast.arms if arm not in (neither, both))
    (a_off, a_on), (b_off, b_on) = (_levels(contrast, arm) for arm in (a, b))
    figure, all_axes = panels(len(task().scales), 3.6)
    for axes, name in zip(all_axes, task().scales, strict=True):
        metric = find_metric(name)
        values = {arm: metric.scale * runs.loc[runs["arm"] == arm, name] for arm in contrast.arms}
        means = {arm: float(value.to_numpy().mean()) for arm, value in values.items()}  # nan if one is
        for pair, colour, style, label in (((neither, b), BLUE, "-", a_off), ((a, both), ORANGE, "--", a_on)):
            axes.plot([0, 1], [means[arm] for arm in pair], style, color=colour, label=label)
            for x, arm in enumerate(pair):
                mean, low, high = mean_interval(values[arm])
                axes.errorbar(x, mean, [[mean - low], [high - mean]], fmt="D", color=colour, capsize=4, ms=5)
                axes.plot([x] * len(values[arm]), values[arm], "o", color=colour, alpha=0.4, ms=4)
        added = means[a] + means[b] - means[neither]
        axes.plot([0, 1], [means[a], added], ":", color=GREY, marker="x", label="if the effects just added up")
        axes.set_xticks([0, 1], [b_off, b_on], fontsize=8)
        axes.set(ylabel=axis_label(metric), xlim=(-0.25, 1.25))
        axes.grid(axis="y", alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    n = len(runs) // len(contrast.arms)
    return titled(figure, f"{one.prediction.study}: {contrast.text} (mean and 95 % interval, n = {n})", number)


def _levels(contrast: Contrast, arm: str) -> tuple[str, str]:
    """Return what an arm changes, without and with the change, such as ("norm=none", "norm=batch")."""
    pairs = differences(contrast.arms[contrast.control], contrast.arms[arm]).items()
    before = ", ".join(f"{name}={old}" for name, (old, _) in pairs)
    return before, ", ".join(f"{name}={new}" for name, (_, new) in pairs)


def plot_calibration(found: Calibration, number: str = "") -> Figure:
    """Return how often predictions of each confidence were supported, beside the line of perfect calibration."""
    figure = Figure(figsize=(WIDTH / 2, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.plot([50, 100], [50, 100], ":", color=GREY, label="perfectly calibrated")
    confidence, supported = (found.decided[name].to_numpy(float) for name in ("confidence", "supported"))
    height = found.decided.groupby(["confidence", "supported"]).cumcount()  # equal ones would hide each other
    stacked = 100 * supported + np.where(supported, -5, 5) * height
    axes.plot(confidence, stacked, "o", color=BLUE, alpha=0.7, ms=6, label="one prediction (equal ones: stacked)")
    if len(found.decided):
        mean, share = confidence.mean(), 100 * supported.mean()
        axes.plot(mean, share, "D", color=ORANGE, ms=8, label=f"mean of all (n = {len(found.decided)})")
    axes.set(xlabel="confidence (%)", ylabel="supported (%)", xlim=(47, 102), ylim=(-5, 105))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8, loc="center right", bbox_to_anchor=(1, 0.25))  # below the line
    return titled(figure, "Calibration: decided predictions", number)
