"""The seconds until the validation accuracy reaches 90 %: the lab against the stock pipeline."""

import math
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.measure import BenchmarkError, Measured, Options, Pipeline, column, in_fresh_process, interleave
from benchmarks.peers import BATCH_SIZE, WARM_UP, stock_trainer
from benchmarks.table import Report, Table, ratio, spread
from cnnlab.config import BASE, replace
from cnnlab.fashion_mnist import load_data
from cnnlab.training import fit

GOAL = 3.0
STOCK, LAB, LAB_1 = "stock", "lab", "lab, 1 thread"


class Size(NamedTuple):
    """The target accuracy, and how much is trained to reach it."""

    target: float  # validation accuracy, a fraction
    images: int  # per epoch of the lab
    steps: int  # per epoch of stock
    max_epochs: int  # of stock
    repeats: int


FULL = Size(target=0.90, images=BASE.train_images, steps=100, max_epochs=200, repeats=5)
QUICK = Size(target=0.30, images=1_280, steps=10, max_epochs=20, repeats=1)
MOST_EPOCHS = 8  # of the lab


def run(options: Options) -> Report:
    """Find the lab's number of epochs with seed 0, then measure both with other seeds."""
    size = QUICK if options.quick else FULL
    repeats = options.repeats or size.repeats
    epochs = _epochs_needed(size, options)
    common = {"target": size.target, "images": size.images, "epochs": epochs}
    pipelines = [
        Pipeline(STOCK, stock, {"target": size.target, "steps": size.steps, "max_epochs": size.max_epochs}),
        Pipeline(LAB, lab, common | {"threads": None}),
        Pipeline(LAB_1, lab, common | {"threads": 1}),
    ]
    measured = interleave(pipelines, repeats, options.say, first_seed=1)
    rows = []
    for name, results in measured.items():
        reached = sum(math.isfinite(one["total_s"]) for one in results)
        cells = [_faster(measured[STOCK], results, time_of) for time_of in ("total_s", "training_s")]
        accuracy = spread([100 * one["accuracy"] for one in results])
        rows.append((name, str(results[0]["threads"]), f"{reached} of {repeats}", *cells[0], *cells[1], accuracy))
    times = ("seconds", "times faster than stock", "training alone, s", "times faster than stock")
    columns = ("pipeline", "threads", "seeds that reach it", *times, "accuracy at the end, %")
    return Report(
        f"Time to {size.target:.0%} validation accuracy",
        f"n = {repeats} seeds, in turn. Median (smallest to largest); “never” where a seed does not get there.",
        [Table(f"Goal: {GOAL:g} times faster than stock.", columns, rows)],
        [
            f"The lab trains {epochs} x {size.images:,} images with a one-cycle schedule, whose length is set before. "
            f"It is the smallest number of epochs with which seed 0 ends at {size.target:.0%} or more; seed 0 is not "
            "among the measured seeds. The accuracy counts at the end only. "
            f"Precision, as recorded: {measured[LAB][0]['precision']}.",
            f"Stock has Adam with lr 1e-3, constant, and epochs of {size.steps} steps of {BATCH_SIZE} images; it is "
            "there after the first epoch with that accuracy.",
            "Both score validation images after every epoch, and this is in “seconds”; “training alone” is without it.",
        ],
    )


def _epochs_needed(size: Size, options: Options) -> int:
    """Return the smallest number of epochs with which seed 0 ends at the target."""
    for epochs in range(1, MOST_EPOCHS + 1):
        one = in_fresh_process(lab, seed=0, target=size.target, images=size.images, epochs=epochs, threads=None)
        options.say(f"  lab, seed 0, {epochs} epochs: accuracy {one['accuracy']:.4f}")
        if one["accuracy"] >= size.target:
            return epochs
    raise BenchmarkError(f"the lab does not reach {size.target:.0%} in {MOST_EPOCHS} epochs.")


def _faster(stock_results: list[Measured], results: list[Measured], name: str) -> tuple[str, str]:
    seconds = column(results, name)
    return spread(seconds), ratio(column(stock_results, name), seconds)


# In a separate process


def lab(seed: int, target: float, images: int, epochs: int, threads: int | None) -> Measured:
    """Train for a fixed number of epochs; the times are infinite if the final accuracy is below the target."""
    if threads:
        torch.set_num_threads(threads)
    data = load_data()
    config = replace(BASE, train_images=images, epochs=epochs, seed=seed)
    fit(replace(config, train_images=WARM_UP, epochs=1), data, device="cpu", progress=False)
    result = fit(config, data, device="cpu", progress=False)
    training_s = sum(images / epoch["time/images_per_s"] for epoch in result.epochs)
    measured = _result(result.final["time/total_s"], training_s, result.final["accuracy/valid"], target)
    return measured | {"precision": result.facts["precision"]}


def stock(seed: int, target: float, steps: int, max_epochs: int) -> Measured:
    """Train until the first epoch that reaches the accuracy."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    data = load_data()
    with TemporaryDirectory() as folder:
        warm_up = stock_trainer(data.train, data.valid, Path(folder), 1, WARM_UP // BATCH_SIZE)
        warm_up.trainbatches()
        trainer = stock_trainer(data.train, data.valid, Path(folder), max_epochs, steps)
        total_s = training_s = accuracy = 0.0
        for _ in range(max_epochs):
            started = time.perf_counter()
            trainer.trainbatches()
            training_s += time.perf_counter() - started
            accuracy = trainer.evalbatches()[0]["Accuracy"]
            total_s += time.perf_counter() - started
            if accuracy >= target:
                break
    return _result(total_s, training_s, accuracy, target)


def _result(total_s: float, training_s: float, accuracy: float, target: float) -> Measured:
    factor = 1.0 if accuracy >= target else math.inf
    threads = torch.get_num_threads()
    return {"total_s": total_s * factor, "training_s": training_s * factor, "accuracy": accuracy, "threads": threads}
