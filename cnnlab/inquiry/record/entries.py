"""The entries of the logbooks in `experiment_log/`, read back: each belongs to a verdict, and holds a reflection."""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from cnnlab.inquiry import paths

_FIELD = re.compile(
    r"<!-- (?P<name>why|next) (?P<entry>[0-9a-f]+-\d+) -->(?P<text>.*?)(?=<!-- (?:end|why|next)\b|\Z)", re.DOTALL
)


@dataclass(frozen=True)
class Entry:
    """One verdict in the logbook, and what the student made of it; `id` is that of the prediction and the verdict."""

    id: str
    file: Path
    why: str
    next: str


def entries(folder: Path | None = None) -> dict[str, Entry]:
    """Return all entries of all logbooks by their ids, with what the student wrote."""
    found: dict[str, Entry] = {}
    for file in sorted((folder or paths.experiment_log()).glob("*.md")):
        fields: dict[str, dict[str, str]] = {}
        for match in _FIELD.finditer(read_entries(file)):
            fields.setdefault(match["entry"], {})[match["name"]] = match["text"].strip()
        for entry, texts in fields.items():
            found[entry] = Entry(entry, file, texts.get("why", ""), texts.get("next", ""))
    return found


def empty_reflections(folder: Path) -> list[str]:
    """Return where the logbooks in a folder lack a "why": "<file> (<how many>)"."""
    empty = Counter(entry.file.name for entry in entries(folder).values() if not entry.why)
    return [f"{name} ({number})" for name, number in empty.items()]


def read_entries(file: Path) -> str:
    """Return the text of a logbook; what an editor saved in another encoding is no reason to stop."""
    return file.read_text(encoding="utf-8-sig", errors="replace")
