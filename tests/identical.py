"""The results of training some configs, to the last bit: for the release in which the chapter was rewritten.

    uv run python -m tests.identical --write

The libraries are restricted to instructions that every x86 processor has, so that several kinds of Intel processor
round in the same way.
"""

import os

# The libraries read these when they are loaded.
os.environ |= {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"}
os.environ["OMP_NUM_THREADS"] = "1"

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import torch

from cnnlab.config import BASE, BEST, Config, replace
from cnnlab.data import Data
from cnnlab.fashion_mnist import load_data
from cnnlab.training import Result, fit

FILE = Path(__file__).parent / "golden" / "training.json"
MACHINE = ("device", "threads")  # facts that are not about the training
SMALL = replace(
    BASE, blocks=((1, 8), (1, 8)), train_images=320, epochs=3, batch_size=32, lr=0.01, precision="float32", seed=7
)
SGD = replace(SMALL, optimizer="sgd", lr=0.1)
CONFIGS = {
    "base": SMALL,
    "best": replace(BEST, train_images=256, epochs=1, precision="float32", keep="last"),
    "keeps the best epoch": replace(SGD, keep="best", epochs=6, lr=0.3, schedule="constant"),
    "patience": replace(SGD, epochs=30, patience=1, lr=0.05, schedule="constant"),
    "diverges at once": replace(SGD, lr=1e6, schedule="constant"),
    "diverges later, best": replace(SGD, lr=5.0, schedule="constant", epochs=8, keep="best"),
    "bf16": replace(SMALL, precision="bf16", norm="batch"),
    "SGD": replace(SGD, momentum=0.5, weight_decay=0.001),
    "SGD, one cycle, no momentum": replace(SGD, momentum=0.0),
    "cosine": replace(SMALL, schedule="cosine", optimizer="adam"),
    "label smoothing, last batch of 6": replace(SMALL, label_smoothing=0.2, train_images=326),
    "residual": replace(SMALL, blocks=((2, 8), (2, 16)), residual=True, norm="group", norm_groups=4),
    "spatial dropout": replace(SMALL, conv_dropout=0.3, conv_dropout_kind="spatial", dropout=0.2, head_norm="layer"),
    "dropout before batch norm": replace(SMALL, conv_dropout=0.2, conv_dropout_place="before_norm", norm="batch"),
}


def described(config: Config, data: Data) -> dict[str, Any]:
    """Return a fingerprint of a run's weights, and all of its measurements except times."""
    result: Result = fit(config, data, progress=False, device="cpu")
    digest = hashlib.sha256()
    for name, value in result.model.state_dict().items():
        digest.update(name.encode() + value.contiguous().numpy().tobytes())
    return {
        "weights": digest.hexdigest(),
        "logits": hashlib.sha256(result.valid.logits.contiguous().numpy().tobytes()).hexdigest(),
        "final": _measured(result.final),
        "epochs": [_measured(epoch) for epoch in result.epochs],
        "outcome": result.outcome,
        "facts": {name: value for name, value in result.facts.items() if name not in MACHINE},
    }


def _measured(metrics: dict[str, float]) -> dict[str, str]:
    return {name: repr(value) for name, value in sorted(metrics.items()) if not name.startswith("time/")}


if __name__ == "__main__":
    torch.set_num_threads(1)
    whole = load_data()
    few = Data(whole.train, whole.valid.take(torch.arange(203)))
    text = (
        json.dumps({name: described(config, few) for name, config in CONFIGS.items()}, indent=1, sort_keys=True) + "\n"
    )
    if "--write" in sys.argv:
        FILE.write_text(text, encoding="utf-8", newline="\n")
    else:
        print(text, end="")
