"""The three kinds of question: one arm against another, a trend over levels, an interaction of two factors."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from cnnlab.config import Config
from cnnlab.errors import LabError
from cnnlab.params import differences, literal, replace
from cnnlab.studies.contrast import Contrast
from cnnlab.studies.study import Study


def arm_contrast(study: Study, arm: str, against: str = "") -> Contrast:
    """Compare an arm with another one, the study's control where none is named: effect = arm - control.

    Raises:
        LabError: the study has no such arm, or it is its own control.
    """
    control = against or study.control
    for name in (arm, control):
        if name not in study.arms:
            raise LabError(f"{study.name} has no arm {name!r}: choose from {', '.join(study.arms)}.")
    if len(study.arms) == 1:
        raise LabError(f"{study.name} has one arm only: add another to compare it with, in `vary` or `arms`.")
    if arm == control:
        others = ", ".join(name for name in study.arms if name != control)
        raise LabError(f"{arm!r} is what is compared with: choose another arm of {study.name}, {others}.")
    return _contrast("arm", f"{arm} against {control}", study, control, {arm: 1.0, control: -1.0}, (arm,))


def trend_contrast(study: Study, field: str) -> Contrast:
    """Compare over the levels of one field: effect = change along the least-squares line, lowest to highest level.

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
            f"trend={field!r} is not possible: a trend needs three arms or more of {study.name} that differ in "
            f"nothing but {field}, a number; for two, compare one arm with the other."
        )
    x = np.array([float(level) for level in levels.values() if level is not None])
    centred = x - x.mean()
    weights = centred / (centred**2).sum() * (x.max() - x.min())
    text = f"trend over {field}, from {x.min():g} to {x.max():g}"
    new = tuple(arm for arm in arms if arm != study.control)
    by_arm = dict(zip(arms, weights.round(12).tolist(), strict=True))
    return _contrast("trend", text, study, study.control, by_arm, new)


def interaction_contrast(study: Study, changes: Mapping[str, Any]) -> Contrast:
    """Compare the effect of one change with and without another: (both - b alone) - (a alone - neither).

    `changes` are two fields with their values, such as `{"dropout": 0.5, "norm": "batch"}`, made to the control.
    The arms are found by their configs, so that "both" is exactly the two changes together and nothing else.

    Raises:
        LabError: not two changes, or one of the four arms is missing.
    """
    if len(changes) != 2:
        raise LabError(f"interaction={dict(changes)} is not possible: name two fields with a value each.")
    base = study.arms[study.control]
    (a, b) = ({name: value} for name, value in changes.items())
    found = [_find(study, replace(base, **change)) for change in (a, b, a | b)]
    said = " and ".join(f"{name}={value}" for name, value in changes.items())
    by_arm = dict(zip([study.control, *found], (1.0, -1.0, -1.0, 1.0), strict=True))
    if len(by_arm) < 4:
        raise LabError(f"interaction={dict(changes)} is not possible: one of them changes nothing in the control.")
    return _contrast("interaction", f"interaction of {said}", study, study.control, by_arm, (found[2],))


def changes_from_text(changes: Iterable[str]) -> dict[str, Any]:
    """Return changes written as text, such as "norm=batch" and "lr=0.3", by the field's name.

    Raises:
        LabError: one of them isn't a name and a value.
    """
    pairs = [change.partition("=") for change in changes]
    for name, equals, value in pairs:
        if not (name and equals and value):
            raise LabError(f"{name + equals + value!r} is not possible: write a field and its value, as norm=batch.")
    return {name.strip(): literal(value.strip()) for name, _, value in pairs}


def _find(study: Study, wanted: Config) -> str:
    for arm, config in study.arms.items():
        if config.canonical() == wanted.canonical():
            return arm
    pairs = differences(study.arms[study.control], wanted).items()
    changed = ", ".join(f"{name}={after}" for name, (_, after) in pairs)
    raise LabError(
        f"{study.name} has no arm that is the control with {changed} and nothing else: an interaction needs four arms, "
        "neither, each change alone, and both."
    )


def _contrast(
    kind: Any, text: str, study: Study, control: str, weights: dict[str, float], new: tuple[str, ...]
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
