"""Results as text: a table in the terminal, and links into the MLflow UI."""

import math
import textwrap
from collections.abc import Collection

import pandas as pd
from rich.table import Table

from cnnlab import server
from cnnlab.inquiry.review import Review
from cnnlab.tracking.store import Store
from cnnlab.tracking.views import VIEWS, view_links

_HANG = "\0"  # in a line: where its continuation begins


def arms_table(title: str, arms: pd.DataFrame) -> Table:
    """Return the table of `summary` for a terminal: one row for each arm, with n and SD beside every mean."""
    table = Table(title=title, title_justify="left")
    table.add_column("arm")
    for heading in ("n", "acc. %", "SD pp", "loss", "SD", "gap", "s/epoch"):
        table.add_column(heading, justify="right", no_wrap=True)  # a long name breaks into lines, a number never
    for arm, row in arms.iterrows():
        numbers = (row.accuracy, row.accuracy_sd, row.loss, row.loss_sd, row.gap_loss, row.epoch_s)
        digits = (2, 2, 3, 3, 3, 1)
        table.add_row(str(arm), f"{row.n:.0f}", *(_number(v, d) for v, d in zip(numbers, digits, strict=True)))
    return table


def review_text(found: Review, width: int = 80, hide: str | None = None) -> str:
    """Return what a review found, for a terminal: whether it is intact, predictions, timeline, notes.

    `hide` is an owner whose predictions and runs are only counted.
    """
    if found.is_intact:
        first = f"Intact: {len(found.predictions)} predictions and {found.runs} runs, each as it was sealed."
    else:
        first = f"NOT INTACT: {len(found.problems)} things do not fit together."
    seals = [line for owner, seal in found.heads.items() for line in (f"  {owner or 'nobody'}", f"    {seal}")]
    sections = {
        "Last seals (whoever noted one earlier can tell whether the chain was rewritten)": seals,
        "Predictions": _prediction_lines(found, hide),
        "Timeline (UTC)": _timeline_lines(found.timeline[found.timeline["owner"] != hide]),
        "Notes": [f"  - {note}" for note in found.notes],
        "Runs that this lab did not make": [f"  {line}" for line in found.foreign],
    }
    lines = [first, *(f"  ! {problem}" for problem in found.problems)]
    for title, section in sections.items():
        lines += ["", title, "", *section] if section else []
    return "\n".join(_wrap(line, width) for line in lines)


def _prediction_lines(found: Review, hide: str | None) -> list[str]:
    """Return the lines of all predictions, each when, who and where; the claim; the verdict."""
    lines: list[str] = []
    for number, row in enumerate(found.predictions.to_dict("records"), start=1):
        if row["owner"] == hide:
            continue
        verdict = f"{row['verdict']} ({row['label']})" if row["label"] else row["verdict"]
        lines += [
            f"  {number}. {row['time']}, {row['owner'] or 'nobody'}, {row['study']} (seal {row['seal'] or 'missing'})",
            f"     {_HANG}{row['prediction']} (confidence {row['confidence'] or '?'} %)",
            f"     => {_HANG}{verdict}" + (f": {row['effect']}" if row["effect"] else ""),
            "",
        ]
    hidden = int((found.predictions["owner"] == hide).sum()) if hide else 0
    return [*lines, f"  Checked, but not shown: {hidden} of {hide} (--all shows them)"] if hidden else lines[:-1]


def _timeline_lines(timeline: pd.DataFrame) -> list[str]:
    """Return the events under their days, with the owners in a column of their own."""
    lines, day = list[str](), ""
    widest = min(16, max((len(owner) for owner in timeline["owner"]), default=0)) if len(timeline) else 0
    for row in timeline.itertuples(index=False):
        date, time = str(row.time).split(" ")
        lines += [f"  {date}"] if date != day else []
        lines.append(f"  {time}  {str(row.owner)[:16]:<{widest}}  {_HANG}{row.what}")
        day = date
    return lines


def _wrap(line: str, width: int) -> str:
    """Return a line as several that fit, set in as far as `_HANG` is in it, else by two more than the first."""
    before, hang, _ = line.partition(_HANG)
    margin = len(before) if hang else len(line) - len(line.lstrip(" ")) + 2
    return textwrap.fill(line.replace(_HANG, ""), width, subsequent_indent=" " * margin, break_on_hyphens=False)


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def links(store: Store, experiments: Collection[str] = ()) -> str:
    """Return the links of the shared views of some experiments (of all, without names), or how to open them."""
    if store.kind == "embedded":
        address, first = server.address(), "Start the MLflow UI with ./start_server.sh, then open:\n"
    else:
        address, first = store.uri, "In the MLflow UI (click 'Model training' at its first start):\n"
    lines = [f"  {key:12}{said}" for key, said in VIEWS.items()]
    for name, views in view_links(store, address).items():
        if not experiments or name in experiments:
            lines += [f"{name}", *(f"  {key:12}{link}" for key, link in views.items())]
    return first + "\n".join(lines)
