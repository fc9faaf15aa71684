"""The studies of the lab, each at the size of a profile."""

import difflib
from collections.abc import Iterable, Mapping

import pandas as pd

from cnnlab.config import BASE, BEST, Config, replace
from cnnlab.course.profiles import Profile
from cnnlab.data import Data
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.record.store import Store
from cnnlab.inquiry.run.choose import choose_engine
from cnnlab.inquiry.run.engines import Engine
from cnnlab.inquiry.run.plan import duration
from cnnlab.inquiry.seeds import OFFSET, my_seeds
from cnnlab.inquiry.study import Study

SECTIONS = {  # of the notebook, in its order; those up to 4b are the core of the course
    "1": "01-baseline",
    "2a": "02-dropout",
    "2b": "02-dropout-long",
    "3a": "03-normalization",
    "4a": "04-combined",
    "4b": "04-order",
    "3b": "03-learning-rates",
    "3c": "03-rates-per-norm",
    "3d": "03-tiny-batches",
    "5": "05-search",
}
CORE = 6  # of them
FIRST_OF_THEIR_OWN = 50  # the place of the first seed of studies that no run of another profile tells anything about
FIRST_OF_BEST = 200  # the place of the first seed of the study of BEST; no search and no exploration has used it
# what the search of the reference found (05-search)
SEARCHED = replace(BASE, blocks=((2, 16), (2, 32), (2, 64)), norm="layer", norm_groups=4, dropout=0.2, lr=0.00744)


class Studies(dict[str, Study]):
    """Studies by name, with or without their profile: "02-dropout" also finds "quick-02-dropout".

    Raises:
        LabError: there is no study of that name; the message lists those that exist.
    """

    def __missing__(self, name: object) -> Study:
        for known, study in self.items():
            if isinstance(name, str) and known.endswith(f"-{name}") and name[:1].isdigit():
                return study
        raise LabError(f"there is no study {name!r}: {_did_you_mean(str(name), self)}choose from {', '.join(self)}.")


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "did you mean ...?" with the study whose name is closest, "" where none is close."""
    short = {one.split("-", 1 + one.startswith(("quick-", "tiny-", "custom-")))[-1]: one for one in known}
    close = [one for one in short.values() if name in one]
    close = close or [short[one] for one in difflib.get_close_matches(name, short, n=1)]
    return f"did you mean {close[0]!r}? Otherwise " if close else ""


def lab_studies(profile: Profile, of: str = "") -> Studies:
    """Return the studies of the lab by name, in the order of the notebook.

    Their seeds are those of an owner (`of`; default: this one).
    """
    base = replace(BASE, train_images=profile.train_images, epochs=profile.epochs)
    seeds, more = my_seeds(profile.seeds, of=of), my_seeds(profile.interaction_seeds, of=of)
    own = my_seeds(profile.seeds, first=FIRST_OF_THEIR_OWN, of=of)
    studies = [
        _baseline(profile, base, my_seeds(profile.baseline_seeds, of=of)),
        _dropout(profile, base, seeds),
        *([_dropout_short(profile, base, own)] if profile.short_images else []),
        _dropout_long(profile, base, own),
        _normalization(profile, base, seeds),
        _combined(profile, base, more),
        _order(profile, base, more),
        _learning_rates(profile, base, seeds),
        _rates_per_norm(profile, base, seeds),
        _tiny_batches(profile, base, seeds),
        *([_best(profile, base, of)] if profile.short_images else []),
    ]
    return Studies((study.name, study) for study in studies)


def _baseline(profile: Profile, base: Config, seeds: tuple[int, ...]) -> Study:
    """An A/A test: the same arm twice, with different random numbers."""
    return Study(
        profile.experiment("01-baseline"),
        "How different are two arms that differ only by chance?",
        base,
        seeds,
        arms={"baseline": base, "baseline again": replace(base, seed=OFFSET)},
    )


def _dropout(profile: Profile, base: Config, seeds: tuple[int, ...]) -> Study:
    return Study(
        profile.experiment("02-dropout"),
        "What does dropout in the head change, in a short training on many images?",
        base,
        seeds,
        vary={"dropout": (0.0, 0.1, 0.3, 0.5)},
    )


def _dropout_short(profile: Profile, base: Config, seeds: tuple[int, ...]) -> Study:
    """The quick profile's question about dropout, with more seeds."""
    return Study(
        profile.experiment("02-dropout-short"),
        "What does dropout in the head change, in a very short training?",
        replace(base, train_images=profile.short_images, epochs=profile.short_epochs),
        seeds,
        vary={"dropout": (0.0, 0.1, 0.3, 0.5)},
    )


def _dropout_long(profile: Profile, base: Config, seeds: tuple[int, ...]) -> Study:
    """Few images, many passes: here a network overfits."""
    few, many = profile.few_images, profile.many_epochs
    return Study(
        profile.experiment("02-dropout-long"),
        "What does dropout in the head change, in a long training on few images?",
        replace(base, train_images=few, epochs=many),
        seeds,
        vary={"dropout": profile.long_dropouts},
    )


def _learning_rates(profile: Profile, base: Config, seeds: tuple[int, ...]) -> Study:
    """Plain SGD, which does nothing against a learning rate that is too high."""
    return Study(
        profile.experiment("03-learning-rates"),
        "Does batch normalisation widen the range of learning rates that work?",
        replace(base, optimizer="sgd", epochs=profile.lr_epochs, lr=0.03),
        seeds,
        vary={"norm": ("none", "batch"), "lr": profile.lrs},
    )


def _normalization(profile: Profile, base: Config, seeds: tuple[int, ...]) -> Study:
    return Study(
        profile.experiment("03-normalization"),
        "What does a normalisation layer change, and does it matter which one?",
        base,
        seeds,
        vary={"norm": profile.norms},
    )


def _rates_per_norm(profile: Profile, base: Config, seeds: tuple[int, ...]) -> Study:
    """The baseline's rate was chosen for a network without a norm; here each norm gets three to choose from."""
    return Study(
        profile.experiment("03-rates-per-norm"),
        "Do the norms compare in the same way when each has the learning rate that suits it?",
        base,
        seeds,
        vary={"norm": ("none", "batch", "layer"), "lr": (0.002, 0.006, 0.018)},
    )


def _tiny_batches(profile: Profile, base: Config, seeds: tuple[int, ...]) -> Study:
    """Batches of two, where a mean over images has two values, and batches of 32 (Wu & He 2018)."""
    two = replace(base, batch_size=2, lr=1e-3, train_images=profile.tiny_batch_images, epochs=1)
    return Study(
        profile.experiment("03-tiny-batches"),
        "Batch normalisation with batches of two: where does it fail?",
        two,
        seeds,
        arms={
            "no norm": two,
            "batch norm in the convolutions": replace(two, norm="batch"),
            "group norm in the convolutions": replace(two, norm="group"),
            "batch norm in the head": replace(two, head_norm="batch"),
            "layer norm in the head": replace(two, head_norm="layer"),
            "no norm, batches of 32": replace(two, batch_size=32),
            "batch norm in the convolutions, batches of 32": replace(two, norm="batch", batch_size=32),
        },
    )


def _combined(profile: Profile, base: Config, seeds: tuple[int, ...]) -> Study:
    dropout, norm = {"conv_dropout": 0.2}, {"norm": "batch"}
    return Study(
        profile.experiment("04-combined"),
        "Do dropout and batch normalisation add up, and does their order matter?",
        base,
        seeds,
        arms={
            "neither": base,
            "dropout": replace(base, **dropout),
            "norm": replace(base, **norm),
            "norm, then dropout": replace(base, **norm, **dropout),
            "dropout, then norm": replace(base, **norm, **dropout, conv_dropout_place="before_norm"),
        },
    )


def _order(profile: Profile, base: Config, seeds: tuple[int, ...]) -> Study:
    """Two factors that 04-combined changes at once: the order of dropout and norm, and their place relative to
    the pooling."""
    both, dropout_first = replace(base, norm="batch", conv_dropout=0.2), {"conv_dropout_place": "before_norm"}
    return Study(
        profile.experiment("04-order"),
        "Dropout and norm in either order, before or after the pooling: what matters, the order or the place?",
        replace(both, pool="first"),
        seeds,
        arms={
            "pool, norm, dropout": replace(both, pool="first"),
            "pool, dropout, norm": replace(both, pool="first", **dropout_first),
            "norm, dropout, pool": replace(both, pool="last"),
            "dropout, norm, pool": replace(both, pool="last", **dropout_first),
        },
    )


def _best(profile: Profile, base: Config, of: str) -> Study:
    """The end of the search for a strong network; BEST trains for twice as long as the others."""
    return Study(
        profile.experiment("06-best"),
        "How much better is the best network that was found than the baseline, and than the winner of the search?",
        base,
        my_seeds(profile.baseline_seeds, first=FIRST_OF_BEST, of=of),
        arms={
            "baseline": base,
            "winner": replace(SEARCHED, train_images=base.train_images, epochs=base.epochs),
            "best": replace(BEST, train_images=base.train_images),
        },
        roles={"epochs": "scientific", "keep": "scientific"},
    )


def lab_map(studies: Mapping[str, Study], store: Store, engine: Engine) -> pd.DataFrame:
    """Return a row per study in the order of the notebook: its section there, whether it is in the core of the course,
    arms, seeds, and what is left to train, with the time for it on this machine. Runs that several studies share are
    counted in each.
    """
    rows = {}
    for name, study in studies.items():
        plan = study.plan(store, engine)
        section = next((number for number, known in SECTIONS.items() if name.endswith(known)), "")
        rows[name] = {
            "section": section,
            "path": "core" if section in [*SECTIONS][:CORE] else "extension",
            "arms": len(study.arms),
            "seeds": len(study.seeds),
            "runs to train": int(plan.arms["to train"].sum()),
            "time": duration(plan.seconds),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def shared_engine(studies: Mapping[str, Study], store: Store, data: Data | None = None) -> Engine:
    """Return one engine for several studies on the same images, so that worker processes start once; they end with this
    process. Give it to `study.run(engine=...)`.
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
        if len(fitting) > 1:
            raise LabError(f"{name!r} names {len(fitting)} studies: choose from {', '.join(s.name for s in fitting)}.")
        if not fitting:
            raise LabError(
                f"there is no study {name!r}: {_did_you_mean(name, studies)}choose from {', '.join(studies)}."
            )
        chosen += fitting
    return chosen
