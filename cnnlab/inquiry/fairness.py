"""Is a comparison fair? What differs between two arms besides the declared factor, from measured facts only.

Runs are compared seed by seed: each run of an arm with the control's run of the same seed. Where a declared field of
`Config` explains a difference (dropout changes the tree of modules), that is the experiment. What nothing explains
is either unfair, and then there is no verdict, or harmless, and then it is noted.
"""

import difflib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import version

import pandas as pd

from cnnlab.config import Config, differences, replace
from cnnlab.models import ACTIVATIONS, HEAD_NORMS, NORMS, build_model

# Facts that a field of Config may change; whatever else differs has another cause.
_TREE = ("module_tree", "module_tree_sha256", "num_parameters")
EXPLAINS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("blocks", "kernel_size", "activation", "norm", "norm_groups", "residual", "head_norm"), _TREE),
    **dict.fromkeys(("dropout", "conv_dropout", "conv_dropout_kind", "conv_dropout_place"), _TREE),
    "train_images": ("num_train", "train_sha256", "images_seen", "steps", "schedule", "kept"),
    "epochs": ("images_seen", "steps", "schedule", "kept", "outcome"),
    "batch_size": ("batch_size", "steps", "schedule", "kept"),
    "optimizer": ("optimizer", "schedule"),
    "lr": ("optimizer", "schedule"),
    "weight_decay": ("optimizer",),
    "momentum": ("optimizer", "schedule"),
    "label_smoothing": ("loss",),
    "schedule": ("optimizer", "schedule"),
    "keep": ("kept",),
    "patience": ("early_stopping", "images_seen", "steps", "kept", "outcome"),
    "precision": ("precision",),
    "seed": ("train_sha256",),
}
ORDER = "the order of their layers"
# Kinds of modules that a field adds, removes or changes; "*" is any.
MODULES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("norm", "norm_groups"), tuple(type(make(2, 1)).__name__ for make in NORMS.values())),
    "head_norm": tuple(layer.__name__ for layer in HEAD_NORMS.values()),
    "dropout": ("Dropout",),
    **dict.fromkeys(("conv_dropout", "conv_dropout_kind"), ("Dropout", "Dropout2d")),
    "conv_dropout_place": ("Dropout", "Dropout2d", ORDER),
    "activation": tuple(layer.__name__ for layer in ACTIVATIONS.values()),
    "kernel_size": ("Conv2d",),
    **dict.fromkeys(("blocks", "residual"), ("*",)),
}
# A run that ended early did fewer steps: a consequence of what it was, not another treatment.
CONSEQUENCES = ("images_seen", "steps", "kept", "outcome")
# They can change what a network learns; the same numbers on another processor are not promised.
DECISIVE = ("device", "precision", "version.torch")
HARMLESS = ("threads", "system", "git_commit")
NEEDED = ("module_tree", "num_parameters", "steps", "images_seen", "valid_sha256", "optimizer", "schedule", "precision")


@dataclass
class Fairness:
    """Reasons against a verdict, what can't be known, harmless differences, and the diff of the networks."""

    unfair: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    tree_diff: str = ""

    @property
    def is_fair(self) -> bool:
        """Whether nothing stands against a verdict."""
        return not self.unfair and not self.unknown

    def __str__(self) -> str:
        parts = {"Unfair": self.unfair, "Can't know": self.unknown, "Noted": self.notes}
        lines = [f"{name}: {line}" for name, found in parts.items() for line in found]
        if self.tree_diff:
            lines += ["What differs in the networks (- control, + arm):", self.tree_diff]
        return "\n".join(lines or ["Nothing differs but what was declared."])

    __repr__ = __str__


def check_fairness(runs: pd.DataFrame, control: str, factors: Iterable[str], nuisances: Iterable[str]) -> Fairness:
    """Return what differs between the control and the other arms among `runs`, seed by seed.

    `runs` has the columns of `cnnlab.results`: `arm, seed, config`, and facts as `fact.<name>`. `factors` are the
    fields that are asked for, `nuisances` those that are declared to differ as well.
    """
    found = Fairness()
    declared = [*factors, *nuisances]
    _check_missing_facts(found, runs)
    _check_what_was_built(found, runs)
    by_arm = {arm: group.set_index("seed") for arm, group in runs.groupby("arm", sort=False)}
    control_runs = by_arm.pop(control)
    for arm, arm_runs in by_arm.items():
        seeds = [seed for seed in arm_runs.index if seed in control_runs.index]
        pairs = [(control_runs.loc[seed], arm_runs.loc[seed]) for seed in seeds]
        if pairs:
            _check_configs(found, str(arm), pairs, declared)
            _check_facts(found, str(arm), pairs, declared)
            _check_trees(found, str(arm), pairs[0], declared)
    for name in nuisances:
        if name != "seed":
            found.notes.append(f"{name} differs between the arms, as the study declares.")
    return found


def _check_missing_facts(found: Fairness, runs: pd.DataFrame) -> None:
    for name in NEEDED:
        column = f"fact.{name}"
        without = len(runs) if column not in runs else int(runs[column].isna().sum())
        if without:
            found.unknown.append(f"{name} was not measured in {without} of {len(runs)} runs.")


def _check_what_was_built(found: Fairness, runs: pd.DataFrame) -> None:
    """Compare the network that was trained with the one its params describe."""
    if "fact.module_tree" not in runs:
        return
    trees: dict[Config, str] = {}
    for row in runs.to_dict("records"):
        config, tree = replace(row["config"], seed=0), row["fact.module_tree"]
        if not isinstance(tree, str) or row.get("fact.version.torch") not in (None, version("torch")):
            continue  # another version of torch may print the same network in another way
        if config not in trees:
            trees[config] = str(build_model(config))
        if tree != (described := trees[config]):
            changed = _changed_modules(described, tree)
            found.unfair.append(
                f"{row['arm']}, seed {row['seed']}: the network that ran isn't the one its params describe "
                f"({', '.join(sorted(changed))})."
            )


def _check_configs(found: Fairness, arm: str, pairs: list[tuple[pd.Series, pd.Series]], declared: list[str]) -> None:
    differing = {name for a, b in pairs for name in differences(a["config"], b["config"])}
    for name in sorted(differing - {*declared, "seed"}):
        before, after = getattr(pairs[0][0]["config"], name), getattr(pairs[0][1]["config"], name)
        found.unfair.append(f"{arm}: {name} differs too ({before} -> {after}), and isn't declared.")


def _check_facts(found: Fairness, arm: str, pairs: list[tuple[pd.Series, pd.Series]], declared: list[str]) -> None:
    in_arm = {name for a, b in pairs for name in differences(a["config"], b["config"])}
    explained = {fact for name in in_arm if name in (*declared, "seed") for fact in EXPLAINS.get(name, ())}
    facts = [column.removeprefix("fact.") for column in pairs[0][0].index if str(column).startswith("fact.")]
    for name in facts:
        values = [(_text(a.get(f"fact.{name}")), _text(b.get(f"fact.{name}"))) for a, b in pairs]
        if name in CONSEQUENCES:  # of the seeds in which both runs came to their end
            values = [value for value, pair in zip(values, pairs, strict=True) if not _ended_early(pair)]
        differing = [(a, b) for a, b in values if a and b and a != b]
        if not differing or name in explained or name == "module_tree_sha256":
            continue
        before, after = differing[0]
        line = f"{arm}: {name} differs in {len(differing)} of {len(pairs)} seeds ({_short(before)} -> {_short(after)})."
        if name in HARMLESS or (name.startswith("version.") and name not in DECISIVE):
            found.notes.append(line)
        elif name != "module_tree":  # the trees are looked at line by line
            found.unfair.append(line)
    _note_early_ends(found, arm, pairs)
    _note_blocks(found, pairs)


def _ended_early(pair: tuple[pd.Series, pd.Series]) -> bool:
    return any(_text(run.get("fact.outcome")) not in ("", "finished") for run in pair)


def _note_early_ends(found: Fairness, arm: str, pairs: list[tuple[pd.Series, pd.Series]]) -> None:
    """Note runs that did fewer steps because they diverged or stopped early."""
    outcomes = {_text(run.get("fact.outcome")) for pair in pairs for run in pair if _ended_early(pair)} - {"finished"}
    if outcomes:
        seeds = sum(map(_ended_early, pairs))
        found.notes.append(
            f"{arm}: in {seeds} of {len(pairs)} seeds a run ended early ({', '.join(sorted(outcomes))}), so steps and "
            "images differ: a result of its settings."
        )


def _note_blocks(found: Fairness, pairs: list[tuple[pd.Series, pd.Series]]) -> None:
    """Note what is the same within each seed but not over all seeds: it is balanced, so it is fair."""
    for name in DECISIVE:
        values = {_text(run.get(f"fact.{name}")) for pair in pairs for run in pair} - {""}
        line = f"{name} is not the same for all seeds ({', '.join(sorted(values))}), but the same in both arms."
        balanced = all(_text(a.get(f"fact.{name}")) == _text(b.get(f"fact.{name}")) for a, b in pairs)
        if len(values) > 1 and balanced and line not in found.notes:
            found.notes.append(line)


def _check_trees(found: Fairness, arm: str, pair: tuple[pd.Series, pd.Series], declared: list[str]) -> None:
    """Check that the networks differ where a declared field says so, and nowhere else."""
    trees = [_text(run.get("fact.module_tree")) for run in pair]
    if not all(trees):
        return
    factors = [name for name in differences(pair[0]["config"], pair[1]["config"]) if name in declared]
    allowed = {kind for name in factors for kind in MODULES.get(name, ())}
    changed = _changed_modules(*trees)
    if unexplained := sorted(changed - allowed) if "*" not in allowed else []:
        found.unfair.append(f"{arm}: the networks also differ in {', '.join(unexplained)}, which isn't declared.")
    in_tree = [name for name in factors if name in MODULES]
    if in_tree and not changed:
        found.unfair.append(f"{arm}: {', '.join(in_tree)} differs in the params, but the same network was built.")
    if changed:
        found.tree_diff += f"{arm}:\n{_diff(*trees)}\n"


def _changed_modules(before: str, after: str) -> set[str]:
    """Return the kinds of modules, such as Dropout, in the lines that only one of two printed networks has."""
    lines, others = (Counter(line.strip() for line in tree.splitlines()) for tree in (before, after))
    changed = [line for line in (lines - others) + (others - lines) if line != ")"]
    kinds = {line.split(": ", 1)[-1].split("(")[0] for line in changed}
    return kinds or ({ORDER} if before != after else set())


def _diff(before: str, after: str) -> str:
    lines = difflib.ndiff(before.splitlines(), after.splitlines())
    return "\n".join(line for line in lines if line[:2] in ("- ", "+ "))


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
