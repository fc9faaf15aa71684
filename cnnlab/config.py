"""Config: every value that defines one run, checked when it is made.

An *arm* of a study is a `Config` apart from its seed; a variant is written as what changed:

    replace(BASE, dropout=0.3)
"""

import ast
import dataclasses
import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from cnnlab.errors import LabError

IMAGE_SIZE = 28  # pixels, height and width
NUM_CLASSES = 10
TRAIN_IMAGES = 55_000  # the official 60,000 less the 5,000 of the validation set

Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(ge=0.0, lt=1.0)]
Blocks = Annotated[tuple[tuple[Count, Count], ...], Field(min_length=1)]


class ConfigError(LabError):
    """A value that a `Config` can't have; the sentence says what is allowed."""


@dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True, allow_inf_nan=False))
class Config:
    """All that defines one run: the network, the data it sees, its training and its seed.

    Two equal configs are the same run: on the same kind of machine they give the same weights.

    Raises:
        ConfigError: an unknown name, a value out of range, or values that can't go together.
    """

    # network: a tuple of blocks (convolutions, channels); each block ends in 2x2 max pooling
    blocks: Blocks = ((1, 32), (1, 64), (1, 64))
    kernel_size: Count = 3  # odd, so that padding keeps the image's size
    activation: Literal["relu", "leaky_relu", "gelu", "silu"] = "relu"
    norm: Literal["none", "batch", "layer", "group", "instance"] = "none"
    norm_groups: Count = 8  # groups of channels, for norm="group"
    residual: bool = False  # add to a convolution's output its input, where both have the same number of channels
    head_norm: Literal["none", "batch", "layer"] = "none"  # in the head, of the pooled features, before the dropout
    dropout: Rate = 0.0  # in the head, before the linear layer
    conv_dropout: Rate = 0.0  # after every convolution
    conv_dropout_kind: Literal["element", "spatial"] = "element"  # drops single values, or whole channels
    conv_dropout_place: Literal["before_norm", "after_norm"] = "after_norm"

    # data
    train_images: Annotated[int, Field(ge=1, le=TRAIN_IMAGES)] = TRAIN_IMAGES

    # training
    epochs: Count = 8  # passes over the training images
    batch_size: Count = 64
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: Annotated[float, Field(gt=0.0)] = 6e-3  # the highest one, where the schedule varies it
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.01
    momentum: Rate = 0.9  # for optimizer="sgd"
    label_smoothing: Rate = 0.0  # the share of every label that training spreads over all classes
    schedule: Literal["constant", "one_cycle", "cosine"] = "one_cycle"
    keep: Literal["last", "best"] = "last"  # the weights that count; "best" has the lowest validation loss
    patience: Count | None = None  # stop early after so many epochs without a lower validation loss
    # Of forward and backward pass in training; weights and scores are float32. "auto": bf16 where the processor has it,
    # which is faster, and equivalent in accuracy and loss (benchmarks/results/precision.md).
    precision: Literal["float32", "bf16", "auto"] = "auto"

    # everything random of a run follows from its seed
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0

    @model_validator(mode="wrap")
    @classmethod
    def _one_clear_sentence(cls, values: Any, check_fields: ModelWrapValidatorHandler["Config"]) -> "Config":
        try:
            config = check_fields(values)
        except ValidationError as error:
            raise ConfigError(_sentence(error)) from None
        if problem := _impossible(config):
            raise ConfigError(problem)
        return config


def replace(config: Config, **changes: Any) -> Config:
    """Return `config` with some values changed; whatever isn't named stays as it was.

    Raises:
        ConfigError: an unknown name or an impossible value.
    """
    return dataclasses.replace(config, **changes)


def differences(a: Config, b: Config) -> dict[str, tuple[Any, Any]]:
    """Return the fields in which two configs differ, with both values."""
    pairs = {f.name: (getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(Config)}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def to_params(config: Config) -> dict[str, str]:
    """Return the fields as text, the way MLflow stores them."""
    return {name: str(value) for name, value in dataclasses.asdict(config).items()}


def from_params(params: Mapping[str, str]) -> Config:
    """Return the config whose `to_params` are among `params`.

    Raises:
        ConfigError: a field is missing or has an impossible value: the run wasn't made by this lab.
    """
    names = [field.name for field in dataclasses.fields(Config)]
    if missing := [name for name in names if name not in params]:
        raise ConfigError(f"not the parameters of a run of this lab: {', '.join(missing)} missing.")
    return Config(**{name: literal(params[name]) for name in names})


def literal(text: str) -> Any:
    """Return a value from how `to_params` writes it."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):  # a plain word such as relu
        return text


def _sentence(error: ValidationError) -> str:
    """Return pydantic's first complaint as one sentence that names field, value and what is allowed."""
    first = error.errors()[0]
    name = str(first["loc"][0])
    if first["type"] == "unexpected_keyword_argument":
        names = [field.name for field in dataclasses.fields(Config)]
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(names)}."
        return f"Config has no field {name!r}; {hint}"
    if name == "blocks":
        rule = "a tuple of blocks (convolutions, channels), such as ((1, 32), (2, 64))"
    else:
        rule = first["msg"].removeprefix("Input should be ")
    return f"{name}={first['input']!r} is not possible: it should be {rule}."


def _impossible(config: Config) -> str | None:
    """Return why these values can't go together, or None where they can."""
    if config.kernel_size % 2 == 0:
        return f"kernel_size={config.kernel_size} is not possible: it should be odd (1, 3, 5, ...)."
    side = IMAGE_SIZE
    for _ in config.blocks:
        side //= 2
    if side < 1:
        return (
            f"{len(config.blocks)} blocks are not possible: each halves the image, and {IMAGE_SIZE} pixels "
            "can be halved 4 times; put more convolutions in a block instead, such as ((2, 32), (2, 64))."
        )
    if config.norm == "group":
        for _, channels in config.blocks:
            if channels % config.norm_groups:
                return (
                    f"norm_groups={config.norm_groups} is not possible with a block of {channels} channels: "
                    "the number of groups should divide the channels of every block."
                )
    if config.batch_size > config.train_images:
        return (
            f"batch_size={config.batch_size} is not possible: it should be at most train_images={config.train_images}."
        )
    if config.head_norm == "batch" and (config.batch_size == 1 or config.train_images % config.batch_size == 1):
        return (
            f'head_norm="batch" is not possible with batch_size={config.batch_size} and train_images='
            f"{config.train_images}: the last batch of an epoch would hold a single image, which has no variance; "
            "change one of the two numbers, so that every batch holds at least two images."
        )
    return None


# The plain baseline of the course: no normalisation, no dropout.
BASE = Config()

# The strongest network of less than 100,000 parameters that a search on the validation images found
# (benchmarks/results/best-*.md say what was tried).
BEST = replace(
    BASE,
    blocks=((2, 18), (2, 36), (2, 72)),
    norm="batch",
    label_smoothing=0.1,
    batch_size=128,
    lr=1e-2,
    weight_decay=0.02,
)
