"""Errors that a student can act on."""

from collections.abc import Iterator
from contextlib import contextmanager


class LabError(Exception):
    """Something went wrong that the reader can mend: one sentence, with what to do.

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
def stopping(call: str) -> Iterator[None]:
    """Say what an interrupt leaves behind, and that `call` goes on from there.

    Raises:
        Stopped: instead of KeyboardInterrupt.
    """
    try:
        yield
    except Stopped:
        raise
    except KeyboardInterrupt:
        raise Stopped(f"Stopped. What was measured is kept; {call} goes on from here.") from None
