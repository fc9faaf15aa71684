"""Fashion-MNIST as tensors in memory: train and valid for development, test behind a lock.

official 60,000  ─►  55,000 train  (a run may use fewer: `Config.train_images`)
                 └►   5,000 valid  (500 of each class, the same images in every run)
official 10,000  ─►  test, locked: `read_test_set` puts every reading on record
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cnnlab.config import IMAGE_SIZE, NUM_CLASSES, TRAIN_IMAGES
from cnnlab.errors import LabError
from cnnlab.sources import load_training_arrays

CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
VALID_PER_CLASS = 500
SPLIT_SEED = 2017  # the year of the data set; one number for everybody, so that all validate on the same images
MEAN, SD = 0.2860, 0.3530  # of the pixels of the 60,000 training images, on a scale of 0 to 1


@dataclass(frozen=True)
class Split:
    """Images with their labels: x uint8 (N, 1, 28, 28), 0 to 255; y int64 (N,), 0 to 9.

    Whatever can be converted without loss is converted: arrays, lists, (N, 28, 28), other types of whole numbers.

    Raises:
        LabError: images or labels that can't be used; the sentence says what is wrong and how to mend it.
    """

    x: Tensor
    y: Tensor

    def __post_init__(self) -> None:
        object.__setattr__(self, "x", _images(self.x))
        object.__setattr__(self, "y", _labels(self.y))
        if len(self.x) != len(self.y):
            raise LabError(f"{len(self.x):,} images have {len(self.y):,} labels: give every image one label.")

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


@dataclass(frozen=True)
class Data:
    """What a network may be developed on: two splits, or two pairs (x, y) of images and labels.

    Its fingerprint is part of what identifies a run.

    Raises:
        LabError: one of the two is empty, no pixel is above 1, or they share images.
    """

    train: Split
    valid: Split

    def __post_init__(self) -> None:
        for name, split in vars(self).items():
            if not isinstance(split, Split):
                if not isinstance(split, tuple) or len(split) != 2:
                    raise LabError(f"{name} is of the kind {type(split).__name__}: give a Split, or a pair (x, y).")
                object.__setattr__(self, name, Split(*split))
        if not len(self.train) or not len(self.valid):
            raise LabError("data need at least one training image and one validation image.")
        if int(self.train.x.max()) <= 1:
            raise LabError("the pixels lie between 0 and 1, and should lie between 0 and 255: multiply them by 255.")
        train = {image.tobytes() for image in self.train.x.cpu().numpy()}
        if shared := sum(image.tobytes() in train for image in self.valid.x.cpu().numpy()):
            raise LabError(
                f"{shared:,} of the {len(self.valid):,} validation images are training images too, and a network that "
                "memorizes them would look good: leave them out of one of the two."
            )

    def sha256(self) -> str:
        """Return a fingerprint of everything that is trained and validated on."""
        return hashlib.sha256((self.train.sha256() + self.valid.sha256()).encode()).hexdigest()


def _whole_numbers(values: Any, what: str, mend: str = "") -> Tensor:
    """Return whole numbers as a tensor, whatever holds them."""
    try:
        x = values if isinstance(values, Tensor) else np.asarray(values)
    except ValueError:  # lists of unequal lengths
        raise LabError(f"the {what} are no array: give a tensor or a NumPy array.") from None
    if isinstance(x, np.ndarray) and x.dtype.kind in "iufc":
        x = torch.from_numpy(x.astype(x.dtype.newbyteorder("="), order="C"))
    if not isinstance(x, Tensor) or x.dtype == torch.bool or x.is_floating_point() or x.is_complex():
        raise LabError(f"the {what} are {x.dtype}, and should be whole numbers{mend}.")
    return x if x.dtype in (torch.uint8, torch.int64) else x.long()


def _images(values: Any) -> Tensor:
    """Return images as uint8 (N, 1, 28, 28)."""
    x = _whole_numbers(values, "images", " from 0 to 255, such as torch.as_tensor(255 * x).round().byte()")
    if x.numel() and not 0 <= int(x.min()) <= int(x.max()) <= 255:
        raise LabError(f"the pixels should lie between 0 and 255, and lie between {int(x.min())} and {int(x.max())}.")
    x = x.unsqueeze(1) if x.ndim == 3 else x
    if tuple(x.shape[1:]) != (1, IMAGE_SIZE, IMAGE_SIZE):
        raise LabError(f"the images should have the shape (N, 1, 28, 28), and have {tuple(x.shape)}.")
    return x.byte()


def _labels(values: Any) -> Tensor:
    """Return labels as int64 (N,)."""
    y = _whole_numbers(values, "labels")
    if y.ndim != 1:
        raise LabError(f"the labels should have the shape (N,), and have {tuple(y.shape)}.")
    if y.numel() and not 0 <= int(y.min()) <= int(y.max()) < NUM_CLASSES:
        raise LabError(
            f"the labels should lie between 0 and {NUM_CLASSES - 1}, and lie between {int(y.min())} and {int(y.max())}."
        )
    return y.long()


def load_data(say: Callable[[str], None] = print, folder: Path | None = None) -> Data:
    """Return the 55,000 training and the 5,000 validation images; the test images stay where they are.

    `folder` may hold the four IDX files; else they come from the cache, this machine or the network.

    Raises:
        LabError: the images are nowhere to be had, with the ways out.
    """
    official = Split(*load_training_arrays(say, folder))
    generator = torch.Generator().manual_seed(SPLIT_SEED)
    shuffled = torch.randperm(len(official), generator=generator)
    by_class = [shuffled[official.y[shuffled] == label] for label in range(NUM_CLASSES)]
    valid = torch.cat([index[:VALID_PER_CLASS] for index in by_class]).sort().values
    train = torch.cat([index[VALID_PER_CLASS:] for index in by_class]).sort().values
    assert len(train) == TRAIN_IMAGES
    return Data(official.take(train), official.take(valid))


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
            yield normalise(self.split.x[index]), self.split.y[index]


def normalise(images: Tensor) -> Tensor:
    """Return uint8 pixels as float32 with mean 0 and SD 1 over the training images; the shape stays."""
    return images.float().sub_(255 * MEAN).div_(255 * SD)
