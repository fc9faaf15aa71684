"""Repeated runs determine what a study can show; before there are any, nobody knows."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest

from cnnlab.config import BASE, replace
from cnnlab.data import Data, Split
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.judge.power import Power, power
from cnnlab.inquiry.judge.statistics import t_interval
from cnnlab.inquiry.record.connection import connect
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.run.runner import run_study
from cnnlab.inquiry.task import find_metric
from tests.helpers import SMALL_DATA, settle, small_study

pytestmark = pytest.mark.usefixtures("light")

SMALL = replace(BASE, blocks=((1, 8), (1, 8)), train_images=320, epochs=2, batch_size=32, lr=0.01)
A_A = small_study("a-a", "?", SMALL, (0, 1), arms={"baseline": SMALL, "baseline again": replace(SMALL, seed=1000)})
DROPOUT = small_study("dropout", "?", SMALL, (0, 1, 2), {"dropout": (0.0, 0.5)})
LONGER = small_study("longer", "?", replace(SMALL, epochs=3), (0, 1, 2), {"dropout": (0.0, 0.5)})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with pytest.MonkeyPatch.context() as patch:
        settle(patch, tmp_path_factory.mktemp("my lab"))
        yield connect()


@pytest.fixture(scope="module")
def before(store: Store) -> Power:
    return power(DROPOUT, store=store)


@pytest.fixture(scope="module")
def runs(store: Store, before: Power, small_data: Data) -> pd.DataFrame:
    return run_study(A_A, store, progress=False, explore=True)


def test_before_the_first_runs_the_noise_is_unknown(before: Power) -> None:
    assert before.n == 0
    assert np.isnan(before.sd)
    assert str(before).startswith("Noise floor unknown: run the A/A test first (two equal arms with different seeds).")


def test_equal_runs_of_any_study_are_the_noise_floor(store: Store, runs: pd.DataFrame) -> None:
    found = power(DROPOUT, store=store)
    assert (found.n, found.is_own) == (4, True)
    assert found.sd == pytest.approx(100 * runs["accuracy/valid"].std(ddof=1))
    assert f"SD {found.sd:.2f} pp (n = 4 runs of its control)" in str(found)
    assert (
        f"With 3 seeds, an effect of {found.detectable:.2f} pp would be detected with 80 % power in this study"
        in str(found)
    )


def test_a_failed_run_does_not_count_as_noise(store: Store, runs: pd.DataFrame) -> None:
    run_id, outcome = runs["run_id"].iloc[0], runs["fact.outcome"].iloc[0]
    store.client.set_tag(run_id, "fact.outcome", "diverged at step 3")
    try:
        assert power(DROPOUT, store=store).n == 3
    finally:
        store.client.set_tag(run_id, "fact.outcome", outcome)


def test_the_stated_difference_is_detected_with_80_percent_power(store: Store, runs: pd.DataFrame) -> None:
    found = power(DROPOUT, store=store)
    rng = np.random.default_rng(9)
    control, arm = rng.normal(0, found.sd, (2, 6_000, 3))
    differences = arm + found.detectable - control
    share = np.mean([t_interval(row).low > 0 for row in differences])
    assert share == pytest.approx(0.80, abs=0.02)


def test_more_seeds_detect_smaller_differences(store: Store, runs: pd.DataFrame) -> None:
    more = power(dataclasses.replace(DROPOUT, seeds=range(10)), store=store)
    assert more.detectable < power(DROPOUT, store=store).detectable


def test_runs_of_another_arm_give_a_guess_and_are_labelled_as_one(store: Store, runs: pd.DataFrame) -> None:
    found = power(LONGER, store=store)
    assert (found.n, found.is_own) == (4, False)
    assert "(n = 4 runs of another arm, used as a rough guide)" in str(found)


def test_runs_of_another_owner_do_not_count_as_yours(
    store: Store, runs: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CNNLAB_OWNER", "another student")
    assert power(DROPOUT, store=store).n == 0


def test_runs_on_other_images_give_no_guess_either(store: Store, runs: pd.DataFrame) -> None:
    mirrored = Data(Split(SMALL_DATA.train.x.flip(3), SMALL_DATA.train.y), SMALL_DATA.valid)
    assert power(dataclasses.replace(A_A, data=mirrored), store=store).n == 0


def test_a_metric_that_no_run_has_is_unknown(store: Store, runs: pd.DataFrame) -> None:
    assert "Noise floor unknown" in str(power(DROPOUT, "variance_ratio", store))
    with pytest.raises(LabError, match="did you mean 'accuracy/valid'"):
        power(DROPOUT, "accuracy", store)


def test_an_accuracy_never_differs_by_more_than_100_pp() -> None:
    """Two seeds with a spread of 30 pp "detect" 380 pp: no effect that exists."""
    accuracy, loss = find_metric("accuracy/valid"), find_metric("loss/valid")
    assert accuracy.say_detectable(99.5) == "an effect of 99.50 pp would be detected with 80 % power"
    assert accuracy.say_detectable(380.0) == "not even an effect of 100 pp would be detected with 80 % power"
    assert loss.say_detectable(380.0) == "an effect of 380.000 nats would be detected with 80 % power"
