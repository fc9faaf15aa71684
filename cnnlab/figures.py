"""Figures of one network: learning curves, confusion matrix, most confident mistakes.

They are drawn without pyplot: nothing here depends on a screen or on what a notebook drew before.
"""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure

from cnnlab.data import Data
from cnnlab.inquiry.show.style import BLUE, GREY, ORANGE
from cnnlab.scores import Score
from cnnlab.training import Result


def run_figures(result: Result, data: Data) -> dict[str, Figure]:
    """Return the figures of one run by file name; a run that diverged in its first epoch has no curves."""
    figures = {
        "confusion_matrix": confusion_matrix(result.valid, data.classes),
        "confident_mistakes": confident_mistakes(result.valid, data.valid.x, data.classes),
    }
    if result.epochs:
        config, n = result.config, len(result.valid.y)
        title = f"One run, seed {config.seed}: {config.train_images:,} training, {n:,} validation images"
        figures["learning_curves"] = learning_curves(result.epochs, title)
    return figures


def learning_curves(epochs: list[dict[str, float]], title: str) -> Figure:
    """Draw loss and accuracy after each epoch.

    The dashed line is the loss that training itself saw, with dropout on and with changing weights; compare the
    solid lines, which are measured alike.
    """
    figure = Figure(figsize=(8, 3.6))
    figure.suptitle(title, fontsize=10)
    figure.subplots_adjust(left=0.08, right=0.98, bottom=0.14, wspace=0.22)
    loss, accuracy = figure.subplots(1, 2)
    x = range(1, len(epochs) + 1)
    loss.plot(x, [e["loss/train"] for e in epochs], "--", color=GREY, marker=".", label="train, in train mode")
    kinds = ((loss, "loss", 1, "cross-entropy (nats)"), (accuracy, "accuracy", 100, "accuracy (%)"))
    for axes, name, scale, label in kinds:
        train, valid = ([scale * e[f"{name}/{split}"] for e in epochs] for split in ("train_eval", "valid"))
        axes.plot(x, train, color=ORANGE, marker="o", label="train (eval mode)")
        axes.plot(x, valid, color=BLUE, marker="s", label="validation")
        axes.set(xlabel="epoch", ylabel=label)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    return figure


def confusion_matrix(score: Score, classes: Sequence[str]) -> Figure:
    """Draw how many images of each class (row) were predicted as which class (column), in percent of the row."""
    counts = torch.zeros(len(classes), len(classes), dtype=torch.int64)
    counts.index_put_((score.y, score.logits.argmax(dim=1)), torch.tensor(1), accumulate=True)
    percent = (100 * counts / counts.sum(dim=1, keepdim=True)).numpy()
    figure = Figure(figsize=(6.2, 5.6))
    axes = figure.add_axes((0.2, 0.2, 0.77, 0.74))
    axes.imshow(np.sqrt(percent), cmap="Blues")  # the root lets the rare mistakes show
    for row, column in np.argwhere(percent >= 0.5):
        colour = "white" if percent[row, column] > 40 else "black"
        text = f"{percent[row, column]:.0f}"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
    axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="predicted", ylabel="true", title=f"Percent of each class, n = {len(score.y):,}")
    return figure


def confident_mistakes(score: Score, images: torch.Tensor, classes: Sequence[str]) -> Figure:
    """Draw the misclassified images on which the network was surest of its wrong answer.

    Shapes: `images` uint8 (N, C, H, W), in the order of `score`.
    """
    rows, columns = 3, 6
    sureness, predicted = score.logits.softmax(dim=1).max(dim=1)
    wrong = (~score.correct).nonzero().flatten()
    shown = wrong[sureness[wrong].argsort(descending=True)][: rows * columns].tolist()
    figure = Figure(figsize=(1.35 * columns, 1.75 * rows))
    axes = figure.add_axes((0.01, 0.01, 0.98, 0.92))
    axes.axis("off")
    for place, i in enumerate(shown):
        row, column = divmod(place, columns)
        left, right, top, bottom = column + 0.1, column + 0.9, row + 0.3, row + 0.95
        picture = images[i].permute(1, 2, 0) if images.shape[1] == 3 else images[i, 0]
        axes.imshow(picture.cpu().numpy(), cmap="gray_r", extent=(left, right, bottom, top), aspect="auto")
        said, true = classes[int(predicted[i])], classes[int(score.y[i])]
        sure = f"{100 * sureness[i]:.0f}" if sureness[i] <= 0.995 else ">99.5"
        label = f"predicted {said}\n({sure} %), true {true}"
        axes.text(column + 0.5, top - 0.02, label, ha="center", va="bottom", fontsize=6.5)
    axes.set(xlim=(0, columns), ylim=(rows, 0))  # imshow has narrowed them
    figure.suptitle(f"Most confident of {len(wrong)} mistakes among {len(score.y):,} validation images", fontsize=9)
    return figure
