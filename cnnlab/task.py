"""What the engine has to know about networks on images: the only file that knows both."""

import itertools
import math
import re
from collections.abc import Iterable, Mapping
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from cnnlab.config import BASE, Config
from cnnlab.inquiry.design import count
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.metrics import Metric
from cnnlab.inquiry.params import replace
from cnnlab.inquiry.task import FactRules, Facts, History, Kept, Task, Watcher
from cnnlab.source import RELEASED, SOURCE_SHA256

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from cnnlab.data import Data, Split
    from cnnlab.inquiry.record.runs import RawRun
    from cnnlab.inquiry.study import Study
    from cnnlab.training import Result

# The fingerprints (`Data.sha256`, `Split.sha256`) of Fashion-MNIST and of its validation images.
DATA_SHA256 = "2de91daca611e502e2e2846bbdaad04f227808991e53cbbba0c126c2fef64c6d"
VALID_SHA256 = "325b07c633ba2f7c5be4db4c7e057f28185d7ccff4095330343bb5c8b8d60e5b"
IMAGES = {"image_shape": "1 x 28 x 28", "num_classes": "10"}  # facts that runs didn't have when all were on such images
MOST_CHANNELS = 4  # of an image whose first convolution may have as many
DEAD = 0.1  # share of the channels of a layer from which a verdict mentions it
SHIPPED = Path(__file__).parent / "course" / "shipped.txt"  # the seals of what comes with the lab, one per line

TRAIN_MODE = (
    "This gap doesn't show overfitting: dropout and label smoothing raise the training loss in train mode, and "
    "validation has neither; gap/loss compares both in eval mode."
)
PRECISIONS = {"float32": "float32", "bf16": "bfloat16"}
METRICS = (
    Metric("accuracy/valid", "validation accuracy", "pp", 100, 0.3, "higher", 2),
    Metric("loss/valid", "validation loss", "nats", 1, 0.01, "lower", 3),
    Metric("gap/loss", "gap (validation - training loss in eval mode)", "nats", 1, 0.01, "lower", 3),
    Metric("gap/accuracy", "gap (training - validation accuracy in eval mode)", "pp", 100, 0.3, "lower", 2),
    Metric("gap/train_mode", "gap (validation - training loss in train mode)", "nats", 1, 0.01, "", 3, TRAIN_MODE),
    Metric("loss/train_eval", "training loss in eval mode", "nats", 1, 0.01, "lower", 3),
    Metric("accuracy/train_eval", "training accuracy in eval mode", "pp", 100, 0.3, "higher", 2),
    Metric("variance_ratio", "variance in eval mode / running variance of BatchNorm", "", 1, 0.05, "", 2),
)


class Lab(Task):
    """Networks on images; see `cnnlab.inquiry.task.Task`."""

    config_type = Config
    unit = "images"
    modules = ("cnnlab.one_run", "cnnlab.fashion_mnist", "torch._dynamo")  # the first optimiser imports that last one
    metrics = METRICS
    scales = ("accuracy/valid", "loss/valid")
    by_image: Mapping[str, str] = {"accuracy/valid": "valid_correct.npy", "loss/valid": "valid_loss.npy"}
    bounds: Mapping[str, float] = {"accuracy/valid": 0.01, "loss/valid": 0.02}  # a fraction, and nats
    compared = ("accuracy/valid", "loss/valid", "accuracy/train_eval", "loss/train_eval", "loss/train")
    details = (
        *("activation_mean/", "activation_sd/", "dead_share/", "grad_norm/"),
        *("variance_ratio/", "variance_ratio_low/", "variance_ratio_high/", "live_channels/"),
    )
    charts: Mapping[str, tuple[str, ...]] = {
        "Validation": ("loss/valid", "accuracy/valid"),
        "Training, and the gap to validation": ("loss/train", "loss/train_eval", "gap/loss"),
    }
    budget = ("train_images", "epochs", "patience", "keep", "precision")
    negligible: Mapping[str, Any] = {"precision": "auto"}
    facts = FactRules(
        needed=(
            *("module_tree", "num_parameters", "steps", "images_seen"),
            *("valid_sha256", "optimizer", "schedule", "precision"),
        ),
        decisive=("device", "precision", "version.torch", "source_sha256"),
        data=("num_valid", "valid_sha256", "data_sha256"),
        drawn={"train_sha256": ("seed", "train_images")},
        printed=("module_tree", "loss", "optimizer", "schedule"),
        printed_by="torch",
        at_the_end=("steps", "images_seen", "kept"),
    )
    own_data = DATA_SHA256
    data_name = "Fashion-MNIST"
    other_data = "other images than Fashion-MNIST's own"

    @cached_property
    def shipped(self) -> frozenset[str]:
        """The seals of the predictions and runs that come with the lab."""
        return frozenset(SHIPPED.read_text(encoding="utf-8").split())

    @property
    def released(self) -> tuple[str, ...]:
        """The fingerprints of the code that trains, as released, the latest first; all train the same numbers."""
        return tuple(RELEASED.read_text(encoding="utf-8").split())

    # A config

    def canonical(self, config: Config) -> Config:
        """Return the same run, written in one way: fields that have no effect on it have their defaults.

        Two configs that are equal in this form give the same weights and the same results, to the last bit.
        """
        if config.norm == "group" and config.norm_groups == 1:  # this is how layer normalisation is built
            return self.canonical(replace(config, norm="layer"))
        if config.optimizer == "adam" and not config.weight_decay:  # in which alone it differs from AdamW
            return self.canonical(replace(config, optimizer="adamw"))
        widths = [channels for convs, channels in config.blocks for _ in range(convs)]
        idle = {
            "norm_groups": config.norm != "group",
            # an image has few channels, perhaps as many as the first convolution; `check` sees to it
            "residual": widths[0] > MOST_CHANNELS and not any(a == b for a, b in itertools.pairwise(widths)),
            "conv_dropout_kind": not config.conv_dropout,
            # one_cycle moves the momentum itself, between limits of its own
            "momentum": config.optimizer != "sgd" or (config.schedule == "one_cycle" and config.momentum > 0),
            "keep": config.epochs == 1 and config.keep == "best",
            "patience": config.patience is not None and config.patience >= config.epochs - 1,
        }
        return _places(Config(**{name: value for name, value in config if not idle.get(name)}))

    def example_words(self) -> set[str]:
        """Return the sentences of the predictions that come with the lab."""
        from cnnlab.course.examples import EXAMPLES

        return {one[name] for some in EXAMPLES.values() for one in some for name in ("because", "if_refuted")}

    def check(self, config: Config, data: "Data | None") -> None:
        """Make sure that a config can be trained on some images (None: Fashion-MNIST)."""
        if data is None:
            config.check_images((1, 28, 28), BASE.train_images)
            return
        from cnnlab.data import Data

        if not isinstance(data, Data):
            raise LabError(f"data is of the kind {type(data).__name__}, and should be a Data.")
        config.check_images(data.shape, len(data.train))
        if config.residual and data.shape[0] == config.blocks[0][1] > MOST_CHANNELS:
            raise LabError(
                f"residual=True is not possible with images of {data.shape[0]} channels: change blocks a bit."
            )

    def amount(self, config: Config) -> int:
        """Return the number of training images of a run, over all epochs."""
        return config.epochs * config.train_images

    def size(self, config: Config) -> str:
        """Return how much a run trains, in words."""
        return f"{count(config.epochs, 'epoch')} of {config.train_images:,} images"

    # Data

    def load(self) -> "Data":
        """Return Fashion-MNIST."""
        from cnnlab.fashion_mnist import load_data

        return load_data()

    def fingerprint(self, facts: Facts) -> str:
        """Return the fingerprint of a run's images; "" where it isn't known.

        Older runs have that of the validation images alone: where it is Fashion-MNIST's, so are the training images.
        """
        older = DATA_SHA256 if facts.get("valid_sha256") == VALID_SHA256 else ""
        return facts.get("data_sha256", older)

    def about(self, data: "Data | None") -> Facts:
        """Return the facts about some images (None: Fashion-MNIST) to which a network has to fit."""
        if data is None:
            return IMAGES
        from cnnlab.facts import facts_of_images

        return facts_of_images(data)

    def test_images(self) -> "Split":
        """Return the official 10,000 test images of Fashion-MNIST, which are locked away: the record comes first."""
        from cnnlab.fashion_mnist import _load_test

        return _load_test()

    # A run

    def environment(self) -> dict[str, str]:
        """Return the versions, the processor and the code that results may depend on."""
        import torch

        known = torch.cpu.get_capabilities()  # which instructions a library uses decides how sums are rounded
        instructions = ", ".join(sorted(name for name in known if known[name] is True))
        facts = {f"version.{name}": version(name) for name in ("torch", "torchvision", "mltrainer")}
        return facts | {
            "processor": f"{known.get('cpu_name', 'unknown')}: {instructions}",
            "source_sha256": SOURCE_SHA256,
        }

    def describe(self, config: Config, facts: Facts) -> dict[str, str]:
        """Return the facts that `fit` measures of a run of this config that trains to its end.

        What follows from more than the config and the shape of the images is left out: device, and the precision
        where it is "auto".
        """
        about = {**IMAGES, **facts}
        read = re.fullmatch(r"(\d{1,3}) x \d+ x \d+, (\d{1,3})", f"{about['image_shape']}, {about['num_classes']}")
        if read is None:  # somebody changed them: they are what is not as promised
            return described(config, 1, 10) | dict.fromkeys(IMAGES, "something that can be read")
        return described(config, int(read[1]), int(read[2]))

    def runs_on_cpu(self, device: str) -> bool:
        """Return whether runs are trained on the CPU."""
        from cnnlab.device import resolve_device

        return resolve_device(device) == "cpu"

    def seconds(self, configs: Iterable[Config], data: "Data | None", at_a_time: int) -> dict[Config, float]:
        """Return about how long a run of each config takes here, if `at_a_time` are trained at once."""
        from cnnlab.timing import estimate_seconds

        return estimate_seconds(configs, data, at_a_time)

    def train(self, config: Config, data: "Data", watcher: Watcher, device: str, threads: int) -> "Result":
        """Train one network."""
        from cnnlab.one_run import train

        return train(config, data, watcher, device, threads)

    def failed(self, outcome: str) -> bool:
        """Return whether a run diverged: its weights are no trained network."""
        return outcome.startswith("diverged")

    def derived(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Return the share of dead channels in the worst layer, which older runs have for each layer only."""
        shares = [value for name, value in metrics.items() if name.startswith("dead_share/")]
        return {"dead_share": max(shares)} if shares else {}

    def cautions(self, runs: "pd.DataFrame") -> list[str]:
        """Return in which arms a good part of a layer is dead."""
        if "dead_share" not in runs:
            return []
        from cnnlab.probes import PROBE_IMAGES

        shares = runs.groupby("arm", sort=False)["dead_share"].agg(["mean", "count"])
        return [
            f"{100 * row['mean']:.0f} % of the channels in the worst layer of {arm} are dead (zero for all "
            f"{PROBE_IMAGES} probe images; mean of {count(int(row['count']), 'run')})."
            for arm, row in shares.iterrows()
            if row["mean"] >= DEAD
        ]

    # What it leaves

    def keep(self, result: "Result", data: "Data", folder: Path) -> None:
        """Write weights, answers to the validation images, their losses and figures into a folder."""
        from cnnlab.one_run import keep

        keep(result, data, folder)

    def export(self, config: Config, facts: Facts, kept: Kept, folder: Path) -> bool:
        """Write the network of a run in MLflow's format into a folder."""
        from cnnlab.one_run import export

        export(config, {**IMAGES, **facts}, kept, folder)
        return True

    def leaves(self, ships: bool) -> tuple[str, ...]:
        """Return the names of the files by which a run can be checked; what ships has no weights."""
        return ("valid_correct.npy",) if ships else ("valid_correct.npy", "weights.safetensors")

    def check_result(self, config: Config, run: "RawRun", history: History, kept: Kept) -> Iterable[str]:
        """Yield what doesn't agree in what a run left behind."""
        from cnnlab.evidence import check_result

        return check_result(config, run, history, kept)

    def evaluate(
        self, configs: Iterable[Config], kept: Iterable[Kept], data: "Data | None", images: "Split"
    ) -> "np.ndarray":
        """Return whether the networks of some runs classify each image correctly: bool (runs, images)."""
        from cnnlab.one_run import evaluate

        return evaluate(configs, kept, data or self.load(), images)

    def reference(self, study: str) -> "Study | None":
        """Return the study of the reference runs that one of this name is a version of."""
        from cnnlab.course.reference import reference_study

        return reference_study(study)


LAB = Lab()


def _places(config: Config) -> Config:
    """Return a config with those places of pooling and dropout, the first there are, that give the same network.

    ReLU doesn't count: it keeps the order of values, and zero, so it may come before or after dropout and max pooling.
    A normalisation that isn't there doesn't count either, unless a residual sum is in its place.
    """
    idle = {"activation": config.activation == "relu", "norm": config.norm == "none" and not config.residual}

    def order(places: dict[str, str]) -> list[str]:
        return [name for name in config.model_copy(update=places).layer_order() if not idle.get(name)]

    names = ("pool", "conv_dropout_place")
    every = [dict(zip(names, pair, strict=True)) for pair in itertools.product(*map(_values_of, names))]
    own = order({name: getattr(config, name) for name in names})
    return replace(config, **next(places for places in every if order(places) == own))


def _values_of(name: str) -> list[str]:
    """Return the values that a field may have, its default first."""
    field = Config.model_fields[name]
    return sorted(get_args(field.annotation), key=lambda value: value != field.default)


@cache
def described(config: Config, channels: int, num_classes: int) -> dict[str, str]:
    """Return the facts of a run of a config on images with these channels and classes; see `Lab.describe`."""
    from torch import nn

    from cnnlab.facts import method_facts, written
    from cnnlab.models import build_model
    from cnnlab.training import OPTIMIZERS, SCHEDULES, method

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
