"""Figures of a study that are about networks: gaps in two modes, and what the probes read in each layer."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cnnlab.inquiry.design import Design
from cnnlab.inquiry.record.runs import load_curves, trained
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.show.figures import (
    by_arm,
    curves_by_arm,
    dots_and_mean,
    draw_curves,
    legend_below,
    name_arms,
    say_means,
    spread_of,
    titled,
)
from cnnlab.inquiry.show.style import BLUE, GREY, ORANGE, WIDTH, LabFigure
from cnnlab.task import METRICS

GAPS = {  # the colours look alike in grey, so the legend also says where the dots are
    "gap/loss": ("left: both in eval mode", BLUE),
    "gap/train_mode": ("right: training loss in train mode", ORANGE),
}
PROBES = {  # what the axis is called
    "variance_ratio": "variance in eval mode /\nrunning variance of BatchNorm",
    "dead_share": "share of channels that are\n0 for all probe images",
    "activation_mean": "mean of the activations",
    "activation_sd": "SD of the activations",
    "grad_norm": "norm of the gradient",
}
CHANNELS = ("variance_ratio_low", "variance_ratio_high", "live_channels")  # beside the variance ratio of a layer
QUARTILES = Line2D([], [], color=GREY, marker="_", lw=0.7, label="thin lines: quartiles over the live channels")


def plot_gaps(study: Design, runs: pd.DataFrame, number: str = "") -> Figure:
    """Return, for each arm, the gap between validation and training loss, measured in eval mode and in train mode."""
    figure = LabFigure(figsize=(WIDTH, 3.8), layout="constrained")
    axes = figure.subplots()
    metrics = {metric.name: metric for metric in METRICS}
    gaps = {name: by_arm(study, runs, metrics[name]) for name in GAPS}
    for place, (name, (label, colour)) in zip((-0.2, 0.15), GAPS.items(), strict=True):
        for x, values in enumerate(gaps[name].values()):
            dots_and_mean(axes, x + place, values, colour, width=0.04)
        axes.plot([], [], lw=6, color=colour, label=label)
    axes.axhline(0, color=GREY, lw=1)
    name_arms(axes, gaps["gap/loss"], WIDTH)
    axes.set(ylabel="validation - training loss (nats)")
    axes.grid(axis="y", alpha=0.3)
    legend_below(figure)
    in_eval, in_train = (say_means(metrics[name], values) for name, values in gaps.items())
    return titled(figure, f"{study.name}, eval mode: {in_eval}; train mode: {in_train}", number)


def plot_probes(study: Design, runs: pd.DataFrame, store: Store, probe: str, number: str = "") -> Figure:
    """Return what a probe, such as "variance_ratio" or "dead_share", read in each layer after epochs 1, 4, 16, ...

    A line is the mean of an arm over its seeds, with a band from the lowest to the highest. A variance ratio is the
    median over the live channels: thin lines are the quartiles, and a panel says how many are alive at the end.
    """
    names = _probe_names(store, runs, probe)
    figure = LabFigure(figsize=(WIDTH, 3.4 if names else 1.0), layout="constrained")
    curves = load_curves(store, runs, names)
    channels = load_curves(store, runs, _probe_names(store, runs, *CHANNELS) if probe == "variance_ratio" else [])
    for i, name in enumerate(names):
        layer = name.partition("/")[2]
        axes = figure.add_subplot(1, len(names), i + 1, sharey=figure.axes[0] if i else None)
        draw_curves(axes, study, curves[curves["metric"] == name])
        alive = _draw_channels(axes, study, channels, layer)
        axes.set(xlabel="epoch")
        axes.set_title(f"layer {layer}{alive}", fontsize=8)
        axes.tick_params(labelleft=not i, labelsize=8)
    if names:
        figure.axes[0].set_ylabel(PROBES.get(probe, probe), fontsize=9)
        legend_below(figure, [spread_of(curves), *([] if channels.empty else [QUARTILES])])
    is_older = probe == "variance_ratio" and len(_runs_of(channels)) < len(_runs_of(curves))
    older = "; in runs of older versions, a dead channel counts as 1" if is_older else ""
    return titled(figure, f"{study.name}: {_extremes(curves, probe.replace('_', ' '))}{older}", number)


def _draw_channels(axes: Axes, study: Design, channels: pd.DataFrame, layer: str) -> str:
    """Draw the quartiles of a layer's live channels; return their number in words, "" where it isn't known."""
    alive = channels[channels["metric"] == f"live_channels/{layer}"]
    if alive.empty:
        return ""
    for quartile in ("variance_ratio_low", "variance_ratio_high"):
        some = channels[channels["metric"] == f"{quartile}/{layer}"]
        for _, (colour, _, _), x, values in curves_by_arm(study, some):
            axes.plot(x, values.mean(), "-", color=colour, marker="_", lw=0.7)
    counts = alive.loc[alive["epoch"] == alive["epoch"].max(), "value"]
    low, high = f"{counts.min():.0f}", f"{counts.max():.0f}"
    return f"\n{low if low == high else f'{low} to {high}'} live channels"


def _runs_of(curves: pd.DataFrame) -> pd.DataFrame:
    return curves[["arm", "seed"]].drop_duplicates()


def _extremes(curves: pd.DataFrame, probe: str) -> str:
    """Return in words the range of values at which a probe ends."""
    if curves.empty:
        return f"no run has a {probe}"
    means = curves[curves["epoch"] == curves["epoch"].max()].groupby(["metric", "arm"])["value"].mean()
    low, high = (f"{means[end]:.2f} ({end[0].partition('/')[2]}, {end[1]})" for end in (means.idxmin(), means.idxmax()))
    return f"mean {probe} at the end from {low} to {high}"


def _probe_names(store: Store, runs: pd.DataFrame, *probes: str) -> list[str]:
    """Return those metrics of some probes that at least one run has, in the order of the layers."""
    ids = trained(runs.drop_duplicates("arm"))
    measured = {name for run_id in ids for name in store.client.get_run(run_id).data.metrics}
    return sorted(name for name in measured if name.startswith(tuple(f"{probe}/" for probe in probes)))
