"""Text from a store, made safe for a terminal."""

import unicodedata

# Characters that move, clear or reverse what a terminal shows: control, format (bidirectional marks), separators.
UNPRINTABLE = ("Cc", "Cf", "Zl", "Zp", "Cs")


def printable(text: str, keep: str = "") -> str:
    """Return a text from a store made safe for a terminal: characters that could hide something are written out.

    `keep` are exceptions, such as a line break.
    """
    return "".join(char if char in keep or _is_plain(char) else char.encode("unicode_escape").decode() for char in text)


def _is_plain(char: str) -> bool:
    return unicodedata.category(char) not in UNPRINTABLE
