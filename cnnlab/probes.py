"""What goes on inside a network: activations, dead channels, gradients, the inputs of BatchNorm.

A reading is named `<probe>/<layer>`, with the layer's dotted name in the network, such as `block1.norm1`.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from cnnlab.models import ACTIVATIONS

PROBE_IMAGES = 256  # the first ones of the training sample: the same after every epoch

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d
WATCHED: tuple[type[nn.Module], ...] = (nn.BatchNorm1d, nn.BatchNorm2d, *ACTIVATIONS.values())

# Called with the name of a layer, the layer, its inputs and its output.
Note = Callable[[str, nn.Module, tuple[Tensor], Tensor], None]


def watch(model: nn.Module, images: Tensor, note: Note) -> None:
    """Pass images through a network in eval mode; `note` is called for every layer. The network is not changed.

    Shapes: images float32 (N, C, H, W), normalised, on the device of the network.
    """
    layers = [(name, layer) for name, layer in model.named_modules() if not list(layer.children())]
    handles = [layer.register_forward_hook(partial(note, name)) for name, layer in layers]
    was_training = model.training
    try:
        with torch.no_grad():
            model.eval()(images)
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()


def read_probes(model: nn.Module, images: Tensor) -> dict[str, float]:
    """Return readings of all layers for some images, in eval mode; the network is not changed.

    - `activation_mean/<layer>`, `activation_sd/<layer>`: over all outputs of an activation.
    - `dead_share/<layer>`: see `dead_share`; of ReLU only, since no other activation is exactly zero. `dead_share` is
      the largest of all layers.
    - `variance_ratio/<layer>`: the median of `variance_ratios`, with `variance_ratio_low/<layer>` and `_high/<layer>`,
      the quartiles, over `live_channels/<layer>` channels; nan without any. `variance_ratio` is the mean over layers.

    Shapes: images float32 (N, C, H, W), normalised, on the device of the network.
    """
    found: dict[str, Tensor] = {}

    def note(name: str, layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        if isinstance(layer, WATCHED):
            found.update({f"{probe}/{name}": value for probe, value in _read(layer, *inputs, output).items()})

    watch(model, images, note)
    if ratios := [value for name, value in found.items() if name.startswith("variance_ratio/")]:
        found["variance_ratio"] = torch.stack(ratios).mean()
    if shares := [value for name, value in found.items() if name.startswith("dead_share/")]:
        found["dead_share"] = torch.stack(shares).amax()
    return _numbers(found)


def read_grad_norms(model: nn.Module) -> dict[str, float]:
    """Return `grad_norm/<layer>`: the L2 norm of the gradients of each layer's parameters, after a backward pass."""
    found: dict[str, Tensor] = {}
    for name, layer in model.named_modules():
        own = [p.grad for p in layer.parameters(recurse=False) if p.grad is not None]
        if own:
            found[f"grad_norm/{name}"] = nn.utils.get_total_norm(own)
    return _numbers(found)


def dead_share(output: Tensor) -> Tensor:
    """Return the share of a ReLU's channels that are zero for every image, at every position.

    Shapes: (N, C) or (N, C, H, W) -> ().
    """
    sums = output.sum(_all_but_channels(output))  # (C,): ReLU gives nothing negative, so 0 means that all are 0
    return (sums == 0).float().mean()


def variance_ratios(norm: BatchNorm, x: Tensor) -> Tensor:
    """Return the variance of a BatchNorm's inputs in eval mode over its running variance; nan for a dead channel.

    About 1 where training and evaluation see the same variance; below 1 where dropout before it adds variance in
    training only (Li et al. 2019, Understanding the disharmony between dropout and batch normalization by variance
    shift, CVPR). Both have the layer's `eps` added, as in its own formula. A channel whose variance is at most `eps` is
    dead: the layer sees nothing in it, and its ratio would always be 1.

    Shapes: (N, C) or (N, C, H, W) -> (C,).
    """
    assert norm.running_var is not None
    dims = _all_but_channels(x)
    n = x[:, 0].numel()
    now = _variance(x, dims) * n / max(n - 1, 1)  # unbiased, as the running variance is
    return ((now + norm.eps) / (norm.running_var + norm.eps)).where(now > norm.eps, torch.nan)


def _read(layer: nn.Module, x: Tensor, output: Tensor) -> dict[str, Tensor]:
    if isinstance(layer, BatchNorm):
        ratios = variance_ratios(layer, x)
        low, median, high = ratios.nanquantile(torch.tensor((0.25, 0.5, 0.75), device=x.device))
        live = ratios.isfinite().sum().to(ratios.dtype)
        return {
            "variance_ratio": median,
            "variance_ratio_low": low,
            "variance_ratio_high": high,
            "live_channels": live,
        }
    found = {"activation_mean": output.mean(), "activation_sd": _variance(output, list(range(output.ndim))).sqrt()}
    if isinstance(layer, nn.ReLU):
        found["dead_share"] = dead_share(output)
    return found


def _all_but_channels(x: Tensor) -> list[int]:
    return [dim for dim in range(x.ndim) if dim != 1]


def _variance(x: Tensor, dims: list[int]) -> Tensor:
    # in two passes: torch.var goes through the values one by one, which takes 20 times as long on a CPU
    return (x - x.mean(dims, keepdim=True)).square_().mean(dims)


def _numbers(found: dict[str, Tensor]) -> dict[str, float]:
    # all are read at once, since each reading makes the program wait for a GPU
    values: list[float] = torch.stack(list(found.values())).tolist() if found else []
    return dict(zip(found, values, strict=True))
