"""Facts about a run, measured from the objects that train, never from what somebody typed."""

import hashlib
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from cnnlab.data import Data
from cnnlab.device import device_name


def facts_as_built(trainer: Any, data: Data) -> dict[str, str]:
    """Return what is about to be trained, on which images, and how."""
    settings, train, valid = trainer.settings, trainer.traindataloader, trainer.validdataloader
    schedule = written(type(trainer.scheduler) if trainer.scheduler else None, settings.scheduler_kwargs)
    return method_facts(trainer.model, trainer.loss_fn, trainer.optimizer, schedule) | {
        "num_train": str(len(train.split)),
        "train_sha256": train.split.sha256(),
        "num_valid": str(len(valid.split)),
        "valid_sha256": valid.split.sha256(),
        "data_sha256": data.sha256(),
        **facts_of_images(data),
        "batch_size": str(train.size),
        "early_stopping": str(settings.earlystop_kwargs),
        "device": device_name(trainer.device),
        "threads": str(torch.get_num_threads()),
    }


def facts_of_images(data: Data) -> dict[str, str]:
    """Return the facts about the data that a network has to fit."""
    return {"image_shape": " x ".join(map(str, data.shape)), "num_classes": str(len(data.classes))}


def facts_at_the_end(trainer: Any) -> dict[str, str]:
    """Return what is known once the training has ended."""
    kept = trainer.keep if trainer.kept_weights else "last"
    return {
        "steps": str(trainer.num_steps),
        "images_seen": str(trainer.images_seen),
        "precision": str(trainer.logits_dtype).removeprefix("torch."),
        "kept": f"{kept} (step {trainer.best_step or trainer.num_steps} of {trainer.num_steps})",
        "outcome": trainer.outcome,
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
    """Return an object as it would be written in code, without the arguments that are off."""
    if kind is None:
        return "none"
    given = ", ".join(f"{k}={v}" for k, v in (arguments or {}).items() if v is not None and v is not False)
    return f"{kind.__name__}({given})"


def num_parameters(model: nn.Module) -> int:
    """Return the number of values that training changes."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
