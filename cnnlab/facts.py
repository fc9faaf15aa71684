"""Facts about a run, measured from the objects that train: never from what somebody typed."""

import hashlib
from typing import Any

import torch
from mltrainer import Trainer
from torch import nn
from torch.optim import Optimizer

from cnnlab.data import Batches
from cnnlab.device import device_name
from cnnlab.models import num_parameters


def facts_as_built(trainer: Trainer, train: Batches, valid: Batches, data_sha256: str) -> dict[str, str]:
    """Return what is about to be trained, on which images, and how."""
    schedule = written(type(trainer.scheduler) if trainer.scheduler else None, trainer.settings.scheduler_kwargs)
    return method_facts(trainer.model, trainer.loss_fn, trainer.optimizer, schedule) | {
        "num_train": str(len(train.split)),
        "train_sha256": train.split.sha256(),
        "num_valid": str(len(valid.split)),
        "valid_sha256": valid.split.sha256(),
        "data_sha256": data_sha256,
        "batch_size": str(train.batch_size),
        "early_stopping": str(trainer.settings.earlystop_kwargs),
        "device": device_name(trainer.device or "cpu"),
        "threads": str(torch.get_num_threads()),
    }


def method_facts(model: nn.Module, loss: nn.CrossEntropyLoss, optimizer: Optimizer, schedule: str) -> dict[str, str]:
    """Return the facts about the network and the method that trains it."""
    tree = str(model)
    return {
        "num_parameters": str(num_parameters(model)),
        "module_tree": tree,
        "module_tree_sha256": hashlib.sha256(tree.encode()).hexdigest(),
        "loss": repr(loss).replace("()", f"(label_smoothing={loss.label_smoothing})"),
        "optimizer": written(type(optimizer), optimizer.defaults),
        "schedule": schedule,
    }


def written(kind: type | None, arguments: dict[str, Any] | None) -> str:
    """Return an object the way it would be written, without the arguments that are off."""
    if kind is None:
        return "none"
    given = ", ".join(f"{k}={v}" for k, v in (arguments or {}).items() if v is not None and v is not False)
    return f"{kind.__name__}({given})"
