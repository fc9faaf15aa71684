"""Facts about a run, measured from the objects that train: never from what somebody typed."""

import hashlib
from typing import Any

import torch
from mltrainer import Trainer

from cnnlab.data import Batches
from cnnlab.device import device_name
from cnnlab.models import num_parameters


def facts_as_built(trainer: Trainer, train: Batches, valid: Batches) -> dict[str, str]:
    """Return what is about to be trained, on which images, and how."""
    tree = str(trainer.model)
    return {
        "num_parameters": str(num_parameters(trainer.model)),
        "module_tree": tree,
        "module_tree_sha256": hashlib.sha256(tree.encode()).hexdigest(),
        "num_train": str(len(train.split)),
        "train_sha256": train.split.sha256(),
        "num_valid": str(len(valid.split)),
        "valid_sha256": valid.split.sha256(),
        "batch_size": str(train.batch_size),
        "loss": repr(trainer.loss_fn).replace("()", f"(label_smoothing={trainer.loss_fn.label_smoothing})"),
        "optimizer": _call(trainer.optimizer, trainer.optimizer.defaults),
        "schedule": _call(trainer.scheduler, trainer.settings.scheduler_kwargs or {}),
        "early_stopping": str(trainer.settings.earlystop_kwargs),
        "device": device_name(trainer.device or "cpu"),
        "threads": str(torch.get_num_threads()),
    }


def _call(thing: object, arguments: dict[str, Any]) -> str:
    """Return an object the way it would be written, without the arguments that are off."""
    if thing is None:
        return "none"
    given = ", ".join(f"{k}={v}" for k, v in arguments.items() if v is not None and v is not False)
    return f"{type(thing).__name__}({given})"
