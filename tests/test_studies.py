"""A study trains its missing runs once, and reports the results in MLflow."""

import dataclasses
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from cnnlab import timing
from cnnlab.config import BASE, Config, replace
from cnnlab.course.profiles import find_profile
from cnnlab.course.studies import SECTIONS, lab_studies, pick
from cnnlab.data import Data, Split
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.judge.verdict import verdict
from cnnlab.inquiry.record.connection import connect
from cnnlab.inquiry.run import plan as planning
from cnnlab.inquiry.run.runner import run_study
from cnnlab.inquiry.show.figures import mean_interval, plot_arms, plot_curves
from cnnlab.inquiry.study import Study
from cnnlab.tables import COLUMNS, arms_table, summary
from tests.helpers import predicted, small_study

pytestmark = pytest.mark.usefixtures("light")


@pytest.fixture
def study(small: Config) -> Study:
    return small_study("tiny-02-dropout", "What does dropout change?", small, (0, 1), {"dropout": (0.0, 0.5)})


def test_several_fields_make_a_grid_with_the_base_as_control(small: Config) -> None:
    grid = small_study("grid", "?", small, (0,), {"dropout": (0.5, 0.0), "norm": ("none", "batch")})
    assert list(grid.arms) == [
        "dropout=0.5, norm=none",
        "dropout=0.5, norm=batch",
        "dropout=0.0, norm=none",
        "dropout=0.0, norm=batch",
    ]
    assert grid.control == "dropout=0.0, norm=none"


def test_arms_can_be_named_and_the_control_declared(small: Config) -> None:
    arms = {"none": small, "batch": replace(small, norm="batch"), "both": replace(small, norm="batch", dropout=0.5)}
    study = small_study("named", "?", small, (0, 1), arms=arms, control="batch")
    assert study.control == "batch"
    assert study.differs("none") == "norm: batch -> none"
    assert study.role("scientific") == ["norm", "dropout"]
    assert study.role("nuisance") == ["seed"]
    assert small_study("named", "?", small, (0,), arms=arms).control == "none"
    assert dataclasses.replace(study, seeds=(0, 1, 2)).arms == arms


def test_a_field_may_differ_without_being_the_question(small: Config) -> None:
    study = small_study(
        "lr", "?", small, (0,), {"norm": ("none", "batch"), "lr": (0.01, 0.1)}, roles={"lr": "nuisance"}
    )
    assert study.role("scientific") == ["norm"]
    assert study.role("nuisance") == ["lr", "seed"]


def test_two_equal_arms_get_other_random_numbers(small: Config) -> None:
    """An A/A test: the seed of an arm is added to the seeds of the study."""
    study = small_study("a-a", "?", small, (0, 1), arms={"A": small, "A again": replace(small, seed=1000)})
    assert [(arm, seed, config.seed) for arm, seed, config in study.runs()] == [
        ("A", 0, 0),
        ("A again", 0, 1000),
        ("A", 1, 1),
        ("A again", 1, 1001),
    ]


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
        ({"seeds": ()}, "a study has 1 to 1,000 seeds"),
        ({"seeds": (1, 1)}, "each once"),
        ({"vary": {"dropout": (0.1, 0.3)}}, "no control"),
        ({"vary": {"norm": "batch"}}, "give a tuple of values"),
        ({"vary": {"dropout": (0.0, 0.5)}, "arms": {"a": BASE}}, "not both"),
        ({"arms": {"a": BASE, "b": BASE}}, "they have the same config"),
        (
            {"base": BASE, "seeds": (0, 1), "arms": {"a": BASE, "b": replace(BASE, seed=1)}},
            "'a' with seed 1 is the same run as 'b' with seed 0. Give one of the two arms a seed further away",
        ),
        ({"arms": {"a": BASE}}, "no control: name one of its arms, a"),
        ({"control": "b"}, "control='b' is not an arm"),
        ({"roles": {"dropout": "important"}}, "one of scientific, nuisance, fixed"),
        ({"roles": {"dropuot": "fixed"}}, "name a field of Config"),
        ({"roles": {"dropout": "scientific"}}, "it is the same in all arms"),
        ({"vary": {"dropout": (0.0, 0.5)}, "roles": {"dropout": "fixed"}}, "has the role fixed, but it differs"),
    ],
)
def test_an_impossible_study_is_refused(small: Config, changes: dict, hint: str) -> None:
    with pytest.raises(LabError, match=hint):
        small_study(**{"name": "x", "question": "?", "base": small, "seeds": (0,), **changes})


def test_a_study_trains_nothing_twice_and_is_summarised(
    home: Path, study: Study, small: Config, small_data: Data, said: list[str]
) -> None:
    store = connect()
    said.clear()
    runs = predicted(study).run(store, progress=False)
    assert sorted(zip(runs["arm"], runs["seed"], strict=True)) == [
        ("dropout=0.0", 0),
        ("dropout=0.0", 1),
        ("dropout=0.5", 0),
        ("dropout=0.5", 1),
    ]
    again = study.run(store, progress=False)
    assert list(again["run_id"]) == list(runs["run_id"])
    assert "4 of its runs are finished already" in said[-1]

    # one more seed trains one more block; the control is taken over from another study, not trained
    more = replace_seeds(study, (0, 1, 2)).run(store, progress=False)
    assert len(more) == 6
    arms = {"A": small, "A again": replace(small, seed=1000)}
    a_a = predicted(small_study("tiny-01-baseline", "?", small, (0, 1), arms=arms))
    both = a_a.run(store, progress=False)
    control = both[both["arm"] == "A"]
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
    assert table.loc["dropout=0.5", "accuracy (%)"] == round(values.mean(), 2)
    assert table.loc["dropout=0.5", "SD (pp)"] == round(values.std(ddof=1), 2)
    assert list(table["n"]) == [2, 2] and "failed" not in table
    assert arms_table("a table", table).row_count == 2
    for figure in (plot_arms(study, runs), plot_curves(study, runs, store)):
        assert len(figure.axes) == 2
    assert plot_arms(study, runs).axes[0].get_xticklabels()[1].get_text() == "dropout=0.5\nn = 2"


def test_a_long_name_of_an_arm_truncates_no_number(capsys: pytest.CaptureFixture) -> None:
    row = dict(zip(COLUMNS, (5, 1, 83.308, 0.29, 0.4741, 0.004, -0.0328, 12.94), strict=True))
    arm = "batch norm in the convolutions and nowhere else"
    table = arms_table("03-tiny-batches", pd.DataFrame([row], index=[arm]))
    Console(width=80).print(table)
    shown = capsys.readouterr().out
    assert all(number in shown for number in (" 83.31 ", " 0.29 ", " 0.474 ", " 0.004 ", " -0.033 ", " 12.9 "))
    assert "…" not in shown


def test_a_plan_says_which_runs_exist_and_which_are_missing(
    home: Path, study: Study, small: Config, small_data: Data
) -> None:
    store = connect()
    arms = {"A": small, "A again": replace(small, seed=1000)}
    predicted(small_study("tiny-01-baseline", "?", small, (0,), arms=arms)).run(store, progress=False)
    predicted(replace_seeds(study, (1,))).run(store, progress=False)
    plan = replace_seeds(study, (0, 1, 2)).plan(store)
    counts = plan.arms[["runs", "finished", "taken over", "to train"]]
    assert counts.loc["dropout=0.0"].tolist() == [3, 1, 1, 1]
    assert counts.loc["dropout=0.5"].tolist() == [3, 1, 0, 2]
    assert plan.arms.loc["dropout=0.5", "differs"] == "dropout: 0.0 -> 0.5"
    assert 0 < plan.seconds < 600
    for shown in (str(plan), plan._repr_html_()):
        assert "To train: 3 runs, about" in shown
    done = replace_seeds(study, (1,)).plan(store)
    assert done.seconds == 0
    assert "Nothing is left to train." in str(done)


def test_a_plan_times_a_machine_once(home: Path, small: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []
    speed = timing.Speed(train_rate=1e9, score_rate=2e9, step_s=0.001)
    monkeypatch.setattr(timing, "_measure", lambda *machine: measured.append(machine) or speed)
    study = small_study("lr", "?", small, (0,), {"lr": (0.01, 0.1, 0.3), "norm": ("none", "batch")})
    plans = [study.plan(connect()) for _ in range(2)]
    assert len(measured) == 1
    scored = 203 + small.train_images + 256  # validation images, training sample, probe batch
    runs = {}
    for norm in ("none", "batch"):
        forward = timing.operations(replace(small, norm=norm), (1, 28, 28))
        steps = small.train_images / small.batch_size
        epoch_s = steps * (3 * forward * small.batch_size / 1e9 + 0.001) + scored * forward / 2e9
        runs[norm] = small.epochs * epoch_s + planning.LOGGING_S
    assert runs["batch"] > runs["none"]
    for plan in plans:
        assert plan.seconds == pytest.approx(planning.MODELS_S + 3 * sum(runs.values()))


def replace_seeds(study: Study, seeds: tuple[int, ...]) -> Study:
    return dataclasses.replace(study, seeds=seeds)


def test_runs_of_another_owner_do_not_count(
    home: Path, study: Study, small_data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = connect()
    one = replace_seeds(study, (0,))
    predicted(one).run(store, progress=False)
    monkeypatch.setenv("CNNLAB_OWNER", "O'Brien")
    theirs = predicted(one).run(store, progress=False)
    assert list(theirs["owner"]) == ["O'Brien"] * 2


def test_runs_on_other_images_are_never_taken_for_these(home: Path, study: Study, small_data: Data) -> None:
    store, (train, valid) = connect(), (small_data.train, small_data.valid)
    runs = predicted(study).run(store, progress=False)
    others = {
        "mirrored": Data(train, Split(valid.x.flip(3), valid.y)),
        "augmented": Data(Split(train.x.flip(3), train.y), valid),
        "label-noise": Data(Split(train.x, train.y.roll(1)), valid),
    }
    for name, other in others.items():
        changed = dataclasses.replace(study, data=other)
        with pytest.raises(LabError, match="give the study on these images another name"):
            changed.run(store, progress=False)
        named = predicted(dataclasses.replace(changed, name=f"my-{name}"))
        again = named.run(store, progress=False)
        assert (again["reused_from"] == "").all() and len(again) == len(runs)
        assert again["loss/valid"].tolist() != runs["loss/valid"].tolist()
        assert (again["fact.data_sha256"] == other.sha256()).all()
        assert verdict(named, store)[0].fairness.is_fair


def test_a_prediction_about_other_images_does_not_allow_runs(home: Path, study: Study, small_data: Data) -> None:
    fashion = dataclasses.replace(study, data=None)
    predicted(fashion)
    with pytest.raises(LabError, match="its images are different"):
        study.run(connect(), progress=False)


def test_an_interval_is_the_t_interval() -> None:
    mean, low, high = mean_interval(pd.Series([1.0, 2.0, 3.0, 4.0, 5.0]))
    # t(0.975, 4) = 2.776, standard error 0.7071
    assert (mean, low, high) == pytest.approx((3.0, 3 - 1.9632, 3 + 1.9632), abs=1e-3)


def test_profiles_never_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CNNLAB_PROFILE", "tiny")
    assert find_profile().name == "tiny"
    names = ["01-baseline", "02-dropout", "02-dropout-long", "03-normalization", "04-combined", "04-order"]
    names += ["03-learning-rates", "03-rates-per-norm", "03-tiny-batches"]
    assert list(lab_studies(find_profile("quick"))) == [f"quick-{name}" for name in names]
    names.insert(2, "02-dropout-short")  # its size is already that of the quick profile
    names.append("06-best")
    assert list(lab_studies(find_profile("full"))) == names
    assert list(lab_studies(find_profile("full", epochs=3))) == [f"custom-{name}" for name in names]
    assert [name for name in SECTIONS.values() if name != "05-search"] == [n for n in names[:-1] if "short" not in n]
    with pytest.raises(LabError, match="choose tiny, quick, full"):
        find_profile("huge")


def test_a_study_is_found_by_a_part_of_its_name() -> None:
    studies = lab_studies(find_profile("quick"))
    assert [study.name for study in pick(studies, ("dropout",))] == ["quick-02-dropout"]
    assert pick(studies, ()) == list(studies.values())
    assert [study.name for study in pick(studies, ("long",))] == ["quick-02-dropout-long"]
    with pytest.raises(LabError, match="there is no study 'layers': choose from"):
        pick(studies, ("layers",))
    with pytest.raises(LabError, match="'03' names 4 studies"):
        pick(studies, ("03",))


def test_the_dropout_study_varies_only_dropout() -> None:
    study = lab_studies(find_profile("full"))["02-dropout"]
    assert [config.dropout for config in study.arms.values()] == [0.0, 0.1, 0.3, 0.5]
    assert {replace(config, dropout=0.0) for config in study.arms.values()} == {study.base}


def test_a_mean_over_a_run_without_a_number_is_no_number(home: Path, study: Study, small_data: Data) -> None:
    """A run that diverged has no loss: the mean of the others is not the mean of the arm."""
    runs = predicted(study).run(connect(), progress=False)
    runs.loc[runs["arm"] == "dropout=0.5", "loss/valid"] = [0.5, float("nan")]
    runs.loc[runs["arm"] == "dropout=0.5", "fact.outcome"] = ["finished", "diverged at step 7"]
    table = summary(study, runs)
    assert (
        table.loc["dropout=0.5", ["loss (nats)", "accuracy (%)"]].isna().all()
    )  # the accuracy of a diverged network is still a number
    assert table.loc["dropout=0.0", ["loss (nats)", "accuracy (%)"]].notna().all()
    assert list(table["n"]) == [2, 2] and list(table["failed"]) == [0, 1]


def test_a_search_explores_without_a_prediction(home: Path, study: Study, small_data: Data) -> None:
    """Its results count as known to anyone who predicts the same arms later."""
    store = connect()
    runs = run_study(study, store, progress=False, explore=True)
    assert "prediction" not in store.client.get_run(runs["run_id"][0]).data.tags
    predicted(study)
    (found,) = verdict(study, store)
    assert found.label == "exploratory"
