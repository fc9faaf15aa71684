"""What goes on in a training, told to a watcher; and one progress bar that is right in a terminal, notebook and log."""

import io
import sys
from collections.abc import Callable

from mltrainer.trainer import Reporter
from tqdm import tqdm

from cnnlab.config import Config

FORMAT = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} images, {rate_fmt}, {elapsed}<{remaining}{postfix}"


class Watcher(Reporter):
    """Hears of one training: mltrainer's `Reporter`, which hears of every epoch, and what comes before and between."""

    def start(self, config: Config, facts: dict[str, str]) -> None:
        """Take what is about to be trained, and what was built."""

    def progress(self, images: int, said: str) -> None:
        """Take how many more images were trained on, and how it goes, in words."""

    def report(self, epoch: int, train_loss: float, test_loss: float, metric_dict: dict[str, float]) -> None:
        """Take the metrics of one epoch; mltrainer calls the validation loss `test_loss`."""

    def end(self, outcome: str) -> None:
        """Take how it ended, in words."""


class ProgressBar(Watcher):
    """Shows the images per second and the time left; its last state stays, as one line."""

    def __init__(self, title: str = "") -> None:
        self._title, self._said = title, ""

    def start(self, config: Config, facts: dict[str, str]) -> None:
        """Show the bar."""
        self._bar = progress_bar(self._title or f"seed {config.seed}", config.epochs * config.train_images)

    def progress(self, images: int, said: str) -> None:
        """Count images, and show how it goes."""
        self._said = said
        self._bar.set_postfix_str(said, refresh=False)
        self._bar.update(images)

    def end(self, outcome: str) -> None:
        """Show how it ended, and leave that."""
        self._bar.set_postfix_str(f"{self._said}, {outcome}")
        self._bar.close()


class _OneLine(io.StringIO):
    """A stream for tqdm that hands each state of the bar to `update`, and the last one to `end`."""

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


def progress_bar(title: str, images: int, visible: bool = True) -> tqdm:
    """Return a bar over `images` with images per second and the time left; its last state stays, as one line."""
    if not visible:
        return tqdm(total=images, disable=True)
    return tqdm(
        total=images,
        desc=title,
        unit=" images",
        unit_scale=True,
        mininterval=0.3,
        file=_stream(),
        bar_format=FORMAT,
        ascii=False if in_notebook() else None,  # blocks; elsewhere tqdm asks the terminal what it can show
        dynamic_ncols=sys.stderr.isatty(),
        ncols=None if sys.stderr.isatty() else 130,
    )


def _stream() -> io.TextIOBase | None:
    if in_notebook():
        from IPython.display import display

        # tqdm's own notebook bar is a widget, and a widget is blank in a saved notebook: text stays
        handle = display({"text/plain": ""}, raw=True, display_id=True)
        return _OneLine(lambda line: handle.update({"text/plain": line}, raw=True), end=lambda line: None)
    if sys.stderr.isatty():
        return None  # tqdm's default
    return _OneLine(update=lambda line: None, end=lambda line: print(line, file=sys.stderr, flush=True))
