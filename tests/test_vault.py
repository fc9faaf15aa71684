"""The test vault: every opening is recorded and computed from the weights, with an interval over seeds and images."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from cnnlab.config import BASE, replace
from cnnlab.data import Batches, Data
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.judge import vault
from cnnlab.inquiry.judge.statistics import optimism, t_interval
from cnnlab.inquiry.judge.vault import Opening, open_vault
from cnnlab.inquiry.paths import models_folder
from cnnlab.inquiry.record.connection import connect
from cnnlab.inquiry.record.environment import owner
from cnnlab.inquiry.record.runs import load_runs
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.record.vault_record import load_vault, num_readings, read_test_set, record_test_result
from cnnlab.inquiry.run.runner import run_study
from cnnlab.inquiry.study import Study
from cnnlab.models import build_model
from cnnlab.scores import Score
from cnnlab.task import LAB
from tests.helpers import SMALL_DATA, load_weights, settle, spare_figures

pytestmark = pytest.mark.usefixtures("light")

TINY = replace(BASE, blocks=((1, 8), (1, 8)), train_images=640, epochs=2, batch_size=32, lr=0.01)
NORM = Study("norm", "?", TINY, (0, 1), {"norm": ("none", "batch")})
# The same runs in another order, taken over from the first study.
LATER = Study("later", "?", TINY, (1, 0), arms={"plain": TINY, "norm": replace(TINY, norm="batch")})
FIRST = {"plain": (NORM, "norm=none"), "batch norm": (NORM, "norm=batch")}
SECOND = {"plain": (NORM, "norm=none"), "all": (LATER, "norm")}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, real_data: Data) -> Iterator[Store]:
    with pytest.MonkeyPatch.context() as patch:
        spare_figures(patch)
        settle(patch, tmp_path_factory.mktemp("my lab"))
        opened = connect()
        for study in (NORM, LATER):
            run_study(study, opened, progress=False, explore=True)
        yield opened


@pytest.fixture(scope="module")
def openings(store: Store) -> tuple[Opening, Opening]:
    first = open_vault(FIRST, "the final claim", store)
    return first, open_vault(SECOND, "curious about the rest", store)


@pytest.mark.parametrize(
    ("arms", "reason", "hint"),
    [
        ({}, "why not", "name at least one arm"),
        (FIRST, "  ", "say why you open it"),
        ({"x": (NORM, "norm=layer")}, "why not", "norm has no arm 'norm=layer': choose from norm=none, norm=batch"),
        ({"x": (dataclasses.replace(NORM, seeds=(0,)), "norm=none")}, "why not", "1 finished runs.*at least two seeds"),
        ({"x": (dataclasses.replace(NORM, seeds=(7, 8)), "norm=none")}, "why not", "0 finished runs"),
        ({"x": (dataclasses.replace(NORM, data=SMALL_DATA), "norm=none")}, "why not", "0 finished runs"),
    ],
)
def test_an_impossible_claim_leaves_the_vault_shut(store: Store, arms: dict, reason: str, hint: str) -> None:
    before = num_readings(store)
    with pytest.raises(LabError, match=hint):
        open_vault(arms, reason, store)
    assert num_readings(store) == before


def test_arms_without_two_seeds_in_common_leave_it_shut(store: Store, real_data: Data) -> None:
    other = Study("other seeds", "?", TINY, (1, 2), arms={"plain": TINY})
    run_study(other, store, progress=False, explore=True)
    before = num_readings(store)
    with pytest.raises(LabError, match="other and plain have fewer than two seeds in common"):
        open_vault({"plain": (NORM, "norm=none"), "other": (other, "plain")}, "why not", store)
    assert num_readings(store) == before


def test_weights_that_are_gone_leave_it_shut(store: Store) -> None:
    run_id = load_runs(store, "norm")["run_id"].iloc[0]
    (file,) = models_folder().glob(f"**/{run_id}/**/weights.safetensors")
    before = num_readings(store)
    hidden = file.rename(file.with_suffix(".away"))
    try:
        with pytest.raises(LabError, match=r"has no weights\.safetensors in the store: is models/ complete"):
            open_vault(FIRST, "why not", store)
    finally:
        hidden.rename(file)
    assert num_readings(store) == before


def test_an_opening_is_on_record_with_time_owner_reason_and_result(
    store: Store, openings: tuple[Opening, Opening]
) -> None:
    runs = store.client.search_runs([store.experiment_id("test-set")], order_by=["attributes.start_time ASC"])
    assert [run.data.tags["kind"] for run in runs] == ["test-reading", "vault"] * 2
    assert {run.data.tags["owner"] for run in runs} == {"a student"}
    assert [run.data.params["reason"] for run in runs[1::2]] == ["the final claim", "curious about the rest"]
    assert [run.data.params["reason"] for run in runs[::2]] == ["the final claim", "curious about the rest"]
    assert all(run.info.start_time for run in runs)
    assert runs[1].data.metrics["test/batch norm"] == pytest.approx(openings[0].arms.loc["batch norm", "test"])
    kept = np.load(store.client.download_artifacts(runs[1].info.run_id, "test_correct.npz"))
    assert kept["batch norm"].shape == (2, 10_000)
    assert 100 * kept["batch norm"].mean() == pytest.approx(openings[0].arms.loc["batch norm", "test"])
    first, _ = load_vault(store, "a student")
    trained_ones = NORM.results(store)
    assert first.runs["batch norm"] == list(trained_ones.loc[trained_ones["arm"] == "norm=batch", "run_id"])


def test_the_same_claim_again_shows_the_record_and_opens_nothing(
    store: Store, openings: tuple[Opening, Opening]
) -> None:
    before = num_readings(store)
    again = open_vault(FIRST, "the final claim", store)
    assert num_readings(store) == before
    assert "This is already on record: the vault stayed closed." in str(again)
    assert all(line in str(again) for line in openings[0].lines())
    assert list(again.arms.index) == ["plain", "batch norm"]
    assert np.allclose(again.arms, openings[0].arms)


def test_the_second_opening_is_stamped_post_hoc(store: Store, openings: tuple[Opening, Opening]) -> None:
    first, second = openings
    assert not first.is_post_hoc
    assert second.is_post_hoc
    assert "POST-HOC" not in str(first)
    assert "POST-HOC: the test images had been looked at before" in str(second)
    runs = store.client.search_runs([store.experiment_id("test-set")], "tags.kind = 'vault'")
    assert {run.data.tags["stamp"] for run in runs} == {"first opening", "post-hoc"}


def test_the_results_are_those_of_the_kept_weights(
    store: Store, openings: tuple[Opening, Opening], real_data: Data
) -> None:
    test = read_test_set(store, "a test of the vault")
    runs = NORM.results(store)
    accuracy = []
    for config, run_id in zip(runs["config"], runs["run_id"], strict=True):
        model = build_model(config).eval()
        model.load_state_dict(load_weights(store, run_id))
        with torch.inference_mode():
            batches = [(model(x), y) for x, y in Batches(test, 2_000, real_data.normaliser())]
        logits, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
        accuracy.append(100 * Score(logits, y, 0.0).accuracy)
    by_arm = runs.assign(test=accuracy).groupby("arm")["test"]
    first = openings[0]
    for name, arm in (("plain", "norm=none"), ("batch norm", "norm=batch")):
        assert first.arms.loc[name, "test"] == pytest.approx(by_arm.mean()[arm], abs=0.011)
        assert first.arms.loc[name, "test_sd"] == pytest.approx(by_arm.std()[arm], abs=0.02)
    table = runs.assign(test=accuracy).pivot(index="seed", columns="arm", values="test")
    claim = first.claims["batch norm"]
    assert claim.effect.by_seed == pytest.approx(tuple(table["norm=batch"] - table["norm=none"]), abs=0.021)
    assert "What differs: norm none -> batch." in str(first)


def test_arms_are_paired_by_seed_whatever_their_order_and_where_they_were_trained(
    store: Store, openings: tuple[Opening, Opening]
) -> None:
    taken_over = LATER.results(store)
    assert (taken_over["reused_from"] != "").all()
    claim, again = openings[0].claims["batch norm"], openings[1].claims["all"]
    assert again.effect.by_seed == pytest.approx(claim.effect.by_seed)
    assert again.on_new_images == pytest.approx(claim.on_new_images)
    assert claim.selection and again.selection
    assert again.selection.by_seed == pytest.approx(claim.selection.by_seed)


def test_selection_is_the_validation_minus_test_difference_of_an_arm_compared_with_the_first(
    store: Store, openings: tuple[Opening, Opening]
) -> None:
    first = openings[0]
    claim = first.claims["batch norm"]
    by_arm = first.arms["valid - test"]
    assert by_arm.tolist() == pytest.approx((first.arms["valid"] - first.arms["test"]).tolist())
    assert claim.selection
    assert claim.selection.estimate == pytest.approx(by_arm["batch norm"] - by_arm["plain"])
    valid = {arm: np.stack([load_correct(store, run_id) for run_id in ids]) for arm, ids in run_ids(store).items()}
    difference = 100 * (valid["norm=batch"].astype(float) - valid["norm=none"])
    test = np.load(store.client.download_artifacts(vault_ids(store)[0], "test_correct.npz"))
    by_hand = optimism(difference, 100 * (test["batch norm"].astype(float) - test["plain"]))
    assert (claim.selection.low, claim.selection.high) == pytest.approx((by_hand.low, by_hand.high))
    assert "(n = 2 seeds, 10,000 images)" in str(first)
    assert "Selection optimism: validation - test of batch norm less that of plain is " in str(first)


def run_ids(store: Store) -> dict[str, list[str]]:
    runs = NORM.results(store).sort_values("seed")
    return {str(arm): some["run_id"].tolist() for arm, some in runs.groupby("arm")}


def load_correct(store: Store, run_id: str) -> np.ndarray:
    return np.load(store.client.download_artifacts(run_id, "valid_correct.npy"))


def vault_ids(store: Store) -> list[str]:
    order = ["attributes.start_time ASC"]
    runs = store.client.search_runs([store.experiment_id("test-set")], "tags.kind = 'vault'", order_by=order)
    return [run.info.run_id for run in runs]


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (-0.4, 0.2, "no sign of selection"),
        (0.1, 0.9, "the validation images flatter winner"),
        (-0.9, -0.1, "the validation images flatter baseline"),
    ],
)
def test_a_selection_is_reported_if_its_interval_excludes_zero(low: float, high: float, said: str) -> None:
    middle, half = (low + high) / 2, (high - low) / 2 * np.sqrt(3) / stats.t.ppf(0.975, 2)
    found = t_interval(np.array([-half, 0.0, half]) + middle)
    line = vault._selection_in_words("winner", "baseline", found)
    assert line.endswith(f"{middle:+.2f} pp, 95 % interval [{low:+.2f}, {high:+.2f}] over seeds and images: {said}.")


def test_without_answers_image_by_image_nothing_is_said_of_selection(
    store: Store, openings: tuple[Opening, Opening], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LAB, "by_image", {})
    third = open_vault(FIRST, "curious once more", store)
    assert third.claims["batch norm"].selection is None
    assert third.claims["batch norm"].on_new_images == openings[0].claims["batch norm"].on_new_images
    assert "Selection" not in str(third)


def test_an_opening_recorded_by_an_earlier_version_reads_like_a_current_one(home: Path) -> None:
    store = connect()
    earlier = pd.DataFrame({"n": [2.0], "test": [91.0], "valid": [91.5], "optimism": [0.5]}, index=["plain"])
    record_test_result(store, "the final claim", 1, "said", earlier, {"plain": np.ones((2, 3), dtype=bool)}, {})
    (found,) = load_vault(store, owner())
    assert found.arms.loc["plain"].to_dict() == {"n": 2, "test": 91, "valid": 91.5, "valid - test": 0.5}


def test_a_studys_own_test_images_are_used(real_data: Data) -> None:
    own = Data(real_data.train, real_data.valid, test=SMALL_DATA.valid, classes=real_data.classes)
    other = dataclasses.replace(own, test=SMALL_DATA.train)
    with_own, with_other = (dataclasses.replace(NORM, data=data) for data in (own, other))
    assert vault._data_of({"a": with_own, "b": with_own}) is own
    assert vault._data_of({"a": NORM, "b": dataclasses.replace(NORM, data=real_data)}) is None
    with pytest.raises(LabError, match="b is about images other than a"):
        vault._data_of({"a": with_own, "b": with_other})
