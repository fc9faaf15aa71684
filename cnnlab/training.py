"""Training one network: `fit(config, data)`, on mltrainer's `Trainer`. An epoch is a pass over all training images."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory
from typing import Any

import mltrainer
import numpy as np
import torch
from loguru import logger
from mltrainer.trainer import Reporter
from torch import Generator, Tensor, nn
from torch.optim import SGD, Adam, AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR
from torch.optim.swa_utils import AveragedModel, update_bn

from cnnlab.config import Config
from cnnlab.data import Batches, Data
from cnnlab.device import keep_freed_memory, resolve_device, resolve_precision
from cnnlab.facts import facts_as_built, facts_at_the_end
from cnnlab.inquiry.checked import checked
from cnnlab.inquiry.errors import stopping
from cnnlab.models import Build, build_model
from cnnlab.probes import PROBE_IMAGES, read_grad_norms, read_probes
from cnnlab.scores import Score, scores
from cnnlab.watcher import ProgressBar, Watcher

TRAIN_EVAL_IMAGES = 2_500  # of the run's own training images, scored in eval mode after every epoch
EVAL_BATCH = 100  # the maps of more images don't fit into the cache of a CPU: 500 take twice as long
READ_EVERY = 10  # steps; reading a loss makes the program wait for the GPU
DIVERGED_LOSS = 100.0  # guessing among ten classes has ln 10 = 2.3: what is far beyond does not come back
PROBED_EPOCHS = (1, 4, 16, 64, 256)  # and the last
AVERAGED = 0.25  # the share of the steps, the last ones, over which keep="average" takes the mean of the weights

OPTIMIZERS = {"adamw": AdamW, "adam": Adam, "sgd": SGD}
SCHEDULES = {"constant": None, "one_cycle": OneCycleLR, "cosine": CosineAnnealingLR}  # they move with every batch

logger.disable("mltrainer")  # a log line per epoch; the reporters and the bar say it better


class Diverged(Exception):
    """The training loss left the range of numbers from which training can recover."""


def streams(seed: int) -> dict[str, int]:
    """Return a seed for each thing that is random, so that changing one leaves the others as they were."""
    states = np.random.SeedSequence(seed).generate_state(4).tolist()
    return dict(zip(("init", "order", "subset", "dropout"), states, strict=True))


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


@checked
@stopping()
def fit(
    config: Config,
    data: Data,
    reporters: Sequence[Reporter] = (),
    metrics: Sequence[Callable[..., float]] = (),
    device: str = "auto",
    progress: bool | str = True,
    probes: bool = True,
    build: Build | None = None,
) -> Result:
    """Train the network of `config` on `data` and return it with all that was measured.

    `reporters` are called after every epoch (mltrainer's `Reporter`), a `Watcher` more often; `metrics` are mltrainer's
    over the whole validation set; `progress` shows a bar (a text is its title); `probes` look inside the
    network, which changes nothing in the training; `build(config)` makes another network, from normalised images
    (B, C, H, W) to logits (B, K). The caller's random numbers stay as they were.

    Raises:
        LabError: `device` isn't there, or the images are too few or too small for `config`.
    """
    config.check_images(data.shape, len(data.train))
    device = resolve_device(device)
    keep_freed_memory()
    bar = [ProgressBar(progress if isinstance(progress, str) else "")] if progress else []
    with torch.random.fork_rng(range(torch.cuda.device_count() if device.startswith("cuda") else 0)):
        trainer = LabTrainer(config, data, device, metrics, probes, build)
        trainer.reporters = [*bar, *reporters]
        facts = facts_as_built(trainer, data)
        trainer.tell("start", config, facts)
        started = time.perf_counter()
        try:
            trainer.loop()
            final = {"time/total_s": time.perf_counter() - started} | trainer.final()
        finally:
            trainer.tell("end", trainer.outcome)
    facts |= facts_at_the_end(trainer)
    return Result(config, trainer.model, trainer.epochs, final, trainer.outcome, trainer.both_scores()[1], facts)


class LabTrainer(mltrainer.Trainer):
    """mltrainer's `Trainer`, made exact.

    In every epoch all validation images are scored, each with the same weight, and a sample of the training images in
    eval mode too: in train mode dropout is on and the weights move. The learning rate moves with every batch. At the
    end the model has the weights that count: the last, those of the best epoch, or an average of the last ones.
    """

    def __init__(
        self, config: Config, data: Data, device: str, metrics: Sequence[Any], probes: bool, build: Build | None
    ) -> None:
        seeds, normalise = streams(config.seed), data.normaliser(device)
        index = torch.randperm(len(data.train), generator=Generator().manual_seed(seeds["subset"]))[
            : config.train_images
        ]
        train = data.train.take(index)
        batches = Batches(train, config.batch_size, normalise, Generator().manual_seed(seeds["order"]), device)
        valid = Batches(data.valid, EVAL_BATCH, normalise, device=device)
        self.sample = Batches(train.take(slice(TRAIN_EVAL_IMAGES)), EVAL_BATCH, normalise, device=device)
        self.probe_images = normalise(self.sample.x[:PROBE_IMAGES]) if probes else None
        torch.manual_seed(seeds["init"])
        model = build(config) if build else build_model(config, data.shape[0], len(data.classes))
        with TemporaryDirectory(prefix="cnnlab-") as folder:  # mltrainer wants one, and nothing is written there
            settings = {"epochs": config.epochs, "metrics": list(metrics), "logdir": folder, "reporttypes": []}
            settings |= {"train_steps": len(batches), "valid_steps": len(valid)}
            super().__init__(
                model.to(memory_format=torch.channels_last),  # 1.7 times faster convolutions on CPUs
                mltrainer.TrainerSettings(**settings, **method(config, config.epochs * len(batches))),
                nn.CrossEntropyLoss(label_smoothing=config.label_smoothing),
                OPTIMIZERS[config.optimizer],
                batches,
                valid,
                SCHEDULES[config.schedule],
                device,
            )
        self.precision, self.keep = resolve_precision(config.precision, device), config.keep
        self.outcome, self.epochs = "interrupted", list[dict[str, float]]()
        self.average = AveragedModel(self.model) if config.keep == "average" else None  # Izmailov et al. 2018
        self.num_steps = self.images_seen = self.best_step = 0
        self.lowest_loss, self.kept_weights = math.inf, dict[str, Tensor]()
        self.logits_dtype: torch.dtype | None = None
        self._scores: tuple[Score, Score] | None = None  # of train sample and validation set, at the weights of now
        torch.manual_seed(seeds["dropout"])

    def loop(self) -> None:
        """Train for `settings.epochs` epochs, reporting after each, and leave the kept weights in the model."""
        try:
            for epoch in range(1, self.settings.epochs + 1):
                started, seen = time.perf_counter(), self.images_seen
                train_loss = self.trainbatches()
                trained_s = time.perf_counter() - started
                metrics, valid_loss = self.evalbatches()
                if self.probe_images is not None and epoch in (*PROBED_EPOCHS, self.settings.epochs):
                    metrics |= read_probes(self.model, self.probe_images) | read_grad_norms(self.model)
                metrics["time/epoch_s"] = time.perf_counter() - started
                metrics["time/images_per_s"] = (self.images_seen - seen) / trained_s
                self.epochs.append({"loss/train": train_loss, **metrics})
                self.report(epoch, train_loss, valid_loss, metrics)
                if self.keep == "best" and valid_loss < self.lowest_loss:
                    self.lowest_loss, self.best_step = valid_loss, self.num_steps
                    self.kept_weights = {n: value.detach().clone() for n, value in self.model.state_dict().items()}
                if self.early_stopping:
                    self.early_stopping(valid_loss, self.model)
                    if self.early_stopping.early_stop:
                        break
            self.outcome = "finished" if epoch == self.settings.epochs else f"stopped early after epoch {epoch}"
        except Diverged as diverged:
            self.outcome = str(diverged)
        if self.average and self.outcome == "finished":
            update_bn(self.traindataloader, self.average.module)  # the statistics of BatchNorm belong to its weights
            self.kept_weights = self.average.module.state_dict()
        if self.kept_weights:
            self.model.load_state_dict(self.kept_weights)
            self._scores = None

    def trainbatches(self) -> float:
        """Train one epoch; return the mean loss per image, in train mode, with the weights of the moment."""
        self.model.train()
        self._scores, before, total = None, self.images_seen, 0.0
        unread: list[tuple[Tensor, int]] = []  # losses still on the device, with the size of their batch
        for x, y in self.traindataloader:
            self.optimizer.zero_grad()
            with torch.autocast(str(self.device).split(":")[0], torch.bfloat16, self.precision == "bf16"):
                logits = self.model(x)
                loss = self.loss_fn(logits, y)
            loss.backward()
            self.optimizer.step()
            self.lr = self.optimizer.param_groups[0]["lr"]
            if self.scheduler:
                self.scheduler.step()
            self.num_steps += 1
            if self.average and self.num_steps > (1 - AVERAGED) * self.settings.epochs * self.settings.train_steps:
                self.average.update_parameters(self.model)
            self.images_seen += len(y)
            self.logits_dtype = logits.dtype
            unread.append((loss.detach(), len(y)))
            if len(unread) == READ_EVERY or self.num_steps % self.settings.train_steps == 0:
                total += self._read(unread)
                mean = total / (self.images_seen - before)
                self.tell("progress", sum(size for _, size in unread), f"loss {mean:.3f}")
                unread.clear()
        return mean

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
        extra = {f"{metric}/valid": float(metric(valid.y, valid.logits)) for metric in self.settings.metrics}
        return scores(train, valid) | extra | {"lr": self.lr}, valid.loss

    def both_scores(self) -> tuple[Score, Score]:
        """Return the scores of the training sample and of the validation set, measured once for the same weights."""
        if self._scores is None:
            self._scores = self.score(self.sample), self.score(self.validdataloader)
            self.tell("progress", 0, str(self._scores[1]))
        return self._scores

    def score(self, batches: Batches) -> Score:
        """Return what the network says of these images, in eval mode and in float32, as the saved model computes."""
        self.model.eval()
        with torch.inference_mode():
            logits = torch.cat([self.model(x) for x, _ in batches])
        loss = nn.functional.cross_entropy(logits, batches.y)  # no label smoothing: the same for every arm
        return Score(logits.cpu(), batches.split.y, float(loss))

    def final(self) -> dict[str, float]:
        """Return the metrics at the kept weights; those of train mode are from the epoch that led to them."""
        final = scores(*self.both_scores())
        if self.probe_images is not None:  # what is one layer's alone is no result of the run
            final |= {n: v for n, v in read_probes(self.model, self.probe_images).items() if "/" not in n}
        if self.epochs:
            kept = self.epochs[self.best_step // self.settings.train_steps - 1]  # without a best one: the last
            final["time/epoch_s"] = sum(epoch["time/epoch_s"] for epoch in self.epochs) / len(self.epochs)
            final |= {"loss/train": kept["loss/train"], "gap/train_mode": kept["loss/valid"] - kept["loss/train"]}
        return final

    def tell(self, what: str, *content: Any) -> None:
        """Let every reporter that is a watcher hear something, by the name of its method."""
        for watcher in self.reporters:
            if isinstance(watcher, Watcher):
                getattr(watcher, what)(*content)


def method(config: Config, steps: int) -> dict[str, Any]:
    """Return how a config is trained in this many steps, as mltrainer's settings say it."""
    has_momentum = config.optimizer != "sgd" or config.momentum > 0
    one_cycle = {"max_lr": config.lr, "total_steps": steps, "cycle_momentum": has_momentum}
    momentum = {"momentum": config.momentum} if config.optimizer == "sgd" else {}
    return {
        "optimizer_kwargs": {"lr": config.lr, "weight_decay": config.weight_decay, "fused": True} | momentum,
        "scheduler_kwargs": {"constant": None, "one_cycle": one_cycle, "cosine": {"T_max": steps}}[config.schedule],
        "earlystop_kwargs": {"patience": config.patience} if config.patience else None,
    }
