"""Results that print as text and show themselves in a notebook as HTML, both from one list of parts."""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple, Union

import pandas as pd
from pandas.api.types import is_numeric_dtype


class Head(str):
    """The sentence that matters most; bold in HTML."""


class Quote(str):
    """What somebody said; set off in HTML."""


class Details(NamedTuple):
    """More than a text needs: only in HTML, folded under a summary."""

    summary: str
    content: pd.DataFrame | str


Part = Union[str, list[str], pd.DataFrame, Details, "Shown"]  # a list: points of equal weight, a line each in text


class Shown:
    """Base of what is shown: text where it is printed, HTML in a notebook."""

    def parts(self) -> Sequence[Part]:
        """Return what there is to show, in order."""
        raise NotImplementedError

    def __str__(self) -> str:
        return "\n".join(_text(part) for part in self.parts() if not isinstance(part, Details))

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return "".join(map(_html, self.parts()))


def _text(part: Part) -> str:
    if isinstance(part, pd.DataFrame):
        padded = part.apply(lambda column: column if is_numeric_dtype(column) else _padded(column.astype(str)))
        return str(padded.to_string(index=_has_names(part), justify="left"))
    return "\n".join(part) if isinstance(part, list) else str(part)


def _padded(texts: pd.Series) -> pd.Series:
    return texts.str.ljust(texts.str.len().max())


def _html(part: Part) -> str:
    match part:
        case Shown():
            return part._repr_html_()
        case pd.DataFrame():
            with pd.option_context("display.max_colwidth", None):
                return str(part.to_html(index=_has_names(part)))
        case Details(summary, content):
            inner = f"<pre>{escape(content, quote=False)}</pre>" if isinstance(content, str) else _html(content)
            return f"<details><summary>{escape(summary, quote=False)}</summary>{inner}</details>"
        case list():
            return "<ul>" + "".join(f"<li>{escape(line, quote=False)}</li>" for line in part) + "</ul>" if part else ""
        case Quote():
            return f"<blockquote>{escape(part, quote=False)}</blockquote>"
        case Head():
            return f"<p><b>{escape(part, quote=False)}</b></p>"
        case _:
            return f"<p>{escape(part, quote=False)}</p>"


def _has_names(table: pd.DataFrame) -> bool:
    """Return whether the rows of a table have names, not only numbers."""
    return not isinstance(table.index, pd.RangeIndex)
