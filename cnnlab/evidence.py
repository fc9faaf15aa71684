"""Do the files and numbers that a run left behind agree with each other?

A finished run has a final accuracy and loss, its metrics after every epoch, its answer to every validation image, its
weights, and the time that it took.
"""

import math
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np
import torch

from cnnlab.config import Config
from cnnlab.data import Data
from cnnlab.fashion_mnist import load_data
from cnnlab.inquiry.record.runs import RawRun, images_of
from cnnlab.inquiry.task import History, Kept
from cnnlab.one_run import CORRECT, LOSS, WEIGHTS, evaluate

JUDGED = ("accuracy/valid", "loss/valid")
CHECKED_IMAGES = 500  # validation images, drawn at random each time, that the kept weights classify again
ROUNDING = 2  # of them may come out differently on another processor
SUMMED = 1e-5  # relative: the losses were summed in another order
CLOCK = 0.95  # share of the reported training time that has to lie between a run's start and its end


def check_result(config: Config, run: RawRun, history: History, kept: Kept) -> Iterable[str]:
    """Yield what doesn't agree among the things that a run left behind."""
    correct, losses, weights = _load(kept[CORRECT]), _load(kept[LOSS]), kept[WEIGHTS]
    yield from _check_finals(run, config, history)
    yield from _check_times(run)
    yield from _check_correct(run, correct)
    yield from _check_losses(run, losses)
    data, fingerprint = _own_data()
    if data and weights and correct is not None and images_of(run.tags) == fingerprint:
        yield from _check_weights(weights, config, data, correct)


def _check_finals(run: RawRun, config: Config, history: History) -> Iterable[str]:
    """Compare the final metrics with those of the epoch whose weights were kept."""
    outcome = run.tags.get("fact.outcome", "")
    if not outcome.startswith(("finished", "stopped early")):
        return  # it diverged within an epoch, so its final weights belong to no epoch
    histories = {name: history(name) for name in JUDGED}
    losses = histories["loss/valid"]
    if outcome == "finished" and len(losses) != config.epochs:
        yield f"it has the metrics of {len(losses)} epochs, and its params say {config.epochs}"
    if losses and config.keep != "average":  # such weights belong to no epoch either
        kept = losses.index(min(losses)) if config.keep == "best" else -1
        for name, values in histories.items():
            final = run.metrics.get(f"final/{name}", math.nan)
            if not values[kept:] or values[kept] != final:
                yield f"its final {name} ({final:.6f}) is not that of the epoch whose weights were kept"


def _check_times(run: RawRun) -> Iterable[str]:
    said = run.metrics.get("final/time/total_s")
    if said is not None and run.ended is not None and (run.ended - run.started) / 1000 < CLOCK * said:
        yield f"it lasted {(run.ended - run.started) / 1000:.1f} s, and says that its training took {said:.1f} s"


def _load(file: Path | None) -> np.ndarray | None:
    """Return what is known about each validation image: (N,); None where it can't be read."""
    try:
        return None if file is None else np.load(file)
    except (OSError, ValueError):
        return None


def _check_correct(run: RawRun, correct: np.ndarray | None) -> Iterable[str]:
    if correct is not None and int(correct.sum()) / len(correct) != run.metrics.get("final/accuracy/valid"):
        yield f"its answers to the validation images make an accuracy of {correct.mean():.4f}"


def _check_losses(run: RawRun, losses: np.ndarray | None) -> Iterable[str]:
    said = run.metrics.get("final/loss/valid", math.nan)
    if losses is not None and not np.isclose(losses.mean(), said, rtol=SUMMED, atol=0, equal_nan=True):
        yield f"its losses on the validation images have a mean of {losses.mean():.4f}"


def _check_weights(file: Path, config: Config, data: Data, correct: np.ndarray) -> Iterable[str]:
    """Check the kept weights: let them classify some validation images again."""
    some = np.random.default_rng().permutation(len(data.valid))[:CHECKED_IMAGES]
    try:
        (now,) = evaluate([config], [{WEIGHTS: file}], data, data.valid.take(torch.from_numpy(some)))
    except Exception as error:  # safetensors and torch have errors of their own
        yield f"its weights don't fit its network ({(str(error).splitlines() or ['?'])[0][:80]})"
        return
    other = int((now != correct[some]).sum()) if len(correct) == len(data.valid) else len(now)
    if other > ROUNDING:
        yield f"its weights give other answers than it recorded, to {other} of {len(now)} validation images"


@cache
def _own_data() -> tuple[Data | None, str]:
    """Return Fashion-MNIST with its fingerprint; None where this machine doesn't have it."""
    try:
        data = load_data()
    except Exception:  # an instructor's machine may be without it, and without the internet
        return None, ""
    return data, data.sha256()
