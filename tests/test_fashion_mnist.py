"""The sources of the data: the real arrays, real files, and a network that is real, local or dead."""

import gzip
import hashlib
import shutil
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from loguru import logger

from cnnlab import fashion_mnist
from cnnlab.fashion_mnist import Arrays, BadData, _load_arrays, cache_file, check
from cnnlab.inquiry.errors import LabError

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


@pytest.fixture(scope="session")
def arrays() -> Arrays:
    return _load_arrays()


@pytest.fixture(scope="session")
def raw_folder(arrays: Arrays, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("four raw files")
    for name, array in zip(NAMES, arrays, strict=True):
        sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
        content = bytes([0, 0, 8, array.dim()]) + sizes + array.to(torch.uint8).numpy().tobytes()
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(scope="session")
def packed_folder(raw_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("four packed files")
    for name in NAMES:
        (folder / f"{name}.gz").write_bytes(gzip.compress((raw_folder / name).read_bytes(), compresslevel=1))
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of the future file in an empty cache for this test."""
    monkeypatch.setenv("CNNLAB_CACHE", str(tmp_path / "my cache"))
    monkeypatch.delenv("CNNLAB_DATA", raising=False)
    return cache_file()


@pytest.fixture
def bare_machine(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No cache, no Debian folder, no apt, no network."""
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "no such folder")
    monkeypatch.setenv("PATH", str(tmp_path / "no tools"))
    use_proxy(monkeypatch, "http://127.0.0.1:9")


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], str]]:
    """Yield a function that serves a folder and returns its address."""
    servers: list[ThreadingHTTPServer] = []

    def start(folder: Path) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SilentHandler, directory=str(folder)))
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_address[1]}/"

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


class SilentHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Print nothing: the tests check what is printed."""


def use_proxy(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, address)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    urllib.request.install_opener(None)  # it remembers the proxies of its first use


def same(one: Arrays, other: Arrays) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def changed(arrays: Arrays, field: str, change: Callable[[torch.Tensor], object]) -> Arrays:
    copy = getattr(arrays, field).clone()
    change(copy)
    return arrays._replace(**{field: copy})


def write_mads(arrays: Arrays, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(dict(zip(("traindata", "trainlabels", "testdata", "testlabels"), arrays, strict=True)), file)


# --- the content ---


def test_one_flipped_pixel_is_noticed(arrays: Arrays) -> None:
    def flip(images: torch.Tensor) -> None:
        images[1234, 14, 14] ^= 1

    for field in ("train_images", "test_images"):
        with pytest.raises(BadData, match=f"{field}, .* is not .* as it was published"):
            check(changed(arrays, field, flip))


@pytest.mark.parametrize("label", [10, -1, 256])
def test_a_label_that_is_not_a_class_is_noticed(arrays: Arrays, label: int) -> None:
    labels = arrays.train_labels.long()
    wrong = arrays._replace(train_labels=torch.where(labels == 0, label, labels))
    with pytest.raises(BadData, match=r"train_labels, .* as it was published"):
        check(wrong)


def test_two_exchanged_labels_are_noticed_although_the_counts_are_right(arrays: Arrays) -> None:
    def exchange(labels: torch.Tensor) -> None:
        other = int((labels != labels[0]).nonzero()[0])
        labels[[0, other]] = labels[[other, 0]]

    with pytest.raises(BadData, match=r"train_labels, .* as it was published"):
        check(changed(arrays, "train_labels", exchange))


def test_wrong_shapes_and_types_are_noticed(arrays: Arrays) -> None:
    with pytest.raises(BadData, match=r"test_images, \(9999, 28, 28\) of torch.uint8, is not t10k-images"):
        check(arrays._replace(test_images=arrays.test_images[1:]))
    with pytest.raises(BadData, match=r"train_images, \(60000, 28, 28\) of torch\.float32, is not"):
        check(arrays._replace(train_images=arrays.train_images.float()))


def test_labels_may_be_uint8_or_int64(arrays: Arrays) -> None:
    for kind in (torch.uint8, torch.int64):
        check(arrays._replace(train_labels=arrays.train_labels.to(kind), test_labels=arrays.test_labels.to(kind)))


# --- the cache ---


def test_an_empty_machine_fetches_the_data_once_and_leaves_apts_lists_alone(
    cache: Path, arrays: Arrays, said: list[str]
) -> None:
    lists_of_apt = Path("/var/lib/apt/lists")
    before = {file: file.stat().st_mtime_ns for file in lists_of_apt.glob("*")}
    said.clear()
    assert same(_load_arrays(), arrays)
    assert {file: file.stat().st_mtime_ns for file in lists_of_apt.glob("*")} == before
    assert "not from the cache: there is no" in said[0]
    assert said[-1].startswith("Fashion-MNIST from ")
    assert [file.name for file in cache.parent.iterdir()] == ["fashionmnist.pt"]
    said.clear()
    assert same(_load_arrays(), arrays)
    assert said == []  # from the cache


def test_a_cache_cut_in_half_is_reported_and_replaced(
    cache: Path, arrays: Arrays, raw_folder: Path, said: list[str]
) -> None:
    write_mads(arrays, cache)
    half = cache.read_bytes()[: cache.stat().st_size // 2]
    cache.write_bytes(half)
    said.clear()
    assert same(_load_arrays(raw_folder), arrays)
    assert said[0].startswith("Fashion-MNIST not from the cache: RuntimeError")
    assert said[1] == f"Fashion-MNIST from {raw_folder}."
    assert same(_load_arrays(), arrays)
    assert said[2:] == []  # from the cache


def test_a_cache_with_other_content_is_reported_and_replaced(
    cache: Path, arrays: Arrays, raw_folder: Path, said: list[str]
) -> None:
    write_mads(changed(arrays, "train_images", lambda images: images[0].zero_()), cache)
    said.clear()
    assert same(_load_arrays(raw_folder), arrays)
    assert "train_images, " in said[0]
    check(_load_arrays())


@pytest.mark.usefixtures("bare_machine")
def test_a_broken_cache_is_kept_until_there_is_a_better_one(cache: Path) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_bytes(b"half a file")
    with pytest.raises(LabError):
        _load_arrays()
    assert cache.read_bytes() == b"half a file"


def test_a_cache_that_cannot_be_written_is_reported_and_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arrays: Arrays, raw_folder: Path, said: list[str]
) -> None:
    (tmp_path / "a file").touch()
    monkeypatch.setenv("CNNLAB_CACHE", str(tmp_path / "a file"))
    said.clear()
    assert same(_load_arrays(raw_folder), arrays)
    assert "could not be kept" in said[-1]


def test_a_cache_that_cannot_be_replaced_leaves_no_litter(
    cache: Path, arrays: Arrays, raw_folder: Path, said: list[str]
) -> None:
    cache.mkdir(parents=True)  # a folder instead of the file
    said.clear()
    assert same(_load_arrays(raw_folder), arrays)
    assert "could not be kept" in said[-1]
    assert list(cache.parent.iterdir()) == [cache]


def test_a_reader_never_finds_half_a_cache_while_others_write_it(cache: Path, arrays: Arrays, said: list[str]) -> None:
    write_mads(arrays, cache)
    keep = partial(fashion_mnist._keep, arrays)
    writers = [threading.Thread(target=lambda: [keep() for _ in range(4)]) for _ in range(3)]
    for writer in writers:
        writer.start()
    reads = 0
    while any(writer.is_alive() for writer in writers) or not reads:
        check(fashion_mnist._read_mads(cache))
        reads += 1
    for writer in writers:
        writer.join()
    assert said == []
    assert [file.name for file in cache.parent.iterdir()] == ["fashionmnist.pt"]


@pytest.mark.usefixtures("bare_machine")
def test_mads_datasets_reads_our_cache_without_a_network(cache: Path, arrays: Arrays, raw_folder: Path) -> None:
    from mads_datasets import DatasetFactoryProvider, DatasetType

    _load_arrays(raw_folder)
    factory = DatasetFactoryProvider.create_factory(DatasetType.FASHION, datadir=cache.parents[1])
    datasets = factory.create_dataset()
    assert len(datasets["train"]) == 60_000
    assert len(datasets["valid"]) == 10_000
    image, label = datasets["train"][59_999]
    assert torch.equal(image[0], arrays.train_images[59_999] / 255)
    assert int(label) == int(arrays.train_labels[59_999])


# --- files on this machine ---


@pytest.mark.usefixtures("bare_machine")
@pytest.mark.parametrize(("kind", "way"), [("raw_folder", "CNNLAB_DATA"), ("packed_folder", "argument")])
def test_a_folder_given_by_the_user_is_used(
    kind: str,
    way: str,
    arrays: Arrays,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    said: list[str],
) -> None:
    folder = request.getfixturevalue(kind)
    if way == "CNNLAB_DATA":
        monkeypatch.setenv("CNNLAB_DATA", str(folder))
    said.clear()
    assert same(_load_arrays(folder if way == "argument" else None), arrays)
    assert said[-1] == f"Fashion-MNIST from {folder}."


def test_a_missing_file_in_the_users_folder_is_named_and_nothing_else_is_tried(
    cache: Path, tmp_path: Path, raw_folder: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(raw_folder, folder)
    (folder / NAMES[3]).unlink()
    monkeypatch.setenv("CNNLAB_DATA", str(folder))
    said.clear()
    with pytest.raises(LabError, match="t10k-labels-idx1-ubyte") as caught:
        _load_arrays()
    assert str(folder) in str(caught.value)
    assert all(name in str(caught.value) for name in NAMES)
    assert len(said) == 1  # the empty cache
    assert not cache.exists()


@pytest.mark.usefixtures("cache")
def test_a_half_downloaded_or_foreign_file_in_the_users_folder_is_named(tmp_path: Path, packed_folder: Path) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(packed_folder, folder)
    packed = folder / f"{NAMES[0]}.gz"
    packed.write_bytes(packed.read_bytes()[:100_000])
    with pytest.raises(LabError, match=r"train-images-idx3-ubyte\.gz is not a complete gzip file"):
        _load_arrays(folder)
    packed.write_bytes(b"<html>not found</html>")
    with pytest.raises(LabError, match=r"train-images-idx3-ubyte\.gz is not a complete gzip file"):
        _load_arrays(folder)
    shutil.copy(folder / f"{NAMES[2]}.gz", packed)
    with pytest.raises(LabError, match="train-images-idx3-ubyte has the wrong header or length"):
        _load_arrays(folder)


@pytest.mark.usefixtures("cache")
def test_files_of_the_right_size_with_other_content_are_refused(tmp_path: Path, raw_folder: Path) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(raw_folder, folder)
    file = folder / NAMES[2]
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(
        LabError, match=r"mine cannot be used \(test_images, .* is not t10k-images-idx3-ubyte as it was published"
    ):
        _load_arrays(folder)
    content[2] = 13  # in an IDX file: floats instead of bytes
    file.write_bytes(content)
    with pytest.raises(LabError, match="t10k-images-idx3-ubyte has the wrong header"):
        _load_arrays(folder)


@pytest.mark.usefixtures("bare_machine")
def test_the_folder_of_the_debian_package_is_used_if_it_is_installed(
    arrays: Arrays, packed_folder: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", packed_folder)
    said.clear()
    assert same(_load_arrays(), arrays)
    assert said[-1] == "Fashion-MNIST from Debian's folder."


# --- the network ---


@pytest.mark.usefixtures("bare_machine")
def test_the_empty_folder_of_a_failed_download_is_no_obstacle(
    cache: Path,
    said: list[str],
    arrays: Arrays,
    tmp_path: Path,
    serve: Callable[[Path], str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    from mads_datasets.settings import fashionmnistsettings

    file = tmp_path / "served" / "fashionmnist.pt"
    write_mads(arrays, file)
    monkeypatch.setattr(fashionmnistsettings, "dataset_url", serve(file.parent) + file.name)
    monkeypatch.setattr(fashionmnistsettings, "digest", hashlib.md5(file.read_bytes()).hexdigest())
    cache.parent.mkdir(parents=True)
    said.clear()
    logged: list[str] = []
    sink = logger.add(logged.append)
    assert same(_load_arrays(), arrays)
    logger.remove(sink)
    assert said[-1] == "Fashion-MNIST from the download of mads_datasets."
    shown = capfd.readouterr()
    assert (shown.out.splitlines(), shown.err) == (said, "")
    assert logged == []
    check(fashion_mnist._read_mads(cache))


@pytest.mark.usefixtures("bare_machine")
def test_the_mirror_of_torchvision_is_tried_next(
    arrays: Arrays,
    said: list[str],
    packed_folder: Path,
    serve: Callable[[Path], str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    from torchvision.datasets import FashionMNIST

    files = sorted(packed_folder.iterdir())
    sums = [(file.name, hashlib.md5(file.read_bytes()).hexdigest()) for file in files]
    monkeypatch.setattr(FashionMNIST, "mirrors", [serve(packed_folder)])
    monkeypatch.setattr(FashionMNIST, "resources", sums)
    said.clear()
    assert same(_load_arrays(), arrays)
    assert "not from the download of mads_datasets: ProxyError" in said[-2]
    assert said[-1] == "Fashion-MNIST from the mirror of torchvision."
    shown = capfd.readouterr()
    assert (shown.out.splitlines(), shown.err) == (said, "")


@pytest.mark.usefixtures("cache")
def test_a_network_that_never_answers_does_not_hang_the_lab(monkeypatch: pytest.MonkeyPatch, said: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        use_proxy(monkeypatch, f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(fashion_mnist, "PATIENCE", 0.2)
        said.clear()

        def ask_both() -> None:
            for read in (fashion_mnist._from_mads, fashion_mnist._from_torchvision):
                fashion_mnist._attempt("it", read)

        asking = threading.Thread(target=ask_both, daemon=True)
        asking.start()
        asking.join(timeout=20)
    assert len(said) == 2
    assert all("time" in line.lower() for line in said)
    assert socket.getdefaulttimeout() is None


@pytest.mark.usefixtures("bare_machine")
def test_one_error_says_what_to_do_if_nothing_can_be_reached(cache: Path, said: list[str]) -> None:
    with pytest.raises(LabError) as caught:
        _load_arrays()
    ways = ("internet", "cnnlab doctor", "CNNLAB_DATA", "sudo apt-get install dataset-fashion-mnist", str(cache))
    assert all(way in str(caught.value) for way in ways)
    assert "\n" not in str(caught.value)
    tried = ("the cache", "Debian's folder", "mads_datasets", "torchvision", "the Debian package")
    failed = [line for line in said if " not from " in line]
    assert all(name in line for name, line in zip(tried, failed, strict=True))
    assert "apt-get is not on this machine" in failed[-1]
    assert not cache.exists()
