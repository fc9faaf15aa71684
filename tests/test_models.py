"""Networks match their Config."""

import pytest
import torch
from torch import nn

from cnnlab.config import BASE, BEST, replace
from cnnlab.facts import num_parameters
from cnnlab.inquiry.params import ConfigError
from cnnlab.models import ACTIVATIONS, HEAD_NORMS, NORMS, build_model, conv_block
from cnnlab.tables import layer_summary


def names(model: nn.Module) -> list[str]:
    return [type(layer).__name__ for layer in model.modules() if not list(layer.children())]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_network_maps_images_to_ten_logits(norm: str, activation: str) -> None:
    config = replace(BASE, norm=norm, activation=activation, blocks=((1, 8), (2, 16), (1, 16), (1, 24)), kernel_size=5)
    assert build_model(config)(torch.randn(3, 1, 28, 28)).shape == (3, 10)
    assert build_model(config, channels=3, num_classes=7)(torch.randn(2, 3, 16, 40)).shape == (2, 7)


def test_every_normalisation_adds_the_same_parameters() -> None:
    plain = num_parameters(build_model(BASE))
    added = {norm: num_parameters(build_model(replace(BASE, norm=norm))) - plain for norm in NORMS}
    assert added == {"none": 0} | dict.fromkeys(("batch", "layer", "group", "instance"), 2 * (32 + 64 + 64))


def test_layer_normalisation_is_over_the_whole_image() -> None:
    x = 5 + 3 * torch.randn(4, 8, 6, 6)
    out = NORMS["layer"](8, 2)(x)
    assert out.mean(dim=(1, 2, 3)).abs().max() < 1e-5
    assert out.mean(dim=(2, 3)).abs().max() > 0.01  # but not over each channel


def test_a_run_without_normalisation_has_none() -> None:
    assert not any("Norm" in name for name in names(build_model(BASE)))


@pytest.mark.parametrize(("head_norm", "layer"), [("batch", "BatchNorm1d"), ("layer", "LayerNorm")])
def test_the_head_normalises_between_flatten_and_dropout(head_norm: str, layer: str) -> None:
    model = build_model(replace(BASE, head_norm=head_norm, dropout=0.3))
    assert names(model)[-4:] == ["Flatten", layer, "Dropout", "Linear"]
    assert num_parameters(model) - num_parameters(build_model(BASE)) == 2 * 64


def test_without_a_head_norm_the_head_has_no_layer_for_it() -> None:
    assert names(build_model(BASE).head) == ["AdaptiveAvgPool2d", "Flatten", "Linear"]
    assert not any(key.startswith("head.norm") for key in build_model(BASE).state_dict())


def test_the_head_norms_take_their_statistics_over_the_batch_or_over_one_image() -> None:
    x = 5 + 3 * torch.randn(50, 8)
    over_batch, over_image = HEAD_NORMS["batch"](8)(x), HEAD_NORMS["layer"](8)(x)
    assert over_batch.mean(dim=0).abs().max() < 1e-5 < over_batch.mean(dim=1).abs().max()
    assert over_image.mean(dim=1).abs().max() < 1e-5 < over_image.mean(dim=0).abs().max()


def test_dropout_is_where_the_config_says() -> None:
    assert not any("Dropout" in name for name in names(build_model(BASE)))
    head = build_model(replace(BASE, dropout=0.3))
    assert names(head)[-2:] == ["Dropout", "Linear"]
    assert [m.p for m in head.modules() if isinstance(m, nn.Dropout)] == [0.3]
    before = replace(
        BASE, norm="batch", conv_dropout=0.2, conv_dropout_place="before_norm", conv_dropout_kind="spatial"
    )
    assert names(build_model(before))[:3] == ["Conv2d", "Dropout2d", "BatchNorm2d"]
    after = replace(before, conv_dropout_place="after_norm", conv_dropout_kind="element")
    assert names(build_model(after))[:5] == ["Conv2d", "BatchNorm2d", "MaxPool2d", "ReLU", "Dropout"]


def test_pooling_before_or_after_relu_gives_the_same_maps() -> None:
    block = conv_block(1, 8, convs=1, config=replace(BASE, norm="batch"))
    x = torch.randn(5, 1, 28, 28)
    late = nn.Sequential(block.conv1, block.norm1, block.activation1, block.pool)
    assert torch.equal(block.eval()(x), late.eval()(x))


@pytest.mark.parametrize(
    ("pool", "place", "order"),
    [
        ("after_norm", "after_norm", ["BatchNorm2d", "MaxPool2d", "ReLU", "Dropout"]),
        ("after_norm", "before_norm", ["Dropout", "BatchNorm2d", "MaxPool2d", "ReLU"]),
        ("first", "after_norm", ["MaxPool2d", "BatchNorm2d", "ReLU", "Dropout"]),
        ("first", "before_norm", ["MaxPool2d", "Dropout", "BatchNorm2d", "ReLU"]),
        ("last", "after_norm", ["BatchNorm2d", "ReLU", "Dropout", "MaxPool2d"]),
        ("last", "before_norm", ["Dropout", "BatchNorm2d", "ReLU", "MaxPool2d"]),
    ],
)
def test_pooling_and_dropout_are_where_the_config_says(pool: str, place: str, order: list[str]) -> None:
    config = replace(BASE, blocks=((2, 8),), norm="batch", conv_dropout=0.2, pool=pool, conv_dropout_place=place)
    found = names(build_model(config))
    unpooled = [name for name in order if name != "MaxPool2d"]  # the first of the two convolutions
    assert found[:9] == ["Conv2d", *unpooled, "Conv2d", *order]


def test_pooling_first_cannot_be_combined_with_a_residual_sum() -> None:
    with pytest.raises(ConfigError, match="residual=True can't go with pool='first'"):
        replace(BASE, residual=True, pool="first")


def test_depth_is_the_number_of_convolutions() -> None:
    model = build_model(replace(BASE, blocks=((1, 8), (3, 16))))
    assert names(model).count("Conv2d") == 4
    assert names(model).count("MaxPool2d") == 2


def test_the_summary_shows_shapes_and_all_parameters() -> None:
    model = build_model(BASE)
    summary = layer_summary(model)
    assert summary.loc["block1.conv1", "output"] == (32, 28, 28)
    assert summary.loc["head.linear", "output"] == (10,)
    assert summary["parameters"].sum() == num_parameters(model) == 56_394
    assert model.training  # unchanged


def test_the_summary_leaves_batchnorm_statistics_alone() -> None:
    model = build_model(replace(BASE, norm="batch"))
    before = model.block1.norm1.running_mean.clone()
    layer_summary(model)
    assert torch.equal(model.block1.norm1.running_mean, before)


def test_best_has_less_than_100_000_parameters_and_base_is_plain() -> None:
    assert 90_000 < num_parameters(build_model(BEST)) < 100_000
    assert num_parameters(build_model(BASE)) == 56_394
    assert (BASE.norm, BASE.dropout, BASE.conv_dropout, BASE.label_smoothing) == ("none", 0.0, 0.0, 0.0)
