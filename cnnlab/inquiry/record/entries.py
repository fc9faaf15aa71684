"""The entries of the logbooks in `experiment_log/`: each belongs to a verdict and has fields for a reflection."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cnnlab.inquiry import paths
from cnnlab.inquiry.errors import LabError

_FIELD = re.compile(
    r"<!-- (?P<name>why|next) (?P<entry>[0-9a-f]+-\d+) -->(?P<text>.*?)(?=<!-- (?:end|why|next)\b|\Z)", re.DOTALL
)


@dataclass(frozen=True)
class Entry:
    """One verdict in the logbook, with the student's reflection on it.

    `id` combines those of the prediction and the verdict; `line` is the number of the line in the file on which the
    first of its fields begins.
    """

    id: str
    file: Path
    line: int
    why: str
    next: str


def entry_id(sha256: str, number: int) -> str:
    """Return the id of a verdict in a logbook: from the seal of its prediction and its number."""
    return f"{sha256[:12]}-{number}"


def entries(folder: Path | None = None) -> dict[str, Entry]:
    """Return all entries of all logbooks by id, with the student's texts."""
    found: dict[str, Entry] = {}
    for file in sorted((folder or paths.experiment_log()).glob("*.md")):
        text = read_entries(file)
        fields: dict[str, dict[str, str]] = {}
        lines: dict[str, int] = {}
        for match in _FIELD.finditer(text):
            fields.setdefault(match["entry"], {})[match["name"]] = match["text"].strip()
            lines.setdefault(match["entry"], text.count("\n", 0, match.start("text")) + 2)  # below the mark
        for entry, texts in fields.items():
            found[entry] = Entry(entry, file, lines[entry], texts.get("why", ""), texts.get("next", ""))
    return found


def reflected(some: Iterable[Entry]) -> dict[str, Entry]:
    """Return, by id, the entry with each entry's reflection, if there is one: itself or a later one of its study.

    So one reflection after the last verdict of a study is enough for all its verdicts.
    """
    found: dict[str, Entry] = {}
    last: dict[Path, Entry] = {}
    for entry in reversed(list(some)):
        if entry.why:
            last[entry.file] = entry
        if entry.file in last:
            found[entry.id] = last[entry.file]
    return found


def fill(file: Path, entry: str, texts: Mapping[str, str]) -> None:
    """Append texts to the fields of an entry; a text that a field already contains is not repeated.

    Raises:
        LabError: the logbook is not encoded in UTF-8.
    """
    try:
        whole = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise LabError(f"{file.name} isn't in UTF-8: save it in that encoding, then reflect again.") from None

    def filled(match: re.Match[str]) -> str:
        new = texts.get(match["name"], "").strip().replace("<!--", "&lt;!--")
        old = match["text"].strip()
        if match["entry"] != entry or not new or new in old:
            return match[0]
        begin = match[0][: len(match[0]) - len(match["text"])]
        return f"{begin}\n{old}\n\n{new}\n" if old else f"{begin}\n{new}\n"

    part = file.with_suffix(".part")
    part.write_text(_FIELD.sub(filled, whole), encoding="utf-8", newline="")
    part.replace(file)  # all or nothing


def empty_reflections(folder: Path) -> list[str]:
    """Return the logbooks of a folder that lack reflections on verdicts, as "<file> (<number of verdicts>)"."""
    known = entries(folder)
    covered = reflected(known.values())
    empty = Counter(entry.file.name for entry in known.values() if entry.id not in covered)
    return [f"{name} ({number})" for name, number in empty.items()]


def read_entries(file: Path) -> str:
    """Return the text of a logbook; characters that aren't UTF-8 are replaced instead of raising an error."""
    return file.read_text(encoding="utf-8-sig", errors="replace")
