"""The images per second that one run trains, compared with three peers."""

import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch

from benchmarks.measure import Measured, Options, Pipeline, column, interleave
from benchmarks.peers import (
    BATCH_SIZE,
    WARM_UP,
    first,
    loader,
    stock_model,
    stock_trainer,
    train_plainly,
    wait_for,
)
from benchmarks.table import Report, Table, ratio, spread
from cnnlab.config import BASE, replace
from cnnlab.device import has_bf16
from cnnlab.fashion_mnist import load_data
from cnnlab.training import fit


class Size(NamedTuple):
    """How much is trained: the number of images is a multiple of the batch size, so that all use equally many."""

    images: int
    repeats: int


FULL, QUICK = Size(images=400 * BATCH_SIZE, repeats=5), Size(images=5 * BATCH_SIZE, repeats=1)
NUM_WORKERS = {"cpu": (0, 2), "cuda": (0, 2, 8)}  # for the DataLoader; the best counts
LAB = "lab, float32"
LAB_1 = "lab, float32, 1 thread"
LAB_BF16 = "lab, bf16"


def run(options: Options) -> Report:
    """Measure all pipelines on the CPU, and on the GPU if there is one."""
    size = QUICK if options.quick else FULL
    repeats = options.repeats or size.repeats
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    return Report(
        "Training speed of one run",
        f"One epoch of {size.images:,} images of Fashion-MNIST in batches of {BATCH_SIZE}, after "
        f"{_warm_up(size.images):,} images that do not count; n = {repeats} repetitions in turn. "
        "Median (smallest to largest).",
        [_measure(device, size.images, repeats, options) for device in devices],
        [
            "Only training is timed. The rows “whole epoch” are the same runs with the scoring of the validation "
            "images and of a sample of the training images, which the peers do not do here.",
            "DataLoader and Lightning are shown with the number of workers that is best for them; "
            "the start of these workers is not timed.",
        ],
    )


def _measure(device: str, images: int, repeats: int, options: Options) -> Table:
    size = {"images": images, "device": device}
    peers = [Pipeline("stock: mltrainer and mads_datasets", stock, size)]
    for kind, function in {"PyTorch and DataLoader": plain, "Lightning": with_lightning}.items():
        peers += [Pipeline(f"{kind}, {n} workers", function, size | {"num_workers": n}) for n in NUM_WORKERS[device]]
    ours = [Pipeline(LAB, lab, size | {"threads": None, "precision": "float32"})]
    if device == "cpu":
        ours += [Pipeline(LAB_1, lab, size | {"threads": 1, "precision": "float32"})]
    if has_bf16(device):
        ours += [Pipeline(LAB_BF16, lab, size | {"threads": None, "precision": "bf16"})]
    measured = interleave([*peers, *ours], repeats, options.say)
    for kind in ("PyTorch and DataLoader", "Lightning"):
        _keep_the_best(measured, kind)
    compared = [name for name in (LAB, LAB_1, LAB_BF16) if name in measured]
    rows = []
    for name, results in measured.items():
        seconds = column(results, "train_s")
        ratios = [ratio(seconds, column(measured[base], "train_s")) for base in compared]
        rows.append((*_speed(name, results, seconds, images), *ratios))
    for name in (pipeline.name for pipeline in ours):
        seconds = column(measured[name], "epoch_s")
        rows.append((*_speed(f"{name}: whole epoch", measured[name], seconds, images), *("" for _ in compared)))
    columns = ("pipeline", "threads", "images/s", "seconds", *(f"speed of “{name}” ÷ this" for name in compared))
    return Table(f"On {device}:", columns, rows)


def _keep_the_best(measured: dict[str, list[Measured]], kind: str) -> None:
    """Keep only the number of workers with the shortest median."""
    names = sorted((name for name in measured if name.startswith(kind)), key=lambda name: _median_s(measured[name]))
    for slower in names[1:]:
        del measured[slower]


def _median_s(measured: list[Measured]) -> float:
    return median(column(measured, "train_s"))


def _speed(name: str, results: list[Measured], seconds: list[float], images: int) -> tuple[str, ...]:
    """Return the cells with the speed of a pipeline."""
    threads = str(results[0]["threads"])
    return name, threads, spread([images / s for s in seconds], digits=0), spread(seconds, digits=2)


# In a separate process


def stock(seed: int, images: int, device: str) -> Measured:
    """Train with the course's unchanged pipeline."""
    torch.manual_seed(seed)
    data = load_data()
    train = first(data.train, images)
    with TemporaryDirectory() as folder:
        trainer = stock_trainer(train, data.valid, Path(folder), 1, _warm_up(images) // BATCH_SIZE, device=device)
        trainer.trainbatches()
        trainer.settings.train_steps = images // BATCH_SIZE
        started = time.perf_counter()
        trainer.trainbatches()
        return _result(time.perf_counter() - started)


def plain(seed: int, images: int, device: str, num_workers: int) -> Measured:
    """Train with a plain loop over a DataLoader."""
    torch.manual_seed(seed)
    train = first(load_data().train, images)
    model = stock_model().to(device)
    train_plainly(model, loader(first(train, _warm_up(images)), num_workers, device), device)
    wait_for(device)
    batches = iter(loader(train, num_workers, device))
    started = time.perf_counter()
    train_plainly(model, batches, device)
    wait_for(device)
    return _result(time.perf_counter() - started)


def with_lightning(seed: int, images: int, device: str, num_workers: int) -> Measured:
    """Train with Lightning over the same DataLoader."""
    from benchmarks.lightning_peer import epoch_s

    torch.manual_seed(seed)
    return _result(epoch_s(first(load_data().train, images), num_workers, device))


def lab(seed: int, images: int, device: str, threads: int | None, precision: str) -> Measured:
    """Train with the lab's `fit`; without `threads`, torch chooses their number."""
    if threads:
        torch.set_num_threads(threads)
    data = load_data()
    config = replace(BASE, train_images=images, epochs=1, batch_size=BATCH_SIZE, precision=precision, seed=seed)
    fit(replace(config, train_images=_warm_up(images)), data, device=device, progress=False)
    (epoch,) = fit(config, data, device=device, progress=False).epochs
    return _result(images / epoch["time/images_per_s"]) | {"epoch_s": epoch["time/epoch_s"]}


def _warm_up(images: int) -> int:
    """Return how many images are trained before the clock starts."""
    return min(WARM_UP, images)


def _result(train_s: float) -> Measured:
    return {"train_s": train_s, "threads": torch.get_num_threads()}
