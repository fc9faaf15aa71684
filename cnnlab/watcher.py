"""What goes on in a training, told to a watcher; and a watcher that shows it."""

from mltrainer.trainer import Reporter

from cnnlab.config import Config
from cnnlab.inquiry.progress import progress_bar


class Watcher(Reporter):
    """Follows one training: mltrainer's `Reporter`, called after every epoch, and what comes before and between."""

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
        self._bar = progress_bar(self._title or f"seed {config.seed}", config.epochs * config.train_images, "images")

    def progress(self, images: int, said: str) -> None:
        """Count images, and show how it goes."""
        self._said = said
        self._bar.set_postfix_str(said, refresh=False)
        self._bar.update(images)

    def end(self, outcome: str) -> None:
        """Show how it ended, and leave that."""
        self._bar.set_postfix_str(f"{self._said}, {outcome}")
        self._bar.close()
