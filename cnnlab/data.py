"""Images and labels as tensors in memory, for training, validation and the vault's test; and batches of them."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from cnnlab.inquiry.checked import whole_numbers
from cnnlab.inquiry.errors import LabError

Normalise = Callable[[Tensor], Tensor]  # uint8 -> float32, of the same shape
FASHION_MNIST = ((1, 28, 28), 10, [0.286], [0.353])  # shape, number of classes, mean and SD


@dataclass(frozen=True)
class Split:
    """Images with their labels: x uint8 (N, C, H, W), 0 to 255; y int64 (N,), from 0 on.

    Anything that can be converted without loss is converted: arrays, lists, (N, H, W), other types of whole numbers.

    Raises:
        LabError: images or labels that can't be used; the sentence says what is wrong and how to fix it.
    """

    x: Tensor
    y: Tensor

    def __post_init__(self) -> None:
        hint = " from 0 to 255, such as torch.as_tensor(255 * x).round().byte()"
        x = torch.from_numpy(whole_numbers(self.x, "images", 255, hint))
        y = torch.from_numpy(whole_numbers(self.y, "labels", 999))
        x = x.unsqueeze(1) if x.ndim == 3 else x
        shape = tuple(x.shape)
        if len(shape) != 4 or shape[3] <= 4 < shape[1]:
            last = " (for channels in the last place: x.permute(0, 3, 1, 2))" if len(shape) == 4 else ""
            raise LabError(f"the images should have the shape (N, channels, height, width), and have {shape}{last}.")
        if y.ndim != 1 or len(x) != len(y):
            raise LabError(f"{len(x):,} images have labels of shape {tuple(y.shape)}: give each image one label.")
        object.__setattr__(self, "x", x)
        object.__setattr__(self, "y", y)

    def __len__(self) -> int:
        return len(self.y)

    def take(self, index: Tensor | slice) -> "Split":
        """Return the images at these positions, in this order."""
        return Split(self.x[index], self.y[index])

    def sha256(self) -> str:
        """Return a fingerprint of images and labels: equal for the same images in the same order."""
        return hashlib.sha256(b"".join(part.numpy().tobytes() for part in (self.x, self.y))).hexdigest()


@dataclass(frozen=True)
class Data:
    """What a network is developed on: two splits, or two pairs (x, y) of images and labels.

    test: for data of your own, the images that only the vault uses. classes: the names of the classes, for figures.

    Raises:
        LabError: a set is empty or has another shape, no pixel is above 1, a label has no name, or sets share images.
    """

    train: Split
    valid: Split
    test: Split | None = None
    classes: tuple[str, ...] = ()  # without names: "0", "1", ...

    def __post_init__(self) -> None:
        splits = {"train": self.train, "valid": self.valid} | ({} if self.test is None else {"test": self.test})
        for name, split in splits.items():
            if not isinstance(split, Split | tuple) or (isinstance(split, tuple) and len(split) != 2):
                raise LabError(f"{name} is a {type(split).__name__}: give a Split, or a pair (x, y).")
            splits[name] = split if isinstance(split, Split) else Split(*split)
            object.__setattr__(self, name, splits[name])
            if not len(splits[name]):
                raise LabError(f"{name} is empty: data need at least one training image and one validation image.")
        if int(self.train.x.max()) <= 1:
            raise LabError("the pixels lie between 0 and 1, and should lie between 0 and 255: multiply them by 255.")
        if len(shapes := {split.x.shape[1:] for split in splits.values()}) > 1:
            raise LabError(f"all images should have one shape, and have {' and '.join(map(str, map(tuple, shapes)))}.")
        labels = range(1 + max(int(split.y.max()) for split in splits.values()))
        object.__setattr__(self, "classes", tuple(self.classes or map(str, sorted(set(self.train.y.tolist())))))
        if len(self.classes) < len(labels):
            raise LabError(f"labels go up to {labels[-1]}, with {len(self.classes)} classes: label them 0, 1, 2, ...")
        seen = set[bytes]()
        for name, split in splits.items():
            images = [image.tobytes() for image in split.x.numpy()]
            if shared := sum(image in seen for image in images):
                raise LabError(f"{shared:,} of the {len(split):,} images in {name} are in another set too: drop them.")
            seen.update(images)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an image: channels, height, width."""
        return tuple(self.train.x.shape[1:])

    def sha256(self) -> str:
        """Return a fingerprint of everything that is trained and validated on, part of what identifies a run."""
        rest = self.shape, len(self.classes), *(values.tolist() for values in mean_and_sd(self.train))
        more = "" if rest == FASHION_MNIST else str(rest)  # follows from Fashion-MNIST's bytes anyway
        return hashlib.sha256(f"{self.train.sha256()}{self.valid.sha256()}{more}".encode()).hexdigest()

    def normaliser(self, device: str = "cpu") -> Normalise:
        """Return the function that gives images on a device mean 0 and SD 1 per channel, over the training images.

        Shapes: uint8 (B, C, H, W) -> float32 (B, C, H, W).
        """
        mean, sd = ((255 * values).float().view(-1, 1, 1).to(device) for values in mean_and_sd(self.train))
        return lambda x: x.float().sub_(mean).div_(sd)


def mean_and_sd(split: Split) -> tuple[Tensor, Tensor]:
    """Return mean and SD of the pixels, on a scale of 0 to 1, to four places: each float64 (C,)."""
    counts = torch.stack([channel.flatten().bincount(minlength=256) for channel in split.x.unbind(1)])
    share, level = counts / counts.sum(1, keepdim=True).double(), torch.arange(256.0, dtype=torch.float64) / 255
    mean = share @ level
    sd = (share @ level**2 - mean**2).clamp(min=0).sqrt().round(decimals=4)
    return mean.round(decimals=4), torch.where(sd > 0, sd, 1.0)


class Batches:
    """Batches of a split; with a generator, in a new order every pass: x float32 (B, C, H, W); y int64 (B,)."""

    def __init__(
        self, split: Split, size: int, normalise: Normalise, generator: Generator | None = None, device: str = "cpu"
    ) -> None:
        self.split, self.size, self.normalise, self.generator = split, size, normalise, generator
        self.x, self.y = split.x.to(device), split.y.to(device)

    def __len__(self) -> int:
        return -(-len(self.split) // self.size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        # the order is drawn on the CPU, so that it is the same on every device
        n = len(self.split)
        order = torch.arange(n) if self.generator is None else torch.randperm(n, generator=self.generator)
        for index in order.to(self.y.device).split(self.size):
            yield self.normalise(self.x[index]), self.y[index]
