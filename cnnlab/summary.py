"""A network at a glance: its layers, what they give, and how many parameters they have."""

from collections.abc import Callable

import pandas as pd
import torch
from torch import Tensor, nn

from cnnlab.facts import num_parameters


def layer_summary(model: nn.Module, shape: tuple[int, ...] = (1, 28, 28)) -> pd.DataFrame:
    """Return a table of every layer in the order in which data pass it: name, type, output shape, parameters.

    The output shapes are those of one image of `shape` (channels, height, width) on its way through the network.
    """
    rows: list[dict[str, object]] = []

    def note(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(layer: nn.Module, _inputs: object, output: Tensor) -> None:
            rows.append(
                {
                    "layer": name,
                    "type": type(layer).__name__,
                    "output": tuple(output.shape[1:]),
                    "parameters": num_parameters(layer),
                }
            )

        return hook

    leaves = [(name, layer) for name, layer in model.named_modules() if not list(layer.children())]
    handles = [layer.register_forward_hook(note(name)) for name, layer in leaves]
    was_training = model.training
    try:
        with torch.no_grad():
            image = torch.zeros(1, *shape, device=next(model.parameters()).device)
            model.eval()(image)
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    return pd.DataFrame(rows).set_index("layer")
