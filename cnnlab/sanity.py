"""Checks before the first experiment: what every network should do, whatever the question.

They follow Karpathy's "A Recipe for Training Neural Networks" (2019, karpathy.github.io/2019/04/25/recipe).
"""

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import pandas as pd
import torch
from mltrainer.trainer import Reporter
from scipy import stats
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from cnnlab.config import Config, replace
from cnnlab.data import Data, Split
from cnnlab.inquiry.checked import checked
from cnnlab.inquiry.errors import stopping
from cnnlab.inquiry.shown import Part, Shown
from cnnlab.models import Build, build_model
from cnnlab.training import fit, streams

DEVICE = "cpu"  # the same numbers on every machine
STARTS = 5  # initialisations over which the initial loss is averaged
LOSS_IMAGES = 500  # on which it is measured
LEARNED_IMAGES = 64  # to be memorised
LEARN_STEPS = 300  # without dropout: BASE needs about 50, with a normalisation 20 to 60
RANDOM_TRAIN, RANDOM_VALID = 1024, 1000  # images with random labels
RANDOM_STEPS = 64  # on them, of 32 images
CHANCE_SHARE = 0.999  # of guessing networks that pass


class Finding(NamedTuple):
    """What one check measured, and whether it passed."""

    measured: str
    passed: bool


class Check(NamedTuple):
    """One thing that is true of every network that is built and fed correctly."""

    expected: str
    otherwise: str  # what a failure usually means
    measure: Callable[[Config, Data, Build], Finding]


@dataclasses.dataclass(frozen=True, repr=False)
class SanityReport(Shown):
    """What the checks found. Printed or shown in a notebook it is a table with a sentence.

    checks: one row each, with what was expected, what was measured, whether it passed, and what a failure usually
        means (empty where it passed).
    seconds: how long all of them took.
    """

    checks: pd.DataFrame
    seconds: float

    def parts(self) -> list[Part]:
        """Return what there is to show."""
        shown = self.checks[["expected", "measured"]].assign(
            passed=self.checks["passed"].map({True: "yes", False: "NO"})
        )
        usual = self.checks["otherwise"][~self.checks["passed"]]
        return [shown, [f"{name} failed; usually: {otherwise}" for name, otherwise in usual.items()], self.sentence]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return bool(self.checks["passed"].all())

    @property
    def sentence(self) -> str:
        """How many passed, and what to do."""
        count, bad = len(self.checks), list(self.checks.index[~self.checks["passed"]])
        if not bad:
            return f"All {count} checks passed, in {self.seconds:.0f} s."
        return f"{len(bad)} of {count} checks failed ({', '.join(bad)}): fix that before you train anything."


@checked
@stopping()
def sanity_checks(config: Config, data: Data, build: Build | None = None) -> SanityReport:
    """Check a network, that of `config` or one that `build(config)` returns, and `data`; return what was found.

    5 to 10 seconds on one thread of a CPU; longer with much dropout, and for a network that can't learn. A check that
    raises has failed. The caller's random numbers are left untouched.

    Shapes: `build` returns a network from images (B, C, H, W), normalised, to logits (B, K).
    """
    config.check_images(data.shape, max(len(data.train), config.train_images))
    started, rows, classes = time.perf_counter(), [], len(data.classes)
    chosen = build or (lambda config: build_model(config, data.shape[0], classes))
    numbers = {"classes": classes, "loss": math.log(classes), "chance": 100 / classes}
    for name, check in CHECKS.items():
        with torch.random.fork_rng(devices=[]):
            finding = _find(check, config, data, chosen)
        otherwise = "" if finding.passed else check.otherwise.format(**numbers)
        rows.append((name, check.expected.format(**numbers), finding.measured, finding.passed, otherwise))
    table = pd.DataFrame(rows, columns=["check", "expected", "measured", "passed", "otherwise"]).set_index("check")
    return SanityReport(table, time.perf_counter() - started)


def _find(check: Check, config: Config, data: Data, build: Build) -> Finding:
    try:
        return check.measure(config, data, build)
    except Exception as error:  # a network of your own may raise anything
        first = (str(error).splitlines() or [""])[0]
        return Finding(f"{type(error).__name__}: {first}", False)


def _shapes(config: Config, data: Data, build: Build) -> Finding:
    model, images = _start(config, build).eval(), data.normaliser()(_some(data.valid, 7).x)
    with torch.no_grad():
        shapes = {size: tuple(model(images[:size]).shape) for size in (1, 2, 7)}
    right = all(shape == (size, len(data.classes)) for size, shape in shapes.items())
    return Finding(", ".join(map(str, shapes.values())), right)


def _initial_loss(config: Config, data: Data, build: Build) -> Finding:
    """Find the mean loss of several untrained networks, in eval mode on validation images.

    A network for which all K classes are equally likely has ln K; one whose logits have variance v has about
    ln K + v / 2.
    """
    some, guessing = _some(data.valid, min(LOSS_IMAGES, len(data.valid))), math.log(len(data.classes))
    images = data.normaliser()(some.x)
    losses = []
    for i in range(STARTS):
        model = _start(replace(config, seed=_other_seed(config.seed, i)), build).eval()
        with torch.no_grad():
            losses.append(float(cross_entropy(model(images), some.y)))
    mean, low, high = sum(losses) / STARTS, guessing - 0.1, guessing + _loss_excess(config)
    return Finding(f"{mean:.3f} nats, mean of {STARTS} starts ({low:.2f} to {high:.2f} passes)", low <= mean <= high)


def _loss_excess(config: Config) -> float:
    """Return how many nats the initial loss may lie above that of guessing.

    Where every image is normalised by itself, its pooled maps have a mean square of up to 1.5 before the linear
    layer. PyTorch's initialisation turns that into logits with a third of it as variance: 0.1 to 0.25 nats.
    (Batch normalisation uses its running statistics in eval mode, which change nothing before training.)
    """
    return 0.1 if config.norm in ("none", "batch") else 0.4


def _one_batch(config: Config, data: Data, build: Build) -> Finding:
    """Count the steps on the same few images until all are right in eval mode, with dropout as configured.

    The more is dropped, the more steps are allowed.
    """
    steps = round(LEARN_STEPS / ((1 - config.dropout) * (1 - config.conv_dropout)))
    images = min(LEARNED_IMAGES, len(data.train))
    size = {"train_images": images, "batch_size": images, "epochs": steps}
    config = _plainly_trained(config, lr=5e-3, schedule="constant", **size)
    few = replace(data, valid=_some(data.valid, 10))  # scored after every step, but not used here
    try:
        result = fit(config, few, [_StopOnceLearned()], device=DEVICE, progress=False, probes=False, build=build)
    except _Learned as learned:
        return Finding(f"100 % of {images} after {learned} steps", True)
    accuracy = result.final["accuracy/train_eval"]
    return Finding(f"{100 * accuracy:.0f} % of {images} after {result.facts['steps']} steps", False)


class _Learned(Exception):
    """All images are classified correctly; the text is the number of steps."""


class _StopOnceLearned(Reporter):
    def report(self, epoch: int, train_loss: float, test_loss: float, metric_dict: dict[str, float]) -> None:
        if metric_dict["accuracy/train_eval"] == 1.0:
            raise _Learned(epoch)  # an epoch is one step here


def _random_labels(config: Config, data: Data, build: Build) -> Finding:
    """Find the validation accuracy after training on random labels (Zhang et al. 2017, arXiv 1611.03530).

    The validation labels are random too. Then the number of right answers is binomial, whatever the network answers;
    with the true labels, a class whose images look alike would be right or wrong as a whole.
    """
    generator = torch.Generator().manual_seed(config.seed)
    classes = len(data.classes)
    train, valid = (
        replace(split, y=torch.randint(classes, (len(split),), generator=generator))
        for split in (data.train, data.valid)
    )
    valid = valid.take(torch.arange(min(RANDOM_VALID, len(valid))))
    images = min(RANDOM_TRAIN, len(train))
    batch = min(32, images)
    size = {"train_images": images, "batch_size": batch, "epochs": math.ceil(RANDOM_STEPS * batch / images)}
    # a leak is in the data or the pipeline; dropout would only hide it longer
    config = _plainly_trained(config, lr=6e-3, dropout=0.0, conv_dropout=0.0, **size)
    noise = replace(data, train=train, valid=valid)
    result = fit(config, noise, device=DEVICE, progress=False, probes=False, build=build)
    n = len(valid)
    low, high = stats.binom.interval(CHANCE_SHARE, n, 1 / classes)
    text = f"{100 * result.valid.accuracy:.1f} % (chance: {100 * low / n:.1f} to {100 * high / n:.1f} % for n = {n:,})"
    return Finding(text, bool(low <= int(result.valid.correct.sum()) <= high))


def _batch_statistics(config: Config, data: Data, build: Build) -> Finding:
    """Measure how much the logits of one image change when the other images of its batch become negatives."""
    model, images = _start(config, build).eval(), data.normaliser()(_some(data.valid, 8).x)
    eval_change, tolerance = _change_by_others(model, images)
    norms = [layer for layer in model.modules() if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d))]
    if not norms:
        return Finding(f"eval mode: {eval_change:.1g}; no BatchNorm", eval_change <= tolerance)
    for layer in norms:
        layer.train()  # only the norms: dropout would change the logits too
    train_change, _ = _change_by_others(model, images)
    text = f"eval mode: {eval_change:.1g}; train mode: {train_change:.1g}, by BatchNorm"
    return Finding(text, eval_change <= tolerance < train_change)


def _change_by_others(model: nn.Module, images: Tensor) -> tuple[float, float]:
    """Return the largest change of the first image's logits, and how much of it rounding may explain."""
    with torch.no_grad():
        before = model(images)[0]
        after = model(torch.cat([images[:1], -images[1:]]))[0]
    return float((after - before).abs().max()), 1e-4 * (1 + float(before.abs().max()))


def _same_seed(config: Config, data: Data, build: Build) -> Finding:
    other = replace(config, seed=_other_seed(config.seed, 1))
    (first, a), (again, b), (others, c) = (_first_loss(one, data, build) for one in (config, config, other))
    same = a == b and all(map(torch.equal, first, again))
    differs = not all(map(torch.equal, first, others))
    text = f"{a:.4f}, {b:.4f}, {'same' if same else 'OTHER'} weights; "
    text += f"seed {other.seed}: {c:.4f}, {'other' if differs else 'SAME'} weights"
    return Finding(text, same and differs)


def _first_loss(config: Config, data: Data, build: Build) -> tuple[list[Tensor], float]:
    """Return the weights before training, and the loss of the first batch in train mode."""
    model, batch = _start(config, build).train(), _some(data.train, LEARNED_IMAGES)
    weights = [value.detach().clone() for value in model.state_dict().values()]
    torch.manual_seed(streams(config.seed)["dropout"])
    with torch.no_grad():
        return weights, float(cross_entropy(model(data.normaliser()(batch.x)), batch.y))


def _start(config: Config, build: Build) -> nn.Module:
    """Return the network that `fit` starts from."""
    torch.manual_seed(streams(config.seed)["init"])
    return build(config).to(memory_format=torch.channels_last)


def _plainly_trained(config: Config, **changes: Any) -> Config:
    """Return a config with some changes, and with a training that works for most networks."""
    return replace(config, optimizer="adamw", weight_decay=0.0, keep="last", patience=None, **changes)


def _other_seed(seed: int, i: int) -> int:
    return (seed + i) % 2**32


def _some(split: Split, n: int) -> Split:
    """Return n images drawn at random, the same in every call; with repeats if there are fewer."""
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))
    return split.take(order[torch.arange(n) % len(split)])


CHECKS: dict[str, Check] = {
    "shapes": Check(
        "logits (B, {classes}) for B = 1, 2, 7",
        "the last linear layer doesn't have {classes} outputs, or a reshape mixes the images of a batch.",
        _shapes,
    ),
    "initial loss": Check(
        "about ln {classes} = {loss:.3f} nats",
        "too high: the initial weights of the last layer are too large, so that the network is sure of wrong answers; "
        "too low: it was trained already.",
        _initial_loss,
    ),
    "one batch": Check(
        "64 images memorised",
        "no gradient reaches the weights (dead ReLU, frozen layers, a softmax before the loss), images and labels are "
        "in different orders, or much is dropped.",
        _one_batch,
    ),
    "random labels": Check(
        "no better than chance: {chance:.3g} %",
        "the label is hidden in the image, or validation images are trained on.",
        _random_labels,
    ),
    "batch statistics": Check(
        "eval: no image changes another",
        "a normalisation without running statistics (track_running_stats=False), a layer that is always in train mode, "
        "or a mean over the batch.",
        _batch_statistics,
    ),
    "same seed": Check(
        "a seed decides weights and loss",
        "random numbers that don't come from torch, or a seed that is set inside the network.",
        _same_seed,
    ),
}
