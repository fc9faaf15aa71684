"""Tables: the layers of a network, and the arms of a study."""

import math

import pandas as pd
import torch
from rich.table import Table
from torch import Tensor, nn

from cnnlab.facts import num_parameters
from cnnlab.inquiry.design import Design
from cnnlab.inquiry.judge.failures import failed_runs
from cnnlab.probes import watch


def layer_summary(model: nn.Module, shape: tuple[int, ...] = (1, 28, 28)) -> pd.DataFrame:
    """Return a table of all layers in the order in which data pass through: name, type, output shape, parameters.

    The output shapes are those for one image of `shape` (channels, height, width).
    """
    rows = []

    def note(name: str, layer: nn.Module, _inputs: object, output: Tensor) -> None:
        rows.append((name, type(layer).__name__, tuple(output.shape[1:]), num_parameters(layer)))

    watch(model, torch.zeros(1, *shape, device=next(model.parameters()).device), note)
    return pd.DataFrame(rows, columns=["layer", "type", "output", "parameters"]).set_index("layer")


def summary(study: Design, runs: pd.DataFrame) -> pd.DataFrame:
    """Return mean and SD over the seeds for each arm, in the order of the study.

    Columns: `n`; `accuracy` and `accuracy_sd` in percent and percentage points; `loss`, `loss_sd` and
    `gap_loss` in nats; `epoch_s`, the mean time per epoch in seconds, whatever else the machine was doing. The SD of a
    single run is unknown (nan), and so is every mean of an arm in which a run failed: it diverged.
    """
    if runs.empty:
        return pd.DataFrame()
    accuracy = (100 * runs["accuracy/valid"]).mask(failed_runs(runs))  # of a failed run, it means nothing
    groups = runs.assign(accuracy=accuracy).groupby("arm")
    table = pd.DataFrame(
        {
            "n": groups.size(),
            "accuracy": groups["accuracy"].mean(skipna=False),
            "accuracy_sd": groups["accuracy"].std(skipna=False),
            "loss": groups["loss/valid"].mean(skipna=False),
            "loss_sd": groups["loss/valid"].std(skipna=False),
            "gap_loss": groups["gap/loss"].mean(skipna=False),
            "epoch_s": groups["time/epoch_s"].mean(),
        }
    )
    return table.reindex([arm for arm in study.arms if arm in table.index])


def arms_table(title: str, arms: pd.DataFrame) -> Table:
    """Return the table of `summary` for a terminal: one row per arm, with n and SD beside every mean."""
    table = Table(title=title, title_justify="left")
    table.add_column("arm")
    for heading in ("n", "acc. %", "SD pp", "loss", "SD", "gap", "s/epoch"):
        table.add_column(heading, justify="right", no_wrap=True)  # long names may be broken into lines, numbers not
    for arm, row in arms.iterrows():
        numbers = (row.accuracy, row.accuracy_sd, row.loss, row.loss_sd, row.gap_loss, row.epoch_s)
        digits = (2, 2, 3, 3, 3, 1)
        texts = ["-" if math.isnan(x) else f"{x:.{places}f}" for x, places in zip(numbers, digits, strict=True)]
        table.add_row(str(arm), f"{row.n:.0f}", *texts)
    return table
