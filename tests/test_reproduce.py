"""A run trained again: identical on the same kind of machine, within a bound on another, or undecided."""

import os
import random
import re
import shutil
import sqlite3
from pathlib import Path

import pandas as pd
import pytest

from cnnlab.config import BASE, replace
from cnnlab.course.reference import OWNER
from cnnlab.data import Data
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.judge.reproduce import Reproduction, bound, is_stable, one_run_of_each, reproduce, reproduce_random
from cnnlab.inquiry.record.connection import connect
from cnnlab.inquiry.record.runs import load_runs
from cnnlab.inquiry.record.store import Store
from tests.helpers import predicted, settle, small_study, spare_figures

pytestmark = pytest.mark.usefixtures("light")

TINY = replace(BASE, blocks=((1, 8),), train_images=64, epochs=1, batch_size=32)
CLOSE, FAR = (0.500, 0.501, 0.502, 0.503), (0.5, 0.6, 0.7, 0.8)  # validation losses of four seeds, nats


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, small_data: Data) -> Path:
    """A project folder with five seeds of two arms, one of which diverges."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        spare_figures(patch)
        settle(patch, folder, OWNER)
        arms = {"calm": TINY, "wild": replace(TINY, optimizer="sgd", lr=1e6, schedule="constant")}
        study = predicted(small_study("my-lr", "Does it diverge?", TINY, range(5), arms=arms))
        study.run(connect(), progress=False)
    return folder


@pytest.fixture
def store(made: Path, home: Path) -> Store:
    """The same in another folder, where its records can be changed."""
    shutil.copytree(made, home, dirs_exist_ok=True)
    return connect()


def change(table: str, run_id: str, key: str, value: object) -> None:
    """Change a record without MLflow."""
    with sqlite3.connect(Path(os.environ["CNNLAB_HOME"]) / "mlflow.db") as database:
        database.execute(f"UPDATE {table} SET value = ? WHERE run_uuid = ? AND key = ?", (value, run_id, key))


def run_with_others(store: Store, losses: tuple[float, ...] = CLOSE) -> str:
    """Return a run, with these losses and equal accuracies on record for the other seeds of its arm."""
    runs = load_runs(store)
    calm, *others = runs.loc[runs["config"].map(lambda config: config.optimizer) == "adamw", "run_id"]
    for run_id, loss in zip(others, losses, strict=True):
        change("latest_metrics", run_id, "final/loss/valid", loss)
        change("latest_metrics", run_id, "final/accuracy/valid", 0.8)
    return str(calm)


def test_a_run_is_identical_on_the_same_kind_of_machine_or_it_is_not_reproduced(store: Store, small_data: Data) -> None:
    run_id = run_with_others(store)
    again = reproduce(run_id, store, small_data, progress=False)
    assert again.is_identical and again.is_reproduced and again.n == 4 and not again.differs
    assert "Reproduced: identical to the last bit." in str(again)

    change("latest_metrics", run_id, "final/loss/valid", again.table.loc["loss/valid", "now"] + 1e-9)
    off = reproduce(run_id, store, small_data, progress=False)
    assert off.is_within_bound and not off.is_reproduced
    assert "NOT REPRODUCED: not identical, though this machine is of the same kind" in str(off)


def test_a_record_without_the_processor_is_held_to_the_bound(store: Store, small_data: Data) -> None:
    """Two processors of one name may differ in their instructions, and older records don't name the processor."""
    run_id = run_with_others(store)
    store.client.delete_tag(run_id, "fact.processor")
    exact = reproduce(run_id, store, small_data, progress=False)
    assert exact.is_identical and exact.is_reproduced
    change("latest_metrics", run_id, "final/loss/valid", exact.table.loc["loss/valid", "now"] + 1e-4)
    near = reproduce(run_id, store, small_data, progress=False)
    assert near.is_reproduced and "the processor of the record isn't known" in str(near)


@pytest.mark.parametrize("fact", ["device", "precision", "version.torch", "system", "processor"])
def test_on_another_kind_of_machine_a_run_is_reproduced_within_its_bound(
    fact: str, store: Store, small_data: Data
) -> None:
    run_id = run_with_others(store)
    change("tags", run_id, f"fact.{fact}", "cpu (an older one)")
    exact = reproduce(run_id, store, small_data, progress=False)
    assert exact.is_identical and exact.is_stable and exact.table.loc["loss/valid", "bound"] == 0.01
    for share, reproduced, words in ((0.99, True, "Reproduced, not identical"), (1.01, False, "NOT REPRODUCED")):
        change("latest_metrics", run_id, "final/loss/valid", exact.table.loc["loss/valid", "now"] + share * 0.01)
        found = reproduce(run_id, store, small_data, progress=False)
        assert found.is_reproduced == reproduced and not found.is_identical
        assert f"{words}: this machine differs ({fact} cpu (an older one) -> " in str(found)
        assert re.search(r"loss/valid +\S+ +\S+ +0\.010000$", str(found), re.MULTILINE), str(found)


def test_if_the_seeds_lie_far_apart_a_run_beyond_its_bound_is_undecided(store: Store, small_data: Data) -> None:
    run_id = run_with_others(store, FAR)
    change("tags", run_id, "fact.device", "cpu (an older one)")
    change("latest_metrics", run_id, "final/loss/valid", 3.0)
    found = reproduce(run_id, store, small_data, progress=False)
    assert not found.is_stable and not found.is_reproduced
    assert "CAN'T TELL here" in str(found) and "the seeds of this arm lie far apart" in str(found)

    others = load_runs(store)["run_id"]
    for other in others[others != run_id]:
        store.client.delete_run(other)
    alone = reproduce(run_id, store, small_data, progress=False)
    assert not alone.is_reproduced and "fewer than two other seeds are on record" in str(alone)
    change("latest_metrics", run_id, "final/loss/valid", alone.table.loc["loss/valid", "now"] + 0.019)
    assert reproduce(run_id, store, small_data, progress=False).is_reproduced  # the widest bound needs no other seeds


def test_a_run_that_diverged_is_reproduced_too(store: Store, small_data: Data) -> None:
    runs = load_runs(store)
    wild = runs[runs["fact.outcome"].str.startswith("diverged")].iloc[0]
    again = reproduce(wild["run_id"], store, small_data, progress=False)
    assert again.is_identical and not again.is_stable
    change("tags", wild["run_id"], "fact.device", "cpu (an older one)")
    change("latest_metrics", wild["run_id"], "final/accuracy/valid", 0.9)
    assert "CAN'T TELL here" in str(reproduce(wild["run_id"], store, small_data, progress=False))


def test_the_bound_is_half_the_distance_of_two_seeds_within_its_limits() -> None:
    # five seeds with SD 0.01: t(0.975, 4) = 2.7764, so two of them lie 2.7764 x 0.01 x sqrt(2) apart
    five = pd.Series([-2, -1, 0, 1, 2]) * 0.01 / 2.5**0.5
    assert bound("loss/valid", five) == pytest.approx(0.019632, abs=1e-6)
    assert bound("loss/valid", five / 100) == 0.01 and bound("accuracy/valid", five / 100) == 0.005
    assert bound("loss/valid", 100 * five) == 0.02 and bound("accuracy/valid", 100 * five) == 0.01
    assert bound("loss/valid", five[:3] / 100) == 0.02  # three seeds may be close together by chance
    assert is_stable("loss/valid", 1.99 * five) and not is_stable("loss/valid", 2.01 * five)
    assert not is_stable("loss/valid", five[:1]) and not is_stable("loss/valid", pd.Series([*five, float("nan")]))


def test_runs_of_any_owner_are_picked_and_one_that_cannot_be_trained_says_why(store: Store, small_data: Data) -> None:
    ids = list(load_runs(store)["run_id"])
    deleted, taken_over, unreadable, other_images, someone = ids[:5]
    store.client.delete_run(deleted)
    store.client.set_tag(taken_over, "reused_from", "another run")
    change("params", unreadable, "activation", "tanh")
    change("tags", other_images, "fact.data_sha256", "of other images")
    change("tags", someone, "owner", "somebody else")

    found = list(reproduce_random(store, 100, small_data, random.Random(0), progress=False))
    trained = [one for one in found if isinstance(one, Reproduction)]
    assert {one.run_id for one in trained} == set(ids[4:]) and all(one.is_identical for one in trained)
    said = sorted(one for one in found if isinstance(one, str))
    assert len(said) == 2 and "activation='tanh' is not possible" in " ".join(said)
    assert any(other_images in one and "it was trained on other images" in one for one in said)
    with pytest.raises(LabError, match="it was trained on other images"):
        reproduce(other_images, store, small_data)


def test_the_runs_are_picked_at_random(store: Store, small_data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cnnlab.inquiry.judge.reproduce.reproduce", lambda run_id, *_: run_id)
    picked = [tuple(reproduce_random(store, 3, small_data)) for _ in range(20)]
    assert all(len(set(three)) == 3 for three in picked)
    assert len(set(picked)) > 1  # 720 ways to pick 3 of 10 in order


def test_one_run_of_each_study_is_the_first_that_exists(store: Store, small_data: Data) -> None:
    ids = list(load_runs(store)["run_id"])
    assert one_run_of_each(store) == ids[:1]
    store.client.delete_run(ids[0])  # a run deleted in the UI is not trained again
    assert one_run_of_each(store) == ids[1:2]
    with pytest.raises(LabError, match="no finished run 'nonsense'"):
        reproduce("nonsense", store, small_data)
