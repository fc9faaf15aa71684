"""Running a study: missing runs are trained, finished ones are reused, and the results come from MLflow."""

import hashlib
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pandas as pd
from filelock import FileLock, Timeout

from cnnlab.inquiry import paths
from cnnlab.inquiry.checked import checked
from cnnlab.inquiry.contrast import Contrast
from cnnlab.inquiry.design import Design
from cnnlab.inquiry.errors import LabError, stopping
from cnnlab.inquiry.identity import Identity
from cnnlab.inquiry.log import log
from cnnlab.inquiry.prediction import load_predictions
from cnnlab.inquiry.progress import progress_bar
from cnnlab.inquiry.promises import broken_promises
from cnnlab.inquiry.record.connection import connect
from cnnlab.inquiry.record.courier import Courier, deliver_leftovers
from cnnlab.inquiry.record.dead_runs import close_dead_runs
from cnnlab.inquiry.record.environment import owner
from cnnlab.inquiry.record.files import NoFile, export_model
from cnnlab.inquiry.record.run_logger import reuse_run
from cnnlab.inquiry.record.runs import load_runs
from cnnlab.inquiry.record.store import Store, first_line, in_words
from cnnlab.inquiry.record.views import publish_views
from cnnlab.inquiry.run.choose import engine_context
from cnnlab.inquiry.run.dispatch import Dispatcher
from cnnlab.inquiry.run.engines import Engine
from cnnlab.inquiry.run.results import results, trained_elsewhere
from cnnlab.inquiry.run.worker import Job
from cnnlab.inquiry.task import task

PREDICT_FIRST = "nothing is trained before you have predicted what comes out"


@checked
def run_study(
    study: Design,
    store: Store | None = None,
    engine: str | Engine = "auto",
    device: str = "auto",
    progress: bool = True,
    explore: bool = False,
) -> pd.DataFrame:
    """Train every run of `study` that isn't finished yet, log it to `store`, and return the results.

    Training requires a prediction: at least one prediction of this owner must be about these arms and images. Every
    run is tagged with the seals of its predictions. `explore` is for a search that makes no claim: its runs belong to
    no prediction, and a prediction made later counts as made with knowledge of their results.

    A run is identified by its config (with the seed), its images and its owner. So calling this again trains only the
    missing runs, also after an interruption, and runs that another study has trained are taken over. `engine` says
    where the runs are trained (see `cnnlab.inquiry.run.engines`): the name of an engine, or an engine, which then
    stays open.

    A run whose process dies or runs out of memory is tried once more; a failed run does not affect the others.

    Raises:
        LabError: nothing was predicted; another command is running this study; it has runs on other images, or of
            a network that the code no longer builds; or some runs failed (all others are finished by then).
        Stopped: it was interrupted; everything measured so far is kept.
    """
    store = store or connect()
    with _alone(study), stopping("Stopped. What was measured is kept; study.run() continues from here."):
        deliver_leftovers()
        finished = results(study, store)
        predictions = _check(study, finished, store, explore)
        close_dead_runs(store, study.name, owner())
        _announce(study, finished, store)
        jobs = _take_over(_jobs(study, finished, predictions, device), store)
        failures = _train_all(study, jobs, store, engine, device, progress) if jobs else []
        table = results(study, store)
        _export_best(table, store)
        _publish(study, store)  # once more: now the range of the final values is known
    _refuse_failures(study, failures)
    return table


def _check(study: Design, finished: pd.DataFrame, store: Store, explore: bool) -> dict[str, Contrast]:
    """Return this owner's predictions by their seals; none for an exploration.

    Raises:
        LabError: the study can't be run like this.
    """
    _refuse_other_images(study, store)
    predictions = {} if explore else _predictions(study, store)
    _refuse_another_network(study, finished)
    return predictions


def _announce(study: Design, finished: pd.DataFrame, store: Store) -> None:
    """Announce what will be run, here and in the MLflow UI."""
    log.info(study.describe())
    if len(finished):
        log.info(f"{len(finished)} of its runs are finished already and are not trained again.")
    _publish(study, store)


def _refuse_failures(study: Design, failures: list[str]) -> None:
    """Raise a LabError if runs failed, after all others have finished."""
    if failures:
        raise LabError(
            f"{len(failures)} of {len(study.runs())} runs of {study.name} failed ({failures[0]}); the others are "
            "finished and kept. Run the study again to retry the failed ones."
        )


@contextmanager
def _alone(study: Design) -> Iterator[None]:
    """Lock the study: two commands that run it at the same time would train its runs twice."""
    folder = paths.state_folder() / "studies"
    folder.mkdir(exist_ok=True)
    lock = FileLock(folder / f"{hashlib.sha256(f'{study.name}/{owner()}'.encode()).hexdigest()[:16]}.lock")
    try:
        held = lock.acquire(blocking=False)
    except Timeout:
        raise LabError(f"another command is running the study {study.name}: wait for it, or stop it first.") from None
    with held:
        yield


def _refuse_other_images(study: Design, store: Store) -> None:
    """Keep runs on different images in different experiments, so that nobody averages over both.

    Raises:
        LabError: this owner has runs of the study on other images.
    """
    runs = load_runs(store, study.name)
    theirs = runs[runs["owner"] == owner()]
    if any(run["measured"] and run["identity"].images != study.images for _, run in theirs.iterrows()):
        raise LabError(f"{study.name} already has runs on other images: give the study on these images another name.")


def _predictions(study: Design, store: Store) -> dict[str, Contrast]:
    """Return this owner's predictions by their seals.

    Raises:
        LabError: none is about these arms and images; the message says how to make one, or what has changed.
    """
    made = load_predictions(store, owner=owner())
    reasons = [one.contrast.unlike(study.arms, study.images) for one in made if one.study == study.name]
    if "" in reasons:
        return {one.record.sha256: one.contrast for one in made}
    what = f"{study.name} doesn't fit what you predicted: {reasons[-1]}. Predict again" if reasons else PREDICT_FIRST
    arm = next((name for name in study.arms if name != study.control), "...")
    raise LabError(
        f"{what}, for example: predict(study, arm={arm!r}, metric='accuracy/valid', direction='higher', size=(0.3, 1), "
        f"confidence=70, because='...', if_refuted='...'); or in a terminal: uv run cnnlab predict {study.name}"
    )


def _refuse_another_network(study: Design, finished: pd.DataFrame) -> None:
    """Refuse to add runs to those of a network that the code no longer builds.

    Raises:
        LabError: there are such runs.
    """
    broken = {run["arm"]: ", ".join(broken) for _, run in finished.iterrows() if (broken := broken_promises(run))}
    if broken:
        said = "; ".join(f"{arm} ({what})" for arm, what in broken.items())
        raise LabError(
            f"finished runs of {study.name} aren't what the code makes of their params now: {said}. New runs would "
            "not be comparable with them: undo the change, or give the study another name."
        )


def _jobs(study: Design, finished: pd.DataFrame, predictions: dict[str, Contrast], device: str) -> list[Job]:
    """Return the jobs to train; each lists the predictions of this owner to which its run belongs."""
    images, done = study.images, set(finished["identity"])
    of_study = [seal for seal, contrast in predictions.items() if not contrast.unlike(study.arms, images)]
    runs = {seal: contrast.runs(contrast.arms) for seal, contrast in predictions.items()}
    jobs = []
    for arm, seed, config in study.runs():
        identity = Identity.of(config, images)
        if identity not in done:
            seals = [seal for seal in predictions if seal in of_study or identity in runs[seal]]
            title = f"{arm}, seed {study.seeds.index(seed) + 1} of {len(study.seeds)}"
            tags = {"owner": owner(), "mlflow.user": owner(), "study": study.name, "arm": arm}
            tags |= {"lab.job": uuid.uuid4().hex} | ({"prediction": ",".join(seals)} if seals else {})
            jobs.append(Job(study.name, title, config, images, tags, device))
    return jobs


def _take_over(jobs: list[Job], store: Store) -> list[Job]:
    """Take over runs that this owner has trained in another study on the same images; return the remaining jobs."""
    elsewhere = trained_elsewhere(store) if jobs else {}
    known = [job for job in jobs if job.identity in elsewhere]
    if known:
        log.info(f"{len(known)} of its runs were trained in another study; their results are taken over.")
        with closing(Courier(store)) as courier:
            for job in known:
                reuse_run(courier, elsewhere[job.identity], job.experiment, job.title, job.tags)
    return [job for job in jobs if job.identity not in elsewhere]


def _publish(study: Design, store: Store) -> None:
    try:
        publish_views(store, study.name, study.question, study.role("scientific"))
    except Exception as error:  # a missing view is no reason not to train
        log.warning(
            f"The shared views of {study.name} could not be written ({first_line(error)}); the runs are not affected."
        )


def _export_best(table: pd.DataFrame, store: Store) -> None:
    """Export the model of the best run of each arm; those of other runs are exported on request."""
    metric = task().metrics[0]
    best = table.sort_values(metric.name, ascending=metric.better == "lower", kind="stable") if len(table) else table
    for _, run in best.drop_duplicates("arm").iterrows():
        try:
            export_model(store, run["reused_from"] or run["run_id"])
        except NoFile:
            continue  # most of the runs that ship with the lab have no weights
        except Exception as error:  # a missing model is no reason to stop: it can be exported later
            log.warning(
                f"The model of the run {run['name']} could not be exported ({in_words(error)}); its weights are kept."
            )


def _train_all(
    study: Design, jobs: list[Job], store: Store, engine: str | Engine, device: str, progress: bool
) -> list[str]:
    """Train all jobs; return a description of each failure."""
    amount = sum(job.amount for job in jobs)
    context = engine_context(engine, store, amount, device, study.data)
    try:
        with context as chosen, progress_bar(study.name, amount, task().unit, progress) as bar:
            log.info(f"Training {len(jobs)} run{'s' if len(jobs) > 1 else ''} {chosen.describe()}.")
            return Dispatcher(chosen, store, bar).train(jobs)
    finally:
        deliver_leftovers()  # from workers that were stopped or could not reach the store
