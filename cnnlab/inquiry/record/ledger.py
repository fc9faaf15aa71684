"""The ledger: predictions and their verdicts, written once, each sealed and chained to the one before.

A prediction is a run of kind "prediction" in the experiment of its study. Its content is stored in params, which
MLflow's interface can't change. A SHA-256 over all of them, including that of the owner's previous prediction, reveals
changes that bypass MLflow. Verdicts are further params of the same run, chained to it in the same way.

A chain can't reveal that somebody rewrote the whole store with all its hashes. A head that was handed in or committed
in time can (`cnnlab.inquiry.record.heads`): a rewritten store doesn't contain it.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from filelock import FileLock
from mlflow.entities import Param, Run, ViewType

from cnnlab.inquiry import paths
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.record.environment import owner
from cnnlab.inquiry.record.runs import search_runs
from cnnlab.inquiry.record.seal import seal_record
from cnnlab.inquiry.record.store import Store, answering
from cnnlab.inquiry.record.times import EPOCH, time_in

START = "start"  # the previous seal of an owner's first record
LONGEST = 6000  # characters of a param that MLflow can store
PREDICTED, FOUND = "1 predicted", "2 verdict"  # tags that the MLflow UI shows as columns, sorted by name
NOTE = "mlflow.note.content"  # the tag of a run or an experiment that the MLflow UI shows as its description
VERDICT = "verdict_"  # prefix of the params of a verdict, which are added later


@dataclass(frozen=True)
class VerdictRecord:
    """One recorded verdict: its number among the verdicts on its prediction, and its content."""

    number: int
    content: dict[str, str]

    @property
    def sha256(self) -> str:
        """The seal that was recorded with it."""
        return self.content.get("sha256", "")


@dataclass(frozen=True)
class Record:
    """One prediction in the store, with the verdicts that followed."""

    run_id: str
    experiment: str
    content: dict[str, str]
    written: int  # when it was sent to MLflow, in ms since 1970, by the clock of the sending machine
    deleted: bool  # in the MLflow UI; the record still exists
    verdicts: tuple[VerdictRecord, ...] = ()

    @property
    def sha256(self) -> str:
        """The seal that was recorded with it; "" if the record is incomplete."""
        return self.content.get("sha256", "")

    @property
    def owner(self) -> str:
        """The owner named in the record."""
        return self.content.get("owner", "")

    @property
    def time(self) -> datetime:
        """The time of recording given in the record; 1970 if it gives none."""
        return time_in(self.content.get("time", "")) or EPOCH

    @property
    def is_whole(self) -> bool:
        """Whether the content still matches its seal."""
        return seal_record(self.content) == self.sha256

    @property
    def last_seal(self) -> str:
        """The seal to which the next verdict will be chained."""
        return self.verdicts[-1].sha256 if self.verdicts else self.sha256


def record_prediction(store: Store, experiment: str, content: Mapping[str, str], title: str, said: str) -> Record:
    """Write a prediction, chained to the owner's last one, and return its record.

    `title` is its name in the MLflow UI, and `said` its text in a table there.

    Raises:
        LabError: a text is too long for MLflow, or the store isn't writable.
    """
    with _writing(store):
        previous = last_seal(load_records(store, owner=owner()))
        full = _sealed({**content, "owner": owner()}, previous)
        tags = {"kind": "prediction", "owner": owner(), "mlflow.user": owner(), "mlflow.source.name": "cnnlab"}
        tags[PREDICTED] = said
        run = store.client.create_run(store.experiment_id(experiment), tags=tags, run_name=title)
        store.client.log_batch(run.info.run_id, params=[Param(name, value) for name, value in full.items()])
        store.client.set_terminated(run.info.run_id)
    return Record(run.info.run_id, experiment, full, run.info.start_time, deleted=False)


def record_verdict(store: Store, record: Record, content: Mapping[str, str], note: str) -> VerdictRecord:
    """Write a verdict on a prediction, chained to the previous record there; `note` is shown in the MLflow UI.

    If it differs from the last verdict only in its wording (`said`), it isn't written again, and the last one is
    returned. Fields that an earlier version of the lab didn't record don't count as a difference.

    Raises:
        LabError: a text is too long for MLflow, or the store isn't writable.
    """
    with _writing(store):
        known = _record(store.client.get_run(record.run_id), record.experiment)
        if known.verdicts and _is_same(content, known.verdicts[-1].content):
            return known.verdicts[-1]
        number = len(known.verdicts) + 1
        full = _sealed(content, known.last_seal)
        params = [Param(f"{VERDICT}{number}_{name}", value) for name, value in full.items()]
        store.client.log_batch(record.run_id, params=params)
        store.client.set_tag(record.run_id, NOTE, note)
    return VerdictRecord(number, full)


def _is_same(content: Mapping[str, str], last: Mapping[str, str]) -> bool:
    """Return whether a verdict is the same as the last one on record, apart from its wording."""
    return all(last.get(name, value) == value for name, value in content.items() if name != "said")


def load_records(store: Store, experiment: str | None = None, owner: str | None = None) -> list[Record]:
    """Return the predictions in a store, oldest first, including deleted ones.

    Raises:
        LabError: the store doesn't answer.
    """
    rule = "tags.kind = 'prediction'"
    if owner and "'" not in owner:  # MLflow can't escape a quote, and the filter only saves time
        rule += f" and params.owner = '{owner}'"
    with answering(store, "the predictions can't be read now"):
        names = {e.experiment_id: e.name for e in store.client.search_experiments(ViewType.ALL)}
        runs = search_runs(store, rule, experiment, deleted=True)
    records = [_record(run, names[run.info.experiment_id]) for run in runs]
    records = [record for record in records if owner is None or record.owner == owner]
    return sorted(records, key=lambda record: (record.content.get("time", ""), record.written))


def last_seal(records: list[Record]) -> str:
    """Return the seal of the last record in an owner's chain, to which the next one is chained.

    The last record is the one without a successor, since the clocks of two machines may disagree about the order.
    """
    followed = {record.content.get("previous") for record in records}
    last = [record.sha256 for record in records if record.sha256 and record.sha256 not in followed]
    return last[-1] if last else START


def _record(run: Run, experiment: str) -> Record:
    params = run.data.params
    content = {name: value for name, value in params.items() if not name.startswith(VERDICT)}
    verdicts: dict[int, dict[str, str]] = {}
    for name, value in params.items():
        if name.startswith(VERDICT):
            number, _, rest = name.removeprefix(VERDICT).partition("_")
            if number.isdecimal():
                verdicts.setdefault(int(number), {})[rest] = value
    in_order = tuple(VerdictRecord(number, verdicts[number]) for number in sorted(verdicts))
    deleted = run.info.lifecycle_stage == "deleted"
    return Record(run.info.run_id, experiment, content, run.info.start_time or 0, deleted, in_order)


def _sealed(content: Mapping[str, str], previous: str) -> dict[str, str]:
    """Return the content with the time, the previous seal and its own seal.

    Raises:
        LabError: a text is too long for MLflow.
    """
    for name, value in content.items():
        if len(value) > LONGEST:
            raise LabError(f"{name} is too long for MLflow: {len(value):,} characters, but at most {LONGEST:,} fit.")
    chained = {**content, "time": datetime.now(UTC).isoformat(timespec="milliseconds"), "previous": previous}
    return chained | {"sha256": seal_record(chained)}


@contextmanager
def _writing(store: Store) -> Iterator[None]:
    """Let only one process of this machine at a time write to the ledger."""
    with FileLock(paths.state_folder() / "ledger.lock"), answering(store, "the ledger can't be written now"):
        yield
