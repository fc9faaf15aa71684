"""About how long a run takes on this machine: one short timing that is kept, scaled by what a network computes.

Seconds per image = operations / rate + overhead of a step / batch size. Rate and overhead are measured with two small
trainings, one of BASE and one in batches of two, as many at the same time as there will be.
"""

import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from cnnlab.config import BASE, Config
from cnnlab.data import Data, Split
from cnnlab.device import device_name, resolve_device, resolve_precision
from cnnlab.inquiry.params import replace
from cnnlab.inquiry.paths import state_folder
from cnnlab.models import build_model
from cnnlab.probes import PROBE_IMAGES, watch
from cnnlab.training import TRAIN_EVAL_IMAGES, fit

VALID_IMAGES = 5_000  # of Fashion-MNIST
STEPS = 12  # that each of the two trainings does in an epoch
BACKWARD = 2.0  # a backward pass takes about as long as two forward passes
TRAFFIC = 12.0  # operations that could be done while one value of a map is written and read again
TIMED = {
    "large": replace(BASE, train_images=64 * STEPS, epochs=2, lr=1e-6),
    "small": replace(BASE, blocks=((1, 8),), batch_size=2, train_images=2 * STEPS, epochs=2, lr=1e-6),
}


class Speed(NamedTuple):
    """What one of several trainings at the same time does: operations per second, and seconds beside them in a step."""

    train_rate: float
    score_rate: float
    step_s: float


def estimate_seconds(configs: Iterable[Config], data: Data | None, at_a_time: int) -> dict[Config, float]:
    """Return about how long a run of each config takes here, if `at_a_time` are trained at once."""
    shape, valid = (data.shape, len(data.valid)) if data else ((1, 28, 28), VALID_IMAGES)
    return {config: _seconds(config, shape, valid, at_a_time) for config in configs}


def _seconds(config: Config, shape: tuple[int, ...], valid_images: int, at_a_time: int) -> float:
    forward = operations(replace(config, seed=0), shape)
    speed = _speed(resolve_precision(config.precision, resolve_device()), at_a_time)
    step_s = (1 + BACKWARD) * forward * config.batch_size / speed.train_rate + speed.step_s
    scored = valid_images + min(TRAIN_EVAL_IMAGES, config.train_images) + min(PROBE_IMAGES, config.train_images)
    return config.epochs * (config.train_images / config.batch_size * step_s + scored * forward / speed.score_rate)


@cache
def operations(config: Config, shape: tuple[int, ...]) -> float:
    """Return how many multiplications and additions one image takes, forwards, with the traffic of its maps."""
    total = 0.0

    def add(_name: str, layer: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        nonlocal total
        per_value = 2 * layer.weight[0].numel() if isinstance(layer, nn.Conv2d | nn.Linear) else 0
        if not isinstance(layer, nn.Identity):
            total += output.numel() * (per_value + TRAFFIC)

    watch(build_model(config, shape[0]), torch.zeros(1, *shape), add)
    return total


def _speed(precision: str, at_a_time: int) -> Speed:
    """Return the speed that was measured on this machine before, or measure it."""
    file = state_folder() / "timing.json"
    key = f"{device_name(resolve_device())}, torch {torch.__version__}, {precision}, {at_a_time} at a time"
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
        return Speed(**known[key])
    except (OSError, ValueError, TypeError, KeyError):  # not measured yet, or not by this version of the lab
        known = {}
    speed = _measure(precision, at_a_time)
    part = file.with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps(known | {key: speed._asdict()}, indent=1), encoding="utf-8")
    part.replace(file)
    return speed


def _measure(precision: str, at_a_time: int) -> Speed:
    """Train the two small networks on noise in several threads at the same time; the second epoch counts."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]), ThreadPoolExecutor(at_a_time) as pool:
            measured = {}
            for name, timed in TIMED.items():
                config, noise = replace(timed, precision=precision), _noise(timed.train_images)
                measured[name] = np.mean([*pool.map(_time, [config] * at_a_time, [noise] * at_a_time)], axis=0)
    finally:
        torch.set_num_threads(threads)
    large, small = (TIMED[name].batch_size * operations(TIMED[name], (1, 28, 28)) for name in ("large", "small"))
    (large_s, score_s), (small_s, _) = measured["large"], measured["small"]
    rate = (1 + BACKWARD) * (large - small) / max(large_s - small_s, 1e-9)
    scored = operations(TIMED["large"], (1, 28, 28))
    return Speed(float(rate), float(scored / score_s), float(max(small_s - (1 + BACKWARD) * small / rate, 0.0)))


def _time(config: Config, noise: Data) -> tuple[float, float]:
    """Return the seconds of a step, and those of scoring one image."""
    epoch = fit(config, noise, progress=False, probes=False).epochs[1]
    trained_s = config.train_images / epoch["time/images_per_s"]
    scored = len(noise.valid) + min(TRAIN_EVAL_IMAGES, config.train_images)
    return trained_s / STEPS, (epoch["time/epoch_s"] - trained_s) / scored


def _noise(n: int) -> Data:
    """Return n images to train on, and 500 to score."""
    images, labels = torch.randint(0, 256, (n + 500, 1, 28, 28), dtype=torch.uint8), torch.arange(n + 500) % 10
    return Data(Split(images[:n], labels[:n]), Split(images[n:], labels[n:]), classes=tuple(map(str, range(10))))
