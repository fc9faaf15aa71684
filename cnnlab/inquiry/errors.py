"""Errors that a student can act on."""

from collections.abc import Iterator
from contextlib import contextmanager


class LabError(Exception):
    """Something went wrong that the reader can fix: one sentence, with what to do.

    The command line prints only the sentence (exit code 1), and so does a notebook: IPython
    asks an exception for `_render_traceback_` before it formats a traceback of its own.
    """

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]


class Stopped(KeyboardInterrupt):
    """Somebody interrupted what was running; a notebook shows only the sentence."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


@contextmanager
def stopping(said: str = "Stopped.") -> Iterator[None]:
    """Say what an interrupt leaves behind; a context, or the decorator of a function.

    Raises:
        Stopped: instead of KeyboardInterrupt.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise Stopped(said) from None
