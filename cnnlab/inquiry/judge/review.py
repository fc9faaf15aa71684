"""An instructor's first look at one store: what was predicted and run, when, and whether the records agree.

It only reads. It also works on stores that this lab did not make, and says what can't be known there.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import nan
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from cnnlab.inquiry.claim import UNUSUAL_SESOI
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.identity import differences, in_words
from cnnlab.inquiry.judge.before import asked_at_once, by_chance, seen_before, what_was_known
from cnnlab.inquiry.judge.evidence import check_drawn, check_evidence
from cnnlab.inquiry.judge.foreign import describe_foreign
from cnnlab.inquiry.judge.outcome import outcome_in_words
from cnnlab.inquiry.judge.statistics import Effect
from cnnlab.inquiry.params import ConfigError
from cnnlab.inquiry.prediction import Prediction, say_claim
from cnnlab.inquiry.record.elsewhere import CLOCK_S
from cnnlab.inquiry.record.entries import entries
from cnnlab.inquiry.record.files import Files, downloaded, in_folder
from cnnlab.inquiry.record.heads import Head, heads
from cnnlab.inquiry.record.ledger import START, VERDICT, Record, load_records
from cnnlab.inquiry.record.received import Received
from cnnlab.inquiry.record.runs import RUN_KINDS, RawRun, images_of, load_raw, load_runs
from cnnlab.inquiry.record.seal import seal_record
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.record.times import time_at, time_in
from cnnlab.inquiry.task import metrics, task

SHORTEST_HEAD = 12  # characters that identify a head
KINDS = ("run", "prediction", "trial", "search", "test-reading", "vault")  # of runs that this lab makes


@dataclass
class Review:
    """What was found. problems: what does not fit, each naming a record or a run; empty if the records are intact.
    unverified: runs whose results can't be checked, since files are missing. timeline: one row per event, `time, owner,
    what`. predictions: one row each, with label and verdict. heads: of every owner, see `cnnlab.inquiry.record.heads`.
    """

    problems: list[str] = field(default_factory=list)
    unverified: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    timeline: pd.DataFrame = field(default_factory=pd.DataFrame)
    predictions: pd.DataFrame = field(default_factory=pd.DataFrame)
    heads: dict[str, list[Head]] = field(default_factory=dict)
    foreign: list[str] = field(default_factory=list)
    runs: int = 0

    @property
    def is_intact(self) -> bool:
        """Whether all records and runs are as they were sealed, nothing contradicts them, and the chain has no gap."""
        return not self.problems

    def find_head(self, said: str) -> str:
        """Return in a sentence whose head it is or was, "" if nobody's; its first characters are enough.

        Raises:
            LabError: it is not a head, or too few characters of one.
        """
        sha256 = said.strip().partition(" ")[0]  # without the number of records, which is printed beside it
        if not re.fullmatch(f"[0-9a-f]{{{SHORTEST_HEAD},64}}", sha256):
            raise LabError(
                f"{said!r} is not a head: a head has 64 characters, 0 to 9 and a to f; give all of them, or at least "
                f"the first {SHORTEST_HEAD}."
            )
        for owner, theirs in self.heads.items():
            for head in theirs:
                if head.sha256.startswith(sha256):
                    later = theirs[-1].number - head.number
                    return (
                        f"The head is that of {owner} at {head.time:%Y-%m-%d %H:%M} UTC, after {head.number} records. "
                        f"All of them are in the store unchanged. Added since: {later}."
                    )
        return ""


@dataclass(frozen=True)
class Contents:
    """All that a store holds, read once. table: those of the runs that this version of the lab can read."""

    records: list[Record]
    runs: list[RawRun]
    table: pd.DataFrame

    @classmethod
    def read(cls, store: Store) -> "Contents":
        """Read a store.

        Raises:
            LabError: the store doesn't answer.
        """
        return cls(load_records(store), load_raw(store), load_runs(store, deleted=True, kind=None))

    def of(self, owner: str) -> "Contents":
        """Return what belongs to one owner."""
        records = [record for record in self.records if record.owner == owner]
        ids = {record.run_id for record in records}
        runs = [run for run in self.runs if run.owner == owner or run.run_id in ids]
        return Contents(records, runs, self.table[self.table["owner"] == owner])

    def check_folder(self, folder: Path) -> list[str]:
        """Return which files and logbook entries of a project belong to no run or prediction in its store."""
        problems, runs = [], {run.run_id for run in self.runs}
        for artifacts in sorted((folder / "models").glob("*/*/artifacts")):
            if artifacts.parent.name not in runs:
                problems.append(
                    f"models/{artifacts.parent.parent.name}/{artifacts.parent.name}: the run with these files isn't "
                    "in the store: it was removed, or an older copy of the store was put back."
                )
        seals = {record.sha256[:12] for record in self.records}
        for entry in entries(folder / "experiment_log").values():
            if entry.id.split("-")[0] not in seals:
                problems.append(
                    f"experiment_log/{entry.file.name}: the prediction of the entry {entry.id} isn't in the store: it "
                    "was removed, or an older copy of the store was put back."
                )
        return problems


def review(store: Store, folder: Path | None = None, received: Received | None = None) -> Review:
    """Review a store, without changing it.

    `folder` is the project that the store belongs to, with models/ and experiment_log/; a server's store has none.
    `received`: when the server's database received records, where it keeps that.

    Raises:
        LabError: the store doesn't answer.
    """
    contents = Contents.read(store)
    with _files(store, folder) as files:
        found = review_contents(contents, store, files, received or {})
    if folder:
        found.problems += contents.check_folder(folder)
    return found


@contextmanager
def _files(store: Store, folder: Path | None) -> Iterator[Files]:
    """Yield a function that finds the files of runs in a project folder, or else downloads them."""
    with TemporaryDirectory(prefix="cnnlab-", ignore_cleanup_errors=True) as downloads:
        yield in_folder(folder) if folder else downloaded(store, Path(downloads))


def review_contents(contents: Contents, store: Store, files: Files | None, received: Received) -> Review:
    """Review what was read from a store, or the part of it that is an owner's; see `review`.

    `files` finds the files of runs; without it, they aren't compared with the results.
    """
    records, runs = contents.records, contents.runs
    own = [run for run in runs if run.kind == "run" or run.sealed_right is not None]
    by_id = {run.run_id: run for run in runs}
    found = Review(runs=len(own))
    for owner in sorted({record.owner for record in records} | {run.owner for run in own}):
        chain = [record for record in records if record.owner == owner]
        _check_chain(found, chain, by_id)
        if theirs := heads(owner, records, runs):
            found.heads[owner] = theirs
    for record in records:
        _check_verdicts(found, record, by_id)
        _check_received(found, record, received)
    _check_runs(found, own, records)
    _check_runs_received(found, own, records, received)
    _check_what_they_left(found, own, store, files)
    if unread := sum(run.kind in RUN_KINDS for run in runs) - len(contents.table):
        found.notes.append(f"Runs that this version of the lab can't read: {unread}.")
    _note_what_was_tried(found, records, contents.table)
    found.timeline = _timeline(records, runs)
    found.predictions = _predictions(records)
    found.foreign = describe_foreign([run for run in runs if run.kind not in KINDS and run not in own])
    return found


# Do the records agree?


def _check_chain(found: Review, chain: list[Record], runs: dict[str, RawRun]) -> None:
    """Check every seal of an owner, and that each record follows an existing one, which no other record follows."""
    by_seal = {record.sha256: record for record in chain if record.sha256}
    following: dict[str, list[Record]] = {}
    for record in chain:
        following.setdefault(record.content.get("previous", ""), []).append(record)
    for record in chain:
        name = name_of(record)
        if not record.sha256:
            found.problems.append(f"{name}: it was only partly written; it doesn't count as a prediction.")
            continue
        if not record.is_whole:
            found.problems.append(f"{name}: it was changed after it was sealed.")
        follows = record.content.get("previous", "")
        if follows != START and follows not in by_seal:
            found.problems.append(f"{name}: the record before it ({follows[:12] or '?'}) is missing.")
        if len(following[follows]) > 1:
            others = ", ".join(other.sha256[:12] for other in following[follows] if other is not record)
            found.problems.append(f"{name}: it follows the same record as {others}, and only one can.")
        _check_times(found, record, by_seal.get(follows))
        if (run := runs.get(record.run_id)) and run.owner != record.owner:
            found.problems.append(f"{name}: in the MLflow UI its owner is {run.owner or 'nobody'}.")
        if record.deleted:
            found.notes.append(f"{name}: deleted in the MLflow UI; it stays in the chain.")


def _check_times(found: Review, record: Record, previous: Record | None) -> None:
    time, before = _time_of(record.content), _time_of(previous.content) if previous else None
    if time is None or abs(record.written - time) > 1000 * CLOCK_S:
        found.problems.append(f"{name_of(record)}: the time it gives is not the time at which MLflow received it.")
    elif before is not None and time < before - 1000 * CLOCK_S:
        found.problems.append(f"{name_of(record)}: the time it gives is earlier than that of the record it follows.")


def _check_received(found: Review, record: Record, received: Received) -> None:
    """Check that the server received a prediction and its verdicts when they say that they were recorded."""
    name = name_of(record)
    said = [("run", name, record.content)]
    said += [(f"{VERDICT}{one.number}_sha256", f"{name}, verdict {one.number}", one.content) for one in record.verdicts]
    for what, which, content in said:
        at, then = _time_of(content), received.get((record.run_id, what))
        if at is not None and then is not None and abs(then - at) > 1000 * CLOCK_S:
            found.problems.append(f"{which}: it says {_time(at)}, but the server received it at {_time(then)}.")


def _check_runs_received(found: Review, runs: list[RawRun], records: list[Record], received: Received) -> None:
    """Check that the server received each run after its prediction, and not before it began.

    A run may arrive long after it began, since the spool keeps it while the server doesn't answer.
    """
    predicted = {one.sha256: received.get((one.run_id, "run")) for one in records if one.sha256}
    for run in runs:
        if (then := received.get((run.run_id, "run"))) is None:
            continue
        if run.started > then + 1000 * CLOCK_S:
            found.problems.append(
                f"{run.label}: it says that it began {_time(run.started)}, and the server received it {_time(then)}."
            )
        before = [predicted.get(seal) for seal in run.tags.get("prediction", "").split(",")]
        if late := [time for time in before if time is not None and time > then]:
            found.problems.append(
                f"{run.label}: the server received it {_time(then)}, and its prediction only {_time(max(late))}."
            )


def _check_verdicts(found: Review, record: Record, runs: dict[str, RawRun]) -> None:
    """Check the seals of a prediction's verdicts, and that the runs they rest on are unchanged."""
    previous = record.sha256
    for one in record.verdicts:
        name = f"{name_of(record)}, verdict {one.number}"
        if seal_record(one.content) != one.sha256:
            found.problems.append(f"{name}: it was changed after it was sealed.")
        elif one.content.get("previous") != previous:
            found.problems.append(f"{name}: it doesn't follow what was recorded before it.")
        previous = one.sha256
        metric = record.content.get("metric", "")
        for run_id, seal, value in runs_of(one.content):
            run = runs.get(run_id)
            if run is None:
                found.problems.append(f"{name}: the run {run_id} that it rests on is gone.")
            elif run.tags.get("lab.seal", "-") != seal or _number(run.metrics.get(f"final/{metric}")) != value:
                found.problems.append(f"{name}: the run {run.name} ({run_id[:8]}) was changed after the verdict.")


def runs_of(content: dict[str, str]) -> Iterable[tuple[str, str, str]]:
    """Yield id, seal and value of the runs that a verdict names, in the order of its record: by arm, then by seed."""
    parts = {int(number): text for name, text in content.items() if (number := name.removeprefix("runs_")).isdecimal()}
    for _, text in sorted(parts.items()):
        for line in text.split("; "):
            run_id, _, rest = line.partition(" ")
            seal, _, value = rest.partition(" ")
            yield run_id, seal, value


def _number(value: float | None) -> str:
    return repr(value) if value is not None else "nan"


def _check_runs(found: Review, runs: list[RawRun], records: list[Record]) -> None:
    """Check that every run is as it was sealed, and that the predictions it names exist."""
    known = {record.sha256 for record in records}
    without_prediction, changed_code, other_images = Counter[str](), 0, Counter[str]()
    for run in runs:
        if run.sealed_right is False:
            found.problems.append(f"{run.label}: its params, facts, tags or final metrics were changed after it ended.")
        elif run.sealed_right is None and run.status == "FINISHED":
            found.problems.append(f"{run.label}: it has no seal, though every finished run gets one.")
        named = [seal for seal in run.tags.get("prediction", "").split(",") if seal]
        without_prediction[run.owner] += not named
        changed_code += run.tags.get("fact.git_commit", "").endswith("+changes")
        other_images[run.owner] += run.status == "FINISHED" and images_of(run.tags) != task().own_data
        missing = [seal[:12] for seal in named if seal not in known]
        found.problems += [f"{run.label}: the prediction that it belongs to ({seal}) is missing." for seal in missing]
        if run.deleted:
            found.notes.append(f"{run.label}: deleted in the MLflow UI.")
    found.notes += [
        f"Runs without a prediction, by {by or 'nobody'}: {n}." for by, n in without_prediction.items() if n
    ]
    found.notes += [f"Runs by {by or 'nobody'} on {task().other_data}: {n}." for by, n in other_images.items() if n]
    if changed_code:
        found.notes.append(f"Runs with changed code; what was changed isn't known (fact.git_commit): {changed_code}.")


def _check_what_they_left(found: Review, runs: list[RawRun], store: Store, files: Files | None) -> None:
    """Check that the files of finished runs agree with their results."""
    trained = [run for run in runs if run.status == "FINISHED" and "reused_from" not in run.tags]
    if files:
        wrong, found.unverified = check_evidence([run for run in trained if not run.deleted], store, files)
        found.problems += wrong
    found.problems += check_drawn(trained)
    originals = {run.run_id: run for run in trained}
    for run in runs:
        origin = originals.get(run.tags.get("reused_from", ""))
        if origin and _finals(origin) != _finals(run):
            found.problems.append(
                f"{run.label}: its results differ from those of the {origin.label}, from which they were taken."
            )


def _finals(run: RawRun) -> dict[str, str]:
    return {name: _number(value) for name, value in run.metrics.items() if name.startswith("final/")}


# What was tried before, or is missing


def _note_what_was_tried(found: Review, records: list[Record], runs: pd.DataFrame) -> None:
    predictions: dict[str, list[Prediction]] = {}
    unread = 0
    for record in records:
        try:
            prediction = Prediction.from_record(record)
        except ConfigError:
            unread += bool(record.sha256)
            continue
        if record.is_whole and _time_of(record.content) is not None:
            predictions.setdefault(record.owner, []).append(prediction)
    if unread:
        found.notes.append(f"Predictions that this version of the lab can't read: {unread}.")
    for theirs in predictions.values():
        families: list[list[Prediction]] = []
        for i, prediction in enumerate(theirs):
            if prediction.record.sha256 not in task().shipped:
                name = name_of(prediction.record)
                found.notes += [f"{name}: {said}" for said in what_was_known(prediction, runs)]
                together = asked_at_once(prediction, theirs)
                if together not in families:  # stated once, with the first of them
                    families.append(together)
                    found.notes += [f"{name}: {said}" for said in by_chance(together)]
                _note_unusual(found, prediction)
                _note_second_try(found, prediction, theirs[:i], runs)
                _note_missing_runs(found, prediction, runs)


def _note_unusual(found: Review, prediction: Prediction) -> None:
    """Note an unusually large smallest effect of interest."""
    name = name_of(prediction.record)
    if prediction.sesoi > UNUSUAL_SESOI * prediction.metric.sesoi:
        usual, own = (prediction.metric.say(m, sign=False) for m in (prediction.metric.sesoi, prediction.sesoi))
        why = prediction.claim.sesoi_because or "no reason given"
        found.notes.append(f"{name}: its smallest effect of interest is {own}, and {usual} is usual ({why}).")


def _note_second_try(found: Review, prediction: Prediction, earlier: list[Prediction], runs: pd.DataFrame) -> None:
    """Note where the same question was asked before, with any settings, and its results were known."""
    for before in reversed(earlier):
        same = _question(before) == _question(prediction)
        known = seen_before(replace(before, record=prediction.record), runs) if same else []
        if known:
            contrasts = before.contrast, prediction.contrast
            said = in_words(*(contrast.arms[contrast.control] for contrast in contrasts)) or "the same settings"
            found.notes.append(
                f"{name_of(prediction.record)}: it asks again what {before.record.sha256[:12]} asked "
                f"({outcome_of(before.record)}), whose results were known (runs: {len(known)}); now with {said}."
            )
            return


def _question(prediction: Prediction) -> tuple[str, str, frozenset[tuple[str, float]]]:
    """Return the question apart from settings that all arms share: what each arm changes, with its weight."""
    contrast = prediction.contrast
    control = contrast.arms[contrast.control]
    changes = {
        (str(sorted((name, str(pair[1])) for name, pair in differences(control, contrast.arms[arm]).items())), weight)
        for arm, weight in contrast.weights.items()
    }
    return contrast.kind, prediction.metric.name, frozenset(changes)


def _note_missing_runs(found: Review, prediction: Prediction, runs: pd.DataFrame) -> None:
    """Note which runs of a prediction are missing while others exist: never run, deleted, or lost."""
    deleted = runs["deleted"].astype(bool)
    theirs = runs[(runs["owner"] == prediction.record.owner) & (runs["status"] == "FINISHED") & ~deleted]
    done = set(theirs["identity"])
    wanted = prediction.contrast.runs(prediction.contrast.arms)
    missing = [f"{arm}, seed {seed}" for identity, (arm, seed) in wanted.items() if identity not in done]
    if 0 < len(missing) < len(wanted):
        said = "; ".join(missing[:3]) + (" and more" if len(missing) > 3 else "")
        count = f"{len(missing)} of its {len(wanted)} runs"
        found.notes.append(f"{name_of(prediction.record)}: {count} are missing ({said}): not finished, or deleted.")


# What is there


def _timeline(records: list[Record], runs: list[RawRun]) -> pd.DataFrame:
    """Return what happened when: predictions, blocks of runs, verdicts, readings of the test set."""
    events: list[tuple[float, str, str]] = []
    for number, record in enumerate(records, start=1):
        events.append((record.written, record.owner, f"predicted ({number}), in {record.experiment}"))
        for one in record.verdicts:
            if (when := _time_of(one.content)) is not None:
                said = f"{one.content.get('outcome', '?')} ({one.content.get('label', '?')})"
                events.append((when, record.owner, f"verdict {one.number} on ({number}): {said}"))
    blocks: dict[tuple[str, str], list[RawRun]] = {}
    for run in runs:
        if run.kind in ("run", "trial"):
            blocks.setdefault((run.owner, run.experiment), []).append(run)
        elif run.kind in ("test-reading", "vault"):
            what = "read the test set" if run.kind == "test-reading" else "recorded the test results"
            events.append((run.started, run.owner, f"{what}: {run.params.get('reason', '')}"))
    for (owner, experiment), block in blocks.items():
        states = ", ".join(f"{count} {state}" for state, count in Counter(run.status for run in block).items())
        reused = sum("reused_from" in run.tags for run in block)
        taken = f", {reused} of them taken over" if reused else ""
        first = min((run.started for run in block if "reused_from" not in run.tags), default=block[0].started)
        events.append((first, owner, f"first run of {experiment} (in all: {states}{taken})"))
    rows = [(_time(when), owner, what) for when, owner, what in sorted(events)]
    return pd.DataFrame(rows, columns=["time", "owner", "what"])


def _predictions(records: list[Record]) -> pd.DataFrame:
    rows = [
        {
            "time": _time(record.written),
            "owner": record.owner,
            "study": record.experiment,
            "prediction": claim_of(record),
            "confidence": record.content.get("confidence", ""),
            "label": record.verdicts[-1].content.get("label", "") if record.verdicts else "",
            "verdict": outcome_of(record),
            "effect": effect_of(record),
            "seal": record.sha256[:12],
        }
        for record in records
    ]
    return pd.DataFrame(rows)


def claim_of(record: Record) -> str:
    """Return what was predicted, such as "dropout=0.5 against dropout=0.0: loss/valid higher by 0.01 to 0.08 nats"."""
    get = record.content.get
    if not record.sha256:
        return "(cut short)"
    return f"{get('contrast')}: {say_claim(record.content)}"


def outcome_of(record: Record) -> str:
    """Return the outcome of the last verdict in words, direction and size separately, as recorded."""
    if not record.verdicts:
        return "no verdict yet"
    outcome = record.verdicts[-1].content.get("outcome", "?")
    try:
        return outcome_in_words(Prediction.from_record(record), outcome, recorded_effect(record))
    except LabError:  # it was changed, or written by another version
        return outcome


def labelled(words: str, record: Record) -> str:
    """Return words for the last verdict with its label, unless that is "confirmatory"."""
    label = record.verdicts[-1].content.get("label", "")
    return words if label in ("", "confirmatory") else f"{words}, {label}"


def effect_of(record: Record, is_short: bool = False) -> str:
    """Return the effect of the last verdict, with its interval, as recorded; "" where it has none.

    A short one is for a column whose title says what the interval is.
    """
    effect, metric = recorded_effect(record), metrics().get(record.content.get("metric", ""))
    if effect is None or metric is None:
        return ""
    estimate, interval = metric.say(effect.estimate), metric.say_interval(effect.low, effect.high)
    if is_short:
        return f"{estimate} {interval}, n = {effect.n}"
    return f"{estimate}, 95 % interval {interval}, n = {effect.n} seeds"


def recorded_effect(record: Record) -> Effect | None:
    """Return the effect of the last verdict, as recorded, without its spread; None where it has none."""
    content = record.verdicts[-1].content if record.verdicts else {}
    try:
        estimate, low, high = (float(content[name]) for name in ("estimate", "low", "high"))
        return Effect(estimate, low, high, nan, int(content["n"]), ())
    except (KeyError, ValueError):
        return None


def name_of(record: Record) -> str:
    """Return the name of a prediction in a review."""
    return f"prediction {record.sha256[:12] or record.run_id[:8]} of {record.owner or 'nobody'} in {record.experiment}"


def _time_of(content: dict[str, str]) -> float | None:
    """Return the time that a record gives, in ms since 1970; None if it gives none."""
    time = time_in(content.get("time", ""))
    return 1000 * time.timestamp() if time else None


def _time(ms: float) -> str:
    return f"{time_at(ms):%Y-%m-%d %H:%M}"
