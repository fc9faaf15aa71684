"""Errors that a student can act on."""

from collections.abc import Iterator
from contextlib import contextmanager


class LabError(Exception):
    """An error that the reader can fix: a sentence that says what went wrong and what to do.

    The command line prints only the sentence (exit code 1), and so does a notebook: IPython
    calls an exception's `_render_traceback_`, if it has one, instead of formatting a traceback.
    """

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]


class Stopped(KeyboardInterrupt):
    """The user interrupted the work; a notebook shows only the sentence."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


@contextmanager
def stopping(said: str = "Stopped.") -> Iterator[None]:
    """Turn an interrupt into a sentence about what was kept; a context, or the decorator of a function.

    Raises:
        Stopped: instead of KeyboardInterrupt.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise Stopped(said) from None
