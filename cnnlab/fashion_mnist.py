"""Fashion-MNIST: where its four arrays come from, whether they are the right ones, and what they are used for.

official 60,000  ─►  55,000 train  (a run may use fewer: `Config.train_images`)
                 └►   5,000 valid  (500 of each class, the same images in every run)
official 10,000  ─►  test, locked: `read_test_set` puts every reading on record
"""

import contextlib
import functools
import gzip
import hashlib
import io
import math
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import uuid
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple
from unittest.mock import patch

import torch

from cnnlab.data import Data, Split
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.log import log

CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
VALID_PER_CLASS = 500
SPLIT_SEED = 2017  # the year of the data set; the same for everybody, so that all validate on the same images

DEBIAN_PACKAGE = "dataset-fashion-mnist"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
PATIENCE = 10  # seconds without a byte from the network until a download is given up
APT_LIMIT = 180  # seconds for one apt-get command as a whole


class Arrays(NamedTuple):
    """Images uint8 (N, 28, 28) and labels uint8 or int64 (N,), N = 60,000 train and 10,000 test."""

    train_images: torch.Tensor
    train_labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor


class Published(NamedTuple):
    """One array as published: its IDX file, its key in mads_datasets' file, its shape."""

    idx: str
    key: str
    shape: tuple[int, ...]


PUBLISHED = (  # in the order of Arrays
    Published("train-images-idx3-ubyte", "traindata", (60_000, 28, 28)),
    Published("train-labels-idx1-ubyte", "trainlabels", (60_000,)),
    Published("t10k-images-idx3-ubyte", "testdata", (10_000, 28, 28)),
    Published("t10k-labels-idx1-ubyte", "testlabels", (10_000,)),
)
SHA256 = (  # of the IDX files, in the same order
    "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
)


class BadData(LabError):
    """The arrays are not Fashion-MNIST as published."""


def load_data(folder: Path | None = None) -> Data:
    """Return the 55,000 training and the 5,000 validation images; the test images stay where they are.

    `folder` may hold the four IDX files; otherwise they come from the cache, this machine or the network.

    Raises:
        LabError: the images can't be found or downloaded; the sentence says what to do.
    """
    arrays = _load_arrays(folder)
    official = Split(arrays.train_images, arrays.train_labels)
    shuffled = torch.randperm(len(official), generator=torch.Generator().manual_seed(SPLIT_SEED))
    by_class = [shuffled[official.y[shuffled] == label] for label in range(len(CLASSES))]
    valid = torch.cat([index[:VALID_PER_CLASS] for index in by_class]).sort().values
    train = torch.cat([index[VALID_PER_CLASS:] for index in by_class]).sort().values
    return Data(official.take(train), official.take(valid), classes=CLASSES)


def _load_test() -> Split:
    """Return the official 10,000 test images: `read_test_set` puts every reading on record."""
    arrays = _load_arrays()
    return Split(arrays.test_images, arrays.test_labels)


def _load_arrays(folder: Path | None = None) -> Arrays:
    """Return Fashion-MNIST from the first source that has it, checked, and keep it in the cache.

    The cache comes first, then `folder` (or `CNNLAB_DATA`) where one is given, else Debian's folder
    and the network. The log says which sources failed, why, and which one was used.

    Raises:
        LabError: the given folder does not hold the four right files, or no source can be reached.
    """
    if arrays := _attempt("the cache", _from_cache):
        return arrays
    given = folder or os.environ.get("CNNLAB_DATA")
    arrays = _from_given(Path(given).expanduser()) if given else _from_elsewhere()
    _keep(arrays)
    return arrays


def cache_file() -> Path:
    """mads_datasets' own file, in `CNNLAB_CACHE` or else in `~/.cache/mads_datasets`."""
    parent = os.environ.get("CNNLAB_CACHE") or Path.home() / ".cache" / "mads_datasets"
    return Path(parent).expanduser() / "fashionmnist" / "fashionmnist.pt"


def check(arrays: Arrays) -> None:
    """Compare the arrays with the published data set.

    Raises:
        BadData: the first that differs.
    """
    for field, array, published, sha256 in zip(Arrays._fields, arrays, PUBLISHED, SHA256, strict=True):
        values = array.to(torch.uint8)
        same_type = array.dtype == torch.uint8 or (array.dtype == torch.int64 and array.ndim == 1)
        digest = hashlib.sha256(_idx_header(published))
        digest.update(values.contiguous().numpy().data)
        same_values = array.shape == published.shape and torch.equal(array, values.to(array.dtype))
        if not (same_type and same_values and digest.hexdigest() == sha256):
            raise BadData(
                f"{field}, {tuple(array.shape)} of {array.dtype}, is not {published.idx} as it was published: its "
                "shape, type or SHA-256 differs."
            )


def _idx_header(published: Published) -> bytes:
    """Two zeros, 8 for unsigned bytes, the number of dimensions, and each of them."""
    rank = len(published.shape)
    return struct.pack(f">HBB{rank}I", 0, 8, rank, *published.shape)


def _attempt(name: str, read: Callable[[], Arrays]) -> Arrays | None:
    try:
        arrays = read()
        check(arrays)
    # each source fails in its own way (network, pickle, zip, a missing tool); then the next one is tried
    except Exception as error:
        log.info(f"Fashion-MNIST not from {name}: {_reason(error)}")
        return None
    return arrays


def _reason(error: Exception) -> str:
    if isinstance(error, LabError):
        return str(error)
    first_line, *_ = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {first_line[:100]}"


def _from_cache() -> Arrays:
    file = cache_file()
    if not file.is_file():
        raise LabError(f"there is no {file} yet.")
    return _read_mads(file)


def _from_given(folder: Path) -> Arrays:
    try:
        arrays = _read_idx(folder)
        check(arrays)
    except (LabError, OSError) as error:
        names = ", ".join(published.idx for published in PUBLISHED)
        raise LabError(
            f"The data folder {folder} cannot be used ({_reason(error).rstrip('.')}); put {names} there, "
            "each raw or as .gz, or unset CNNLAB_DATA."
        ) from error
    log.info(f"Fashion-MNIST from {folder}.")
    return arrays


def _from_elsewhere() -> Arrays:
    for name, read in _sources():
        if arrays := _attempt(name, read):
            log.info(f"Fashion-MNIST from {name}.")
            return arrays
    raise LabError(
        "Fashion-MNIST is not on this machine and cannot be downloaded: connect to the internet once and "
        "run `cnnlab doctor`, or put the four IDX files in a folder and set CNNLAB_DATA to it, or run "
        f"`sudo apt-get install {DEBIAN_PACKAGE}`, or copy fashionmnist.pt from another machine to "
        f"{cache_file()}."
    )


def _sources() -> Iterator[tuple[str, Callable[[], Arrays]]]:
    yield "Debian's folder", lambda: _read_idx(DEBIAN_FOLDER)
    log.info("Fashion-MNIST is not on this machine yet: fetching it once (30 to 55 MB) ...")
    yield "the download of mads_datasets", _from_mads
    yield "the mirror of torchvision", _from_torchvision
    yield f"the Debian package {DEBIAN_PACKAGE}", _from_apt


def _from_mads() -> Arrays:
    from mads_datasets import DatasetFactoryProvider, DatasetType, datatools

    # it sets no time limit, which also overrides the default of the sockets
    requests = SimpleNamespace(get=functools.partial(datatools.requests.get, timeout=PATIENCE))
    # it takes any existing folder for a finished download, so a failure must not leave one behind
    with tempfile.TemporaryDirectory() as folder, _quiet(), patch.object(datatools, "requests", requests):
        factory = DatasetFactoryProvider.create_factory(DatasetType.FASHION, datadir=folder)
        factory.download_data()
        return _read_mads(factory.filepath)


def _from_torchvision() -> Arrays:
    from torchvision.datasets import FashionMNIST

    with tempfile.TemporaryDirectory() as folder, _quiet():
        return _read_idx(Path(FashionMNIST(folder, download=True).raw_folder))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep log lines and progress bars off the screen, and keep sockets from waiting forever."""
    from loguru import logger

    limit = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    logger.disable("mads_datasets")
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.enable("mads_datasets")
        socket.setdefaulttimeout(limit)


def _from_apt() -> Arrays:
    """Unpack Debian's package without root: apt's lists and cache are kept in a private folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for needed in ("lists/partial", "cache/archives/partial"):
            (folder / needed).mkdir(parents=True)
        options = [
            f"-oDir::State::lists={folder / 'lists'}",
            f"-oDir::Cache={folder / 'cache'}",
            f"-oAcquire::http::Timeout={PATIENCE}",
            f"-oAcquire::https::Timeout={PATIENCE}",
            "-oAcquire::Retries=0",
        ]
        # a broken third-party archive fails the update, though Debian's own lists have arrived
        with contextlib.suppress(LabError):
            _run("apt-get", *options, "update", folder=folder)
        _run("apt-get", *options, "download", DEBIAN_PACKAGE, folder=folder)
        (package,) = folder.glob("*.deb")
        _run("dpkg-deb", "-x", package.name, "content", folder=folder)
        return _read_idx(folder / "content" / DEBIAN_FOLDER.relative_to("/"))


def _run(tool: str, *arguments: str, folder: Path) -> None:
    program = shutil.which(tool)
    if program is None:
        raise LabError(f"{tool} is not on this machine.")
    done = subprocess.run(
        [program, *arguments],
        cwd=folder,
        env={**os.environ, "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=APT_LIMIT,
    )
    if done.returncode:
        raise LabError(f"{tool} says {(done.stderr.strip().splitlines() or ['nothing'])[-1]}.")


def _read_mads(file: Path) -> Arrays:
    content = torch.load(file, map_location="cpu", weights_only=True)
    return Arrays(*(content[published.key] for published in PUBLISHED))


def _read_idx(folder: Path) -> Arrays:
    train_images, train_labels, test_images, test_labels = (_read_idx_file(folder, one) for one in PUBLISHED)
    return Arrays(train_images, train_labels.long(), test_images, test_labels.long())


def _read_idx_file(folder: Path, published: Published) -> torch.Tensor:
    raw, packed = folder / published.idx, folder / f"{published.idx}.gz"
    if not raw.is_file() and not packed.is_file():
        raise LabError(f"there is no {raw.name} and no {packed.name} in {folder}.")
    try:
        content = bytearray(raw.read_bytes() if raw.is_file() else gzip.decompress(packed.read_bytes()))
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BadData(f"{packed.name} is not a complete gzip file.") from error
    header = _idx_header(published)
    if not content.startswith(header) or len(content) != len(header) + math.prod(published.shape):
        raise BadData(f"{published.idx} has the wrong header or length.")
    return torch.frombuffer(content, dtype=torch.uint8, offset=len(header)).reshape(published.shape)


def _keep(arrays: Arrays) -> None:
    """Write mads_datasets' file in one step, so that nobody ever reads half of it."""
    file = cache_file()
    # a name of its own, because two processes may be here at once
    part = file.with_name(f"{file.name}.{uuid.uuid4().hex}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save({one.key: array for one, array in zip(PUBLISHED, arrays, strict=True)}, part)
        part.replace(file)
    # torch.save turns a full disk into a RuntimeError
    except (OSError, RuntimeError) as error:
        log.warning(f"Fashion-MNIST could not be kept in {file}: {_reason(error)}")
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
