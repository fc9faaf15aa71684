"""What identifies a run: its config (with the seed) in canonical form, and the data that it was trained on."""

from typing import Any, NamedTuple

from cnnlab.inquiry.params import Params, replace
from cnnlab.inquiry.task import task


class Identity(NamedTuple):
    """What identifies a run, together with its owner: two runs of one identity have the same results."""

    config: Any  # in its canonical form, with the seed
    images: str  # the fingerprint of the training and validation data; "" if it isn't known

    @classmethod
    def of(cls, config: Params, images: str) -> "Identity":
        """Return the identity of the run of a config on some images."""
        return cls(task().canonical(config), images)

    @property
    def arm(self) -> "Identity":
        """What it shares with the runs that differ only in their seed."""
        return self._replace(config=replace(self.config, seed=0))

    @property
    def look_alike(self) -> "Identity":
        """What it shares with runs whose results reveal its own, since their differences change next to nothing."""
        return self._replace(config=replace(self.config, **task().negligible))


def differences(a: Params, b: Params) -> dict[str, tuple[Any, Any]]:
    """Return the fields in which two params of one kind differ, with both values; fields without effect don't count."""
    one, other = task().canonical(a), task().canonical(b)
    return {name: (before, getattr(other, name)) for name, before in one if before != getattr(other, name)}


def in_words(a: Params, b: Params) -> str:
    """Return the fields in which two configs differ, such as "dropout 0.0 -> 0.5, epochs 3 -> 8"."""
    return ", ".join(f"{name} {before} -> {after}" for name, (before, after) in differences(a, b).items())
