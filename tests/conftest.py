"""Shared fixtures: a separate project folder for every test, small images, the real data, a real server."""

import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ["OMP_NUM_THREADS"] = "1"  # with more threads than cores, two test processes would wait for each other

from cnnlab.cli import main
from cnnlab.config import BASE, Config, replace
from cnnlab.data import Data
from cnnlab.fashion_mnist import load_data
from cnnlab.inquiry import server
from cnnlab.inquiry.log import log
from cnnlab.inquiry.record.connection import connect
from tests.helpers import SMALL_DATA, Cnnlab, free_port, settle, spare_figures


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An mlflow.db with only MLflow's tables, which take seconds to create."""
    folder = tmp_path_factory.mktemp("tables")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("CNNLAB_HOME", str(folder))
        patch.setenv("MLFLOW_PORT", str(free_port()))
        connect()
    return folder / "mlflow.db"


@pytest.fixture
def home(bare_home: Path, tables: Path) -> Path:
    """A project folder with an empty store, a space in its path, and an unused port."""
    shutil.copyfile(tables, bare_home / "mlflow.db")
    return bare_home


@pytest.fixture
def bare_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project folder."""
    folder = tmp_path / "my lab"
    folder.mkdir()
    settle(monkeypatch, folder)
    return folder


@pytest.fixture
def running_server(home: Path) -> Iterator[str]:
    """The address of a real MLflow server for the project folder."""
    yield server.start()
    server.stop()


@pytest.fixture(scope="session")
def real_data() -> Data:
    """Fashion-MNIST itself."""
    return load_data()


@pytest.fixture(scope="session")
def small_data() -> Data:
    """640 training and 203 validation images of ten easy classes."""
    return SMALL_DATA


@pytest.fixture
def small() -> Config:
    """A config that trains in a fraction of a second on `small_data`."""
    return replace(BASE, blocks=((1, 8), (1, 8)), train_images=320, epochs=2, batch_size=32, lr=0.01)


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of this process draw no figures and save no models."""
    spare_figures(monkeypatch)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cnnlab:
    """The command line in this process, which saves the seconds of its imports."""

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["cnnlab", *arguments])
        before = signal.getsignal(signal.SIGTERM)
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        signal.signal(signal.SIGTERM, before)
        out, err = capfd.readouterr()
        return subprocess.CompletedProcess(arguments, int(ended.value.code or 0), out, err)

    return call


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the longest files: the processes share them, so that none waits for the other at the end."""
    longest = [
        "test_notebook.py",
        "test_engines.py",
        "test_ray.py",
        "test_cli.py",
        "test_tracking.py",
        "test_search.py",
        "test_reviewer2.py",
        "test_class.py",
    ]
    places = {name: place for place, name in enumerate(longest)}
    items.sort(key=lambda item: places.get(item.path.name, len(longest)))


@pytest.fixture
def said() -> Iterator[list[str]]:
    """The lines that the lab prints in this process during a test."""
    lines: list[str] = []
    listener = logging.Handler()
    listener.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    log.addHandler(listener)
    yield lines
    log.removeHandler(listener)
