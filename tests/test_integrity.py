"""Can a false "supported (confirmatory)" get past the verdict and the review? Each test tries one way to get it."""

import dataclasses
import re
import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import cnnlab.inquiry.record.ledger
from cnnlab.cli import cli
from cnnlab.config import BASE
from cnnlab.data import Data
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.judge.review import Review, review
from cnnlab.inquiry.judge.verdict import Verdict, verdict
from cnnlab.inquiry.params import replace
from cnnlab.inquiry.prediction import Prediction, predict
from cnnlab.inquiry.record.connection import connect
from cnnlab.inquiry.record.courier import Courier
from cnnlab.inquiry.record.environment import environment_facts
from cnnlab.inquiry.record.run_logger import RunLogger
from cnnlab.inquiry.record.runs import load_raw, load_runs
from cnnlab.inquiry.record.seal import SEAL, seal_run
from cnnlab.inquiry.record.snapshot import snapshot
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.run.results import results
from cnnlab.inquiry.run.runner import run_study
from cnnlab.inquiry.show.confront import confront
from cnnlab.inquiry.show.report import report
from cnnlab.inquiry.study import Study
from cnnlab.inquiry.task import task
from cnnlab.one_run import Passing
from cnnlab.source import code_of, source_files, source_sha256
from cnnlab.task import LAB
from cnnlab.training import fit
from tests.helpers import SMALL_DATA, settle, small_study, spare_figures

pytestmark = pytest.mark.usefixtures("light")

SMALL = replace(BASE, blocks=((1, 8), (1, 8)), train_images=128, epochs=2, batch_size=32, lr=0.01)
CLAIM = {
    "metric": "accuracy/valid",
    "direction": "lower",
    "size": (1, 9),
    "confidence": 70,
    "because": "this is a mechanism",
    "if_refuted": "it is not so",
}


def study_of(name: str, base: object = SMALL, seeds: tuple[int, ...] = (0, 1), **vary: tuple) -> Study:
    return small_study(name, "?", base, seeds, vary or {"dropout": (0.0, 0.5)})


@pytest.fixture
def study() -> Study:
    return study_of("dropout")


def run(study: Study, explore: bool = False) -> pd.DataFrame:
    return run_study(study, connect(), "here", progress=False, explore=explore)


def predicted(study: Study, **changes: object) -> Prediction:
    return predict(study, **({"arm": "dropout=0.5"} | CLAIM | changes))


def judged(study: Study) -> Verdict:
    return verdict(study, connect())[0]


def reviewed(home: Path) -> Review:
    with snapshot(str(home)) as opened:
        return review(opened, home)


def said(home: Path, *parts: str) -> bool:
    """Return whether one note of a review contains all of these parts."""
    return any(all(part in note for part in parts) for note in reviewed(home).notes)


# Results that were known


def test_1_explored_first_and_predicted_then_is_exploratory(home: Path, study: Study) -> None:
    run(study, explore=True)
    predicted(study)
    run(study)
    assert judged(study).label == "exploratory"


@pytest.mark.parametrize(
    "idle",
    [
        {"norm_groups": 4},
        {"conv_dropout_place": "before_norm"},
        {"conv_dropout_kind": "spatial"},
        {"momentum": 0.5},
        {"patience": 7},
        {"precision": "float32"},
    ],
    ids=str,
)
def test_2_a_look_through_a_field_without_effect_is_a_look(home: Path, study: Study, idle: dict) -> None:
    peek = study_of("peek", replace(SMALL, **idle))
    run(peek, explore=True)
    predicted(study)
    run(study)
    found = judged(study)
    assert found.label == "exploratory"
    assert "2 of its runs existed before the prediction" in found.because


def test_2_exploring_with_other_seeds_is_reported(home: Path) -> None:
    run(study_of("scouting", seeds=(0, 1, 2, 3)), explore=True)
    study = study_of("dropout", seeds=(7, 8))
    predicted(study)
    run(study)
    found = judged(study)
    assert found.label == "confirmatory"
    note = "before it, runs without a prediction had varied dropout (4 runs, 4 seeds); the prediction has 2 seeds."
    assert note in found.notes
    assert said(home, note)


def test_2_values_that_another_prediction_had_tried_are_reported(home: Path) -> None:
    """Running a value close to the one that counts is a look at it, even if it was predicted."""
    dummy = study_of("dummy", dropout=(0.0, 0.501))
    predicted(dummy, arm="dropout=0.501")
    run(dummy)
    study = study_of("dropout", seeds=(0, 1))
    predicted(study)
    run(study)
    note = "before it, runs of other predictions had varied dropout (2 runs, 2 seeds); the prediction has 2 seeds."
    assert note in judged(study).notes
    assert said(home, note)


def test_3_a_look_as_a_shipped_owner_is_reported(home: Path, study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CNNLAB_OWNER", "example")
    predicted(study)
    run(study)
    monkeypatch.setenv("CNNLAB_OWNER", "a student")
    own = study_of("dropout", seeds=(5, 6))
    predicted(own)
    run(own)
    note = "other owners of this store had run its arms before it: example (2)."
    assert note in judged(own).notes
    assert said(home, note)


def test_3_the_seals_of_what_ships_are_those_of_the_shipped_store() -> None:
    from tests.golden import FOLDER, records_of_golden, runs_of_golden, what_ships

    assert set(runs_of_golden(FOLDER)) | set(records_of_golden(FOLDER)) <= task().shipped
    assert len(task().shipped) == sum(what_ships(FOLDER))


def test_4_the_opposite_predicted_as_well_replaces_the_first(home: Path, study: Study) -> None:
    predicted(study, arm="dropout=0.5", direction="lower", confidence=99)
    second = predicted(study, arm="dropout=0.0", against="dropout=0.5", direction="lower", confidence=99)
    run(study)
    found = verdict(study, connect())
    assert [one.prediction.record.sha256 for one in found] == [second.record.sha256]


def test_4_nor_does_another_name_of_the_study_hold_two_bets(home: Path, study: Study) -> None:
    predicted(study, direction="lower", confidence=99)
    other = dataclasses.replace(study, name="the same again")
    predicted(other, direction="higher", confidence=99)
    run(study)
    run(other)
    with pytest.raises(LabError, match="a newer one about the same question, perhaps in another study, has"):
        verdict(study, connect())
    assert len(verdict(other, connect())) == 1


def test_4_a_trend_over_three_even_levels_and_its_ends_are_one_question(home: Path) -> None:
    study = study_of("dropout", dropout=(0.0, 0.25, 0.5))
    predicted(study, direction="lower", confidence=99)
    second = predicted(study, arm="", trend="dropout", direction="higher", confidence=99)
    run(study)
    (found,) = verdict(study, connect())
    assert found.prediction.record.sha256 == second.record.sha256


def test_4_two_precisions_are_no_two_questions(home: Path) -> None:
    first, second = (study_of(f"in {p}", replace(SMALL, precision=p)) for p in ("auto", "float32"))
    predicted(first, direction="lower", confidence=99)
    predicted(second, direction="higher", confidence=99)
    run(first)
    run(second)
    with pytest.raises(LabError, match="a newer one about the same question"):
        verdict(first, connect())
    assert judged(second).label == "confirmatory"


# Results that were changed


def tamper(run_id: str, home: Path, value: float = 0.99, reseal: bool = False, unseal: bool = False) -> None:
    """Change the final accuracy of a run in the database; seal it again, or remove the seal."""
    with closing(sqlite3.connect(home / "mlflow.db")) as database, database:
        key = ("final/accuracy/valid", run_id)
        database.execute(f"UPDATE latest_metrics SET value = {value} WHERE key = ? AND run_uuid = ?", key)
        database.execute(f"UPDATE metrics SET value = {value} WHERE key = ? AND run_uuid = ?", key)
        if unseal:
            database.execute("DELETE FROM tags WHERE key = ? AND run_uuid = ?", (SEAL, run_id))
    if reseal:
        client = connect().client
        found = client.get_run(run_id)
        seal = seal_run(found.info.start_time, found.data.params, found.data.tags, found.data.metrics)
        client.set_tag(run_id, SEAL, seal)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder with a finished study about which a prediction was made."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        spare_figures(patch)
        settle(patch, folder)
        predicted(study_of("dropout"))
        run(study_of("dropout"))
    return folder


@pytest.fixture
def finished(home: Path, study: Study, made: Path) -> pd.DataFrame:
    """The runs of that study in another folder."""
    shutil.copytree(made, home, dirs_exist_ok=True)
    return results(study, connect())


def test_5_a_changed_result_withholds_the_verdict(home: Path, study: Study, finished: pd.DataFrame) -> None:
    tamper(finished["run_id"].iloc[1], home)
    found = judged(study)
    assert found.outcome == "withheld"
    said = "1 of 4 runs aren't as they were sealed, such as dropout=0.5, seed 0, which was changed after"
    assert said in found.reasons[0]
    assert not reviewed(home).is_intact


def test_6_nor_does_it_help_to_remove_the_seal(home: Path, study: Study, finished: pd.DataFrame) -> None:
    tamper(finished["run_id"].iloc[1], home, unseal=True)
    found = judged(study)
    assert found.outcome == "withheld"
    assert "which has no seal" in found.reasons[0]
    assert any("it has no seal, though every finished run gets one" in problem for problem in reviewed(home).problems)


def test_7_a_result_that_was_sealed_again_has_to_agree_with_all_that_the_run_left(
    home: Path, study: Study, finished: pd.DataFrame
) -> None:
    run_id = finished["run_id"].iloc[1]
    tamper(run_id, home, reseal=True)
    problems = [problem for problem in reviewed(home).problems if run_id[:8] in problem]
    assert len(problems) == 2
    assert "its answers to the validation images make an accuracy of" in " ".join(problems)
    assert "its final accuracy/valid (0.990000) is not that of the epoch whose weights were kept" in " ".join(problems)


def test_7_averaged_weights_are_of_no_epoch_and_a_changed_result_is_named_by_their_answers(home: Path) -> None:
    study = study_of("averaged", replace(SMALL, keep="average"), norm=("none", "batch"))
    predicted(study, arm="norm=batch")
    run_id = run(study)["run_id"].iloc[1]
    assert reviewed(home).is_intact
    tamper(run_id, home, reseal=True)
    (problem,) = [problem for problem in reviewed(home).problems if run_id[:8] in problem]
    assert "its answers to the validation images make an accuracy of" in problem


def test_7_with_the_answers_forged_alike_the_weights_tell(home: Path, real_data: Data, finished: pd.DataFrame) -> None:
    few = replace(SMALL, train_images=640)
    study = Study("real", "?", few, (0, 1), {"dropout": (0.0, 0.5)})
    predicted(study)
    run_id = run(study)["run_id"].iloc[1]
    assert reviewed(home).is_intact
    (file,) = (home / "models").glob(f"*/{run_id}/artifacts/valid_correct.npy")
    correct = np.load(file)
    correct[~correct] = np.random.default_rng(0).random((~correct).sum()) < 0.3
    np.save(file, correct)
    tamper(run_id, home, value=int(correct.sum()) / len(correct), reseal=True)
    problems = " ".join(problem for problem in reviewed(home).problems if run_id[:8] in problem)
    assert "its weights give other answers than it recorded" in problems


def test_7_with_other_losses_than_its_result_a_run_contradicts_itself(home: Path, finished: pd.DataFrame) -> None:
    run_id = finished["run_id"].iloc[1]
    (file,) = (home / "models").glob(f"*/{run_id}/artifacts/valid_loss.npy")
    losses = np.load(file)
    np.save(file, 0.99 * losses)
    (problem,) = (problem for problem in reviewed(home).problems if run_id[:8] in problem)
    assert f"its losses on the validation images have a mean of {0.99 * losses.mean():.4f}" in problem
    file.unlink()  # like a run of an earlier version
    assert not [problem for problem in reviewed(home).problems if run_id[:8] in problem]


def test_8_a_run_sealed_again_after_its_verdict_is_named(home: Path, study: Study, finished: pd.DataFrame) -> None:
    judged(study)
    tamper(finished["run_id"].iloc[1], home, reseal=True)
    assert any("was changed after the verdict" in problem for problem in reviewed(home).problems)


def test_9_a_head_that_was_handed_in_fits_no_store_in_which_something_was_changed(
    home: Path, study: Study, finished: pd.DataFrame
) -> None:
    judged(study)
    early = reviewed(home).heads["a student"][-1]
    more = dataclasses.replace(study, seeds=(0, 1, 2))
    run(more)
    found = reviewed(home)
    assert f"after {early.number} records. All of them are in the store unchanged. Added since: 2." in (
        found.find_head(early.sha256)
    )
    assert found.heads["a student"][-1].sha256 != early.sha256
    tamper(finished["run_id"].iloc[1], home, reseal=True)
    assert reviewed(home).find_head(early.sha256) == ""
    result = CliRunner().invoke(cli, ["review", str(home), "--head", early.sha256])
    assert result.exit_code == 1
    assert "something before it was changed or is missing" in result.output


def test_9_a_run_that_is_delivered_later_leaves_a_head_valid(home: Path, study: Study) -> None:
    predicted(study)
    carrier = Courier(connect())
    with RunLogger(carrier, study.name, SMALL, "late", {"owner": "a student"}) as log:
        log.result(fit(SMALL, SMALL_DATA, [Passing(log)], progress=False), SMALL_DATA)
    ended = load_raw(connect())[-1].tags["fact.ended"]
    carrier.close()
    early = reviewed(home).heads["a student"][-1]

    late = RunLogger(carrier := Courier(connect()), study.name, SMALL, "later", {"owner": "a student"})
    late.start({"ended": ended})  # it ended at the same time as the first, but arrived hours later
    late.close("FINISHED")
    carrier.close()
    assert "Added since: 1." in reviewed(home).find_head(early.sha256)


@pytest.mark.parametrize("text", ["a", "", "12", "x" * 64, "A" * 64, "no head"])
def test_9_a_text_that_is_not_a_head_is_refused(text: str) -> None:
    with pytest.raises(LabError, match="is not a head: a head has 64 characters"):
        Review().find_head(text)


def test_9_the_head_is_printed_where_it_may_be_handed_in(home: Path, study: Study) -> None:
    predicted(study)
    run(study)
    confront(study)
    head = reviewed(home).heads["a student"][-1].sha256
    journal = home / "experiment_log" / f"{study.name}.md"
    journal.write_text(
        re.sub(r"(<!-- why .*-->\n)\n", r"\1It was so.\n", journal.read_text(encoding="utf-8")), encoding="utf-8"
    )
    assert head in report(connect()).with_suffix(".md").read_text(encoding="utf-8")
    assert head in CliRunner().invoke(cli, ["review", str(home)]).output


def test_10_a_clock_that_was_set_back_makes_no_prediction(home: Path, study: Study) -> None:
    run(study, explore=True)

    class Yesterday(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:
            return datetime.now(UTC) - timedelta(days=1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cnnlab.inquiry.record.ledger, "datetime", Yesterday)
        predicted(study)
    run(study)
    found = judged(study)
    assert found.label == "exploratory"
    assert "2 of its runs don't name the prediction: it wasn't on record when they began" in found.because


def test_10_a_run_taken_over_names_what_was_predicted_when_it_was_trained(home: Path, study: Study) -> None:
    predicted(study)
    other = study_of("both", dropout=(0.0, 0.5), norm=("none", "batch"))
    early = predicted(other, arm="dropout=0.5, norm=none")
    run(study)  # trains two of its arms
    late = dataclasses.replace(study, name="late")
    predicted(late, metric="loss/valid", direction="higher", size=(0.1, 1))
    run(other)
    run(late)
    assert judged(other).label == "confirmatory"
    assert early.record.sha256 in load_runs(connect(), "dropout")["prediction"].iloc[0]
    assert judged(late).label == "exploratory"


# Runs that were removed, or never existed


def test_11_an_older_copy_of_the_store_misses_runs_and_entries(
    home: Path, study: Study, finished: pd.DataFrame
) -> None:
    older = home.parent / "older.db"
    shutil.copyfile(home / "mlflow.db", older)
    predicted(study_of("norm", norm=("none", "batch")), arm="norm=batch")
    norm = study_of("norm", norm=("none", "batch"))
    lost = run(norm)
    confront(norm, connect())
    assert reviewed(home).is_intact
    shutil.copyfile(older, home / "mlflow.db")
    problems = " ".join(reviewed(home).problems)
    for run_id in lost.loc[lost["reused_from"] == "", "run_id"]:
        assert f"{run_id}: the run with these files isn't in the store" in problems
    assert "experiment_log/norm.md: the prediction of the entry" in problems


def test_12_a_run_that_was_typed_in_cannot_be_verified_and_contradicts_itself(home: Path, study: Study) -> None:
    predicted(study)
    run(study)
    store = connect()
    config = replace(SMALL, dropout=0.3)
    real = fit(config, SMALL_DATA, progress=False, device="cpu")
    courier = Courier(store)
    with RunLogger(courier, "dropout", config, "dropout=0.3, seed 1 of 2", {"owner": "a student"}) as log:
        log.start(real.facts | environment_facts())
        log.epoch(1, {"loss/valid": 0.1, "accuracy/valid": 0.99})
        finals = {"final/loss/valid": 0.1, "final/accuracy/valid": 0.99, "final/time/total_s": 60.0}
        log.write("metrics", step=2, metrics=finals)
    courier.close()
    found = reviewed(home)
    assert [line for line in found.unverified if "no valid_correct.npy, no weights.safetensors" in line]
    problems = " ".join(found.problems)
    assert "it has the metrics of 1 epochs, and its params say 2" in problems
    assert "and says that its training took 60.0 s" in problems


def test_12_the_same_training_images_under_another_seed_are_named(home: Path, finished: pd.DataFrame) -> None:
    client = connect().client
    first, last = finished["run_id"].iloc[0], finished["run_id"].iloc[-1]
    client.set_tag(last, "fact.train_sha256", client.get_run(first).data.tags["fact.train_sha256"])
    assert any("its train_sha256 is that of another seed" in problem for problem in reviewed(home).problems)


def test_13_other_images_are_part_of_the_prediction_and_named(home: Path, study: Study, finished: pd.DataFrame) -> None:
    judged(study)
    assert said(home, "in dropout: it is about other images than Fashion-MNIST's own.")
    assert said(home, "Runs by a student on other images than Fashion-MNIST's own: 4.")
    chosen = dataclasses.replace(
        study, data=Data(SMALL_DATA.train, SMALL_DATA.valid.take(SMALL_DATA.valid.y.argsort()))
    )
    with pytest.raises(LabError, match="give the study on these images another name"):
        run(chosen)


def test_14_code_that_differs_between_arms_withholds_the_verdict(
    home: Path, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    predicted(study)
    one_arm = small_study("one", "?", SMALL, (0, 1))
    run(one_arm, explore=True)
    environment = environment_facts()
    monkeypatch.setitem(environment, "source_sha256", "another")
    run(study)
    found = judged(study)
    assert found.outcome == "withheld"
    assert "source_sha256 differs in 2 of 2 seeds" in str(found)


def test_14_the_fingerprint_is_that_of_all_code_that_trains() -> None:
    """`released.txt` is written by `uv run .ci/released.py --write`."""
    files = {file.name for file in source_files()}
    assert {"training.py", "config.py", "data.py", "models.py", "params.py", "probes.py", "device.py"} <= files
    assert source_sha256() == LAB.released[0]


def test_14_comments_and_docstrings_do_not_change_the_code() -> None:
    code = 'x = "# no comment"\n\n\ndef f():\n    """Say something."""\n    return x  # the text\n'
    other = 'x = "# no comment"\ndef f():\n    """Say\n    more."""\n    # what it returns\n    return x\n'
    assert code_of(code) == code_of(other) == 'x = "# no comment"\ndef f():\n    return x'
    assert code_of(code) != code_of(code.replace("return x", "return x + x"))


def test_14_an_earlier_release_trains_the_same(home: Path, study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    predicted(study)
    run(small_study("one", "?", SMALL, (0, 1)), explore=True)
    monkeypatch.setitem(environment_facts(), "source_sha256", LAB.released[-1])
    run(study)
    assert LAB.released[-1] != LAB.released[0]
    assert "source_sha256" not in str(judged(study)) and "lab's release" not in str(judged(study))


def test_14_code_that_is_not_the_release_is_noted(home: Path, study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    predicted(study)
    monkeypatch.setitem(environment_facts(), "source_sha256", "another")
    run(study)
    assert "the code that trained 4 of 4 runs is not that of the lab's release" in str(judged(study))


# Predictions that can't fail


def test_15_a_large_smallest_effect_of_interest_needs_a_reason(home: Path, study: Study) -> None:
    claim = {"direction": "none", "size": None, "sesoi": 50}
    with pytest.raises(LabError, match=r"more than 3 times the usual 0\.3.*say in sesoi_because"):
        predicted(study, **claim)
    given = predicted(study, **claim, sesoi_because="this network barely learns anything here")
    assert "Reason for such a large smallest effect of interest: this network barely learns" in str(given)
    assert said(home, "its smallest effect of interest is 50.00 pp, and 0.30 pp is usual (this network barely learns")


def test_16_several_claims_on_the_same_runs_are_counted(home: Path, study: Study) -> None:
    for metric in ("accuracy/valid", "accuracy/train_eval", "gap/accuracy"):
        predicted(study, metric=metric)
    run(study)
    found = verdict(study, connect())
    assert {one.label for one in found} == {"confirmatory"}
    note = (
        "3 predictions are about the same runs. Without any effect, each is 'supported' in at most 2.5 % of studies, "
    )
    assert all(any(line.startswith(note) and "at most 7.5 %" in line for line in one.notes) for one in found)
    assert len([line for line in reviewed(home).notes if note in line]) == 1


def test_17_exploring_at_another_size_is_reported_with_its_factor(home: Path, study: Study) -> None:
    run(study_of("smaller", replace(SMALL, train_images=96)), explore=True)
    predicted(study)
    run(study)
    assert judged(study).label == "confirmatory"
    assert said(home, "before it, runs without a prediction had varied dropout (2 runs, 2 seeds); the prediction has")


def test_18_no_reading_without_a_reason_or_a_record(home: Path) -> None:
    from cnnlab import read_test_set

    with pytest.raises(LabError, match="say why you open it"):
        read_test_set(connect(), "  ")
    assert load_raw(connect()) == []
    with pytest.raises(LabError, match="the test set stays closed, since its reading can't be recorded now"):
        read_test_set(Store("http://127.0.0.1:9"), "curiosity")


# What a review prints


def test_a_store_cannot_move_or_clear_what_a_terminal_shows(home: Path, study: Study) -> None:
    for text in ("\x1b[2J\x1b[H all is well here", "all is \u202e well here", "all is \0 well here"):
        with pytest.raises(LabError, match="has characters that can't be shown: leave them out"):
            predicted(study, because=text)
    predicted(study, because="all is well here:\n\tas it was")
    client = connect().client
    bad = client.create_experiment("odd\x1b[2K\nIntact: 17 predictions", artifact_location="mlflow-artifacts:/odd")
    client.create_run(bad, tags={"kind": "run", "owner": "evil\x1b[1A\u202e\r"}, run_name="\x1b[2J\u202eevil")
    result = CliRunner().invoke(cli, ["review", str(home)])
    assert not {char for char in result.output if ord(char) < 32 and char != "\n"}
    assert "\u202e" not in result.output
    assert "\\x1b" in result.output
    assert not any(line.startswith("Intact") for line in result.stdout.splitlines()[1:])
