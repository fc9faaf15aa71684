"""The studies of the lab, each at the size of a profile."""

from collections.abc import Mapping

from cnnlab.config import BASE, Config, replace
from cnnlab.data import Data
from cnnlab.errors import LabError
from cnnlab.studies.engines import Engine, choose_engine
from cnnlab.studies.profiles import Profile
from cnnlab.studies.study import Study
from cnnlab.tracking.store import Store


def lab_studies(profile: Profile) -> dict[str, Study]:
    """Return the studies of the lab by name, in the order of the notebook."""
    base = replace(BASE, train_images=profile.train_images, epochs=profile.epochs)
    studies = [
        _baseline(profile, base),
        _dropout(profile, base),
        *([_dropout_short(profile, base)] if profile.short_images else []),
        _dropout_long(profile, base),
        _learning_rates(profile, base),
        _normalization(profile, base),
        _tiny_batches(profile, base),
        _combined(profile, base),
    ]
    return {study.name: study for study in studies}


def _baseline(profile: Profile, base: Config) -> Study:
    """An A/A test: twice the same arm, with other random numbers."""
    return Study(
        profile.experiment("01-baseline"),
        "How different are two arms that differ in nothing but chance?",
        base,
        tuple(range(profile.baseline_seeds)),
        arms={"baseline": base, "baseline again": replace(base, seed=1000)},
    )


def _dropout(profile: Profile, base: Config) -> Study:
    return Study(
        profile.experiment("02-dropout"),
        "What does dropout in the head change, in a short training on many images?",
        base,
        _seeds(profile),
        vary={"dropout": (0.0, 0.1, 0.3, 0.5)},
    )


def _dropout_short(profile: Profile, base: Config) -> Study:
    """The quick profile's question about dropout, with more seeds."""
    return Study(
        profile.experiment("02-dropout-short"),
        "What does dropout in the head change, in a very short training?",
        replace(base, train_images=profile.short_images, epochs=profile.short_epochs),
        _seeds(profile),
        vary={"dropout": (0.0, 0.1, 0.3, 0.5)},
    )


def _dropout_long(profile: Profile, base: Config) -> Study:
    """Few images, many passes: here a network overfits."""
    few, many = profile.few_images, profile.many_epochs
    return Study(
        profile.experiment("02-dropout-long"),
        "What does dropout in the head change, in a long training on few images?",
        replace(base, train_images=few, epochs=many),
        _seeds(profile),
        vary={"dropout": profile.long_dropouts},
    )


def _learning_rates(profile: Profile, base: Config) -> Study:
    """Plain SGD, which has nothing of its own against a learning rate that is too high."""
    return Study(
        profile.experiment("03-learning-rates"),
        "Does batch normalisation widen the range of learning rates that work?",
        replace(base, optimizer="sgd", epochs=profile.lr_epochs, lr=0.03),
        _seeds(profile),
        vary={"norm": ("none", "batch"), "lr": profile.lrs},
    )


def _normalization(profile: Profile, base: Config) -> Study:
    return Study(
        profile.experiment("03-normalization"),
        "What does a normalisation layer change, and does it matter which one?",
        base,
        _seeds(profile),
        vary={"norm": profile.norms},
    )


def _tiny_batches(profile: Profile, base: Config) -> Study:
    """Batches of two: a mean over pixels still has many values, a mean over images has two."""
    base = replace(base, batch_size=2, lr=1e-3, train_images=profile.tiny_batch_images, epochs=1)
    return Study(
        profile.experiment("03-tiny-batches"),
        "Batch normalisation with batches of two: where does it fail?",
        base,
        _seeds(profile),
        arms={
            "no norm": base,
            "batch norm in the convolutions": replace(base, norm="batch"),
            "batch norm in the head": replace(base, head_norm="batch"),
            "layer norm in the head": replace(base, head_norm="layer"),
        },
    )


def _combined(profile: Profile, base: Config) -> Study:
    dropout, norm = {"conv_dropout": 0.2}, {"norm": "batch"}
    return Study(
        profile.experiment("04-combined"),
        "Do dropout and batch normalisation add up, and does their order matter?",
        base,
        tuple(range(profile.interaction_seeds)),
        arms={
            "neither": base,
            "dropout": replace(base, **dropout),
            "norm": replace(base, **norm),
            "norm, then dropout": replace(base, **norm, **dropout),
            "dropout, then norm": replace(base, **norm, **dropout, conv_dropout_place="before_norm"),
        },
    )


def _seeds(profile: Profile) -> tuple[int, ...]:
    return tuple(range(profile.seeds))


def shared_engine(studies: Mapping[str, Study], store: Store, data: Data | None = None) -> Engine:
    """Return one engine for several studies, so that worker processes start once; `close_engine` isn't needed: they end
    with this process. Give it to `study.run(engine=...)`.
    """
    images = sum(run.epochs * run.train_images for study in studies.values() for _, _, run in study.runs())
    return choose_engine("auto", store, images, data=data)


def pick(studies: dict[str, Study], names: tuple[str, ...]) -> list[Study]:
    """Return the studies with these names or parts of names; all of them where no name is given.

    Raises:
        LabError: a name fits no study, or several.
    """
    if not names:
        return list(studies.values())
    chosen = []
    for name in names:
        fitting = [study for key, study in studies.items() if key == name or key.endswith(f"-{name}")]
        fitting = fitting or [study for key, study in studies.items() if name in key]
        if len(fitting) != 1:
            raise LabError(f"{name!r} names {len(fitting)} studies: choose from {', '.join(studies)}.")
        chosen += fitting
    return chosen
