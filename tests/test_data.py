"""The split is fixed and stratified, batches lose nothing, and every reading of the test set is recorded."""

import inspect
from typing import Any

import pytest
import torch

import cnnlab.data
import cnnlab.fashion_mnist
from cnnlab.data import Batches, Data, Split, mean_and_sd
from cnnlab.fashion_mnist import Arrays
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.params import replace


def test_the_split_is_stratified_and_fixed(real_data: Data) -> None:
    assert real_data.train.y.bincount().tolist() == [5_500] * 10
    assert real_data.valid.y.bincount().tolist() == [500] * 10
    assert real_data.train.x.shape == (55_000, 1, 28, 28)
    assert real_data.train.x.dtype == torch.uint8
    # if this number changes, new runs can't be compared with any earlier ones
    assert real_data.valid.sha256().startswith("325b07c633ba2f7c")


def test_no_image_is_trained_and_validated_on(real_data: Data) -> None:
    # Fashion-MNIST contains a few images twice; only those may be on both sides
    train = {image.numpy().tobytes() for image in real_data.train.x}
    shared = sum(image.numpy().tobytes() in train for image in real_data.valid.x)
    both = torch.cat([real_data.train.x, real_data.valid.x]).flatten(1)
    twice = len(both) - len({image.numpy().tobytes() for image in both})
    assert shared <= twice < 60


def test_pixels_are_normalised(real_data: Data) -> None:
    x = real_data.normaliser()(real_data.train.x)
    assert x.mean().item() == pytest.approx(0, abs=0.005)
    assert x.std().item() == pytest.approx(1, abs=0.005)
    assert [values.tolist() for values in mean_and_sd(real_data.train)] == [[0.286], [0.353]]


def test_every_channel_is_normalised_separately() -> None:
    x = torch.cat([images(), images(seed=1) // 4, torch.full_like(images(), 7)], dim=1)
    y = Data(Split(x, LABELS), Split(images(seed=2).expand(-1, 3, -1, -1), LABELS)).normaliser()(x)
    assert y.mean((0, 2, 3)).tolist() == pytest.approx([0, 0, 0], abs=0.02)
    assert y.std((0, 2, 3)).tolist() == pytest.approx([1, 1, 0], abs=0.02)


def test_every_pass_has_every_image_once_in_a_new_order(small_data: Data) -> None:
    batches = Batches(small_data.valid, 50, small_data.normaliser(), torch.Generator().manual_seed(3))
    assert len(batches) == 5
    first, second = [torch.cat([x for x, _ in batches]) for _ in range(2)]
    assert not torch.equal(first, second)
    for one_pass in (first, second):
        assert torch.equal(one_pass.flatten(1).sum(1).sort().values, _sums(small_data))
    again = Batches(small_data.valid, 50, small_data.normaliser(), torch.Generator().manual_seed(3))
    assert torch.equal(torch.cat([x for x, _ in again]), first)


def _sums(data: Data) -> torch.Tensor:
    return data.normaliser()(data.valid.x).flatten(1).sum(1).sort().values


def test_without_a_generator_the_order_is_kept(small_data: Data) -> None:
    y = torch.cat([y for _, y in Batches(small_data.valid, 64, small_data.normaliser())])
    assert torch.equal(y, small_data.valid.y)


# What isn't data


def images(n: int = 20, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (n, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


LABELS = torch.arange(20) % 10


@pytest.mark.parametrize(
    ("x", "y", "hint"),
    [
        (images() / 255, LABELS, "the images are float32, and should be whole numbers from 0 to 255, such as"),
        (images().flatten(1), LABELS, r"should have the shape \(N, channels, height, width\), and have \(20, 784\)"),
        (images().permute(0, 2, 3, 1), LABELS, r"have \(20, 28, 28, 1\) \(for channels in the last place: x.permute"),
        (images().int() - 300, LABELS, "the images should lie between 0 and 255, and lie between -300 and -45"),
        (images(), LABELS[:15], r"20 images have labels of shape \(15,\): give each image one label"),
        (images(), LABELS - 1, "the labels should lie between 0 and 999, and lie between -1 and 8"),
        (images(), LABELS.float(), "the labels are float32, and should be whole numbers"),
        (images(), LABELS.unsqueeze(1), r"20 images have labels of shape \(20, 1\)"),
        (images(), ["T-shirt"] * 20, "the labels are <U7, and should be whole numbers"),
        (None, LABELS, "the images are object, and should be whole numbers"),
        ([[1, 2], [3]], LABELS, "the images are not an array"),
        (images() > 99, LABELS, "the images are bool, and should be whole numbers"),
        (images().numpy() + 0j, LABELS, "the images are complex"),
    ],
)
def test_what_cannot_be_used_as_images_or_labels_is_refused_in_one_sentence(x: Any, y: Any, hint: str) -> None:
    with pytest.raises(LabError, match=hint) as refused:
        Split(x, y)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("x", [images() / 255, (images() / 255).numpy(), images() > 127, (images() > 127).numpy()])
def test_the_message_about_refused_images_fixes_them(x: Any) -> None:
    with pytest.raises(LabError) as refused:
        Split(x, LABELS)
    fixed = eval(str(refused.value).partition("such as ")[2].rstrip("."), {"torch": torch, "x": x})
    assert int(Split(fixed, LABELS).x.max()) == 255


def test_what_can_be_converted_without_loss_is_converted() -> None:
    plain = Split(images(), LABELS)
    for x, y in (
        (images().numpy(), LABELS.numpy()),
        (images().squeeze(1), LABELS.to(torch.int32)),
        (images().int(), LABELS.to(torch.uint8)),
        (images().tolist(), LABELS.tolist()),
        (images().numpy().astype("uint16"), LABELS.numpy().astype(">i4")),
        (images().to(torch.uint16), LABELS.numpy().astype("uint32")),
        (images().flip(3).numpy()[..., ::-1], LABELS.numpy()[::-1][::-1]),
    ):
        split = Split(x, y)
        assert split.sha256() == plain.sha256()
        assert (split.x.dtype, split.y.dtype) == (torch.uint8, torch.int64)


def test_images_that_are_trained_and_validated_on_are_refused() -> None:
    train, valid = Split(images(), LABELS), Split(images(seed=1), LABELS)
    both = Split(torch.cat([train.x, valid.x[:3]]), torch.cat([train.y, valid.y[:3]]))
    with pytest.raises(LabError, match="3 of the 20 images in valid are in another set too"):
        Data(both, valid)
    assert Data((train.x, train.y), (valid.x, valid.y)).sha256() == Data(train, valid).sha256()
    for wrong in (None, "fashion", (train.x, train.y, 0)):
        with pytest.raises(LabError, match=r"valid is a \w+: give a Split, or a pair"):
            Data(train, wrong)
    with pytest.raises(LabError, match="the pixels lie between 0 and 1, and should lie between 0 and 255"):
        Data(Split(train.x // 128, train.y), valid)  # a network would stay at chance level on them
    with pytest.raises(
        LabError, match="valid is empty: data need at least one training image and one validation image"
    ):
        Data(train, Split(images(0), LABELS[:0]))
    with pytest.raises(LabError, match=r"all images should have one shape, and have .*\(1, 14, 28\)"):
        Data(train, Split(images(seed=1)[:, :, :14], LABELS))
    with pytest.raises(LabError, match="labels go up to 10, with 10 classes: label them 0, 1, 2, "):
        Data(Split(train.x, train.y + 1), Split(valid.x, valid.y + 1))
    with pytest.raises(LabError, match="20 of the 20 images in test are in another set too"):
        Data(train, valid, test=valid)


def test_classes_have_names() -> None:
    train, valid = Split(images(), LABELS), Split(images(seed=1), LABELS)
    assert Data(train, valid).classes == tuple("0123456789")
    named = Data(train, Split(valid.x, LABELS + 2), classes=tuple("abcdefghijkl"))
    assert replace(named, valid=valid).classes == tuple("abcdefghijkl")


def test_the_fingerprint_covers_images_and_labels_of_both_parts() -> None:
    train, valid = Split(images(), LABELS), Split(images(seed=1), LABELS)
    hashes = [
        Data(train, valid).sha256(),
        Data(Split(train.x.flip(3), train.y), valid).sha256(),
        Data(Split(train.x, train.y.roll(1)), valid).sha256(),
        Data(train, Split(valid.x, valid.y.roll(1))).sha256(),
        Data(valid, train).sha256(),
        Data(Split(train.x.view(20, 1, 14, 56), train.y), Split(valid.x.view(20, 1, 14, 56), valid.y)).sha256(),
        Data(train, valid, classes=tuple("abcdefghijkl")).sha256(),
    ]
    assert len(set(hashes)) == len(hashes)


# The test images


def test_no_public_name_gives_the_test_images_without_a_record() -> None:
    """Only `read_test_set` does, which records who reads them and why."""
    public = [
        value
        for module in (cnnlab.data, cnnlab.fashion_mnist)
        for name, value in vars(module).items()
        if name[0] != "_"
    ]
    functions = [value for value in public if inspect.isfunction(value)]
    assert {f.__name__ for f in functions if inspect.signature(f).return_annotation in (Arrays, Split)} == set()
