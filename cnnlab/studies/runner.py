"""Running a study: what is missing is trained, what is there is reused, and the results come from MLflow."""

import hashlib
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import pandas as pd
from filelock import FileLock, Timeout

from cnnlab import paths
from cnnlab.config import Config, ConfigError
from cnnlab.data import Data, load_data
from cnnlab.errors import LabError
from cnnlab.progress import progress_bar
from cnnlab.studies.contrast import Contrast
from cnnlab.studies.dispatch import Dispatcher
from cnnlab.studies.engines import Engine, choose_engine
from cnnlab.studies.results import results
from cnnlab.studies.study import Study
from cnnlab.studies.worker import Job
from cnnlab.tracking.connection import connect
from cnnlab.tracking.courier import Courier, deliver_leftovers
from cnnlab.tracking.dead_runs import close_dead_runs
from cnnlab.tracking.environment import owner
from cnnlab.tracking.ledger import Record, load_records
from cnnlab.tracking.run_logger import reuse_run
from cnnlab.tracking.store import Store, first_line
from cnnlab.tracking.table import load_runs
from cnnlab.tracking.views import publish_views

Say = Callable[[str], None]

PREDICT_FIRST = "nothing is trained before you have predicted what comes out"
IMAGES = "fact.valid_sha256"
THREADS = 1  # of a run on a CPU: the last bits of a result depend on it, so it is the same everywhere


def run_study(
    study: Study,
    data: Data | None = None,
    store: Store | None = None,
    say: Say = print,
    engine: str | Engine = "auto",
    device: str = "auto",
    progress: bool = True,
    explore: bool = False,
) -> pd.DataFrame:
    """Train every run of `study` that isn't finished yet, log it to `store`, and return the results.

    Nothing is trained before something was predicted: at least one prediction of this owner has to be about these
    arms. Every run carries the seals of the predictions that it belongs to. `explore` is for a search that claims
    nothing: its runs belong to no prediction, and one that is made later knows their results.

    A run is identified by its config (with the seed) and its owner: calling this twice trains nothing twice, what
    another study has trained is taken over, and after an interruption it goes on with what is missing. `engine` says
    where the runs are trained (see `cnnlab.studies.engines`): its name, or an engine that is then left open.

    A run whose process dies or finds no memory is tried once more; a run that fails costs the others nothing.

    Raises:
        LabError: nothing was predicted; another command is running this study; or some runs failed (all others are
            finished by then).
    """
    store = store or connect(say)
    with _alone(study):
        deliver_leftovers(say)
        predictions = [] if explore else _predictions(study, store)
        done = set(_finished(study, store, data)["config"])
        close_dead_runs(store, study.name, owner(), say)
        say(study.describe())
        if done:
            say(f"{len(done)} of its runs are finished already and are not trained again.")
        _publish(study, store, say)
        tags = {"prediction": ",".join(record.sha256 for record in predictions)} if predictions else {}
        missing = [(arm, seed, config) for arm, seed, config in study.runs() if config not in done]
        jobs = [_job(study, arm, seed, config, device, tags) for arm, seed, config in missing]
        jobs = _take_over(jobs, store, data, say) if jobs else []
        failures = _train_all(study, jobs, store, data, say, engine, device, progress) if jobs else []
    table = results(study, store)
    if failures:
        raise LabError(
            f"{len(failures)} of {len(study.runs())} runs of {study.name} failed ({failures[0]}); the others are "
            "finished and kept. Running the study again tries these once more."
        )
    return table


@contextmanager
def _alone(study: Study) -> Iterator[None]:
    """Hold the study: two commands that run it at the same time would train its runs twice."""
    folder = paths.state_folder() / "studies"
    folder.mkdir(exist_ok=True)
    lock = FileLock(folder / f"{hashlib.sha256(f'{study.name}/{owner()}'.encode()).hexdigest()[:16]}.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise LabError(f"another command is running the study {study.name}: wait for it, or stop it first.") from None
    try:
        yield
    finally:
        lock.release()


def _predictions(study: Study, store: Store) -> list[Record]:
    """Return the predictions of this owner about these arms.

    Raises:
        LabError: there is none; the sentence says how to make one, or what has changed since.
    """
    records = [record for record in load_records(store, study.name, owner()) if not record.deleted]
    reasons = []
    for record in reversed(records):
        try:
            reasons.append(Contrast.from_json(record.content["design"]).unlike(study))
        except (KeyError, ConfigError):
            reasons.append("the prediction was made with another version of the lab")
    fitting = [record for record, reason in zip(reversed(records), reasons, strict=True) if not reason]
    if fitting:
        return fitting[::-1]
    what = f"{study.name} doesn't fit what you predicted: {reasons[0]}. Predict again" if reasons else PREDICT_FIRST
    arm = next((name for name in study.arms if name != study.control), "...")
    raise LabError(
        f"{what}, for example: predict(study, arm={arm!r}, metric='accuracy/valid', direction='higher', size=(0.3, 1), "
        f"confidence=70, because='...', if_refuted='...'); or in a terminal: uv run cnnlab predict {study.name}"
    )


def _finished(study: Study, store: Store, data: Data | None) -> pd.DataFrame:
    """Return the finished runs of a study.

    Raises:
        LabError: they were made on other images.
    """
    runs = results(study, store)
    if data is not None and len(runs) and (runs[IMAGES] != data.valid.sha256()).any():
        raise LabError(
            f"{study.name} has runs on other images than these: give the study on these images a name of its own."
        )
    return runs


def _job(study: Study, arm: str, seed: int, config: Config, device: str, tags: dict[str, str]) -> Job:
    own = {"owner": owner(), "mlflow.user": owner(), "study": study.name, "arm": arm, "lab.job": uuid.uuid4().hex}
    return Job(study.name, f"{arm}, seed {seed}", config, own | tags, device, THREADS)


def _take_over(jobs: list[Job], store: Store, data: Data | None, say: Say) -> list[Job]:
    """Take over what this owner has trained in another study on the same images, and return the jobs that are left."""
    elsewhere = trained_elsewhere(store)
    if any(job.config in elsewhere for job in jobs):
        elsewhere = trained_elsewhere(store, images=(data or load_data(lambda line: None)).valid.sha256())
    known = [job for job in jobs if job.config in elsewhere]
    if known:
        say(f"{len(known)} of its runs were trained in another study; their results are taken over.")
        courier = Courier(store, say)
        try:
            for job in known:
                reuse_run(courier, elsewhere[job.config], job.experiment, job.title, job.tags)
        finally:
            courier.close()
    return [job for job in jobs if job.config not in elsewhere]


def trained_elsewhere(store: Store, images: str = "") -> dict[Config, str]:
    """Return the id of the first finished run of every config that this owner has trained, in any study.

    images: the fingerprint of the validation images; without it, runs on any images count.
    """
    runs = load_runs(store)
    if images and len(runs):
        runs = runs[runs[IMAGES] == images]
    runs = runs[(runs["status"] == "FINISHED") & (runs["owner"] == owner()) & (runs["reused_from"] == "")]
    first = runs.drop_duplicates("config")
    return dict(zip(first["config"], first["run_id"], strict=True))


def _publish(study: Study, store: Store, say: Say) -> None:
    try:
        publish_views(store, study.name, study.question, study.role("scientific"))
    except Exception as error:  # a view less is no reason not to train
        say(f"The shared views of {study.name} could not be written ({first_line(error)}); the runs are not affected.")


def _train_all(
    study: Study,
    jobs: list[Job],
    store: Store,
    data: Data | None,
    say: Say,
    engine: str | Engine,
    device: str,
    progress: bool,
) -> list[str]:
    """Train all jobs; return what failed, in words."""
    images = sum(job.images for job in jobs)
    if isinstance(engine, str):
        context: AbstractContextManager[Engine] = choose_engine(engine, store, images, device, data=data)
    else:
        context = nullcontext(engine)  # it stays open: it is the caller's
    try:
        with context as chosen, progress_bar(study.name, images, progress) as bar:
            say(f"Training {len(jobs)} run{'s' if len(jobs) > 1 else ''} {chosen.describe()}.")
            dispatcher = Dispatcher(chosen, store, bar, say)
            dispatcher.train(jobs)
            return dispatcher.failures
    finally:
        deliver_leftovers(say)  # of workers that were stopped, or could not reach the store
