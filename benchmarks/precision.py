"""Is training in bf16 as good as in float32? Both with the same seeds, as a study of the lab."""

import os
from contextlib import nullcontext
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pandas as pd

from benchmarks.measure import ROOT, Measured, Options, in_fresh_process
from benchmarks.project import project_environment
from benchmarks.table import Report, Table
from cnnlab.config import BASE, replace
from cnnlab.device import has_bf16, resolve_device
from cnnlab.reporting.figures import mean_interval
from cnnlab.studies.profiles import PROFILES
from cnnlab.studies.study import Study

STORE = ROOT / "benchmarks" / "store"
MARGIN_PP = 0.3  # a smaller difference in accuracy is taken for none
PRECISIONS = ("float32", "bf16")


class Size(NamedTuple):
    """How much is trained, and with how many seeds."""

    images: int
    epochs: int
    seeds: int


FULL = Size(PROFILES["quick"].train_images, PROFILES["quick"].epochs, seeds=5)
QUICK = Size(images=640, epochs=1, seeds=2)


def run(options: Options) -> Report:
    """Train what is missing of the study, and compare seed by seed."""
    size = QUICK if options.quick else FULL
    seeds = max(options.repeats or size.seeds, 2)  # an interval needs two
    with TemporaryDirectory() if options.quick and not options.home else nullcontext(options.home or STORE) as folder:
        arguments = {"folder": str(folder), "images": size.images, "epochs": size.epochs, "seeds": seeds}
        found = in_fresh_process(compare, show=True, **arguments)
    accuracy_pp = [100 * difference for difference in _differences(found, "accuracy/valid")]
    loss = _differences(found, "loss/valid")
    rows = [_row("accuracy", "pp", accuracy_pp, digits=2), _row("loss", "nats", loss, digits=4)]
    _, low, high = mean_interval(pd.Series(accuracy_pp))
    inside = "lies inside" if low > -MARGIN_PP and high < MARGIN_PP else "does not lie inside"
    native = "computes in bf16 itself" if found["native"] else "has to emulate bf16"
    return Report(
        "bf16 against float32",
        f"BASE, {size.epochs} x {size.images:,} images, n = {seeds} seeds, each trained in both precisions.",
        [Table("bf16 less float32, validation set:", ("difference in", "unit", "mean", "95 % t-interval"), rows)],
        [
            f"The interval of the accuracy {inside} ±{MARGIN_PP} pp.",
            f"Precision of the logits as recorded by the runs: {', '.join(found['recorded'])}. "
            f"The processor, {found['device']}, {native}.",
        ],
    )


def _differences(found: Measured, metric: str) -> list[float]:
    before, after = (found[f"{precision} {metric}"] for precision in PRECISIONS)
    return [b - a for a, b in zip(before, after, strict=True)]


def _row(name: str, unit: str, differences: list[float], digits: int) -> tuple[str, ...]:
    mean, low, high = mean_interval(pd.Series(differences))
    return name, unit, f"{mean:+.{digits}f}", f"{low:+.{digits}f} to {high:+.{digits}f}"


# In a process of its own


def compare(folder: str, images: int, epochs: int, seeds: int) -> Measured:
    """Run the study in a store that is kept: what is finished there is not trained again."""
    os.environ.update(project_environment(folder))
    base = replace(BASE, train_images=images, epochs=epochs, precision=PRECISIONS[0])
    question = "Is bf16 as good as float32?"
    study = Study("benchmark-precision", question, base, tuple(range(seeds)), {"precision": PRECISIONS})
    runs = study.run().sort_values("seed")
    found: Measured = {
        f"{precision} {metric}": runs.loc[runs["arm"] == f"precision={precision}", metric].tolist()
        for precision in PRECISIONS
        for metric in ("accuracy/valid", "loss/valid")
    }
    device = sorted(set(runs["fact.device"]))
    recorded = sorted(set(runs["arm"] + ": " + runs["fact.precision"]))
    return found | {"recorded": recorded, "device": ", ".join(device), "native": has_bf16(resolve_device())}
