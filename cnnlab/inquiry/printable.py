"""Text from a store, as a terminal may show it."""

import unicodedata

# Characters that move, clear or turn around what a terminal shows: control, format (bidirectional marks), separators.
UNPRINTABLE = ("Cc", "Cf", "Zl", "Zp", "Cs")


def printable(text: str, keep: str = "") -> str:
    """Return a text from a store as a terminal may show it: characters that could hide something are written out.

    `keep` are such characters that stay, such as a line break.
    """
    return "".join(char if char in keep or _is_plain(char) else char.encode("unicode_escape").decode() for char in text)


def _is_plain(char: str) -> bool:
    return unicodedata.category(char) not in UNPRINTABLE
