"""Text that is safe to show in a terminal."""

import shutil
import textwrap
import unicodedata
from typing import TextIO

# Characters that move, clear or reverse a terminal's text: control, format (bidirectional marks) and separators.
UNPRINTABLE = ("Cc", "Cf", "Zl", "Zp", "Cs")


def printable(text: str, keep: str = "") -> str:
    """Make a text from a store safe for a terminal: characters that could hide something are written out.

    `keep` lists exceptions, such as a line break.
    """
    return "".join(char if char in keep or _is_plain(char) else char.encode("unicode_escape").decode() for char in text)


def _is_plain(char: str) -> bool:
    return unicodedata.category(char) not in UNPRINTABLE


def on_screen(text: str, stream: TextIO) -> str:
    """Return a text of several lines for a stream; for a terminal, long lines are broken between words."""
    plain = printable(text, keep="\n\t")
    if not stream.isatty():
        return plain
    width = shutil.get_terminal_size().columns
    return "\n".join(_wrapped(line, width) for line in plain.split("\n"))


def _wrapped(line: str, width: int) -> str:
    """Break a line that is too long into several, with the same indent."""
    if len(line) <= width:
        return line
    margin = " " * (len(line) - len(line.lstrip()))
    return textwrap.fill(line, width, subsequent_indent=margin, break_long_words=False, break_on_hyphens=False)
