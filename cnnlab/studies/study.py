"""A study: one question, asked of several arms, each trained with several seeds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from cnnlab.config import Config, differences, replace
from cnnlab.errors import LabError


@dataclass(frozen=True)
class Study:
    """One question: arms x seeds, compared with one control arm, in one MLflow experiment.

    `vary` names the fields that are varied and their values; several fields make a grid. The control is the
    arm whose config is `base`. The same seeds are used in every arm, so that arms can be compared seed by seed.

    Raises:
        LabError: no seeds, a seed twice, or no arm that equals `base`.
    """

    name: str
    question: str
    base: Config
    seeds: tuple[int, ...]
    vary: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise LabError(f"seeds={self.seeds} is not possible: a study needs at least one seed, and each once.")
        if self.base not in self.arms.values():
            given = ", ".join(f"{name}={getattr(self.base, name)}" for name in self.vary)
            raise LabError(f"the study {self.name} has no control: put the value of its base ({given}) into vary.")

    @property
    def arms(self) -> dict[str, Config]:
        """The config of each arm (with the seed of `base`) by the arm's name, such as "dropout=0.3"."""
        if not self.vary:
            return {"baseline": self.base}
        grid = product(*self.vary.values())
        arms = [dict(zip(self.vary, values, strict=True)) for values in grid]
        return {arm_name(changes): replace(self.base, **changes) for changes in arms}

    @property
    def control(self) -> str:
        """The name of the arm that the others are compared with."""
        return next(name for name, config in self.arms.items() if config == self.base)

    def runs(self) -> list[tuple[str, Config]]:
        """Return every run as (arm, config), one whole block of arms after the other."""
        return [(arm, replace(config, seed=seed)) for seed in self.seeds for arm, config in self.arms.items()]

    def describe(self) -> str:
        """Return what will be run, in one sentence."""
        arms = f"{len(self.arms)} arms" if len(self.arms) > 1 else "1 arm"
        return (
            f"{self.name}: {arms} x {len(self.seeds)} seeds, each {self.base.epochs} epochs "
            f"of {self.base.train_images:,} images. {self.question}"
        )


def arm_name(changes: Mapping[str, Any]) -> str:
    """Return the name of an arm from what it changes."""
    return ", ".join(f"{name}={value}" for name, value in changes.items())


def changed(a: Config, b: Config) -> str:
    """Return in words what differs between two configs, apart from the seed."""
    pairs = differences(replace(a, seed=0), replace(b, seed=0))
    return ", ".join(f"{name}: {before} -> {after}" for name, (before, after) in pairs.items())
