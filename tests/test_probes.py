"""Probes measure what happens inside a network, and change nothing in it."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cnnlab.config import BASE, Config, replace
from cnnlab.data import Data
from cnnlab.models import build_model
from cnnlab.probes import PROBE_IMAGES, read_grad_norms, read_probes
from cnnlab.training import Result, fit, streams

EVERYTHING = {"norm": "batch", "head_norm": "batch", "dropout": 0.3, "conv_dropout": 0.1, "residual": True}


def train(config: Config, data: Data, **options) -> Result:
    return fit(config, data, progress=False, device="cpu", **options)


def images_of(config: Config, data: Data, n: int) -> tuple[Tensor, Tensor]:
    """Return the first images of a run's training sample, with their labels."""
    generator = torch.Generator().manual_seed(streams(config.seed)["subset"])
    first = data.train.take(torch.randperm(len(data.train), generator=generator)[:n])
    return data.normaliser()(first.x), first.y


def outputs(model: nn.Sequential, x: Tensor) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the input and output of every layer, computed step by step in float64."""
    seen = {}
    with torch.no_grad():
        x = x.double()
        for part, layers in model.eval().double().named_children():
            for name, layer in layers.named_children():
                before, x = x, layer(x)
                seen[f"{part}.{name}"] = before.numpy(), x.numpy()
    model.float()
    return seen


def probes_of(metrics: dict[str, float]) -> dict[str, float]:
    kinds = ("activation_mean", "activation_sd", "dead_share", "grad_norm", "variance_ratio", "live_channels")
    return {name: value for name, value in metrics.items() if name.split("/")[0].startswith(kinds)}


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_activations_and_variances_are_those_of_a_forward_pass_by_hand(
    small: Config, small_data: Data, activation: str
) -> None:
    config = replace(small, norm="batch", head_norm="batch", dropout=0.5, activation=activation)
    result = train(config, small_data)
    ratios = {}
    for name, (x, out) in outputs(result.model, images_of(config, small_data, PROBE_IMAGES)[0]).items():
        if "activation" in name:
            assert result.epochs[-1][f"activation_mean/{name}"] == pytest.approx(out.mean(), rel=1e-4)
            assert result.epochs[-1][f"activation_sd/{name}"] == pytest.approx(out.std(), rel=1e-4)
        if "norm" in name:
            layer = result.model.get_submodule(name)
            now = np.moveaxis(x, 1, 0).reshape(x.shape[1], -1).var(axis=1, ddof=1)
            live = ((now + layer.eps) / (layer.running_var.numpy() + layer.eps))[now > layer.eps]
            ratios[name] = np.median(live)
            expected = {
                "variance_ratio": np.median(live),
                "variance_ratio_low": np.quantile(live, 0.25),
                "variance_ratio_high": np.quantile(live, 0.75),
                "live_channels": len(live),
            }
            read = {probe: result.epochs[-1][f"{probe}/{name}"] for probe in expected}
            assert read == pytest.approx(expected, rel=1e-4)
    assert list(ratios) == ["block1.norm1", "block2.norm1", "head.norm"]
    assert result.final["variance_ratio"] == pytest.approx(np.mean(list(ratios.values())), rel=1e-4)


def test_a_channel_is_dead_if_it_is_zero_for_all_images_and_positions() -> None:
    model = build_model(replace(BASE, blocks=((1, 8), (1, 8))))
    images = torch.randn(50, 1, 28, 28)
    bias = model.block1.conv1.bias.data
    bias.fill_(-100)
    assert read_probes(model, images)["dead_share/block1.activation1"] == 1.0
    bias[:6] = 100
    assert read_probes(model, images)["dead_share/block1.activation1"] == 0.25
    model.block1.conv1.weight.data[6].abs_().neg_()
    model.block1.conv1.weight.data[7].abs_()
    images[49, 0, 0, 0] = 1e6  # a single pixel activates the last channel
    assert read_probes(model, images)["dead_share/block1.activation1"] == 0.125


def test_dead_channels_do_not_affect_the_variance_ratio() -> None:
    """With 6 of 10 channels dead, the median of all channels is 1, regardless of the live ones."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(10), nn.ReLU())
    alive = torch.tensor([1.0] * 4 + [0.0] * 6)
    for _ in range(100):
        model(torch.randn(256, 10) * alive)
    read = read_probes(model, torch.randn(2_000, 10) * alive)
    assert read["variance_ratio/1"] == read["variance_ratio"] == pytest.approx(0.5, rel=0.1)
    assert read["variance_ratio_low/1"] <= read["variance_ratio/1"] <= read["variance_ratio_high/1"]
    assert read["live_channels/1"] == 4
    assert math.isnan(read_probes(model, torch.zeros(20, 10))["variance_ratio"])  # none is alive


def test_the_dead_share_of_a_network_is_that_of_its_worst_layer() -> None:
    model = build_model(replace(BASE, blocks=((1, 8), (1, 8))))
    images = torch.randn(50, 1, 28, 28)
    model.block1.conv1.bias.data[:2] = -100
    read = read_probes(model, images)
    assert read["dead_share"] == max(value for name, value in read.items() if name.startswith("dead_share/")) >= 0.25


@pytest.mark.parametrize("activation", ["leaky_relu", "gelu", "silu"])
def test_dead_channels_are_counted_only_where_an_activation_can_be_zero(activation: str) -> None:
    read = read_probes(build_model(replace(BASE, activation=activation)), torch.randn(4, 1, 28, 28))
    assert {name.split("/")[0] for name in read} == {"activation_mean", "activation_sd"}


@pytest.mark.parametrize("p", [0.0, 0.3, 0.5])
def test_the_variance_ratio_after_dropout_is_the_share_that_is_kept(p: float) -> None:
    """Inverted dropout of values with mean 0 divides their variance by 1 - p, in training only (Li et al. 2019)."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Dropout(p), nn.BatchNorm1d(16), nn.ReLU())
    for _ in range(100):
        model(torch.randn(256, 16))
    assert read_probes(model, torch.randn(2_000, 16))["variance_ratio"] == pytest.approx(1 - p, rel=0.1)


def test_dropout_before_batchnorm_shifts_the_variance_and_no_dropout_does_not(small: Config, small_data: Data) -> None:
    without = replace(small, norm="batch", head_norm="batch", epochs=8)
    dropout = replace(without, conv_dropout=0.5, conv_dropout_place="before_norm")
    plain, shifted = train(without, small_data).epochs[-1], train(dropout, small_data).epochs[-1]
    for layer in ("block1.norm1", "block2.norm1", "head.norm"):
        assert 0.85 < plain[f"variance_ratio/{layer}"] < 1.15
        assert shifted[f"variance_ratio/{layer}"] < 0.9
    assert shifted["variance_ratio"] < 0.9 < plain["variance_ratio"]


@pytest.mark.parametrize("norm", ["none", "layer", "group", "instance"])
def test_without_batchnorm_there_is_no_variance_ratio(norm: str) -> None:
    model = build_model(replace(BASE, norm=norm, head_norm="layer"))
    assert not any("variance_ratio" in name for name in read_probes(model, torch.randn(4, 1, 28, 28)))


def test_gradient_norms_are_over_weights_and_bias_of_each_layer() -> None:
    model = build_model(replace(BASE, norm="batch", head_norm="layer"))
    assert read_grad_norms(model) == {}  # before the first backward pass
    nn.functional.cross_entropy(model(torch.randn(20, 1, 28, 28)), torch.arange(20) % 10).backward()
    layers = [f"block{i}.{layer}1" for i in (1, 2, 3) for layer in ("conv", "norm")] + ["head.norm", "head.linear"]
    read = read_grad_norms(model)
    assert list(read) == [f"grad_norm/{layer}" for layer in layers]
    for layer in layers:
        own = model.get_submodule(layer)
        values = torch.cat([own.weight.grad.flatten(), own.bias.grad.flatten()]).double()
        assert read[f"grad_norm/{layer}"] == pytest.approx(math.sqrt((values**2).sum()), rel=1e-5)


def test_gradient_norms_of_an_epoch_are_those_of_its_last_batch(small: Config, small_data: Data) -> None:
    config = replace(
        small, train_images=80, epochs=1, optimizer="sgd", lr=1e-12, schedule="constant", precision="float32"
    )
    result = train(config, small_data)  # with the final weights
    result.model.zero_grad()
    x, y = images_of(config, small_data, 80)
    last = torch.randperm(80, generator=torch.Generator().manual_seed(streams(config.seed)["order"]))[64:]
    x, y = x[last], y[last]
    nn.functional.cross_entropy(result.model(x), y).backward()
    for layer in ("block1.conv1", "block2.conv1", "head.linear"):
        squares = sum((p.grad**2).sum().item() for p in result.model.get_submodule(layer).parameters())
        assert result.epochs[0][f"grad_norm/{layer}"] == pytest.approx(math.sqrt(squares), rel=1e-3)


@pytest.mark.parametrize("changes", [EVERYTHING, {"precision": "bf16"} | EVERYTHING, {"keep": "best", "patience": 2}])
def test_a_run_is_the_same_to_the_last_bit_without_probes(small: Config, small_data: Data, changes: dict) -> None:
    config = replace(small, blocks=((2, 8), (1, 8)), epochs=4, **changes)
    probed, plain = train(config, small_data), train(config, small_data, probes=False)
    pairs = zip(probed.model.state_dict().items(), plain.model.state_dict().items(), strict=True)
    for (name, one), (_, other) in pairs:
        assert torch.equal(one, other), name
    assert not any(probes_of(epoch) for epoch in [*plain.epochs, plain.final])
    for one, other in zip([*probed.epochs, probed.final], [*plain.epochs, plain.final], strict=True):
        assert set(one) - set(other) == set(probes_of(one))
        same = [name for name in other if not name.startswith("time/")]
        assert [one[name] for name in same] == [other[name] for name in same]
    assert probed.facts == plain.facts


def test_reading_leaves_the_network_as_it_was() -> None:
    model = build_model(replace(BASE, **EVERYTHING))
    model(torch.randn(20, 1, 28, 28)).sum().backward()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    grads = [p.grad.clone() for p in model.parameters()]
    random = torch.get_rng_state()
    for training in (True, False):
        model.train(training)
        read_probes(model, torch.zeros(4, 1, 28, 28))
        assert all(layer.training == training for layer in model.modules())
    with pytest.raises(RuntimeError):
        read_probes(model, torch.zeros(4, 3, 28, 28))  # also when it fails
    assert not any(layer._forward_hooks for layer in model.modules())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(p.grad, grad) for p, grad in zip(model.parameters(), grads, strict=True))


@pytest.mark.parametrize("keep", ["last", "best"])
def test_the_final_probes_are_those_of_the_kept_weights(small: Config, small_data: Data, keep: str) -> None:
    config = replace(small, norm="batch", keep=keep, epochs=6, lr=1.0, optimizer="sgd", schedule="constant", seed=2)
    config = replace(config, precision="float32")  # the same best epoch on every processor
    result = train(config, small_data)
    losses = [epoch["loss/valid"] for epoch in result.epochs]
    kept = losses.index(min(losses)) if keep == "best" else 5
    assert (kept < 5) == (keep == "best"), "choose a seed whose best epoch isn't the last"
    images, _ = images_of(config, small_data, PROBE_IMAGES)
    read = read_probes(result.model, images)
    summaries = {name: value for name, value in read.items() if "/" not in name}
    assert set(summaries) == {"variance_ratio", "dead_share"}
    assert probes_of(result.final) == pytest.approx(summaries, rel=1e-5)
    if keep == "last":
        assert result.final["variance_ratio"] == result.epochs[-1]["variance_ratio"]


def test_a_network_is_read_after_epochs_1_4_16_and_the_last(small: Config, small_data: Data) -> None:
    result = train(replace(small, epochs=18, train_images=16, batch_size=16), small_data)
    read = [epoch for epoch, metrics in enumerate(result.epochs, 1) if probes_of(metrics)]
    assert read == [1, 4, 16, 18]
    layers = ("block1.conv1", "block2.conv1", "head.linear")
    assert {f"grad_norm/{layer}" for layer in layers} <= set(result.epochs[0])


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_a_network_of_nan_ends_as_diverged_and_its_probes_are_nan(small: Config, small_data: Data, norm: str) -> None:
    result = train(replace(small, optimizer="sgd", lr=1e30, schedule="constant", norm=norm), small_data)
    assert result.outcome.startswith("diverged")
    assert math.isnan(result.final.get("variance_ratio", math.nan))
    images = torch.zeros(4, 1, 28, 28)
    read = read_probes(result.model, images)
    assert math.isnan(read["activation_mean/block2.activation1"])
    assert read["dead_share/block2.activation1"] == 0.0


def test_a_sample_smaller_than_the_probe_batch_is_read_whole(small: Config, small_data: Data) -> None:
    result = train(replace(small, train_images=8, batch_size=8, epochs=1, head_norm="batch"), small_data)
    assert math.isfinite(result.epochs[0]["variance_ratio/head.norm"])
