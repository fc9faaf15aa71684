"""Networks: a tuple of convolution blocks, global average pooling, one linear layer."""

from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor, nn

from cnnlab.config import NUM_CLASSES, Config

# Name -> layer for maps of shape (B, C, H, W). Every one but "none" has a scale and a shift per channel,
# so that all of them add the same 2 C parameters.
NORMS: dict[str, Callable[[int, int], nn.Module]] = {
    "none": lambda channels, groups: nn.Identity(),
    "batch": lambda channels, groups: nn.BatchNorm2d(channels),
    # Layer normalisation of convolution maps takes its statistics over (C, H, W) of one image: a single group.
    # (nn.LayerNorm itself would need a scale for every pixel.)
    "layer": lambda channels, groups: nn.GroupNorm(1, channels),
    "group": lambda channels, groups: nn.GroupNorm(groups, channels),
    "instance": lambda channels, groups: nn.InstanceNorm2d(channels, affine=True),
}

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}

# Name -> layer for the head's vectors of shape (B, C); "none" adds no layer.
HEAD_NORMS: dict[str, type[nn.Module]] = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm}

CONV_DROPOUTS: dict[str, Callable[[float], nn.Module]] = {"element": nn.Dropout, "spatial": nn.Dropout2d}

Build = Callable[[Config], nn.Module]  # from images (B, 1, 28, 28), normalised, to logits (B, 10)


class Residual(nn.Sequential):
    """Layers whose output is added to their input (He et al. 2016): (B, C, H, W) -> (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x plus what the layers make of it."""
        changed: Tensor = super().forward(x)
        return x + changed


def conv_block(in_channels: int, out_channels: int, convs: int, config: Config) -> nn.Sequential:
    """Return `convs` times convolution, normalisation, activation, with 2x2 max pooling before the last activation.

    Pooling first gives the same maps as pooling last (ReLU keeps the order of values, so the largest stays the
    largest) and leaves the activation a quarter of the work.

    Shapes: (B, in_channels, H, W) -> (B, out_channels, H // 2, W // 2).
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i in range(1, convs + 1):
        unit: OrderedDict[str, nn.Module] = OrderedDict()
        # The bias stays under a normalisation too: between two arms, the norm is then all that differs.
        unit[f"conv{i}"] = nn.Conv2d(in_channels, out_channels, config.kernel_size, padding=config.kernel_size // 2)
        if config.conv_dropout and config.conv_dropout_place == "before_norm":
            unit[f"dropout{i}"] = CONV_DROPOUTS[config.conv_dropout_kind](config.conv_dropout)
        unit[f"norm{i}"] = NORMS[config.norm](out_channels, config.norm_groups)
        if config.residual and in_channels == out_channels:
            unit = OrderedDict({f"residual{i}": Residual(unit)})
        layers |= unit
        in_channels = out_channels
        if i == convs:
            layers["pool"] = nn.MaxPool2d(2)
        layers[f"activation{i}"] = ACTIVATIONS[config.activation]()
        if config.conv_dropout and config.conv_dropout_place == "after_norm":
            layers[f"dropout{i}"] = CONV_DROPOUTS[config.conv_dropout_kind](config.conv_dropout)
    return nn.Sequential(layers)


def head(channels: int, config: Config) -> nn.Sequential:
    """Return the classifier: (B, channels, H, W) -> logits (B, 10), for any height and width."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten())
    if config.head_norm != "none":
        layers["norm"] = HEAD_NORMS[config.head_norm](channels)
    if config.dropout:
        layers["dropout"] = nn.Dropout(config.dropout)
    layers["linear"] = nn.Linear(channels, NUM_CLASSES)
    return nn.Sequential(layers)


def build_model(config: Config) -> nn.Sequential:
    """Return the network that `config` describes, with PyTorch's default initialisation.

    Shapes: images (B, 1, 28, 28), normalised -> logits (B, 10).
    """
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    channels = 1
    for i, (convs, width) in enumerate(config.blocks, start=1):
        parts[f"block{i}"] = conv_block(channels, width, convs, config)
        channels = width
    parts["head"] = head(channels, config)
    return nn.Sequential(parts)


def num_parameters(model: nn.Module) -> int:
    """Return the number of values that training changes."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
