"""Training one network: `fit(config, data)`, on top of mltrainer's `Trainer`."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import mltrainer
import numpy as np
import torch
from loguru import logger
from mltrainer import TrainerSettings
from mltrainer.trainer import Reporter
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR, ReduceLROnPlateau
from tqdm import tqdm

from cnnlab.checked import checked
from cnnlab.config import Config
from cnnlab.data import Batches, Data, Split, normalise
from cnnlab.device import keep_freed_memory, resolve_device, resolve_precision
from cnnlab.errors import LabError, stopping
from cnnlab.facts import facts_as_built
from cnnlab.models import Build, build_model
from cnnlab.probes import PROBE_IMAGES, read_grad_norms, read_probes
from cnnlab.progress import Bar, progress_bar
from cnnlab.scores import Score, scores

TRAIN_EVAL_IMAGES = 2_500  # of the run's own training images, scored in eval mode after every epoch
EVAL_BATCH = 100  # the maps of more images don't fit into the cache of a CPU: 500 take twice as long
READ_EVERY = 10  # steps; reading a loss makes the program wait for the GPU
DIVERGED_LOSS = 100.0  # guessing among ten classes has ln 10 = 2.3: what is far beyond does not come back

OPTIMIZERS: dict[str, type[Optimizer]] = {"adamw": AdamW, "adam": Adam, "sgd": SGD}

logger.disable("mltrainer")  # a log line per epoch; the reporters and the bar say it better


class Diverged(Exception):
    """The training loss left the range of numbers from which training can recover."""


class Seeds(NamedTuple):
    """One stream of random numbers for each thing that is random, so that changing one leaves the others."""

    init: int
    order: int
    subset: int
    dropout: int

    @classmethod
    def of(cls, seed: int) -> "Seeds":
        """Derive the four from the seed of the run."""
        return cls(*(int(state) for state in np.random.SeedSequence(seed).generate_state(4)))


class LabTrainer(mltrainer.Trainer):
    """mltrainer's `Trainer`, with its API, three things made exact, and a look inside.

    - Validation covers the whole set in every epoch, and every image has the same weight.
    - The training images are scored in eval mode too (`train_sample`): the loss in train mode is
      measured with dropout on and with weights that change under way.
    - A schedule may move with every batch (`schedule_every="batch"`), and a diverging loss ends the loop.
    - What goes on inside is read on `probe_images`, where they are given, after epochs 1, 4, 16, ... and the last.

    Raises (from `loop`):
        Diverged: the loss is not a number or beyond `DIVERGED_LOSS`.
    """

    def __init__(
        self,
        *args: Any,
        train_sample: Iterable[tuple[Tensor, Tensor]],
        eval_loss_fn: Callable[[Tensor, Tensor], Tensor] | None = None,
        schedule_every: str = "epoch",
        precision: str = "float32",
        keep: str = "last",
        probe_images: Tensor | None = None,
        bar: Bar | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.train_sample = train_sample
        self.eval_loss_fn = eval_loss_fn or self.loss_fn
        self.schedule_every = schedule_every
        self.precision = precision
        self.keep = keep
        self.probe_images = probe_images
        self.bar = bar if bar is not None else tqdm(disable=True)
        self.num_steps = 0
        self.images_seen = 0
        self.logits_dtype: torch.dtype | None = None
        self._lowest_loss = math.inf
        self._best_step = 0
        self._scores: tuple[Score, Score] | None = None  # of train sample and validation set, at the weights of now
        self._best_weights: dict[str, Tensor] | None = None

    def loop(self) -> None:
        """Train for `settings.epochs` epochs, reporting after each, and leave the kept weights in the model."""
        try:
            for epoch in range(1, self.settings.epochs + 1):
                started, seen_before = time.perf_counter(), self.images_seen
                train_loss = self.trainbatches()
                trained_s = time.perf_counter() - started
                metrics, valid_loss = self.evalbatches()
                metrics |= self._look_inside(epoch)
                metrics["time/epoch_s"] = time.perf_counter() - started
                metrics["time/images_per_s"] = (self.images_seen - seen_before) / trained_s
                self.report(epoch, train_loss, valid_loss, metrics)
                self._keep_if_best(valid_loss)
                if self.early_stopping:
                    self.early_stopping(valid_loss, self.model)
                    if self.early_stopping.early_stop:
                        break
        finally:
            if self._best_weights is not None:
                self.model.load_state_dict(self._best_weights)
                self._scores = None

    def trainbatches(self) -> float:
        """Train one epoch; return the mean loss per image, in train mode, with the weights of the moment."""
        self.model.train()
        self._scores = None
        total_loss, num_images = 0.0, 0
        unread: list[tuple[Tensor, int]] = []  # losses still on the device, with the size of their batch
        for step in range(1, self.settings.train_steps + 1):
            x, y = self._to_device(*self._next_batch(self.traindataloader, "_train_iter"))
            self.optimizer.zero_grad()
            with self._autocast():
                logits = self.model(x)
                loss = self.loss_fn(logits, y)
            loss.backward()
            self.optimizer.step()
            self.lr = self.optimizer.param_groups[0]["lr"]
            if self.scheduler and self.schedule_every == "batch":
                self.scheduler.step()
            self.num_steps += 1
            self.images_seen += len(y)
            self.logits_dtype = logits.dtype
            unread.append((loss.detach(), len(y)))
            if len(unread) == READ_EVERY or step == self.settings.train_steps:
                total_loss += self._read(unread)
                num_images += sum(size for _, size in unread)
                self.bar.set_postfix_str(f"loss {total_loss / num_images:.3f}", refresh=False)
                self.bar.update(sum(size for _, size in unread))
                unread.clear()
        return total_loss / num_images

    def _read(self, unread: list[tuple[Tensor, int]]) -> float:
        """Return the sum of the losses of all images in the last batches."""
        values: list[float] = torch.stack([loss for loss, _ in unread]).tolist()
        for step, value in enumerate(values, start=self.num_steps - len(values) + 1):
            if not value < DIVERGED_LOSS:  # also true for nan
                raise Diverged(f"diverged at step {step}")
        return sum(value * size for value, (_, size) in zip(values, unread, strict=True))

    def evalbatches(self) -> tuple[dict[str, float], float]:
        """Score the validation set and the sample of the training set, both in eval mode."""
        train, valid = self.both_scores()
        if self.scheduler and self.schedule_every == "epoch":
            plateau = isinstance(self.scheduler, ReduceLROnPlateau)
            self.scheduler.step(*([valid.loss] if plateau else []))
        self.bar.set_postfix_str(f"valid loss {valid.loss:.3f}, accuracy {100 * valid.accuracy:.1f} %")
        extra = {f"{metric}/valid": float(metric(valid.y, valid.logits)) for metric in self.settings.metrics}
        return scores(train, valid) | extra | {"lr": self.lr}, valid.loss

    def both_scores(self) -> tuple[Score, Score]:
        """Return the scores of the training sample and of the validation set, measured once for the same weights."""
        if self._scores is None:
            valid = islice(self.validdataloader, self.settings.valid_steps)
            self._scores = self.score(self.train_sample), self.score(valid)
        return self._scores

    def score(self, batches: Iterable[tuple[Tensor, Tensor]]) -> Score:
        """Return what the network says of these images, in eval mode and in float32, as the saved model computes."""
        self.model.eval()
        logits, labels = [], []
        with torch.inference_mode():
            for x, y in batches:
                x, y = self._to_device(x, y)
                logits.append(self.model(x))
                labels.append(y)
        all_logits, all_labels = torch.cat(logits), torch.cat(labels)
        loss = float(self.eval_loss_fn(all_logits, all_labels))
        return Score(all_logits.cpu(), all_labels.cpu(), loss)

    def _autocast(self) -> AbstractContextManager[Any]:
        kind = (self.device or "cpu").split(":")[0]
        return torch.autocast(kind, dtype=torch.bfloat16, enabled=self.precision == "bf16")

    def _look_inside(self, epoch: int) -> dict[str, float]:
        """Return what the probes read, after epochs 1, 4, 16, ... and the last."""
        if self.probe_images is None or epoch not in (1, 4, 16, 64, 256, self.settings.epochs):
            return {}
        return read_probes(self.model, self.probe_images) | read_grad_norms(self.model)

    def _keep_if_best(self, valid_loss: float) -> None:
        if self.keep == "best" and valid_loss < self._lowest_loss:
            self._lowest_loss, self._best_step = valid_loss, self.num_steps
            self._best_weights = {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    @property
    def kept_epoch(self) -> int:
        """The index of the epoch whose weights are kept: that of the best one, or -1 for the last that finished."""
        return int(self._best_step // self.settings.train_steps) - 1

    @property
    def kept(self) -> str:
        """Which weights the model holds after `loop`, such as "last (step 469 of 469)"."""
        which, step = ("best", self._best_step) if self._best_weights else ("last", self.num_steps)
        return f"{which} (step {step} of {self.num_steps})"


@dataclass
class Result:
    """One finished training: the network with the kept weights, and what was measured."""

    config: Config
    model: nn.Module
    epochs: list[dict[str, float]]  # the metrics after each epoch
    final: dict[str, float]  # the metrics at the kept weights: the result of the run
    outcome: str  # "finished", "stopped early after epoch 5", "diverged at step 17"
    valid: Score
    facts: dict[str, str] = field(repr=False)  # measured from the objects, not from the config


class FactReporter(Reporter):
    """A reporter that is also told, before the first epoch, what was built."""

    def start(self, facts: dict[str, str]) -> None:
        """Take the facts of a run that begins now."""


class History(FactReporter):
    """A reporter that keeps what it is told, in lists."""

    def __init__(self) -> None:
        self.facts: dict[str, str] = {}
        self.epochs: list[dict[str, float]] = []

    def start(self, facts: dict[str, str]) -> None:
        """Take the facts of a run that begins now."""
        self.facts = facts

    def report(self, epoch: int, train_loss: float, test_loss: float, metric_dict: dict[str, float]) -> None:
        """Take the metrics of one epoch; mltrainer calls the validation loss `test_loss`."""
        self.epochs.append({"loss/train": train_loss, **metric_dict})


@checked
@stopping()
def fit(
    config: Config,
    data: Data,
    reporters: Sequence[Reporter] = (),
    metrics: Sequence[Callable[[Any, Any], float]] = (),
    device: str = "auto",
    title: str = "",
    progress: bool = True,
    bar: Bar | None = None,
    probes: bool = True,
    build: Build = build_model,
) -> Result:
    """Train the network of `config` on `data` and return it with all that was measured.

    `reporters` are told of every epoch (mltrainer's `Reporter`); `metrics` are mltrainer's metrics, computed
    over the whole validation set; `title` heads the progress bar, unless progress goes to a `bar` of the caller's;
    `probes` reads what goes on inside the network (`probes.py`), which changes nothing in the training; `build` makes
    the network, from images (B, 1, 28, 28) to logits (B, 10).
    The caller's random numbers stay as they were.

    Raises:
        LabError: `device` isn't there, or `data` has fewer training images than `config` asks for.
    """
    if config.train_images > len(data.train):
        raise LabError(f"train_images={config.train_images} is not possible: the data hold {len(data.train)}.")
    device = resolve_device(device)
    keep_freed_memory()
    history = History()
    with (
        TemporaryDirectory(prefix="cnnlab-") as folder,
        torch.random.fork_rng(devices=range(torch.cuda.device_count()) if device.startswith("cuda") else []),
        nullcontext(bar)
        if bar is not None
        else progress_bar(title or f"seed {config.seed}", config.epochs * config.train_images, progress) as bar,
    ):
        trainer, facts = _build_trainer(config, data, build, device, metrics, Path(folder), bar, probes)
        trainer.reporters = [history, *reporters]
        for reporter in trainer.reporters:
            if isinstance(reporter, FactReporter):
                reporter.start(facts)
        started = time.perf_counter()
        outcome = _train(trainer, history)
        final = {"time/total_s": time.perf_counter() - started}
        train, valid = trainer.both_scores()
        final |= scores(train, valid)
        if trainer.probe_images is not None:  # what is one layer's alone is no result of the run
            final |= {n: v for n, v in read_probes(trainer.model, trainer.probe_images).items() if "/" not in n}
        if history.epochs:
            final["time/epoch_s"] = sum(epoch["time/epoch_s"] for epoch in history.epochs) / len(history.epochs)
            kept = history.epochs[trainer.kept_epoch]
            final["loss/train"], final["gap/train_mode"] = kept["loss/train"], kept["loss/valid"] - kept["loss/train"]
        bar.set_postfix_str(f"valid loss {valid.loss:.3f}, accuracy {100 * valid.accuracy:.1f} %, {outcome}")
    facts = facts | {
        "steps": str(trainer.num_steps),
        "images_seen": str(trainer.images_seen),
        "precision": str(trainer.logits_dtype).removeprefix("torch."),
        "kept": trainer.kept,
        "outcome": outcome,
    }
    return Result(config, trainer.model, history.epochs, final, outcome, valid, facts)


def _train(trainer: LabTrainer, history: History) -> str:
    """Train to the end, and return in words how that came."""
    try:
        trainer.loop()
    except Diverged as diverged:
        return str(diverged)
    if len(history.epochs) < trainer.settings.epochs:
        return f"stopped early after epoch {len(history.epochs)}"
    return "finished"


def _build_trainer(
    config: Config, data: Data, build: Build, device: str, metrics: Sequence[Any], folder: Path, bar: Bar, probes: bool
) -> tuple[LabTrainer, dict[str, str]]:
    """Return the trainer of a run, with its random numbers at their start, and the facts about it."""
    seeds = Seeds.of(config.seed)
    subset = torch.randperm(len(data.train), generator=_generator(seeds.subset))[: config.train_images]
    train, valid = data.train.take(subset).to(device), data.valid.to(device)
    sample = Split(train.x[:TRAIN_EVAL_IMAGES], train.y[:TRAIN_EVAL_IMAGES])
    train_batches = Batches(train, config.batch_size, _generator(seeds.order))
    valid_batches = Batches(valid, EVAL_BATCH)
    torch.manual_seed(seeds.init)
    model = build(config).to(memory_format=torch.channels_last)  # 1.7 times faster convolutions on CPUs
    scheduler, scheduler_kwargs = schedule_of(config, num_steps=config.epochs * len(train_batches))
    settings = TrainerSettings(
        epochs=config.epochs,
        metrics=list(metrics),
        logdir=folder,
        train_steps=len(train_batches),
        valid_steps=len(valid_batches),
        reporttypes=[],
        optimizer_kwargs=optimizer_arguments(config),
        scheduler_kwargs=scheduler_kwargs,
        earlystop_kwargs=early_stopping(config),
    )
    trainer = LabTrainer(
        model=model,
        settings=settings,
        loss_fn=nn.CrossEntropyLoss(label_smoothing=config.label_smoothing),
        optimizer=OPTIMIZERS[config.optimizer],
        traindataloader=train_batches,
        validdataloader=valid_batches,
        scheduler=scheduler,
        device=device,
        train_sample=Batches(sample, EVAL_BATCH),
        eval_loss_fn=nn.CrossEntropyLoss(),  # without label smoothing: the same measure for every arm
        schedule_every="batch",
        precision=resolve_precision(config.precision, device),
        keep=config.keep,
        probe_images=normalise(sample.x[:PROBE_IMAGES]) if probes else None,
        bar=bar,
    )
    torch.manual_seed(seeds.dropout)
    return trainer, facts_as_built(trainer, train_batches, valid_batches, data.sha256())


def optimizer_arguments(config: Config) -> dict[str, Any]:
    """Return what the optimizer is made with, besides the weights."""
    momentum = {"momentum": config.momentum} if config.optimizer == "sgd" else {}
    return {"lr": config.lr, "weight_decay": config.weight_decay, "fused": True} | momentum


def early_stopping(config: Config) -> dict[str, int] | None:
    """Return the arguments of mltrainer's early stopping, None where there is none."""
    return {"patience": config.patience} if config.patience else None


def schedule_of(config: Config, num_steps: int) -> tuple[type[LRScheduler] | None, dict[str, Any] | None]:
    """Return the schedule's class and arguments; it moves with every batch and ends near zero."""
    if config.schedule == "one_cycle":
        cycles_momentum = config.optimizer != "sgd" or config.momentum > 0
        return OneCycleLR, {"max_lr": config.lr, "total_steps": num_steps, "cycle_momentum": cycles_momentum}
    if config.schedule == "cosine":
        return CosineAnnealingLR, {"T_max": num_steps}
    return None, None


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
