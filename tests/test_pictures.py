"""Pictures show what networks, normalisations, dropout and intervals really do."""

import re
from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.text import Text
from torch import nn

from cnnlab.config import BASE, BEST, Config, replace
from cnnlab.course import pictures
from cnnlab.course.pictures import plot_classes, plot_dropout, plot_intervals, plot_network, plot_norm_sets
from cnnlab.data import Data, Split
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.show.style import BLUE, ORANGE
from cnnlab.models import NORMS, Residual, build_model
from tests.helpers import SMALL_DATA

SPATIAL = {"conv_dropout": 0.1, "conv_dropout_kind": "spatial"}
MANY = ((1, 16), (2, 32), (3, 64), (2, 64))
FIRST = replace(BASE, blocks=MANY, norm="group", pool="first", dropout=0.3, head_norm="batch", **SPATIAL)
ADDING = replace(
    BASE, blocks=MANY, norm="layer", pool="last", residual=True, activation="leaky_relu", head_norm="layer"
)
BEFORE = replace(ADDING, conv_dropout=0.2, conv_dropout_place="before_norm", norm="instance", activation="leaky_relu")
CONFIGS = {"base": BASE, "best": BEST, "first": FIRST, "adding": ADDING, "before": BEFORE}


def stages(figure: Figure) -> list[tuple[str, list[str]]]:
    """Return the label below each stack of a network, and the lines that lead to it."""
    texts = [text.get_text() for text in figure.axes[0].texts if text.get_text()]
    found: list[tuple[str, list[str]]] = []
    for text in texts:
        if re.match("input|block|features|logits", text):
            found.append((text, []))
        else:
            found[-1][1].extend(text.split("\n"))
    return found


def steps(lines: list[str]) -> list[str]:
    """Return the steps in order, with "2 times", "last time only" and the like expanded."""
    times = int(lines[0].split()[0]) if lines[0].endswith("times:") else 1
    done = []
    for i in range(times):
        for line, remark in zip(lines, [*lines[1:], ""], strict=True):
            left_out = (remark == "(last time only)" and i < times - 1) or (remark == "(not the first time)" and i == 0)
            if not (left_out or line.startswith("(") or line.endswith("times:") or line == "pooling"):
                done.append(line)
    return done


def say(layer: nn.Module) -> str:
    """Return a layer in the words of the picture."""
    if isinstance(layer, nn.GroupNorm):
        return "group norm" if layer.num_groups > 1 else "layer norm"
    if isinstance(layer, nn.Conv2d):
        return f"conv {layer.kernel_size[0]}x{layer.kernel_size[1]}"
    if isinstance(layer, nn.Dropout | nn.Dropout2d):
        return f"{'spatial ' * isinstance(layer, nn.Dropout2d)}dropout {layer.p:g}"
    words = {"MaxPool2d": "max pool 2x2", "AdaptiveAvgPool2d": "global average", "Linear": "linear"}
    words |= {"ReLU": "ReLU", "LeakyReLU": "leaky ReLU", "Residual": "+ conv's input", "LayerNorm": "layer norm"}
    words |= {"BatchNorm2d": "batch norm", "BatchNorm1d": "batch norm", "InstanceNorm2d": "instance norm"}
    return words[type(layer).__name__]


def passed(config: Config, shape: tuple[int, ...]) -> tuple[list[str], dict[str, str]]:
    """Return the layers through which an image really passes, in order, and the output shapes of the parts."""
    done, shapes = [], {}

    def note(name: str, layer: nn.Module, output: torch.Tensor) -> None:
        shapes[name] = " x ".join(map(str, output.shape[1:]))
        is_part = isinstance(layer, Residual) or not list(layer.children())
        if is_part and not isinstance(layer, nn.Identity | nn.Flatten):
            done.append(say(layer))

    model = build_model(config, shape[0]).eval()
    for name, layer in model.named_modules():
        layer.register_forward_hook(lambda layer, _, output, name=name: note(name, layer, output))
    model(torch.zeros(1, *shape))
    return done, shapes


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 40, 17)])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_network_drawn_has_the_layers_and_the_shapes_of_the_model_in_its_order(
    config: Config, shape: tuple[int, ...]
) -> None:
    drawn = stages(plot_network(config, shape=shape))
    done, shapes = passed(config, shape)
    assert [step for _, lines in drawn if lines for step in steps(lines)] == done
    blocks = [f"block {i}\n{shapes[f'block{i}']}" for i in range(1, len(config.blocks) + 1)]
    ends = [f"features\n{shapes['head.pool']}", f"logits\n{shapes['head.linear']}"]
    assert [caption for caption, _ in drawn] == [f"input\n{' x '.join(map(str, shape))}", *blocks, *ends]


@pytest.mark.parametrize("norm", pictures.NORM_SETS)
def test_a_cube_colours_the_values_that_the_torch_layer_normalises_together(norm: str) -> None:
    size = (pictures.IMAGES, pictures.CHANNELS, pictures.POSITIONS, 1)
    layer = NORMS[norm](pictures.CHANNELS, pictures.GROUPS).double().train()
    x = torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    moved = x.clone()
    moved[0, -1, 2] += 1
    changed = (layer(moved) - layer(x)).abs().flatten(2).gt(1e-9).numpy()
    assert np.array_equal(pictures.norm_set(norm), changed)
    axes = next(axes for axes in plot_norm_sets().axes if axes.get_title() == norm)
    (faces,) = (found for found in axes.collections if isinstance(found, PolyCollection))
    seen = np.concatenate([changed[0].ravel(), changed[:, -1].ravel(), changed[:, :, -1].ravel()])
    assert np.array_equal((faces.get_facecolor() == to_rgba(BLUE)).all(axis=1), seen)


def heights(figure: Figure) -> list[np.ndarray]:
    return [np.array([bar.get_height() for bar in axes.patches]) for axes in figure.axes]  # type: ignore[attr-defined]


@pytest.mark.parametrize("rate", [0, 0.2, 0.5, 0.8])
def test_dropout_is_drawn_as_torch_does_it_and_its_mean_over_masks_is_the_evaluation(rate: float) -> None:
    one, another, mean, evaluation = heights(plot_dropout(rate=rate))
    layer = nn.Dropout(rate)
    assert np.array_equal(layer.eval()(torch.tensor(evaluation)).numpy(), evaluation)
    scaled = layer.train()(torch.tensor(evaluation).repeat(200, 1)).amax(dim=0).numpy()  # kept at least once
    for trained in (one, another):
        assert np.allclose(trained[trained > 0], scaled[trained > 0])
    assert np.array_equal(one, another) == (rate == 0)
    error = evaluation * np.sqrt(rate / (1 - rate) / pictures.MASKS)
    assert (np.abs(mean - evaluation) <= 4 * error + 1e-12).all()


@pytest.mark.parametrize("n", [2, 5, 30])
def test_95_percent_of_the_intervals_contain_the_true_difference_whatever_n(n: int) -> None:
    effects = pictures.simulate_aa(n, 2000, seed=1)
    assert 0.935 <= np.mean([effect.low <= 0 <= effect.high for effect in effects]) <= 0.965
    assert {effect.n for effect in effects} == {n}


@pytest.mark.parametrize(("n", "experiments"), [(2, 100), (5, 100), (10, 40), (30, 100), (5, 1)])
def test_the_title_counts_the_intervals_that_are_drawn(n: int, experiments: int) -> None:
    figure = plot_intervals(n, experiments=experiments)
    blue, orange = (found for found in figure.axes[0].collections if isinstance(found, LineCollection))
    assert np.array_equal([*blue.get_color(), *orange.get_color()], [to_rgba(BLUE), to_rgba(ORANGE)])
    ends = {True: [line[:, 0] for line in blue.get_segments()], False: [line[:, 0] for line in orange.get_segments()]}
    assert all((low <= 0 <= high) == contains for contains, lines in ends.items() for low, high in lines)
    within = sum(max(-low, high) <= 0.3 for lines in ends.values() for low, high in lines)
    said = figure.get_suptitle().replace("\n", " ")
    assert f"{len(ends[True])} contain 0, and {within} lie within the band" in said
    assert len(ends[True]) + len(ends[False]) == experiments


def of_colours() -> Data:
    """Return images of three channels, wider than high; the last class has only two."""
    x = torch.randint(0, 256, (40, 3, 12, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0, 1] * 19 + [2, 2])
    return Data(Split(x, y), Split(255 - x[:4], y[:4]), classes=("cat", "dog", "mouse"))


@pytest.mark.parametrize("data", [SMALL_DATA, of_colours()], ids=["grey", "colours"])
def test_each_row_has_the_first_eight_training_images_of_its_class(data: Data) -> None:
    (axes,) = plot_classes(data).axes
    assert tuple(text.get_text() for text in axes.get_yticklabels()) == data.classes
    channels, height, width = data.shape
    drawn = np.asarray(axes.images[0].get_array()).reshape(len(data.classes), height + 2, 8, width + 2, channels)
    for label in range(len(data.classes)):
        images = data.train.x[data.train.y == label][:8].permute(0, 2, 3, 1).numpy()
        row = drawn[label, 1:-1, :, 1:-1].swapaxes(0, 1)
        assert np.array_equal(row[: len(images)], images) and len(set(row[len(images) :].ravel())) <= 1
        assert abs(axes.get_yticks()[label] - (label + 0.5) * (height + 2)) < 1


FIGURES: dict[str, Callable[[], Figure]] = {
    f"network {name}": lambda config=config: plot_network(config, "12") for name, config in CONFIGS.items()
}
FIGURES |= {f"intervals {n}": lambda n=n: plot_intervals(n, "12") for n in (2, 5, 30)}
FIGURES |= {"norms": lambda: plot_norm_sets("12"), "dropout": lambda: plot_dropout("12", 0.9)}
FIGURES |= {"classes": lambda: plot_classes(SMALL_DATA, "12"), "colours": lambda: plot_classes(of_colours(), "12")}


@pytest.mark.parametrize("name", FIGURES)
def test_every_text_has_8_points_and_is_within_the_page_and_clear_of_the_others(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure, drawn, draw = FIGURES[name](), dict[Text, None](), Text.draw
    monkeypatch.setattr(Text, "draw", lambda text, renderer: (drawn.setdefault(text), draw(text, renderer)))
    FigureCanvasAgg(figure).draw()
    assert figure.get_suptitle().startswith("Figure 12. ") and figure.get_figwidth() < 8.2
    boxes = {text: text.get_window_extent() for text in drawn if text.get_visible() and text.get_text()}
    assert min(text.get_fontsize() for text in boxes) >= 8 and len(boxes) > 3
    left, low, right, high = figure.bbox.extents
    off = [box.x0 < left or box.x1 > right or box.y0 < low or box.y1 > high for box in boxes.values()]
    assert [text.get_text() for text, is_off in zip(boxes, off, strict=True) if is_off] == []
    both = [(a.get_text(), b.get_text()) for a, b in combinations(boxes, 2) if boxes[a].overlaps(boxes[b])]
    assert both == []


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: plot_intervals(1), "n=1 is not possible: choose from 2 to 100."),
        (lambda: plot_intervals(101), "n=101 is not possible: choose from 2 to 100."),
        (lambda: plot_intervals(experiments=0), "experiments=0 is not possible: choose from 1 to 10,000."),
        (lambda: plot_intervals("2"), "plot_intervals: n is '2', and should be a int."),
        (lambda: plot_dropout(rate=1), "rate=1 is not possible: choose from 0 to 0.99."),
        (lambda: plot_dropout(rate=float("nan")), "rate=nan is not possible: choose from 0 to 0.99."),
        (lambda: plot_dropout(seed=-1), "seed=-1 is not possible: choose from 0 to 4,294,967,295."),
        (
            lambda: plot_network(BASE, shape=(28, 28)),
            "shape=(28, 28) is not possible: give channels, height",
        ),
        (
            lambda: plot_network(BASE, shape=(1, 4, 4)),
            "each block halves the sides; 4 x 4 pixels allow for 2",
        ),
        (lambda: plot_network("BASE"), "plot_network: config is 'BASE', and should be a Config."),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_sentence(call: Any, said: str) -> None:
    with pytest.raises(LabError) as caught:
        call()
    assert said in str(caught.value) and "\n" not in str(caught.value)
