"""Shared fixtures: a project folder of its own for every test, small images, the real data, a real server."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

os.environ["OMP_NUM_THREADS"] = "1"  # two test processes with more threads than cores would wait for each other

from cnnlab import server
from cnnlab.config import BASE, Config, replace
from cnnlab.data import Data, Split, load_data


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project folder whose path has a space, with a port that nobody uses."""
    folder = tmp_path / "my lab"
    folder.mkdir()
    for name in ("MLFLOW_TRACKING_URI", "CNNLAB_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CNNLAB_HOME", str(folder))
    monkeypatch.setenv("CNNLAB_OWNER", "a student")
    monkeypatch.setenv("MLFLOW_PORT", str(free_port()))
    return folder


@pytest.fixture
def running_server(home: Path) -> Iterator[str]:
    """A real MLflow server on the project folder; its address."""
    yield server.start(lambda line: None)
    server.stop(lambda line: None)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def real_data() -> Data:
    """Fashion-MNIST itself."""
    return load_data(say=lambda line: None)


@pytest.fixture(scope="session")
def small_data() -> Data:
    """640 and 203 noisy images of ten easy classes: bright rows or columns at one of five distances."""
    return Data(_stripes(640, seed=1), _stripes(203, seed=2))


def _stripes(n: int, seed: int) -> Split:
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 10
    x = torch.randint(0, 60, (n, 1, 28, 28), dtype=torch.uint8, generator=generator)
    for image, label in zip(x, y.tolist(), strict=True):
        lines = image[0] if label < 5 else image[0].T
        lines[:: label % 5 + 2] += 150
    return Split(x, y)


@pytest.fixture
def small() -> Config:
    """A config that trains in a fraction of a second on `small_data`."""
    return replace(BASE, blocks=((1, 8), (1, 8)), train_images=320, epochs=2, batch_size=32, lr=0.01)
