"""One progress bar that is right in a terminal and in a notebook."""

import io
import sys

from tqdm import tqdm


class _NotebookLine(io.StringIO):
    """A stream that shows what tqdm wrote last as one line of the cell's output.

    tqdm's own notebook bar is a widget, and a widget is blank in a saved notebook; this line stays as text.
    """

    def __init__(self) -> None:
        super().__init__()
        from IPython.display import display

        self._line = display({"text/plain": ""}, raw=True, display_id=True)

    def write(self, text: str) -> int:
        line = text.strip("\r\n\x1b[A ")
        if line:
            self._line.update({"text/plain": line}, raw=True)
        return len(text)


def in_notebook() -> bool:
    """Return whether the code runs in a Jupyter kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and hasattr(shell, "kernel")


def progress_bar(title: str, images: int, visible: bool = True) -> tqdm:
    """Return a bar over `images` with images per second and the time left; its last state stays on screen."""
    if not visible:
        return tqdm(disable=True)
    return tqdm(
        total=images,
        desc=title,
        unit=" images",
        unit_scale=True,
        mininterval=0.3,
        dynamic_ncols=not in_notebook(),
        ncols=110 if in_notebook() else None,
        file=_NotebookLine() if in_notebook() else sys.stderr,
        bar_format="{desc} {percentage:3.0f}%|{bar}| {n_fmt} images, {rate_noinv_fmt}, {elapsed}<{remaining}{postfix}",
    )
