"""The search of 03_mlflow.py: nested trials, resumable to the number, the winner confirmed with fresh seeds."""

import importlib.util
import pickle
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner
from hyperopt import STATUS_OK

from cnnlab.config import BASE, Config
from cnnlab.inquiry.params import from_params
from cnnlab.inquiry.record.connection import connect
from cnnlab.inquiry.record.entries import entries
from cnnlab.inquiry.seeds import my_seeds
from cnnlab.inquiry.show.figures import plot_isolation
from cnnlab.inquiry.task import find_metric
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
    command = [sys.executable, str(SCRIPT), "--profile", "tiny", "--fresh-seeds", "2", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=900)
    assert done.returncode == 0, done.stderr
    return done.stdout


def check_the_record(stdout: str, experiment: str, trials: int) -> None:
    """The parent, its trials and the confirmation are in MLflow, and what was printed is what is there."""
    store = connect()
    runs = store.client.search_runs([store.experiment_id(experiment)])
    (predicted,) = (run for run in runs if run.data.tags["kind"] == "prediction")
    assert predicted.data.params["verdict_1_label"] == "confirmatory"
    assert ", confirmatory: loss/valid" in stdout or "withheld" in stdout
    (parent,) = (run for run in runs if run.data.tags["kind"] == "search")
    below = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert {run.info.status for run in below} <= {"FINISHED", "KILLED"}
    below = [run for run in below if run.info.status == "FINISHED"]
    assert len(below) == trials
    for trial in below:
        assert from_params(Config, trial.data.params).train_images == 640
        assert len(store.client.get_metric_history(trial.info.run_id, "loss/valid")) == 2
        assert trial.data.tags["fact.images_seen"] == "1280"
    winner = min(below, key=lambda run: run.data.metrics["final/loss/valid"]).data
    best = winner.metrics
    assert parent.data.metrics["search/best_loss"] == pytest.approx(best["final/loss/valid"])
    assert f"{100 * best['final/accuracy/valid']:.2f} %" in stdout
    confirmed = [run for run in runs if run.data.tags["kind"] == "run"]
    fresh = my_seeds(2, first=100)
    assert sorted(int(run.data.params["seed"]) for run in confirmed) == sorted(2 * fresh)
    assert {run.data.params["seed"] for run in below} == {str(my_seeds(1)[0])}
    curse = re.search(r"with fresh seeds its loss is (\S+) nats (higher|lower) than in the search", stdout)
    assert curse
    again = [run.data for run in confirmed if run.data.params["lr"] == winner.params["lr"]]
    assert len(again) == 2
    expected = best["final/loss/valid"] - sum(run.metrics["final/loss/valid"] for run in again) / 2
    assert parent.data.metrics["confirmed/curse_nats"] == pytest.approx(expected)
    assert float(curse[1]) * (-1 if curse[2] == "higher" else 1) == pytest.approx(expected, abs=6e-4)
    gain = re.search(r"Winner - baseline: (\S+) pp, 95 % interval \[(\S+), (\S+)\] over 2 pairs", stdout)
    assert gain
    logged = [parent.data.metrics[f"confirmed/gain_{part}"] for part in ("pp", "low_pp", "high_pp")]
    assert [float(number) for number in gain.groups()] == pytest.approx(logged, abs=0.006)
    (entry,) = entries().values()
    assert entry.file.name == f"{experiment}.md" and not entry.why


def test_a_killed_search_goes_on_and_ends_with_the_winner_confirmed(home: Path) -> None:
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
    assert f"{done} trials are in" in stdout
    check_the_record(stdout, "tiny-05-search", trials=done + 1)


def a_trial_is_running() -> bool:
    store = connect()
    running = "tags.kind = 'trial' and attributes.status = 'RUNNING'"
    return bool(store.client.search_runs([store.experiment_id("tiny-05-search")], running))


@pytest.mark.skipif(sys.platform != "linux", reason="Ray on this machine")
def test_ray_tune_searches_the_same_space(home: Path) -> None:
    pytest.importorskip("ray", reason="Ray is an extra: uv sync --extra ray")
    check_the_record(run_script("--max-evals", "2", "--engine", "ray"), "tiny-05-search", trials=2)


def test_an_interruption_changes_nothing(script: ModuleType, tmp_path: Path) -> None:
    tried: list[dict[str, Any]] = []

    def objective(point: dict[str, Any]) -> dict[str, Any]:
        tried.append(point)
        return {"loss": point["dropout"] + point["lr"] * point["width"], "status": STATUS_OK}

    script.search_here(objective, 14, 0, tmp_path / "straight.trials")
    straight, tried[:] = list(tried), []
    for stop in (3, 9, 14):
        script.search_here(objective, stop, 0, tmp_path / "in three parts.trials")
    assert tried == straight
    tried.clear()
    script.search_here(objective, 14, 1, tmp_path / "other seed.trials")
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
    for flag in ("--max-evals", "--seed", "--engine", "here", "ray", "--profile"):
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
    _, _, ring = figure.axes[1].get_lines()  # of values drawn from a range none is the best of its own
    assert list(ring.get_ydata()) == [near[0] if score == "loss/valid" else near[4]]
    assert "far off" not in plot_isolation(trials[:5], ["norm"], score).get_suptitle()
