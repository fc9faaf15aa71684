"""Results as Markdown: medians with their spread, ratios, and the machine on which they were measured."""

import math
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import median

import psutil
import torch


@dataclass(frozen=True)
class Table:
    """A table with a caption of one sentence."""

    caption: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

    def markdown(self) -> str:
        """Return the table as Markdown; the first column is text, all others are numbers."""
        lines = [self.columns, ("---", *("---:" for _ in self.columns[1:])), *self.rows]
        return f"{self.caption}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


@dataclass(frozen=True)
class Report:
    """The results of a benchmark."""

    title: str
    sizes: str  # what was trained or called, and how often
    tables: list[Table]
    notes: list[str]

    def markdown(self, quick: bool, load: float) -> str:
        """Return the report as a Markdown document; `load` is the mean number of runnable processes just before."""
        warning = ["**A smoke test with tiny sizes (`--quick`): these numbers mean nothing.**"] if quick else []
        parts = [f"# {self.title}", *warning, self.sizes, *(table.markdown() for table in self.tables)]
        if self.notes:
            parts.append("\n".join(f"- {note}" for note in self.notes))
        measured = f"Measured on {machine()}. Load of the machine (mean of the minute before): {load:.1f}."
        return "\n\n".join([*parts, measured]) + "\n"


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Return the median with the smallest and the largest value, such as "4.1 (3.9 to 4.4)"."""
    return f"{_number(median(values), digits)} ({_number(min(values), digits)} to {_number(max(values), digits)})"


def ratio(above: Sequence[float], below: Sequence[float]) -> str:
    """Return the spread of the ratios, one per repetition: its two sides were measured one after the other."""
    return spread([a / b for a, b in zip(above, below, strict=True)], digits=2)


def _number(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}" if math.isfinite(value) else "never"


def machine() -> str:
    """Return processor, cores, versions and date in one line."""
    cores = f"{psutil.cpu_count(logical=False)} cores ({os.cpu_count()} logical)"
    parts = [_processor(), torch.backends.cpu.get_cpu_capability(), cores]
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    system = f"{platform.system()}, Python {platform.python_version()}, torch {torch.__version__}"
    return ", ".join([*parts, system, date.today().isoformat()])


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
