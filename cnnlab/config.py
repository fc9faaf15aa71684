"""Config: every value that defines one run, checked when it is made. A variant is `replace(BASE, dropout=0.3)`."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cnnlab.inquiry.params import ConfigError, Params, replace

Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(ge=0.0, lt=1.0)]
A_BLOCK = "a tuple of blocks (convolutions, channels), such as ((1, 32), (2, 64))"
Blocks = Annotated[tuple[tuple[Count, Count], ...], Field(min_length=1, description=A_BLOCK)]


class Config(Params):
    """All that defines one run: on the same kind of machine and on the same images, equal configs give equal weights.

    A run that was recorded before a field existed is read with the field's default. So the default of a new field is
    "off": what the lab did before.
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
    train_images: Count = 55_000

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
    # Of forward and backward pass in training; weights and scores are float32. "auto": bf16 where the processor is
    # faster in it; both are equivalent in accuracy and loss (benchmarks/results/precision.md).
    precision: Literal["float32", "bf16", "auto"] = "auto"

    # everything random of a run follows from its seed
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.kernel_size % 2 == 0:
            raise ConfigError(f"kernel_size={self.kernel_size} is not possible: it should be odd.")
        if self.norm == "group" and any(channels % self.norm_groups for _, channels in self.blocks):
            raise ConfigError(
                f"norm_groups={self.norm_groups} is not possible: it should divide the channels of a block."
            )
        if self.batch_size > self.train_images:
            raise ConfigError(
                f"batch_size={self.batch_size} is not possible: it is at most train_images={self.train_images}."
            )
        if self.head_norm == "batch" and (self.batch_size == 1 or self.train_images % self.batch_size == 1):
            raise ConfigError(
                f"head_norm='batch' can't go with batch_size={self.batch_size}, train_images={self.train_images}: the "
                "last batch would hold one image, which has no variance; change one of the two."
            )
        return self

    def check_images(self, shape: tuple[int, ...], train_images: int) -> None:
        """Make sure that images of a shape (channels, height, width), and that many to train on, are enough.

        Raises:
            ConfigError: the blocks would shrink the images below one pixel, or there are fewer than `train_images`.
        """
        _, height, width = shape
        halvings = min(height, width).bit_length() - 1
        if len(self.blocks) > halvings:
            raise ConfigError(
                f"blocks={self.blocks} is not possible: each block halves the sides, and {height} x {width} pixels can "
                f"be halved {halvings} times; put more convolutions into a block instead, such as ((2, 32), (2, 64))."
            )
        if self.train_images > train_images:
            raise ConfigError(f"train_images={self.train_images} is not possible: the data hold {train_images:,}.")


# The plain baseline of the course: no normalisation, no dropout.
BASE = Config()

# The strongest network of less than 100,000 parameters that a search found (see benchmarks/results/best-*.md).
WIDE = ((2, 18), (2, 36), (2, 72))
BEST = replace(BASE, blocks=WIDE, norm="batch", label_smoothing=0.1, batch_size=128, lr=1e-2, weight_decay=0.02)
