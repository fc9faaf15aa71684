"""What several test files need."""

import socket

import torch

from cnnlab.data import Split


def quiet(line: str) -> None:
    """Say nothing."""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def stripes(n: int, seed: int) -> Split:
    """Noisy images of ten easy classes: bright rows or columns at one of five distances."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 10
    x = torch.randint(0, 60, (n, 1, 28, 28), dtype=torch.uint8, generator=generator)
    for image, label in zip(x, y.tolist(), strict=True):
        lines = image[0] if label < 5 else image[0].T
        lines[:: label % 5 + 2] += 150
    return Split(x, y)
