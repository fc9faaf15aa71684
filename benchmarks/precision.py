"""Is training in bf16 as good as in float32? Both with the same seeds, as studies of the lab."""

import os
from contextlib import nullcontext
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pandas as pd

from benchmarks.measure import ROOT, Measured, Options, in_fresh_process
from benchmarks.project import project_environment
from benchmarks.table import Report, Table
from cnnlab import config as configs
from cnnlab.config import replace
from cnnlab.device import has_bf16, resolve_device
from cnnlab.inquiry.run.runner import run_study
from cnnlab.inquiry.show.figures import mean_interval
from cnnlab.inquiry.study import Study

STORE = ROOT / "benchmarks" / "store"
PRECISIONS = ("float32", "bf16")


class Metric(NamedTuple):
    """The metric to compare; a difference smaller than the margin, in either direction, is negligible."""

    name: str
    column: str
    scale: float
    unit: str
    digits: int
    margin: float


METRICS = (
    Metric("accuracy", "accuracy/valid", 100.0, "pp", 2, margin=0.3),
    Metric("loss", "loss/valid", 1.0, "nats", 4, margin=0.01),
)


class Size(NamedTuple):
    """The name of a network in `cnnlab.config`, how much it is trained, and the number of seeds."""

    network: str
    images: int
    epochs: int
    seeds: int

    @property
    def experiment(self) -> str:
        """The name of its study."""
        return f"precision-{self.network}-{self.images}x{self.epochs}"


FULL = (Size("BASE", 10_000, 3, seeds=20), Size("BEST", 10_000, 3, seeds=10))
QUICK = (Size("BASE", 640, 1, seeds=2),)


def run(options: Options) -> Report:
    """Train the missing runs of the studies, and compare seed by seed."""
    rows, recorded = [], set()
    with TemporaryDirectory() if options.quick and not options.home else nullcontext(options.home or STORE) as folder:
        for size in QUICK if options.quick else FULL:
            size = size._replace(seeds=max(options.repeats or size.seeds, 2))  # an interval needs two
            found = in_fresh_process(compare, show=True, folder=str(folder), **size._asdict())
            rows += [row(size, metric, _differences(found, metric)) for metric in METRICS]
            recorded |= set(found["recorded"])
    margins = " and ".join(f"±{metric.margin} {metric.unit}" for metric in METRICS)
    return Report(
        "bf16 against float32",
        "Each seed is trained in both precisions. Mean, SD and interval are those of the differences, seed by seed. "
        f"Equivalent: the whole interval is within {margins}, which was fixed before the first run.",
        [
            Table(
                "bf16 less float32, validation set:",
                ("what", "n", "mean", "SD", "95 % t-interval", "margin", "equivalent"),
                rows,
            )
        ],
        [f"Precision of the logits and processor, as recorded by the runs: {'; '.join(sorted(recorded))}."],
    )


def _differences(found: Measured, metric: Metric) -> list[float]:
    before, after = (found[f"{precision} {metric.column}"] for precision in PRECISIONS)
    return [metric.scale * (b - a) for a, b in zip(before, after, strict=True)]


def row(size: Size, metric: Metric, differences: list[float]) -> tuple[str, ...]:
    """Return the cells that summarize the differences in one metric."""
    digits, values = metric.digits, pd.Series(differences)
    mean, low, high = mean_interval(values)
    return (
        f"{size.network}, {size.epochs} x {size.images:,} images: {metric.name}, {metric.unit}",
        str(len(values)),
        f"{mean:+.{digits}f}",
        f"{values.std():.{digits}f}",
        f"{low:+.{digits}f} to {high:+.{digits}f}",
        f"±{metric.margin}",
        "yes" if -metric.margin < low and high < metric.margin else "not shown",
    )


# In a separate process


def compare(folder: str, network: str, images: int, epochs: int, seeds: int) -> Measured:
    """Run the study in a store that is kept: finished runs are not trained again."""
    os.environ.update(project_environment(folder))
    base = replace(getattr(configs, network), train_images=images, epochs=epochs, precision=PRECISIONS[0])
    name = Size(network, images, epochs, seeds).experiment
    study = Study(name, "Is bf16 as good as float32?", base, tuple(range(seeds)), {"precision": PRECISIONS})
    runs = run_study(study, explore=True).sort_values("seed")
    found: Measured = {
        f"{precision} {metric.column}": runs.loc[runs["arm"] == f"precision={precision}", metric.column].tolist()
        for precision in PRECISIONS
        for metric in METRICS
    }
    bf16 = "has instructions for bf16" if has_bf16(resolve_device()) else "has to emulate bf16"
    return found | {"recorded": sorted(set(runs["fact.precision"] + " on " + runs["fact.device"] + f", which {bf16}"))}
