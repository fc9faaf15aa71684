"""Figures of a study that are about networks: gaps in two modes, and what the probes read in each layer."""

import pandas as pd
from matplotlib.figure import Figure

from cnnlab.inquiry.design import Design
from cnnlab.inquiry.record.runs import load_curves, trained
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.show.figures import dots_and_mean, draw_curves, titled, wrapped
from cnnlab.inquiry.show.style import BLUE, GREY, ORANGE, WIDTH


def plot_gaps(study: Design, runs: pd.DataFrame, number: str = "") -> Figure:
    """Return, for each arm, the gap between validation and training loss, measured in eval mode and in train mode."""
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    axes = figure.subplots()
    counts = runs["arm"].value_counts()
    arms = [arm for arm in study.arms if arm in counts]
    kinds = {"gap/loss": ("both in eval mode", BLUE), "gap/train_mode": ("training loss in train mode", ORANGE)}
    for place, (name, (label, colour)) in zip((-0.2, 0.15), kinds.items(), strict=True):
        for x, arm in enumerate(arms):
            dots_and_mean(axes, x + place, runs.loc[runs["arm"] == arm, name], colour, width=0.04)
        axes.plot([], [], "D", color=colour, label=label)
    axes.axhline(0, color=GREY, lw=1)
    axes.set_xticks(range(len(arms)), [f"{wrapped(arm)}\nn = {counts[arm]}" for arm in arms], fontsize=8)
    axes.set(ylabel="validation - training loss (nats)")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    return titled(figure, f"{study.name}: the gap, measured in two ways (mean and 95 % interval)", number)


def plot_probes(study: Design, runs: pd.DataFrame, store: Store, probe: str, number: str = "") -> Figure:
    """Return what a probe, such as "variance_ratio" or "dead_share", read in each layer after epochs 1, 4, 16, ...

    A line is the mean of an arm over its seeds, with a band from the lowest to the highest.
    """
    names = _probe_names(store, runs, probe)
    figure = Figure(figsize=(WIDTH, 3.0 if names else 1.0), layout="constrained")
    curves = load_curves(store, runs, names)
    for i, name in enumerate(names):
        axes = figure.add_subplot(1, len(names), i + 1, sharey=figure.axes[0] if i else None)
        draw_curves(axes, study, curves[curves["metric"] == name])
        axes.set(xlabel="epoch")
        axes.set_title(name.partition("/")[2], fontsize=8)
    if names:
        figure.axes[0].set(ylabel=probe.replace("_", " "))
        figure.axes[0].legend(frameon=False, fontsize=7)
    return titled(figure, f"{study.name}: {probe.replace('_', ' ')} of each layer", number)


def _probe_names(store: Store, runs: pd.DataFrame, probe: str) -> list[str]:
    """Return the metrics of a probe that any of the runs has, in the order of the layers."""
    ids = trained(runs.drop_duplicates("arm"))
    measured = {name for run_id in ids for name in store.client.get_run(run_id).data.metrics}
    return sorted(name for name in measured if name.startswith(f"{probe}/"))
