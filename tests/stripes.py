"""A second science for the engine, with NumPy only: softmax regression classifies noisy stripes."""

import hashlib
import pickle
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from cnnlab.inquiry.metrics import Metric
from cnnlab.inquiry.params import Params
from cnnlab.inquiry.task import FactRules, Facts, Kept, Task, Watcher

CLASSES, WIDTH = 4, 12


class Config(Params):
    """How a softmax regression is trained."""

    steps: Annotated[int, Field(ge=1)] = 20
    lr: Annotated[float, Field(gt=0.0)] = 0.1
    shrinkage: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0  # of the weights, in every step
    seed: int = 0


@dataclass(frozen=True)
class Stripes:
    """Lines with a bright stripe at one of four places: x float64 (N, 12), y int64 (N,)."""

    train: tuple[np.ndarray, np.ndarray]
    valid: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray] | None = None

    def sha256(self) -> str:
        """Return a fingerprint of the training and validation data."""
        return hashlib.sha256(pickle.dumps((self.train, self.valid))).hexdigest()


def draw(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw n noisy lines with their labels."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % CLASSES
    x = rng.normal(0, 1.5, (n, WIDTH))
    x[np.arange(n), 3 * y] += 2
    return x, y


OWN = Stripes(draw(200, 1), draw(100, 2))


@dataclass
class Result:
    """A trained regression."""

    weights: np.ndarray
    correct: np.ndarray
    final: dict[str, float]
    epochs: list[dict[str, float]]
    facts: dict[str, str]


class Regression(Task):
    """Softmax regression on stripes."""

    config_type = Config
    metrics = (
        Metric("accuracy/valid", "validation accuracy", "pp", 100, 1.0, "higher", 2),
        Metric("loss/valid", "validation loss", "nats", 1, 0.02, "lower", 3),
    )
    scales = ("accuracy/valid", "loss/valid")
    budget = ("steps",)
    facts = FactRules(needed=("shape", "steps"), decisive=("version.numpy",), data=("data",))
    bounds = {"accuracy/valid": 0.0, "loss/valid": 1e-9}  # noqa: RUF012
    compared = ("accuracy/valid", "loss/valid")
    own_data = OWN.sha256()
    data_name = "stripes"
    other_data = "other stripes"

    def amount(self, config: Config) -> int:
        """Return the number of steps."""
        return config.steps

    def size(self, config: Config) -> str:
        """Return the number of steps, in words."""
        return f"{config.steps} steps"

    def load(self) -> Stripes:
        """Return the stripes."""
        return OWN

    def fingerprint(self, facts: Facts) -> str:
        """Return the measured fingerprint."""
        return facts.get("data", "")

    def describe(self, config: Config, facts: Facts) -> dict[str, str]:
        """Return the facts that follow from a config."""
        return {"shape": f"{WIDTH} x {CLASSES}", "steps": str(config.steps)}

    def seconds(self, configs: Iterable[Config], data: Any, at_a_time: int) -> dict[Config, float]:
        """Return about a second per million steps."""
        return {config: config.steps / 1e6 for config in configs}

    def train(self, config: Config, data: Stripes, watcher: Watcher, device: str, threads: int) -> Result:
        """Train by gradient descent, in two epochs."""
        facts = {"shape": f"{WIDTH} x {CLASSES}", "steps": str(config.steps), "data": data.sha256()}
        watcher.start(facts)
        weights, epochs = np.random.default_rng(config.seed).normal(0, 1, (WIDTH, CLASSES)), []
        for epoch in (1, 2):
            for _ in range(config.steps * (epoch - 1) // 2, config.steps * epoch // 2):
                x, y = data.train
                gradient = x.T @ (softmax(x @ weights) - np.eye(CLASSES)[y]) / len(y)
                weights = (1 - config.shrinkage) * weights - config.lr * gradient
                watcher.progress(1)
            x, y = data.valid
            chances = softmax(x @ weights)
            correct = chances.argmax(1) == y
            loss = -np.log(chances[np.arange(len(y)), y]).mean()
            epochs.append({"accuracy/valid": float(correct.mean()), "loss/valid": float(loss)})
            watcher.epoch(epoch, epochs[-1])
        return Result(weights, correct, epochs[-1], epochs, facts | {"outcome": "finished"})

    def keep(self, result: Result, data: Stripes, folder: Path) -> None:
        """Keep the weights."""
        np.save(folder / "weights.npy", result.weights)

    def leaves(self, ships: bool) -> tuple[str, ...]:
        """Return the name of the weights."""
        return ("weights.npy",)

    def test_images(self) -> tuple[np.ndarray, np.ndarray]:
        """Return new stripes."""
        return draw(300, 3)

    def evaluate(self, configs: Iterable[Config], kept: Iterable[Kept], data: Any, images: Any) -> np.ndarray:
        """Return whether each regression is right about each line: bool (runs, lines)."""
        x, y = images
        weights = [np.load(files["weights.npy"]) for files in kept]
        return np.stack([(x @ one).argmax(1) == y for one in weights])


def softmax(scores: np.ndarray) -> np.ndarray:
    """Turn scores (N, K) into probabilities."""
    exponentials = np.exp(scores - scores.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)
