"""What a class handed in: a row per student, who may have copied from whom, and what the class found together.

With seeds of their own, the students of a class are replications of one another.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from itertools import combinations

import numpy as np

from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.judge.calibration import Calibration, calibrate_records
from cnnlab.inquiry.judge.review import Contents, recorded_effect, review_contents, runs_of
from cnnlab.inquiry.judge.statistics import Effect, t_interval
from cnnlab.inquiry.params import ConfigError
from cnnlab.inquiry.prediction import Prediction
from cnnlab.inquiry.record.entries import Entry, entries, entry_id, reflected
from cnnlab.inquiry.record.environment import SHIPPED
from cnnlab.inquiry.record.files import in_folder
from cnnlab.inquiry.record.hand_ins import HandIn
from cnnlab.inquiry.record.heads import Head
from cnnlab.inquiry.record.ledger import Record
from cnnlab.inquiry.record.received import Received
from cnnlab.inquiry.record.runs import RawRun
from cnnlab.inquiry.task import task

SHORT = 40  # characters of a reflection; two students may well write the same shorter one
TYPED = 10_000  # seeds below this may have been typed by hand, such as 0 and 1, also in an arm that adds 1000 to them


@dataclass
class Student:
    """What one owner handed in.

    problems: why it isn't intact; unreadable: why nothing of it can be read. empty: verdicts without a reflection, None
    where no logbook was handed in. has_files: whether the files of the runs were handed in too. late: how many records
    are from after the deadline. marks: what only copies share, by kind.
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
    late: int = 0
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
    def confirmatory(self) -> int:
        """How many of the last verdicts are confirmatory."""
        return sum(one.verdicts[-1].content.get("label") == "confirmatory" for one in self.records if one.verdicts)


@dataclass(frozen=True)
class Copies:
    """Two students with something in common that only copies share; shared: how much of which kind."""

    students: tuple[str, str]
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
    """All students of a class, those of the roster who handed in nothing, and what they found."""

    students: list[Student]
    absent: list[str]

    @cached_property
    def copies(self) -> list[Copies]:
        """The pairs of students with something in common that only copies share."""
        return find_copies(self.students)

    @cached_property
    def questions(self) -> list[Question]:
        """What more than one student predicted, most often asked first; of two hand-ins, the longer counts."""
        longest = {one.name: one for one in sorted(self.students, key=lambda one: len(one.records))}
        return sorted(ask_together(longest.values()), key=lambda one: -len(one.predictions))

    @property
    def calibration(self) -> Calibration:
        """The calibration of the class as a whole."""
        return calibrate_records(one for student in self.students for one in student.records)


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
    roster: Sequence[str] = (),
    deadline: datetime | None = None,
    received: Received | None = None,
) -> Classroom:
    """Read what a class handed in, and review each student separately.

    `roster` has the names of all students. `deadline`: later records are late. `received`: when the server's database
    received records, where it keeps that. A hand-in that can't be read becomes a student with the reason. The files of
    runs are compared with their results where a whole folder was handed in.
    """
    students: list[Student] = []
    for hand_in in hand_ins:
        try:
            students += _students(hand_in, deadline, received or {})
        except LabError as error:
            students.append(Student(hand_in.name, hand_in.name, unreadable=str(error)))
    there = {name.casefold() for student in students for name in (student.name, student.hand_in)}
    return Classroom(students, [name for name in roster if name.casefold() not in there])


def _students(hand_in: HandIn, deadline: datetime | None, received: Received) -> Iterator[Student]:
    """Yield the owners of a hand-in, apart from those whose records ship with the lab."""
    with hand_in.opened() as (store, folder):
        contents = Contents.read(store)
        written = entries(folder / "experiment_log") if folder else None
        elsewhere = contents.check_folder(folder) if folder else []
        owners = {one.owner for one in contents.records} | {run.owner for run in contents.runs}
        if not (owners := owners - set(SHIPPED)):
            if hand_in.workspace:  # that of a student who hasn't begun, or the server's own
                return
            raise LabError("it has no predictions or runs other than those that ship with the lab.")
        for owner in sorted(owners):
            own = contents.of(owner)
            found = review_contents(own, store, in_folder(folder) if folder else None, received)
            student = Student(owner, hand_in.name, [*found.problems, *elsewhere])
            student.has_files = folder is not None
            student.records = [one for one in own.records if one.sha256 and not one.deleted]
            student.runs = {run.run_id: run for run in own.runs}
            student.head = found.heads[owner][-1] if owner in found.heads else None
            said = [head.time.timestamp() for head in found.heads.get(owner, [])]
            times = [ms / 1000 for (run_id, _), ms in received.items() if run_id in student.runs] or said
            student.late = sum(time > deadline.timestamp() for time in times) if deadline else 0
            if written is not None:
                student.empty = _empty(student.records, written)
            student.marks = _marks(student, written or {})
            yield student


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
        "seeds": {seed for run in trained if int(seed := run.params.get("seed", "0")) >= TYPED},
        "reflections": {text for text in words if len(text) >= SHORT},
    }


def find_copies(students: Sequence[Student]) -> list[Copies]:
    """Return the pairs of hand-ins that share what only copies share; the same owner twice is such a pair too.

    A single shared record time is no sign of a copy: in a class, two students may well predict in the same millisecond.
    """
    found = []
    for a, b in combinations((student for student in students if student.marks), 2):
        shared = {kind: n for kind in a.marks if (n := len(a.marks[kind] & b.marks[kind]))}
        names = [one.name if a.name != b.name else f"{one.name} ({one.hand_in})" for one in (a, b)]
        if a.name == b.name or shared not in ({}, {"record times": 1}):
            found.append(Copies((names[0], names[1]), shared))
    return found


# Questions


def ask_together(students: Iterable[Student]) -> list[Question]:
    """Return the questions about which more than one student predicted something, with the last prediction of each."""
    questions: dict[tuple[object, ...], Question] = {}
    for student in students:
        for record in student.records:
            try:
                one = Prediction.from_record(record)
            except ConfigError:
                continue  # counted among the problems
            key = (one.study, one.contrast.text, *one.question)
            question = questions.setdefault(key, Question(one))
            question.predictions[student.name] = one
    for question in questions.values():
        for student in students:
            _add_effect(question, student)
    return [one for one in questions.values() if len(one.predictions) > 1]


def _add_effect(question: Question, student: Student) -> None:
    """Add what a student found to a question, if it can be trusted and no run was known before."""
    one = question.predictions.get(student.name)
    if one is None or not student.is_intact or recorded_effect(one.record) is None:
        return
    if one.record.verdicts[-1].content.get("label") != "confirmatory":
        return
    try:
        by_seed, run_ids = effect_by_seed(one, student.runs)
    except (KeyError, ValueError):
        student.problems.append(f"The runs named in the verdict on {question.title} can't be read.")
        return
    question.effects[student.name] = by_seed
    decisive = [f"fact.{name}" for name in task().facts.decisive]
    question.machines |= {tuple(student.runs[run].tags.get(name, "") for name in decisive) for run in run_ids}


def effect_by_seed(one: Prediction, runs: Mapping[str, RawRun]) -> tuple[dict[int, float], list[str]]:
    """Return the effect of each seed in the last verdict on a prediction, in the metric's unit, and the runs' ids.

    A verdict names its runs with their values, sorted by arm and seed. A seed is that of the control's run.
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
    return dict(zip(seeds, effects.tolist(), strict=True)), [run_id for run_id, _, _ in named]
