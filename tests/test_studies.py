"""A study trains what is missing, once, and reports what MLflow holds."""

from pathlib import Path

import pandas as pd
import pytest

from cnnlab.config import Config, replace
from cnnlab.data import Data
from cnnlab.errors import LabError
from cnnlab.reporting.figures import mean_interval, plot_arms, plot_curves
from cnnlab.reporting.text import arms_table
from cnnlab.studies.profiles import find_profile, lab_studies, pick
from cnnlab.studies.results import summary
from cnnlab.studies.runner import run_study
from cnnlab.studies.study import Study
from cnnlab.tracking.connection import connect
from tests.helpers import quiet


@pytest.fixture
def study(small: Config) -> Study:
    return Study("tiny-02-dropout", "What does dropout change?", small, (0, 1), {"dropout": (0.0, 0.5)})


def test_several_fields_make_a_grid_with_the_base_as_control(small: Config) -> None:
    grid = Study("grid", "?", small, (0,), {"dropout": (0.5, 0.0), "norm": ("none", "batch")})
    assert list(grid.arms) == [
        "dropout=0.5, norm=none",
        "dropout=0.5, norm=batch",
        "dropout=0.0, norm=none",
        "dropout=0.0, norm=batch",
    ]
    assert grid.control == "dropout=0.0, norm=none"


def test_the_same_seeds_are_used_in_every_arm(study: Study) -> None:
    assert [(arm, config.seed) for arm, _, config in study.runs()] == [
        ("dropout=0.0", 0),
        ("dropout=0.5", 0),
        ("dropout=0.0", 1),
        ("dropout=0.5", 1),
    ]


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"seeds": ()}, "at least one seed"),
        ({"seeds": (1, 1)}, "each once"),
        ({"vary": {"dropout": (0.1, 0.3)}}, "no control"),
    ],
)
def test_an_impossible_study_is_refused(small: Config, changes: dict, hint: str) -> None:
    with pytest.raises(LabError, match=hint):
        Study(**{"name": "x", "question": "?", "base": small, "seeds": (0,), **changes})


def test_a_study_trains_nothing_twice_and_is_summed_up(
    home: Path, study: Study, small: Config, small_data: Data
) -> None:
    store = connect(quiet)
    said: list[str] = []
    runs = study.run(small_data, store, said.append, progress=False)
    assert sorted(zip(runs["arm"], runs["seed"], strict=True)) == [
        ("dropout=0.0", 0),
        ("dropout=0.0", 1),
        ("dropout=0.5", 0),
        ("dropout=0.5", 1),
    ]
    again = study.run(small_data, store, said.append, progress=False)
    assert list(again["run_id"]) == list(runs["run_id"])
    assert "4 of its runs are finished already" in said[-1]

    # one seed more trains one block more; the control is taken over from another study, not trained
    more = run_study(replace_seeds(study, (0, 1, 2)), small_data, store, quiet, progress=False)
    assert len(more) == 6
    control = run_study(Study("tiny-01-baseline", "?", small, (0, 1)), small_data, store, said.append, progress=False)
    assert "2 of its runs were trained in another study; their results are taken over." in said
    same = ["accuracy/valid", "loss/valid", "fact.train_sha256", "fact.steps"]
    origin = runs[runs["arm"] == "dropout=0.0"]
    assert control[same].values.tolist() == origin[same].values.tolist()
    assert list(control["reused_from"]) == list(origin["run_id"])
    names = ("loss/train", "final/accuracy/valid")
    for copied, trained in zip(control["run_id"], origin["run_id"], strict=True):
        for name in names:
            points = [
                [(p.step, p.timestamp, p.value) for p in store.client.get_metric_history(run, name)]
                for run in (copied, trained)
            ]
            assert points[0] == points[1]

    table = summary(study, runs)
    values = 100 * runs.loc[runs["arm"] == "dropout=0.5", "accuracy/valid"]
    assert table.loc["dropout=0.5", "accuracy"] == pytest.approx(values.mean())
    assert table.loc["dropout=0.5", "accuracy_sd"] == pytest.approx(values.std(ddof=1))
    assert list(table["n"]) == [2, 2]
    assert arms_table("a table", table).row_count == 2
    for figure in (plot_arms(study, runs), plot_curves(study, runs, store)):
        assert len(figure.axes) == 2
    assert plot_arms(study, runs).axes[0].get_xticklabels()[1].get_text() == "dropout=0.5\nn = 2"


def replace_seeds(study: Study, seeds: tuple[int, ...]) -> Study:
    return Study(study.name, study.question, study.base, seeds, study.vary)


def test_runs_of_another_owner_do_not_count(
    home: Path, study: Study, small_data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = connect(quiet)
    one = replace_seeds(study, (0,))
    run_study(one, small_data, store, quiet, progress=False)
    monkeypatch.setenv("CNNLAB_OWNER", "another student")
    theirs = run_study(one, small_data, store, quiet, progress=False)
    assert list(theirs["owner"]) == ["another student"] * 2


def test_an_interval_is_the_t_interval() -> None:
    mean, low, high = mean_interval(pd.Series([1.0, 2.0, 3.0, 4.0, 5.0]))
    # t(0.975, 4) = 2.776, standard error 0.7071
    assert (mean, low, high) == pytest.approx((3.0, 3 - 1.9632, 3 + 1.9632), abs=1e-3)


def test_profiles_never_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CNNLAB_PROFILE", "tiny")
    assert find_profile().name == "tiny"
    assert list(lab_studies(find_profile("quick"))) == ["quick-01-baseline", "quick-02-dropout"]
    assert list(lab_studies(find_profile("full"))) == ["01-baseline", "02-dropout"]
    assert list(lab_studies(find_profile("full", epochs=3))) == ["custom-01-baseline", "custom-02-dropout"]
    with pytest.raises(LabError, match="choose tiny, quick, full"):
        find_profile("huge")


def test_a_study_is_found_by_a_part_of_its_name() -> None:
    studies = lab_studies(find_profile("quick"))
    assert [study.name for study in pick(studies, ("dropout",))] == ["quick-02-dropout"]
    assert pick(studies, ()) == list(studies.values())
    with pytest.raises(LabError, match="'norm' names 0 studies"):
        pick(studies, ("norm",))


def test_the_dropout_study_varies_dropout_alone() -> None:
    study = lab_studies(find_profile("full"))["02-dropout"]
    assert [config.dropout for config in study.arms.values()] == [0.0, 0.1, 0.3, 0.5]
    assert {replace(config, dropout=0.0) for config in study.arms.values()} == {study.base}
