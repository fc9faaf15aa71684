"""Make the store small enough to ship: uv run .ci/ship.py, when the reference runs are done and the vault was opened.

What was measured stays for every run, but for curves that others give or that are about the machine. Figures stay for
the best run of each arm, in 256 colours, the model for the best run of each study, weights for the champion and for the
runs whose networks the notebook takes up again. A run whose files go says so in its note, with a link to
the run that has them. The largest indexes go too. The lab makes them again when it opens the store, so this is the last
step before a commit.
"""

import os
import shutil
import sqlite3
from itertools import groupby

from PIL import Image

from cnnlab.course.champion import ALIAS, MODEL
from cnnlab.course.profiles import PROFILES
from cnnlab.course.reference import OWNER, reference_studies
from cnnlab.course.search import search_study
from cnnlab.inquiry import paths
from cnnlab.inquiry.record.artifacts import artifact_folder
from cnnlab.inquiry.record.connection import connect
from cnnlab.inquiry.record.ledger import NOTE, load_records
from cnnlab.inquiry.record.run_logger import taken_over
from cnnlab.inquiry.record.runs import RawRun, load_raw, run_link
from cnnlab.inquiry.record.schema import INDEXES
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.record.vault_record import DESCRIPTION
from cnnlab.inquiry.record.vault_record import EXPERIMENT as TEST_SET
from cnnlab.inquiry.record.views import publish_views
from cnnlab.inquiry.show.publish import publish_outcomes
from cnnlab.one_run import WEIGHTS
from cnnlab.task import SHIPPED

ACCURACY = "final/accuracy/valid"
WITH_WEIGHTS = ("03-tiny-batches", "04-order")  # here the notebook recomputes the statistics of BatchNorm
CURVES = ("gap/accuracy", "lr", "time/epoch_s", "time/images_per_s")  # of which only the last value ships


def arm_of(run: RawRun) -> tuple[str, str]:
    """Return the experiment and the arm of a run."""
    return run.experiment, run.tags["arm"]


def rank(run: RawRun) -> tuple[float, str]:
    """Return what a run is better by, and its id, which decides between equal ones."""
    return run.metrics[ACCURACY], run.run_id


def drop_files(store: Store, run: RawRun, best: RawRun, with_weights: set[str]) -> None:
    """Remove the files of a run that don't ship."""
    folder = artifact_folder(store.client.get_run(run.run_id).info.artifact_uri, store.uri)
    if run.run_id not in with_weights:
        (folder / WEIGHTS).unlink(missing_ok=True)
    if run.run_id != best.run_id:
        shutil.rmtree(folder / "figures", ignore_errors=True)
        other = run_link(store.client.get_run(best.run_id))
        note = f"Its figures don't ship with the lab; those of the best run of this arm do: {other}."
        store.client.set_tag(run.run_id, NOTE, note)


def shrink_figures() -> None:
    """Store figures with a palette, which takes less than half of the space."""
    for file in paths.models_folder().rglob("*.png"):
        with Image.open(file) as figure:
            if figure.mode != "P":
                figure.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(file, optimize=True)


def drop_models(models: list[str]) -> None:
    """Remove the entries and the files of models; MLflow itself only marks them as deleted."""
    with sqlite3.connect(paths.database()) as database:
        database.execute("PRAGMA foreign_keys = ON")  # takes their params, metrics and tags along
        database.executemany("DELETE FROM logged_models WHERE model_id = ?", [(model,) for model in models])
        database.executemany("DELETE FROM inputs WHERE destination_id = ?", [(model,) for model in models])
    for folder in paths.models_folder().glob("*/models/*"):
        if folder.name in models:
            shutil.rmtree(folder)


def drop_curves(database: sqlite3.Connection) -> None:
    """Remove all but the last value of curves that don't ship."""
    database.executemany(
        "DELETE FROM metrics WHERE key = ?1 AND step < (SELECT step FROM latest_metrics AS last "
        "WHERE last.run_uuid = metrics.run_uuid AND last.key = ?1)",
        [(name,) for name in CURVES],
    )


def publish(store: Store, runs: list[RawRun]) -> None:
    """Let the MLflow UI show what ships as it shows the runs of a student, whichever version of the lab made it."""
    for study in [*reference_studies().values(), search_study(PROFILES["full"], store)]:
        publish_views(store, study.name, study.question, study.role("scientific"))
        publish_outcomes(store, study.name, study.question, OWNER)
    for run in runs:
        if origin := run.tags.get("reused_from"):
            store.client.set_tag(run.run_id, NOTE, taken_over(store.client.get_run(origin), store))
    store.client.set_experiment_tag(store.experiment_id(TEST_SET), NOTE, DESCRIPTION)


def note_seals(store: Store) -> None:
    """Write down the seals of what ships, by which it can be told from what others made under the same owners."""
    records = [record.sha256 for record in load_records(store, owner=OWNER)]
    runs = [run.seal for run in load_raw(store) if run.seal and run.owner == OWNER]
    SHIPPED.write_text("\n".join(sorted({*records, *runs})) + "\n", encoding="utf-8", newline="\n")


def main() -> None:
    """Drop what doesn't ship, and say how large the rest is."""
    store = connect()
    os.environ["CNNLAB_OWNER"] = OWNER  # this store has no runs of anybody else
    champion = store.client.get_model_version_by_alias(MODEL, ALIAS).run_id
    runs = [run for run in load_raw(store) if run.kind == "run" and run.owner == OWNER and run.status == "FINISHED"]
    publish(store, runs)
    taken_up = [run for run in runs if run.experiment in WITH_WEIGHTS]
    with_weights = {champion, *(run.tags.get("reused_from", run.run_id) for run in taken_up)}
    runs = sorted((run for run in runs if "reused_from" not in run.tags), key=arm_of)
    for _, arm in groupby(runs, arm_of):
        ranked = sorted(arm, key=rank)
        for run in ranked:
            drop_files(store, run, ranked[-1], with_weights)
    kept = {max(some, key=rank).run_id for _, some in groupby(runs, lambda run: run.experiment)} | {champion}
    outputs = [store.client.get_run(run.run_id).outputs for run in runs if run.run_id not in kept]
    models = [model.model_id for one in outputs for model in one.model_outputs]
    drop_models(models)
    shrink_figures()
    note_seals(store)
    with sqlite3.connect(paths.database()) as database:
        drop_curves(database)
        for name in INDEXES:
            database.execute(f"DROP INDEX IF EXISTS {name}")
        database.commit()
        database.execute("PRAGMA page_size = 1024")  # MLflow has many empty tables, and each takes a page or two
        database.execute("VACUUM")
        (answer,) = database.execute("PRAGMA integrity_check").fetchone()
    files = sum(file.stat().st_size for file in paths.models_folder().rglob("*") if file.is_file())
    print(f"integrity: {answer}; {len(models)} models dropped")
    print(f"mlflow.db {paths.database().stat().st_size / 1e6:.1f} MB, models/ {files / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
