"""The search of 03_mlflow.py: nested trials, resumed with identical numbers, and the winner tested with fresh seeds."""

import importlib.util
import pickle
import re
import subprocess
import sys
from dataclasses import replace as replace_fields
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner
from hyperopt import STATUS_OK

from cnnlab.cli import cli
from cnnlab.config import BASE, Config, replace
from cnnlab.course.profiles import PROFILES
from cnnlab.course.search import run_search, search_study, winners_curse
from cnnlab.course.trials import NoTrials
from cnnlab.data import Data
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.params import from_params, to_params
from cnnlab.inquiry.prediction import load_predictions, predict
from cnnlab.inquiry.record.connection import connect
from cnnlab.inquiry.record.entries import entries
from cnnlab.inquiry.record.ledger import load_records
from cnnlab.inquiry.seeds import my_seeds
from cnnlab.inquiry.show.figures import plot_isolation
from cnnlab.inquiry.study import Study
from cnnlab.inquiry.task import find_metric
from tests.golden import copy_what_ships
from tests.helpers import wait_for

SCRIPT = Path(__file__).parents[1] / "03_mlflow.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("search_script", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_script(*arguments: str) -> str:
    command = [sys.executable, str(SCRIPT), "--profile", "tiny", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=900)
    assert done.returncode == 0, done.stderr
    return done.stdout


def check_the_search(stdout: str, trials: int) -> dict[str, float]:
    """Check that the parent and its trials are in MLflow, the best is named, and nothing else was predicted or trained.

    Return the best trial's scores from the parent."""
    store = connect()
    runs = store.client.search_runs([store.experiment_id("tiny-05-search")])
    (parent,) = (run for run in runs if run.data.tags["kind"] == "search")
    assert parent.data.params["random_trials"] == "1"  # 40 % of 3
    below = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(below) == len(runs) - 1 and {run.data.tags["kind"] for run in below} == {"trial"}
    assert {run.info.status for run in below} <= {"FINISHED", "KILLED"}
    below = [run for run in below if run.info.status == "FINISHED"]
    assert len(below) == trials
    for trial in below:
        assert from_params(Config, trial.data.params).train_images == 640
        assert len(store.client.get_metric_history(trial.info.run_id, "loss/valid")) == 1
        assert trial.data.tags["fact.images_seen"] == "640"
    assert {run.data.params["seed"] for run in below} == {str(my_seeds(1)[0])}
    best = min(below, key=lambda run: run.data.metrics["final/loss/valid"])
    scores = {name: best.data.metrics[f"final/{name}/valid"] for name in ("loss", "accuracy")}
    assert parent.data.metrics == {f"search/best_{name}": value for name, value in scores.items()}
    assert f"Best of {trials} trials: {best.info.run_name}, " in stdout
    assert f"loss is {scores['loss']:.4f}, its accuracy {100 * scores['accuracy']:.2f} %" in stdout
    assert not load_records(store) and not entries()
    return scores


def test_a_killed_search_resumes_to_the_same_winner_and_says_what_comes_next(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, light: None, real_data: Data
) -> None:
    command = [sys.executable, str(SCRIPT), "--profile", "tiny", "--max-evals", "50"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: any((home / ".cnnlab").glob("searches/*.trials")))  # one trial is done
        wait_for(a_trial_is_running)
    finally:
        process.kill()
        process.wait()
    (file,) = (home / ".cnnlab").glob("searches/*.trials")
    done = len(pickle.loads(file.read_bytes()))
    stdout = run_script("--max-evals", str(done + 1))
    assert f"{done} trials are already in" in stdout
    scores = check_the_search(stdout, trials=done + 1)

    commands = re.findall("uv run cnnlab (.+)", stdout)
    assert commands == ["predict search --profile tiny", "run search --profile tiny"]
    answers = ["winner", "loss/valid", "lower", "", "70", "it has more layers", "the search was only lucky", "y"]
    for one in commands:
        found = CliRunner().invoke(cli, one.split(), input="\n".join(answers))
        assert found.exit_code == 0, found.output
    assert ", confirmatory: loss/valid" in found.output or "withheld" in found.output
    (record,) = load_records(connect())
    assert (record.content["because"], record.owner) == ("it has more layers", "a student")
    again = run_script("--max-evals", str(done + 1))
    assert "The winner's curse: with fresh seeds its loss is" in again and "predict search" not in again

    monkeypatch.setenv("CNNLAB_HOME", str(tmp_path))
    assert check_the_search(run_script("--max-evals", str(done + 1)), trials=done + 1) == scores


def a_trial_is_running() -> bool:
    store = connect()
    running = "tags.kind = 'trial' and attributes.status = 'RUNNING'"
    return bool(store.client.search_runs([store.experiment_id("tiny-05-search")], running))


@pytest.mark.skipif(sys.platform != "linux", reason="Ray on this machine")
def test_ray_tune_searches_the_same_space(home: Path) -> None:
    pytest.importorskip("ray", reason="Ray is an extra: uv sync --extra ray")
    check_the_search(run_script("--max-evals", "2", "--engine", "ray"), trials=2)


# The study that tests the winner


def record_trial(
    loss: float, accuracy: float = 0.5, status: str = "FINISHED", owner: str = "a student", **is_: Any
) -> None:
    """Record a trial of the tiny profile below a parent, as the script does."""
    store = connect()
    client, experiment_id = store.client, store.experiment_id("tiny-05-search")
    parents = client.search_runs([experiment_id], "tags.kind = 'search'")
    parent = parents[0] if parents else client.create_run(experiment_id, tags={"kind": "search", "owner": owner})
    config = replace(BASE, train_images=640, epochs=1, seed=7, blocks=((1, 8), (1, 16)), **is_)
    tags = {"kind": "trial", "owner": owner, "mlflow.parentRunId": parent.info.run_id, "fact.num_parameters": "9"}
    run_id = client.create_run(experiment_id, tags=tags).info.run_id
    for name, value in to_params(config).items():
        client.log_param(run_id, name, value)
    for name, value in {"loss/valid": loss, "accuracy/valid": accuracy}.items():
        client.log_metric(run_id, f"final/{name}", value)
    client.set_terminated(run_id, status)


def predict_winner(study: Study) -> None:
    why = {"because": "a smaller network learns faster", "if_refuted": "the search was only lucky"}
    predict(study, arm="winner", metric="loss/valid", direction="lower", confidence=60, **why)


def test_before_the_search_there_is_nothing_to_predict(home: Path) -> None:
    record_trial(0.1, owner="somebody else")
    for command in ("predict", "run", "plan", "verdict"):
        found = CliRunner().invoke(cli, [command, "search", "--profile", "tiny"])
        assert isinstance(found.exception, NoTrials) and "run the search first" in str(found.exception), command
    found = CliRunner().invoke(cli, ["verdict", "--profile", "tiny"])  # of all studies
    assert "a student has predicted nothing" in str(found.exception)


def test_the_winner_is_the_own_finished_trial_with_the_lowest_loss(home: Path) -> None:
    record_trial(0.5, lr=0.01)
    record_trial(0.3, lr=0.02)
    record_trial(0.4, accuracy=0.99, lr=0.03)
    record_trial(0.1, lr=0.04, status="KILLED")
    record_trial(0.1, lr=0.05, owner="somebody else")
    record_trial(float("nan"), lr=0.06)
    study = search_study(PROFILES["tiny"], connect())
    assert (study.name, study.control, study.seeds) == ("tiny-05-search", "baseline", my_seeds(2, first=100))
    assert study.arms["baseline"] == replace(BASE, train_images=640, epochs=1)
    assert study.arms["winner"] == replace(study.base, blocks=((1, 8), (1, 16)), lr=0.02)
    with pytest.raises(NoTrials, match="no trials in quick-05-search"):
        search_study(PROFILES["quick"], connect())


def test_a_finished_search_is_not_repeated_and_nothing_is_predicted(home: Path, said: list[str]) -> None:
    for loss in (0.3, 0.2, 0.4):
        record_trial(loss, lr=loss / 10)
    study = run_search(PROFILES["tiny"])
    assert study == search_study(PROFILES["tiny"], connect()) and study.arms["winner"].lr == 0.02
    assert "3 trials are on record: the search is finished." in said
    assert not load_records(connect()) and not len(study.results())
    with pytest.raises(LabError, match="nothing is trained before you have predicted"):
        study.run()


def test_how_much_of_the_winners_score_remains(home: Path, light: None, real_data: Data) -> None:
    record_trial(0.9, 0.75, lr=0.01)
    record_trial(1.2, 0.25, lr=0.02)
    study = search_study(PROFILES["tiny"], connect())
    with pytest.raises(LabError, match="4 of 4 runs of tiny-05-search are missing or failed"):
        winners_curse(study)
    with pytest.raises(LabError, match="give the study of run_search"):
        winners_curse(replace_fields(study, arms={"baseline": study.base, "other": study.arms["winner"]}))
    predict_winner(study)
    runs = study.run(progress=False).set_index(["arm", "seed"])
    loss, accuracy = runs["loss/valid"], 100 * runs["accuracy/valid"]
    one, other = study.seeds
    curse = (loss["winner", one] + loss["winner", other]) / 2 - 0.9
    gains = [accuracy["winner", seed] - accuracy["baseline", seed] for seed in study.seeds]

    found = winners_curse(study)
    assert found.curse.estimate == pytest.approx(curse) and found.curse.n == 2
    half = 12.7062 * abs(loss["winner", one] - loss["winner", other]) / 2  # t(1) x SD / sqrt(2)
    assert (found.curse.low, found.curse.high) == pytest.approx((curse - half, curse + half), abs=1e-5)
    assert list(found.table.columns) == ["loss (nats)", "accuracy (%)"]
    assert list(found.table.iloc[0]) == [0.9, 75.0] and found.table.index[0].endswith("(one of 2 trials)")
    assert list(found.table["loss (nats)"]) == pytest.approx([0.9, 0.9 + curse, loss["baseline"].mean()], abs=6e-5)
    assert list(found.table["accuracy (%)"][1:]) == pytest.approx(
        [accuracy["winner"].mean(), accuracy["baseline"].mean()], abs=6e-3
    )
    assert f"its loss is {abs(curse):.3f} nats {'higher' if curse > 0 else 'lower'} than in the search" in str(found)
    assert "<table" in found._repr_html_()
    store = connect()
    (parent,) = store.client.search_runs([store.experiment_id("tiny-05-search")], "tags.kind = 'search'")
    assert parent.data.metrics["confirmed/curse_nats"] == pytest.approx(curse)
    assert parent.data.metrics["confirmed/gain_pp"] == pytest.approx(sum(gains) / 2)
    assert parent.data.metrics["confirmed/gain_high_pp"] == found.gain.high > found.gain.low


def test_a_predicted_winner_stays_whatever_is_found_later(
    home: Path, script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], real_data: Data
) -> None:
    record_trial(0.9, lr=0.01)
    store, tiny = connect(), PROFILES["tiny"]
    parent = store.client.search_runs([store.experiment_id("tiny-05-search")], "tags.kind = 'search'")[0].info.run_id
    monkeypatch.setattr(script, "parent_run", lambda *_: parent)
    monkeypatch.setattr(script, "search_here", lambda *_: None)
    study = script.search(tiny, 3, 0, "here")
    assert study == search_study(tiny, store) and "another trial" not in capsys.readouterr().out
    predict_winner(study)
    record_trial(0.8, lr=0.02)
    assert script.search(tiny, 3, 0, "here") == search_study(tiny, store) == study
    said = capsys.readouterr().out
    assert "Its validation loss is 0.8000" in said
    assert "The winner in tiny-05-search is another trial (lr 0.02 -> 0.01): you have predicted" in said
    (known,) = load_records(store)
    store.client.delete_run(known.run_id)
    assert search_study(tiny, store).arms["winner"].lr == 0.02


def test_the_shipped_search_has_the_winner_that_was_predicted(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_what_ships(home)
    monkeypatch.setenv("CNNLAB_OWNER", "reference")
    study = run_search(PROFILES["full"])  # tries nothing
    (one,) = load_predictions(connect(), "05-search")
    assert one.contrast.unlike(study.arms, study.images) == "" and one.contrast.seeds == study.seeds
    found = winners_curse(study)
    assert list(found.table["loss (nats)"]) == [0.1928, 0.2006, 0.2257]
    assert list(found.table["accuracy (%)"]) == [93.12, 92.87, 92.06]
    assert "its loss is 0.008 nats higher than in the search" in str(found)


# The script


def test_an_interruption_changes_nothing(script: ModuleType, tmp_path: Path) -> None:
    tried: list[dict[str, Any]] = []

    def objective(point: dict[str, Any]) -> dict[str, Any]:
        tried.append(point)
        return {"loss": point["dropout"] + point["lr"] * point["width"], "status": STATUS_OK}

    script.search_here(objective, 14, 4, 0, tmp_path / "straight.trials")
    straight, tried[:] = list(tried), []
    for stop in (3, 9, 14):
        script.search_here(objective, stop, 4, 0, tmp_path / "in three parts.trials")
    assert tried == straight
    tried.clear()
    script.search_here(objective, 14, 4, 1, tmp_path / "other seed.trials")
    assert tried != straight


def test_every_point_of_the_space_is_a_network_of_less_than_100_000_parameters(script: ModuleType) -> None:
    from cnnlab.facts import num_parameters
    from cnnlab.models import build_model

    widest = {"width": 16, "depth": 2, "norm": "group", "dropout": 0.30000000000000004, "lr": 0.0123456}
    config = script.to_config(widest, BASE)
    assert (config.dropout, config.lr) == (0.3, 0.0123)
    assert num_parameters(build_model(config)) < 100_000


def test_the_script_explains_itself(script: ModuleType) -> None:
    done = CliRunner().invoke(script.main, ["--help"])
    assert done.exit_code == 0
    for flag in ("--max-evals", "--seed", "--engine", "here", "ray", "--profile", "--epochs", "--seeds"):
        assert flag in done.stdout


@pytest.mark.parametrize(
    ("score", "worst"), [("loss/valid", 2.3), ("loss/valid", float("nan")), ("accuracy/valid", 0.1)]
)
def test_a_trial_that_lies_far_off_does_not_hide_the_others(score: str, worst: float) -> None:
    good = [0.20, 0.21, 0.22, 0.23, 0.25]
    trials = pd.DataFrame({"norm": list("aabbab"), "lr": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], score: [*good, worst]})
    if score == "accuracy/valid":
        trials[score] += 0.6 * (trials[score] > 0.1)
    figure = plot_isolation(trials, ["norm", "lr"], score)
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["one trial", "best trial of this value", "best trial of all", "far off"]
    assert "n = 6, 1 far off" in figure.get_suptitle()
    near = find_metric(score).scale * trials[score][:5]
    for axes in figure.axes:
        low, high = axes.get_ylim()
        assert high - low < 2 * (near.max() - near.min())
        dots, off, *_ = axes.get_lines()
        assert sorted(dots.get_ydata()) == pytest.approx(sorted(near))
        assert len(off.get_ydata()) == 1
    best = {near[0], near[2]} if score == "loss/valid" else {near[4], near[3]}
    assert set(figure.axes[0].get_lines()[2].get_ydata()) == best
    _, _, ring = figure.axes[1].get_lines()  # there is no best trial per value of values drawn from a range
    assert list(ring.get_ydata()) == [near[0] if score == "loss/valid" else near[4]]
    assert "far off" not in plot_isolation(trials[:5], ["norm"], score).get_suptitle()
