"""The reference runs, beside a student's verdict and as a champion, on small images."""

import dataclasses
import shutil
from pathlib import Path

import mlflow
import pandas as pd
import pytest
import torch
from click.testing import CliRunner

from cnnlab.cli import cli
from cnnlab.config import Config, replace
from cnnlab.course import reference
from cnnlab.course.champion import ADDRESS, register_champion
from cnnlab.course.examples import predict_examples
from cnnlab.course.overview import BEGIN, END, Results, plot_overview, write_results
from cnnlab.course.profiles import PROFILES
from cnnlab.course.studies import lab_studies
from cnnlab.data import Batches, Data
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.judge.statistics import contrast_effect
from cnnlab.inquiry.record.connection import connect
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.record.vault_record import record_test_result
from cnnlab.inquiry.run.results import results
from cnnlab.inquiry.show.confront import confront
from cnnlab.inquiry.show.logbook import logbook_file
from tests.helpers import SMALL_DATA, predicted, settle, small_study, spare_figures

SMALL = dataclasses.replace(PROFILES["tiny"], train_images=320, epochs=1)
FULL = dataclasses.replace(SMALL, name="full", seeds=3, train_images=640)  # small enough for a test


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder with the reference runs of one study."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        spare_figures(patch)
        settle(patch, folder, reference.OWNER)
        patch.setitem(PROFILES, "full", FULL)
        store, study = connect(), reference.reference_studies()["02-dropout"]
        predict_examples(study, store)
        study.run(store, progress=False)
        assert not any(confront(study, store).references)  # a reference isn't compared with itself
    return folder


@pytest.fixture
def shipped(made: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The same in another folder, like the clone of a student."""
    monkeypatch.setitem(PROFILES, "full", FULL)
    shutil.copytree(made, home, dirs_exist_ok=True)
    return connect()


@pytest.mark.usefixtures("light")
def test_the_reference_interval_is_shown_beside_a_students_verdict(shipped: Store, real_data: Data) -> None:
    study = lab_studies(SMALL)["tiny-02-dropout"]
    predict_examples(study, shipped)
    waiting = confront(study, shipped)
    assert waiting.references == (None,)  # not before there is a verdict
    assert "reference" not in str(waiting)

    study.run(shipped, progress=False)
    found = confront(study, shipped)
    runs = reference.reference_studies()["02-dropout"]
    theirs = results(runs, shipped, reference.OWNER)
    values = theirs.pivot(index="seed", columns="arm", values="loss/valid")
    expected = contrast_effect(values, {"dropout=0.5": 1.0, "dropout=0.0": -1.0})
    beside = found.references[0]
    assert beside and beside.effect == expected and expected.n == 3
    assert found.verdicts[0].effect and found.verdicts[0].effect.n == 2
    sentence = (
        f"For comparison, the reference runs (1 epoch of 640 images): loss/valid {expected.estimate:+.3f} nats, 95 %"
    )
    assert sentence in str(found)
    assert sentence in logbook_file(study.name).read_text(encoding="utf-8")
    assert found.verdicts[0].recorded and "reference runs" not in found.verdicts[0].recorded.content["said"]
    hollow = [line for axes in found.figures["effects"].axes for line in axes.lines if line.get_mfc() == "white"]
    assert hollow[0].get_xdata()[0] == expected.estimate


@pytest.mark.usefixtures("light")
def test_another_question_gets_no_reference(shipped: Store, small_data: Data, small: Config) -> None:
    """Neither a student's own study, nor one with other arms of the same names, nor one on other images."""
    for study in (
        small_study("my-dropout", "?", small, (0, 1), vary={"dropout": (0.0, 0.5)}),
        small_study(
            "my-02-dropout", "?", small, (0, 1), arms={"dropout=0.0": small, "dropout=0.5": replace(small, lr=0.02)}
        ),
        dataclasses.replace(lab_studies(SMALL)["tiny-02-dropout"], data=SMALL_DATA),
    ):
        predicted(study)
        study.run(shipped, progress=False)
        assert confront(study, shipped).references == (None,)


def test_a_champion_is_loaded_by_its_name_and_its_card_says_what_was_measured(shipped: Store, real_data: Data) -> None:
    runs = results(reference.reference_studies()["02-dropout"], shipped, reference.OWNER)
    tested = pd.DataFrame({"n": [5.0], "test": [91.2]}, index=["mine"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CNNLAB_OWNER", reference.OWNER)
        record_test_result(shipped, "why not", 2, "said", tested, {}, {"mine": list(runs["run_id"])})
    for place in (0, 5):  # a later one takes over the name
        run = runs.iloc[place]
        card = register_champion(run["run_id"], shipped, real_data)
        model = mlflow.pytorch.load_model(ADDRESS)
        with torch.inference_mode():
            correct = [
                (model(x).argmax(dim=1) == y).double() for x, y in Batches(real_data.valid, 100, real_data.normaliser())
            ]
        assert float(torch.cat(correct).mean()) == run["accuracy/valid"]
        assert f"accuracy {100 * run['accuracy/valid']:.2f} %" in card
        arm = runs[runs["arm"] == run["arm"]]
        assert f"{100 * arm['accuracy/valid'].mean():.2f} % (95 % interval" in card
        assert f"`{run['run_id']}`" in card
        assert "On the official test images, 5 such runs reached 91.20 % on average." in card
    version = shipped.client.get_model_version_by_alias("fashion-cnn", "champion")
    assert version.description == card and str(version.version) == "2"
    with pytest.raises(LabError, match="no finished run"):
        register_champion(shipped.client.search_runs(["1"], "tags.kind = 'prediction'")[0].info.run_id, shipped)


def test_the_command_line_says_what_is_missing(home: Path) -> None:
    runner = CliRunner()
    for command, sentence in ((["results"], "no reference results"), (["reproduce"], "no reference runs")):
        found = runner.invoke(cli, command)
        assert isinstance(found.exception, LabError) and sentence in str(found.exception)


def test_a_review_shows_a_students_predictions_and_counts_those_of_the_reference(
    shipped: Store, small_data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    runner = CliRunner()
    alone = runner.invoke(cli, ["review"]).output
    assert "reference, 02-dropout (seal" in alone  # there is nobody else
    study = lab_studies(SMALL)["tiny-02-dropout"]
    predict_examples(study, shipped)
    both = runner.invoke(cli, ["review"]).output
    assert "2. " in both and "a student, tiny-02-dropout (seal" in both
    assert "reference, 02-dropout (seal" not in both and "Checked, but not shown: 1 of reference" in both
    assert "reference, 02-dropout (seal" in runner.invoke(cli, ["review", "--all"]).output


def test_the_results_are_written_between_their_marks(shipped: Store, home: Path) -> None:
    readme = home / "README.md"
    readme.write_text("# A lab\n\nno place\n", encoding="utf-8")
    with pytest.raises(LabError, match="has no place for the results"):
        write_results(shipped, readme)
    readme.write_text(f"# A lab\n\n{BEGIN}\n\nold\n\n{END}\n\nthe rest\n", encoding="utf-8")
    for _ in range(2):  # the second time changes nothing
        write_results(shipped, readme)
        text = readme.read_text(encoding="utf-8")
        assert text == f"# A lab\n\n{BEGIN}\n\n{Results(shipped).markdown()}\n\n{END}\n\nthe rest\n"
    assert text.count("02-dropout: loss/valid higher") == 1 and "] | 3 |" in text and "old" not in text
    (axes,) = plot_overview(shipped).axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == [f"dropout: dropout={rate} (n = 3)" for rate in (0.0, 0.1, 0.3, 0.5)]
    for name in ("results.png", "predictions.png"):
        assert (home / "experiment_log" / "figures" / name).is_file()
