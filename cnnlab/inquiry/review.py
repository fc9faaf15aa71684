"""An instructor's first look at one store: what was predicted and run, when, and whether the records fit together.

It only reads. It also works on stores that this lab did not make, and says what can't be known there.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pandas as pd

from cnnlab.config import ConfigError, from_params
from cnnlab.inquiry.foreign import describe_foreign
from cnnlab.inquiry.prediction import Prediction
from cnnlab.inquiry.verdict import seen_before
from cnnlab.tracking.ledger import START, Record, load_records
from cnnlab.tracking.seal import seal_record
from cnnlab.tracking.store import Store
from cnnlab.tracking.table import RawRun, load_raw

CLOCK_S = 120  # by which the time in a record and MLflow's own may differ
SHIPPED = ("reference", "example")  # owners whose results come with the lab


@dataclass
class Review:
    """What was found. problems: what does not fit, each naming a record or a run; empty if the chain is intact.

    timeline: one row for each event, `time, owner, what`. predictions: one row each, with label and verdict. heads: the
    last seal of every owner's chain, by which an earlier copy can be told from a rewritten one.
    """

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    timeline: pd.DataFrame = field(default_factory=pd.DataFrame)
    predictions: pd.DataFrame = field(default_factory=pd.DataFrame)
    heads: dict[str, str] = field(default_factory=dict)
    foreign: list[str] = field(default_factory=list)
    runs: int = 0

    @property
    def is_intact(self) -> bool:
        """Whether every record and every run is what was sealed, and the chain has no gap."""
        return not self.problems

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return the tables of the review by their titles."""
        return {"Predictions": self.predictions, "Timeline (UTC)": self.timeline}


def review(store: Store) -> Review:
    """Return what there is to see in a store, which is only read.

    Raises:
        LabError: the store doesn't answer.
    """
    records, runs = load_records(store), load_raw(store)
    own = [run for run in runs if run.kind == "run"]
    found = Review(runs=len(own))
    for owner in sorted({record.owner for record in records}):
        chain = [record for record in records if record.owner == owner]
        _check_chain(found, owner, chain)
        found.heads[owner or "(nobody)"] = chain[-1].sha256
    by_id = {run.run_id: run for run in runs}
    for record in records:
        _check_verdicts(found, record, by_id)
    _check_runs(found, own, records)
    _check_earlier_looks(found, records, own)
    found.timeline = _timeline(records, runs)
    found.predictions = _predictions(records)
    found.foreign = describe_foreign([run for run in runs if not run.kind and not run.deleted])
    return found


def _check_chain(found: Review, owner: str, chain: list[Record]) -> None:
    """Check every seal of an owner, and that each record follows the one before."""
    previous, followed = START, Counter(record.content.get("previous", "") for record in chain)
    for record in chain:
        name = name_of(record)
        if not record.sha256:
            found.problems.append(f"{name}: its writing was cut short; it counts as no prediction.")
            continue
        if not record.is_whole:
            found.problems.append(f"{name}: it was changed after it was sealed.")
        follows = record.content.get("previous", "")
        if follows != previous:
            what = "a record before it is missing" if followed[follows] < 2 else "two records follow the same one"
            found.problems.append(f"{name}: it doesn't follow the record before it: {what}.")
        if abs(record.written / 1000 - record.time.timestamp()) > CLOCK_S:
            found.problems.append(f"{name}: the time it gives is not the time at which MLflow was told of it.")
        if record.deleted:
            found.notes.append(f"{name}: deleted in the MLflow UI; it stays in the chain.")
        previous = record.sha256


def _check_verdicts(found: Review, record: Record, runs: dict[str, RawRun]) -> None:
    """Check the seals of a prediction's verdicts, and that the runs they rest on are still what they were."""
    previous = record.sha256
    for one in record.verdicts:
        name = f"{name_of(record)}, verdict {one.number}"
        if seal_record(one.content) != one.sha256 or one.content.get("previous") != previous:
            found.problems.append(f"{name}: it was changed after it was sealed.")
        previous = one.sha256
        metric = record.content.get("metric", "")
        for run_id, seal, value in _runs_of(one.content):
            run = runs.get(run_id)
            if run is None:
                found.problems.append(f"{name}: the run {run_id} that it rests on is gone.")
            elif run.tags.get("lab.seal", "-") != seal or _number(run.metrics.get(f"final/{metric}")) != value:
                found.problems.append(
                    f"{name}: the run {run.name} ({run_id[:8]}) isn't what it was when it was judged."
                )


def _runs_of(content: dict[str, str]) -> Iterable[tuple[str, str, str]]:
    for name, text in sorted(content.items()):
        if name.startswith("runs_") and text:
            for line in text.split("; "):
                run_id, seal, value = line.split(" ")
                yield run_id, seal, value


def _number(value: float | None) -> str:
    return repr(value) if value is not None else "nan"


def _check_runs(found: Review, runs: list[RawRun], records: list[Record]) -> None:
    """Check that every run is what was sealed, and that the predictions it names are there."""
    known = {record.sha256 for record in records}
    without_seal = without_prediction = 0
    for run in runs:
        name = f"run {run.name} of {run.experiment} ({run.run_id[:8]})"
        if run.sealed_right is False:
            found.problems.append(f"{name}: its params, facts or final metrics were changed after it ended.")
        without_seal += run.sealed_right is None and run.status == "FINISHED"
        named = [seal for seal in run.tags.get("prediction", "").split(",") if seal]
        without_prediction += not named
        if [seal for seal in named if seal not in known]:
            found.problems.append(f"{name}: the prediction that it belongs to is missing.")
        if run.deleted:
            found.notes.append(f"{name}: deleted in the MLflow UI.")
    if without_seal:
        found.notes.append(f"{without_seal} finished runs have no seal: another version of the lab made them.")
    if without_prediction:
        found.notes.append(f"{without_prediction} runs belong to no prediction: another version of the lab made them.")


def _check_earlier_looks(found: Review, records: list[Record], runs: list[RawRun]) -> None:
    """Note where somebody else had run the very arms of a prediction before it was made, in the same store."""
    table = _config_table(runs)
    for record in records:
        try:
            prediction = Prediction.from_record(record)
        except ConfigError:
            continue
        for other in sorted(set(table["owner"]) - {record.owner, *SHIPPED}) if len(table) else []:
            theirs = table[table["owner"] == other].assign(owner=record.owner)
            if seen := seen_before(prediction, theirs):
                found.notes.append(f"{name_of(record)}: {other} had {len(seen)} runs of these arms before it.")


def _config_table(runs: list[RawRun]) -> pd.DataFrame:
    rows = []
    for run in runs:
        try:
            config = from_params(run.params)
        except ConfigError:
            continue
        row = {"run_id": run.run_id, "owner": run.owner, "started": run.started, "measured": bool(run.metrics)}
        rows.append(row | {"config": config})
    return pd.DataFrame(rows, columns=["run_id", "owner", "started", "measured", "config"])


def _timeline(records: list[Record], runs: list[RawRun]) -> pd.DataFrame:
    """Return what happened when: predictions, blocks of runs, verdicts, readings of the test set."""
    events = [(record.written, record.owner, f"predicted: {_claim(record)}") for record in records]
    for record in records:
        for one in record.verdicts:
            when = int(datetime.fromisoformat(one.content["time"]).timestamp() * 1000)
            said = f"{one.content.get('outcome')} ({one.content.get('label')})"
            events.append((when, record.owner, f"verdict {one.number}: {said}: {record.content.get('contrast')}"))
    blocks: dict[tuple[str, str], list[RawRun]] = {}
    for run in runs:
        if run.kind == "run":
            blocks.setdefault((run.owner, run.experiment), []).append(run)
        elif run.kind in ("test-reading", "vault"):
            events.append((run.started, run.owner, f"test set: {run.params.get('reason', '')}"))
    for (owner, experiment), block in blocks.items():
        states = ", ".join(f"{count} {state}" for state, count in Counter(run.status for run in block).items())
        reused = sum("reused_from" in run.tags for run in block)
        taken = f", {reused} of them taken over" if reused else ""
        first = min((run.started for run in block if "reused_from" not in run.tags), default=block[0].started)
        events.append((first, owner, f"first run of {experiment} (in all: {states}{taken})"))
    rows = [(_time(when), owner, what) for when, owner, what in sorted(events)]
    return pd.DataFrame(rows, columns=["time", "owner", "what"])


def _predictions(records: list[Record]) -> pd.DataFrame:
    rows = []
    for record in records:
        last = record.verdicts[-1].content if record.verdicts else {}
        rows.append(
            {
                "time": _time(record.written),
                "owner": record.owner,
                "study": record.experiment,
                "prediction": _claim(record),
                "confidence": record.content.get("confidence", ""),
                "label": last.get("label", ""),
                "verdict": last.get("outcome", "none yet"),
                "seal": record.sha256[:12],
            }
        )
    return pd.DataFrame(rows)


def _claim(record: Record) -> str:
    content = record.content
    return " ".join(content.get(name, "?") for name in ("metric", "direction", "contrast"))


def name_of(record: Record) -> str:
    """Return how a review calls a prediction."""
    return f"prediction {record.sha256[:12] or record.run_id[:8]} of {record.owner or 'nobody'} in {record.experiment}"


def _time(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M}"
