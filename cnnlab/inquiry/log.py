"""The lab's messages while it works: each line of the logger "cnnlab" is printed without decoration.

INFO reports progress; WARNING, on stderr, reports problems that don't stop the work.
"""

import logging
import sys
from collections import deque
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import TextIO

import click

from cnnlab.inquiry.printable import on_screen

log = logging.getLogger("cnnlab")


class _Printer(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stderr if record.levelno >= logging.WARNING else sys.stdout
        with suppress(OSError, ValueError), _beside_a_bar(stream):  # a closed stream is no reason to stop
            click.echo(on_screen(self.format(record), stream), file=stream)


def _beside_a_bar(stream: TextIO) -> AbstractContextManager[None]:
    """Hide a progress bar while a line is printed."""
    bars = sys.modules.get("tqdm")
    return bars.tqdm.external_write_mode(stream) if bars else nullcontext()


class Collector(logging.Handler):
    """Keeps lines for another process to print."""

    def __init__(self) -> None:
        super().__init__()
        self._lines = deque[str]()  # threads may add lines while others read it

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self._lines.append(record.getMessage())

    def take(self) -> tuple[str, ...]:
        """Return the lines since the last call."""
        return tuple(self._lines.popleft() for _ in range(len(self._lines)))


def only_collect() -> Collector:
    """Print nothing in this worker process; return a handler that collects the warnings."""
    collector = Collector()
    log.handlers = [collector]
    log.setLevel(logging.WARNING)
    return collector


if not log.handlers:
    log.addHandler(_Printer())
    log.propagate = False
if log.level == logging.NOTSET:
    log.setLevel(logging.INFO)
