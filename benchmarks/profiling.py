"""The time of one training step, by kind of work."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch.autograd.profiler import record_function
from torch.profiler import ProfilerActivity, profile

from benchmarks.bare import bare_step
from benchmarks.measure import Measured, Options, Pipeline, column, interleave
from benchmarks.peers import WARM_UP
from benchmarks.table import Report, Table, spread
from cnnlab import config as configs
from cnnlab.config import BASE, Config, replace
from cnnlab.data import Batches
from cnnlab.device import resolve_precision
from cnnlab.fashion_mnist import load_data
from cnnlab.training import fit

# The first pattern that matches an operation, or an operation that contains it, determines its group.
GROUPS = {
    "data": r"^data$",
    "optimiser": r"^Optimizer\.",
    "linear layer and loss": r"linear|addmm|cross_?entropy|nll|softmax",
    "convolution": r"conv",
    "pooling": r"pool|mean",
    "normalisation": r"norm",
    "activation": r"relu|threshold|clamp|gelu|silu|leaky",
}
REST = "rest (memory, autograd, Python)"
NAMES = ("BASE", "BEST")


class Size(NamedTuple):
    """How many steps are recorded."""

    steps: int
    repeats: int


FULL, QUICK = Size(steps=50, repeats=5), Size(steps=5, repeats=1)


def run(options: Options) -> Report:
    """Profile the named networks of the lab."""
    size = QUICK if options.quick else FULL
    repeats = options.repeats or size.repeats
    names = [name for name in NAMES if hasattr(configs, name)]
    pipelines = [Pipeline(name, shares, {"name": name, "steps": size.steps}) for name in names]
    measured = interleave(pipelines, repeats, options.say)
    rows = [(f"{group}, %", *(spread(column(measured[name], group)) for name in names)) for group in (*GROUPS, REST)]
    rows.append(("one step, ms", *(spread(column(measured[name], "step_ms")) for name in names)))
    return Report(
        "Profile of a training step",
        f"{size.steps} steps in {resolve_precision(BASE.precision, 'cpu')} with one thread, recorded by torch.profiler "
        "after a warm-up; "
        f"n = {repeats} repetitions in turn. Median (smallest to largest).",
        [Table("Share of the time of a step, forward and backward together:", ("part", *names), rows)],
        ["Recording makes a step longer, most of all its many small operations."],
    )


# In a separate process


def shares(seed: int, name: str, steps: int) -> Measured:
    """Return the share of each group in percent, and the milliseconds of a step."""
    torch.set_num_threads(1)
    config: Config = replace(getattr(configs, name), train_images=WARM_UP, epochs=1, seed=seed)
    data = load_data()
    fit(config, data, device="cpu", progress=False)
    batches = Batches(data.train, config.batch_size, data.normaliser(), torch.Generator().manual_seed(seed))
    step = bare_step(config, num_steps=steps)
    with profile(activities=[ProfilerActivity.CPU]) as recorded, record_function("steps"):
        for x, y in _recorded(batches, steps):
            step(x, y)
    totals = dict.fromkeys((*GROUPS, REST), 0.0)
    for event in recorded.events():
        if event.cpu_parent is not None or event.name == "steps":
            totals[_group(event)] += event.self_cpu_time_total
    whole_us = sum(totals.values())
    return {group: 100 * us / whole_us for group, us in totals.items()} | {"step_ms": whole_us / steps / 1000}


def _recorded(batches: Batches, steps: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield batches, and record the time to make each as "data"."""
    source = iter(batches)
    for _ in range(steps):
        with record_function("data"):
            batch = next(source)
        yield batch


def _group(event: Any) -> str:
    """Return the group of a recorded operation, which may be part of another one."""
    names = []
    while event is not None:
        names.append(event.name)
        event = event.cpu_parent
    for group, pattern in GROUPS.items():
        if any(re.search(pattern, name, re.IGNORECASE) for name in names):
            return group
    return REST
