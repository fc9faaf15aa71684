"""Networks: a tuple of convolution blocks, global average pooling, one linear layer."""

from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor, nn

from cnnlab.config import Config

# Name -> layer for maps of shape (B, C, H, W). All but "none" have a scale and a shift per channel,
# so that each of them adds the same 2 C parameters.
NORMS: dict[str, Callable[[int, int], nn.Module]] = {
    "none": lambda channels, groups: nn.Identity(),
    "batch": lambda channels, groups: nn.BatchNorm2d(channels),
    # Over (C, H, W) of one image, which is a single group. (nn.LayerNorm itself would need a scale for every pixel.)
    "layer": lambda channels, groups: nn.GroupNorm(1, channels),
    "group": lambda channels, groups: nn.GroupNorm(groups, channels),
    "instance": lambda channels, groups: nn.InstanceNorm2d(channels, affine=True),
}
ACTIVATIONS = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "gelu": nn.GELU, "silu": nn.SiLU}
HEAD_NORMS = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm}  # for the head's vectors (B, C); "none" adds no layer
CONV_DROPOUTS = {"element": nn.Dropout, "spatial": nn.Dropout2d}

Build = Callable[[Config], nn.Module]  # a network of your own, from normalised images (B, C, H, W) to logits (B, K)


class Residual(nn.Sequential):
    """Layers whose output is added to their input (He et al. 2016): (B, C, H, W) -> (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x plus the layers' output for it."""
        return x.add(super().forward(x))


def build_model(config: Config, channels: int = 1, num_classes: int = 10) -> nn.Sequential:
    """Return the network that `config` describes, with PyTorch's default initialisation.

    Shapes: images (B, channels, H, W), normalised -> logits (B, num_classes), for any H and W.
    """
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for i, (convs, width) in enumerate(config.blocks, start=1):
        parts[f"block{i}"] = conv_block(channels, width, convs, config)
        channels = width
    parts["head"] = head(channels, num_classes, config)
    return nn.Sequential(parts)


def conv_block(in_channels: int, out_channels: int, convs: int, config: Config) -> nn.Sequential:
    """Return `convs` times convolution, normalisation, activation, with 2x2 max pooling after the last normalisation.

    Pooling before the activation leaves it a quarter of the work. With ReLU and leaky ReLU, which keep the order of
    values, the maps are those of pooling after it; GELU and SiLU don't keep it, and `pool="last"` is the usual network.

    Shapes: (B, in_channels, H, W) -> (B, out_channels, H // 2, W // 2).
    """
    make: dict[str, Callable[[], nn.Module]] = {
        "norm": lambda: NORMS[config.norm](out_channels, config.norm_groups),
        "activation": ACTIVATIONS[config.activation],
        "dropout": lambda: CONV_DROPOUTS[config.conv_dropout_kind](config.conv_dropout),
        "pool": lambda: nn.MaxPool2d(2),
    }
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i in range(1, convs + 1):
        # The bias stays under a normalisation too, so that two arms differ only in the norm.
        conv = nn.Conv2d(in_channels, out_channels, config.kernel_size, padding=config.kernel_size // 2)
        unit: OrderedDict[str, nn.Module] = OrderedDict({f"conv{i}": conv})
        for name in config.layer_order(pool=i == convs):
            unit[name if name == "pool" else f"{name}{i}"] = make[name]()
            if name == "norm" and config.residual and in_channels == out_channels:
                unit = OrderedDict({f"residual{i}": Residual(unit)})
        layers |= unit
        in_channels = out_channels
    return nn.Sequential(layers)


def head(channels: int, num_classes: int, config: Config) -> nn.Sequential:
    """Return the classifier: (B, channels, H, W) -> logits (B, num_classes), for any height and width."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten())
    if config.head_norm != "none":
        layers["norm"] = HEAD_NORMS[config.head_norm](channels)
    if config.dropout:
        layers["dropout"] = nn.Dropout(config.dropout)
    layers["linear"] = nn.Linear(channels, num_classes)
    return nn.Sequential(layers)
