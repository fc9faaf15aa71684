"""Config: every value that defines one run, checked when it is made. A variant is `replace(BASE, dropout=0.3)`."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cnnlab.inquiry.params import ConfigError, Params, replace

Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(ge=0.0, lt=1.0)]
A_BLOCK = "a tuple of blocks (convolutions, channels), such as ((1, 32), (2, 64))"
Blocks = Annotated[tuple[tuple[Count, Count], ...], Field(min_length=1, description=A_BLOCK)]


class Config(Params):
    """Everything that defines one run: on equal machines and images, equal configs give equal weights.

    A run that was recorded before a field existed is read with the field's default. So the default of a new field is
    "off": what the lab did before.
    """

    # network: a tuple of blocks (convolutions, channels); each block ends in 2x2 max pooling
    blocks: Blocks = ((1, 32), (1, 64), (1, 64))
    kernel_size: Count = 3  # odd, so that padding keeps the image's size
    activation: Literal["relu", "leaky_relu", "gelu", "silu"] = "relu"
    norm: Literal["none", "batch", "layer", "group", "instance"] = "none"
    norm_groups: Count = 8  # groups of channels, for norm="group"
    residual: bool = False  # add a convolution's input to its output, where both have the same number of channels
    head_norm: Literal["none", "batch", "layer"] = "none"  # in the head, on the pooled features, before dropout
    dropout: Rate = 0.0  # in the head, before the linear layer
    conv_dropout: Rate = 0.0  # after every convolution
    conv_dropout_kind: Literal["element", "spatial"] = "element"  # drops single values, or whole channels
    conv_dropout_place: Literal["before_norm", "after_norm"] = "after_norm"  # right before it, or after the activation
    pool: Literal["after_norm", "first", "last"] = "after_norm"  # max pooling; "first": right after the convolution

    # data
    train_images: Count = 55_000

    # training
    epochs: Count = 8  # passes over the training images
    batch_size: Count = 64
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: Annotated[float, Field(gt=0.0)] = 6e-3  # the peak, where the schedule varies it
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.01
    momentum: Rate = 0.9  # for optimizer="sgd"
    label_smoothing: Rate = 0.0  # the share of every label that training spreads over all classes
    schedule: Literal["constant", "one_cycle", "cosine"] = "one_cycle"
    # the weights that count; "best": lowest validation loss; "average": the mean over the last quarter of the steps
    keep: Literal["last", "best", "average"] = "last"
    patience: Count | None = None  # stop early after this many epochs without a lower validation loss
    # of both passes in training; "auto": bf16 where it is faster; results are alike (benchmarks/results/precision.md)
    precision: Literal["float32", "bf16", "auto"] = "auto"

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0  # everything random in a run follows from it

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        size, images, channels = self.batch_size, self.train_images, [channels for _, channels in self.blocks]
        single = self.head_norm == "batch" and (size == 1 or images % size == 1)
        early = self.keep == "average" and self.patience is not None
        group = self.norm == "group" and any(one % self.norm_groups for one in channels)
        for is_wrong, said in (
            (self.kernel_size % 2 == 0, f"kernel_size={self.kernel_size} is not possible: it should be odd."),
            (group, f"norm_groups={self.norm_groups} is not possible: it should divide the channels of a block."),
            (self.residual and self.pool == "first", "residual=True can't go with pool='first': sizes would differ."),
            (early, "keep='average' can't go with patience: a training that stops early has no last quarter."),
            (size > images, f"batch_size={size} is not possible: it is at most train_images={images}."),
            (single, f"head_norm='batch' needs 2 images; batch_size={size} leaves 1 of {images} alone: change one."),
        ):
            if is_wrong:
                raise ConfigError(said)
        return self

    def layer_order(self, pool: bool = True) -> list[str]:
        """Return what follows a convolution, in order; `pool` if it is the last one in its block."""
        order = ["norm", "activation"]
        if self.conv_dropout:
            order.insert(0 if self.conv_dropout_place == "before_norm" else 2, "dropout")
        if pool:
            order.insert({"first": 0, "after_norm": order.index("norm") + 1, "last": len(order)}[self.pool], "pool")
        return order

    def check_images(self, shape: tuple[int, ...], train_images: int) -> None:
        """Make sure that images of a shape (channels, height, width) are large enough, and enough to train on.

        Raises:
            ConfigError: the blocks would shrink the images below one pixel, or there are fewer than `train_images`.
        """
        halvings = min(shape[1:]).bit_length() - 1
        if len(self.blocks) > halvings:
            raise ConfigError(
                f"blocks={self.blocks} is not possible: each block halves the sides; {shape[1]} x {shape[2]} pixels "
                f"allow for {halvings} of them; put more convolutions into one instead, such as ((2, 32), (2, 64))."
            )
        if self.train_images > train_images:
            raise ConfigError(f"train_images={self.train_images} is not possible: the data hold {train_images:,}.")


BASE = Config()  # the plain baseline of the course: no normalisation, no dropout

# The strongest network with fewer than 100,000 parameters that a search found (see benchmarks/configs.py).
SMALL = replace(BASE, blocks=((2, 18), (2, 36), (2, 72)), norm="batch", label_smoothing=0.1)
BEST = replace(SMALL, epochs=16, batch_size=128, lr=1e-2, weight_decay=0.02, keep="average")
