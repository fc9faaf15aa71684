"""Results that are printed as text and shown in a notebook as HTML, both from one list of parts."""

import io
import shutil
from collections.abc import Sequence
from html import escape
from math import isnan
from numbers import Integral
from typing import NamedTuple, Union

import pandas as pd
from pandas.api.types import is_numeric_dtype
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

GAP = 2  # characters between the columns of a text table


class Head(str):
    """The most important sentence; bold in HTML."""


class Quote(str):
    """Somebody's words; set off in HTML."""


class Folded(list[str]):
    """Less important points: one line each in text, folded away in HTML under their number."""


class Details(NamedTuple):
    """Details that are shown only in HTML, under a summary; a long text is folded away."""

    summary: str
    content: pd.DataFrame | str


# A list: points of equal importance, one line each in text. "": a break, which is a horizontal line in HTML.
Part = Union[str, list[str], pd.DataFrame, Details, "Shown"]


class Shown:
    """Base class of what is shown: text when printed, HTML in a notebook."""

    def parts(self) -> Sequence[Part]:
        """Return the parts to show, in order."""
        raise NotImplementedError

    def __str__(self) -> str:
        return "\n".join(text for part in self.parts() if (text := _text(part)) is not None)

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return "".join(map(_html, self.parts()))


def _text(part: Part) -> str | None:
    """Return a part as text; None if it adds no line."""
    if isinstance(part, pd.DataFrame):
        return _text_table(part)
    if isinstance(part, list):
        return "\n".join(part) if part else None
    return None if isinstance(part, Details) else str(part)


def _text_table(table: pd.DataFrame) -> str:
    """Return a table as text that fits the terminal: texts are broken between words if they can be, numbers never."""
    named = table.reset_index(names=str(table.index.name or "")) if _has_names(table) else table
    columns = [[str(name), *map(_cell, column)] for name, column in named.items()]
    numeric = [is_numeric_dtype(named[name]) for name in named]
    width = min(shutil.get_terminal_size().columns, 120)
    drawn = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for (name, *_), is_number, wide in zip(columns, numeric, _widths(columns, numeric, width), strict=True):
        drawn.add_column(Text(name), justify="right" if is_number else "left", overflow="fold", width=wide)
    for row in zip(*(texts for _, *texts in columns), strict=True):
        drawn.add_row(*map(Text, row))
    console = Console(width=width, file=io.StringIO(), color_system=None)
    with console.capture() as captured:
        console.print(drawn)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def _widths(columns: list[list[str]], numeric: list[bool], width: int) -> list[int]:
    """Return the characters for each column: its longest word, and as much of the rest as fits, equally shared."""
    most = [max(len(line) for text in texts for line in text.splitlines() or [""]) for texts in columns]
    # at spaces alone: words with a no-break space between them are one word here
    words = [max(len(word) for text in texts for word in text.replace("\n", " ").split(" ")) for texts in columns]
    widths = [full if is_number else word for full, word, is_number in zip(most, words, numeric, strict=True)]
    left = width - sum(widths) - GAP * (len(columns) - 1)
    while left < 0 and max(widths) > 1:  # then the words of the widest columns are broken
        widths[widths.index(max(widths))] -= 1
        left += 1
    in_need = sorted(range(len(columns)), key=lambda i: most[i] - widths[i])
    for place, i in enumerate(in_need):
        more = min(most[i] - widths[i], max(0, left) // (len(in_need) - place))
        widths[i], left = widths[i] + more, left - more
    return widths


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if isnan(value) else f"{value:g}"
    return f"{value:,}" if _is_count(value) else str(value)


def _is_count(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _html(part: Part) -> str:
    match part:
        case Shown():
            return part._repr_html_()
        case pd.DataFrame():
            return _html_table(part)
        case Details(summary, content):
            is_long = isinstance(content, str)
            inner = f"<pre>{escape(str(content), quote=False)}</pre>" if is_long else _html(content)
            return f"<details{'' if is_long else ' open'}><summary>{_escaped(summary)}</summary>{inner}</details>"
        case Folded():
            points = _html(list(part))
            return f"<details><summary>Notes ({len(part)})</summary>{points}</details>" if part else ""
        case list():
            return "<ul>" + "".join(f"<li>{_escaped(line)}</li>" for line in part) + "</ul>" if part else ""
        case Quote():
            return f"<blockquote>{_escaped(part)}</blockquote>"
        case Head():
            return f"<p><b>{_escaped(part)}</b></p>"
        case "":
            return "<hr>"
        case _:
            return f"<p>{_escaped(part)}</p>"


def _html_table(table: pd.DataFrame) -> str:
    """Return a table with left-aligned texts that keep their line breaks, and one header row."""
    heads = {name: _name(name) if is_numeric_dtype(column) else _left(name) for name, column in table.items()}
    shown = table.map(_left).rename(index=_left, columns=heads)
    shown.columns.name, shown.index.name = shown.index.name, None
    with pd.option_context("display.max_colwidth", None):
        return str(shown.to_html(index=_has_names(table), escape=False, na_rep=""))


def _left(value: object) -> object:
    if _is_count(value):
        return _cell(value)
    return f'<div style="text-align:left">{_escaped(value)}</div>' if isinstance(value, str) else value


def _name(value: object) -> object:
    return _escaped(value) if isinstance(value, str) else value


def _escaped(text: str) -> str:
    return escape(text, quote=False).replace("\n", "<br>")


def _has_names(table: pd.DataFrame) -> bool:
    """Return whether the rows of a table have names, not only numbers."""
    return not isinstance(table.index, pd.RangeIndex)
