"""BatchNorm's statistics recomputed after the training, with dropout off: a test of the shift that Li et al. 2019 saw.

In training, dropout changes the variance of what a norm sees, and the norm stores that variance. In evaluation dropout
is off. If the stored statistics do the harm, new ones bring the accuracy back.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from cnnlab.data import Batches, Data
from cnnlab.facts import facts_of_images
from cnnlab.inquiry.design import Design
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.judge.statistics import SAME, t_interval
from cnnlab.inquiry.record.files import run_file
from cnnlab.inquiry.record.store import Store
from cnnlab.one_run import WEIGHTS, load_network
from cnnlab.training import EVAL_BATCH

BATCH = 500  # images whose mean and variance are taken at a time
IMAGES = 2_000  # of the training images, which is enough for statistics


def trained_network(run: pd.Series, store: Store, data: Data) -> nn.Module:
    """Return the network of a run, a row of `results`, with its trained weights and in eval mode.

    Raises:
        LabError: its weights aren't in the store.
    """
    with TemporaryDirectory(prefix="cnnlab-", ignore_cleanup_errors=True) as folder:
        file = run_file(store, run["reused_from"] or run["run_id"], WEIGHTS, Path(folder))
        return load_network(run["config"], facts_of_images(data), {WEIGHTS: file})


def accuracy(network: nn.Module, data: Data) -> float:
    """Return the accuracy on the validation images, in percent."""
    batches = Batches(data.valid, EVAL_BATCH, data.normaliser())
    with torch.inference_mode():
        right = sum(int((network(x).argmax(dim=1) == y).sum()) for x, y in batches)
    return 100 * right / len(data.valid)


def renew_statistics(network: nn.Module, images: Tensor) -> None:
    """Recompute the mean and variance of every BatchNorm from normalised images (N, C, H, W), with dropout off."""
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all batches
        norm.train()  # the norms alone: dropout stays off
    with torch.no_grad():
        for x in images.split(BATCH):
            network(x)
    network.eval()


def renewed_accuracies(study: Design, runs: pd.DataFrame, data: Data, store: Store) -> pd.DataFrame:
    """Return per arm the accuracy (%) as trained and with new statistics, and the change (pp) with its 95 % interval.

    An arm without BatchNorm is left out. `n` counts the runs whose weights are in the store: most ship without.
    """
    images = data.normaliser()(data.train.x[:IMAGES])
    rows = {}
    for arm, some in runs.groupby("arm", sort=False):
        if some["config"].iloc[0].norm == "batch" or some["config"].iloc[0].head_norm == "batch":
            kept = [(run, network) for _, run in some.iterrows() if (network := _network(run, store, data))]
            for _, network in kept:
                renew_statistics(network, images)
            after = np.array([accuracy(network, data) for _, network in kept])
            rows[arm] = _row(np.array([100 * run["accuracy/valid"] for run, _ in kept]), after)
    columns = ["n", "as trained (%)", "with new statistics (%)", "change (pp)"]
    arms = [arm for arm in study.arms if arm in rows]
    table = pd.DataFrame.from_dict(rows, orient="index").reindex(index=arms, columns=columns)
    return table.dropna(axis="columns", how="all")


def _network(run: pd.Series, store: Store, data: Data) -> nn.Module | None:
    try:
        return trained_network(run, store, data)
    except LabError:
        return None


def _row(before: np.ndarray, after: np.ndarray) -> dict[str, object]:
    change = after - before
    if not len(change):
        return {"n": 0, "change (pp)": "no weights in the store"}
    row = {"n": len(change), "as trained (%)": before.mean(), "with new statistics (%)": after.mean()}
    if len(change) < 2 or change.std() <= SAME:
        return row | {"change (pp)": f"{change.mean():+.2f}"}
    e = t_interval(change)
    return row | {"change (pp)": f"{e.estimate:+.2f} [{e.low:+.2f}, {e.high:+.2f}]"}
