"""Tables: the layers of a network, and the arms of a study."""

import math

import pandas as pd
import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table
from torch import Tensor, nn

from cnnlab.facts import num_parameters
from cnnlab.inquiry.design import Design
from cnnlab.inquiry.judge.failures import failed_runs
from cnnlab.probes import watch

COLUMNS = ("n", "failed", "accuracy (%)", "SD (pp)", "loss (nats)", "SD (nats)", "gap (nats)", "s/epoch")
DIGITS = dict(zip(COLUMNS, (0, 0, 2, 2, 3, 3, 3, 1), strict=True))


def layer_summary(model: nn.Module, shape: tuple[int, ...] = (1, 28, 28)) -> pd.DataFrame:
    """Return a table of all layers in the order in which data pass through: name, type, output shape, parameters.

    The output shapes are those for one image of `shape` (channels, height, width).
    """
    rows = {}

    def note(name: str, layer: nn.Module, _inputs: object, output: Tensor) -> None:
        rows[name] = (type(layer).__name__, tuple(output.shape[1:]), num_parameters(layer))

    watch(model, torch.zeros(1, *shape, device=next(model.parameters()).device), note)
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["type", "output", "parameters"])
    return table.rename_axis(columns="layer")


def summary(study: Design, runs: pd.DataFrame) -> pd.DataFrame:
    """Return mean and SD over the seeds for each arm, in the order of the study, rounded.

    The columns are `COLUMNS`: accuracy and loss on the validation images, each with its SD; the gap, validation loss -
    training loss in eval mode; the mean time per epoch, whatever else the machine was doing. The SD of a single run is
    unknown (nan), and so is every mean of an arm in which a run failed: it diverged. If none failed, the column that
    counts them is left out.
    """
    if runs.empty:
        return pd.DataFrame()
    failed = failed_runs(runs)
    accuracy = (100 * runs["accuracy/valid"]).mask(failed)  # of a failed run, it means nothing
    groups = runs.assign(accuracy=accuracy, failed=failed).groupby("arm")
    values = [
        groups.size(),
        groups["failed"].sum(),
        groups["accuracy"].mean(skipna=False),
        groups["accuracy"].std(skipna=False),
        groups["loss/valid"].mean(skipna=False),
        groups["loss/valid"].std(skipna=False),
        groups["gap/loss"].mean(skipna=False),
        groups["time/epoch_s"].mean(),
    ]
    table = pd.DataFrame(dict(zip(COLUMNS, values, strict=True))).round(DIGITS)
    table = table if failed.any() else table.drop(columns="failed")
    return table.reindex([arm for arm in study.arms if arm in table.index]).rename_axis(index=None, columns="arm")


def arms_table(title: str, arms: pd.DataFrame) -> Table:
    """Return the table of `summary` for a terminal: one row per arm, with n and SD beside every mean."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("arm", overflow="fold")
    digits = [DIGITS[str(heading)] for heading in arms]
    for heading in map(str, arms):  # a long name breaks into lines, a number never
        table.add_column(heading.replace(" (", "\n("), justify="right", no_wrap=True)
    for arm, row in arms.iterrows():
        texts = ["-" if math.isnan(x) else f"{x:z.{places}f}" for x, places in zip(row, digits, strict=True)]
        table.add_row(str(arm), *texts)
    return table
