"""The bare training step: forward, backward, optimizer and schedule, and nothing else."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from cnnlab.config import Config
from cnnlab.device import resolve_precision
from cnnlab.models import build_model
from cnnlab.training import OPTIMIZERS

Step = Callable[[Tensor, Tensor], None]


def bare_step(config: Config, num_steps: int) -> Step:
    """Return a function that trains a new network of `config` on a batch, on the CPU, with a one-cycle schedule."""
    model = build_model(config).to(memory_format=torch.channels_last).train()
    loss_fn = nn.CrossEntropyLoss(label_smoothing=config.label_smoothing)
    arguments: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay, "fused": True}
    optimizer = OPTIMIZERS[config.optimizer](model.parameters(), **arguments)
    schedule = OneCycleLR(optimizer, max_lr=config.lr, total_steps=num_steps)
    bf16 = resolve_precision(config.precision, "cpu") == "bf16"

    def step(x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = loss_fn(model(x), y)
        loss.backward()
        optimizer.step()
        schedule.step()

    return step
