"""One run, as the engine needs it: trained, with the files it leaves behind, and its network rebuilt from them."""

import warnings
from collections.abc import Iterable
from pathlib import Path
from unittest.mock import patch

import mlflow
import numpy as np
import torch
from mlflow.models import infer_signature
from safetensors.torch import load_file, save_file
from torch import nn
from torch.fx import config as fx_config

from cnnlab.config import Config
from cnnlab.data import Batches, Data, Split
from cnnlab.facts import facts_of_images
from cnnlab.figures import run_figures
from cnnlab.inquiry.task import Facts, Kept
from cnnlab.inquiry.task import Watcher as EngineWatcher
from cnnlab.models import build_model
from cnnlab.training import EVAL_BATCH, Result, fit
from cnnlab.watcher import Watcher

WEIGHTS = "weights.safetensors"
CORRECT = "valid_correct.npy"  # whether each validation image was classified correctly: bool (N,)
LOSS = "valid_loss.npy"  # the cross-entropy of each validation image in nats: float32 (N,)


class Passing(Watcher):
    """Passes everything on to a watcher of the engine."""

    def __init__(self, watcher: EngineWatcher) -> None:
        self._watcher = watcher

    def start(self, config: Config, facts: dict[str, str]) -> None:
        """Pass on what was built."""
        self._watcher.start(facts)

    def progress(self, images: int, said: str) -> None:
        """Pass on how many more images were trained on."""
        self._watcher.progress(images)

    def report(self, epoch: int, train_loss: float, test_loss: float, metric_dict: dict[str, float]) -> None:
        """Pass on the metrics of one epoch."""
        self._watcher.epoch(epoch, {"loss/train": train_loss, **metric_dict})  # `test_loss` is its `loss/valid`


def train(config: Config, data: Data, watcher: EngineWatcher, device: str, threads: int) -> Result:
    """Train one network, with this many threads of a CPU."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return fit(config, data, [Passing(watcher)], device=device, progress=False)
    finally:
        torch.set_num_threads(before)


def keep(result: Result, data: Data, folder: Path) -> None:
    """Write weights, answers to the validation images, their losses and figures into a folder."""
    weights = {name: value.cpu().contiguous() for name, value in result.model.state_dict().items()}
    save_file(weights, folder / WEIGHTS)
    np.save(folder / CORRECT, result.valid.correct.numpy())
    np.save(folder / LOSS, nn.functional.cross_entropy(result.valid.logits, result.valid.y, reduction="none").numpy())
    (folder / "figures").mkdir()
    for name, figure in run_figures(result, data).items():
        figure.savefig(folder / "figures" / f"{name}.png", dpi=100)


def load_network(config: Config, facts: Facts, kept: Kept) -> nn.Module:
    """Return the network of a run with its kept weights, in eval mode and in the memory layout of the training.

    `facts` are about the images.
    """
    weights = kept[WEIGHTS]
    assert weights is not None
    channels = int(facts["image_shape"].partition(" x ")[0])
    model = build_model(config, channels, int(facts["num_classes"]))
    model.load_state_dict(load_file(weights))
    return model.eval().to(memory_format=torch.channels_last)  # three times faster than PyTorch's own


def evaluate(configs: Iterable[Config], kept: Iterable[Kept], data: Data, images: Split) -> np.ndarray:
    """Return whether networks developed on `data` classify each image correctly: bool (runs, images)."""
    batches = Batches(images, EVAL_BATCH, data.normaliser())
    rows = []
    for config, files in zip(configs, kept, strict=True):
        model = load_network(config, facts_of_images(data), files)
        with torch.inference_mode():
            rows.append(torch.cat([model(x).argmax(dim=1) == y for x, y in batches]).numpy())
    return np.stack(rows)


def export(config: Config, facts: Facts, kept: Kept, folder: Path) -> None:
    """Write the network of a run in MLflow's format into a folder."""
    shape = tuple(map(int, facts["image_shape"].split(" x ")))
    save_for_mlflow(load_network(config, facts, kept), shape, str(folder))


def save_for_mlflow(model: nn.Module, shape: tuple[int, ...], folder: str) -> None:
    """Save a model on the CPU in MLflow's format: as a graph, which loads without this package and without pickle.

    Shapes: float32 (B, *shape) -> logits float32 (B, K), for any B.
    """
    example = np.zeros((2, *shape), dtype=np.float32)  # two images, so that B stays variable
    without_traces = patch.object(fx_config, "do_not_emit_stack_traces", True)  # they name files of this machine
    with without_traces, torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logits = model(torch.from_numpy(example)).numpy()
        mlflow.pytorch.save_model(
            model,
            folder,
            signature=infer_signature(example, logits),
            input_example=example,
            pip_requirements=[f"torch=={torch.__version__.split('+')[0]}"],
        )
