"""The contrast of a prediction: one arm against another, a trend over levels, or an interaction of two fields."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from cnnlab.inquiry.design import Design
from cnnlab.inquiry.errors import LabError
from cnnlab.inquiry.identity import Identity, differences, in_words
from cnnlab.inquiry.params import ConfigError, Params, from_params, literal, replace, to_params
from cnnlab.inquiry.task import task


@dataclass(frozen=True)
class Contrast:
    """What is compared: the effect is the sum of weight x mean over the arms, and the weights add up to zero.

    arms: the config of each arm that has a weight. new: the arms whose results must be unknown when the prediction is
    made; the results of the others (a control) may be known. factors: the fields whose effect is studied, which differ
    between the arms; nuisances: fields that differ, but that the study declares not to be part of its question.
    """

    kind: Literal["arm", "trend", "interaction"]
    text: str  # such as "dropout=0.5 against dropout=0.0"
    control: str
    arms: dict[str, Any]
    weights: dict[str, float]
    new: tuple[str, ...]
    seeds: tuple[int, ...]
    factors: tuple[str, ...]
    nuisances: tuple[str, ...]
    images: str  # the fingerprint of the data

    def difference(self) -> str:
        """Return a sentence about what differs between two arms; "" if it is one field and their names contain it."""
        if self.kind != "arm":
            return ""  # a trend and an interaction are found by the configs of their arms
        (arm,) = (name for name in self.weights if name != self.control)
        pairs = differences(self.arms[self.control], self.arms[arm])
        if len(pairs) == 1 and all(f"{name}={after}" in arm for name, (_, after) in pairs.items()):
            return ""
        said, settings = in_words(self.arms[self.control], self.arms[arm]), set(pairs) - {"seed"}
        if len(settings) > 1:
            return f"{len(settings)} settings differ at once ({said}): the effect is due to all of them together."
        return f"What differs: {said}" + (", no other setting." if settings else ", that is, chance alone.")

    def to_json(self) -> str:
        """Return the text for the record: the whole config of the control, and how each other arm differs from it."""
        base = self.arms[self.control]
        changes = {arm: {k: str(v) for k, v in c if v != getattr(base, k)} for arm, c in self.arms.items()}
        rest: dict[str, Any] = {name: value for name, value in vars(self).items() if name != "arms"}
        return json.dumps(rest | {"base": to_params(base), "arms": changes})

    @classmethod
    def from_json(cls, text: str) -> "Contrast":
        """Return the contrast that `to_json` wrote.

        Raises:
            ConfigError: another version of the lab, or another program, wrote the text.
        """
        try:
            whole = {"images": task().own_data} | json.loads(text)  # older predictions are about the task's own data
            base = whole.pop("base")
            arms = {arm: from_params(task().config_type, base | changes) for arm, changes in whole.pop("arms").items()}
            lists = {name: tuple(whole[name]) for name in ("new", "seeds", "factors", "nuisances")}
            whole["weights"] = {arm: float(weight) for arm, weight in whole["weights"].items()}
            if unknown := {whole["control"], *whole["weights"], *lists["new"]} - set(arms):
                raise KeyError(*unknown)
            return cls(**(whole | lists | {"arms": arms}))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ConfigError(
                f"not the contrast of a prediction of this lab ({type(error).__name__}: {error})."
            ) from None

    def unlike(self, arms: Mapping[str, Params], images: str) -> str:
        """Return how the arms or images of a study differ from those of the contrast, in words; "" if they don't."""
        for arm, config in self.arms.items():
            if arm not in arms:
                return f"it has no arm {arm}"
            if changed := in_words(config, arms[arm]):
                return f"its arm {arm} was changed ({changed})"
        return "" if images == self.images else "its images are different"

    def look_alike(self, identity: Identity) -> Identity:
        """Return what a run shares with all runs whose results would reveal its own, for this contrast."""
        return identity if set(task().negligible) & set(self.factors) else identity.look_alike

    @property
    def question(self) -> tuple[tuple[Identity, float], ...]:
        """The arms with their weights, in a fixed order and the same for both directions of subtraction.

        An arm of weight zero adds nothing: a trend over three equidistant levels is its last arm minus its first.
        """
        alike = {arm: self.look_alike(Identity.of(self.arms[arm], self.images)) for arm in self.weights}
        weights = [(alike[arm], weight) for arm, weight in self.weights.items() if weight]
        weights.sort(key=lambda pair: str(pair[0]))
        sign = 1 if weights[0][1] > 0 else -1
        return tuple((identity, sign * weight) for identity, weight in weights)

    def runs(self, arms: Iterable[str]) -> dict[Identity, tuple[str, int]]:
        """Return the runs of some of its arms, each with its arm and seed."""
        return {
            Identity.of(replace(config, seed=config.seed + seed), self.images): (arm, seed)
            for arm in arms
            for config in [self.arms[arm]]
            for seed in self.seeds
        }


def arm_contrast(study: Design, arm: str, against: str = "") -> Contrast:
    """Compare an arm with another one (default: the study's control): effect = arm - control.

    Raises:
        LabError: the study has no such arm, or it is its own control.
    """
    control = against or study.control
    for name in (arm, control):
        if name not in study.arms:
            raise LabError(f"{study.name} has no arm {name!r}: choose from {', '.join(study.arms)}.")
    if len(study.arms) == 1:
        raise LabError(f"{study.name} has only one arm: add another to compare it with, in `vary` or `arms`.")
    if arm == control:
        others = ", ".join(name for name in study.arms if name != control)
        raise LabError(f"{arm!r} is the control itself: choose another arm of {study.name}, {others}.")
    return _contrast("arm", f"{arm} against {control}", study, control, {arm: 1.0, control: -1.0}, (arm,))


def trend_contrast(study: Design, field: str) -> Contrast:
    """Compare the levels of one field: effect = change along the least-squares line, from lowest to highest level.

    The weights are those of the slope of a straight line through the means of the arms, times the range of the levels:
    w_i = (x_i - mean x) / sum (x_j - mean x)^2 x (max x - min x) (Montgomery 2017, Design and Analysis of
    Experiments, section 3.5, contrasts).

    Raises:
        LabError: the arms have fewer than three levels of this field, or levels that aren't numbers.
    """
    base = study.arms[study.control]
    arms = {arm: config for arm, config in study.arms.items() if set(differences(base, config)) <= {field}}
    levels = {arm: getattr(config, field, None) for arm, config in arms.items()}
    if len(levels) < 3 or not all(isinstance(x, int | float) and not isinstance(x, bool) for x in levels.values()):
        raise LabError(
            f"trend={field!r} is not possible: a trend needs three or more arms of {study.name} that differ only in "
            f"{field}, which must be a number; compare two arms with arm=... instead."
        )
    x = np.array(list(levels.values()), dtype=float)
    centred = x - x.mean()
    weights = centred / (centred**2).sum() * (x.max() - x.min())
    text = f"trend over {field}, from {x.min():g} to {x.max():g}"
    new = tuple(arm for arm in arms if arm != study.control)
    by_arm = dict(zip(arms, weights.round(12).tolist(), strict=True))
    return _contrast("trend", text, study, study.control, by_arm, new)


def interaction_contrast(study: Design, changes: Mapping[str, Any]) -> Contrast:
    """Compare the effect of one change with and without another: (both - b alone) - (a alone - neither).

    `changes` are two changes to the control: fields with their values, such as `{"dropout": 0.5, "norm": "batch"}`.
    The arms are found by their configs, so "both" is exactly the two changes together.

    Raises:
        LabError: there are not two changes, or one of the four arms is missing.
    """
    if len(changes) != 2:
        raise LabError(f"interaction={dict(changes)} is not possible: name two fields, each with a value.")
    base = study.arms[study.control]
    (a, b) = ({name: value} for name, value in changes.items())
    found = [_find(study, replace(base, **change)) for change in (a, b, a | b)]
    said = " and ".join(f"{name}={value}" for name, value in changes.items())
    by_arm = dict(zip([study.control, *found], (1.0, -1.0, -1.0, 1.0), strict=True))
    if len(by_arm) < 4:
        raise LabError(f"interaction={dict(changes)} is not possible: one of them changes nothing in the control.")
    return _contrast("interaction", f"interaction of {said}", study, study.control, by_arm, (found[2],))


def changes_from_text(changes: Iterable[str]) -> dict[str, Any]:
    """Parse changes such as "norm=batch" and "lr=0.3"; return the values by the names of their fields.

    Raises:
        LabError: one of them isn't a name and a value.
    """
    pairs = [change.partition("=") for change in changes]
    for name, equals, value in pairs:
        if not (name and equals and value):
            raise LabError(f"{name + equals + value!r} is not possible: write a field and its value, as norm=batch.")
    return {name.strip(): literal(value.strip()) for name, _, value in pairs}


def _find(study: Design, wanted: Params) -> str:
    for arm, config in study.arms.items():
        if not differences(config, wanted):
            return arm
    pairs = differences(study.arms[study.control], wanted).items()
    changed = ", ".join(f"{name}={after}" for name, (_, after) in pairs)
    raise LabError(
        f"{study.name} has no arm that is the control with {changed} and nothing else: an interaction needs four arms, "
        "neither, each change alone, and both."
    )


def _contrast(
    kind: Any, text: str, study: Design, control: str, weights: dict[str, float], new: tuple[str, ...]
) -> Contrast:
    arms = {arm: study.arms[arm] for arm in study.arms if arm in weights}
    differing = sorted({name for config in arms.values() for name in differences(arms[control], config)})
    factors = tuple(name for name in differing if study.roles[name] == "scientific")
    nuisances = tuple(name for name in differing if study.roles[name] == "nuisance")
    if not factors and set(nuisances) != {"seed"}:
        raise LabError(
            f"{text}: these arms differ only in {', '.join(nuisances)}, which {study.name} calls a nuisance."
        )
    return Contrast(kind, text, control, arms, weights, new, study.seeds, factors, nuisances, study.images)
