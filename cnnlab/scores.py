"""What a network predicts for images, and the metrics that follow."""

from typing import NamedTuple

from torch import Tensor


class Score(NamedTuple):
    """What a network predicts for N images: logits (N, K), labels (N,), and the mean loss per image."""

    logits: Tensor
    y: Tensor
    loss: float

    @property
    def correct(self) -> Tensor:
        """Whether each image was classified correctly: bool (N,)."""
        return self.logits.argmax(dim=1) == self.y

    def __str__(self) -> str:
        return f"valid loss {self.loss:.3f}, accuracy {100 * self.accuracy:.1f} %"

    @property
    def accuracy(self) -> float:
        """The fraction of images classified correctly."""
        return int(self.correct.sum()) / len(self.y)


def scores(train: Score, valid: Score) -> dict[str, float]:
    """Return the metrics at one moment, all in eval mode; a positive gap means better on the training images."""
    return {
        "loss/valid": valid.loss,
        "accuracy/valid": valid.accuracy,
        "loss/train_eval": train.loss,
        "accuracy/train_eval": train.accuracy,
        "gap/loss": valid.loss - train.loss,
        "gap/accuracy": train.accuracy - valid.accuracy,
    }
