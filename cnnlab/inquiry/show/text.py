"""A review as text for the terminal, and links into the MLflow UI."""

import textwrap
from collections.abc import Collection
from typing import NamedTuple

import pandas as pd

from cnnlab.inquiry import server
from cnnlab.inquiry.design import count
from cnnlab.inquiry.judge.review import Review
from cnnlab.inquiry.printable import printable
from cnnlab.inquiry.record.elsewhere import lab_address
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.record.views import VIEWS, view_links


class Line(NamedTuple):
    """A line with a prefix; if it is wrapped, its continuation lines are indented by the prefix's width."""

    begin: str
    text: str


def review_text(found: Review, width: int = 80, hide: str | None = None) -> str:
    """Return the findings of a review for a terminal: whether the store is intact, predictions, timeline, notes.

    `hide` is an owner whose predictions and runs are counted but not shown.
    """
    if found.is_intact:
        held = f"{count(len(found.predictions), 'prediction')} and {count(found.runs, 'run')}"
        first = f"Intact: {held}, each as it was sealed."
    else:
        first = f"NOT INTACT: {count(len(found.problems), 'problem')}."
    lasts = {owner: theirs[-1] for owner, theirs in found.heads.items() if owner != hide}
    sections = {
        "Heads (one handed in earlier: `cnnlab review --head ...` says whether all before it is unchanged)": [
            line
            for owner, head in lasts.items()
            for line in (Line("  ", f"{owner or 'nobody'}, {head.number} records"), Line("    ", head.sha256))
        ],
        "Predictions": _prediction_lines(found, hide),
        "Timeline (UTC)": _timeline_lines(found.timeline[found.timeline["owner"] != hide]),
        "Can't be verified": [Line("  - ", said) for said in found.unverified],
        "Notes": [Line("  - ", note) for note in found.notes],
        "Runs that this lab did not make": [Line("  ", line) for line in found.foreign],
    }
    lines = [Line("", first), *(Line("  ! ", problem) for problem in found.problems)]
    for title, section in sections.items():
        lines += [Line("", ""), Line("", title), Line("", ""), *section] if section else []
    return "\n".join(_wrap(line, width) for line in lines)


def _prediction_lines(found: Review, hide: str | None) -> list[Line]:
    """Return the lines of all predictions: time, owner and study; the claim; the verdict."""
    lines: list[Line] = []
    for number, row in enumerate(found.predictions.to_dict("records"), start=1):
        if row["owner"] == hide:
            continue
        verdict = f"{row['verdict']}, {row['label']}" if row["label"] else row["verdict"]
        where = f"{row['time']}, {row['owner'] or 'nobody'}, {row['study']} (seal {row['seal'] or 'missing'})"
        lines += [
            Line(f"  {number}. ", where),
            Line("     ", f"{row['prediction']} (confidence {row['confidence'] or '?'} %)"),
            Line("     => ", verdict + (f": {row['effect']}" if row["effect"] else "")),
            Line("", ""),
        ]
    hidden = int((found.predictions["owner"] == hide).sum()) if hide else 0
    if hidden:
        return [*lines, Line("  ", f"Checked, but not shown: {hidden} of {hide} (--all shows them)")]
    return lines[:-1]


def _timeline_lines(timeline: pd.DataFrame) -> list[Line]:
    """Return the events grouped by day, with the owners in a separate column."""
    lines, day = list[Line](), ""
    owners = [printable(owner)[:16] for owner in timeline["owner"]]
    widest = max(map(len, owners), default=0)
    for owner, row in zip(owners, timeline.itertuples(index=False), strict=True):
        date, time = str(row.time).split(" ")
        lines += [Line("  ", date)] if date != day else []
        lines.append(Line(f"  {time}  {owner:<{widest}}  ", str(row.what)))
        day = date
    return lines


def _wrap(line: Line, width: int) -> str:
    """Wrap a line to the width; characters from a store that a terminal could hide are written out."""
    margin = " " * len(line.begin)
    text = printable(line.text)
    return textwrap.fill(text, width, initial_indent=line.begin, subsequent_indent=margin, break_on_hyphens=False)


def links(store: Store, experiments: Collection[str] = ()) -> str:
    """Return the address of the page of the lab or, if a server has none, links to the views of experiments.

    Without names, these are all experiments.
    """
    if store.kind == "embedded":
        return f"Start the MLflow server with ./start_server.sh to see what came out: {server.address()}/lab"
    if page := lab_address(store.uri):
        return f"What came out, with links to all runs: {page}"
    lines = ["In the MLflow UI:", *(f"  {key:12}{said}" for key, said in VIEWS.items())]
    for name, views in view_links(store, store.uri).items():
        if not experiments or name in experiments:
            lines += [name, *(f"  {key:12}{link}" for key, link in views.items())]
    return "\n".join(lines)
