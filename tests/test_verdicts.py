"""Verdicts are computed from runs and facts; they report what is unfair, missing or was known before."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from cnnlab.config import BASE, Config, replace
from cnnlab.data import Data
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.judge.failures import compare_failures
from cnnlab.inquiry.judge.new_images import interval_on_new_images
from cnnlab.inquiry.judge.statistics import crossed_interval
from cnnlab.inquiry.judge.verdict import Verdict, judge, seen_before, to_content, verdict
from cnnlab.inquiry.prediction import Prediction, predict
from cnnlab.inquiry.record.connection import connect
from cnnlab.inquiry.record.files import run_file
from cnnlab.inquiry.record.ledger import Record, VerdictRecord, load_records, record_verdict
from cnnlab.inquiry.record.runs import load_runs
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.task import task
from cnnlab.probes import PROBE_IMAGES
from tests.helpers import settle, small_study, spare_figures

SMALL = replace(BASE, blocks=((1, 8), (1, 8)), train_images=320, epochs=2, batch_size=32, lr=0.01)
GRID = small_study("tiny-04", "?", SMALL, (0, 1, 2), {"dropout": (0.0, 0.5), "norm": ("none", "batch")})
CONTROL, NORM, DROPOUT, BOTH = GRID.arms
WORDS = {"confidence": 70, "because": "this is a mechanism", "if_refuted": "it is not so"}


@pytest.fixture(scope="module")
def module_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("my lab")
    with pytest.MonkeyPatch.context() as patch:
        spare_figures(patch)
        settle(patch, folder)
        yield folder


@pytest.fixture(scope="module")
def arm_prediction(module_home: Path) -> Prediction:
    return predict(GRID, arm=DROPOUT, metric="accuracy/valid", direction="lower", size=(1, 5), **WORDS)


@pytest.fixture(scope="module")
def interaction(module_home: Path) -> Prediction:
    changes = {"dropout": 0.5, "norm": "batch"}
    return predict(GRID, interaction=changes, metric="loss/valid", direction="additive", sesoi=0.02, **WORDS)


@pytest.fixture(scope="module")
def runs(arm_prediction: Prediction, interaction: Prediction, small_data: Data) -> pd.DataFrame:
    """Twelve real runs, in which the tests replace the numbers."""
    return GRID.run(connect(), progress=False)


def with_values(runs: pd.DataFrame, column: str, values: dict[str, list[float]]) -> pd.DataFrame:
    """Return the same runs with other results, one per seed of an arm."""
    runs = runs.copy()
    for arm, numbers in values.items():
        runs.loc[runs["arm"] == arm, column] = numbers
    return runs


def changed(runs: pd.DataFrame, arm: str, column: str, value: object) -> pd.DataFrame:
    runs = runs.copy()
    for i in runs.index[runs["arm"] == arm]:
        runs.at[i, column] = value
    return runs


def test_a_verdict_is_the_interval_of_the_differences_seed_by_seed(
    arm_prediction: Prediction, runs: pd.DataFrame
) -> None:
    control, arm = [0.90, 0.91, 0.92], [0.87, 0.885, 0.89]
    found = judge(arm_prediction, GRID, with_values(runs, "accuracy/valid", {CONTROL: control, DROPOUT: arm}), [])
    peer = stats.ttest_rel(arm, control).confidence_interval(0.95)
    assert found.effect is not None
    assert (found.effect.low, found.effect.high) == pytest.approx((100 * peer.low, 100 * peer.high))
    assert (found.outcome, found.label) == ("supported", "confirmatory")
    assert found.headline() == (
        f"direction supported, size as predicted, confirmatory: accuracy/valid -2.83 pp, 95 % interval "
        f"[{100 * peer.low:+.2f}, {100 * peer.high:+.2f}] pp, n = 3 seeds"
    )
    assert "3 of 3 seeds have the predicted sign." in str(found)  # no share: with 3 seeds, none is clearly over half
    assert list(found.others.index) == [NORM, BOTH]  # the arms without a prediction


def test_too_few_seeds_for_the_noise_are_inconclusive_and_say_how_many_it_takes(
    arm_prediction: Prediction, runs: pd.DataFrame
) -> None:
    noisy = with_values(runs, "accuracy/valid", {CONTROL: [0.90, 0.91, 0.92], DROPOUT: [0.91, 0.89, 0.925]})
    found = judge(arm_prediction, GRID, noisy, [])
    assert found.outcome == "inconclusive"
    assert "These runs can't tell whether there is a difference. With 3 seeds, an effect of" in str(found)


def test_an_interaction_is_examined_on_both_scales(interaction: Prediction, runs: pd.DataFrame) -> None:
    values = {CONTROL: [0.5, 0.51, 0.52], DROPOUT: [0.6, 0.61, 0.63], NORM: [0.4, 0.42, 0.42], BOTH: [0.5, 0.52, 0.54]}
    found = judge(interaction, GRID, with_values(runs, "loss/valid", values), [])
    assert found.effect is not None
    by_seed = np.array(values[BOTH]) - values[NORM] - values[DROPOUT] + values[CONTROL]
    assert found.effect.estimate == pytest.approx(by_seed.mean())
    assert found.outcome == "supported"
    assert list(found.other_scales) == ["accuracy/valid"]
    assert "On another scale (exploratory): accuracy/valid" in str(found)


def test_missing_runs_wait_and_missing_numbers_withhold(arm_prediction: Prediction, runs: pd.DataFrame) -> None:
    waiting = judge(arm_prediction, GRID, runs[runs["seed"] < 2], [])
    assert waiting.outcome == "waiting"
    assert "2 of 6 runs are missing" in str(waiting)
    assert waiting.missing == {CONTROL: (2,), DROPOUT: (2,)}
    nan = judge(arm_prediction, GRID, with_values(runs, "accuracy/valid", {DROPOUT: [0.9, float("nan"), 0.9]}), [])
    assert nan.outcome == "withheld"
    assert f"accuracy/valid is missing in 1 run, such as {DROPOUT}, seed 1" in str(nan)
    same = with_values(runs, "accuracy/valid", {CONTROL: [0.1, 0.1, 0.1], DROPOUT: [0.1, 0.1, 0.1]})
    assert "all seeds give exactly the same effect" in str(judge(arm_prediction, GRID, same, []))


UNFAIR = [
    ("fact.steps", "99", "3 of 3 runs are not what their params describe: steps is 99 instead of 20"),
    ("fact.images_seen", "1", "images_seen is 1 instead of 640"),
    ("fact.num_train", "1", "num_train is 1 instead of 320"),
    ("fact.batch_size", "1", "batch_size is 1 instead of 32"),
    ("fact.early_stopping", "{'patience': 1}", "early_stopping is {'patience': 1} instead of None"),
    ("fact.optimizer", "SGD(lr=1)", "optimizer is SGD(lr=1) instead of AdamW(lr=0.01"),
    ("fact.schedule", "none", "schedule is none instead of OneCycleLR("),
    ("fact.loss", "MSELoss()", "loss is MSELoss() instead of CrossEntropyLoss(label_smoothing=0.0)"),
    ("fact.kept", "best (step 3 of 20)", "kept is best (step 3 of 20) instead of last"),
    ("fact.num_valid", "1", "num_valid is not the same in all runs (1, 203)"),
    ("fact.valid_sha256", "0", "valid_sha256 is not the same in all runs"),
    ("fact.data_sha256", "0", "data_sha256 is not the same in all runs"),
    ("fact.train_sha256", "0", "train_sha256 is not the same in all runs with seed=0, train_images=320"),
    ("fact.precision", "bfloat16", "precision differs in 3 of 3 seeds"),
    ("fact.device", "a GPU", "device differs in 3 of 3 seeds"),
    ("fact.version.torch", "1.0", "version.torch differs in 3 of 3 seeds"),
    ("fact.source_sha256", "0", "source_sha256 differs in 3 of 3 seeds"),
]


@pytest.mark.parametrize(("fact", "value", "named"), UNFAIR)
def test_a_difference_that_nobody_declared_withholds_the_verdict_and_is_named(
    arm_prediction: Prediction, runs: pd.DataFrame, fact: str, value: str, named: str
) -> None:
    if fact == "fact.precision":
        value = {"bfloat16": "float32", "float32": "bfloat16"}[runs[fact].iloc[0]]
    found = judge(arm_prediction, GRID, changed(runs, DROPOUT, fact, value), [])
    assert found.outcome == "withheld"
    assert found.effect is None
    assert named in str(found)


@pytest.mark.parametrize("fact", ["fact.threads", "fact.system", "fact.git_commit", "fact.version.mlflow"])
def test_a_harmless_difference_is_noted(arm_prediction: Prediction, runs: pd.DataFrame, fact: str) -> None:
    found = judge(arm_prediction, GRID, changed(runs, DROPOUT, fact, "another"), [])
    assert found.outcome not in ("withheld", "waiting")
    name = fact.removeprefix("fact.")
    assert f"Noted: {name} differs in 3 of 3 seeds between the control and {DROPOUT} (" in str(found)


def test_another_device_for_one_seed_in_both_arms_is_balanced(arm_prediction: Prediction, runs: pd.DataFrame) -> None:
    runs = runs.copy()
    runs.loc[runs["seed"] == 1, "fact.device"] = "a GPU"
    found = judge(arm_prediction, GRID, runs, [])
    assert found.outcome not in ("withheld", "waiting")
    assert "device is not the same for all seeds" in str(found)


def test_a_fact_that_was_not_measured_cannot_be_known(arm_prediction: Prediction, runs: pd.DataFrame) -> None:
    found = judge(arm_prediction, GRID, runs.drop(columns=["fact.steps", "fact.module_tree"]), [])
    assert found.outcome == "withheld"
    assert found.fairness.unknown == [
        "module_tree was not measured in 6 of 6 runs.",
        "steps was not measured in 6 of 6 runs.",
    ]


@pytest.mark.parametrize("fact", task().facts.needed)
def test_no_required_fact_may_be_missing(arm_prediction: Prediction, runs: pd.DataFrame, fact: str) -> None:
    some = changed(runs, DROPOUT, f"fact.{fact}", None)
    found = judge(arm_prediction, GRID, some, [])
    assert found.outcome == "withheld"
    assert found.fairness.unknown == [f"{fact} was not measured in 3 of 6 runs."]
    assert len(task().facts.needed) == 8


@pytest.fixture
def one_failed(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the same runs, of which one diverged; its accuracy is still a number."""
    runs = runs.copy()
    failed = runs.index[(runs["arm"] == DROPOUT) & (runs["seed"] == 1)][0]
    facts = {"steps": "7", "images_seen": "224", "outcome": "diverged at step 7"}
    runs.loc[failed, [f"fact.{name}" for name in facts]] = list(facts.values())
    runs.loc[failed, ["accuracy/valid", "loss/valid"]] = 0.1, float("nan")
    return runs


def test_failed_runs_are_counted_and_not_averaged_whatever_the_metric(
    arm_prediction: Prediction, interaction: Prediction, one_failed: pd.DataFrame
) -> None:
    found = judge(arm_prediction, GRID, one_failed, [])
    assert (found.outcome, found.effect) == ("withheld", None)
    low, high = proportion_confint(1, 3, method="beta")
    assert f"1 of 6 runs failed ({CONTROL}: 0 of 3, 95 % interval 0 to 71 %; {DROPOUT}: 1 of 3, " in str(found)
    assert f"95 % interval {100 * low:.0f} to {100 * high:.0f} %). A mean over failed runs is not an effect. " in str(
        found
    )
    assert "Fisher's exact test gives p = 1, so these runs can't tell whether the arms fail equally often." in str(
        found
    )
    loss = judge(interaction, GRID, one_failed, [])
    assert loss.outcome == "withheld"
    assert "1 of 12 runs failed" in str(loss)
    assert "Fisher's exact test gives p = 1, so" in str(loss)


FAILURES = [  # failed of n in each arm -> p by hand, in words
    ([(2, 5), (0, 5)], "p = 0.44, so these runs can't tell whether the arms fail"),  # 2 x (5 over 2) / (10 over 2)
    ([(5, 5), (0, 5)], "p = 0.0079, so the arms don't fail"),  # 2 / (10 over 5)
    ([(9, 9), (0, 9)], "p < 0.001, so the arms don't fail"),
    ([(3, 5), (0, 5), (0, 5), (0, 5)], "p = 0.034, so the arms don't fail"),  # by simulation; 40 / (20 over 3) = 0.035
    ([(1, 3), (0, 3), (0, 3), (0, 3)], "p = 1, so these runs can't tell whether the arms fail"),
    ([(4, 4), (4, 4)], "p = 1, so these runs can't tell whether the arms fail"),
]


@pytest.mark.parametrize(("counts", "said"), FAILURES)
def test_how_often_arms_fail_is_compared_by_fishers_exact_test(counts: list, said: str) -> None:
    outcomes = [
        (f"arm {arm}", "diverged at step 7" if i < failed else "finished")
        for arm, (failed, n) in enumerate(counts)
        for i in range(n)
    ]
    table = pd.DataFrame(outcomes, columns=["arm", "fact.outcome"])
    assert compare_failures(table) == f"Fisher's exact test gives {said} equally often."


def test_a_prediction_from_before_that_rule_averages_them_and_says_so(
    arm_prediction: Prediction, one_failed: pd.DataFrame
) -> None:
    content = {name: text for name, text in arm_prediction.record.content.items() if name != "failed_runs"}
    record = dataclasses.replace(arm_prediction.record, content=content)
    found = judge(dataclasses.replace(arm_prediction, record=record), GRID, one_failed, [])
    assert found.effect is not None
    assert "Noted: 1 of 6 runs failed" in str(found) and "recorded without a rule for them" in str(found)


def test_dead_channels_are_reported_if_a_verdict_rests_on_them(arm_prediction: Prediction, runs: pd.DataFrame) -> None:
    found = judge(
        arm_prediction, GRID, with_values(runs, "dead_share", {CONTROL: [0.05] * 3, DROPOUT: [0.3, 0.5, 0.4]}), []
    )
    dead = [note for note in found.notes if "dead" in note]
    assert dead == [
        f"40 % of the channels in the worst layer of {DROPOUT} are dead (zero for all {PROBE_IMAGES} probe images; "
        "mean of 3 runs)."
    ]


def test_other_arms_are_those_without_failures(arm_prediction: Prediction, runs: pd.DataFrame) -> None:
    runs = runs.copy()
    runs.loc[runs["arm"] == BOTH, ["fact.outcome", "accuracy/valid"]] = "diverged at step 7", 0.1
    found = judge(arm_prediction, GRID, runs, [])
    assert list(found.others.index) == [NORM]
    for shown in (str(found), found._repr_html_()):
        assert f"Not compared: {BOTH} (3 of 3 runs failed)." in shown
    runs.loc[runs["arm"] == NORM, ["fact.outcome"]] = "diverged at step 7"
    assert f"Not compared: {NORM} (3 of 3 runs failed); {BOTH} (3" in str(judge(arm_prediction, GRID, runs, []))


def test_intervals_of_other_arms_are_simultaneous_with_those_shown_elsewhere(
    arm_prediction: Prediction, runs: pd.DataFrame
) -> None:
    """Two tables with the same control are one family: three arms, of which each table shows some."""
    elsewhere = {("accuracy/valid", frozenset((NORM, CONTROL)))}
    found = judge(arm_prediction, GRID, runs, [], shown=elsewhere)
    values = runs.pivot(index="seed", columns="arm", values="accuracy/valid")
    peer = stats.ttest_rel(100 * values[BOTH], 100 * values[CONTROL]).confidence_interval(1 - 0.05 / 3)
    assert list(found.others.index) == [BOTH]
    assert found.others.loc[BOTH, ["low", "high"]].tolist() == pytest.approx([peer.low, peer.high])
    assert "95 % intervals, simultaneous for all 3 of the study (Bonferroni)" in found._repr_html_()


def test_the_sign_of_most_seeds_is_stated(interaction: Prediction, runs: pd.DataFrame) -> None:
    lower = {CONTROL: [0.5] * 3, DROPOUT: [0.6] * 3, NORM: [0.4] * 3, BOTH: [0.48, 0.47, 0.46]}
    found = judge(interaction, GRID, with_values(runs, "loss/valid", lower), [])
    assert "The effect is negative in 3 of 3 seeds." in str(found)


def test_no_two_arms_get_two_intervals_in_one_output(
    module_home: Path, arm_prediction: Prediction, interaction: Prediction, runs: pd.DataFrame
) -> None:
    """A prediction with `against` shows the same as the table of another one, whichever arm is subtracted."""
    turned = predict(GRID, arm=CONTROL, against=NORM, metric="accuracy/valid", direction="lower", size=(1, 5), **WORDS)
    try:
        found = [one for one in verdict(GRID, connect()) if one.effect]
    finally:
        connect().client.delete_run(turned.record.run_id)
    assert turned.record.run_id in {one.prediction.record.run_id for one in found}
    intervals = [
        (one.prediction.metric.name, frozenset((one.prediction.contrast.control, arm)))
        for one in found
        for arm in [*one.others.index, *(one.prediction.contrast.new if one.prediction.contrast.kind == "arm" else ())]
    ]
    assert len(set(intervals)) == len(intervals) >= 3


def test_the_interval_on_new_images_is_from_every_runs_result_per_image(
    module_home: Path, arm_prediction: Prediction, runs: pd.DataFrame
) -> None:
    store = connect()
    mine = arm_prediction.record.run_id
    (found,) = (one for one in verdict(GRID, store) if one.prediction.record.run_id == mine)
    kept = {
        arm: np.stack([correct_of(store, run_id) for run_id in runs.loc[runs["arm"] == arm, "run_id"]])
        for arm in (CONTROL, DROPOUT)
    }
    by_hand = crossed_interval(100 * (kept[DROPOUT].astype(float) - kept[CONTROL]))
    assert found.on_new_images == pytest.approx(by_hand)
    content = to_content(found)
    assert (float(content["images_low"]), float(content["images_high"])) == pytest.approx(by_hand)
    assert not {"images_low", "images_high"} & set(to_content(dataclasses.replace(found, on_new_images=None)))
    assert "This interval is for new seeds on the same validation images. For new images as well, it is [" in str(found)
    forged = runs.assign(**{"accuracy/valid": runs["accuracy/valid"] + 0.01})  # files of other results don't count
    weights = arm_prediction.contrast.weights
    used = forged[forged["arm"].isin([CONTROL, DROPOUT])]
    assert interval_on_new_images(arm_prediction.metric, used, weights, store) is None


def correct_of(store: Store, run_id: str) -> np.ndarray:
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        return np.load(run_file(store, run_id, "valid_correct.npy", Path(folder)))


def test_other_images_are_not_a_consequence_of_an_early_end(arm_prediction: Prediction, runs: pd.DataFrame) -> None:
    for fact, value in {"outcome": "diverged at step 7", "valid_sha256": "0"}.items():
        runs = changed(runs, DROPOUT, f"fact.{fact}", value)
    assert judge(arm_prediction, GRID, runs, []).outcome == "withheld"


def test_a_run_that_diverged_did_fewer_steps_as_a_result(arm_prediction: Prediction, runs: pd.DataFrame) -> None:
    for fact, value in {"steps": "7", "images_seen": "224", "outcome": "diverged at step 7", "kept": "last"}.items():
        runs = changed(runs, DROPOUT, f"fact.{fact}", value)
    found = judge(arm_prediction, GRID, runs, [])
    assert found.fairness.is_fair
    said = f"in 3 of 3 seeds a run of the control or of {DROPOUT} ended early (diverged at step 7), so steps and images"
    assert f"Noted: {said} differ as a result of its settings." in str(found)


def test_a_run_that_diverged_excuses_its_own_seed_only(arm_prediction: Prediction, runs: pd.DataFrame) -> None:
    runs = changed(runs, DROPOUT, "fact.steps", "7")
    first = runs.index[(runs["arm"] == DROPOUT) & (runs["seed"] == 0)]
    runs.loc[first, "fact.outcome"] = "diverged at step 7"
    found = judge(arm_prediction, GRID, runs, [])
    assert found.outcome == "withheld"
    assert "2 of 3 runs are not what their params describe: steps is 7 instead of 20" in str(found)


def test_the_networks_are_compared_module_by_module(arm_prediction: Prediction, runs: pd.DataFrame) -> None:
    found = judge(arm_prediction, GRID, runs, [])
    assert found.fairness.tree_diff.splitlines() == [f"{DROPOUT}:", "+     (dropout): Dropout(p=0.5, inplace=False)"]
    tree = runs.loc[runs["arm"] == BOTH, "fact.module_tree"].iloc[0]
    other = judge(arm_prediction, GRID, changed(runs, DROPOUT, "fact.module_tree", tree), [])
    assert other.outcome == "withheld"
    assert "3 of 3 runs are not what their params describe: module_tree differs in BatchNorm2d, Identity" in str(other)


def test_known_results_and_added_seeds_make_it_exploratory(arm_prediction: Prediction, runs: pd.DataFrame) -> None:
    known = judge(arm_prediction, GRID, runs, ["a run"])
    assert known.label == "exploratory"
    assert "Exploratory, because 1 of its runs existed before the prediction." in str(known)
    more = dataclasses.replace(GRID, seeds=(0, 1, 2, 3))
    extra = runs[runs["seed"] == 2].assign(seed=3)
    added = judge(arm_prediction, more, pd.concat([runs, extra], ignore_index=True), [])
    assert added.label == "exploratory"
    assert added.effect is not None and added.effect.n == 4
    # other seeds instead of the predicted ones, which are missing
    other = judge(arm_prediction, dataclasses.replace(GRID, seeds=(7, 8, 9)), runs[:0], [])
    assert (other.outcome, other.label) == ("waiting", "exploratory")


def test_an_arm_predicted_after_its_results_is_known_as_such(
    module_home: Path, arm_prediction: Prediction, runs: pd.DataFrame
) -> None:
    store = connect()
    everything = load_runs(store, deleted=True)
    assert seen_before(arm_prediction, everything) == []
    late = predict(GRID, arm=NORM, metric="accuracy/valid", direction="higher", size=(1, 5), **WORDS)
    assert set(seen_before(late, everything)) == set(runs.loc[runs["arm"] == NORM, "run_id"])
    try:  # deleted runs still count as seen
        for run_id in runs.loc[runs["arm"] == NORM, "run_id"]:
            store.client.delete_run(run_id)
        assert len(seen_before(late, load_runs(store, deleted=True))) == 3
    finally:
        for run_id in runs.loc[runs["arm"] == NORM, "run_id"]:
            store.client.restore_run(run_id)


def test_verdicts_are_recorded_once_each_chained_to_the_prediction(
    module_home: Path, arm_prediction: Prediction, interaction: Prediction, runs: pd.DataFrame
) -> None:
    store = connect()
    found = verdict(GRID, store)
    assert [one.prediction.contrast.text for one in found][:2] == [
        arm_prediction.contrast.text,
        interaction.contrast.text,
    ]
    verdict(GRID, store)
    record = load_records(store)[0]
    assert [one.number for one in record.verdicts] == [1]
    content = record.verdicts[0].content
    assert content["outcome"] == found[0].outcome
    assert content["previous"] == record.sha256
    assert float(content["estimate"]) == found[0].effect.estimate  # type: ignore[union-attr]
    used = [line.split() for line in content["runs_1"].split("; ")]
    assert {run_id for run_id, _, _ in used} == set(runs.loc[runs["arm"].isin([CONTROL, DROPOUT]), "run_id"])
    assert all(len(seal) == 64 for _, seal, _ in used)
    note = store.client.get_run(record.run_id).data.tags["mlflow.note.content"]
    assert found[0].headline() in note


def test_other_words_for_the_same_verdict_are_not_a_new_one(
    module_home: Path, arm_prediction: Prediction, runs: pd.DataFrame
) -> None:
    """Otherwise a lab with new wording would add verdicts and logbook entries, which need new reflections."""
    store, record = connect(), arm_prediction.record
    again = to_content(next(one for one in verdict(GRID, store) if one.prediction.record.run_id == record.run_id))
    (last,) = known_verdicts(record)
    assert record_verdict(store, record, again | {"said": "in other words"}, "other words") == last
    assert record_verdict(store, record, again | {"of_a_later_lab": "1"}, "more") == last
    assert len(known_verdicts(record)) == 1
    try:
        other = record_verdict(store, record, again | {"n": "4"}, "another")
        assert (other.number, len(known_verdicts(record))) == (2, 2)
    finally:
        record_verdict(store, record, again, "as before")


def known_verdicts(record: Record) -> tuple[VerdictRecord, ...]:
    return next(one for one in load_records(connect()) if one.run_id == record.run_id).verdicts


def test_a_verdict_on_very_many_runs_fits_into_the_params_of_mlflow(
    arm_prediction: Prediction, runs: pd.DataFrame
) -> None:
    found = judge(arm_prediction, GRID, runs, [])
    number = -2.2250738585072014e-308  # as long as a number can be
    many = pd.concat([found.runs] * 25, ignore_index=True).assign(**{"accuracy/valid": number})
    content = to_content(dataclasses.replace(found, runs=many))
    assert sum(content[name].count("; ") + 1 for name in content if name.startswith("runs_")) == 150
    assert max(map(len, content.values())) <= 6_000


def test_a_question_without_a_prediction_has_no_verdict(home: Path, small: Config) -> None:
    with pytest.raises(LabError, match="x has no prediction to confront with its runs"):
        verdict(small_study("x", "?", small, (0, 1), {"dropout": (0.0, 0.5)}))


def test_a_verdict_is_shown_as_text_and_in_a_notebook(arm_prediction: Prediction, runs: pd.DataFrame) -> None:
    found: Verdict = judge(arm_prediction, GRID, runs, [])
    html = found._repr_html_()
    assert "What differs in the networks" in html
    assert "Other arms (exploratory): validation accuracy, difference from dropout=0.0, norm=none, 95 % i" in html
    assert arm_prediction.sentence() in str(found)
