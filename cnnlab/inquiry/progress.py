"""A progress bar that works in a terminal, in a notebook and in a log file."""

import io
import shutil
import sys
from collections.abc import Callable

from tqdm import tqdm

FORMAT = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{unit}, {rate_fmt}, {elapsed}<{remaining}{postfix}"
NARROW = "{desc} {percentage:3.0f}%|{bar}| {remaining} left{postfix}"  # so that 80 columns have room for the postfix
WIDE = 110  # columns


class _OneLine(io.StringIO):
    """A stream for tqdm that passes each state of the bar to `update`, and the last one to `end`."""

    def __init__(self, update: Callable[[str], object], end: Callable[[str], object]) -> None:
        super().__init__()
        self._update, self._end = update, end
        self._line = ""

    def write(self, text: str) -> int:
        if text == "\n":
            self._end(self._line)
        elif line := text.strip("\r\n "):
            self._line = line
            self._update(line)
        return len(text)


def in_notebook() -> bool:
    """Return whether the code runs in a Jupyter kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and hasattr(shell, "kernel")


def progress_bar(title: str, total: int, unit: str, visible: bool = True) -> tqdm:
    """Return a bar with the units per second and the time left; its last state is kept as one line."""
    if not visible:
        return tqdm(total=total, disable=True)
    is_terminal = sys.stderr.isatty() and not in_notebook()
    return tqdm(
        total=total,
        desc=title,
        unit=f" {unit}",
        unit_scale=True,
        mininterval=0.3,
        file=_stream(),
        bar_format=NARROW if is_terminal and shutil.get_terminal_size().columns < WIDE else FORMAT,
        ascii=False if in_notebook() else None,  # blocks; elsewhere tqdm detects what the terminal can show
        dynamic_ncols=is_terminal,
        ncols=95 if in_notebook() else None if is_terminal else 130,
    )


def _stream() -> io.TextIOBase | None:
    if in_notebook():
        from IPython.display import display

        # tqdm's own notebook bar is a widget, which is blank in a saved notebook; text is kept
        handle = display({"text/plain": ""}, raw=True, display_id=True)
        return _OneLine(lambda line: handle.update({"text/plain": line}, raw=True), end=lambda line: None)
    if sys.stderr.isatty():
        return None  # tqdm's default
    return _OneLine(update=lambda line: None, end=lambda line: print(line, file=sys.stderr, flush=True))
