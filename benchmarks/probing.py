"""The cost of probing the network after every epoch."""

import time
from statistics import median
from typing import NamedTuple

import torch

from benchmarks.measure import Measured, Options, in_fresh_process
from benchmarks.peers import WARM_UP
from benchmarks.table import Report, Table, ratio, spread
from cnnlab.config import BASE, BEST, replace
from cnnlab.device import resolve_precision
from cnnlab.fashion_mnist import load_data
from cnnlab.probes import PROBE_IMAGES, read_grad_norms, read_probes
from cnnlab.training import fit

GOAL = 0.03
NETWORKS = {
    "BASE": BASE,
    "BASE with batch normalisation": replace(BASE, norm="batch", head_norm="batch", dropout=0.5),
    "BEST": BEST,
}
READINGS = 5  # one after another; the median counts


class Size(NamedTuple):
    """How much is trained."""

    images: int
    pairs: int


FULL, QUICK = Size(images=10_000, pairs=8), Size(images=640, pairs=2)


def run(options: Options) -> Report:
    """Measure the networks one after another, each in a separate process."""
    size = QUICK if options.quick else FULL
    n = options.repeats or size.pairs
    rows = []
    for name in NETWORKS:
        measured = in_fresh_process(pairs, name=name, images=size.images, n=n)
        rows.append(_row(name, measured))
        options.say(f"  {name}: {rows[-1][1]}")
    return Report(
        "Cost of the probes",
        f"Epochs of {size.images:,} images in {resolve_precision(BASE.precision, 'cpu')} with one thread, with the "
        f"scoring of validation and training images that every run does; n = {n} pairs of an epoch with and one "
        "without probes, in turn in one process. Median (smallest to largest).",
        [
            Table(
                f"Time of an epoch with probes; goal: less than {1 + GOAL:.2f} times that of one without.",
                ("network", "with ÷ without", "reading ÷ epoch without, %", "reading, ms", "epoch without, s"),
                rows,
            )
        ],
        [
            "The ratios count, not the seconds: other work may run on the machine (its load is below). Those of whole "
            "epochs carry that noise, which may be larger than what is measured; the reading alone, timed right after "
            "each pair, carries little of it.",
            f"A reading is a forward pass of {PROBE_IMAGES} images in float32 with all probes, and the gradient norms. "
            "There is one after each epoch whatever its length, so that longer epochs have a smaller share.",
        ],
    )


def _row(name: str, measured: Measured) -> tuple[str, ...]:
    probed, plain, reading = measured["probed_s"], measured["plain_s"], measured["reading_s"]
    return (
        name,
        ratio(probed, plain),
        spread([100 * r / p for r, p in zip(reading, plain, strict=True)], digits=2),
        spread([1000 * s for s in reading], digits=0),
        spread(plain, digits=2),
    )


# In a separate process


def pairs(name: str, images: int, n: int) -> Measured:
    """Train `n` pairs of epochs with and without probes, in alternating order."""
    torch.set_num_threads(1)
    data = load_data()
    config = replace(NETWORKS[name], train_images=images, epochs=1)
    probe_images = data.normaliser()(data.train.x[:PROBE_IMAGES])
    fit(replace(config, train_images=min(images, WARM_UP)), data, device="cpu", progress=False)
    seconds: dict[bool, list[float]] = {True: [], False: []}
    reading_s = []
    for pair in range(n):
        for probes in (True, False) if pair % 2 else (False, True):
            result = fit(replace(config, seed=pair), data, device="cpu", progress=False, probes=probes)
            seconds[probes].append(result.epochs[0]["time/epoch_s"])
        reading_s.append(median(_reading_s(result.model, probe_images) for _ in range(READINGS)))
    return {"probed_s": seconds[True], "plain_s": seconds[False], "reading_s": reading_s}


def _reading_s(model: torch.nn.Module, images: torch.Tensor) -> float:
    started = time.perf_counter()
    read_probes(model, images)
    read_grad_norms(model)
    return time.perf_counter() - started
