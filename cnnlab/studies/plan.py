"""What running a study would do, and about how long it takes on this machine."""

import heapq
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd
import torch

from cnnlab.checked import checked
from cnnlab.config import Config, replace
from cnnlab.data import Data, Split
from cnnlab.errors import stopping
from cnnlab.facts import num_parameters
from cnnlab.models import build_model
from cnnlab.probes import PROBE_IMAGES
from cnnlab.studies.engines import Engine, choose_engine, num_workers
from cnnlab.studies.results import results
from cnnlab.studies.runner import THREADS, trained_elsewhere
from cnnlab.studies.study import Study
from cnnlab.tracking.connection import connect
from cnnlab.tracking.store import Store
from cnnlab.tracking.table import Identity
from cnnlab.training import TRAIN_EVAL_IMAGES, fit

BATCHES = 10  # that a timing trains, twice: the first time warms up
VALID_IMAGES = 5_000
IMAGE_SIZE, NUM_CLASSES = 28, 10
LOGGING_S = 1.0  # figures, model and delivery of one run
START_S = 6.0  # of worker processes: importing torch and MLflow
FIRST_MODEL_S = 9.0  # for the first model that a process saves, torch imports its compiler


@dataclass(frozen=True, repr=False)
class Plan:
    """What `study.run()` would do. Printed or shown in a notebook it is a table with a sentence.

    arms: one row each, with what differs from the control, the parameters of the network, the number of runs,
        how many of them are finished, taken over from other studies, or still to be trained, and minutes for one.
    seconds: about how long the training takes, measured by a short timing here.
    """

    study: Study
    arms: pd.DataFrame
    seconds: float
    where: str

    def __str__(self) -> str:
        return f"{self.study.describe()}\n{self.arms.to_string()}\n{self.sentence}"

    def _repr_html_(self) -> str:
        return f"<p>{self.study.describe()}</p>{self.arms.to_html()}<p>{self.sentence}</p>"

    __repr__ = __str__

    @property
    def sentence(self) -> str:
        """How many runs are missing and about how long they take."""
        missing = int(self.arms["to train"].sum())
        if not missing:
            return "Nothing is left to train."
        return f"To train: {missing} runs, about {_duration(self.seconds)} {self.where} (from a short timing here)."


@checked
@stopping()
def make_plan(study: Study, store: Store | None = None, engine: str | Engine = "auto") -> Plan:
    """Return the plan of a study; it trains a few batches of each kind of arm, to measure their speed."""
    store = store or connect(say=lambda line: None)
    done = set(results(study, store)["identity"])
    elsewhere = set(trained_elsewhere(store)) - done
    counts = {"finished": done, "taken over": elsewhere}
    images = study.images
    identities = [(arm, Identity.of(config, images)) for arm, _, config in study.runs()]
    rows = []
    for arm, config in study.arms.items():
        runs = {identity for name, identity in identities if name == arm}
        row = {"arm": arm, "differs": study.differs(arm) or "(control)", "runs": len(runs)}
        row |= {"parameters": num_parameters(build_model(config))}
        row |= {name: len(runs & known) for name, known in counts.items()}
        rows.append(row | {"to train": len(runs - done - elsewhere)})
    arms = pd.DataFrame(rows).set_index("arm")
    missing = [identity.config for _, identity in identities if identity not in done | elsewhere]
    with _engine(missing, store, engine) as chosen:
        slots, where = min(chosen.slots, len(missing)), chosen.describe()
    speeds: dict[Config, Speed] = {}
    here = min(slots, num_workers())  # a cluster does more at the same time than this machine
    times = {arm: _one_run_s(study.arms[arm], here, speeds) for arm in arms.index[arms["to train"] > 0]}
    arms["one run"] = [_duration(times[arm]) if arm in times else "" for arm in arms.index]
    start_s = START_S if slots > 1 else 0.0
    ends = [start_s + FIRST_MODEL_S if missing else 0.0] * max(slots, 1)  # when each worker is free
    for arm, seconds in times.items():
        for _ in range(arms.loc[arm, "to train"]):
            heapq.heapreplace(ends, ends[0] + seconds)
    return Plan(study, arms, float(max(ends)), where)


def _engine(missing: list[Config], store: Store, engine: str | Engine) -> AbstractContextManager[Engine]:
    if not isinstance(engine, str):
        return nullcontext(engine)
    return choose_engine(engine, store, sum(config.epochs * config.train_images for config in missing))


class Speed(NamedTuple):
    """Images per second of one of several trainings that go on at the same time."""

    train: float
    score: float


def _one_run_s(config: Config, slots: int, speeds: dict[Config, Speed]) -> float:
    """Return about how many seconds a run takes; `speeds` keeps what was measured, since many arms cost the same."""
    kind = replace(
        config,
        **{"epochs": 2, "train_images": min(config.train_images, BATCHES * config.batch_size), "seed": 0},
        **{"lr": 1e-6, "weight_decay": 0.0, "label_smoothing": 0.0, "keep": "last", "patience": None},
        **{"dropout": 0.5 if config.dropout else 0.0, "conv_dropout": 0.5 if config.conv_dropout else 0.0},
    )
    if kind not in speeds:
        speeds[kind] = _measure(kind, slots)
    scored = VALID_IMAGES + min(TRAIN_EVAL_IMAGES, config.train_images) + min(PROBE_IMAGES, config.train_images)
    return config.epochs * (config.train_images / speeds[kind].train + scored / speeds[kind].score) + LOGGING_S


def _measure(config: Config, slots: int) -> Speed:
    """Train two short epochs on noise in `slots` threads at the same time; the second one counts.

    Probes are left out: here they would have many times their share. They take as long as scoring their images.
    """
    noise = Data(_noise(config.train_images), _noise(TRAIN_EVAL_IMAGES // 5))
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        with torch.random.fork_rng(devices=[]), ThreadPoolExecutor(slots) as pool:
            runs = list(pool.map(lambda _: fit(config, noise, progress=False, probes=False), range(slots)))
    finally:
        torch.set_num_threads(threads)
    train_s = [config.train_images / run.epochs[1]["time/images_per_s"] for run in runs]
    score_s = [run.epochs[1]["time/epoch_s"] - s for run, s in zip(runs, train_s, strict=True)]
    scored = len(noise.valid) + min(TRAIN_EVAL_IMAGES, config.train_images)
    return Speed(slots * config.train_images / sum(train_s), slots * scored / sum(score_s))


def _noise(n: int) -> Split:
    images = torch.randint(0, 256, (n, 1, IMAGE_SIZE, IMAGE_SIZE), dtype=torch.uint8)
    return Split(images, torch.arange(n) % NUM_CLASSES)


def _duration(seconds: float) -> str:
    """Return a time the way one would say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
