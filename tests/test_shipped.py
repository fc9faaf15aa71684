"""What ships: the reference runs, their models and logbooks open in any folder, and agree with the README."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import mlflow
import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import f, ttest_1samp

from cnnlab.course.champion import ADDRESS, ALIAS, MODEL
from cnnlab.course.overview import Results, plot_overview
from cnnlab.course.profiles import PROFILES
from cnnlab.course.reference import OWNER, reference_studies
from cnnlab.course.search import search_study
from cnnlab.data import Batches, Data
from cnnlab.inquiry import server
from cnnlab.inquiry.judge.reproduce import one_run_of_each, reproduce
from cnnlab.inquiry.judge.review import review
from cnnlab.inquiry.judge.statistics import crossed_interval, t_interval
from cnnlab.inquiry.judge.verdict import compute_verdicts, verdict
from cnnlab.inquiry.prediction import Prediction
from cnnlab.inquiry.record.connection import connect
from cnnlab.inquiry.record.entries import entries, reflected
from cnnlab.inquiry.record.ledger import load_records
from cnnlab.inquiry.record.runs import load_raw, load_runs
from cnnlab.inquiry.record.schema import INDEXES
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.record.vault_record import load_vault
from cnnlab.inquiry.run.results import results
from cnnlab.inquiry.show.predictions import plot_predictions
from cnnlab.terminal import OUTCOME
from cnnlab.training import EVAL_BATCH
from tests.golden import FOLDER, PROJECT, copy_what_ships, golden_files
from tests.helpers import settle

ABSOLUTE = re.compile(rb"file:/|/(tmp|home|root|Users|var|opt|work|mnt)/|[A-Z]:\\\\?Users")
KNOWN_BEFORE = ("b82ba1556954", "9dc793405158")  # predictions with an arm that had been run before, as they declare
MB = 1_000_000


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The shipped store in another folder, whose path has a space."""
    folder = tmp_path_factory.mktemp("my lab")
    copy_what_ships(folder)
    with pytest.MonkeyPatch.context() as patch:
        settle(patch, folder)
        yield folder


@pytest.fixture
def store(clone: Path) -> Store:
    return connect()


def test_it_is_small_whole_and_names_no_folder_of_a_machine(clone: Path) -> None:
    database, models = clone / "mlflow.db", clone / "models"
    assert database.stat().st_size < 15 * MB
    assert sum(file.stat().st_size for file in models.rglob("*") if file.is_file()) < 25 * MB
    with sqlite3.connect(f"file:{database.as_posix()}?mode=ro", uri=True) as opened:
        assert opened.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert opened.execute("PRAGMA foreign_key_check").fetchall() == []
    files = [
        database,
        *(file for file in [*models.rglob("*"), *(clone / "experiment_log").rglob("*")] if file.is_file()),
    ]
    assert {file.name: found.group() for file in files if (found := ABSOLUTE.search(file.read_bytes()))} == {}


def test_the_indexes_that_do_not_ship_are_created(store: Store, clone: Path, tables: Path) -> None:
    """Without them MLflow would read its whole tables for each run."""
    made, expected = indexes_of(clone / "mlflow.db"), indexes_of(tables)
    assert made == expected
    assert INDEXES.keys() < made.keys()


def indexes_of(database: Path) -> dict[str, str]:
    with closing(sqlite3.connect(database)) as opened:
        return dict(opened.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"))


def test_what_ships_reads_as_before(store: Store, clone: Path) -> None:
    for name, text in golden_files(store, clone).items():
        assert text == (FOLDER / name).read_text(encoding="utf-8"), f"{name}: see tests/golden.py"


def test_every_prediction_came_before_its_runs_and_has_a_verdict_and_a_reflection(store: Store) -> None:
    records, found, written = load_records(store), review(store), entries()
    assert found.is_intact, found.problems
    assert {record.owner for record in records} == {OWNER}
    assert {record.experiment for record in records} == {*reference_studies(), "05-search"}
    covered = reflected(written.values())
    for record in records:
        known = record.sha256[:12] in KNOWN_BEFORE
        assert record.verdicts[-1].content["label"] == ("exploratory" if known else "confirmatory")
        entry = covered[f"{record.sha256[:12]}-{record.verdicts[-1].number}"]
        assert entry.why and entry.next, f"{entry.file.name}: a reflection is empty"


def test_judging_what_ships_again_gives_no_new_verdict(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wording of a verdict has changed since it was recorded, but the verdict has not."""
    monkeypatch.setenv("CNNLAB_OWNER", OWNER)
    before = load_records(store)
    for study in reference_studies().values():
        verdict(study, store)
    assert load_records(store) == before


def test_a_difference_is_shown_once_whichever_arm_is_subtracted(store: Store) -> None:
    """The first prediction is about batch against none, the second about layer against batch."""
    first, second = compute_verdicts(reference_studies()["03-normalization"], store, OWNER)
    assert first.prediction.contrast.text == "norm=batch against norm=none"
    assert second.prediction.contrast.control == "norm=batch"
    assert len(second.others) and "norm=none" not in second.others.index


def answers_on_test_images(clone: Path, *arms: str) -> dict[str, np.ndarray]:
    """Return which test images each arm of an opening of the vault classified correctly: bool (seeds, images)."""
    for file in (clone / "models" / "test-set").glob("*/artifacts/test_correct.npz"):
        with np.load(file) as correct:
            if set(correct) == set(arms):
                return dict(correct)
    raise AssertionError(f"no opening of the vault has these arms: {arms}")


def test_the_first_opening_of_the_vault_names_no_runs_and_its_interval_is_found_again(
    store: Store, clone: Path
) -> None:
    opening = load_vault(store, OWNER)[0]
    assert opening.runs == {"baseline": [], "winner": []}
    assert opening.is_about(opening.reason, {"baseline": ["whichever"], "winner": ["run"]})
    correct = answers_on_test_images(clone, "baseline", "winner")
    differences = 100 * (correct["winner"].astype(float) - correct["baseline"])
    assert crossed_interval(differences) == pytest.approx((0.67, 1.09), abs=0.005)


def test_the_second_opening_is_post_hoc_and_its_numbers_are_found_again(store: Store, clone: Path) -> None:
    opening = load_vault(store, OWNER)[1]
    assert opening.said.startswith(f"Opening 2 of the test vault: {opening.reason}\nPOST-HOC")
    runs = results(reference_studies()["06-best"], store, OWNER)
    assert {arm: set(ids) for arm, ids in opening.runs.items()} == {
        arm: set(some["run_id"]) for arm, some in runs.groupby("arm")
    }
    correct = answers_on_test_images(clone, "baseline", "winner", "best")
    for arm in ("winner", "best"):
        differences = 100 * (correct[arm].astype(float) - correct["baseline"])
        mean, (low, high) = differences.mean(), ttest_1samp(differences.mean(axis=1), 0).confidence_interval()
        said = (
            f"{arm} - baseline: {mean:+.2f} pp on the test images; 95 % interval [{low:+.2f}, {high:+.2f}] over seeds"
        )
        low, high = crossed_interval(differences)
        assert said in opening.said and f"[{low:+.2f}, {high:+.2f}] over seeds and images (n = 10" in opening.said


def test_the_champion_is_the_best_run_of_the_best_network_and_readme_and_docs_say_how_good_that_is(
    store: Store,
) -> None:
    runs = results(reference_studies()["06-best"], store, OWNER)
    best = runs[runs["arm"] == "best"].set_index("run_id")
    champion = store.client.get_model_version_by_alias(MODEL, ALIAS).run_id
    assert best["accuracy/valid"][champion] == best["accuracy/valid"].max()
    row = load_vault(store, OWNER)[1].arms.loc["best"]
    card = store.client.get_registered_model(MODEL).description
    assert f"runs reached {row.test:.2f} % on average (post-hoc: these images had been looked at before)." in card
    readme = " ".join((PROJECT / "README.md").read_text(encoding="utf-8").split())
    said = f"classifies {row.valid:.1f} % of the validation images and {row.test:.1f} % of the test images correctly"
    assert f"{said} (mean of {len(best)} seeds;" in readme
    parameters = int(best["fact.num_parameters"].iloc[0])
    line = f"| the best network of this lab, {parameters:,} parameters (mean of {len(best)} seeds) | {row.test:.1f} % |"
    assert line in (PROJECT / "docs" / "results.md").read_text(encoding="utf-8")


def test_the_winner_that_the_best_network_is_compared_with_is_that_of_the_search(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CNNLAB_OWNER", OWNER)
    winners = [
        study.arms["winner"] for study in (search_study(PROFILES["full"], store), reference_studies()["06-best"])
    ]
    assert winners[0] == winners[1]


def test_every_run_has_its_end_and_every_arm_its_seeds(store: Store) -> None:
    for run in load_raw(store):
        assert run.status == "FINISHED" or (run.kind, run.status) == ("trial", "KILLED"), run.name
    for name, study in reference_studies().items():
        runs = results(study, store, OWNER)
        assert len(runs) == len(study.runs()), name
        assert runs.groupby("arm").size().min() >= (10 if name == "01-baseline" else 5)
        assert runs["fact.device"].nunique() == runs["fact.precision"].nunique() == 1
        assert not runs["fact.git_commit"].str.endswith("+changes").any()


def test_dead_channels_are_said_of_runs_that_have_them_for_each_layer_only(store: Store) -> None:
    studies = reference_studies()
    first = compute_verdicts(studies["03-tiny-batches"], store, OWNER)[0]
    assert [note for note in first.notes if "dead" in note] == [
        "42 % of the channels in the worst layer of batch norm in the head are dead (zero for all 256 probe images; "
        "mean of 5 runs)."
    ]


def test_an_effect_that_includes_failed_runs_is_marked_among_all_predictions(store: Store) -> None:
    (axes,) = plot_predictions(store, of=OWNER).axes
    assert [text.get_text() for text in axes.texts if "failed" in text.get_text()] == [
        "supported,\nsize missed, 3 runs failed"
    ]


def test_the_axis_of_all_accuracies_is_named_within_the_figure(store: Store) -> None:
    figure = plot_overview(store)
    figure.draw_without_rendering()
    name, width = figure.axes[0].xaxis.label.get_window_extent(), figure.bbox.width
    assert 0.02 * width < name.x0 < name.x1 < 0.98 * width


def test_the_readme_says_what_the_store_holds(store: Store) -> None:
    assert Results(store).markdown() in (PROJECT / "README.md").read_text(encoding="utf-8")


def test_the_map_of_the_code_has_a_line_for_every_folder_and_for_the_chapter() -> None:
    text = (PROJECT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    folders = [f"{file.parent.name}/" for file in (PROJECT / "cnnlab").rglob("__init__.py")]
    chapter = ["config.py", "data.py", "models.py", "training.py"]
    wanted = [*folders, *chapter]
    assert [name for name in wanted if not re.search(rf"^ *{re.escape(name)}  ", text, re.MULTILINE)] == []


def champion_accuracy(store: Store, data: Data) -> tuple[float, float]:
    """Return the accuracy of the champion on the validation images, computed now and logged by its run."""
    model = mlflow.pytorch.load_model(ADDRESS)
    with torch.inference_mode():
        correct = [
            (model(x).argmax(dim=1) == y).double() for x, y in Batches(data.valid, EVAL_BATCH, data.normaliser())
        ]
    run_id = store.client.get_model_version_by_alias(MODEL, ALIAS).run_id
    return float(torch.cat(correct).mean()), store.client.get_run(run_id).data.metrics["final/accuracy/valid"]


def test_the_champion_reproduces_its_accuracy_without_a_server_and_with_one(store: Store, real_data: Data) -> None:
    now, logged = champion_accuracy(store, real_data)
    assert now == pytest.approx(logged, abs=1e-12)
    server.start()
    try:
        served = connect()
        assert served.kind == "server"
        assert champion_accuracy(served, real_data) == (now, logged)
    finally:
        server.stop()


def test_the_predictions_that_the_readme_calls_known_are_repeated_with_fresh_seeds(store: Store) -> None:
    readme = " ".join((PROJECT / "README.md").read_text(encoding="utf-8").split())
    assert "Predictions 5 to 8 were made" in readme
    assert "24, 25, 27 and 28 repeat them with fresh seeds" in readme
    records = [record for record in load_records(store, owner=OWNER) if record.verdicts and not record.deleted]
    about = ("contrast", "metric", "direction")
    asked = [
        [[records[n - 1].content[name] for name in about] for n in some] for some in ((5, 6, 7, 8), (27, 28, 24, 25))
    ]
    assert asked[0] == asked[1]
    seeds = [[Prediction.from_record(records[n - 1]).contrast.seeds for n in some] for some in ((5, 7), (27, 24))]
    assert not {*seeds[0][0], *seeds[0][1]} & {*seeds[1][0], *seeds[1][1]}


def test_the_outcomes_of_the_results_are_found_and_coloured_in_a_terminal(store: Store) -> None:
    shown = Results(store)
    outcomes = [record.verdicts[-1].content["outcome"] for record in shown.records]
    assert [found[2] for found in OUTCOME.findall(str(shown))] == outcomes


def test_the_code_beside_the_models_runs(store: Store) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", (PROJECT / "models" / "README.md").read_text(encoding="utf-8"), re.S)
    names: dict[str, Any] = {}
    exec(block, names)
    right = names["logits"].argmax(dim=1) == names["data"].valid.y[:100]
    assert right.float().mean() > 0.85


def test_the_numbers_in_the_corrections_of_the_logbooks_are_those_of_the_store(store: Store) -> None:
    def of_seeds(study: str, metric: str) -> pd.DataFrame:
        runs = results(reference_studies()[study], store, OWNER)
        return runs.pivot(index="seed", columns="arm", values=metric)

    rates = 100 * of_seeds("02-dropout", "accuracy/valid")
    step = t_interval((rates["dropout=0.3"] - rates["dropout=0.1"]).to_numpy())
    spread = 100 * of_seeds("01-baseline", "accuracy/valid").std()
    ratio = (spread.max() / spread.min()) ** 2
    gap, fit = of_seeds("03-normalization", "gap/loss").mean(), of_seeds("03-normalization", "loss/train_eval").mean()
    train, accuracy = (
        of_seeds("04-combined", "loss/train").mean(),
        100 * of_seeds("04-combined", "accuracy/valid").mean(),
    )
    before, after = "dropout, then norm", "norm, then dropout"
    (order,) = (r for r in load_records(store, "04-order") if r.content["contrast"].startswith("pool, dropout, norm"))
    said = {
        "01-baseline": [f"{spread.max():.2f} and {spread.min():.2f} pp", f"p = {2 * f.sf(ratio, 9, 9):.3f}"],
        "02-dropout": [f"{step.estimate:+.2f} pp, 95 % interval [{step.low:+.2f}, {step.high:+.2f}] pp, n = {step.n}"],
        "03-normalization": [
            f"{gap['norm=batch']:.3f} nats against {gap['norm=none']:.3f}",
            f"{fit['norm=batch']:.3f} against {fit['norm=none']:.3f}",
        ],
        "04-combined": [
            f"{train[before]:.3f} nats against {train[after]:.3f}",
            f"{accuracy[after] - accuracy[before]:.1f} pp",
            f"{-float(order.verdicts[-1].content['estimate']):.1f} pp",
        ],
    }
    for study, snippets in said.items():
        text = (PROJECT / "experiment_log" / f"{study}.md").read_text(encoding="utf-8")
        corrections = text[text.index(": correction of ") :]
        assert [one for one in snippets if one not in corrections] == [], study


def test_the_new_statistics_in_the_logbook_are_those_of_the_finished_notebook() -> None:
    log = PROJECT / "experiment_log"
    cells = {cell.id: cell for cell in nbformat.read(log / "reference.ipynb", as_version=4).cells}
    changes = re.findall(r"[+-]\d+\.\d\d \[.+?\]", cells["4b-renewed"].outputs[0].data["text/plain"])
    said = (log / "04-order.md").read_text(encoding="utf-8").rpartition(": correction of ")[2]
    assert len(changes) == 4 and all(change.replace(" [", " pp [") in said for change in changes)


def test_the_runs_to_reproduce_are_one_of_each_study(store: Store) -> None:
    runs = load_runs(store).set_index("run_id").loc[one_run_of_each(store)]
    experiments = [store.client.get_run(run_id).info.experiment_id for run_id in runs.index]
    names = [store.client.get_experiment(experiment).name for experiment in experiments]
    assert names == sorted([*reference_studies(), "05-search"])
    assert set(runs["owner"]) == {OWNER}


def test_a_study_that_ships_runs_again_without_training_and_without_a_warning(
    store: Store, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CNNLAB_OWNER", OWNER)
    runs = reference_studies()["02-dropout-short"].run(store, progress=False)
    assert len(runs) == 20
    assert [line for line in said if "exported" in line or "Training" in line] == []


def test_a_short_run_is_reproduced(store: Store, real_data: Data) -> None:
    runs = results(reference_studies()["02-dropout-short"], store, OWNER)
    found = reproduce(str(runs["run_id"].iloc[0]), store, real_data, progress=False)
    assert found.is_reproduced, str(found)
