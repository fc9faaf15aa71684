"""The split is fixed and stratified, batches lose nothing, and the test set is read on the record only."""

import pytest
import torch

from cnnlab.data import Batches, Data, normalise, read_test
from cnnlab.errors import LabError


def test_the_split_is_stratified_and_fixed(real_data: Data) -> None:
    assert real_data.train.y.bincount().tolist() == [5_500] * 10
    assert real_data.valid.y.bincount().tolist() == [500] * 10
    assert real_data.train.x.shape == (55_000, 1, 28, 28)
    assert real_data.train.x.dtype == torch.uint8
    # a change of this number makes all runs made before incomparable
    assert real_data.valid.sha256().startswith("325b07c633ba2f7c")


def test_no_image_is_trained_and_validated_on(real_data: Data) -> None:
    # Fashion-MNIST holds a few images twice; those alone may be on both sides
    train = {image.numpy().tobytes() for image in real_data.train.x}
    shared = sum(image.numpy().tobytes() in train for image in real_data.valid.x)
    both = torch.cat([real_data.train.x, real_data.valid.x]).flatten(1)
    twice = len(both) - len({image.numpy().tobytes() for image in both})
    assert shared <= twice < 60


def test_pixels_are_normalised(real_data: Data) -> None:
    x = normalise(real_data.train.x)
    assert x.mean().item() == pytest.approx(0, abs=0.005)
    assert x.std().item() == pytest.approx(1, abs=0.005)


def test_every_pass_has_every_image_once_in_a_new_order(small_data: Data) -> None:
    batches = Batches(small_data.valid, 50, torch.Generator().manual_seed(3))
    assert len(batches) == 5
    first, second = [torch.cat([x for x, _ in batches]) for _ in range(2)]
    assert not torch.equal(first, second)
    for one_pass in (first, second):
        assert torch.equal(one_pass.flatten(1).sum(1).sort().values, _sums(small_data))
    again = Batches(small_data.valid, 50, torch.Generator().manual_seed(3))
    assert torch.equal(torch.cat([x for x, _ in again]), first)


def _sums(data: Data) -> torch.Tensor:
    return normalise(data.valid.x).flatten(1).sum(1).sort().values


def test_without_a_generator_the_order_stays(small_data: Data) -> None:
    y = torch.cat([y for _, y in Batches(small_data.valid, 64)])
    assert torch.equal(y, small_data.valid.y)


def test_the_test_set_is_read_only_after_it_is_recorded() -> None:
    recorded: list[str] = []
    test = read_test(recorded.append, reason="a test of the lock", say=lambda line: None)
    assert recorded == ["a test of the lock"]
    assert test.x.shape == (10_000, 1, 28, 28)


def test_without_a_reason_the_test_set_stays_locked() -> None:
    with pytest.raises(LabError, match="say why"):
        read_test(lambda reason: None, reason="  ")


def test_what_cannot_be_recorded_is_not_read() -> None:
    def broken(reason: str) -> None:
        raise OSError("no store")

    with pytest.raises(OSError, match="no store"):
        read_test(broken, reason="curiosity")
