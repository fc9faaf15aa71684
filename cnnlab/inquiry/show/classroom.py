"""A class as text for the terminal, as CSV for a learning platform, and as a page with a figure per question."""

import shutil
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import permutations
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cnnlab.inquiry.design import count
from cnnlab.inquiry.judge.classroom import Classroom, Copies, Question, Student, group_copies
from cnnlab.inquiry.judge.reference import Reference, find_reference
from cnnlab.inquiry.judge.review import recorded_effect
from cnnlab.inquiry.judge.statistics import Effect
from cnnlab.inquiry.printable import printable
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.show.figures import titled
from cnnlab.inquiry.show.scales import shortened
from cnnlab.inquiry.show.style import GREY, OUTCOME_COLOURS, PAPER, LabFigure, svg
from cnnlab.inquiry.shown import GAP, Head, Part, Shown

TEMPLATE = Path(__file__).with_name("classroom.html")
OUTCOMES = ["supported", "refuted", "practically equivalent", "inconclusive", "withheld", "not judged"]
DIRECTIONS = ("higher", "lower", "none")
# In the terminal, so that a class of any size has less than 200 lines there.
MOST_ROWS = 100
MOST_PROBLEMS, MOST_GROUPS = 10, 5
MOST_NAMES, OF_A_GROUP = 5, 2
LETTERS = 155  # of two lines
QUESTION_LINES, QUESTIONS_AND_ROWS = 9, 130  # lines
HTML = "on the page (--html)"
COUNTS = ["predictions", *(outcome.replace(" ", "_") for outcome in OUTCOMES), "confirmatory", "not_withheld"]
COUNTS += ["late_records", "empty_reflections", "records", "head", "last_said_utc", "last_received_utc"]


class ClassShown(Shown):
    """A class with what its students found; `store` has the reference runs, if there are any."""

    def __init__(self, found: Classroom, store: Store | None = None) -> None:
        self.found = found
        firsts = [one.first for one in found.questions]
        self.references = [find_reference(one, store) if store else None for one in firsts]

    def parts(self) -> list[Part]:
        """Return what there is to show on a terminal."""
        found, rows = self.found, min(len(self.found.students), MOST_ROWS)
        shown: list[Part] = [Head(summary(found, MOST_NAMES)), "", short_table(found)]
        if (more := len(found.students) - rows) > 0:
            shown.append(f"{count(more, 'more row')}: {HTML} and in the CSV (--csv).")
        shown += [legend(found)]
        if problems := say_problems(found):
            shown += ["", "Not intact, or not readable (`cnnlab review HAND-IN` has the rest):"]
            shown.append(_first([shortened(printable(line), LETTERS) for line in problems], MOST_PROBLEMS))
        if copies := say_copies(found, OF_A_GROUP):
            shown += ["", "Who shares what only copies share:", _first(copies, MOST_GROUPS)]
        shown += ["", f"Calibration of the class: {found.calibration.sentence()}"]
        most = (QUESTIONS_AND_ROWS - rows) // QUESTION_LINES
        for question, reference in list(zip(found.questions, self.references, strict=True))[:most]:
            lines = [shortened(f"  {line}", 2 * LETTERS) for line in say_question(question, reference)]
            shown += ["", shortened(question.title, LETTERS), lines]
        if (more := len(found.questions) - most) > 0:
            shown += ["", f"{count(more, 'more question')}: {HTML}."]
        return shown

    def page(self) -> str:
        """Return the same as HTML, with everybody and a figure per question."""
        template = Environment(autoescape=True).from_string(TEMPLATE.read_text(encoding="utf-8"))
        pairs = list(zip(self.found.questions, self.references, strict=True))
        return template.render(
            summary=summary(self.found),
            table=student_table(self.found).to_dict("split"),
            legend=legend(self.found),
            problems=say_problems(self.found),
            copies=say_copies(self.found),
            calibration=self.found.calibration.sentence(),
            questions=[
                (one.title, say_question(one, reference), svg(plot_question(one, reference)) if one.effect else "")
                for one, reference in pairs
            ],
        )


def summary(found: Classroom, most: int | None = None) -> str:
    """Return in a sentence who handed in, and whose records are intact; it names at most `most` of each kind."""
    there = found.counted
    intact = sum(student.is_intact for student in there)
    said = f"{count(len(there), 'student')} handed in, and the records of {intact} are intact."
    unread = sum(bool(student.unreadable) for student in found.students)
    said += f" {count(unread, 'hand-in')} can't be read." if unread else ""
    if alone := sum(not student.has_files for student in there):
        said += f" For {alone} of them, the files of runs were not compared with the records; `cnnlab review` does."
    if found.absent:
        said += f" Nothing from: {_list(found.absent, most)}."
    if found.unlisted:
        said += f" Not in the roster: {_list([found.label(one) for one in found.unlisted], most)}."
    return said


def legend(found: Classroom) -> str:
    """Return what the columns of the table mean."""
    last = "when the server received the last record" if _has_received(found) else "the time that the last record gives"
    said = (
        f"pred: predictions; verdicts: {' / '.join(OUTCOMES[:-1])}; conf: how many are confirmatory, of those that "
        "aren't withheld; empty: verdicts without a reflection (?: without a logbook, as on a server, where "
        f"reflections stay with the students); last: {last}, UTC"
    )
    return f"{said}; late: records after {found.deadline:%Y-%m-%d %H:%M:%S %z}." if found.deadline else f"{said}."


def student_table(found: Classroom) -> pd.DataFrame:
    """Return a row per student, with the beginning of the last head."""
    table = pd.DataFrame([_row(found, student) for student in found.students]).fillna("")
    return table.assign(head=[one.head.sha256[:12] if one.head else "" for one in found.students])


def short_table(found: Classroom) -> pd.DataFrame:
    """Return the first rows without the heads, each short enough for a line of a terminal."""
    table = student_table(found).drop(columns="head")[:MOST_ROWS]
    others = [max(map(len, [name, *column])) + GAP for name, column in table.items() if name != "student"]
    letters = max(10, min(shutil.get_terminal_size().columns, 120) - sum(others))
    return table.assign(student=short_names(list(table["student"]), letters))


def short_names(names: Sequence[str], letters: int) -> list[str]:
    """Return names of at most this many letters without spaces that break; those that are cut alike get a number."""
    cut = [name if len(name) <= letters else f"{name[: letters - 3].rstrip()}..." for name in names]
    often, seen, short = Counter(cut), Counter[str](), list[str]()
    for name in cut:
        seen[name] += 1
        number = str(seen[name]) if often[name] > 1 and name.endswith("...") else ""
        short.append(f"{name[: letters - 3 - len(number)].rstrip('.')}...{number}" if number else name)
    return [name.replace(" ", "\N{NO-BREAK SPACE}") for name in short]


def _row(found: Classroom, student: Student) -> dict[str, object]:
    """Return a row of the table; a hand-in that can't be read has little to say."""
    row: dict[str, object] = {"student": printable(found.label(student))}
    row["intact"] = "yes" if student.is_intact else "NO"
    if student.unreadable:
        return row
    last = student.received or (student.head.time if student.head else None)
    row |= {
        "pred": str(len(student.records)),
        "verdicts": "/".join(str(student.outcomes[outcome]) for outcome in OUTCOMES[:-1]),
        "conf": "/".join(map(str, student.confirmatory)),
        "empty": "?" if student.empty is None else str(student.empty),
        "last": f"{last.astimezone(UTC):%d %b %H:%M}".replace(" ", "\N{NO-BREAK SPACE}") if last else "",
    }
    return row | ({"late": str(student.late)} if found.deadline else {})


def say_problems(found: Classroom) -> list[str]:
    """Return a line per student whose hand-in isn't intact, with the first problem."""
    lines = []
    for one in found.students:
        first = one.unreadable or next(iter(one.problems), "")
        more = f" (and {len(one.problems) - 1} more)" if len(one.problems) > 1 else ""
        lines += [f"  {found.label(one)}: {first}{more}"] if first else []
    return lines


def say_copies(found: Classroom, most: int | None = None) -> list[str]:
    """Return a line per group of students who share something; it names at most `most` of them."""
    lines = []
    for group in group_copies(found.copies):
        names = dict.fromkeys(found.label(student) for pair in group for student in pair.students)
        lines.append(f"  {_list(list(names), most)} share {_shared(group)}")
    return lines


def _shared(group: Sequence[Copies]) -> str:
    """Return what the pairs of a group share, with the smallest and largest number of it."""
    numbers: dict[str, list[int]] = {}
    for pair in group:
        for kind, n in pair.shared.items():
            numbers.setdefault(kind, []).append(n)
    ends = {kind: sorted({min(some), max(some)}) for kind, some in numbers.items()}
    return ", ".join(f"{kind} ({' to '.join(map(str, both))})" for kind, both in ends.items()) or "the owner"


def _list(names: Sequence[str], most: int | None) -> str:
    """Return names in a sentence, such as "ada, ben and 28 more"."""
    shown = [shortened(printable(name), 30) if most else name for name in names[:most]]
    if (more := len(names) - len(shown)) > 0:
        shown.append(f"{more} more")
    return " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))


def _first(lines: Sequence[str], most: int) -> list[str]:
    """Return the first lines, and how many there are more."""
    return [*lines[:most], *([f"  {len(lines) - most} more: {HTML}"] if len(lines) > most else [])]


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
        colour = OUTCOME_COLOURS.get(record.verdicts[-1].content.get("outcome", ""), "black")
        _draw(axes, labels, shortened(printable(name), 40), recorded_effect(record), color=colour, lw=1, ms=3)
    _draw(axes, labels, "class", question.effect, color="black", lw=3, ms=7)
    _draw(
        axes, labels, "reference runs", reference.effect if reference else None, color="black", mfc="white", lw=1, ms=5
    )
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set_xlabel(f"effect on {metric.label}{f' ({metric.unit})' if metric.unit else ''}", fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "left", "right"]].set_visible(False)
    return titled(figure, shortened(printable(question.title), 2 * LETTERS))


def _draw(axes: Axes, labels: list[str], label: str, effect: Effect | None, **look: Any) -> None:
    """Draw an effect with its 95 % interval on a row of its own."""
    if effect:
        error = [[effect.estimate - effect.low], [effect.high - effect.estimate]]
        axes.errorbar(effect.estimate, len(labels), xerr=error, fmt="D", **look)
        labels.append(label)


def to_csv(found: Classroom) -> str:
    """Return a row per student with counts and flags, without grades; what the roster knows is carried over."""
    partners: dict[int, list[str]] = {}
    for pair in found.copies:
        for one, other in permutations(pair.students):
            partners.setdefault(id(one), []).append(found.label(other))
    carried = [name for name in ("id", "email") if any(name in about for about in found.roster.values())]
    known = {name.casefold(): {one: row.get(one, "") for one in carried} for name, row in found.roster.items()}
    rows: list[dict[str, object]] = []
    for student in found.students:
        about = known.get(student.name.casefold(), known.get(student.hand_in.casefold(), {}))
        row: dict[str, object] = {**about, "student": student.name, "hand_in": student.hand_in, "handed_in": "yes"}
        row["in_roster"] = ("yes" if found.is_listed(student) else "no") if found.roster else ""
        row |= {"intact": "yes" if student.is_intact else "no", "shares_with": "; ".join(partners.get(id(student), []))}
        rows.append(row | ({} if student.unreadable else _counts(found, student)))
    for name in found.absent:
        rows.append({**known[name.casefold()], "student": name, "handed_in": "no", "in_roster": "yes"})
    columns = ["student", *carried, "hand_in", "handed_in", "in_roster", "intact", "problems", *COUNTS, "shares_with"]
    return pd.DataFrame(rows, columns=columns, dtype=object).map(_safe).to_csv(index=False, lineterminator="\n")


def _counts(found: Classroom, student: Student) -> dict[str, object]:
    """Return what is counted of a student."""
    confirmatory, not_withheld = student.confirmatory
    counts: dict[str, object] = {
        "problems": len(student.problems),
        "predictions": len(student.records),
        **{outcome.replace(" ", "_"): student.outcomes[outcome] for outcome in OUTCOMES},
        "confirmatory": confirmatory,
        "not_withheld": not_withheld,
        "late_records": student.late if found.deadline else None,
        "empty_reflections": student.empty,
        "records": student.head.number if student.head else 0,
        "head": student.head.sha256 if student.head else "",
        "last_said_utc": _moment(student.head.time if student.head else None),
        "last_received_utc": _moment(student.received),
    }
    return {name: "" if value is None else str(value) for name, value in counts.items()}


def _moment(time: datetime | None) -> str:
    return time.astimezone(UTC).isoformat("T", "seconds") if time else ""


def _has_received(found: Classroom) -> bool:
    """Return whether the server keeps when it received the records."""
    return any(student.received for student in found.students)


def _safe(value: object) -> object:
    """Return a value that a spreadsheet doesn't take for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value
