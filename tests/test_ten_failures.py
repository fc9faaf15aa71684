"""Ten ways in which reports of such experiments go wrong; the lab prevents or names a replica of each."""

import dataclasses
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import nn

from cnnlab.config import BASE, Config, replace
from cnnlab.data import Data
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.judge.power import power
from cnnlab.inquiry.judge.review import review
from cnnlab.inquiry.judge.verdict import Verdicts, verdict
from cnnlab.inquiry.prediction import predict
from cnnlab.inquiry.record.connection import connect
from cnnlab.inquiry.record.courier import Courier
from cnnlab.inquiry.record.run_logger import RunLogger
from cnnlab.inquiry.record.snapshot import snapshot
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.show.confront import confront
from cnnlab.models import build_model
from cnnlab.one_run import Passing
from cnnlab.training import fit
from tests.helpers import load_weights, settle, small_study, spare_figures

pytestmark = pytest.mark.usefixtures("light")

SMALL = replace(BASE, blocks=((1, 8), (1, 8)), train_images=320, epochs=2, batch_size=32, lr=0.01)
OTHER = replace(SMALL, lr=0.02)
NORM = replace(SMALL, norm="batch")
DROPOUT = small_study("dropout", "?", SMALL, (0, 1), {"dropout": (0.0, 0.5)})
COPY = dataclasses.replace(DROPOUT, name="dropout, once more")
WORDS = {"confidence": 70, "because": "this is a mechanism", "if_refuted": "it is not so"}
UP, DOWN = ({"direction": way, "size": (0.01, 9)} | WORDS for way in ("higher", "lower"))


class Lab(NamedTuple):
    """A store in which a student predicted, ran, and then made another prediction about known results."""

    home: Path
    store: Store
    found: Verdicts
    once_more: Verdicts


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, small_data: Data) -> Iterator[Lab]:
    home = tmp_path_factory.mktemp("my lab")
    with pytest.MonkeyPatch.context() as patch:
        spare_figures(patch)
        settle(patch, home)
        store = connect()
        predict(DROPOUT, arm="dropout=0.5", metric="loss/valid", **UP)
        predict(DROPOUT, arm="dropout=0.5", metric="gap/train_mode", **DOWN)
        predict(COPY, arm="dropout=0.5", metric="accuracy/valid", **UP)
        DROPOUT.run(store, progress=False)
        predict(DROPOUT, arm="dropout=0.5", metric="accuracy/valid", **DOWN)
        predict(DROPOUT, arm="dropout=0.5", metric="loss/valid", **DOWN)
        predict(COPY, arm="dropout=0.5", metric="accuracy/valid", **DOWN)
        COPY.run(store, progress=False)
        yield Lab(home, store, verdict(DROPOUT, store), verdict(COPY, store))


# 1. A "combination" that is the single technique, trained longer


def test_1_two_arms_of_the_same_config_are_refused() -> None:
    with pytest.raises(LabError, match=r"'norm' and 'norm \+ dropout' are the same: they have the same config"):
        small_study("x", "?", SMALL, (0, 1), arms={"none": SMALL, "norm": NORM, "norm + dropout": NORM})


def test_1_a_longer_training_is_refused_unless_it_is_the_question_and_then_it_is_stated(lab: Lab) -> None:
    arms = {"norm": NORM, "norm + dropout": replace(NORM, epochs=4)}
    with pytest.raises(LabError, match=r"the arms differ in epochs\. If that is the question"):
        small_study("x", "?", SMALL, (0, 1), arms=arms, control="norm")
    asked = small_study("x", "?", SMALL, (0, 1), arms=arms, control="norm", roles={"epochs": "scientific"})
    said = str(predict(asked, arm="norm + dropout", metric="accuracy/valid", **UP))
    assert "What differs: epochs 2 -> 4, no other setting." in said
    assert "What differs: epochs 2 -> 4, no other setting." in str(verdict(asked, lab.store))
    hidden = small_study("x", "?", SMALL, (0, 1), arms=arms, control="norm", roles={"epochs": "nuisance"})
    with pytest.raises(LabError, match="differ only in epochs, which x calls a nuisance"):
        predict(hidden, arm="norm + dropout", metric="accuracy/valid", **UP)


def test_1_a_setting_without_effect_is_not_a_treatment() -> None:
    """AdamW has no momentum: three configs, one training."""
    with pytest.raises(LabError, match="are the same: they differ in momentum only, which changes nothing here"):
        small_study("momentum", "?", SMALL, (0, 1), {"momentum": (0.9, 0.5, 0.0)})


def test_1_an_interaction_takes_the_arm_that_is_both_changes_and_nothing_else() -> None:
    arms = {
        "neither": SMALL,
        "dropout": replace(SMALL, dropout=0.5),
        "norm": NORM,
        "both": replace(NORM, dropout=0.5, lr=0.02),
    }
    study = small_study("x", "?", SMALL, (0, 1), arms=arms)
    with pytest.raises(LabError, match=r"no arm that is the control with norm=batch, dropout=0\.5 and"):
        predict(study, interaction={"dropout": 0.5, "norm": "batch"}, metric="accuracy/valid", **UP)


# 2. Params that differ from the model that ran


def test_2_a_network_that_is_not_what_its_params_say_has_no_verdict(lab: Lab, small_data: Data) -> None:
    """A "no normalisation" arm with batch normalisation in it, logged by hand."""
    arms = {"layer": replace(OTHER, norm="layer"), "none": OTHER}
    study = small_study("typed", "?", arms["layer"], (0, 1), arms=arms)
    predict(study, arm="none", metric="accuracy/valid", **DOWN)
    courier = Courier(lab.store)
    for arm, seed, config in study.runs():
        build = with_batch_norm if arm == "none" else build_model
        tags = {"owner": "a student", "study": study.name, "arm": arm}
        with RunLogger(courier, study.name, config, f"{arm}, seed {seed}", tags) as log:
            log.result(fit(config, small_data, [Passing(log)], progress=False, build=build), small_data)
    courier.close()
    (one,) = verdict(study, lab.store)
    assert one.outcome == "withheld"
    said = "none: 2 of 2 runs are not what their params describe: module_tree differs in BatchNorm2d, Identity."
    assert said in str(one)


def with_batch_norm(config: Config) -> nn.Sequential:
    return build_model(replace(config, norm="batch"))


def test_2_params_that_were_typed_elsewhere_are_reported_as_unverifiable(home: Path) -> None:
    client = connect().client
    for norm in ("none", "batch"):
        run = client.create_run(client.create_experiment(f"mine {norm}"))
        client.log_param(run.info.run_id, "norm", norm)
    with snapshot(str(home)) as opened:
        said = "\n".join(review(opened).foreign)
    assert "Whether the networks that ran had these values can't be known." in said


# 3. The wrong control


def test_3_a_control_that_differs_in_more_than_the_question_is_named(lab: Lab) -> None:
    smaller = replace(SMALL, blocks=((1, 4),))
    study = small_study("x3", "?", smaller, (0, 1), arms={"baseline": smaller, "dropout": replace(SMALL, dropout=0.5)})
    prediction = predict(study, arm="dropout", metric="accuracy/valid", **UP)
    named = (
        "2 settings differ at once (blocks ((1, 4),) -> ((1, 8), (1, 8)), dropout 0.0 -> 0.5): the effect is due "
        "to all of them together."
    )
    assert named in str(prediction)
    assert named in str(verdict(study, lab.store))


def test_3_a_control_of_another_size_that_is_declared_fixed_is_refused() -> None:
    smaller = replace(SMALL, blocks=((1, 4),))
    with pytest.raises(LabError, match="blocks has the role fixed, but it differs between the arms"):
        small_study(
            "x", "?", smaller, (0, 1), arms={"a": smaller, "b": replace(SMALL, dropout=0.5)}, roles={"blocks": "fixed"}
        )


# 4. The metric switched after the result


def test_4_a_metric_that_was_chosen_after_the_results_is_exploratory(lab: Lab) -> None:
    first, _, switched, _ = lab.found
    assert first.prediction.metric.name == "loss/valid"
    assert first.label == "confirmatory"
    assert switched.prediction.metric.name == "accuracy/valid"
    assert switched.label == "exploratory"
    assert "Exploratory, because 2 of its runs existed before the prediction." in str(switched)


def test_4_weights_chosen_by_loss_are_a_declared_choice_and_a_fact(small_data: Data) -> None:
    arms = {"last": SMALL, "best": replace(SMALL, keep="best")}
    with pytest.raises(LabError, match="the arms differ in keep"):
        small_study("x", "?", SMALL, (0, 1), arms=arms)
    assert fit(arms["best"], small_data, progress=False).facts["kept"].startswith("best (step")


# 5. A gap of the wrong sign, from a training loss with dropout on


def test_5_the_gap_in_train_mode_is_lower_under_dropout_with_a_warning_that_it_shows_no_overfitting(lab: Lab) -> None:
    runs = DROPOUT.results(lab.store)
    with_dropout = runs[runs["arm"] == "dropout=0.5"]
    assert (with_dropout["gap/train_mode"] < 0).all()  # "it underfits", or so it seems
    assert (with_dropout["gap/loss"] > with_dropout["gap/train_mode"]).all()  # both losses in eval mode
    by_arm = (runs["gap/loss"] - runs["gap/train_mode"]).groupby(runs["arm"]).mean()
    assert by_arm["dropout=0.5"] > by_arm["dropout=0.0"]  # dropout raises the training loss in train mode
    _, wrong, *_ = lab.found
    assert "This gap doesn't show overfitting: dropout and label smoothing raise the training loss" in str(wrong)
    assert "This gap doesn't show overfitting" in str(wrong.prediction)
    assert "This gap doesn't show overfitting" not in str(lab.found[0])


# 6. The hypothesis rewritten after the result


def test_6_a_prediction_reversed_after_the_result_replaces_nothing(lab: Lab) -> None:
    first, _, _, turned = lab.found
    assert (first.prediction.claim.direction, turned.prediction.claim.direction) == ("higher", "lower")
    assert (first.label, turned.label) == ("confirmatory", "exploratory")


def test_6_nor_does_one_that_knew_the_result_from_another_study(lab: Lab) -> None:
    first, turned = lab.once_more
    assert (first.prediction.claim.direction, first.label) == ("higher", "confirmatory")
    assert (turned.prediction.claim.direction, turned.label) == ("lower", "exploratory")


def test_6_nor_one_that_knew_it_from_a_trial_of_a_search(home: Path, small_data: Data) -> None:
    client = connect().client
    for seed in (0, 1):
        config = replace(SMALL, dropout=0.5, seed=seed)
        run = client.create_run(connect().experiment_id("search"), tags={"kind": "trial", "owner": "a student"})
        for name, value in config:
            client.log_param(run.info.run_id, name, value)
        client.log_metric(run.info.run_id, "final/loss/valid", 1.0)
    predict(DROPOUT, arm="dropout=0.5", metric="loss/valid", **UP)
    (one,) = verdict(DROPOUT)
    assert one.label == "exploratory"


def test_6_a_record_rewritten_in_the_database_confirms_nothing_and_is_named(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copyfile(lab.home / "mlflow.db", tmp_path / "mlflow.db")
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database, database:
        database.execute("UPDATE params SET value = 'lower' WHERE key = 'direction' AND value = 'higher'")
    monkeypatch.setenv("CNNLAB_HOME", str(tmp_path))
    rewritten = verdict(DROPOUT)[0]
    assert (rewritten.prediction.claim.direction, rewritten.label) == ("lower", "exploratory")
    assert "Exploratory, because its record was changed after it was sealed." in str(rewritten)
    with snapshot(str(tmp_path)) as opened:
        assert not review(opened).is_intact


# 7. The losing run repeated with more epochs, and only that one reported


def test_7_the_same_question_with_more_epochs_is_noted_beside_the_first_try(lab: Lab) -> None:
    longer = dataclasses.replace(DROPOUT, name="longer", base=replace(SMALL, epochs=3), arms={}, control="")
    prediction = predict(longer, arm="dropout=0.5", metric="loss/valid", **UP)
    assert prediction.record
    with snapshot(str(lab.home)) as opened:
        found = review(opened)
    named = [note for note in found.notes if note.startswith(f"prediction {prediction.record.sha256[:12]}")]
    (note,) = (note for note in named if "it asks again what" in note)
    assert "whose results were known (runs: 2); now with epochs 2 -> 3." in note
    assert set(found.predictions["study"]) >= {"dropout", "longer"}  # the first try stays on record


def test_7_longer_in_one_arm_only_is_refused_and_in_all_it_is_another_prediction(lab: Lab) -> None:
    arms = {"none": SMALL, "dropout": replace(SMALL, dropout=0.5, epochs=4)}
    with pytest.raises(LabError, match="the arms differ in epochs"):
        small_study("dropout", "?", SMALL, (0, 1), arms=arms)
    longer = dataclasses.replace(DROPOUT, base=replace(SMALL, epochs=4), arms={}, control="")
    with pytest.raises(LabError, match=r"dropout doesn't fit what you predicted: .*epochs 2 -> 4"):
        longer.run(lab.store, progress=False)


def test_7_deleted_runs_still_count_as_seen(lab: Lab, home: Path) -> None:
    shutil.copyfile(lab.home / "mlflow.db", home / "mlflow.db")
    store = connect()
    for run_id in DROPOUT.results(store)["run_id"]:
        store.client.delete_run(run_id)
    predict(DROPOUT, arm="dropout=0.5", metric="gap/loss", **DOWN)
    assert {one.prediction.metric.name: one.label for one in verdict(DROPOUT)}["gap/loss"] == "exploratory"


# 8. Claims smaller than chance


def test_8_a_claim_below_the_noise_is_not_supported_and_the_noise_is_known(lab: Lab, small_data: Data) -> None:
    arms = {"baseline": SMALL, "my trick": replace(SMALL, seed=1000)}  # the trick: other random numbers
    study = small_study("tricks", "?", SMALL, (0, 1), arms=arms)
    prediction = predict(study, arm="my trick", metric="accuracy/valid", **(UP | {"size": (0.1, 0.5)}))
    assert "What differs: seed 0 -> 1000, that is, chance alone." in str(prediction)
    study.run(lab.store, progress=False)
    (one,) = verdict(study, lab.store)
    assert one.outcome == "inconclusive"
    assert one.effect and one.effect.low < 0 < one.effect.high
    assert "These runs can't tell whether there is a difference." in str(one)
    floor = power(study, store=lab.store)
    assert floor.n == 4
    assert floor.detectable > 0.5


def test_8_one_run_per_arm_is_not_an_experiment(lab: Lab) -> None:
    with pytest.raises(LabError, match="has one seed, and a verdict needs repetition"):
        predict(dataclasses.replace(DROPOUT, seeds=(0,)), arm="dropout=0.5", metric="accuracy/valid", **UP)


# 9. Text and outputs that disagree


def test_9_a_run_depends_on_nothing_that_happened_before_in_the_notebook(lab: Lab, small_data: Data) -> None:
    recorded = DROPOUT.results(lab.store).set_index(["arm", "seed"])
    torch.manual_seed(99)
    warm = fit(replace(SMALL, epochs=5), small_data, progress=False)  # a model that was already trained
    torch.rand(1000)
    again = fit(replace(SMALL, dropout=0.5, seed=1), small_data, progress=False)
    assert again.model is not warm.model
    assert again.final["loss/valid"] == recorded.loc[("dropout=0.5", 1), "loss/valid"]
    assert again.facts["steps"] == recorded.loc[("dropout=0.5", 1), "fact.steps"] == "20"


def test_9_a_run_with_more_steps_than_its_params_say_is_named(lab: Lab, small_data: Data) -> None:
    """The arm was trained for twice as long, but is on record with the params of the first half."""
    study = small_study("further", "?", OTHER, (2, 3), {"dropout": (0.0, 0.5)})
    predict(study, arm="dropout=0.5", metric="loss/valid", **DOWN)
    courier = Courier(lab.store)
    for arm, _, config in study.runs():
        with RunLogger(courier, study.name, config, arm, {"owner": "a student", "study": study.name}) as log:
            longer = replace(config, epochs=4) if arm == "dropout=0.5" else config
            log.result(fit(longer, small_data, [Passing(log)], progress=False), small_data)
    courier.close()
    (one,) = verdict(study, lab.store)
    assert one.outcome == "withheld"
    assert "dropout=0.5: 2 of 2 runs are not what their params describe: steps is 40 instead of 20." in str(one)
    with snapshot(str(lab.home)) as opened:
        problems = [problem for problem in review(opened, lab.home).problems if "of further" in problem]
    assert len(problems) == 2 and all("has the metrics of 4 epochs, and its params say 2" in one for one in problems)


def test_9_a_verdict_is_computed_from_the_store_and_says_the_numbers_that_are_there(lab: Lab) -> None:
    runs = DROPOUT.results(lab.store)
    runs["loss/valid"] = 0.0  # a cell can change the table
    (again, *_) = verdict(DROPOUT, lab.store)
    assert again.headline() == lab.found[0].headline()
    table = DROPOUT.results(lab.store).pivot(index="seed", columns="arm", values="loss/valid")
    mean = (table["dropout=0.5"] - table["dropout=0.0"]).mean()
    assert f"loss/valid {mean:+.3f} nats" in again.headline()


# 10. Absolute paths: nothing opens on another machine


def test_10_a_store_handed_in_opens_elsewhere_whole(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    confront(COPY, lab.store)
    there = tmp_path / "instructor's folder"
    shutil.copytree(lab.home, there, ignore=shutil.ignore_patterns(".cnnlab"))
    for file in (there / "mlflow.db", *there.glob("**/*.md"), *there.glob("**/MLmodel")):
        assert str(lab.home).encode() not in file.read_bytes(), file
    monkeypatch.setenv("CNNLAB_HOME", str(there))
    store = connect()
    assert store.uri.endswith("instructor's folder/mlflow.db")
    runs = DROPOUT.results(store)
    assert len(runs) == 4
    assert len(load_weights(store, runs["run_id"].iloc[0])) > 0
    assert verdict(DROPOUT, store)[0].headline() == lab.found[0].headline()
    with snapshot(str(there)) as opened:
        problems = review(opened, there).problems
    assert [problem for problem in problems if "of further" not in problem] == []  # which was typed in
