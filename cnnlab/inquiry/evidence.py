"""Does what a run left behind agree with itself? Whoever changes a result would have to change all of it alike.

A finished run has a final accuracy and loss, its metrics after every epoch, the answers to every validation image, its
weights, the time that it took, and a fingerprint of the images that it was trained on.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from cnnlab.config import DATA_SHA256, Config
from cnnlab.data import Batches, Data
from cnnlab.fashion_mnist import load_data
from cnnlab.models import build_model
from cnnlab.params import ConfigError, from_params
from cnnlab.tracking.artifacts import artifact_folder
from cnnlab.tracking.run_logger import CORRECT, WEIGHTS
from cnnlab.tracking.store import Store
from cnnlab.tracking.table import RawRun, images_of
from cnnlab.training import EVAL_BATCH

JUDGED = ("accuracy/valid", "loss/valid")
CHECKED_IMAGES = 500  # of the validation images, drawn anew each time, that kept weights classify again
ROUNDING = 2  # of them may come out otherwise on another processor
CLOCK = 0.95  # of the time that a training says it took has to lie between a run's start and its end

Files = Callable[[RawRun, str], Path | None]  # a file of a run, by its name; None where there is none


@dataclass
class Evidence:
    """What doesn't agree, and what can't be verified, each a sentence about a run."""

    wrong: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def check_evidence(runs: Iterable[RawRun], store: Store, files: Files, shipped: frozenset[str]) -> Evidence:
    """Return what the finished runs of a store say of themselves.

    `shipped` are the seals of runs that come with the lab, without their weights.
    """
    found, data = Evidence(), _own_data()
    some = np.random.default_rng().permutation(len(data.valid) if data else 0)[:CHECKED_IMAGES]
    for run in runs:
        try:
            config = from_params(Config, run.params)
        except ConfigError:
            continue  # counted elsewhere
        correct, weights = _load_correct(files(run, CORRECT)), files(run, WEIGHTS)
        wrong = [*_check_finals(run, config, store), *_check_times(run), *_check_correct(run, correct)]
        if data and weights and correct is not None and images_of(run.tags) == DATA_SHA256:
            wrong += _check_weights(weights, config, data, correct, some)
        found.wrong += [f"{run.label}: {line}." for line in wrong]
        needed = {CORRECT: correct} if run.seal in shipped else {CORRECT: correct, WEIGHTS: weights}
        if missing := [name for name, thing in needed.items() if thing is None]:
            found.missing.append(f"{run.label}: no {', no '.join(missing)}")
    return found


def _check_finals(run: RawRun, config: Config, store: Store) -> Iterable[str]:
    """Compare the final metrics with those after the epoch whose weights were kept."""
    outcome = run.tags.get("fact.outcome", "")
    if not outcome.startswith(("finished", "stopped early")):
        return  # it diverged within an epoch: its final weights are of no epoch
    histories = {name: _history(store, run, name) for name in JUDGED}
    losses = histories["loss/valid"]
    if outcome == "finished" and len(losses) != config.epochs:
        yield f"it has the metrics of {len(losses)} epochs, and its params say {config.epochs}"
    if losses:
        kept = losses.index(min(losses)) if config.keep == "best" else -1
        for name, history in histories.items():
            final = run.metrics.get(f"final/{name}", math.nan)
            if not history[kept:] or history[kept] != final:
                yield f"its final {name} ({final:.6f}) is not that of the epoch whose weights were kept"


def _history(store: Store, run: RawRun, metric: str) -> list[float]:
    """Return a metric after every epoch."""
    points = store.client.get_metric_history(run.run_id, metric)
    return [point.value for point in sorted(points, key=lambda point: point.step)]


def _check_times(run: RawRun) -> Iterable[str]:
    said = run.metrics.get("final/time/total_s")
    if said is not None and run.ended is not None and (run.ended - run.started) / 1000 < CLOCK * said:
        yield f"it lasted {(run.ended - run.started) / 1000:.1f} s, and says that its training took {said:.1f} s"


def _load_correct(file: Path | None) -> np.ndarray | None:
    """Return whether each validation image was classified correctly: bool (N,); None where that can't be read."""
    try:
        return None if file is None else np.load(file)
    except (OSError, ValueError):
        return None


def _check_correct(run: RawRun, correct: np.ndarray | None) -> Iterable[str]:
    if correct is not None and int(correct.sum()) / len(correct) != run.metrics.get("final/accuracy/valid"):
        yield f"its answers to the validation images make an accuracy of {correct.mean():.4f}"


def _check_weights(file: Path, config: Config, data: Data, correct: np.ndarray, some: np.ndarray) -> Iterable[str]:
    """Let the kept weights classify some validation images again."""
    model = build_model(config, data.shape[0], len(data.classes)).eval()
    try:
        model.load_state_dict(load_file(file))
    except Exception as error:  # safetensors and torch have errors of their own
        yield f"its weights don't fit its network ({(str(error).splitlines() or ['?'])[0][:80]})"
        return
    with torch.inference_mode():
        batches = Batches(data.valid.take(torch.from_numpy(some)), EVAL_BATCH, data.normaliser())
        now = torch.cat([model(x).argmax(dim=1) == y for x, y in batches]).numpy()
    other = int((now != correct[some]).sum()) if len(correct) == len(data.valid) else len(now)
    if other > ROUNDING:
        yield f"its weights give other answers than it recorded, to {other} of {len(now)} validation images"


def check_subsets(runs: Iterable[RawRun]) -> list[str]:
    """Return which runs of different seeds have the very same training images in the same order: no two can."""
    first: dict[str, RawRun] = {}
    found = []
    for run in runs:
        subset = run.tags.get("fact.train_sha256")
        twin = first.setdefault(subset, run) if subset else run
        if twin.params.get("seed") != run.params.get("seed"):
            found.append(f"{run.label}: its training images and their order are those of another seed ({twin.label}).")
    return found


def _own_data() -> Data | None:
    """Return Fashion-MNIST, None where this machine doesn't have it."""
    try:
        return load_data(lambda line: None)
    except Exception:  # an instructor's machine may be without it, and without the internet
        return None


def downloaded(store: Store, folder: Path) -> Files:
    """Return how to get a run's files from a server, by way of a folder."""

    def file(run: RawRun, name: str) -> Path | None:
        try:
            target = folder / run.run_id
            target.mkdir(exist_ok=True)
            return Path(store.client.download_artifacts(run.run_id, name, str(target)))
        except Exception:  # MLflow raises whatever the library below it raises
            return None

    return file


def in_folder(folder: Path) -> Files:
    """Return how to get a run's files from the folder of a project."""
    store = f"sqlite:///{(folder / 'mlflow.db').as_posix()}"

    def file(run: RawRun, name: str) -> Path | None:
        try:
            path = artifact_folder(run.artifact_uri, store) / name
        except Exception:  # MLflow's: its address leads out of the folder
            return None
        return path if path.is_file() else None

    return file
