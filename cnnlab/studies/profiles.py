"""Profiles: the same studies at three sizes, and the studies of the lab."""

import os
from dataclasses import dataclass, replace

from cnnlab.config import BASE
from cnnlab.config import replace as replace_config
from cnnlab.errors import LabError
from cnnlab.studies.study import Study


@dataclass(frozen=True)
class Profile:
    """How much is trained: images per epoch, epochs and seeds; runs of different profiles never mix."""

    name: str
    train_images: int
    epochs: int
    seeds: int

    def experiment(self, study: str) -> str:
        """Return the MLflow experiment of a study in this profile."""
        return study if self.name == "full" else f"{self.name}-{study}"


PROFILES = {
    "tiny": Profile("tiny", train_images=640, epochs=2, seeds=2),  # seconds: does everything work?
    "quick": Profile("quick", train_images=10_000, epochs=3, seeds=3),  # minutes: in the classroom
    "full": Profile("full", train_images=55_000, epochs=8, seeds=5),  # hours: the results that count
}


def find_profile(name: str | None = None, epochs: int | None = None, seeds: int | None = None) -> Profile:
    """Return a profile by name (else that of `CNNLAB_PROFILE`, else quick), with the epochs or seeds changed.

    A changed profile is called "custom": its runs get experiments of their own.

    Raises:
        LabError: there is no such profile, or fewer than one epoch or seed.
    """
    name = name or os.environ.get("CNNLAB_PROFILE") or "quick"
    if name not in PROFILES:
        raise LabError(f"there is no profile {name!r}: choose {', '.join(PROFILES)} (or set CNNLAB_PROFILE to one).")
    profile = PROFILES[name]
    wanted = replace(profile, epochs=epochs or profile.epochs, seeds=seeds or profile.seeds)
    return profile if wanted == profile else replace(wanted, name="custom")


def lab_studies(profile: Profile) -> dict[str, Study]:
    """Return the studies of the lab by name, at the size of `profile`."""
    base = replace_config(BASE, train_images=profile.train_images, epochs=profile.epochs)
    seeds = tuple(range(profile.seeds))
    studies = [
        Study(
            profile.experiment("01-baseline"),
            "How well does the plain network do, and how much does that depend on the seed?",
            base,
            seeds,
        ),
        Study(
            profile.experiment("02-dropout"),
            "What does dropout in the head change?",
            base,
            seeds,
            vary={"dropout": (0.0, 0.1, 0.3, 0.5)},
        ),
    ]
    return {study.name: study for study in studies}


def pick(studies: dict[str, Study], names: tuple[str, ...]) -> list[Study]:
    """Return the studies with these names or parts of names; all of them where no name is given.

    Raises:
        LabError: a name fits no study, or several.
    """
    if not names:
        return list(studies.values())
    chosen = []
    for name in names:
        fitting = [study for key, study in studies.items() if name in key]
        if len(fitting) != 1:
            raise LabError(f"{name!r} names {len(fitting)} studies: choose from {', '.join(studies)}.")
        chosen += fitting
    return chosen
