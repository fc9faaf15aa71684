"""Results as text: a table in the terminal, and links into the MLflow UI."""

import math

import pandas as pd
from rich.markup import escape
from rich.table import Table

from cnnlab import server
from cnnlab.inquiry.review import Review
from cnnlab.tracking.store import Store
from cnnlab.tracking.views import VIEWS, view_links


def arms_table(title: str, arms: pd.DataFrame) -> Table:
    """Return the table of `summary` for a terminal: one row for each arm, with n and SD beside every mean."""
    table = Table(title=title, title_justify="left")
    table.add_column("arm", no_wrap=True)
    for heading in ("n", "acc. %", "SD pp", "loss", "SD", "gap", "s/epoch"):
        table.add_column(heading, justify="right")
    for arm, row in arms.iterrows():
        numbers = (row.accuracy, row.accuracy_sd, row.loss, row.loss_sd, row.gap_loss, row.epoch_s)
        digits = (2, 2, 3, 3, 3, 1)
        table.add_row(str(arm), f"{row.n:.0f}", *(_number(v, d) for v, d in zip(numbers, digits, strict=True)))
    return table


def review_tables(found: Review) -> list[Table | str]:
    """Return what a review found, for a terminal: the chain first, then predictions, timeline and notes."""
    intact = f"Chain intact: {len(found.predictions)} predictions, {found.runs} runs, each as it was sealed."
    parts: list[Table | str] = [intact] if found.is_intact else ["The records do not fit together:"]
    parts += [f"  ! {escape(problem)}" for problem in found.problems]
    parts += [f"  last seal of {escape(owner)}: {head}" for owner, head in found.heads.items()]
    parts += [_frame(title, table) for title, table in found.tables().items() if not table.empty]
    parts += [f"Note: {escape(note)}" for note in found.notes]
    return parts + [escape(line) for line in found.foreign]


def _frame(title: str, frame: pd.DataFrame) -> Table:
    table = Table(title=title, title_justify="left")
    for column in frame:
        table.add_column(str(column), overflow="fold")
    for row in frame.itertuples(index=False):
        table.add_row(*(escape(str(value)) for value in row))
    return table


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def links(store: Store) -> str:
    """Return the links of all shared views, or how to start the server that shows them."""
    if store.kind == "embedded":
        address, first = server.address(), "Start the MLflow UI with ./start_server.sh, then open:\n"
    else:
        address, first = store.uri, "In the MLflow UI (click 'Model training' at its first start):\n"
    lines = [
        f"  {name}, {VIEWS[key]}:\n    {link}"
        for name, views in view_links(store, address).items()
        for key, link in views.items()
    ]
    return first + "\n".join(lines) if lines else f"{first}  {address}"
