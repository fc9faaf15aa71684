"""Errors that a student can act on."""


class LabError(Exception):
    """Something went wrong that the reader can mend: one sentence, with what to do.

    The command line prints only the sentence (exit code 1), and so does a notebook: IPython
    asks an exception for `_render_traceback_` before it formats a traceback of its own.
    """

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]
