"""The contrast that a prediction is about, as it is recorded: which arms are compared, with which weights and seeds."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from cnnlab.config import DATA_SHA256, Config
from cnnlab.params import ConfigError, differences, from_params, replace, to_params
from cnnlab.tracking.table import Identity


def in_words(a: Config, b: Config) -> str:
    """Return in which fields two configs differ, such as "dropout 0.0 -> 0.5, epochs 3 -> 8"."""
    return ", ".join(f"{name} {before} -> {after}" for name, (before, after) in differences(a, b).items())


@dataclass(frozen=True)
class Contrast:
    """What is compared: the effect is the sum of weight x mean over the arms, and the weights add up to zero.

    arms: the config of each arm that has a weight. new: the arms whose results have to be unknown for a prediction
    to be one; those of the others (a control) may be known. factors: the fields whose effect is asked for, which
    differ between the arms; nuisances: fields that differ and that the study declares as no part of its question.
    """

    kind: Literal["arm", "trend", "interaction"]
    text: str  # such as "dropout=0.5 against dropout=0.0"
    control: str
    arms: dict[str, Config]
    weights: dict[str, float]
    new: tuple[str, ...]
    seeds: tuple[int, ...]
    factors: tuple[str, ...]
    nuisances: tuple[str, ...]
    images: str = DATA_SHA256  # of the runs; predictions from before there was this field are about Fashion-MNIST

    def difference(self) -> str:
        """Return in a sentence what differs between two arms, where their names don't say it, or where it is more than
        one thing; else ""."""
        if self.kind != "arm":
            return ""  # a trend and an interaction are found by the configs of their arms
        (arm,) = (name for name in self.weights if name != self.control)
        pairs = differences(self.arms[self.control], self.arms[arm])
        if len(pairs) == 1 and all(f"{name}={after}" in arm for name, (_, after) in pairs.items()):
            return ""
        said, settings = in_words(self.arms[self.control], self.arms[arm]), set(pairs) - {"seed"}
        if len(settings) > 1:
            return f"{len(settings)} settings differ at once ({said}): the effect is that of all of them together."
        return f"What differs: {said}" + (", nothing else." if settings else ", that is, chance alone.")

    def to_json(self) -> str:
        """Return the text of the record: the control's config whole, the others as what differs from it."""
        base = self.arms[self.control]
        changes = {arm: {k: str(v) for k, v in c if v != getattr(base, k)} for arm, c in self.arms.items()}
        rest: dict[str, Any] = {name: value for name, value in vars(self).items() if name != "arms"}
        return json.dumps(rest | {"base": to_params(base), "arms": changes})

    @classmethod
    def from_json(cls, text: str) -> "Contrast":
        """Return what `to_json` wrote.

        Raises:
            ConfigError: it was written by another version of the lab, or not by the lab.
        """
        try:
            whole = json.loads(text)
            base = whole.pop("base")
            arms = {arm: from_params(Config, base | changes) for arm, changes in whole.pop("arms").items()}
            lists = {name: tuple(whole[name]) for name in ("new", "seeds", "factors", "nuisances")}
            if unknown := {whole["control"], *whole["weights"], *lists["new"]} - set(arms):
                raise KeyError(*unknown)
            return cls(**(whole | lists | {"arms": arms}))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ConfigError(
                f"not the contrast of a prediction of this lab ({type(error).__name__}: {error})."
            ) from None

    def unlike(self, arms: Mapping[str, Config], images: str) -> str:
        """Return in words in what a study isn't what was predicted, by its arms and images; "" where it is."""
        for arm, config in self.arms.items():
            if arm not in arms:
                return f"it has no arm {arm}"
            if changed := in_words(config, arms[arm]):
                return f"its arm {arm} was changed ({changed})"
        return "" if images == self.images else "its images are others"

    def look_alike(self, identity: Identity) -> Identity:
        """Return what a run has in common with those whose results tell its own: precision changes next to nothing."""
        if "precision" in self.factors:
            return identity
        return Identity(replace(identity.config, precision="auto"), identity.images)

    @property
    def question(self) -> tuple[tuple[Identity, float], ...]:
        """The arms with their weights, in an order of their own, and the same whichever way one subtracts.

        An arm without a weight adds nothing: a trend over three even levels asks what its last and its first arm ask.
        """
        alike = {arm: self.look_alike(Identity.of(self.arms[arm], self.images)) for arm in self.weights}
        weights = [(alike[arm], weight) for arm, weight in self.weights.items() if weight]
        weights.sort(key=lambda pair: str(pair[0]))
        sign = 1 if weights[0][1] > 0 else -1
        return tuple((identity, sign * weight) for identity, weight in weights)

    def runs(self, arms: Iterable[str]) -> dict[Identity, tuple[str, int]]:
        """Return the runs of some of its arms, each with arm and seed."""
        return {
            Identity.of(replace(config, seed=config.seed + seed), self.images): (arm, seed)
            for arm in arms
            for config in [self.arms[arm]]
            for seed in self.seeds
        }
