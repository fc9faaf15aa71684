"""What the params of a run promise, and whether the facts that were measured keep it."""

import math
from collections import Counter
from functools import cache
from importlib.metadata import version

import pandas as pd
from torch import nn

from cnnlab.config import Config
from cnnlab.facts import method_facts, written
from cnnlab.models import build_model
from cnnlab.params import replace
from cnnlab.training import OPTIMIZERS, SCHEDULES, method

PRINTED = ("module_tree", "loss", "optimizer", "schedule")  # by torch: another version may write them in another way
AT_THE_END = ("steps", "images_seen", "kept")  # of a run that didn't end early
PRECISIONS = {"float32": "float32", "bf16": "bfloat16"}


@cache
def promised(config: Config, channels: int = 1, num_classes: int = 10) -> dict[str, str]:
    """Return the facts that `fit` measures of a run of this config, on such images, which trains to its end.

    What follows from more than the config is left out: images, device, and the precision where it is "auto".
    """
    model = build_model(config, channels, num_classes)
    steps = config.epochs * math.ceil(config.train_images / config.batch_size)
    settings = method(config, steps)
    optimizer = OPTIMIZERS[config.optimizer](model.parameters(), **settings["optimizer_kwargs"])
    loss = nn.CrossEntropyLoss(label_smoothing=config.label_smoothing)
    schedule = written(SCHEDULES[config.schedule], settings["scheduler_kwargs"])
    facts = method_facts(model, loss, optimizer, schedule) | {
        "num_train": str(config.train_images),
        "batch_size": str(config.batch_size),
        "early_stopping": str(settings["earlystop_kwargs"]),
        "steps": str(steps),
        "images_seen": str(config.epochs * config.train_images),
        "kept": config.keep,
    }
    del facts["module_tree_sha256"]  # of module_tree, which says more
    if config.precision in PRECISIONS:
        facts["precision"] = PRECISIONS[config.precision]
    return facts


def broken_promises(run: pd.Series) -> list[str]:
    """Return in words which facts of a run aren't what its params promise; facts that weren't measured don't count.

    `run` is a row of `cnnlab.load_runs`.
    """
    same_torch = run.get("fact.version.torch") == version("torch")
    to_its_end = run.get("fact.outcome") == "finished"
    broken = []
    channels = int(_known(run, "fact.image_shape", "1 x 28 x 28").partition(" x ")[0])
    num_classes = int(_known(run, "fact.num_classes", "10"))
    for name, promise in promised(replace(run["config"], seed=0), channels, num_classes).items():
        measured = run.get(f"fact.{name}")
        if name == "kept" and isinstance(measured, str):
            measured = measured.split(" ")[0]  # "last (step 469 of 469)"
        is_known = isinstance(measured, str) and (same_torch or name not in PRINTED)
        if is_known and measured != promise and (to_its_end or name not in AT_THE_END):
            broken.append(_in_words(name, promise, str(measured)))
    return broken


def _known(run: pd.Series, fact: str, default: str) -> str:
    """Return a fact; older runs don't have those about the images, which were all Fashion-MNIST's or like them."""
    value = run.get(fact)
    return value if isinstance(value, str) else default


def describes_the_same(a: Config, b: Config, fact: str) -> bool:
    """Return whether two configs promise the same value of a fact."""
    one, other = (promised(replace(config, seed=0)) for config in (a, b))
    return one.get(fact) == other.get(fact)


def _in_words(name: str, promise: str, measured: str) -> str:
    if name == "module_tree":
        return f"its network differs in {', '.join(sorted(changed_modules(promise, measured)))}"
    return f"{name} is {_short(measured)} instead of {_short(promise)}"


def changed_modules(before: str, after: str) -> set[str]:
    """Return the kinds of modules, such as Dropout, in the lines that only one of two printed networks has."""
    lines, others = (Counter(line.strip() for line in tree.splitlines()) for tree in (before, after))
    changed = [line for line in (lines - others) + (others - lines) if line != ")"]
    return {line.split(": ", 1)[-1].split("(")[0] for line in changed} or {"the order of its layers"}


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
