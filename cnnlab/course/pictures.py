"""Pictures for a notebook of what a study is about: images, a network, normalisation, dropout, intervals by chance."""

import math
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cnnlab.config import Config
from cnnlab.data import FASHION_MNIST, Data
from cnnlab.facts import num_parameters
from cnnlab.inquiry.checked import checked
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.judge.statistics import Effect, t_interval
from cnnlab.inquiry.show.figures import legend_below, panels, titled
from cnnlab.inquiry.show.style import BLUE, GREY, ORANGE, SKY, WIDTH, LabFigure
from cnnlab.models import build_model
from cnnlab.task import METRICS

SHOWN = 8  # images of each class
ACTIVATIONS = {"relu": "ReLU", "leaky_relu": "leaky ReLU", "gelu": "GELU", "silu": "SiLU"}
IMAGES, CHANNELS, POSITIONS, GROUPS = 4, 6, 5, 2  # of a cube
NORM_SETS = {
    "batch": "one channel,\nall images",
    "layer": "one image,\nall channels",
    "group": "one image,\none group of channels",
    "instance": "one image,\none channel",
}
MASKS = 1000
SD = 0.3  # pp, of the difference of one seed in a simulated experiment


class Stage(NamedTuple):
    """A stack of maps, its shape, and the steps that lead to it, in order."""

    name: str
    shape: tuple[int, ...]
    steps: list[str]


@checked
def plot_classes(data: Data, number: str = "") -> Figure:
    """Return eight training images of each class, one class per row."""
    x, y = data.train.x, data.train.y
    channels, height, width = data.shape
    background = 255 if channels == 3 else 0  # white: images of one channel are drawn in black on white
    sheet = torch.full((len(data.classes), SHOWN, channels, height + 2, width + 2), background, dtype=torch.uint8)
    for label, row in enumerate(sheet):
        images = x[y == label][:SHOWN]
        row[: len(images), :, 1:-1, 1:-1] = images
    picture = sheet.permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1).numpy()  # (rows x height, 8 x width, channels)
    figure = LabFigure(figsize=(WIDTH, 0.6 + 0.48 * len(sheet)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(picture if channels == 3 else picture[:, :, 0], cmap="gray_r", vmin=0, vmax=255)
    axes.set_yticks((np.arange(len(sheet)) + 0.5) * (height + 2), data.classes, fontsize=9)
    axes.set(xticks=[], frame_on=False)
    axes.tick_params(length=0)
    size = f"{height} x {width} pixels" + (f" in {channels} channels" if channels > 1 else "")
    return titled(figure, f"The first {SHOWN} training images of each class, of {len(y):,} in all; {size}", number)


@checked
def plot_network(config: Config, number: str = "", shape: tuple[int, ...] = FASHION_MNIST[0]) -> Figure:
    """Draw the network of a config as a row of stacks of maps, for images of `shape` (channels, height, width)."""
    stages = network_stages(config, shape)
    width, lines = max(WIDTH, 1.15 * len(stages)), max("\n".join(stage.steps).count("\n") + 1 for stage in stages)
    figure = LabFigure(figsize=(width, 2.05 + 0.135 * lines))  # and the axes are in inches
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, figure.get_figheight()))
    axes.axis("off")
    pitch = width / len(stages)
    for i, (name, maps, steps) in enumerate(stages):
        x = pitch * (i + 0.5)
        _draw_stack(axes, x, 1.05, maps, 0.6 / max(shape[1:]))
        axes.text(x, 0.12, f"{name}\n{' x '.join(map(str, maps))}", ha="center", fontsize=9)
        if steps:
            axes.text(x - pitch / 2, 1.42, "\n".join(steps), ha="center", va="bottom", fontsize=8, linespacing=1.15)
            axes.annotate("", (x - 0.46, 1.05), (x - pitch + 0.46, 1.05), arrowprops={"arrowstyle": "->"})
    parameters = num_parameters(build_model(config, shape[0]))
    said = f"A network with {parameters:,} parameters: channels x height x width after each block, and what is done in "
    return titled(figure, f"{said}between, in this order (sides to scale; more sheets: more channels)", number)


def network_stages(config: Config, shape: tuple[int, ...]) -> list[Stage]:
    """Return the stacks of maps that the network of a config makes from an image (channels, height, width), in order.

    Raises:
        LabError: the shape is not that of an image, or too small for this many blocks.
    """
    if len(shape) != 3 or not all(isinstance(side, int) and side > 0 for side in shape):
        raise LabError(f"shape={shape} is not possible: give channels, height and width, such as (1, 28, 28).")
    config.check_images(shape, config.train_images)
    stages, (channels, height, width) = [Stage("input", shape, [])], shape
    for i, (convs, out) in enumerate(config.blocks, start=1):
        height, width = height // 2, width // 2
        stages.append(Stage(f"block {i}", (out, height, width), _block_steps(config, convs, channels == out)))
        channels = out
    stages.append(Stage("features", (channels, 1, 1), ["global average\npooling"]))
    head = [f"{config.head_norm} norm"] if config.head_norm != "none" else []
    head += [f"dropout {config.dropout:g}"] if config.dropout else []
    return [*stages, Stage("logits", FASHION_MNIST[1:2], [*head, "linear"])]


def _block_steps(config: Config, convs: int, same_channels: bool) -> list[str]:
    """Return the steps of a block in order: those of several convolutions once, with notes on what only some have."""
    size = config.kernel_size
    adds = config.residual and (same_channels or convs > 1)
    norms = [] if config.norm == "none" else [f"{config.norm} norm"]
    norms += [f"({config.norm_groups} groups)"] if config.norm == "group" else []
    steps = {
        "norm": [*norms, *(["+ conv's input" + ("" if same_channels else "\n(not the first time)")] if adds else [])],
        "activation": [ACTIVATIONS[config.activation]],
        "dropout": [f"{'spatial ' * (config.conv_dropout_kind == 'spatial')}dropout {config.conv_dropout:g}"],
        "pool": ["max pool 2x2" + ("\n(last time only)" if convs > 1 else "")],
    }
    times = [f"{convs} times:"] if convs > 1 else []
    return [*times, f"conv {size}x{size}", *(step for name in config.layer_order() for step in steps[name])]


def _draw_stack(axes: Axes, x: float, y: float, maps: tuple[int, ...], scale: float) -> None:
    """Draw maps (channels, height, width), or a vector, as sheets around a point; `scale` in inches per pixel."""
    height, width = (scale * side for side in (maps[1:] or (1, 1)))
    sheets = 1 + round(math.log2(maps[0]))
    for i in range(sheets):
        shift = 0.035 * ((sheets - 1) / 2 - i)
        corner = (x - width / 2 + shift, y - height / 2 + shift)
        axes.add_patch(Rectangle(corner, width, height, facecolor=SKY, edgecolor="black", lw=0.6))


@checked
def plot_norm_sets(number: str = "") -> Figure:
    """Draw the values over which four normalisations take mean and variance; redrawn after Wu & He (2018), figure 2."""
    figure, all_axes = panels(len(NORM_SETS), 2.8)
    for axes, (norm, words) in zip(all_axes, NORM_SETS.items(), strict=True):
        _draw_cube(axes, norm_set(norm))
        axes.set_title(norm, fontsize=10)
        axes.text(CHANNELS / 2, -1.5, words, ha="center", va="top", fontsize=9)
    said = (
        "In training, mean and variance are taken over all H x W positions of the images (N) and channels (C) in blue; "
    )
    return titled(figure, f"{said}here with {GROUPS} groups of channels (after Wu & He 2018, figure 2)", number)


def norm_set(norm: str) -> np.ndarray:
    """Return which values share a mean with the last channel of the first image: bool (N, C, H x W)."""
    shared = np.zeros((IMAGES, CHANNELS, POSITIONS), dtype=bool)
    channels = {"layer": CHANNELS, "group": CHANNELS // GROUPS}.get(norm, 1)
    shared[: IMAGES if norm == "batch" else 1, -channels:] = True
    return shared


def _draw_cube(axes: Axes, shared: np.ndarray) -> None:
    """Draw the three visible faces of a cube (N, C, H x W): the first image, the last channel, the top."""
    squares, colours = [], []
    for axis, side in enumerate((0, 1, 1)):
        corners = np.insert([(0, 0), (1, 0), (1, 1), (0, 1)], axis, side, axis=1)
        for cell in np.ndindex(shared.shape):
            if cell[axis] == side * (shared.shape[axis] - 1):
                squares.append((cell + corners) @ [(0.5, 0.4), (1, 0), (0, 1)])  # the directions of N, C and H x W
                colours.append(BLUE if shared[cell] else "#eeeeee")
    axes.add_collection(PolyCollection(squares, facecolors=colours, edgecolors=GREY, linewidths=0.6))
    axes.text(CHANNELS / 2, -0.3, "C", ha="center", va="top", fontsize=9)
    axes.text(-0.3, POSITIONS / 2, "H x W", ha="right", va="center", rotation=90, fontsize=9)
    axes.text(CHANNELS + 0.25 * IMAGES + 0.3, 0.2 * IMAGES - 0.3, "N", va="top", fontsize=9)
    axes.set(xlim=(-1.3, CHANNELS + 0.5 * IMAGES), ylim=(-1.2, POSITIONS + 0.4 * IMAGES + 0.1), aspect="equal")
    axes.axis("off")


@checked
def plot_dropout(number: str = "", rate: float | int = 0.5, seed: int = 0) -> Figure:
    """Draw the same features with dropout: in training with two masks and on average, and in evaluation."""
    _check("rate", rate, 0, 0.99)
    _check("seed", seed, 0, 2**32 - 1)
    rng = np.random.default_rng(seed)
    features = rng.uniform(0.3, 1, 8)
    trained = features * (rng.random((MASKS, len(features))) >= rate) / (1 - rate)
    mean = trained.mean(axis=0)
    shown = {"training, one mask": trained[0], "training, another mask": trained[1]}
    shown |= {f"training, mean over\n{MASKS:,} masks": mean, "evaluation": features}
    figure, all_axes = panels(len(shown), 2.8, sharey=True)
    places = range(1, len(features) + 1)
    for axes, (name, values) in zip(all_axes, shown.items(), strict=True):
        axes.bar(places, values, color=BLUE if name == "evaluation" else ORANGE)
        axes.plot(places, features, "k_", ms=9, label="value in evaluation")
        axes.set_title(name, fontsize=9)
        axes.set_xticks(places)
        axes.tick_params(labelsize=8)
        axes.set(xlabel="feature")
    all_axes[0].set_ylabel("value")
    legend_below(figure)
    said = f"Dropout at a rate of {rate:g}: in training each feature is 0 with that probability, otherwise multiplied "
    said += f"by {1 / (1 - rate):.3g}; the mean over {MASKS:,} masks differs from evaluation by at most "
    return titled(figure, f"{said}{np.abs(mean / features - 1).max():.1%}".replace("%", " %"), number)


@checked
def plot_intervals(n: int = 5, number: str = "", experiments: int = 100, seed: int = 0) -> Figure:
    """Draw simulated experiments without any true difference (A/A), each with its 95 % interval over n seeds."""
    effects = simulate_aa(n, experiments, seed)
    sesoi = METRICS[0].sesoi
    rows = np.arange(1, experiments + 1)
    lows, highs = np.array([(effect.low, effect.high) for effect in effects]).T
    covers, within = (lows <= 0) & (highs >= 0), ((lows >= -sesoi) & (highs <= sesoi)).sum()
    figure = LabFigure(figsize=(WIDTH, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.axvspan(-sesoi, sesoi, color=GREY, alpha=0.25, lw=0, label="too small to matter")
    axes.axvline(0, color="black", lw=1)
    for seen, colour, width, label in ((covers, BLUE, 1, "contains 0"), (~covers, ORANGE, 2.5, "misses 0")):
        axes.hlines(rows[seen], lows[seen], highs[seen], color=colour, lw=width, label=f"95 % interval {label}")
    label = f"difference in accuracy between two equal arms (pp); SD of a seed's difference: {SD:g} pp"
    label += f"\nband: smallest effect of interest, {sesoi:g} pp"
    axes.set(xlabel=label, ylabel="experiment", ylim=(0, experiments + 1))
    legend_below(figure)
    said = f"{experiments:,} simulated A/A experiments, n = {n} seeds each (true difference: 0); of their intervals "
    said += f"{covers.sum():,} contain 0, and {within:,} lie within the band (practically equivalent)"
    return titled(figure, said, number)


def simulate_aa(n: int, experiments: int, seed: int) -> list[Effect]:
    """Return the effects of A/A experiments: n normal differences with mean 0 and an SD of 0.3 pp in each.

    Raises:
        LabError: n is not from 2 to 100, or there are no experiments or more than 10,000.
    """
    _check("n", n, 2, 100)
    _check("experiments", experiments, 1, 10_000)
    _check("seed", seed, 0, 2**32 - 1)
    return [t_interval(some) for some in np.random.default_rng(seed).normal(0, SD, (experiments, n))]


def _check(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise LabError(f"{name}={value} is not possible: choose from {low:,} to {high:,}.")
