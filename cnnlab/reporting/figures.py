"""Figures of a study: every run as a dot with the mean of its arm, and mean curves with a band."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from cnnlab.figures import BLUE, GREY
from cnnlab.studies.study import Study
from cnnlab.tracking.store import Store
from cnnlab.tracking.table import load_curves

# Okabe & Ito's colours for arms, with a line style each, so that the figure also reads in grey.
ARM_STYLES = [
    ("#0072B2", "-"),
    ("#D55E00", "--"),
    ("#009E73", "-."),
    ("#CC79A7", ":"),
    ("#E69F00", "-"),
    ("#56B4E9", "--"),
]


def mean_interval(values: pd.Series, confidence: float = 0.95) -> tuple[float, float, float]:
    """Return mean and the ends of its t-interval (Student 1908); the ends of a single value are nan."""
    mean = float(values.mean())
    if len(values) < 2:
        return mean, float("nan"), float("nan")
    half = float(stats.sem(values) * stats.t.ppf((1 + confidence) / 2, len(values) - 1))
    return mean, mean - half, mean + half


def plot_arms(study: Study, runs: pd.DataFrame) -> Figure:
    """Return validation accuracy (%) and loss (nats) of every run, with mean and 95 % t-interval per arm."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    panels = {"accuracy/valid": ("accuracy (%)", 100), "loss/valid": ("cross-entropy (nats)", 1)}
    arms = [arm for arm in study.arms if (runs["arm"] == arm).any()]
    for axes, (metric, (label, scale)) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        for x, arm in enumerate(arms):
            values = scale * runs.loc[runs["arm"] == arm, metric]
            mean, low, high = mean_interval(values)
            spread = np.linspace(-0.12, 0.12, len(values)) if len(values) > 1 else [0]
            axes.plot(x + np.asarray(spread), values, "o", color=GREY, alpha=0.7, ms=4)
            axes.errorbar(x + 0.25, mean, [[mean - low], [high - mean]], fmt="D", color=BLUE, capsize=4, ms=5)
        counts = [(runs["arm"] == arm).sum() for arm in arms]
        axes.set_xticks(range(len(arms)), [f"{a}\nn = {n}" for a, n in zip(arms, counts, strict=True)], fontsize=8)
        axes.set(ylabel=f"validation {label}")
        axes.grid(axis="y", alpha=0.3)
    figure.suptitle(f"{study.name}: each run (dot), mean and 95 % interval of the mean (diamond)", fontsize=10)
    return figure


def plot_curves(study: Study, runs: pd.DataFrame, store: Store) -> Figure:
    """Return validation loss and the gap to the training loss after each epoch: mean, lowest and highest seed."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    panels = {"loss/valid": "validation loss (nats)", "gap/loss": "validation - training loss (nats)"}
    curves = load_curves(store, runs, list(panels))
    for axes, (metric, label) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        for arm, (colour, line) in zip(study.arms, ARM_STYLES * 2, strict=False):
            one = curves[(curves["arm"] == arm) & (curves["metric"] == metric)].groupby("epoch")["value"]
            if one.ngroups:
                axes.plot(one.mean(), line, color=colour, marker=".", label=f"{arm} (n = {one.size().max()})")
                axes.fill_between(one.mean().index, one.min(), one.max(), color=colour, alpha=0.15, lw=0)
        axes.set(xlabel="epoch", ylabel=label)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    figure.suptitle(f"{study.name}: mean over the seeds, band from the lowest to the highest", fontsize=10)
    return figure
