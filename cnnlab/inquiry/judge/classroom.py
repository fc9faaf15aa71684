"""What a class handed in: a row per student, who may have copied from whom, and what the class found together.

With seeds of their own, the students of a class are replications of one another.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from itertools import combinations
from math import inf
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cnnlab.inquiry.judge.calibration import Calibration, calibrate_records
from cnnlab.inquiry.judge.review import Contents, recorded_effect, review_contents, runs_of
from cnnlab.inquiry.judge.statistics import Effect, t_interval
from cnnlab.inquiry.params import ConfigError
from cnnlab.inquiry.prediction import Prediction
from cnnlab.inquiry.record.entries import Entry, entries, entry_id, reflected
from cnnlab.inquiry.record.environment import SHIPPED
from cnnlab.inquiry.record.files import in_folder
from cnnlab.inquiry.record.hand_ins import HandIn, Unreadable
from cnnlab.inquiry.record.heads import Head
from cnnlab.inquiry.record.ledger import Record
from cnnlab.inquiry.record.received import Received
from cnnlab.inquiry.record.runs import RawRun
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.record.times import time_at
from cnnlab.inquiry.task import task

SHORT = 40  # characters of a reflection; two students may well write the same shorter one
TYPED = 4  # digits of seeds that may have been typed by hand, such as 0 and 1, also in an arm that adds 1000 to them


class Answer(NamedTuple):
    """A student's last prediction about a question.

    by_seed: the effect of each seed in its verdict, in the metric's unit; empty unless that is confirmatory. machines:
    the kinds on which its runs were trained, as far as it decides about the numbers.
    """

    prediction: Prediction
    by_seed: dict[int, float]
    machines: set[tuple[str, ...]]


@dataclass
class Student:
    """What one owner handed in.

    problems: why it isn't intact; unreadable: why nothing of it can be read. empty: verdicts without a reflection, None
    where no logbook was handed in. has_files: whether the files of the runs were handed in too. received: when the
    server received the last record, if it keeps that. late: how many records are from after the deadline. answers: by
    question. marks: what only copies share, by kind.
    """

    name: str
    hand_in: str
    problems: list[str] = field(default_factory=list)
    unreadable: str = ""
    records: list[Record] = field(default_factory=list)
    runs: dict[str, RawRun] = field(default_factory=dict)
    head: Head | None = None
    empty: int | None = None
    has_files: bool = False
    received: datetime | None = None
    late: int = 0
    answers: dict[tuple[object, ...], Answer] = field(default_factory=dict)
    marks: dict[str, set[str]] = field(default_factory=dict)

    @property
    def is_intact(self) -> bool:
        """Whether all of its records are as they were sealed, and nothing contradicts them."""
        return not (self.unreadable or self.problems)

    @property
    def outcomes(self) -> Counter[str]:
        """How often each outcome occurred, by the last verdicts; "not judged" is one of them."""
        return count_outcomes(self.records)

    @property
    def confirmatory(self) -> tuple[int, int]:
        """How many of the last verdicts are confirmatory, and how many aren't withheld."""
        lasts = [one.verdicts[-1].content for one in self.records if one.verdicts]
        given = [last.get("label") for last in lasts if last.get("outcome") != "withheld"]
        return given.count("confirmatory"), len(given)


@dataclass(frozen=True)
class Copies:
    """Two students with something in common that only copies share; shared: how much of which kind."""

    students: tuple[Student, Student]
    shared: dict[str, int]


@dataclass
class Question:
    """What a class predicted about one question, and what came out.

    predictions: the last one of each student, by name. effects: of the students whose verdict is confirmatory and whose
    records are intact, each by seed, in the metric's unit. machines: the kinds of machine that trained their runs, as
    far as the kind affects the numbers.
    """

    first: Prediction
    predictions: dict[str, Prediction] = field(default_factory=dict)
    effects: dict[str, dict[int, float]] = field(default_factory=dict)
    machines: set[tuple[str, ...]] = field(default_factory=set)

    @property
    def title(self) -> str:
        """The study with what is compared, and the metric."""
        return f"{self.first.study}: {self.first.contrast.text}, {self.first.metric.name}"

    @property
    def seeds(self) -> tuple[int, int]:
        """How many distinct seeds the effects are from, and how many there are in all."""
        every = [seed for effects in self.effects.values() for seed in effects]
        return len(set(every)), len(every)

    @property
    def effect(self) -> Effect | None:
        """The effect that the class found; None with fewer than two seeds or students."""
        return class_effect(self.effects, same_machines=len(self.machines) < 2)

    def came_out(self, direction: str) -> Counter[str]:
        """Return the outcomes of the predictions of one direction."""
        return count_outcomes(one.record for one in self.predictions.values() if one.claim.direction == direction)


@dataclass(frozen=True)
class Classroom:
    """All students of a class, and what they found.

    roster: what is known about each student by name; empty without a roster. deadline: None without one.
    """

    students: list[Student]
    roster: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    deadline: datetime | None = None

    @cached_property
    def counted(self) -> list[Student]:
        """Each owner once, apart from what can't be read; of two hand-ins, the longer counts."""
        read = [one for one in self.students if not one.unreadable]
        longest = {one.name: one for one in sorted(read, key=lambda one: len(one.records))}
        return [one for one in read if longest[one.name] is one]

    @cached_property
    def absent(self) -> list[str]:
        """The names in the roster that are neither an owner nor the name of a hand-in."""
        there = {name for student in self.students for name in _names(student)}
        return [name for name in self.roster if name.casefold() not in there]

    @cached_property
    def unlisted(self) -> list[Student]:
        """The students who aren't in the roster, by neither their name nor that of their hand-in."""
        return [one for one in self.students if self.roster and not self.is_listed(one)]

    def is_listed(self, student: Student) -> bool:
        """Return whether a student is in the roster, by their name or that of their hand-in."""
        return not self._listed.isdisjoint(_names(student))

    @cached_property
    def _listed(self) -> set[str]:
        return {name.casefold() for name in self.roster}

    @cached_property
    def _often(self) -> Counter[str]:
        return Counter(one.name for one in self.students)

    def label(self, student: Student) -> str:
        """Return the name of a student, with that of the hand-in if there are several by this owner."""
        return student.name if self._often[student.name] == 1 else f"{student.name} ({student.hand_in})"

    @cached_property
    def copies(self) -> list[Copies]:
        """The pairs of students with something in common that only copies share."""
        return find_copies(self.students)

    @cached_property
    def questions(self) -> list[Question]:
        """What more than one student predicted, most often asked first."""
        return sorted(ask_together(self.counted), key=lambda one: -len(one.predictions))

    @property
    def calibration(self) -> Calibration:
        """The calibration of the class as a whole."""
        return calibrate_records(one for student in self.counted for one in student.records)


def _names(student: Student) -> set[str]:
    """Return the names under which a roster may have a student, in small letters."""
    return {name.casefold() for name in (student.name, student.hand_in, Path(student.hand_in).stem)}


def count_outcomes(records: Iterable[Record]) -> Counter[str]:
    """Return how often each outcome occurred, by the last verdicts; without a verdict it is "not judged"."""
    return Counter(one.verdicts[-1].content.get("outcome", "?") if one.verdicts else "not judged" for one in records)


def class_effect(effects: Mapping[str, Mapping[int, float]], same_machines: bool) -> Effect | None:
    """Return the mean effect of a class with its interval by Student's t, from each student's effects by seed.

    A seed that several students share counts once. On the same kind of machine the n numbers are the effects of all
    distinct seeds; otherwise they are the means of the students, whose machines may add a spread of their own.
    benchmarks/results/classroom.md has the coverage. None with fewer than two numbers.
    """
    known: set[int] = set()
    own: list[list[float]] = []
    for by_seed in effects.values():
        own.append([effect for seed, effect in by_seed.items() if seed not in known])
        known |= set(by_seed)
    numbers = [one for some in own for one in some] if same_machines else [float(np.mean(some)) for some in own if some]
    return t_interval(np.array(numbers)) if len(numbers) > 1 else None


def look_at_class(
    hand_ins: Iterable[HandIn],
    roster: Mapping[str, Mapping[str, str]] | None = None,
    deadline: datetime | None = None,
    received: Received | None = None,
) -> Classroom:
    """Read what a class handed in, and review each student separately.

    `roster` has what is known about all students, by name. `deadline`: later records are late. `received`: when the
    server's database received records, where it keeps that. A hand-in that can't be read becomes a student with the
    reason. The files of runs are compared with their results where a whole folder was handed in.
    """
    students = [student for hand_in in hand_ins for student in _students(hand_in, deadline, received or {})]
    return Classroom(students, roster or {}, deadline)


def _students(hand_in: HandIn, deadline: datetime | None, received: Received) -> list[Student]:
    """Return the owners of a hand-in, apart from those whose records ship with the lab.

    In a workspace it is the student of that name, and records of anybody else are a problem.
    """
    students: list[Student] = []
    try:
        with hand_in.opened() as (store, folder):
            contents = Contents.read(store)
            elsewhere = contents.check_folder(folder) if folder else []
            owners = {one.owner for one in contents.records} | {run.tags.get("owner", "") for run in contents.runs}
            owners -= {*SHIPPED, ""}  # a run without an owner is no student
            if hand_in.workspace and (others := sorted(owners - {hand_in.workspace})):
                elsewhere.append(f"its records name another owner: {', '.join(others)}.")
            if not owners and not hand_in.workspace:  # that is of a student who hasn't begun, or the server's own
                raise Unreadable("it has no predictions and no runs but those that ship with the lab.")
            for owner in [hand_in.workspace] if owners and hand_in.workspace else sorted(owners):
                try:
                    students.append(_review(owner, hand_in, contents, store, folder, deadline, received))
                except Exception as error:  # whatever somebody wrote into their records, the others can be read
                    students.append(Student(owner, hand_in.name, unreadable=hand_in.in_words(error)))
                    continue
                students[-1].problems += elsewhere
    except Unreadable as error:
        students.append(Student(hand_in.name, hand_in.name, unreadable=str(error)))
    return students


def _review(
    owner: str,
    hand_in: HandIn,
    contents: Contents,
    store: Store,
    folder: Path | None,
    deadline: datetime | None,
    received: Received,
) -> Student:
    """Return what one owner handed in, with all that a class is told of it."""
    own = contents.of(owner)
    found = review_contents(own, store, in_folder(folder) if folder else None, received)
    student = Student(owner, hand_in.name, found.problems, has_files=folder is not None)
    student.records = [one for one in own.records if one.sha256 and not one.deleted]
    student.runs = {run.run_id: run for run in own.runs}
    heads = found.heads.get(owner, [])
    student.head = heads[-1] if heads else None
    times = [time_at(ms) for (run_id, _), ms in received.items() if run_id in student.runs]
    student.received = max(times, default=None)
    student.late = sum(time > deadline for time in times or [head.time for head in heads]) if deadline else 0
    written = entries(folder / "experiment_log") if folder else {}
    student.empty = _empty(student.records, written) if folder else None
    student.marks = _marks(student, written)
    student.answers = answers(student)
    return student


def _empty(records: Iterable[Record], written: Mapping[str, Entry]) -> int:
    """Return how many last verdicts have no reflection in the logbooks."""
    covered = reflected(written.values())
    return sum(entry_id(one.sha256, one.verdicts[-1].number) not in covered for one in records if one.verdicts)


# Copies


def _marks(student: Student, written: Mapping[str, Entry]) -> dict[str, set[str]]:
    """Return what two students who worked on their own don't have in common, by kind."""
    trained = [run for run in student.runs.values() if run.kind in ("run", "trial") and "reused_from" not in run.tags]
    seals = {one.sha256[:12] for one in student.records}
    theirs = [entry for entry in written.values() if entry.id.partition("-")[0] in seals]
    words = [" ".join(text.split()).casefold() for entry in theirs for text in (entry.why, entry.next)]
    return {
        "run ids": set(student.runs),
        "record times": {one.content["time"] for one in student.records if "time" in one.content},
        "training times": {repr(time) for run in trained if (time := run.metrics.get("final/time/total_s"))},
        "seeds": {seed for run in trained if (seed := run.params.get("seed", "")).isdecimal() and len(seed) > TYPED},
        "reflections": {text for text in words if len(text) >= SHORT},
    }


def find_copies(students: Sequence[Student]) -> list[Copies]:
    """Return the pairs of hand-ins that share what only copies share; the same owner twice is such a pair too.

    A single shared record time is no sign of a copy: in a class, two students may well predict in the same millisecond.
    """
    found = []
    for a, b in combinations((student for student in students if student.marks), 2):
        shared = {kind: n for kind in a.marks if (n := len(a.marks[kind] & b.marks[kind]))}
        if a.name == b.name or shared not in ({}, {"record times": 1}):
            found.append(Copies((a, b), shared))
    return found


def group_copies(copies: Iterable[Copies]) -> list[list[Copies]]:
    """Return the pairs in groups: two are in one if a chain of pairs connects them."""
    first: dict[int, int] = {}  # by the id of a student, another of the same group, or itself

    def leader(one: int) -> int:
        while (other := first.setdefault(one, one)) != one:
            one = other
        return one

    pairs = list(copies)
    for pair in pairs:
        a, b = map(id, pair.students)
        first[leader(b)] = leader(a)
    groups: dict[int, list[Copies]] = {}
    for pair in pairs:
        groups.setdefault(leader(id(pair.students[0])), []).append(pair)
    return list(groups.values())


# Questions


def answers(student: Student) -> dict[tuple[object, ...], Answer]:
    """Return a student's last prediction about each question; what is wrong with its runs is a problem."""
    last: dict[tuple[object, ...], Prediction] = {}
    for record in student.records:
        try:
            one = Prediction.from_record(record)
        except ConfigError:
            continue  # counted among the problems
        last[one.study, one.contrast.text, *one.question] = one
    return {question: _answer(one, student) for question, one in last.items()}


def _answer(one: Prediction, student: Student) -> Answer:
    """Return a prediction with what a student found, if no run was known before."""
    verdicts, effect = one.record.verdicts, recorded_effect(one.record)
    if effect is None or verdicts[-1].content.get("label") != "confirmatory":
        return Answer(one, {}, set())
    try:
        if not -inf < effect.low <= effect.estimate <= effect.high < inf:
            raise ValueError("an interval without its estimate")
        by_seed, run_ids = effect_by_seed(one, student.runs)
    except (KeyError, ValueError):
        student.problems.append(f"The effect in its verdict on {one.study}, {one.contrast.text} can't be read.")
        return Answer(one, {}, set())
    decisive = [f"fact.{name}" for name in task().facts.decisive]
    return Answer(one, by_seed, {tuple(student.runs[run].tags.get(name, "") for name in decisive) for run in run_ids})


def ask_together(students: Iterable[Student]) -> list[Question]:
    """Return the questions that more than one student predicted something about, with the last prediction of each.

    The effect of a student counts if all of their records are intact.
    """
    questions: dict[tuple[object, ...], Question] = {}
    for student in students:
        for key, (one, by_seed, machines) in student.answers.items():
            question = questions.setdefault(key, Question(one))
            question.predictions[student.name] = one
            if by_seed and student.is_intact:
                question.effects[student.name] = by_seed
                question.machines |= machines
    return [one for one in questions.values() if len(one.predictions) > 1]


def effect_by_seed(one: Prediction, runs: Mapping[str, RawRun]) -> tuple[dict[int, float], list[str]]:
    """Return the effect of each seed in the last verdict on a prediction, in the metric's unit, and the runs' ids.

    A verdict names its runs with their values, sorted by arm and seed. A seed is that of the control's run.

    Raises:
        KeyError, ValueError: the verdict names runs that aren't there, or without a value.
    """
    contrast = one.contrast
    named = list(runs_of(one.record.verdicts[-1].content))
    arms = sorted(contrast.arms)
    n = len(named) // len(arms)
    values = one.metric.scale * np.array([float(value) for _, _, value in named]).reshape(len(arms), n)
    effects = np.array([contrast.weights.get(arm, 0.0) for arm in arms]) @ values
    first = arms.index(contrast.control) * n
    offset = contrast.arms[contrast.control].seed
    seeds = [int(runs[run_id].params["seed"]) - offset for run_id, _, _ in named[first : first + n]]
    if not (n and np.isfinite(effects).all()):
        raise ValueError("a run without a value")
    return dict(zip(seeds, effects.tolist(), strict=True)), [run_id for run_id, _, _ in named]
