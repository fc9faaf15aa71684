"""Profiles: the same studies at three sizes."""

import os
from dataclasses import dataclass, replace

from cnnlab.inquiry.design import MOST_SEEDS
from cnnlab.inquiry.errors import LabError


@dataclass(frozen=True)
class Profile:
    """How much is trained: images per epoch, epochs and seeds; runs of different profiles never mix.

    few_images, many_epochs: for the long training that overfits. short_images, short_epochs: for a short training, if
    train_images and epochs are too large for one. baseline_seeds: for the A/A test, whose spread every later study
    uses. interaction_seeds: for the study of an interaction, a difference of differences with twice the variance.
    trials: for the search. What a profile doesn't set is as in the quick one.
    """

    name: str
    train_images: int = 10_000
    epochs: int = 2
    seeds: int = 5
    baseline_seeds: int = 5
    few_images: int = 1_000
    many_epochs: int = 40
    long_dropouts: tuple[float, ...] = (0.0, 0.5)
    norms: tuple[str, ...] = ("none", "batch", "layer")
    lrs: tuple[float, ...] = (0.003, 0.03, 0.3)
    lr_epochs: int = 1
    tiny_batch_images: int = 2_000
    trials: int = 10
    interaction_seeds: int = 5
    short_images: int = 0
    short_epochs: int = 0

    def experiment(self, study: str) -> str:
        """Return the MLflow experiment of a study in this profile."""
        return study if self.name == "full" else f"{self.name}-{study}"


MOST = {"epochs": 10_000, "seeds": MOST_SEEDS}

PROFILES = {
    "tiny": Profile(  # a minute: does everything work?
        "tiny",
        train_images=640,
        epochs=1,
        seeds=2,
        baseline_seeds=2,
        few_images=320,
        many_epochs=2,
        tiny_batch_images=128,
        trials=3,
        interaction_seeds=2,
    ),
    "quick": Profile("quick"),  # minutes: in the classroom
    "full": Profile(  # hours: the results that count
        "full",
        train_images=55_000,
        epochs=8,
        baseline_seeds=10,
        long_dropouts=(0.0, 0.1, 0.3, 0.5),
        norms=("none", "batch", "layer", "group", "instance"),
        lrs=(0.003, 0.01, 0.03, 0.1, 0.3),
        lr_epochs=2,
        tiny_batch_images=10_000,
        trials=20,
        interaction_seeds=8,  # detect 0.010 nats with 80 % power if all four arms vary as the baseline does (SD 0.004)
        short_images=10_000,
        short_epochs=2,
    ),
}


def find_profile(name: str | None = None, epochs: int | None = None, seeds: int | None = None) -> Profile:
    """Return a profile by name (default: that of `CNNLAB_PROFILE`, else quick), with other epochs or seeds if given.

    A changed profile is called "custom": its runs get experiments of their own.

    Raises:
        LabError: there is no such profile, or fewer than one epoch or seed.
    """
    name = name or os.environ.get("CNNLAB_PROFILE") or "quick"
    if name not in PROFILES:
        raise LabError(f"there is no profile {name!r}: choose {', '.join(PROFILES)} (or set CNNLAB_PROFILE to one).")
    for number, what in ((epochs, "epochs"), (seeds, "seeds")):
        if number is not None and not 1 <= number <= MOST[what]:
            raise LabError(f"{what}={number} is not possible: choose 1 to {MOST[what]:,}.")
    profile = PROFILES[name]
    wanted = replace(
        profile,
        epochs=epochs or profile.epochs,
        seeds=seeds or profile.seeds,
        baseline_seeds=seeds or profile.baseline_seeds,
        interaction_seeds=seeds or profile.interaction_seeds,
    )
    return profile if wanted == profile else replace(wanted, name="custom")
