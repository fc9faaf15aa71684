"""The peers: the same network on the same images, trained with other tools.

stock    the course's unchanged pipeline: mltrainer's `Trainer` with the streamer of mads_datasets
plain    a PyTorch training loop over a `DataLoader`, which transforms images one by one as torchvision does

The third peer, Lightning, is in `lightning_peer.py`, because its import takes seconds.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from mads_datasets.base import BaseDatastreamer
from mads_datasets.datasets import MNISTDataset
from mltrainer import ReportTypes, Trainer, TrainerSettings, metrics
from mltrainer.preprocessors import BasePreprocessor
from PIL import Image
from torch import Tensor, nn
from torch.optim import Adam
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from cnnlab.config import BASE
from cnnlab.data import Split

BATCH_SIZE = 64
MEAN, SD = 0.2860, 0.3530  # of the pixels of Fashion-MNIST, on a scale of 0 to 1
WARM_UP = 20 * BATCH_SIZE  # images trained before the clock starts

Batch = tuple[Tensor, Tensor]  # x float32 (B, 1, 28, 28), y whole numbers (B,)


def stock_model(dropout: float = 0.0) -> nn.Sequential:
    """Return the network of BASE as it is usually written: each block is a convolution, ReLU and pooling."""
    layers: list[nn.Module] = []
    channels = 1
    for _, width in BASE.blocks:
        layers += [nn.Conv2d(channels, width, BASE.kernel_size, padding=BASE.kernel_size // 2), nn.ReLU()]
        layers += [nn.MaxPool2d(2)]
        channels = width
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    if dropout:
        layers += [nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(channels, 10))


def first(split: Split, images: int) -> Split:
    """Return the first images of a split."""
    return Split(split.x[:images], split.y[:images])


def stock_stream(split: Split) -> Iterator[Batch]:
    """Return the endless stream of batches of mads_datasets: float32 from 0 to 1, in a new order on every pass.

    The dataset and the streamer are those of the library's factory. The factory itself is not used, since its
    stream "valid" is the official test set.
    """
    dataset = MNISTDataset(split.x.squeeze(1), split.y)
    stream: Iterator[Batch] = BaseDatastreamer(dataset, BATCH_SIZE, preprocessor=BasePreprocessor()).stream()
    return stream


def stock_trainer(
    train: Split,
    valid: Split,
    folder: Path,
    epochs: int,
    train_steps: int,
    dropout: float = 0.0,
    device: str = "cpu",
    report: list[ReportTypes] | None = None,
) -> Trainer:
    """Return mltrainer's trainer with its default optimiser settings (Adam, lr 1e-3, constant)."""
    settings = TrainerSettings(
        epochs=epochs,
        metrics=[metrics.Accuracy()],
        logdir=folder,
        train_steps=train_steps,
        valid_steps=len(valid) // BATCH_SIZE,
        reporttypes=report or [],
        earlystop_kwargs=None,
    )
    return Trainer(
        model=stock_model(dropout),
        settings=settings,
        loss_fn=nn.CrossEntropyLoss(),
        optimizer=Adam,
        traindataloader=stock_stream(train),
        validdataloader=stock_stream(valid),
        scheduler=None,
        device=device,
    )


class TorchvisionImages(Dataset[tuple[Tensor, int]]):
    """Images in memory, served as `torchvision.datasets.FashionMNIST` serves them: one PIL image, then transforms.

    That class itself reads its own files; it processes each image in the same way.
    """

    def __init__(self, split: Split) -> None:
        self.images = split.x.squeeze(1)  # uint8 (N, 28, 28)
        self.labels = split.y
        self.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((MEAN,), (SD,))])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = Image.fromarray(self.images[index].numpy(), mode="L")
        return self.transform(image), int(self.labels[index])


def loader(split: Split, num_workers: int, device: str) -> DataLoader[tuple[Tensor, int]]:
    """Return a shuffling `DataLoader` over a split."""
    images = TorchvisionImages(split)
    return DataLoader(images, BATCH_SIZE, shuffle=True, num_workers=num_workers, pin_memory=device == "cuda")


def train_plainly(model: nn.Module, batches: Iterable[Batch], device: str) -> None:
    """Train on all batches with Adam, without reading the loss."""
    model.train()
    optimizer, loss_fn = Adam(model.parameters()), nn.CrossEntropyLoss()
    for x, y in batches:
        x, y = x.to(device, non_blocking=True), y.to(device, non_blocking=True)
        optimizer.zero_grad()
        loss_fn(model(x), y).backward()
        optimizer.step()


def wait_for(device: str) -> None:
    """Wait until a GPU has finished its work, so that the clock is read at the right moment."""
    if device == "cuda":
        torch.cuda.synchronize()
