"""Fashion-MNIST as tensors in memory: train and valid for development, test behind a lock.

official 60,000  ─►  55,000 train  (a run may use fewer: `Config.train_images`)
                 └►   5,000 valid  (500 of each class, the same images in every run)
official 10,000  ─►  test, only through `read_test`
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from cnnlab.config import NUM_CLASSES, TRAIN_IMAGES
from cnnlab.errors import LabError
from cnnlab.sources import load_arrays

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
VALID_PER_CLASS = 500
SPLIT_SEED = 2017  # the year of the data set; one number for everybody, so that all validate on the same images
MEAN, SD = 0.2860, 0.3530  # of the pixels of the 60,000 training images, on a scale of 0 to 1


@dataclass(frozen=True)
class Split:
    """Images with their labels: x uint8 (N, 1, 28, 28), y int64 (N,)."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def take(self, index: Tensor) -> "Split":
        """Return the images at these positions, in this order."""
        return Split(self.x[index], self.y[index])

    def to(self, device: str) -> "Split":
        """Return the same images in the memory of `device`."""
        return Split(self.x.to(device), self.y.to(device))

    def sha256(self) -> str:
        """Return a fingerprint of images and labels: equal for the same images in the same order."""
        digest = hashlib.sha256(self.x.cpu().numpy().tobytes())
        digest.update(self.y.cpu().numpy().tobytes())
        return digest.hexdigest()


class Data(NamedTuple):
    """What a network may be developed on."""

    train: Split
    valid: Split


def load_data(say: Callable[[str], None] = print, folder: Path | None = None) -> Data:
    """Return the 55,000 training and the 5,000 validation images; the test images stay where they are.

    `folder` may hold the four IDX files; else they come from the cache, this machine or the network.

    Raises:
        LabError: the images are nowhere to be had, with the ways out.
    """
    arrays = load_arrays(say, folder)
    official = _split(arrays.train_images, arrays.train_labels)
    generator = torch.Generator().manual_seed(SPLIT_SEED)
    shuffled = torch.randperm(len(official), generator=generator)
    by_class = [shuffled[official.y[shuffled] == label] for label in range(NUM_CLASSES)]
    valid = torch.cat([index[:VALID_PER_CLASS] for index in by_class]).sort().values
    train = torch.cat([index[VALID_PER_CLASS:] for index in by_class]).sort().values
    assert len(train) == TRAIN_IMAGES
    return Data(official.take(train), official.take(valid))


def read_test(record: Callable[[str], None], reason: str, say: Callable[[str], None] = print) -> Split:
    """Return the official 10,000 test images, once `record(reason)` has written down that they were read.

    Raises:
        LabError: no reason was given. Whatever `record` raises: what isn't recorded isn't read.
    """
    if not reason.strip():
        raise LabError("the test set is locked: say why you open it, such as reason='the final claim'.")
    record(reason)
    arrays = load_arrays(say)
    return _split(arrays.test_images, arrays.test_labels)


class Batches:
    """Batches cut from tensors in memory: x float32 (B, 1, 28, 28), normalised; y int64 (B,).

    With a generator every pass goes through all images in a new order; without, in the order they are in.
    """

    def __init__(self, split: Split, batch_size: int, generator: torch.Generator | None = None) -> None:
        self.split = split
        self.batch_size = batch_size
        self.generator = generator

    def __len__(self) -> int:
        return -(-len(self.split) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if self.generator is None:
            pieces = zip(self.split.x.split(self.batch_size), self.split.y.split(self.batch_size), strict=True)
            for x, y in pieces:
                yield normalise(x), y
            return
        # the order is drawn on the CPU: it is then the same whatever device trains
        order = torch.randperm(len(self.split), generator=self.generator).to(self.split.y.device)
        for index in order.split(self.batch_size):
            batch = self.split.take(index)
            yield normalise(batch.x), batch.y


def normalise(images: Tensor) -> Tensor:
    """Return uint8 pixels as float32 with mean 0 and SD 1 over the training images; the shape stays."""
    return images.float().sub_(255 * MEAN).div_(255 * SD)


def _split(images: Tensor, labels: Tensor) -> Split:
    return Split(images.unsqueeze(1), labels.long())  # (N, 28, 28) -> (N, 1, 28, 28)
