"""The design of a study: one question, and several arms, each trained with several seeds."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any, ClassVar, Literal, get_args

from cnnlab.inquiry.checked import called
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.identity import differences
from cnnlab.inquiry.names import check_name
from cnnlab.inquiry.params import Params, replace
from cnnlab.inquiry.task import Data, task

Role = Literal["scientific", "nuisance", "fixed"]
MOST_SEEDS = 1000  # of a study


@dataclass(frozen=True)
class Design:
    """One question: arms x seeds, compared with one control arm, in one MLflow experiment.

    The arms come from `vary`, which lists the values of each field that varies (several fields make a grid), or they
    are named: `arms={"none": BASE, "batch": replace(BASE, norm="batch")}`. The control is the arm named `control`,
    else the one whose config is `base`.

    Every arm is trained with the same `seeds`, so that arms can be compared seed by seed. The seed in an arm's config
    is added to them: two arms that differ only in this seed (an A/A test) get different random numbers.

    `roles` gives the role of a field in this question (Godbole et al. 2023, Deep Learning Tuning Playbook). Scientific:
    the question is about its effect. Nuisance: it may differ, but the question isn't about it. Fixed: it is the same in
    all arms. By default a field that differs between arms is scientific, the seed is a nuisance, the rest is fixed. If
    named arms differ in how much is trained (`Task.budget`), that field's role must be given.

    `data` are the data to train on, unless they are the task's own. They are part of a run's identity.

    Raises:
        LabError: impossible names, seeds, arms, control or roles; the message says which and why.
    """

    noun: ClassVar[str] = "Study"  # what it is called in an error

    name: str
    question: str
    base: Any  # a Config
    seeds: tuple[int, ...]
    vary: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    arms: Mapping[str, Any] = field(default_factory=dict)
    control: str = ""
    roles: Mapping[str, Role] = field(default_factory=dict)
    data: Data | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_name("study", self.name)
        self._check_kinds()
        object.__setattr__(self, "arms", self._all_arms())
        self._check_seeds()
        object.__setattr__(self, "seeds", tuple(self.seeds))
        object.__setattr__(self, "control", self.control or self._arm_of_base())
        if self.control not in self.arms:
            raise LabError(
                f"control={self.control!r} is not an arm of {self.name}: choose from {', '.join(self.arms)}."
            )
        object.__setattr__(self, "roles", self._all_roles())
        self._check_no_run_is_in_two_arms()
        self._check_data()

    def _check_kinds(self) -> None:
        kinds: dict[str, type] = {"question": str, "base": task().config_type, "control": str}
        kinds |= dict.fromkeys(("vary", "arms", "roles"), Mapping)
        for name, kind in kinds.items():
            if not isinstance(value := getattr(self, name), kind):
                raise LabError(f"{self.name}: {name} is {value!r}, and should be a {called(kind)}.")

    def _check_data(self) -> None:
        for arm, config in self.arms.items():
            try:
                task().check(config, self.data)
            except LabError as error:
                raise LabError(f"{self.name}, {arm}: {error}") from None

    def _check_seeds(self) -> None:
        seeds: Any = self.seeds
        few = isinstance(seeds, Collection) and 1 <= len(seeds) <= MOST_SEEDS
        if not few or not all(type(seed) is int for seed in seeds) or len(set(seeds)) < len(seeds):
            shown = f"{len(seeds):,} of them" if isinstance(seeds, Collection) and not few else repr(seeds)
            raise LabError(
                f"seeds: {shown} is not possible: a study has 1 to {MOST_SEEDS:,} seeds, each a whole number, each "
                "once, such as (0, 1, 2) or my_seeds(5)."
            )
        for config in self.arms.values():
            for seed in (min(self.seeds), max(self.seeds)):
                if not 0 <= config.seed + seed < 2**32:
                    raise LabError(
                        f"seeds: {seed} is not possible: with the seed of its arm, {config.seed}, added, a run's seed "
                        "lies between 0 and 2**32 - 1."
                    )

    def _check_no_run_is_in_two_arms(self) -> None:
        owners: dict[Params, tuple[str, int]] = {}
        for arm, seed, config in self.runs():
            if (twin := owners.setdefault(task().canonical(config), (arm, seed))) != (arm, seed):
                raise LabError(
                    f"{self.name}: {arm!r} with seed {seed} is the same run as {twin[0]!r} with seed {twin[1]}. Give "
                    "one of the two arms a seed further away, such as replace(BASE, seed=1000)."
                )

    def _all_arms(self) -> dict[str, Any]:
        if self.vary:
            for name, values in self.vary.items():
                if isinstance(values, str) or not isinstance(values, Iterable):
                    raise LabError(
                        f"vary: {name}={values!r} is not possible: give a tuple of values, such as (0.0, 0.5)."
                    )
            grid = [dict(zip(self.vary, values, strict=True)) for values in product(*self.vary.values())]
            arms = {arm_name(changes): replace(self.base, **changes) for changes in grid}
            if self.arms and dict(self.arms) != arms:
                raise LabError(f"{self.name}: give either `vary` or named `arms`, not both.")
        else:
            arms = dict(self.arms) or {"baseline": self.base}
        names: dict[Params, str] = {}
        for name, config in arms.items():
            check_name("arm", name)
            if not isinstance(config, task().config_type):
                raise LabError(f"{self.name}: the arm {name!r} is {config!r}, and should be a Config.")
            if (twin := names.setdefault(task().canonical(config), name)) != name:
                idle = ", ".join(field for field, value in config if value != getattr(arms[twin], field))
                why = f"they differ in {idle} only, which changes nothing here" if idle else "they have the same config"
                raise LabError(
                    f"{self.name}: the arms {twin!r} and {name!r} are the same: {why}. If that is what you want to "
                    "compare (an A/A test), give one of them another seed, such as replace(BASE, seed=1000)."
                )
        return arms

    def _arm_of_base(self) -> str:
        for name, config in self.arms.items():
            if not differences(config, self.base):
                return name
        if self.vary:
            given = ", ".join(f"{name}={getattr(self.base, name)}" for name in self.vary)
            raise LabError(f"the study {self.name} has no control: put the value of its base ({given}) into vary.")
        raise LabError(f"the study {self.name} has no control: name one of its arms, {', '.join(self.arms)}.")

    def _all_roles(self) -> dict[str, Role]:
        names = list(task().config_type.model_fields)
        for name, role in self.roles.items():
            if name not in names or role not in get_args(Role):
                allowed = ", ".join(get_args(Role))
                raise LabError(f"roles: {name}={role!r} is not possible: name a field of Config, and one of {allowed}.")
        differing = {name for config in self.arms.values() for name in differences(self.arms[self.control], config)}
        defaults: dict[str, Role] = {name: "scientific" if name in differing else "fixed" for name in names}
        roles = defaults | {"seed": "nuisance"} | dict(self.roles)
        for name in task().budget:
            if name in differing and name not in {**self.vary, **self.roles}:
                raise LabError(
                    f"{self.name}: the arms differ in {name}. If that is the question, say so with "
                    f"roles={{{name!r}: 'scientific'}}; else give all arms the same value, for a fair comparison."
                )
        for name, role in roles.items():
            if name in differing and role == "fixed":
                raise LabError(f"{self.name}: {name} has the role fixed, but it differs between the arms.")
            if name not in differing and role == "scientific":
                raise LabError(f"{self.name}: {name} has the role scientific, but it is the same in all arms.")
        return roles

    @property
    def images(self) -> str:
        """The fingerprint of the data that its runs are trained and validated on."""
        return self.data.sha256() if self.data else task().own_data

    def role(self, role: Role) -> list[str]:
        """Return the fields that have this role."""
        return [name for name, is_ in self.roles.items() if is_ == role]

    def runs(self) -> list[tuple[str, int, Any]]:
        """Return every run as (arm, seed, config): all arms with the first seed, then with the next, and so on."""
        return [
            (arm, seed, replace(config, seed=config.seed + seed))
            for seed in self.seeds
            for arm, config in self.arms.items()
        ]

    def differs(self, arm: str) -> str:
        """Return how an arm differs from the control, such as "dropout: 0.0 -> 0.3"."""
        pairs = differences(self.arms[self.control], self.arms[arm])
        return ", ".join(f"{name}: {before} -> {after}" for name, (before, after) in pairs.items())

    def describe(self) -> str:
        """Return a sentence about what will be run."""
        arms, seeds = count(len(self.arms), "arm"), count(len(self.seeds), "seed")
        each = " or ".join(dict.fromkeys(task().size(config) for config in self.arms.values()))
        return f"{self.name}: {arms} x {seeds}, each {each}. {self.question}"


def arm_name(changes: Mapping[str, Any]) -> str:
    """Return the name of an arm, made from its changes."""
    return ", ".join(f"{name}={value}" for name, value in changes.items())


def count(number: int, thing: str) -> str:
    """Return a number with what it counts, such as "1 seed" or "3 seeds"."""
    return f"{number} {thing}" + ("" if number == 1 else "s")
