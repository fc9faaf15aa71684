"""The interval of an effect over seeds and images, from every run's result for each image."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.judge.statistics import crossed_interval
from cnnlab.inquiry.metrics import Metric
from cnnlab.inquiry.record.files import run_file
from cnnlab.inquiry.record.runs import trained
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.task import task

TOLERANCE = 1e-5  # relative; metrics are added up in another order


def interval_on_new_images(
    metric: Metric, runs: pd.DataFrame, weights: Mapping[str, float], store: Store
) -> tuple[float, float] | None:
    """Return the 95 % interval of a contrast over seeds and images, in the metric's unit.

    None where a run didn't keep the metric image by image, or where what it kept isn't its result.
    """
    values = contrast_by_image(metric, runs, weights, store)
    return None if values is None else crossed_interval(values)


def contrast_by_image(
    metric: Metric, runs: pd.DataFrame, weights: Mapping[str, float], store: Store
) -> np.ndarray | None:
    """Return a contrast for each seed (in order) and each validation image: (S, N), in the metric's unit.

    None where a run didn't keep the metric image by image, or where what it kept isn't its result.
    """
    effects = []
    try:
        for _, one in runs.groupby("seed"):
            values = {
                run["arm"]: _by_image(metric, run, store) for _, run in one.assign(trained=trained(one)).iterrows()
            }
            effects.append(metric.scale * sum(weight * values[arm] for arm, weight in weights.items()))
        return np.stack(effects)
    except (LabError, OSError, ValueError):
        return None


def _by_image(metric: Metric, run: pd.Series, store: Store) -> np.ndarray:
    """Return a metric of a run for each image: float (N,).

    Raises:
        LabError: the run has no such file.
        ValueError: it is another metric's, or another run's.
    """
    name = task().by_image.get(metric.name)
    if name is None:
        raise LabError(f"{metric.name} isn't kept image by image.")
    with TemporaryDirectory(prefix="cnnlab-", ignore_cleanup_errors=True) as folder:
        values = np.load(run_file(store, run["trained"], name, Path(folder))).astype(float)
    if not np.isclose(values.mean(), run[metric.name], rtol=TOLERANCE):
        raise ValueError(f"{name} of {run['run_id']} isn't its {metric.name}.")
    return np.asarray(values)
