"""A class as text for the terminal, as CSV for a learning platform, and as a page with a figure per question."""

from collections import Counter
from datetime import UTC
from itertools import permutations
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cnnlab.inquiry.design import count
from cnnlab.inquiry.judge.classroom import Classroom, Question, Student
from cnnlab.inquiry.judge.reference import Reference, find_reference
from cnnlab.inquiry.judge.review import recorded_effect
from cnnlab.inquiry.judge.statistics import Effect
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.show.figures import titled
from cnnlab.inquiry.show.style import GREY, OUTCOME_COLOURS, PAPER, LabFigure, svg
from cnnlab.inquiry.shown import Head, Part, Shown

TEMPLATE = Path(__file__).with_name("classroom.html")
OUTCOMES = ["supported", "refuted", "practically equivalent", "inconclusive", "withheld", "not judged"]
LEGEND = (
    f"verdicts: {' / '.join(OUTCOMES[:-1])}; conf: how many of them are confirmatory; empty: verdicts without a "
    "reflection; last: the last record, UTC; late: records after the deadline."
)
MOST_QUESTIONS = 20  # in the terminal
DIRECTIONS = ("higher", "lower", "none")


class ClassShown(Shown):
    """A class with what its students found; `store` has the reference runs, if there are any."""

    def __init__(self, found: Classroom, store: Store | None = None) -> None:
        self.found = found
        firsts = [one.first for one in found.questions]
        self.references = [find_reference(one, store) if store else None for one in firsts]

    def parts(self) -> list[Part]:
        """Return what there is to show on a terminal."""
        shown: list[Part] = [Head(summary(self.found)), "", student_table(self.found.students), LEGEND]
        if problems := say_problems(self.found.students):
            shown += ["", "Not intact, or not readable (`cnnlab review HAND-IN` has the rest):", problems]
        if self.found.copies:
            shown += ["", "Pairs that share what only copies share:", say_copies(self.found)]
        shown += ["", f"Calibration of the class: {self.found.calibration.sentence()}"]
        for question, reference in list(zip(self.found.questions, self.references, strict=True))[:MOST_QUESTIONS]:
            shown += ["", question.title, [f"  {line}" for line in say_question(question, reference)]]
        if (more := len(self.found.questions) - MOST_QUESTIONS) > 0:
            shown += ["", f"{count(more, 'more question')}: on the page (--html)."]
        return shown

    def page(self) -> str:
        """Return the same as HTML, with a figure per question."""
        template = Environment(autoescape=True).from_string(TEMPLATE.read_text(encoding="utf-8"))
        pairs = list(zip(self.found.questions, self.references, strict=True))
        return template.render(
            summary=summary(self.found),
            table=student_table(self.found.students).to_dict("split"),
            legend=LEGEND,
            problems=say_problems(self.found.students),
            copies=say_copies(self.found),
            calibration=self.found.calibration.sentence(),
            questions=[
                (one.title, say_question(one, reference), svg(plot_question(one, reference)) if one.effect else "")
                for one, reference in pairs
            ],
        )


def summary(found: Classroom) -> str:
    """Return in a sentence who handed in, and whose records are intact."""
    there = [student for student in found.students if not student.unreadable]
    intact = sum(student.is_intact for student in there)
    said = f"{count(len(there), 'student')} handed in, and the records of {intact} are intact."
    unread = len(found.students) - len(there)
    said += f" {count(unread, 'hand-in')} can't be read." if unread else ""
    if alone := sum(not student.has_files for student in there):
        said += f" For {alone} of them, the files of runs were not compared with the records; `cnnlab review` does."
    return said + (f" Missing from the roster: {', '.join(found.absent)}." if found.absent else "")


def student_table(students: list[Student]) -> pd.DataFrame:
    """Return a row per student, short enough for a terminal."""
    return pd.DataFrame([_row(student) for student in students]).fillna("")


def _row(student: Student) -> dict[str, object]:
    """Return a row of the table; a hand-in that can't be read has little to say."""
    row: dict[str, object] = {"student": student.name, "intact": "yes" if student.is_intact else "NO"}
    if student.unreadable:
        return row
    time = f"{student.head.time.astimezone(UTC):%d %b %H:%M}" if student.head else ""
    return row | {
        "predictions": str(len(student.records)),
        "verdicts": "/".join(str(student.outcomes[outcome]) for outcome in OUTCOMES[:-1]),
        "conf": str(student.confirmatory),
        "empty": "?" if student.empty is None else str(student.empty),
        "last": time.replace(" ", "\N{NO-BREAK SPACE}"),
        "late": str(student.late),
    }


def say_problems(students: list[Student]) -> list[str]:
    """Return a line per student whose hand-in isn't intact, with the first problem."""
    lines = []
    for one in students:
        first = one.unreadable or next(iter(one.problems), "")
        more = f" (and {len(one.problems) - 1} more)" if len(one.problems) > 1 else ""
        lines += [f"  {one.name}: {first}{more}"] if first else []
    return lines


def say_copies(found: Classroom) -> list[str]:
    """Return a line per pair of students, with what they share."""
    lines = []
    for pair in found.copies:
        shared = ", ".join(f"{kind} ({n})" for kind, n in pair.shared.items()) or "the owner"
        lines.append(f"  {' and '.join(pair.students)}: {shared}")
    return lines


def say_question(question: Question, reference: Reference | None) -> list[str]:
    """Return what was predicted, what came out, and the effect that the class found."""
    predicted = Counter(one.claim.direction for one in question.predictions.values())
    lines = [
        f"{'no difference' if direction == 'none' else direction}: predicted by {predicted[direction]} ("
        + ", ".join(f"{n} {outcome}" for outcome, n in question.came_out(direction).most_common())
        + ")"
        for direction in DIRECTIONS
        if predicted[direction]
    ]
    metric, effect = question.first.metric, question.effect
    if effect is None:
        return [*lines, "The class: no effect yet; it takes two intact, confirmatory verdicts."]
    distinct, every = question.seeds
    by = "seeds" if len(question.machines) < 2 else "means of students, whose machines differ"
    said = (
        f"The class: {metric.say(effect.estimate)}, 95 % interval {metric.say_interval(effect.low, effect.high)}, "
        f"n = {effect.n} {by} ({distinct} distinct of {every}, {count(len(question.effects), 'student')})"
    )
    return [*lines, f"{said}.", *([reference.sentence(question.first)] if reference else [])]


def plot_question(question: Question, reference: Reference | None) -> Figure:
    """Plot the interval of each student on a row, and those of the class and the reference runs below them."""
    metric, sesoi = question.first.metric, question.first.metric.sesoi
    figure = LabFigure(figsize=(PAPER, 1.8 + 0.17 * len(question.effects)), layout="constrained")
    axes = figure.subplots()
    axes.axvspan(-sesoi, sesoi, color=GREY, alpha=0.2, lw=0)
    axes.axvline(0, color=GREY, lw=1)
    labels: list[str] = []
    for name in question.effects:
        record = question.predictions[name].record
        colour = OUTCOME_COLOURS.get(record.verdicts[-1].content["outcome"], "black")
        _draw(axes, labels, name, recorded_effect(record), color=colour, lw=1, ms=3)
    _draw(axes, labels, "class", question.effect, color="black", lw=3, ms=7)
    _draw(
        axes, labels, "reference runs", reference.effect if reference else None, color="black", mfc="white", lw=1, ms=5
    )
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set_xlabel(f"effect on {metric.label}{f' ({metric.unit})' if metric.unit else ''}", fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "left", "right"]].set_visible(False)
    return titled(figure, question.title)


def _draw(axes: Axes, labels: list[str], label: str, effect: Effect | None, **look: Any) -> None:
    """Draw an effect with its 95 % interval on a row of its own."""
    if effect:
        error = [[effect.estimate - effect.low], [effect.high - effect.estimate]]
        axes.errorbar(effect.estimate, len(labels), xerr=error, fmt="D", **look)
        labels.append(label)


def to_csv(found: Classroom) -> str:
    """Return a row per student with counts and flags, without grades."""
    partners: dict[str, list[str]] = {}
    for pair in found.copies:
        for one, other in permutations(pair.students):
            partners.setdefault(one, []).append(other)
    rows = [_counts(student) | {"shares_with": "; ".join(partners.get(student.name, []))} for student in found.students]
    rows += [{"student": name, "handed_in": "no"} for name in found.absent]
    table = pd.DataFrame(rows).map(_safe)
    return table.to_csv(index=False, lineterminator="\n")


def _counts(student: Student) -> dict[str, object]:
    row: dict[str, object] = {"student": student.name, "hand_in": student.hand_in, "handed_in": "yes"}
    row["intact"] = "yes" if student.is_intact else "no"
    row["problems"] = str(int(bool(student.unreadable)) + len(student.problems))
    row["predictions"] = str(len(student.records))
    row |= {outcome.replace(" ", "_"): str(student.outcomes[outcome]) for outcome in OUTCOMES}
    row["confirmatory"], row["late_records"] = str(student.confirmatory), str(student.late)
    row["empty_reflections"] = "" if student.empty is None else str(student.empty)
    if head := student.head:
        row["records"], row["head"] = str(head.number), head.sha256
        row["last_record_utc"] = head.time.astimezone(UTC).isoformat("T", "seconds")
    return row


def _safe(value: object) -> object:
    """Return a value that a spreadsheet doesn't take for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value
