"""Renewed statistics of BatchNorm are those of the images in eval mode; the weights are unchanged."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from cnnlab.config import BASE, replace
from cnnlab.course.renewed import BATCH, accuracy, renew_statistics, renewed_accuracies, trained_network
from cnnlab.data import Data
from cnnlab.inquiry.record.connection import connect
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.study import Study
from cnnlab.models import build_model
from tests.helpers import SMALL_DATA, load_weights, predicted, settle, small_study, spare_figures

SMALL = replace(BASE, blocks=((1, 8), (1, 8)), train_images=320, epochs=2, batch_size=32, lr=0.01)
SHIFTED = {"norm": "batch", "conv_dropout": 0.5, "conv_dropout_place": "before_norm"}
ARMS = {"plain": SMALL, "norm": replace(SMALL, norm="batch"), "shifted": replace(SMALL, **SHIFTED)}
STUDY = small_study("shift", "?", SMALL, (0, 1), arms=ARMS)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, small_data: Data) -> Iterator[Store]:
    with pytest.MonkeyPatch.context() as patch:
        spare_figures(patch)
        settle(patch, tmp_path_factory.mktemp("my lab"))
        opened = connect()
        predicted(STUDY).run(opened, progress=False)
        yield opened


def seen_by(network: nn.Module, norm: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Return the input of a norm in eval mode."""
    seen = []
    handle = norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        network(images)
    handle.remove()
    return seen[0]


def test_the_first_norm_has_mean_and_variance_of_what_it_sees_with_dropout_off() -> None:
    torch.manual_seed(0)
    network = build_model(ARMS["shifted"]).eval()
    before = {name: value.clone() for name, value in network.named_parameters()}
    images = torch.randn(BATCH, 1, 28, 28)
    renew_statistics(network, images)
    assert not any(layer.training for layer in network.modules())
    norm = network.block1.norm1
    values = seen_by(network, norm, images).transpose(0, 1).flatten(1)
    assert torch.allclose(norm.running_mean, values.mean(1), atol=1e-5)
    assert torch.allclose(norm.running_var, values.var(1), rtol=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in network.named_parameters())


def test_several_batches_count_equally() -> None:
    torch.manual_seed(0)
    network = build_model(ARMS["norm"]).eval()
    images = torch.randn(3 * BATCH, 1, 28, 28)
    renew_statistics(network, images)
    parts = [seen_by(network, network.block1.norm1, x).transpose(0, 1).flatten(1) for x in images.split(BATCH)]
    assert torch.allclose(network.block1.norm1.running_var, torch.stack([x.var(1) for x in parts]).mean(0), rtol=1e-4)


def test_a_trained_network_is_that_of_the_run(store: Store) -> None:
    run = STUDY.results(store).iloc[-1]
    network = trained_network(run, store, SMALL_DATA)
    weights = load_weights(store, run["run_id"])
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())
    assert accuracy(network, SMALL_DATA) == pytest.approx(100 * run["accuracy/valid"])


def test_the_table_has_the_arms_with_batch_norm_and_what_the_new_statistics_change(store: Store) -> None:
    runs = STUDY.results(store)
    table = renewed_accuracies(STUDY, runs, SMALL_DATA, store)
    assert list(table.index) == ["norm", "shifted"] and list(table["n"]) == [2, 2]
    for arm, row in table.iterrows():
        some = runs[runs["arm"] == arm]
        assert row["as trained (%)"] == pytest.approx(100 * some["accuracy/valid"].mean())
        renewed = []
        for _, run in some.iterrows():
            network = trained_network(run, store, SMALL_DATA)
            renew_statistics(network, SMALL_DATA.normaliser()(SMALL_DATA.train.x))
            renewed.append(accuracy(network, SMALL_DATA))
        assert row["with new statistics (%)"] == pytest.approx(sum(renewed) / 2)
    assert table.loc["shifted", "with new statistics (%)"] > table.loc["shifted", "as trained (%)"]


def test_an_arm_without_batch_norm_is_left_out_and_one_without_weights_says_so(store: Store) -> None:
    plain = Study("plain", "?", SMALL, (0, 1), arms={"plain": SMALL}, data=SMALL_DATA)
    assert renewed_accuracies(plain, STUDY.results(store)[lambda runs: runs["arm"] == "plain"], SMALL_DATA, store).empty
    lost = STUDY.results(store).assign(run_id="0" * 32, reused_from="")
    table = renewed_accuracies(STUDY, lost, SMALL_DATA, store)
    assert set(table["change (pp)"]) == {"no weights in the store"} and set(table["n"]) == {0}
    runs = STUDY.results(store)
    one = runs.assign(run_id=runs["run_id"].where(runs["seed"] == 0, "0" * 32), reused_from="")
    assert list(renewed_accuracies(STUDY, one, SMALL_DATA, store)["n"]) == [1, 1]
